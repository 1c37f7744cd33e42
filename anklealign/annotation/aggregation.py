"""Aggregate votes into consensus labels, and build the tables of votes and soft labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from anklealign.annotation import agreement
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import Entry, Skip, Vote, escape_unprintable, skips_of_entry


@dataclass(frozen=True)
class Consensus:
    """The consensus label of one photo, or '' for an unresolved tie, and its soft label."""

    label: str
    soft: tuple[float, ...]  # of each class
    tied: bool


def aggregate_votes(
    votes: Sequence[Vote],
    entries: Sequence[Entry],
    dataset: Dataset,
    method: agreement.Method,
) -> dict[str, Consensus]:
    """Return the consensus of each photo with votes, by its escaped path."""
    classes = list(dataset.classes)
    own = {escape_unprintable(e.file): classes.index(e.label) for e in entries if not e.by_vote}
    cast = [(escape_unprintable(vote.file), vote.annotator, vote.label) for vote in votes]
    table = pd.DataFrame(cast, columns=["photo", "annotator", "label"])
    paths, _, matrix = agreement.vote_matrix(table, classes)
    aggregated = agreement.aggregate(
        matrix,
        np.array([own.get(path, agreement.NO_VOTE) for path in paths], np.int64),
        len(classes),
        method=method,
        ordered=dataset.ordered,
    )
    return {
        path: Consensus(classes[label] if label != agreement.NO_VOTE else "", tuple(soft), tied)
        for path, label, soft, tied in zip(
            paths,
            aggregated.labels.tolist(),
            aggregated.soft.tolist(),
            aggregated.tied.tolist(),
            strict=True,
        )
    }


def apply_consensus(
    entries: Sequence[Entry], consensus: Mapping[str, Consensus]
) -> tuple[list[Entry], list[Skip]]:
    """Return the entries with consensus labels filled in, and skips of unresolved ties."""
    kept: list[Entry] = []
    skips: list[Skip] = []
    for entry in entries:
        if not entry.by_vote:
            kept.append(entry)
        elif label := consensus[escape_unprintable(entry.file)].label:
            kept.append(replace(entry, label=label))
        else:
            skips += skips_of_entry(entry, "label_tie", "several classes have the most votes")
    return kept, skips


def vote_table(votes: Sequence[Vote], table: pd.DataFrame) -> tuple[pd.DataFrame, list[Skip]]:
    """Return the votes on the table's photos as (photo, annotator, label), and skips of others."""
    ids = dict(zip(table.path, table.id, strict=True))
    rows: list[tuple[str, str, str]] = []
    skips: list[Skip] = []
    for vote in votes:
        path, annotator = escape_unprintable(vote.file), escape_unprintable(vote.annotator)
        if path in ids:
            rows.append((ids[path], annotator, vote.label))
        else:
            skips.append(Skip(f"{annotator} on {path}", "vote", "file_skipped"))
    return pd.DataFrame(sorted(rows), columns=["photo", "annotator", "label"]), skips


def soft_label_table(
    consensus: Mapping[str, Consensus], table: pd.DataFrame, dataset: Dataset
) -> pd.DataFrame:
    """Return the soft labels of the table's photos as (photo, soft_<class>, …)."""
    voted = table[table.path.isin(consensus)].sort_values("id")
    rows = [
        (photo, *consensus[path].soft) for photo, path in zip(voted.id, voted.path, strict=True)
    ]
    # Rounded, because the last digits may differ between processors.
    columns = ["photo", *(f"soft_{name}" for name in dataset.classes)]
    return pd.DataFrame(rows, columns=columns).round(6)


def tie_counts(consensus: Mapping[str, Consensus], table: pd.DataFrame) -> dict[str, int]:
    """Return the number of tied photos in the table, and of those without a consensus label."""
    voted = [consensus[path] for path in table.path if path in consensus]
    return {
        "ties": sum(photo.tied for photo in voted),
        "ties_left": sum(not photo.label for photo in voted),
    }
