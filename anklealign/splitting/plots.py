"""Draw the splits and the most similar photos of different splits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from anklealign.config.params import Split
from anklealign.io.pixel_store import Pixels
from anklealign.plotting import contact_sheets, style
from anklealign.splitting.leak_joining import ALLOWED, JOINED, SEPARATED


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


def write_contact_sheets(
    folder: Path,
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    pictures: Sequence[Pixels],
    settings: Split,
) -> None:
    """Write contact sheets of the leaking pairs of all rounds and the nearest other pairs.

    Args:
        folder: Output folder.
        table: N photos with their `split`.
        pairs: As in nearest_pairs.csv.
        pictures: N of (H, W, 3) uint8.
        settings: The limits of the audit.
    """
    by_path = table.assign(position=range(len(table))).set_index("path")
    tiles = [pair_tile(row, by_path, pictures, settings) for row in pairs.itertuples()]
    title = "Most similar photos of different splits"
    pages = contact_sheets.pages(tiles, title, "no similar photos in two splits")
    contact_sheets.write(folder, "nearest", pages)


def pair_tile(
    row: Any,  # noqa: ANN401 - a named tuple
    by_path: pd.DataFrame,
    pictures: Sequence[Pixels],
    settings: Split,
) -> contact_sheets.Tile:
    """Return the tile of a pair, with its scores and what was done in which round.

    `by_path` is the photo table by path, with each photo's position in `pictures`.
    """
    status = {
        JOINED: f"same picture: groups joined in round {row.round}",
        SEPARATED: f"same picture: one photo excluded in round {row.round}",
        ALLOWED: "same picture (allowed)",
    }.get(row.action, "different pictures")
    residual = f"{row.residual:.2f}" if np.isfinite(row.residual) else "too high to measure"
    limits = f"limit {settings.leakage_residual:g}", f"{settings.leakage_correlation:g}"
    lines = [
        status,
        f"residual {residual} ({limits[0]}), correlation {row.correlation:.2f} ({limits[1]})",
        f"agreement {row.agreement:.2f}, color difference {row.color:.0f}",
    ]
    photos = by_path.loc[[row.path_a, row.path_b]]
    lines += [f"{split}: {path}" for path, split in photos.split.items()]
    return contact_sheets.Tile(tuple(pictures[k] for k in photos.position), tuple(lines))
