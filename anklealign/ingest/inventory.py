"""The content of a dataset's folder: the photos to decode, and what is skipped with its reason.

A layout (`class_folders`, `csv_table`, `label_studio`) turns a folder into an `Inventory`. Nothing
is lost: every file below the folder is the photo of an entry, an export, or a skip; every task (a
Label Studio task or a row of a table) belongs to an entry or is a skip, and the same holds for
votes and for the names on a consensus list. `Inventory` checks the totals.

Paths are POSIX paths below the dataset's folder as the system returns them, with bytes that are not
UTF-8 as surrogates, so that the files can be opened. `escape_unprintable` returns the form that is
written to tables.
"""

import errno
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from anklealign.ingest.masks import find_masks
from anklealign.io import camera_raw, decode

Item = Literal["file", "task", "export", "name", "vote"]

# Reason code -> "meaning: remedy".
REASONS = decode.REASONS | {
    # Files.
    "not_a_file": "a broken link, a pipe, a circular link, or a folder named like a photo: fix the "
    "link, rename the folder, or remove it",
    "system_file": "created by the operating system or a tool (.DS_Store, Thumbs.db, @eaDir): "
    "no action needed",
    "other_file": "no photo by its name and content, but a table, a text, a program or the like: "
    "no action needed",
    "mask": "a segmentation mask of a photo (name_mask.png, masks/name.png), which is not a photo: "
    "no action needed, or rename it",
    "no_class_folder": "not in any folder: move it into the folder of its class",
    "outside_class_roots": "not below a folder of class_roots in params.yaml: no action needed, or "
    "add the folder there",
    "no_label_in_name": "the path does not match label_pattern: rename the file, or fix the "
    "pattern in params.yaml",
    "no_task": "no task or row refers to this photo: label it, or remove it",
    "id_taken": "the path of another file differs only in Unicode form: keep one of the two",
    # Tasks and rows; a file whose only task is skipped has the task's reason.
    "missing_file": "the photo of the task or row does not exist or cannot be opened: add it, or "
    "grant read permission",
    "ambiguous": "several photos match the name equally well: add the folder to the name in the "
    "export, table or list (FO6K58/photo.jpg), or remove all photos but one",
    "file_skipped": "the photo of the task or vote was skipped for its own reason: fix the photo",
    "duplicate_task": "another task gives the same photo the same label and is used: no action "
    "needed",
    "superseded": "an older copy of a task, or an older vote; the newer one is used: no action "
    "needed",
    # Labels.
    "no_label": "no annotation, an empty one, or an empty cell: label the photo",
    "rejected": "a reviewer rejected every annotation of the task: label it again, or remove the "
    "photo",
    "other_control": "the annotation has other answers than Choices and Taxonomy (boxes, ratings, "
    "text), which are not labels of a photo: label the photo with Choices, or remove it",
    "regions_differ": "the regions of the photo have different classes: crop them into photos, or "
    "label the photo as a whole",
    "cancelled": "the annotator skipped the task: label it, or remove the photo",
    "draft_only": "the task has only a draft: submit it",
    "prediction_only": "the task has only a model's prediction, which is not a label: label the "
    "photo",
    "label_unknown": "the label matches no class: fix it, or add it as an alias in params.yaml",
    "several_choices": "one annotation chooses several classes: keep one",
    "label_tie": "the annotators' votes are tied: add the vote of another annotator",
    "label_conflict": "tasks give the same photo different labels: correct the wrong one",
    # Exports.
    "broken_export": "the export cannot be parsed: export it again",
    "not_an_export": "not a list of Label Studio tasks: remove it, or export it again as JSON",
    # consensus/: votes on photos in the collectors' folders.
    "consensus": "consensus/ contains only lists (.txt) and annotators' exports: remove it",
    "empty_list": "the list names no photo: fill it, or remove it",
    "empty_export": "the annotator's export has no task: export it again, or remove it",
    "listed_twice": "the list already names this photo: no action needed",
    "not_listed": "the photo of the vote is not on the list: add it there, or fix its name",
}

PREDEFINED_SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Words that mean a split only in a longer name or a column, where others support it.
SPLIT_WORDS = PREDEFINED_SPLITS | {"dev": "val", "holdout": "test", "trainval": "train"}
# Folded names of files and folders; those with a leading dot are system files, too. Windows, macOS,
# Synology and QNAP storage, Python.
SYSTEM_FILES = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler",
    "system volume information", "__macosx", "icon\r", "@eadir", "@tmp", "#recycle", "#snapshot",
    "@recycle", "@recently-snapshot", "lost+found", "lost.dir", "found.000", "__pycache__",
}  # fmt: skip
THUMBNAIL = ".thm"  # a camera's thumbnail of a video or raw file
# Folders in each other; DVC and Python's own copies recurse, and end at some 900.
DEEPEST = 200
# Pictures and documents that no decoder here reads: their content may be the photo of a label.
UNREAD_PICTURES = {
    "", ".ai", ".dcm", ".dicom", ".eps", ".exr", ".hdr", ".ico", ".jxl", ".pdf", ".psd", ".svg",
    ".tga", ".xcf",
}  # fmt: skip
LIKE_A_PHOTO = "a folder named like a photo"
TEXTS = {"readme", "license", "licence", "copying", "changelog", "makefile", "dockerfile"}
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control, surrogate, line and paragraph separator


@dataclass(frozen=True)
class Entry:
    """A photo to decode and its label; `task` is the source of the label.

    `by_vote`: the label is aggregated from votes, and is '' until they are counted.
    """

    file: str
    label: str
    collector: str = ""
    subject: str = ""
    predefined_split: str = ""
    task: str = ""
    by_vote: bool = False


@dataclass(frozen=True, order=True)
class Vote:
    """The label of one annotator for a photo that several annotators label."""

    file: str
    annotator: str
    label: str


@dataclass(frozen=True)
class Skip:
    """A skipped file, export, task, vote or listed name.

    `reason` is a key of REASONS.
    """

    path: str
    item: Item
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        """Check that the reason is documented in REASONS."""
        if self.reason not in REASONS:
            raise ValueError(f"{self.reason!r} is not a reason code; add it to inventory.REASONS")


@dataclass(frozen=True)
class Inventory:
    """All entries, skips and votes of a dataset's folder, sorted by path.

    `files_seen` counts files other than exports, `tasks_seen` tasks or rows, and `exports_seen`
    exports, tables and lists, readable or not. `listed` are the photos on the consensus lists,
    which have `names_seen` names.
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
        """Check that every file, task, vote and listed name is counted exactly once.

        Raises:
            ValueError: An item is lost or counted twice, which is a bug for any data.
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
                    f"{used} used and {skipped[item]} skipped {kind} do not add up to {seen}; "
                    "report this with a listing of the folder"
                )
        for kind, paths in (
            ("photo", [entry.file for entry in self.entries]),
            ("file", [skip.path for skip in self.skips if skip.item == "file"]),
            ("vote", [f"{vote.file} by {vote.annotator}" for vote in self.votes]),
        ):
            twice = [path for path, count in Counter(paths).items() if count > 1]
            if twice:
                raise ValueError(f"the {kind} {twice[0]!r} is counted twice; please report this")


def with_tables(
    inventory: Inventory, entries: Iterable[Entry], tables: Collection[str]
) -> Inventory:
    """Return an inventory with other entries, whose skipped files `tables` were read."""
    skips = tuple(s for s in inventory.skips if s.item != "file" or s.path not in tables)
    return replace(
        inventory,
        entries=tuple(entries),
        skips=skips,
        files_seen=inventory.files_seen - (len(inventory.skips) - len(skips)),
        exports_seen=inventory.exports_seen + len(tables),
    )


def skip_rows(skips: Iterable[Skip]) -> list[tuple[str, str, str, str, str]]:
    """Return the sorted (path, item, reason, detail, remedy) rows, each text on a single line."""
    return sorted(
        (
            escape_unprintable(s.path),
            s.item,
            s.reason,
            escape_unprintable(s.detail),
            remedy(s.reason),
        )
        for s in skips
    )


def remedy(reason: str) -> str:
    """Return the remedy for a reason."""
    return REASONS[reason].partition(": ")[2]


def skips_of_entry(entry: Entry, reason: str, detail: str) -> list[Skip]:
    """Return the skip of an entry's file, and that of its task."""
    skips = [Skip(entry.file, "file", reason, detail)]
    if entry.task:
        skips.append(Skip(entry.task, "task", "file_skipped", f"{entry.file}: {reason}"))
    return skips


def escape_unprintable(text: str) -> str:
    r"""Return a path or sentence as one line of valid UTF-8.

    Bytes that are not UTF-8, control characters and line ends become `\xhh` or `\uhhhh`.
    """
    return "".join(_escaped(c) if unicodedata.category(c) in UNPRINTABLE else c for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # the surrogate of a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def list_files(root: Path) -> tuple[list[str], list[Skip]]:
    """Return the sorted regular files below a folder, and a skip for each other item.

    Links to files and folders are followed; each folder is visited once.

    Raises:
        ValueError: The folder does not exist or cannot be read.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root} does not exist; put or link the photos there, `dvc pull`, or choose another "
            "dataset in params.yaml"
        )
    files: list[str] = []
    skips: dict[str, Skip] = {}
    seen: set[tuple[int, int]] = set()
    # The total is unknown; a small folder shows no bar.
    bar = tqdm(desc="scan", unit=" files", delay=1, disable=None)

    def enter(folder: str) -> list[str]:
        """Add the files of a folder; return its folders."""
        status = (root / folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            detail = "a link to a folder that is already counted"
            skips.setdefault(folder, Skip(folder, "file", "not_a_file", detail))
            return []
        seen.add((status.st_dev, status.st_ino))
        names, skip = _names_in(root, folder)
        if skip:
            skips.setdefault(folder, skip)
        folders = []
        for name in names:
            path = f"{folder}/{name}" if folder else name
            bar.update()
            kind, skip = _kind(root, path)
            if skip:
                skips[path] = skip
            if kind == "file":
                files.append(path)
            elif kind == "folder":
                folders.append(path)
        return folders

    with bar:
        waiting = [""]
        while waiting:
            waiting += reversed(enter(waiting.pop()))
    masks = find_masks(root, sorted(files))
    skips |= {mask: Skip(mask, "file", "mask", f"of {photo}") for mask, photo in masks.items()}
    return sorted(set(files) - masks.keys()), list(skips.values())


def _names_in(root: Path, folder: str) -> tuple[list[str], Skip | None]:
    """Return the sorted names in a folder, or none and its skip if it cannot be opened.

    Raises:
        ValueError: The folder is the root.
    """
    if folder.count("/") >= DEEPEST:
        return [], Skip(folder, "file", "cannot_open", f"folder: over {DEEPEST} deep")
    try:
        return sorted(item.name for item in (root / folder).iterdir()), None
    except OSError as error:
        if not folder:
            raise ValueError(
                f"{root} cannot be opened: {error.strerror}; grant read permission"
            ) from None
        return [], Skip(folder, "file", "cannot_open", f"folder: {error.strerror}")


def _kind(root: Path, path: str) -> tuple[str, Skip | None]:
    """Return the kind of a path (file, folder, or '' for neither), and its skip."""
    name = path.rpartition("/")[2]
    reason, detail = "not_a_file", "a pipe, socket or device"
    try:
        mode = (root / path).stat().st_mode
        own = name.casefold() in SYSTEM_FILES or suffix(name) == THUMBNAIL
        if name.startswith(".") or own:
            return "", Skip(path, "file", "system_file")
        if stat.S_ISDIR(mode):
            photo_name = suffix(name) in decode.PHOTO_SUFFIXES
            return "folder", Skip(path, "file", reason, LIKE_A_PHOTO) if photo_name else None
        if stat.S_ISREG(mode):
            # Checked here and not when the file is read: `anklealign add` cannot copy it, and its
            # task must have the same result before and after the copy.
            if os.access(root / path, os.R_OK):
                return "file", None
            reason, detail = "cannot_open", os.strerror(errno.EACCES)
    except OSError as error:
        denied = isinstance(
            error, PermissionError
        )  # by its folder, or by a folder on the link's path
        reason, detail = "cannot_open" if denied else reason, error.strerror or str(error)
    return "", Skip(path, "file", reason, detail)


def is_other_file(root: Path, file: str) -> bool:
    """Return whether a file is not a photo by its name and content, such as a table or a README.

    A damaged photo and a picture in a format that is not read are none of these.
    """
    kind, name = suffix(file), file.rpartition("/")[2].casefold()
    if kind in decode.PHOTO_SUFFIXES or (kind in UNREAD_PICTURES and name not in TEXTS):
        return False
    try:
        with (root / file).open("rb") as stream:
            head = stream.read(decode.HEAD)
    except OSError:
        return False
    return not decode.is_photo(head) and not camera_raw.raw_format(head)


def suffix(name: str) -> str:
    """Return the last suffix of a file name in lower case, with its dot, or ''."""
    # pathlib takes twenty times as long, which counts for some thousand cells of a table.
    last = name.rstrip("/").rpartition("/")[2]
    dot = last.rfind(".")
    return last[dot:].casefold() if 0 < dot < len(last) - 1 else ""


def predefined_split_of(path: str) -> str:
    """Return train, val or test if the path starts with such a folder, else ''."""
    top, _, rest = path.partition("/")
    return PREDEFINED_SPLITS.get(top.casefold(), "") if rest else ""


def split_of_name(name: str) -> str:
    """Return the split that a folder, a table or a cell is named after, or ''.

    The name contains words of exactly one split: seg_train, TrainingSet, test1, train_labels.csv.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return min(splits) if len(splits) == 1 else ""


def class_root_of(path: str, roots: Mapping[str, str]) -> str | None:
    """Return the innermost of the folders in `class_roots` that a path is below, or None."""
    above = [root for root in roots if not root or path.startswith(f"{root}/")]
    return max(above, key=len, default=None)


def split_of_path(path: str, class_roots: Mapping[str, str] | None) -> str:
    """Return the predefined split of a photo by its folders, or ''."""
    if class_roots is None:
        return predefined_split_of(path)
    root = class_root_of(path, class_roots)
    return "" if root is None else class_roots[root]


def strip_accents(text: str) -> str:
    """Return the text without accents, in composed Unicode form."""
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize(
        "NFC", "".join(c for c in decomposed if not unicodedata.combining(c))
    )


def subject_of(
    path: str, pattern: re.Pattern[str] | None, collector: str, collectors: Collection[str]
) -> str:
    """Return the subject of a photo by its path, unique in the dataset, or '' if unknown.

    Subjects are numbered by each collector, so the result is `<collector>/<number>`. Only the
    digits in the pattern's group `subject` count: reszvevo03, reszvevo_3 and resztvevo03 are the
    same subject. A file name with the code of another collector shows that collector's subject.
    """
    if pattern is None:
        return ""
    composed = unicodedata.normalize("NFC", path)
    match = pattern.search(composed)
    if match is None and not composed.isascii():
        match = pattern.search(strip_accents(composed))
    name = match.group("subject") if match else None
    if not name:
        return ""
    numbers = re.findall(r"\d+", name)
    # Without digits, the word itself is the subject.
    subject = "-".join(f"{int(n):02d}" for n in numbers) or strip_accents(name).casefold().strip()
    codes = {code.casefold(): code for code in collectors}
    words = re.split(r"[^0-9a-z]+", path.rpartition("/")[2].casefold())
    others = [codes[word] for word in words if word in codes and word != collector.casefold()]
    owner = others[0] if others else collector
    return f"{owner}/{subject}" if owner else subject


def compile_subject_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Return the case-insensitive subject pattern of a dataset."""
    return None if pattern is None else re.compile(pattern, re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """The label of a photo by a task."""

    task: str
    label: str
    by_vote: bool = False


def resolve_claims(
    claims: Mapping[str, Sequence[Claim]],
) -> tuple[dict[str, Claim], list[Skip]]:
    """Return the claim used for each photo, and a skip for every other task and photo.

    If several tasks agree, the first one is used. If they contradict each other, the photo and all
    its tasks are skipped, because the correct label is unknown.
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
