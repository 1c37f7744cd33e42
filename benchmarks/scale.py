"""Measure how the data stages grow with the photos, and extrapolate to ten million.

    python -m benchmarks.scale FOLDER [--photos 4000]     # four minutes on 2 cores

Runs prepare, clean and split on a quarter, a half and all of the photos, in a project of their own
and without a cache, each stage in a process of its own. For each stage, prints its CPU seconds, and
the exponent with which they grow from the half to all photos; extrapolates with that exponent, but
at least 1, to larger sets. The store's bytes per photo are measured, too. An extrapolation over
three orders of magnitude is a rough figure: it shows which stage gives way first, not how long it
takes. clean compares copies with each other, and a larger sample of a set has more copies of its
photos: on a set with many copies, its exponent is too high for a set that grows by new photos.
"""

import argparse
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from anklealign.config import paths
from benchmarks.incremental import ROOT, write_project

STAGES = ("prepare", "clean", "split")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MIN_PHOTOS = 800  # two folders of the project in each size
SIZES = (10**5, 10**6, 10**7)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=4000)
    options = parser.parse_args(arguments)
    found = (path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    source = sorted(found)[: options.photos]
    if len(source) < MIN_PHOTOS:
        parser.error(f"{options.folder} has {len(source)} photos, fewer than {MIN_PHOTOS}")
    counts = [len(source) // 4, len(source) // 2, len(source)]
    costs, stored = [], 0
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            # Photos of all folders, not the first half of them.
            write_project(Path(folder), count, source[:: len(source) // count][:count])
            costs.append({name: run(Path(folder), name) for name in STAGES})
            stored = sum(path.stat().st_size for path in (Path(folder) / paths.STORE).iterdir())
    report(counts, costs, stored / counts[-1])


def run(project: Path, stage: str) -> float:
    """Run a stage in a process of its own, and return its CPU time in seconds."""
    shutil.rmtree(project / paths.CACHE, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", f"stages.{stage}"]
    subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def growth(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the exponent with which the time grows from the last but one count to the last."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(counts[-1] / counts[-2])


def report(counts: Sequence[int], costs: Sequence[Mapping[str, float]], bytes_each: float) -> None:
    """Print what was measured, and the extrapolation."""
    print(f"| CPU s | {' | '.join(f'{count:,} photos' for count in counts)} | exponent "
          f"|\n|---|{'--:|' * (len(counts) + 1)}")  # fmt: skip
    exponents = {}
    for name in STAGES:
        seconds = [cost[name] for cost in costs]
        exponents[name] = growth(counts, seconds)
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in seconds)} "
              f"| {exponents[name]:.2f} |")  # fmt: skip
    print(f"\nExtrapolated CPU hours, and the store at {bytes_each / 1e3:.0f} kB per photo:\n")
    print(f"| photos | {' | '.join(STAGES)} | store, GB |\n|---|{'--:|' * (len(STAGES) + 1)}")
    for size in SIZES:
        hours = [
            costs[-1][name] * (size / counts[-1]) ** max(1.0, exponents[name]) / 3600
            for name in STAGES
        ]
        print(f"| {size:,} | {' | '.join(f'{value:.1f}' for value in hours)} "
              f"| {size * bytes_each / 1e9:,.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
