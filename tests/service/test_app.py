"""The API: the pipeline's own predictions, problem details, headers, metrics, one line of log."""

import base64
import io
import json
import logging
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from anklealign.inference.predictor import Predictor
from service.app import load
from service.observability import JsonLines
from service.problems import KINDS, ProblemError
from service.routes import acceptable
from tests.service.conftest import (
    CLASSES,
    Served,
    eventually,
    form,
    photo,
    save_bundle,
    serving,
    settings_for,
)


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.load(model_folder, "cpu")


def expected(predictor: Predictor, data: bytes) -> np.ndarray:
    return predictor.probabilities(predictor.prepare(data)[None])[0]


def test_a_form_and_a_raw_body_give_the_predictor_s_own_probabilities(
    service: Served, predictor: Predictor
) -> None:
    for seed in range(4):
        data = photo(seed)
        kinds = ("image/jpeg", "application/octet-stream", "Image/PNG; x=1")
        answers = [
            service.predict(data),
            *(service.ask("POST", "/predict", data, Content_Type=kind) for kind in kinds),
        ]
        wanted = expected(predictor, data)
        for answer in answers:
            assert answer.status == 200
            (found,) = answer.json["predictions"]
            assert list(found["probabilities"]) == list(CLASSES)
            np.testing.assert_allclose(list(found["probabilities"].values()), wanted, atol=1e-6)
            assert found["predicted"] == CLASSES[int(wanted.argmax())]
            held = predictor.prediction_sets(wanted[None])[0]
            names = [name for name, held in zip(CLASSES, held, strict=True) if held]
            assert found["prediction_set"] == names
            assert found["abstain"] == (len(names) != 1)
            assert (found["width"], found["height"]) == (96, 64)


def test_several_photos_are_answered_in_their_order(service: Served, predictor: Predictor) -> None:
    several = [photo(seed) for seed in range(16)]
    answer = service.predict(*several)
    assert answer.status == 200
    for data, found in zip(several, answer.json["predictions"], strict=True):
        np.testing.assert_allclose(
            list(found["probabilities"].values()), expected(predictor, data), atol=1e-6
        )


def test_a_turned_photo_is_answered_as_the_upright_one(service: Served) -> None:
    exif = Image.Exif()
    upright = service.predict(photo(3, kind="PNG")).json["predictions"][0]
    for orientation, turn in ((6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)):
        exif[0x0112] = orientation
        stream = io.BytesIO()
        turned = Image.open(io.BytesIO(photo(3, kind="PNG"))).transpose(turn)
        turned.save(stream, "PNG", exif=exif)
        found = service.predict(stream.getvalue()).json["predictions"][0]
        assert found == upright


def test_one_broken_photo_among_several_is_named_and_none_is_answered(service: Served) -> None:
    answer = service.predict(photo(0), photo(1)[:-40], photo(2))
    assert answer.status == 422
    assert answer.json["code"] == "truncated"
    assert answer.json["photo"] == 2


def test_explain_gives_a_picture_or_json_as_accepted(service: Served) -> None:
    body, kind = form(photo(1, size=(96, 48)))
    as_png = service.ask("POST", "/explain", body, Content_Type=kind)
    assert as_png.headers["content-type"] == "image/png"
    # What letterboxing added is cut off again.
    assert Image.open(io.BytesIO(as_png.body)).size == (48, 24)
    answer = service.ask("POST", "/explain", body, Content_Type=kind, Accept="application/json")
    assert answer.status == 200
    told = answer.json
    assert told["prediction"] == service.predict(photo(1, size=(96, 48))).json["predictions"][0]
    for name, mode in (("seen", "RGB"), ("heat_map", "RGBA")):
        prefix, _, data = told[name].partition(",")
        assert prefix == "data:image/png;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (picture.size, picture.mode) == ((48, 24), mode)
    refused = service.ask("POST", "/explain", body, Content_Type=kind, Accept="text/html")
    assert (refused.status, refused.json["code"]) == (406, "not_acceptable")
    two, kind = form(photo(1), photo(2))
    refused = service.ask("POST", "/explain", two, Content_Type=kind)
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
def test_accept_is_weighed(accept: str, kind: str | None) -> None:
    if kind:
        assert acceptable(accept) == kind
    else:
        with pytest.raises(ProblemError):
            acceptable(accept)


def test_model_tells_where_it_comes_from_and_only_what_is_there(
    service: Served, model_folder: Path
) -> None:
    told = service.ask("GET", "/model").json
    config = json.loads((model_folder / "config.json").read_text())["anklealign"]
    assert told["classes"] == list(CLASSES)
    assert told["hashes"]["config_sha256"].startswith(told["model"])
    assert told["hashes"]["weights_sha256"] == config["weights_sha256"]
    assert told["hashes"]["split_sha256"] == config["split_sha256"]
    assert told["preprocessing"]["preparation"] == config["preparation"]
    assert told["conformal_threshold"] == config["conformal_threshold"]
    assert told["model"] == service.predict(photo()).json["model"]
    assert told["scores"] is None
    assert told["card"] is None


def test_scores_and_card_are_told_where_they_are_and_an_unsure_model_abstains(
    tmp_path: Path,
) -> None:
    save_bundle(tmp_path / "model", threshold=0.0)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/evaluate.json").write_text('{"photos": 7}')
    (tmp_path / "metrics/MODEL_CARD.md").write_text("# Kártya\n")
    with serving(settings_for(tmp_path / "model")) as served:
        told = served.ask("GET", "/model").json
        assert told["scores"] == {"photos": 7}
        assert told["card"] == "# Kártya\n"
        (found,) = served.predict(photo()).json["predictions"]
        assert found["prediction_set"] == list(CLASSES)
        assert found["abstain"] is True


def test_health_answers_and_unknown_addresses_and_methods_are_problems(service: Served) -> None:
    for path in ("/health/live", "/health/ready"):
        assert service.ask("GET", path).json == {"status": "ok"}
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/model", 405),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
    ):
        answer = service.ask(method, path)
        assert answer.status == status, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert "POST" in service.ask("GET", "/predict").headers["allow"]
    assert service.ask("POST", "/predict/").json["code"] == "not_found"


def test_what_can_be_fetched_can_be_asked_about_by_head(service: Served) -> None:
    for path in ("/", "/health/live", "/health/ready", "/model", "/openapi.json"):
        fetched, asked = service.ask("GET", path), service.ask("HEAD", path)
        assert (asked.status, asked.body) == (200, b"")
        assert asked.headers["content-type"] == fetched.headers["content-type"]
        assert asked.headers["content-length"] == str(len(fetched.body))
    assert service.ask("HEAD", "/predict").status == 405


def test_every_answer_is_a_problem_or_not_and_carries_the_security_headers(
    service: Served,
) -> None:
    answers = [
        service.ask("GET", "/"),
        service.ask("GET", "/health/live"),
        service.ask("GET", "/nothing"),
        service.ask("POST", "/predict"),
        service.predict(photo()),
    ]
    ids = set()
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
        ids.add(answer.headers["x-request-id"])
        if answer.status >= 400:
            told = answer.json
            assert told["type"] == f"urn:anklealign:problem:{told['code']}"
            assert told["request_id"] == answer.headers["x-request-id"]
            assert (told["status"], told["title"]) == KINDS[told["code"]]
    assert len(ids) == len(answers)


def test_other_origins_may_ask_when_they_are_configured_and_not_otherwise(
    service: Served, model_folder: Path
) -> None:
    ours = {"Origin": "https://clinic.example"}
    assert "access-control-allow-origin" not in service.predict(photo(), **ours).headers
    allowed = settings_for(model_folder, cors_origins="https://clinic.example, https://b.example")
    with serving(allowed) as served:
        headers = served.predict(photo(), **ours).headers
        assert headers["access-control-allow-origin"] == "https://clinic.example"
        other = served.predict(photo(), Origin="https://else.example").headers
        assert "access-control-allow-origin" not in other


def test_the_page_comes_whole_without_inline_script_and_is_not_sent_twice(
    service: Served,
) -> None:
    page = service.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    assert "<style" not in text
    assert "style=" not in text
    assert " onclick" not in text
    assert "http://" not in text
    assert "https://" not in text
    again = service.ask("GET", "/", If_None_Match=page.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    for path, kind in (
        ("/page/page.js", "text/javascript"),
        ("/page/page.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/examples/neutral.jpg", "image/jpeg"),
    ):
        got = service.ask("GET", path)
        assert (got.status, got.headers["content-type"].split(";")[0]) == (200, kind)
    assert service.ask("HEAD", "/").body == b""


def test_prometheus_is_told_of_requests_photos_and_problems(service: Served) -> None:
    def value(line: str) -> float:
        text = service.ask("GET", "/metrics").body.decode()
        found = [row for row in text.splitlines() if row.startswith(line + " ")]
        return float(found[0].split()[-1]) if found else 0.0

    data = photo(5)
    predicted = service.predict(data).json["predictions"][0]["predicted"]
    photos = f'anklealign_photos_total{{predicted="{predicted}"}}'
    requests = 'anklealign_requests_total{method="POST",route="/predict",status="200"}'
    refused = 'anklealign_problems_total{code="no_file"}'
    strange = 'anklealign_requests_total{method="other",route="other",status="404"}'
    before = [value(name) for name in (photos, requests, refused, strange)]
    service.predict(data)
    service.ask("POST", "/predict")
    service.ask("BREW", "/pot")
    after = [value(name) for name in (photos, requests, refused, strange)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 1]
    assert value("anklealign_photos_waiting") == 0


def notes(caplog: pytest.LogCaptureFixture) -> list[dict]:
    return [record.note for record in caplog.records if hasattr(record, "note")]


def test_the_log_has_one_json_line_a_request_and_no_name_or_picture(
    service: Served, caplog: pytest.LogCaptureFixture
) -> None:
    body, kind = form(photo(7))
    with caplog.at_level(logging.INFO, "anklealign.service"):
        answer = service.ask("POST", "/predict", body, Content_Type=kind)
        refused = service.ask("POST", "/predict?name=anna", b"", Content_Type="image/jpeg")
        ids = [told.headers["x-request-id"] for told in (answer, refused)]
        assert eventually(lambda: ids[1] in "".join(map(str, notes(caplog))))
    lines = [
        JsonLines().format(record)
        for record in caplog.records
        if getattr(record, "note", {}).get("id") in ids
    ]
    first, second = (json.loads(line) for line in lines)
    assert first["id"] == answer.headers["x-request-id"]
    assert (first["status"], first["bytes"], first["photos"]) == (200, len(body), 1)
    assert first["predicted"] == [answer.json["predictions"][0]["predicted"]]
    assert first["time"].endswith("+00:00")
    assert (second["status"], second["code"]) == (400, "no_file")
    assert not any("x.jpg" in line or "anna" in line for line in lines)
    assert all(len(line) < 400 for line in lines)


def test_an_error_of_the_service_s_own_is_a_problem_that_tells_nothing_of_it(
    service: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Predictor, "probabilities", fails)
    answer = service.predict(photo())
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"secret" not in answer.body
    assert eventually(lambda: "secret" in caplog.text)
    monkeypatch.undo()
    assert service.predict(photo()).status == 200


def test_openapi_names_every_code_and_its_examples_are_of_its_schemas(service: Served) -> None:
    told = service.ask("GET", "/openapi.json").json
    code = told["components"]["schemas"]["ProblemDetails"]["properties"]["code"]
    assert code["enum"] == list(KINDS)
    for path in ("/predict", "/explain"):
        content = told["paths"][path]["post"]["requestBody"]["content"]
        assert "multipart/form-data" in content
        assert "image/jpeg" in content
    for name in ("Predictions", "Explanation", "Model", "Health", "ProblemDetails"):
        schema = told["components"]["schemas"][name]
        for example in schema["examples"]:
            assert set(schema["required"]) <= set(example), name


@pytest.mark.parametrize(
    "case",
    [
        # engine, export there, the faster one, chosen
        ("auto", False, "onnx", "torch"),
        ("auto", True, "onnx", "onnx"),
        ("auto", True, "torch", "torch"),
        ("torch", True, "onnx", "torch"),
        ("onnx", True, "torch", "onnx"),
    ],
)
def test_the_faster_engine_that_is_there_serves_unless_one_is_named(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, bool, str, str],
) -> None:
    engine, exported, faster, chosen = case
    file = tmp_path / "model.onnx"
    if exported:
        file.touch()
    export = SimpleNamespace(faster_engine=faster)
    monkeypatch.setattr("service.app.onnx_predictor.load", lambda *_: export)
    settings = settings_for(model_folder, engine=engine, export=file)
    predictor, name = load(settings)
    assert name == chosen
    assert (predictor is export) == (chosen == "onnx")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on the PATH")
def test_the_readme_s_curl_commands_work(service: Served, tmp_path: Path) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    commands = [line[2:] for line in readme.splitlines() if line.startswith("$ curl ")]
    assert len(commands) >= 6
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(photo())
    for command in commands:
        here = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
        words = [*shlex.split(here), "--silent", "--show-error", "--fail"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
    assert Image.open(tmp_path / "heat_map.png").format == "PNG"
