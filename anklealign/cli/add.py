"""Add a folder of photos as a dataset: detect, report, copy, describe and version it.

    anklealign add DATA NAME [--layout …] [--set KEY=VALUE …] [--dry-run] [--verbose]
    make add DATA=DATA NAME=name [LAYOUT=…] [SET=KEY=VALUE] [DRY=1] [ALL=1]

The report uses the functions of the prepare stage, so both have the same result: which photos are
used, and the reason and remedy for each other item. Then the photos are copied to data/raw/NAME, a
commented dataset config is added to params.yaml, and `dvc add` versions the folder. An existing
config in params.yaml is used unchanged. The source folder is never written to; with --dry-run,
nothing is written. Exit status: 0 on success, 1 on an error, 2 for wrong usage.
"""

import contextlib
import fcntl
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from ruamel.yaml import YAML
from tqdm import tqdm

from anklealign.annotation import aggregation
from anklealign.cli import (
    clean_preview,
    dataset_config,
    download,
    imagenet_classes,
    layout_detection,
    photo_metadata,
)
from anklealign.cli.layout_candidates import LayoutCandidate
from anklealign.config import params
from anklealign.config.class_names import Labels
from anklealign.config.params import PARAMS, Dataset, Prepare
from anklealign.config.paths import RAW
from anklealign.ingest import archives, inventory, layouts
from anklealign.ingest.inventory import (
    REASONS,
    Entry,
    Inventory,
    Skip,
    escape_unprintable,
    list_files,
)
from anklealign.ingest.wording import counted
from anklealign.io import decode, files

# Keys of the config that are text, whatever YAML would read: path_column=1, label_column=yes.
TEXT_KEYS = {
    "layout", "subject_pattern", "label_pattern", "encoding", "fit", "path_column", "label_column",
    "annotator_column", "group_column", "split_column",
}  # fmt: skip
WIDTH = 80  # columns of the terminal
# Commands in remarks, which can be copied from one line only.
COMMAND = re.compile(
    r"`[^`]*`|--set '[^']*'|python -c \"[^\"]*\"|\(echo path,label; .*?\) > labels\.csv|"
    r"awk '[^']*'( [^\s;,]+)*"
)
MOST_CLASSES = 50  # classes listed without --verbose
MOST_UNKNOWN = 10  # labels without a class that the config's comments list
SPLITS = ("train", "val", "test")
LISTED = 10  # items per reason in the report without --verbose
# A dot separates DVC keys and a space shell words; YAML reads digits and some words as other types.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
LEFTOVER = re.compile(rf"\.{NAME.pattern}\.[a-z0-9_]{{8}}")  # as tempfile names them


@dataclass(frozen=True)
class Proposal:
    """A dataset config, new or from params.yaml, and the spellings of its labels in the folder."""

    dataset: Dataset
    new: bool
    reading: LayoutCandidate | None
    named: layout_detection.Classes = field(default_factory=lambda: layout_detection.Classes({}))


@dataclass(frozen=True)
class FolderReport:
    """The result of prepare for a folder.

    Attributes:
        folder: The folder.
        proposal: Its dataset config.
        inventory: The inventory of the layout.
        used: The readable photos with a label.
        skips: All other photos, and the skipped tasks and exports.
        counts: Number of photos by class.
        files: The files to copy.
        not_copied: The items that cannot be copied.
        config_text: The new config as YAML, or '' if params.yaml has one.
        sample: The pixels of the used photos, or of a sample of them.
    """

    folder: Path
    proposal: Proposal
    inventory: Inventory
    used: tuple[Entry, ...]
    skips: tuple[Skip, ...]
    counts: dict[str, int]
    files: tuple[str, ...]
    not_copied: tuple[str, ...]
    config_text: str
    sample: clean_preview.Sample


def add_folder(
    data: str | Path,
    name: str,
    layout: str | None = None,
    settings: Sequence[str] = (),
    *,
    dry_run: bool,
    verbose: bool = False,
    strip_metadata: bool = False,
) -> int:
    """Add a folder of photos to the project; return the exit status, 1 on an error."""
    listed = sys.maxsize if verbose else LISTED
    try:
        forced = read_settings(settings)
        add(str(data), name, layout, forced, dry=dry_run, listed=listed, strip=strip_metadata)
    except (ValueError, OSError) as error:
        first, *evidence = f"add: {error}".splitlines()
        lines = [_wrapped("", first), *(_wrapped("  - ", line.strip()) for line in evidence)]
        print("\n".join(line for wrapped in lines for line in wrapped), file=sys.stderr)
        return 1
    return 0


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the keys of the dataset config that the user has set, from KEY=VALUE.

    Raises:
        ValueError: The text is not KEY=VALUE, or the key is unknown.
    """
    forced: dict[str, Any] = {}
    known = [field.name for field in fields(Dataset)]
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in known:
            raise ValueError(
                f"--set {setting}: write KEY=VALUE with a key of the dataset config: "
                f"{', '.join(known)}"
            )
        if key in TEXT_KEYS:
            forced[key] = None if text == "null" else text
        else:
            forced[key] = YAML(typ="safe", pure=True).load(text)
    return forced


def add(
    data: str,
    name: str,
    layout: str | None,
    forced: Mapping[str, Any],
    *,
    dry: bool,
    listed: int,
    strip: bool = False,
) -> None:
    """Print the report; unless `dry`, copy the photos, add the config and run `dvc add`.

    Args:
        data: The path of a folder or an archive, or an address (`download`).
        name: The name of the dataset.
        layout: The layout, None to detect it.
        forced: Keys of the config that the user has set.
        dry: Write nothing.
        listed: Number of items per reason in the report.
        strip: Remove the metadata from the copies of the photos.

    Raises:
        ValueError: The name, the data or its labels cannot be used; the message has the remedy.
        OSError: The data cannot be read, or the copy cannot be written.
    """
    check_name(name)
    target = RAW / name
    if not dry and (removed := remove_leftovers(RAW)):
        print(*_wrapped("removed   ", f"copies of killed runs: {', '.join(removed)}"), sep="\n")
    with download.local_copy(data, name, dry=dry) as source:
        check_place(source, target)
        with archives.unpacked(source, None if dry else RAW, name) as (folder, remarks):
            if source.is_dir() and folder != source and source.resolve() == target.resolve():
                raise ValueError(
                    f"{target} has archives; move the folder elsewhere and add it from there"
                )
            for number, remark in enumerate(remarks):
                print(*_wrapped("          " if number else "archive   ", remark), sep="\n")
            report_data = examine(folder, name, layout, params.read(), forced)
            print("\n".join(report(report_data, listed, data)))
            check_classes(name, report_data.counts)
            used, config = report_data.used, report_data.proposal.dataset
            lines = clean_preview.preview_lines(
                folder, used, report_data.sample, name=name, dataset=config, raw=params.read()
            )
            print("\n".join(["", *lines, *metadata_lines(folder, used, strip=strip)]))
            if dry:
                if folder.resolve() == target.resolve():
                    check_names(target, report_data)
                print("\nnext      nothing was written; run without --dry-run to add the dataset")
                return
            write(report_data, name, own=folder if folder != source else None, strip=strip)
    imports = [str(source)] if download.is_address(data) else []
    tracked = dict.fromkeys([f"{path}.dvc" for path in [target, *imports]])
    like = report_data.proposal.named.like
    print(
        f"\nnext      git add {PARAMS} {' '.join(tracked)}\n"
        f"          git commit -m 'Photos: {name}'\n"
        f"          dvc exp run -S dataset={name} -S model={dataset_config.suited_model(like)}\n"
        f"          or, instead of the last line: set both in {PARAMS}, make repro"
    )
    for number, sentence in enumerate(dataset_config.model_advice(like, config)):
        print(*_wrapped("          " if number else "models    ", sentence), sep="\n")


def write(
    report_data: FolderReport, name: str, own: Path | None = None, *, strip: bool = False
) -> None:
    """Copy the photos of a folder, add the config and run `dvc add`.

    Args:
        report_data: The folder and its config.
        name: The name of the dataset.
        own: The folder if it is temporary, so that its files are moved instead of copied.
        strip: Remove the metadata from the copies of the photos.

    Raises:
        ValueError: This is not a DVC repository, the copy exists and differs, or DVC failed.
        OSError: The copy cannot be written.
    """
    target, folder = RAW / name, report_data.folder
    in_place = folder.resolve() == target.resolve()
    if in_place:
        check_names(target, report_data)
        if strip:
            raise ValueError(
                f"--strip-metadata changes copies only, and {folder} is the place of the copy; "
                "move the folder elsewhere and add it from there"
            )
    if not Path(".dvc").is_dir():
        raise ValueError(
            "this folder is not a DVC repository; run the command in the root folder of the project"
        )
    if not in_place:
        sources = {portable(path): folder / path for path in report_data.files}
        copy(sources, target, own, strip=strip)
    if report_data.config_text:
        write_config(name, report_data.proposal.dataset, report_data.config_text)
    if in_place and download.is_import(target):
        return  # `dvc add` would replace the record of the import
    # Its progress bar goes to stderr; the git command is printed by the caller.
    dvc = [sys.executable, "-m", "dvc", "add", str(target)]
    if subprocess.run(dvc, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603 - our own name
        raise ValueError(
            f"the photos are in {target} and the config is in {PARAMS}, but `dvc add` failed; fix "
            f"the error above, then run: dvc add {target}"
        )


def examine(
    folder: Path,
    name: str,
    layout: str | None,
    raw: Mapping[str, Any],
    forced: Mapping[str, Any] | None = None,
) -> FolderReport:
    """Return the result of prepare for a folder, computed by the same functions.

    Raises:
        ValueError: The layout or the labels of the folder are ambiguous.
    """
    settings = params.section(raw, "prepare", Prepare)
    proposal = propose(folder, name, layout, raw, forced or {})
    content = layouts.read_inventory(folder, proposal.dataset)
    judged = aggregation.aggregate_votes(
        content.votes, content.entries, proposal.dataset, settings.consensus
    )
    entries, tied = aggregation.apply_consensus(content.entries, judged)
    unreadable, sample = clean_preview.decode_photos(folder, entries, proposal.dataset, settings)
    refused = [*tied, *unreadable]
    gone = {skip.path for skip in refused}
    used = tuple(entry for entry in entries if entry.file not in gone)
    counts = dict.fromkeys(proposal.dataset.classes, 0) | Counter(entry.label for entry in used)
    paths, unlisted = list_files(folder)
    not_copied = {skip.path for skip in unlisted if skip.detail != inventory.LIKE_A_PHOTO}
    return FolderReport(
        folder, proposal, content, used, (*content.skips, *refused), counts,
        tuple(paths), tuple(sorted(not_copied)),
        dataset_config.text(name, proposal.dataset, counts, remarks(proposal))
        if proposal.new else "",
        sample,
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
    """Check that the folder or archive exists and does not overlap with the copy."""
    if not folder.is_dir():
        kind = folder.suffix.casefold()
        if kind in archives.OTHER_ARCHIVES:
            raise ValueError(
                f"DATA = {str(folder)!r}: {kind} archives cannot be read; unpack it and give the "
                "folder"
            )
        if folder.is_file() and archives.has_archive_content(folder):
            return
        if problem := archives.unreadable_archive(folder):
            raise ValueError(f"DATA = {str(folder)!r} {problem}")
        raise ValueError(
            f"DATA = {str(folder)!r} is not a folder, a zip or tar file, or an address; give the "
            "folder of the photos"
        )
    source, copied = folder.resolve(), target.resolve()
    if source != copied and (source in copied.parents or copied in source.parents):
        raise ValueError(
            f"DATA = {str(folder)!r} and the copy, {target}, overlap; give a folder "
            "that has only the photos"
        )


def propose(
    folder: Path,
    name: str,
    layout: str | None,
    raw: Mapping[str, Any],
    forced: Mapping[str, Any],
) -> Proposal:
    """Return the dataset config: the one in params.yaml, or one detected from the folder.

    Raises:
        ValueError: The layout or labels are ambiguous, or differ from the config's layout.
    """
    known = {key: params.section(raw, f"datasets.{key}", Dataset) for key in raw["datasets"]}
    layout = layout or forced.get("layout")
    if name in known:
        dataset = known[name]
        if layout not in {None, dataset.layout} or forced:
            raise ValueError(
                f"datasets.{name} in params.yaml has layout {dataset.layout} and is used "
                "unchanged; change the keys there, or choose another NAME"
            )
        candidates = layout_detection.read_layouts(
            folder,
            {name: dataset},
            {"classes": dataset.classes, "label_level": dataset.label_level},
        )
        same = [reading for reading in candidates.readings if reading.layout == dataset.layout]
        return Proposal(dataset, new=False, reading=same[0] if same else None)
    candidates = layout_detection.read_layouts(folder, known, forced)
    if layout is None and forced.get("csv"):
        layout = "table"
    reading = layout_detection.choose(candidates, layout)
    named = layout_detection.name_classes(reading.texts, known)
    if len(named.classes) < 2 and "classes" not in forced:
        seen = ", ".join(
            f"{escape_unprintable(text)!r} {n}" for text, n in reading.texts.most_common(10)
        )
        raise ValueError(
            f"{reading.layout}: {reading.summary}: at least two classes are needed, each with "
            f"{layout_detection.FEWEST} or more photos; labels found: {seen or 'none'}"
            + "".join(f"\n  {remark}" for remark in reading.remarks)
        )
    facts = {
        "layout": reading.layout,
        "classes": {label: list(aliases) for label, aliases in named.classes.items()},
        **reading.keys,
        **shared_knowledge(named, known),
        **forced,
    }
    names = dict.fromkeys(map(str, facts["classes"] or ()))
    if "imagenet" not in forced and (facts.get("imagenet") or {}).keys() != names.keys():
        facts["imagenet"] = imagenet_classes.find(names)
    dataset = params.section({"datasets": {name: facts}}, f"datasets.{name}", Dataset)
    if dataset.group_column is None and dataset.subject_pattern is None:
        entries = layouts.read_inventory(folder, dataset).entries
        dataset = replace(
            dataset, subject_pattern=layout_detection.find_subject_pattern(entries, known)
        )
    return Proposal(dataset, new=True, reading=reading, named=named)


def shared_knowledge(
    named: layout_detection.Classes, known: Mapping[str, Dataset]
) -> dict[str, Any]:
    """Return the keys that follow from the classes, if another dataset knows all of them."""
    if not named.like or len(named.origin) < len(named.classes):
        return {}
    same_task = known[named.like]
    facts = {key: getattr(same_task, key) for key in ("ordered", "mirror_safe", "fit")}
    if same_task.imagenet:
        facts["imagenet"] = {
            name: same_task.imagenet[origin] for name, origin in named.origin.items()
        }
    return facts


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
            f"no photos of {', '.join(empty)} are left (photos of each class: {dict(counts)}), so "
            f"nothing was written; fix the items listed above, or datasets.{name} in params.yaml"
        )


def check_names(target: Path, report_data: FolderReport) -> None:
    """Check that DVC can version all files of a folder in place."""
    expected = {skip.path for skip in report_data.skips if skip.reason in {"system_file", "mask"}}
    bad = [path for path in report_data.not_copied if path not in expected] + renamed(report_data)
    if bad:
        raise ValueError(
            f"{target} has items that DVC cannot version: {_first_names(bad, LISTED)}; remove "
            "broken links and unreadable files and rename the others to UTF-8, or move the folder "
            "elsewhere and add it from there, which copies only valid files"
        )


# --- The report --------------------------------------------------------------------------------


def remarks(proposal: Proposal) -> list[str]:
    """Return the comments of the config: labels without a class, classes that may be one."""
    unknown = unknown_labels(proposal)
    lines = [
        f"{_quoted(text)}, {_times(count)}, matches no class"
        for text, count in unknown[:MOST_UNKNOWN]
    ]
    if len(unknown) > MOST_UNKNOWN:
        lines.append(f"and {len(unknown) - MOST_UNKNOWN} more labels that match no class")
    named = proposal.named
    lines += [f"{_quoted(a)} and {_quoted(b)}: one class?" for a, b in named.alike]
    lines += [f"{_quoted(a)} and {_quoted(b)} differ by case alone" for a, b in named.by_case]
    return [*lines, f"model: {dataset_config.suited_model(named.like)} suits this set first"]


def unknown_labels(proposal: Proposal) -> list[tuple[str, int]]:
    """Return each label that matches no class, and its count, the most frequent first."""
    if proposal.reading is None:
        return []
    labels = Labels(proposal.dataset.classes)
    counts = sorted(proposal.reading.texts.items(), key=lambda item: (-item[1], item[0]))
    return [
        (text, count)
        for text, count in counts
        if labels.class_of(text) is None and not labels.is_empty(text)
    ]


def report(report_data: FolderReport, listed: int, data: str = "") -> Iterable[str]:
    """Yield the lines of the report, with at most `listed` items per reason.

    `data` is the archive or address that gave the folder.
    """
    reading, dataset = report_data.proposal.reading, report_data.proposal.dataset
    place = data or str(report_data.folder)
    kind = "address" if download.is_address(place) else "folder"
    yield from _wrapped(f"{kind:<10}", escape_unprintable(place))
    yield from _wrapped("layout    ", dataset.layout + (f": {reading.summary}" if reading else ""))
    for remark in reading.remarks if reading else ():
        yield from _wrapped("        - ", remark)
    if not report_data.proposal.new:
        yield "          params.yaml already has this dataset, whose config is used unchanged"
    yield ""
    yield from class_lines(report_data, listed)
    yield ""
    yield from split_lines(report_data.used)
    yield from subject_lines(dataset, report_data.used)
    yield ""
    yield from count_lines(report_data)
    yield from skip_lines(report_data.skips, listed)
    if report_data.not_copied:
        yield ""
        number = len(report_data.not_copied)
        yield f"not copied {number} of these: unreadable, system files, or not files"
        yield from _wrapped(" " * 10, _first_names(report_data.not_copied, listed))
    if renamed(report_data):
        yield ""
        yield "renamed   DVC requires names in UTF-8; new names of the copies"
        yield from _wrapped(" " * 10, _first_names(renamed(report_data), listed))
    if report_data.config_text:
        yield ""
        yield "config    to be added to datasets in params.yaml"
        for line in report_data.config_text.splitlines():
            yield from _wrapped("", line, " " * (len(line) - len(line.lstrip()) + 4))


def count_lines(report_data: FolderReport) -> Iterable[str]:
    """Yield the number of photos, votes and skipped items."""
    content = report_data.inventory
    seen = f"{content.files_seen} files"
    if content.tasks_seen:
        seen += f" and {content.tasks_seen} tasks"
    yield f"photos    {len(report_data.used)} can be read and have a label, of {seen}"
    others = sum(skip.reason in {"other_file", "system_file", "mask"} for skip in report_data.skips)
    if 2 * len(report_data.used) < content.files_seen - others:
        yield "          less than half; check the folder and the layout"
    if votes := content.votes:
        annotators = len({vote.annotator for vote in votes})
        voted = len({vote.file for vote in votes})
        by = counted(annotators, "annotator", "annotators")
        yield f"votes     {len(votes)} by {by} on {counted(voted, 'photo', 'photos')}"
    yield f"skipped   {_counted(Counter(skip.item for skip in report_data.skips)) or 'nothing'}"


def split_lines(used: Sequence[Entry]) -> Iterable[str]:
    """Yield the number of photos in each predefined split."""
    counts = Counter(entry.predefined_split for entry in used)
    if set(counts) != {""} and counts:
        listed = ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
        rest = f", {counts['']} without one (train)" if counts[""] else ""
        yield from _wrapped("splits    ", f"predefined: {listed}{rest}")
        held_out = [split for split in SPLITS[1:] if counts[split]]
        if len(held_out) == 1 and counts.total() > counts[held_out[0]]:
            source = "" if held_out == ["test"] else f"{held_out[0]} becomes the test split; "
            yield from _wrapped("          ", f"{source}validation photos are taken from train")


def class_lines(report_data: FolderReport, listed: int) -> Iterable[str]:
    """Yield each class with its spellings, and the labels that match no class."""
    proposal = report_data.proposal
    labels = Labels(proposal.dataset.classes)
    named = proposal.named
    spellings: dict[str, list[str]] = defaultdict(list)
    for text, count in sorted(proposal.reading.texts.items() if proposal.reading else ()):
        if (label := labels.class_of(text)) is not None:
            spellings[label].append(f"{_quoted(text)} ({count})")
    if named.like:
        same = f"as in datasets.{named.like}, which has the same labels"
        yield from _wrapped("classes   ", same)
    else:
        yield f"classes   {len(report_data.counts)}"
    shown = list(report_data.counts.items())[: max(listed, MOST_CLASSES)]
    for label, count in shown:
        own = spellings[label]
        alone = len(own) == 1 and own[0].startswith(f"{_quoted(label)} (")
        texts = f"   labels: {', '.join(own)}" if own and not alone else ""
        photos = counted(count, "photo", "photos")
        yield from _wrapped("  ", f"{escape_unprintable(label)}: {photos}{texts}", "      ")
    if len(shown) < len(report_data.counts):
        yield f"  … and {len(report_data.counts) - len(shown)} more; --verbose lists them"
    yield from alike_lines(named)
    unknown = unknown_labels(proposal)
    for text, count in unknown[:listed]:
        hint = escape_unprintable(labels.suggest(text))
        yield from _wrapped("  no class: ", f"{hint}; found {_times(count)} and skipped", "      ")
    if len(unknown) > listed:
        yield f"  … and {len(unknown) - listed} more labels without a class; --verbose lists them"


def alike_lines(named: layout_detection.Classes) -> Iterable[str]:
    """Yield the pairs of classes that may be one."""
    for one, other in named.by_case:
        yield from _wrapped(
            "  ",
            f"warning: {_quoted(one)} and {_quoted(other)} differ by case alone and are two "
            "classes; if they are one, list one as an alias of the other",
        )
    for one, other in named.alike:
        yield from _wrapped(
            "  ",
            f"{_quoted(one)} and {_quoted(other)} are similar; if they are one class, list one as "
            "an alias of the other",
        )
    if named.more_alike:
        yield f"  … and {named.more_alike} more similar pairs"


def _wrapped(start: str, text: str, indent: str | None = None) -> list[str]:
    """Return a sentence in lines of the terminal's width; longer words are broken.

    A command stays on one line, even on one that is too long, so that it can be copied.
    """
    space = WIDTH - len(start if indent is None else indent) - 2  # quotation or punctuation marks
    commands = [match[0] for match in COMMAND.finditer(text)]
    lines = textwrap.wrap(
        start + COMMAND.sub(lambda match: "\0" * min(len(match[0]), space), text),
        WIDTH,
        subsequent_indent=" " * len(start) if indent is None else indent,
        break_on_hyphens=False,
    )
    return [re.sub("\0+", lambda _: commands.pop(0), line) for line in lines]


def renamed(report_data: FolderReport) -> list[str]:
    """Return the new names of the files whose names are not UTF-8."""
    return [portable(path) for path in report_data.files if portable(path) != path]


def subject_lines(dataset: Dataset, used: Sequence[Entry]) -> Iterable[str]:
    """Yield the rule that identifies subjects, with examples, and a note on unknown subjects."""
    met = {entry.file: entry.subject for entry in used if entry.subject}
    rule = f"pattern {dataset.subject_pattern}" if dataset.subject_pattern else "no pattern"
    if dataset.group_column is not None:
        rule = f"column {dataset.group_column}"
    if not met:
        alone = f"{rule}: no subject is known, so each photo is a group of its own."
        yield from _wrapped("subjects  ", alone)
        yield "          If several photos show one subject, set subject_pattern in the config;"
        yield "          otherwise the model is tested on subjects that it was trained on."
        return
    subjects = len(set(met.values()))
    number = counted(subjects, "subject", "subjects")
    yield from _wrapped("subjects  ", f"{rule}: {number} on {len(met)} of {len(used)} photos")
    for file, who in sorted(met.items())[:: max(1, len(met) // 3)][:3]:
        shown = f"{escape_unprintable(file)} shows {escape_unprintable(who)}"
        yield from _wrapped(" " * 10, shown)
    if len(met) < len(used):
        unknown = counted(len(used) - len(met), "photo has", "photos have")
        yield f"          {unknown} no known subject; each is a group of its own."
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
        sentence = f"{reason}: {number}. {meaning[0].upper()}{meaning[1:]}."
        yield from _wrapped("  ", sentence, "    ")
        if reason == "system_file" and listed <= LISTED:
            continue
        yield from _wrapped("    remedy: ", inventory.remedy(reason), "      ")
        for path, detail in items[:listed]:
            item = path + (f"   {detail}" if detail else "")
            yield from _wrapped("      ", item, " " * 8)
        if len(items) > listed:
            yield f"      … and {len(items) - listed} more; --verbose (ALL=1) lists them"


def metadata_lines(folder: Path, used: Sequence[Entry], *, strip: bool) -> list[str]:
    """Return the number of photos with a position or a name in their metadata."""
    positions = names = kept = 0
    for entry in tqdm(used, "metadata", unit="photo", delay=1, leave=False, disable=None):
        with (folder / entry.file).open("rb") as stream:
            data = stream.read(photo_metadata.HEAD_BYTES)
        position, name = photo_metadata.has_position_and_name(data)
        positions, names = positions + position, names + name
        kept += (position or name) and not data.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF"))
    if not positions and not names:
        return []
    number = counted(positions, "photo has", "photos have")
    found = f"{number} a position (GPS), {names} the name of a person"
    if not strip:
        end = (
            "; they go to DVC's remote with the photos. --strip-metadata removes them from the copy"
        )
    else:
        end = "; they are removed from the copy"
        if kept:
            end += f", except from {kept} that are not JPEG, PNG or WebP: convert these first"
    return ["", *_wrapped("metadata  ", found + end)]


def _first_names(names: Sequence[str], listed: int) -> str:
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


def copy(
    sources: Mapping[str, Path], target: Path, own: Path | None = None, *, strip: bool = False
) -> None:
    """Copy files to their paths below a folder, all or none.

    Copies and not links: with a cache of hard links DVC makes its files read-only. Files below
    `own`, which were unpacked there, are moved instead. With `strip`, photos lose their metadata.

    Raises:
        ValueError: The target has other content.
        OSError: A file cannot be read or written; the partial copy is removed.
    """
    if target.exists():
        check_same(target, sources, strip=strip)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    # Held until this process ends, so that `remove_leftovers` knows a copy in progress.
    lock = os.open(half, os.O_RDONLY)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        size = sum(source.stat().st_size for source in sources.values())
        with tqdm(total=size, desc="copy", unit="B", unit_scale=True, delay=1, disable=None) as bar:
            for path, source in sources.items():
                (half / path).parent.mkdir(parents=True, exist_ok=True)
                if own and own in source.parents and not source.is_symlink():
                    source.replace(half / path)
                else:
                    shutil.copyfile(source, half / path)
                if strip and (stripped := stripped_photo(half / path)):
                    (half / path).write_bytes(stripped)
                bar.update((half / path).stat().st_size)
        files.apply_umask(half, 0o777)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
        os.close(lock)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the hidden copies that a killed `anklealign add` has left; return their names."""
    removed = []
    for path in sorted(folder.glob(".*")) if folder.is_dir() else []:
        if not LEFTOVER.fullmatch(path.name) or not path.is_dir() or path.is_symlink():
            continue
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            removed.append(path.name)
        except OSError:
            continue  # a copy in progress, or another owner's
        finally:
            os.close(lock)
    return removed


def stripped_photo(path: Path) -> bytes | None:
    """Return a photo without metadata; None for other files and formats, and if it has none."""
    if inventory.suffix(path.name) not in decode.PHOTO_SUFFIXES:
        return None
    data = path.read_bytes()
    stripped = photo_metadata.without_metadata(data)
    return stripped if stripped != data else None


def check_same(target: Path, sources: Mapping[str, Path], *, strip: bool = False) -> None:
    """Check that a folder has the same files, by name and content."""

    def same(path: str) -> bool:
        if strip and (stripped := stripped_photo(sources[path])):
            return (target / path).read_bytes() == stripped
        return filecmp.cmp(target / path, sources[path], shallow=False)

    existing = set(list_files(target)[0])
    differing = sorted(existing ^ sources.keys())
    common = tqdm(sorted(existing & sources.keys()), "compare", unit="file", delay=1, disable=None)
    differing += [path for path in common if not same(path)]
    if differing:
        raise ValueError(
            f"{target} already exists and differs from the folder in {len(differing)} files: "
            f"{_first_names(differing, 3)}; choose another NAME, or move {target} away"
        )


def write_config(name: str, dataset: Dataset, config_text: str) -> None:
    """Add the config to params.yaml after checking that nothing else changes.

    Raises:
        ValueError: The structure of the file does not allow adding a config.
    """
    # newline="" keeps the file's own line ends.
    with PARAMS.open(encoding="utf-8", newline="") as stream:
        before = stream.read()
    after = dataset_config.insert(before, config_text)
    with files.replacing(PARAMS) as temporary:
        temporary.write_text(after, encoding="utf-8", newline="")
        raw, old = params.read(temporary), params.read()
        written = params.section(raw, f"datasets.{name}", Dataset)
        del raw["datasets"][name]
        if written != dataset or raw != old:
            raise ValueError(
                f"the config could not be added to {PARAMS}; add these lines to datasets by hand:"
                f"\n{config_text}"
            )
