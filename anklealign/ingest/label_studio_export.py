"""Parse Label Studio exports (JSON, JSON-MIN, CSV, TSV, JSON Lines, target storage) into tasks.

A JSON export contains tasks with their annotations. JSON-MIN, CSV and TSV exports contain one
record per annotation, with the names of data fields and questions as keys. A target storage (sync)
has a file for each annotation, which contains its task, or a file for each task; their names are
numbers without a suffix, or with `.json`. Old releases of Label Studio write `completions` for
`annotations` and `skipped` for `was_cancelled`. Invalid values are omitted from a task; an invalid
file raises `BrokenExportError`. No other exception is raised.

Of a task's annotations, those with `ground_truth` count if there are any, otherwise those that a
reviewer accepted or fixed, otherwise all that no reviewer rejected (`reviews` and `last_action` of
Label Studio Enterprise).

Annotators are identified by their Label Studio id. An email address or name is replaced by a
pseudonym, because annotators appear in metrics and plots, which are committed to git.
"""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from anklealign.config.class_names import Labels
from anklealign.ingest.inventory import suffix
from anklealign.ingest.label_hierarchy import (
    AnswerPath,
    as_paths,
    deepest,
    find_ancestors,
    label_text,
    recurring_leaves,
)
from anklealign.ingest.label_studio_addresses import (
    PhotoAddress,
    like_address,
    photo_addresses,
    texts_in,
)

# Columns of JSON-MIN, CSV and TSV exports that hold neither task data nor labels.
RECORD_KEYS = {
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement",
    "ground_truth", "project", "inner_id", "was_cancelled", "history",
}  # fmt: skip
# Some of them are in every record of Label Studio; `id` is in others' tables, too.
RECORD_MARKS = {"annotator", "annotation_id", "lead_time", "created_at", "updated_at"}
TABLES = {".csv", ".tsv"}
JSON_LINES = {".jsonl", ".ndjson"}
# A file without a suffix is read as JSON of a target storage up to this size; one annotation of a
# photo has some kB, and one with brush masks a few MB.
LARGEST_STORAGE_FILE = 16 << 20  # bytes
# Results that label no photo, by the start of their type: what they are.
CONTROLS = {
    "rectangle": "boxes", "polygon": "polygons", "ellipse": "ellipses", "keypoint": "key points",
    "brush": "masks", "bitmask": "masks", "magicwand": "masks",
    "vector": "lines", "relation": "relations", "text": "text", "rating": "ratings",
    "number": "numbers", "datetime": "dates", "pairwise": "comparisons", "ranker": "rankings",
    "labels": "regions", "video": "video boxes",
}  # fmt: skip
GEOMETRY = {"points", "rle", "width", "radiusX"}  # keys of a region's value
ACCEPTED, REJECTED = "accepted", "rejected"
REVIEW_ACTIONS = {"accepted": ACCEPTED, "fixed_and_accepted": ACCEPTED, "rejected": REJECTED}
# Which annotations of a task count: those of the highest rank, unless it is OUT.
OUT, NOT_REVIEWED, REVIEWED, GROUND_TRUTH = range(4)
# Actions after a review that make the annotation a new, unreviewed one.
RESUBMITTED = {"submitted", "updated", "deleted_review"}


Control = tuple[str, str]  # the kind of a result that is no choice, and its question


@dataclass(frozen=True)
class Answer:
    """The selections for one question: flat choices, or paths of nested ones.

    `regional` is true if they label regions instead of the photo; `shown` is the labeled object.
    """

    question: str
    choices: tuple[str, ...] = ()
    paths: tuple[AnswerPath, ...] = ()
    regional: bool = False
    shown: str = ""


@dataclass(frozen=True)
class Annotation:
    """The answers of one annotator.

    `questions` are the labels by question, set by `name_answers`. `controls` are the kind and the
    question of each other result, such as boxes.
    """

    annotator: str
    updated: str
    cancelled: bool
    answers: tuple[Answer, ...] = ()
    controls: tuple[Control, ...] = ()
    ground_truth: bool = False
    review: str = ""  # ACCEPTED, REJECTED or ''
    questions: tuple[tuple[str, ...], ...] = ()


@dataclass
class Task:
    """One task of an export, with its photo addresses and annotations."""

    name: str  # <export>#<task id>
    key: tuple[str, ...]  # equal for the same task in two exports of a project; '' is unknown
    updated: str
    photos: list[PhotoAddress]
    annotations: list[Annotation] = field(default_factory=list)
    without: str = "no_label"  # reason reported if there is no annotation
    stored: bool = False  # by a target storage, with one of its annotations

    @property
    def addresses(self) -> list[str]:
        """Return the decoded paths of all photos that the task names."""
        return sorted({path for photo in self.photos for path in photo.paths})

    @property
    def shown(self) -> set[str]:
        """Return the names of the objects that the answers label."""
        return {a.shown for each in self.annotations for a in each.answers if a.shown}


class BrokenExportError(ValueError):
    """An export that cannot be used; `reason` is a key of inventory.REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        """Store the reason in addition to the message."""
        super().__init__(detail)
        self.reason = reason


def is_export(root: Path, file: str) -> bool:
    """Return True for an export, valid or broken."""
    kind = suffix(file)
    if kind == ".json":
        return True
    if kind in TABLES:
        return _is_table_export(_first_line(root / file))
    if kind in JSON_LINES:
        return _is_item(_parsed(_first_line(root / file)))
    return not kind and _is_item(_parsed(_small_text(root / file)))


def _is_table_export(header: str) -> bool:
    """Return whether a table with this header line is a Label Studio export."""
    columns = set(next(csv.reader(header.splitlines(), delimiter=_delimiter(header)), []))
    return "annotation_id" in columns or {"id", "annotator"} <= columns


def _is_item(content: object) -> bool:
    """Return whether a JSON value is a task, a record or an annotation of Label Studio."""
    if not isinstance(content, dict):
        return False
    keys = content.keys()
    return (
        (isinstance(content.get("data"), dict) and bool({"annotations", "completions"} & keys))
        or (isinstance(content.get("result"), list) and isinstance(content.get("task"), dict))
        or {"id", "annotation_id"} <= keys
        or {"id", "annotator"} <= keys
    )


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.readline(1 << 20).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _small_text(path: Path) -> str:
    """Return a file's text if it starts like a JSON object and is small, else ''."""
    try:
        with path.open("rb") as stream:
            head = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
            if not head.startswith(b"{") or path.stat().st_size > LARGEST_STORAGE_FILE:
                return ""
            stream.seek(0)
            return stream.read().decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_tasks(export: str, data: bytes, labels: Labels) -> list[Task]:
    """Return the tasks of an export, with the leaves of nested answers as their labels.

    Raises:
        BrokenExportError: The export cannot be parsed, or is not a list of tasks.
    """
    items, annotated = _items(export, data)
    if annotated:
        tasks = [_from_task(export, number, task) for number, task in enumerate(items)]
    else:
        tasks = _from_records(export, items, labels)
    name_answers(tasks, labels, None)
    return tasks


def name_answers(tasks: Iterable[Task], labels: Labels, level: int | None) -> None:
    """Set the labels of all annotations, by the answers of all tasks and the level of a path."""
    tasks = list(tasks)
    annotations = [annotation for task in tasks for annotation in task.annotations]
    ancestors = _ancestors(answer for each in annotations for answer in each.answers)
    for task in tasks:
        task.annotations = [
            replace(
                annotation,
                questions=tuple(
                    tuple(
                        dict.fromkeys(
                            label_text(path, level, labels) for path in _paths_of(answer, ancestors)
                        )
                    )
                    for answer in annotation.answers
                ),
            )
            for annotation in task.annotations
        ]


def _ancestors(answers: Iterable[Answer]) -> dict[str, dict[str, AnswerPath]]:
    """Return the ancestors of the flat choices of each question."""
    lists: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for answer in answers:
        if answer.choices and not answer.regional:
            lists[answer.question].append(answer.choices)
    return {question: find_ancestors(choices) for question, choices in lists.items()}


def _paths_of(
    answer: Answer, ancestors: Mapping[str, Mapping[str, AnswerPath]]
) -> list[AnswerPath]:
    flat = as_paths(answer.choices, ancestors.get(answer.question, {}))
    return deepest([*answer.paths, *flat])


class AnswerCounts:
    """The answers to each question of several exports, without knowledge of the classes.

    Canceled and rejected annotations are not counted. A column of a JSON-MIN, CSV or TSV export is
    treated as a question if at least one answer recurs and no answer is an address.
    """

    def __init__(self) -> None:
        """Start without any export."""
        self._answers: list[Answer] = []
        self._controls: Counter[Control] = Counter()  # annotations by their other results
        self._ranks: Counter[int] = Counter()  # annotations by rank

    def add(self, export: str, data: bytes) -> bool:
        """Add an export and return whether it has answers.

        Raises:
            BrokenExportError: The export cannot be parsed, or is not a list of tasks.
        """
        items, annotated = _items(export, data)
        before = len(self._answers)
        if annotated:
            for number, item in enumerate(items):
                for annotation in _from_task(export, number, item).annotations:
                    if annotation.cancelled:
                        continue
                    self._ranks[_rank(annotation)] += 1
                    if annotation.review != REJECTED:
                        self._answers += annotation.answers
                        self._controls.update(annotation.controls)
        else:
            self._add_records(items)
        return len(self._answers) > before

    def _add_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        for column in sorted({key for record in records for key in record} - RECORD_KEYS):
            answers = [_cell(column, record.get(column)) for record in records]
            texts = [text for answer, _ in answers for text in _raw_texts(answer)]
            address = any(map(like_address, texts))
            if len(set(texts)) < len(texts) and not address:
                self._answers += [answer for answer, _ in answers if _raw_texts(answer)]
            elif texts and not address:
                self._controls["text", column] += len(texts)
            self._controls.update(kind for answer, kinds in answers for kind in kinds)
            numbers = sum(type(record.get(column)) in {int, float} for record in records)
            if numbers:
                self._controls["numbers or ratings", column] += numbers

    def counts(self, level: int | None = None) -> dict[str, Counter[str]]:
        """Return the number of each label by question, sorted by question."""
        counted: dict[str, Counter[str]] = defaultdict(Counter)
        for question, paths in self._paths().items():
            recurring = recurring_leaves(paths)
            counted[question].update(label_text(p, level, recurring=recurring) for p in paths)
        return dict(sorted(counted.items()))

    def _paths(self) -> dict[str, list[AnswerPath]]:
        ancestors = _ancestors(self._answers)
        paths: dict[str, list[AnswerPath]] = defaultdict(list)
        for answer in self._answers:
            paths[answer.question] += _paths_of(answer, ancestors)
        return paths

    def remarks(self) -> list[str]:
        """Return what a user must know: nested answers, answers about regions, other controls."""
        remarks: list[str] = []
        for question, paths in sorted(self._paths().items()):
            nested = sorted({path for path in paths if len(path) > 1})
            if nested:
                remarks.append(
                    f"the answers to {question!r} are nested, such as {' > '.join(nested[0])}; the "
                    "label is the last level, or the one that label_level chooses in params.yaml"
                )
            if again := sorted(recurring_leaves(paths)):
                remarks.append(
                    f"{', '.join(again)}: below several parents, so the label is the full path"
                )
        for rank, state, effect in (
            (GROUND_TRUTH, "of ground truth", "override the others of their task"),
            (REVIEWED, "accepted by a reviewer", "override those without a review"),
            (OUT, "rejected by a reviewer", "are not labels"),
        ):
            if self._ranks[rank]:
                remarks.append(f"annotations {state}, which {effect}: {self._ranks[rank]}")
        regional = sorted({a.question for a in self._answers if a.regional})
        if regional:
            remarks.append(
                f"the answers to {', '.join(regional)} label regions of the photos; a photo whose "
                "regions agree has their label"
            )
        if self._controls:
            kinds = ", ".join(
                f"{kind} {question!r} ({n})" if question else f"{kind} ({n})"
                for (kind, question), n in sorted(self._controls.items())
            )
            shapes = any(
                kind.startswith(("boxes", "polygons", "masks")) for kind, _ in self._controls
            )
            hint = "; for labels of the shapes, export as COCO and run anklealign convert"
            remarks.append(
                f"not used, since only Choices and Taxonomy label a photo: {kinds}" + hint * shapes
            )
        return remarks


def _raw_texts(answer: Answer) -> list[str]:
    return [*answer.choices, *(path[-1] for path in answer.paths)]


def _items(export: str, data: bytes) -> tuple[list[Mapping[str, Any]], bool]:
    """Return the items of an export, and whether they are tasks instead of records."""
    if not data.strip():
        raise BrokenExportError("zero_bytes", "the export is empty")
    if suffix(export) in TABLES:
        return _table_records(data), False
    content = _json_items(data)
    tasks = [_unstored(item) if isinstance(item, dict) else {} for item in content]
    if not tasks or any(map(_is_task, tasks)):
        return list(tasks), True
    if all("id" in task and RECORD_MARKS & task.keys() for task in tasks):
        return list(tasks), False
    raise BrokenExportError(
        "not_an_export", "its items are neither tasks (data, annotations) nor records (annotator)"
    )


def _is_task(item: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is a task, and not an item of another tool's file."""
    if isinstance(item.get("data"), dict) or "file_upload" in item:
        return True
    return "id" in item and bool({"annotations", "completions"} & item.keys())


def _json_items(data: bytes) -> list[Any]:
    """Return the items of a JSON list, of JSON Lines, or of a file with one item."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        lines = [line for line in data.splitlines() if line.strip()]
        try:
            items = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            items = []
        if len(items) < 2 or not all(isinstance(item, dict) for item in items):
            raise BrokenExportError("broken_export", " ".join(str(error).split())) from None
        return items
    if isinstance(content, dict):
        if {"images", "categories"} <= content.keys():
            raise BrokenExportError(
                "not_an_export", "a COCO file (images, annotations, categories)"
            )
        return [content]
    if not isinstance(content, list):
        raise BrokenExportError("not_an_export", f"expected a list, got {type(content).__name__}")
    return content


def _unstored(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the task of a target storage's annotation with that annotation; others unchanged."""
    task = item.get("task")
    if not isinstance(task, dict) or not isinstance(item.get("result"), list):
        return item
    annotation = {key: value for key, value in item.items() if key != "task"}
    return {**task, "annotations": [annotation], "stored": True}


def merge_stored(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks with those merged that a target storage wrote for several annotations."""
    first: dict[tuple[str, ...], Task] = {}
    merged: list[Task] = []
    for task in tasks:
        key = task.key[:3]  # the folder, the project and the task's id
        if task.stored and key[2]:
            known = first.get(key)
            if known is not None:
                known.annotations += task.annotations
                known.updated = max(known.updated, task.updated)
                continue
            first[key] = task
        merged.append(task)
    return merged


def newest_annotations(annotations: Sequence[Annotation]) -> tuple[dict[str, Annotation], str]:
    """Return the annotation of each annotator that counts, or the reason why none does.

    That is the newest one with an answer, among those of the highest rank: ground truth, accepted
    by a reviewer, not rejected. If two have the same time, the later one in the export counts. The
    reason is '' if there is no annotation or only empty ones.
    """
    answered = [a for a in annotations if not a.cancelled and a.questions]
    ranked = [(_rank(annotation), annotation) for annotation in answered]
    best = max((rank for rank, _ in ranked), default=OUT)
    latest: dict[str, Annotation] = {}
    for rank, annotation in ranked:
        rival = latest.get(annotation.annotator)
        newer = rival is None or annotation.updated >= rival.updated
        if rank == best and rank != OUT and newer:
            latest[annotation.annotator] = annotation
    if latest:
        return latest, ""
    if answered:
        return {}, "rejected"
    if any(annotation.cancelled for annotation in annotations):
        return {}, "cancelled"
    return {}, "other_control" if any(a.controls for a in annotations) else ""


def _rank(annotation: Annotation) -> int:
    if annotation.ground_truth:
        return GROUND_TRUTH
    return {ACCEPTED: REVIEWED, REJECTED: OUT}.get(annotation.review, NOT_REVIEWED)


def other_controls(annotations: Iterable[Annotation]) -> str:
    """Return the kinds of results of annotations that have no choice."""
    return ", ".join(sorted({kind for each in annotations for kind, _ in each.controls}))


def chosen_class(annotation: Annotation, labels: Labels) -> tuple[str, str, str]:
    """Return the class of an annotation, or '' with the reason and its detail."""
    # A project may have other questions. Their answers match no class.
    asked = [
        number
        for number, texts in enumerate(annotation.questions)
        if any(labels.class_of(text) for text in texts)
    ]
    questions = [annotation.questions[number] for number in asked] or annotation.questions
    chosen = sorted({text for question in questions for text in question})
    known = {labels.class_of(text) for text in chosen}
    if not asked:
        return "", "label_unknown", "; ".join(labels.suggest(text) for text in chosen)
    if len(known) > 1:
        regional = all(annotation.answers[number].regional for number in asked)
        return "", "regions_differ" if regional else "several_choices", ", ".join(chosen)
    return labels.class_of(chosen[0]) or "", "", ""


def _from_task(export: str, number: int, task: Mapping[str, Any]) -> Task:
    data = task.get("data")
    upload = task.get("file_upload")
    photos = [
        *photo_addresses({"file_upload": upload}, names=True),
        *(photo_addresses(data, names=False) if isinstance(data, dict) else ()),
    ]
    name = f"{export}#{task.get('id', f'item {number + 1}')}"
    key = (
        export.rpartition("/")[0] or ".",
        str(task.get("project") or ""),
        "" if task.get("id") is None else str(task["id"]),
        # Tasks of a cloud storage have no upload.
        str(upload or (photos[0].paths[0] if photos else "")),
    )
    annotations = _dicts(task.get("annotations", task.get("completions")))
    read_task = Task(
        name, key, str(task.get("updated_at") or ""), photos,
        [_annotation(a, i) for i, a in enumerate(annotations)], stored=bool(task.get("stored")),
    )  # fmt: skip
    if not annotations and _dicts(task.get("drafts")):
        read_task.without = "draft_only"
    elif not annotations and _dicts(task.get("predictions")):
        read_task.without = "prediction_only"
    return read_task


def _annotation(annotation: Mapping[str, Any], number: int) -> Annotation:
    review, results = _review(annotation)
    answers, controls = _answers(results)
    return Annotation(
        _annotator(annotation.get("completed_by"), number),
        str(annotation.get("updated_at") or annotation.get("created_at") or ""),
        bool(annotation.get("was_cancelled") or annotation.get("skipped")),
        answers,
        controls,
        annotation.get("ground_truth") is True,
        review,
    )


def _review(annotation: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
    """Return the state of the newest review, and the results after the reviewer's fix, if any.

    An annotation that was submitted again after its review counts as not reviewed.
    """
    results = _dicts(annotation.get("result"))
    action = str(annotation.get("last_action") or "")
    reviews = _dicts(annotation.get("reviews"))
    if action in RESUBMITTED or not (reviews or action in REVIEW_ACTIONS):
        return "", results
    newest = max(reviews, key=lambda review: str(review.get("created_at") or ""), default={})
    accepted = newest.get("accepted")
    state = {True: ACCEPTED, False: REJECTED}.get(accepted) if isinstance(accepted, bool) else ""
    state = REVIEW_ACTIONS.get(action, state or "")
    fixed = _dicts(newest.get("fixed_annotation_history_result"))
    return state, fixed if fixed and state == ACCEPTED else results


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


def _answers(
    results: Sequence[Mapping[str, Any]],
) -> tuple[tuple[Answer, ...], tuple[Control, ...]]:
    """Return the answers to each question, sorted by question, and the other results."""
    regions = {
        str(result.get("id"))
        for result in results
        if result.get("id") and GEOMETRY & _dict(result.get("value")).keys()
    }
    answers: dict[str, Answer] = {}
    controls: set[Control] = set()
    for result in results:
        value = _dict(result.get("value"))
        question = str(result.get("from_name") or "")
        kind = str(result.get("type") or "")
        choices, paths = _selected(value)
        if not choices and not paths:
            if (value or kind == "relation") and not {"choices", "taxonomy"} & value.keys():
                controls.add((_control(kind, value) or "unknown results", question))
            continue
        of_region = bool(GEOMETRY & value.keys()) or str(result.get("id")) in regions
        old = answers.get(question, Answer(question, regional=of_region))
        answers[question] = Answer(
            question,
            (*old.choices, *choices),
            (*old.paths, *paths),
            old.regional and of_region,
            str(result.get("to_name") or "") or old.shown,
        )
    return tuple(answers[question] for question in sorted(answers)), tuple(sorted(controls))


def _selected(value: Mapping[str, Any]) -> tuple[list[str], list[AnswerPath]]:
    """Return the flat choices in a result's value, and the paths of nested ones."""
    choices: list[str] = []
    paths: list[AnswerPath] = []
    for key in ("choices", "taxonomy"):
        selected = value.get(key)
        for item in selected if isinstance(selected, list) else [selected]:
            texts = texts_in(item)
            if isinstance(item, list) and texts:
                paths.append(tuple(texts))
            else:
                choices += texts
    return choices, paths


def _control(kind: str, value: Mapping[str, Any]) -> str:
    """Return the kind of a result that is not a choice, by its type or keys; '' if unknown."""
    for text in [kind] if kind else value:
        for start, name in CONTROLS.items():
            if text.casefold().startswith(start):
                return name if text in {start, name} else f"{name} ({text})"
    return kind


def _from_records(export: str, records: Sequence[Mapping[str, Any]], labels: Labels) -> list[Task]:
    """Return the tasks of a JSON-MIN, CSV or TSV export, which has one record per annotation."""
    question = _class_column(records, labels)
    tasks: dict[str, Task] = {}
    for number, record in enumerate(records):
        identity = str(record.get("id") or f"item {number + 1}")
        data = {k: v for k, v in record.items() if k not in RECORD_KEYS and k != question}
        photos = photo_addresses(data, names=False)
        task = tasks.setdefault(identity, Task(f"{export}#{identity}", ("",), "", photos))
        answer, controls = _cell(question, record.get(question))
        task.annotations.append(
            Annotation(
                _annotator(record.get("annotator"), number),
                str(record.get("updated_at") or record.get("created_at") or ""),
                _is_true(record.get("was_cancelled")),
                (answer,) if _raw_texts(answer) else (),
                controls,
                _is_true(record.get("ground_truth")),
            )
        )
    return list(tasks.values())


def _class_column(records: Sequence[Mapping[str, Any]], labels: Labels) -> str:
    """Return the column of records with the most labels that match a class.

    Raises:
        BrokenExportError: No column has any.
    """
    matches: Counter[str] = Counter()
    for record in records:
        for key, value in record.items():
            if key not in RECORD_KEYS:
                answer, _ = _cell(key, value)
                texts = [*_raw_texts(answer), *(text for path in answer.paths for text in path)]
                matches[key] += any(labels.class_of(text) for text in texts)
    question, count = min(matches.items(), key=lambda match: (-match[1], match[0]), default=("", 0))
    if records and not count:
        raise BrokenExportError("not_an_export", "no column contains a label that matches a class")
    return question


def _is_true(value: Any) -> bool:  # noqa: ANN401 - any cell value
    return str(value or "").casefold() == "true"


def _table_records(data: bytes) -> list[Mapping[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0])
        )
        return [{str(key): value for key, value in row.items()} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrokenExportError("broken_export", " ".join(str(error).split())) from None


def _delimiter(header: str) -> Literal[",", ";", "\t"]:
    """Return the delimiter that is the most frequent in a table's header."""
    delimiters: tuple[Literal[",", ";", "\t"], ...] = (",", ";", "\t")
    return max(delimiters, key=header.count)


def _cell(question: str, value: Any) -> tuple[Answer, tuple[Control, ...]]:  # noqa: ANN401 - any cell value
    """Return the answer in a cell of an export, and the kinds of other results in it.

    A cell is a choice, a dict with choices, or a list of such items or of other results; a table
    has dicts and lists as JSON.
    """
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        parsed = _parsed(value)
        value = parsed if isinstance(parsed, (dict, list)) else value
    choices: list[str] = []
    paths: list[AnswerPath] = []
    controls: set[Control] = set()
    regional = isinstance(value, list)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            flat, nested = _selected(item)
            choices += flat
            paths += nested
            regional = regional and bool(GEOMETRY & item.keys())
            if not flat and not nested and (control := _control("", item)):
                controls.add((control, question))
        else:
            choices += texts_in(item)
            regional = False
    answer = Answer(question, tuple(choices), tuple(paths), regional and bool(choices or paths))
    return answer, tuple(sorted(controls))


def _dict(value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - any JSON value
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
