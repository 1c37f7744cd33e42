"""Clean: remove duplicates and unusable photos, with the reason and the photo kept instead.

Reads data/prepared/photos.csv and pixels.npy. Writes data/clean/photos.csv (the kept rows, with the
duplicate cluster of each or ''), data/clean/removed.csv (one row per removed photo: reason, score,
threshold, the photo kept instead, and why), metrics/details/clean.json, and plots/clean/ (contact
sheets of the removed photos next to the kept ones, and histograms of the scores).

    python -m stages.clean

Reasons: exact_duplicate (same file or same pixels), near_duplicate (the same picture re-encoded,
resized, cropped, rotated, mirrored, framed, or brightened; kept with clean.near_duplicates: group),
contradicting_labels (duplicates with different labels; all are removed, but for those whose label
agrees with a consensus label), and the quality reasons, which are keys of `clean` in
params.yaml. A photo with several quality reasons gets the first in their order there; so does an
unusable duplicate of a kept photo. Of several duplicates, the one with a consensus label is kept,
else the larger, then the one without a frame, then the sharper, then the one whose path without
suffix sorts first. Nothing in a photo shows whether it or its rotated duplicate is upright. Where
mirroring may change the label (mirror_safe: false), a mirrored duplicate contradicts nothing and is
kept; it shares the original's cluster, so that split does not separate them. So do photos of one
scene that differ in a detail, and shots of a fixed camera.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign.cleaning import duplicate_clusters, image_quality, removal
from anklealign.cleaning.image_quality import QUALITY_REASONS, ImageQuality
from anklealign.config import params, paths, stage
from anklealign.config.params import Clean
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Pictures
from anklealign.plotting import contact_sheets, style

METRICS = paths.DETAILS / "clean.json"
PLOTS = paths.PLOTS / "clean"
PAIRS = "Duplicates: removed photo (left), kept photo or contradicting duplicate (right)"
SINGLES = "Photos removed for quality"
NOTHING = "No photo was removed."
BESIDE = "beside"  # column of the removed photos that is not written
UNITS = {
    "too_small": "shorter side, pixels",
    "aspect": "longer side / shorter side",
    "dark": "95th percentile of the gray levels",
    "bright": "1st percentile of the gray levels",
    "low_contrast": "gray levels, 1st to 99th percentile",
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

    limits = {name: float(getattr(settings, name)) for name in QUALITY_REASONS}
    qualities = measure(pictures, table, square=dataset.fit == "crop")
    reasons = [image_quality.quality_reason(quality, limits) for quality in qualities]
    clusters, residuals = duplicate_clusters.find_clusters(
        pictures,
        removal.ranks(table, qualities, reasons),
        settings.hash_distance,
        settings.residual,
        squares=dataset.fit == "crop",
        mirror_safe=dataset.mirror_safe,
    )
    table, removed = removal.select_removals(
        table, qualities, reasons, clusters, residuals, settings=settings
    )

    metrics = count(table, removed)
    kept = table[~table.id.isin(removed.id)]
    files.write_table(paths.CLEAN / "photos.csv", kept)
    files.write_table(paths.CLEAN / "removed.csv", removed.drop(columns=BESIDE))
    results.write_details(METRICS, metrics)
    write_contact_sheets(table, removed, pictures)
    scores = {name: [getattr(quality, name) for quality in qualities] for name in limits}
    scores["residual"] = list(residuals.pairs.values())
    limits["residual"] = settings.residual
    style.save(histograms(scores, limits, metrics["reasons"]), PLOTS / "scores.png")
    check_classes(metrics)
    for photos in residuals.large_scenes:
        print(
            f"clean: {photos} photos show one scene, as of a fixed camera or a form, and\n"
            "  differ in details; they are kept, and split deals them one by one. If several\n"
            "  photos show one subject, name the subjects in the dataset config"
        )
    listed = ", ".join(f"{n} {name}" for name, n in metrics["reasons"].items() if n)
    print(f"clean: kept {len(kept)} of {len(table)} photos; removed: {listed or 'none'}")


def measure(pictures: Pictures, table: pd.DataFrame, *, square: bool) -> list[ImageQuality]:
    """Return the quality measures of each photo."""
    measure_one = partial(image_quality.measure, square=square)
    with ThreadPoolExecutor() as pool:  # Pillow and scipy release the GIL
        qualities = pool.map(measure_one, pictures, table.width, table.height)
        return list(tqdm(qualities, "clean", len(pictures), unit="photo", disable=None))


def count(table: pd.DataFrame, removed: pd.DataFrame) -> dict[str, Any]:
    """Return the metrics: nested, without lists, with every reason and class even if 0."""
    is_removed = table.id.isin(removed.id)
    contradicting = removed[removed.reason == "contradicting_labels"]
    return {
        "photos": len(table),
        "kept": int((~is_removed).sum()),
        "removed": int(is_removed.sum()),
        "clusters": int(table.cluster[table.cluster != ""].nunique()),
        "clusters_contradicting": int(contradicting.cluster.nunique()),
        "reasons": {reason: int((removed.reason == reason).sum()) for reason in removal.REASONS},
        "classes": {
            name: {
                "kept": int((~is_removed & rows).sum()),
                "removed": int((is_removed & rows).sum()),
            }
            for name in sorted(table.label.unique())
            for rows in [table.label == name]
        },
    }


def check_classes(metrics: dict[str, Any]) -> None:
    """Check that every class has photos left.

    Raises:
        ValueError: A class has lost all its photos; the message names the class and the reasons.
    """
    for name, counts in metrics["classes"].items():
        if not counts["kept"]:
            reasons = ", ".join(f"{n} {key}" for key, n in metrics["reasons"].items() if n)
            raise ValueError(
                f"class {name} lost all of its {counts['removed']} photos (reasons over all "
                f"classes: {reasons}); see {PLOTS}/ and adjust the thresholds of clean in "
                "params.yaml"
            )


def write_contact_sheets(table: pd.DataFrame, removed: pd.DataFrame, pictures: Pictures) -> None:
    """Write contact sheets of the removed duplicates and of the photos removed for quality."""
    by_id = table.assign(position=range(len(table))).set_index("id")
    rows = tqdm(
        removed.itertuples(), "contact sheets", len(removed), unit="photo", delay=1, disable=None
    )
    tiles = [tile(row, by_id, pictures) for row in rows]
    pairs = [tile for tile in tiles if len(tile.pictures) > 1]
    singles = [tile for tile in tiles if len(tile.pictures) == 1]
    contact_sheets.write(PLOTS, "duplicates", contact_sheets.pages(pairs, PAIRS, NOTHING))
    contact_sheets.write(
        PLOTS, "quality", contact_sheets.pages(singles, SINGLES, NOTHING, columns=5, rows=3)
    )


def tile(row: Any, by_id: pd.DataFrame, pictures: Sequence[Any]) -> contact_sheets.Tile:  # noqa: ANN401 - a named tuple
    """Return the tile of a removed photo, next to its duplicate if there is one.

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
        lines = [row.reason, row.why, folder, name]
    elif row.reason in QUALITY_REASONS:
        lines = [f"{row.reason}: {row.why}", *paths]
    else:
        residual = f"{row.reason}: residual {row.score:.2f}, threshold {row.threshold:g}"
        lines = [residual, *paths, row.why]
    return contact_sheets.Tile(pixels, tuple(lines))


def histograms(
    scores: dict[str, list[float]], limits: dict[str, float], removed: dict[str, int]
) -> Figure:
    """Draw each score's histogram and threshold, with the number of photos beyond and removed."""
    figure = style.new(15, 6.8)
    grid = figure.subplots(2, 4).flatten()
    for axes, (name, values) in zip(grid, scores.items(), strict=False):
        limit = limits[name]
        side = QUALITY_REASONS.get(name, "below")
        beyond = sum(value < limit if side == "below" else value > limit for value in values)
        unit = "pairs" if name == "residual" else "photos"
        span = [*values, limit]
        axes.hist(values, bins=40, range=(min(span), max(span)), color=style.COLORS[0])
        axes.axvline(limit, color=style.COLORS[5], linestyle="--")
        title = f"{name}: {beyond} of {len(values)} {unit} {side} {limit:g}"
        if name in removed and removed[name] != beyond:
            others = beyond - removed[name]
            title += f"\n{removed[name]} removed for this reason, {others} for another"
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(UNITS[name])
        axes.set_ylabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(scores) :]:
        axes.axis("off")
    return figure


if __name__ == "__main__":
    stage.run("clean", main)
