"""Find the columns of predefined splits, folds and groups of a table of photos."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anklealign.cli import folder_detection, table_commands
from anklealign.cli.column_names import GROUP_NAMES, SPLIT_NAMES
from anklealign.cli.layout_candidates import LayoutCandidate
from anklealign.cli.table_readings import (
    LONGEST_LIST,
    MANY,
    TableGroup,
    TableReading,
    name_list,
    set_option,
)
from anklealign.config.class_names import fold
from anklealign.ingest import csv_table
from anklealign.ingest.inventory import (
    SPLIT_WORDS,
    escape_unprintable,
    split_of_name,
    split_of_path,
)
from anklealign.ingest.wording import counted

MOST_FOLDS = 20
FOLD = re.compile(r"\b(k ?)?folds?\b|\bcv\b")  # in the name of a column


def row_splits(group: TableGroup, split_column: str | None) -> list[str]:
    """Return the split of each row by a column, or '' for that of its table."""
    if split_column is None or split_column not in group.columns:
        return [""] * len(group.rows)
    cells = group.column(group.columns.index(split_column))
    return [csv_table.split_of_cell(split_column, cell) for cell in cells]


def unknown_splits(group: TableGroup, column: str | None) -> list[str]:
    """Return a remark on the cells of a split column that are no split."""
    if column is None:
        return []
    pairs = zip(group.column(group.columns.index(column)), row_splits(group, column), strict=True)
    counts = Counter(cell for cell, split in pairs if cell and not split)
    if not counts:
        return []
    rows = counted(counts.total(), "row has", "rows have")
    cells = ", ".join(map(repr, sorted(counts)[:LONGEST_LIST]))
    return [f"{group.name}: {rows} {cells} in column {column!r}, which is no split: train"]


def find_split_column(group: TableGroup) -> str | None:
    """Return the column of predefined splits."""
    for place, name in enumerate(group.columns):
        texts = {cell for cell in group.column(place) if cell}
        splits = {csv_table.split_of_cell(name, text) for text in texts}
        words = all(text.casefold() in SPLIT_WORDS for text in texts)
        if len(splits - {""}) > 1 and (words or fold(name) in SPLIT_NAMES):
            return name
    return None


def is_named_like_splits(group: TableGroup, column: str) -> bool:
    """Return whether a column is named like splits, or by its table if that has no header."""
    if not column.startswith("#"):
        return fold(column) in SPLIT_NAMES
    words = re.findall(r"[a-z]+", Path(group.files[0]).stem.casefold())
    return any(word in {*SPLIT_NAMES, "splits", "folds"} for word in words)


def find_folds(values: Mapping[str, list[str]]) -> list[str]:
    """Return the columns that number the folds of a cross-validation."""
    found: list[str] = []
    for name, cells in values.items():
        texts = {cell for cell in cells if cell}
        numbered = all(re.fullmatch(r"(k?fold)?[ _-]?\d+(\.0)?", t.casefold()) for t in texts)
        if FOLD.search(fold(name)) and numbered and len(texts) > 1:
            found.append(name)
    return found


def fold_remarks(reading: TableReading, columns: Iterable[str]) -> list[str]:
    """Return a remark on each column of folds, or that is named like splits and holds no splits."""
    remarks: list[str] = []
    for name in columns:
        texts = sorted({c for c in reading.group.column(reading.group.columns.index(name)) if c})
        known = name in reading.folds or is_named_like_splits(reading.group, name)
        if not known or name in reading.unread or not 2 <= len(texts) <= MOST_FOLDS:
            continue
        kind = f"numbers {len(texts)} folds, which are not read;"
        if name not in reading.folds:
            kind = f"has the values {name_list(texts)}, which are not read; if they are folds,"
        remarks.append(
            f"{reading.group.name}: column {name!r} {kind} {set_option('group_column', name)} "
            "keeps each fold in one split; for fixed splits, write train, val or test into a "
            "column split"
        )
    return remarks


def find_coded_splits(reading: TableReading, values: Mapping[str, list[str]]) -> set[str]:
    """Return the columns of splits that hold numbers, with a remark on each."""
    found: set[str] = set()
    for name, cells in values.items():
        codes = sorted({cell for cell in cells if cell})
        words = {2: ("train", "test"), 3: ("train", "val", "test")}.get(len(codes))
        numbered = all(re.fullmatch(r"\d", code) for code in codes)
        named = is_named_like_splits(reading.group, name)
        if not words or not numbered or not named or FOLD.search(fold(name)):
            continue
        found.add(name)
        meaning = dict(zip(codes, words, strict=True))
        listed = ", ".join(f"{code} is {word}" for code, word in meaning.items())
        reading.unread[name] = (
            f"{reading.group.name}: column {name!r} has the codes {', '.join(codes)}, which are "
            f"not read; if {listed}, {table_commands.lists_command(reading, name, meaning)}"
        )
    return found


def is_extra(reading: TableReading) -> bool:
    """Return whether a table without labels has groups, splits or folds."""
    found = reading.keys.keys() & {"group_column", "split_column"}
    return bool(found or reading.unread or fold_remarks(reading, reading.group.columns))


def with_extra_tables(
    candidate: LayoutCandidate, extras: Sequence[TableReading], forced: Mapping[str, Any]
) -> LayoutCandidate:
    """Return a candidate with the groups and splits of tables that do not hold its labels.

    A table is read if it names at least half of the photos, and each of them once. Remarks say
    what is read, and with which option what is not read can be.
    """
    if "extra_csv" in forced:
        return candidate
    keys, remarks = dict(candidate.keys), []
    paths: dict[str, str] = {}
    splits = dict(candidate.splits)
    tables, question = _coarsest_first(candidate, _beside(candidate, extras), forced)
    for extra in tables:
        used = []
        for key in ("group_column", "split_column"):
            column = forced[key] if key in forced else extra.keys.get(key)
            if column not in extra.group.columns or keys.get(key) == column:
                continue
            # Rows may name folders that are classes.
            if column == extra.path.name and fold(column) not in GROUP_NAMES and key not in forced:
                continue
            values, problem = _by_photo(extra, column, is_split=key == "split_column")
            name = f"{extra.group.name}: column {column!r}"
            kind = "groups the photos" if key == "group_column" else "holds predefined splits"
            if not problem and key not in forced:
                problem = _unread(candidate, keys, key, values, set_option(key, column))
            if problem := problem or _other_encoding(candidate, extra, keys):
                remarks.append(f"{name} {kind}, and is not read: {problem}")
                continue
            used.append(column)
            keys[key] = column
            paths |= dict.fromkeys(extra.group.files, extra.path.name)
            without = sum(photo not in values for photo in candidate.labels)
            missing = counted(without, "photo has no value", "photos have no value")
            remarks.append(f"{name} {kind}" + (f"; {missing}" if without else ""))
            if key == "split_column":
                differing = _differing(candidate, keys, values)
                remarks += [f"{name} counts; {differing}"] * bool(differing)
                splits |= values
                remarks += unknown_splits(extra.group, column)
        remarks += [] if used else extra.unread.values()
        named = [*keys.values(), *extra.keys.values()]
        rest = [column for column in extra.group.columns if column not in named]
        remarks += fold_remarks(extra, rest)
    if paths:
        keys["extra_csv"] = paths
    return replace(
        candidate,
        keys=keys,
        splits=splits,
        remarks=(*candidate.remarks, *remarks),
        question=candidate.question or question,
    )


def _coarsest_first(
    candidate: LayoutCandidate, extras: Sequence[TableReading], forced: Mapping[str, Any]
) -> tuple[list[TableReading], str]:
    """Return the tables, that of the coarsest groups first, and a question if there is none.

    It is the one in whose groups those of each other table lie.
    """
    groups: dict[int, dict[str, str]] = {}
    for number, extra in enumerate(extras):
        column = extra.keys.get("group_column")
        if column is None or column == extra.path.name or "group_column" in forced:
            continue
        values, problem = _by_photo(extra, column, is_split=False)
        if not problem and not _unread(candidate, {}, "group_column", values, ""):
            groups[number] = values
    if candidate.keys.get("group_column") or len(groups) < 2:
        return list(extras), ""
    for first, values in groups.items():
        if all(_lie_in(other, values) for other in groups.values()):
            return [extras[first], *(e for n, e in enumerate(extras) if n != first)], ""
    named = [f"{extras[n].group.name} by column {extras[n].keys['group_column']!r}" for n in groups]
    options = [set_option("group_column", extras[n].keys["group_column"]) for n in groups]
    return list(extras), (
        f"two tables group the photos differently: {' and '.join(named)}; pass "
        f"{' or '.join(options)}"
    )


def _lie_in(fine: Mapping[str, str], coarse: Mapping[str, str]) -> bool:
    """Return whether each group lies in one group of the coarser ones."""
    pairs = {(value, coarse[photo]) for photo, value in fine.items() if photo in coarse}
    return len(pairs) == len({value for value, _ in pairs})


def _differing(
    candidate: LayoutCandidate, keys: Mapping[str, Any], values: Mapping[str, str]
) -> str:
    """Return how many photos have another split by folder, table or list, or ''."""
    before = {
        photo: candidate.splits.get(photo) or split_of_path(photo, keys.get("class_roots"))
        for photo in candidate.labels
    }
    differing = sorted(p for p, split in values.items() if before.get(p, "") not in {"", split})
    if not differing:
        return ""
    first = differing[0]
    return (
        f"{counted(len(differing), 'photo has', 'photos have')} another split by folder or table, "
        f"for example {escape_unprintable(first)} is {values[first]} here and {before[first]} there"
    )


def _beside(candidate: LayoutCandidate, extras: Sequence[TableReading]) -> list[TableReading]:
    """Return the tables that do not hold the labels and whose rows surely name photos."""
    csv = candidate.keys.get("csv", ())
    own = {csv} if isinstance(csv, str) else set(csv)
    return [extra for extra in extras if extra.sure and not own & {*extra.group.files}]


def _other_encoding(candidate: LayoutCandidate, extra: TableReading, keys: dict[str, Any]) -> str:
    """Set the encoding of a table that is not UTF-8; return why it cannot be read, or ''."""
    encoding = extra.group.encoding
    if encoding in {"utf-8", keys.get("encoding")}:
        return ""
    if candidate.layout == "table" or "encoding" in keys:
        return f"it is {encoding.upper()}; save it as UTF-8"
    keys["encoding"] = encoding
    return ""


def _unread(
    candidate: LayoutCandidate,
    keys: Mapping[str, Any],
    key: str,
    values: Mapping[str, str],
    option: str,
) -> str:
    """Return why the values of another table are not read and the option that reads them, or ''."""
    labels = candidate.labels
    if not labels:
        return "no photo has a label yet"
    splits = {candidate.splits.get(p) or split_of_path(p, keys.get("class_roots")) for p in labels}
    why = ""
    if (common := len(values.keys() & labels.keys())) < MANY * len(labels):
        why = f"it names {common} of {len(labels)} photos with a label"
    elif key == "group_column":
        why = f"column {keys[key]!r} gives the groups" if keys.get(key) else ""
    elif len(splits) > 1 or "split_lists" in keys:
        why = "folders, tables or lists give the splits"
        if differing := _differing(candidate, keys, values):
            why += f", and {differing}"
    return f"{why}; {option} reads it" if why else ""


def _by_photo(extra: TableReading, column: str, *, is_split: bool) -> tuple[dict[str, str], str]:
    """Return the value of each photo in a column, and the problem of photos with several."""
    cells = extra.group.column(extra.group.columns.index(column))
    if is_split:
        cells = row_splits(extra.group, column)
    found: dict[str, set[str]] = defaultdict(set)
    for photo, cell in zip(extra.path.photos, cells, strict=True):
        if photo and cell:
            found[photo].add(cell)
    several = [photo for photo, values in found.items() if len(values) > 1]
    problem = ""
    if several:
        problem = (
            f"{counted(len(several), 'photo has', 'photos have')} several values, for example "
            f"{escape_unprintable(several[0])}; keep one row per photo"
        )
    return {photo: min(values) for photo, values in found.items()}, problem


def row_splits_by_photo(reading: TableReading) -> dict[str, str]:
    """Return the split of each labeled photo by its row or table, with a remark on photos in two.

    Photos whose rows name no split are omitted.
    """
    column = reading.keys.get("split_column")
    splits = row_splits(reading.group, column)
    reading.remarks += unknown_splits(reading.group, column)
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
            f"{reading.group.name}: "
            f"{counted(len(differing), 'photo lies', 'photos lie')} in the folder of another "
            f"split, for example {escape_unprintable(differing[0])} is "
            f"{reading.splits[differing[0]]} in "
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
