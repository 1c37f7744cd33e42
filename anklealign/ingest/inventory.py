"""What a dataset's folder holds: the photos to decode, and what is left out with its reason.

A source (`folders`, `table`, `label_studio`) turns a folder into an `Inventory`. Nothing is lost:
every file below the folder is a photo's entry, an export, or a skip; every task (a Label Studio
task, a row of a table) belongs to an entry or is a skip, and so with votes and with the names on a
consensus list. `Inventory` checks the sums.

Names come from anybody's disk. Inside the program a path is the POSIX path below the dataset's
folder as the system gives it (bytes that are no UTF-8 as surrogates), so that the file can be
opened; `printable` gives the form that is written to tables.
"""

import errno
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tqdm import tqdm

from anklealign.io import decode

Item = Literal["file", "task", "export", "name", "vote"]

# What it means, a colon, and what to do about it.
REASONS = decode.REASONS | {
    # Files.
    "not_a_file": "a broken link, a pipe, a link in a circle, or a folder named like a photo: "
    "mend the link, rename the folder, or take it away",
    "system_file": "left by the system or a tool (.DS_Store, Thumbs.db, .git): nothing",
    "no_class_folder": "lies in no folder at all: move it into its class's folder",
    "no_task": "no task or row names this photo: label it, or take it away",
    "id_taken": "another file's path differs only in Unicode form: keep one of the two",
    # Tasks and rows; a file whose only task is skipped has the task's reason.
    "missing_file": "the photo that the task or row names is not there, or may not be opened: add "
    "it, or give leave to read it",
    "ambiguous": "several photos fit the name equally well: write the folder before it where it "
    "stands, in the export, table or list (FO6K58/photo.jpg), or take away all photos but one",
    "file_skipped": "the photo of the task or vote was skipped, for its own reason: mend the photo",
    "duplicate_task": "another task gives the same photo the same label, and that one counts: "
    "nothing",
    "superseded": "an older copy of a task, or an older vote, and the newer one counts: nothing",
    # Labels.
    "no_label": "no annotation, an empty one, or an empty cell: label the photo",
    "cancelled": "the annotator skipped the task: label it, or take the photo away",
    "draft_only": "there is only a draft: submit it",
    "prediction_only": "there is only a model's prediction, which is no label: label the photo",
    "label_unknown": "the label fits no class: mend it, or add it as an alias in params.yaml",
    "several_choices": "one annotation chooses several classes: leave one",
    "label_tie": "the annotators' votes are tied: let one more annotator decide",
    "label_conflict": "tasks give the same photo different labels: settle which is right",
    # Exports.
    "broken_export": "the export does not parse: export it again",
    "not_an_export": "no list of Label Studio tasks: take it away, or export it again as JSON",
    # consensus/: votes on photos that lie in the collectors' folders.
    "consensus": "lies in consensus/, which holds lists (.txt) and annotators' exports alone: take "
    "it away",
    "empty_list": "the list names no photo: fill it, or take it away",
    "empty_export": "the annotator's export holds no task: export it again, or take it away",
    "listed_twice": "the list names this photo before: nothing",
    "not_listed": "the vote's photo is not on the list: add it there, or mend its name",
}

GIVEN = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
LIKE_A_PHOTO = "a folder named like a photo"
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control, surrogate, line and paragraph separator
PHOTO_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".heic",
    ".heif", ".hif", ".avif", ".jp2", ".ppm", ".pgm", ".pbm",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One photo with its label, still to be decoded; `task` names where the label stands.

    `by_vote`: the label is what several annotators' votes make of it, and '' until they are
    counted.
    """

    file: str
    label: str
    collector: str = ""
    person: str = ""
    given: str = ""
    task: str = ""
    by_vote: bool = False


@dataclass(frozen=True, order=True)
class Vote:
    """What one annotator says of a photo that others vote on too."""

    file: str
    annotator: str
    label: str


@dataclass(frozen=True)
class Skip:
    """What is left out: a file, an export, a task, a vote, a name on a list.

    `reason` is a key of REASONS.
    """

    path: str
    item: Item
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        """Hold every reason to the documented list."""
        if self.reason not in REASONS:
            raise ValueError(f"{self.reason!r} is no reason code; add it to inventory.REASONS")


@dataclass(frozen=True)
class Inventory:
    """All that a source found, sorted by path.

    `files_seen` counts files without exports, `tasks_seen` tasks or rows, `exports_seen` exports,
    tables and lists, whether they could be read or not; `listed` are the photos that a consensus
    list names, of `names_seen` names.
    """

    entries: tuple[Entry, ...]
    skips: tuple[Skip, ...]
    files_seen: int
    tasks_seen: int = 0
    exports_seen: int = 0
    votes: tuple[Vote, ...] = ()
    votes_seen: int = 0
    listed: tuple[str, ...] = ()
    names_seen: int = 0

    def __post_init__(self) -> None:
        """Check that every file, task, vote and listed name is accounted for once.

        Raises:
            ValueError: A source lost or counted twice what it saw; a bug, whatever the data.
        """
        skipped = Counter[str](skip.item for skip in self.skips)
        with_task = sum(entry.task != "" for entry in self.entries)
        for kind, item, used, seen in (
            ("files", "file", len(self.entries), self.files_seen),
            ("tasks", "task", with_task, self.tasks_seen),
            ("votes", "vote", len(self.votes), self.votes_seen),
            ("listed names", "name", len(self.listed), self.names_seen),
        ):
            if used + skipped[item] != seen:
                raise ValueError(
                    f"{used} used and {skipped[item]} skipped: not all {seen} {kind} are accounted "
                    "for; please report this with a listing of the folder"
                )
        for kind, paths in (
            ("photo", [entry.file for entry in self.entries]),
            ("file", [skip.path for skip in self.skips if skip.item == "file"]),
            ("vote", [f"{vote.file} by {vote.annotator}" for vote in self.votes]),
        ):
            twice = [path for path, count in Counter(paths).items() if count > 1]
            if twice:
                raise ValueError(f"the {kind} {twice[0]!r} is counted twice; please report this")


def rows(skips: Iterable[Skip]) -> list[tuple[str, str, str, str, str]]:
    """Return (path, item, reason, detail, remedy) of each skip, sorted, each a single line."""
    return sorted(
        (printable(s.path), s.item, s.reason, printable(s.detail), remedy(s.reason)) for s in skips
    )


def remedy(reason: str) -> str:
    """Return what to do about a reason."""
    return REASONS[reason].partition(": ")[2]


def dropped(entry: Entry, reason: str, detail: str) -> list[Skip]:
    """Return the skips of a file that had been chosen, and of the task that chose it."""
    skips = [Skip(entry.file, "file", reason, detail)]
    if entry.task:
        skips.append(Skip(entry.task, "task", "file_skipped", f"{entry.file}: {reason}"))
    return skips


def printable(text: str) -> str:
    r"""Return a path or sentence as one line of valid UTF-8.

    Bytes that were no UTF-8, control characters and line ends become `\xhh` or `\uhhhh`.
    """
    return "".join(_escaped(c) if unicodedata.category(c) in UNPRINTABLE else c for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte that is no UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def walk(root: Path) -> tuple[list[str], list[Skip]]:
    """Return all plain files below a folder, sorted, and a skip for each thing that is none.

    Links to files and folders are followed, each folder once.

    Raises:
        ValueError: The folder is not there, or not to be read.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root} is not there; put or link the photos there (or `dvc pull`), or choose another "
            "dataset in params.yaml"
        )
    files: list[str] = []
    skips: dict[str, Skip] = {}
    seen: set[tuple[int, int]] = set()
    # How many there will be is not known; a small folder shows no bar.
    bar = tqdm(desc="scan", unit=" files", delay=1, disable=None)

    def enter(folder: str) -> None:
        facts = (root / folder).stat()
        if (facts.st_dev, facts.st_ino) in seen:
            detail = "a link to a folder already counted"
            skips.setdefault(folder, Skip(folder, "file", "not_a_file", detail))
            return
        seen.add((facts.st_dev, facts.st_ino))
        try:
            names = sorted(item.name for item in (root / folder).iterdir())
        except OSError as error:
            if not folder:
                raise ValueError(
                    f"{root} cannot be opened: {error.strerror}; give leave to read it"
                ) from None
            detail = f"folder: {error.strerror}"
            skips.setdefault(folder, Skip(folder, "file", "cannot_open", detail))
            return
        for name in names:
            path = f"{folder}/{name}" if folder else name
            bar.update()
            kind, skip = _kind(root, path)
            if skip:
                skips[path] = skip
            if kind == "file":
                files.append(path)
            elif kind == "folder":
                enter(path)

    with bar:
        enter("")
    return sorted(files), list(skips.values())


def _kind(root: Path, path: str) -> tuple[str, Skip | None]:
    """Return what lies at a path (file, folder or '' for nothing to look into), and its skip."""
    name = path.rpartition("/")[2]
    reason, detail = "not_a_file", "a pipe, socket or device"
    try:
        mode = (root / path).stat().st_mode
        if name.startswith(".") or name.casefold() in SYSTEM_FILES:
            return "", Skip(path, "file", "system_file")
        if stat.S_ISDIR(mode):
            like = suffix(name) in PHOTO_SUFFIXES
            return "folder", Skip(path, "file", reason, LIKE_A_PHOTO) if like else None
        if stat.S_ISREG(mode):
            # Asked for here and not when it is read: `add` cannot copy it, and the task that names
            # it is to end alike before and after.
            if os.access(root / path, os.R_OK):
                return "file", None
            reason, detail = "cannot_open", os.strerror(errno.EACCES)
    except OSError as error:
        denied = isinstance(error, PermissionError)  # by its folder, or on a link's way
        reason, detail = "cannot_open" if denied else reason, error.strerror or str(error)
    return "", Skip(path, "file", reason, detail)


def suffix(name: str) -> str:
    """Return a file name's last suffix in small letters, with its dot, or ''."""
    return PurePosixPath(name).suffix.casefold()


def given(path: str) -> str:
    """Return train, val or test where the path begins with such a folder, else ''."""
    top, _, rest = path.partition("/")
    return GIVEN.get(top.casefold(), "") if rest else ""


def plain(text: str) -> str:
    """Return the text without accents, in composed Unicode form."""
    split = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in split if not unicodedata.combining(c)))


def person(
    path: str, pattern: re.Pattern[str] | None, collector: str, collectors: Collection[str]
) -> str:
    """Return who is on the photo by its path, unique in the dataset, or '' where it does not say.

    A participant is a number of the collector who met them, so the result is
    `<collector>/<number>`. Only the digits of what the pattern's group `participant` finds count:
    reszvevo03, reszvevo_3 and resztvevo03 are one person. A file name that carries another
    collector's code shows that collector's participant.
    """
    if pattern is None:
        return ""
    composed = unicodedata.normalize("NFC", path)
    match = pattern.search(composed) or pattern.search(plain(composed))
    participant = match.group("participant") if match else None
    if not participant:
        return ""
    numbers = re.findall(r"\d+", participant)
    # Without a number the word itself is the name.
    who = "-".join(f"{int(n):02d}" for n in numbers) or plain(participant).casefold().strip()
    codes = {code.casefold(): code for code in collectors}
    words = re.split(r"[^0-9a-z]+", path.rpartition("/")[2].casefold())
    others = [codes[word] for word in words if word in codes and word != collector.casefold()]
    owner = others[0] if others else collector
    return f"{owner}/{who}" if owner else who


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    """Return a dataset's person pattern, to be searched whatever the case."""
    return None if pattern is None else re.compile(pattern, re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """A task that names a photo and gives it a class."""

    task: str
    label: str
    by_vote: bool = False


def settle(
    claims: Mapping[str, Sequence[Claim]],
) -> tuple[dict[str, Claim], list[Skip]]:
    """Return the claim that counts for each photo, and a skip for every other task and photo.

    The first of several tasks that agree counts. Where they contradict each other the photo and
    all its tasks are skipped: nobody knows which label is right.
    """
    settled: dict[str, Claim] = {}
    skips: list[Skip] = []
    for file, rivals in sorted(claims.items()):
        first, *others = rivals
        labels = sorted({claim.label for claim in rivals})
        if len(labels) == 1:
            settled[file] = first
            detail = f"{file} has this label from {first.task}"
            skips += [Skip(claim.task, "task", "duplicate_task", detail) for claim in others]
        else:
            detail = ", ".join(f"{claim.task}: {claim.label}" for claim in rivals)
            skips.append(Skip(file, "file", "label_conflict", detail))
            skips += [
                Skip(claim.task, "task", "label_conflict", f"{file}: {', '.join(labels)}")
                for claim in rivals
            ]
    return settled, skips
