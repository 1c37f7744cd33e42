"""What a folder looks like before anybody has described it: layout, labels, who is on the photos.

`readings` tries each layout on a folder; `choose` takes the one that speaks for itself, or says
what was seen. `name_classes` makes classes of the labels found, with the aliases that other
datasets' blocks know. `find_persons` tries the ways in which people number their participants.
Nothing is guessed: labels that are only written alike stay apart, and what fits nothing is listed.
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
    PHOTO_SUFFIXES,
    Entry,
    compiled,
    given,
    person,
    printable,
    suffix,
    walk,
)
from anklealign.ingest.label_studio import is_export
from anklealign.ingest.label_studio_export import BrokenExportError
from anklealign.io.decode import HEAD, is_photo

# Files that nobody would open to look for labels.
LARGEST_TABLE = 256 << 20  # bytes
TABLES = {".csv", ".tsv", ".txt"}
# Columns by their usual names, English and Hungarian, folded; only where nothing else decides.
LABEL_NAMES = {
    "choice", "choices", "label", "labels", "class", "class name", "classname", "category",
    "target", "species", "breed", "diagnosis", "diagnozis", "cimke", "osztaly", "kategoria",
}  # fmt: skip
GROUP_NAMES = {
    "group", "group id", "person", "person id", "patient", "patient id", "subject", "subject id",
    "participant", "participant id", "animal", "animal id", "szemely", "paciens", "beteg",
    "resztvevo", "alany",
}  # fmt: skip
# Excel's in Hungary and in the west of Europe; the bytes alone cannot tell the two apart.
OLD_ENCODINGS = ("cp1250", "cp1252")
ENOUGH = 2000  # rows that tell which column names the photos
# With fewer, a class cannot stand in train, validation and test.
FEWEST = 3
ALIKE = 0.75  # share of letters in common; pronacio and pronalo have 0.8, ants and bees 0.25
# How people number who is on the photo. The plainer ones come last: of two patterns that fit as
# many photos the first is taken.
PERSONS = (
    r"(?P<participant>resz?t?vevo[ _-]?\d+)",
    r"(?P<participant>participant[ _-]?\d+)",
    r"(?P<participant>subj(?:ect)?[ _-]?\d+)",
    r"(?P<participant>patient[ _-]?\d+)",
    r"(?P<participant>person[ _-]?\d+)",
    r"(?P<participant>proband[ _-]?\d+)",
    r"(?P<participant>volunteer[ _-]?\d+)",
    r"(?P<participant>(?:szemely|paciens|beteg|alany)[ _-]?\d+)",
    r"(?<![a-z0-9])(?P<participant>sub[ _-]?\d+)(?![a-z0-9])",
    r"(?<![a-z0-9])(?P<participant>id[ _-]?\d+)(?![a-z0-9])",
    r"(?<![a-z0-9])(?P<participant>[ps][ _-]?\d+)(?![a-z0-9])",
)
LEAST_SHARE = 0.1  # of the photos that a person pattern must fit
MOST_DIFFERENT = 0.8  # share of different numbers among those found; photos are numbered one by one


@dataclass(frozen=True)
class Reading:
    """A folder as one layout reads it: how its labels are spelled, and what was seen.

    `texts` counts the photos, answers or rows that carry a label; `keys` are the table layout's
    part of the dataset's block; `said` are remarks for the report. With a `doubt` the layout is not
    chosen unless its owner names it.
    """

    layout: str
    story: str
    texts: Counter[str]
    keys: Mapping[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    doubt: str = ""


@dataclass(frozen=True)
class Found:
    """All readings of a folder, and remarks on what cannot be read as a layout."""

    readings: tuple[Reading, ...]
    said: tuple[str, ...]


@dataclass(frozen=True)
class Classes:
    """Classes made of labels: each with its other spellings.

    `like` is the dataset whose classes they are, or ''; `alike` are pairs that are written nearly
    alike.
    """

    classes: dict[str, tuple[str, ...]]
    like: str = ""
    alike: tuple[tuple[str, str], ...] = ()


def readings(root: Path, known: Mapping[str, Dataset]) -> Found:
    """Read a folder by every layout that it may have.

    Raises:
        ValueError: The folder is not there, or holds no file.
    """
    files, _ = walk(root)
    if not files:
        raise ValueError(f"{root} holds no file; name the folder of the photos")
    photos = [file for file in files if _is_photo(root, file)]
    found: list[Reading] = []
    said: list[str] = [f"{len(photos)} files that look like photos, of {len(files)}"]
    for reading, remarks in (
        _exports(root, files, photos, known),
        _table(root, files, photos, known),
        _folders(photos),
    ):
        said += remarks
        if reading:
            found.append(reading)
    return Found(tuple(found), tuple(said))


def _is_photo(root: Path, file: str) -> bool:
    if suffix(file):
        return suffix(file) in PHOTO_SUFFIXES
    with (root / file).open("rb") as stream:
        return is_photo(stream.read(HEAD))


def choose(found: Found, layout: str | None) -> Reading:
    """Return the reading of a layout, or the only one that fits.

    Labels that somebody has written down, in an export or a table, count for more than the names of
    folders, unless these are the same words.

    Raises:
        ValueError: None fits, or several do; it says what was seen.
    """
    seen = [*(f"{r.layout}: {r.story}" for r in found.readings), *found.said]
    by_layout = {reading.layout: reading for reading in found.readings}
    if layout is not None:
        if layout not in by_layout:
            raise ValueError(_listed(f"the folder does not look like layout {layout}", seen))
        return by_layout[layout]
    written = [reading for reading in found.readings if reading.layout != "folders"]
    folders = by_layout.get("folders")
    if folders and written:
        words = {_key(text) for reading in written for text in reading.texts}
        if len(words & {_key(text) for text in folders.texts}) < 2:
            folders = None
    rivals = [*written, *([folders] if folders else [])]
    if len(rivals) == 1:
        (only,) = rivals
        if only.doubt:
            raise ValueError(_listed(f"{only.doubt}; else give LAYOUT={only.layout}", seen))
        return only
    if not rivals:
        raise ValueError(
            _listed(
                "no label was found: there are no class folders, no CSV that names the photos, and "
                "no Label Studio export with answers",
                seen,
            )
        )
    choices = " or ".join(f"LAYOUT={reading.layout}" for reading in rivals)
    raise ValueError(_listed(f"the folder can be read in {len(rivals)} ways; give {choices}", seen))


def _listed(problem: str, seen: Sequence[str]) -> str:
    return "\n  ".join([f"{problem}; what was seen:", *seen])


def _exports(
    root: Path, files: Sequence[str], photos: Sequence[str], known: Mapping[str, Dataset]
) -> tuple[Reading | None, list[str]]:
    """Read the folder's Label Studio exports."""
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    good, said = 0, []
    holders: set[str] = set()  # folders with an export
    for file in tqdm(files, "exports", unit="file", delay=1, leave=False, disable=None):
        if consensus.belongs(file) or not is_export(root, file):
            continue
        try:
            answered = label_studio_export.questions(file, (root / file).read_bytes())
        except (BrokenExportError, OSError) as error:
            said.append(f"{printable(file)} is no export: {error}")
            continue
        good += bool(answered)
        holders.add(file.rpartition("/")[0])
        for name, answers in answered.items():
            asked[name].update(answers)
    if not asked:
        return None, said
    asked = _joined(asked, known)
    question = _decide(asked, known)
    others = [f"{name!r} ({_few(answers)})" for name, answers in asked.items() if name != question]
    if question is None:
        said.append(
            f"the exports answer {len(asked)} questions: {', '.join(others)}; write a block with "
            "the classes of the right one into datasets of params.yaml, and run this again"
        )
        return None, said
    if others:
        said.append(f"labels are the answers to {question!r}; left aside: {', '.join(others)}")
    texts = asked[question]
    story = f"{good} Label Studio export{'s' * (good > 1)} with {texts.total()} answers"
    return Reading("label_studio", story, texts, {}, tuple(said), _wrapped(photos, holders)), []


def _wrapped(photos: Sequence[str], holders: Collection[str]) -> str:
    """Return the doubt that collectors' folders lie one folder too deep."""
    tops = {file.partition("/")[0] for file in photos}
    if len(tops) != 1 or len({folder for folder in holders if "/" in folder}) < 2:
        return ""
    (top,) = tops
    return (
        f"all photos lie in {printable(top)}, so it would be taken for a collector; name it as DATA"
    )


def _joined(
    asked: Mapping[str, Counter[str]], known: Mapping[str, Dataset]
) -> dict[str, Counter[str]]:
    """Join questions that share two answers: each collector's own project has its own names."""
    spoken = [_spoken(dataset) for dataset in known.values()]

    def meaning(text: str) -> str:
        return next((name for labels in spoken if (name := labels.find(text))), _key(text))

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
) -> tuple[Reading | None, list[str]]:
    """Read the CSV that names the most photos."""
    lists = [
        file
        for file in files
        if suffix(file) in TABLES
        and not consensus.belongs(file)
        and not is_export(root, file)
        and (root / file).stat().st_size <= LARGEST_TABLE
    ]
    paths = csv_table.Paths(photos)
    said: list[str] = []
    others: list[str] = []  # tables that name no photo
    best: tuple[int, str, str, list[str], list[list[str]], int] | None = None
    for file in lists:
        try:
            encoding, columns, rows = _decoded((root / file).read_bytes(), str(root / file))
        except (ValueError, OSError) as error:
            said.append(printable(str(error)))
            continue
        folder = file.rpartition("/")[0]
        if any(_named(paths, cell, folder) for cell in columns):
            said.append(f"{printable(file)} has no header line; add one, such as path,label")
            continue
        # Different photos, as a column of small numbers names the first few over and over.
        hits = [
            len({f for row in rows[:ENOUGH] if n < len(row) for f in _named(paths, row[n], folder)})
            for n in range(len(columns))
        ]
        if not any(hits):
            others += [_nameless(file, row) for row in rows[:1] if len(row) > 1]
            continue
        place = hits.index(max(hits))
        most = sum(len(_named(paths, row[place], folder)) for row in rows if place < len(row))
        said.append(
            f"{printable(file)}: {most} of {len(rows)} rows name a photo in column "
            f"{columns[place]!r}; read as {encoding}"
        )
        if best is None or most > best[0]:
            best = (most, file, encoding, columns, rows, place)
    if best is None:
        return None, said + others
    most, file, encoding, columns, rows, place = best
    label, why = _label_column(columns, rows, place, known)
    if label is None:
        return None, [*said, f"{printable(file)}: {why}"]
    keys = {"csv": file, "path_column": columns[place], "label_column": columns[label]}
    if encoding != "utf-8":
        keys["encoding"] = encoding
    groups = [
        n for n, name in enumerate(columns) if n not in {label, place} and fold(name) in GROUP_NAMES
    ]
    if groups:
        keys["group_column"] = columns[groups[0]]
    texts = Counter(row[label].strip() for row in rows if label < len(row) and row[label].strip())
    story = f"{printable(file)} with {len(rows)} rows, {most} of which name a photo"
    return Reading("table", story, texts, keys, tuple(said)), []


def _nameless(file: str, row: Sequence[str]) -> str:
    """Return the remark on a table that names no photo, with its first row."""
    return (
        f"{printable(file)}: no row names a photo, such as the first, {printable(', '.join(row))};"
        " write each photo's path below the CSV's folder, or the end of it"
    )


def _named(paths: csv_table.Paths, cell: str, folder: str) -> list[str]:
    """Return the photo that a cell names, alone in a list, or an empty one."""
    files = paths.fitting(cell, folder) if cell.strip() else []
    return files if len(files) == 1 else []


def _decoded(data: bytes, name: str) -> tuple[str, list[str], list[list[str]]]:
    """Return a table's encoding, column names and rows."""
    encodings = ["utf-8", *OLD_ENCODINGS]
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encodings = ["utf-16"]
    for encoding in encodings:
        try:
            columns, rows = csv_table.cells(data, name, encoding)
        except ValueError:
            if encoding == encodings[-1]:
                raise
            continue
        return encoding, columns, [row for _, row in rows]
    raise AssertionError


def _label_column(
    columns: Sequence[str], rows: Sequence[Sequence[str]], path: int, known: Mapping[str, Dataset]
) -> tuple[int | None, str]:
    """Return the place of the column that holds the labels, or None and why."""
    values: dict[str, Counter[str]] = {}
    for n, name in enumerate(columns):
        texts = Counter(row[n].strip() for row in rows if n < len(row) and row[n].strip())
        # A label recurs, and there are at least two.
        if n != path and fold(name) not in GROUP_NAMES and 2 <= len(texts) <= texts.total() / 2:
            values[name] = texts
    if not values:
        return None, "no column holds two labels that recur"
    decided = _decide(values, known)
    if decided is None:
        names = ", ".join(f"{name!r} ({_few(texts)})" for name, texts in values.items())
        return None, f"the label may stand in column {names}; call the right one label"
    return columns.index(decided), ""


def _decide(values: Mapping[str, Counter[str]], known: Mapping[str, Dataset]) -> str | None:
    """Return the column or question that holds the labels, or None where nothing tells.

    It is the only one, or the only one called as labels are, or the one whose values fit another
    dataset's classes best.
    """
    named = [name for name in values if fold(name) in LABEL_NAMES]
    for only in (list(values), named):
        if len(only) == 1:
            return only[0]
    best = {
        name: max((_fitting(_spoken(d), texts).total() for d in known.values()), default=0)
        for name, texts in values.items()
    }
    first, second, *_ = sorted(best.values(), reverse=True)
    return max(best, key=lambda name: best[name]) if first > second else None


def _folders(photos: Sequence[str]) -> tuple[Reading | None, list[str]]:
    """Read the names of the folders that hold photos."""
    tops = {file.split("/")[0] for file in photos if "/" in file}
    # Where another folder stands beside them, train and test are names of classes.
    parts = all(given(f"{top}/x") for top in tops)
    texts: Counter[str] = Counter()
    second: dict[str, set[str]] = defaultdict(set)
    for file in photos:
        folders = file.split("/")[:-1][int(parts) :]
        if folders:
            texts[folders[0]] += 1
        if len(folders) > 1:
            second[_key(folders[1])].add(folders[0])
    if len(texts) < 2:
        names = ", ".join(map(printable, texts)) or "none"
        top, beside = _alone(photos)
        deeper = ""
        if beside:
            deeper = f"; {printable(top)} holds {_few(beside)}; if these are the classes, name "
            deeper += f"{printable(top)} as DATA"
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
    story = f"{texts.total()} photos in {len(texts)} folders: {_few(texts)}"
    if parts:
        story += f", below {', '.join(sorted(tops))}"
    return Reading("folders", story, texts, doubt=doubt), []


def _alone(photos: Sequence[str]) -> tuple[str, Counter[str]]:
    """Return the deepest folder that holds all photos, and how many lie in which folder of it."""
    folders = [file.rpartition("/")[0] for file in photos]
    top = posixpath.commonpath(folders) if folders else ""
    inside = (folder.removeprefix(top).strip("/") for folder in folders if top)
    return top, Counter(folder.partition("/")[0] for folder in inside if folder)


def _few(texts: Counter[str]) -> str:
    names = [printable(name) for name, _ in texts.most_common(6)]
    return ", ".join(names) + (", …" if len(texts) > 6 else "")


def name_classes(texts: Mapping[str, int], known: Mapping[str, Dataset]) -> Classes:
    """Return the classes that labels stand for.

    Where another dataset's classes fit at least half of what is labelled, and two of them occur,
    they are the classes, and whatever fits none is left out. Else spellings that differ in case,
    accents, leading numbering and Unicode form are one class, named by the most frequent one; what
    occurs less than FEWEST times is left out.
    """
    texts = {text: count for text, count in texts.items() if fold(text)}
    best, like = 1, ""
    for name, dataset in known.items():
        fitting = _fitting(_spoken(dataset), texts)
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
        # 1_left and 2_left are two classes; numbering alone tells them apart.
        numbers = {fold(text) for text in forms if fold(text) != key}
        if len({form.removesuffix(key) for form in numbers}) > 1:
            del spellings[key]
            for text, count in forms.items():
                spellings[fold(text)][text] += count
    # Counted in the order of the texts, so that the first of equals is always the same.
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
    """Tell whether two labels may be one, mistyped; numbers tell labels apart on purpose."""
    first, second = ("".join(c for c in text if not c.isdigit()) for text in (one, other))
    return first != second and difflib.SequenceMatcher(a=first, b=second).ratio() >= ALIKE


def _key(text: str) -> str:
    return unnumbered(fold(text))


def _spoken(dataset: Dataset) -> Labels:
    """Return a dataset's labels without bare numbers: 0 and 1 mean something else everywhere."""
    classes = {
        name: [a for a in aliases if any(c.isalpha() for c in a)]
        for name, aliases in dataset.classes.items()
    }
    return Labels(classes)


def _fitting(labels: Labels, texts: Mapping[str, int]) -> Counter[str]:
    """Return how many of the labels each class fits."""
    fitting: Counter[str] = Counter()
    for text, count in texts.items():
        name = labels.find(text)
        if name is not None:
            fitting[name] += count
    return fitting


def find_persons(entries: Sequence[Entry], known: Mapping[str, Dataset]) -> str | None:
    """Return the pattern that tells who is on the most photos, or None where none tells.

    A number that no two photos share numbers photos, not people.
    """
    collectors = {entry.collector for entry in entries} - {""}
    own = [dataset.person for dataset in known.values() if dataset.person]
    best, most = None, 0
    tried = dict.fromkeys([*own, *PERSONS])
    for text in tqdm(tried, "persons", unit="pattern", delay=1, leave=False, disable=None):
        pattern = compiled(text)
        who = [person(e.file, pattern, e.collector, collectors) for e in entries]
        met = [name for name in who if name]
        repeated = 2 <= len(set(met)) <= MOST_DIFFERENT * len(met)
        if repeated and len(met) >= LEAST_SHARE * len(who) and len(met) > most:
            best, most = text, len(met)
    return best
