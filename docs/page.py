"""Take the README's screenshot of the web page, with predictions for the pronation example.

    python -m docs.page [http://localhost:8000]

Opens a running service (`make serve`) in the system's Chromium. Writes docs/page.jpg.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from anklealign.io.files import replacing

PICTURE = Path("docs/page.jpg")


def main() -> None:
    """Open the page, classify an example and save a screenshot."""
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
        page.wait_for_timeout(1000)  # until the bar animation ends
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=path, type="jpeg", quality=82)


if __name__ == "__main__":
    main()
