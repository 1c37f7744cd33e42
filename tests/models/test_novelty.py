"""Photos unlike the training photos are refused; few of the similar ones are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from anklealign.evaluation import reference_images
from anklealign.inference.predictor import Predictor
from anklealign.models import bundle, novelty, novelty_detector
from anklealign.models.description import CONFIG
from anklealign.models.input_config import InputConfig
from anklealign.models.novelty_detector import GENERAL_INPUT, NoveltyDetector
from anklealign.models.weights import GENERAL_NETWORK
from tests.models.test_bundle import made

CPU = torch.device("cpu")
SHARED = Path(__file__).resolve().parents[3] / "shared/photos"


def photos_of(folder: str, count: int) -> np.ndarray:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"needs the photos in shared/photos/{folder}")
    names = sorted((SHARED / folder).rglob("*.jp*g"))
    chosen = np.random.default_rng(0).permutation(len(names))[:count]
    return np.stack(
        [np.asarray(Image.open(names[i]).convert("RGB").resize((160, 160))) for i in chosen]
    )


def test_the_threshold_is_a_conformal_quantile() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, 100) / 100)
    assert novelty.threshold(scores, 0.05) == 0.95
    assert novelty.threshold(scores, 0.5) == 0.5
    assert novelty.threshold(scores[:5], 0.05) == scores[:5].max()


def test_it_refuses_about_the_promised_share_of_similar_photos() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        scores = rng.exponential(size=60)
        limit = novelty.threshold(scores[:30], 0.1)
        shares.append((scores[30:] > limit).mean())
    assert 0.07 < np.mean(shares) <= 0.1  # expected: 3 of 31


def test_distances_are_means_to_the_nearest_references() -> None:
    references = np.eye(7, dtype=np.float32)
    features = np.array([[1, 0, 0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0, 0, 0]], np.float32)
    assert NoveltyDetector(references, 0, 0).scores(features).tolist() == [0.8, 0.72]
    assert NoveltyDetector(references[:1], 0, 0).scores(features).tolist() == [0.0, 0.4]


def test_the_input_of_the_general_network_is_that_of_its_pretrained_config() -> None:
    config = timm.get_pretrained_cfg(GENERAL_NETWORK.architecture)
    assert InputConfig(160, config.mean, config.std, config.interpolation) == GENERAL_INPUT


def test_references_are_scored_by_those_of_other_groups() -> None:
    rng = np.random.default_rng(0)
    references = novelty_detector.unit(rng.normal(size=(12, 20)).astype(np.float32))
    detector = NoveltyDetector(references, 0.0, 0.05)
    groups = ["a"] * 4 + ["b"] * 8
    own = detector.own_scores(groups)
    # Group b has only four references of another group, which is less than NEIGHBORS.
    expected = NoveltyDetector(references[4:], 0.0, 0.05).scores(references[:4])
    assert np.array_equal(own, expected)
    assert detector.own_scores(["a"] * 12).shape == (0,)


def test_the_threshold_counts_left_out_training_photos() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 64, 64, 3), np.uint8)
    train, val = np.arange(36), np.arange(36, 40)
    own_groups = novelty.fit(pixels, train, val, CPU, 0.05, groups=range(36))
    one_group = novelty.fit(pixels, train, val, CPU, 0.05, groups=[0] * 36)
    scores = one_group.scores(novelty.describe(pixels, val, CPU))
    assert one_group.threshold == scores.max()
    both = np.concatenate([scores, own_groups.own_scores(range(36))])
    assert own_groups.threshold == novelty.threshold(both, 0.05) != one_group.threshold


def test_a_bundle_keeps_its_detector(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 64, 64, 3), np.uint8)
    detector = novelty.fit(pixels, np.arange(6), np.arange(6, 9), CPU, 0.05, groups=range(6))
    assert detector.references.shape == (6, 1280)
    bundle.save(tmp_path, replace(made(), novelty=detector))
    loaded = Predictor.load(tmp_path, "cpu")
    assert loaded.bundle.novelty.threshold == detector.threshold
    assert np.array_equal(loaded.bundle.novelty.references, detector.references)
    scores = loaded.novelty_scores(pixels)
    assert np.array_equal(scores, detector.scores(novelty.describe(pixels, np.arange(9), CPU)))
    assert loaded.in_distribution(scores)[6:].all()
    (tmp_path / novelty_detector.FILE).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"novelty\.safetensors is missing or does not match"):
        Predictor.load(tmp_path, "cpu")
    config = json.loads((tmp_path / CONFIG).read_text(encoding="utf-8"))
    del config["anklealign"]["novelty"]["sha256"]
    (tmp_path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: novelty\.sha256 is missing.*train again"):
        Predictor.load(tmp_path, "cpu")


def test_a_bundle_without_a_detector_calls_every_photo_similar(tmp_path: Path) -> None:
    bundle.save(tmp_path, made())
    predictor = Predictor.load(tmp_path, "cpu")
    scores = predictor.novelty_scores(np.zeros((2, 64, 64, 3), np.uint8))
    assert np.isnan(scores).all()
    assert predictor.in_distribution(scores).all()


def test_drawn_images_are_the_same_in_every_run_and_differ() -> None:
    first, second = reference_images.draw(64), reference_images.draw(64)
    for kind, images in first.items():
        assert images.shape == (reference_images.COUNT, 64, 64, 3)
        assert np.array_equal(images, second[kind])
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_photos_of_other_subjects_and_drawn_images_are_refused() -> None:
    insects, vehicles = photos_of("hymenoptera", 120), photos_of("car_bike", 40)
    pixels = np.concatenate([insects, vehicles])
    detector = novelty.fit(pixels, np.arange(80), np.arange(80, 120), CPU, 0.05, groups=range(80))
    assert isinstance(detector, NoveltyDetector)
    scores = detector.scores(novelty.describe(pixels, np.arange(80, 160), CPU))
    assert detector.similar(scores[:40]).mean() >= 0.95
    refused = ~detector.similar(scores[40:])
    assert refused.mean() >= 0.6  # of few references; `python -m benchmarks.novelty` has more
    for kind, images in reference_images.draw(160).items():
        scores = detector.scores(novelty.describe(images[:10], np.arange(10), CPU))
        assert not detector.similar(scores).any(), kind


def test_references_are_the_features_of_the_training_photos_by_id() -> None:
    vectors = np.eye(3, dtype=np.float32)
    train = pd.DataFrame({"id": ["c", "a", "b"], "row": [7, 5, 9]})
    detector = NoveltyDetector(vectors, 0.5, 0.05)
    known = detector.by_row(train)
    assert {row: vector.tolist() for row, vector in known.items()} == {
        5: [1, 0, 0], 9: [0, 1, 0], 7: [0, 0, 1],
    }  # fmt: skip
    assert detector.by_row(train.head(2)) == {}  # of other photos
