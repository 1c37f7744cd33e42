"""Plots of the annotators' votes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from anklealign.plotting import style


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
    figure = style.new(10, 1.6 + 0.27 * len(counts))
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(places[1:], rest.to_numpy(), color=style.COLOURS[4])
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
        right.barh(
            places,
            shares[:, k],
            left=start,
            color=style.COLOURS[k % len(style.COLOURS)],
            label=name,
        )
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
    names = [f"{style.short(name)} ({total})" for name, total in totals]
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
