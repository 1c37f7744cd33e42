"""Plots of a model's answers: reliability, robustness, and how it stands beside people.

Shapes: N photos, K classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import beta

from anklealign.metrics.scores import Floats, Integers, bins_of
from anklealign.plotting import style

# Kinds of worse photos (anklealign/evaluation/robustness.py) as a person reads them.
KINDS = {
    "blur_permille": "blur, sigma in ‰ of the side",
    "noise_levels": "noise, sd in grey levels",
    "jpeg_quality": "JPEG quality",
    "brightness_percent": "brightness, %",
    "rotation_degrees": "rotation, degrees",
    "downscaling_pixels": "downscaled to pixels",
    "mirror": "mirrored",
}


def reliability(labels: Integers, before: Floats, after: Floats, temperature: float) -> Figure:
    """Draw how often the model is right at each probability: (N,), (N, K), (N, K)."""
    figure = style.new(9, 4.7)
    left, right = figure.subplots(1, 2, sharey=True)
    _reliability(left, labels, before)
    _reliability(right, labels, after)
    left.set_title("as trained", fontsize=10)
    right.set_title(f"temperature {temperature:.2f}, as delivered", fontsize=10)
    left.set_ylabel("share that is right")
    handles, names = right.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _reliability(axes: Axes, labels: Integers, probabilities: Floats) -> None:
    right = probabilities.argmax(1) == labels
    sure = probabilities.max(1)
    bins = bins_of(probabilities)
    counts = np.bincount(bins)
    counts, held = counts[counts > 0], np.bincount(bins, weights=right)[counts > 0]
    said = np.bincount(bins, weights=sure)[np.bincount(bins) > 0] / counts
    share = held / counts
    # Jeffreys' 95 % interval of a share.
    low = np.where(held > 0, beta.ppf(0.025, held + 0.5, counts - held + 0.5), 0)
    high = np.where(held < counts, beta.ppf(0.975, held + 0.5, counts - held + 0.5), 1)
    start = 1 / probabilities.shape[1]
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as sure as right")
    axes.vlines(
        said,
        low,
        high,
        color=style.COLOURS[0],
        linewidth=1.2,
        label="95 %, were photos independent",
    )
    axes.plot(
        said,
        share,
        "o-",
        color=style.COLOURS[0],
        markersize=5,
        label="photos, in bins of as many",
    )
    axes.plot(sure[right], np.full(right.sum(), 1.06), "|", color=style.COLOURS[2], markersize=8)
    axes.plot(
        sure[~right], np.full((~right).sum(), -0.06), "|", color=style.COLOURS[5], markersize=8
    )
    axes.text(start, 1.1, "right, a line a photo", color=style.COLOURS[2], fontsize=8, va="bottom")
    axes.text(start, -0.1, "wrong", color=style.COLOURS[5], fontsize=8, va="top")
    error = float(np.abs(said * counts - held).sum() / counts.sum())
    axes.text(
        0.98,
        0.12,
        f"calibration error {error:.3f}",
        ha="right",
        fontsize=9,
        transform=axes.transAxes,
    )
    axes.set_xlim(start - 0.02, 1.02)
    axes.set_ylim(-0.18, 1.18)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlabel("probability of the predicted class")
    axes.spines[["top", "right"]].set_visible(False)


def robustness(
    found: Mapping[str, Mapping[int, float]],
    clean: float,
    photos: int,
    classes: int,
) -> Figure:
    """Draw the balanced accuracy of worse photos, a panel a kind.

    Args:
        found: Kind to level to score.
        clean: Score of the photos as they are.
        photos: How many.
        classes: K; the line of chance is 1 / K.
    """
    figure = style.new(10, 5.2)
    panels = figure.subplots(2, 4, sharey=True).ravel()
    for axes, (kind, levels) in zip(panels, found.items(), strict=False):
        values = list(levels.values())
        places = range(len(values))
        axes.axhline(clean, color="0.35", linewidth=1, label="photos as they are")
        axes.axhline(1 / classes, color="0.35", linewidth=1, linestyle=":", label="chance")
        axes.plot(places, values, "o-", color=style.COLOURS[0])
        axes.set_xticks(places, [str(level) if len(levels) > 1 else "" for level in levels])
        axes.set_title(KINDS[kind], fontsize=9)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1.02)
    for axes in panels[len(found) :]:
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


def people(beside: Mapping[str, Any]) -> Figure:
    """Draw each annotator's accuracy and the model's on the same photos by the same votes.

    Args:
        beside: What `evaluation.beside_people` returns of at least one judged vote.
    """
    rows = sorted(beside["by_annotator"].items(), key=lambda row: (-row[1]["accuracy"], row[0]))
    figure = style.new(8, 1.5 + 0.27 * len(rows))
    axes = figure.subplots()
    places = np.arange(len(rows))
    own, model = ([row[name] for _, row in rows] for name in ("accuracy", "model_accuracy"))
    axes.hlines(places, own, model, color="0.8", linewidth=1.5)
    axes.plot(own, places, "o", color=style.COLOURS[1], label="the person")
    axes.plot(model, places, "s", color=style.COLOURS[0], label="the model on the same photos")
    axes.set_yticks(places, [f"{style.short(name)} ({row['photos']})" for name, row in rows])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("share of photos on which the other people's majority says the same")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.set_title(
        f"{beside['votes']} votes of {beside['annotators']} people on {beside['photos']} test "
        f"photos: people {beside['accuracy']['value']:.2f}, the model "
        f"{beside['model_accuracy']['value']:.2f}",
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def confusion(counts: pd.DataFrame) -> Figure:
    """Draw a confusion matrix: index the actual class, columns the predicted, values photos."""
    classes = list(counts.index)
    values = counts.to_numpy()
    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    side = 2.4 + 0.9 * len(classes)
    figure = style.new(side + 0.6, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            share = float(shares[row, column])
            axes.text(
                column,
                row,
                f"{values[row, column]}\n{share:.0%}",
                ha="center",
                va="center",
                color="white" if share > 0.55 else "black",
            )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title("Test photos; % of the actual class", fontsize=10)
    axes.spines[:].set_visible(False)
    return figure


def history(epochs: pd.DataFrame, best: int, monitor: str) -> Figure:
    """Draw losses and validation scores by epoch, with the epoch whose weights were kept."""
    figure = style.new(9, 3.6)
    loss, score = figure.subplots(1, 2)
    for column, colour in (("train_loss", style.COLOURS[0]), ("val_loss", style.COLOURS[1])):
        loss.plot(epochs.epoch, epochs[column], color=colour, label=column.replace("_", " "))
    loss.set_ylabel("loss, nats")
    for column, colour in (
        ("val_accuracy", style.COLOURS[0]),
        ("val_balanced_accuracy", style.COLOURS[1]),
        ("val_macro_f1", style.COLOURS[2]),
    ):
        name = column.removeprefix("val_").replace("_", " ")
        score.plot(epochs.epoch, epochs[column], color=colour, label=name)
    score.set_ylabel("validation score")
    score.set_ylim(0, 1.02)
    for axes in (loss, score):
        axes.axvline(best, color="0.4", linestyle=":", label=f"kept: best {monitor}")
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure
