"""The reliability diagram shows each photo and each bin (robustness: tests/test_robustness.py)."""

import numpy as np
import pytest

from anklealign import calibration, curves


def test_the_diagram_shows_shares_errors_and_every_photo():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (60, 3))
    labels = rng.integers(0, 3, 60)
    after = calibration.probabilities(logits, 2.0)
    drawn = curves.reliability(labels, calibration.probabilities(logits, 1.0), after, 2.0)
    left, right = drawn.axes
    assert right.get_title() == "temperature 2.00, as delivered"
    (bins,) = [line for line in right.lines if line.get_label().startswith("photos")]
    assert len(bins.get_xdata()) == 6
    is_right = after.argmax(1) == labels
    assert np.mean(bins.get_ydata()) == pytest.approx(is_right.mean())
    assert np.mean(bins.get_xdata()) == pytest.approx(after.max(1).mean())
    assert sum(len(line.get_xdata()) for line in right.lines if line.get_marker() == "|") == 60
    texts = [text.get_text() for axes in (left, right) for text in axes.texts]
    assert sum(text.startswith("calibration error 0.") for text in texts) == 2


def test_a_constant_model_has_one_bin():
    probabilities = np.tile([0.5, 0.3, 0.2], (40, 1))
    drawn = curves.reliability(np.zeros(40, int), probabilities, probabilities, 1.0)
    (bins,) = [line for line in drawn.axes[1].lines if line.get_label().startswith("photos")]
    assert (bins.get_xdata(), bins.get_ydata()) == (0.5, 1.0)
