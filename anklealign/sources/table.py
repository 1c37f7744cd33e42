"""Photos anywhere below a folder, labelled by a CSV with path, label and perhaps group column.

The CSV is UTF-8 (with or without a byte order mark), separated by commas, semicolons or tabs,
whichever makes its header hold the columns. Paths are relative to the CSV's folder; backslashes,
`./`, Unicode form, case and a missing suffix do not matter where exactly one photo fits.
"""

import csv
import io
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from anklealign.labels import Labels
from anklealign.params import Dataset
from anklealign.sources.inventory import (
    PHOTO_SUFFIXES,
    Claim,
    Entry,
    Inventory,
    Skip,
    compiled,
    given,
    person,
    settle,
    suffix,
    walk,
)


def find(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos that the rows of `dataset.csv` name and label.

    A row is a task, named `<csv>#<line>`, where line 1 is the header.

    Raises:
        ValueError: The folder or the CSV is not there, the CSV does not parse or lacks a column.
    """
    labels = Labels(dataset.classes)
    pattern = compiled(dataset.person)
    files, skips = walk(root)
    seen = len(files) + len(skips)
    table = PurePosixPath(dataset.csv).as_posix()
    if table not in files:
        raise ValueError(
            f"{root / table} is not there; add it, or name the right one as csv in the dataset's "
            "block of params.yaml"
        )
    files.remove(table)
    wanted = [dataset.path_column, dataset.label_column]
    if dataset.group_column is not None:
        wanted.append(dataset.group_column)
    rows = _rows((root / table).read_bytes(), str(root / table), wanted)

    folder = table.rpartition("/")[0]
    known = _Paths(files)
    claims: dict[str, list[Claim]] = {}
    groups: dict[str, str] = {}  # a row's task -> its group
    reasons: dict[str, tuple[str, str]] = {}  # a photo without a good row -> why
    for line, (path, text, *group) in rows:
        task = f"{table}#{line}"
        fitting = known.fitting(path, folder)
        if len(fitting) != 1:
            reason = "ambiguous" if fitting else "missing_file"
            detail = f"{path!r} fits {', '.join(fitting)}" if fitting else f"{path!r}"
            skips.append(Skip(task, "task", reason, detail))
            reasons |= dict.fromkeys(fitting, (reason, f"{task} may mean it"))
            continue
        (file,) = fitting
        label = labels.find(text)
        if label is None:
            empty = labels.is_empty(text)
            reason = "no_label" if empty else "label_unknown"
            detail = "" if empty else labels.nearest(text)
            skips.append(Skip(task, "task", reason, detail or f"{text!r}"))
            reasons[file] = (reason, f"{task}: {text!r}")
            continue
        claims.setdefault(file, []).append(Claim(task, label))
        groups[task] = group[0].strip() if group else ""

    settled, unsettled = settle(claims)
    skips += unsettled
    entries: list[Entry] = []
    for file in files:
        if file in settled:
            claim = settled[file]
            who = groups[claim.task]
            if dataset.group_column is None:
                who = person(file, pattern, "", ())
            entries.append(Entry(file, claim.label, "", who, given(file), claim.task))
        elif file not in claims:
            reason, detail = reasons.get(file, ("no_task", f"no row of {table} names it"))
            skips.append(Skip(file, "file", reason, detail))
    return Inventory(tuple(entries), tuple(skips), seen - 1, len(rows), 1)


def _rows(data: bytes, name: str, wanted: list[str]) -> list[tuple[int, list[str]]]:
    """Return line number and wanted cells of each row that is not blank."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    header = text.partition("\n")[0]
    best = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=best)
    try:
        columns = [cell.strip() for cell in next(reader, [])]
        places = [columns.index(column) for column in wanted if column in columns]
        if len(places) < len(wanted):
            lacking = next(column for column in wanted if column not in columns)
            raise ValueError(
                f"{name} has no column {lacking!r}, only {', '.join(columns) or 'none'}; rename "
                "it there, or name the right one in the dataset's block of params.yaml"
            )
        rows = []
        for row in reader:
            if any(cell.strip() for cell in row):
                cells = [row[place] if place < len(row) else "" for place in places]
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: {error}; mend it there") from None
    return rows


class _Paths:
    """The files below the dataset's folder, found by path in ever looser form."""

    def __init__(self, files: Iterable[str]) -> None:
        self._by_form: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        for file in files:
            for index, form in zip(self._by_form, _forms(file), strict=True):
                index.setdefault(form, []).append(file)

    def fitting(self, path: str, folder: str) -> list[str]:
        """Return the files that the strictest form finds: none, one, or several."""
        wanted = posixpath.normpath(posixpath.join(folder, path.strip().replace("\\", "/")))
        for index, form in zip(self._by_form, _forms(wanted), strict=True):
            if form in index:
                return index[form]
        return []


def _forms(path: str) -> tuple[str, str, str, str]:
    composed = unicodedata.normalize("NFC", path)
    folded = composed.casefold()
    bare = folded.removesuffix(suffix(folded)) if suffix(folded) in PHOTO_SUFFIXES else folded
    return path, composed, folded, bare
