"""Overview plots of a dataset: class counts, image sizes, aspect ratios and collectors.

overview.write_overview(folder, table, store, classes, skipped) writes below the folder:
    overview.png            photos per class, sizes, shapes, and skipped items
    collectors.png          photos per collector by class, if there are collectors
    class_01_<class>.png …  a contact sheet of each class, a balanced sample of its photos
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from tqdm import tqdm

from anklealign.io.pixel_store import Photos
from anklealign.plotting import contact_sheets, style

SAMPLE = 24  # photos on a class's sheet: six columns, four rows, a screenful
COLUMNS = 6
# More classes than the palette has colors are drawn in one.
MOST_COLORS = len(style.COLORS)
MOST_BARS = 40  # further collectors or classes are combined in one bar
LONGEST = 28  # maximum length of a tick label
# Of two overlapping ticks, the earlier one is shown.
SHAPES = {
    "1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4, "3:2": 3 / 2, "2:3": 2 / 3, "16:9": 16 / 9,
    "9:16": 9 / 16, "2:1": 2.0, "1:2": 1 / 2, "4:1": 4.0, "1:4": 1 / 4,
}  # fmt: skip
SIDES = [*(2**k for k in range(4, 15)), *(3 * 2**k for k in range(4, 13))]  # pixels
LETTER = 0.026  # of the axis's width, with room between two names
Numbers = npt.NDArray[np.float64]


def write_overview(
    folder: Path,
    table: pd.DataFrame,
    store: Photos,
    classes: Sequence[str],
    skipped: Mapping[str, int],
) -> None:
    """Write the plots.

    Args:
        folder: Output folder.
        table: The photo table with prepare's columns.
        store: (N, S, S, 3) uint8; only the sampled photos are read.
        classes: Class names in drawing order.
        skipped: Number of skipped files, tasks and exports for each reason.
    """
    style.save(overview_figure(table, classes, skipped, store.shape[1]), folder / "overview.png")
    if (table.collector != "").any():
        style.save(collectors_figure(table, classes), folder / "collectors.png")
    for number, name in enumerate(tqdm(classes, "sheets", unit="class", delay=1, disable=None), 1):
        photos = table[table.label == name]
        shown = sample_photos(photos, SAMPLE)
        title = f"{name}: {len(photos)} photos"
        if len(shown) < len(photos):
            title = f"{name}: {len(shown)} of {len(photos)} photos{_evenly(photos)}"
        tiles = [photo_tile(row, store) for row in shown.itertuples()]
        (sheet,) = contact_sheets.pages(
            tiles, title, "no photo", columns=COLUMNS, rows=SAMPLE // COLUMNS
        )
        contact_sheets.write(folder, f"class_{number:02}_{_slug(name)}", [sheet])


def sample_photos(table: pd.DataFrame, number: int) -> pd.DataFrame:
    """Return up to `number` rows, sorted by path, balanced over collectors and predefined splits.

    Within a source, rows are chosen by id, a hash, so the choice is random but reproducible.
    """
    ordered = table.sort_values("id")
    turn = ordered.groupby(["collector", "predefined_split"]).cumcount()
    taken = ordered.assign(turn=turn).sort_values(["turn", "id"]).head(number)
    return taken.drop(columns="turn").sort_values("path")


def photo_tile(row: Any, store: Photos) -> contact_sheets.Tile:  # noqa: ANN401 - a named tuple
    """Return a photo without its letterbox, with its name, its folder and its size."""
    pixels = np.asarray(store[row.row, row.top : row.bottom, row.left : row.right])
    folder, _, name = row.path.rpartition("/")
    return contact_sheets.Tile(
        (pixels,), (name, folder, f"{row.width} x {row.height} {row.format}")
    )


def _evenly(table: pd.DataFrame) -> str:
    sources = table[["collector", "predefined_split"]].drop_duplicates()
    collectors, splits = sources.collector.nunique(), sources.predefined_split.nunique()
    among = [f"{collectors} collectors"] * (collectors > 1)
    among += [f"{splits} predefined splits"] * (splits > 1)
    return f", evenly from {' and '.join(among)}" if among else ""


def overview_figure(
    table: pd.DataFrame, classes: Sequence[str], skipped: Mapping[str, int], size: int
) -> Figure:
    """Draw photos per class, sizes, shapes and skipped items in four panels."""
    above = max(3.4, 0.26 * min(max(len(classes), len(skipped)), MOST_BARS))
    figure = style.new(12, above + 3.4)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)  # type: ignore[union-attr,call-arg]
    (count_axes, skip_axes), (size_axes, shape_axes) = figure.subplots(
        2, 2, height_ratios=(above, 3.4)
    )
    counts = {name: int((table.label == name).sum()) for name in classes}
    colors = _colors(classes)
    _bars(count_axes, counts, [colors[name] for name in counts], share=True)
    count_axes.set_title(f"{len(table)} photos in {len(classes)} classes", fontsize=10)

    items = dict(sorted(skipped.items(), key=lambda item: (-item[1], item[0])))
    _bars(skip_axes, items, ["0.5"] * len(items), share=False)
    skip_axes.set_title(
        f"skipped: {sum(items.values())} files, tasks and exports (data/prepared/skipped.csv)",
        fontsize=10,
    )
    if not items:
        skip_axes.text(0.5, 0.5, "nothing", ha="center", va="center", color="0.4")
        skip_axes.set_axis_off()

    shorter = table[["width", "height"]].min(axis=1).to_numpy(np.float64)
    _histogram(size_axes, shorter, table.label, classes, least=1.5)
    _ticks(size_axes, {str(side): float(side) for side in SIDES})
    size_axes.set_xlabel("shorter side, pixels")
    smaller = int((shorter < size).sum())
    size_axes.set_title(
        f"sizes: median {table.width.median():.0f} x {table.height.median():.0f} pixels; "
        f"{smaller} smaller than the store's {size}",
        fontsize=10,
    )
    low, high = size_axes.get_xlim()
    if low < size < high:
        size_axes.axvline(size, color="0.3", linestyle="--", linewidth=1)

    ratios = (table.width / table.height).to_numpy(np.float64)
    _histogram(shape_axes, ratios, table.label, classes, least=2.0)
    _ticks(shape_axes, SHAPES)
    shape_axes.set_xlabel("width to height")
    portrait, landscape = int((ratios < 1).sum()), int((ratios > 1).sum())
    shape_axes.set_title(
        f"shapes: {portrait} portrait, {len(table) - portrait - landscape} square, "
        f"{landscape} landscape",
        fontsize=10,
    )
    return figure


def collectors_figure(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Draw each collector's photos, stacked by class, in descending order."""
    counts = pd.crosstab(table.collector, table.label).reindex(columns=list(classes), fill_value=0)
    order = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index
    counts = counts.loc[order]
    if len(counts) > MOST_BARS:
        rest = counts.iloc[MOST_BARS - 1 :]
        counts = counts.iloc[: MOST_BARS - 1]
        counts.loc[f"{len(rest)} others"] = rest.sum()
    figure = style.new(9, 1.2 + 0.26 * len(counts))
    axes = figure.subplots()
    places = np.arange(len(counts))
    left = np.zeros(len(counts))
    colors = _colors(classes)
    for name in classes:
        values = counts[name].to_numpy()
        axes.barh(places, values, left=left, color=colors[name], label=_short(name))
        left += values
    names = [_short(str(name)) or "(none)" for name in counts.index]
    for place, total in zip(places.tolist(), left.tolist(), strict=True):
        axes.text(total, place, f" {total:.0f}", va="center", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(len(counts) - 0.4, -0.6)
    axes.set_xlim(0, 1.06 * left.max())
    axes.set_xlabel("photos")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    if len(classes) <= MOST_COLORS:
        figure.legend(loc="outside upper center", ncols=min(len(classes), 5), frameon=False)
    return figure


def _bars(axes: Axes, counts: Mapping[str, int], colors: Sequence[str], *, share: bool) -> None:
    """Draw horizontal bars with their values, and optionally their share of the sum.

    Of more than MOST_BARS values, the last ones are counted without a bar, which would be longest.
    """
    names, values = list(counts), list(counts.values())
    if len(names) > MOST_BARS:
        rest = sum(values[MOST_BARS - 1 :])
        names = [*names[: MOST_BARS - 1], f"{len(values) - MOST_BARS + 1} others"]
        values = [*values[: MOST_BARS - 1], rest]
    places = list(range(len(names)))
    drawn = values if len(values) == len(counts) else [*values[:-1], 0]
    axes.barh(places, drawn, color=list(colors[: len(names)]))
    for place, value, length in zip(places, values, drawn, strict=True):
        text = f" {value}  {value / max(sum(values), 1):.0%}" if share else f" {value}"
        axes.text(length, place, text, va="center", fontsize=8)
    axes.set_yticks(places, [_short(name) for name in names], fontsize=8)
    axes.set_ylim(max(len(names), 3) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * max([*drawn, 1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _histogram(
    axes: Axes, values: Numbers, labels: "pd.Series[str]", classes: Sequence[str], least: float
) -> None:
    """Draw a histogram stacked by class on a logarithmic axis at least a factor `least`² wide."""
    middle = float(np.sqrt(values.min() * values.max()))
    low = min(float(values.min()), middle / least)
    high = max(float(values.max()), middle * least)
    bins = np.geomspace(low * 0.999, high * 1.001, 41)
    if len(classes) <= MOST_COLORS:
        colors = _colors(classes)
        by_class = [values[(labels == name).to_numpy()] for name in classes]
        axes.hist(
            by_class, bins=bins.tolist(), stacked=True,
            color=[colors[name] for name in classes],
        )  # fmt: skip
    else:
        axes.hist(values, bins=bins.tolist(), color=style.COLORS[0])
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(float(bins[0]), float(bins[-1]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("photos")
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(axes: Axes, places: Mapping[str, float]) -> None:
    """Set ticks on a logarithmic axis, omitting ticks that overlap an earlier one."""
    low, high = axes.get_xlim()
    shown: dict[str, float] = {}
    for name, place in places.items():
        apart = all(
            abs(np.log(place / other)) > LETTER * (len(name) + len(text)) / 2 * np.log(high / low)
            for text, other in shown.items()
        )
        if low <= place <= high and apart:
            shown[name] = place
    axes.xaxis.set_major_locator(FixedLocator(list(shown.values())))
    axes.set_xticklabels(list(shown))


def _colors(classes: Sequence[str]) -> dict[str, str]:
    many = len(classes) > MOST_COLORS
    return {name: style.COLORS[0 if many else k] for k, name in enumerate(classes)}


def _short(name: str) -> str:
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return short.replace("$", r"\$")  # a dollar sign starts math text


def _slug(name: str) -> str:
    """Return a class name in a form suitable for file names."""
    letters = (c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "_", "".join(letters).casefold()).strip("_")[:40] or "class"
