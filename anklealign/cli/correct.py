"""Take over reviewed labels as corrections, which prepare applies.

    anklealign correct project-1.json                    # export of a Label Studio project (JSON)
    anklealign correct label_issues/label_issues.csv     # with a column new_label

Reads the review of what `anklealign label-issues` wrote, and adds the labels that differ to
data/label_corrections.csv. A Label Studio export is that of the imported label_studio.json; its
tasks carry the photo's hash. In the table, a row without new_label is not reviewed; the columns
reviewer and reason are optional. In Label Studio, the answer of a TextArea named `reason` is the
reason.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from anklealign.annotation import label_corrections
from anklealign.config import params, paths
from anklealign.config.class_names import Labels
from anklealign.ingest.label_studio_export import (
    BrokenExportError,
    chosen_class,
    newest_annotations,
    read_tasks,
)
from anklealign.ingest.wording import counted
from anklealign.io import pixel_store

Review = dict[str, str]


def correct_labels(reviewed: Path, reviewer: str = "") -> int:
    """Add a review to the corrections; return the exit status.

    Args:
        reviewed: Label Studio export or table.
        reviewer: Code of the reviewer, instead of the one in the file.
    """
    try:
        name, dataset = params.dataset(params.read())
        photos = pixel_store.read_table(paths.PREPARED / "photos.csv")
        labels = Labels(dataset.classes)
        if reviewed.suffix.lower() == ".json":
            reviews, undecided = from_export(reviewed.name, reviewed.read_bytes(), labels)
        else:
            reviews, undecided = from_table(reviewed, labels)
        corrections = label_corrections.read(paths.CORRECTIONS)
        known = dict(zip(photos.sha256, photos.path, strict=True))
        unknown = [review for review in reviews if review["sha256"] not in known]
        reviews = [
            review | {"path": known[review["sha256"]], "reviewer": reviewer or review["reviewer"]}
            for review in reviews
            if review["sha256"] in known
        ]
        table, counts = label_corrections.merge(corrections, reviews, name)
        label_corrections.write(paths.CORRECTIONS, table)
    except (ValueError, OSError) as error:
        print(f"correct: {error}", file=sys.stderr)
        return 1
    for reason in undecided:
        print(f"correct: {reason}", file=sys.stderr)
    if unknown:
        print(
            f"correct: {counted(len(unknown), 'reviewed photo is', 'reviewed photos are')} not in "
            f"{paths.PREPARED}/photos.csv; run `dvc repro`, or review the issues of this dataset",
            file=sys.stderr,
        )
    print(
        f"correct: {counted(counts['corrected'], 'label', 'labels')} corrected, "
        f"{counts['confirmed']} confirmed, {counts['restored']} restored,\n"
        f"{len(undecided)} without a decision; see {paths.CORRECTIONS}.\n"
        "Run `dvc repro` and commit both."
    )
    return 0


def from_export(name: str, data: bytes, labels: Labels) -> tuple[list[Review], list[str]]:
    """Return the reviews in a Label Studio export, and why tasks have none.

    Raises:
        ValueError: It is no JSON export of the tasks that label-issues wrote.
    """
    try:
        items = json.loads(data.decode("utf-8-sig"))
        tasks = read_tasks(name, data, labels)
    except (UnicodeDecodeError, json.JSONDecodeError, BrokenExportError) as error:
        raise ValueError(f"{name} is no JSON export of Label Studio: {error}") from error
    tagged = [item.get("data", {}) for item in items if isinstance(item, dict)]
    own_keys = {"sha256", "labeled"}
    if len(tagged) != len(tasks) or not any(own_keys <= data.keys() for data in tagged):
        raise ValueError(
            f"{name} has tasks without sha256 and labeled; import label_studio.json of `anklealign "
            "label-issues`, and export as JSON"
        )
    reviews, undecided = [], []
    for task, item, own in zip(tasks, items, tagged, strict=True):
        if not own_keys <= own.keys():
            continue  # another task of the project
        newest, _ = newest_annotations(task.annotations)
        votes = {who: chosen_class(annotation, labels)[0] for who, annotation in newest.items()}
        decided = sorted(set(votes.values()) - {""})
        if len(decided) != 1:
            why = f"labels differ: {', '.join(decided)}" if decided else "no label"
            undecided.append(f"task {item.get('id', '')}: {why}")
            continue
        reviews.append(
            {
                "sha256": own["sha256"],
                "label": labels.class_of(own["labeled"]) or own["labeled"],
                "new_label": decided[0],
                "reviewer": "+".join(sorted(who for who, label in votes.items() if label)),
                "reason": reason_of(item),
            }
        )
    return reviews, undecided


def reason_of(item: Mapping[str, Any]) -> str:
    """Return the text of the TextArea named `reason` in a task's annotations."""
    texts = [
        str(text)
        for annotation in item.get("annotations", [])
        for result in annotation.get("result", [])
        if result.get("type") == "textarea" and result.get("from_name") == "reason"
        for text in result.get("value", {}).get("text", [])
    ]
    return " ".join(" ".join(texts).split())


def from_table(path: Path, labels: Labels) -> tuple[list[Review], list[str]]:
    """Return the reviewed rows of a table; a row without new_label has no decision.

    Raises:
        ValueError: A column is missing, or a new label is no class.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [c for c in ("sha256", "label", "new_label") if c not in table.columns]:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}; add new_label to label_issues.csv of "
            "`anklealign label-issues` and fill it where you reviewed a photo"
        )
    reviews = []
    for row in table[table.new_label.str.strip() != ""].to_dict("records"):
        chosen = labels.class_of(row["new_label"])
        if not chosen:
            raise ValueError(f"{path}: the new label {row['new_label']!r} is no class")
        reviews.append(
            {
                "sha256": row["sha256"],
                "label": row["label"],
                "new_label": chosen,
                "reviewer": row.get("reviewer", ""),
                "reason": row.get("reason", ""),
            }
        )
    return reviews, []
