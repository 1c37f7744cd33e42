"""The curve rises with the subjects, and its extrapolation follows a power law."""

import numpy as np
import pandas as pd
import pytest

from anklealign.evaluation import learning_curve

SIZES = np.array([25.0, 50.0, 75.0, 100.0])


def clusters(groups: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features of three overlapping classes, labels and groups of two photos each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(groups) % 3, 2)
    features = spread * rng.normal(size=(len(labels), 20)) + 2 * np.eye(20)[labels]
    return features.astype(np.float32), labels, [f"g{n // 2:03}" for n in range(len(labels))]


def test_a_power_law_is_extrapolated_exactly():
    scores = 1 - 2 * SIZES**-0.5
    gain = learning_curve.extrapolated_gain(scores, SIZES, 1000)
    assert gain == pytest.approx(2 * 100**-0.5 - 2 * 200**-0.5)


def test_a_falling_or_perfect_curve_has_no_gain():
    falling = np.array([0.8, 0.78, 0.76, 0.75])
    both = np.stack([falling, np.ones(4)])
    gains = learning_curve.extrapolated_gain(both, SIZES, 100)
    np.testing.assert_allclose(gains, 0, atol=1e-12)


def test_more_groups_help_where_classes_overlap_and_not_where_they_are_apart():
    results = {}
    for name, spread in (("hard", 2.0), ("easy", 0.2)):
        features, labels, groups = clusters(60, spread)
        right = learning_curve.probe_curve(features, labels, groups, 3, repeats=3, seed=1)
        results[name] = learning_curve.describe(
            right, labels, groups, [(n, 2 * n) for n in (12, 24, 36, 48)],
            resamples=200, confidence=0.95, seed=1,
        )  # fmt: skip
    values = [point["value"] for point in results["hard"]["points"].values()]
    assert list(results["hard"]["points"]) == ["25", "50", "75", "100"]
    assert values[0] + 0.05 < values[-1] < 0.95
    assert results["hard"]["twice"]["ci_low"] <= results["hard"]["twice"]["gain"]
    assert "would help" in results["hard"]["answer"] or "may help" in results["hard"]["answer"]
    assert results["easy"]["points"]["100"]["value"] > 0.99
    assert results["easy"]["twice"]["gain"] < 0.005
    assert "would hardly help" in results["easy"]["answer"]


def test_subsets_are_nested_and_have_each_class():
    _, labels, groups = clusters(30, 1.0)
    order = learning_curve.group_order(np.array(groups), labels, seed=3)
    assert sorted(order) == sorted(set(groups))
    small, large = (learning_curve.subset(order, share, 3) for share in (0.05, 0.5))
    assert len(small) == 3
    assert set(small) < set(large)
    assert {labels[groups.index(name)] for name in small} == {0, 1, 2}


def probed(table: pd.DataFrame, features: np.ndarray, score: float) -> dict:
    return learning_curve.of_probe(
        table, ["a", "b", "c"], lambda photos: features[photos.row], score,
        repeats=2, resamples=200, confidence=0.95, seed=1,
    )  # fmt: skip


def test_a_linear_model_much_weaker_than_the_model_does_not_answer():
    features, labels, groups = clusters(45, 1.5)
    table = pd.DataFrame(
        {
            "id": [f"{n:012x}" for n in range(90)], "row": range(90), "group": groups,
            "label": [["a", "b", "c"][k] for k in labels],
        }
    )  # fmt: skip
    weak = probed(table, features, 0.99)
    assert weak["represents_model"] is False
    assert "anklealign learning-curve" in weak["answer"]
    assert probed(table, features, 0.5)["represents_model"] is True
    shuffled = table.sample(frac=1, random_state=1)
    assert probed(shuffled, features, 0.99) == weak


def test_too_few_groups_have_no_curve():
    features, labels, _ = clusters(10, 1.0)
    groups = [f"class {k}" for k in labels]
    assert learning_curve.probe_curve(features, labels, groups, 3, repeats=1, seed=1) is None
