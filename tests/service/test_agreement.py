"""evaluate's predictions.csv, the command for new photos and the API give the same answers."""

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


@pytest.fixture(scope="module", params=["a small phantom", "this checkout"])
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Clone:
    """A trained bundle, predictions.csv, the photos behind it, and the export."""
    folder = tmp_path_factory.mktemp("agreement")
    if request.param == "a small phantom":
        clone = small_clone(folder)
        clone("dvc", "repro")
    else:
        clone = checkout(folder)
    clone(sys.executable, "-m", "anklealign.cli.export")
    return clone


def checkout(folder: Path) -> Clone:
    """The committed run's photos, bundle and table, in a folder that may be written to."""
    if not (ROOT / "model/config.json").is_file() or not (ROOT / "data/raw/phantom").is_dir():
        pytest.skip("no trained bundle of the phantom here: `make repro` or `dvc pull` gives it")
    for name in ("model", "data/raw/phantom", "plots/evaluate/predictions.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    clone = Clone(folder)
    clone.environment["PYTHONPATH"] = str(ROOT)
    return clone


@pytest.fixture(scope="module")
def turned(trained: Clone) -> Path:
    """Each test photo once more, its pixels turned without loss and EXIF telling how.

    They are opened as the predictor does, which decodes large JPEGs at a part of their size.
    """
    how = bundle.load(trained.folder / "model").preparation
    folder = trained.folder / "turned"
    folder.mkdir()
    for number, path in enumerate(photos_of(trained)):
        orientation = 1 + number % 8
        # What the turn that EXIF asks for makes upright again; only 6 and 8 undo each other.
        inverse = TURNS[{6: 8, 8: 6}.get(orientation, orientation)]
        file = trained.folder / "data/raw/phantom" / path
        picture = decode.open_photo(file, how.max_megapixels, least_side=2 * how.size).image
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


def asked(served: Served, paths: list[Path]) -> tuple[list[str], np.ndarray]:
    found = [served.predict(path.read_bytes()).json["predictions"][0] for path in paths]
    rows = [[share for _, share in sorted(f["probabilities"].items())] for f in found]
    return [f["predicted"] for f in found], np.array(rows)


@pytest.mark.slow
def test_all_test_photos_are_answered_alike_by_all_three(
    trained: Clone, served: tuple[Served, float]
) -> None:
    api, tolerance = served
    expected = table(trained)
    raw = trained.folder / "data/raw/phantom"
    predicted, rows = asked(api, [raw / path for path in expected.path])
    assert len(rows) >= 5
    named = [str(Path("data/raw/phantom") / path) for path in expected.path]
    trained(sys.executable, "-m", "anklealign.cli.predict", *named, "--out", "upright.csv")
    command = pd.read_csv(trained.folder / "upright.csv").set_index("path").loc[named]
    assert predicted == list(command.predicted) == list(expected.predicted)
    np.testing.assert_allclose(columns(command), columns(expected), atol=1e-5)
    np.testing.assert_allclose(rows, columns(expected), atol=tolerance)
    np.testing.assert_allclose(rows, columns(command), atol=tolerance)


@pytest.mark.slow
def test_turned_photos_are_answered_alike_by_all_three(
    trained: Clone, turned: Path, served: tuple[Served, float]
) -> None:
    api, tolerance = served
    expected = table(trained)
    trained(sys.executable, "-m", "anklealign.cli.predict", "turned", "--out", "turned.csv")
    command = pd.read_csv(trained.folder / "turned.csv")
    predicted, rows = asked(api, sorted(turned.iterdir()))
    assert predicted == list(command.predicted) == list(expected.predicted)
    np.testing.assert_allclose(columns(command), columns(expected), atol=1e-5)
    np.testing.assert_allclose(rows, columns(command), atol=tolerance)
