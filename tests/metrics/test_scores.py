"""Scores agree with scikit-learn, with and without weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve

from anklealign.metrics.scores import (
    brier_scores,
    confidence_bins,
    confusion,
    confusion_scores,
    constant_scores,
    decision_scores,
    loss_scores,
    margins,
    point_scores,
    rank_scores,
    ranked_probability_scores,
    resample,
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
    by_class = confusion_scores(confusion(labels, predicted, classes))
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        assert by_class[name] == pytest.approx(values)


def test_the_ranked_probability_score_costs_more_the_farther_the_probability_is_from_the_label():
    labels = np.array([0, 0, 0])
    probabilities = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert ranked_probability_scores(labels, probabilities).tolist() == [0, 0.5, 1]
    two = np.array([[0.7, 0.3], [0.2, 0.8]])
    np.testing.assert_allclose(
        ranked_probability_scores(np.array([0, 0]), two), brier_scores(np.array([0, 0]), two) / 2
    )


def test_log_loss_is_finite_at_probability_zero():
    assert point_scores(np.array([0, 1]), np.array([[0.0, 1], [0, 1]]))["log_loss"] < 40


def test_every_resample_draws_as_many_groups_as_exist():
    draws = resample(7, 100, np.random.default_rng(1))
    assert draws.shape == (100, 7)
    assert (draws.sum(1) == 7).all()


@given(st.integers(0, 10_000), st.integers(10, 60), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_weighted_scores_are_scikit_learns(seed, photos, classes):
    labels, probabilities = guesses(seed, photos, classes)
    # Ties and zero weights, as in a resample.
    probabilities = np.round(probabilities, 1) + 1e-3
    probabilities /= probabilities.sum(1, keepdims=True)
    weights = np.random.default_rng(seed).integers(0, 3, photos).astype(float)
    weights[:classes] = 1
    predicted = probabilities.argmax(1)
    found = {}
    for make in (decision_scores, rank_scores, loss_scores):
        found |= make(labels, probabilities)(weights)
    every = list(range(classes))
    sample = {"sample_weight": weights}
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(labels, predicted, **sample))
    kappa = metrics.cohen_kappa_score(labels, predicted, weights="quadratic", **sample)
    assert found["kappa"] == pytest.approx(0 if np.isnan(kappa) else kappa)
    assert found["log_loss"] == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=every, **sample)
    )
    brier = metrics.brier_score_loss(
        labels, probabilities, labels=every, scale_by_half=False, **sample
    )
    assert found["brier"] == pytest.approx(brier)
    # The mean Brier score of "the class is k or less" over k.
    reached = [
        metrics.brier_score_loss(
            labels <= k, probabilities[:, : k + 1].sum(1).clip(0, 1), scale_by_half=True, **sample
        )
        for k in range(classes - 1)
    ]
    assert found["rps"] == pytest.approx(np.mean(reached))
    far = np.abs(labels - predicted) >= 2
    assert found["two_step_errors"] == pytest.approx(np.average(far, weights=weights))
    for k in every:
        own = labels == k
        assert found["class_roc_auc"][k] == pytest.approx(
            metrics.roc_auc_score(own, probabilities[:, k], **sample)
        )
        assert found["class_average_precision"][k] == pytest.approx(
            metrics.average_precision_score(own, probabilities[:, k], **sample)
        )
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(
            np.eye(classes)[labels], probabilities, average="macro", **sample
        )
    )
    # The mean over classes in scikit-learn does not treat equal float sums as ties.
    assert found["roc_auc"] == pytest.approx(found["class_roc_auc"].mean())
    assert found["precision"] == pytest.approx(
        metrics.precision_score(
            labels, predicted, average=None, labels=every, zero_division=0, **sample
        )
    )


def test_each_row_of_weights_gives_one_score():
    labels, probabilities = guesses(2, 30, 3)
    weights = np.random.default_rng(0).exponential(size=(5, 30))
    for make in (decision_scores, rank_scores, loss_scores):
        weighted = make(labels, probabilities)
        together = weighted(weights)
        for b in range(5):
            for name, value in weighted(weights[b]).items():
                np.testing.assert_allclose(together[name][b], value, err_msg=name)


@pytest.mark.parametrize(("photos", "bins"), [(3, 1), (25, 2), (51, 5), (100, 10), (1000, 10)])
def test_calibration_error_uses_equal_count_bins(photos, bins):
    labels, probabilities = guesses(7, photos, 3)
    found = confidence_bins(probabilities)
    assert np.ptp(np.bincount(found)) <= 1
    assert len(np.bincount(found)) == bins
    # The error is the mean distance of scikit-learn's calibration curve from the diagonal.
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    accuracy, mean_confidence = calibration_curve(
        correct, confidence, n_bins=bins, strategy="quantile"
    )
    expected = np.average(np.abs(accuracy - mean_confidence), weights=np.bincount(found))
    error = loss_scores(labels, probabilities)(np.ones(photos))["calibration_error"]
    assert error == pytest.approx(expected)


def test_loss_of_pseudo_photos_is_capped_at_the_largest_photo_loss():
    labels, probabilities = guesses(1, 20, 3)
    loss = loss_scores(labels, probabilities)
    right, wrong = (
        loss(np.zeros(20), margins(counts))
        for counts in (np.diag([1.0, 0, 0]), np.array([[0, 1.0, 0], [0, 0, 0], [0, 0, 0]]))
    )
    assert right["log_loss"] == right["brier"] == 0
    alone = loss(np.eye(20))
    assert wrong["log_loss"] == pytest.approx(max(alone["log_loss"].max(), np.log(3)))
    assert wrong["brier"] == pytest.approx(max(alone["brier"].max(), 2 / 3))


@pytest.mark.parametrize("classes", [2, 5])
def test_margins_of_pseudo_photos_are_photos_with_one_hot_probabilities(classes):
    labels, probabilities = guesses(3, 40, classes)
    # Probabilities of exactly 1 and 0 tie with those of the pseudo-photos.
    probabilities[:7] = np.eye(classes)[probabilities[:7].argmax(1)]
    rng = np.random.default_rng(4)
    weights, cells = rng.exponential(size=(6, 40)), rng.exponential(size=(6, classes, classes))
    actual, predicted = (index.ravel() for index in np.indices((classes, classes)))
    all_labels = np.concatenate([labels, actual])
    all_probabilities = np.concatenate([probabilities, np.eye(classes)[predicted]])
    all_weights = np.concatenate([weights, cells.reshape(6, -1)], 1)
    for make in (decision_scores, rank_scores):
        by_margins = make(labels, probabilities)(weights, margins(cells))
        for name, value in make(all_labels, all_probabilities)(all_weights).items():
            np.testing.assert_allclose(by_margins[name], value, err_msg=name, atol=1e-12)


def test_constant_probabilities_have_the_scores_of_any_model():
    labels, _ = guesses(5, 50, 4)
    frequencies = np.array([0.2, 0.5, 0.3, 0.0])
    every_photo = np.tile(frequencies, (50, 1))
    weights = np.random.default_rng(1).exponential(size=(4, 50))
    expected = {}
    for make in (decision_scores, rank_scores, loss_scores):
        expected |= make(labels, every_photo)(weights)
    constant = constant_scores(labels, frequencies)(weights)
    assert constant.keys() == expected.keys()
    for name, value in expected.items():
        # Where all predictions are one class, rounding leaves the square root of 1e-16 in mcc.
        np.testing.assert_allclose(constant[name], value, err_msg=name, atol=1e-7)


def test_confidently_wrong_model_has_the_worst_brier_score():
    assert brier_scores(np.array([0, 1]), np.array([[0.0, 1], [0, 1]])).tolist() == [2, 0]
