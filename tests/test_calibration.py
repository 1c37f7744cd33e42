"""One temperature, fitted on validation, makes probabilities honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.calibration import fit_temperature, probabilities
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
