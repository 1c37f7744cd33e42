"""One temperature and one threshold, fitted on validation, make probabilities and sets honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.calibration import (
    abstains,
    coverage_range,
    fit_conformal,
    fit_temperature,
    prediction_sets,
    probabilities,
    spelled,
    uncalibrated,
)
from anklealign.scores import point_scores


def sample(temperature: float, photos: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits, and labels from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (photos, 3))
    chances = probabilities(logits, temperature)
    return logits, (rng.random((photos, 1)) > chances.cumsum(1)).sum(1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
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


def test_a_faultless_validation_does_not_make_the_model_infinitely_sure() -> None:
    labels = np.arange(48) % 3
    logits = 5 * np.eye(3)[labels]
    sure = probabilities(logits, fit_temperature(logits, labels)).max(1)
    np.testing.assert_allclose(sure, 49 / 51, atol=1e-4)  # Platt's target: (n + 1) / (n + K)


def covered(sets: np.ndarray, labels: np.ndarray) -> float:
    return float(sets[np.arange(len(labels)), labels].mean())


@given(st.integers(0, 1000), st.integers(9, 400), st.floats(0.5, 0.95))
@settings(max_examples=50, deadline=None)
def test_the_sets_hold_the_truth_of_the_promised_share_of_the_calibration_photos(
    seed: int, photos: int, coverage: float
) -> None:
    logits, labels = sample(1.0, photos, seed)
    chances = probabilities(logits, 1.0)
    share = covered(prediction_sets(chances, fit_conformal(chances, labels, coverage)), labels)
    assert share * photos >= min(photos, np.floor((photos + 1) * coverage - 1e-9))
    assert share <= coverage + 2 / photos or photos < coverage / (1 - coverage) + 1


@pytest.mark.parametrize(("photos", "rank"), [(8, 0), (9, 1), (18, 1), (19, 2), (99, 10)])
def test_the_threshold_is_the_conformal_rank(photos: int, rank: int) -> None:
    own = np.random.default_rng(0).permutation(np.linspace(0.2, 0.9, photos))
    threshold = fit_conformal(np.stack([own, 1 - own], 1), np.zeros(photos, np.int64), 0.9)
    expected = np.sort(own)[rank - 1] if rank else 0
    assert threshold == pytest.approx(expected, abs=2e-6)


def test_on_new_photos_the_coverage_averages_what_was_promised() -> None:
    shares = []
    for seed in range(200):
        logits, labels = sample(1.0, 140, seed)
        chances = probabilities(logits, 2.0)  # however badly the probabilities are calibrated
        threshold = fit_conformal(chances[:40], labels[:40], 0.9)
        shares.append(covered(prediction_sets(chances[40:], threshold), labels[40:]))
    # Exchangeable photos: (N + 1 - 4) / (N + 1) = 0.902 on average; its deviation here is 0.004.
    assert np.mean(shares) == pytest.approx(37 / 41, abs=0.012)


def test_equal_probabilities_are_all_in_or_all_out_whatever_the_rounding() -> None:
    chances = np.tile([0.5, 0.4, 0.1], (20, 1))
    threshold = fit_conformal(chances, np.arange(20) % 2, 0.9)
    sets = prediction_sets(chances * (1 + 1e-8 * np.arange(-10, 10)[:, None]), threshold)
    assert spelled(sets, ("a", "b", "c")) == ["a|b"] * 20


def test_only_a_set_of_one_class_is_an_answer() -> None:
    sets = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    assert abstains(sets).tolist() == [True, False, True, True]
    assert spelled(sets, ("a", "b", "c")) == ["", "b", "a|c", "a|b|c"]


@given(st.integers(0, 100), st.floats(0.3, 5))
@settings(max_examples=25, deadline=None)
def test_what_a_model_said_before_its_temperature_comes_back(seed: int, temperature: float) -> None:
    logits, _ = sample(1.0, 50, seed)
    after = probabilities(logits, temperature)
    np.testing.assert_allclose(uncalibrated(after, temperature), probabilities(logits, 1.0))


def test_coverage_strays_as_far_as_is_told() -> None:
    low, high = coverage_range(40, 50, 0.9, 0.95)
    shares = []
    for seed in range(400):
        logits, labels = sample(1.0, 90, seed)
        chances = probabilities(logits, 1.0)
        threshold = fit_conformal(chances[:40], labels[:40], 0.9)
        shares.append(covered(prediction_sets(chances[40:], threshold), labels[40:]))
    inside = np.mean([low <= share <= high for share in shares])
    # A discrete law holds a little more than 95 %; two errors of the simulation are 2 points.
    assert 0.93 <= inside <= 0.99
    assert high - low > 4 * np.subtract(*coverage_range(4000, 5000, 0.9, 0.95)[::-1])


def test_without_enough_calibration_photos_every_set_holds_the_truth() -> None:
    assert coverage_range(8, 50, 0.9, 0.95) == (1.0, 1.0)
