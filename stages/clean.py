"""Clean: copies and unusable photos out, each with its reason and the photo kept instead.

Reads data/prepared/photos.csv and pixels.npy; writes data/clean/photos.csv (the kept rows and the
cluster of duplicates that each belongs to, or ''), data/clean/removed.csv (a row a removed photo:
reason, score, threshold, the photo kept instead and why that one), metrics/clean.json and
plots/clean/ (removed photos beside the kept ones, page by page, and the scores' histograms).

    python -m stages.clean

Reasons: exact_duplicate (same file or same pixels), near_duplicate (the same picture re-encoded,
resized, cut, turned, mirrored, framed, brightened), contradicting_labels (copies of one picture
with different labels: all go), and the quality reasons that are keys of params.yaml's clean. A
photo that is bad in several ways goes by the first in their order there. Of copies the one with a
consensus label stays; else the larger one; among equals the sharper one, then the one whose path
sorts first.
"""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign import duplicates, figures, files, params, photos, quality, sheets, stage
from anklealign.duplicates import Cluster
from anklealign.params import Clean
from anklealign.photos import Pixels
from anklealign.quality import Scores

METRICS = Path("metrics/clean.json")
PLOTS = Path("plots/clean")
COPIES = ("exact_duplicate", "near_duplicate", "contradicting_labels")
REASONS = (*COPIES, *quality.UNUSABLE)
PHOTO_COLUMNS = ("id", "path", "label", "person", "collector", "consensus", "cluster")
PAIRS = "Copies: the removed photo, beside it the one kept or contradicting"
SINGLES = "Photos that show too little"
NOTHING = "Nothing was removed."
UNITS = {
    "too_small": "shorter side, pixels",
    "aspect": "longer over shorter side",
    "dark": "grey level that 95 % of the pixels stay below",
    "bright": "grey level that 99 % of the pixels reach",
    "low_contrast": "grey levels, 1st to 99th percentile",
    "blurred": "sigma of the sharpest edges, % of side",
}


def main() -> None:
    """Write both tables, the metrics and the pictures."""
    settings = params.section(params.read(), "clean", Clean)
    table = photos.read_table(photos.PREPARED / "photos.csv")
    store = photos.open_store()
    boxes = photos.boxes_of(table, store)
    with ThreadPoolExecutor() as pool:  # Pillow and scipy leave the interpreter free
        measured = pool.map(quality.scores, boxes, table.width, table.height)
        scores = list(tqdm(measured, "clean", len(boxes), unit="photo"))
    limits = {name: getattr(settings, name) for name in quality.UNUSABLE}
    faults = [quality.fault(measured, limits) for measured in scores]
    clusters = duplicates.find(
        boxes, ranks(table, scores, faults), settings.hash_distance, settings.residual
    )
    table, removed = judge(table, scores, faults, clusters, settings)

    metrics = count(table, removed, clusters)
    kept = table[~table.id.isin(removed.id)]
    files.write_table(photos.CLEAN / "photos.csv", kept)
    files.write_table(photos.CLEAN / "removed.csv", removed)
    files.write_json(METRICS, metrics)
    pictures = dict(zip(table.id, boxes, strict=True))
    copies = removed[removed.reason.isin(COPIES)]
    poor = removed[~removed.reason.isin(COPIES)]
    pairs = [pair(row, copies, pictures) for row in copies.itertuples()]
    singles = [single(row, pictures) for row in poor.itertuples()]
    sheets.write(PLOTS, "copies", sheets.pages(pairs, PAIRS, NOTHING))
    sheets.write(PLOTS, "quality", sheets.pages(singles, SINGLES, NOTHING, columns=5, rows=3))
    figures.save(histograms(scores, limits), PLOTS / "scores.png")
    check_classes(metrics)
    listed = ", ".join(f"{n} {name}" for name, n in metrics["reasons"].items() if n)
    print(f"clean: kept {len(kept)} of {len(table)} photos; removed: {listed or 'none'}")


def ranks(
    table: pd.DataFrame, scores: list[Scores], faults: list[str | None]
) -> list[tuple[bool, bool, int, int, str]]:
    """Return each photo's rank in the choice of the copy to keep; the lowest stays.

    Usable before unusable, with a consensus before without, then larger, sharper and earlier. Area
    and sharpness count in steps of a tenth: a border found one pixel further out, or an edge
    roughened by compression, decides nothing.
    """
    return [
        (reason is not None, agreed == "", -_steps(measured.area), _steps(measured.blurred), path)
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


def judge(
    table: pd.DataFrame,
    scores: list[Scores],
    faults: list[str | None],
    clusters: list[Cluster],
    settings: Clean,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table with its `cluster` column, and the table of the removed photos."""
    verdicts: dict[int, Verdict] = {}
    for photo, reason in enumerate(faults):
        if reason:
            score, limit = getattr(scores[photo], reason), getattr(settings, reason)
            why = f"{score:.3g} is {quality.UNUSABLE[reason]} {limit:g}"
            verdicts[photo] = Verdict(reason, score, limit, "", "", why)
    cluster_ids = [""] * len(table)
    for cluster in clusters:
        members = {cluster.kept: 0.0} | cluster.copies
        kept_id, kept_path = table.id[cluster.kept], table.path[cluster.kept]
        labels = Counter(table.label[list(members)])
        listed = ", ".join(f"{n} {label}" for label, n in sorted(labels.items()))
        for photo, residual in members.items():
            cluster_ids[photo] = kept_id
            if len(labels) > 1:
                why = f"copies of one picture are labelled {listed}"
                reason, kept = "contradicting_labels", ("", "")
            elif photo != cluster.kept and not faults[photo]:
                why = why_kept(table, scores, cluster.kept, photo)
                reason = "exact_duplicate" if photo in cluster.identical else "near_duplicate"
                kept = (kept_id, kept_path)
            else:
                continue
            verdicts[photo] = Verdict(reason, residual, settings.residual, *kept, why)
    table = table.assign(cluster=cluster_ids)
    order = sorted(verdicts, key=lambda photo: table.path[photo])
    found = pd.DataFrame(
        [astuple(verdicts[photo]) for photo in order],
        columns=[field.name for field in fields(Verdict)],
    )
    removed = table.loc[order, list(PHOTO_COLUMNS)].reset_index(drop=True)
    return table, removed.join(found).round({"score": 4})


def why_kept(table: pd.DataFrame, scores: list[Scores], kept: int, other: int) -> str:
    """Return why the kept one of two copies is the better one."""
    if table.consensus[kept] and not table.consensus[other]:
        return "several people voted on the kept one"
    if _steps(scores[kept].area) != _steps(scores[other].area):
        sizes = [f"{table.width[n]} x {table.height[n]}" for n in (kept, other)]
        return f"the kept one is larger: {sizes[0]} against {sizes[1]}"
    if _steps(scores[kept].blurred) != _steps(scores[other].blurred):
        edges = [f"{scores[n].blurred:.2f} %" for n in (kept, other)]
        return f"the kept one is sharper: edges {edges[0]} against {edges[1]}"
    return "as large and sharp as the kept one, whose path comes earlier"


def count(table: pd.DataFrame, removed: pd.DataFrame, clusters: list[Cluster]) -> dict[str, Any]:
    """Return numbers for DVC: nested, without lists, every reason and class named even at 0."""
    gone = table.id.isin(removed.id)
    contradicting = removed[removed.reason == "contradicting_labels"]
    return {
        "photos": len(table),
        "kept": int((~gone).sum()),
        "removed": int(gone.sum()),
        "clusters": len(clusters),
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


def pair(row: Any, copies: pd.DataFrame, pictures: dict[str, Pixels]) -> sheets.Tile:  # noqa: ANN401 - a named tuple
    """Return a removed copy beside the kept one, or beside one that contradicts its label."""
    shown, path = row.kept_id, row.kept_path
    if not shown:
        opposed = copies[(copies.cluster == row.cluster) & (copies.label != row.label)]
        shown, path = opposed.id.iloc[0], opposed.path.iloc[0]
    both = (np.asarray(pictures[row.id]), np.asarray(pictures[shown]))
    residual = f"residual {row.score:.2f}, threshold {row.threshold:g}"
    return sheets.Tile(both, (f"{row.reason}: {residual}", row.path, path, row.why))


def single(row: Any, pictures: dict[str, Pixels]) -> sheets.Tile:  # noqa: ANN401 - a named tuple
    """Return a removed photo with its score and threshold."""
    return sheets.Tile((np.asarray(pictures[row.id]),), (row.reason, row.why, row.path))


def histograms(scores: list[Scores], limits: dict[str, float]) -> Figure:
    """Draw each score's histogram with its threshold and the number of photos beyond it."""
    figure = figures.new(12, 6.4)
    for axes, (name, side) in zip(
        figure.subplots(2, 3).flat, quality.UNUSABLE.items(), strict=True
    ):
        values = np.array([getattr(measured, name) for measured in scores])
        limit = limits[name]
        beyond = int((values < limit).sum() if side == "below" else (values > limit).sum())
        axes.hist(values, bins=40, color=figures.COLOURS[0])
        axes.axvline(limit, color=figures.COLOURS[5], linestyle="--")
        axes.set_title(f"{name}: {beyond} of {len(values)} {side} {limit:g}", fontsize=10)
        axes.set_xlabel(UNITS[name])
        axes.set_ylabel("photos")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    stage.run("clean", main)
