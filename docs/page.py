"""Take the README's screenshots: the web page with a prediction, and the report of the last run.

    python -m docs.page [http://localhost:8000]

Opens a running service (`make serve`) and plots/report.html in the system's Chromium. Writes
docs/page.jpg and docs/report.jpg, of equal size.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from anklealign.config import paths
from anklealign.io.files import replacing

DOCS = Path("docs")
SIZE = {"width": 1000, "height": 900}


def main() -> None:
    """Open the page, classify an example, open the report; save a screenshot of each."""
    chromium = shutil.which("chromium")
    address = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        ) as browser,
    ):
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.goto(address)
        page.click("#meanings .example >> nth=1")
        page.wait_for_selector("#heat:visible")
        page.wait_for_timeout(1000)  # until the bar animation ends
        save(page, "page.jpg")
        page.goto(paths.REPORT.resolve().as_uri())
        save(page, "report.jpg")


def save(page: Page, name: str) -> None:
    """Save what is visible at the top of a page."""
    page.evaluate("scrollTo(0, 0)")
    with replacing(DOCS / name) as path:
        page.screenshot(path=path, type="jpeg", quality=82)


if __name__ == "__main__":
    main()
