"""Photos with Label Studio exports: a folder per collector, or one project for all.

Read are JSON exports, and JSON-MIN and CSV exports, of any file name and several in one folder.
A collector is a folder at the top. An export below it speaks of that folder's photos, in whatever
subfolders they lie; an export at the top, or in a folder without photos, speaks of all.

Each task's photo is found by `anklealign.ingest.filename_matching`. Its label is the one class that
the annotations choose, of each annotator the newest annotation. Where several annotators chose,
each choice is a vote, and prepare makes the label of the votes; if there are votes in consensus/,
those alone are votes, and of several annotators of a task the majority counts. A photo that
consensus/ votes on and no task labels is labelled by these votes. Drafts and predictions are never
labels, cancelled and empty annotations do not vote.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest import consensus
from anklealign.ingest.filename_matching import Match, match
from anklealign.ingest.inventory import (
    Claim,
    Entry,
    Inventory,
    Skip,
    Vote,
    compiled,
    person,
    settle,
    suffix,
    walk,
)
from anklealign.ingest.label_studio_export import (
    BrokenExportError,
    Task,
    choice,
    is_csv_export,
    newest,
    read,
)
from anklealign.io.decode import HEAD, is_photo


def find(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos below a folder, labelled by the exports that lie beside them.

    Raises:
        ValueError: The folder is not there, or holds no export.
    """
    labels = Labels(dataset.classes)
    files, skips = walk(root)
    seen = len(files) + len(skips)
    photos, exports, aside = _sort_out(root, files)
    if not exports:
        raise ValueError(
            f"{root} holds no Label Studio export; put each collector's JSON export into the folder"
            " of the photos, or choose another layout in the dataset's block of params.yaml"
        )

    everything, broken = _read_all(root, exports, labels)
    tasks, older = _newest(everything)
    skips += broken + older
    collectors = sorted({p.partition("/")[0] for p in photos if "/" in p})
    panel = consensus.find(root, aside, photos, collectors, labels)
    skips += panel.skips
    votes: dict[str, list[Vote]] = {}  # a task that several people labelled -> their votes
    claims: dict[str, list[Claim]] = defaultdict(list)
    reasons: dict[str, tuple[str, str]] = {}  # a photo without a good task -> why
    for task, found in zip(tasks, _match(tasks, photos, collectors), strict=True):
        if found.file is None:
            skips.append(_unmatched(task, found))
            reasons |= dict.fromkeys(found.rivals, ("ambiguous", f"{task.name} may mean it"))
            continue
        chosen, reason, detail = _label(task, labels, counting=not panel.votes)
        if reason:
            skips.append(Skip(task.name, "task", reason, f"{found.file} {detail}".strip()))
            reasons[found.file] = (reason, f"{task.name} {detail}".strip())
            continue
        claims[found.file].append(Claim(task.name, _majority(chosen), by_vote=len(chosen) > 1))
        if len(chosen) > 1:
            project = _scope(task, collectors) or "project"
            votes[task.name] = [Vote(found.file, f"{project}/{who}", chosen[who]) for who in chosen]

    spoken_of = {_scope(task, collectors) for task in tasks}
    settled, unsettled = settle(claims)
    voted_on = {vote.file for vote in panel.votes}
    skips += [skip for skip in unsettled if skip.item != "file" or skip.path not in voted_on]
    counted = [vote for claim in settled.values() for vote in votes.get(claim.task, ())]
    pattern = compiled(dataset.person)
    entries: list[Entry] = []
    for file in tqdm(photos, "account for", unit="photo", delay=1, leave=False, disable=None):
        if file in settled or file in voted_on:
            claim = settled.get(file, Claim("", "", by_vote=True))
            collector = file.partition("/")[0] if "/" in file else ""
            who = person(file, pattern, collector, collectors)
            entries.append(Entry(file, claim.label, collector, who, "", claim.task, claim.by_vote))
        elif file not in claims:
            reason, detail = reasons.get(file, ("", ""))
            if reason:
                skips.append(Skip(file, "file", reason, detail))
            else:
                skips.append(_untasked(root, file, spoken_of))
    exports_seen = len(exports) + panel.exports_seen
    return Inventory(
        tuple(entries),
        tuple(skips),
        seen - exports_seen,
        len(everything),
        exports_seen,
        tuple(sorted([*panel.votes, *counted])),
        panel.votes_seen + len(counted),
        tuple(panel.listed),
        panel.names_seen,
    )


def _sort_out(root: Path, files: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the files that may be photos, the collectors' exports, and those of consensus/."""
    photos: list[str] = []
    exports: list[str] = []
    aside: list[str] = []
    for file in files:
        if consensus.belongs(file):
            aside.append(file)
        elif is_export(root, file):
            exports.append(file)
        else:
            photos.append(file)
    return photos, exports, aside


def is_export(root: Path, file: str) -> bool:
    """Tell whether a file is to be read as an export, good or broken."""
    kind = suffix(file)
    return kind == ".json" or (kind == ".csv" and is_csv_export(_first_line(root / file)))


def _read_all(root: Path, exports: Iterable[str], labels: Labels) -> tuple[list[Task], list[Skip]]:
    """Return the tasks of all exports, and the skips of those that cannot be used."""
    tasks: list[Task] = []
    skips: list[Skip] = []
    for export in tqdm(exports, "exports", unit="export", delay=1, leave=False, disable=None):
        try:
            tasks += read(export, (root / export).read_bytes(), labels)
        except BrokenExportError as error:
            skips.append(Skip(export, "export", error.reason, str(error)))
        except OSError as error:
            skips.append(Skip(export, "export", "cannot_open", error.strerror or str(error)))
    return tasks, skips


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.readline(1 << 16).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _untasked(root: Path, file: str, spoken_of: Collection[str]) -> Skip:
    """Return the skip of a file that no task names: a photo without a label, or no photo."""
    try:
        with (root / file).open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        return Skip(file, "file", "cannot_open", error.strerror or str(error))
    if not head:
        return Skip(file, "file", "zero_bytes")
    if not is_photo(head):
        return Skip(file, "file", "not_an_image")
    top = file.partition("/")[0]
    silent = not {"", top} & set(spoken_of)
    detail = f"no task at all for {top}/: its export is missing or cannot be read"
    return Skip(file, "file", "no_task", detail if silent else "")


def _unmatched(task: Task, found: Match) -> Skip:
    names = sorted({address.rpartition("/")[2] for address in task.addresses})
    named = " or ".join(names) or "no address"
    if len(found.rivals) == 1:
        detail = f"{named} fits {found.rivals[0]}, as other tasks do (rule: {found.rule})"
        return Skip(task.name, "task", "ambiguous", detail)
    if found.rivals:
        detail = f"{named} fits {' and '.join(found.rivals)} (rule: {found.rule})"
        return Skip(task.name, "task", "ambiguous", detail)
    return Skip(task.name, "task", "missing_file", named)


def _match(tasks: list[Task], photos: list[str], collectors: list[str]) -> list[Match]:
    """Match the tasks of all exports in one folder together; they compete for its photos."""
    scopes: dict[str, list[int]] = defaultdict(list)
    for number, task in enumerate(tasks):
        scopes[_scope(task, collectors)].append(number)
    found: dict[int, Match] = {}
    for scope, numbers in tqdm(
        scopes.items(), "match", unit="folder", delay=1, leave=False, disable=None
    ):
        nearby = [p for p in photos if p.startswith(f"{scope}/")] if scope else photos
        matches = match([tasks[n].addresses for n in numbers], nearby, collectors)
        found |= zip(numbers, matches, strict=True)
    return [found[number] for number in range(len(tasks))]


def _scope(task: Task, collectors: Collection[str]) -> str:
    """Return the collector of whose photos a task's export speaks, '' for all."""
    top, _, rest = task.name.partition("/")
    return top if rest and top in collectors else ""


def _newest(tasks: list[Task]) -> tuple[list[Task], list[Skip]]:
    """Return the tasks without older copies of them in other exports of the same project."""
    newest: dict[tuple[str, ...], Task] = {}
    for task in tasks:
        if all(task.key):
            rival = newest.get(task.key)
            if rival is None or (task.updated, task.name) > (rival.updated, rival.name):
                newest[task.key] = task
    kept: list[Task] = []
    older: list[Skip] = []
    for task in tasks:
        winner = newest.get(task.key, task)
        if winner is task:
            kept.append(task)
        else:
            older.append(Skip(task.name, "task", "superseded", f"by {winner.name}"))
    return kept, older


def _label(task: Task, labels: Labels, *, counting: bool) -> tuple[dict[str, str], str, str]:
    """Return each annotator's class, or none and a reason with its detail.

    Without `counting` several annotators are one, who says what most of them say. It is for tasks
    beside a panel's votes, where the few who happened to share a task would blur how far the panel
    agrees, and put their photos into its test part.
    """
    latest, cancelled = newest(task.annotations)
    if not latest:
        return {}, "cancelled" if cancelled else task.without, ""
    chosen: dict[str, str] = {}
    for annotator, annotation in latest.items():
        label, reason, detail = choice(annotation, labels)
        if reason:  # even beside good votes: its owner is to mend it, not to lose it
            return {}, reason, detail
        chosen[annotator] = label
    if counting:
        return chosen, "", ""
    if most := _majority(chosen):
        return {"": most}, "", ""
    return {}, "label_tie", ", ".join(sorted(chosen.values()))


def _majority(chosen: Mapping[str, str]) -> str:
    """Return the class that most annotators chose, '' where two are equal first."""
    (first, most), *others = Counter(chosen.values()).most_common()
    return "" if others and others[0][1] == most else first
