"""Parse tables of photos, and find the photos that their cells name.

A table is delimited text (comma, semicolon, tab or bar, whichever is most frequent in its first
line; otherwise white space, where only the last word is split off) or JSON Lines. A first line
`sep=;` sets the delimiter, as Excel writes it. The encoding is UTF-8, with or without a byte order
mark, unless another one is given.
"""

import csv
import io
import json
import posixpath
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anklealign.ingest.inventory import suffix
from anklealign.io.decode import PHOTO_SUFFIXES

JSON_LINES = {".jsonl", ".ndjson"}
DELIMITERS = ",;\t|"
SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
# Columns of a table without a header are named by their position.
POSITION = re.compile(r"#[1-9]\d*")
DEEPEST = 20  # leading folders of a path that may differ
ENOUGH = 2000  # cells used to find that number


@dataclass(frozen=True)
class ParsedTable:
    """Column names, and the line number and cells of each non-blank row."""

    columns: list[str]
    rows: list[tuple[int, list[str]]]


def parse_table(
    data: bytes, name: str, encoding: str = "utf-8", *, header: bool = True
) -> ParsedTable:
    """Return the content of a table; its columns are #1, #2, ... if it has no `header`.

    Raises:
        ValueError: The table has another encoding or cannot be parsed.
    """
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeError as error:
        position = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"{name} is not {encoding.upper()}{position}; save it as UTF-8, or set the dataset's "
            "encoding in params.yaml"
        ) from None
    if suffix(name) in JSON_LINES:
        return _parse_json_lines(text, name)
    lines = _parse_delimited(text, name)
    if header:
        # pandas leaves the name of its index empty, and reads it as this.
        head = [cell.strip() for cell in lines[0][1]] if lines else []
        columns = [cell or f"Unnamed: {n}" for n, cell in enumerate(head)]
        rows = lines[1:]
    else:
        width = max((len(cells) for _, cells in lines), default=0)
        columns, rows = [f"#{n}" for n in range(1, width + 1)], lines
    return ParsedTable(columns, [(n, cells) for n, cells in rows if any(map(str.strip, cells))])


def _parse_delimited(text: str, name: str) -> list[tuple[int, list[str]]]:
    """Return the line number and the cells of each line."""
    first_line, delimiter = 0, ""
    if match := SEPARATOR_LINE.match(text):
        first_line, delimiter, text = 1, match[1], text[match.end() :]
    head = text.partition("\n")[0]
    delimiter = delimiter or max(DELIMITERS, key=head.count)
    if delimiter not in head and re.search(r"\S\s+\S", head):
        lines = [(n, line.rsplit(None, 1)) for n, line in enumerate(text.splitlines(), 1)]
        return [(n, cells) for n, cells in lines if cells]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num + first_line, row) for row in reader]
    except csv.Error as error:
        line = reader.line_num + first_line
        raise ValueError(f"{name}, line {line}: {error}; fix that line") from None


def _parse_json_lines(text: str, name: str) -> ParsedTable:
    """Return the records of JSON Lines; lists become `a|b`, and missing values ''."""
    records: list[tuple[int, dict[str, object]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}, line {number}: {error}; fix that line") from None
        if not isinstance(record, dict):
            raise ValueError(f"{name}, line {number}: not a JSON object; fix that line")
        records.append((number, record))
    columns = list(dict.fromkeys(key for _, record in records for key in record))
    return ParsedTable(columns, [(n, [_cell(r.get(key)) for key in columns]) for n, r in records])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "|".join(map(_cell, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class PathIndex:
    """An index of the files below a dataset's folder by path, in increasingly tolerant forms."""

    def __init__(self, files: Iterable[str]) -> None:
        """Index the paths of all files."""
        self._by_form: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        self._by_name: dict[str, list[tuple[str, str]]] = {}
        for file in files:
            forms = _forms(file)
            self._by_name.setdefault(forms[-1].rpartition("/")[2], []).append((file, forms[-1]))
            for index, form in zip(self._by_form, forms, strict=True):
                index.setdefault(form, []).append(file)

    def lookup(self, path: str, folder: str, depth: int = 0) -> list[str]:
        """Return the files that match in the strictest form with any match.

        Args:
            path: A cell: a path or URL, or the end of one.
            folder: Folder of the table, which paths are relative to.
            depth: Number of leading folders of the path to ignore; see `depth_of`.
        """
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

    def depth_of(self, cells: Sequence[str], folder: str) -> int:
        """Return the number of leading folders to ignore in a column of paths.

        Paths of another disk, or below a folder that is not here, match by their ends. The number
        is the same for the whole column: the smallest one with the most matches, where no two paths
        have the same end. It is 0 unless ignoring folders finds more photos.
        """
        distinct = sorted({cell.strip() for cell in cells if cell.strip()})
        sample = distinct[:: max(1, len(distinct) // ENOUGH)]
        best = sum(len(self.lookup(cell, folder)) == 1 for cell in sample)
        depth = 0
        deepest = max((_plain(cell).strip("/").count("/") for cell in sample), default=0)
        for candidate in range(1, min(deepest, DEEPEST) + 1):
            if best == len(sample):
                break
            matches = sum(len(self.lookup(cell, folder, candidate)) == 1 for cell in sample)
            if matches > best and not self._collide(distinct, candidate):
                best, depth = matches, candidate
        return depth

    @staticmethod
    def _collide(cells: Sequence[str], depth: int) -> bool:
        """Return whether two different paths have the same end."""
        paths = {_forms(_plain(cell).lstrip("/"))[-1] for cell in cells}
        return len({"/".join(path.split("/")[depth:]) for path in paths}) < len(paths)


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
