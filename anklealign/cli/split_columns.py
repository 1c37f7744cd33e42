"""Find the columns of predefined splits, folds and groups of a table of photos."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from anklealign.cli import folder_detection, table_commands
from anklealign.cli.column_names import GROUP_NAMES, SPLIT_NAMES
from anklealign.cli.layout_candidates import counted
from anklealign.cli.table_readings import MANY, TableGroup, TableReading, name_list, set_option
from anklealign.config.class_names import fold
from anklealign.ingest import csv_table
from anklealign.ingest.inventory import (
    SPLIT_WORDS,
    escape_unprintable,
    split_of_name,
    split_of_path,
)

FOLD = re.compile(r"\b(k ?)?folds?\b|\bcv\b")  # in the name of a column


def row_splits(group: TableGroup, split_column: str | None) -> list[str]:
    """Return the split of each row by a column, or '' for that of its table."""
    if split_column is None or split_column not in group.columns:
        return [""] * len(group.rows)
    cells = group.column(group.columns.index(split_column))
    return [csv_table.split_of_cell(split_column, cell) for cell in cells]


def find_split_column(group: TableGroup) -> str | None:
    """Return the column of predefined splits."""
    for place, name in enumerate(group.columns):
        texts = {cell for cell in group.column(place) if cell}
        splits = {csv_table.split_of_cell(name, text) for text in texts}
        words = all(text.casefold() in SPLIT_WORDS for text in texts)
        if len(splits - {""}) > 1 and (words or fold(name) in SPLIT_NAMES):
            return name
    return None


def find_folds(reading: TableReading, values: Mapping[str, list[str]]) -> set[str]:
    """Return the columns that number the folds of a cross-validation, with a remark on each."""
    found: set[str] = set()
    for name, cells in values.items():
        texts = {cell for cell in cells if cell}
        numbered = all(re.fullmatch(r"(k?fold)?[ _-]?\d+(\.0)?", t.casefold()) for t in texts)
        if not FOLD.search(fold(name)) or not numbered or len(texts) < 2:
            continue
        found.add(name)
        reading.remarks.append(
            f"{reading.group.name}: column {name!r} numbers {len(texts)} folds, which are not "
            f"read; {set_option('group_column', name)} keeps each fold in one split; for fixed "
            "splits, write train, val or test into a column split"
        )
    return found


def find_coded_splits(reading: TableReading, values: Mapping[str, list[str]]) -> set[str]:
    """Return the columns of splits that hold numbers, with a remark on each."""
    found: set[str] = set()
    for name, cells in values.items():
        codes = sorted({cell for cell in cells if cell})
        words = {2: ("train", "test"), 3: ("train", "val", "test")}.get(len(codes))
        numbered = all(re.fullmatch(r"\d", code) for code in codes)
        if not words or not numbered or fold(name) not in SPLIT_NAMES or FOLD.search(fold(name)):
            continue
        found.add(name)
        meaning = dict(zip(codes, words, strict=True))
        listed = ", ".join(f"{code} is {word}" for code, word in meaning.items())
        reading.unread.append(
            f"{reading.group.name}: column {name!r} has the codes {', '.join(codes)}, which are "
            f"not read; if {listed}, {table_commands.lists_command(reading, name, meaning)}"
        )
    return found


def beside_labels(reading: TableReading, best: TableReading | None) -> list[str]:
    """Return remarks on the splits, folds and groups of a table without labels."""
    group, keys = reading.group, reading.keys
    remarks = list(reading.unread)
    if split := keys.get("split_column"):
        cells = sorted({c for c in group.column(group.columns.index(split)) if c})
        meaning = {c: word for c in cells if (word := csv_table.split_of_cell(split, c))}
        remarks.append(
            f"{group.name}: column {split!r} holds predefined splits, which are not read from a "
            f"table without labels; {table_commands.lists_command(reading, split, meaning)}"
        )
    folds = [name for name in group.columns if FOLD.search(fold(name)) and name != split]
    groups = dict.fromkeys([*folds, keys.get("group_column")])
    remarks += [
        f"{group.name}: column {name!r} groups the photos, but is not read from a table without "
        f"labels; {table_commands.merge_command(reading, name, best)}"
        for name in groups
        if name and name != reading.path.name
    ]
    return remarks


def row_splits_by_photo(reading: TableReading) -> dict[str, str]:
    """Return the split of each labeled photo by its row or table, with a remark on photos in two.

    Photos whose rows name no split are omitted.
    """
    column = reading.keys.get("split_column")
    splits = row_splits(reading.group, column)
    if column is None:
        splits = [split_of_name(Path(file).stem) for file, _ in reading.group.rows]
    found: dict[str, str] = {}
    several: dict[str, set[str]] = defaultdict(set)
    for photo, split in zip(reading.path.photos, splits, strict=True):
        if photo in reading.labels and split and found.setdefault(photo, split) != split:
            several[photo] |= {found[photo], split}
    if several:
        photo = min(several)
        reading.remarks.append(
            f"{reading.group.name}: "
            f"{counted(len(several), 'photo is', 'photos are')} in several splits, for example "
            f"{escape_unprintable(photo)} in {' and '.join(sorted(several[photo]))}; the first row "
            "counts"
        )
    return found


def take_folder_splits(reading: TableReading) -> None:
    """Read the splits that folders are named after; name those that contradict the table."""
    roots = folder_detection.split_folders(reading.labels)
    by_folder = {photo: split_of_path(photo, roots) for photo in reading.labels}
    rest = [photo for photo in reading.labels if photo not in reading.splits]
    several = len({*reading.splits.values(), *by_folder.values()}) > 1
    if several and any(by_folder[photo] != split_of_path(photo, None) for photo in rest):
        reading.keys["class_roots"] = roots
        listed = [f"{root} ({split})" for root, split in roots.items()]
        reading.remarks.append(f"predefined splits by folder: {name_list(listed)}")
    differing = sorted(
        photo for photo, split in reading.splits.items() if by_folder[photo] not in {"", split}
    )
    if differing:
        column = reading.keys.get("split_column")
        reading.remarks.append(
            f"{reading.group.name}: {len(differing)} photos lie in the folder of another split, "
            f"for example {escape_unprintable(differing[0])} is {reading.splits[differing[0]]} in "
            + (
                f"column {column!r}; the column counts, and --set split_column=null takes the "
                "folders"
                if column
                else "the table of that name, which counts; rename the table to take the folders"
            )
        )


def find_group_column(values: Mapping[str, list[str]], reading: TableReading) -> str | None:
    """Return the coarsest column of groups; a constant or unique column groups nothing."""
    best: tuple[int, str] | None = None
    for name, cells in values.items():
        if fold(name) not in GROUP_NAMES:
            continue
        texts = Counter(cell for cell in cells if cell)
        if len(texts) < 2 or len(texts) == texts.total():
            kind = "the same in all rows" if len(texts) < 2 else "different in each row"
            reading.remarks.append(
                f"{reading.group.name}: column {name!r} is {kind} and groups no photos"
            )
        elif max(texts.values()) <= MANY * texts.total():
            best = min(best or (len(texts), name), (len(texts), name))
    return best[1] if best else None
