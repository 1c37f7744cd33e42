"""Write the labels of other tools' files into labels.csv, which `anklealign add` reads.

    anklealign convert DIR

Read are COCO, CVAT, Pascal VOC, VGG Image Annotator, Labelbox, LabelMe, CreateML, Supervisely,
SageMaker Ground Truth, YOLO, Parquet and Arrow tables, and one JSON or text file beside each photo.
A photo's label is that of the photo where the format has one, otherwise that of its boxes or
regions. A photo whose regions have several labels gets all of them, and `anklealign add` counts it.
"""

import csv
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
from ruamel.yaml import YAML
from tqdm import tqdm

from anklealign.ingest import label_cells
from anklealign.ingest.inventory import list_files, suffix
from anklealign.ingest.table_files import PathIndex
from anklealign.io.decode import PHOTO_SUFFIXES

OUTPUT = "labels.csv"
LARGEST = 256 << 20  # bytes; larger files are not searched
PANDAS = {".parquet": "read_parquet", ".feather": "read_feather"}
YOLO_LINE = re.compile(r"\d+( -?\d*\.?\d+(e-?\d+)?){4,}\s*")
LONGEST_NAME = 60  # characters of a label in a text file of its own
LIST_NAMES = {"classes.txt", "obj.names", "labels.txt", "data.yaml", "dataset.yaml"}

Row = dict[str, Any]  # "path" and the columns of labels; lists are several labels
Items = Sequence[Mapping[str, Any]]


# --- Formats: what a file is, and its rows -------------------------------------------------------


def _coco(content: Mapping[str, Any]) -> Iterator[Row]:
    names = {item["id"]: item["name"] for item in content.get("categories", ())}
    labels: dict[Any, list[str]] = {}
    for item in content.get("annotations", ()):
        labels.setdefault(item["image_id"], []).append(str(names.get(item["category_id"], "")))
    for image in content["images"]:
        yield {"path": image["file_name"], "label": labels.get(image["id"], [])}


def _via(content: Mapping[str, Any]) -> Iterator[Row]:
    for image in content.get("_via_img_metadata", content).values():
        row: Row = {"path": image["filename"], **image.get("file_attributes", {})}
        regions = image.get("regions") or []
        for region in regions.values() if isinstance(regions, dict) else regions:
            for name, value in region.get("region_attributes", {}).items():
                if isinstance(row.setdefault(name, []), list):
                    row[name].append(value)
        yield row


def _via3(content: Mapping[str, Any]) -> Iterator[Row]:
    attributes, files = content["attribute"], content["file"]
    for item in content["metadata"].values():
        row: Row = {"path": files[str(content["view"][item["vid"]]["fid_list"][0])]["fname"]}
        for key, value in item.get("av", {}).items():
            options = attributes[key].get("options", {})
            row[attributes[key]["aname"]] = options.get(value, value)
        yield row


def _labelbox_old(content: Items) -> Iterator[Row]:
    for item in content:
        label = item.get("Label")
        row: Row = {"path": item.get("External ID") or item.get("Labeled Data")}
        yield row | _labelbox_answers(label if isinstance(label, dict) else {})


def _labelbox(content: Items) -> Iterator[Row]:
    for item in content:
        data = item["data_row"]
        row: Row = {"path": data.get("external_id") or data.get("row_data")}
        for project in item.get("projects", {}).values():
            for label in project.get("labels", ()):
                row |= _labelbox_answers(label.get("annotations", {}))
        yield row


def _labelbox_answers(label: Mapping[str, Any]) -> Row:
    """Return the answers to each question, or the names of the objects."""
    row: Row = {}
    for question in label.get("classifications", ()):
        keys = ("answer", "answers", "radio_answer", "checklist_answers", "text_answer")
        answers = [question[key] for key in keys if question.get(key)]
        flat = [part for each in answers for part in (each if isinstance(each, list) else [each])]
        row[question.get("title") or question.get("name")] = [_title(part) for part in flat]
    names = [_title(item) for item in label.get("objects", ())]
    return row or {"label": names}


def _title(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    return str(next((item[k] for k in ("name", "title", "content", "value") if item.get(k)), ""))


def _labelme(content: Mapping[str, Any]) -> Iterator[Row]:
    flags = [name for name, marked in (content.get("flags") or {}).items() if marked]
    regions = [shape.get("label") for shape in content.get("shapes") or ()]
    yield {"path": content["imagePath"], "label": flags or regions}


def _create_ml(content: Items) -> Iterator[Row]:
    for item in content:
        yield {"path": item["image"], "label": [box["label"] for box in item["annotations"]]}


def _supervisely(content: Mapping[str, Any]) -> Iterator[Row]:
    tags = [tag["name"] for tag in content["tags"]]
    yield {"path": "", "label": tags or [item["classTitle"] for item in content["objects"]]}


def _ground_truth(content: Items) -> Iterator[Row]:
    for item in content:
        row: Row = {"path": item["source-ref"]}
        for key, value in item.items():
            if isinstance(value, dict) and "class-name" in value:
                row[key.removesuffix("-metadata")] = value["class-name"]
        yield row


def _sidecar(content: Mapping[str, Any]) -> Iterator[Row]:
    yield {"path": "", **{k: v for k, v in content.items() if isinstance(v, str | int | list)}}


def _cvat(tree: ET.Element) -> Iterator[Row]:
    for image in tree.iter("image"):
        tags = [tag.get("label") for tag in image.iter("tag")]
        yield {"path": image.get("name"), "label": tags or [part.get("label") for part in image]}


def _voc(tree: ET.Element) -> Iterator[Row]:
    labels = [item.findtext("name") for item in tree.iter("object")]
    yield {"path": tree.findtext("filename"), "label": labels}


def _holds(content: object, *keys: str) -> bool:
    """Return whether a JSON object, or the first one of a list, has all keys."""
    return isinstance(content, dict) and set(keys) <= content.keys()


def _list_holds(content: object, *keys: str) -> bool:
    return isinstance(content, list) and bool(content) and _holds(content[0], *keys)


def _is_via(content: object) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    first = next(iter(content.values()))
    return "_via_img_metadata" in content or _holds(first, "filename", "regions")


# What a JSON file is, by its content, and its rows.
JSON_FORMATS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Iterator[Row]]], ...] = (
    ("COCO annotations", lambda c: _holds(c, "images", "annotations"), _coco),
    ("a VGG Image Annotator file", _is_via, _via),
    (
        "a VGG Image Annotator file",
        lambda c: _holds(c, "attribute", "file", "metadata", "view"),
        _via3,
    ),
    ("a Labelbox export", lambda c: _list_holds(c, "Labeled Data"), _labelbox_old),
    ("a Labelbox export", lambda c: _list_holds(c, "data_row"), _labelbox),
    ("LabelMe annotations", lambda c: _holds(c, "imagePath"), _labelme),
    ("CreateML annotations", lambda c: _list_holds(c, "image", "annotations"), _create_ml),
    ("Supervisely annotations", lambda c: _holds(c, "tags", "objects", "size"), _supervisely),
    ("a SageMaker manifest", lambda c: _list_holds(c, "source-ref"), _ground_truth),
)
XML_FORMATS = {
    "annotations": ("CVAT annotations", "image", _cvat),
    "annotation": ("Pascal VOC annotations", "filename", _voc),
}
SUFFIXES = {".json", ".jsonl", ".ndjson", ".manifest", ".xml", ".txt", *PANDAS}


class PhotoStems:
    """The photos of a folder by their paths and names without suffix."""

    def __init__(self, photos: Iterable[str]) -> None:
        """Index the photos."""
        self._by_path: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = {}
        for photo in photos:
            stem = photo[: len(photo) - len(suffix(photo))]
            self._by_path |= {stem: photo, photo: photo}
            self._by_name.setdefault(stem.rpartition("/")[2], []).append(photo)

    def beside(self, file: str) -> str:
        """Return the photo that a file lies beside: a.json and a.jpg.json beside a.jpg; or ''."""
        return self._by_path.get(file[: len(file) - len(suffix(file))], "")

    def named_like(self, file: str) -> str:
        """Return the only photo with the name of a file, as in labels/ and images/, or ''."""
        stem = file[: len(file) - len(suffix(file))]
        images = re.sub(r"(^|/)labels(/)", r"\1images\2", stem)
        same = self._by_name.get(stem.rpartition("/")[2], [])
        only = same[0] if len(same) == 1 else ""
        return self._by_path.get(stem) or self._by_path.get(images) or only


Rows = Callable[[], Iterable[Row]]


def format_of(root: Path, file: str, stems: PhotoStems) -> str:
    """Return what a label file is, or '' if its format is unknown."""
    found = _recognize(root, file, stems)
    return found[0] if found else ""


def _recognize(root: Path, file: str, stems: PhotoStems) -> tuple[str, Rows] | None:
    """Return what a label file is and a function that returns its rows, or None."""
    kind = suffix(file)
    try:
        if kind not in SUFFIXES or (root / file).stat().st_size > LARGEST:
            return None
        if kind in PANDAS:
            return "a table", lambda: _pandas_rows(root / file)
        data = (root / file).read_bytes()
    except OSError:
        return None
    if kind == ".xml":
        return _recognize_xml(data)
    text = data.decode("utf-8-sig", "replace")
    if kind == ".txt":
        return _recognize_text(root, file, text, stems)
    return _recognize_json(text, beside=bool(stems.beside(file)))


def _recognize_xml(data: bytes) -> tuple[str, Rows] | None:
    try:
        tree = ET.fromstring(data)  # noqa: S314 - the user's own file, on the user's machine
    except ET.ParseError:
        return None
    name, key, rows = XML_FORMATS.get(tree.tag, ("", "", _voc))
    return (name, lambda: rows(tree)) if name and tree.find(key) is not None else None


def _recognize_json(text: str, *, beside: bool) -> tuple[str, Rows] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        try:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            return None
    if isinstance(content, dict) and "data_row" in content:  # one line of JSON Lines
        content = [content]
    for name, holds, rows in JSON_FORMATS:
        if holds(content):
            return name, partial(rows, content)
    if beside and isinstance(content, dict):
        return "JSON beside its photo", lambda: _sidecar(content)
    return None


def _recognize_text(root: Path, file: str, text: str, stems: PhotoStems) -> tuple[str, Rows] | None:
    lines = text.splitlines()
    if lines and all(map(YOLO_LINE.fullmatch, lines)):
        return "YOLO boxes", lambda: _yolo_rows(root, lines)
    if stems.beside(file) and len(lines) == 1 and len(text) <= LONGEST_NAME:
        return "a text beside its photo", lambda: [{"path": "", "label": text.strip()}]
    return None


def _yolo_rows(root: Path, lines: Sequence[str]) -> list[Row]:
    names = _class_names(root)
    numbers = [int(line.split()[0]) for line in lines]
    return [{"path": "", "label": [names.get(number, str(number)) for number in numbers]}]


@cache
def _class_names(root: Path) -> Mapping[int, str]:
    """Return the names of YOLO's classes by number, from the list of a dataset."""
    for path in sorted(root.rglob("*")):
        if path.name not in LIST_NAMES:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        names: object = [line.strip() for line in text.splitlines() if line.strip()]
        if path.suffix == ".yaml":
            names = YAML(typ="safe", pure=True).load(text).get("names")
        if isinstance(names, list):
            return dict(enumerate(names))
        if isinstance(names, dict):
            return names
    return {}


def _pandas_rows(path: Path) -> list[Row]:
    try:
        frame = getattr(pd, PANDAS[suffix(path.name)])(path)
    except ImportError:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from None
    if any(isinstance(value, bytes | dict) for value in frame.iloc[:1].to_numpy().ravel()):
        raise ValueError(
            f"{path} holds photos, not their names; write them as files into class folders"
        )
    return frame.to_dict("records")  # type: ignore[no-any-return]


# --- The command -------------------------------------------------------------------------------


def convert_labels(folder: Path) -> int:
    """Write labels.csv into a folder and print what it has; return the exit status."""
    try:
        print(*convert(folder), sep="\n")
    except (ValueError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    return 0


def convert(folder: Path) -> list[str]:
    """Write labels.csv into a folder; return the lines that say what it has.

    Raises:
        ValueError: There is no label file of another tool, one has an unknown form, or labels.csv
            exists.
        OSError: A file cannot be read or written.
    """
    target = folder / OUTPUT
    if target.exists():
        raise ValueError(f"{target} exists; move it away")
    files = list_files(folder)[0]
    photos = [file for file in files if suffix(file) in PHOTO_SUFFIXES]
    stems, index = PhotoStems(photos), PathIndex(photos)
    rows: list[Row] = []
    formats: Counter[str] = Counter()
    for file in tqdm(files, "labels", unit="file", delay=1, leave=False, disable=None):
        if file in photos or not (found := _recognize(folder, file, stems)):
            continue
        name, read = found
        try:
            own = [_with_path(row, file, stems, index) for row in read()]
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{folder / file}: {name} of an unknown form ({error!r})") from None
        formats[name] += 1
        rows += own
    if not rows:
        raise ValueError(
            f"{folder} has no label file of another tool; `anklealign add {folder} NAME --dry-run` "
            "says what it has"
        )
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return [
        f"{target}: {len(rows)} rows with the columns {', '.join(columns)}",
        *(f"  {count} file{'s' * (count > 1)}: {name}" for name, count in formats.items()),
        f"next: anklealign add {shlex.quote(str(folder))} NAME --dry-run",
    ]


def _with_path(row: Row, file: str, stems: PhotoStems, index: PathIndex) -> dict[str, str]:
    """Return a row with the path of its photo below the folder, and its lists as cells."""
    path = str(row["path"] or "")
    matches = index.lookup(path, file.rpartition("/")[0]) if path else []
    name = path.replace("\\", "/").rpartition("/")[2]
    if len(matches) != 1 and name:
        matches = index.lookup(name, file.rpartition("/")[0])
    found = matches[0] if len(matches) == 1 else stems.named_like(file)
    cells = {key: _cell(value) for key, value in row.items() if key}
    return {**cells, "path": found or path}


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = [name for name, marked in value.items() if marked]
    if isinstance(value, list):
        return label_cells.joined([str(item) for item in value if item is not None])
    return "" if value is None else str(value)
