"""Take the README's picture of the service's page, with the drawn pronation example answered.

    python -m docs.page [http://localhost:8000]

Looks at a running service (`make serve`) with the system's Chromium; writes page.jpg beside itself.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from anklealign.io.files import replacing

PICTURE = Path("docs/page.jpg")


def main() -> None:
    """Show the page, try an example, and keep what is seen."""
    chromium = shutil.which("chromium")
    address = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
        replacing(PICTURE) as path,
    ):
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(address)
        page.click("[data-class=pronation] button")
        page.wait_for_selector("#heat:visible")
        page.wait_for_timeout(1000)  # until the bars have grown
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=path, type="jpeg", quality=82)


if __name__ == "__main__":
    main()
