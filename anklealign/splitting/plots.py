"""Plots of the split."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from anklealign.plotting import style


def class_shares(table: pd.DataFrame, classes: Sequence[str], parts: Sequence[str]) -> Figure:
    """Draw each part's class shares below the whole's, with the numbers of photos."""
    rows = [("all", table[table.split.isin(parts)]), *((p, table[table.split == p]) for p in parts)]
    figure = style.new(8, 0.9 + 0.55 * len(rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    places = np.arange(len(rows))
    for k, name in enumerate(classes):
        counts = np.array([(part.label == name).sum() for _, part in rows])
        shares = counts / np.array([max(len(part), 1) for _, part in rows])
        colour = style.COLOURS[k % len(style.COLOURS)]
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
