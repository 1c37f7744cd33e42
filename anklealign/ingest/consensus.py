r"""consensus/: a list of photos that lie in the collectors' folders, and an export per annotator.

    consensus/list.txt      FO6K58\sajat_reszvevo01_01.jpg, a photo a line
    consensus/anna.json     a Label Studio export of these photos, as `exports` reads them

Any .txt is a list; a name may stand with its collector's folder or alone, with slashes or
backslashes. Any export is an annotator, whose name is the file's (an e-mail address becomes a
pseudonym): each one ran an own Label Studio, so that `completed_by` is 1 in all of them. Only where
one export names several people in `completed_by` is each of them an annotator, `<file>/<number>`.

Names and votes find their photos by `anklealign.ingest.filename_matching`; votes look among the
listed photos alone, where there is a list, as file names repeat from collector to collector. A name
whose folder looks like a collector that is not there fits nothing. Whoever voted on a photo more
than once is counted with the newest vote; of two that are as new the later in the export counts.
"""

import codecs
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.ingest.filename_matching import Match, is_code, match
from anklealign.ingest.inventory import Skip, Vote, suffix
from anklealign.ingest.label_studio_export import (
    Annotation,
    BrokenExportError,
    Task,
    choice,
    newest,
    pseudonym,
    read,
)

FOLDER = "consensus"
EXPORTS = {".json", ".csv"}
LIST = ".txt"
# Windows' code page for Hungarian, in which old editors save.
WINDOWS = "cp1250"


@dataclass
class Panel:
    """What consensus/ holds; every name and every vote is here, or is a skip."""

    votes: list[Vote] = field(default_factory=list)
    votes_seen: int = 0
    listed: list[str] = field(default_factory=list)
    names_seen: int = 0
    skips: list[Skip] = field(default_factory=list)
    exports_seen: int = 0  # exports and lists


@dataclass(frozen=True)
class Spoken:
    """A vote as it was cast."""

    updated: str
    vote: str  # its name for skipped.csv
    label: str


def belongs(file: str) -> bool:
    """Tell whether a path below the dataset's folder lies in consensus/."""
    top, _, rest = file.partition("/")
    return bool(rest) and top.casefold() == FOLDER


def find(
    root: Path,
    files: Iterable[str],
    photos: Sequence[str],
    collectors: Collection[str],
    labels: Labels,
) -> Panel:
    """Return the votes in those of consensus/'s files, on photos of the collectors."""
    count = _Count(photos, collectors, labels)
    panel = count.panel
    # Lists first: votes look among the photos that they name.
    ordered = sorted(files, key=lambda file: (suffix(file) != LIST, file))
    for file in tqdm(ordered, "votes", unit="export", delay=1, leave=False, disable=None):
        kind = suffix(file)
        if kind not in EXPORTS | {LIST}:
            panel.skips.append(Skip(file, "file", "consensus"))
            continue
        panel.exports_seen += 1
        try:
            data = (root / file).read_bytes()
            known = count.names(file, _lines(data)) if kind == LIST else count.votes(file, data)
        except BrokenExportError as error:
            panel.skips.append(Skip(file, "export", error.reason, str(error)))
        except OSError as error:
            panel.skips.append(Skip(file, "export", "cannot_open", error.strerror or str(error)))
        else:
            if not known:
                reason = "empty_list" if kind == LIST else "empty_export"
                panel.skips.append(Skip(file, "export", reason))
    panel.votes = sorted(Vote(*key, said.label) for key, said in count.latest.items())
    return panel


def _lines(data: bytes) -> list[tuple[int, str]]:
    """Return the names in a list with their line numbers, whatever editor saved it."""
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


def _unmatched(missing: Skip, found: Match) -> Skip:
    if not found.rivals:
        return missing
    others = ", as another name does" if len(found.rivals) == 1 else ""
    fits = f"{' and '.join(found.rivals)}{others} (rule: {found.rule})"
    return Skip(missing.path, missing.item, "ambiguous", f"{missing.detail} fits {fits}")


class _Count:
    """Counts lists and exports one after the other."""

    def __init__(self, photos: Sequence[str], collectors: Collection[str], labels: Labels) -> None:
        self.panel = Panel()
        self.latest: dict[tuple[str, str], Spoken] = {}  # by photo and annotator
        self._photos = photos
        self._collectors = collectors
        self._labels = labels

    def names(self, file: str, names: Sequence[tuple[int, str]]) -> int:
        """Add a list's photos; return how many names it has."""
        panel = self.panel
        panel.names_seen += len(names)
        first: dict[str, int] = {}
        scopes: dict[str | None, list[tuple[str, str]]] = {}
        for number, name in names:
            path = name.replace("\\", "/")
            line = f"{file}#{number}"
            before = first.setdefault(_folded(path), number)
            if before == number:
                scopes.setdefault(self._scope(path), []).append((line, path))
            else:
                # By its spelling alone, lest matching give it another photo.
                detail = f"{name} stands in line {before}"
                panel.skips.append(Skip(line, "name", "listed_twice", detail))
        listed = set(panel.listed)
        for scope, group in scopes.items():
            nearby: Sequence[str] = [] if scope is None else self._photos
            if scope:
                nearby = [photo for photo in self._photos if photo.startswith(f"{scope}/")]
            found = match([[path] for _, path in group], nearby, self._collectors)
            for (line, path), matched in zip(group, found, strict=True):
                if matched.file is None:
                    missing = Skip(line, "name", "missing_file", path)
                    panel.skips.append(_unmatched(missing, matched))
                elif matched.file in listed:
                    detail = f"{path} is {matched.file}"
                    panel.skips.append(Skip(line, "name", "listed_twice", detail))
                else:
                    listed.add(matched.file)
        panel.listed = sorted(listed)
        return len(names)

    def _scope(self, path: str) -> str | None:
        """Return the collector in whose folder a name stands, '' for any, None for one unknown."""
        known = {_folded(collector): collector for collector in self._collectors}
        folders = [_folded(part) for part in path.split("/")[:-1]]
        inside = [known[folder] for folder in folders if folder in known]
        if inside:
            return inside[-1]
        return None if any(is_code(folder) for folder in folders) else ""

    def votes(self, file: str, data: bytes) -> int:
        """Add an export's votes; return how many tasks it has.

        Raises:
            BrokenExportError: It does not parse, or is no list of tasks.
        """
        panel = self.panel
        tasks = read(file, data, self._labels)
        stem = file.partition("/")[2].removesuffix(Path(file).suffix)
        if "@" in stem:
            stem = pseudonym(stem)
        named = {annotation.annotator for task in tasks for annotation in task.annotations}
        # A number sign stands before the place of an annotation that nobody is named for.
        several = len({name for name in named if not name.startswith("#")}) > 1
        photos = panel.listed or self._photos
        found = match([task.addresses for task in tasks], photos, self._collectors)
        for task, matched in zip(tasks, found, strict=True):
            people: dict[str, list[Annotation]] = {}
            for annotation in task.annotations:
                who = f"{stem}/{annotation.annotator}" if several else stem
                people.setdefault(who, []).append(replace(annotation, annotator=who))
            for who, annotations in sorted(people.items()) or [(stem, [])]:
                vote = f"{task.name} by {who}" if several else task.name
                panel.votes_seen += 1
                self._cast(who, vote, annotations, task, matched)
        return len(tasks)

    def _cast(
        self, who: str, vote: str, annotations: Sequence[Annotation], task: Task, found: Match
    ) -> None:
        """Add one annotator's vote on one task, or its skip."""
        panel = self.panel
        if found.file is None:
            names = sorted({address.rpartition("/")[2] for address in task.addresses})
            reason = "not_listed" if panel.listed else "missing_file"
            missing = Skip(vote, "vote", reason, " or ".join(names) or "no address")
            panel.skips.append(_unmatched(missing, found))
            return
        said, cancelled = newest(annotations)
        if said:
            label, reason, detail = choice(said[who], self._labels)
        else:
            label, reason, detail = "", "cancelled" if cancelled else task.without, ""
        if reason:
            panel.skips.append(Skip(vote, "vote", reason, f"{found.file} {detail}".strip()))
            return
        now = Spoken(said[who].updated, vote, label)
        before = self.latest.get((found.file, who))
        if before:
            older, now = (before, now) if before.updated <= now.updated else (now, before)
            detail = f"{found.file}: by {now.vote}"
            panel.skips.append(Skip(older.vote, "vote", "superseded", detail))
        self.latest[found.file, who] = now
