"""Plots as matplotlib figures, drawn without a screen and the same to the byte each time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from anklealign.files import replacing

# Okabe and Ito's palette, told apart by colour-blind readers too (2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

LONGEST = 28  # letters of a name beside a bar


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write the figure as PNG, without the matplotlib version that it would otherwise carry."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})


def new(width: float, height: float) -> Figure:
    """Return an empty figure, inches wide and high, that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def short(name: str) -> str:
    """Return a name that fits beside a bar."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def class_shares(table: pd.DataFrame, classes: Sequence[str], parts: Sequence[str]) -> Figure:
    """Draw each part's class shares below the whole's, with the numbers of photos."""
    rows = [("all", table[table.split.isin(parts)]), *((p, table[table.split == p]) for p in parts)]
    figure = new(8, 0.9 + 0.55 * len(rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    places = np.arange(len(rows))
    for k, name in enumerate(classes):
        counts = np.array([(part.label == name).sum() for _, part in rows])
        shares = counts / np.array([max(len(part), 1) for _, part in rows])
        colour = COLOURS[k % len(COLOURS)]
        axes.barh(places, shares, left=left, color=colour, label=name)
        red, green, blue = to_rgb(colour)
        light = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
        for place, start, share, count in zip(
            places.tolist(), left.tolist(), shares.tolist(), counts.tolist(), strict=True
        ):
            if share > 0.1:
                axes.text(
                    start + share / 2,
                    place,
                    f"{count}  {share:.1%}",
                    ha="center",
                    va="center",
                    color="black" if light else "white",
                    fontsize=9,
                )
        left += shares
    names = [
        f"{name}: {len(part)} photos\n{part.person[part.person != ''].nunique()} persons, "
        f"{part.group.nunique()} groups"
        for name, part in rows
    ]
    axes.set_yticks(places, names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_title("Photos of each class, and their share of the part", fontsize=10)
    figure.legend(loc="outside upper center", ncols=min(len(classes), 5), frameon=False)
    return figure


def agreement(votes: pd.DataFrame, numbers: Mapping[str, Any], classes: Sequence[str]) -> Figure:
    """Draw how far each annotator agrees with the rest, and to which classes they lean.

    Args:
        votes: (photo, annotator, label) rows.
        numbers: What `agreement.measure` says of them.
        classes: In the order of their scale.
    """
    counts = pd.crosstab(votes.annotator, votes.label).reindex(columns=list(classes), fill_value=0)
    rest = pd.Series(
        [person.get("with_rest", np.nan) for person in numbers["by_annotator"].values()],
        sorted(counts.index),
    ).sort_values(ascending=False, kind="stable")
    counts = pd.concat([counts.sum().to_frame("all votes").T, counts.loc[rest.index]])
    places = np.arange(len(counts))
    figure = new(10, 1.6 + 0.27 * len(counts))
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(places[1:], rest.to_numpy(), color=COLOURS[4])
    for place, value in zip(places[1:].tolist(), rest.tolist(), strict=True):
        text = f"{value:.0%}" if np.isfinite(value) else "nobody to compare with"
        left.text(0.012, place, text, va="center", fontsize=8)
    if "mode_mean" in numbers:
        left.axvline(numbers["mode_mean"], color="0.4", linestyle=":")
        left.set_xlabel(
            f"dotted: on average {numbers['mode_mean']:.0%} of a photo's votes are for one class",
            fontsize=8,
        )
    left.set_xlim(0, 1)
    left.set_title("how often the others' majority says the same", fontsize=10)
    shares = counts.div(counts.sum(axis=1), axis=0).to_numpy()
    start = np.zeros(len(counts))
    for k, name in enumerate(classes):
        right.barh(places, shares[:, k], left=start, color=COLOURS[k % len(COLOURS)], label=name)
        for place, begin, share in zip(
            places.tolist(), start.tolist(), shares[:, k].tolist(), strict=True
        ):
            if share > 0.07:
                right.text(
                    begin + share / 2, place, f"{share:.0%}", ha="center", va="center",
                    color="white", fontsize=8,
                )  # fmt: skip
        start += shares[:, k]
    right.set_xlim(0, 1)
    right.set_title("what they chose", fontsize=10)
    totals = zip(map(str, counts.index), counts.sum(axis=1), strict=True)
    names = [f"{short(name)} ({total})" for name, total in totals]
    left.set_yticks(places, names, fontsize=8)
    left.set_ylim(len(counts) - 0.4, -0.6)
    for axes in (left, right):
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    known = {
        "alpha_nominal": "Krippendorff's alpha",
        "alpha_ordinal": "ordinal",
        "pairwise": "two people agree on a share of",
    }
    figures_of = [f"{text} {numbers[key]:.2f}" for key, text in known.items() if key in numbers]
    figure.suptitle(
        f"{numbers['votes']} votes of {numbers['annotators']} people on {numbers['photos']} "
        f"photos: {', '.join(figures_of)}",
        fontsize=11,
    )
    right.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0), ncols=min(len(classes), 4), frameon=False,
        fontsize=8,
    )  # fmt: skip
    return figure


def confusion(counts: pd.DataFrame) -> Figure:
    """Draw a confusion matrix: index the actual class, columns the predicted, values photos."""
    classes = list(counts.index)
    values = counts.to_numpy()
    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    side = 2.4 + 0.9 * len(classes)
    figure = new(side + 0.6, side)
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
    figure = new(9, 3.6)
    loss, score = figure.subplots(1, 2)
    for column, colour in (("train_loss", COLOURS[0]), ("val_loss", COLOURS[1])):
        loss.plot(epochs.epoch, epochs[column], color=colour, label=column.replace("_", " "))
    loss.set_ylabel("loss, nats")
    for column, colour in (
        ("val_accuracy", COLOURS[0]),
        ("val_balanced_accuracy", COLOURS[1]),
        ("val_macro_f1", COLOURS[2]),
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
