"""Clean: copies and unusable photos out, each with its reason and the photo kept instead.

Reads data/prepared/photos.csv and pixels.npy; writes data/clean/photos.csv (the kept rows and the
cluster of copies that each belongs to, or ''), data/clean/removed.csv (a row a removed photo:
reason, score, threshold, the photo kept instead and why that one), metrics/clean.json and
plots/clean/ (removed photos beside the kept ones, page by page, and the scores' histograms).

    python -m stages.clean

Reasons: exact_duplicate (same file or same pixels), near_duplicate (the same picture re-encoded,
resized, cut, turned, mirrored, framed, brightened), contradicting_labels (copies of one picture
with different labels: all go), and the quality reasons that are keys of params.yaml's clean. A
photo that is bad in several ways goes by the first in their order there; so does a bad copy of a
photo that is kept. Of copies the one with a consensus label stays; else the larger; among equals
the one without a frame, then the sharper one, then the one whose path, less its ending, sorts
first. Nothing in a photo tells whether it or its turned copy stands upright. Where a mirrored photo
may have another label (mirror_safe: false), a mirrored copy contradicts nothing and stays; it
shares the original's cluster, so that split does not divide them.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign.cleaning import duplicate_clusters, image_quality, removal
from anklealign.config import params, stage
from anklealign.config.params import Clean
from anklealign.io import files, pixel_store
from anklealign.io.pixel_store import Pictures
from anklealign.plotting import contact_sheets, style

METRICS = Path("metrics/clean.json")
PLOTS = Path("plots/clean")
PAIRS = "Copies: the removed photo, on its right the one kept, or another that went with it"
BESIDE = "beside"
SINGLES = "Photos that show too little"
NOTHING = "Nothing was removed."
UNITS = {
    "too_small": "shorter side, pixels",
    "aspect": "longer over shorter side",
    "dark": "grey level that 95 % of the pixels stay below",
    "bright": "grey level that 99 % of the pixels reach",
    "low_contrast": "grey levels, 1st to 99th percentile",
    "blurred": "sigma of the sharpest edges, % of side",
    "residual": "left between two photos, share of contrast",
}


def main() -> None:
    """Write both tables, the metrics and the pictures."""
    raw = params.read()
    settings = params.section(raw, "clean", Clean)
    _, dataset = params.dataset(raw)
    square = dataset.fit == "crop"
    table = pixel_store.read_table(pixel_store.PREPARED / "photos.csv")
    pictures = Pictures(table, pixel_store.open_store(), dataset.fit)
    measure = partial(image_quality.scores, square=square)
    with ThreadPoolExecutor() as pool:  # Pillow and scipy leave the interpreter free
        measured = pool.map(measure, pictures, table.width, table.height)
        scores = list(tqdm(measured, "clean", len(pictures), unit="photo", disable=None))
    limits = {name: getattr(settings, name) for name in image_quality.UNUSABLE}
    faults = [image_quality.fault(measured, limits) for measured in scores]
    found, residuals = duplicate_clusters.find(
        pictures,
        removal.ranks(table, scores, faults),
        settings.hash_distance,
        settings.residual,
        squares=square,
        mirror_safe=dataset.mirror_safe,
    )
    table, removed = removal.judge(table, scores, faults, found, residuals, settings=settings)

    metrics = count(table, removed)
    kept = table[~table.id.isin(removed.id)]
    files.write_table(pixel_store.CLEAN / "photos.csv", kept)
    files.write_table(pixel_store.CLEAN / "removed.csv", removed.drop(columns=BESIDE))
    files.write_json(METRICS, metrics)
    shown = table.assign(place=range(len(table))).set_index("id")
    bar = tqdm(removed.itertuples(), "show", len(removed), unit="photo", delay=1, disable=None)
    tiles = [tile(row, shown, pictures) for row in bar]
    pairs = [tile for tile in tiles if len(tile.pictures) > 1]
    singles = [tile for tile in tiles if len(tile.pictures) == 1]
    contact_sheets.write(PLOTS, "copies", contact_sheets.pages(pairs, PAIRS, NOTHING))
    contact_sheets.write(
        PLOTS, "quality", contact_sheets.pages(singles, SINGLES, NOTHING, columns=5, rows=3)
    )
    drawn = {name: [getattr(measured, name) for measured in scores] for name in limits}
    style.save(
        histograms(
            drawn | {"residual": list(residuals.pairs.values())},
            limits | {"residual": settings.residual},
            metrics["reasons"],
        ),
        PLOTS / "scores.png",
    )
    check_classes(metrics)
    listed = ", ".join(f"{n} {name}" for name, n in metrics["reasons"].items() if n)
    print(f"clean: kept {len(kept)} of {len(table)} photos; removed: {listed or 'none'}")


def count(table: pd.DataFrame, removed: pd.DataFrame) -> dict[str, Any]:
    """Return numbers for DVC: nested, without lists, every reason and class named even at 0."""
    gone = table.id.isin(removed.id)
    contradicting = removed[removed.reason == "contradicting_labels"]
    return {
        "photos": len(table),
        "kept": int((~gone).sum()),
        "removed": int(gone.sum()),
        "clusters": int(table.cluster[table.cluster != ""].nunique()),
        "clusters_contradicting": int(contradicting.cluster.nunique()),
        "reasons": {reason: int((removed.reason == reason).sum()) for reason in removal.REASONS},
        "classes": {
            name: {"kept": int((~gone & rows).sum()), "removed": int((gone & rows).sum())}
            for name in sorted(table.label.unique())
            for rows in [table.label == name]
        },
    }


def check_classes(metrics: dict[str, Any]) -> None:
    """Refuse a result in which a class has lost its last photo.

    Raises:
        ValueError: It names the class and the reasons.
    """
    for name, counts in metrics["classes"].items():
        if not counts["kept"]:
            reasons = ", ".join(f"{n} {key}" for key, n in metrics["reasons"].items() if n)
            raise ValueError(
                f"class {name} lost all of its {counts['removed']} photos (removed in all: "
                f"{reasons}); look at {PLOTS}/ and change the thresholds of clean in params.yaml"
            )


def tile(row: Any, shown: pd.DataFrame, pictures: Pictures) -> contact_sheets.Tile:  # noqa: ANN401 - a named tuple
    """Return a removed photo, where there is one beside the photo that it is a copy of.

    `shown` is the photo table by id, with each photo's place in `pictures`.
    """
    ids = [row.id, row.beside] if row.beside else [row.id]
    photos_shown = tuple(np.asarray(pictures[shown.place[n]]) for n in ids)
    paths = list(shown.path[ids])
    said = ["removed", "kept"]
    if row.reason == "contradicting_labels":
        said = [f"removed, {shown.label[n]}" for n in ids]
    named = [f"{what}: {path}" for what, path in zip(said, paths, strict=False)]
    if len(ids) == 1:
        # A tile of one photo is narrow: reason, score and folder would not fit beside another.
        folder, _, name = row.path.rpartition("/")
        lines = [row.reason, row.why, folder, name]
    elif row.reason in image_quality.UNUSABLE:
        lines = [f"{row.reason}: {row.why}", *named]
    else:
        residual = f"{row.reason}: residual {row.score:.2f}, threshold {row.threshold:g}"
        lines = [residual, *named, row.why]
    return contact_sheets.Tile(photos_shown, tuple(lines))


def histograms(
    scores: dict[str, list[float]], limits: dict[str, float], gone: dict[str, int]
) -> Figure:
    """Draw each score's histogram, its threshold, how many lie beyond and how many go for it."""
    figure = style.new(15, 6.8)
    grid = figure.subplots(2, 4).flatten()
    for axes, (name, values) in zip(grid, scores.items(), strict=False):
        limit = limits[name]
        side = image_quality.UNUSABLE.get(name, "below")
        beyond = sum(value < limit if side == "below" else value > limit for value in values)
        things = "pairs" if name == "residual" else "photos"
        span = [*values, limit]
        axes.hist(values, bins=40, range=(min(span), max(span)), color=style.COLOURS[0])
        axes.axvline(limit, color=style.COLOURS[5], linestyle="--")
        title = f"{name}: {beyond} of {len(values)} {things} {side} {limit:g}"
        if name in gone and gone[name] != beyond:
            title += f"\n{gone[name]} removed for it, {beyond - gone[name]} for another reason"
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(UNITS[name])
        axes.set_ylabel(things)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(scores) :]:
        axes.axis("off")
    return figure


if __name__ == "__main__":
    stage.run("clean", main)
