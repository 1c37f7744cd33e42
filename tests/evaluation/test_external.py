"""What is known of a new set beside its scores: photos seen before, and how it differs."""

import numpy as np
import pandas as pd

from anklealign.evaluation import external, photo_attributes


def photos_of(seed: int, level: int = 90, count: int = 80) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(level - 60, level + 60, (count, 32, 32, 3)).astype(np.uint8)
    shift = rng.integers(0, 30, count).astype(np.uint8)
    table = pd.DataFrame(
        {
            "row": range(count), "width": rng.integers(200, 900, count), "height": 400,
            "left": 0, "top": 0, "right": 32, "bottom": 32,
        }
    )  # fmt: skip
    return table, pixels + shift[:, None, None, None]


def drift(seed: int, level: int) -> dict:
    train = photo_attributes.quantiles(photo_attributes.measure(*photos_of(0)))
    attributes = photo_attributes.measure(*photos_of(seed, level))
    groups = [f"g{n // 2}" for n in range(len(attributes))]
    return external.attribute_drift(attributes, train, groups, external.SETTINGS, 1)


def test_photos_like_the_training_photos_are_outside_their_middle_in_a_tenth():
    shares = {name: values["outside"]["value"] for name, values in drift(1, 90).items()}
    assert set(shares) == set(photo_attributes.COLUMNS)
    assert max(shares.values()) < 0.25
    assert shares["border_left"] == 0


def test_darker_photos_are_reported_as_such():
    changed = drift(1, 130)
    assert changed["brightness"]["outside"]["value"] > 0.9
    assert changed["brightness"]["median"] > changed["brightness"]["train_median"] + 30
    assert changed["width"]["outside"]["value"] < 0.25
    metrics = {"drift": {"classes": {}, "attributes": changed}}
    (sentence,) = external.drift_warnings(metrics)
    assert "brightness (100%)" in sentence
    assert "width" not in sentence


def test_a_frame_and_a_size_are_measured():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3)).astype(np.uint8)
    pixels[:, :8] = 255
    table = pd.DataFrame(
        {"row": [0], "width": [600], "height": [300], "left": 0, "top": 0, "right": 40,
         "bottom": 40}
    )  # fmt: skip
    measured = photo_attributes.measure(table, pixels).iloc[0]
    assert measured.border_top == 0.2
    assert measured.border_bottom == 0
    assert measured.aspect == 2


def test_class_shares_and_the_accuracy_that_they_would_have_given():
    labels = np.array([0] * 8 + [1] * 2)
    predicted = np.array([0] * 8 + [0, 1])
    shift = external.class_shift(labels, predicted, ["a", "b", "c"], {"a": 40, "b": 40, "c": 20})
    assert shift["classes"]["a"] == {"train": 0.4, "share": 0.8}
    assert shift["classes"]["c"]["share"] == 0
    assert shift["accuracy_at_training_shares"] == 0.75  # of a and b, as c has no photo
    sentences = external.drift_warnings({"drift": shift})
    assert "a 80% (training photos 40%)" in sentences[0]


def test_photos_of_the_training_run_and_pictures_like_them_are_named():
    table = pd.DataFrame({"sha256": ["x", "y", "z", "w"]})
    alike = np.array([True, False, True, False])
    seen = external.overlap(table, {"x": "train", "w": "test"}, alike)
    assert list(seen) == ["train", "", "similar", "test"]
    correct = np.array([True, True, True, False])
    block = external.overlap_scores(seen, correct, checked=True)
    assert block["splits"] == {"similar": 1, "test": 1, "train": 1}
    assert (block["new_photos"], block["new_accuracy"]) == (1, 1.0)
    metrics = {"photos": 4, "overlap": block, "drift": {"classes": {}}}
    first, second = external.warnings(metrics)
    assert first.startswith("1 of the 4 photos were used to train or calibrate")
    assert second.startswith("1 of the 4 photos look like the same picture")


def test_what_could_not_be_checked_is_said():
    unchecked = external.overlap_scores(pd.Series([""]), np.array([True]), checked=False)
    metrics = {"photos": 1, "overlap": unchecked, "drift": {"classes": {}}}
    (sentence,) = external.warnings(metrics)
    assert "is unknown" in sentence
