"""Tests of the page in a real browser: valid, rotated and broken photos from all sources."""

import csv
import http.server
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from anklealign.io import files, results
from anklealign.models import bundle
from anklealign.models.bundle import Bundle
from tests.service.conftest import (
    CLASSES,
    Served,
    eventually,
    photo,
    save_bundle,
    serving,
    settings_for,
)

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".ci/charts/node_modules/axe-core/axe.min.js"
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


# As long as the lines of a real one.
CARD = """# Feet

## Scores

| score | value |
|---|---|
| accuracy | 0.9 |

| class | recall | precision | average precision | mean probability | photos |
|---|---|---|---|---|---|
| a longer name | a longer name | a longer name | a longer name | a longer name | a longer name |

- Bundle: `HASH`

```console
$ anklealign predict photo.jpg --out predictions.csv  # and the path of the bundle, if it is another
```
"""


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


@pytest.fixture(params=[(1400, 900), (390, 844)], ids=["desktop", "phone"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


def visiting(
    browser: object, port: int, size: tuple[int, int], path: str = "/", **options: object
) -> Visit:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, permissions=["camera"], **options
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
        with page.expect_response("**/explain?*") as response:
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
      [...document.querySelectorAll("button, input, select, summary, a, img, dialog")]
      .filter((e) => {
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
        "| score | value | majority | gain of the model | annotators | seeds of training |\n"
        "|---|---:|---:|---:|---:|---:|\n| accuracy | 0.9 (0.8 to 0.95) | 0.4 | 0.5 | 0.8 | 3 |\n\n"
        "- one\n  more\n- two\n",
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
        assert card.locator("td").all_inner_texts()[:3] == ["accuracy", "0.9 (0.8 to 0.95)", "0.4"]
        assert card.locator("li").all_inner_texts() == ["one more", "two"]
        assert card.locator("strong").inner_text() == "Bold"
        visit.page.set_viewport_size({"width": 390, "height": 844})
        lines = visit.page.evaluate("""() => {
            const word = document.createRange();
            word.selectNodeContents(document.querySelectorAll('#card-text th')[2]);
            return word.getClientRects().length;
        }""")
        assert lines == 1, "a word is broken into lines"
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert visit.errors == []
        visit.page.context.close()


def save_named(folder: Path, title: str, seed: int, classes: tuple[str, ...] = CLASSES) -> None:
    """Save a bundle whose dataset has a title, meanings and example photos."""
    save_bundle(folder, threshold=0.9 - seed)
    made = bundle.load(folder)
    page = {
        "title": title,
        "description": f"Sorts photos for {title}.",
        "notice": f"A notice of {title} & its <makers>.",
        "classes": {classes[0]: f"What {title} calls first."},
        "examples": 1,
    }
    changed = Bundle(
        classes, made.preprocessing, made.input_config, 1.0,
        made.conformal_threshold,
        {"params": {"dataset_name": title, "dataset": {"page": page}}},
        examples={classes[0]: (photo(seed),), classes[1]: ()}, model=made.model,
    )  # fmt: skip
    bundle.save(folder, changed)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a folder of two bundles with other classes and texts."""
    folder = tmp_path_factory.mktemp("pair")
    save_named(folder / "models/feet", "Feet", 0)
    save_named(folder / "models/insects", "Insects", 1, ("ant", "bee", "=wasp"))
    (folder / "metrics/feet").mkdir(parents=True)
    card = CARD.replace("HASH", results.bundle_hash(folder / "models/feet"))
    (folder / "metrics/feet/MODEL_CARD.md").write_text(card, encoding="utf-8")
    settings = settings_for(folder / "models", metrics=folder / "metrics")
    with serving(settings) as served:
        yield served


def downloaded(visit: Visit) -> list[dict[str, str]]:
    with visit.page.expect_download() as download:
        visit.page.click("#download")
    text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_title_sentence_and_notice_are_those_of_the_dataset(browser: object, pair: Served) -> None:
    text = pair.request("GET", "/").body.decode()
    assert "<title>Feet</title>" in text
    assert "A notice of Feet &amp; its &lt;makers&gt;." in text
    assert "AnkleAlign" not in text
    visit = visiting(browser, pair.port, (1200, 900))
    assert visit.seen("#description") == "Sorts photos for Feet."
    visit.page.select_option("#model", "insects")
    visit.page.wait_for_function("document.title === 'Insects'")
    assert visit.seen("#title") == "Insects"
    assert visit.seen("#notice") == "A notice of Insects & its <makers>."
    assert "What Insects calls first." in visit.seen("#meanings")
    assert visit.errors == []
    visit.page.context.close()


def test_a_dataset_without_text_is_named_by_its_name_and_classes(service: Served) -> None:
    model = service.request("GET", "/model").json
    assert model["title"] == "Photo classifier"
    assert model["description"] == "Classifies a photo as pronation, neutral or supination."
    assert "feet" not in model["notice"]
    assert service.request("GET", "/examples").json["examples"] == {}


def test_an_example_photo_of_the_bundle_can_be_tried(browser: object, pair: Served) -> None:
    visit = visiting(browser, pair.port, (1200, 900))
    example = visit.page.locator("#meanings .example")
    assert example.count() == 1
    example.click()
    (expected,) = pair.predict(photo(0)).json["predictions"]
    headline = "Uncertain" if expected["abstain"] else expected["predicted"]
    assert visit.seen(".predicted") == headline
    visit.page.wait_for_selector("#heat:visible")
    assert visit.errors == []
    visit.page.context.close()


def test_several_photos_give_a_table_and_a_csv_without_formulas(
    visit: Visit, service: Served
) -> None:
    photos = {"=1+1.jpg": photo(1), 'b, "c".jpg': photo(2), "broken.jpg": b"no photo"}
    visit.upload_several(photos)
    rows = visit.page.locator("#photos tbody tr")
    assert rows.count() == 3
    assert "not a photo" in rows.nth(2).inner_text()
    assert visit.seen("#summary").startswith("3 photos: ")
    assert "not readable 1" in visit.seen("#summary")
    # A photo of the table is shown with its heat map.
    rows.nth(1).locator("button").click()
    visit.page.wait_for_function("document.querySelector('#photo').alt.startsWith('b,')")
    visit.page.wait_for_selector("#heat:visible")
    table = downloaded(visit)
    assert [row["path"] for row in table] == ["'=1+1.jpg", 'b, "c".jpg', "broken.jpg"]
    for row, data in zip(table, [photo(1), photo(2)], strict=False):
        (expected,) = service.predict(data).json["predictions"]
        assert row["predicted"] == expected["predicted"]
        assert row["prediction_set"] == "|".join(expected["prediction_set"])
        assert row["abstain"] == str(expected["abstain"]).lower()
        for name, probability in expected["probabilities"].items():
            assert float(row[f"p_{name}"]) == pytest.approx(probability, abs=1e-5)
    assert (table[2]["predicted"], "not a photo" in table[2]["reason"]) == ("", True)
    assert (
        visit.page.evaluate("document.documentElement.scrollWidth")
        <= visit.page.viewport_size["width"]
    )


def test_the_csv_escapes_the_cells_that_the_pipeline_escapes(visit: Visit) -> None:
    cells = ["=a", "+a", "-a", "@a", "\ta", "\ra", "'=a", "''-a", "a=", "'a", "a-b", ""]
    text = visit.page.evaluate(
        """async (cells) => {
            const { toCsv } = await import("./page/csv.js");
            return toCsv(cells.map((path) => ({ path, model: "m", reason: "" })));
        }""",
        cells,
    )
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert [row["path"] for row in rows] == [files._escape_formula(cell) for cell in cells]


def test_two_models_classify_one_photo_side_by_side(
    browser: object, pair: Served, size: tuple[int, int]
) -> None:
    visit = visiting(browser, pair.port, size)
    visit.page.select_option("#model", label="All models, side by side")
    visit.upload(photo(3))
    visit.page.wait_for_selector("#heat:visible")
    blocks = visit.page.locator("#result .outcome")
    assert blocks.locator(".model-name").all_inner_texts() == ["Feet", "Insects"]
    for name, block in zip(("feet", "insects"), blocks.all(), strict=True):
        answer = pair.request("POST", f"/predict?model={name}", photo(3)).json["predictions"][0]
        shown = block.locator(".predicted").inner_text()
        assert shown == ("Uncertain" if answer["abstain"] else answer["predicted"])
        assert block.locator(".bars .name").all_inner_texts() == list(answer["probabilities"])
    if size[0] > 1000:
        left, right = (block.bounding_box() for block in blocks.all())
        assert left["y"] == right["y"]
    # The heat map of each model can be chosen.
    before = visit.page.locator("#heat").get_attribute("src")
    assert before.startswith("data:image/png")
    visit.page.select_option("#heat-model", label="Insects")
    insects = pair.request("POST", "/explain?model=insects", photo(3), Accept="application/json")
    visit.page.wait_for_function(
        "src => document.querySelector('#heat').src === src", arg=insects.json["heat_map"]
    )
    visit.upload_several({"a.jpg": photo(1), "b.jpg": photo(2)})
    assert visit.page.locator("#photos thead th").all_inner_texts() == ["Photo", "Feet", "Insects"]
    table = downloaded(visit)
    assert [row["model"] for row in table] == ["feet", "insects"] * 2
    assert set(table[0]) >= {"p_pronation", "p_ant", "p_=wasp"}
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert visit.errors == []
    visit.page.context.close()


def test_the_heat_map_has_a_legend_in_its_own_colors(visit: Visit) -> None:
    from matplotlib import colormaps  # noqa: PLC0415

    visit.upload(photo(1))
    visit.page.wait_for_selector("#heat:visible")
    assert "least evidence" in visit.seen(".legend")
    assert "most evidence" in visit.seen(".legend")
    gradient = visit.page.locator("#scale").evaluate("e => getComputedStyle(e).backgroundImage")
    stops = [
        [float(number) for number in stop.split(")")[0].split(",")]
        for stop in gradient.replace("rgba(", "rgb(").split("rgb(")[1:]
    ]
    assert len(stops) == 9
    for index, stop in enumerate(stops):
        expected = [255 * value for value in colormaps["inferno"](index / 8)[:3]]
        assert stop[:3] == pytest.approx(expected, abs=3)
        assert ([*stop, 1.0])[3] == pytest.approx(index / 8, abs=0.01)


def test_sentences_of_certainty_follow_from_the_scores(visit: Visit) -> None:
    sure = {"predicted": "a", "prediction_set": ["a"], "abstain": False, "in_distribution": True}
    unsure = sure | {"prediction_set": ["a", "b"], "abstain": True}
    scores = {
        "photos": 50,
        "accuracy": {"value": 0.74},
        "calibration": {
            "coverage": {"value": 0.98}, "abstention": {"value": 0.56},
            "selective_accuracy": 0.954545, "selective_gain": {"value": 0.21, "ci_low": 0.1},
        },
    }  # fmt: skip
    useless = json.loads(json.dumps(scores))
    useless["calibration"]["selective_gain"] = {"value": -0.01, "ci_low": -0.2}
    cases = [
        (sure, scores, "it was right on 21 of 22."),
        (sure, useless, "That is not clearly better than on all 50 test photos (74.0%)."),
        (sure, None, "How often it is right then has not been measured."),
        (unsure, scores, "a or b: the model cannot distinguish them in this photo. On 49 of 50"),
        (sure | {"in_distribution": False}, scores, "The probabilities say little"),
        (sure | {"predicted": None}, scores, "predicts no class for such photos."),
    ]
    for prediction, measured, words in cases:
        text = visit.page.evaluate(
            """async ([prediction, scores]) =>
                (await import("./page/certainty.js")).reason(prediction, scores)""",
            [prediction, measured],
        )
        assert words in text
        assert "ruled out" not in text


def test_the_programs_of_the_page_run_as_printed(
    browser: object, pair: Served, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo(4))
    with proxy(pair, "/base/") as port:
        for name in ("feet", "insects"):
            visit = visiting(browser, port, (1200, 900), "/base/")
            visit.page.select_option("#model", name)
            visit.page.wait_for_function("name => document.title.toLowerCase() === name", arg=name)
            curl, python, script = visit.page.locator("#api-examples code").all_text_contents()
            visit.page.context.close()
            expected = pair.request("POST", f"/predict?model={name}", photo(4)).json
            predicted = expected["predictions"][0]["predicted"]
            assert f"http://127.0.0.1:{port}/base/predict" in python
            answer, _ = (run(shlex.split(line), tmp_path) for line in curl.splitlines())
            assert json.loads(answer)["model"] == expected["model"]
            assert Image.open(tmp_path / "heat_map.png").format == "PNG"
            assert run([sys.executable, "-c", python], tmp_path).startswith(f"{predicted} {{")
            if shutil.which("node"):
                (tmp_path / "example.mjs").write_text(script)
                assert run(["node", "example.mjs"], tmp_path).startswith(f"{predicted} {{")


def run(command: list[str], folder: Path) -> str:
    quiet = ["--silent", "--show-error", "--fail"] if command[0] == "curl" else []
    done = subprocess.run(
        [*command, *quiet], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


@pytest.mark.skipif(
    not AXE.exists() and "CI" not in os.environ, reason="axe-core is not installed: make charts"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_with_everything_open(
    browser: object, pair: Served, size: tuple[int, int], scheme: str
) -> None:
    visit = visiting(browser, pair.port, size, color_scheme=scheme, bypass_csp=True)
    visit.page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    run_axe = """async () => (await axe.run("body")).violations.map((v) =>
        [v.id, v.nodes.map((n) => `${n.target}: ${n.failureSummary}`)])"""
    open_all = "document.querySelectorAll('details').forEach(e => { e.open = true; })"
    # The model card is that of one model.
    visit.page.wait_for_selector("#card:not([hidden])")
    visit.page.evaluate(open_all)
    assert visit.page.locator("#card-text table").count() == 2
    assert visit.page.evaluate(run_axe) == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    visit.page.select_option("#model", label="All models, side by side")
    visit.upload_several({"a.jpg": photo(1), "broken.jpg": b"no photo"})
    visit.page.wait_for_selector("#heat:visible")
    visit.page.evaluate(open_all)
    assert visit.page.evaluate(run_axe) == []
    visit.page.click("#camera")
    visit.page.wait_for_selector("#viewfinder[open]")
    assert visit.page.evaluate(run_axe.replace('"body"', '"#viewfinder"')) == []
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
