"""Photos anywhere below a folder, labelled by a CSV with path, label and perhaps group column.

The CSV is UTF-8 (with or without a byte order mark) unless `encoding` names another, separated by
commas, semicolons or tabs, whichever its header holds most. Paths are relative to the CSV's folder;
backslashes, `./`, Unicode form, case and a missing suffix do not matter where exactly one photo
fits. A path that leads nowhere finds the photos below other folders whose path ends with it.
"""

import csv
import io
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import (
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
    data = (root / table).read_bytes()
    rows = _wanted(*cells(data, str(root / table), dataset.encoding), str(root / table), wanted)

    folder = table.rpartition("/")[0]
    known = Paths(files)
    claims: dict[str, list[Claim]] = {}
    groups: dict[str, str] = {}  # a row's task -> its group
    reasons: dict[str, tuple[str, str]] = {}  # a photo without a good row -> why
    for line, (path, text, *group) in tqdm(
        rows, "match", unit="row", delay=1, leave=False, disable=None
    ):
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


def cells(data: bytes, name: str, encoding: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return a CSV's column names, and line number and cells of each row that is not blank.

    Raises:
        ValueError: It is not in this encoding, or does not parse.
    """
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeError as error:
        at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"{name} is not {encoding.upper()}{at}; save it as UTF-8, or name its encoding in the "
            "dataset's block"
        ) from None
    header = text.partition("\n")[0]
    best = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=best)
    try:
        columns = [cell.strip() for cell in next(reader, [])]
        return columns, [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: {error}; mend it there") from None


def _wanted(
    columns: list[str], rows: list[tuple[int, list[str]]], name: str, wanted: list[str]
) -> list[tuple[int, list[str]]]:
    """Return line number and wanted cells of each row."""
    places = [columns.index(column) for column in wanted if column in columns]
    if len(places) < len(wanted):
        lacking = next(column for column in wanted if column not in columns)
        raise ValueError(
            f"{name} has no column {lacking!r}, only {', '.join(columns) or 'none'}; rename "
            "it there, or name the right one in the dataset's block of params.yaml"
        )
    return [(line, [row[p] if p < len(row) else "" for p in places]) for line, row in rows]


class Paths:
    """The files below the dataset's folder, found by path in ever looser form."""

    def __init__(self, files: Iterable[str]) -> None:
        """Take the paths of all files."""
        self._by_form: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        self._by_name: dict[str, list[str]] = {}
        for file in files:
            self._by_name.setdefault(_forms(file)[-1].rpartition("/")[2], []).append(file)
            for index, form in zip(self._by_form, _forms(file), strict=True):
                index.setdefault(form, []).append(file)

    def fitting(self, path: str, folder: str) -> list[str]:
        """Return the files that the strictest form finds: none, one, or several."""
        plain = posixpath.normpath(path.strip().replace("\\", "/"))
        wanted = posixpath.normpath(posixpath.join(folder, plain))
        for index, form in zip(self._by_form, _forms(wanted), strict=True):
            if form in index:
                return index[form]
        # All of the row's path counts: cats/1.jpg is never dogs/1.jpg.
        tail = _forms(plain)[-1]
        named = self._by_name.get(tail.rpartition("/")[2], [])
        return [file for file in named if _forms(file)[-1].endswith(f"/{tail}")]


def _forms(path: str) -> tuple[str, str, str, str]:
    composed = unicodedata.normalize("NFC", path)
    folded = composed.casefold()
    bare = folded.removesuffix(suffix(folded)) if suffix(folded) in PHOTO_SUFFIXES else folded
    return path, composed, folded, bare
