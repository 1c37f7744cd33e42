"""Preview of clean and split for `anklealign add`: how many photos will really be used."""

import hashlib
import tempfile
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from anklealign.cleaning import image_quality, losses, removal
from anklealign.config import params
from anklealign.config.params import Clean, Dataset, Prepare, Split
from anklealign.ingest import decoding
from anklealign.ingest.inventory import Entry
from anklealign.io import pixel_store
from anklealign.io.decoder_pool import Target
from anklealign.splitting.splits import assign_splits, group_names

# Photos; a larger set is sampled. Clean takes some 15 s of CPU time for as many.
SAMPLE = 1500
SEED = 0


def preview_lines(
    root: Path, entries: Sequence[Entry], dataset: Dataset, raw: Mapping[str, Any]
) -> list[str]:
    """Return the lines of the report on what clean and split will do.

    A set of at most SAMPLE photos is cleaned and split as the stages do. Only the preference for
    duplicates with a consensus label and the leakage audit are left out. Of a larger set, the
    quality reasons are counted on a seeded sample, and exact duplicates among all files;
    near-duplicates are not searched, and it is not split.

    Args:
        root: Folder of the photos.
        entries: The readable photos with a label.
        dataset: Their dataset config.
        raw: Content of params.yaml.
    """
    settings = params.section(raw, "clean", Clean)
    prepare = params.section(raw, "prepare", Prepare)
    sampled = sample(entries)
    with tempfile.TemporaryDirectory() as folder:
        table = decode_sample(root, sampled, dataset, prepare, Path(folder))
        store = pixel_store.open_store(Path(folder))
        pictures = pixel_store.Pictures(table, store, dataset.fit)
        if len(sampled) < len(entries):
            lines = sample_lines(len(entries), table, pictures, dataset, settings)
            copies = count_identical(root, [entry.file for entry in entries])
            lines += _wrapped(f"{copies} of all files are copies of another, byte for byte")
            return [*lines, *_wrapped("near-duplicates: searched by clean, not here")]
        result = removal.clean_photos(table, pictures, dataset, settings)
        lines = clean_lines(result, settings)
        kept = result.table[~result.table.id.isin(result.removed.id)]
        lines += split_lines(kept, result.removed, dataset, raw)
        del pictures, store, result  # Windows cannot delete a mapped file
    return lines


def sample(entries: Sequence[Entry]) -> list[Entry]:
    """Return all entries or a seeded sample of SAMPLE of them, in order of path."""
    ordered = sorted(entries, key=lambda entry: entry.file)
    if len(ordered) <= SAMPLE:
        return ordered
    chosen = np.random.default_rng(SEED).choice(len(ordered), SAMPLE, replace=False)
    return [ordered[n] for n in sorted(chosen)]


def decode_sample(
    root: Path, entries: Sequence[Entry], dataset: Dataset, settings: Prepare, folder: Path
) -> pd.DataFrame:
    """Write a pixel store as prepare does, and return the photo table."""
    target = Target(settings.max_megapixels, settings.size, dataset.fit, settings.fill)
    with pixel_store.StoreWriter(folder, settings.size) as writer:
        rows, _ = decoding.decode_photos(root, entries, target, writer)
    table = pd.DataFrame(rows, columns=list(pixel_store.PREPARED_COLUMNS))
    return table.assign(consensus="", multi_annotated=0)


def clean_lines(result: removal.Cleaning, settings: Clean) -> list[str]:
    """Return the counts by reason, and what the stage will warn of or stop at."""
    removed, table = result.removed, result.table
    kept = len(table) - len(removed)
    lines = [f"clean     {kept} of {len(table)} photos will be kept"]
    if len(removed):
        lines += _wrapped(f"removed: {_counted(Counter(removed.reason))}")
    if len(result.flagged):
        lines += _wrapped(f"flagged: {_counted(Counter(result.flagged.reason))}")
    for sentence in losses.warnings(table, pd.concat([removed, result.flagged])).values():
        lines += _wrapped(f"warning: {sentence}")
    try:
        losses.check(table, removed, settings.allowed_losses)
    except ValueError as error:
        lines += _wrapped(f"warning: clean will stop: {error}")
    return lines


def sample_lines(
    photos: int,
    table: pd.DataFrame,
    pictures: pixel_store.Pictures,
    dataset: Dataset,
    settings: Clean,
) -> list[str]:
    """Return the counts of the quality reasons on a sample of this many photos."""
    qualities = image_quality.measure_all(pictures, table, square=dataset.fit == "crop")
    remove, flag = removal.faults_by_action(table, qualities, settings)
    lines = [f"clean     estimated from {len(table)} of {photos} photos"]
    for name, faults in (("removed", remove), ("flagged", flag)):
        counts = Counter(fault.reason for fault in faults if fault)
        if counts:
            lines += _wrapped(f"{name} of these: {_counted(counts)}")
        elif name == "removed":
            lines += _wrapped("none of these is unusable")
    removed = removal.removal_table(table.assign(cluster=""), removal.unusable(qualities, remove))
    for sentence in losses.warnings(table, removed).values():
        lines += _wrapped(f"warning: {sentence}")
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
    kept: pd.DataFrame, removed: pd.DataFrame, dataset: Dataset, raw: Mapping[str, Any]
) -> list[str]:
    """Return the size of each split, before the leakage audit, or why split will stop."""
    settings = params.section(raw, "split", Split)
    if settings.test == params.CONSENSUS:
        return []  # needs the votes
    try:
        groups = group_names(kept, removed, settings.group)
        table = kept.assign(group=kept.id.map(groups))
        split = assign_splits(
            table, settings, list(dataset.classes), params.section(raw, "seed", int), set()
        )
    except ValueError as error:
        return _wrapped(f"warning: split will stop: {error}")
    counts = Counter(split)
    sizes = ", ".join(f"{name} {counts[name]}" for name in ("train", "val", "test"))
    return [f"split     {sizes} photos, {table.group.nunique()} groups"]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _wrapped(text: str) -> list[str]:
    """Return lines of at most 80 columns below the heading of a line of the report."""
    indent = " " * 10
    return textwrap.wrap(text, 80, initial_indent=indent, subsequent_indent=indent)
