"""Add a folder of photos as a dataset: detect, report, copy, describe and version it.

    anklealign add FOLDER NAME [--layout folders|label_studio|table] [--dry-run] [--verbose]
    make add DATA=FOLDER NAME=name [LAYOUT=…] [DRY=1] [ALL=1]

The report uses the functions of the prepare stage, so both have the same result: which photos are
used, and the reason and remedy for each other item. Then the photos are copied to data/raw/NAME, a
commented dataset config is added to params.yaml, and `dvc add` versions the folder. An existing
config in params.yaml is used unchanged. The source folder is never written to; with --dry-run,
nothing is written. Exit status: 0 on success, 1 on an error, 2 for wrong usage.
"""

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from anklealign.annotation import aggregation
from anklealign.cli import dataset_config, layout_detection
from anklealign.config import params
from anklealign.config.class_names import Labels
from anklealign.config.params import PARAMS, Dataset, Prepare
from anklealign.config.paths import RAW
from anklealign.ingest import inventory, layouts
from anklealign.ingest.inventory import (
    REASONS,
    Entry,
    Inventory,
    Skip,
    escape_unprintable,
    list_files,
)
from anklealign.io import decode, decoder_pool, files

LISTED = 10  # items per reason in the report without --verbose
# A dot separates DVC keys and a space shell words; YAML reads digits and some words as other types.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Proposal:
    """A dataset config, new or from params.yaml, and the spellings of its labels in the folder."""

    dataset: Dataset
    new: bool
    reading: layout_detection.LayoutCandidate | None
    like: str = ""
    alike: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Look:
    """The result of prepare for a folder.

    Attributes:
        folder: The folder.
        proposal: Its dataset config.
        found: The inventory of the layout.
        used: The readable photos with a label.
        skips: All other photos, and the skipped tasks and exports.
        counts: Number of photos by class.
        files: The files to copy.
        behind: The items that cannot be copied.
        block: The new config as YAML, or '' if params.yaml has one.
    """

    folder: Path
    proposal: Proposal
    found: Inventory
    used: tuple[Entry, ...]
    skips: tuple[Skip, ...]
    counts: dict[str, int]
    files: tuple[str, ...]
    behind: tuple[str, ...]
    block: str


def add_folder(
    folder: Path, name: str, layout: str | None = None, *, dry_run: bool, verbose: bool = False
) -> int:
    """Add a folder of photos to the project; return the exit status, 1 on an error."""
    listed = sys.maxsize if verbose else LISTED
    try:
        add(folder.expanduser(), name, layout, dry=dry_run, listed=listed)
    except (ValueError, OSError) as error:
        print(f"add: {error}", file=sys.stderr)
        return 1
    return 0


def add(folder: Path, name: str, layout: str | None, *, dry: bool, listed: int) -> None:
    """Print the report; unless `dry`, copy the photos, add the config and run `dvc add`.

    Raises:
        ValueError: The name, the folder or its labels cannot be used; the message has the remedy.
        OSError: The folder cannot be read, or the copy cannot be written.
    """
    raw = params.read()
    target = RAW / name
    check_name(name)
    check_place(folder, target)
    look = examine(folder, name, layout, raw)
    print("\n".join(report(look, listed)))
    check_classes(name, look.counts)
    in_place = folder.resolve() == target.resolve()
    if in_place:
        check_names(target, look)
    if dry:
        print("\nnext      nothing was written; run without --dry-run to add the dataset")
        return
    if not Path(".dvc").is_dir():
        raise ValueError(
            "this folder is not a DVC repository; run the command in the root folder of the project"
        )
    if not in_place:
        copy({portable(path): folder / path for path in look.files}, target)
    if look.block:
        write_block(name, look.proposal.dataset, look.block)
    # Its progress bar goes to stderr; the git command is printed below.
    dvc = [sys.executable, "-m", "dvc", "add", str(target)]
    if subprocess.run(dvc, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603 - our own name
        raise ValueError(
            f"the photos are in {target} and the config is in {PARAMS}, but `dvc add` failed; fix "
            f"the error above, then run: dvc add {target}"
        )
    print(
        f"\nnext      git add {PARAMS} {target}.dvc && git commit -m 'Photos: {name}'\n"
        f"          dvc exp run -S dataset={name}      # or dataset: {name} in {PARAMS}, make repro"
    )


def examine(folder: Path, name: str, layout: str | None, raw: Mapping[str, Any]) -> Look:
    """Return the result of prepare for a folder, computed by the same functions.

    Raises:
        ValueError: The layout or the labels of the folder are ambiguous.
    """
    settings = params.section(raw, "prepare", Prepare)
    proposal = propose(folder, name, layout, raw)
    found = layouts.read_inventory(folder, proposal.dataset)
    judged = aggregation.aggregate_votes(
        found.votes, found.entries, proposal.dataset, settings.consensus
    )
    entries, tied = aggregation.apply_consensus(found.entries, judged)
    refused = [*tied, *unreadable(folder, entries, settings)]
    gone = {skip.path for skip in refused}
    used = tuple(entry for entry in entries if entry.file not in gone)
    counts = dict.fromkeys(proposal.dataset.classes, 0) | Counter(entry.label for entry in used)
    paths, odd = list_files(folder)
    behind = {skip.path for skip in odd if skip.detail != inventory.LIKE_A_PHOTO}
    return Look(
        folder, proposal, found, used, (*found.skips, *refused), counts,
        tuple(paths), tuple(sorted(behind)),
        dataset_config.text(name, proposal.dataset, counts, remarks(proposal))
        if proposal.new else "",
    )  # fmt: skip


def check_name(name: str) -> None:
    """Check that a name is valid as a folder, a YAML key and a part of DVC keys."""
    if not NAME.fullmatch(name) or name.casefold() in dataset_config.MEANINGS:
        raise ValueError(
            f"NAME = {name!r}: use a letter, then letters, digits, _ or -, and no reserved word of "
            "YAML such as no; choose another"
        )
    if name == "synthetic":
        raise ValueError(
            "NAME = 'synthetic' is reserved for the synthetic set; choose another name"
        )


def check_place(folder: Path, target: Path) -> None:
    """Check that the folder exists and does not overlap with the copy."""
    if not folder.is_dir():
        raise ValueError(f"FOLDER = {str(folder)!r} is not a folder; give the folder of the photos")
    source, copied = folder.resolve(), target.resolve()
    if source != copied and (source in copied.parents or copied in source.parents):
        raise ValueError(
            f"FOLDER = {str(folder)!r} and the copy, {target}, overlap; give a folder "
            "that has only the photos"
        )


def propose(folder: Path, name: str, layout: str | None, raw: Mapping[str, Any]) -> Proposal:
    """Return the dataset config: the one in params.yaml, or one detected from the folder.

    Raises:
        ValueError: The layout or labels are ambiguous, or differ from the config's layout.
    """
    known = {key: params.section(raw, f"datasets.{key}", Dataset) for key in raw["datasets"]}
    if name in known:
        dataset = known[name]
        if layout not in {None, dataset.layout}:
            raise ValueError(
                f"--layout is {layout}, but datasets.{name} in params.yaml has {dataset.layout}; "
                "change it there, or choose another NAME"
            )
        found = layout_detection.read_layouts(folder, {name: dataset})
        same = [reading for reading in found.readings if reading.layout == dataset.layout]
        return Proposal(dataset, new=False, reading=same[0] if same else None)
    reading = layout_detection.choose(layout_detection.read_layouts(folder, known), layout)
    named = layout_detection.name_classes(reading.texts, known)
    if len(named.classes) < 2:
        seen = ", ".join(
            f"{escape_unprintable(text)!r} {n}" for text, n in reading.texts.most_common(10)
        )
        raise ValueError(
            f"{reading.layout}: {reading.story}: at least two classes are needed, each with "
            f"{layout_detection.FEWEST} or more photos; labels found: {seen or 'none'}"
        )
    facts = {
        "layout": reading.layout,
        "classes": {label: list(aliases) for label, aliases in named.classes.items()},
        **reading.keys,
    }
    if named.like:
        same_task = known[named.like]
        facts |= {key: getattr(same_task, key) for key in ("ordered", "mirror_safe", "fit")}
    dataset = params.section({"datasets": {name: facts}}, f"datasets.{name}", Dataset)
    if dataset.group_column is None:
        entries = layouts.read_inventory(folder, dataset).entries
        dataset = replace(
            dataset, subject_pattern=layout_detection.find_subject_pattern(entries, known)
        )
    return Proposal(dataset, new=True, reading=reading, like=named.like, alike=named.alike)


def unreadable(root: Path, entries: Sequence[Entry], settings: Prepare) -> list[Skip]:
    """Return the skips of the photos that cannot be decoded."""
    target = decoder_pool.Target(settings.max_megapixels, settings.size, "letterbox", settings.fill)

    def attempt(entry: Entry) -> decode.PhotoError | None:
        try:
            data = decode.read_bytes(root / entry.file, settings.max_megapixels)
            decoder_pool.shared().decode(data, target)
        except decode.PhotoError as error:
            return error
        return None

    skips: list[Skip] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        bar = tqdm(
            pool.map(attempt, entries), "read", len(entries), unit="photo", delay=1, disable=None
        )
        for entry, error in zip(entries, bar, strict=True):
            if error:
                skips += inventory.skips_of_entry(entry, error.reason, str(error))
    return skips


def portable(path: str) -> str:
    """Return the path of a file's copy; DVC requires names in UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return escape_unprintable(path)
    return path


def check_classes(name: str, counts: Mapping[str, int]) -> None:
    """Check that each class has photos, as prepare does."""
    empty = [label for label, count in counts.items() if not count]
    if empty:
        raise ValueError(
            f"no photo of {', '.join(empty)} is left (photos of each class: {dict(counts)}), so "
            f"nothing was written; fix the items listed above, or datasets.{name} in params.yaml"
        )


def check_names(target: Path, look: Look) -> None:
    """Check that DVC can version all files of a folder in place."""
    system = {skip.path for skip in look.skips if skip.reason == "system_file"}
    bad = [path for path in look.behind if path not in system] + renamed(look)
    if bad:
        raise ValueError(
            f"{target} has items that DVC cannot version: {_some(bad, LISTED)}; remove broken "
            "links and unreadable files and rename the others to UTF-8, or move the folder "
            "elsewhere and add it from there, which copies only valid files"
        )


# --- The report --------------------------------------------------------------------------------


def remarks(proposal: Proposal) -> list[str]:
    """Return the comments of the config: labels without a class, classes that may be one."""
    said = [
        f"{_quoted(text)}, {_times(n)}, matches no class" for text, n, _ in unknown_labels(proposal)
    ]
    return said + [f"{_quoted(a)} and {_quoted(b)}: one class?" for a, b in proposal.alike]


def unknown_labels(proposal: Proposal) -> list[tuple[str, int, str]]:
    """Return each label that matches no class, its count, and a hint."""
    if proposal.reading is None:
        return []
    labels = Labels(proposal.dataset.classes)
    return [
        (text, count, labels.suggest(text))
        for text, count in sorted(proposal.reading.texts.items())
        if labels.class_of(text) is None and not labels.is_empty(text)
    ]


def report(look: Look, listed: int) -> Iterable[str]:
    """Yield the lines of the report, with at most `listed` items per reason."""
    reading, dataset = look.proposal.reading, look.proposal.dataset
    yield f"folder    {escape_unprintable(str(look.folder))}"
    yield f"layout    {dataset.layout}" + (f": {reading.story}" if reading else "")
    for remark in reading.said if reading else ():
        yield f"          {remark}"
    if not look.proposal.new:
        yield "          params.yaml already has this dataset, whose config is used unchanged"
    yield ""
    yield from class_lines(look)
    yield ""
    yield from subject_lines(dataset, look.used)
    yield ""
    seen = f"{look.found.files_seen} files"
    if look.found.tasks_seen:
        seen += f" and {look.found.tasks_seen} tasks"
    yield f"photos    {len(look.used)} will be used, of {seen}"
    if 2 * len(look.used) < look.found.files_seen:
        yield "          less than half; check the folder and the layout"
    if look.found.votes:
        annotators = len({vote.annotator for vote in look.found.votes})
        voted = len({vote.file for vote in look.found.votes})
        yield f"votes     {len(look.found.votes)} by {annotators} annotators on {voted} photos"
    yield f"skipped   {_counted(Counter(skip.item for skip in look.skips)) or 'nothing'}"
    yield from skip_lines(look.skips, listed)
    if look.behind:
        yield ""
        yield f"not copied {len(look.behind)} of these: unreadable, system files, or not files"
        yield f"          {_some(look.behind, listed)}"
    if renamed(look):
        yield ""
        yield "renamed   DVC requires names in UTF-8; new names of the copies"
        yield f"          {_some(renamed(look), listed)}"
    if look.block:
        yield ""
        yield "config    to be added to datasets in params.yaml"
        yield look.block.rstrip("\n")


def class_lines(look: Look) -> Iterable[str]:
    """Yield each class with its spellings, and the labels that match no class."""
    proposal = look.proposal
    labels = Labels(proposal.dataset.classes)
    texts = proposal.reading.texts if proposal.reading else {}
    if proposal.like:
        yield f"classes   as in datasets.{proposal.like}, which has the same labels"
    else:
        yield f"classes   {len(look.counts)}"
    for label, count in look.counts.items():
        spelled = [
            f"{_quoted(text)} ({texts[text]})" for text in texts if labels.class_of(text) == label
        ]
        spellings = f"   labels: {', '.join(sorted(spelled))}" if spelled else ""
        yield f"  {escape_unprintable(label)}: {count} photos{spellings}"
    for one, other in proposal.alike:
        yield (
            f"  {_quoted(one)} and {_quoted(other)} are similar; if they are one class, list "
            "one as an alias of the other"
        )
    for _, count, hint in unknown_labels(proposal):
        yield f"  no class: {escape_unprintable(hint)}; found {_times(count)} and skipped"


def renamed(look: Look) -> list[str]:
    """Return the new names of the files whose names are not UTF-8."""
    return [portable(path) for path in look.files if portable(path) != path]


def subject_lines(dataset: Dataset, used: Sequence[Entry]) -> Iterable[str]:
    """Yield the rule that identifies subjects, with examples, and a note on unknown subjects."""
    met = {entry.file: entry.subject for entry in used if entry.subject}
    rule = f"pattern {dataset.subject_pattern}" if dataset.subject_pattern else "no pattern"
    if dataset.group_column is not None:
        rule = f"column {dataset.group_column}"
    if not met:
        yield f"subjects  {rule}: no subject is known, so each photo is a group of its own."
        yield "          If several photos show one subject, set subject_pattern in the config;"
        yield "          otherwise the model is tested on subjects that it was trained on."
        return
    subjects = len(set(met.values()))
    yield f"subjects  {rule}: {subjects} subjects on {len(met)} of {len(used)} photos"
    for file, who in sorted(met.items())[:: max(1, len(met) // 3)][:3]:
        yield f"          {escape_unprintable(file)} shows {escape_unprintable(who)}"
    if len(met) < len(used):
        unknown = len(used) - len(met)
        yield f"          {unknown} photos have no known subject; each is a group of its own."
        yield "          If several show one subject, set subject_pattern in the config;"
        yield "          otherwise the model is tested on subjects that it was trained on."


def skip_lines(skips: Iterable[Skip], listed: int) -> Iterable[str]:
    """Yield each reason with its meaning, remedy and items."""
    grouped: dict[str, list[tuple[str, str]]] = defaultdict(list)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for path, item, reason, detail, _ in inventory.skip_rows(skips):
        grouped[reason].append((path, detail))
        kinds[reason][item] += 1
    for reason, items in sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0])):
        meaning = REASONS[reason].partition(": ")[0]
        number = _counted(kinds[reason])
        yield f"  {reason}: {number}. {meaning[0].upper()}{meaning[1:]}."
        yield f"    remedy: {inventory.remedy(reason)}"
        for path, detail in items[:listed]:
            yield f"      {path}" + (f"   {detail}" if detail else "")
        if len(items) > listed:
            yield f"      … and {len(items) - listed} more; --verbose (ALL=1) lists them"


def _some(names: Sequence[str], listed: int) -> str:
    more = f" and {len(names) - listed} more" if len(names) > listed else ""
    return ", ".join(map(escape_unprintable, names[:listed])) + more


def _counted(items: Mapping[str, int]) -> str:
    kinds = [kind for kind in get_args(inventory.Item) if items.get(kind)]
    return ", ".join(f"{items[kind]} {kind}{'s' * (items[kind] > 1)}" for kind in kinds)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _quoted(text: str) -> str:
    return repr(escape_unprintable(text))


# --- What is written ---------------------------------------------------------------------------


def copy(sources: Mapping[str, Path], target: Path) -> None:
    """Copy files to their paths below a folder, all or none.

    Copies and not links: with a cache of hard links DVC makes its files read-only.

    Raises:
        ValueError: The target has other content.
        OSError: A file cannot be read or written; the partial copy is removed.
    """
    if target.exists():
        check_same(target, sources)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        size = sum(source.stat().st_size for source in sources.values())
        with tqdm(total=size, desc="copy", unit="B", unit_scale=True, delay=1, disable=None) as bar:
            for path, source in sources.items():
                (half / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, half / path)
                bar.update((half / path).stat().st_size)
        umask = os.umask(0)
        os.umask(umask)
        half.chmod(0o777 & ~umask)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def check_same(target: Path, sources: Mapping[str, Path]) -> None:
    """Check that a folder has the same files, by name and content."""
    existing = set(list_files(target)[0])
    differing = sorted(existing ^ sources.keys())
    common = tqdm(sorted(existing & sources.keys()), "compare", unit="file", delay=1, disable=None)
    differing += [p for p in common if not filecmp.cmp(target / p, sources[p], shallow=False)]
    if differing:
        raise ValueError(
            f"{target} already exists and differs from the folder in {len(differing)} files: "
            f"{_some(differing, 3)}; choose another NAME, or move {target} away"
        )


def write_block(name: str, dataset: Dataset, block: str) -> None:
    """Add the config to params.yaml after checking that nothing else changes.

    Raises:
        ValueError: The structure of the file does not allow adding a config.
    """
    # newline="" keeps the file's own line ends.
    with PARAMS.open(encoding="utf-8", newline="") as stream:
        before = stream.read()
    after = dataset_config.insert(before, block)
    with files.replacing(PARAMS) as temporary:
        temporary.write_text(after, encoding="utf-8", newline="")
        raw, old = params.read(temporary), params.read()
        written = params.section(raw, f"datasets.{name}", Dataset)
        del raw["datasets"][name]
        if written != dataset or raw != old:
            raise ValueError(
                f"the config could not be added to {PARAMS}; add these lines to datasets by hand:"
                f"\n{block}"
            )
