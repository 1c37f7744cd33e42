"""Split: train, validation, and test splits that share no group and no picture.

Reads data/clean/photos.csv and removed.csv and the pixel store. Writes data/split/photos.csv (every
kept photo with its `group` and `split`), data/split/leaking_pairs.csv (the pairs that the audit
found, with their scores and what was done), data/split/nearest_pairs.csv (these and the most
similar other pairs of photos of different splits, which the report shows), and
metrics/details/split.json.

    python -m stages.split

A group is a subject (or a collector), joined with every other one that shares a picture with it. An
audit searches for the same picture in two splits by other means than clean uses. The groups of a
leaking pair are joined and move into one split until the audit finds no pair, unless
split.allowed_leaks lists it. Where the joined groups cannot be split, one photo of each pair is
excluded instead, but at most 5% of all photos. A pair across predefined splits that are kept stops
the stage; with split.predefined: exclude_leaks, the joined groups leave the weaker split (train
before val before test), as every group that spans predefined splits does. Takes a few seconds for
300 photos. Each class's share of a split is within about 1 point of its share of all photos where
the groups permit, and within 5 points wherever that is possible.
"""

from typing import Any

import numpy as np
import pandas as pd

from anklealign.config import params, paths, stage
from anklealign.config.params import CONSENSUS, Dataset, Split
from anklealign.io import files, memory, pixel_store, results
from anklealign.similarity import registration
from anklealign.splitting.leak_joining import (
    ALLOWED,
    COLUMNS,
    JOINED,
    SEPARATED,
    AuditedSplit,
    pair_row,
    split_without_leaks,
)
from anklealign.splitting.splits import EXCLUDED, SPLITS, TEST, kept_splits
from anklealign.splitting.stratified_groups import deviation

METRICS = paths.DETAILS / "split.json"
LEAKS = paths.SPLIT / "leaking_pairs.csv"
NEAREST = paths.SPLIT / "nearest_pairs.csv"
SHOWN = 12  # pairs, at least


def main() -> None:
    """Assign the groups of the clean photos to splits that the audit finds free of leakage."""
    memory.keep_freed_memory()
    raw = params.read()
    settings = params.section(raw, "split", Split)
    seed = params.section(raw, "seed", int)
    name, dataset = params.dataset(raw)
    clean, split = paths.CLEAN / "photos.csv", paths.SPLIT / "photos.csv"
    kept = pixel_store.read_table(clean)
    removed = pixel_store.read_table(paths.CLEAN / "removed.csv")
    check_allowed_leaks(settings, set(kept.path) | set(removed.path))

    pictures = pixel_store.Pictures(kept, pixel_store.open_store(), dataset.fit)
    with registration.cache_for() as cache:
        audited = split_without_leaks(
            kept, removed, settings, seed, pictures, name=name, dataset=dataset, cache=cache
        )
    table, consensus = with_consensus(audited.table, removed, settings)
    metrics = metrics_of(table, dataset, settings) | consensus | leakage_metrics(audited)
    if metrics["groups_crossing"]:
        raise ValueError(
            f"{metrics['groups_crossing']} groups are in more than one split; please report this "
            "bug"
        )

    files.write_table(split, table)
    files.write_table(LEAKS, audited.leaks)
    files.write_table(NEAREST, nearest_table(audited))
    metrics["clean_sha256"] = files.sha256(clean)
    metrics["photos_sha256"] = files.sha256(split)
    results.write_details(METRICS, metrics)
    if audited.error:
        raise ValueError(leakage_message(audited))
    stage.print_wrapped(summary(metrics, audited))


def leakage_metrics(audited: AuditedSplit) -> dict[str, int]:
    """Return the counts of leaking pairs: left, joined, separated, and allowed."""
    return {
        "leaking_pairs": audited.same_picture if audited.error else 0,
        "leaking_pairs_joined": audited.count(JOINED),
        "leaking_pairs_separated": audited.count(SEPARATED),
        "leaking_pairs_allowed": audited.count(ALLOWED),
        "audit_rounds": audited.rounds,
    }


def leakage_message(audited: AuditedSplit) -> str:
    """Return the error message if joining the groups of leaking pairs is impossible."""
    lowest = audited.leaks.residual[audited.leaks.action != ALLOWED].min()
    limit = max(0.0, np.floor(100 * min(lowest, 1)) / 100 - 0.01)
    pairs = (
        f"{audited.same_picture} pairs of photos in different splits show the same picture "
        f"({LEAKS}; `anklealign report --photos` draws them)"
    )
    if audited.across_predefined:
        return f"{pairs}; {audited.error}"
    return (
        f"{pairs}. With their groups joined, {audited.error}\n"
        "If they are different pictures, lower the limits that decide:\n"
        f"  dvc exp run -S split.leakage_residual={limit:.2f} -S split.leakage_correlation=1"
    )


def summary(metrics: dict[str, Any], audited: AuditedSplit) -> str:
    """Return the last lines that the stage prints."""
    sizes = ", ".join(f"{split} {metrics[split]['photos']} photos" for split in SPLITS)
    others = len(audited.nearest) - len(audited.leaks)
    audit = f"no leakage among the {others} nearest pairs"
    if metrics["leaking_pairs_joined"]:
        audit = (
            f"{metrics['leaking_pairs_joined']} pairs show the same picture, so their groups were "
            f"joined in {audited.rounds} rounds (see {LEAKS}; clean.hash_distance, "
            "split.leakage_residual and split.leakage_correlation decide)"
        )
    if audited.reason:
        audit += (
            f"; {metrics['leaking_pairs_separated']} pairs lost one photo each, because joining "
            f"their groups is not possible: {audited.reason.splitlines()[0]}"
        )
    return (
        f"split: {sizes}; {metrics['groups']} groups, no group spans two splits; {audit}; "
        f"{excluded_text(metrics)}; class shares within {metrics['deviation_points']:.1f} points "
        "of the whole"
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
                f"params.yaml: split.allowed_leaks names {path!r}, which is not a photo in "
                "data/clean/photos.csv or removed.csv; use its path from the column path there, or "
                "remove the pair"
            )


def nearest_table(audited: AuditedSplit) -> pd.DataFrame:
    """Return the pairs that the report shows: the leaking ones of all rounds, then the nearest."""
    first = {JOINED: 0, SEPARATED: 0, ALLOWED: 1}
    order = sorted(audited.nearest, key=lambda row: first.get(row[1], 2))
    rows = [pair_row(audited.table, *row) for row in order[: max(SHOWN, len(audited.leaks))]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


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
    predefined = kept_splits(table, settings) if settings.test != CONSENSUS else []
    if predefined:
        metrics["predefined"] = predefined
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
