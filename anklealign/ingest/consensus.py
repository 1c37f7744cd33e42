r"""consensus/: a list of photos in the collectors' folders, and one export per annotator.

    consensus/list.txt      FO6K58\sajat_reszvevo01_01.jpg, one photo per line
    consensus/anna.json     a Label Studio export of these photos; see label_studio_export

Every .txt file is a list. Its names may include the collector's folder, with slashes or
backslashes. Every export belongs to the annotator whose name is the file name (an e-mail address
becomes a pseudonym), because each ran their own Label Studio and `completed_by` is always 1.
Only an export with several annotators in `completed_by` counts as several annotators, named
`<file>/<number>`. In a target storage, which has a file for each annotation, the annotator is the
folder below consensus/, or `completed_by` if there is none.

`anklealign.ingest.filename_matching` matches names and votes with photos. If there is a list, votes
match listed photos only, because file names recur across collectors. A name whose folder looks like
an unknown collector matches nothing. If an annotator voted on a photo more than once, the newest
vote counts; for equal times, the later one in the export.
"""

import codecs
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.ingest.filename_matching import Match, is_code, match_photos
from anklealign.ingest.inventory import Skip, Vote, suffix
from anklealign.ingest.label_studio_addresses import own_paths
from anklealign.ingest.label_studio_export import (
    Annotation,
    BrokenExportError,
    Task,
    chosen_class,
    is_export,
    merge_stored,
    name_answers,
    newest_annotations,
    pseudonym,
    read_tasks,
)

FOLDER = "consensus"
EXPORTS = {".json", ".csv"}
LIST = ".txt"
# Windows' code page for Hungarian, in which old editors save.
WINDOWS = "cp1250"


@dataclass
class ConsensusFolder:
    """The votes and listed photos of consensus/; every other name and vote is a skip."""

    votes: list[Vote] = field(default_factory=list)
    votes_seen: int = 0
    listed: list[str] = field(default_factory=list)
    names_seen: int = 0
    skips: list[Skip] = field(default_factory=list)
    exports_seen: int = 0  # exports and lists


@dataclass(frozen=True)
class CastVote:
    """The label and time of a vote."""

    updated: str
    vote: str  # the name used in skipped.csv
    label: str


def in_consensus_folder(file: str) -> bool:
    """Return True if a path below the dataset's folder is in consensus/."""
    top, _, rest = file.partition("/")
    return bool(rest) and top.casefold() == FOLDER


def read_consensus_folder(
    root: Path,
    files: Iterable[str],
    photos: Sequence[str],
    collectors: Collection[str],
    labels: Labels,
    *,
    level: int | None = None,
) -> ConsensusFolder:
    """Return the votes and listed photos in the given files of consensus/.

    `level` is the level of nested answers that is the label, None for the leaf.
    """
    reader = _FolderReader(photos, collectors, labels, level)
    content = reader.content
    # Lists first, because votes match listed photos.
    ordered = sorted(files, key=lambda file: (suffix(file) != LIST, file))
    for file in tqdm(ordered, "votes", unit="export", delay=1, leave=False, disable=None):
        kind = suffix(file)
        if kind not in EXPORTS | {LIST} and not is_export(root, file):
            content.skips.append(Skip(file, "file", "consensus"))
            continue
        content.exports_seen += 1
        try:
            data = (root / file).read_bytes()
            if kind == LIST:
                number = reader.add_list(file, _lines(data))
            else:
                number = reader.add_export(file, data)
        except BrokenExportError as error:
            content.skips.append(Skip(file, "export", error.reason, str(error)))
        except OSError as error:
            content.skips.append(Skip(file, "export", "cannot_open", error.strerror or str(error)))
        else:
            if not number:
                reason = "empty_list" if kind == LIST else "empty_export"
                content.skips.append(Skip(file, "export", reason))
    content.votes = sorted(Vote(*key, vote.label) for key, vote in reader.latest.items())
    return content


def _lines(data: bytes) -> list[tuple[int, str]]:
    """Return the names in a list with their line numbers, decoded like common editors save it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode(WINDOWS, "replace")
    names = ((n, line.strip().strip("\"'").strip()) for n, line in enumerate(text.splitlines(), 1))
    return [(number, name) for number, name in names if name]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold().removeprefix("./")


def _unmatched(missing: Skip, match: Match) -> Skip:
    """Return the skip of a name or vote without exactly one photo."""
    if not match.rivals:
        return missing
    others = ", as does another name" if len(match.rivals) == 1 else ""
    photos = f"{' and '.join(match.rivals)}{others} (rule: {match.rule})"
    return Skip(missing.path, missing.item, "ambiguous", f"{missing.detail} matches {photos}")


class _FolderReader:
    """Read lists and exports one after the other."""

    def __init__(
        self,
        photos: Sequence[str],
        collectors: Collection[str],
        labels: Labels,
        level: int | None,
    ) -> None:
        self.content = ConsensusFolder()
        self.latest: dict[tuple[str, str], CastVote] = {}  # by photo and annotator
        self._photos = photos
        self._collectors = collectors
        self._labels = labels
        self._level = level

    def add_list(self, file: str, names: Sequence[tuple[int, str]]) -> int:
        """Add the photos of a list; return its number of names."""
        content = self.content
        content.names_seen += len(names)
        first: dict[str, int] = {}
        scopes: dict[str | None, list[tuple[str, str]]] = {}
        for number, name in names:
            path = name.replace("\\", "/")
            line = f"{file}#{number}"
            before = first.setdefault(_folded(path), number)
            if before == number:
                scopes.setdefault(self._scope(path), []).append((line, path))
            else:
                # Checked before matching, which would find another photo for the second name.
                detail = f"{name} is already in line {before}"
                content.skips.append(Skip(line, "name", "listed_twice", detail))
        listed = set(content.listed)
        for scope, group in scopes.items():
            nearby: Sequence[str] = [] if scope is None else self._photos
            if scope:
                nearby = [photo for photo in self._photos if photo.startswith(f"{scope}/")]
            matches = match_photos([[path] for _, path in group], nearby, self._collectors)
            for (line, path), matched in zip(group, matches, strict=True):
                if matched.file is None:
                    missing = Skip(line, "name", "missing_file", path)
                    content.skips.append(_unmatched(missing, matched))
                elif matched.file in listed:
                    detail = f"{path} is {matched.file}"
                    content.skips.append(Skip(line, "name", "listed_twice", detail))
                else:
                    listed.add(matched.file)
        content.listed = sorted(listed)
        return len(names)

    def _scope(self, path: str) -> str | None:
        """Return the collector in a name's path, '' if there is none, or None if it is unknown."""
        known = {_folded(collector): collector for collector in self._collectors}
        folders = [_folded(part) for part in path.split("/")[:-1]]
        inside = [known[folder] for folder in folders if folder in known]
        if inside:
            return inside[-1]
        return None if any(is_code(folder) for folder in folders) else ""

    def add_export(self, file: str, data: bytes) -> int:
        """Add the votes of an export; return its number of tasks.

        Raises:
            BrokenExportError: The export cannot be parsed or is not a list of tasks.
        """
        content = self.content
        tasks = merge_stored(read_tasks(file, data, self._labels))
        name_answers(tasks, self._labels, self._level)
        stem = file.partition("/")[2].removesuffix(Path(file).suffix)
        if not suffix(file) or any(task.stored for task in tasks):
            # A target storage has a file for each annotation: the annotator is its folder, if any.
            stem = stem.rpartition("/")[0]
        if "@" in stem:
            stem = pseudonym(stem)
        named = {annotation.annotator for task in tasks for annotation in task.annotations}
        # The name of an annotation without an annotator is # and its position.
        several = len({name for name in named if not name.startswith("#")}) > 1
        photos = content.listed or self._photos
        addresses = own_paths([task.photos for task in tasks], [task.shown for task in tasks])
        matches = match_photos(addresses, photos, self._collectors)
        for task, match in zip(tasks, matches, strict=True):
            by_annotator: dict[str, list[Annotation]] = {}
            for annotation in task.annotations:
                own = annotation.annotator
                annotator = f"{stem}/{own}" if several and stem else stem or own
                by_annotator.setdefault(annotator, []).append(
                    replace(annotation, annotator=annotator)
                )
            for annotator, annotations in sorted(by_annotator.items()) or [(stem, [])]:
                vote = f"{task.name} by {annotator}" if several else task.name
                content.votes_seen += 1
                self._add_vote(annotator, vote, annotations, task, match)
        return len(tasks)

    def _add_vote(
        self, annotator: str, vote: str, annotations: Sequence[Annotation], task: Task, match: Match
    ) -> None:
        """Add the vote of one annotator on one task, or its skip."""
        content = self.content
        if match.file is None:
            names = sorted({address.rpartition("/")[2] for address in task.addresses})
            reason = "not_listed" if content.listed else "missing_file"
            missing = Skip(vote, "vote", reason, " or ".join(names) or "no address")
            content.skips.append(_unmatched(missing, match))
            return
        newest, without = newest_annotations(annotations)
        if newest:
            label, reason, detail = chosen_class(newest[annotator], self._labels)
        else:
            label, reason, detail = "", without or task.without, ""
        if reason:
            content.skips.append(Skip(vote, "vote", reason, f"{match.file} {detail}".strip()))
            return
        vote_cast = CastVote(newest[annotator].updated, vote, label)
        before = self.latest.get((match.file, annotator))
        if before:
            older, newer = sorted((before, vote_cast), key=lambda cast: cast.updated)
            detail = f"{match.file}: by {newer.vote}"
            content.skips.append(Skip(older.vote, "vote", "superseded", detail))
            vote_cast = newer
        self.latest[match.file, annotator] = vote_cast
