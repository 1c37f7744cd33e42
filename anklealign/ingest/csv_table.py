"""Photos anywhere below a folder, labeled by a CSV with path, label and optional group columns.

The CSV is UTF-8 (with or without a byte order mark) unless `encoding` names another encoding. The
delimiter is the comma, semicolon or tab that is most frequent in its header. Paths are relative to
the CSV's folder; backslashes, `./`, Unicode form, case and a missing suffix are ignored if exactly
one photo matches. A path that does not exist matches the photos whose paths end with it.
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
    Claim,
    Entry,
    Inventory,
    Skip,
    compile_subject_pattern,
    list_files,
    predefined_split_of,
    resolve_claims,
    subject_of,
    suffix,
)
from anklealign.io.decode import PHOTO_SUFFIXES


def read_csv_table(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos and labels of the rows of `dataset.csv`.

    Each row is a task named `<csv>#<line>`, where line 1 is the header.

    Raises:
        ValueError: The folder or the CSV does not exist, or the CSV cannot be parsed or lacks a
            column.
    """
    labels = Labels(dataset.classes)
    pattern = compile_subject_pattern(dataset.subject_pattern)
    files, skips = list_files(root)
    seen = len(files) + len(skips)
    table = PurePosixPath(dataset.csv).as_posix()
    if table not in files:
        raise ValueError(
            f"{root / table} does not exist; add it, or set the dataset's csv in params.yaml"
        )
    files.remove(table)
    columns = [dataset.path_column, dataset.label_column]
    if dataset.group_column is not None:
        columns.append(dataset.group_column)
    data = (root / table).read_bytes()
    content = parse_csv(data, str(root / table), dataset.encoding)
    rows = _select_columns(*content, str(root / table), columns)

    folder = table.rpartition("/")[0]
    index = PathIndex(files)
    claims: dict[str, list[Claim]] = {}
    groups: dict[str, str] = {}  # by task
    reasons: dict[str, tuple[str, str]] = {}  # by photo without a label
    for line, (path, text, *group) in tqdm(
        rows, "match", unit="row", delay=1, leave=False, disable=None
    ):
        task = f"{table}#{line}"
        matches = index.lookup(path, folder)
        if len(matches) != 1:
            reason = "ambiguous" if matches else "missing_file"
            detail = f"{path!r} matches {', '.join(matches)}" if matches else f"{path!r}"
            skips.append(Skip(task, "task", reason, detail))
            reasons |= dict.fromkeys(matches, (reason, f"{task} may refer to it"))
            continue
        (file,) = matches
        label = labels.class_of(text)
        if label is None:
            empty = labels.is_empty(text)
            reason = "no_label" if empty else "label_unknown"
            detail = "" if empty else labels.suggest(text)
            skips.append(Skip(task, "task", reason, detail or f"{text!r}"))
            reasons[file] = (reason, f"{task}: {text!r}")
            continue
        claims.setdefault(file, []).append(Claim(task, label))
        groups[task] = group[0].strip() if group else ""

    settled, unsettled = resolve_claims(claims)
    skips += unsettled
    entries: list[Entry] = []
    for file, claim in ((file, settled[file]) for file in files if file in settled):
        subject = groups[claim.task]
        if dataset.group_column is None:
            subject = subject_of(file, pattern, "", ())
        split = predefined_split_of(file)
        entries.append(Entry(file, claim.label, "", subject, split, claim.task))
    for file in files:
        if file not in claims:
            cause = reasons.get(file, ("no_task", f"no row of {table} refers to it"))
            skips.append(Skip(file, "file", *cause))
    return Inventory(tuple(entries), tuple(skips), seen - 1, len(rows), 1)


def parse_csv(
    data: bytes, name: str, encoding: str
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the column names of a CSV, and the line number and cells of each non-blank row.

    Raises:
        ValueError: The CSV has another encoding or cannot be parsed.
    """
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeError as error:
        position = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"{name} is not {encoding.upper()}{position}; save it as UTF-8, or set the dataset's "
            "encoding in params.yaml"
        ) from None
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = [cell.strip() for cell in next(reader, [])]
        return columns, [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: {error}; fix that line") from None


def _select_columns(
    names: list[str], rows: list[tuple[int, list[str]]], table: str, columns: list[str]
) -> list[tuple[int, list[str]]]:
    """Return the line number and the cells in the given columns of each row."""
    for column in columns:
        if column not in names:
            raise ValueError(
                f"{table} has no column {column!r}, only {', '.join(names) or 'none'}; rename the "
                "column there, or set the dataset's columns in params.yaml"
            )
    places = [names.index(column) for column in columns]
    return [(line, [row[p] if p < len(row) else "" for p in places]) for line, row in rows]


class PathIndex:
    """An index of the files below a dataset's folder by path, in increasingly tolerant forms."""

    def __init__(self, files: Iterable[str]) -> None:
        """Index the paths of all files."""
        self._by_form: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        self._by_name: dict[str, list[str]] = {}
        for file in files:
            self._by_name.setdefault(_forms(file)[-1].rpartition("/")[2], []).append(file)
            for index, form in zip(self._by_form, _forms(file), strict=True):
                index.setdefault(form, []).append(file)

    def lookup(self, path: str, folder: str) -> list[str]:
        """Return the files that match in the strictest form with any match."""
        plain = posixpath.normpath(path.strip().replace("\\", "/"))
        full_path = posixpath.normpath(posixpath.join(folder, plain))
        for index, form in zip(self._by_form, _forms(full_path), strict=True):
            if form in index:
                return index[form]
        # The whole path must match: cats/1.jpg is never dogs/1.jpg.
        tail = _forms(plain)[-1]
        same_name = self._by_name.get(tail.rpartition("/")[2], [])
        return [file for file in same_name if _forms(file)[-1].endswith(f"/{tail}")]


def _forms(path: str) -> tuple[str, str, str, str]:
    composed = unicodedata.normalize("NFC", path)
    folded = composed.casefold()
    bare = folded.removesuffix(suffix(folded)) if suffix(folded) in PHOTO_SUFFIXES else folded
    return path, composed, folded, bare
