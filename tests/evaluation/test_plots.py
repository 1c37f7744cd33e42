"""Reliability diagram, confusion matrix and history (robustness: test_robustness.py)."""

import numpy as np
import pandas as pd
import pytest

from anklealign.evaluation import plots
from anklealign.models import calibration

CLASSES = ["a", "b"]


def test_reliability_diagram_shows_bins_error_and_every_photo():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (60, 3))
    labels = rng.integers(0, 3, 60)
    after = calibration.probabilities(logits, 2.0)
    drawn = plots.reliability(labels, calibration.probabilities(logits, 1.0), after, 2.0)
    left, right = drawn.axes
    assert right.get_title() == "after calibration (T = 2.00)"
    (bins,) = [line for line in right.lines if line.get_label().startswith("photos")]
    assert len(bins.get_xdata()) == 6
    is_right = after.argmax(1) == labels
    assert np.mean(bins.get_ydata()) == pytest.approx(is_right.mean())
    assert np.mean(bins.get_xdata()) == pytest.approx(after.max(1).mean())
    assert sum(len(line.get_xdata()) for line in right.lines if line.get_marker() == "|") == 60
    texts = [text.get_text() for axes in (left, right) for text in axes.texts]
    assert sum(text.startswith("calibration error 0.") for text in texts) == 2


def test_constant_model_has_one_bin():
    probabilities = np.tile([0.5, 0.3, 0.2], (40, 1))
    drawn = plots.reliability(np.zeros(40, int), probabilities, probabilities, 1.0)
    (bins,) = [line for line in drawn.axes[1].lines if line.get_label().startswith("photos")]
    assert (bins.get_xdata(), bins.get_ydata()) == (0.5, 1.0)


def test_confusion_matrix_shows_counts_and_percentages_of_the_actual_class():
    counts = pd.DataFrame([[3, 1], [0, 2]], index=CLASSES, columns=CLASSES)
    drawn = plots.confusion(counts)
    assert [t.get_text() for t in drawn.axes[0].texts] == [
        "3\n75%",
        "1\n25%",
        "0\n0%",
        "2\n100%",
    ]


def test_history_marks_the_best_epoch():
    columns = ("train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1")
    epochs = pd.DataFrame({"epoch": [1, 2, 3]} | {name: [0.5, 0.4, 0.6] for name in columns})
    drawn = plots.history(epochs, 2, "accuracy")
    for axes in drawn.axes:
        (kept,) = [line for line in axes.lines if line.get_label() == "best accuracy"]
        assert set(kept.get_xdata()) == {2}


def counts_of(classes: int) -> pd.DataFrame:
    names = [f"class {k}" for k in range(classes)]
    return pd.DataFrame(5 * np.eye(classes, dtype=int), names, names)


def test_a_matrix_of_many_classes_shows_only_counts_above_zero():
    counts = counts_of(20)
    counts.iloc[0, 3] = 2
    drawn = plots.confusion(counts)
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert sorted(texts) == ["2"] + ["5"] * 20


def test_of_more_classes_the_most_confused_pairs_and_the_lowest_recalls_are_shown():
    counts = counts_of(100)
    counts.iloc[7, 3], counts.iloc[8, 2], counts.iloc[9, 2] = 4, 5, 5
    counts.iloc[9, 9] = 0
    pairs = plots.confused_pairs(counts)
    assert pairs.to_numpy().tolist() == [
        ["class 9", "class 2", 5, 5],
        ["class 8", "class 2", 5, 10],
        ["class 7", "class 3", 4, 9],
    ]
    drawn = plots.confusion(counts)
    left, right, below = drawn.axes
    assert [text.get_text() for text in left.texts] == ["5 of 5", "5 of 10", "4 of 9"]
    assert left.get_yticklabels()[0].get_text() == "class 9 → class 2"
    assert right.texts[0].get_text() == "0% of 5"
    assert len(right.texts) == plots.LISTED
    assert sum(bar.get_height() for bar in below.patches) == 100


def test_classes_without_test_photos_have_no_recall():
    counts = counts_of(50)
    counts.iloc[4, 4] = 0
    _, right, below = plots.confusion(counts).axes
    assert "class 4" not in [label.get_text() for label in right.get_yticklabels()]
    assert sum(bar.get_height() for bar in below.patches) == 49
