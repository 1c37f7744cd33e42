"""Tables of photos with the same columns, the photos that a column names, and the labels read."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anklealign.cli.dataset_config import scalar
from anklealign.config.class_names import Labels
from anklealign.ingest.inventory import escape_unprintable, split_of_name, suffix
from anklealign.ingest.table_files import (
    JSON,
    JSON_LINES,
    ParsedTable,
    PathIndex,
    PathRule,
    looks_like_path,
    parse_table,
)

# Larger files are not searched for labels.
LARGEST_TABLE = 256 << 20  # bytes
TABLES = {".csv", ".tsv", ".tab", ".txt", ".lst", JSON, *JSON_LINES}
MANY = 0.5  # share that decides between two readings
RIVAL = 0.9  # share of the best column's photos that a competing path column names
# Excel's encodings in Hungary and Western Europe; the bytes alone do not distinguish them.
GUESSED_ENCODINGS = ("cp1250", "cp1252")
LONGEST_LIST = 8  # names in a remark


@dataclass(frozen=True)
class TableGroup:
    """The rows of tables with the same columns, each with its file."""

    files: tuple[str, ...]
    encoding: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, list[str]], ...]
    chosen: bool = True  # False: the user has chosen other tables for the labels

    @property
    def name(self) -> str:
        """Return the names of the tables."""
        return name_list(self.files)

    def column(self, place: int) -> list[str]:
        """Return the cells of a column."""
        return [cells[place].strip() if place < len(cells) else "" for _, cells in self.rows]


@dataclass(frozen=True)
class PathColumn:
    """The photos that a column names: one per row, or '' where it names none or several.

    `tier` is 2 for cells that look like paths, 1 for other text and 0 for bare numbers. If the
    column is `by_folder`, it names folders instead of photos. `several` has the matches of each
    cell that may mean several.
    """

    place: int
    name: str
    photos: tuple[str, ...]
    tier: int
    depth: int
    by_folder: bool = False
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def distinct(self) -> int:
        """Return the number of photos that the column names."""
        return len(set(self.photos) - {""})

    @property
    def matched(self) -> int:
        """Return the number of rows that name a photo."""
        return sum(photo != "" for photo in self.photos)

    def conflicts(self, other: "PathColumn") -> int:
        """Return the number of rows in which another column names another photo."""
        return sum(
            "" not in pair and pair[0] != pair[1]
            for pair in zip(self.photos, other.photos, strict=True)
        )


@dataclass
class TableReading:
    """The labels that a group of tables gives, or why it gives none (`problem`, `question`)."""

    group: TableGroup
    path: PathColumn
    keys: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)  # text by photo
    by_table: dict[str, dict[str, str]] = field(default_factory=dict)
    texts: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)  # remarks on columns of split codes
    folds: list[str] = field(default_factory=list)  # columns that number folds
    sure: bool = True  # which photos the rows name
    problem: str = ""
    question: str = ""
    splits: dict[str, str] = field(default_factory=dict)  # by photo, as the rows say
    folders: int = 0  # that the path column names instead of photos

    def add(self, row: int, text: str) -> bool:
        """Add the label of a row's photo; return whether it contradicts an earlier row."""
        photo = self.path.photos[row]
        self.by_table.setdefault(self.group.rows[row][0], {}).setdefault(photo, text)
        return self.labels.setdefault(photo, text) != text


def load_tables(
    root: Path, files: Iterable[str], index: PathIndex, forced: Mapping[str, Any]
) -> tuple[list[TableGroup], list[str]]:
    """Return the tables of a folder, grouped by their columns, and remarks on unreadable ones."""
    chosen = forced.get("csv")
    wanted = {chosen} if isinstance(chosen, str) else set(chosen or ())
    files = list(files)
    remarks = [
        f"{escape_unprintable(file)}: --set csv names it, but the folder has no such table"
        for file in sorted(wanted.difference(files))
    ]
    strange: list[str] = []
    rows: dict[tuple[str, ...], list[tuple[str, list[str]]]] = defaultdict(list)
    members: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = defaultdict(dict)
    for file in tqdm(files, "tables", unit="file", delay=1, leave=False, disable=None):
        if suffix(file) not in TABLES:
            continue
        chosen = not wanted or file in wanted
        notes = remarks if chosen else []
        if "submission" in file.rpartition("/")[2].casefold() and file not in wanted:
            notes.append(f"{escape_unprintable(file)}: not read: a submission holds no labels")
            continue
        if (root / file).stat().st_size > LARGEST_TABLE:
            notes.append(f"{escape_unprintable(file)}: not read: over {LARGEST_TABLE >> 20} MB")
            continue
        try:
            encoding, columns, content = _decoded(
                (root / file).read_bytes(), file, index, forced.get("encoding")
            )
        except (ValueError, OSError) as error:
            if suffix(file) == JSON and chosen:
                strange.append(file)
            else:
                notes.append(escape_unprintable(str(error)))
            continue
        if content:
            key = (encoding, "chosen" * chosen, *_alike(columns, file))
            members[key][file] = tuple(columns)
            rows[key] += [(file, cells) for cells in content]
    if strange:
        remarks.append(f"{name_list(strange)}: JSON of another kind, not read")
    groups = []
    for key in sorted(rows):
        own = sorted(members[key], key=split_first)
        header = members[key][own[0]]
        groups.append(TableGroup(tuple(own), key[0], header, tuple(rows[key]), bool(key[1])))
    return _with_path_column(groups, forced.get("path_column")), remarks


def _with_path_column(groups: list[TableGroup], column: str | None) -> list[TableGroup]:
    """Return the tables; if any has the column that the user has set, the others hold no labels."""
    if not any(column in group.columns for group in groups):
        return groups
    return [replace(g, chosen=g.chosen and column in g.columns) for g in groups]


def _alike(columns: Sequence[str], file: str) -> tuple[str, ...]:
    """Return what tables that are read together have in common: the columns in any case.

    Numbers are no names of columns: 1, 1 may be the first line of two tables of another kind.
    """
    folded = tuple(column.casefold() for column in columns)
    if all(map(str.isdecimal, columns)):
        return (*folded, file)
    return folded if len(set(folded)) == len(columns) else tuple(columns)


def split_first(file: str) -> tuple[bool, str]:
    """Sort tables of a split first: of two rows of a photo, the first one counts."""
    return not split_of_name(Path(file).stem), file


def _decoded(
    data: bytes, name: str, index: PathIndex, forced: str | None = None
) -> tuple[str, list[str], list[list[str]]]:
    """Return a table's encoding, column names (#1, ... without a header) and rows.

    Args:
        data: The content of the table.
        name: Its path.
        index: The photos.
        forced: The encoding that the user has set.
    """
    encodings = ["utf-8", *GUESSED_ENCODINGS]
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encodings = ["utf-16"]
    elif suffix(name) in {JSON, *JSON_LINES}:
        encodings = ["utf-8"]
    for encoding in [forced] if forced else encodings:
        try:
            table = parse_table(data, name, encoding)
        except ValueError:
            if encoding in {encodings[-1], forced}:
                raise
            continue
        if _headless(table, PathRule(name.rpartition("/")[0]), index):
            table = parse_table(data, name, encoding, header=False)
        return encoding, table.columns, [cells for _, cells in table.rows]
    raise AssertionError


def _headless(table: ParsedTable, rule: PathRule, index: PathIndex) -> bool:
    """Return whether the first line of a table names a photo, or a folder as the second one does.

    A column images is no folder.
    """
    second = table.rows[0][1] if table.rows else []
    for place, cell in enumerate(table.columns):
        matches = len(index.find(cell, rule)) if cell else 0
        if matches == 1 or (matches and looks_like_path(cell)):
            return True
        alike = place < len(second) and without_numbers(second[place]) == without_numbers(cell)
        if alike and re.search(r"\d", cell) and re.search(r"[^\W\d]", cell):
            return bool(index.folders.find(cell, rule))
    return False


def without_numbers(text: str) -> str:
    """Return a text with # for its numbers."""
    return re.sub(r"\d+", "#", text.strip().casefold())


def set_option(key: str, value: str) -> str:
    """Return the command-line option that sets a key."""
    text = f"{key}={escape_unprintable(value)}"
    return f"--set '{text}'" if re.search(r"[^\w./=#-]", text) or "#" in text else f"--set {text}"


def csv_option(group: TableGroup) -> str:
    """Return the command-line option that reads the labels of tables."""
    if len(group.files) == 1:
        return set_option("csv", group.files[0])
    return f"--set {shlex.quote(f'csv={scalar(group.files)}')}"


def classes_option(names: Iterable[str]) -> str:
    """Return the command-line option that names the classes."""
    classes: dict[str, list[str]] = {name: [] for name in names}
    return "--set " + shlex.quote(f"classes={scalar(classes)}")


def user_labels(classes: object) -> Labels | None:
    """Return the labels of the classes that the user has set, or None."""
    if not isinstance(classes, Mapping):
        return None
    return Labels({str(name): list(map(str, aliases or ())) for name, aliases in classes.items()})


def name_list(names: Sequence[str]) -> str:
    """Return names separated by commas, shortened."""
    shown = ", ".join(map(escape_unprintable, names[:LONGEST_LIST]))
    more = len(names) - LONGEST_LIST
    return f"{shown} and {more} more" if more > 0 else shown
