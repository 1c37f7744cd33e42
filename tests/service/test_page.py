"""Tests of the page in a real browser: valid, rotated and broken photos from all sources."""

import http.server
import io
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from anklealign.io import files, results
from anklealign.models import bundle
from tests.service.conftest import (
    CLASSES,
    Served,
    eventually,
    photo,
    save_bundle,
    serving,
    settings_for,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="Chromium is not on the PATH"
    ),
]


@dataclass
class Visit:
    """An open page, its requested URLs and its console errors."""

    page: object
    requested_urls: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def upload(self, content: bytes, name: str = "a.jpg") -> None:
        self.page.set_input_files(
            "#file", {"name": name, "mimeType": "image/jpeg", "buffer": content}
        )

    def upload_several(self, photos: dict[str, bytes]) -> None:
        self.page.set_input_files(
            "#file",
            [{"name": n, "mimeType": "image/jpeg", "buffer": p} for n, p in photos.items()],
        )
        self.page.wait_for_selector("#download:enabled")

    def seen(self, selector: str) -> str:
        return self.page.inner_text(f"{selector}:visible", timeout=10_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - half a second, for these alone

    assert CHROMIUM is not None, "Chromium is not on the PATH but required in CI"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(params=[(1200, 900), (390, 844)], ids=["desktop", "phone"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


def visiting(browser: object, port: int, size: tuple[int, int], path: str = "/") -> Visit:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, permissions=["camera"]
    )
    visit = Visit(context.new_page())
    visit.page.on("request", lambda request: visit.requested_urls.append(request.url))
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on(
        "console",
        lambda line: visit.errors.append(line.text) if "Failed to load" not in line.text else 0,
    )
    visit.page.goto(f"http://127.0.0.1:{port}{path}")
    visit.page.wait_for_selector("#facts dd")
    return visit


@pytest.fixture
def visit(browser: object, service: Served, size: tuple[int, int]) -> Iterator[Visit]:
    made = visiting(browser, service.port, size)
    yield made
    # No request leaves this origin, and there are no policy violations or script errors.
    own = f"http://127.0.0.1:{service.port}/"
    assert all(url.startswith((own, "blob:", "data:")) for url in made.requested_urls)
    assert made.errors == []
    made.page.context.close()


def test_a_valid_photo_shows_class_probabilities_and_heat_map(
    visit: Visit, service: Served, size: tuple[int, int]
) -> None:
    data = photo(1)
    visit.upload(data)
    (expected,) = service.predict(data).json["predictions"]
    predicted = visit.seen(".predicted")
    assert predicted == ("Uncertain" if expected["abstain"] else expected["predicted"])
    rows = visit.page.locator(".bars li")
    assert [row.locator(".name").inner_text() for row in rows.all()] == list(CLASSES)
    for row, share in zip(rows.all(), expected["probabilities"].values(), strict=True):
        track = row.locator(".track").bounding_box()
        assert row.locator(".value").inner_text().endswith("%")
        width = row.locator(".fill").evaluate("e => parseFloat(e.style.width)")
        assert width == pytest.approx(share * 100, abs=0.01)
        assert track["width"] > 60
    # The result is announced to screen readers and receives the keyboard focus.
    visit.page.wait_for_selector("#heat:visible")
    assert eventually(lambda: predicted in visit.page.locator("#announcement").text_content())
    assert visit.page.evaluate("document.activeElement.id") == "output-title"
    # The heat map lies exactly over the photo, and the slider fades it.
    assert visit.page.locator("#heat").bounding_box() == visit.page.locator("#photo").bounding_box()
    visit.page.locator("#strength").fill("0")
    assert visit.page.locator("#heat").evaluate("e => e.style.opacity") == "0"
    # The page does not scroll horizontally.
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_a_rotated_photo_is_shown_upright_under_its_heat_map(visit: Visit) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.open(io.BytesIO(photo(2, size=(160, 80)))).save(stream, "JPEG", exif=exif)
    visit.upload(stream.getvalue())
    visit.page.wait_for_selector("#heat:visible")
    box = visit.page.locator("#photo").bounding_box()
    assert box["height"] == pytest.approx(2 * box["width"], rel=0.03)
    assert visit.page.locator("#heat").bounding_box() == box
    # The browser shows the original file instead of the model input.
    assert visit.page.locator("#photo").get_attribute("src").startswith("blob:")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (photo()[:-40], "truncated"),
        (b"This is a text.\n", "not a photo"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged"),
        (bytes(5_000_000), "too large"),
    ],
)
def test_a_broken_photo_shows_a_message_and_the_next_photo_works(
    visit: Visit, content: bytes, words: str
) -> None:
    visit.upload(content)
    assert words in visit.seen("#problem")
    assert not visit.page.locator("#result").is_visible()
    visit.upload(photo(3))
    assert visit.seen(".predicted")
    assert not visit.page.locator("#problem").is_visible()


def test_a_format_without_browser_support_shows_the_model_input(visit: Visit) -> None:
    visit.upload(photo(4, kind="TIFF"), "a.tif")
    visit.page.wait_for_selector("#heat:visible")
    assert visit.page.locator("#photo").is_visible()
    assert visit.page.locator("#photo").get_attribute("src").startswith("data:image/png")


def test_photos_can_be_added_by_keyboard_paste_drop_and_camera(visit: Visit) -> None:
    page = visit.page
    # Intercept file choosers from the start; enabling it on the key press may be too late.
    page.on("filechooser", lambda _: None)

    def answered(act) -> None:
        with page.expect_response("**/explain") as response:
            act()
        assert response.value.status == 200
        page.wait_for_selector("#result:visible")

    # Tab leads to the file field, whose label shows the focus; Space opens the browser's chooser.
    page.keyboard.press("Tab")  # the link that skips the header
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    label = page.locator("label.button")
    assert label.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert page.locator("#camera").evaluate("e => getComputedStyle(e).outlineStyle") == "none"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    answered(
        lambda: chooser.value.set_files(
            {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo(5)}
        )
    )
    script = """([kind, bytes]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "a.jpg", { type: "image/jpeg" }));
        const event = kind === "paste"
          ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
          : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    for number, kind in enumerate(("paste", "drop")):
        answered(lambda k=kind, n=number: page.evaluate(script, [k, list(photo(n))]))
    page.click("#camera")
    assert eventually(lambda: page.locator("#video").evaluate("e => e.videoWidth") > 0)
    answered(page.locator("#shoot").click)
    assert not page.locator("#viewfinder").is_visible()


def test_every_control_has_a_name_and_every_image_a_text_alternative(visit: Visit) -> None:
    visit.upload(photo(1))
    visit.page.wait_for_selector("#heat:visible")
    unnamed = visit.page.evaluate("""() =>
      [...document.querySelectorAll("button, input, select, summary, a, img, dialog")].filter((e) => {
        if (e.tagName === "IMG") return !e.hasAttribute("alt");
        const text = e.innerText || e.textContent || e.labels?.[0]?.textContent ||
          e.getAttribute("aria-labelledby") || e.getAttribute("aria-hidden");
        return !text?.trim();
      }).map((e) => e.outerHTML)""")
    assert unnamed == []
    assert visit.page.evaluate("document.documentElement.lang") == "en"
    assert visit.page.locator("[role=alert]").count() == 1
    assert visit.page.locator("[aria-live=polite]").count() == 1


def test_an_abstention_is_shown_and_the_model_card_is_inserted_as_text(
    browser: object, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "model", threshold=0.0)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/MODEL_CARD.md").write_text(
        f"# Card\n\n{results.bundle_hash(tmp_path / 'model')}\n\n"
        "**Bold** and `code`, <img src=x onerror=alert(1)>\n\n"
        "| score | value |\n|---|---:|\n| accuracy | 0.9 |\n\n- one\n  more\n- two\n",
        encoding="utf-8",
    )
    with serving(settings_for(tmp_path / "model")) as served:
        visit = visiting(browser, served.port, (1200, 900))
        visit.upload(photo(1))
        assert visit.seen(".predicted") == "Uncertain"
        assert "pronation, neutral or supination" in visit.seen(".reason")
        visit.page.click("#card summary")
        card = visit.page.locator("#card-text")
        assert "<img src=x onerror=alert(1)>" in card.inner_text()
        assert card.locator("td").all_inner_texts() == ["accuracy", "0.9"]
        assert card.locator("li").all_inner_texts() == ["one more", "two"]
        assert card.locator("strong").inner_text() == "Bold"
        assert visit.errors == []
        visit.page.context.close()


@contextmanager
def proxy(service: Served, prefix: str) -> Iterator[int]:
    """Pass requests below a path on to the service without the path, like nginx; yield the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix):
                return self.send_error(404)
            size = int(self.headers.get("Content-Length", 0))
            headers = {
                name: value for name, value in self.headers.items() if name.lower() != "host"
            }
            path = "/" + self.path.removeprefix(prefix)
            response = service.request(self.command, path, self.rfile.read(size) or None, **headers)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.end_headers()
            return self.wfile.write(response.body)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_page_works_below_a_path_of_a_proxy(
    browser: object, service: Served, size: tuple[int, int]
) -> None:
    with proxy(service, "/ankle/") as port:
        visit = visiting(browser, port, size, "/ankle/")
        visit.upload(photo(1))
        (expected,) = service.predict(photo(1)).json["predictions"]
        assert visit.seen(".predicted") in {"Uncertain", expected["predicted"]}
        visit.page.wait_for_selector("#heat:visible")
        base = f"http://127.0.0.1:{port}/ankle"
        assert visit.page.locator("#api-examples code").all_text_contents()[0].count(base) == 2
        links = visit.page.locator("a[href$='openapi.json']").evaluate_all(
            "all => all.map(a => a.href)"
        )
        assert set(links) == {f"{base}/openapi.json"}
        assert visit.page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius")
        assert all(url.startswith((f"{base}/", "blob:", "data:")) for url in visit.requested_urls)
        assert len(visit.requested_urls) > 8
        assert visit.errors == []
        visit.page.context.close()
