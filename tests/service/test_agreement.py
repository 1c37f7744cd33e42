"""Tests that predictions.csv, the predict command and the API agree on the same photos."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anklealign.io import decode
from anklealign.models import bundle
from benchmarks.serving import port_of
from tests.service.conftest import Served, settings_for
from tests.test_dvc import Clone, small_clone

ROOT = Path(__file__).resolve().parents[2]
TURNS = {value: decode.TURNS.get(value) for value in range(1, 9)}


@pytest.fixture(scope="module", params=["a small synthetic set", "this checkout"])
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Clone:
    """Return a clone with a trained bundle, predictions.csv, its photos, and the export."""
    folder = tmp_path_factory.mktemp("agreement")
    if request.param == "a small synthetic set":
        clone = small_clone(folder)
        clone("dvc", "repro")
    else:
        clone = checkout(folder)
    clone(sys.executable, "-m", "anklealign", "export")
    return clone


def checkout(folder: Path) -> Clone:
    """Link the photos, bundle and predictions of the committed run into a writable folder."""
    if not (ROOT / "model/config.json").is_file() or not (ROOT / "data/raw/synthetic").is_dir():
        pytest.skip("no trained bundle of the synthetic set; run `make repro` or `dvc pull`")
    for name in ("model", "data/raw/synthetic", "plots/evaluate/predictions.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    clone = Clone(folder)
    clone.environment["PYTHONPATH"] = str(ROOT)
    return clone


@pytest.fixture(scope="module")
def rotated(trained: Clone) -> Path:
    """Return a folder of the test photos, rotated without loss and with the matching EXIF tag.

    They are opened as the predictor does, which decodes large JPEGs at a reduced size.
    """
    preprocessing = bundle.load(trained.folder / "model").preprocessing
    folder = trained.folder / "rotated"
    folder.mkdir()
    for number, path in enumerate(photos_of(trained)):
        orientation = 1 + number % 8
        # The EXIF rotation restores the upright photo; only 6 and 8 are inverse to each other.
        inverse = TURNS[{6: 8, 8: 6}.get(orientation, orientation)]
        file = trained.folder / "data/raw/synthetic" / path
        picture = decode.open_photo(
            file, preprocessing.max_megapixels, least_side=2 * preprocessing.size
        ).image
        if inverse is not None:
            picture = picture.transpose(inverse)
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(folder / f"{number:03}.png", exif=exif)
    return folder


def photos_of(clone: Clone) -> list[str]:
    return list(table(clone).path)


def table(clone: Clone) -> pd.DataFrame:
    return pd.read_csv(clone.folder / "plots/evaluate/predictions.csv")


def columns(frame: pd.DataFrame) -> np.ndarray:
    names = [name for name in frame.columns if name.startswith("p_")]
    return frame[sorted(names)].to_numpy(float)


@pytest.fixture(scope="module", params=["torch", "onnx"])
def served(trained: Clone, request: pytest.FixtureRequest) -> Iterator[tuple[Served, float]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=trained.folder,
        env=trained.environment
        | {"ANKLEALIGN_PORT": "0", "ANKLEALIGN_ENGINE": request.param, "ANKLEALIGN_DEVICE": "cpu"},
        stdout=subprocess.PIPE,
    )
    settings = settings_for(trained.folder / "model")
    yield Served(port_of(process), settings, None), {"torch": 1e-5, "onnx": 1e-4}[request.param]
    process.terminate()
    process.wait(10)


def predict_all(served: Served, paths: list[Path]) -> tuple[list[str], np.ndarray]:
    predictions = [served.predict(path.read_bytes()).json["predictions"][0] for path in paths]
    rows = [
        [probability for _, probability in sorted(p["probabilities"].items())] for p in predictions
    ]
    return [p["predicted"] for p in predictions], np.array(rows)


@pytest.mark.slow
def test_all_three_agree_on_the_test_photos(trained: Clone, served: tuple[Served, float]) -> None:
    api, tolerance = served
    expected = table(trained)
    raw = trained.folder / "data/raw/synthetic"
    predicted, rows = predict_all(api, [raw / path for path in expected.path])
    assert len(rows) >= 5
    named = [str(Path("data/raw/synthetic") / path) for path in expected.path]
    trained(sys.executable, "-m", "anklealign", "predict", *named, "--out", "upright.csv")
    command = pd.read_csv(trained.folder / "upright.csv").set_index("path").loc[named]
    assert predicted == list(command.predicted) == list(expected.predicted)
    np.testing.assert_allclose(columns(command), columns(expected), atol=1e-5)
    np.testing.assert_allclose(rows, columns(expected), atol=tolerance)
    np.testing.assert_allclose(rows, columns(command), atol=tolerance)


@pytest.mark.slow
def test_all_three_agree_on_rotated_photos(
    trained: Clone, rotated: Path, served: tuple[Served, float]
) -> None:
    api, tolerance = served
    expected = table(trained)
    trained(sys.executable, "-m", "anklealign", "predict", "rotated", "--out", "rotated.csv")
    command = pd.read_csv(trained.folder / "rotated.csv")
    predicted, rows = predict_all(api, sorted(rotated.iterdir()))
    assert predicted == list(command.predicted) == list(expected.predicted)
    np.testing.assert_allclose(columns(command), columns(expected), atol=1e-5)
    np.testing.assert_allclose(rows, columns(command), atol=tolerance)
