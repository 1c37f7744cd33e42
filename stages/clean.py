"""Clean: remove duplicates and unusable photos, with the reason and the photo kept instead.

Reads data/prepared/photos.csv and pixels.npy. Writes data/clean/photos.csv (the kept rows, with the
duplicate cluster of each or ''), data/clean/removed.csv (one row per removed photo: reason, score,
threshold, the photo kept instead, and why), data/clean/flagged.csv (the kept photos with a reason
whose action is `flag`, in the same columns), metrics/details/clean.json, and plots/clean/ (contact
sheets of the removed photos next to the kept ones, and histograms of the scores).

    python -m stages.clean

Reasons: exact_duplicate (same file or same pixels), near_duplicate (the same picture re-encoded,
resized, cropped, rotated, mirrored, framed, or brightened; kept with clean.near_duplicates: group),
contradicting_labels (duplicates with different labels; all are removed, except for those whose
label agrees with a consensus label), and the quality reasons, which are keys of `clean` in
params.yaml. A quality reason applies to a photo whose score is beyond the threshold and unusual in
its set (anklealign/cleaning/image_quality.py). A photo with several quality reasons gets the first
in their order there; so does an unusable duplicate of a kept photo. Of several duplicates, the one
with a consensus label is kept, else the larger, then the one without a frame, then the sharper,
then the one whose path without suffix sorts first. Nothing in a photo shows whether it or its
rotated duplicate is upright. Where mirroring may change the label (mirror_safe: false), a mirrored
duplicate contradicts nothing and is kept; it shares the original's cluster, so that split does not
separate them. So do photos of one scene that differ in a detail, and shots of a fixed camera.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign.cleaning import losses, removal
from anklealign.cleaning.image_quality import QUALITY_REASONS
from anklealign.cleaning.removal import Cleaning
from anklealign.config import params, paths, stage
from anklealign.config.params import Clean
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Pictures
from anklealign.plotting import contact_sheets, style

METRICS = paths.DETAILS / "clean.json"
PLOTS = paths.PLOTS / "clean"
PAIRS = "Duplicates: removed photo (left), kept photo or contradicting duplicate (right)"
SINGLES = "Photos removed or flagged for quality"
NOTHING = "No photo was removed."
BESIDE = "beside"  # column of the removed photos that is not written
UNITS = {
    "too_small": "shorter side, pixels",
    "aspect": "longer side / shorter side",
    "dark": "95th percentile of the gray levels",
    "bright": "1st percentile of the gray levels",
    "low_contrast": "gray levels, 0.1th to 99.9th percentile",
    "blurred": "sigma of the sharpest edges, % of the longer side",
    "residual": "residual between two photos / contrast",
}


def main() -> None:
    """Write both tables, the metrics, and the plots."""
    raw = params.read()
    settings = params.section(raw, "clean", Clean)
    _, dataset = params.dataset(raw)
    table = pixel_store.read_table(paths.PREPARED / "photos.csv")
    pictures = Pictures(table, pixel_store.open_store(), dataset.fit)

    result = removal.clean_photos(table, pictures, dataset, settings)
    removed, flagged = result.removed, result.flagged
    kept = result.table[~result.table.id.isin(removed.id)]

    metrics = count(result)
    files.write_table(paths.CLEAN / "photos.csv", kept)
    files.write_table(paths.CLEAN / "removed.csv", removed.drop(columns=BESIDE))
    files.write_table(paths.CLEAN / "flagged.csv", flagged.drop(columns=BESIDE))
    results.write_details(METRICS, metrics)
    write_contact_sheets(result, pictures)
    style.save(score_figure(result, settings, metrics["reasons"]), PLOTS / "scores.png")
    losses.check(table, removed, settings.allowed_losses)
    for sentence in metrics["warnings"].values():
        stage.print_wrapped(f"clean: warning: {sentence}; see {PLOTS}/")
    for photos in result.residuals.large_scenes:
        stage.print_wrapped(
            f"clean: {photos} photos show one scene, as of a fixed camera or a form, and differ in "
            "details; they are kept, and split assigns them one by one. If several photos show one "
            "subject, name the subjects in the dataset config"
        )
    listed = ", ".join(f"{n} {name}" for name, n in metrics["reasons"].items() if n)
    also = f"; flagged: {len(flagged)}" if len(flagged) else ""
    stage.print_wrapped(
        f"clean: kept {len(kept)} of {len(table)} photos; removed: {listed or 'none'}{also}"
    )


def count(result: Cleaning) -> dict[str, Any]:
    """Return the metrics: nested, without lists, with every reason and class even if 0."""
    table, removed = result.table, result.removed
    is_removed = table.id.isin(removed.id)
    contradicting = removed[removed.reason == "contradicting_labels"]
    reasons, flagged = Counter(removed.reason), Counter(result.flagged.reason)
    return {
        "photos": len(table),
        "kept": int((~is_removed).sum()),
        "removed": int(is_removed.sum()),
        "clusters": int(table.cluster[table.cluster != ""].nunique()),
        "clusters_contradicting": int(contradicting.cluster.nunique()),
        "reasons": {reason: reasons[reason] for reason in removal.REASONS},
        "flagged": {reason: flagged[reason] for reason in QUALITY_REASONS},
        "warnings": losses.warnings(table, pd.concat([removed, result.flagged])),
        "classes": {
            name: {
                "kept": int((~is_removed & rows).sum()),
                "removed": int((is_removed & rows).sum()),
            }
            for name in sorted(table.label.unique())
            for rows in [table.label == name]
        },
    }


def write_contact_sheets(result: Cleaning, pictures: Pictures) -> None:
    """Write contact sheets of the removed duplicates, and of the unusable and flagged photos."""
    table = result.table
    by_id = table.assign(position=range(len(table))).set_index("id")
    shown = pd.concat([result.removed, result.flagged])
    flagged = set(result.flagged.id)
    rows = tqdm(
        shown.itertuples(), "contact sheets", len(shown), unit="photo", delay=1, disable=None
    )
    tiles = [tile(row, by_id, pictures, flagged=row.id in flagged) for row in rows]
    pairs = [tile for tile in tiles if len(tile.pictures) > 1]
    singles = [tile for tile in tiles if len(tile.pictures) == 1]
    contact_sheets.write(PLOTS, "duplicates", contact_sheets.pages(pairs, PAIRS, NOTHING))
    contact_sheets.write(
        PLOTS, "quality", contact_sheets.pages(singles, SINGLES, NOTHING, columns=5, rows=3)
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


def score_figure(result: Cleaning, settings: Clean, reasons: dict[str, int]) -> Figure:
    """Draw the histograms of all scores."""
    scores = {name: [getattr(q, name) for q in result.qualities] for name in QUALITY_REASONS}
    limits = {name: float(getattr(settings, name)) for name in QUALITY_REASONS}
    is_kept = ~result.table.id.isin(result.removed.id).to_numpy()
    kept = {
        name: int((beyond(name, np.array(scores[name]), limits[name]) & is_kept).sum())
        for name in limits
    }
    scores["residual"] = list(result.residuals.pairs.values())
    limits["residual"] = settings.residual
    return histograms(scores, limits, reasons, kept)


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


if __name__ == "__main__":
    stage.run("clean", main)
