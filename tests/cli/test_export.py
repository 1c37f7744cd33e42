"""The ONNX export has the probabilities of PyTorch, and a stale export is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from anklealign.cli.export import Speed, preferred_engine
from anklealign.cli.main import main
from anklealign.inference import onnx_predictor
from anklealign.inference.predictor import Predictor
from anklealign.io import results
from anklealign.models import bundle
from tests.models.test_bundle import made

# One of each kind of network; the others differ from these in size.
KINDS = (
    "majority",
    "cnn_gap",
    "grid_pool_cnn",
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "vgg11_bn",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_small",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in model/ and its export beside it."""
    top = tmp_path_factory.mktemp("export")
    bundle.save(top / "model", made())
    command = ["--model", str(top / "model"), "--out", str(top / "model.onnx")]
    assert main(["export", *command]) == 0
    return top


def squares(count: int = 21) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 256, 256, 3), np.uint8)


def test_both_engines_give_the_same_probabilities_at_every_batch_size(folder: Path) -> None:
    reference = Predictor.load(folder / "model", "cpu")
    found = onnx_predictor.load(folder / "model", folder / "model.onnx")
    found = replace(found, load_pytorch=pytest.fail)
    assert np.isnan(found.novelty_scores(squares(2))).all()  # without a detector
    for count in (0, 1, 2, 16, 21):
        pixels = squares(count)
        expected, actual = reference.probabilities(pixels), found.probabilities(pixels)
        assert actual.shape == (count, 3)
        assert actual.dtype == np.float64
        np.testing.assert_allclose(actual, expected, atol=1e-4)
        np.testing.assert_array_equal(actual.argmax(1), expected.argmax(1))


def test_the_export_is_one_valid_file_that_names_bundle_and_preferred_engine(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model)
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata[onnx_predictor.BUNDLE_HASH] == results.bundle_hash(folder / "model")
    assert metadata[onnx_predictor.PREFERRED_ENGINE] in {"onnx", "torch"}
    assert sorted(path.name for path in folder.iterdir()) == ["model", "model.onnx"]


def test_pytorch_is_preferred_only_if_it_saves_a_fifth() -> None:
    onnx_speed = Speed(1.0, 1.0)
    assert preferred_engine({"torch": Speed(1.0, 0.7), "onnx": onnx_speed}) == "onnx"
    assert preferred_engine({"torch": Speed(0.9, 0.6), "onnx": onnx_speed}) == "torch"


def test_a_stale_missing_or_damaged_export_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    bundle.save(other, made())
    config = json.loads((other / "config.json").read_text())
    config["anklealign"]["temperature"] = 2.0
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"another bundle than .*make export"):
        onnx_predictor.load(other, folder / "model.onnx")
    with pytest.raises(ValueError, match=r"cannot be read .*make export"):
        onnx_predictor.load(folder / "model", tmp_path / "nothing.onnx")
    (tmp_path / "broken.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"not a valid ONNX model .*make export"):
        onnx_predictor.load(folder / "model", tmp_path / "broken.onnx")


def test_an_export_that_differs_is_an_error_and_nothing_is_written(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logits = onnx_predictor.OnnxPredictor.logits
    monkeypatch.setattr(
        onnx_predictor.OnnxPredictor,
        "logits",
        lambda self, *arguments: logits(self, *arguments) + np.eye(3)[0],
    )
    command = ["--model", str(folder / "model"), "--out", str(tmp_path / "model.onnx")]
    assert main(["export", *command]) == 1
    assert "export: ONNX Runtime differs from PyTorch by up to" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_bundle_is_an_error_with_a_remedy(tmp_path: Path, capsys) -> None:
    assert main(["export", "--model", str(tmp_path), "--out", str(tmp_path / "x.onnx")]) == 1
    assert "config.json does not exist" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_is_exported_and_agrees(name: str, tmp_path: Path) -> None:
    bundle.save(tmp_path / "model", made(name))
    command = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "model.onnx")]
    assert main(["export", *command]) == 0
