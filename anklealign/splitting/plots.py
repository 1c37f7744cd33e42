"""Plot the splits."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from anklealign.plotting import style


def class_shares(table: pd.DataFrame, classes: Sequence[str], splits: Sequence[str]) -> Figure:
    """Draw the class shares of all photos and of each split as stacked bars with photo counts.

    Of more classes than there are colors, all but the most frequent ones share a gray bar.
    """
    rows = [
        ("all", table[table.split.isin(splits)]),
        *((split, table[table.split == split]) for split in splits),
    ]
    figure = style.new(8, 0.9 + 0.55 * len(rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    positions = np.arange(len(rows))
    bars = _bars(rows[0][1], classes)
    for k, (name, members) in enumerate(bars.items()):
        counts = np.array([photos.label.isin(members).sum() for _, photos in rows])
        shares = counts / np.array([max(len(photos), 1) for _, photos in rows])
        color = style.COLORS[k] if len(members) == 1 else "0.75"
        label = style.short(name).replace("$", r"\$")  # a dollar sign starts math text
        axes.barh(positions, shares, left=left, color=color, label=label)
        red, green, blue = to_rgb(color)
        light = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
        for position, start, share, count in zip(
            positions.tolist(), left.tolist(), shares.tolist(), counts.tolist(), strict=True
        ):
            if share > 0.1:
                axes.text(
                    start + share / 2,
                    position,
                    f"{count} ({share:.1%})",
                    ha="center",
                    va="center",
                    color="black" if light else "white",
                    fontsize=9,
                )
        left += shares
    axes.set_yticks(positions, [_row_label(name, photos) for name, photos in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_title("Class distribution per split: photos (share of the split)", fontsize=10)
    columns = 5 if max(map(len, bars)) < 12 else 3
    figure.legend(loc="outside upper center", ncols=min(len(bars), columns), frameon=False)
    return figure


def _bars(photos: pd.DataFrame, classes: Sequence[str]) -> dict[str, list[str]]:
    """Return the classes of each bar by its name."""
    most = len(style.COLORS)
    if len(classes) <= most:
        return {name: [name] for name in classes}
    counts = photos.label.value_counts().reindex(list(classes), fill_value=0)
    frequent = set(counts.sort_values(ascending=False, kind="stable").index[: most - 1])
    others = [name for name in classes if name not in frequent]
    shown = {name: [name] for name in classes if name in frequent}
    return shown | {f"{len(others)} other classes": others}


def _row_label(name: str, photos: pd.DataFrame) -> str:
    """Return a row's name and counts; subjects only where the dataset has any."""
    label = f"{name}: {len(photos)} photos\n{photos.group.nunique()} groups"
    subjects = photos.subject[photos.subject != ""].nunique()
    return f"{label}, {subjects} subjects" if subjects else label
