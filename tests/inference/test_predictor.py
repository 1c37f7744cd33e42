"""The predictor computes the same probabilities as validation, from files and from the store."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anklealign.config.params import Model
from anklealign.inference.predictor import Predictor
from anklealign.io import decode
from anklealign.models import bundle, calibration, factory, inputs
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.models.input_config import CHUNK

ROOT = Path(__file__).resolve().parents[2]
SIDE = 48
CONFIG = Model(
    "anklealign_cnn", image_size=32, epochs=1, learning_rate=0.01, arguments={"widths": (8, 16)}
)


def made() -> Bundle:
    torch.manual_seed(0)
    model = factory.build("x", CONFIG, 3)
    model.head.weight.data.normal_()
    preprocessing = Preprocessing(size=SIDE, fit="letterbox", fill=114, max_megapixels=1.0)
    input_config = bundle.default_input(model, 32)
    return Bundle(("a", "b", "c"), preprocessing, input_config, 2.5, 0.3, {}, model=model)


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    bundle.save(tmp_path / "model", made())
    return Predictor.load(tmp_path / "model", "cpu")


def pixels(count: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def jpeg(width: int = 90, height: int = 60) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def test_probabilities_equal_those_of_validation(predictor: Predictor) -> None:
    saved = made()
    cpu = torch.device("cpu")
    store = pixels()
    logits = inputs.logits(saved.model, store, np.arange(20), saved.input_config, cpu)
    probabilities = predictor.probabilities(store)
    # Merged batch normalizations round differently (fusion.py).
    np.testing.assert_allclose(probabilities, calibration.probabilities(logits, 2.5), rtol=1e-6)
    assert probabilities.shape == (20, 3)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_prediction_sets_hold_the_classes_above_the_bundle_s_threshold(predictor):
    probabilities = predictor.probabilities(pixels())
    middle = float(np.median(probabilities))
    chosen = replace(predictor, bundle=replace(predictor.bundle, conformal_threshold=middle))
    sets = chosen.prediction_sets(probabilities)
    np.testing.assert_array_equal(sets, probabilities >= middle)
    assert 0 < sets.sum() < sets.size


def test_probabilities_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    store = pixels()
    single = np.concatenate([predictor.probabilities(store[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(single, predictor.probabilities(store), atol=1e-6)


def test_rows_of_a_large_store_are_read_a_batch_at_a_time(predictor: Predictor) -> None:
    class Store:
        def __init__(self) -> None:
            self.read: list[int] = []

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            self.read.append(len(rows))
            return pixels(100)[rows]

    store, rows = Store(), np.random.default_rng(0).permutation(100)[:70]
    probabilities = predictor.probabilities(store, rows)  # type: ignore[arg-type]
    np.testing.assert_array_equal(probabilities, predictor.probabilities(pixels(100)[rows]))
    assert sum(store.read) == 70
    assert max(store.read) <= CHUNK < 70


def test_no_photos_have_no_probabilities(predictor: Predictor) -> None:
    assert predictor.probabilities(pixels(0)).shape == (0, 3)


def test_a_file_becomes_the_square_of_the_bundle(predictor: Predictor, tmp_path: Path) -> None:
    data = jpeg()
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    square = predictor.preprocess(data)
    assert square.shape == (SIDE, SIDE, 3)
    assert square.dtype == np.uint8
    assert (square[0] == 114).all()
    np.testing.assert_array_equal(predictor.preprocess(path), square)


def test_a_photo_above_the_bundle_s_limit_is_refused(predictor: Predictor) -> None:
    with pytest.raises(decode.PhotoError) as caught:
        predictor.preprocess(jpeg(1100, 1000))
    assert caught.value.reason == "too_large"


def test_classes_and_parameter_count(predictor: Predictor) -> None:
    assert predictor.classes == ("a", "b", "c")
    assert predictor.parameter_count == sum(p.numel() for p in made().model.parameters())


@pytest.mark.parametrize(
    ("module", "policy"),
    [("stages.evaluate", "PASSIVE"), ("stages.train", None)],
)
def test_threads_wait_passively_in_evaluate_and_not_in_train(
    module: str, policy: str | None
) -> None:
    code = f"""
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Finder())
import {module}
"""
    environment = {name: v for name, v in os.environ.items() if name != "OMP_WAIT_POLICY"}
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert found.split() == [str(policy)]
