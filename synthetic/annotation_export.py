r"""Write a collector's annotations as Label Studio does: stored file names and all export kinds.

Label Studio and Django rename files on upload: they prepend `<8 hex>-`, replace spaces by `_`, drop
all characters outside `[-\w.]`, and insert `_` + 7 alphanumerics before the extension where the
path exceeds 100 characters, with the stem cut to fit. Old releases, and servers that keep names
(PRESERVE_UPLOAD_FILENAMES), prepend nothing. Where the name is in use, old releases append `_` + 7
alphanumerics, and such servers put the file into a folder of 8 hex digits.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

MAX_PATH = 100
LETTERS = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

ExportKind = Literal[
    "json", "two_exports", "json_min", "csv", "old_release", "imported", "many_keys"
]
TaskState = Literal["submitted", "cancelled", "draft", "prediction", "untouched"]


@dataclass(frozen=True)
class PhotoTask:
    """One photo in a Label Studio project."""

    folder: str  # of the photo, relative to the dataset folder
    upload_name: str  # file name at upload
    choices: tuple[tuple[str, ...], ...]  # per annotator; () is an empty result
    state: TaskState = "submitted"
    # Earlier choices of the first annotator; () is a skipped task.
    previous_choices: tuple[str, ...] | None = None


def stored_name(
    name: str,
    project: int,
    rng: np.random.Generator,
    kind: ExportKind = "json",
    *,
    taken: bool = False,
) -> str:
    """Return the path below upload/<project>/ under which Label Studio stores an uploaded file.

    `taken`: the name is in use, for example by the file of a deleted task.
    """
    clean = re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
    folder = f"upload/{project}/"
    prefix = rng.bytes(4).hex()
    subfolder = f"{prefix}/" if taken else ""
    clean = {"old_release": "", "many_keys": subfolder}.get(kind, f"{prefix}-") + clean
    if len(folder + clean) <= MAX_PATH and not (taken and kind == "old_release"):
        return clean
    stem, dot, suffix = clean.rpartition(".")
    ending = "_" + "".join(rng.choice(LETTERS, 7)) + dot + suffix
    return stem[: MAX_PATH - len(folder + ending)] + ending


def export(
    kind: ExportKind, code: str, project: int, tasks: Sequence[PhotoTask], rng: np.random.Generator
) -> dict[str, bytes]:
    """Return the export files of a collector's project, by name."""
    day = project % 28 + 1
    name = (
        f"{code}.json",
        f"project-{project}-at-2025-10-{day:02}-09-30-{rng.bytes(4).hex()}.json",
        "labels.json",
    )[rng.integers(3)]
    task_records = [_task(number, project, task, kind, rng) for number, task in enumerate(tasks, 1)]
    if kind == "json_min":
        return {name: _json([record for task in task_records for record in _records(task)])}
    if kind == "csv":
        return {
            name.replace(".json", ".csv"): _csv(
                [r for task in task_records for r in _records(task)]
            )
        }
    if kind == "two_exports":
        older_tasks = [
            task | {"updated_at": "2025-09-01T08:00:00.000000Z"} for task in task_records
        ]
        older_name = f"project-{project}-at-2025-09-01-08-05-{rng.bytes(4).hex()}.json"
        return {
            older_name: _json(older_tasks[: len(older_tasks) * 2 // 3]),
            name: _json(task_records),
        }
    return {name: _json(task_records)}


def annotator_export(
    uploads: Sequence[str], labels: Sequence[str], rng: np.random.Generator
) -> bytes:
    """Return one annotator's export; a photo with label '' has a task without an annotation.

    Annotators used separate Label Studio servers, so project and `completed_by` are always 1.
    """
    tasks = [
        PhotoTask("", name, ((label,),) if label else (), "submitted" if label else "untouched")
        for name, label in zip(uploads, labels, strict=True)
    ]
    return _json([_task(number, 1, task, "json", rng) for number, task in enumerate(tasks, 1)])


def _task(
    number: int, project: int, task: PhotoTask, kind: ExportKind, rng: np.random.Generator
) -> dict[str, Any]:
    upload, address = _file_and_address(number, project, task, kind, rng)
    day = f"2025-10-{project % 28 + 1:02}"
    time, earlier = (f"{day}T{hour:02}:{number % 60:02}:00.000000Z" for hour in (8, 7))
    extra_rng = rng.spawn(1)[0]  # a stream of its own, so that other random numbers stay the same
    results = [_result(choices, kind, rng, extra_rng) for choices in task.choices]
    drafts = results if task.state == "draft" else []
    predictions = results if task.state == "prediction" else []
    cancelled = task.state == "cancelled"
    submitted = results if task.state in {"submitted", "cancelled"} else []
    annotations = [
        _annotation(
            number, annotator_id, result, kind, rng, project=project, time=time, cancelled=cancelled
        )
        for annotator_id, result in enumerate(submitted, 1)
    ]
    if task.previous_choices is not None:
        first = _result(task.previous_choices, kind, extra_rng, extra_rng)
        previous = _annotation(
            number, 1, first, kind, extra_rng, project=project, time=earlier, cancelled=not first
        )
        annotations.insert(0, previous | {"id": 100 * number})
    dropped = sum(bool(a.get("was_cancelled") or a.get("skipped")) for a in annotations)
    times = {"created_at": time, "updated_at": time}
    return {
        "id": number,
        "completions" if kind == "old_release" else "annotations": annotations,
        "file_upload": upload.rpartition("/")[2],
        "drafts": [{"id": number, "result": result, "created_at": time} for result in drafts],
        "predictions": [{"id": number, "result": r, "model_version": "m1"} for r in predictions],
        "data": {"note": "left / right", "photo": address}
        if kind == "many_keys"
        else {"image": address},
        "meta": {},
        **times,
        "inner_id": number,
        "total_annotations": len(annotations) - dropped,
        "cancelled_annotations": dropped,
        "total_predictions": len(predictions),
        "comment_count": 0,
        "unresolved_comment_count": 0,
        "last_comment_updated_at": None,
        "project": project,
        "updated_by": 1,
        "comment_authors": [],
    }


def _file_and_address(
    number: int, project: int, task: PhotoTask, kind: ExportKind, rng: np.random.Generator
) -> tuple[str, str]:
    """Return a task's uploaded file and the address of its photo."""
    # Every fifth photo was uploaded before; its task was deleted, but the file remains.
    upload = stored_name(task.upload_name, project, rng, kind, taken=number % 5 == 2)
    address = f"/data/upload/{project}/{quote(upload)}"
    if kind == "imported":
        path = f"{task.folder}/{task.upload_name}"
        address = (
            address,
            f"s3://ankle/{path}",
            f"https://example.org/ankle/{quote(path)}",
            f"gs://ankle/{path}",
            f"azure-blob://ankle/{path}",
            f"upload/{project}/{upload}",
            f"/data/local-files/?d=ankle/{quote(path)}",
        )[number % 7]
        upload = f"{rng.bytes(4).hex()}-tasks.{('json', 'csv')[number % 2]}"
    return upload, address


def _annotation(
    number: int,
    annotator_id: int,
    result: list[dict[str, Any]],
    kind: ExportKind,
    rng: np.random.Generator,
    *,
    project: int,
    time: str,
    cancelled: bool,
) -> dict[str, Any]:
    annotator = {
        "id": annotator_id,
        "email": f"{annotator_id}@example.org",
        "first_name": "",
        "last_name": "",
    }
    return {
        "id": 100 * number + annotator_id,
        "completed_by": annotator if kind == "many_keys" else annotator_id,
        "result": result,
        "skipped" if kind == "old_release" else "was_cancelled": cancelled,
        "ground_truth": False,
        "created_at": time,
        "updated_at": time,
        "draft_created_at": None,
        "lead_time": round(rng.uniform(2, 40), 3),
        "prediction": {},
        "result_count": len(result),
        "unique_id": rng.bytes(16).hex(),
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": number,
        "project": project,
        "updated_by": annotator_id,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
    }


def _result(
    choices: tuple[str, ...],
    kind: ExportKind,
    rng: np.random.Generator,
    extra_rng: np.random.Generator,
) -> list[dict[str, Any]]:
    if not choices:
        return []
    choice = {
        "value": {"choices": list(choices)},
        "id": rng.bytes(5).hex(),
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }
    if kind != "many_keys":
        return [choice]
    box = {
        "value": {"x": 30.0, "y": 55.0, "width": 12.0, "height": 18.0, "rotation": 0},
        "id": rng.bytes(5).hex(),
        "from_name": "heel",
        "to_name": "image",
        "type": "rectangle",
        "origin": "manual",
    }
    comment = {
        "value": {"text": ["neutral?"]},
        "id": extra_rng.bytes(5).hex(),
        "from_name": "comment",
        "to_name": "image",
        "type": "textarea",
        "origin": "manual",
    }
    return [box, choice, comment]


def _records(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a task's records in a JSON-MIN export: one per annotation, newest first."""
    records = []
    for annotation in reversed(task["annotations"]):
        record = {"id": task["id"], **task["data"], "annotator": annotation["completed_by"]}
        for result in annotation["result"]:
            choice = result["value"]["choices"]
            single = len(choice) == 1
            record[result["from_name"]] = choice[0] if single else {"choices": choice}
        record["annotation_id"] = annotation["id"]
        records.append(
            record | {key: annotation[key] for key in ("created_at", "updated_at", "lead_time")}
        )
    return records


def _csv(records: Sequence[dict[str, Any]]) -> bytes:
    columns = sorted({key for record in records for key in record})
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict) else v for k, v in record.items()})
    return stream.getvalue().encode()


def _json(content: list[dict[str, Any]]) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode()
