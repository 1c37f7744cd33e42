"""Measure what 10 new photos cost prepare and clean, against all photos at once.

    python -m benchmarks.incremental                      # 30,000 photos: half an hour
    python -m benchmarks.incremental --photos 2000 --stages prepare

Draws photos in folders of 100, or takes those below --source, repeated with other pixels, and runs
the stages in a project of their own, three times: on all photos, after 10 photos came in one new
folder, and after 10 came in 10 other folders. Before each run, the outputs are removed, as DVC
does. Prints for each run the share of the store's bytes in shards that are new (what DVC hashes,
copies to its cache and pushes) and in files that DVC's record of inodes and times does not know,
and the CPU and wall seconds of each stage, with their ratio to the first run.

A last run without the cache must write the same bytes, and takes the time of a first run; so the
ratio to it shows whether the machine was equally busy.

Fails where 10 photos in one folder rewrite more than 2%, 10 scattered ones more than 10%, or
prepare takes more than a fifth of its first time; for fewer than 30,000 photos, the bounds on bytes
grow with the share of the new photos.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from anklealign.config import paths
from anklealign.io import files, pixel_store

ROOT = Path(__file__).resolve().parents[1]
PER_FOLDER, NEW = 100, 10
SIDES = (320, 480)  # pixels, of drawn photos
MAX_FOLDER, MAX_SCATTERED, MAX_SECONDS = 0.02, 0.10, 0.2
FULL = 30_000  # photos, for which the bounds hold
RUNS = ("first", "10 in one folder", "10 scattered", "without cache")


@dataclass(frozen=True)
class Run:
    """One run of the stages: seconds by stage, (wall, CPU), and the files of the store."""

    seconds: dict[str, tuple[float, float]]
    shards: dict[str, tuple[int, int, int]]  # name -> bytes, inode, time


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table.

    Raises:
        SystemExit: A bound is exceeded, or a result depends on the cache.
    """
    parser = argparse.ArgumentParser(description="What 10 new photos cost")
    parser.add_argument("--photos", type=int, default=FULL)
    parser.add_argument("--source", type=Path, help="folder of JPEG files instead of drawn photos")
    parser.add_argument("--stages", nargs="+", default=["prepare"], choices=["prepare", "clean"])
    parser.add_argument("--folder", type=Path, help="where the photos are written")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="incremental-", dir=options.folder) as folder:
        project = Path(folder)
        source = sorted(options.source.rglob("*.jpg")) if options.source else []
        write_project(project, options.photos, source)
        first = run(project, options.stages)
        names = [f"b/{options.photos // PER_FOLDER // 2:04}-new/{n}.jpg" for n in range(NEW)]
        write_photos(project, names, source, options.photos)
        in_folder = run(project, options.stages)
        rng = np.random.default_rng(0)
        folders = rng.integers(0, max(1, options.photos // PER_FOLDER), NEW)
        names = [f"{'ab'[n % 2]}/{n:04}/new{i}.jpg" for i, n in enumerate(folders)]
        write_photos(project, names, source, options.photos + NEW)
        scattered = run(project, options.stages)
        outputs = contents(project)
        shutil.rmtree(project / paths.CACHE)
        again = run(project, options.stages)
        same = contents(project) == outputs
    report(options.photos, dict(zip(RUNS, (first, in_folder, scattered, again), strict=True)))
    if not same:
        raise SystemExit("the cache changes the outputs")
    check(options.photos, first, in_folder, scattered)


def write_project(project: Path, photos: int, source: Sequence[Path]) -> None:
    """Write params.yaml and the photos of two classes."""
    (project / "params.yaml").write_text(
        (ROOT / "params.yaml")
        .read_text(encoding="utf-8")
        .replace("\ndataset: ", "\ndataset: incremental  # ")
        .replace(
            "\ndatasets:\n",
            "\ndatasets:\n  incremental: {layout: folders, classes: {a: [], b: []}}\n",
        ),
        encoding="utf-8",
    )
    folders = (n // PER_FOLDER for n in range(photos))
    names = [f"{'ab'[f % 2]}/{f:04}/{n % PER_FOLDER:02}.jpg" for n, f in enumerate(folders)]
    write_photos(project, names, source, 0)


def write_photos(project: Path, names: Sequence[str], source: Sequence[Path], start: int) -> None:
    """Write different photos under these names, numbers from `start` on."""
    for number, name in enumerate(names, start):
        path = project / "data/raw/incremental" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        if source:
            picture = Image.open(source[number % len(source)]).convert("RGB")
            levels = np.asarray(picture, np.int16) + rng.integers(-8, 9, 3)
            picture = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
        else:
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
            width, height = rng.integers(*SIDES, 2).tolist()
            picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
        picture.save(path, quality=90)


def run(project: Path, stages: Sequence[str]) -> Run:
    """Remove the outputs and run the stages, each in a process of its own."""
    for path in (paths.PREPARED, paths.CLEAN, Path("plots"), Path("metrics")):
        shutil.rmtree(project / path, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    seconds = {}
    for name in stages:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", f"stages.{name}"]
        subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seconds[name] = (time.perf_counter() - start, cpu)
    store = project / paths.STORE
    facts = {name: (store / name).stat() for name, _ in pixel_store.open_store(store).shards}
    shards = {name: (s.st_size, s.st_ino, s.st_mtime_ns) for name, s in facts.items()}
    return Run(seconds, shards)


def contents(project: Path) -> dict[str, str]:
    """Return the hash of each output file."""
    outputs = [project / path for path in (paths.PREPARED, paths.CLEAN, "plots", "metrics")]
    return {
        path.relative_to(project).as_posix(): files.sha256(path)
        for folder in outputs
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def share_of_new(before: Mapping[str, object], after: Run, *, same_file: bool = False) -> float:
    """Return the share of the bytes in shards that are new, or that are not the same file."""
    new = sum(
        facts[0]
        for name, facts in after.shards.items()
        if name not in before or (same_file and before[name] != facts)
    )
    return new / sum(size for size, _, _ in after.shards.values())


def report(photos: int, runs: Mapping[str, Run]) -> None:
    """Print one line per run."""
    first = runs[RUNS[0]]
    total = sum(size for size, _, _ in first.shards.values())
    print(
        f"{photos} photos, {total / 1e9:.2f} GB in {len(first.shards)} shards of "
        f"{photos / len(first.shards):.0f} photos; seconds and their ratio to the first run"
    )
    stages = list(first.seconds)
    print(f"{'':18}{'new bytes':>10}{'rehashed':>10}", end="")
    print("".join(f"{f'{name} wall':>16}{f'{name} CPU':>16}" for name in stages))
    before: dict[str, tuple[int, int, int]] = {}
    for name, result in runs.items():
        new = share_of_new(before, result)
        rehashed = share_of_new(before, result, same_file=True)
        line = f"{name:18}{new:>10.2%}{rehashed:>10.2%}"
        for stage in stages:
            for value, of_first in zip(result.seconds[stage], first.seconds[stage], strict=True):
                line += f"{f'{value:.1f} ({value / of_first:.2f})':>16}"
        print(line, flush=True)
        before = result.shards


def check(photos: int, first: Run, in_folder: Run, scattered: Run) -> None:
    """Compare the runs with the bounds.

    Raises:
        SystemExit: One is exceeded.
    """
    scale = max(1.0, FULL / photos)
    by_bytes = (
        ("10 in one folder", first, in_folder, MAX_FOLDER * scale),
        ("10 scattered", in_folder, scattered, MAX_SCATTERED * scale),
    )
    for name, before, after, most in by_bytes:
        share = share_of_new(before.shards, after, same_file=True)
        if share > most:
            raise SystemExit(f"{name} rewrite {share:.1%} of the bytes, more than {most:.0%}")
    for after in (in_folder, scattered):
        ratio = after.seconds["prepare"][1] / first.seconds["prepare"][1]
        if photos >= FULL and ratio > MAX_SECONDS:
            raise SystemExit(f"prepare takes {ratio:.2f} of its first time")


if __name__ == "__main__":
    main()
