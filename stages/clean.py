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

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign import clusters, figures, files, params, photos, quality, sheets, stage
from anklealign.clusters import Cluster, Residuals
from anklealign.params import Clean
from anklealign.photos import Pictures
from anklealign.quality import Scores

METRICS = Path("metrics/clean.json")
PLOTS = Path("plots/clean")
REASONS = ("exact_duplicate", "near_duplicate", "contradicting_labels", *quality.UNUSABLE)
PHOTO_COLUMNS = ("id", "path", "label", "person", "collector", "consensus", "panel", "cluster")
PAIRS = "Copies: the removed photo, on its right the one kept, or another that went with it"
BESIDE = "beside"
SINGLES = "Photos that show too little"
NOTHING = "Nothing was removed."
# A framed photo is the larger of two only by more than this: frames are found to a pixel or two.
FRAMED = 1.1
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
    table = photos.read_table(photos.PREPARED / "photos.csv")
    pictures = Pictures(table, photos.open_store(), dataset.fit)
    measure = partial(quality.scores, square=square)
    with ThreadPoolExecutor() as pool:  # Pillow and scipy leave the interpreter free
        measured = pool.map(measure, pictures, table.width, table.height)
        scores = list(tqdm(measured, "clean", len(pictures), unit="photo", disable=None))
    limits = {name: getattr(settings, name) for name in quality.UNUSABLE}
    faults = [quality.fault(measured, limits) for measured in scores]
    found, residuals = clusters.find(
        pictures,
        ranks(table, scores, faults),
        settings.hash_distance,
        settings.residual,
        squares=square,
        mirror_safe=dataset.mirror_safe,
    )
    table, removed = judge(table, scores, faults, found, residuals, settings=settings)

    metrics = count(table, removed)
    kept = table[~table.id.isin(removed.id)]
    files.write_table(photos.CLEAN / "photos.csv", kept)
    files.write_table(photos.CLEAN / "removed.csv", removed.drop(columns=BESIDE))
    files.write_json(METRICS, metrics)
    shown = table.assign(place=range(len(table))).set_index("id")
    bar = tqdm(removed.itertuples(), "show", len(removed), unit="photo", delay=1, disable=None)
    tiles = [tile(row, shown, pictures) for row in bar]
    pairs = [tile for tile in tiles if len(tile.pictures) > 1]
    singles = [tile for tile in tiles if len(tile.pictures) == 1]
    sheets.write(PLOTS, "copies", sheets.pages(pairs, PAIRS, NOTHING))
    sheets.write(PLOTS, "quality", sheets.pages(singles, SINGLES, NOTHING, columns=5, rows=3))
    drawn = {name: [getattr(measured, name) for measured in scores] for name in limits}
    figures.save(
        histograms(
            drawn | {"residual": list(residuals.pairs.values())},
            limits | {"residual": settings.residual},
        ),
        PLOTS / "scores.png",
    )
    check_classes(metrics)
    listed = ", ".join(f"{n} {name}" for name, n in metrics["reasons"].items() if n)
    print(f"clean: kept {len(kept)} of {len(table)} photos; removed: {listed or 'none'}")


def ranks(
    table: pd.DataFrame, scores: list[Scores], faults: list[str | None]
) -> list[tuple[bool, bool, float, bool, int, str, str]]:
    """Return each photo's rank in the choice of the copy to keep; the lowest stays.

    Usable before unusable, with a consensus before without, then larger, unframed, sharper and
    earlier: by the path without its ending, so that 'x.jpg' comes before 'x (1).jpg' and
    'x - Copy.jpg'. Sharpness counts in steps of a tenth, so that an edge roughened by compression
    decides only where it crosses a step.
    """
    return [
        (
            reason is not None,
            agreed == "",
            -(measured.area / FRAMED if measured.framed else measured.area),
            measured.framed,
            _steps(measured.blurred),
            path.removesuffix(PurePosixPath(path).suffix),
            path,
        )
        for measured, reason, agreed, path in zip(
            scores, faults, table.consensus, table.path, strict=True
        )
    ]


def _steps(value: float) -> int:
    return round(math.log(max(value, 1e-3)) / math.log(1.1))


@dataclass(frozen=True)
class Verdict:
    """Why a photo goes; the fields are removed.csv's columns after those of the photo."""

    reason: str
    score: float
    threshold: float
    kept_id: str
    kept_path: str
    why: str
    beside: str  # id of the photo to show beside it, or ''; not in removed.csv


def judge(
    table: pd.DataFrame,
    scores: list[Scores],
    faults: list[str | None],
    found: list[Cluster],
    residuals: Residuals,
    *,
    settings: Clean,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table with its `cluster` column, and the table of the removed photos."""
    verdicts: dict[int, Verdict] = {}
    for photo, reason in enumerate(faults):
        if reason:
            score, limit = getattr(scores[photo], reason), getattr(settings, reason)
            why = f"{score:.3g} is {quality.UNUSABLE[reason]} {limit:g}"
            verdicts[photo] = Verdict(reason, score, limit, "", "", why, "")
    cluster_ids = [""] * len(table)
    members = {cluster.kept: {cluster.kept: 0.0} | cluster.copies for cluster in found}
    for cluster in found:
        kept_id, kept_path = table.id[cluster.kept], table.path[cluster.kept]
        # Two clusters touch where a picture of the one is a copy of a picture of the other: a label
        # that is in doubt here is in doubt there.
        alike = [n for kept in sorted({cluster.kept} | cluster.touching) for n in members[kept]]
        labels = Counter(table.label[alike])
        listed = ", ".join(f"{n} {label}" for label, n in sorted(labels.items()))
        for photo, residual in members[cluster.kept].items():
            cluster_ids[photo] = table.id[cluster.chain]
            if len(labels) > 1:
                why = f"copies of one picture are labelled {listed}"
                # Of those that it was found to match one with another label, if there is one.
                matched = [
                    n for n in alike if n != photo and residuals.of(photo, n) <= settings.residual
                ]
                other = min(
                    matched,
                    key=lambda n: (table.label[n] == table.label[photo], residuals.of(photo, n)),
                )
                verdicts[photo] = Verdict(
                    "contradicting_labels",
                    residuals.of(photo, other),
                    settings.residual,
                    "",
                    "",
                    why,
                    table.id[other],
                )
            elif photo == cluster.kept or faults[cluster.kept]:
                continue
            elif photo in verdicts:  # a poor copy
                verdicts[photo] = replace(
                    verdicts[photo], kept_id=kept_id, kept_path=kept_path, beside=kept_id
                )
            else:
                voted = [table.consensus[n] != "" for n in (cluster.kept, photo)]
                why = why_kept(scores[cluster.kept], scores[photo])
                if voted == [True, False]:
                    why = "several people voted on the kept one"
                reason = "exact_duplicate" if photo in cluster.identical else "near_duplicate"
                verdicts[photo] = Verdict(
                    reason, residual, settings.residual, kept_id, kept_path, why, kept_id
                )
    table = table.assign(cluster=cluster_ids)
    order = sorted(verdicts, key=lambda photo: table.path[photo])
    columns = [field.name for field in fields(Verdict)]
    given = pd.DataFrame([astuple(verdicts[photo]) for photo in order], columns=columns)
    removed = table.loc[order, list(PHOTO_COLUMNS)].reset_index(drop=True)
    return table, removed.join(given).round({"score": 4})


def why_kept(kept: Scores, other: Scores) -> str:
    """Return why the kept one of two copies is the better one."""
    if other.framed and not kept.framed and kept.area < other.area * FRAMED:
        return "the kept one has no frame around it"
    if kept.area != other.area:
        # Inside a frame, so not always the file's width times its height.
        areas = [f"{scores.area / 1e6:.4g}" for scores in (kept, other)]
        return f"the kept one is larger: {areas[0]} against {areas[1]} MP"
    if _steps(kept.blurred) != _steps(other.blurred):
        edges = [f"{scores.blurred:.2f} %" for scores in (kept, other)]
        return f"the kept one is sharper: edges {edges[0]} against {edges[1]}"
    return "as large and sharp as the kept one, whose path comes earlier"


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
        "reasons": {reason: int((removed.reason == reason).sum()) for reason in REASONS},
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


def tile(row: Any, shown: pd.DataFrame, pictures: Pictures) -> sheets.Tile:  # noqa: ANN401 - a named tuple
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
    elif row.reason in quality.UNUSABLE:
        lines = [f"{row.reason}: {row.why}", *named]
    else:
        residual = f"{row.reason}: residual {row.score:.2f}, threshold {row.threshold:g}"
        lines = [residual, *named, row.why]
    return sheets.Tile(photos_shown, tuple(lines))


def histograms(scores: dict[str, list[float]], limits: dict[str, float]) -> Figure:
    """Draw each score's histogram with its threshold and how many lie beyond it."""
    figure = figures.new(15, 6.4)
    grid = figure.subplots(2, 4).flatten()
    for axes, (name, values) in zip(grid, scores.items(), strict=False):
        limit = limits[name]
        side = quality.UNUSABLE.get(name, "below")
        beyond = sum(value < limit if side == "below" else value > limit for value in values)
        things = "pairs" if name == "residual" else "photos"
        span = [*values, limit]
        axes.hist(values, bins=40, range=(min(span), max(span)), color=figures.COLOURS[0])
        axes.axvline(limit, color=figures.COLOURS[5], linestyle="--")
        axes.set_title(f"{name}: {beyond} of {len(values)} {things} {side} {limit:g}", fontsize=10)
        axes.set_xlabel(UNITS[name])
        axes.set_ylabel(things)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(scores) :]:
        axes.axis("off")
    return figure


if __name__ == "__main__":
    stage.run("clean", main)
