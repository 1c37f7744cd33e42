"""Find the tables of a folder that label its photos, by evidence from their cells.

Tables with the same columns are read together. `path_columns` finds the photos that their rows
name, `split_columns` their splits and groups. Labels are a column that recurs, one column per
class, or the votes of several annotators. Whatever the evidence does not decide becomes a question
with the option that decides it, and every table and column that is not used is named.
"""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from anklealign.cli import one_hot_columns, path_columns, split_columns, table_commands
from anklealign.cli.column_names import (
    ANNOTATOR_NAMES,
    ATTRIBUTES,
    CASE_NAMES,
    GROUP_NAMES,
    LABEL_NAMES,
    SIDES,
    SPLIT_NAMES,
)
from anklealign.cli.dataset_config import scalar
from anklealign.cli.layout_candidates import LayoutCandidate, preview
from anklealign.cli.table_readings import (
    GUESSED_ENCODINGS,
    LONGEST_LIST,
    MANY,
    RIVAL,
    PathColumn,
    TableGroup,
    TableReading,
    csv_option,
    load_tables,
    name_list,
    set_option,
    split_first,
    without_numbers,
)
from anklealign.config.class_names import EMPTY, fold
from anklealign.ingest import csv_table, label_cells
from anklealign.ingest.table_files import PathIndex
from anklealign.ingest.wording import counted

RATER = re.compile(
    r"(?P<stem>rater|annotator|annot|reader|reviewer|expert|observer|doctor|dr|grader|labell?er"
    r"|vote|voter|coder|judge|worker|user|label|class|diagnosis|pathologist|radiologist"
    r"|dermatologist|r|a)[ .]*(?P<id>\d+|[a-z])"
)
MULTIPLE = re.compile(r"[|;,]")
QUESTIONS = {"label", "class", "diagnosis"}  # what is asked, not who answers
OF_PARTS = "; if each labels a part of the photo, cut the photos into these parts, a row each"
LEAST_KAPPA = 0.2  # "fair" agreement (Landis and Koch, 1977): columns of the same question

# Returns the column that holds the labels, or None if that is ambiguous.
Decide = Callable[[Mapping[str, Counter[str]]], str | None]


def read_tables(
    root: Path,
    files: Iterable[str],
    photos: Sequence[str],
    decide: Decide,
    forced: Mapping[str, Any],
) -> tuple[LayoutCandidate | None, list[str], list[TableReading]]:
    """Return the tables that label the most photos, remarks on the others, and these others.

    Args:
        root: The dataset's folder.
        files: Files that may be tables.
        photos: Photos that the tables may name.
        decide: Decides between label columns by their names and the classes that the user has set.
        forced: Keys of the dataset config that the user has set.
    """
    index = PathIndex(photos)
    groups, remarks = load_tables(root, files, index, forced)
    readings: list[TableReading] = []
    extras: list[TableReading] = []
    for group in groups:
        reading, notes = _read_group(group, index, decide, forced)
        remarks += notes if group.chosen else []
        if reading:
            (readings if group.chosen else extras).append(reading)
    _ask_about_numbers(readings, forced)
    joins = _joins([group for group in groups if group.chosen], readings)
    nameless = tuple(f"{name}: no row names a photo" for name in joins)
    remarks = [remark for remark in remarks if not remark.startswith(nameless)] + [*joins.values()]
    extras += [reading for reading in readings if not reading.labels]
    labeled = _merged([reading for reading in readings if reading.labels])
    # Of equal tables, the one with a header is read; a column label counts for more than photos.
    labeled.sort(
        key=lambda r: (not _usual(r), -len(r.labels), r.path.name.startswith("#"), r.group.files)
    )
    asked = [reading for reading in readings if reading.question]
    remarks += [
        f"{reading.group.name}: not read: {reading.problem}"
        for reading in readings
        if reading.problem
        and not reading.question
        and (forced.get("csv") or not split_columns.is_extra(reading))
    ]
    if asked:
        first = max(asked, key=lambda reading: (reading.path.matched, reading.group.files))
        if not labeled or _asks_rather(first, labeled[0]):
            if labeled:
                other = labeled[0].group
                option = csv_option(other)
                first.question += f"; {option} reads the labels of {other.name} instead"
            return _candidate(first, remarks), [], extras
    if not labeled:
        return None, remarks, extras
    best, *others = labeled
    split_columns.take_folder_splits(best)
    question = _compare(best, others)
    best.remarks += [f"{r.question}; not read" for r in asked]
    best.question = question
    return _candidate(best, remarks), [], [*extras, *labeled]


def _asks_rather(asked: TableReading, labeled: TableReading) -> bool:
    """Return whether the question of a table comes before the labels of another one.

    It does if the table names as many photos, unless the other one alone names its labels so, or
    more than twice as many photos.
    """
    usual = _usual(labeled) and not any(fold(c) in LABEL_NAMES for c in asked.group.columns)
    share = asked.path.distinct / len(labeled.labels)
    return share * MANY > 1 or (share >= RIVAL and not usual)


def _usual(reading: TableReading) -> bool:
    """Return whether the columns of the labels are named like labels, or one per class."""
    return (
        bool(reading.keys.get("one_hot"))
        or fold(str(reading.keys.get("label_column", ""))) in LABEL_NAMES
    )


def _read_group(
    group: TableGroup, index: PathIndex, decide: Decide, forced: Mapping[str, Any]
) -> tuple[TableReading | None, list[str]]:
    """Return the labels of tables with the same columns, or remarks if they name no photo."""
    split = forced.get("split_column")
    if "split_column" not in forced:
        split = split_columns.find_split_column(group)
    path, notes, question = path_columns.find_path_column(group, index, forced, split)
    if path is None or path.by_folder or path.several:
        reading = path_columns.path_in_two_columns(group, index, forced)
        if reading:
            return reading, []
    if path is None:
        return None, notes
    reading = TableReading(group, path, remarks=notes, question=question, sure=not question)
    if split in group.columns:
        reading.keys["split_column"] = split
    if question:
        if path.several:  # compared with folders, which may have the same labels
            reading.texts.update(cell for _, cells in group.rows for cell in cells)
        else:
            _drop_idle_question(reading, decide, forced)
        return reading, []
    if path.several:
        notes.append(f"{group.name}: {path_columns.of_several(group, path)}; these are not read")
    if path.by_folder:
        _expand(reading, index)
    _find_labels(reading, decide, forced)
    reading.splits = split_columns.row_splits_by_photo(reading)
    return reading, []


def _drop_idle_question(reading: TableReading, decide: Decide, forced: Mapping[str, Any]) -> None:
    """Drop the question which photos a table names, if it has neither labels nor groups."""
    trial = TableReading(reading.group, reading.path)
    _find_labels(trial, decide, forced)
    reading.texts = trial.texts
    if trial.problem and not split_columns.is_extra(trial):
        reading.question, reading.problem = "", trial.problem


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
    guessed = []
    if group.encoding != "utf-8":
        keys["encoding"] = group.encoding
        if group.encoding in GUESSED_ENCODINGS:
            guessed.append(
                f"{group.name}: no UTF-8, read as {group.encoding}; if its letters look wrong, "
                "save it as UTF-8, or pass its encoding, such as --set encoding=shift_jis"
            )
    summary = f"{group.name} with {len(group.rows)} rows, {path.matched} of which name a photo"
    if reading.folders:
        summary = f"{group.name} names {reading.folders} folders with {path.matched} photos"
    return LayoutCandidate(
        "table",
        summary,
        reading.texts,
        keys,
        (*reading.remarks, *guessed, *remarks),
        doubt=_doubt(reading),
        question=reading.question,
        labels=reading.labels,
        splits=reading.splits,
        named=_usual(reading) or bool(reading.folders) or "vote_columns" in reading.keys,
    )


def _doubt(reading: TableReading) -> str:
    """Return why folders with a label of their own may be classes, or ''.

    Subjects and cases are numbered, or in a column of that name; WordNet numbers are classes.
    """
    path = reading.path
    if not reading.folders or reading.question or fold(path.name) in GROUP_NAMES | CASE_NAMES:
        return ""
    cells = sorted(set(reading.group.column(path.place)))
    numbered = len({without_numbers(cell) for cell in cells}) == 1
    if numbered and re.search(r"\d", cells[0]) and not re.fullmatch(r"n\d{8}", cells[0]):
        return ""
    return (
        f"{reading.group.name} gives folders ({name_list(cells[:3])}) the labels of column "
        f"{reading.keys.get('label_column')!r}; if the folders are the classes, pass --layout "
        "folders"
    )


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
    own = forced.get("group_column")
    if "group_column" not in forced:
        own = split_columns.find_group_column(values, reading)
        if own is None and reading.folders:
            own = path.name
    if own in group.columns:
        reading.keys["group_column"] = own
        used.add(own)
    used.add(forced.get("label_column") or "")  # the user's, whatever its name
    others = {name: values[name] for name in values if name not in used}
    reading.folds = split_columns.find_folds(others)
    used |= {*reading.folds, *split_columns.find_coded_splits(reading, others)}
    used.discard(forced.get("label_column") or "")
    rest = {name: cells for name, cells in values.items() if name not in used}
    annotator = forced.get("annotator_column") or _annotator_column(rest, path)
    if annotator:
        reading.keys["annotator_column"] = annotator
        used.add(annotator)
        rest.pop(annotator, None)
    used |= _label_columns(reading, rest, decide, forced)
    if not reading.labels:
        return
    unused = [name for name in values if name not in used and any(values[name])]
    folds = split_columns.fold_remarks(reading, [*reading.folds, *unused])
    reading.remarks += [*reading.unread.values(), *folds]
    if unused := [n for n in unused if not any(f" column {n!r} " in remark for remark in folds)]:
        reading.remarks.append(f"{group.name}: columns not read: {name_list(unused)}")


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
    hot = [name for name in values if one_hot_columns.is_binary(counts[name])]
    if votes:
        others = [name for name in hot if name not in votes and "vote_columns" not in forced]
        reading.question = one_hot_columns.beside_votes(reading, values, others, votes)
        return set() if reading.question else _take_votes(reading, values, votes, named)
    if forced.get("one_hot") or (not named and len([n for n in hot if len(counts[n]) > 1]) > 1):
        words = [
            name for name, texts in recurring.items()
            if name not in hot and fold(name) not in ATTRIBUTES | SPLIT_NAMES
            and any(character.isalpha() for text in texts for character in text)
        ]  # fmt: skip
        if forced.get("one_hot"):
            words = []
        if classes := one_hot_columns.take_classes(reading, values, hot, words, forced):
            return set(classes)
        if reading.question:
            reading.question += _votes_option(hot, counts)
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
    empty = sum(
        bool(photo) and fold(cell) in EMPTY
        for photo, cell in zip(reading.path.photos, cells, strict=True)
    )
    if empty > MANY * rows:
        reading.remarks.append(
            f"{reading.group.name}: column {name!r} is empty in {empty} of {rows} rows; cells that "
            "a spreadsheet merged must be filled"
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
            f"the photo; if they are votes, add a column annotator{OF_PARTS}"
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
    three columns of words agree above chance and none of them stands for one side of a body.
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
    agree = len(names) > 2 and not _name_sides(names) and _agree([values[n] for n in names])
    return names if agree else []


def _name_sides(names: Iterable[str]) -> bool:
    """Return whether columns stand for the left and the right side."""
    words = {word for name in names for word in fold(name).split()}
    return any(words.issuperset(pair) for pair in SIDES)


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
    maybe_parts = len(alike) == 2 or _name_sides(alike)
    return f", or with --set {option} if each is one annotator's{OF_PARTS * maybe_parts}"


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
    named: Sequence[str],
) -> set[str]:
    """Read one column of labels per annotator, and the only `named` label column beside them."""
    own = named[0] if len(named) == 1 else None
    reading.keys |= {"vote_columns": tuple(votes), "label_column": own}
    reading.remarks.append(
        f"{reading.group.name}: columns {name_list(votes)} are votes of {len(votes)} annotators"
    )
    for number, photo in enumerate(reading.path.photos):
        cast = Counter(
            values[name][number] for name in votes if fold(values[name][number]) not in EMPTY
        )
        text = values[own][number] if own else ""
        if photo and (text or cast):
            reading.texts.update([text] if text else cast)
            reading.add(number, text or cast.most_common(1)[0][0])
    return {*votes, *([own] if own else [])}


def _wanted_column(name: str, values: Mapping[str, list[str]]) -> tuple[str | None, str]:
    """Return the label column that the user has set, or None and the reason."""
    if name in values:
        return name, ""
    return None, f"it has no column {name!r}, only {name_list(list(values))}"


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
    plausible = [
        name for name, texts in recurring.items() if name in named or not _is_measured(texts)
    ]
    described = [
        name for name in plausible
        if fold(name) not in ATTRIBUTES
        and not split_columns.is_named_like_splits(reading.group, name)
    ]  # fmt: skip
    if not described:
        name = next(iter(recurring))
        return None, (
            f"column {name!r} ({preview(recurring[name], 3)}) is no label by its name or numbers; "
            f"{set_option('label_column', name)} reads it as labels, and "
            f"{set_option('group_column', name)} keeps each value in one split"
        )
    second = [
        other
        for other in _second_labels(named, recurring)
        if not any(same_partition(values[name], values[other]) for name in named)
    ]
    named = [*named, *second]
    for names in (named, plausible, described):
        partitions = _distinct_partitions(reading, names, values)
        if len(partitions) == 1:
            return partitions[0], ""
    decided = decide({name: recurring[name] for name in named or recurring})
    if decided and not second:
        return decided, ""
    listed = ", ".join(
        f"{name!r} ({preview(texts, 3)})" for name, texts in list(recurring.items())[:LONGEST_LIST]
    )
    names = (list(named) or described)[:LONGEST_LIST]
    options = " or ".join(set_option("label_column", name) for name in names)
    options += _votes_option(names, recurring)
    return None, f"several columns may contain the labels: {listed}; choose with {options}"


def _is_measured(texts: Iterable[str]) -> bool:
    """Return whether cells are numbers with fractions, such as ages or probabilities."""
    matches = [re.fullmatch(r"[+-]?\d*(?:[.,](\d+))?", text) for text in texts]
    return all(matches) and any(match and (match[1] or "").strip("0") for match in matches)


def _second_labels(named: Sequence[str], recurring: Mapping[str, Counter[str]]) -> list[str]:
    """Return the columns with the same labels as a column that they are named after: label_2."""
    return [
        other
        for other, texts in recurring.items()
        if other not in named
        and any(
            re.search(rf"\b{re.escape(fold(name))}(\b|\d)", fold(other))
            and _share_labels([set(recurring[name]), set(texts)])
            for name in named
        )
    ]


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
        files = tuple(sorted({*group.files, *other.group.files}, key=split_first))
        first.group = replace(group, files=files, rows=(*group.rows, *other.group.rows))
        first.path = replace(path, photos=(*path.photos, *other.path.photos))
        first.labels = other.labels | first.labels
        first.splits = other.splits | first.splits
        first.by_table |= other.by_table
        first.texts += other.texts
        first.remarks += other.remarks
    return first


def _joins(groups: Sequence[TableGroup], readings: Sequence[TableReading]) -> dict[str, str]:
    """Return a remark on each table whose rows name rows or groups of a table with photos."""
    named = {
        reading.group.files
        for reading in readings
        if reading.labels or reading.question or reading.folders
    }
    keys = [
        (reading, name, cells)
        for reading in readings
        for place, name in enumerate(reading.group.columns)
        if place != reading.path.place and table_commands.is_delimited(reading.group)
        and len(cells := set(reading.group.column(place)) - {""}) > 1
    ]  # fmt: skip
    remarks: dict[str, str] = {}
    for group in groups:
        own = group.column(0)
        if group.files in named or len(group.columns) < 2 or len(set(own)) < len(own):
            continue
        for reading, key, cells in keys:
            photos = reading.group
            each = len(cells) == len(photos.rows)  # a row per photo; a group's rows are fewer
            common = len(cells.intersection(own))
            found = common >= (MANY if each else RIVAL) * len(cells) and (
                common > RIVAL * len(own) or not each
            )
            if photos.files == group.files or not table_commands.is_delimited(group) or not found:
                continue
            if key.startswith("#") and not each:
                continue
            kind = f"those of {photos.name}" if each else f"column {key!r} of {photos.name}"
            remarks[group.name] = f"{group.name}: its rows name {kind}, which has the paths; " + (
                _reason_not_to_join(group, readings)
                or "join them in one line, in the folder of the dataset: "
                + table_commands.join_command(photos, group, key, reading.path.name)
            )
            break
    return remarks


def _ask_about_numbers(readings: Sequence[TableReading], forced: Mapping[str, Any]) -> None:
    """Ask about each table of numbered groups whose numbers are also names of photos.

    Another table has these numbers in a column of the same name, beside the names of the photos.
    """
    for reading, photos in permutations(readings, 2):
        group, other, name = reading.group, photos.group, reading.path.name
        keys = [column for column in other.columns if fold(column) == fold(name)]
        if "path_column" in forced or reading.path.tier or not keys or photos.path.name in keys:
            continue
        numbers = set(group.column(reading.path.place)) - {""}
        cells = set(other.column(other.columns.index(keys[0])))
        if len(numbers & cells) < RIVAL * len(numbers):
            continue
        command = "write its columns into that table"
        if all(map(table_commands.is_delimited, (group, other))):
            command = "join them in one line, in the folder of the dataset: "
            command += table_commands.join_command(
                other, group, keys[0], photos.path.name, right=name
            )
        reading.question = (
            f"{group.name}: the numbers in column {name!r} are names of photos, and cells in "
            f"column {keys[0]!r} of {other.name}, which has the paths; for these, {command}; for "
            f"the photos, pass {csv_option(group)} {set_option('path_column', name)}"
        )
        reading.labels, reading.sure = {}, False


def _reason_not_to_join(group: TableGroup, readings: Sequence[TableReading]) -> str:
    """Return why a table that names no photo adds nothing to those that do, or ''."""
    columns = group.columns[1:]
    for reading in readings:
        if reading.labels and {*group.columns} <= {*reading.group.columns}:
            return f"{reading.group.name} has its columns, too"
    if all(fold(column) in ATTRIBUTES for column in columns):
        return f"not read: {name_list(columns)} are no labels, groups or splits by their names"
    return ""


def _compare(best: TableReading, others: Sequence[TableReading]) -> str:
    """Add a remark on each other reading, or return the question between two of them."""
    if question := _conflict_within(best):
        return question
    for other in others:
        common = sorted(best.labels.keys() & other.labels.keys())
        same = same_partition(
            [best.labels[photo] for photo in common], [other.labels[photo] for photo in common]
        )
        votes = bool({"vote_columns", "annotator_column"} & other.keys.keys())
        where = (
            f"{other.group.name}: {'votes on' if votes else 'labels of'} {len(other.labels)} photos"
        )
        option = csv_option(other.group)
        named = _usual(best) and not _usual(other) and "label_column" in other.keys
        many = len(common) > MANY * len(best.labels) and not named
        few = named and len(best.labels) < MANY * len(other.labels)
        if (common and not same and many) or few:
            problem = "differ from" if few else "contradict"
            options = f"{csv_option(best.group)} or {option}"
            return f"{where} {problem} those of {best.group.name}; pass {options}"
        best.remarks.append(
            f"{where}, the same as in {best.group.name}, are not read"
            if common and same and not votes
            else f"{where} are not read; {option} reads them"
        )
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
                options = " or ".join(set_option("csv", file) for file in (one, other))
                number = counted(differing, "photo", "photos")
                votes = table_commands.votes_command(reading.group)
                return (
                    f"{one} and {other} label {number} differently; pass {options}"
                    + f"; if they are the votes of annotators, {votes}" * bool(votes)
                )
    return ""
