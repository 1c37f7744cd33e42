"""Detect the layout, the labels and the subject pattern of a dataset folder.

`read_layouts` reads a folder with each layout. `choose` returns the layout with the best evidence,
or raises an error that lists the evidence and the options that decide. `name_classes` groups labels
into classes. `find_subject_pattern` tries common subject numbering schemes. Similar labels are
never merged, and unmatched labels are listed.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anklealign.cli import (
    folder_detection,
    foreign_formats,
    list_detection,
    split_columns,
    table_commands,
    table_detection,
)
from anklealign.cli.column_names import LABEL_NAMES
from anklealign.cli.dataset_config import scalar
from anklealign.cli.layout_candidates import (
    LayoutCandidate,
    LayoutCandidates,
    preview,
)
from anklealign.cli.table_readings import TABLES, classes_option, set_option, user_labels
from anklealign.config.class_names import Labels, fold, unnumbered
from anklealign.config.params import Dataset
from anklealign.ingest import consensus
from anklealign.ingest.inventory import (
    SPLIT_WORDS,
    Entry,
    compile_subject_pattern,
    escape_unprintable,
    list_files,
    split_of_name,
    subject_of,
    suffix,
)
from anklealign.ingest.label_studio_export import AnswerCounts, BrokenExportError, is_export
from anklealign.ingest.wording import counted
from anklealign.io.decode import HEAD, PHOTO_SUFFIXES, is_photo

# A class needs one photo in each of train, val and test.
FEWEST = 3
ALIKE = 0.75  # share of letters in common; pronacio and pronalo have 0.8, ants and bees 0.25
SHORTEST = 5  # letters of a name that can be misspelled; boat and goat are two words
RARE = 4  # times that one of two similar labels is rarer, if it is a misspelling by two letters
MOST_ALIKE = 5  # pairs of similar labels that are listed
FITTING = 0.9  # share of labels that an existing dataset must know for its classes to be used
# Share of photos whose labels by table and by folder must agree to be the same reading.
AGREEING = 0.99
# Common subject numbering schemes. Generic patterns come last: the first pattern wins a tie.
SUBJECT_PATTERNS = (
    r"(?P<subject>resz?t?vevo[ _-]?\d+)",
    r"(?P<subject>participant[ _-]?\d+)",
    r"(?P<subject>subj(?:ect)?[ _-]?\d+)",
    r"(?P<subject>patient[ _-]?\d+)",
    r"(?P<subject>person[ _-]?\d+)",
    r"(?P<subject>proband[ _-]?\d+)",
    r"(?P<subject>volunteer[ _-]?\d+)",
    r"(?P<subject>(?:szemely|paciens|beteg|alany)[ _-]?\d+)",
    r"(?<![a-z0-9])(?P<subject>sub[ _-]?\d+)(?![a-z0-9])",
)
# These often number photos: they are used only if numbers recur within a folder, or name folders.
SHORT_SUBJECT_PATTERNS = (
    r"(?<![a-z0-9])(?P<subject>id[ _-]?\d+)(?![a-z0-9])",
    r"(?<![a-z0-9])(?P<subject>[ps][ _-]?\d+)(?![a-z0-9])",
)
LEAST_SHARE = 0.1  # share of photos that a subject pattern must match
MOST_DIFFERENT = 0.8  # maximum share of distinct numbers; a higher share means photo numbers


@dataclass(frozen=True)
class Classes:
    """Classes with their aliases.

    Attributes:
        classes: Aliases of each class.
        like: The dataset that knows the classes, or ''.
        alike: Pairs of names that may be one class.
        more_alike: Number of further such pairs.
        by_case: Pairs of names that differ by case alone.
        origin: The class of dataset `like` that each class is.
    """

    classes: dict[str, tuple[str, ...]]
    like: str = ""
    alike: tuple[tuple[str, str], ...] = ()
    more_alike: int = 0
    by_case: tuple[tuple[str, str], ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)


def read_layouts(
    root: Path, known: Mapping[str, Dataset], forced: Mapping[str, Any] | None = None
) -> LayoutCandidates:
    """Read a folder with every layout; `forced` are config keys that the user has set.

    Raises:
        ValueError: The folder does not exist or contains no file.
    """
    forced = forced or {}
    files, _ = list_files(root)
    if not files:
        raise ValueError(f"{root} contains no file; pass the folder of the photos")
    photos = [file for file in files if _is_photo(root, file)]
    others = [file for file in files if suffix(file) not in PHOTO_SUFFIXES]
    from_exports, json_files = _exports(root, files, photos, known, forced)
    foreign, named, unread = foreign_formats.remarks(
        root, [f for f in others if suffix(f) != ".json" or f in json_files], photos
    )
    tables = [
        file
        for file in others
        if suffix(file) in TABLES
        and not consensus.in_consensus_folder(file)
        and file not in named
        and (file in json_files or not is_export(root, file))
    ]
    lists = list_detection.find_lists(root, tables, photos)
    tables = [file for file in tables if file not in {each.file for each in lists}]
    readings: list[LayoutCandidate] = []
    remarks: list[str] = [f"{len(photos)} files that look like photos, of {len(files)}"]
    table, table_notes, extras = table_detection.read_tables(
        root, tables, photos, lambda values: _decide(values, forced.get("classes")), forced
    )
    for reading, notes in (
        from_exports,
        (table, table_notes),
        folder_detection.read_folders(photos, forced),
        (folder_detection.read_file_names(photos, forced), []),
    ):
        remarks += notes
        if reading:
            readings.append(reading)
    if "table" not in {reading.layout for reading in readings} and (
        classes := list_detection.by_class(lists)
    ):
        readings.append(classes)
    listed = [*tables, *(each.file for each in lists)]
    readings = [
        replace(
            split_columns.with_extra_tables(
                _with_lists(_with_photos(reading, photos), root, listed, lists, photos),
                extras,
                forced,
            ),
            labels=reading.labels,
        )
        for reading in readings
    ]
    if not readings:
        nothing = LayoutCandidate("", "", Counter())
        remarks += split_columns.with_extra_tables(nothing, extras, forced).remarks
    remarks += foreign
    by_table = any(reading.layout == "table" for reading in readings)
    readings = [_beside_foreign(reading, unread, photos, by_table) for reading in readings]
    return LayoutCandidates(tuple(readings), tuple(remarks), len(photos), unread.advice)


def _with_photos(reading: LayoutCandidate, photos: Sequence[str]) -> LayoutCandidate:
    """Return a reading that names photos; Label Studio's exports may label any of them."""
    if reading.layout != "label_studio":
        return reading
    return replace(reading, labels=dict.fromkeys(photos, ""))


def _beside_foreign(
    reading: LayoutCandidate,
    unread: foreign_formats.ForeignLabels,
    photos: Sequence[str],
    by_table: bool,
) -> LayoutCandidate:
    """Return a reading of folders or file names that defers to the label files of other tools.

    A table comes before them; that they differ is a remark. `by_table`: whether there is one.
    """
    if reading.layout == "table" and unread.annotations and reading.labels:
        differ = unread.contradiction(reading.labels, photos, "the table")
        return replace(reading, remarks=(*reading.remarks, *filter(None, [differ])))
    if by_table or not unread.annotations or reading.layout not in {"folders", "file_names"}:
        return reading
    if reading.layout == "folders":
        return replace(reading, doubt=unread.contradiction(reading.labels, photos) or reading.doubt)
    if not reading.doubt:  # the user has set the pattern
        return reading
    return replace(reading, doubt=f"{unread.advice}; {reading.doubt}")


def _with_lists(
    reading: LayoutCandidate,
    root: Path,
    files: Sequence[str],
    lists: Sequence[list_detection.PhotoList],
    photos: Sequence[str],
) -> LayoutCandidate:
    """Return a reading with the splits of lists, and remarks on what has no label."""
    if reading.question or not reading.labels:
        return reading
    remarks = list_detection.remarks_on(lists, reading.labels)
    unlabeled = Counter(p.rpartition("/")[0] or "." for p in photos if p not in reading.labels)
    if reading.layout == "table" and unlabeled:
        places = ", ".join(
            f"{count} in {escape_unprintable(place)}" for place, count in unlabeled.most_common(3)
        )
        number = counted(unlabeled.total(), "photo is", "photos are")
        remarks.append(f"{number} without a label: {places}")
    reading = list_detection.with_splits(reading, root, files, photos)
    return replace(reading, remarks=(*reading.remarks, *remarks))


def _is_photo(root: Path, file: str) -> bool:
    if suffix(file):
        return suffix(file) in PHOTO_SUFFIXES
    with (root / file).open("rb") as stream:
        return is_photo(stream.read(HEAD))


def choose(candidates: LayoutCandidates, layout: str | None) -> LayoutCandidate:
    """Return the candidate of the requested layout, or the one with the best evidence.

    The remarks of the result name the layouts that were not chosen, and why.

    Raises:
        ValueError: No candidate or several candidates are plausible. The message lists them.
    """
    readings = [
        f"{r.layout}: {r.summary}" + " (--layout file_names)" * (r.layout == "file_names")
        for r in candidates.readings
    ]
    seen = [*readings, *candidates.remarks]
    by_layout = {reading.layout: reading for reading in candidates.readings}
    if layout is not None:
        if layout not in by_layout:
            raise ValueError(_listed(f"the folder does not look like layout {layout}", seen))
        checked = _checked(by_layout[layout], seen, requested=True)
        aside = [
            f"{r.layout}, not read: {r.summary}" for r in by_layout.values() if r.layout != layout
        ]
        return replace(checked, remarks=(*checked.remarks, *aside, *candidates.remarks[1:]))
    rivals = list(by_layout.values())
    aside = []
    if len(rivals) > 1:  # file names are evidence only without folders, tables and exports
        rivals = [reading for reading in rivals if reading.layout != "file_names"]
        aside += _words_of_codes(by_layout)
    if weaker := _weaker(by_layout, candidates.photos):
        reading, why = weaker
        rivals.remove(reading)
        aside.append(f"{reading.layout}, not chosen: {reading.summary}; {why}")
        rivals = [
            replace(rival, question=f"{rival.question}; --layout folders reads the folders' names")
            if rival.question and reading.layout == "folders"
            else rival
            for rival in rivals
        ]
        if _has_splits(reading) and not any(
            {"split_lists", "extra_csv"} & rival.keys.keys() for rival in rivals
        ):
            aside.append("the table's predefined splits are not read; --layout table reads them")
    if len(rivals) > 1 and (weak := [r for r in rivals if r.doubt]):
        rivals = [reading for reading in rivals if not reading.doubt] or rivals
        aside += [f"{r.layout}, not chosen: {r.doubt}" for r in weak if r not in rivals]
    if len(rivals) == 1:
        (only,) = rivals
        checked = _checked(only, seen, requested=False)
        return replace(checked, remarks=(*checked.remarks, *aside, *candidates.remarks[1:]))
    if not rivals:
        missing = (
            f", but {candidates.convert}"
            if candidates.convert
            else ": there are no class folders, no table that names the photos, and no Label "
            "Studio export with answers"
        )
        raise ValueError(_listed(f"no label was found{missing}", seen))
    raise ValueError(_listed(_question_between(rivals), seen))


def _words_of_codes(by_layout: Mapping[str, LayoutCandidate]) -> list[str]:
    """Return a remark if the file names have words for the codes of a table."""
    table, names = by_layout.get("table"), by_layout.get("file_names")
    if not table or not names or not all(map(_is_code, table.texts)):
        return []
    pairs = {(table.labels[p], names.labels[p]) for p in table.labels if p in names.labels}
    if not pairs or len(pairs) > min(
        len({one for one, _ in pairs}), len({two for _, two in pairs})
    ):
        return []
    words = ", ".join(f"{code} is {word}" for code, word in sorted(pairs)[:MOST_ALIKE])
    return [f"the file names have words for the labels: {words}; --layout file_names reads them"]


def _checked(reading: LayoutCandidate, seen: Sequence[str], *, requested: bool) -> LayoutCandidate:
    """Return a candidate that needs no decision by the user.

    Raises:
        ValueError: It has a question, or a doubt and was not requested.
    """
    if reading.question:
        raise ValueError(_listed(reading.question, [*seen, *reading.remarks]))
    if reading.doubt and not requested:
        meant = "if so" if reading.layout == "file_names" else "otherwise"
        problem = f"{reading.doubt}; {meant}, pass --layout {reading.layout}"
        raise ValueError(_listed(problem, [*seen, *reading.remarks]))
    return reading


def _weaker(
    by_layout: Mapping[str, LayoutCandidate], photos: int
) -> tuple[LayoutCandidate, str] | None:
    """Return the weaker of two readings of all photos and why, or None if there is none."""
    folders = by_layout.get("folders")
    if folders is None:
        return None
    if "table" in by_layout and "label_studio" not in by_layout:
        loser, why = _compare(by_layout["table"], folders, photos)
        return (loser, why) if loser else None
    if "label_studio" in by_layout:
        words = {_key(text) for text in by_layout["label_studio"].texts}
        if len(words & {_key(text) for text in folders.texts}) < 2:
            return folders, "the export has the labels"
    return None


def _compare(
    table: LayoutCandidate, folders: LayoutCandidate, photos: int
) -> tuple[LayoutCandidate | None, str]:
    """Return the weaker of two readings and why, or None if the user must decide.

    If both give the same labels, or the table codes for them (0 and 1), the one with more photos
    wins. Otherwise, a table that labels most photos wins over folders with other names: they may be
    parts, places or days, also if each of them has one label.
    """
    if table.question:
        if {_key(text) for text in folders.texts} <= {_key(text) for text in table.texts}:
            return table, "the folders have its labels"
        return folders, "a table names the photos, too"
    # A folder test beside class folders is no class of its photos.
    common = sorted(
        photo for photo in table.labels if not split_of_name(folders.labels.get(photo, "test"))
    )
    pairs = [(table.labels[photo], folders.labels[photo]) for photo in common]
    equal = sum(_key(one) == _key(other) for one, other in pairs)
    same = bool(pairs) and (
        equal >= AGREEING * len(pairs)
        or (
            all(map(_is_code, table.texts))
            and table_detection.same_partition(*map(list, zip(*pairs, strict=True)))
        )
    )
    if same and not folders.doubt:
        splits = _has_splits(table) and len(common) >= AGREEING * len(folders.labels)
        fewer = len(table.labels) < len(folders.labels)
        if len(table.labels) > len(folders.labels) or (equal and (splits or not fewer)):
            return folders, "the table has the same labels"
        return table, "the folders have the same labels"
    words = {_key(text) for text in table.texts} & {_key(text) for text in folders.texts}
    # No common photo: train/cats/1.jpg, and the label of test/2.jpg in test.csv.
    others = {name for p, name in folders.labels.items() if p not in table.labels} - {*SPLIT_WORDS}
    if (
        (not common and len(others) > 1)
        or not (folders.doubt or table.named)
        or len(words) > 1
        or 2 * len(table.labels) < min(photos, max(len(folders.labels), 1))
    ):
        return None, ""
    return folders, "the table names the photos with other labels"


def _question_between(rivals: Sequence[LayoutCandidate]) -> str:
    """Return the question that decides between layouts.

    A table and folders that label different photos can be read together.
    """
    choices = " or ".join(f"--layout {reading.layout}" for reading in rivals)
    question = f"the folder matches {len(rivals)} layouts; pass {choices}"
    by_layout = {reading.layout: reading for reading in rivals}
    column = by_layout["table"].keys.get("label_column") if "table" in by_layout else None
    if column and not by_layout["table"].named:
        option = set_option("group_column", column)
        question += f", or {option} if column {column!r} groups the photos of the folders"
    if by_layout.keys() != {"table", "folders"}:
        return question
    table, folders = by_layout["table"], by_layout["folders"]
    common = {folders.labels[photo] for photo in table.labels if photo in folders.labels}
    command = table_commands.folder_tables_command(table, folders)
    if table.question or not command or not all(map(split_of_name, common)):
        return question
    alike = {_key(text) for text in table.texts} & {_key(text) for text in folders.texts}
    classes = {name: ["…"] for name in sorted(folders.texts) if name not in common}
    option = f"; then name the table's word for each class: --set 'classes={scalar(classes)}'"
    return (
        "a table and folders label different photos; to read both, write the folders into tables, "
        f"in the folder of the dataset: {command}{'' if len(alike) > 1 else option}; to read one "
        f"alone, pass {choices}"
    )


def _has_splits(table: LayoutCandidate) -> bool:
    return len({table.splits.get(photo, "") for photo in table.labels}) > 1


def _is_code(text: str) -> bool:
    """Return whether a label says nothing by itself: a number, or a single letter."""
    return len(text.strip()) == 1 or text.strip().replace(".", "", 1).lstrip("+-").isdecimal()


def _listed(problem: str, seen: Sequence[str]) -> str:
    return "\n  ".join([f"{problem}; evidence found:", *seen])


def _exports(
    root: Path,
    files: Sequence[str],
    photos: Sequence[str],
    known: Mapping[str, Dataset],
    forced: Mapping[str, Any],
) -> tuple[tuple[LayoutCandidate | None, list[str]], set[str]]:
    """Read the folder's Label Studio exports; return the other JSON files, too."""
    answered = AnswerCounts()
    good, remarks = 0, []
    others: set[str] = set()
    holders: set[str] = set()  # folders with an export
    for file in tqdm(files, "exports", unit="file", delay=1, leave=False, disable=None):
        if consensus.in_consensus_folder(file) or not is_export(root, file):
            continue
        try:
            good += answered.add(file, (root / file).read_bytes())
        except (BrokenExportError, OSError) as error:
            if isinstance(error, BrokenExportError) and error.reason == "not_an_export":
                others.add(file)
            else:
                remarks.append(f"{escape_unprintable(file)} cannot be read: {error}; save it again")
            continue
        holders.add(file.rpartition("/")[0])
    asked = answered.counts(forced.get("label_level"))
    remarks += answered.remarks()
    if not asked:
        return (None, remarks), others
    asked = _joined(asked, known)
    question = _decide(asked, forced.get("classes"))
    ignored = [
        f"{name!r} ({preview(answers)})" for name, answers in asked.items() if name != question
    ]
    if question is None:
        remarks.append(
            f"the exports answer {len(asked)} questions: {', '.join(ignored)}; choose one by its "
            f"answers: {classes_option(sorted(next(iter(asked.values()))))}, or as a dataset in "
            "params.yaml"
        )
        return (None, remarks), others
    if ignored:
        remarks.append(f"labels are the answers to {question!r}; ignored: {', '.join(ignored)}")
    texts = asked[question]
    summary = f"{good} Label Studio export{'s' * (good > 1)} with {texts.total()} answers"
    candidate = LayoutCandidate(
        "label_studio", summary, texts, {}, tuple(remarks), _wrapped(photos, holders)
    )
    return (candidate, []), others


def _wrapped(photos: Sequence[str], holders: Collection[str]) -> str:
    """Return a warning if the collector folders are one level too deep, else an empty string."""
    tops = {file.partition("/")[0] for file in photos}
    if len(tops) != 1 or len({folder for folder in holders if "/" in folder}) < 2:
        return ""
    (top,) = tops
    name = escape_unprintable(top)
    return (
        f"all photos are in {name}, which would be read as a collector; pass {name} as the folder"
    )


def _joined(
    asked: Mapping[str, Counter[str]], known: Mapping[str, Dataset]
) -> dict[str, Counter[str]]:
    """Merge questions that share two answers, since question names differ between projects."""
    named = [_word_labels(dataset) for dataset in known.values()]

    def meaning(text: str) -> str:
        return next((name for labels in named if (name := labels.class_of(text))), _key(text))

    joined: dict[str, Counter[str]] = {}
    for question, answers in sorted(asked.items(), key=lambda item: (-len(item[1]), item[0])):
        means = {meaning(text) for text in answers}
        for other, texts in joined.items():
            # One photo's project may hold a single class.
            if len(means & {meaning(text) for text in texts}) >= min(2, len(means)):
                texts.update(answers)
                joined[f"{other}, {question}"] = joined.pop(other)
                break
        else:
            joined[question] = Counter(answers)
    return joined


def _decide(values: Mapping[str, Counter[str]], classes: object) -> str | None:
    """Return the column or question that contains the labels, or None if it is ambiguous.

    It is the only one, the only one with a usual label name, or the one whose values best match the
    dataset's own `classes`, if the user has set them. Other datasets decide nothing.
    """
    named = [name for name in values if fold(name) in LABEL_NAMES]
    for only in (list(values), named):
        if len(only) == 1:
            return only[0]
    if (labels := user_labels(classes)) is None:
        return None
    best = {name: _fitting(labels, texts).total() for name, texts in values.items()}
    first, second, *_ = sorted(best.values(), reverse=True)
    return max(best, key=lambda name: best[name]) if first > second else None


def name_classes(texts: Mapping[str, int], known: Mapping[str, Dataset]) -> Classes:
    """Group labels into classes; every label with at least FEWEST items is in one.

    Spellings that differ in accents, leading numbering or Unicode form become one class, named
    after the most frequent spelling. So do rare spellings that differ in case; frequent ones stay
    apart (the letters a and A), and are returned in `by_case`. If an existing dataset knows nearly
    all labels, its aliases join them; labels that it does not know are classes of their own.
    """
    texts = {text: count for text, count in sorted(texts.items()) if fold(text)}
    by_case = _case_pairs(texts)
    like = "" if by_case else _knowing_dataset(texts, known)
    named: dict[str, tuple[str, ...]] = {}
    origin: dict[str, str] = {}
    rest = texts
    if like:
        labels = _word_labels(known[like])
        for name, aliases in known[like].classes.items():
            own = [text for text in texts if labels.class_of(text) == name]
            if own:
                # The user's spelling of the same word, or the name that aliases stand for.
                equal = [text for text in own if fold(text) == fold(name)]
                spelling = max(equal, key=lambda text: texts[text], default=name)
                named[spelling] = tuple(a for a in aliases if any(c.isalpha() for c in a))
                origin[spelling] = name
        rest = {text: count for text, count in texts.items() if labels.class_of(text) is None}
    others = _group_spellings(rest, {text for pair in by_case for text in pair})
    named |= {name: others[name] for name in sorted(others, key=lambda name: (fold(name), name))}
    counts = {
        name: texts.get(name, 0) + sum(texts.get(a, 0) for a in named[name]) for name in named
    }
    pairs = _alike_pairs(counts)
    return Classes(named, like, pairs[:MOST_ALIKE], len(pairs[MOST_ALIKE:]), by_case, origin)


def _knowing_dataset(texts: Mapping[str, int], known: Mapping[str, Dataset]) -> str:
    """Return the dataset that knows the most labels, if it knows two and nearly all, or ''."""
    texts = {text: count for text, count in texts.items() if count >= FEWEST}
    covered = {
        name: fitting.total()
        for name, dataset in known.items()
        if len(fitting := _fitting(_word_labels(dataset), texts)) > 1
    }
    best = max(covered, key=lambda name: covered[name], default="")
    return best if best and covered[best] >= FITTING * sum(texts.values()) else ""


def _case_pairs(texts: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of frequent labels that differ by case alone."""
    by_fold: dict[str, list[str]] = defaultdict(list)
    for text, count in texts.items():
        if count >= FEWEST:
            by_fold[text.strip().casefold()].append(text)
    return tuple(
        pair
        for forms in by_fold.values()
        for pair in combinations(forms, 2)
        if pair[0].strip() != pair[1].strip()
    )


def _group_spellings(
    texts: Mapping[str, int], by_case: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the other spellings of each class, named after the most frequent one."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    taken = {_key(text) for text in by_case}
    for text, count in texts.items():
        if _key(text) not in taken:
            spellings[_key(text)][text] += count
    for key, forms in list(spellings.items()):
        # 1_left and 2_left are two classes, distinguished only by their numbers.
        numbers = {fold(text) for text in forms if fold(text) != key}
        if len({form.removesuffix(key) for form in numbers}) > 1:
            del spellings[key]
            for text, count in forms.items():
                spellings[fold(text)][text] += count
    # Texts are counted in sorted order, so that ties are resolved deterministically.
    counted = [forms.most_common() for forms in spellings.values() if forms.total() >= FEWEST]
    named = {usual: tuple(sorted(t for t, _ in others)) for (usual, _), *others in counted}
    return named | dict.fromkeys(by_case, ())


def _alike_pairs(counts: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of classes of which one may be a misspelling, the most similar first.

    They differ by one or two letters, and one is much rarer; or they differ by one letter, and
    neither has another name so close, as numbered or lettered classes have.
    """
    words = {name: re.sub(r"\d", "", _key(name)) for name in counts}
    near: dict[str, set[str]] = defaultdict(set)
    far: dict[str, set[str]] = defaultdict(set)
    for name, word in words.items():
        if len(word) >= SHORTEST:
            near[word].add(name)
            for k in range(len(word)):
                once = word[:k] + word[k + 1 :]
                near[once].add(name)
                if len(word) <= 4 * SHORTEST:  # two misspelled letters in a long name: rare
                    for n in range(k, len(once)):
                        far[once[:n] + once[n + 1 :]].add(name)
                far[once].add(name)
    close = _pairs_of(near.values(), words)
    neighbors = Counter(name for pair in close for name in pair)
    ratios: dict[tuple[str, str], float] = {}
    for pair in close | _pairs_of(far.values(), words):
        one, other = pair
        ratio = difflib.SequenceMatcher(a=words[one], b=words[other], autojunk=False).ratio()
        few, many = sorted((counts[one], counts[other]))
        lone = pair in close and neighbors[one] == neighbors[other] == 1
        if ratio >= ALIKE and (few * RARE <= many or lone):
            ratios[pair] = ratio
    return tuple(sorted(ratios, key=lambda pair: (-ratios[pair], pair)))


def _pairs_of(
    groups: Collection[Collection[str]], words: Mapping[str, str]
) -> set[tuple[str, str]]:
    """Return the pairs of names with different words in each group of up to twenty."""
    return {
        pair
        for names in groups
        if 1 < len(names) <= 20
        for pair in combinations(sorted(names), 2)
        if words[pair[0]] != words[pair[1]]
    }


def _key(text: str) -> str:
    return unnumbered(fold(text))


def _word_labels(dataset: Dataset) -> Labels:
    """Return a dataset's labels without numeric aliases, whose meaning differs by dataset."""
    classes = {
        name: [a for a in aliases if any(c.isalpha() for c in a)]
        for name, aliases in dataset.classes.items()
    }
    return Labels(classes)


def _fitting(labels: Labels, texts: Mapping[str, int]) -> Counter[str]:
    """Count the labels that match each class."""
    fitting: Counter[str] = Counter()
    for text, count in texts.items():
        name = labels.class_of(text)
        if name is not None:
            fitting[name] += count
    return fitting


def find_subject_pattern(entries: Sequence[Entry], known: Mapping[str, Dataset]) -> str | None:
    """Return the pattern that identifies the subject of the most photos, or None.

    Patterns whose numbers rarely recur are rejected, because they number photos, not subjects. So
    are p1.jpg and id1.jpg, one of each in several folders.
    """
    collectors = {entry.collector for entry in entries} - {""}
    own = [dataset.subject_pattern for dataset in known.values() if dataset.subject_pattern]
    best, most = None, 0
    tried = dict.fromkeys([*own, *SUBJECT_PATTERNS, *SHORT_SUBJECT_PATTERNS])
    for text in tqdm(tried, "subjects", unit="pattern", delay=1, leave=False, disable=None):
        pattern = compile_subject_pattern(text)
        subjects = [subject_of(e.file, pattern, e.collector, collectors) for e in entries]
        known_subjects = [subject for subject in subjects if subject]
        repeated = 2 <= len(set(known_subjects)) <= MOST_DIFFERENT * len(known_subjects)
        if text in SHORT_SUBJECT_PATTERNS and repeated:
            in_folders = {
                (subject, entry.file.rpartition("/")[0])
                for subject, entry in zip(subjects, entries, strict=True)
                if subject
            }
            repeated = len(in_folders) <= MOST_DIFFERENT * len(known_subjects)
        enough = len(known_subjects) >= LEAST_SHARE * len(subjects)
        if repeated and enough and len(known_subjects) > most:
            best, most = text, len(known_subjects)
    return best
