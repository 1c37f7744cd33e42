"""Draw the photos that clean removed or flagged, and the scores that decided.

Shapes: N photos.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign.cleaning.image_quality import QUALITY_REASONS
from anklealign.config.params import Clean
from anklealign.plotting import contact_sheets, style

PAIRS = "Duplicates: removed photo (left), kept photo or contradicting duplicate (right)"
SINGLES = "Photos removed or flagged for quality"
NOTHING = "No photo was removed."
UNITS = {
    "too_small": "shorter side, pixels",
    "aspect": "longer side / shorter side",
    "dark": "95th percentile of the gray levels",
    "bright": "0.1th percentile of the gray levels",
    "low_contrast": "gray levels, 0.1th to 99.9th percentile",
    "blurred": "sigma of the sharpest edges, % of the longer side",
    "residual": "residual between two photos / contrast",
}


def write_contact_sheets(
    folder: Path,
    table: pd.DataFrame,
    removed: pd.DataFrame,
    flagged: pd.DataFrame,
    pictures: Sequence[Any],
) -> None:
    """Write contact sheets of the removed duplicates, and of the unusable and flagged photos.

    Args:
        folder: Output folder.
        table: The photo table of prepare: N rows.
        removed: The removed photos, as in removed.csv.
        flagged: The flagged ones, in the same columns.
        pictures: N of (H, W, 3) uint8.
    """
    by_id = table.assign(position=range(len(table))).set_index("id")
    shown = pd.concat([removed, flagged])
    is_flagged = set(flagged.id)
    rows = tqdm(
        shown.itertuples(), "contact sheets", len(shown), unit="photo", delay=1, disable=None
    )
    tiles = [tile(row, by_id, pictures, flagged=row.id in is_flagged) for row in rows]
    pairs = [tile for tile in tiles if len(tile.pictures) > 1]
    singles = [tile for tile in tiles if len(tile.pictures) == 1]
    contact_sheets.write(folder, "duplicates", contact_sheets.pages(pairs, PAIRS, NOTHING))
    contact_sheets.write(
        folder, "quality", contact_sheets.pages(singles, SINGLES, NOTHING, columns=5, rows=3)
    )


def tile(
    row: Any,  # noqa: ANN401 - a named tuple
    by_id: pd.DataFrame,
    pictures: Sequence[Any],
    *,
    flagged: bool = False,
) -> contact_sheets.Tile:
    """Return the tile of a removed or flagged photo, next to its duplicate if there is one.

    `by_id` is the photo table by id, with each photo's position in `pictures`.
    """
    ids = [row.id, row.beside] if row.beside else [row.id]
    pixels = tuple(np.asarray(pictures[by_id.position[photo]]) for photo in ids)
    captions = ["removed", "kept"]
    if row.reason == "contradicting_labels":
        captions = [f"removed, {by_id.label[photo]}" for photo in ids]
    paths = [f"{caption}: {path}" for caption, path in zip(captions, by_id.path[ids], strict=False)]
    if len(ids) == 1:
        # A tile of one photo is narrow: each text gets its own line.
        folder, _, name = row.path.rpartition("/")
        lines = [f"{row.reason} (flagged, kept)" if flagged else row.reason, row.why, folder, name]
    elif row.reason in QUALITY_REASONS:
        lines = [f"{row.reason}: {row.why}", *paths]
    else:
        residual = f"{row.reason}: residual {row.score:.2f}, threshold {row.threshold:g}"
        lines = [residual, *paths, row.why]
    return contact_sheets.Tile(pixels, tuple(lines))


def score_figure(
    scores: pd.DataFrame,
    residuals: "pd.Series[float]",
    removed: pd.DataFrame,
    settings: Clean,
    reasons: Mapping[str, int],
) -> Figure:
    """Draw the histograms of all scores.

    Args:
        scores: `id` and one column for each quality reason: N rows.
        residuals: Of the compared pairs.
        removed: The removed photos.
        settings: Thresholds.
        reasons: Number of photos removed for each reason.
    """
    values = {name: scores[name].tolist() for name in QUALITY_REASONS}
    limits = {name: float(getattr(settings, name)) for name in QUALITY_REASONS}
    is_kept = ~scores.id.isin(removed.id).to_numpy()
    kept = {
        name: int((beyond(name, scores[name].to_numpy(), limits[name]) & is_kept).sum())
        for name in limits
    }
    values["residual"] = residuals.tolist()
    limits["residual"] = settings.residual
    return histograms(values, limits, reasons, kept)


def beyond(name: str, values: np.ndarray[Any, np.dtype[Any]], limit: float) -> Any:  # noqa: ANN401 - a Boolean array
    """Return for each score whether it is on the threshold's side that the reason names."""
    return values < limit if QUALITY_REASONS.get(name, "below") == "below" else values > limit


def histograms(
    scores: Mapping[str, Sequence[float]],
    limits: Mapping[str, float],
    removed: Mapping[str, int],
    kept: Mapping[str, int],
) -> Figure:
    """Draw each score's histogram and threshold, with the number of photos beyond and removed.

    Args:
        scores: Score of each photo or pair by name.
        limits: Threshold of each score.
        removed: Photos removed for each reason.
        kept: Photos beyond each threshold that are kept.
    """
    figure = style.new(15, 6.8)
    grid = figure.subplots(2, 4).flatten()
    for axes, (name, values) in zip(grid, scores.items(), strict=False):
        limit = limits[name]
        side = QUALITY_REASONS.get(name, "below")
        outside = int(beyond(name, np.array(values, float), limit).sum())
        unit = "pairs" if name == "residual" else "photos"
        span = [*values, limit]
        axes.hist(values, bins=40, range=(min(span), max(span)), color=style.COLORS[0])
        axes.axvline(limit, color=style.COLORS[5], linestyle="--")
        title = f"{name}: {outside} of {len(values)} {unit} {side} {limit:g}"
        if name in removed and removed[name] != outside:
            others = outside - removed[name] - kept.get(name, 0)
            title += f"\n{removed[name]} removed for this reason, {others} for another"
            if kept.get(name):
                title += f", {kept[name]} kept"
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(UNITS[name])
        axes.set_ylabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(scores) :]:
        axes.axis("off")
    return figure
