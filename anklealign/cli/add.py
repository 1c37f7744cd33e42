"""Own photos in one command: recognised, reported on, copied, described, versioned.

    make add DATA=FOLDER NAME=name [LAYOUT=folders|label_studio|table] [DRY=1] [ALL=1]
    python -m anklealign.cli.add FOLDER name [--layout …] [--dry-run] [--all]

The report comes from the very functions that prepare runs, so it says what prepare will say: which
photos count, and of all others why not and what to do. Then the photos are copied to
data/raw/<name>, a commented block goes into params.yaml, and `dvc add` takes the folder. A block
that params.yaml has already is used as it is. The folder itself is never written to, with
--dry-run nothing is. Exit status: 0 done, 1 it cannot be done and nothing was written, 2 a wrong
command.
"""

import argparse
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
from anklealign.ingest import inventory, layouts
from anklealign.ingest.inventory import REASONS, Entry, Inventory, Skip, printable, walk
from anklealign.io import decode, files

RAW = Path("data/raw")
LISTED = 10  # items of a reason that the report names, unless all are wanted
# A dot would divide DVC's keys, a space the shell's words; a digit or a word of YAML is no text.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Proposal:
    """A dataset's block, new or as params.yaml has it, and how labels are spelled in the folder."""

    dataset: Dataset
    new: bool
    reading: layout_detection.Reading | None
    like: str = ""
    alike: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Look:
    """What prepare would make of a folder.

    Attributes:
        folder: The folder.
        proposal: Its block.
        found: What the layout's source finds.
        used: The photos that can be read and have a label.
        skips: All others, and the tasks and exports that do not count.
        counts: Photos of each class.
        files: What is copied, whatever it is.
        behind: What cannot be copied.
        block: The block as text, or '' where params.yaml has one.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Add a folder of photos to the project; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.cli.add",
        description="Report on a folder of photos, copy it to data/raw/NAME and version it.",
        epilog="exit status: 0 done, 1 it cannot be done, 2 a wrong command",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--layout", choices=sorted(layouts.LAYOUTS))
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument(
        "--all", action="store_true", help=f"name more than {LISTED} items a reason"
    )
    given = parser.parse_args(arguments)
    # A path may hold letters that the terminal's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        add(
            given.folder.expanduser(), given.name, given.layout,
            dry=given.dry_run, listed=sys.maxsize if given.all else LISTED,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        print(f"add: {error}", file=sys.stderr)
        return 1
    return 0


def add(folder: Path, name: str, layout: str | None, *, dry: bool, listed: int) -> None:
    """Print the report; then, unless `dry`, copy the photos, write the block, call DVC.

    Raises:
        ValueError: The name, the folder or its labels do not do; it says what would.
        OSError: The folder cannot be read, or the copy not be written.
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
        print("\nnext      nothing was written; without the dry run all this is added")
        return
    if not Path(".dvc").is_dir():
        raise ValueError("this folder is no DVC repository; run it in the project's top folder")
    if not in_place:
        copy({portable(path): folder / path for path in look.files}, target)
    if look.block:
        write_block(name, look.proposal.dataset, look.block)
    # Its bar goes to stderr; what it prints about git is said below.
    dvc = [sys.executable, "-m", "dvc", "add", str(target)]
    if subprocess.run(dvc, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603 - our own name
        raise ValueError(
            f"the photos lie in {target} and the block in {PARAMS}, but DVC could not take them; "
            f"mend what it says above, then: dvc add {target}"
        )
    print(
        f"\nnext      git add {PARAMS} {target}.dvc && git commit -m 'Photos: {name}'\n"
        f"          dvc exp run -S dataset={name}      # or dataset: {name} in {PARAMS}, make repro"
    )


def examine(folder: Path, name: str, layout: str | None, raw: Mapping[str, Any]) -> Look:
    """Return what prepare would make of a folder, by prepare's own functions.

    Raises:
        ValueError: The folder's layout or labels are not clear.
    """
    settings = params.section(raw, "prepare", Prepare)
    proposal = propose(folder, name, layout, raw)
    found = layouts.find(folder, proposal.dataset)
    judged = aggregation.judge(found.votes, found.entries, proposal.dataset, settings.consensus)
    entries, tied = aggregation.labelled(found.entries, judged)
    refused = [*tied, *unreadable(folder, entries, settings)]
    gone = {skip.path for skip in refused}
    used = tuple(entry for entry in entries if entry.file not in gone)
    counts = dict.fromkeys(proposal.dataset.classes, 0) | Counter(entry.label for entry in used)
    paths, odd = walk(folder)
    behind = {skip.path for skip in odd if skip.detail != inventory.LIKE_A_PHOTO}
    return Look(
        folder, proposal, found, used, (*found.skips, *refused), counts,
        tuple(paths), tuple(sorted(behind)),
        dataset_config.text(name, proposal.dataset, counts, remarks(proposal))
        if proposal.new else "",
    )  # fmt: skip


def check_name(name: str) -> None:
    """Refuse a name that cannot be a folder, a YAML key and a part of DVC's keys alike."""
    if not NAME.fullmatch(name) or name.casefold() in dataset_config.MEANINGS:
        raise ValueError(
            f"NAME={name!r}: it takes a letter, then letters, digits, _ or -, and must be no word "
            "of YAML's such as no; choose another"
        )
    if name == "phantom":
        raise ValueError("NAME='phantom' is the generated set's; choose another")


def check_place(folder: Path, target: Path) -> None:
    """Refuse a folder that is not there, or that the copy would lie in."""
    if not folder.is_dir():
        raise ValueError(f"DATA={str(folder)!r} is no folder; name the one that holds the photos")
    here, there = folder.resolve(), target.resolve()
    if here != there and (here in there.parents or there in here.parents):
        raise ValueError(
            f"DATA={str(folder)!r} and the copy's place, {target}, lie in each other; name the "
            "folder of the photos alone"
        )


def propose(folder: Path, name: str, layout: str | None, raw: Mapping[str, Any]) -> Proposal:
    """Return the dataset's block: the one in params.yaml, else one made of what the folder shows.

    Raises:
        ValueError: The folder's layout or labels are not clear, or the block's layout is another.
    """
    known = {key: params.section(raw, f"datasets.{key}", Dataset) for key in raw["datasets"]}
    if name in known:
        dataset = known[name]
        if layout not in {None, dataset.layout}:
            raise ValueError(
                f"LAYOUT={layout}, but datasets.{name} in params.yaml has {dataset.layout}; change "
                "it there, or choose another NAME"
            )
        found = layout_detection.readings(folder, {name: dataset})
        same = [reading for reading in found.readings if reading.layout == dataset.layout]
        return Proposal(dataset, new=False, reading=same[0] if same else None)
    reading = layout_detection.choose(layout_detection.readings(folder, known), layout)
    named = layout_detection.name_classes(reading.texts, known)
    if len(named.classes) < 2:
        seen = ", ".join(f"{printable(text)!r} {n}" for text, n in reading.texts.most_common(10))
        raise ValueError(
            f"{reading.layout}: {reading.story}: two classes are needed, each of "
            f"{layout_detection.FEWEST} photos or more; labels seen: {seen or 'none'}"
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
        entries = layouts.find(folder, dataset).entries
        dataset = replace(dataset, person=layout_detection.find_persons(entries, known))
    return Proposal(dataset, new=True, reading=reading, like=named.like, alike=named.alike)


def unreadable(root: Path, entries: Sequence[Entry], settings: Prepare) -> list[Skip]:
    """Return the skips of the photos that prepare will not be able to read, having tried."""

    def attempt(entry: Entry) -> decode.PhotoError | None:
        try:
            decode.open_photo(root / entry.file, settings.max_megapixels, 2 * settings.size)
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
                skips += inventory.dropped(entry, error.reason, str(error))
    return skips


def portable(path: str) -> str:
    """Return the path under which a file is copied: DVC keeps no name that is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return printable(path)
    return path


def check_classes(name: str, counts: Mapping[str, int]) -> None:
    """Refuse what prepare would refuse: a class without photos."""
    empty = [label for label, count in counts.items() if not count]
    if empty:
        raise ValueError(
            f"no photo of {', '.join(empty)} is left (photos of each class: {dict(counts)}), so "
            f"nothing was written; mend what is listed above, or datasets.{name} in params.yaml"
        )


def check_names(target: Path, look: Look) -> None:
    """Refuse to version in place what DVC would stumble over."""
    system = {skip.path for skip in look.skips if skip.reason == "system_file"}
    bad = [path for path in look.behind if path not in system] + renamed(look)
    if bad:
        raise ValueError(
            f"{target} holds what DVC cannot take: {_some(bad, LISTED)}; take away broken links "
            "and what cannot be read and give the others names in UTF-8, or move the folder "
            "elsewhere and add it from there, which copies what is good"
        )


# --- The report --------------------------------------------------------------------------------


def remarks(proposal: Proposal) -> list[str]:
    """Return the comments for the block: labels that are no class, classes that may be one."""
    said = [f"{_quoted(text)}, {_times(n)}, is no class" for text, n, _ in unknown_labels(proposal)]
    return said + [f"{_quoted(a)} and {_quoted(b)}: one class?" for a, b in proposal.alike]


def unknown_labels(proposal: Proposal) -> list[tuple[str, int, str]]:
    """Return each label that fits no class, how often it occurs, and its nearest class."""
    if proposal.reading is None:
        return []
    labels = Labels(proposal.dataset.classes)
    return [
        (text, count, labels.nearest(text))
        for text, count in sorted(proposal.reading.texts.items())
        if labels.find(text) is None and not labels.is_empty(text)
    ]


def report(look: Look, listed: int) -> Iterable[str]:
    """Yield the lines of the report; of each reason at most so many items."""
    reading, dataset = look.proposal.reading, look.proposal.dataset
    yield f"folder    {printable(str(look.folder))}"
    yield f"layout    {dataset.layout}" + (f": {reading.story}" if reading else "")
    for remark in reading.said if reading else ():
        yield f"          {remark}"
    if not look.proposal.new:
        yield "          its block stands in params.yaml and is used as it is"
    yield ""
    yield from class_lines(look)
    yield ""
    yield from person_lines(dataset, look.used)
    yield ""
    seen = f"{look.found.files_seen} files"
    if look.found.tasks_seen:
        seen += f" and {look.found.tasks_seen} tasks"
    yield f"photos    {len(look.used)} will be used, of {seen}"
    if 2 * len(look.used) < look.found.files_seen:
        yield "          which is less than half: is it the right folder, and the right layout?"
    if look.found.votes:
        people = len({vote.annotator for vote in look.found.votes})
        voted = len({vote.file for vote in look.found.votes})
        yield f"votes     {len(look.found.votes)} by {people} people on {voted} photos"
    yield f"left out  {_counted(Counter(skip.item for skip in look.skips)) or 'nothing'}"
    yield from skip_lines(look.skips, listed)
    if look.behind:
        yield ""
        yield f"not taken {len(look.behind)} of these: no files, unreadable, or the system's"
        yield f"          {_some(look.behind, listed)}"
    if renamed(look):
        yield ""
        yield "renamed   names that are no UTF-8, which DVC needs, become in the copy"
        yield f"          {_some(renamed(look), listed)}"
    if look.block:
        yield ""
        yield "block     for datasets in params.yaml"
        yield look.block.rstrip("\n")


def class_lines(look: Look) -> Iterable[str]:
    """Yield each class with its spellings, and the labels that are no class."""
    proposal = look.proposal
    labels = Labels(proposal.dataset.classes)
    texts = proposal.reading.texts if proposal.reading else {}
    if proposal.like:
        yield f"classes   as in datasets.{proposal.like}, whose labels these are"
    else:
        yield f"classes   {len(look.counts)}"
    for label, count in look.counts.items():
        spelled = [f"{_quoted(text)} {texts[text]}" for text in texts if labels.find(text) == label]
        written = f"   written {', '.join(sorted(spelled))}" if spelled else ""
        yield f"  {printable(label)}: {count} photos{written}"
    for one, other in proposal.alike:
        yield (
            f"  {_quoted(one)} and {_quoted(other)} are written alike; if they are one class, list "
            "one of them behind the other"
        )
    for _, count, hint in unknown_labels(proposal):
        yield f"  no class: {printable(hint)}; found {_times(count)}, and skipped"


def renamed(look: Look) -> list[str]:
    """Return the names that the copy's files get where their own are no UTF-8."""
    return [portable(path) for path in look.files if portable(path) != path]


def person_lines(dataset: Dataset, used: Sequence[Entry]) -> Iterable[str]:
    """Yield who is on the photos, by which rule, with examples; or what it means not to know."""
    met = {entry.file: entry.person for entry in used if entry.person}
    rule = f"pattern {dataset.person}" if dataset.person else "no pattern"
    if dataset.group_column is not None:
        rule = f"column {dataset.group_column}"
    people = len(set(met.values()))
    yield f"persons   {rule}: {people} persons on {len(met)} of {len(used)} photos"
    for file, who in sorted(met.items())[:: max(1, len(met) // 3)][:3]:
        yield f"          {printable(file)} shows {printable(who)}"
    if len(met) < len(used):
        yield f"          {len(used) - len(met)} photos do not say who is on them, so each counts"
        yield "          as a person of its own. Where several show one person, write a pattern as"
        yield "          `person` into the block; else the model is tested on persons it has seen"


def skip_lines(skips: Iterable[Skip], listed: int) -> Iterable[str]:
    """Yield each reason with its meaning, what to do, and the items."""
    grouped: dict[str, list[tuple[str, str]]] = defaultdict(list)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for path, item, reason, detail, _ in inventory.rows(skips):
        grouped[reason].append((path, detail))
        kinds[reason][item] += 1
    for reason, items in sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0])):
        meaning = REASONS[reason].partition(": ")[0]
        number = _counted(kinds[reason])
        yield f"  {reason}: {number}. {meaning[0].upper()}{meaning[1:]}."
        yield f"    what to do: {inventory.remedy(reason)}"
        for path, detail in items[:listed]:
            yield f"      {path}" + (f"   {detail}" if detail else "")
        if len(items) > listed:
            yield f"      … and {len(items) - listed} more; ALL=1 (--all) names them"


def _some(names: Sequence[str], listed: int) -> str:
    more = f" and {len(names) - listed} more" if len(names) > listed else ""
    return ", ".join(map(printable, names[:listed])) + more


def _counted(items: Mapping[str, int]) -> str:
    kinds = [kind for kind in get_args(inventory.Item) if items.get(kind)]
    return ", ".join(f"{items[kind]} {kind}{'s' * (items[kind] > 1)}" for kind in kinds)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _quoted(text: str) -> str:
    return repr(printable(text))


# --- What is written ---------------------------------------------------------------------------


def copy(sources: Mapping[str, Path], target: Path) -> None:
    """Copy files to their paths below a folder, all or none.

    Copies and not links: with a cache of hard links DVC makes its files read-only.

    Raises:
        ValueError: There is something else already.
        OSError: It cannot be read or written; what was written is gone again.
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
    """Refuse a folder whose files are not the same, by name and content."""
    there = set(walk(target)[0])
    differing = sorted(there ^ sources.keys())
    common = tqdm(sorted(there & sources.keys()), "compare", unit="file", delay=1, disable=None)
    differing += [p for p in common if not filecmp.cmp(target / p, sources[p], shallow=False)]
    if differing:
        raise ValueError(
            f"{target} is there already, and differs from the folder in {len(differing)} files: "
            f"{_some(differing, 3)}; choose another NAME, or move {target} away"
        )


def write_block(name: str, dataset: Dataset, block: str) -> None:
    """Put the block into params.yaml, having checked that nothing else changes.

    Raises:
        ValueError: The file is laid out in a way that takes no block.
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
                f"{PARAMS} did not take the block; add these lines to datasets by hand:\n{block}"
            )


if __name__ == "__main__":
    sys.exit(main())
