"""Recognize label files that no layout reads, and say how to convert them."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from anklealign.cli import label_conversion
from anklealign.cli.label_conversion import OUTPUT
from anklealign.config.class_names import fold, unnumbered
from anklealign.ingest.inventory import escape_unprintable, suffix

CONVERT = "CONVERT"  # the remedy of `anklealign convert`
TO_CSV = "write a CSV with the columns path,label"
TO_FOLDERS = "write the photos as files into class folders"
# By suffix: what the file is, and the remedy.
SUFFIXES = {
    ".xlsx": ("a spreadsheet", "save it as CSV UTF-8"),
    ".xls": ("a spreadsheet", "save it as CSV UTF-8"),
    ".ods": ("a spreadsheet", "save it as CSV"),
    ".parquet": ("a Parquet table", f"`pip install pyarrow`; {CONVERT}"),
    ".feather": ("an Arrow table", f"`pip install pyarrow`; {CONVERT}"),
    ".arrow": ("an Arrow table", "save the dataset as images with metadata.csv"),
    ".tfrecord": ("TensorFlow records", TO_FOLDERS),
    ".h5": ("an HDF5 file", TO_FOLDERS),
    ".npz": ("NumPy arrays", TO_FOLDERS),
    ".npy": ("NumPy arrays", TO_FOLDERS),
    ".mat": ("a MATLAB file", TO_CSV),
    ".pkl": ("a pickle", TO_CSV),
    ".sqlite": ("a database", TO_CSV),
    ".db": ("a database", TO_CSV),
    ".pdf": ("a document", "save its pictures as JPEG or PNG"),
}
# Raw files of cameras, of which decoders read only a thumbnail, videos, and archives of other
# programs.
SUFFIXES |= dict.fromkeys(
    [
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf",
        ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".x3f",
    ],
    ("camera raw files", "convert them to JPEG"),
) | dict.fromkeys(
    [".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm", ".wmv"],
    ("videos", "save frames as JPEG"),
) | dict.fromkeys(
    [".dcm", ".dicom", ".nii"], ("medical images", "save them as PNG")
) | dict.fromkeys(
    [".7z", ".rar", ".z01", ".001"], ("an archive", "unpack it into the folder")
)  # fmt: skip
# Tables that are something else by their first bytes.
CONTENTS = {
    b"PK\x03\x04": ("a spreadsheet or an archive by its content", "save it as CSV UTF-8"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet by its content", "save it as CSV UTF-8"),
    b"<!doctype html": ("a web page", "download the table again"),
    b"<html": ("a web page", "download the table again"),
    b"version https://git-lfs": ("a pointer of Git LFS", "run `git lfs pull` in its repository"),
}
TABLES = {".csv", ".tsv", ".tab", ".txt"}
# Pascal VOC has a list for each class and split, of all photos: name -1.
VOC_LIST = re.compile(r"(?:.*/)?ImageSets/.+\.txt", re.IGNORECASE)
VOC_LINE = re.compile(r"\S+\s+(?:-1|0|1)\s*")
VOC_LISTS = "Pascal VOC's lists of one class"
LISTED = 3  # files named in a remark
AGREEING = 0.99  # share of photos whose labels by folder and by label file go together


def recognize(root: Path, file: str, stems: label_conversion.PhotoStems) -> tuple[str, str] | None:
    """Return what a label file is and how to convert it, or None if its format is unknown.

    Args:
        root: The dataset's folder.
        file: A path below it.
        stems: The photos.
    """
    kind = suffix(file)
    if kind in SUFFIXES:
        return SUFFIXES[kind]
    if kind in TABLES and (found := _by_content(root / file)):
        return found
    if kind not in label_conversion.SUFFIXES:
        return None
    if name := label_conversion.format_of(root, file, stems):
        return name, "" if name == label_conversion.WITHOUT_CATEGORY else CONVERT
    return (VOC_LISTS, "") if _is_voc_list(root, file) else None


def _by_content(file: Path) -> tuple[str, str] | None:
    """Return what a file with a table's name is, and the remedy, or None if it may be a table."""
    with file.open("rb") as stream:
        head = stream.read(64).lstrip().lower()
    return next((what for start, what in CONTENTS.items() if head.startswith(start.lower())), None)


def _is_voc_list(root: Path, file: str) -> bool:
    """Return whether a file is one of Pascal VOC's lists of one class: a name and -1, 0 or 1."""
    if not VOC_LIST.fullmatch(file) or (root / file).stat().st_size > label_conversion.LARGEST:
        return False
    lines = (root / file).read_text(encoding="utf-8", errors="replace").splitlines()
    return bool(lines) and all(map(VOC_LINE.fullmatch, filter(str.strip, lines)))


@dataclass(frozen=True)
class ForeignLabels:
    """Label files of other tools that `anklealign convert` reads.

    Attributes:
        root: The dataset's folder.
        formats: The formats' names.
        annotations: The files, without those that may describe a photo otherwise: a text beside it.
    """

    root: Path
    formats: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """Return what may hold the labels and the command that reads them, or ''."""
        if not self.formats:
            return ""
        return f"{', '.join(self.formats)} may hold the labels; {_next_step(self.root)}"

    def contradiction(
        self, labels: Mapping[str, str], photos: Collection[str], source: str = "their folders"
    ) -> str:
        """Return that labels differ from those of the files, with the command that reads these.

        '' if the files have one label, or if theirs go together with almost all of the others.

        Args:
            labels: Label of each photo, such as its folder.
            photos: All photos.
            source: What the labels are from.
        """
        try:
            found = label_conversion.labels_of(self.root, self.annotations, photos)
        except (ValueError, OSError) as error:
            return f"the labels of the files beside {source} cannot be compared: {error}"
        pairs = [(labels[photo], found[photo]) for photo in labels if found.get(photo)]
        by_label: dict[str, Counter[frozenset[str]]] = defaultdict(Counter)
        for label, own in pairs:
            by_label[label][own] += 1
        equal = sum(_key(label) in set(map(_key, own)) for label, own in pairs)
        usual = [max(own, key=lambda each: own[each]) for own in by_label.values()]
        together = sum(max(own.values()) for own in by_label.values())
        if len(set(usual)) < len(usual):
            together = 0  # two folders have the same labels
        alike = max(equal, together)
        if len({own for _, own in pairs}) < 2 or alike >= AGREEING * len(pairs):
            return ""
        differing = f"{len(pairs) - alike} of {len(pairs)}" if alike else str(len(pairs))
        return (
            f"{', '.join(self.formats)} label {differing} photos otherwise than {source}; "
            f"{_next_step(self.root)}"
        )


def _key(text: str) -> str:
    return unnumbered(fold(text))


def remarks(
    root: Path, files: Iterable[str], photos: Iterable[str]
) -> tuple[list[str], set[str], ForeignLabels]:
    """Return one remark for each format among the files of a folder, and the recognized files.

    The third result is what `anklealign convert` would read. JSON files of no known format are
    named if they are no tables, either.
    """
    stems = label_conversion.PhotoStems(photos)
    by_format: dict[tuple[str, str], list[str]] = {}
    for file in tqdm(files, "formats", unit="file", delay=1, leave=False, disable=None):
        if recognized := recognize(root, file, stems):
            by_format.setdefault(recognized, []).append(file)
    lines = [
        f"{named_files(named)}: {name}, not read{_remedy(root, remedy)}"
        for (name, remedy), named in sorted(by_format.items())
    ]
    convertible = {
        name: named for (name, remedy), named in sorted(by_format.items()) if CONVERT in remedy
    }
    annotations = [
        file
        for name, named in convertible.items()
        if name not in label_conversion.NOT_ANNOTATIONS
        for file in named
    ]
    recognized_files = {file for named in by_format.values() for file in named}
    return lines, recognized_files, ForeignLabels(root, tuple(convertible), tuple(annotations))


def named_files(files: Sequence[str]) -> str:
    """Return the first of some files and the number of the others."""
    shown = ", ".join(map(escape_unprintable, files[:LISTED]))
    return f"{shown} and {len(files) - LISTED} more" if len(files) > LISTED else shown


def _remedy(root: Path, remedy: str) -> str:
    """Return what to do, or that it may have been done."""
    if CONVERT not in remedy:
        return f"; {remedy}" if remedy else ""
    if (root / OUTPUT).exists():
        return f", because {OUTPUT} exists; to convert again, move it away"
    return f"; {remedy.replace(CONVERT, _command(root))}"


def _next_step(root: Path) -> str:
    """Return what gives the labels: the command, or a table that it wrote and that is not read."""
    if (root / OUTPUT).exists():
        return f"{OUTPUT} exists, but is not read for the reason below; correct it"
    return _command(root)


def _command(root: Path) -> str:
    """Return the command that converts the labels of a folder."""
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in root.parts)
    # An archive is unpacked into a hidden folder, which is gone afterwards.
    place = "DIR" if hidden else shlex.quote(str(root))
    unpacked = "unpack the archive to DIR; " if hidden else ""
    return f"{unpacked}to write a {OUTPUT}, run `anklealign convert {place}`"
