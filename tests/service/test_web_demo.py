"""Tests of the page without a server: exported with npm, opened in Chromium without a network."""

import base64
import functools
import http.server
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from anklealign.cli.main import main
from anklealign.inference import onnx_predictor
from anklealign.inference.predictor import Predictor
from anklealign.models import bundle, novelty
from anklealign.models.novelty_detector import NoveltyDetector
from service import web_demo
from tests.service.conftest import photo, save_bundle
from tests.service.test_page import AXE, CHROMIUM, FLAGS, browser  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
HYMENOPTERA = ROOT.parent / "shared/photos/hymenoptera/val"
# Of a probability and of a novelty score: six times and twice the largest difference on photos of
# ants and bees (8e-4 and 5e-3; 7e-4 and 1e-3 with a store of 256 px). Browsers decode JPEG at its
# full size and Pillow large ones at a part of it, and WebAssembly rounds otherwise.
TOLERANCE = 5e-3
NOVELTY_TOLERANCE = 1e-2

pytestmark = [
    pytest.mark.skipif(
        shutil.which("npm") is None and "CI" not in os.environ, reason="npm is not on the PATH"
    ),
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="Chromium is not on the PATH"
    ),
]


@dataclass
class Demo:
    """An exported folder on a web server, and the bundle that it is of."""

    folder: Path
    model: Path
    port: int
    received: list[tuple[str, int]] = field(default_factory=list)  # method and length of the body


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    top = tmp_path_factory.mktemp("demo")
    save_bundle(top / "model", side=64)
    made = bundle.load(top / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    references = novelty.describe(pixels, np.arange(8), web_demo.export.CPU)
    detector = NoveltyDetector(references, 0.4, 0.05)
    record = {"params": {"dataset": {"page": {"title": "A demo", "notice": "It can be wrong."}}}}
    examples = {made.classes[0]: (photo(7),)}
    changed = replace(
        made, novelty=detector, record=record, examples=examples, temperature=1.7,
        class_bias=(0.2, -0.1, -0.1),
    )  # fmt: skip
    bundle.save(top / "model", changed)
    command = ["export", "--model", str(top / "model"), "--web", str(top / "out/site")]
    assert main(command) == 0
    yield from serve(top / "out/site", top / "model")


def serve(folder: Path, model: Path) -> Iterator[Demo]:
    """Serve a folder below a path, as a web space does, and keep what is received."""
    own = Demo(folder, model, 0)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def parse_request(self) -> bool:
            parsed = super().parse_request()
            if parsed:
                own.received.append((self.command, int(self.headers.get("Content-Length", 0))))
            return parsed

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=folder.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    own.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield own
    server.shutdown()
    server.server_close()


@contextmanager
def opened_offline(browser: Any, demo: Demo) -> Iterator[Any]:  # noqa: F811 - the fixture
    """Open a demo, cut its network, and check afterwards that nothing failed or was sent."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    urls: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: urls.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text))
    opened.goto(f"http://127.0.0.1:{demo.port}/site/")
    opened.wait_for_selector("#facts dd", timeout=120_000)
    context.set_offline(True)  # everything is loaded
    yield opened
    assert errors == []
    own = f"http://127.0.0.1:{demo.port}/site/"
    assert all(url.startswith((own, "blob:", "data:")) for url in urls)
    assert {method for method, _ in demo.received} == {"GET"}
    assert not any(size for _, size in demo.received)
    context.close()


@pytest.fixture
def page(browser: Any, demo: Demo) -> Iterator[Any]:  # noqa: F811 - the fixture
    with opened_offline(browser, demo) as opened:
        yield opened


def predict(page: Any, content: bytes) -> dict[str, Any]:
    result: dict[str, Any] = page.evaluate(
        """async (text) => {
            const { predict } = await import("./page/backend.js");
            const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
            return predict("model", new Blob([bytes]));
        }""",
        base64.b64encode(content).decode(),
    )
    return result


def check(page: Any, predictor: Predictor, content: bytes) -> float:
    """Compare a prediction with Python's; return the largest difference of a probability."""
    actual = predict(page, content)
    opened = predictor.open_photo(content)
    expected = predictor.probabilities(opened.pixels[None])
    probabilities = np.array(list(actual["probabilities"].values()))
    difference = float(np.abs(probabilities - expected[0]).max())
    assert difference <= TOLERANCE
    assert (actual["width"], actual["height"]) == (opened.width, opened.height)
    (score,) = predictor.novelty_scores(opened.pixels[None])
    assert actual["novelty"] == pytest.approx(score, abs=NOVELTY_TOLERANCE)
    members = predictor.prediction_sets(probabilities[None])[0]
    assert actual["prediction_set"] == [
        name for name, member in zip(predictor.classes, members, strict=True) if member
    ]
    assert actual["abstain"] == (len(actual["prediction_set"]) > 1)
    return difference


def test_a_small_network_predicts_offline(browser: Any, tmp_path: Path, capsys: Any) -> None:  # noqa: F811
    """The whole way in seconds: without a novelty detector, one network is exported."""
    save_bundle(tmp_path / "model", side=64)
    folder = tmp_path / "out/site"
    status = main(["export", "--model", str(tmp_path / "model"), "--web", str(folder)])
    error = capsys.readouterr().err
    if "npm could not install" in error and "CI" not in os.environ:
        pytest.skip(error.strip())
    assert status == 0, error
    predictor = Predictor.load(tmp_path / "model", "cpu")
    with (
        contextmanager(serve)(folder, tmp_path / "model") as demo,
        opened_offline(browser, demo) as page,
    ):
        page.set_input_files(
            "#file", {"name": "a.png", "mimeType": "image/png", "buffer": photo(1, kind="PNG")}
        )
        page.wait_for_selector(".predicted:visible")
        assert page.locator(".bars li").count() == 3
        for content in (photo(2, size=(300, 200)), photo(3, size=(40, 60), kind="PNG")):
            expected = predictor.probabilities(predictor.preprocess(content)[None])[0]
            actual = list(predict(page, content)["probabilities"].values())
            assert np.abs(np.array(actual) - expected).max() <= TOLERANCE


@pytest.mark.slow
def test_a_photo_is_classified_without_a_network_and_never_sent(page: Any) -> None:
    assert page.title() == "A demo"
    assert "never leave your device" in page.inner_text("#privacy")
    assert page.inner_text("#notice") == "It can be wrong."
    assert not page.locator("#api").is_visible()
    page.set_input_files(
        "#file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo(1, size=(300, 200))}
    )
    page.wait_for_selector(".predicted:visible")
    assert page.locator(".bars li").count() == 3
    assert page.locator("#photo").is_visible()
    page.locator("#meanings .example").click()
    page.wait_for_function("document.querySelector('#photo').alt.startsWith('Example photo')")
    page.wait_for_selector(".predicted:visible")
    files = [{"name": f"{k}.jpg", "mimeType": "image/jpeg", "buffer": photo(k)} for k in range(3)]
    page.set_input_files("#file", [*files, files[0] | {"name": "x.jpg", "buffer": b"no photo"}])
    page.wait_for_selector("#download:enabled")
    assert "4 photos: " in page.inner_text("#summary")
    assert "not readable 1" in page.inner_text("#summary")
    if AXE.exists() or os.environ.get("CI"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("async () => (await axe.run('body')).violations.map((v) => v.id)")
        assert found == []


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.open(io.BytesIO(photo(2, size=(160, 80)))).save(stream, "JPEG", exif=exif, quality=95)
    return stream.getvalue()


def transparent() -> bytes:
    image = Image.open(io.BytesIO(photo(3, size=(120, 90)))).convert("RGBA")
    image.paste((0, 0, 0, 0), (10, 10, 60, 60))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch"])
def test_probabilities_are_those_of_python(page: Any, demo: Demo, fit: str) -> None:
    """Photos that are wide, tall, small, large, rotated, gray and transparent."""
    own = Predictor.load(demo.model, "cpu")
    changed = replace(own.bundle.preprocessing, fit=fit)
    predictor = replace(own, bundle=replace(own.bundle, preprocessing=changed))
    page.evaluate(
        """async (fit) => {
            const { describe } = await import("./page/backend.js");
            (await describe("model")).preprocessing.preparation.fit = fit;
        }""",
        fit,
    )
    gray = io.BytesIO()
    Image.open(io.BytesIO(photo(5, size=(90, 70)))).convert("L").save(gray, "PNG")
    sizes = [(300, 200), (200, 301), (40, 30), (97, 97), (64, 64), (2000, 1500)]
    photos = [photo(k, size=size, kind="PNG") for k, size in enumerate(sizes)]
    photos += [photo(6, size=(1000, 700), quality=90), rotated(6), rotated(3), transparent()]
    for content in [*photos, gray.getvalue()]:
        check(page, predictor, content)


@pytest.mark.slow
@pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="no photos of ants and bees in ../shared")
def test_probabilities_of_real_photos_are_those_of_python(page: Any, demo: Demo) -> None:
    predictor = Predictor.load(demo.model, "cpu")
    paths = [p for name in ("ants", "bees") for p in sorted((HYMENOPTERA / name).glob("*.jpg"))[:8]]
    differences = [check(page, predictor, path.read_bytes()) for path in paths]
    print(f"{len(paths)} photos, largest difference of a probability {max(differences):.1e}")


@pytest.mark.slow
def test_the_policy_admits_no_other_origin_and_no_form(browser: Any, demo: Demo) -> None:  # noqa: F811
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{demo.port}/site/")
    policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    assert "default-src 'none'" in policy
    assert "form-action 'none'" in policy
    assert "http" not in policy
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
            addEventListener("securitypolicyviolation", (e) => resolve(e.effectiveDirective));
            fetch("https://other.example/", { method: "POST", body: "x" }).catch(() => {});
        })"""
    )
    assert blocked == "connect-src"
    page.close()


@pytest.mark.slow
def test_the_export_stands_on_its_own(demo: Demo) -> None:
    """A program without this project finds everything around the network in the file."""
    session = onnx_predictor.open_session((demo.folder / "model/model.onnx").read_bytes())
    metadata = session.get_modelmeta().custom_metadata_map
    described = json.loads(metadata[onnx_predictor.DESCRIPTION])
    own = bundle.load(demo.model)
    assert described["classes"] == list(own.classes)
    assert described["preprocessing"]["fit"] == "letterbox"
    assert described["input"]["mean"] == list(own.input_config.mean)
    assert (described["temperature"], described["class_bias"]) == (1.7, [0.2, -0.1, -0.1])
    assert [output.name for output in session.get_outputs()] == [
        onnx_predictor.OUTPUT, onnx_predictor.PROBABILITIES,
    ]  # fmt: skip
    model = onnx.load(demo.folder / "model/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    logits, probabilities = session.run(None, {onnx_predictor.INPUT: x})
    scaled = np.exp(logits / 1.7 + np.array([0.2, -0.1, -0.1]))
    np.testing.assert_allclose(probabilities, scaled / scaled.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.slow
def test_the_folder_has_licenses_and_no_training_record(demo: Demo) -> None:
    text = (demo.folder / "model/model.json").read_text(encoding="utf-8")
    assert set(json.loads(text)) == {"model", "examples", "novelty"}
    assert not set(json.loads(text)["model"]) & web_demo.PRIVATE
    assert "MIT" in (demo.folder / "page/ort/LICENSE").read_text(encoding="utf-8")
    assert str(demo.model) not in text


@pytest.mark.slow
def test_a_folder_with_other_content_is_left_as_it_is(demo: Demo, tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    command = ["export", "--model", str(demo.model), "--web", str(tmp_path)]
    assert main(command) == 1
    assert "is no earlier export; choose a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_without_npm_the_remedy_is_named_and_nothing_is_written(
    demo: Demo, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.web_demo.shutil.which", lambda _: None)
    monkeypatch.setattr("service.web_demo.export.export_model", lambda *_: 0)
    command = ["export", "--model", str(demo.model), "--web", str(tmp_path / "site")]
    assert main(command) == 1
    assert "install Node.js" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
