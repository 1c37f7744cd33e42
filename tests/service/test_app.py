"""Tests of the API: predictions, problem details, headers, metrics and log lines."""

import base64
import io
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from anklealign.cli import export
from anklealign.inference.onnx_predictor import OnnxPredictor
from anklealign.inference.predictor import Predictor
from anklealign.io import results
from anklealign.models import bundle, novelty
from anklealign.models.inputs import pick_device
from anklealign.models.novelty_detector import NoveltyDetector
from service import pytorch
from service.app import load
from service.logs import JsonFormatter
from service.problems import PROBLEM_TYPES, ProblemError
from service.routes import negotiate
from tests.service.conftest import (
    CLASSES,
    Served,
    eventually,
    form,
    photo,
    rounded,
    save_bundle,
    serving,
    settings_for,
)


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.load(model_folder, "cpu")


def expected(predictor: Predictor, data: bytes) -> np.ndarray:
    return predictor.probabilities(predictor.preprocess(data)[None])[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows photo(1) alone, with its export beside it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    save_bundle(folder)
    plain = Predictor.load(folder, "cpu")
    pixels = plain.preprocess(photo(1))[None]
    detector = novelty.fit(
        pixels, np.zeros(1, int), np.zeros(1, int), plain.device, 0.05, groups=[0]
    )
    # ONNX Runtime rounds differently, so that the training photo itself is not exactly at 0.
    detector = replace(detector, threshold=0.001)
    bundle.save(folder, replace(plain.bundle, novelty=detector))
    assert export.export_model(folder, folder.parent / "export/model.onnx") == 0
    return folder


@pytest.mark.parametrize("options", [{"engine": "onnx"}, {"engine": "torch", "export": Path("-")}])
def test_photos_unlike_the_training_photos_are_marked_or_refused(
    exported: Path, options: dict[str, Any]
) -> None:
    similar, unlike = photo(1), white()
    settings = settings_for(exported, **options)
    with serving(settings) as served:
        known, foreign = served.predict(similar, unlike).json["predictions"]
        assert known["in_distribution"]
        assert not foreign["in_distribution"]
        assert known["novelty"] < 0.001 < foreign["novelty"] <= 2
        assert foreign["predicted"] in CLASSES
        assert b"anklealign_unlike_total 1.0" in served.request("GET", "/metrics").body
    with serving(settings.model_copy(update={"unlike": "refuse"})) as served:
        refusing = served.predict(similar, unlike).json["predictions"]
        assert rounded(refusing[0]) == rounded(known)
        assert rounded(refusing[1]) == rounded(foreign) | {
            "predicted": None, "prediction_set": list(CLASSES), "abstain": True,
        }  # fmt: skip


STARTED = """
import http.client, socket, sys, threading
import uvicorn
from service.server import application, config

def post(path):
    connection = http.client.HTTPConnection(*listener.getsockname(), timeout=60)
    connection.request("POST", path, photo, {"Content-Type": "image/jpeg"})
    status = connection.getresponse().status
    loaded = {"torch", "timm", "torchvision"} & set(sys.modules)
    sys.stderr.write(f"{path} {status} {len(loaded)}\\n")

def requests():
    try:
        post("/predict")
        several = [threading.Thread(target=post, args=["/explain"]) for _ in range(3)]
        for thread in several:
            thread.start()
        for thread in several:
            thread.join()
    finally:
        server.should_exit = True

photo = sys.stdin.buffer.read()
listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(config(application, factory=True))
threading.Thread(target=requests).start()
server.run([listener])
"""


def test_an_exported_model_needs_pytorch_only_for_heat_maps(exported: Path) -> None:
    settings = {
        "ANKLEALIGN_MODEL": str(exported),
        "ANKLEALIGN_EXPORT": str(exported.parent / "export/model.onnx"),
        "ANKLEALIGN_ENGINE": "onnx",
    }
    done = subprocess.run(
        [sys.executable, "-c", STARTED], input=photo(1), env=os.environ | settings,
        cwd=Path(__file__).parents[2], capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr.decode().splitlines() == ["/predict 200 0", *["/explain 200 3"] * 3]


def test_whether_the_device_is_the_cpu_is_known_without_pytorch_if_there_is_no_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pytorch.runs_on_cpu("auto") == (pick_device("auto").type == "cpu")
    with pytest.raises(ValueError, match="'cuda:99' is not available"):
        pytorch.runs_on_cpu("cuda:99")
    monkeypatch.setattr(pytorch, "predictor_class", pytest.fail)
    assert pytorch.runs_on_cpu("cpu")
    monkeypatch.setattr(pytorch, "has_gpu_driver", lambda: False)
    assert pytorch.runs_on_cpu("auto")


def test_with_pytorch_the_exported_network_of_the_detector_is_used(
    model_folder: Path, tmp_path: Path
) -> None:
    plain = Predictor.load(model_folder, "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    detector = NoveltyDetector(
        novelty.describe(pixels[:1], np.zeros(1, int), plain.device), 0.4, 0.05
    )
    reference = replace(plain, bundle=replace(plain.bundle, novelty=detector))
    bundle.save(tmp_path / "model", reference.bundle)
    export.write_general_network(tmp_path / "novelty.onnx", reference, pixels)
    predictor, engine = load(
        settings_for(tmp_path / "model", engine="torch", export=tmp_path / "model.onnx")
    )
    assert engine == "torch"
    assert isinstance(predictor, OnnxPredictor)
    assert predictor.novelty_session is not None
    assert np.array_equal(predictor.logits(pixels), reference.logits(pixels))
    # Both engines may round alike, so that the scores alone do not tell which one ran.
    session = Mock(wraps=predictor.novelty_session)
    scores = replace(predictor, novelty_session=session).novelty_scores(pixels)
    session.run.assert_called_once()
    assert np.abs(scores - reference.novelty_scores(pixels)).max() < export.NOVELTY_TOLERANCE


def test_a_bundle_without_a_detector_marks_no_photo(service: Served) -> None:
    (prediction,) = service.predict(white()).json["predictions"]
    assert prediction["in_distribution"] is True
    assert prediction["novelty"] is None


def white() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), "white").save(stream, "PNG")
    return stream.getvalue()


def test_form_and_raw_body_return_the_probabilities_of_the_predictor(
    service: Served, predictor: Predictor
) -> None:
    for seed in range(4):
        data = photo(seed)
        kinds = ("image/jpeg", "application/octet-stream", "Image/PNG; x=1")
        responses = [
            service.predict(data),
            *(service.request("POST", "/predict", data, Content_Type=kind) for kind in kinds),
        ]
        probabilities = expected(predictor, data)
        for response in responses:
            assert response.status == 200
            (prediction,) = response.json["predictions"]
            assert list(prediction["probabilities"]) == list(CLASSES)
            np.testing.assert_allclose(
                list(prediction["probabilities"].values()), probabilities, atol=1e-6
            )
            assert prediction["predicted"] == CLASSES[int(probabilities.argmax())]
            held = predictor.prediction_sets(probabilities[None])[0]
            names = [name for name, held in zip(CLASSES, held, strict=True) if held]
            assert prediction["prediction_set"] == names
            assert prediction["abstain"] == (len(names) != 1)
            assert (prediction["width"], prediction["height"]) == (96, 64)


def test_predictions_keep_the_order_of_the_photos(service: Served, predictor: Predictor) -> None:
    several = [photo(seed) for seed in range(16)]
    response = service.predict(*several)
    assert response.status == 200
    for data, prediction in zip(several, response.json["predictions"], strict=True):
        np.testing.assert_allclose(
            list(prediction["probabilities"].values()), expected(predictor, data), atol=1e-6
        )


def test_a_rotated_photo_gets_the_prediction_of_the_upright_photo(service: Served) -> None:
    exif = Image.Exif()
    upright = service.predict(photo(3, kind="PNG")).json["predictions"][0]
    for orientation, turn in ((6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)):
        exif[0x0112] = orientation
        stream = io.BytesIO()
        turned = Image.open(io.BytesIO(photo(3, kind="PNG"))).transpose(turn)
        turned.save(stream, "PNG", exif=exif)
        prediction = service.predict(stream.getvalue()).json["predictions"][0]
        assert prediction == upright


def test_one_broken_photo_fails_the_request_and_is_identified(service: Served) -> None:
    response = service.predict(photo(0), photo(1)[:-40], photo(2))
    assert response.status == 422
    assert response.json["code"] == "truncated"
    assert response.json["photo"] == 2


def test_explain_returns_png_or_json_by_the_accept_header(service: Served) -> None:
    body, kind = form(photo(1, size=(96, 48)))
    as_png = service.request("POST", "/explain", body, Content_Type=kind)
    assert as_png.headers["content-type"] == "image/png"
    # The letterbox padding is removed.
    assert Image.open(io.BytesIO(as_png.body)).size == (48, 24)
    response = service.request(
        "POST", "/explain", body, Content_Type=kind, Accept="application/json"
    )
    assert response.status == 200
    explanation = response.json
    assert (
        explanation["prediction"] == service.predict(photo(1, size=(96, 48))).json["predictions"][0]
    )
    for name, mode in (("seen", "RGB"), ("heat_map", "RGBA")):
        prefix, _, data = explanation[name].partition(",")
        assert prefix == "data:image/png;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (picture.size, picture.mode) == ((48, 24), mode)
    refused = service.request("POST", "/explain", body, Content_Type=kind, Accept="text/html")
    assert (refused.status, refused.json["code"]) == (406, "not_acceptable")
    two, kind = form(photo(1), photo(2))
    refused = service.request("POST", "/explain", two, Content_Type=kind)
    assert (refused.status, refused.json["code"]) == (400, "too_many_files")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("image/*", "image/png"),
        ("application/json, */*;q=0.1", "application/json"),
        ("image/png;q=0.2, application/json;q=0.9", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("text/html", None),
        ("image/png;q=x", None),
    ],
)
def test_negotiate_respects_quality_values(accept: str, kind: str | None) -> None:
    if kind:
        assert negotiate(accept) == kind
    else:
        with pytest.raises(ProblemError):
            negotiate(accept)


def test_model_describes_the_bundle_and_omits_missing_files(
    service: Served, model_folder: Path
) -> None:
    document = service.request("GET", "/model").json
    config = json.loads((model_folder / "config.json").read_text())["anklealign"]
    assert document["classes"] == list(CLASSES)
    assert document["hashes"]["config_sha256"].startswith(document["model"])
    assert document["hashes"]["weights_sha256"] == config["weights_sha256"]
    assert document["hashes"]["split_sha256"] == config["split_sha256"]
    assert document["preprocessing"]["preparation"] == config["preprocessing"]
    assert document["conformal_threshold"] == config["conformal_threshold"]
    assert document["model"] == service.predict(photo()).json["model"]
    assert document["scores"] is None
    assert document["card"] is None


def test_model_includes_scores_and_card_and_a_low_threshold_abstains(
    tmp_path: Path,
) -> None:
    save_bundle(tmp_path / "model", threshold=0.0)
    bundle = results.bundle_hash(tmp_path / "model")
    results.write_details(
        tmp_path / "metrics/details/evaluate.json", {"bundle": bundle, "photos": 7}
    )
    card = f"# Kártya\n\nBundle `{bundle}`.\n"
    (tmp_path / "metrics/MODEL_CARD.md").write_text(card)
    with serving(settings_for(tmp_path / "model")) as served:
        document = served.request("GET", "/model").json
        assert document["scores"] == {"bundle": bundle, "photos": 7}
        assert document["card"] == card
        (prediction,) = served.predict(photo()).json["predictions"]
        assert prediction["prediction_set"] == list(CLASSES)
        assert prediction["abstain"] is True


def test_scores_and_card_of_another_bundle_are_not_shown(tmp_path: Path, caplog: Any) -> None:
    save_bundle(tmp_path / "model")
    results.write_details(
        tmp_path / "metrics/details/evaluate.json", {"bundle": "0" * 64, "photos": 7}
    )
    (tmp_path / "metrics/MODEL_CARD.md").write_text(f"Bundle `{'0' * 64}`.\n")
    with caplog.at_level(logging.WARNING), serving(settings_for(tmp_path / "model")) as served:
        document = served.request("GET", "/model").json
    assert document["scores"] is None
    assert document["card"] is None
    assert caplog.text.count("belongs to another bundle and is not shown") == 2


def test_health_is_ok_and_unknown_urls_and_methods_are_problems(service: Served) -> None:
    for path in ("/health/live", "/health/ready"):
        assert service.request("GET", path).json == {"status": "ok"}
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/model", 405),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
    ):
        response = service.request(method, path)
        assert response.status == status, path
        assert response.headers["content-type"] == "application/problem+json"
    assert "POST" in service.request("GET", "/predict").headers["allow"]
    assert service.request("POST", "/predict/").json["code"] == "not_found"


def test_every_get_route_supports_head(service: Served) -> None:
    for path in ("/", "/health/live", "/health/ready", "/model", "/openapi.json"):
        get, head = service.request("GET", path), service.request("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert head.headers["content-length"] == str(len(get.body))
    assert service.request("HEAD", "/predict").status == 405


def test_every_response_has_the_security_headers_and_errors_are_problems(
    service: Served,
) -> None:
    responses = [
        service.request("GET", "/"),
        service.request("GET", "/health/live"),
        service.request("GET", "/nothing"),
        service.request("POST", "/predict"),
        service.predict(photo()),
    ]
    ids = set()
    for response in responses:
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers
        assert "access-control-allow-origin" not in response.headers
        ids.add(response.headers["x-request-id"])
        if response.status >= 400:
            document = response.json
            assert document["type"] == f"urn:anklealign:problem:{document['code']}"
            assert document["request_id"] == response.headers["x-request-id"]
            assert (document["status"], document["title"]) == PROBLEM_TYPES[document["code"]]
    assert len(ids) == len(responses)


def test_only_configured_origins_may_call_the_api(service: Served, model_folder: Path) -> None:
    ours = {"Origin": "https://clinic.example"}
    assert "access-control-allow-origin" not in service.predict(photo(), **ours).headers
    allowed = settings_for(model_folder, cors_origins="https://clinic.example, https://b.example")
    with serving(allowed) as served:
        headers = served.predict(photo(), **ours).headers
        assert headers["access-control-allow-origin"] == "https://clinic.example"
        other = served.predict(photo(), Origin="https://else.example").headers
        assert "access-control-allow-origin" not in other


def test_the_page_has_no_inline_script_and_is_cached(
    service: Served,
) -> None:
    page = service.request("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    assert "<style" not in text
    assert "style=" not in text
    assert " onclick" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert "{{" not in text
    again = service.request("GET", "/", If_None_Match=page.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    for path, kind in (
        ("/page/page.js", "text/javascript"),
        ("/page/page.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/backend.js", "text/javascript"),
    ):
        got = service.request("GET", path)
        assert (got.status, got.headers["content-type"].split(";")[0]) == (200, kind)
    assert service.request("HEAD", "/").body == b""


def test_metrics_count_requests_photos_and_problems(service: Served) -> None:
    def value(line: str) -> float:
        text = service.request("GET", "/metrics").body.decode()
        samples = [row for row in text.splitlines() if row.startswith(line + " ")]
        return float(samples[0].split()[-1]) if samples else 0.0

    data = photo(5)
    predicted = service.predict(data).json["predictions"][0]["predicted"]
    photos = f'anklealign_photos_total{{predicted="{predicted}"}}'
    requests = 'anklealign_requests_total{method="POST",route="/predict",status="200"}'
    refused = 'anklealign_problems_total{code="no_file"}'
    strange = 'anklealign_requests_total{method="other",route="other",status="404"}'
    before = [value(name) for name in (photos, requests, refused, strange)]
    service.predict(data)
    service.request("POST", "/predict")
    service.request("BREW", "/pot")
    after = [value(name) for name in (photos, requests, refused, strange)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 1]
    assert value("anklealign_photos_waiting") == 0


def log_fields(caplog: pytest.LogCaptureFixture) -> list[dict]:
    return [record.log_fields for record in caplog.records if hasattr(record, "log_fields")]


def test_the_log_has_one_json_line_per_request_without_file_names_or_photos(
    service: Served, caplog: pytest.LogCaptureFixture
) -> None:
    body, kind = form(photo(7))
    with caplog.at_level(logging.INFO, "anklealign.service"):
        response = service.request("POST", "/predict", body, Content_Type=kind)
        refused = service.request("POST", "/predict?name=anna", b"", Content_Type="image/jpeg")
        ids = [document.headers["x-request-id"] for document in (response, refused)]
        assert eventually(lambda: ids[1] in "".join(map(str, log_fields(caplog))))
    lines = [
        JsonFormatter().format(record)
        for record in caplog.records
        if getattr(record, "log_fields", {}).get("id") in ids
    ]
    first, second = (json.loads(line) for line in lines)
    assert first["id"] == response.headers["x-request-id"]
    assert (first["status"], first["bytes"], first["photos"]) == (200, len(body), 1)
    assert first["predicted"] == [response.json["predictions"][0]["predicted"]]
    assert first["time"].endswith("+00:00")
    assert (second["status"], second["code"]) == (400, "no_file")
    assert not any("x.jpg" in line or "anna" in line for line in lines)
    assert all(len(line) < 400 for line in lines)


def test_an_internal_error_is_a_problem_that_hides_the_exception(
    service: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Predictor, "probabilities", fails)
    response = service.predict(photo())
    assert (response.status, response.json["code"]) == (500, "internal")
    assert b"secret" not in response.body
    assert eventually(lambda: "secret" in caplog.text)
    monkeypatch.undo()
    assert service.predict(photo()).status == 200


def test_openapi_lists_every_code_and_examples_match_their_schemas(service: Served) -> None:
    document = service.request("GET", "/openapi.json").json
    code = document["components"]["schemas"]["ProblemDetails"]["properties"]["code"]
    assert code["enum"] == list(PROBLEM_TYPES)
    for path in ("/predict", "/explain"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert "multipart/form-data" in content
        assert "image/jpeg" in content
    for name in (
        "PredictResponse",
        "ExplainResponse",
        "ModelResponse",
        "ModelsResponse",
        "ExamplesResponse",
        "HealthResponse",
        "ProblemDetails",
    ):
        schema = document["components"]["schemas"][name]
        for example in schema["examples"]:
            assert set(schema["required"]) <= set(example), name


@pytest.mark.parametrize(
    "case",
    [
        # engine, export exists, preferred engine, selected engine
        ("auto", False, "onnx", "torch"),
        ("auto", True, "onnx", "onnx"),
        ("auto", True, "torch", "torch"),
        ("torch", True, "onnx", "torch"),
        ("onnx", True, "torch", "onnx"),
    ],
)
def test_auto_selects_the_preferred_available_engine(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, bool, str, str],
) -> None:
    engine, exported, preferred, chosen = case
    file = tmp_path / "model.onnx"
    if exported:
        file.touch()
    export = SimpleNamespace(preferred_engine=preferred, needs_pytorch=False)
    monkeypatch.setattr("service.app.onnx_predictor.load", lambda *_: export)
    settings = settings_for(model_folder, engine=engine, export=file)
    predictor, name = load(settings)
    assert name == chosen
    assert (predictor is export) == (chosen == "onnx")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on the PATH")
def test_the_curl_commands_of_the_docs_work(service: Served, tmp_path: Path) -> None:
    readme = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    commands = [line[2:] for line in readme.splitlines() if line.startswith("$ curl ")]
    assert len(commands) >= 6
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(photo())
    for command in commands:
        local = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
        words = [*shlex.split(local), "--silent", "--show-error", "--fail"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
    assert Image.open(tmp_path / "heat_map.png").format == "PNG"
