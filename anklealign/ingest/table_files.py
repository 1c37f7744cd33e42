"""Parse tables of photos, and find the photos that their cells name.

A table is delimited text (comma, semicolon, tab or bar, whichever is most frequent in its first
line; otherwise white space), JSON Lines or JSON. A first line `sep=;` sets the delimiter, as Excel
writes it, and lines that start with # above the table are comments. The encoding is UTF-8, with or
without a byte order mark, unless another one is given.

JSON is a list of records, also as the only list of an object, or any form that pandas writes
(`to_json`): by column, by row, or split. An object from file names to labels is a table with the
columns `path` and `label`.
"""

import csv
import io
import json
import posixpath
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from anklealign.ingest import label_cells
from anklealign.ingest.inventory import split_of_name, suffix
from anklealign.io.decode import PHOTO_SUFFIXES

JSON = ".json"
JSON_LINES = {".jsonl", ".ndjson"}
DELIMITERS = ",;\t|"
SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
# Names of columns whose cells are all photos.
PICTURE_COLUMNS = {
    "image", "img", "mask", "photo", "picture", "path", "file", "filename", "file_name", "left",
    "right", "before", "after", "input", "source", "target", "x", "y", "a", "b",
}  # fmt: skip
# Columns of a table without a header are named by their position.
POSITION = re.compile(r"#[1-9]\d*")
Records = list[Mapping[str, Any]]
DEEPEST = 20  # leading folders of a path that may differ
ENOUGH = 2000  # cells used to find that number
MANY = 0.5  # share of cells that decides between two readings
RECURRING = 0.3  # least share of distinct cells in a column of folders: a label recurs more often


@dataclass(frozen=True)
class ParsedTable:
    """Column names, and the line number and cells of each non-blank row."""

    columns: list[str]
    rows: list[tuple[int, list[str]]]


def parse_table(
    data: bytes, name: str, encoding: str = "utf-8", *, header: bool = True
) -> ParsedTable:
    """Return the content of a table; its columns are #1, #2, ... if it has no `header`.

    Lists and objects in cells become labels (`label_cells`).

    Raises:
        ValueError: The table has another encoding or cannot be parsed.
    """
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeError as error:
        position = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"{name} is not {encoding.upper()}{position}; save it as UTF-8, or set the dataset's "
            "encoding, in params.yaml or as --set encoding=shift_jis"
        ) from None
    if suffix(name) in JSON_LINES:
        return _records_table(_json_lines(text, name))
    if suffix(name) == JSON:
        return _records_table(list(enumerate(_json_records(text, name), 1)))
    lines = _parse_delimited(text, name)
    if header:
        # pandas leaves the name of its index empty, and reads it as this.
        head = [cell.strip() for cell in lines[0][1]] if lines else []
        columns = [cell or f"Unnamed: {n}" for n, cell in enumerate(head)]
        rows = lines[1:]
    else:
        width = max((len(cells) for _, cells in lines), default=0)
        columns, rows = [f"#{n}" for n in range(1, width + 1)], lines
    return ParsedTable(
        columns,
        [
            (n, [label_cells.plain_cell(cell) for cell in cells])
            for n, cells in rows
            if any(map(str.strip, cells))
        ],
    )


def _parse_delimited(text: str, name: str) -> list[tuple[int, list[str]]]:
    """Return the line number and the cells of each line."""
    first_line, delimiter = 0, ""
    if match := SEPARATOR_LINE.match(text):
        first_line, delimiter, text = 1, match[1], text[match.end() :]
    lines = text.splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines) if not line.startswith("#")), 0)
    head = lines[start] if lines else ""
    if head.strip().isdecimal():  # CelebA's number of rows
        head = "".join(lines[start + 1 : start + 2])
    delimiter = delimiter or max(DELIMITERS, key=head.count)
    if delimiter not in head and re.search(r"\S\s+\S", head):
        return _words([(n, line) for n, line in enumerate(lines[start:], start + 1)])
    # A header may start with #, too: it has as many cells as the rows.
    while start and lines[start - 1].count(delimiter) == head.count(delimiter):
        start -= 1
    first_line, text = first_line + start, "".join(lines[start:])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num + first_line, row) for row in reader]
    except csv.Error as error:
        line = reader.line_num + first_line
        raise ValueError(f"{name}, line {line}: {error}; fix that line") from None


def _words(lines: Sequence[tuple[int, str]]) -> list[tuple[int, list[str]]]:
    """Return the line number and the cells of lines without a delimiter.

    Their words are cells if each line starts with another word, has as many words, and no path
    after the first one. Otherwise, a path may have spaces, and only the last word is split off.
    """
    rows = [(n, line.split()) for n, line in lines if line.strip()]
    widths = [len(cells) for _, cells in rows]
    # CelebA: the number of rows, and the names of the columns after the first one.
    if len(rows) > 2 and widths[:2] == [1, widths[2] - 1] and rows[0][1][0] == str(len(rows) - 2):
        rows = [(rows[1][0], ["path", *rows[1][1]]), *rows[2:]]
    words = [cells for _, cells in rows]
    if (
        len({len(cells) for cells in words}) == 1
        and len({cells[0] for cells in words}) == len(words)
        and not any(looks_like_path(word) for cells in words for word in cells[1:])
    ):
        return rows
    return [(n, line.rsplit(None, 1)) for n, line in lines if line.strip()]


def _json_lines(text: str, name: str) -> list[tuple[int, Mapping[str, object]]]:
    """Return the line number and the record of each line of JSON Lines."""
    records: list[tuple[int, Mapping[str, object]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}, line {number}: {error}; fix that line") from None
        if not isinstance(record, dict):
            raise ValueError(f"{name}, line {number}: not a JSON object; fix that line")
        records.append((number, record))
    return records


def _json_records(text: str, name: str) -> Records:
    """Return the records of a JSON table."""
    try:
        records = records_in(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not valid JSON: {error}; save it again") from None
    if records is None:
        raise ValueError(f"{name} is not a table: no list of records, and no object of columns")
    return records


def records_in(content: object) -> Records | None:
    """Return the records of a JSON value that is a table in one of several forms, or None."""
    if isinstance(content, dict):
        return _records_of_lists(content) or _records_of_mapping(content)
    if not isinstance(content, list) or not content:
        return None
    if all(isinstance(item, list) and len(item) == 2 for item in content):
        return [{"path": path, "label": label} for path, label in content]
    return content if all(isinstance(item, dict) for item in content) else None


def _records_of_lists(content: Mapping[str, Any]) -> Records | None:
    """Return the records of an object of lists: columns, rows, photos by class, or records."""
    columns, rows = content.get("columns"), content.get("data")
    if isinstance(columns, list) and isinstance(rows, list):
        return [dict(zip(map(str, columns), row, strict=False)) for row in rows]
    lists = {name: value for name, value in content.items() if isinstance(value, list)}
    if len(lists) > 1 and len(lists) == len(content):
        if all(map(_is_texts, lists.values())) and _names_classes(lists):
            return [{"path": path, "label": name} for name in lists for path in lists[name]]
        if len({len(values) for values in lists.values()}) == 1:
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if len(lists) == 1 and not any(isinstance(v, dict) and v for v in content.values()):
        return records_in(*lists.values())
    return None


def _records_of_mapping(content: Mapping[str, Any]) -> Records | None:
    """Return the records of an object of objects (columns or rows), or of one label per file."""
    values = list(content.values())
    if len(values) < 2:
        return None
    if all(isinstance(value, dict) and value for value in values):
        first = values[0]
        if any(value.keys() != first.keys() for value in values):
            return None
        if all(key.isdecimal() for key in first):  # pandas numbers the rows
            return [{name: content[name][row] for name in content} for row in first]
        return [{"path": key, **value} for key, value in content.items()]
    if all(isinstance(value, str | int) or _is_texts(value) for value in values):
        return [{"path": key, "label": value} for key, value in content.items()]
    return None


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _names_classes(content: Mapping[str, Sequence[str]]) -> bool:
    """Return whether the keys of lists of photos are labels, not splits or kinds of pictures."""
    paths = [path for each in content.values() for path in each]
    return bool(paths) and all(map(looks_like_path, paths)) and not any(
        split_of_name(name) or name.casefold().rstrip("s_0123456789") in PICTURE_COLUMNS
        for name in content
    )  # fmt: skip


def _records_table(records: Sequence[tuple[int, Mapping[str, object]]]) -> ParsedTable:
    """Return records as a table; missing values become ''."""
    columns = list(dict.fromkeys(key for _, record in records for key in record))
    return ParsedTable(columns, [(n, [_cell(r.get(key)) for key in columns]) for n, r in records])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return label_cells.joined([_cell(item) for item in value])
    if isinstance(value, str):
        return label_cells.plain_cell(value)
    return label_cells.plain_cell(json.dumps(value, ensure_ascii=False))


@dataclass(frozen=True)
class PathRule:
    """How the cells of a column name photos.

    Attributes:
        folder: Folder of the table, which paths are relative to.
        split: The split that the table is named after, or ''. Of several photos of a name, the one
            in a folder of this split is meant.
        depth: Number of leading folders of the paths to ignore.
        strict: Only photos in folders of the split are meant.
        by_folder: The cells name folders, and mean all photos in them.
    """

    folder: str
    split: str = ""
    depth: int = 0
    strict: bool = False
    by_folder: bool = False


class PathIndex:
    """An index of the files below a dataset's folder by path, in increasingly tolerant forms."""

    def __init__(self, files: Iterable[str]) -> None:
        """Index the paths of all files."""
        self._by_form: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        self._by_name: dict[str, list[tuple[str, str]]] = {}
        self._files = list(files)
        for file in self._files:
            forms = _forms(file)
            self._by_name.setdefault(forms[-1].rpartition("/")[2], []).append((file, forms[-1]))
            for index, form in zip(self._by_form, forms, strict=True):
                index.setdefault(form, []).append(file)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)

    @cached_property
    def photos_below(self) -> dict[str, list[str]]:
        """The files that may be photos, by each folder above them."""
        below: dict[str, list[str]] = {}
        for file in self._files:
            if suffix(file) in {"", *PHOTO_SUFFIXES}:
                for parent in PurePosixPath(file).parents[:-1]:
                    below.setdefault(str(parent), []).append(file)
        return below

    @cached_property
    def folders(self) -> "PathIndex":
        """The folders that hold photos, as an index of their own."""
        return PathIndex(self.photos_below)

    def find(self, cell: str, rule: PathRule, split: str = "") -> list[str]:
        """Return the photos that a cell may mean, or the folders if the rule is `by_folder`.

        Args:
            cell: A path or URL, or the end of one.
            rule: The rule of its column.
            split: The split of its row, or '' for that of the table.
        """
        index = self.folders if rule.by_folder else self
        matches = index.lookup(cell, rule.folder, rule.depth)
        wanted = split or rule.split
        if not wanted or not matches or (len(matches) == 1 and not rule.strict):
            return matches
        inside = [match for match in matches if wanted in _splits_above(match)]
        if rule.strict and not _splits_above(_plain(cell)):
            return inside
        return inside or matches

    def lookup(self, path: str, folder: str, depth: int = 0) -> list[str]:
        """Return the files that match in the strictest form with any match."""
        plain = _plain(path)
        if depth:
            plain = "/".join(plain.lstrip("/").split("/")[depth:])
        if not plain:
            return []
        full_path = posixpath.normpath(posixpath.join("" if depth else folder, plain))
        for index, form in zip(self._by_form, _forms(full_path), strict=True):
            if form in index:
                return index[form]
        # The whole path must match: cats/1.jpg is never dogs/1.jpg.
        tail = _forms(plain)[-1]
        same_name = self._by_name.get(tail.rpartition("/")[2], [])
        return [file for file, form in same_name if form.endswith(f"/{tail}")]

    def rule_of(self, cells: Sequence[str], table: str) -> PathRule:
        """Return how the cells of a table's column name photos, decided by all of them.

        A table that is named after a split, or lies in such a folder, means the photos of this
        split if it names most of them. Cells mean folders if few name a photo, more than twice as
        many name a folder, and they recur less than labels.
        """
        parts = reversed(PurePosixPath(table).with_suffix("").parts)
        split = next((split for part in parts if (split := split_of_name(part))), "")
        rule = PathRule(table.rpartition("/")[0], split)
        distinct = sorted({cell.strip() for cell in cells if cell.strip()})
        sample = distinct[:: max(1, len(distinct) // ENOUGH)]
        rule, found = self.deepened(distinct, sample, rule)
        strict = replace(rule, strict=True)
        if split and self._found(sample, strict) >= MANY * len(sample):
            rule = strict
        if found >= MANY * len(sample) or len(distinct) < RECURRING * sum(map(bool, cells)):
            return rule
        by_folder = PathRule(rule.folder, split)
        by_folder, named = self.folders.deepened(distinct, sample, by_folder)
        return replace(by_folder, by_folder=True) if named > 2 * found else rule

    def _found(self, cells: Sequence[str], rule: PathRule) -> int:
        """Return the number of cells that name one photo."""
        return sum(len(self.find(cell, rule)) == 1 for cell in cells)

    def deepened(
        self, distinct: Sequence[str], sample: Sequence[str], rule: PathRule
    ) -> tuple[PathRule, int]:
        """Return the rule with the number of folders to ignore, and the cells that it finds.

        Paths of another disk, or below a folder that is not here, match by their ends. The number
        is the same for the whole column: the smallest one with the most matches, where no two paths
        have the same end. It is 0 unless ignoring folders finds more photos.
        """
        best = self._found(sample, rule)
        deepest = max((_plain(cell).strip("/").count("/") for cell in sample), default=0)
        for depth in range(1, min(deepest, DEEPEST) + 1):
            if best == len(sample):
                break
            deeper = replace(rule, depth=depth)
            found = self._found(sample, deeper)
            if found > best and not self._collide(distinct, depth):
                best, rule = found, deeper
        return rule, best

    @staticmethod
    def _collide(cells: Sequence[str], depth: int) -> bool:
        """Return whether two different paths have the same end."""
        paths = {_forms(_plain(cell).lstrip("/"))[-1] for cell in cells}
        return len({"/".join(path.split("/")[depth:]) for path in paths}) < len(paths)


def _splits_above(path: str) -> set[str]:
    """Return the splits that the folders of a path are named after."""
    return {split for part in path.split("/")[:-1] if (split := split_of_name(part))}


def looks_like_path(cell: str) -> bool:
    """Return whether a cell ends like a photo's file name."""
    return suffix(_plain(cell)) in PHOTO_SUFFIXES


def _plain(cell: str) -> str:
    """Return a path or URL as a normalized POSIX path."""
    text = cell.strip()
    if "://" in text:
        parts = urllib.parse.urlsplit(text)
        text = f"/{parts.netloc}/{urllib.parse.unquote(parts.path)}"
    if text.replace(".", "", 1).isalnum():  # a bare name is normal
        return text
    return posixpath.normpath(text.replace("\\", "/")) if text else ""


def _forms(path: str) -> tuple[str, str, str, str]:
    composed = unicodedata.normalize("NFC", path)
    folded = composed.casefold()
    ending = suffix(folded)
    bare = folded.removesuffix(ending) if ending in PHOTO_SUFFIXES else folded
    return path, composed, folded, bare
