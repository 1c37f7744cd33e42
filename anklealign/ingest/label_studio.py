"""Photos with Label Studio exports: one folder per collector, or one project for all photos.

JSON, JSON-MIN, CSV, TSV and JSON Lines exports of any file name are read, also several in one
folder, and the files of a target storage (`label_studio_export`). A collector is a top-level
folder. An export below it refers to the photos of that folder, including subfolders; an export at
the top level, or in a folder without photos, refers to all photos.

`anklealign.ingest.filename_matching` finds the photo of each task. The label is the one class that
the annotations choose, where the newest annotation of each annotator counts; ground truth and
accepted annotations override others, and rejected ones do not count. If several annotators labeled
a task, each choice is a vote, and prepare aggregates the votes into a label. If there are votes in
consensus/, only those are votes, and the majority of a task's annotators is its label. A photo with
votes in consensus/ and no task is labeled by these votes. Drafts and predictions are never labels;
cancelled and empty annotations are not votes.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest import consensus
from anklealign.ingest.filename_matching import Match, match_photos
from anklealign.ingest.inventory import (
    Claim,
    Entry,
    Inventory,
    Skip,
    Vote,
    compile_subject_pattern,
    is_other_file,
    list_files,
    resolve_claims,
    subject_of,
)
from anklealign.ingest.label_studio_addresses import own_paths
from anklealign.ingest.label_studio_export import (
    BrokenExportError,
    Task,
    chosen_class,
    is_export,
    merge_stored,
    name_answers,
    newest_annotations,
    other_controls,
    read_tasks,
)
from anklealign.io.decode import HEAD, is_photo


@dataclass
class _TaskLabels:
    """The labels of the photos by their tasks; each task is a claim or a skip."""

    claims: dict[str, list[Claim]] = field(default_factory=lambda: defaultdict(list))  # by photo
    votes: dict[str, list[Vote]] = field(default_factory=dict)  # by task, if several annotators
    reasons: dict[str, tuple[str, str]] = field(default_factory=dict)  # by photo without a label
    skips: list[Skip] = field(default_factory=list)


def read_label_studio(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos below a folder with the labels of the exports next to them.

    Raises:
        ValueError: The folder does not exist or has no export.
    """
    labels = Labels(dataset.classes)
    files, skips = list_files(root)
    seen = len(files) + len(skips)
    photos, exports, consensus_files = _sort_out(root, files)
    if not exports:
        raise ValueError(
            f"{root} has no Label Studio export; put each collector's JSON export into the folder "
            "of the photos, or choose another layout for the dataset in params.yaml"
        )

    all_tasks, broken = _read_all(root, exports, labels)
    name_answers(all_tasks, labels, dataset.label_level)
    tasks, older = _drop_older_copies(all_tasks)
    collectors = sorted({p.partition("/")[0] for p in photos if "/" in p})
    votes = consensus.read_consensus_folder(
        root, consensus_files, photos, collectors, labels, level=dataset.label_level
    )
    labeled = _label_photos(tasks, photos, collectors, labels, count_votes=not votes.votes)
    settled, unsettled = resolve_claims(labeled.claims)
    voted_on = {vote.file for vote in votes.votes}
    skips += [*broken, *older, *votes.skips, *labeled.skips]
    skips += [skip for skip in unsettled if skip.item != "file" or skip.path not in voted_on]
    task_votes = [vote for claim in settled.values() for vote in labeled.votes.get(claim.task, ())]

    by_vote = {file: Claim("", "", by_vote=True) for file in voted_on}
    entries = _entries(photos, by_vote | settled, collectors, dataset)
    exported = {_scope(task, collectors) for task in tasks}
    for file in tqdm(photos, "skips", unit="photo", delay=1, leave=False, disable=None):
        if file in labeled.reasons and file not in voted_on and file not in labeled.claims:
            skips.append(Skip(file, "file", *labeled.reasons[file]))
        elif file not in voted_on and file not in labeled.claims:
            skips.append(_skip_without_task(root, file, exported))
    exports_seen = len(exports) + votes.exports_seen
    return Inventory(
        tuple(entries),
        tuple(skips),
        seen - exports_seen,
        len(all_tasks),
        exports_seen,
        tuple(sorted([*votes.votes, *task_votes])),
        votes.votes_seen + len(task_votes),
        tuple(votes.listed),
        votes.names_seen,
    )


def _label_photos(
    tasks: list[Task],
    photos: list[str],
    collectors: list[str],
    labels: Labels,
    *,
    count_votes: bool,
) -> _TaskLabels:
    """Match each task with its photo and read its label."""
    result = _TaskLabels()
    for task, match in zip(tasks, _match_tasks(tasks, photos, collectors), strict=True):
        if match.file is None:
            result.skips.append(_unmatched(task, match))
            rivals = ("ambiguous", f"{task.name} may refer to it")
            result.reasons |= dict.fromkeys(match.rivals, rivals)
            continue
        chosen, reason, detail = _label(task, labels, count_votes=count_votes)
        if reason:
            skip = Skip(task.name, "task", reason, f"{match.file} {detail}".strip())
            result.skips.append(skip)
            result.reasons[match.file] = (reason, f"{task.name} {detail}".strip())
            continue
        claim = Claim(task.name, _majority(chosen), by_vote=len(chosen) > 1)
        result.claims[match.file].append(claim)
        if len(chosen) > 1:
            project = _scope(task, collectors) or "project"
            result.votes[task.name] = [
                Vote(match.file, f"{project}/{annotator}", label)
                for annotator, label in chosen.items()
            ]
    return result


def _entries(
    photos: Iterable[str], claims: Mapping[str, Claim], collectors: list[str], dataset: Dataset
) -> list[Entry]:
    """Return the entry of each photo with a claim."""
    pattern = compile_subject_pattern(dataset.subject_pattern)
    entries: list[Entry] = []
    for file in photos:
        if claim := claims.get(file):
            collector = file.partition("/")[0] if "/" in file else ""
            subject = subject_of(file, pattern, collector, collectors)
            entries.append(
                Entry(file, claim.label, collector, subject, "", claim.task, claim.by_vote)
            )
    return entries


def _sort_out(root: Path, files: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the possible photos, the collectors' exports, and the files in consensus/."""
    photos: list[str] = []
    exports: list[str] = []
    consensus_files: list[str] = []
    for file in files:
        if consensus.in_consensus_folder(file):
            consensus_files.append(file)
        elif is_export(root, file):
            exports.append(file)
        else:
            photos.append(file)
    return photos, exports, consensus_files


def _read_all(root: Path, exports: Iterable[str], labels: Labels) -> tuple[list[Task], list[Skip]]:
    """Return the tasks of all exports, and the skips of exports that cannot be read."""
    tasks: list[Task] = []
    skips: list[Skip] = []
    for export in tqdm(exports, "exports", unit="export", delay=1, leave=False, disable=None):
        try:
            tasks += read_tasks(export, (root / export).read_bytes(), labels)
        except BrokenExportError as error:
            skips.append(Skip(export, "export", error.reason, str(error)))
        except OSError as error:
            skips.append(Skip(export, "export", "cannot_open", error.strerror or str(error)))
    return merge_stored(tasks), skips


def _skip_without_task(root: Path, file: str, exported: Collection[str]) -> Skip:
    """Return the skip of a file without a task: an unlabeled photo, or not a photo.

    `exported` are the folders that exports refer to, with '' for all.
    """
    try:
        with (root / file).open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        return Skip(file, "file", "cannot_open", error.strerror or str(error))
    if is_other_file(root, file):
        return Skip(file, "file", "other_file")
    if not head:
        return Skip(file, "file", "zero_bytes")
    if not is_photo(head):
        return Skip(file, "file", "not_an_image")
    top = file.partition("/")[0]
    without_export = not {"", top} & set(exported)
    detail = f"no tasks for {top}/: its export is missing or cannot be read"
    return Skip(file, "file", "no_task", detail if without_export else "")


def _unmatched(task: Task, match: Match) -> Skip:
    """Return the skip of a task without exactly one photo."""
    names = sorted({address.rpartition("/")[2] for address in task.addresses})
    named = " or ".join(names) or "no address"
    if len(match.rivals) == 1:
        detail = f"{named} matches {match.rivals[0]}, as do other tasks (rule: {match.rule})"
        return Skip(task.name, "task", "ambiguous", detail)
    if match.rivals:
        detail = f"{named} matches {' and '.join(match.rivals)} (rule: {match.rule})"
        return Skip(task.name, "task", "ambiguous", detail)
    return Skip(task.name, "task", "missing_file", named)


def _match_tasks(tasks: list[Task], photos: list[str], collectors: list[str]) -> list[Match]:
    """Match tasks with photos; all tasks that refer to one folder are matched together."""
    scopes: dict[str, list[int]] = defaultdict(list)
    for number, task in enumerate(tasks):
        scopes[_scope(task, collectors)].append(number)
    matches: dict[int, Match] = {}
    for scope, numbers in tqdm(
        scopes.items(), "match", unit="folder", delay=1, leave=False, disable=None
    ):
        nearby = [p for p in photos if p.startswith(f"{scope}/")] if scope else photos
        addresses = own_paths([tasks[n].photos for n in numbers], [tasks[n].shown for n in numbers])
        matches |= zip(numbers, match_photos(addresses, nearby, collectors), strict=True)
    return [matches[number] for number in range(len(tasks))]


def _scope(task: Task, collectors: Collection[str]) -> str:
    """Return the collector whose photos a task's export refers to, or '' for all."""
    top, _, rest = task.name.partition("/")
    return top if rest and top in collectors else ""


def _drop_older_copies(tasks: list[Task]) -> tuple[list[Task], list[Skip]]:
    """Return the newest copy of each task, and skips of older copies in other exports."""
    newest_copies: dict[tuple[str, ...], Task] = {}
    for task in tasks:
        if all(task.key):
            rival = newest_copies.get(task.key)
            if rival is None or (task.updated, task.name) > (rival.updated, rival.name):
                newest_copies[task.key] = task
    kept: list[Task] = []
    older: list[Skip] = []
    for task in tasks:
        winner = newest_copies.get(task.key, task)
        if winner is task:
            kept.append(task)
        else:
            older.append(Skip(task.name, "task", "superseded", f"by {winner.name}"))
    return kept, older


def _label(task: Task, labels: Labels, *, count_votes: bool) -> tuple[dict[str, str], str, str]:
    """Return the class by annotator, or no class and a reason with its detail.

    Without `count_votes` the majority of the annotators is returned as one annotator. This is for
    datasets with votes in consensus/: tasks that happen to have several annotators would distort
    the agreement measured there and would add their photos to its test split.
    """
    latest, reason = newest_annotations(task.annotations)
    if not latest:
        detail = other_controls(task.annotations) if reason == "other_control" else ""
        return {}, reason or task.without, detail
    chosen: dict[str, str] = {}
    for annotator, annotation in latest.items():
        label, reason, detail = chosen_class(annotation, labels)
        if reason:  # reported even if other votes are valid, so that the owner fixes it
            return {}, reason, detail
        chosen[annotator] = label
    if count_votes:
        return chosen, "", ""
    if most := _majority(chosen):
        return {"": most}, "", ""
    return {}, "label_tie", ", ".join(sorted(chosen.values()))


def _majority(chosen: Mapping[str, str]) -> str:
    """Return the class that most annotators chose, or '' for a tie."""
    (first, most), *others = Counter(chosen.values()).most_common()
    return "" if others and others[0][1] == most else first
