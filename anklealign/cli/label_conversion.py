"""Write the labels of other tools' files into labels.csv, which `anklealign add` reads.

    anklealign convert DATA

DATA is a folder, or an archive, which is unpacked into a folder of its name beside it.

Read are COCO, CVAT, Pascal VOC, VGG Image Annotator, Labelbox, LabelMe, CreateML, Supervisely,
SageMaker Ground Truth, YOLO, Parquet and Arrow tables, and one JSON or text file beside each photo.
A photo's label is that of the photo where the format has one, otherwise that of its boxes or
regions. A photo whose regions have several labels gets all of them, and `anklealign add` counts it.
A photo that several files or rows label differently gets none; it is counted and named.
"""

import csv
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from anklealign.ingest import archives, label_cells
from anklealign.ingest.inventory import escape_unprintable, list_files, suffix
from anklealign.ingest.table_files import PathIndex
from anklealign.ingest.wording import counted
from anklealign.io.decode import PHOTO_SUFFIXES

OUTPUT = "labels.csv"
LARGEST = 256 << 20  # bytes; larger files are not searched
PANDAS = {".parquet": "read_parquet", ".feather": "read_feather"}
YOLO_LINE = re.compile(r"\d+( -?\d*\.?\d+(e-?\d+)?){4,}\s*")
LONGEST_NAME = 60  # characters of a label in a text file of its own
# Folders of label files, and those of their photos beside them.
LABEL_FOLDER = re.compile(r"(?<![^/])(annotations?|ann|labels|xmls?)(?=/)", re.IGNORECASE)
PHOTO_FOLDERS = ("images", "Images", "JPEGImages", "img")
LIST_NAMES = {"classes.txt", "obj.names", "labels.txt", "data.yaml", "dataset.yaml"}

Row = dict[str, Any]  # "path" and the columns of labels; lists are several labels
Items = Sequence[Mapping[str, Any]]


# --- Formats: what a file is, and its rows -------------------------------------------------------


def _coco(content: Mapping[str, Any]) -> Iterator[Row]:
    names = {item["id"]: item["name"] for item in content.get("categories", ())}
    labels: dict[Any, list[str]] = {}
    for item in content.get("annotations", ()):
        own = labels.setdefault(item["image_id"], [])
        for part in item.get("segments_info", [item]):
            own.append(str(names.get(part["category_id"], "")))
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
    rows: dict[str, Row] = {}
    for item in content["metadata"].values():  # of a photo or one of its regions
        file = str(content["view"][item["vid"]]["fid_list"][0])
        row = rows.setdefault(file, {"path": files[file]["fname"]})
        for key, value in item.get("av", {}).items():
            options = attributes[key].get("options", {})
            chosen = value.split(",")  # of checkboxes
            names = [options[each] for each in chosen] if options.keys() >= set(chosen) else [value]
            row.setdefault(attributes[key]["aname"], []).extend(names)
    yield from rows.values()


def _labelbox_old(content: Items) -> Iterator[Row]:
    for item in content:
        label = item.get("Label")
        row: Row = {"path": item.get("External ID") or item.get("Labeled Data")}
        yield row | _labelbox_answers(label if isinstance(label, dict) else {})


def _labelbox(content: Items) -> Iterator[Row]:
    for item in content:
        data = item["data_row"]
        path = data.get("external_id") or data.get("row_data")
        yield {"path": path}
        for project in item.get("projects", {}).values():
            for label in project.get("labels", ()):  # one of each labeler
                yield {"path": path} | _labelbox_answers(label.get("annotations", {}))


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


def _coco_keys(content: object) -> Collection[str]:
    """Return the keys of the first annotation of a COCO file."""
    if not isinstance(content, dict) or "images" not in content:
        return ()
    annotations = content.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return first.keys() if isinstance(first, dict) else ()


def _has_no_category(content: object) -> bool:
    keys = _coco_keys(content)
    return bool(keys) and not {"category_id", "segments_info"} & set(keys)


def _is_coco_aside(content: object) -> bool:
    return bool({"keypoints", "segments_info"} & set(_coco_keys(content)))


COCO, LABELME = "COCO annotations", "LabelMe annotations"
WITHOUT_CATEGORY = "COCO annotations without categories, such as captions"
# Files beside COCO annotations, with other labels of the same photos.
COCO_ASIDE = "COCO annotations of keypoints or regions"
ASIDE_NAME = re.compile(r"(person_)?keypoints_|panoptic_|stuff_")
# What a JSON file is, by its content, and its rows.
JSON_FORMATS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Iterator[Row]]], ...] = (
    (WITHOUT_CATEGORY, _has_no_category, _coco),
    (COCO_ASIDE, _is_coco_aside, _coco),
    (COCO, lambda c: _holds(c, "images", "annotations"), _coco),
    ("a VGG Image Annotator file", _is_via, _via),
    (
        "a VGG Image Annotator file",
        lambda c: _holds(c, "attribute", "file", "metadata", "view"),
        _via3,
    ),
    ("a Labelbox export", lambda c: _list_holds(c, "Labeled Data"), _labelbox_old),
    ("a Labelbox export", lambda c: _list_holds(c, "data_row"), _labelbox),
    (LABELME, lambda c: _holds(c, "imagePath"), _labelme),
    ("CreateML annotations", lambda c: _list_holds(c, "image", "annotations"), _create_ml),
    ("Supervisely annotations", lambda c: _holds(c, "tags", "objects", "size"), _supervisely),
    ("a SageMaker manifest", lambda c: _list_holds(c, "source-ref"), _ground_truth),
)
VOC = "Pascal VOC annotations"
XML_FORMATS = {
    "annotations": ("CVAT annotations", "image", _cvat),
    "annotation": (VOC, "filename", _voc),
}
ONE_PHOTO = {VOC, LABELME}  # formats with a file per photo, which names the photo
SUFFIXES = {".json", ".jsonl", ".ndjson", ".manifest", ".xml", ".txt", *PANDAS}


class PhotoStems:
    """The photos of a folder by their paths and names without suffix."""

    def __init__(self, photos: Iterable[str]) -> None:
        """Index the photos."""
        self._by_path: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = {}
        for photo in photos:
            stem = photo[: len(photo) - len(suffix(photo))]
            self._by_path[stem] = "" if stem in self._by_path else photo  # a.jpg and a.png
            self._by_path[photo] = photo
            for path in {stem, photo}:  # labels may be in a.json or, as Supervisely's, a.jpg.json
                self._by_name.setdefault(path.rpartition("/")[2], []).append(photo)

    def beside(self, file: str) -> str:
        """Return the photo that a file lies beside: a.json and a.jpg.json beside a.jpg; or ''."""
        return self._by_path.get(file[: len(file) - len(suffix(file))], "")

    def named_like(self, file: str) -> str:
        """Return the only photo with the name of a file, as in labels/ and images/, or ''."""
        stem = file[: len(file) - len(suffix(file))]
        for name in (None, *PHOTO_FOLDERS):
            path = LABEL_FOLDER.sub(name, stem) if name else stem
            if path in self._by_path:
                return self._by_path[path]
        same = self._by_name.get(stem.rpartition("/")[2], [])
        return same[0] if len(same) == 1 else ""


Rows = Callable[[], Iterable[Row]]
BESIDE_JSON, BESIDE_TEXT, TABLE = "JSON beside its photo", "a text beside its photo", "a table"
# Formats that may tell something else of a photo than its label, such as a caption.
NOT_ANNOTATIONS = {BESIDE_JSON, BESIDE_TEXT, TABLE}


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
            return TABLE, lambda: _pandas_rows(root / file)
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
        return "YOLO boxes", lambda: _yolo_rows(root, file, lines)
    if stems.beside(file) and len(lines) == 1 and len(text) <= LONGEST_NAME:
        return BESIDE_TEXT, lambda: [{"path": "", "label": text.strip()}]
    return None


def _yolo_rows(root: Path, file: str, lines: Sequence[str]) -> list[Row]:
    source, names = _class_names(root)
    numbers = [int(line.split()[0]) for line in lines]
    if names and (unnamed := sorted(set(numbers) - names.keys())):
        raise ValueError(
            f"{source} has no name of class {unnamed[0]}, which {root / file} has; add it there"
        )
    return [{"path": "", "label": [names.get(number, str(number)) for number in numbers]}]


@cache
def _class_names(root: Path) -> tuple[Path, Mapping[int, str]]:
    """Return the file with the names of YOLO's classes, and the names by number.

    Raises:
        ValueError: A file is not valid YAML, or its names are no list.
    """
    for path in sorted(root.rglob("*")):
        if path.name not in LIST_NAMES:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        names: object = [line.strip() for line in text.splitlines() if line.strip()]
        if path.suffix == ".yaml":
            names = _yaml_names(path, text)
        if isinstance(names, list) and names:
            return path, dict(enumerate(map(str, names)))
        if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
            return path, {int(key): str(name) for key, name in names.items()}
    return root, {}


def _yaml_names(path: Path, text: str) -> object:
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(
            f"{path}{line} is not valid YAML; fix it, since it has the names of the classes"
        ) from None
    return content.get("names") if isinstance(content, dict) else None


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

    An archive is unpacked first. It stays so on an error, which names files in its folder.

    Raises:
        ValueError: There is no folder or no label file of another tool, one has an unknown form,
            two formats disagree, labels.csv exists, or an archive cannot be unpacked.
        OSError: A file cannot be read or written.
    """
    if folder.is_file() and archives.has_archive_content(folder):
        folder, remarks = archives.unpack_beside(folder)
        print(f"{folder}: unpacked; {'; '.join(remarks)}")
    if not folder.is_dir():
        problem = archives.unreadable_archive(folder) if folder.is_file() else ""
        remedy = "is not a folder or an archive; pass the folder of the photos"
        raise ValueError(f"{folder} {problem or remedy}")
    target = folder / OUTPUT
    if target.exists():
        raise ValueError(f"{target} exists; move it away")
    files = list_files(folder)[0]
    photos = {file for file in files if suffix(file) in PHOTO_SUFFIXES}
    by_format, notes = _by_format(folder, [file for file in files if file not in photos], photos)
    rows = [row for each in by_format.values() for row in each]
    if not rows:
        raise ValueError(
            f"{folder} has no label file of another tool; `anklealign add {folder} NAME --dry-run` "
            "says what it has"
        )
    _check_agreement(folder, by_format)
    cells, disagreeing = _one_row_each(by_format, photos)
    columns = list(dict.fromkeys(column for row in cells for column in row))
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells)
    if disagreeing:
        several = len(disagreeing) > 1
        notes.append(
            f"  {len(disagreeing)} photo{'s have' if several else ' has'} different labels in "
            f"several files or rows, and {'get' if several else 'gets'} none: "
            f"{_first(disagreeing)}; write the right ones into {OUTPUT}"
        )
    number = counted(len(cells), "row", "rows")
    unknown = [escape_unprintable(row["path"]) for row in cells if row["path"] not in photos]
    if unknown:
        notes.append(f"  {len(unknown)} of {number} name no photo: {_first(unknown)}")
    return [
        f"{target}: {number} with the columns {', '.join(columns)}",
        *notes,
        f"next: anklealign add {shlex.quote(str(folder))} NAME --dry-run",
    ]


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name or "''" for name in names[:3]) + more


def _one_row_each(
    by_format: Mapping[str, Sequence[Row]], photos: Collection[str]
) -> tuple[list[dict[str, str]], list[str]]:
    """Return one row of cells for each photo, and the photos whose rows disagree, with the labels.

    A cell is empty if rows disagree on it. Rows of tables are kept, which may be those of several
    annotators, and so are rows that name no photo.
    """
    rows: dict[object, dict[str, str]] = {}
    labels: dict[tuple[str, str], dict[frozenset[str], str]] = {}  # by photo and column
    for name, each in by_format.items():
        for row in each:
            cells = {key: _cell(value) for key, value in row.items() if key}
            path = cells["path"]
            if name == TABLE or path not in photos:
                rows[tuple(cells.items())] = cells
                continue
            rows[path] = cells | {key: text for key, text in rows.get(path, {}).items() if text}
            for key, text in cells.items():
                if text and key != "path":
                    labels.setdefault((path, key), {})[frozenset(label_cells.parts(text))] = text
    disagreeing: dict[str, str] = {}
    for (path, key), texts in labels.items():
        if len(texts) > 1:
            rows[path][key] = ""
            disagreeing[path] = f"{escape_unprintable(path)} ({_text(texts.values())})"
    return list(rows.values()), list(disagreeing.values())


def labels_of(
    folder: Path, files: Iterable[str], photos: Collection[str]
) -> dict[str, frozenset[str]]:
    """Return all labels of each photo in label files, whatever column they are in.

    Raises:
        ValueError: A file has an unknown form.
        OSError: A file cannot be read.
    """
    found: dict[str, frozenset[str]] = {}
    for row in chain.from_iterable(_by_format(folder, files, photos)[0].values()):
        own = {text for key, value in row.items() if key != "path" for text in _texts(value)}
        found[row["path"]] = found.get(row["path"], frozenset()) | own
    return found


def _by_format(
    folder: Path, files: Iterable[str], photos: Collection[str]
) -> tuple[dict[str, list[Row]], list[str]]:
    """Return the rows of each format, and lines on its files.

    Raises:
        ValueError: A file has an unknown form.
        OSError: A file cannot be read.
    """
    stems, index = PhotoStems(photos), PathIndex(sorted(photos))
    _class_names.cache_clear()
    rows: dict[str, list[Row]] = {}
    counts: Counter[str] = Counter()
    for file in tqdm(files, "labels", unit="file", delay=1, leave=False, disable=None):
        if not (found := _recognize(folder, file, stems)):
            continue
        name, read = found
        if name == COCO and ASIDE_NAME.match(file.rpartition("/")[2]):
            name = COCO_ASIDE
        counts[name] += 1
        if name == WITHOUT_CATEGORY:
            continue
        try:
            own = [{**row, "path": _photo_of(row, name, file, stems, index)} for row in read()]
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{folder / file}: {name} of an unknown form ({error!r})") from None
        rows.setdefault(name, []).extend(own)
    aside = {WITHOUT_CATEGORY, COCO_ASIDE} if COCO in rows else {WITHOUT_CATEGORY}
    notes = [
        f"  {count} file{'s' * (count > 1)}: {name}" + (", left out" if name in aside else "")
        for name, count in counts.items()
    ]
    return {name: own for name, own in rows.items() if name not in aside}, notes


def _check_agreement(folder: Path, by_format: Mapping[str, Sequence[Row]]) -> None:
    """Check that no two formats give a photo different labels.

    Raises:
        ValueError: Two formats disagree.
    """
    first: dict[tuple[str, str], tuple[str, frozenset[str]]] = {}
    for name, rows in by_format.items():
        for row in rows:
            for column in row.keys() - {"path"}:
                value = row[column]
                labels = frozenset(map(str, value if isinstance(value, list) else [value]))
                other, before = first.setdefault((row["path"], column), (name, labels))
                if other != name and labels and before and labels != before:
                    raise ValueError(
                        f"{other} and {name} disagree on {row['path']} ({_text(before)}; "
                        f"{_text(labels)}); move the files of one format out of {folder}"
                    )


def _text(labels: Iterable[str]) -> str:
    return ", ".join(map(escape_unprintable, sorted(labels)))


def _photo_of(row: Row, name: str, file: str, stems: PhotoStems, index: PathIndex) -> str:
    """Return the path of a row's photo below the folder, or the row's own path if it is unknown."""
    path = str(row["path"] or "")
    if name in ONE_PHOTO and (own := stems.named_like(file)):
        return own  # file names in copied files are often those of another photo
    matches = index.lookup(path, file.rpartition("/")[0]) if path else []
    last = path.replace("\\", "/").rpartition("/")[2]
    if len(matches) != 1 and last:
        matches = index.lookup(last, file.rpartition("/")[0])
    return (matches[0] if len(matches) == 1 else stems.named_like(file)) or path


def _texts(value: object) -> list[str]:
    """Return the labels in a value; of an object, the names of those that are marked."""
    if isinstance(value, dict):
        value = [name for name, marked in value.items() if marked]
    items = value if isinstance(value, list) else [value]
    return [text for item in items if item is not None and (text := str(item))]


def _cell(value: object) -> str:
    return label_cells.joined(_texts(value))
