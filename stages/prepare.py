"""Decode every photo once: raw folder in, pixel store and photo table out.

Reads `data/raw/<dataset>` in the layout of the dataset config, never writes to it, and applies the
corrections in `data/label_corrections.csv` (`anklealign/annotation/label_corrections.py`).
Writes `data/prepared/`: the pixel store `pixels/`, `photos.csv`, `skipped.csv` (path, item, reason,
detail, remedy; the reasons are listed in `anklealign/ingest/inventory.py`), `votes.csv` and
`soft_labels.csv` (`anklealign/io/pixel_store.py`), and `metrics/details/prepare.json`. Where colors
or a bit depth were converted, `notes.csv` (path, note) has the photos. If labels were corrected,
`label_corrections.csv` has the corrections and which of them are stale.

    python -m stages.prepare

The photos and the skipped files add up to the files seen, and likewise for tasks and votes;
otherwise the stage fails. Memory grows with the tables only, not with the pixels. Photos that were
decoded by an earlier run are not decoded again, which changes no result
(`anklealign/ingest/decoding.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from anklealign.annotation import aggregation, agreement, label_corrections
from anklealign.annotation.aggregation import Consensus
from anklealign.config import params, paths, stage
from anklealign.config.params import Dataset, Fit, Prepare
from anklealign.config.paths import PREPARED, RAW, SOFT_LABELS, STORE, VOTES
from anklealign.ingest import decoding, layouts
from anklealign.ingest.inventory import (
    REASONS,
    Entry,
    Inventory,
    Item,
    Skip,
    escape_unprintable,
    skip_rows,
    skips_of_entry,
)
from anklealign.ingest.wording import counted
from anklealign.io import execution, files, pixel_store, result_cache, results
from anklealign.io.decode import PhotoError
from anklealign.io.decoder_pool import Target
from anklealign.io.pixel_store import StoreWriter

PHOTOS = PREPARED / "photos.csv"
SKIPPED = PREPARED / "skipped.csv"
NOTES = PREPARED / "notes.csv"
CORRECTED = PREPARED / "label_corrections.csv"
METRICS = paths.DETAILS / "prepare.json"


def main() -> None:
    """Write the pixel store, the tables and the metrics."""
    raw = params.read()
    settings = params.section(raw, "prepare", Prepare)
    execution.configure(**vars(params.execution(raw)))
    name, dataset = params.dataset(raw)

    inventory = layouts.read_inventory(RAW / name, dataset)
    consensus = aggregation.aggregate_votes(
        inventory.votes, inventory.entries, dataset, settings.consensus
    )
    entries, ties = aggregation.apply_consensus(inventory.entries, consensus)
    rows, refused = decode_photos(RAW / name, entries, settings, dataset.fit)
    unreadable = [
        skip for entry, error in refused for skip in skips_of_entry(entry, error.reason, str(error))
    ]
    table, corrections = label_corrections.apply(
        photo_table(rows, inventory, consensus),
        label_corrections.read(paths.CORRECTIONS),
        name,
        dataset.classes,
    )
    votes, unused_votes = aggregation.vote_table(inventory.votes, table)
    skipped = skip_table([*inventory.skips, *ties, *unreadable, *unused_votes])
    metrics = count(inventory, table, votes, skipped, dataset)
    metrics["agreement"] = agreement_of(votes, inventory, dataset)
    metrics["agreement"] |= aggregation.tie_counts(consensus, table)

    files.write_table(SKIPPED, skipped)
    notes = note_table(rows)
    if len(notes):
        metrics["notes"] = reasons_of(notes.note.str.partition(";")[0])
        files.write_table(NOTES, notes)
    else:
        NOTES.unlink(missing_ok=True)
    if len(corrections):
        metrics["label_corrections"] = label_corrections.count(corrections)
        files.write_table(CORRECTED, corrections)
    else:
        CORRECTED.unlink(missing_ok=True)
    check_classes(name, table, skipped, dataset)
    files.write_table(PHOTOS, table)
    files.write_table(VOTES, votes)
    # A correction replaces the votes: the photo has its new label alone.
    voted = table[~table.id.isin(corrected_ids(table, corrections))]
    files.write_table(SOFT_LABELS, aggregation.soft_label_table(consensus, voted, dataset))
    metrics["pixels_sha256"] = pixel_store.store_sha256()
    metrics["photos_sha256"] = files.sha256(PHOTOS)
    results.write_details(METRICS, metrics)
    stage.print_wrapped(summary_line(metrics))
    for note, number in metrics.get("notes", {}).items():
        if note != "total":
            stage.print_wrapped(f"prepare: {counted(number, 'photo')} {note} (see {NOTES})")
    for line in correction_lines(corrections):
        stage.print_wrapped(line)


def decode_photos(
    root: Path, entries: Sequence[Entry], settings: Prepare, fit: Fit
) -> tuple[list[dict[str, Any]], list[tuple[Entry, PhotoError]]]:
    """Write the pixel store; return a table row for each photo, and the unreadable ones."""
    target = Target(settings.max_megapixels, settings.size, fit, settings.fill)
    with (
        decoding.cache_for(target) as cache,
        StoreWriter(
            STORE, settings.size, pixel_store.ARCHIVE, synced=execution.on_cluster()
        ) as writer,
    ):
        result = decoding.decode_photos(root, entries, target, writer, cache)
        writer.prune(result_cache.MAX_BYTES)
    return result


def photo_table(
    rows: list[dict[str, Any]], inventory: Inventory, consensus: Mapping[str, Consensus]
) -> pd.DataFrame:
    """Return the photo table with the columns `consensus` and `multi_annotated`."""
    table = pd.DataFrame(rows, columns=list(pixel_store.PREPARED_COLUMNS))
    table["consensus"] = [consensus[path].label if path in consensus else "" for path in table.path]
    multi_annotated = consensus.keys() | set(map(escape_unprintable, inventory.listed))
    table["multi_annotated"] = [int(path in multi_annotated) for path in table.path]
    return table


def corrected_ids(table: pd.DataFrame, corrections: pd.DataFrame) -> set[str]:
    """Return the ids of the photos that a correction applies to."""
    applied = corrections[corrections.outcome == "applied"]
    pairs = set(zip(applied.sha256, applied.new_label, strict=True))
    return {
        photo
        for photo, sha256, label in zip(table.id, table.sha256, table.label, strict=True)
        if (sha256, label) in pairs
    }


def correction_lines(corrections: pd.DataFrame) -> list[str]:
    """Return a line of counts, and one for each stale correction."""
    if not len(corrections):
        return []
    numbers = label_corrections.count(corrections)
    stale = corrections[corrections.outcome != "applied"]
    return [
        (
            f"prepare: {counted(numbers['photos'], 'label')} corrected by {paths.CORRECTIONS}, "
            f"{counted(numbers['stale'], 'correction is', 'corrections are')} stale"
        ),
        *(
            f"prepare: warning: the correction of {path} ({old} to {new}) is not applied: "
            f"{label_corrections.OUTCOMES[outcome]}"
            for path, old, new, outcome in zip(
                stale.path, stale.old_label, stale.new_label, stale.outcome, strict=True
            )
        ),
    ]


def note_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the notes of all photos, one a row: (path, note), sorted by path."""
    notes = sorted((row["path"], note) for row in rows for note in row["notes"])
    return pd.DataFrame(notes, columns=["path", "note"])


def agreement_of(votes: pd.DataFrame, inventory: Inventory, dataset: Dataset) -> dict[str, Any]:
    """Return the metrics of inter-annotator agreement."""
    _, annotators, matrix = agreement.vote_matrix(votes, list(dataset.classes))
    return {"listed": len(inventory.listed)} | agreement.agreement_metrics(
        matrix, annotators, len(dataset.classes), ordered=dataset.ordered
    )


def summary_line(metrics: Mapping[str, Any]) -> str:
    """Return the line of counts that the stage prints."""
    line = (
        f"prepare: {counted(metrics['photos'], 'photo')} of "
        f"{counted(metrics['files_seen'], 'file')} and {counted(metrics['tasks_seen'], 'task')}, "
        f"{counted(metrics['subjects'], 'subject')}; skipped "
        f"{counted(metrics['skipped']['total'], 'file')}, "
        f"{counted(metrics['skipped_tasks']['total'], 'task')}, "
        f"{counted(metrics['skipped_exports']['total'], 'export')} (see {SKIPPED})"
    )
    if not metrics["votes_seen"]:
        return line
    numbers = metrics["agreement"]
    alpha = f", alpha {numbers['alpha_nominal']:.2f}" if "alpha_nominal" in numbers else ""
    return (
        f"{line}; {counted(numbers['votes'], 'vote')} of "
        f"{counted(numbers['annotators'], 'annotator')} on "
        f"{counted(numbers['photos'], 'photo')}{alpha}, "
        f"{counted(metrics['skipped_votes']['total'], 'vote')} skipped"
    )


def skip_table(skips: Sequence[Skip]) -> pd.DataFrame:
    """Return the skips as a table of (path, item, reason, detail, remedy)."""
    columns = ["path", "item", "reason", "detail", "remedy"]
    return pd.DataFrame(skip_rows(skips), columns=columns)


def count(
    inventory: Inventory,
    table: pd.DataFrame,
    votes: pd.DataFrame,
    skipped: pd.DataFrame,
    dataset: Dataset,
) -> dict[str, Any]:
    """Return the metrics after checking that photos and skips add up to the items seen.

    Raises:
        ValueError: A file, a task or a vote is lost, which is a bug for any data.
    """
    by_item = {item: skipped.reason[skipped.item == item] for item in get_args(Item)}
    read = set(table.path)
    with_task = sum(e.task != "" and escape_unprintable(e.file) in read for e in inventory.entries)
    if len(table) + len(by_item["file"]) != inventory.files_seen:
        raise ValueError(
            f"{len(table)} photos and {len(by_item['file'])} skipped files are not the "
            f"{inventory.files_seen} files seen; please report this"
        )
    if with_task + len(by_item["task"]) != inventory.tasks_seen:
        raise ValueError(
            f"{with_task} photos with a task and {len(by_item['task'])} skipped tasks "
            f"are not the {inventory.tasks_seen} tasks seen; please report this"
        )
    if len(votes) + len(by_item["vote"]) != inventory.votes_seen:
        raise ValueError(
            f"{len(votes)} votes and {len(by_item['vote'])} skipped votes are not the "
            f"{inventory.votes_seen} votes seen; please report this"
        )
    return {
        "files_seen": inventory.files_seen,
        "tasks_seen": inventory.tasks_seen,
        "exports_seen": inventory.exports_seen,
        "votes_seen": inventory.votes_seen,
        "photos": len(table),
        "classes": {name: int((table.label == name).sum()) for name in dataset.classes},
        "collectors": int(table.collector[table.collector != ""].nunique()),
        "subjects": int(table.subject[table.subject != ""].nunique()),
        "subject_unknown": int((table.subject == "").sum()),
        "skipped": reasons_of(by_item["file"]),
        "skipped_tasks": reasons_of(by_item["task"]),
        "skipped_exports": reasons_of(by_item["export"]),
        "skipped_votes": reasons_of(by_item["vote"]),
        "skipped_names": reasons_of(by_item["name"]),
    }


def reasons_of(reasons: "pd.Series[str]") -> dict[str, int]:
    """Return the number of skips in total and for each reason."""
    return {"total": len(reasons), **dict(sorted(Counter(reasons).items()))}


def check_classes(name: str, table: pd.DataFrame, skipped: pd.DataFrame, dataset: Dataset) -> None:
    """Check that each class has at least one photo.

    Raises:
        ValueError: A class has no photo; the message has the most frequent skip reason.
    """
    counts = {label: int((table.label == label).sum()) for label in dataset.classes}
    empty = [label for label, number in counts.items() if not number]
    if not empty:
        return
    reasons = Counter(skipped.reason).most_common(1)
    why = (
        f"; most frequent skip reason, {reasons[0][1]} times: {reasons[0][0]} "
        f"({REASONS[reasons[0][0]]})"
        if reasons
        else ""
    )
    raise ValueError(
        f"{RAW / name} has no photo of {', '.join(empty)} (photos of each class: {counts}); add "
        f"photos, or fix datasets.{name} in params.yaml{why}; all reasons are in {SKIPPED}"
    )


if __name__ == "__main__":
    stage.run("prepare", main)
