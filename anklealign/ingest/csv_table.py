"""Photos anywhere below a folder, labeled by one or several tables.

`anklealign.ingest.table_files` says which files are tables. Paths are relative to the table's
folder; backslashes, `./`, Unicode form, case and a missing suffix are ignored if exactly one photo
matches. A path that does not exist matches the photos whose paths end with it, and paths of another
disk match by their ends. Of several photos of that name, the one in a folder of the row's split is
meant: a.jpg in train.csv is train/a.jpg. A path may also be a folder, whose photos all get the
label.

The label of a row is a cell (`label_column`), the one class whose column is 1 (`one_hot`), or the
votes in one column per annotator (`vote_columns`). If a table has one row per vote
(`annotator_column`), several rows of a photo are its votes. Votes of two or more annotators are
aggregated by prepare; a single vote is the label.

The predefined split of a photo is its row's `split_column`, else its table (train.csv), else its
folder.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import (
    Claim,
    Entry,
    Inventory,
    Skip,
    Vote,
    compile_subject_pattern,
    is_other_file,
    list_files,
    resolve_claims,
    split_of_name,
    split_of_path,
    subject_of,
)
from anklealign.ingest.table_files import POSITION, ParsedTable, PathIndex, parse_table

TRUE = {"1", "true", "yes", "y", "t"}
# A column of 0 and 1 named after one split: the split of 1, and that of 0.
BINARY_SPLITS = {"train": ("train", "test"), "val": ("val", "train"), "test": ("test", "train")}


@dataclass(frozen=True)
class Row:
    """A row of a table, or one photo of a row that names a folder.

    `matches` are the photos that it may mean; `votes` the label texts by annotator, if there are
    several.
    """

    task: str
    path: str
    matches: tuple[str, ...]
    label: str
    votes: tuple[tuple[str, str], ...]
    annotator: str
    group: str
    split: str
    problem: str = ""


@dataclass
class _Labels:
    """The labels of the photos by their rows; each row and vote is used or a skip."""

    claims: dict[str, list[Claim]] = field(default_factory=dict)  # by photo
    votes: dict[str, list[Vote]] = field(default_factory=dict)  # by row
    rows: dict[str, Row] = field(default_factory=dict)  # by task
    reasons: dict[str, tuple[str, str]] = field(default_factory=dict)  # by photo without a label
    skips: list[Skip] = field(default_factory=list)


def read_csv_table(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos and labels of the rows of `dataset.csv`.

    Each row is a task named `<csv>#<line>`, where line 1 is the header. If the paths are folders, a
    row is one task for each photo, named `<csv>#<line>:<photo>`.

    Raises:
        ValueError: The folder or a table does not exist, or a table cannot be parsed or lacks a
            column.
    """
    labels = Labels(dataset.classes)
    files, skips = list_files(root)
    seen = len(files) + len(skips)
    named = (dataset.csv,) if isinstance(dataset.csv, str) else dataset.csv
    tables = [PurePosixPath(name).as_posix() for name in named]
    for table in tables:
        if table not in files:
            raise ValueError(
                f"{root / table} does not exist; add it, or set the dataset's csv in params.yaml"
            )
    files = [file for file in files if file not in tables]
    index = PathIndex(files)
    rows = [
        row
        for table in tables
        for row in tqdm(
            _rows(root, table, dataset, labels, index),
            "match", unit="row", delay=1, leave=False, disable=None,
        )
    ]  # fmt: skip
    result = _label_rows(rows, labels)
    row_votes = _gather_votes(result) if dataset.annotator_column is not None else 0
    settled, unsettled = resolve_claims(result.claims)
    skips += [*result.skips, *unsettled]
    votes = [vote for claim in settled.values() for vote in result.votes.get(claim.task, ())]
    tasks_seen = len(rows) - row_votes
    votes_seen = len(votes) + sum(skip.item == "vote" for skip in result.skips)

    entries = _entries(files, settled, result, dataset)
    listed = ", ".join(tables) if len(tables) < 4 else f"{len(tables)} tables"
    for file in files:
        if file not in result.claims:
            cause = result.reasons.get(file)
            if cause is None:
                other = is_other_file(root, file)
                no_row = ("no_task", f"no row of {listed} refers to it")
                cause = ("other_file", "") if other else no_row
            skips.append(Skip(file, "file", *cause))
    return Inventory(
        tuple(entries), tuple(skips), seen - len(tables), tasks_seen, len(tables),
        tuple(sorted(votes)), votes_seen,
    )  # fmt: skip


def _entries(
    files: Iterable[str], settled: Mapping[str, Claim], result: _Labels, dataset: Dataset
) -> list[Entry]:
    """Return the entry of each photo with a label."""
    pattern = compile_subject_pattern(dataset.subject_pattern)
    entries: list[Entry] = []
    for file in files:
        if claim := settled.get(file):
            row = result.rows[claim.task]
            subject = row.group
            if dataset.group_column is None:
                subject = subject_of(file, pattern, "", ())
            split = row.split or split_of_path(file, dataset.class_roots)
            # The rows of several annotators are votes and not tasks.
            task = "" if row.annotator and claim.by_vote else claim.task
            entries.append(Entry(file, claim.label, "", subject, split, task, claim.by_vote))
    return entries


def _rows(
    root: Path, name: str, dataset: Dataset, labels: Labels, index: PathIndex
) -> Iterable[Row]:
    """Yield the rows of a table."""
    header = POSITION.fullmatch(dataset.path_column) is None
    data = (root / name).read_bytes()
    table = parse_table(data, str(root / name), dataset.encoding, header=header)
    label, group, split = dataset.label_column, dataset.group_column, dataset.split_column
    votes = dataset.vote_columns or ()
    required = [dataset.path_column, group, split, dataset.annotator_column, *votes]
    if not dataset.one_hot:
        required.append(label)
    places = _places(table, str(root / name), [column for column in required if column])
    classes = []
    if dataset.one_hot:
        classes = [(n, column) for n, column in enumerate(table.columns) if labels.class_of(column)]
        if len(classes) < 2:
            raise ValueError(
                f"{root / name} has no columns named like two classes, only "
                f"{', '.join(table.columns)}; set one_hot: false, or fix the classes"
            )
    rule = index.rule_of([_cell(c, places[dataset.path_column]) for _, c in table.rows], name)
    table_split = split_of_name(PurePosixPath(name).stem)
    for line, cells in table.rows:
        values = {column: _cell(cells, place) for column, place in places.items()}
        text, problem = values.get(label or "", ""), ""
        if dataset.one_hot:
            text, problem = _hot_class(cells, classes)
        cast = [(column, values[column]) for column in votes if not labels.is_empty(values[column])]
        if label is None and len(cast) == 1:
            text, cast = cast[0][1], []
        row_split = split_of_cell(split, values[split]) if split else table_split
        path = values[dataset.path_column]
        matches = index.find(path, rule, row_split)
        row = Row(
            f"{name}#{line}", path, tuple(matches), text, tuple(cast),
            values.get(dataset.annotator_column or "", ""), values.get(group or "", ""),
            row_split, problem,
        )  # fmt: skip
        if rule.by_folder and len(matches) == 1:
            for photo in index.photos_below[matches[0]]:
                yield replace(row, task=f"{row.task}:{photo}", matches=(photo,))
        else:
            yield row


def _places(table: ParsedTable, name: str, columns: Sequence[str]) -> dict[str, int]:
    """Return the position of each column; of another case if no other one has that name."""
    places: dict[str, int] = {}
    for column in columns:
        alike = [n for n, own in enumerate(table.columns) if own.casefold() == column.casefold()]
        if column not in table.columns and len(alike) != 1:
            raise ValueError(
                f"{name} has no column {column!r}, only {', '.join(table.columns) or 'none'}; "
                "rename the column there, or set the dataset's columns in params.yaml"
            )
        places[column] = table.columns.index(column) if column in table.columns else alike[0]
    return places


def _cell(cells: Sequence[str], place: int) -> str:
    return cells[place].strip() if place < len(cells) else ""


def is_hot(cell: str) -> bool:
    """Return whether a cell of a one-hot table marks the class of its column."""
    try:
        return float(cell) == 1
    except ValueError:
        return cell.strip().casefold() in TRUE


def _hot_class(cells: Sequence[str], classes: Sequence[tuple[int, str]]) -> tuple[str, str]:
    """Return the name of the only column that is 1, and the reason if there is none."""
    hot = [column for place, column in classes if is_hot(_cell(cells, place))]
    if len(hot) == 1:
        return hot[0], ""
    return ", ".join(hot), "several_choices" if hot else "no_label"


def split_of_cell(column: str, text: str) -> str:
    """Return the predefined split that a cell means, or ''."""
    meaning = split_of_name(column)
    if meaning and re.fullmatch(r"[01](\.0)?|true|false|yes|no|y|n|t|f", text.casefold()):
        positive, negative = BINARY_SPLITS[meaning]
        return positive if is_hot(text) else negative
    return split_of_name(text)


def _label_rows(rows: Iterable[Row], labels: Labels) -> _Labels:
    """Find the label of each row."""
    result = _Labels()
    for row in rows:
        if len(row.matches) != 1:
            reason = "ambiguous" if row.matches else "missing_file"
            also = f" matches {', '.join(row.matches)}" if row.matches else ""
            result.skips.append(Skip(row.task, "task", reason, f"{row.path!r}{also}"))
            result.reasons |= dict.fromkeys(row.matches, (reason, f"{row.task} may refer to it"))
            continue
        (file,) = row.matches
        result.rows[row.task] = row
        votes, claim = _count_votes(row, file, labels, result.skips)
        if claim is None:
            label = labels.class_of(row.label)
            if label is None:
                reason, detail = _no_label(row, labels)
                result.skips.append(Skip(row.task, "task", reason, detail or f"{row.label!r}"))
                result.reasons[file] = (reason, f"{row.task}: {row.label!r}")
                continue
            claim = Claim(row.task, label)
        result.claims.setdefault(file, []).append(claim)
        if votes:
            result.votes[row.task] = votes
    return result


def _count_votes(
    row: Row, file: str, labels: Labels, skips: list[Skip]
) -> tuple[list[Vote], Claim | None]:
    """Return the votes of a row, and the claim that they make without a label of its own."""
    votes: list[Vote] = []
    for annotator, text in row.votes:
        label = labels.class_of(text)
        if label is None:
            name = f"{row.task} by {annotator}"
            skips.append(Skip(name, "vote", "label_unknown", labels.suggest(text)))
        else:
            votes.append(Vote(file, annotator, label))
    if not votes or row.label:
        return votes, None
    # Two rows of a photo agree if their votes have the same majority; '' is a tie.
    (first, most), *others = Counter(vote.label for vote in votes).most_common()
    tied = bool(others) and others[0][1] == most
    return votes, Claim(row.task, "" if tied else first, by_vote=True)


def _no_label(row: Row, labels: Labels) -> tuple[str, str]:
    if row.problem:
        return row.problem, row.label
    if labels.is_empty(row.label):
        return "no_label", ""
    if len(_known_parts(row.label, labels)) > 1:
        return "several_choices", f"{row.label!r}"
    return "label_unknown", labels.suggest(row.label)


def _known_parts(text: str, labels: Labels) -> list[str]:
    """Return the parts of a text such as a|b or [a, b] that are labels."""
    separator = r"[|;,]" if re.search(r"[|;,]", text) else r"\s"
    return [part for part in re.split(separator, text.strip("[]")) if labels.class_of(part)]


def _gather_votes(result: _Labels) -> int:
    """Turn the rows of photos with several annotators into votes; return their number."""
    number = 0
    for file, claims in sorted(result.claims.items()):
        by_annotator: dict[str, Claim] = {}
        for claim in claims:
            by_annotator[result.rows[claim.task].annotator] = claim
        if len(by_annotator) < 2 or "" in by_annotator:
            continue
        number += len(claims)
        for claim in claims:
            annotator = result.rows[claim.task].annotator
            newest = by_annotator[annotator]
            if claim is not newest:
                detail = f"{file}: by {newest.task}"
                result.skips.append(Skip(claim.task, "vote", "superseded", detail))
        first = claims[0]
        result.votes[first.task] = [
            Vote(file, annotator, claim.label) for annotator, claim in sorted(by_annotator.items())
        ]
        result.claims[file] = [Claim(first.task, first.label, by_vote=True)]
    return number
