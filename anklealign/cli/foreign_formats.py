"""Recognize label files that no layout reads, and say how to convert them."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from anklealign.ingest.inventory import escape_unprintable, suffix

HEAD = 1 << 16  # bytes of a file that are searched
TO_CSV = "write a CSV with the columns path,label"
ONE_LABEL = f"each photo needs one label; {TO_CSV}"
PARQUET = (
    'convert it where pyarrow is installed: python -c "import pandas; '
    "pandas.read_parquet('FILE').to_csv('labels.csv', index=False)\""
)
# By suffix: what the file is, and the remedy.
SUFFIXES = {
    ".xlsx": ("a spreadsheet", "save it as CSV UTF-8"),
    ".xls": ("a spreadsheet", "save it as CSV UTF-8"),
    ".ods": ("a spreadsheet", "save it as CSV"),
    ".parquet": ("a Parquet table", PARQUET),
    ".arrow": ("an Arrow table", "save the dataset as images with metadata.csv"),
    ".feather": ("an Arrow table", TO_CSV),
    ".tfrecord": ("TensorFlow records", "write the photos as files into class folders"),
    ".h5": ("an HDF5 file", "write the photos as files into class folders"),
    ".npz": ("NumPy arrays", "write the photos as files into class folders"),
    ".npy": ("NumPy arrays", "write the photos as files into class folders"),
    ".mat": ("a MATLAB file", TO_CSV),
    ".pkl": ("a pickle", TO_CSV),
    ".sqlite": ("a database", TO_CSV),
    ".db": ("a database", TO_CSV),
}
# Raw files of cameras, of which decoders read only a thumbnail, and archives of other programs.
SUFFIXES |= dict.fromkeys(
    [
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf",
        ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".x3f",
    ],
    ("camera raw files", "convert them to JPEG"),
) | dict.fromkeys(
    [".7z", ".rar", ".z01", ".001"], ("an archive", "unpack it into the folder")
)  # fmt: skip
# By content of XML and JSON: (pattern of the first bytes, what the file is).
CONTENTS = (
    (r"<annotations>[\s\S]*<image\b", "CVAT annotations"),
    (r"<annotation\b[\s\S]*<filename>", "Pascal VOC boxes"),
    (r'"images"\s*:\s*\[[\s\S]*"file_name"|"annotations"\s*:\s*\[[\s\S]*"category_id"', "COCO"),
    (r'"_via_img_metadata"|"regions"\s*:[\s\S]*"shape_attributes"', "a VGG Image Annotator file"),
    (r'"Labeled Data"|"data_row"\s*:|"labelbox', "a Labelbox export"),
    (r'"shapes"\s*:\s*\[[\s\S]*"imagePath"|"imagePath"[\s\S]*"shapes"', "LabelMe shapes"),
)
YOLO_LINE = re.compile(r"\d+( -?\d*\.?\d+(e-?\d+)?){4,}\s*")
LISTED = 3  # files named in a remark


def recognize(root: Path, file: str) -> tuple[str, str] | None:
    """Return what a label file is and how to convert it, or None if its format is unknown."""
    kind = suffix(file)
    if kind in SUFFIXES:
        return SUFFIXES[kind]
    if kind not in {".xml", ".json", ".jsonl", ".ndjson", ".txt"}:
        return None
    try:
        with (root / file).open("rb") as stream:
            head = stream.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    return _recognize_content(kind, head)


def _recognize_content(kind: str, head: str) -> tuple[str, str] | None:
    """Return the format of a text file by its first bytes."""
    names: list[str] = []
    if kind == ".txt":
        lines = head.splitlines()[:50]
        if lines and all(YOLO_LINE.fullmatch(line) for line in lines):
            names.append("YOLO boxes")
    else:
        names += [name for pattern, name in CONTENTS if re.search(pattern, head)]
    if names:
        return names[0], ONE_LABEL
    if kind == ".json" and (labels := mapping_of(head)):
        return f"a JSON mapping such as {labels}", TO_CSV
    return None


def mapping_of(text: str) -> str:
    """Return the first pair of a JSON object from file names to labels, or ''."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return ""
    if not isinstance(content, Mapping) or len(content) < 2:
        return ""
    if all(isinstance(value, str | int) for value in content.values()) and all(
        suffix(key) for key in content
    ):
        key = min(content)
        return f"{key}: {content[key]}"
    return ""


def remarks(root: Path, files: Iterable[str]) -> list[str]:
    """Return one remark for each recognized format among the files of a folder."""
    by_format: dict[tuple[str, str], list[str]] = {}
    for file in files:
        if recognized := recognize(root, file):
            by_format.setdefault(recognized, []).append(file)
    lines: list[str] = []
    for (name, remedy), named in sorted(by_format.items()):
        shown = ", ".join(map(escape_unprintable, named[:LISTED]))
        more = f" and {len(named) - LISTED} more" if len(named) > LISTED else ""
        lines.append(f"{shown}{more}: {name}, not read; {remedy.replace('FILE', named[0])}")
    return lines
