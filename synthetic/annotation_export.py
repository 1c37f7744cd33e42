r"""What Label Studio made of a collector's photos: stored names and exports of every kind.

Names change on upload as in Label Studio and Django: `<8 hex>-` before them, spaces to `_`, all
outside `[-\w.]` dropped, and `_` + 7 alphanumerics before the extension where the path would be
longer than 100 characters, with the stem cut to fit. Old releases put nothing before a name, nor do
servers that keep names (PRESERVE_UPLOAD_FILENAMES). Where the name was taken, the former put the
`_` + 7 alphanumerics too, and the latter the file into a folder of 8 hex digits.
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

LONGEST_PATH = 100
LETTERS = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

Kind = Literal["json", "two_exports", "json_min", "csv", "old_release", "imported", "many_keys"]
State = Literal["submitted", "cancelled", "draft", "prediction", "untouched"]


@dataclass(frozen=True)
class Task:
    """One photo in a labelling project."""

    folder: str  # where the photo lies, below the data set
    uploaded: str  # its name at that time
    choices: tuple[tuple[str, ...], ...]  # of each annotator; () is an empty result
    state: State = "submitted"
    earlier: tuple[str, ...] | None = None  # the first annotator's choices before; () is a skip


def stored(
    name: str, project: int, rng: np.random.Generator, kind: Kind = "json", *, taken: bool = False
) -> str:
    """Return the path below upload/<project>/ under which Label Studio stores an uploaded file.

    `taken`: a file has the name already, as that of a deleted task has.
    """
    clean = re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
    folder = f"upload/{project}/"
    mark = rng.bytes(4).hex()
    kept = f"{mark}/" if taken else ""
    clean = {"old_release": "", "many_keys": kept}.get(kind, f"{mark}-") + clean
    if len(folder + clean) <= LONGEST_PATH and not (taken and kind == "old_release"):
        return clean
    stem, dot, suffix = clean.rpartition(".")
    ending = "_" + "".join(rng.choice(LETTERS, 7)) + dot + suffix
    return stem[: LONGEST_PATH - len(folder + ending)] + ending


def export(
    kind: Kind, code: str, project: int, tasks: Sequence[Task], rng: np.random.Generator
) -> dict[str, bytes]:
    """Return the files that a collector's project was exported to, by name."""
    day = project % 28 + 1
    name = (
        f"{code}.json",
        f"project-{project}-at-2025-10-{day:02}-09-30-{rng.bytes(4).hex()}.json",
        "labels.json",
    )[rng.integers(3)]
    found = [_task(number, project, task, kind, rng) for number, task in enumerate(tasks, 1)]
    if kind == "json_min":
        return {name: _json([record for task in found for record in _records(task)])}
    if kind == "csv":
        return {name.replace(".json", ".csv"): _csv([r for task in found for r in _records(task)])}
    if kind == "two_exports":
        early = [task | {"updated_at": "2025-09-01T08:00:00.000000Z"} for task in found]
        older = f"project-{project}-at-2025-09-01-08-05-{rng.bytes(4).hex()}.json"
        return {older: _json(early[: len(early) * 2 // 3]), name: _json(found)}
    return {name: _json(found)}


def votes(uploads: Sequence[str], labels: Sequence[str], rng: np.random.Generator) -> bytes:
    """Return one annotator's export; a photo labelled '' has a task without an annotation.

    Everybody ran a Label Studio of their own, so the project and `completed_by` are 1 for all.
    """
    tasks = [
        Task("", name, ((label,),) if label else (), "submitted" if label else "untouched")
        for name, label in zip(uploads, labels, strict=True)
    ]
    return _json([_task(number, 1, task, "json", rng) for number, task in enumerate(tasks, 1)])


def _task(
    number: int, project: int, task: Task, kind: Kind, rng: np.random.Generator
) -> dict[str, Any]:
    # Every fifth photo was uploaded once before, and the task deleted; the file stays.
    upload = stored(task.uploaded, project, rng, kind, taken=number % 5 == 2)
    address = f"/data/upload/{project}/{quote(upload)}"
    if kind == "imported":
        path = f"{task.folder}/{task.uploaded}"
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
    day = f"2025-10-{project % 28 + 1:02}"
    time, sooner = (f"{day}T{hour:02}:{number % 60:02}:00.000000Z" for hour in (8, 7))
    aside = rng.spawn(1)[0]  # what is added shifts no other number of the set
    results = [_result(choices, kind, rng, aside) for choices in task.choices]
    drafts = results if task.state == "draft" else []
    predictions = results if task.state == "prediction" else []
    cancelled = task.state == "cancelled"
    done = results if task.state in {"submitted", "cancelled"} else []
    annotations = [
        _annotation(number, who, result, kind, rng, project=project, time=time, cancelled=cancelled)
        for who, result in enumerate(done, 1)
    ]
    if task.earlier is not None:
        first = _result(task.earlier, kind, aside, aside)
        before = _annotation(
            number, 1, first, kind, aside, project=project, time=sooner, cancelled=not first
        )
        annotations.insert(0, before | {"id": 100 * number})
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


def _annotation(
    number: int,
    who: int,
    result: list[dict[str, Any]],
    kind: Kind,
    rng: np.random.Generator,
    *,
    project: int,
    time: str,
    cancelled: bool,
) -> dict[str, Any]:
    person = {"id": who, "email": f"{who}@example.org", "first_name": "", "last_name": ""}
    return {
        "id": 100 * number + who,
        "completed_by": person if kind == "many_keys" else who,
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
        "updated_by": who,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
    }


def _result(
    choices: tuple[str, ...], kind: Kind, rng: np.random.Generator, aside: np.random.Generator
) -> list[dict[str, Any]]:
    if not choices:
        return []
    chosen = {
        "value": {"choices": list(choices)},
        "id": rng.bytes(5).hex(),
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }
    if kind != "many_keys":
        return [chosen]
    box = {
        "value": {"x": 30.0, "y": 55.0, "width": 12.0, "height": 18.0, "rotation": 0},
        "id": rng.bytes(5).hex(),
        "from_name": "heel",
        "to_name": "image",
        "type": "rectangle",
        "origin": "manual",
    }
    said = {
        "value": {"text": ["neutral?"]},
        "id": aside.bytes(5).hex(),
        "from_name": "comment",
        "to_name": "image",
        "type": "textarea",
        "origin": "manual",
    }
    return [box, chosen, said]


def _records(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a task's records in a JSON-MIN export: one an annotation, the newest first."""
    records = []
    for annotation in reversed(task["annotations"]):
        record = {"id": task["id"], **task["data"], "annotator": annotation["completed_by"]}
        for result in annotation["result"]:
            chosen = result["value"]["choices"]
            one = len(chosen) == 1
            record[result["from_name"]] = chosen[0] if one else {"choices": chosen}
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
