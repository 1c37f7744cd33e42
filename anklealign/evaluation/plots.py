"""Evaluation plots: reliability, robustness, human baseline, confusion matrix and history.

Shapes: N photos, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import beta

from anklealign.metrics.scores import Floats, Integers, confidence_bins
from anklealign.plotting import style

# Panel titles of the corruptions of anklealign/evaluation/robustness.py, with their units.
CORRUPTION_TITLES = {
    "gaussian_blur": "Gaussian blur (sigma, ‰ of the side)",
    "gaussian_noise": "Gaussian noise (SD, gray levels)",
    "jpeg_compression": "JPEG compression (quality)",
    "brightness": "brightness (%)",
    "rotation": "rotation (degrees)",
    "downscaling": "downscaling (longer side, px)",
    "horizontal_flip": "horizontal flip",
}

# A confusion matrix of more classes is not readable in the report; the pairs are.
MATRIX_CLASSES = 40
LARGE_CELLS = 12  # classes whose cells have room for count and percentage
LEVEL_LABEL = 10  # characters of a class name that fit below its column
LISTED = 25  # pairs, and classes


def reliability(labels: Integers, before: Floats, after: Floats, temperature: float) -> Figure:
    """Draw reliability diagrams before and after calibration: (N,), (N, K), (N, K)."""
    figure = style.new(9, 4.7)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, probabilities in ((left, before), (right, after)):
        correct = probabilities.argmax(1) == labels
        _draw_bins(axes, correct, probabilities)
        _draw_photos(axes, correct, probabilities)
    left.set_title("before calibration", fontsize=10)
    right.set_title(f"after calibration (T = {temperature:.2f})", fontsize=10)
    left.set_ylabel("accuracy")
    handles, names = right.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw_bins(axes: Axes, correct: npt.NDArray[np.bool_], probabilities: Floats) -> None:
    """Draw the accuracy of each equal-count bin against its mean confidence, with the error."""
    bins = confidence_bins(probabilities)
    sizes = np.bincount(bins)
    counts, hits = sizes[sizes > 0], np.bincount(bins, weights=correct)[sizes > 0]
    confidence = np.bincount(bins, weights=probabilities.max(1))[sizes > 0] / counts
    # Jeffreys' 95% interval of a proportion.
    low = np.where(hits > 0, beta.ppf(0.025, hits + 0.5, counts - hits + 0.5), 0)
    high = np.where(hits < counts, beta.ppf(0.975, hits + 0.5, counts - hits + 0.5), 1)
    color = style.COLORS[0]
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfect calibration")
    label = "95% CI (assumes independence)"
    axes.vlines(confidence, low, high, color=color, linewidth=1.2, label=label)
    label = "photos in equal-count bins"
    axes.plot(confidence, hits / counts, "o-", color=color, markersize=5, label=label)
    error = float(np.abs(confidence * counts - hits).sum() / counts.sum())
    text = f"calibration error {error:.3f}"
    axes.text(0.98, 0.12, text, ha="right", fontsize=9, transform=axes.transAxes)


def _draw_photos(axes: Axes, correct: npt.NDArray[np.bool_], probabilities: Floats) -> None:
    """Draw one tick per photo at its confidence, and set the limits and labels of the axes."""
    confidence = probabilities.max(1)
    chance = 1 / probabilities.shape[1]
    for photos, place, color in (
        (correct, 1.06, style.COLORS[2]),
        (~correct, -0.06, style.COLORS[5]),
    ):
        heights = np.full(photos.sum(), place)
        axes.plot(confidence[photos], heights, "|", color=color, markersize=8)
    axes.text(
        chance, 1.1, "correct (one tick per photo)", color=style.COLORS[2], fontsize=8, va="bottom"
    )
    axes.text(chance, -0.1, "wrong", color=style.COLORS[5], fontsize=8, va="top")
    axes.set_xlim(chance - 0.02, 1.02)
    axes.set_ylim(-0.18, 1.18)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlabel("confidence (probability of the predicted class)")
    axes.spines[["top", "right"]].set_visible(False)


def robustness(
    scores: Mapping[str, Mapping[int, float]],
    clean: float,
    photos: int,
    classes: int,
) -> Figure:
    """Draw the balanced accuracy on corrupted photos, one panel per kind of corruption.

    Args:
        scores: Kind to level to score.
        clean: Score on the unmodified photos.
        photos: Number of photos.
        classes: K; chance level is 1 / K.
    """
    figure = style.new(10, 5.2)
    panels = figure.subplots(2, 4, sharey=True).ravel()
    for axes, (kind, levels) in zip(panels, scores.items(), strict=False):
        positions = range(len(levels))
        axes.axhline(clean, color="0.35", linewidth=1, label="unmodified photos")
        axes.axhline(1 / classes, color="0.35", linewidth=1, linestyle=":", label="chance level")
        axes.plot(positions, list(levels.values()), "o-", color=style.COLORS[0])
        axes.set_xticks(positions, [str(level) if len(levels) > 1 else "" for level in levels])
        axes.set_title(CORRUPTION_TITLES[kind], fontsize=9)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1.02)
    for axes in panels[len(scores) :]:
        axes.set_axis_off()
    for axes in panels[::4]:
        axes.set_ylabel("balanced accuracy", fontsize=9)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
        title=f"{photos} test photos",
        title_fontsize=9,
    )
    return figure


def human_baseline(metrics: Mapping[str, Any]) -> Figure:
    """Draw the accuracy of each annotator and of the model on the same photos.

    Args:
        metrics: Result of `score_tables.human_baseline_scores` with at least one scored vote.
    """
    rows = sorted(metrics["by_annotator"].items(), key=lambda row: (-row[1]["accuracy"], row[0]))
    figure = style.new(8, 1.5 + 0.27 * len(rows))
    axes = figure.subplots()
    positions = np.arange(len(rows))
    own, model = ([row[name] for _, row in rows] for name in ("accuracy", "model_accuracy"))
    axes.hlines(positions, own, model, color="0.8", linewidth=1.5)
    axes.plot(own, positions, "o", color=style.COLORS[1], label="annotator")
    axes.plot(model, positions, "s", color=style.COLORS[0], label="model on the same photos")
    axes.set_yticks(positions, [f"{style.short(name)} ({row['photos']})" for name, row in rows])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("accuracy against the majority of the other annotators")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.set_title(
        f"{metrics['votes']} votes of {metrics['annotators']} annotators on {metrics['photos']} "
        f"test photos: annotators {metrics['accuracy']['value']:.2f}, model "
        f"{metrics['model_accuracy']['value']:.2f}",
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def confusion(counts: pd.DataFrame) -> Figure:
    """Draw a confusion matrix, or of more than `MATRIX_CLASSES` classes the most confused pairs.

    Args:
        counts: Photo counts; the index is the actual class, the columns the predicted class.
    """
    if len(counts) > MATRIX_CLASSES:
        return _confused_pairs(counts)
    classes = [style.short(str(name)) for name in counts.index]
    values = counts.to_numpy()
    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    small = len(classes) > LARGE_CELLS
    cell = 0.32 if small else 0.9  # inches; a large cell has room for the percentage
    side = 2.4 + cell * len(classes)
    figure = style.new(side + 0.6, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(values > 0) if small else np.ndindex(values.shape):
        share = float(shares[row, column])
        count = f"{values[row, column]}"
        axes.text(
            column,
            row,
            count if small else f"{count}\n{share:.0%}",
            ha="center",
            va="center",
            color="white" if share > 0.55 else "black",
            fontsize=7 if small else None,
        )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    if small or max(map(len, classes)) > LEVEL_LABEL:
        axes.tick_params(axis="x", labelrotation=90)
    if small:
        axes.tick_params(labelsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    title = "counts; shade: % of the actual class" if small else "% of the actual class"
    axes.set_title(f"Test photos, {title}", fontsize=10)
    axes.spines[:].set_visible(False)
    return figure


def confused_pairs(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of classes with confused photos: actual, predicted, count, photos.

    The pairs with most photos come first; of equal counts, those with the larger share of the
    actual class.
    """
    values = counts.to_numpy().copy()
    photos = values.sum(1)
    np.fill_diagonal(values, 0)
    actual, predicted = np.nonzero(values)
    count = values[actual, predicted]
    order = np.lexsort((predicted, actual, -count / photos[actual], -count))
    return pd.DataFrame(
        {
            "actual": counts.index.to_numpy()[actual[order]],
            "predicted": counts.columns.to_numpy()[predicted[order]],
            "count": count[order],
            "photos": photos[actual[order]],
        }
    )


def _confused_pairs(counts: pd.DataFrame) -> Figure:
    """Draw the most confused pairs, the classes with the lowest recall, and all recalls."""
    pairs = confused_pairs(counts)
    photos = counts.sum(axis=1)
    recall = pd.Series(np.diag(counts), counts.index)[photos > 0] / photos[photos > 0]
    worst = recall.sort_values(kind="stable").head(LISTED)
    figure = style.new(13, 7.6)
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1))
    left, right, below = (
        figure.add_subplot(place) for place in (grid[0, 0], grid[0, 1], grid[1, :])
    )
    shown = pairs.head(LISTED)
    names = [
        f"{style.short(str(actual))} → {style.short(str(predicted))}"
        for actual, predicted in zip(shown.actual, shown.predicted, strict=True)
    ]
    numbers = [f"{n} of {of}" for n, of in zip(shown["count"], shown.photos, strict=True)]
    _draw_bars(left, names, shown["count"].tolist(), numbers)
    left.set_title(
        f"Most confused of {len(pairs):,} pairs: actual → predicted, photos", fontsize=10
    )
    sizes = [f"{value:.0%} of {n}" for value, n in zip(worst, photos[worst.index], strict=True)]
    _draw_bars(right, [style.short(str(name)) for name in worst.index], worst.tolist(), sizes)
    right.set_title(f"Lowest recall of {len(recall):,} classes", fontsize=10)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlim(0, 1.15)
    right.set_xticks(np.linspace(0, 1, 6))
    below.hist(recall, bins=np.linspace(0, 1, 21).tolist(), color=style.COLORS[0])
    below.set_xlabel("recall")
    below.set_ylabel("classes")
    below.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str]
) -> None:
    """Draw a horizontal bar with a name and a text for each value, the first one on top."""
    positions = np.arange(len(values))
    axes.barh(positions, values, color=style.COLORS[0], height=0.7)
    for position, value, text in zip(positions, values, texts, strict=True):
        axes.annotate(
            text, (value, position), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(positions, names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(LISTED - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.spines[["top", "right", "left"]].set_visible(False)


def history(epochs: pd.DataFrame, best: int, monitor: str) -> Figure:
    """Draw losses and validation scores by epoch and mark the best epoch."""
    figure = style.new(9, 3.6)
    loss, score = figure.subplots(1, 2)
    for column, color in (("train_loss", style.COLORS[0]), ("val_loss", style.COLORS[1])):
        loss.plot(epochs.epoch, epochs[column], color=color, label=column.replace("_", " "))
    loss.set_ylabel("loss, nats")
    for column, color in (
        ("val_accuracy", style.COLORS[0]),
        ("val_balanced_accuracy", style.COLORS[1]),
        ("val_macro_f1", style.COLORS[2]),
    ):
        name = column.removeprefix("val_").replace("_", " ")
        score.plot(epochs.epoch, epochs[column], color=color, label=name)
    score.set_ylabel("validation score")
    score.set_ylim(0, 1.02)
    for axes in (loss, score):
        axes.axvline(best, color="0.4", linestyle=":", label=f"best {monitor.replace('_', ' ')}")
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure
