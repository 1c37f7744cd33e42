"""What the votes come to, photo by photo, and the tables that keep votes and soft labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from anklealign.annotation import agreement
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import Entry, Skip, Vote, dropped, printable


@dataclass(frozen=True)
class Verdict:
    """What the votes on one photo come to: '' where a tie stays."""

    label: str
    soft: tuple[float, ...]  # of each class
    tied: bool


def judge(
    votes: Sequence[Vote],
    entries: Sequence[Entry],
    dataset: Dataset,
    method: agreement.Method,
) -> dict[str, Verdict]:
    """Return the verdict on each photo that people voted on, by its printable path."""
    classes = list(dataset.classes)
    own = {printable(e.file): classes.index(e.label) for e in entries if not e.by_vote}
    cast = [(printable(vote.file), vote.annotator, vote.label) for vote in votes]
    table = pd.DataFrame(cast, columns=["photo", "annotator", "label"])
    paths, _, matrix = agreement.matrix(table, classes)
    found = agreement.settle(
        matrix,
        np.array([own.get(path, agreement.NOBODY) for path in paths], np.int64),
        len(classes),
        method=method,
        ordered=dataset.ordered,
    )
    return {
        path: Verdict(classes[label] if label != agreement.NOBODY else "", tuple(soft), tied)
        for path, label, soft, tied in zip(
            paths, found.labels.tolist(), found.soft.tolist(), found.tied.tolist(), strict=True
        )
    }


def labelled(
    entries: Sequence[Entry], judged: Mapping[str, Verdict]
) -> tuple[list[Entry], list[Skip]]:
    """Return the entries, those by vote with their label; and the skips of those that stay tied."""
    kept: list[Entry] = []
    skips: list[Skip] = []
    for entry in entries:
        if not entry.by_vote:
            kept.append(entry)
        elif label := judged[printable(entry.file)].label:
            kept.append(replace(entry, label=label))
        else:
            skips += dropped(entry, "label_tie", "as many votes for one class as for another")
    return kept, skips


def vote_table(votes: Sequence[Vote], table: pd.DataFrame) -> tuple[pd.DataFrame, list[Skip]]:
    """Return the votes on the table's photos as (photo, annotator, label); skips of the others."""
    ids = dict(zip(table.path, table.id, strict=True))
    rows: list[tuple[str, str, str]] = []
    skips: list[Skip] = []
    for vote in votes:
        path, annotator = printable(vote.file), printable(vote.annotator)
        if path in ids:
            rows.append((ids[path], annotator, vote.label))
        else:
            skips.append(Skip(f"{annotator} on {path}", "vote", "file_skipped"))
    return pd.DataFrame(sorted(rows), columns=["photo", "annotator", "label"]), skips


def soft_table(
    judged: Mapping[str, Verdict], table: pd.DataFrame, dataset: Dataset
) -> pd.DataFrame:
    """Return the soft labels of the table's photos as (photo, soft_<class>, …)."""
    voted = table[table.path.isin(judged)].sort_values("id")
    rows = [(photo, *judged[path].soft) for photo, path in zip(voted.id, voted.path, strict=True)]
    # Rounded, as the last digits may differ from one processor to the next.
    columns = ["photo", *(f"soft_{name}" for name in dataset.classes)]
    return pd.DataFrame(rows, columns=columns).round(6)


def ties(judged: Mapping[str, Verdict], table: pd.DataFrame) -> dict[str, int]:
    """Return how many of the table's photos were tied, and how many stay without a consensus."""
    voted = [judged[path] for path in table.path if path in judged]
    return {
        "ties": sum(verdict.tied for verdict in voted),
        "ties_left": sum(not verdict.label for verdict in voted),
    }
