"""The audit finds an attribute that gives the class away, and reports none where there is none."""

import numpy as np
import pandas as pd
import pytest

from anklealign.evaluation import shortcuts

CLASSES = ["ants", "bees"]
SIDE = 40
MODEL = {"value": 0.9, "majority": 0.5, "gain": 0.4}


def photos_of(seed: int, shortcut: str = "") -> tuple[pd.DataFrame, np.ndarray]:
    """Return 120 noisy photos of 60 groups; 9 of 10 of a class have its shortcut."""
    rng = np.random.default_rng(seed)
    count = 120
    labels = rng.permutation(np.arange(count) % 2)
    marked = np.where(rng.random(count) < 0.9, labels, 1 - labels)
    pixels = rng.integers(0, 180, (count, SIDE, SIDE, 3)).astype(np.uint8)
    table = pd.DataFrame(
        {
            "id": [f"{i:012x}" for i in range(count)],
            "row": range(count),
            "label": [CLASSES[k] for k in labels],
            "collector": rng.choice(["north", "south", "west"], count),
            "group": [f"g{i // 2:03}" for i in range(count)],
            "width": rng.integers(300, 900, count),
            "height": rng.integers(300, 900, count),
            "left": 0, "top": 0, "right": SIDE, "bottom": SIDE,
        }
    )  # fmt: skip
    if shortcut == "brightness":
        pixels[marked == 1] += 40
    elif shortcut == "borders":
        pixels[marked == 1, :, :5] = 255
    elif shortcut == "image_size":
        table.loc[marked == 1, "width"] += 2000
    elif shortcut == "collector":
        table["collector"] = np.where(marked == 1, "north", "south")
    elif shortcut == "background_color":
        pixels[marked == 1, :5, :, 1] = 250
    elif shortcut == "sharpness":
        smooth = np.repeat(np.repeat(pixels[:, ::4, ::4], 4, 1), 4, 2)
        pixels[marked == 1] = smooth[marked == 1]
    return table, pixels


def audited(table: pd.DataFrame, pixels: np.ndarray, model: dict[str, float] = MODEL) -> dict:
    return shortcuts.audit(table, pixels, CLASSES, model, resamples=200, confidence=0.95, seed=1)


@pytest.mark.parametrize(
    "name",
    ["collector", "image_size", "borders", "brightness", "sharpness", "background_color"],
)
def test_a_shortcut_is_found_and_named(name):
    result = audited(*photos_of(1, name))
    score = result["attributes"][name]
    assert score["value"] > 0.8
    assert score["majority"] == 0.5
    assert score["ci_low"] > 0.7
    assert f"{name.replace('_', ' ')} alone predicts the class" in result["warnings"][name]


@pytest.mark.parametrize("seed", range(2))
def test_a_set_without_a_shortcut_gets_no_warning(seed):
    result = audited(*photos_of(seed))
    assert result["warnings"] == {}
    assert len(result["attributes"]) == 6
    assert all(abs(score["value"] - 0.5) < 0.15 for score in result["attributes"].values())


def test_an_attribute_far_below_the_model_gets_no_warning():
    attributes = {"brightness": {"value": 0.62, "majority": 0.5, "ci_low": 0.55, "ci_high": 0.7}}
    assert shortcuts.warnings(attributes, MODEL) == {}
    weak = {"value": 0.65, "majority": 0.5, "gain": 0.15}
    assert list(shortcuts.warnings(attributes, weak)) == ["brightness"]


def test_the_order_of_the_rows_does_not_matter():
    table, pixels = photos_of(3, "brightness")
    shuffled = table.sample(frac=1, random_state=0)
    assert audited(shuffled, pixels) == audited(table, pixels)


def test_a_shortcut_within_a_group_does_not_count():
    table, pixels = photos_of(2)
    # Each group has its own brightness, which says nothing about other groups.
    rng = np.random.default_rng(0)
    level = dict(zip(table.group.unique(), rng.integers(0, 70, 60), strict=True))
    table["label"] = [CLASSES[k] for k in (np.arange(120) // 2) % 2]
    pixels += table.group.map(level).to_numpy(np.uint8)[:, None, None, None]
    assert audited(table, pixels)["attributes"]["brightness"]["value"] < 0.7


def test_few_groups_are_not_audited():
    table, pixels = photos_of(0)
    table["group"] = table.label
    assert audited(table, pixels) == {}
