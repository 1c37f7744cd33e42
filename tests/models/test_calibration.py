"""Temperature scaling calibrates probabilities; prediction sets reach their nominal coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.metrics.scores import point_scores
from anklealign.models.calibration import (
    COVERAGE,
    abstains,
    coverage_range,
    fit,
    fit_conformal,
    fit_temperature,
    format_sets,
    nominal_coverage,
    prediction_sets,
    probabilities,
    undo,
)


def sample(temperature: float, photos: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits, and labels from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (photos, 3))
    chances = probabilities(logits, temperature)
    return logits, (rng.random((photos, 1)) > chances.cumsum(1)).sum(1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, labels = sample(temperature, 20_000, 1)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@given(st.integers(0, 100), st.floats(0.3, 5))
@settings(max_examples=25, deadline=None)
def test_calibration_lowers_the_log_loss_and_keeps_the_ranking(seed: int, truth: float) -> None:
    logits, labels = sample(truth, 2000, seed)
    raw, calibrated = (probabilities(logits, t) for t in (1.0, fit_temperature(logits, labels)))
    before, after = (point_scores(labels, p)["log_loss"] for p in (raw, calibrated))
    assert after <= before + 1e-3
    np.testing.assert_array_equal(raw.argsort(1), calibrated.argsort(1))
    np.testing.assert_allclose(calibrated.sum(1), 1)


def test_a_validation_split_without_errors_does_not_give_infinite_confidence() -> None:
    labels = np.arange(48) % 3
    logits = 5 * np.eye(3)[labels]
    sure = probabilities(logits, fit_temperature(logits, labels)).max(1)
    np.testing.assert_allclose(sure, 49 / 51, atol=1e-4)  # Platt's target: (n + 1) / (n + K)


def single_photo_groups(photos: int) -> list[str]:
    """Return a separate group for each photo."""
    return [f"{n:04}" for n in range(photos)]


def never_predicted(true_class: np.ndarray) -> np.ndarray:
    """Return probabilities of two classes, of which the true one, half as probable, is not first.

    The predicted class is in every set, whatever the threshold.
    """
    return np.stack([true_class / 2, 1 - true_class / 2], 1)


def covered(sets: np.ndarray, labels: np.ndarray) -> float:
    return float(sets[np.arange(len(labels)), labels].mean())


@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_the_threshold_is_the_largest_within_the_risk_bound(seed: int, count: int, most: int):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(count), rng.integers(1, most + 1, count))
    true_class = rng.integers(1, 20, len(codes)) / 20  # many are equal
    chances, labels = never_predicted(true_class), np.zeros(len(true_class), np.int64)
    threshold = 2 * fit_conformal(chances, labels, list(codes.astype(str)))

    def risk(least: float) -> float:
        """Return Angelopoulos et al.'s bound on a new group's miss rate."""
        missed = [(true_class[codes == g] < least).mean() for g in range(count)]
        return (sum(missed) + 1) / (count + 1)

    allowed = 1 - nominal_coverage(count) + 1e-9
    assert risk(threshold) <= allowed
    larger = true_class[true_class > threshold + 1e-3]
    assert not len(larger) or risk(larger.min()) > allowed


@pytest.mark.parametrize(("photos", "rank"), [(9, 1), (18, 1), (19, 2), (99, 10)])
def test_the_threshold_of_single_photo_groups_is_the_conformal_rank(photos: int, rank: int) -> None:
    true_class = np.random.default_rng(0).permutation(np.linspace(0.2, 0.9, photos))
    chances, labels = never_predicted(true_class), np.zeros(photos, np.int64)
    threshold = fit_conformal(chances, labels, single_photo_groups(photos))
    assert 2 * threshold == pytest.approx(np.sort(true_class)[rank - 1], abs=4e-6)


@pytest.mark.parametrize(("groups", "share"), [(1, 0.5), (4, 0.8), (8, 8 / 9), (9, 0.9), (60, 0.9)])
def test_fewer_than_nine_groups_lower_the_nominal_coverage(groups: int, share: float) -> None:
    assert nominal_coverage(groups) == pytest.approx(share)


@pytest.mark.parametrize("subjects", [4, 16, 60])
def test_a_new_subject_s_coverage_is_nominal_on_average(subjects: int) -> None:
    rng = np.random.default_rng(subjects)
    shares, by_photo = [], []
    for _ in range(3000):
        codes = np.repeat(np.arange(subjects + 1), rng.integers(1, 9, subjects + 1))
        # Photos of one subject are nearly equally hard.
        true_class = 1 / (
            1 + np.exp(-rng.normal(1, 2, subjects + 1)[codes] - rng.normal(0, 0.3, len(codes)))
        )
        new = codes == subjects
        chances, labels = (
            never_predicted(true_class),
            np.zeros(len(true_class), np.int64),
        )
        for kept, groups in ((shares, codes[~new]), (by_photo, np.arange((~new).sum()))):
            threshold = fit_conformal(chances[~new], labels[~new], list(groups.astype(str)))
            kept.append(covered(prediction_sets(chances[new], threshold), labels[new]))
    error = 3 * np.std(shares) / len(shares) ** 0.5
    nominal = nominal_coverage(subjects)
    assert nominal - error <= np.mean(shares) <= nominal + 0.5 / subjects + error
    # Treating photos as independent, coverage falls below nominal for few subjects.
    assert subjects == 60 or np.mean(by_photo) < COVERAGE - error


def test_equal_probabilities_are_all_included_or_all_excluded_despite_rounding() -> None:
    chances = np.tile([0.5, 0.4, 0.1], (20, 1))
    threshold = fit_conformal(chances, np.arange(20) % 2, single_photo_groups(20))
    sets = prediction_sets(chances * (1 + 1e-8 * np.arange(-10, 10)[:, None]), threshold)
    assert format_sets(sets, ("a", "b", "c")) == ["a|b"] * 20


def test_the_model_abstains_if_the_set_has_several_classes() -> None:
    sets = np.array([[0, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    assert abstains(sets).tolist() == [False, True, True]
    assert format_sets(sets, ("a", "b", "c")) == ["b", "a|c", "a|b|c"]


@given(st.integers(0, 100), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_prediction_set_always_has_the_predicted_class(seed: int, threshold: float) -> None:
    logits, _ = sample(1.0, 50, seed)
    chances = probabilities(logits, 1.0)
    sets = prediction_sets(chances, threshold)
    assert sets[np.arange(50), chances.argmax(1)].all()


def test_a_model_that_is_right_on_more_than_nominal_has_sets_of_one_class() -> None:
    """Without the predicted class in every set, the least confident tenth would have empty sets."""
    rng = np.random.default_rng(0)
    logits = 4 * np.eye(2)[rng.integers(0, 2, 600)] + rng.normal(0, 1, (600, 2))
    chances = probabilities(logits, 1.0)
    labels = (rng.random((600, 1)) > chances.cumsum(1)).sum(1)
    threshold = fit_conformal(chances[:300], labels[:300], single_photo_groups(300))
    sets, accuracy = prediction_sets(chances[300:], threshold), (chances.argmax(1) == labels).mean()
    assert accuracy > 0.95
    assert not abstains(sets).any()
    assert covered(sets, labels[300:]) > 0.95


def rare_class(photos: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits of a model with balanced class weights, and labels with a class of 10 %."""
    rng = np.random.default_rng(seed)
    frequencies = np.array([0.5, 0.4, 0.1])
    labels = rng.choice(3, photos, p=frequencies)
    x = rng.normal(0, 1, (photos, 2)) + np.array([[0, 0], [1.5, 0], [0, 1.5]])[labels]
    # The exact posterior for equally frequent classes, twice as confident.
    centers = np.array([[0, 0], [1.5, 0], [0, 1.5]])
    return -((x[:, None] - centers) ** 2).sum(2), labels


def test_a_rare_class_has_its_share_as_mean_probability() -> None:
    (logits, labels), (new, truth) = rare_class(400, 1), rare_class(20_000, 2)
    before = probabilities(new, fit_temperature(logits, labels))
    temperature, bias = fit(logits, labels, np.array([0.5, 0.4, 0.1]), balanced=True)
    after = probabilities(new, temperature, bias)
    assert before[:, 2].mean() > 0.2
    assert after[:, 2].mean() == pytest.approx(0.1, abs=0.02)
    assert temperature == pytest.approx(2, rel=0.2)
    before_loss, after_loss = (point_scores(truth, p)["log_loss"] for p in (before, after))
    assert after_loss < before_loss - 0.05
    np.testing.assert_allclose(undo(after, temperature, bias), probabilities(new, 1.0))


@pytest.mark.parametrize("balanced", [True, False])
def test_the_class_bias_does_not_hurt_with_forty_photos(balanced: bool) -> None:
    frequencies = np.array([0.5, 0.4, 0.1])
    new, truth = rare_class(20_000, 0)
    shift = 0 if balanced else 2 * np.log(frequencies)
    gains = []
    for seed in range(1, 40):
        logits, labels = rare_class(40, seed)
        without = probabilities(new + shift, fit_temperature(logits + shift, labels))
        fitted = fit(logits + shift, labels, frequencies, balanced=balanced)
        losses = [
            point_scores(truth, p)["log_loss"]
            for p in (without, probabilities(new + shift, *fitted))
        ]
        gains.append(losses[0] - losses[1])
    assert np.mean(gains) > (0.05 if balanced else -0.005)


def test_equally_frequent_classes_have_no_bias() -> None:
    logits, labels = sample(2.0, 300, 1)
    temperature, bias = fit(logits, labels, np.full(3, 1 / 3), balanced=True)
    assert (temperature, bias) == (fit_temperature(logits, labels), ())


@given(st.integers(0, 100), st.floats(0.3, 5))
@settings(max_examples=25, deadline=None)
def test_undo_inverts_the_scaling(seed: int, temperature: float) -> None:
    logits, _ = sample(1.0, 50, seed)
    after = probabilities(logits, temperature)
    np.testing.assert_allclose(undo(after, temperature), probabilities(logits, 1.0))


@pytest.mark.parametrize("photos_each", [1, 6])
def test_coverage_stays_in_the_expected_range(photos_each: int) -> None:
    rng = np.random.default_rng(photos_each)
    inside, widths = [], []
    for seed in range(300):
        codes = np.repeat(np.arange(38), photos_each)
        true_class = 1 / (1 + np.exp(-rng.normal(1, 2, 38)[codes] - rng.normal(0, 0.3, len(codes))))
        chances, labels = (
            never_predicted(true_class),
            np.zeros(len(true_class), np.int64),
        )
        fit = codes < 18
        threshold = fit_conformal(chances[fit], labels[fit], list(codes[fit].astype(str)))
        share = covered(prediction_sets(chances[~fit], threshold), labels[~fit])
        low, high = coverage_range(
            true_class, list(codes.astype(str)), 18, confidence=0.95, draws=200, seed=seed
        )
        inside.append(low - 1e-9 <= share <= high + 1e-9)
        widths.append(high - low)
    # A discrete distribution covers slightly more than 95%; two simulation errors are 3 points.
    assert np.mean(inside) >= 0.92
    # Six equally hard photos of a subject add little information to one.
    assert np.mean(widths) > 0.2
