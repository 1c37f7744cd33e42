"""The operating point reaches its goal on new photos, and its classes follow from the threshold."""

import numpy as np
import pytest

from anklealign.config.params import Dataset, OperatingTarget
from anklealign.models import operating_point
from anklealign.models.operating_point import OperatingPoint

CLASSES = ("benign", "malignant", "other")


def validation(seed: int, photos: int = 200) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, photos)
    logits = rng.normal(size=(photos, 3)) + 1.2 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities, [CLASSES[k] for k in labels]


@pytest.mark.parametrize(
    ("goal", "positives"), [({"sensitivity": 0.9}, True), ({"specificity": 0.8}, False)]
)
def test_the_goal_is_reached_on_average_on_new_photos(goal, positives):
    reached = []
    for seed in range(60):
        probabilities, labels = validation(seed, 90)
        point = operating_point.choose(
            OperatingTarget("malignant", **goal), probabilities, labels, CLASSES
        )
        fresh, truth = validation(1000 + seed, 400)
        flagged = point.flags(fresh, CLASSES)
        own = np.array([label == "malignant" for label in truth])
        reached.append(flagged[own].mean() if positives else 1 - flagged[~own].mean())
    (wanted,) = goal.values()
    assert wanted - 0.01 <= np.mean(reached) <= wanted + 0.04


def test_a_cost_ratio_needs_no_photos():
    probabilities, labels = validation(0)
    target = OperatingTarget("malignant", cost_ratio=4.0)
    point = operating_point.choose(target, probabilities, labels, CLASSES)
    assert point == OperatingPoint("malignant", 0.2, "cost_ratio", 4.0)


def test_too_few_positive_photos_give_the_lowest_threshold():
    probabilities = np.array([[0.4, 0.6], [0.7, 0.3], [0.9, 0.1]])
    point = operating_point.choose(
        OperatingTarget("b", sensitivity=0.99), probabilities, ["b", "b", "a"], ("a", "b")
    )
    assert point.threshold == pytest.approx(0.3, abs=1e-5)
    assert point.flags(probabilities, ("a", "b")).tolist() == [True, True, False]


def test_below_the_threshold_the_most_probable_other_class_is_predicted():
    point = OperatingPoint("malignant", 0.2, "sensitivity", 0.95)
    probabilities = np.array([[0.7, 0.25, 0.05], [0.1, 0.19, 0.71], [0.3, 0.1, 0.6]])
    assert point.classes_of(probabilities, CLASSES) == ["malignant", "other", "other"]


def test_it_is_restored_from_the_record_of_a_bundle():
    point = OperatingPoint("malignant", 0.2, "specificity", 0.95)
    stored = {operating_point.RECORD: operating_point.record(point)}
    assert operating_point.from_record(stored) == point
    assert operating_point.from_record({}) is None


def test_a_target_has_one_goal_and_a_class_of_the_dataset():
    with pytest.raises(ValueError, match="one of sensitivity, specificity and cost_ratio"):
        OperatingTarget("a", sensitivity=0.9, specificity=0.9)
    with pytest.raises(ValueError, match="'c' is not a class; choose one of: a, b"):
        Dataset("folders", {"a": (), "b": ()}, operating_point=OperatingTarget("c", cost_ratio=2.0))
