"""Find the tables of a folder that label its photos, by evidence from their cells.

Tables with the same columns are read together. The path column is the one whose cells name the most
photos; cells that look like file names count for more than bare numbers. Labels are a column that
recurs, one column per class, or the votes of several annotators. Whatever the evidence does not
decide becomes a question with the option that decides it, and every table and column that is not
used is named.
"""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anklealign.cli import folder_detection
from anklealign.cli.dataset_config import scalar
from anklealign.cli.layout_candidates import LayoutCandidate, counted, preview
from anklealign.config.class_names import EMPTY, fold
from anklealign.ingest import csv_table, label_cells
from anklealign.ingest.inventory import (
    SPLIT_WORDS,
    escape_unprintable,
    split_of_name,
    split_of_path,
    suffix,
)
from anklealign.ingest.table_files import (
    JSON,
    JSON_LINES,
    PICTURE_COLUMNS,
    RECURRING,
    ParsedTable,
    PathIndex,
    PathRule,
    looks_like_path,
    parse_table,
)

# Larger files are not searched for labels.
LARGEST_TABLE = 256 << 20  # bytes
TABLES = {".csv", ".tsv", ".tab", ".txt", ".lst", JSON, *JSON_LINES}
FEW = 50  # rows that show whether a column may be part of a path
ENOUGH = 2000  # rows used to find the path columns
# Columns by their usual names, English and Hungarian, folded.
LABEL_NAMES = {
    "choice", "choices", "label", "labels", "class", "class name", "classname", "category",
    "target", "species", "breed", "diagnosis", "diagnozis", "cimke", "osztaly", "kategoria",
    "dx", "label name", "class label", "ground truth", "gt", "finding labels", "diagnosis code",
    "consensus", "consensus label", "final label", "final diagnosis", "gold standard",
}  # fmt: skip
GROUP_NAMES = {
    "group", "group id", "subject", "subject id", "person", "person id", "patient", "patient id",
    "patientid", "subjectid", "participant id", "participant", "animal", "animal id", "lesion id",
    "case id", "individual", "individual id", "specimen id", "scene id", "video id", "szemely",
    "paciens", "beteg", "resztvevo", "alany",
}  # fmt: skip
SPLIT_NAMES = {
    "split", "set", "subset", "partition", "fold", "phase", "usage", "data split", "ml use",
    "data set", "dataset", "is valid", "is val", "is test", "is train", "train test", "mode",
}  # fmt: skip
ANNOTATOR_NAMES = {
    "annotator", "annotator id", "rater", "rater id", "user", "user id", "worker", "worker id",
    "workerid", "labeler", "coder", "reader", "reader id", "expert", "grader", "reviewer",
    "completed by", "doctor",
}  # fmt: skip
CASE_NAMES = {"case", "scan", "scan id", "study", "study id", "exam", "exam id", "sample id",
              "visit", "session", "session id", "sequence", "video", "scene"}  # fmt: skip
INDEX_NAMES = {"unnamed: 0", "index"}
# Words in the names of columns that name photos.
PATH_WORDS = PICTURE_COLUMNS - {"x", "y", "a", "b", "source", "target"} | {
    "name", "filepath", "kep", "fajl",
}  # fmt: skip
# Columns that describe a photo; they are not labels if another column may be.
ATTRIBUTES = {
    "age", "patient age", "sex", "gender", "patient gender", "site", "location", "localization",
    "anatom site", "date", "time", "year", "month", "camera", "device", "width", "height", "view",
    "view position", "format", "size", "weight", "country", "city", "source", "dx type", "license",
}  # fmt: skip
RATER = re.compile(
    r"(?P<stem>rater|annotator|annot|reader|reviewer|expert|observer|doctor|dr|grader|labell?er"
    r"|vote|voter|coder|judge|worker|user|label|class|diagnosis|pathologist|radiologist"
    r"|dermatologist|r|a)[ .]*(?P<id>\d+|[a-z])"
)
FOLD = re.compile(r"\b(k ?)?folds?\b|\bcv\b")  # in the name of a column
MULTIPLE = re.compile(r"[|;,]")
PLAIN = re.compile(r"[\w .,:/()+#%=-]*")  # names without a meaning in a shell's quotation marks
QUESTIONS = {"label", "class", "diagnosis"}  # what is asked, not who answers
LEAST_KAPPA = 0.2  # "fair" agreement (Landis and Koch, 1977): columns of the same question
RIVAL = 0.9  # share of the best column's photos that a competing path column names
MANY = 0.5  # share that decides between two readings
LONGEST_ROW = 120  # characters of a table's row in a remark
LONGEST_LIST = 8  # names in a remark


@dataclass(frozen=True)
class TableGroup:
    """The rows of tables with the same columns, each with its file."""

    files: tuple[str, ...]
    encoding: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, list[str]], ...]

    @property
    def name(self) -> str:
        """Return the names of the tables."""
        return _listed(self.files)

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
    unread: list[str] = field(default_factory=list)  # remarks on columns of split codes
    problem: str = ""
    question: str = ""
    splits: dict[str, str] = field(default_factory=dict)  # by photo, as the rows say
    folders: int = 0  # that the path column names instead of photos

    def add(self, row: int, text: str) -> bool:
        """Add the label of a row's photo; return whether it contradicts an earlier row."""
        photo = self.path.photos[row]
        self.by_table.setdefault(self.group.rows[row][0], {}).setdefault(photo, text)
        return self.labels.setdefault(photo, text) != text


# Returns the column that holds the labels, or None if that is ambiguous.
Decide = Callable[[Mapping[str, Counter[str]]], str | None]


def read_tables(
    root: Path,
    files: Iterable[str],
    photos: Sequence[str],
    decide: Decide,
    forced: Mapping[str, Any],
) -> tuple[LayoutCandidate | None, list[str]]:
    """Return the tables that label the most photos, and remarks on the others.

    Args:
        root: The dataset's folder.
        files: Files that may be tables.
        photos: Photos that the tables may name.
        decide: Decides between label columns by their names and the classes that the user has set.
        forced: Keys of the dataset config that the user has set.
    """
    index = PathIndex(photos)
    groups, remarks = _load(root, files, index, forced)
    readings: list[TableReading] = []
    for group in groups:
        reading, notes = _read_group(group, index, decide, forced)
        remarks += notes
        if reading:
            readings.append(reading)
    remarks += _joins(groups, readings)
    labeled = _merged([reading for reading in readings if reading.labels])
    # Of equal tables, the one with a header is read.
    labeled.sort(key=lambda r: (-len(r.labels), r.path.name.startswith("#"), r.group.files))
    asked = [reading for reading in readings if reading.question]
    for reading in readings:
        if reading.problem and not reading.question:
            remarks += _beside_labels(reading, labeled[0] if labeled else None) or [
                f"{reading.group.name}: not read: {reading.problem}"
            ]
    if asked:
        first = max(asked, key=lambda reading: (reading.path.matched, reading.group.files))
        if not labeled or _asks_rather(first, labeled[0]):
            if labeled:
                other = labeled[0].group
                option = _option("csv", other.files[0])
                first.question += f"; {option} reads the labels of {other.name} instead"
            return _candidate(first, remarks), []
    if not labeled:
        return None, remarks
    best, *others = labeled
    _take_folder_splits(best)
    question = _compare(best, others)
    best.remarks += [f"{r.question}; not read" for r in asked]
    best.question = question
    return _candidate(best, remarks), []


def _asks_rather(asked: TableReading, labeled: TableReading) -> bool:
    """Return whether the question of a table comes before the labels of another one.

    It does if the table names as many photos, unless the other one alone names its labels so, or
    more than twice as many photos.
    """
    own = fold(str(labeled.keys.get("label_column", "")))
    usual = own in LABEL_NAMES and not any(fold(c) in LABEL_NAMES for c in asked.group.columns)
    share = asked.path.distinct / len(labeled.labels)
    return share * MANY > 1 or (share >= RIVAL and not usual)


def _read_group(
    group: TableGroup, index: PathIndex, decide: Decide, forced: Mapping[str, Any]
) -> tuple[TableReading | None, list[str]]:
    """Return the labels of tables with the same columns, or remarks if they name no photo."""
    split = forced["split_column"] if "split_column" in forced else _split_column(group)
    path, notes, question = _path_column(group, index, forced, split)
    if path is None or path.by_folder or path.several:
        reading = _path_in_two_columns(group, index, forced)
        if reading:
            return reading, []
    if path is None:
        return None, notes
    reading = TableReading(group, path, remarks=notes, question=question)
    if split:
        reading.keys["split_column"] = split
    if question:
        if path.several:  # compared with folders, which may have the same labels
            reading.texts.update(cell for _, cells in group.rows for cell in cells)
        return reading, []
    if path.several:
        notes.append(f"{group.name}: {_of_several(group, path)}; these are not read")
    if path.by_folder:
        _expand(reading, index)
    _find_labels(reading, decide, forced)
    reading.splits = _row_splits_by_photo(reading)
    return reading, []


def _expand(reading: TableReading, index: PathIndex) -> None:
    """Repeat each row that names a folder for the folder's photos."""
    pairs = [
        (row, photo)
        for row, folder in zip(reading.group.rows, reading.path.photos, strict=True)
        for photo in (index.photos_below[folder] if folder else [""])
    ]
    reading.folders = reading.path.distinct
    reading.group = replace(reading.group, rows=tuple(row for row, _ in pairs))
    reading.path = replace(reading.path, photos=tuple(photo for _, photo in pairs))


def _candidate(reading: TableReading, remarks: Sequence[str]) -> LayoutCandidate:
    """Return a reading as a layout candidate."""
    group, path = reading.group, reading.path
    files = group.files
    keys: dict[str, Any] = {
        "csv": files[0] if len(files) == 1 else files, "path_column": path.name, **reading.keys,
    }  # fmt: skip
    if group.encoding != "utf-8":
        keys["encoding"] = group.encoding
    summary = f"{group.name} with {len(group.rows)} rows, {path.matched} of which name a photo"
    if reading.folders:
        summary = f"{group.name} names {reading.folders} folders with {path.matched} photos"
    return LayoutCandidate(
        "table",
        summary,
        reading.texts,
        keys,
        (*reading.remarks, *remarks),
        doubt=_doubt(reading),
        question=reading.question,
        labels=reading.labels,
        splits=reading.splits,
    )


def _doubt(reading: TableReading) -> str:
    """Return why folders with a label of their own may be classes, or ''.

    Subjects and cases are numbered, or in a column of that name; WordNet numbers are classes.
    """
    path = reading.path
    if not reading.folders or reading.question or fold(path.name) in GROUP_NAMES | CASE_NAMES:
        return ""
    cells = sorted(set(reading.group.column(path.place)))
    numbered = len({_without_numbers(cell) for cell in cells}) == 1
    if numbered and re.search(r"\d", cells[0]) and not re.fullmatch(r"n\d{8}", cells[0]):
        return ""
    return (
        f"{reading.group.name} gives folders ({_listed(cells[:3])}) the labels of column "
        f"{reading.keys.get('label_column')!r}; if the folders are the classes, pass --layout "
        "folders"
    )


# --- Tables and their paths ----------------------------------------------------------------------


def _load(
    root: Path, files: Iterable[str], index: PathIndex, forced: Mapping[str, Any]
) -> tuple[list[TableGroup], list[str]]:
    """Return the tables of a folder, grouped by their columns, and remarks on unreadable ones."""
    chosen = forced.get("csv")
    wanted = {chosen} if isinstance(chosen, str) else set(chosen or ())
    remarks: list[str] = []
    strange: list[str] = []
    rows: dict[tuple[str, ...], list[tuple[str, list[str]]]] = defaultdict(list)
    members: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = defaultdict(dict)
    for file in tqdm(files, "tables", unit="file", delay=1, leave=False, disable=None):
        if suffix(file) not in TABLES or (wanted and file not in wanted):
            continue
        if "submission" in file.rpartition("/")[2].casefold() and not wanted:
            remarks.append(f"{escape_unprintable(file)}: not read: a submission holds no labels")
            continue
        if (root / file).stat().st_size > LARGEST_TABLE:
            remarks.append(f"{escape_unprintable(file)}: not read: over {LARGEST_TABLE >> 20} MB")
            continue
        try:
            encoding, columns, content = _decoded((root / file).read_bytes(), file, index)
        except (ValueError, OSError) as error:
            if suffix(file) == JSON:
                strange.append(file)
            else:
                remarks.append(escape_unprintable(str(error)))
            continue
        if content:
            key = (encoding, *_alike(columns, file))
            members[key][file] = tuple(columns)
            rows[key] += [(file, cells) for cells in content]
    if strange:
        remarks.append(f"{_listed(strange)}: JSON of another kind, not read")
    groups = []
    for key in sorted(rows):
        own = sorted(members[key], key=_split_first)
        groups.append(TableGroup(tuple(own), key[0], members[key][own[0]], tuple(rows[key])))
    return groups, remarks


def _alike(columns: Sequence[str], file: str) -> tuple[str, ...]:
    """Return what tables that are read together have in common: the columns in any case.

    Numbers are no names of columns: 1, 1 may be the first line of two tables of another kind.
    """
    folded = tuple(column.casefold() for column in columns)
    if all(map(str.isdecimal, columns)):
        return (*folded, file)
    return folded if len(set(folded)) == len(columns) else tuple(columns)


def _split_first(file: str) -> tuple[bool, str]:
    """Sort tables of a split first: of two rows of a photo, the first one counts."""
    return not split_of_name(Path(file).stem), file


def _decoded(data: bytes, name: str, index: PathIndex) -> tuple[str, list[str], list[list[str]]]:
    """Return a table's encoding, column names (#1, ... without a header) and rows."""
    # Excel's encodings in Hungary and Western Europe; the bytes alone do not distinguish them.
    encodings = ["utf-8", "cp1250", "cp1252"]
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encodings = ["utf-16"]
    elif suffix(name) in {JSON, *JSON_LINES}:
        encodings = ["utf-8"]
    for encoding in encodings:
        try:
            table = parse_table(data, name, encoding)
        except ValueError:
            if encoding == encodings[-1]:
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
        alike = place < len(second) and _without_numbers(second[place]) == _without_numbers(cell)
        if alike and re.search(r"\d", cell) and re.search(r"[^\W\d]", cell):
            return bool(index.folders.find(cell, rule))
    return False


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "#", text.strip().casefold())


def _columns_of_paths(
    group: TableGroup, index: PathIndex, forced: Mapping[str, Any], split_column: str | None
) -> tuple[list[PathColumn], tuple[PathColumn, list[str], str] | None]:
    """Return the columns that name photos, or the result of `_path_column` if there is another."""
    splits = _row_splits(group, split_column)
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


def _path_column(
    group: TableGroup, index: PathIndex, forced: Mapping[str, Any], split_column: str | None
) -> tuple[PathColumn | None, list[str], str]:
    """Return the column that names the photos, remarks, and a question if it is ambiguous."""
    columns, decided = _columns_of_paths(group, index, forced, split_column)
    if decided:
        return decided
    if not columns:
        return None, _nameless(group), ""
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
        both = f"columns {best.name!r} and {rival.name!r} name different photos in {conflicts} rows"
        remarks.append(f"{group.name}: {both}; {best.name!r} has the file names")
    if len(rivals) > 1:
        rivals.sort(key=lambda c: (_unlike_path(c), c.place))
        options = " or ".join(_option("path_column", c.name) for c in rivals)
        names = f"{', '.join(repr(c.name) for c in rivals[:-1])} and {rivals[-1].name!r}"
        question = f"{group.name}: columns {names} name different photos; pass {options}"
        return rivals[0], remarks, question
    return best, remarks, "" if "path_column" in forced else _doubt_of_numbers(group, best)


def _doubt_of_numbers(group: TableGroup, best: PathColumn) -> str:
    """Return the question about a path column that may number the rows instead, or ''."""
    paths = [
        name for place, name in enumerate(group.columns)
        if best.tier == 0 and place != best.place
        and sum(map(looks_like_path, group.column(place))) > MANY * len(group.rows)
    ]  # fmt: skip
    if not paths and (best.tier > 0 or fold(best.name) not in INDEX_NAMES):
        return ""
    reason = "it looks like a running number"
    if paths:
        reason = f"{paths[0]!r} looks like file names, but names no photo"
    return (
        f"{group.name}: only column {best.name!r} names photos, and {reason}; fix the table, "
        f"or pass {_option('path_column', best.name)}"
    )


def _unlike_path(column: PathColumn) -> int:
    """Return 0 for a column that is named like paths, 2 for a running number, and else 1."""
    name = fold(column.name)
    if name in INDEX_NAMES:
        return 2
    return int(not any(word.removesuffix("s") in PATH_WORDS for word in name.split()))


def _path_in_two_columns(
    group: TableGroup, index: PathIndex, forced: Mapping[str, Any]
) -> TableReading | None:
    """Return a question about two columns that form the paths together, or None.

    They are a folder and a name: pat00, img0.jpg. Without labels beside them, the folders are the
    classes.
    """
    if "path_column" in forced:
        return None
    cells = [group.column(place) for place in range(len(group.columns))]
    rule = PathRule(_folder(group))
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
        question = (
            f"{group.name}: columns {first!r} and {second!r} form the paths together; write them "
            f"into one column, in the folder of the dataset: {_path_command(group, first, second)}"
        )
        return TableReading(group, path, texts=sum(labels.values(), Counter()), question=question)
    return None


def _folder(group: TableGroup) -> str:
    """Return the folder of the first table."""
    return group.files[0].rpartition("/")[0]


def _path_command(group: TableGroup, folder: str, name: str) -> str:
    """Return a command that writes a table with the path in one column, and how to read it."""
    if not _is_delimited(group):
        return f"path = {folder}/{name}"
    joined = f"{_folder(group)}/joined.csv".lstrip("/")
    option = _option("csv", joined)
    places = [f"t[{_pandas_column(group, column)}]" for column in (folder, name)]
    return (
        f"python -c \"import pandas; t = {_pandas_table(group)}; t['path'] = {places[0]} + '/' "
        f'+ {places[1]}; t.to_csv({joined!r}, index=False)"; then pass {option}'
    )


def _is_delimited(group: TableGroup) -> bool:
    """Return whether a command can read the table, and its names mean nothing to a shell."""
    names = (*group.files, *group.columns)
    return (
        len(group.files) == 1
        and suffix(group.files[0]) not in {JSON, *JSON_LINES}
        and all(PLAIN.fullmatch(name) for name in names)
    )


def _pandas_column(group: TableGroup, name: str) -> str:
    """Return a column's name in pandas, which numbers the columns of a table without a header."""
    return str(group.columns.index(name)) if name.startswith("#") else repr(name)


def _pandas_table(group: TableGroup) -> str:
    """Return the expression that reads a table with pandas as texts."""
    options = ["dtype=str", "sep=None", "engine='python'"]
    if group.encoding != "utf-8":
        options.append(f"encoding={group.encoding!r}")
    if group.columns[0].startswith("#"):
        options.append("header=None")
    return f"pandas.read_csv({group.files[0]!r}, {', '.join(options)})"


def _row_splits(group: TableGroup, split_column: str | None) -> list[str]:
    """Return the split of each row by a column, or '' for that of its table."""
    if split_column is None or split_column not in group.columns:
        return [""] * len(group.rows)
    cells = group.column(group.columns.index(split_column))
    return [csv_table.split_of_cell(split_column, cell) for cell in cells]


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
            f"{group.name}: {_of_several(group, worst)}; write the photo's folder and suffix "
            "into that column"
        ),
    )


def _of_several(group: TableGroup, path: PathColumn) -> str:
    """Return how many rows name several photos each, with an example."""
    rows = sum(cell in path.several for cell in group.column(path.place))
    cell, matches = next(iter(path.several.items()))
    return (
        f"{rows} rows name several photos each in column {path.name!r}, for example "
        f"{escape_unprintable(cell)} may be {_listed(list(matches)[:2])}"
    )


def _example(group: TableGroup, path: PathColumn) -> str:
    cell, photo = next(
        (cell, photo)
        for cell, photo in zip(group.column(path.place), path.photos, strict=True)
        if photo
    )
    return f"{escape_unprintable(cell)} is {escape_unprintable(photo)}"


def _nameless(group: TableGroup) -> list[str]:
    """Return a remark on tables without photo paths, with the first row; texts are not tables."""
    cells = group.rows[0][1]
    if all(suffix(file) == JSON for file in group.files) and not any(map(looks_like_path, cells)):
        return [f"{group.name}: JSON that names no photo, not read"]
    text = all(suffix(file) == ".txt" for file in group.files)
    if len(cells) < 2 or (text and not any(map(looks_like_path, cells))):
        return []
    row = escape_unprintable(", ".join(cells))[:LONGEST_ROW]
    remark = f"no row names a photo, such as the first, {row}; write each photo's path below the"
    return [f"{group.name}: {remark} table's folder, or the end of it"]


# --- Labels --------------------------------------------------------------------------------------


def _find_labels(reading: TableReading, decide: Decide, forced: Mapping[str, Any]) -> None:
    """Find the labels, the group, the split and the annotators of a table's photos."""
    group, path = reading.group, reading.path
    values = {
        name: [
            cell if photo else ""
            for cell, photo in zip(group.column(place), path.photos, strict=True)
        ]
        for place, name in enumerate(group.columns)
        if place != path.place
    }
    used: set[str] = set()
    if split := reading.keys.get("split_column"):
        used.add(split)
    own = forced["group_column"] if "group_column" in forced else _group_column(values, reading)
    if own is None and reading.folders and "group_column" not in forced:
        own = path.name
    if own:
        reading.keys["group_column"] = own
        used.add(own)
    used.add(forced.get("label_column") or "")  # the user's, whatever its name
    others = {name: values[name] for name in values if name not in used}
    used |= _folds(reading, others) | _coded_splits(reading, others)
    reading.remarks += reading.unread
    used.discard(forced.get("label_column") or "")
    rest = {name: cells for name, cells in values.items() if name not in used}
    annotator = forced.get("annotator_column") or _annotator_column(rest, path)
    if annotator:
        reading.keys["annotator_column"] = annotator
        used.add(annotator)
        rest.pop(annotator, None)
    used |= _label_columns(reading, rest, decide, forced)
    unused = [name for name in values if name not in used and any(values[name])]
    if unused and reading.labels:
        reading.remarks.append(f"{group.name}: columns not read: {_listed(unused)}")


def _label_columns(
    reading: TableReading,
    values: Mapping[str, list[str]],
    decide: Decide,
    forced: Mapping[str, Any],
) -> set[str]:
    """Read the labels; return the columns that hold them."""
    counts = {name: Counter(cell for cell in cells if cell) for name, cells in values.items()}
    rows = reading.folders or reading.path.matched
    recurring = {
        name: texts
        for name, texts in counts.items()
        if 2 <= len(texts) <= rows / 2 and fold(name) not in GROUP_NAMES
    }
    votes = forced.get("vote_columns") or (
        [] if "label_column" in forced or "one_hot" in forced else _vote_columns(values, recurring)
    )
    named = [name for name in recurring if fold(name) in LABEL_NAMES and name not in votes]
    if forced.get("label_column"):
        named = [forced["label_column"]]
    if votes:
        own = named[0] if len(named) == 1 else None
        _take_votes(reading, values, votes, own)
        return {*votes, *([own] if own else [])}
    hot = [name for name in values if _is_binary(counts[name])]
    if forced.get("one_hot") or (not named and len([n for n in hot if len(counts[n]) > 1]) > 1):
        if _take_one_hot(reading, values, hot, forced):
            return set(hot)
        if reading.question:
            return set()
    if forced.get("label_column"):
        name, reason = _wanted_column(forced["label_column"], values)
    else:
        name, reason = _label_column(reading, recurring, values, named, decide)
    if name is None:
        if sum(fold(c) not in ATTRIBUTES | SPLIT_NAMES for c in recurring) > 1:
            reading.question = f"{reading.group.name}: {reason}"
        else:
            reading.problem = reason
        return set()
    _take_column(reading, name, values[name])
    return {name}


def _take_column(reading: TableReading, name: str, cells: Sequence[str]) -> None:
    """Read the labels of a column; cells that join several labels are not labels."""
    reading.keys["label_column"] = name
    several = _several_labels(cells)
    rows = reading.path.matched
    spaced = any(label_cells.parts(cell) == [cell] and " " in cell for cell in several)
    hint = "; if they are one label, join its words by _" if spaced else ""
    if keys := _object_keys(cells):
        reading.problem = (
            f"column {name!r} holds several values in a row ({preview(keys)}); write the one that "
            "is the label into a column of its own"
        )
        return
    if several.total() > MANY * rows:
        reading.problem = (
            f"column {name!r} holds several labels in {several.total()} of {rows} rows "
            f"({preview(several, 2)}), and each photo needs one; keep one label per row{hint}"
        )
        return
    if several:
        reading.remarks.append(
            f"{reading.group.name}: "
            f"{counted(several.total(), 'row holds', 'rows hold')} several labels "
            f"({preview(several, 2)}) and {'is' if several.total() == 1 else 'are'} skipped{hint}"
        )
    if words := _recombined_words(cells):
        reading.remarks.append(
            f"{reading.group.name}: the labels combine the same words ({preview(words, 4)}); if "
            "each word is a label of its own, keep one per row"
        )
    conflicting = 0
    for number, (photo, cell) in enumerate(zip(reading.path.photos, cells, strict=True)):
        if photo and fold(cell) not in EMPTY and cell not in several:
            reading.texts[cell] += 1
            conflicting += reading.add(number, cell)
    if conflicting and "annotator_column" not in reading.keys:
        reading.remarks.append(
            f"{reading.group.name}: "
            f"{counted(conflicting, 'row contradicts', 'rows contradict')} an earlier row of "
            "the photo; if they are votes, add a column annotator"
        )


def _several_labels(cells: Sequence[str]) -> Counter[str]:
    """Return how often each cell that joins several labels occurs.

    A part of such a cell is a label of other cells, too: alone, or beside another one. Commas and
    spaces may be part of a label (`tench, Tinca tinca`), so that all parts must be labels alone.
    """
    counts = Counter(cell for cell in cells if cell)
    parts = {cell: own for cell in counts if len(own := _parts(cell)) > 1}
    known = Counter(part for own in parts.values() for part in own)

    def joins(cell: str, own: set[str]) -> bool:
        if label_cells.SEVERAL.fullmatch(cell) or all(part in counts for part in own):
            return True
        alone_or_again = any(part in counts or known[part] > 1 for part in own)
        return alone_or_again and bool(MULTIPLE.search(cell)) and "," not in cell

    return Counter({cell: counts[cell] for cell, own in parts.items() if joins(cell, own)})


def _parts(cell: str) -> set[str]:
    """Return the texts that a cell may join."""
    if label_cells.SEVERAL.fullmatch(cell):
        return set(label_cells.parts(cell))
    texts = MULTIPLE.split(cell) if MULTIPLE.search(cell) else cell.split()
    return {text.strip() for text in texts if text.strip()}


def _object_keys(cells: Sequence[str]) -> Counter[str]:
    """Return the keys of cells that hold JSON objects."""
    texts = [cell for cell in cells if cell.startswith("{") and cell.endswith("}")]
    return Counter(re.findall(r"""["']([^"']*)["']\s*:""", "\n".join(dict.fromkeys(texts))))


def _recombined_words(cells: Sequence[str]) -> Counter[str]:
    """Return the words that labels consist of, if there are far fewer words than labels."""
    labels = {cell for cell in cells if cell}
    words = Counter(word for label in labels for word in set(label.split()))
    spaced = sum(" " in label for label in labels)
    few = 2 * len(words) <= len(labels) and 2 * spaced > len(labels)
    return words if few else Counter()


def _split_column(group: TableGroup) -> str | None:
    """Return the column of predefined splits."""
    for place, name in enumerate(group.columns):
        texts = {cell for cell in group.column(place) if cell}
        splits = {csv_table.split_of_cell(name, text) for text in texts}
        words = all(text.casefold() in SPLIT_WORDS for text in texts)
        if len(splits - {""}) > 1 and (words or fold(name) in SPLIT_NAMES):
            return name
    return None


def _folds(reading: TableReading, values: Mapping[str, list[str]]) -> set[str]:
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
            f"read; {_option('group_column', name)} keeps each fold in one split; for fixed "
            "splits, write train, val or test into a column split"
        )
    return found


def _coded_splits(reading: TableReading, values: Mapping[str, list[str]]) -> set[str]:
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
            f"not read; if {listed}, {_lists_command(reading, name, meaning)}"
        )
    return found


def _lists_command(reading: TableReading, column: str, meaning: Mapping[str, str]) -> str:
    """Return how to write the splits of a column into lists of photos, which are read."""
    group, path = reading.group, reading.path
    if not _is_delimited(group) or reading.folders:
        return "write lists of the photos: train.txt, val.txt, test.txt"
    folder = f"{_folder(group)}/".lstrip("/")
    name, split = (_pandas_column(group, each) for each in (path.name, column))
    where = f"{folder!r} + s" if folder else "s"
    return (
        "write lists of the photos, in the folder of the dataset: "
        f'python -c "import pandas; t = {_pandas_table(group)}; '
        f"[g[{name}].to_csv({where} + '.txt', index=False, header=False) for s, g in "
        f't.groupby(t[{split}].map({dict(meaning)}))]"'
    )


def _beside_labels(reading: TableReading, best: TableReading | None) -> list[str]:
    """Return remarks on the splits, folds and groups of a table without labels."""
    group, keys = reading.group, reading.keys
    remarks = list(reading.unread)
    if split := keys.get("split_column"):
        cells = sorted({c for c in group.column(group.columns.index(split)) if c})
        meaning = {c: word for c in cells if (word := csv_table.split_of_cell(split, c))}
        remarks.append(
            f"{group.name}: column {split!r} holds predefined splits, which are not read from a "
            f"table without labels; {_lists_command(reading, split, meaning)}"
        )
    folds = [name for name in group.columns if FOLD.search(fold(name)) and name != split]
    groups = dict.fromkeys([*folds, keys.get("group_column")])
    remarks += [
        f"{group.name}: column {name!r} groups the photos, but is not read from a table without "
        f"labels; {_merge_command(reading, name, best)}"
        for name in groups
        if name and name != reading.path.name
    ]
    return remarks


def _merge_command(reading: TableReading, column: str, best: TableReading | None) -> str:
    """Return how to write a column into the table of the labels."""
    if best is None:
        return "write it and the labels into one table"
    group, other = best.group, reading.group
    cells, own = set(group.column(best.path.place)), set(other.column(reading.path.place))
    plain = _is_delimited(group) and _is_delimited(other) and column not in group.columns
    if not plain or len(cells & own) < RIVAL * len(cells):
        return f"write it into {group.name}"
    joined = f"{_folder(group)}/joined.csv".lstrip("/")
    key, right, name = (
        _pandas_column(group, best.path.name),
        *(_pandas_column(other, each) for each in (reading.path.name, column)),
    )
    return (
        "join the tables, in the folder of the dataset: "
        f'python -c "import pandas; {_pandas_table(group)}.merge({_pandas_table(other)}'
        f"[[{right}, {name}]], how='left', left_on={key}, right_on={right})"
        f'.to_csv({joined!r}, index=False)"; then pass {_option("csv", joined)} '
        f"{_option('group_column', column)}"
    )


def _row_splits_by_photo(reading: TableReading) -> dict[str, str]:
    """Return the split of each labeled photo by its row or table, with a remark on photos in two.

    Photos whose rows name no split are omitted.
    """
    column = reading.keys.get("split_column")
    splits = _row_splits(reading.group, column)
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


def _take_folder_splits(reading: TableReading) -> None:
    """Read the splits that folders are named after; name those that contradict the table."""
    roots = folder_detection.split_folders(reading.labels)
    by_folder = {photo: split_of_path(photo, roots) for photo in reading.labels}
    rest = [photo for photo in reading.labels if photo not in reading.splits]
    several = len({*reading.splits.values(), *by_folder.values()}) > 1
    if several and any(by_folder[photo] != split_of_path(photo, None) for photo in rest):
        reading.keys["class_roots"] = roots
        listed = [f"{root} ({split})" for root, split in roots.items()]
        reading.remarks.append(f"predefined splits by folder: {_listed(listed)}")
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


def _group_column(values: Mapping[str, list[str]], reading: TableReading) -> str | None:
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


def _annotator_column(values: Mapping[str, list[str]], path: PathColumn) -> str | None:
    """Return the column of annotators, if photos recur with different ones."""
    for name, cells in values.items():
        if fold(name) not in ANNOTATOR_NAMES:
            continue
        by_photo: dict[str, set[str]] = defaultdict(set)
        for photo, cell in zip(path.photos, cells, strict=True):
            if photo and cell:
                by_photo[photo].add(cell)
        if any(len(annotators) > 1 for annotators in by_photo.values()):
            return name
    return None


def _vote_columns(
    values: Mapping[str, list[str]], recurring: Mapping[str, Counter[str]]
) -> list[str]:
    """Return the columns that hold the labels of one annotator each.

    Their values are the same labels. Either they are named and numbered as annotators, or at least
    three columns of words agree above chance.
    """
    stems: dict[str, list[str]] = defaultdict(list)
    for name in values:
        if match := RATER.fullmatch(fold(name)):
            stems[match["stem"]].append(name)
    for names in sorted(stems.values(), key=len, reverse=True):
        if len(names) < 2 or not _share_labels([set(values[name]) - {""} for name in names]):
            continue
        # label1 and label2 may be two questions.
        by_name = RATER.fullmatch(fold(names[0]))["stem"] not in QUESTIONS  # type: ignore[index]
        if by_name or _agree([values[name] for name in names]):
            return names
    words = [
        name for name, texts in recurring.items()
        if fold(name) not in ATTRIBUTES | LABEL_NAMES
        and any(len(text) > 1 and text[0].isalpha() for text in texts)
        and not {text.casefold() for text in texts} <= csv_table.TRUE | {"no", "false", "n", "f"}
    ]  # fmt: skip
    alike = [
        [other for other in words if _share_labels([set(recurring[n]) for n in (name, other)])]
        for name in words
    ]
    names = max(alike, key=len, default=[])
    return names if len(names) > 2 and _agree([values[name] for name in names]) else []


def _agree(columns: Sequence[Sequence[str]]) -> bool:
    """Return whether columns agree above chance, as answers to one question do."""
    kappas = [_kappa(one, other) for one, other in combinations(columns, 2)]
    return sum(kappas) >= LEAST_KAPPA * len(kappas)


def _votes_option(names: Sequence[str], texts: Mapping[str, Counter[str]]) -> str:
    """Return how to read columns with the same labels as votes, or ''."""
    alike = [n for n in names if _share_labels([set(texts[names[0]]), set(texts[n])])]
    if len(alike) < 2:
        return ""
    option = shlex.quote(f"vote_columns={scalar(alike)}")
    return f", or with --set {option} if each is one annotator's"


def _share_labels(vocabularies: Sequence[set[str]]) -> bool:
    """Return whether columns use largely the same labels."""
    columns = Counter(label for own in vocabularies for label in own)
    shared = sum(count > 1 for count in columns.values())
    return (
        len(columns) > 1
        and shared >= MANY * len(columns)
        and columns.total() >= MANY * len(columns) * len(vocabularies)
    )


def _kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Return Cohen's kappa of the rows in which both columns have a label."""
    pairs = [pair for pair in zip(one, other, strict=True) if all(pair)]
    if not pairs:
        return 0.0
    agreement = sum(a == b for a, b in pairs) / len(pairs)
    first, second = (Counter(pair[k] for pair in pairs) for k in (0, 1))
    chance = sum(first[text] * second[text] for text in first) / len(pairs) ** 2
    return (agreement - chance) / (1 - chance) if chance < 1 else 0.0


def _take_votes(
    reading: TableReading,
    values: Mapping[str, list[str]],
    votes: Sequence[str],
    own: str | None,
) -> None:
    """Read one column of labels per annotator, and a label column beside them."""
    reading.keys |= {"vote_columns": tuple(votes), "label_column": own}
    reading.remarks.append(
        f"{reading.group.name}: columns {_listed(votes)} are votes of {len(votes)} annotators"
    )
    for number, photo in enumerate(reading.path.photos):
        cast = Counter(
            values[name][number] for name in votes if fold(values[name][number]) not in EMPTY
        )
        text = values[own][number] if own else ""
        if photo and (text or cast):
            reading.texts.update([text] if text else cast)
            reading.add(number, text or cast.most_common(1)[0][0])


def _is_binary(texts: Counter[str]) -> bool:
    return bool(texts) and all(
        re.fullmatch(r"[01](\.0+)?|true|false", text.casefold()) for text in texts
    )


def _take_one_hot(
    reading: TableReading,
    values: Mapping[str, list[str]],
    columns: Sequence[str],
    forced: Mapping[str, Any],
) -> bool:
    """Read one column per class, if each row marks one; return whether it was read."""
    rows = [
        (number, [name for name in columns if csv_table.is_hot(values[name][number])])
        for number, photo in enumerate(reading.path.photos)
        if photo
    ]
    several = sum(len(hot) > 1 for _, hot in rows)
    single = sum(len(hot) == 1 for _, hot in rows)
    if not forced.get("one_hot"):
        if several:
            reading.question = (
                f"{reading.group.name}: columns {_listed(columns)} mark several classes in "
                f"{several} of {len(rows)} rows, and each photo needs one label; add a column "
                "label, or pass --set one_hot=true to skip these rows"
                + _votes_option(columns, {name: Counter(values[name]) for name in columns})
            )
            return False
        if single < MANY * len(rows):
            return False
    reading.keys |= {"one_hot": True, "label_column": None}
    for number, hot in rows:
        if len(hot) == 1:
            reading.texts[hot[0]] += 1
            reading.add(number, hot[0])
    empty = [name for name in columns if not reading.texts[name]]
    reading.remarks.append(
        f"{reading.group.name}: one column per class: {_listed(columns)}"
        + (f"; no photo of {_listed(empty)}" if empty else "")
    )
    return True


def _wanted_column(name: str, values: Mapping[str, list[str]]) -> tuple[str | None, str]:
    """Return the label column that the user has set, or None and the reason."""
    if name in values:
        return name, ""
    return None, f"it has no column {name!r}, only {_listed(list(values))}"


def _label_column(
    reading: TableReading,
    recurring: Mapping[str, Counter[str]],
    values: Mapping[str, list[str]],
    named: Sequence[str],
    decide: Decide,
) -> tuple[str | None, str]:
    """Return the label column, or None and the reason."""
    if not recurring:
        return None, "no column contains two recurring labels"
    described = [name for name in recurring if fold(name) not in ATTRIBUTES | SPLIT_NAMES]
    if not described:
        name = next(iter(recurring))
        return None, (
            f"column {name!r} ({preview(recurring[name], 3)}) is no label by its name; "
            f"{_option('label_column', name)} reads it as labels"
        )
    for names in (named, list(recurring), described):
        partitions = _distinct_partitions(reading, names, values)
        if len(partitions) == 1:
            return partitions[0], ""
    if decided := decide({name: recurring[name] for name in named or recurring}):
        return decided, ""
    listed = ", ".join(
        f"{name!r} ({preview(texts, 3)})" for name, texts in list(recurring.items())[:LONGEST_LIST]
    )
    names = (list(named) or described)[:LONGEST_LIST]
    options = " or ".join(_option("label_column", name) for name in names)
    options += _votes_option(names, recurring)
    return None, f"several columns may contain the labels: {listed}; choose with {options}"


def _distinct_partitions(
    reading: TableReading, names: Iterable[str], values: Mapping[str, list[str]]
) -> list[str]:
    """Return one column for each partition of the photos: words rather than their numbers."""
    kept: list[str] = []
    ordered = sorted(names, key=lambda name: not any(c.isalpha() for c in "".join(values[name])))
    for name in ordered:
        equal = next((one for one in kept if same_partition(values[one], values[name])), None)
        if equal is None:
            kept.append(name)
        else:
            reading.remarks.append(
                f"{reading.group.name}: column {name!r} has the same labels as {equal!r}"
            )
    return kept


def same_partition(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two label lists differ in the labels' names only."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


# --- Several tables ------------------------------------------------------------------------------


def _merged(readings: Sequence[TableReading]) -> list[TableReading]:
    """Join the tables that have the same path and label columns, whatever else they have."""
    by_keys: dict[tuple[Any, ...], list[TableReading]] = defaultdict(list)
    for reading in readings:
        keys = tuple(sorted((k, str(v)) for k, v in reading.keys.items()))
        by_keys[reading.group.encoding, reading.path.name, keys].append(reading)
    return [_join(group) for group in by_keys.values()]


def _join(readings: Sequence[TableReading]) -> TableReading:
    first, *others = readings
    for other in others:
        group, path = first.group, first.path
        files = tuple(sorted({*group.files, *other.group.files}, key=_split_first))
        first.group = replace(group, files=files, rows=(*group.rows, *other.group.rows))
        first.path = replace(path, photos=(*path.photos, *other.path.photos))
        first.labels = other.labels | first.labels
        first.splits = other.splits | first.splits
        first.by_table |= other.by_table
        first.texts += other.texts
        first.remarks += other.remarks
    return first


def _joins(groups: Sequence[TableGroup], readings: Sequence[TableReading]) -> list[str]:
    """Return a remark on each table whose rows name photos by the numbers of another table."""
    named = {reading.group.files for reading in readings}
    keys = [
        (reading.group, name, reading.path.name, set(cells))
        for reading in readings
        for place, name in enumerate(reading.group.columns)
        if place != reading.path.place and len(reading.group.files) == 1
        and len(set(cells := reading.group.column(place))) == len(cells) > 2
    ]  # fmt: skip
    remarks: list[str] = []
    for group in groups:
        if group.files in named or len(group.columns) < 2:
            continue
        own = set(group.column(0))
        for photos, key, path, numbers in keys:
            delimited = _is_delimited(group) and _is_delimited(photos)
            if delimited and len(own & numbers) > RIVAL * len(own):
                files = (photos.files[0], group.files[0])
                remarks.append(
                    f"{group.name}: its rows name those of {photos.name}, which has the paths; "
                    f"join them in one line: {_join_command(*files, key, path, group)}"
                )
                break
    return remarks


def _join_command(photos: str, other: str, key: str, path: str, group: TableGroup) -> str:
    """Return a command that joins a table of photos with one of their labels or splits."""
    if not key.startswith("#"):
        keys = f"left_on={key!r}, right_on={group.columns[0]!r}"
        return (
            f'python -c "import pandas; pandas.read_csv({photos!r}).merge(pandas.read_csv('
            f"{other!r}), {keys}).to_csv('joined.csv', index=False)\""
        )
    files = shlex.join([photos, other])
    words = re.findall(r"[a-z]+", Path(other).stem.casefold())
    paths = f"NR == FNR {{path[$1] = ${path[1:]}; next}}"
    if {"train", "test"} <= set(words):
        split = '{print path[$1] > ($2 ? "train.txt" : "test.txt")}'
        return f"awk '{paths} {split}' {files}"
    label = '{print path[$1] "," $2}'
    return f"(echo path,label; awk '{paths} {label}' {files}) > labels.csv"


def _compare(best: TableReading, others: Sequence[TableReading]) -> str:
    """Add a remark on each other reading, or return the question between two of them."""
    if question := _conflict_within(best):
        return question
    for other in others:
        common = sorted(best.labels.keys() & other.labels.keys())
        same = same_partition(
            [best.labels[photo] for photo in common], [other.labels[photo] for photo in common]
        )
        where = f"{other.group.name}: labels of {len(other.labels)} photos"
        if common and not same and len(common) > MANY * len(best.labels):
            options = " or ".join(_option("csv", r.group.files[0]) for r in (best, other))
            return f"{where} contradict those of {best.group.name}; pass {options}"
        kind = "the same" if common and same else "other"
        best.remarks.append(
            f"{where}, {kind} as in {best.group.name}, are not read" if kind == "the same"
            else f"{where} are not read; {_option('csv', other.group.files[0])} reads them"
        )  # fmt: skip
    return ""


def _conflict_within(reading: TableReading) -> str:
    """Return the question between two tables that label the same photos differently."""
    if "annotator_column" in reading.keys:
        return ""
    files = reading.group.files
    for n, one in enumerate(files):
        for other in files[n + 1 :]:
            first, second = reading.by_table.get(one, {}), reading.by_table.get(other, {})
            common = first.keys() & second.keys()
            if differing := sum(first[photo] != second[photo] for photo in common):
                options = " or ".join(_option("csv", file) for file in (one, other))
                return f"{one} and {other} label {differing} photos differently; pass {options}"
    return ""


def _option(key: str, value: str) -> str:
    """Return the command-line option that sets a key."""
    text = f"{key}={escape_unprintable(value)}"
    return f"--set '{text}'" if re.search(r"[^\w./=#-]", text) or "#" in text else f"--set {text}"


def _listed(names: Sequence[str]) -> str:
    """Return names separated by commas, shortened."""
    shown = ", ".join(map(escape_unprintable, names[:LONGEST_LIST]))
    more = len(names) - LONGEST_LIST
    return f"{shown} and {more} more" if more > 0 else shown
