"""Plots of the annotators' votes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anklealign.plotting import style

STATISTICS = {
    "alpha_nominal": "Krippendorff's alpha",
    "alpha_ordinal": "ordinal",
    "pairwise": "pairwise agreement",
}
NARROWEST = 0.07  # fraction of the axis; narrower bar segments have no label


def agreement_figure(
    votes: pd.DataFrame, numbers: Mapping[str, Any], classes: Sequence[str]
) -> Figure:
    """Draw each annotator's agreement with the others and their distribution of classes.

    Args:
        votes: (photo, annotator, label) rows.
        numbers: The result of `agreement.agreement_metrics`.
        classes: The classes, in the order of their scale.
    """
    counts = pd.crosstab(votes.annotator, votes.label).reindex(columns=list(classes), fill_value=0)
    by_annotator = numbers["by_annotator"].values()
    agreements = pd.Series(
        [annotator.get("leave_one_out_agreement", np.nan) for annotator in by_annotator],
        sorted(counts.index),
    ).sort_values(ascending=False, kind="stable")
    counts = pd.concat([counts.sum().to_frame("all votes").T, counts.loc[agreements.index]])
    figure = style.new(10, 1.6 + 0.27 * len(counts))
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_agreement(left, agreements, numbers)
    _draw_classes(right, counts)
    totals = zip(map(str, counts.index), counts.sum(axis=1), strict=True)
    names = [f"{style.short(name)} ({total})" for name, total in totals]
    left.set_yticks(np.arange(len(counts)), names, fontsize=8)
    left.set_ylim(len(counts) - 0.4, -0.6)
    for axes in (left, right):
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    shown = [f"{text} {numbers[key]:.2f}" for key, text in STATISTICS.items() if key in numbers]
    figure.suptitle(
        f"{numbers['votes']} votes of {numbers['annotators']} annotators on {numbers['photos']} "
        f"photos: {', '.join(shown)}",
        fontsize=11,
    )
    right.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0), ncols=min(len(classes), 4), frameon=False,
        fontsize=8,
    )  # fmt: skip
    return figure


def _draw_agreement(axes: Axes, agreements: "pd.Series[float]", numbers: Mapping[str, Any]) -> None:
    """Draw one bar per annotator, below an empty row for all votes."""
    places = np.arange(1, len(agreements) + 1)
    axes.barh(places, agreements.to_numpy(), color=style.COLORS[4])
    for place, value in zip(places.tolist(), agreements.tolist(), strict=True):
        text = f"{value:.0%}" if np.isfinite(value) else "no photo in common with others"
        axes.text(0.012, place, text, va="center", fontsize=8)
    if "modal_share_mean" in numbers:
        mean = numbers["modal_share_mean"]
        axes.axvline(mean, color="0.4", linestyle=":")
        label = f"dotted: mean share of the most frequent class per photo, {mean:.0%}"
        axes.set_xlabel(label, fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_title("agreement with the majority of the others", fontsize=10)


def _draw_classes(axes: Axes, counts: pd.DataFrame) -> None:
    """Draw the fraction of each class (columns) in the votes of each row as stacked bars."""
    places = np.arange(len(counts))
    fractions = counts.div(counts.sum(axis=1), axis=0).to_numpy()
    start = np.zeros(len(counts))
    for k, name in enumerate(counts.columns):
        color = style.COLORS[k % len(style.COLORS)]
        axes.barh(places, fractions[:, k], left=start, color=color, label=name)
        segments = zip(places.tolist(), start.tolist(), fractions[:, k].tolist(), strict=True)
        for place, begin, fraction in segments:
            if fraction > NARROWEST:
                axes.text(
                    begin + fraction / 2, place, f"{fraction:.0%}", ha="center", va="center",
                    color="white", fontsize=8,
                )  # fmt: skip
        start += fractions[:, k]
    axes.set_xlim(0, 1)
    axes.set_title("chosen classes", fontsize=10)
