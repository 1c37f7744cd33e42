"""Read tables with one column per class, which is 1 for the photos of its class."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from anklealign.cli.dataset_config import scalar
from anklealign.cli.table_readings import (
    MANY,
    TableReading,
    classes_option,
    name_list,
    set_option,
    user_labels,
)
from anklealign.ingest import csv_table

MOST_MARKED = 0.95  # share of rows that mark one class, if there is one column per class
ENOUGH = 2000  # rows that show which columns are classes


def is_binary(texts: Counter[str]) -> bool:
    """Return whether a column holds nothing but 0 and 1, or true and false."""
    return bool(texts) and all(
        re.fullmatch(r"[01](\.0+)?|true|false", text.casefold()) for text in texts
    )


def class_run(
    reading: TableReading, values: Mapping[str, list[str]], columns: Sequence[str]
) -> list[str]:
    """Return the longest run of columns of which nearly each row marks one, or []."""
    rows = [number for number, photo in enumerate(reading.path.photos) if photo]
    rows = rows[:: max(1, len(rows) // ENOUGH)]
    marks = np.zeros((len(rows), len(columns) + 1), int)
    for place, name in enumerate(columns, 1):
        marks[:, place] = [csv_table.is_hot(values[name][row]) for row in rows]
    before = marks.cumsum(axis=1)
    runs = [
        (end - start, -start)
        for start, end in combinations(range(len(columns) + 1), 2)
        if end - start > 1
        and (before[:, end] - before[:, start] == 1).mean() >= MOST_MARKED
        and marks[:, start + 1 : end + 1].any(axis=0).all()
    ]
    length, start = max(runs, default=(0, 0))
    return list(columns[-start : length - start])


def beside_votes(
    reading: TableReading,
    values: Mapping[str, list[str]],
    columns: Sequence[str],
    votes: Sequence[str],
) -> str:
    """Return the question about columns of classes beside those of annotators, or ''."""
    if not (classes := class_run(reading, values, columns)):
        return ""
    option = shlex.quote(f"vote_columns={scalar(list(votes))}")
    return (
        f"{reading.group.name}: columns {name_list(classes)} mark one class in each row, and "
        f"columns {name_list(votes)} may be votes; for the classes, pass --set one_hot=true "
        f"{classes_option(classes)}; for the votes, --set {option}"
    )


def take_classes(
    reading: TableReading,
    values: Mapping[str, list[str]],
    columns: Sequence[str],
    words: Sequence[str],
    forced: Mapping[str, Any],
) -> list[str]:
    """Read one column per class, if nearly each row marks one; return the columns that were read.

    If several rows do not, or other columns hold `words`, the columns may be traits instead.
    """
    labels = user_labels(forced.get("classes"))
    if forced.get("one_hot") and labels:
        columns = [name for name in columns if labels.class_of(name)]
    rows = [
        (number, [name for name in columns if csv_table.is_hot(values[name][number])])
        for number, photo in enumerate(reading.path.photos)
        if photo
    ]
    several = sum(len(hot) > 1 for _, hot in rows)
    single = sum(len(hot) == 1 for _, hot in rows)
    if not forced.get("one_hot"):
        if single < MANY * len(rows) and not (several and not words):
            return []
        if several or words or single < MOST_MARKED * len(rows):
            marked = f"one class in {single}" + (f" and several in {several}" if several else "")
            skipped = ", which skips the others" if single < len(rows) else ""
            some = class_run(reading, values, columns) or columns[:2]
            only = (
                ""
                if len(some) == len(columns)
                else (f"if only some are, such as {name_list(some)}, add {classes_option(some)}; ")
            )
            reading.question = (
                f"{reading.group.name}: columns {name_list(columns)} mark {marked} of {len(rows)} "
                f"rows; if they are the classes, pass --set one_hot=true{skipped}; {only}if they "
                "are traits of the photos, choose the column of the labels: "
                f"{set_option('label_column', (words or columns)[0])}"
            )
            return []
    reading.keys |= {"one_hot": True, "label_column": None}
    for number, hot in rows:
        if len(hot) == 1:
            reading.texts[hot[0]] += 1
            reading.add(number, hot[0])
    empty = [name for name in columns if not reading.texts[name]]
    reading.remarks.append(
        f"{reading.group.name}: one column per class: {name_list(columns)}"
        + (f"; no photo of {name_list(empty)}" if empty else "")
    )
    return list(columns)
