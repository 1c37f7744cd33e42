"""Corrections of labels by a reviewer: a versioned table that prepare applies.

`data/label_corrections.csv` is a file of git with one row per corrected label: dataset, sha256 (of
the photo's file), path (for readers; not compared), old_label, new_label, reviewer and reason. A
correction applies to every photo of the dataset with this hash and this label, so that it survives
renamed folders and holds for exact duplicates. It is stale, and changes nothing, if no photo has
the hash any more, or if the label is another one by now.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from anklealign.io import files

COLUMNS = ("dataset", "sha256", "path", "old_label", "new_label", "reviewer", "reason")
KEY = ["dataset", "sha256", "old_label"]
# Outcome of a correction -> what to do.
OUTCOMES = {
    "applied": "",
    "photo_missing": "no photo has this sha256: remove the row, or restore the photo",
    "label_changed": "no photo with this sha256 has the old label: remove the row, or review again",
}


def read(path: Path) -> pd.DataFrame:
    """Return the table of corrections, all columns as text; empty if there is no file.

    Raises:
        ValueError: A column is missing, a cell of the key or a new label is empty, or two rows
            correct the same label.
    """
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS), dtype=str)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {COLUMNS}")
    table = pd.DataFrame({name: table[name].str.strip() for name in COLUMNS})
    empty = (table[[*KEY, "new_label"]] == "").any(axis=1)
    if empty.any():
        line = int(empty.argmax()) + 2
        raise ValueError(
            f"{path}, line {line}: dataset, sha256, old_label and new_label are needed"
        )
    if (twice := table.duplicated(KEY)).any():
        row = table[twice].iloc[0]
        raise ValueError(
            f"{path} corrects the label {row.old_label} of {row.path} (sha256 {row.sha256[:12]}) "
            "twice; keep one of the rows"
        )
    return table


def write(path: Path, table: pd.DataFrame) -> None:
    """Write the corrections, sorted, so that two teams' additions merge in git."""
    files.write_table(path, table[list(COLUMNS)].sort_values([*KEY], ignore_index=True))


def apply(
    photos: pd.DataFrame, corrections: pd.DataFrame, dataset: str, classes: Collection[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the photos with corrected labels, and the outcome of each correction.

    A photo with a consensus label has the new label as consensus, too: the reviewer saw the votes'
    result, and `split.test: consensus` would undo the correction.

    Args:
        photos: sha256, label and consensus.
        corrections: Result of `read`.
        dataset: Name of the dataset; the rows of others are left out.
        classes: Its classes.

    Returns:
        The photos, with the same index; and the corrections with `outcome` (a key of `OUTCOMES`)
        and `photos`, how many were corrected.

    Raises:
        ValueError: A new label is no class.
    """
    own = corrections[corrections.dataset == dataset].reset_index(drop=True)
    for row in own[~own.new_label.isin(list(classes))].to_dict("records"):
        raise ValueError(
            f"the correction of {row['path']} has the new label {row['new_label']!r}, which is no "
            f"class of {dataset}; choose one of {', '.join(classes)}"
        )
    label, consensus = photos.label.copy(), photos.consensus.copy()
    outcomes: list[tuple[str, int]] = []
    for row in own.to_dict("records"):
        same_photo = photos.sha256 == row["sha256"]
        matching = same_photo & (photos.label == row["old_label"])
        label[matching] = row["new_label"]
        consensus[matching & (photos.consensus != "")] = row["new_label"]
        stale = "label_changed" if same_photo.any() else "photo_missing"
        outcomes.append(("applied" if matching.any() else stale, int(matching.sum())))
    result = own.assign(
        outcome=[outcome for outcome, _ in outcomes], photos=[number for _, number in outcomes]
    )
    return photos.assign(label=label, consensus=consensus), result


def count(outcomes: pd.DataFrame) -> dict[str, int]:
    """Return the number of corrections, of corrected photos, and of stale corrections by reason."""
    numbers = outcomes.outcome.value_counts()
    return {
        "corrections": len(outcomes),
        "photos": int(outcomes.photos.sum()),
        "stale": int((outcomes.outcome != "applied").sum()),
        **{name: int(numbers.get(name, 0)) for name in OUTCOMES if name != "applied"},
    }


def merge(
    corrections: pd.DataFrame, reviews: Sequence[Mapping[str, Any]], dataset: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the corrections with reviews added, and counts of what the reviewers decided.

    A label that an earlier correction gave is corrected in that row. If the review restores the
    label of the data, the row is dropped.

    Args:
        corrections: Result of `read`.
        reviews: sha256, path, label (that the reviewer saw), new_label, reviewer and reason.
        dataset: Name of the dataset.

    Returns:
        The corrections, and the numbers of `corrected`, `confirmed` and `restored` labels.
    """
    rows = {
        (row["dataset"], row["sha256"], row["old_label"]): row
        for row in corrections.to_dict("records")
    }
    counts = {"corrected": 0, "confirmed": 0, "restored": 0}
    for review in reviews:
        if review["new_label"] == review["label"]:
            counts["confirmed"] += 1
            continue
        earlier = next(
            (
                key
                for key, row in rows.items()
                if key[:2] == (dataset, review["sha256"]) and row["new_label"] == review["label"]
            ),
            None,
        )
        key = earlier or (dataset, review["sha256"], review["label"])
        if key[2] == review["new_label"]:
            del rows[key]
            counts["restored"] += 1
            continue
        rows[key] = {
            "dataset": dataset,
            "sha256": review["sha256"],
            "path": review["path"],
            "old_label": key[2],
            "new_label": review["new_label"],
            "reviewer": review["reviewer"],
            "reason": review["reason"],
        }
        counts["corrected"] += 1
    return pd.DataFrame(list(rows.values()), columns=list(COLUMNS), dtype=str), counts
