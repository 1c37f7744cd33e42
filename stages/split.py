"""Split: train, validation, and test splits that share no group and no picture.

Reads data/clean/photos.csv and removed.csv and the pixel store. Writes data/split/photos.csv (every
kept photo with its `group` and `split`), metrics/details/split.json, and plots/split/: classes.png,
the class distribution per split, and nearest_01.png, …, the most similar pairs of photos of
different splits.

    python -m stages.split

A group is a subject (or a collector), joined with every other one that shares a picture with it. An
audit searches for the same picture in two splits by other means than clean uses. A leaking pair
fails the stage, after the plots are written, unless split.allowed_leaks lists it. Takes a few
seconds. Each class's share of a split is within about 1 point of its share of all photos where the
groups permit, and within 5 points wherever that is possible.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from anklealign.config import params, paths, stage
from anklealign.config.params import CONSENSUS, Dataset, Split
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Pixels
from anklealign.plotting import contact_sheets, style
from anklealign.splitting import leakage, plots
from anklealign.splitting.leakage import Pair
from anklealign.splitting.splits import (
    EXCLUDED,
    SPLITS,
    TEST,
    VALIDATION,
    assign_splits,
    group_names,
)
from anklealign.splitting.stratified_groups import deviation

METRICS = paths.DETAILS / "split.json"
PLOTS = paths.PLOTS / "split"
SHOWN = 12  # nearest pairs
LISTED = 20  # leaking pairs in the error message
LEAKING, ALLOWED, DIFFERENT = "same picture", "same picture (allowed)", "different pictures"


def main() -> None:
    """Assign the groups of the clean photos to splits and audit them for leakage."""
    raw = params.read()
    settings = params.section(raw, "split", Split)
    seed = params.section(raw, "seed", int)
    _, dataset = params.dataset(raw)
    kept = pixel_store.read_table(paths.CLEAN / "photos.csv")
    removed = pixel_store.read_table(paths.CLEAN / "removed.csv")
    check_allowed_leaks(settings, set(kept.path) | set(removed.path))

    groups = group_names(kept, removed, settings.group)
    table = kept.assign(group=kept.id.map(groups))
    removed_groups = {groups[photo] for photo in removed.id[removed.multi_annotated == 1]}
    table["split"] = assign_splits(table, settings, list(dataset.classes), seed, removed_groups)
    table, consensus = with_consensus(table, removed, settings)

    used = table[table.split.isin(SPLITS)].reset_index(drop=True)
    pictures = pixel_store.boxes_of(used, pixel_store.open_store())
    pairs = leakage.nearest_pairs(
        pictures, list(used.split), (TEST, VALIDATION), squares=dataset.fit == "crop"
    )
    by_status = sort_by_status(used, pairs, settings)
    metrics = metrics_of(table, dataset, settings) | consensus
    metrics["leaking_pairs"] = len(by_status[LEAKING])
    metrics["leaking_pairs_allowed"] = len(by_status[ALLOWED])
    if metrics["groups_crossing"]:
        raise ValueError(
            f"{metrics['groups_crossing']} groups are in more than one split; please report this "
            "bug"
        )

    files.write_table(paths.SPLIT / "photos.csv", table)
    results.write_details(METRICS, metrics)
    style.save(plots.class_shares(table, list(dataset.classes), SPLITS), PLOTS / "classes.png")
    write_contact_sheets(used, pictures, by_status, settings)
    if by_status[LEAKING]:
        raise ValueError(leakage_message(used, by_status[LEAKING]))
    print(summary(metrics, len(pairs)))


def sort_by_status(
    table: pd.DataFrame, pairs: Sequence[Pair], settings: Split
) -> dict[str, list[Pair]]:
    """Return the pairs by status, LEAKING first, in their original order."""
    by_status: dict[str, list[Pair]] = {LEAKING: [], ALLOWED: [], DIFFERENT: []}
    for pair in pairs:
        by_status[pair_status(table, pair, settings)].append(pair)
    return by_status


def pair_status(table: pd.DataFrame, pair: Pair, settings: Split) -> str:
    """Return LEAKING for the same picture by either measure, ALLOWED if listed, else DIFFERENT."""
    if (
        pair.residual > settings.leakage_residual
        and pair.correlation < settings.leakage_correlation
    ):
        return DIFFERENT
    paths = {table.path[pair.a], table.path[pair.b]}
    return ALLOWED if paths in map(set, settings.allowed_leaks) else LEAKING


def summary(metrics: dict[str, Any], pairs: int) -> str:
    """Return the last line that the stage prints."""
    sizes = ", ".join(f"{split} {metrics[split]['photos']} photos" for split in SPLITS)
    return (
        f"split: {sizes}; {metrics['groups']} groups, no group spans two splits; no leakage among "
        f"the {pairs} nearest pairs; {excluded_text(metrics)}; class shares within "
        f"{metrics['deviation_points']:.1f} points of the whole"
    )


def excluded_text(metrics: dict[str, Any]) -> str:
    """Return how many photos are in no split, and why if the test split is by consensus."""
    text = f"{metrics['excluded']} photos excluded"
    if CONSENSUS not in metrics:
        return text
    counts = metrics[CONSENSUS]
    return (
        f"{text} because their groups include multi-annotated photos, of which "
        f"{counts['without_label']} have no consensus label and {counts['removed_by_clean']} were "
        "removed by clean"
    )


def check_allowed_leaks(settings: Split, known: set[str]) -> None:
    """Check that split.allowed_leaks names photos.

    Raises:
        ValueError: A path is not the path of a photo.
    """
    for path in (path for pair in settings.allowed_leaks for path in pair):
        if path not in known:
            raise ValueError(
                f"params.yaml: split.allowed_leaks names {path!r}, which is no photo in "
                "data/clean/photos.csv or removed.csv; use its path from the column path there, or "
                "remove the pair"
            )


def leakage_message(table: pd.DataFrame, pairs: Sequence[Pair]) -> str:
    """Return the error message, with the pairs as split.allowed_leaks accepts them."""
    paths = [[str(table.path[pair.a]), str(table.path[pair.b])] for pair in pairs[:LISTED]]
    listed = json.dumps(paths, ensure_ascii=False)
    more = f" and {len(pairs) - LISTED} more" if len(pairs) > LISTED else ""
    return (
        f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'} of photos in different splits show the "
        f"same picture: {listed}{more}; see {PLOTS}/nearest_*.png. Raise clean.hash_distance or "
        "clean.residual so that clean finds them, or remove one of each from the raw photos, or, "
        "if they are different pictures, add these pairs to split.allowed_leaks in params.yaml"
    )


def write_contact_sheets(
    table: pd.DataFrame,
    pictures: Sequence[Pixels],
    by_status: dict[str, list[Pair]],
    settings: Split,
) -> None:
    """Write contact sheets of the nearest pairs, including all that show the same picture."""
    ordered = [(status, pair) for status, pairs in by_status.items() for pair in pairs]
    count = max(SHOWN, len(by_status[LEAKING]) + len(by_status[ALLOWED]))
    tiles = [tile(table, pictures, pair, status, settings) for status, pair in ordered[:count]]
    title = "Most similar photos of different splits"
    contact_sheets.write(
        PLOTS, "nearest", contact_sheets.pages(tiles, title, "no two splits to compare")
    )


def tile(
    table: pd.DataFrame, pictures: Sequence[Pixels], pair: Pair, status: str, settings: Split
) -> contact_sheets.Tile:
    """Return the tile of a pair, with its status and scores."""
    residual = f"{pair.residual:.2f}" if np.isfinite(pair.residual) else "too high to measure"
    correlation = (
        f"correlation: {pair.correlation:.2f} "
        f"(same picture from {settings.leakage_correlation:.2f})"
    )
    return contact_sheets.Tile(
        (pictures[pair.a], pictures[pair.b]),
        (
            status,
            f"residual: {residual} (same picture up to {settings.leakage_residual:.2f})",
            correlation,
            f"{table.split[pair.a]}: {table.path[pair.a]}",
            f"{table.split[pair.b]}: {table.path[pair.b]}",
        ),
    )


def with_consensus(
    table: pd.DataFrame, removed: pd.DataFrame, settings: Split
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table, with consensus labels in a consensus test split, and its metrics."""
    if settings.test != CONSENSUS:
        return table, {}
    in_test = table.split == TEST
    metrics = {
        "photos": int(in_test.sum()),
        "without_label": int(((table.multi_annotated == 1) & ~in_test).sum()),
        "removed_by_clean": int((removed.multi_annotated == 1).sum()),
        "relabeled": int((in_test & (table.label != table.consensus)).sum()),
        "excluded": int((table.split == EXCLUDED).sum()),
    }
    return table.assign(label=table.consensus.where(in_test, table.label)), {CONSENSUS: metrics}


def metrics_of(table: pd.DataFrame, dataset: Dataset, settings: Split) -> dict[str, Any]:
    """Return the counts of photos, groups, subjects, and classes per split.

    `deviation_points` is the largest difference, in percentage points, between a class's share of a
    split and its share of all splits.
    """
    used = table[table.split.isin(SPLITS)]
    tally = np.array(
        [
            [((used.split == split) & (used.label == name)).sum() for name in dataset.classes]
            for split in SPLITS
        ]
    )
    metrics: dict[str, Any] = {
        "groups": int(used.group.nunique()),
        "groups_crossing": len(used[["group", "split"]].drop_duplicates()) - used.group.nunique(),
        "subject_unknown": int((used.subject == "").sum()),
        "excluded": int((table.split == EXCLUDED).sum()),
        "deviation_points": round(100 * deviation(tally), 3),
        "grouped_by": settings.group,
    }
    for split in SPLITS:
        photos = used[used.split == split]
        metrics[split] = {
            "photos": len(photos),
            "groups": int(photos.group.nunique()),
            "subjects": int(photos.subject[photos.subject != ""].nunique()),
            "classes": {name: int((photos.label == name).sum()) for name in dataset.classes},
        }
    return metrics


if __name__ == "__main__":
    stage.run("split", main)
