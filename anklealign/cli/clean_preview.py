"""Preview of clean and split for `anklealign add`: how many photos will really be used."""

import hashlib
import os
import tempfile
import textwrap
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from anklealign.cleaning import losses, removal
from anklealign.config import params
from anklealign.config.params import Clean, Dataset, Prepare, Split
from anklealign.ingest import inventory
from anklealign.ingest.inventory import Entry, Skip, escape_unprintable
from anklealign.ingest.wording import counted
from anklealign.io import decode, decoder_pool, pixel_store
from anklealign.splitting.leak_joining import JOINED, SEPARATED, split_without_leaks
from anklealign.splitting.splits import EXCLUDED, SPLITS

# Photos; a larger set is sampled. Clean takes some 15 s of CPU time for as many.
SAMPLE = 1500
SEED = 0


@dataclass(frozen=True)
class Sample:
    """Photos as prepare stores them: their photo table, by path, and (N, S, S, 3) pixels."""

    table: pd.DataFrame
    store: pixel_store.Pixels


def decode_photos(
    root: Path, entries: Sequence[Entry], dataset: Dataset, settings: Prepare
) -> tuple[list[Skip], Sample]:
    """Decode each photo once; return the skips of the unreadable ones, and a sample.

    Args:
        root: Folder of the photos.
        entries: The photos with a label.
        dataset: Their dataset config.
        settings: Parameters of prepare.
    """
    target = decoder_pool.Target(settings.max_megapixels, settings.size, dataset.fit, settings.fill)
    rows = {entry.file: row for row, entry in enumerate(sample(entries))}
    shape = (max(1, len(rows)), settings.size, settings.size, 3)
    with tempfile.TemporaryFile() as stream:  # it is gone when the store is
        store: pixel_store.Pixels = np.memmap(stream, np.uint8, "w+", shape=shape)

    def attempt(entry: Entry) -> dict[str, Any] | decode.PhotoError | None:
        try:
            data = decode.read_bytes(root / entry.file, settings.max_megapixels)
            photo = decoder_pool.shared().decode(data, target)
        except decode.PhotoError as error:
            return error
        row = rows.get(entry.file)
        if row is None:
            return None
        store[row] = photo.pixels
        path = escape_unprintable(entry.file)
        return {
            "id": pixel_store.photo_id(path), "row": row, "path": path, "label": entry.label,
            "collector": escape_unprintable(entry.collector),
            "subject": escape_unprintable(entry.subject),
            "predefined_split": entry.predefined_split, "consensus": "", "multi_annotated": 0,
            "width": photo.width, "height": photo.height,
            **dict(zip(("left", "top", "right", "bottom"), photo.box, strict=True)),
        }  # fmt: skip

    skips: list[Skip] = []
    table = []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        results = pool.map(attempt, entries)
        bar = tqdm(results, "read", len(entries), unit="photo", delay=1, disable=None)
        for entry, result in zip(entries, bar, strict=True):
            if isinstance(result, decode.PhotoError):
                skips += inventory.skips_of_entry(entry, result.reason, str(result))
            elif result:
                table.append(result)
    ordered = sorted(table, key=lambda row: int(row["row"]))
    return skips, Sample(pd.DataFrame(ordered), store)


def preview_lines(
    root: Path,
    entries: Sequence[Entry],
    sampled: Sample,
    *,
    name: str,
    dataset: Dataset,
    raw: Mapping[str, Any],
) -> list[str]:
    """Return the lines of the report on what clean and split will do.

    A set of at most SAMPLE photos is cleaned, split and audited as the stages do. Only the
    preference for duplicates with a consensus label is left out. Of a larger set, the quality
    reasons are counted on a seeded sample, and exact duplicates among all files; near-duplicates
    are not searched, and it is not split.

    Args:
        root: Folder of the photos.
        entries: The readable photos with a label.
        sampled: Their pixels, or those of a sample.
        name: Of the dataset.
        dataset: Its config.
        raw: Content of params.yaml.
    """
    settings = params.section(raw, "clean", Clean)
    table, store = sampled.table, sampled.store
    pictures = pixel_store.Pictures(table, store, dataset.fit)
    if len(table) < len(entries):
        lines = sample_lines(len(entries), table, pictures, dataset, settings)
        copies = count_identical(root, [entry.file for entry in entries])
        lines += wrapped(f"{copies} of all files are copies of another, byte for byte")
        return [*lines, *wrapped("near-duplicates: searched by clean, not here")]
    result = removal.clean_photos(table, pictures, dataset, settings)
    kept = result.table[~result.table.id.isin(result.removed.id)].reset_index(drop=True)
    audited = pixel_store.Pictures(kept, store, dataset.fit)
    return [
        *clean_lines(result, settings),
        *split_lines(kept, result.removed, audited, name=name, dataset=dataset, raw=raw),
    ]


def sample(entries: Sequence[Entry]) -> list[Entry]:
    """Return all entries or a seeded sample of SAMPLE of them, in order of path."""
    ordered = sorted(entries, key=lambda entry: entry.file)
    if len(ordered) <= SAMPLE:
        return ordered
    chosen = np.random.default_rng(SEED).choice(len(ordered), SAMPLE, replace=False)
    return [ordered[n] for n in sorted(chosen)]


def clean_lines(result: removal.Cleaning, settings: Clean) -> list[str]:
    """Return the counts by reason, and what the stage will warn of or stop at."""
    removed, table = result.removed, result.table
    kept = len(table) - len(removed)
    lines = [f"clean     {kept} of {counted(len(table), 'photo')} will be kept"]
    if len(removed):
        lines += wrapped(f"removed: {_counted(Counter(removed.reason))}")
    if len(result.flagged):
        lines += wrapped(f"flagged: {_counted(Counter(result.flagged.reason))}")
    for sentence in losses.warnings(table, pd.concat([removed, result.flagged])).values():
        lines += wrapped(f"warning: {sentence}")
    try:
        losses.check(table, removed, settings.allowed_losses)
    except ValueError as error:
        lines += wrapped(f"warning: clean will stop: {error}")
    return lines


def sample_lines(
    photos: int,
    table: pd.DataFrame,
    pictures: pixel_store.Pictures,
    dataset: Dataset,
    settings: Clean,
) -> list[str]:
    """Return the counts of the quality reasons on a sample of this many photos."""
    square = dataset.fit == "crop"
    qualities, _ = removal.read_photos(table, pictures, square=square, hashes=False)
    remove, flag = removal.faults_by_action(table, qualities, settings)
    lines = [f"clean     estimated from {len(table)} of {photos} photos"]
    for name, faults in (("removed", remove), ("flagged", flag)):
        counts = Counter(fault.reason for fault in faults if fault)
        if counts:
            lines += wrapped(f"{name} of these: {_counted(counts)}")
        elif name == "removed":
            lines += wrapped("none of these is unusable")
    removed = removal.removal_table(table.assign(cluster=""), removal.unusable(qualities, remove))
    for sentence in losses.warnings(table, removed).values():
        lines += wrapped(f"warning: {sentence}")
    return lines


def count_identical(root: Path, files: Sequence[str]) -> int:
    """Return how many files are byte-identical copies of another of these files."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in files:
        by_size[(root / file).stat().st_size].append(root / file)
    alike = [path for paths in by_size.values() if len(paths) > 1 for path in paths]
    hashes = set()
    for path in tqdm(alike, "copies", unit="file", delay=1, disable=None):
        with path.open("rb") as stream:
            hashes.add(hashlib.file_digest(stream, "sha256").digest())
    return len(alike) - len(hashes)


def split_lines(
    kept: pd.DataFrame,
    removed: pd.DataFrame,
    pictures: pixel_store.Pictures,
    *,
    name: str,
    dataset: Dataset,
    raw: Mapping[str, Any],
) -> list[str]:
    """Return the size of each split after the leakage audit, or why split will stop."""
    settings = params.section(raw, "split", Split)
    if settings.test == params.CONSENSUS:
        return []  # needs the votes
    seed = params.section(raw, "seed", int)
    try:
        audited = split_without_leaks(
            kept, removed, settings, seed, pictures, name=name, dataset=dataset
        )
    except ValueError as error:
        return wrapped(f"warning: split will stop: {error}")
    if audited.error:
        return wrapped(
            "warning: split will stop: "
            f"{counted(audited.same_picture, 'pair of photos', 'pairs of photos')} in different "
            f"splits {'shows' if audited.same_picture == 1 else 'show'} the same picture; "
            f"{audited.error}"
        )
    table = audited.table[audited.table.split != EXCLUDED]
    counts = Counter(audited.table.split)
    sizes = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
    groups = counted(table.group.nunique(), "group", "groups")
    lines = [f"split     {sizes} photos, {groups}"]
    if counts[EXCLUDED]:
        lines += wrapped(
            f"{counted(counts[EXCLUDED], 'photo', 'photos')} in none, whose group is in several "
            "splits"
        )
    if joined := audited.count(JOINED):
        lines += wrapped(f"pairs that show the same picture and stay in one split: {joined}")
    if separated := audited.count(SEPARATED):
        lines += wrapped(f"pairs that show the same picture and lose one photo: {separated}")
    return lines


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def wrapped(text: str) -> list[str]:
    """Return lines of at most 80 columns below the heading of a line of the report."""
    indent = " " * 10
    return [
        line
        for paragraph in text.splitlines()
        for line in textwrap.wrap(
            paragraph.strip(), 80, initial_indent=indent, subsequent_indent=indent
        )
    ]
