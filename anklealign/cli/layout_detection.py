"""Detect the layout, the labels and the subject pattern of a dataset folder.

`read_layouts` reads a folder with each layout. `choose` returns the only plausible layout, or
raises an error that lists the evidence. `name_classes` groups labels into classes, using the
aliases of existing datasets. `find_subject_pattern` tries common subject numbering schemes. Similar
labels are never merged, and unmatched labels are listed.
"""

import difflib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels, fold, unnumbered
from anklealign.config.params import Dataset
from anklealign.ingest import consensus, csv_table, label_studio_export
from anklealign.ingest.filename_matching import is_code
from anklealign.ingest.inventory import (
    Entry,
    compile_subject_pattern,
    escape_unprintable,
    list_files,
    predefined_split_of,
    subject_of,
    suffix,
)
from anklealign.ingest.label_studio import is_export
from anklealign.ingest.label_studio_export import BrokenExportError
from anklealign.io.decode import HEAD, PHOTO_SUFFIXES, is_photo

# Larger files are not searched for labels.
LARGEST_TABLE = 256 << 20  # bytes
TABLES = {".csv", ".tsv", ".txt"}
# Columns by their usual names, English and Hungarian, folded; used only as a fallback.
LABEL_NAMES = {
    "choice", "choices", "label", "labels", "class", "class name", "classname", "category",
    "target", "species", "breed", "diagnosis", "diagnozis", "cimke", "osztaly", "kategoria",
}  # fmt: skip
GROUP_NAMES = {
    "group", "group id", "subject", "person id", "patient", "patient id", "subject id",
    "participant id", "animal", "animal id", "szemely", "paciens", "beteg",
    "resztvevo", "alany",
}  # fmt: skip
# Excel's encodings in Hungary and Western Europe; the bytes alone do not distinguish them.
OLD_ENCODINGS = ("cp1250", "cp1252")
ENOUGH = 2000  # rows used to find the path column
# A class needs one photo in each of train, val and test.
FEWEST = 3
ALIKE = 0.75  # share of letters in common; pronacio and pronalo have 0.8, ants and bees 0.25
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
    r"(?<![a-z0-9])(?P<subject>id[ _-]?\d+)(?![a-z0-9])",
    r"(?<![a-z0-9])(?P<subject>[ps][ _-]?\d+)(?![a-z0-9])",
)
LEAST_SHARE = 0.1  # share of photos that a subject pattern must match
MOST_DIFFERENT = 0.8  # maximum share of distinct numbers; a higher share means photo numbers


@dataclass(frozen=True)
class LayoutCandidate:
    """The result of reading a folder with one layout.

    `texts` counts the photos, answers or rows of each label. `keys` are the config keys of the
    table layout. `remarks` are lines of the report. A layout with a `doubt` is chosen only if
    the user requests it.
    """

    layout: str
    summary: str
    texts: Counter[str]
    keys: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    doubt: str = ""


@dataclass(frozen=True)
class LayoutCandidates:
    """All layouts that can read a folder, and remarks on files that no layout can read."""

    readings: tuple[LayoutCandidate, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Classes:
    """Classes with their aliases.

    `like` is the dataset that defines the classes, or ''. `alike` are pairs of similar names.
    """

    classes: dict[str, tuple[str, ...]]
    like: str = ""
    alike: tuple[tuple[str, str], ...] = ()


def read_layouts(root: Path, known: Mapping[str, Dataset]) -> LayoutCandidates:
    """Read a folder with every layout.

    Raises:
        ValueError: The folder does not exist or contains no file.
    """
    files, _ = list_files(root)
    if not files:
        raise ValueError(f"{root} contains no file; pass the folder of the photos")
    photos = [file for file in files if _is_photo(root, file)]
    readings: list[LayoutCandidate] = []
    remarks: list[str] = [f"{len(photos)} files that look like photos, of {len(files)}"]
    for reading, notes in (
        _exports(root, files, photos, known),
        _table(root, files, photos, known),
        _folders(photos),
    ):
        remarks += notes
        if reading:
            readings.append(reading)
    return LayoutCandidates(tuple(readings), tuple(remarks))


def _is_photo(root: Path, file: str) -> bool:
    if suffix(file):
        return suffix(file) in PHOTO_SUFFIXES
    with (root / file).open("rb") as stream:
        return is_photo(stream.read(HEAD))


def choose(candidates: LayoutCandidates, layout: str | None) -> LayoutCandidate:
    """Return the candidate of the requested layout, or the only plausible candidate.

    Labels in an export or table take precedence over folder names, unless both use the same words.

    Raises:
        ValueError: No candidate or several candidates are plausible. The message lists them.
    """
    seen = [*(f"{r.layout}: {r.summary}" for r in candidates.readings), *candidates.remarks]
    by_layout = {reading.layout: reading for reading in candidates.readings}
    if layout is not None:
        if layout not in by_layout:
            raise ValueError(_listed(f"the folder does not look like layout {layout}", seen))
        return by_layout[layout]
    written = [reading for reading in candidates.readings if reading.layout != "folders"]
    folders = by_layout.get("folders")
    if folders and written:
        words = {_key(text) for reading in written for text in reading.texts}
        if len(words & {_key(text) for text in folders.texts}) < 2:
            folders = None
    rivals = [*written, *([folders] if folders else [])]
    if len(rivals) == 1:
        (only,) = rivals
        if only.doubt:
            raise ValueError(_listed(f"{only.doubt}; otherwise pass --layout {only.layout}", seen))
        return only
    if not rivals:
        raise ValueError(
            _listed(
                "no label was found: there are no class folders, no CSV that names the photos, and "
                "no Label Studio export with answers",
                seen,
            )
        )
    choices = " or ".join(f"--layout {reading.layout}" for reading in rivals)
    raise ValueError(_listed(f"the folder matches {len(rivals)} layouts; pass {choices}", seen))


def _listed(problem: str, seen: Sequence[str]) -> str:
    return "\n  ".join([f"{problem}; evidence found:", *seen])


def _exports(
    root: Path, files: Sequence[str], photos: Sequence[str], known: Mapping[str, Dataset]
) -> tuple[LayoutCandidate | None, list[str]]:
    """Read the folder's Label Studio exports."""
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    good, remarks = 0, []
    holders: set[str] = set()  # folders with an export
    for file in tqdm(files, "exports", unit="file", delay=1, leave=False, disable=None):
        if consensus.in_consensus_folder(file) or not is_export(root, file):
            continue
        try:
            answered = label_studio_export.count_answers(file, (root / file).read_bytes())
        except (BrokenExportError, OSError) as error:
            remarks.append(f"{escape_unprintable(file)} is not a valid export: {error}")
            continue
        good += bool(answered)
        holders.add(file.rpartition("/")[0])
        for name, answers in answered.items():
            asked[name].update(answers)
    if not asked:
        return None, remarks
    asked = _joined(asked, known)
    question = _decide(asked, known)
    others = [f"{name!r} ({_few(answers)})" for name, answers in asked.items() if name != question]
    if question is None:
        remarks.append(
            f"the exports answer {len(asked)} questions: {', '.join(others)}; add a dataset "
            "config with the classes of the right one to params.yaml, and run this again"
        )
        return None, remarks
    if others:
        remarks.append(f"labels are the answers to {question!r}; ignored: {', '.join(others)}")
    texts = asked[question]
    summary = f"{good} Label Studio export{'s' * (good > 1)} with {texts.total()} answers"
    return LayoutCandidate(
        "label_studio", summary, texts, {}, tuple(remarks), _wrapped(photos, holders)
    ), []


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
    spoken = [_word_labels(dataset) for dataset in known.values()]

    def meaning(text: str) -> str:
        return next((name for labels in spoken if (name := labels.class_of(text))), _key(text))

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


def _table(
    root: Path, files: Sequence[str], photos: Sequence[str], known: Mapping[str, Dataset]
) -> tuple[LayoutCandidate | None, list[str]]:
    """Read the CSV file that refers to the most photos."""
    lists = [
        file
        for file in files
        if suffix(file) in TABLES
        and not consensus.in_consensus_folder(file)
        and not is_export(root, file)
        and (root / file).stat().st_size <= LARGEST_TABLE
    ]
    paths = csv_table.PathIndex(photos)
    remarks: list[str] = []
    others: list[str] = []  # tables that name no photo
    best: tuple[int, str, str, list[str], list[list[str]], int] | None = None
    for file in lists:
        try:
            encoding, columns, rows = _decoded((root / file).read_bytes(), str(root / file))
        except (ValueError, OSError) as error:
            remarks.append(escape_unprintable(str(error)))
            continue
        folder = file.rpartition("/")[0]
        if any(_named(paths, cell, folder) for cell in columns):
            remarks.append(
                f"{escape_unprintable(file)} has no header line; add one, such as path,label"
            )
            continue
        # Count distinct photos, since a column of small numbers refers to few photos repeatedly.
        hits = [
            len({f for row in rows[:ENOUGH] if n < len(row) for f in _named(paths, row[n], folder)})
            for n in range(len(columns))
        ]
        if not any(hits):
            others += [_nameless(file, row) for row in rows[:1] if len(row) > 1]
            continue
        place = hits.index(max(hits))
        most = sum(len(_named(paths, row[place], folder)) for row in rows if place < len(row))
        remarks.append(
            f"{escape_unprintable(file)}: {most} of {len(rows)} rows name a photo in column "
            f"{columns[place]!r}; read as {encoding}"
        )
        if best is None or most > best[0]:
            best = (most, file, encoding, columns, rows, place)
    if best is None:
        return None, remarks + others
    most, file, encoding, columns, rows, place = best
    label, why = _label_column(columns, rows, place, known)
    if label is None:
        return None, [*remarks, f"{escape_unprintable(file)}: {why}"]
    keys = {"csv": file, "path_column": columns[place], "label_column": columns[label]}
    if encoding != "utf-8":
        keys["encoding"] = encoding
    groups = [
        n for n, name in enumerate(columns) if n not in {label, place} and fold(name) in GROUP_NAMES
    ]
    if groups:
        keys["group_column"] = columns[groups[0]]
    texts = Counter(row[label].strip() for row in rows if label < len(row) and row[label].strip())
    summary = f"{escape_unprintable(file)} with {len(rows)} rows, {most} of which name a photo"
    return LayoutCandidate("table", summary, texts, keys, tuple(remarks)), []


def _nameless(file: str, row: Sequence[str]) -> str:
    """Return the remark on a table without photo paths, including its first row."""
    cells = escape_unprintable(", ".join(row))
    return (
        f"{escape_unprintable(file)}: no row names a photo, such as the first, {cells};"
        " write each photo's path below the CSV's folder, or the end of it"
    )


def _named(paths: csv_table.PathIndex, cell: str, folder: str) -> list[str]:
    """Return a list with the photo that a cell refers to, or an empty list."""
    files = paths.lookup(cell, folder) if cell.strip() else []
    return files if len(files) == 1 else []


def _decoded(data: bytes, name: str) -> tuple[str, list[str], list[list[str]]]:
    """Return a table's encoding, column names and rows."""
    encodings = ["utf-8", *OLD_ENCODINGS]
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encodings = ["utf-16"]
    for encoding in encodings:
        try:
            columns, rows = csv_table.parse_csv(data, name, encoding)
        except ValueError:
            if encoding == encodings[-1]:
                raise
            continue
        return encoding, columns, [row for _, row in rows]
    raise AssertionError


def _label_column(
    columns: Sequence[str], rows: Sequence[Sequence[str]], path: int, known: Mapping[str, Dataset]
) -> tuple[int | None, str]:
    """Return the index of the label column, or None and the reason."""
    values: dict[str, Counter[str]] = {}
    for n, name in enumerate(columns):
        texts = Counter(row[n].strip() for row in rows if n < len(row) and row[n].strip())
        # Labels recur, and there are at least two.
        if n != path and fold(name) not in GROUP_NAMES and 2 <= len(texts) <= texts.total() / 2:
            values[name] = texts
    if not values:
        return None, "no column contains two recurring labels"
    decided = _decide(values, known)
    if decided is None:
        names = ", ".join(f"{name!r} ({_few(texts)})" for name, texts in values.items())
        return (
            None,
            f"several columns may contain the labels: {names}; rename the right one to label",
        )
    return columns.index(decided), ""


def _decide(values: Mapping[str, Counter[str]], known: Mapping[str, Dataset]) -> str | None:
    """Return the column or question that contains the labels, or None if it is ambiguous.

    It is the only one, the only one with a usual label name, or the one whose values best match the
    classes of an existing dataset.
    """
    named = [name for name in values if fold(name) in LABEL_NAMES]
    for only in (list(values), named):
        if len(only) == 1:
            return only[0]
    best = {
        name: max((_fitting(_word_labels(d), texts).total() for d in known.values()), default=0)
        for name, texts in values.items()
    }
    first, second, *_ = sorted(best.values(), reverse=True)
    return max(best, key=lambda name: best[name]) if first > second else None


def _folders(photos: Sequence[str]) -> tuple[LayoutCandidate | None, list[str]]:
    """Read the names of the folders that hold photos."""
    tops = {file.split("/")[0] for file in photos if "/" in file}
    # If there are other top-level folders, train and test are class names.
    parts = all(predefined_split_of(f"{top}/x") for top in tops)
    texts: Counter[str] = Counter()
    second: dict[str, set[str]] = defaultdict(set)
    for file in photos:
        folders = file.split("/")[:-1][int(parts) :]
        if folders:
            texts[folders[0]] += 1
        if len(folders) > 1:
            second[_key(folders[1])].add(folders[0])
    if len(texts) < 2:
        names = ", ".join(map(escape_unprintable, texts)) or "none"
        top, beside = _alone(photos)
        deeper = ""
        if beside:
            deeper = (
                f"; {escape_unprintable(top)} holds {_few(beside)}; if these are the classes, pass "
            )
            deeper += f"{escape_unprintable(top)} as the folder"
        return None, [f"fewer than two folders hold photos: {names}{deeper}"]
    doubt = ""
    recurring = sorted(name for name, above in second.items() if len(above) > 1)
    if len(recurring) > 1:
        doubt = (
            f"{', '.join(recurring)} recur below {len(texts)} folders; if they are the classes, "
            "move them to the top, with the folders that are above them now inside"
        )
    elif all(is_code(name.casefold()) for name in texts):
        doubt = (
            f"{_few(texts)} look like collectors' codes, not labels; put each one's Label Studio "
            "export into its folder"
        )
    summary = f"{texts.total()} photos in {len(texts)} folders: {_few(texts)}"
    if parts:
        summary += f", below {', '.join(sorted(tops))}"
    return LayoutCandidate("folders", summary, texts, doubt=doubt), []


def _alone(photos: Sequence[str]) -> tuple[str, Counter[str]]:
    """Return the deepest folder that holds all photos, and the photo count of each subfolder."""
    folders = [file.rpartition("/")[0] for file in photos]
    top = posixpath.commonpath(folders) if folders else ""
    inside = (folder.removeprefix(top).strip("/") for folder in folders if top)
    return top, Counter(folder.partition("/")[0] for folder in inside if folder)


def _few(texts: Counter[str]) -> str:
    names = [escape_unprintable(name) for name, _ in texts.most_common(6)]
    return ", ".join(names) + (", …" if len(texts) > 6 else "")


def name_classes(texts: Mapping[str, int], known: Mapping[str, Dataset]) -> Classes:
    """Group labels into classes.

    If at least two classes of an existing dataset occur and cover at least half of the labeled
    items, those classes are used and all other labels are ignored. Otherwise, spellings that differ
    in case, accents, leading numbering or Unicode form become one class, named after the most
    frequent spelling. Classes with fewer than FEWEST items are ignored.
    """
    texts = {text: count for text, count in texts.items() if fold(text)}
    best, like = 1, ""
    for name, dataset in known.items():
        fitting = _fitting(_word_labels(dataset), texts)
        covered = fitting.total()
        if len(fitting) > 1 and 2 * covered >= sum(texts.values()) and covered > best:
            best, like = covered, name
    if like:
        classes = known[like].classes
        occur = _fitting(Labels(classes), texts)
        return Classes({name: classes[name] for name in classes if occur[name]}, like)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for text, count in sorted(texts.items()):
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
    order = sorted(named, key=lambda name: (fold(name), name))
    alike = tuple(
        (one, other)
        for k, one in enumerate(order)
        for other in order[k + 1 :]
        if _alike(_key(one), _key(other))
    )
    return Classes({name: named[name] for name in order}, alike=alike)


def _alike(one: str, other: str) -> bool:
    """Return whether one label may be a misspelling of the other, ignoring digits."""
    first, second = ("".join(c for c in text if not c.isdigit()) for text in (one, other))
    return first != second and difflib.SequenceMatcher(a=first, b=second).ratio() >= ALIKE


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

    Patterns whose numbers rarely recur are rejected, because they number photos, not subjects.
    """
    collectors = {entry.collector for entry in entries} - {""}
    own = [dataset.subject_pattern for dataset in known.values() if dataset.subject_pattern]
    best, most = None, 0
    tried = dict.fromkeys([*own, *SUBJECT_PATTERNS])
    for text in tqdm(tried, "subjects", unit="pattern", delay=1, leave=False, disable=None):
        pattern = compile_subject_pattern(text)
        who = [subject_of(e.file, pattern, e.collector, collectors) for e in entries]
        met = [name for name in who if name]
        repeated = 2 <= len(set(met)) <= MOST_DIFFERENT * len(met)
        if repeated and len(met) >= LEAST_SHARE * len(who) and len(met) > most:
            best, most = text, len(met)
    return best
