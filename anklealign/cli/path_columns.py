"""Find the column of a table that names the photos, or the two that form their paths.

The path column is the one whose cells name the most photos; cells that look like file names count
for more than bare numbers. Columns that name different photos are a question.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from anklealign.cli import split_columns, table_commands
from anklealign.cli.column_names import (
    ATTRIBUTES,
    CASE_NAMES,
    GROUP_NAMES,
    INDEX_NAMES,
    LABEL_NAMES,
    PATH_WORDS,
    SPLIT_NAMES,
)
from anklealign.cli.table_readings import (
    MANY,
    RIVAL,
    PathColumn,
    TableGroup,
    TableReading,
    name_list,
    set_option,
)
from anklealign.config.class_names import fold
from anklealign.ingest.inventory import escape_unprintable, suffix
from anklealign.ingest.table_files import JSON, RECURRING, PathIndex, PathRule, looks_like_path
from anklealign.ingest.wording import counted

FEW = 50  # rows that show whether a column may be part of a path
ENOUGH = 2000  # rows used to find the path columns
LONGEST_NUMBER = 12  # digits of a photo's number, as in 000000001.jpg
LONGEST_ROW = 120  # characters of a table's row in a remark


def _columns_of_paths(
    group: TableGroup, index: PathIndex, forced: Mapping[str, Any], split_column: str | None
) -> tuple[list[PathColumn], tuple[PathColumn, list[str], str] | None]:
    """Return the columns that name photos, and the result of `find_path_column` if decided."""
    splits = split_columns.row_splits(group, split_column)
    every = [
        _photos_of(group, place, index, splits)
        for place, name in enumerate(group.columns)
        if forced.get("path_column") in {None, name}
    ]
    columns = [column for column in every if column.matched and not column.by_folder]
    folders = [column for column in every if column.by_folder]
    rows = max((column.matched for column in columns), default=0)
    if folders:
        best = max(folders, key=lambda column: (column.matched, -column.place))
        if rows < MANY * best.matched:
            return columns, (best, [], "")
    return columns, _ambiguous(group, every, rows)


def find_path_column(
    group: TableGroup, index: PathIndex, forced: Mapping[str, Any], split_column: str | None
) -> tuple[PathColumn | None, list[str], str]:
    """Return the column that names the photos, remarks, and a question if it is ambiguous."""
    columns, decided = _columns_of_paths(group, index, forced, split_column)
    if decided:
        return decided
    if not columns:
        return None, _nameless(group, index), ""
    most = max(column.distinct for column in columns)
    # A column of labels 0 and 1 names the photos 0.jpg and 1.jpg.
    columns = [column for column in columns if column.distinct >= MANY * most]
    best = max(columns, key=lambda column: (column.tier, column.distinct, -column.place))
    remarks: list[str] = []
    if best.depth:
        remarks.append(
            f"{group.name}: paths match by their ends, without their first folders "
            f"(for example {_example(group, best)})"
        )
    rivals = [best]
    for rival in columns:
        conflicts = best.conflicts(rival)
        # Ages and grades name a few photos again and again.
        if not conflicts or rival.distinct < RIVAL * best.distinct:
            continue
        if rival.tier == best.tier:
            rivals.append(rival)
            continue
        rows = counted(conflicts, "row", "rows")
        both = f"columns {best.name!r} and {rival.name!r} name different photos in {rows}"
        remarks.append(f"{group.name}: {both}; {best.name!r} has the file names")
    if len(rivals) > 1:
        rivals.sort(key=lambda c: (_unlike_path(c), c.place))
        options = " or ".join(set_option("path_column", c.name) for c in rivals)
        names = f"{', '.join(repr(c.name) for c in rivals[:-1])} and {rivals[-1].name!r}"
        question = f"{group.name}: columns {names} name different photos; pass {options}"
        return rivals[0], remarks, question
    return best, remarks, "" if "path_column" in forced else _doubt_of_numbers(group, best, index)


def _doubt_of_numbers(group: TableGroup, best: PathColumn, index: PathIndex) -> str:
    """Return the question about a path column that may number rows or groups instead, or ''."""
    paths = [
        name for place, name in enumerate(group.columns)
        if best.tier == 0 and place != best.place
        and sum(map(looks_like_path, group.column(place))) > MANY * len(group.rows)
    ]  # fmt: skip
    groups = fold(best.name) in GROUP_NAMES | CASE_NAMES and best.distinct < len(index)
    if not paths and (best.tier > 0 or not (groups or fold(best.name) in INDEX_NAMES)):
        return ""
    reason = "it looks like a running number"
    if groups:
        reason = f"it is named like groups and names {best.distinct} of {len(index)} photos"
    if paths:
        reason = f"{paths[0]!r} looks like file names, but names no photo"
    return (
        f"{group.name}: only column {best.name!r} names photos, and {reason}; add a column of "
        "the photos' names, or pass --layout table "
        f"{set_option('path_column', best.name)} if these are their names"
    )


def _unlike_path(column: PathColumn) -> int:
    """Return 0 for a column that is named like paths, 2 for a running number, and else 1."""
    name = fold(column.name)
    if name in INDEX_NAMES:
        return 2
    return int(not any(word.removesuffix("s") in PATH_WORDS for word in name.split()))


def path_in_two_columns(
    group: TableGroup, index: PathIndex, forced: Mapping[str, Any]
) -> TableReading | None:
    """Return a question about two columns that form the paths together, or None.

    They are a folder and a name: pat00, img0.jpg. Without labels beside them, the folders are the
    classes.
    """
    if "path_column" in forced:
        return None
    cells = [group.column(place) for place in range(len(group.columns))]
    rule = PathRule(table_commands.folder_of(group))
    few = range(0, len(group.rows), max(1, len(group.rows) // FEW))
    sample = range(0, len(group.rows), max(1, len(group.rows) // ENOUGH))

    def found_in(own: Sequence[str], places: PathIndex) -> bool:
        return sum(bool(own[n] and places.find(own[n], rule)) for n in few) > MANY * len(few)

    ones = [n for n, own in enumerate(cells) if found_in(own, index.folders)]
    others = [n for n, own in enumerate(cells) if found_in(own, index)]
    for one, other in product(ones, others):
        folders, names = cells[one], cells[other]
        paths = [f"{a}/{b}" if a and b else "" for a, b in zip(folders, names, strict=True)]
        found = sum(bool(paths[n]) and len(index.find(paths[n], rule)) == 1 for n in sample)
        if one == other or found <= MANY * len(sample) or fold(group.columns[one]) in LABEL_NAMES:
            continue
        labels = {
            name: own
            for place, name in enumerate(group.columns)
            if place not in {one, other}
            and fold(name) not in ATTRIBUTES | SPLIT_NAMES | GROUP_NAMES
            and 2 <= len(own := Counter(cell for cell in cells[place] if cell)) <= found / 2
        }
        if not labels:
            continue
        path = PathColumn(other, group.columns[other], tuple(paths), 2, 0)
        first, second = group.columns[one], group.columns[other]
        command = table_commands.path_command(group, first, second)
        question = (
            f"{group.name}: columns {first!r} and {second!r} form the paths together; write them "
            f"into one column, in the folder of the dataset: {command}"
        )
        texts = sum(labels.values(), Counter())
        return TableReading(group, path, texts=texts, question=question, sure=False)
    return None


def _photos_of(
    group: TableGroup, place: int, index: PathIndex, splits: Sequence[str]
) -> PathColumn:
    """Return the photos that a column names."""
    cells = group.column(place)
    by_file: dict[str, list[str]] = defaultdict(list)
    for (file, _), cell in zip(group.rows, cells, strict=True):
        by_file[file].append(cell)
    rules = {file: index.rule_of(own, file) for file, own in by_file.items()}
    several: dict[str, Sequence[str]] = {}

    def photo(file: str, cell: str, split: str) -> str:
        matches = index.find(cell, rules[file], split) if cell else []
        if len(matches) > 1:
            several[cell] = matches
        return matches[0] if len(matches) == 1 else ""

    rows = [(file, *own) for (file, _), *own in zip(group.rows, cells, splits, strict=True)]
    photos = [""] * len(cells)
    found = [photo(*row) for row in rows[:: max(1, len(cells) // ENOUGH)]]
    if any(found) or several:
        photos = [photo(*row) for row in rows]
    named = [cell for cell in cells if cell]
    tier = 1
    if sum(map(looks_like_path, named)) >= MANY * len(named):
        tier = 2
    elif all(re.fullmatch(r"\d+(\.0)?", cell) for cell in named):
        tier = 0
    return PathColumn(
        place, group.columns[place], tuple(photos), tier,
        max(rule.depth for rule in rules.values()),
        all(rule.by_folder for rule in rules.values()), several,
    )  # fmt: skip


def _ambiguous(
    group: TableGroup, columns: Sequence[PathColumn], rows: int
) -> tuple[PathColumn, list[str], str] | None:
    """Return the column whose names fit several photos each, with a question, or None.

    It names more rows than the `rows` of other columns, and its cells recur less than labels.
    """
    rivals = []
    for column in columns:
        cells = group.column(column.place)
        named = sum(cell in column.several for cell in cells)
        if named > rows and len(set(cells)) >= RECURRING * len(cells):
            rivals.append((column.tier, named, -column.place, column))
    if not rivals:
        return None
    *_, worst = max(rivals, key=lambda rival: rival[:3])
    return (
        worst,
        [],
        (
            f"{group.name}: {of_several(group, worst)}; write the photo's folder and suffix "
            "into that column"
        ),
    )


def of_several(group: TableGroup, path: PathColumn) -> str:
    """Return how many rows name several photos each, with an example."""
    rows = sum(cell in path.several for cell in group.column(path.place))
    cell, matches = next(iter(path.several.items()))
    return (
        f"{counted(rows, 'row names', 'rows name')} several photos in column {path.name!r}, "
        f"for example {escape_unprintable(cell)} may be {name_list(list(matches)[:2])}"
    )


def _example(group: TableGroup, path: PathColumn) -> str:
    cell, photo = next(
        (cell, photo)
        for cell, photo in zip(group.column(path.place), path.photos, strict=True)
        if photo
    )
    return f"{escape_unprintable(cell)} is {escape_unprintable(photo)}"


def _without_zeros(group: TableGroup, index: PathIndex) -> str:
    """Return how to restore the zeros of numbers that name photos with them, 1 and 001.jpg, or ''.

    A spreadsheet removes them.
    """
    rule = PathRule(table_commands.folder_of(group))
    for place, name in enumerate(group.columns):
        cells = [cell for cell in group.column(place)[:ENOUGH] if cell]
        if (
            not cells
            or not all(map(str.isdecimal, cells))
            or not table_commands.is_delimited(group)
        ):
            continue
        for width in range(2, LONGEST_NUMBER):
            found = sum(len(index.find(cell.zfill(width), rule)) == 1 for cell in cells)
            if found > MANY * len(cells):
                command = table_commands.padded_command(group, name, width)
                return (
                    f"{group.name}: column {name!r} names photos without their leading zeros; "
                    f"write them, in the folder of the dataset: {command}"
                )
    return ""


def _nameless(group: TableGroup, index: PathIndex) -> list[str]:
    """Return a remark on tables without photo paths, with the first row; texts are not tables."""
    cells = group.rows[0][1]
    if all(suffix(file) == JSON for file in group.files) and not any(map(looks_like_path, cells)):
        return [f"{group.name}: JSON that names no photo, not read"]
    text = all(suffix(file) == ".txt" for file in group.files)
    if len(cells) < 2 or (text and not any(map(looks_like_path, cells))):
        return []
    if padded := _without_zeros(group, index):
        return [padded]
    row = escape_unprintable(", ".join(cells))[:LONGEST_ROW]
    remark = f"no row names a photo, such as the first, {row}; write each photo's path below the"
    return [f"{group.name}: {remark} table's folder, or the end of it"]
