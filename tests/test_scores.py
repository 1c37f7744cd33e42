"""Scores agree with scikit-learn's; intervals resample whole groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from anklealign.scores import (
    confusion,
    point_scores,
    resample,
    scores_of,
    scores_with_intervals,
)


def guesses(seed: int, photos: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, photos - classes)])
    logits = rng.normal(size=(photos, classes)) + np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(2, 4))
@settings(max_examples=50, deadline=None)
def test_point_scores_are_scikit_learns(seed, photos, classes):
    labels, probabilities = guesses(seed, photos, classes)
    predicted = probabilities.argmax(1)
    scores = point_scores(labels, probabilities)
    every = list(range(classes))
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(
        metrics.recall_score(labels, predicted, average="macro", labels=every, zero_division=0)
    )
    for kind in ("macro", "weighted"):
        assert scores[f"{kind}_f1"] == pytest.approx(
            metrics.f1_score(labels, predicted, average=kind, labels=every, zero_division=0)
        )
    assert scores["log_loss"] == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=every)
    )
    by_class = scores_of(confusion(labels, predicted, classes))
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        assert by_class[name] == pytest.approx(values)


def test_an_impossible_photo_leaves_the_log_loss_finite():
    assert point_scores(np.array([0, 1]), np.array([[0.0, 1], [0, 1]]))["log_loss"] < 40


def test_every_resample_draws_as_many_groups_as_there_are():
    draws = resample(7, 100, np.random.default_rng(1))
    assert draws.shape == (100, 7)
    assert (draws.sum(1) == 7).all()


def intervals(labels, probabilities, groups, **changes):
    options = {"resamples": 2000, "confidence": 0.95, "seed": 1} | changes
    baseline = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    return scores_with_intervals(labels, probabilities, groups, baseline, **options)


def test_intervals_match_a_plain_loop_over_the_same_resamples():
    labels, probabilities = guesses(3, 60, 3)
    groups = [f"g{i // 4:02}" for i in range(60)]
    scores = intervals(labels, probabilities, groups, resamples=200)
    draws = resample(15, 200, np.random.default_rng(1))
    majority = np.broadcast_to(np.bincount(labels) / 60, (60, 3))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        values, gains = [], []
        for draw in draws:
            rows = np.concatenate(
                [np.arange(4 * g, 4 * g + 4) for g in range(15) for _ in range(draw[g])]
            )
            values.append(point_scores(labels[rows], probabilities[rows])[name])
            gains.append(values[-1] - point_scores(labels[rows], majority[rows])[name])
        low, high = np.quantile(values, [0.025, 0.975])
        assert scores[name]["ci_low"] == pytest.approx(low)
        assert scores[name]["ci_high"] == pytest.approx(high)
        assert scores[name]["gain_ci_low"] == pytest.approx(np.quantile(gains, 0.025))


def test_photos_of_one_person_widen_the_interval():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 400)
    right = np.repeat(rng.random(40) < 0.7, 10)  # persons are right or wrong as a whole
    probabilities = np.where((np.eye(2)[labels] == 1) == right[:, None], 0.9, 0.1)
    grouped = intervals(labels, probabilities, [f"p{i // 10}" for i in range(400)])["accuracy"]
    single = intervals(labels, probabilities, [f"p{i}" for i in range(400)])["accuracy"]
    assert grouped["ci_high"] - grouped["ci_low"] > 2 * (single["ci_high"] - single["ci_low"])


def test_row_order_changes_nothing():
    labels, probabilities = guesses(3, 60, 3)
    groups = np.array([f"g{i // 4:02}" for i in range(60)])
    shuffled = np.random.default_rng(0).permutation(60)
    one = intervals(labels, probabilities, list(groups))
    other = intervals(labels[shuffled], probabilities[shuffled], list(groups[shuffled]))
    for name in ("accuracy", "macro_f1"):
        assert one[name]["ci_low"] == pytest.approx(other[name]["ci_low"], abs=1e-12)


def test_the_model_beats_the_majority_by_its_paired_gain():
    labels, probabilities = guesses(3, 300, 3)
    scores = intervals(labels, probabilities, [str(i) for i in range(300)])
    gain = scores["accuracy"]
    assert gain["gain"] == pytest.approx(gain["value"] - np.bincount(labels).max() / 300)
    assert 0 < gain["gain_ci_low"] < gain["gain"] < gain["gain_ci_high"]
