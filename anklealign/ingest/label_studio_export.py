"""Parse Label Studio exports (JSON, JSON-MIN and CSV) into tasks.

A JSON export contains tasks with their annotations. JSON-MIN and CSV exports contain one record per
annotation, with the names of data fields and questions as keys. Old releases of Label Studio write
`completions` for `annotations` and `skipped` for `was_cancelled`. Invalid values are omitted from a
task; an invalid file raises `BrokenExportError`. No other exception is raised.

Annotators are identified by their Label Studio id. An email address or name is replaced by a
pseudonym, because annotators appear in metrics and plots, which are committed to git.
"""

import base64
import binascii
import csv
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from anklealign.config.class_names import Labels
from anklealign.ingest.inventory import suffix
from anklealign.io.decode import PHOTO_SUFFIXES

TASK_KEYS = {"data", "annotations", "completions", "file_upload"}
# Columns of JSON-MIN and CSV exports that hold neither task data nor labels.
RECORD_KEYS = {
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement",
    "ground_truth", "project", "inner_id", "was_cancelled",
}  # fmt: skip
# Suffixes of imported task files. `file_upload` names such a file if tasks were imported from it.
TASK_FILES = {".json", ".jsonl", ".csv", ".tsv", ".txt", ".xml"}


@dataclass(frozen=True)
class Annotation:
    """The choices of one annotator, grouped by question (from_name)."""

    annotator: str
    updated: str
    cancelled: bool
    questions: tuple[tuple[str, ...], ...]


@dataclass
class Task:
    """One task of an export, with its photo addresses and annotations."""

    name: str  # <export>#<task id>
    key: tuple[str, ...]  # equal for the same task in two exports of a project; '' is unknown
    updated: str
    addresses: list[str]
    annotations: list[Annotation] = field(default_factory=list)
    without: str = "no_label"  # reason reported if there is no annotation


class BrokenExportError(ValueError):
    """An export that cannot be used; `reason` is a key of inventory.REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        """Store the reason in addition to the message."""
        super().__init__(detail)
        self.reason = reason


def is_csv_export(header: str) -> bool:
    """Return whether a CSV file with this header line is a Label Studio export."""
    columns = set(next(csv.reader(header.splitlines()), []))
    return "annotation_id" in columns or {"id", "annotator"} <= columns


def read_tasks(export: str, data: bytes, labels: Labels) -> list[Task]:
    """Return the tasks of an export.

    Raises:
        BrokenExportError: The export cannot be parsed, or is not a list of tasks.
    """
    items, annotated = _items(export, data)
    if annotated:
        return [_from_task(export, number, task) for number, task in enumerate(items)]
    return _from_records(export, items, labels)


def count_answers(export: str, data: bytes) -> dict[str, Counter[str]]:
    """Count the answers to each question, without knowledge of the classes.

    Canceled annotations are not counted. A column of a JSON-MIN or CSV export is treated as a
    question if at least one answer recurs and no answer is an address.

    Raises:
        BrokenExportError: The export cannot be parsed, or is not a list of tasks.
    """
    items, annotated = _items(export, data)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        if annotated:
            for annotation in _dicts(item.get("annotations", item.get("completions"))):
                if not _annotation(annotation, 0).cancelled:
                    for question, texts in _answers(annotation).items():
                        counts[question].update(texts)
        else:
            for column in item.keys() - RECORD_KEYS:
                counts[column].update(_chosen(item[column]))
    return {
        question: answers
        for question, answers in sorted(counts.items())
        if annotated or (len(answers) < answers.total() and not any(map(_like_address, answers)))
    }


def _items(export: str, data: bytes) -> tuple[list[Mapping[str, Any]], bool]:
    """Return the items of an export, and whether they are tasks instead of records."""
    if not data.strip():
        raise BrokenExportError("zero_bytes", "the export is empty")
    if suffix(export) == ".csv":
        return _csv_records(data), False
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenExportError("broken_export", " ".join(str(error).split())) from None
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise BrokenExportError("not_an_export", f"expected a list, got {type(content).__name__}")
    tasks = [item if isinstance(item, dict) else {} for item in content]
    if not tasks or any(TASK_KEYS & task.keys() for task in tasks):
        return list(tasks), True
    if all("id" in task for task in tasks):
        return list(tasks), False
    raise BrokenExportError("not_an_export", "its items have neither a `data` nor an `id` key")


def newest_annotations(annotations: Sequence[Annotation]) -> tuple[dict[str, Annotation], bool]:
    """Return the newest non-empty annotation of each annotator, and whether any is canceled.

    If two annotations have the same time, the later one in the export is returned.
    """
    latest: dict[str, Annotation] = {}
    cancelled = False
    for annotation in annotations:
        if annotation.cancelled:
            cancelled = True
        elif annotation.questions:
            rival = latest.get(annotation.annotator)
            if rival is None or annotation.updated >= rival.updated:
                latest[annotation.annotator] = annotation
    return latest, cancelled


def chosen_class(annotation: Annotation, labels: Labels) -> tuple[str, str, str]:
    """Return the class of an annotation, or '' with the reason and its detail."""
    # A project may have other questions. Their answers match no class.
    class_questions = [q for q in annotation.questions if any(labels.class_of(text) for text in q)]
    questions = class_questions or annotation.questions
    chosen = sorted({text for question in questions for text in question})
    known = {labels.class_of(text) for text in chosen}
    if not class_questions:
        return "", "label_unknown", "; ".join(labels.suggest(text) for text in chosen)
    if len(known) > 1:
        return "", "several_choices", ", ".join(chosen)
    return labels.class_of(chosen[0]) or "", "", ""


def _from_task(export: str, number: int, task: Mapping[str, Any]) -> Task:
    data = task.get("data")
    addresses = [
        *_addresses({"file_upload": task.get("file_upload")}, names=True),
        *(_addresses(data, names=False) if isinstance(data, dict) else ()),
    ]
    name = f"{export}#{task.get('id', f'item {number + 1}')}"
    upload = task.get("file_upload")
    key = (
        export.rpartition("/")[0] or ".",
        str(task.get("project") or ""),
        str(task.get("id") or ""),
        str(upload or ""),
    )
    annotations = _dicts(task.get("annotations", task.get("completions")))
    read_task = Task(
        name, key, str(task.get("updated_at") or ""), sorted(set(addresses)),
        [_annotation(a, i) for i, a in enumerate(annotations)],
    )  # fmt: skip
    if not annotations and _dicts(task.get("drafts")):
        read_task.without = "draft_only"
    elif not annotations and _dicts(task.get("predictions")):
        read_task.without = "prediction_only"
    return read_task


def _annotation(annotation: Mapping[str, Any], number: int) -> Annotation:
    return Annotation(
        _annotator(annotation.get("completed_by"), number),
        str(annotation.get("updated_at") or annotation.get("created_at") or ""),
        bool(annotation.get("was_cancelled") or annotation.get("skipped")),
        tuple(tuple(texts) for _, texts in sorted(_answers(annotation).items())),
    )


def _annotator(who: Any, number: int) -> str:  # noqa: ANN401 - any JSON value
    """Return the id or pseudonym of an annotator."""
    if isinstance(who, dict):
        names = [str(who[key]) for key in ("first_name", "last_name") if who.get(key)]
        who = who.get("id") or who.get("email") or " ".join(names)
    text = "" if who is None else str(who).strip()
    if not text:  # an unnamed annotation gets an annotator of its own
        return f"#{number}"
    return text if text.isdecimal() else pseudonym(text)


def pseudonym(name: str) -> str:
    """Return a pseudonym of 8 hex digits that is the same in all exports.

    The digits are taken from a SHA-256 hash. The name cannot be read from the pseudonym, but anyone
    who knows a name can check whether it occurs.
    """
    text = name.casefold().encode("utf-8", "surrogatepass")  # JSON may contain lone surrogates
    return f"person-{hashlib.sha256(text).hexdigest()[:8]}"


def _answers(annotation: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the choices of an annotation by question (from_name)."""
    answers: dict[str, list[str]] = defaultdict(list)
    for result in _dicts(annotation.get("result")):
        value = result.get("value")
        chosen = _texts(value.get("choices")) if isinstance(value, dict) else []
        if chosen:
            answers[str(result.get("from_name"))] += chosen
    return answers


def _from_records(export: str, records: Sequence[Mapping[str, Any]], labels: Labels) -> list[Task]:
    """Return the tasks of a JSON-MIN or CSV export, which has one record per annotation."""
    matches: Counter[str] = Counter()
    for record in records:
        for key, value in record.items():
            if key not in RECORD_KEYS:
                matches[key] += any(labels.class_of(text) for text in _chosen(value))
    question, count = min(matches.items(), key=lambda match: (-match[1], match[0]), default=("", 0))
    if records and not count:
        raise BrokenExportError("not_an_export", "no column contains a label that matches a class")
    tasks: dict[str, Task] = {}
    for number, record in enumerate(records):
        identity = str(record.get("id") or f"item {number + 1}")
        data = {k: v for k, v in record.items() if k not in RECORD_KEYS and k != question}
        addresses = sorted(set(_addresses(data, names=False)))
        task = tasks.setdefault(identity, Task(f"{export}#{identity}", ("",), "", addresses))
        chosen = tuple(_chosen(record.get(question)))
        task.annotations.append(
            Annotation(
                _annotator(record.get("annotator"), number),
                str(record.get("updated_at") or record.get("created_at") or ""),
                str(record.get("was_cancelled") or "").casefold() == "true",
                (chosen,) if chosen else (),
            )
        )
    return list(tasks.values())


def _csv_records(data: bytes) -> list[Mapping[str, Any]]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        return [{str(key): value for key, value in row.items()} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrokenExportError("broken_export", " ".join(str(error).split())) from None


def _chosen(value: Any) -> list[str]:  # noqa: ANN401 - any cell value
    """Return the choices in a cell: a string, a dict of choices, or the same dict as JSON."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    if isinstance(value, dict):
        value = value.get("choices")
    return _texts(value)


def _texts(value: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    values = value if isinstance(value, list) else [value]
    flat = (part for each in values for part in (each if isinstance(each, list) else [each]))
    return [text for text in flat if isinstance(text, str) and text.strip()]


def _dicts(value: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - any JSON value
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _addresses(data: Mapping[str, Any], *, names: bool) -> list[str]:
    """Return the decoded paths of all values that are photo addresses.

    If `names` is true, a value without a folder or scheme is also an address, unless it names the
    file from which the tasks were imported.
    """
    photo_paths: list[str] = []
    for value in data.values():
        for text in _texts(value):
            if len(text) > 4096 or "\n" in text.strip():
                continue
            paths = _paths(text.strip())
            for path in paths:
                name = path.rpartition("/")[2]
                is_address = "/" in text and ("://" in text or text.startswith(("/", "upload/")))
                if suffix(name) in TASK_FILES:
                    continue
                if names or is_address or suffix(name) in PHOTO_SUFFIXES:
                    photo_paths.append(path)
    return photo_paths


def _like_address(text: str) -> bool:
    return "/" in text or suffix(text) in PHOTO_SUFFIXES


def _paths(address: str) -> list[str]:
    """Return the path in an address, both unchanged and percent-decoded."""
    address = address.replace("\\", "/")
    paths = [address]
    if "://" in address or address.startswith("/"):
        try:
            parts = urlsplit(address)
            query = parse_qs(parts.query)
        except ValueError:
            return paths
        # The URL query contains the path of files from local storage or the file proxy.
        inner = query.get("d") or query.get("filepath")
        if inner:
            # A plus sign is a space in an encoded query, but a literal plus in an unencoded one.
            raw = unquote(parts.query.partition("=")[2])
            return [path for each in dict.fromkeys([inner[0], raw]) for path in _paths(each)]
        if query.get("fileuri"):
            try:
                return _paths(base64.b64decode(query["fileuri"][0]).decode())
            except (binascii.Error, UnicodeDecodeError):
                return paths
        paths = [re.sub(r"^[a-z][a-z0-9+.-]*://", "", address, flags=re.IGNORECASE)]
        paths.append(parts.path or paths[0])
    paths += [unquote(path) for path in paths]
    return list(dict.fromkeys(path.strip("/") for path in paths if path.strip("/")))
