"""Measure how the stages grow with the photos, and what ten million take and what gives way first.

    python -m benchmarks.scale FOLDER [--photos 4000]     # ten minutes on 2 cores

Runs prepare, clean and split on a quarter, a half and all of the photos, in a project of their own
and without a cache, each stage in a process of its own. Prints the CPU seconds and the memory of
each, and the exponent with which the CPU seconds grow from the half to all photos. For larger sets,
CPU hours are extrapolated with that exponent, but at least 1, and memory by what each photo added
from the half to all photos. Prints the stage with the most CPU hours and the one with the most
memory at ten million: what gives way first.

A first run of prepare and clean removes the photos that clean removes, of which the sizes are then
drawn: clean compares copies with each other, and a larger sample of one set has more copies of its
photos, so that a set with many copies seems to grow with the square (exponent 1.6 on 3,995 web
photos), which a set that grows by new photos does not. An extrapolation over three orders of
magnitude is a rough figure all the same.

`features` is a frozen EfficientNet-Lite0 at 224 px, and `predict` decoding, that network and that
of the bundle in model/ at the rate of benchmarks/prediction.py; both grow with n by construction,
so one size is measured. `memory` is anonymous memory, without the mapped store.

    python -m benchmarks.scale FOLDER... --variants --photos 100000     # hours on 2 cores

Runs the stages once instead, on a quarter as many photos, each of them as it is and in three
variants: cropped by 30%, brighter, and smaller with other colors. Prints the CPU seconds next to
those of Pillow for decoding the same files and resizing them to the size of the store (measured on
4,000 random ones before and after the stages, in as many threads). The exit status is 1 if the
stages take over 8 times as much, or 4 GiB.
"""

import argparse
import contextlib
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from anklealign.config import params, paths
from anklealign.io import pixel_store
from benchmarks.incremental import PER_FOLDER, ROOT, write_project
from benchmarks.serving import children

STAGES = ("prepare", "clean", "split")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MIN_PHOTOS = 800  # two folders of the project in each size
SIZES = (10**5, 10**6, 10**7)
NETWORK_PHOTOS = 256  # whose features and predictions are timed
PLAIN = 4000  # photos that Pillow alone decodes
MAX_RATIO, MAX_MEMORY = 8.0, 4 * 2**30  # to Pillow's CPU seconds; bytes of anonymous memory
FEATURES = """
import numpy as np, torch
from anklealign.io import pixel_store
from anklealign.models import inputs, novelty
inputs.configure_cpu(1)
store = pixel_store.open_store()
rows = np.arange(min(len(store), {photos}))
novelty.describe(store, rows[:16], torch.device("cpu"))
import time
start = time.process_time()
novelty.describe(store, rows, torch.device("cpu"))
print((time.process_time() - start) / len(rows))
"""


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a stage, and its peak of anonymous memory in bytes."""

    seconds: float
    memory: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--variants", action="store_true", help="of each photo, once, at this size")
    options = parser.parse_args(arguments)
    files = (path for folder in options.folders for path in folder.rglob("*"))
    source = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if options.variants:
        sys.exit(measure_variants(source, options.photos))
    source = source[:: max(1, len(source) // options.photos)][: options.photos]
    if len(source) < MIN_PHOTOS:
        parser.error(f"{len(source)} photos are fewer than {MIN_PHOTOS}")
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        kept = distinct(Path(folder), source)
    print(f"{len(kept):,} of {len(source):,} photos are no copies and usable\n")
    counts = [len(kept) // 4, len(kept) // 2, len(kept)]
    costs = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            project = Path(folder)
            # Photos of all folders, not the first half of them.
            write_project(project, count, kept[:: len(kept) // count][:count])
            costs.append({name: run(project, name) for name in STAGES})
            stored = bytes_of(project)
            if count == counts[-1]:
                networks = network_seconds(project)
    report(counts, costs, stored, networks)


def measure_variants(source: Sequence[Path], photos: int) -> int:
    """Print what the stages and Pillow take for photos in four variants; return the exit status."""
    chosen = np.random.default_rng(0).permutation(len(source))[: photos // 4]
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        project = Path(folder)
        write_project(project, 0, [])
        names = [project / "data/raw/incremental" / name for name in photo_names(4 * len(chosen))]
        originals = [source[n] for n in np.repeat(chosen, 4).tolist()]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            written = pool.map(write_variant, range(len(names)), originals, names)
            count = sum(tqdm(written, "write", total=len(names), unit="photo", disable=None))
        files = [path for path in names if path.exists()]
        size = params.section(params.read(project / "params.yaml"), "prepare", params.Prepare).size
        # Before and after the stages, as the speed of a shared machine changes.
        plain = [shrinking(files, size)]
        costs = {}
        for name in STAGES:
            costs[name] = run(project, name)
            print(
                f"{name:8} {costs[name].seconds:8,.0f} CPU s, "
                f"{costs[name].memory / 2**30:5.2f} GiB", flush=True,
            )  # fmt: skip
        plain.append(shrinking(files, size))
    mean = sum(plain) / len(plain)
    ratio = sum(cost.seconds for cost in costs.values()) / mean
    memory = max(cost.memory for cost in costs.values())
    print(
        f"Pillow   {mean:8,.0f} CPU s to decode and resize all {count:,} photos (before "
        f"{plain[0]:,.0f}, after {plain[1]:,.0f}); {ratio:.1f} times"
    )
    return int(ratio > MAX_RATIO or memory > MAX_MEMORY)


def shrinking(files: Sequence[Path], side: int) -> float:
    """Return the CPU seconds that Pillow takes for all files, as measured on PLAIN random ones.

    As many threads decode as in the stages: a core does less in a second if the others are busy.
    """
    sample = np.random.default_rng(1).permutation(len(files))[:PLAIN].tolist()
    start = time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda n: shrink(files[n], side).size, sample):
            pass
    return (time.process_time() - start) * len(files) / len(sample)


def photo_names(count: int) -> list[str]:
    """Return names as those of write_project."""
    numbers = (divmod(n, PER_FOLDER) for n in range(count))
    return [f"{'ab'[folder % 2]}/{folder:04}/{n:02}.jpg" for folder, n in numbers]


def write_variant(number: int, source: Path, path: Path) -> bool:
    """Write a variant of a photo, the photo itself first; return whether it can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Image.open(source) as opened:
            photo = opened.convert("RGB")
    except (OSError, ValueError):
        return False
    width, height = photo.size
    match number % 4:
        case 0 if source.suffix.lower() in {".jpg", ".jpeg"}:
            shutil.copyfile(source, path)
            return True
        case 1:
            photo = photo.crop((0, 0, max(1, round(0.7 * width)), max(1, round(0.7 * height))))
        case 2:
            photo = photo.point([min(255, round(1.15 * level + 8)) for level in range(256)] * 3)
        case 3:
            photo = photo.resize((max(1, width * 3 // 4), max(1, height * 3 // 4)))
            photo = Image.merge("RGB", photo.split()[::-1])
    photo.save(path, quality=90)
    return True


def shrink(path: Path, side: int) -> Image.Image:
    """Return a photo with this longer side, as Pillow decodes and resizes it."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    scale = side / max(photo.size)
    width, height = (max(1, round(scale * length)) for length in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def distinct(project: Path, source: Sequence[Path]) -> list[Path]:
    """Return the photos that prepare and clean keep."""
    write_project(project, len(source), source)
    for name in ("prepare", "clean"):
        run(project, name)
    table = pixel_store.read_table(project / paths.CLEAN / "photos.csv")
    numbers = table.path.str.extract(r"(\d+)/(\d+)\.jpg$").astype(int)
    return [source[n] for n in sorted(numbers[0] * PER_FOLDER + numbers[1])]


def run(project: Path, stage: str) -> Cost:
    """Run a stage in a process of its own, after those before it, and return its cost."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", f"stages.{stage}"]
    peak, done = [0], threading.Event()
    with subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        watcher = threading.Thread(target=watch, args=(process.pid, peak, done))
        watcher.start()
        status = process.wait()
        done.set()
        watcher.join()
    if status:
        raise SystemExit(f"stages.{stage} failed with exit status {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, peak[0])


def watch(process: int, peak: list[int], done: threading.Event) -> None:
    """Keep the most anonymous memory of a process and its children in `peak` until done (Linux)."""
    while not done.wait(0.1):
        total = 0
        for own in (process, *children(process)):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{own}/status").read_text(encoding="utf-8")
                if found := re.search(r"RssAnon:\s+(\d+)", status):
                    total += int(found[1]) * 1024
        peak[0] = max(peak[0], total)


def environment() -> dict[str, str]:
    """Return the environment of a command in the project."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def network_seconds(project: Path) -> dict[str, float]:
    """Return the CPU seconds of a photo: of the features, and of a prediction."""
    seconds = {}
    features = [sys.executable, "-c", FEATURES.format(photos=NETWORK_PHOTOS)]
    seconds["features"] = float(
        subprocess.check_output(features, cwd=project, env=environment(), text=True)
    )
    command = [
        sys.executable, "-m", "benchmarks.prediction", str(project.resolve() / paths.RAW),
        "--photos", str(NETWORK_PHOTOS), "--rounds", "1", "--seconds-only",
    ]  # fmt: skip
    if (ROOT / paths.MODEL / "config.json").exists():
        seconds["predict"] = float(
            subprocess.check_output(command, cwd=ROOT, env=environment(), text=True).split()[-1]
        )
    return seconds


def bytes_of(project: Path) -> dict[str, int]:
    """Return the bytes of the photos, of the store, and of all tables."""
    store = project / paths.STORE
    tables = (project / name for name in (paths.PREPARED, paths.CLEAN, paths.SPLIT))
    return {
        "photos": size(project / paths.RAW),
        "store": size(store),
        "tables": sum(path.stat().st_size for folder in tables for path in folder.glob("*.csv")),
    }


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def growth(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the exponent with which the time grows from the last but one count to the last."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(counts[-1] / counts[-2])


def hours_at(photos: int, count: int, seconds: float, exponent: float) -> float:
    """Return the CPU hours of a stage that took `seconds` for `count` photos."""
    return float(seconds * (photos / count) ** max(1.0, exponent) / 3600)


def memory_at(photos: int, counts: Sequence[int], memory: Sequence[float]) -> float:
    """Return the bytes of memory, by what each photo added from the half to all of them."""
    each = max(0.0, memory[-1] - memory[-2]) / (counts[-1] - counts[-2])
    return memory[-1] + each * (photos - counts[-1])


def report(
    counts: Sequence[int],
    costs: Sequence[Mapping[str, Cost]],
    stored: Mapping[str, int],
    networks: Mapping[str, float],
) -> None:
    """Print what was measured, the extrapolation, and what gives way first."""
    head = " | ".join(f"{count:,} photos" for count in counts)
    print(f"| CPU s (memory, MB) | {head} | exponent |\n|---|{'--:|' * (len(counts) + 1)}")
    exponents = {}
    for name in STAGES:
        own = [cost[name] for cost in costs]
        exponents[name] = growth(counts, [cost.seconds for cost in own])
        cells = " | ".join(f"{cost.seconds:.1f} ({cost.memory / 1e6:.0f})" for cost in own)
        print(f"| {name} | {cells} | {exponents[name]:.2f} |")
    for name, seconds in networks.items():
        print(f"{name}: {seconds * 1e3:.1f} ms of CPU for a photo")
    print(f"\n| photos | {' | '.join((*STAGES, *networks))}, CPU hours | photos, store, tables, GB "
          f"| memory, GB |\n|---|{'--:|' * (len(STAGES) + len(networks) + 2)}")  # fmt: skip
    for photos in SIZES:
        hours = {
            name: hours_at(photos, counts[-1], costs[-1][name].seconds, exponents[name])
            for name in STAGES
        } | {name: photos * seconds / 3600 for name, seconds in networks.items()}
        memory = {
            name: memory_at(photos, counts, [cost[name].memory for cost in costs])
            for name in STAGES
        }
        stored_at = (value / counts[-1] * photos / 1e9 for value in stored.values())
        print(f"| {photos:,} | {' | '.join(f'{value:,.1f}' for value in hours.values())} "
              f"| {', '.join(f'{value:,.1f}' for value in stored_at)} "
              f"| {max(memory.values()) / 1e9:.1f} ({max(memory, key=memory.__getitem__)}) "
              f"|")  # fmt: skip
    slowest = max(STAGES, key=hours.__getitem__)
    largest = max(memory, key=memory.__getitem__)
    print(
        f"\nAt {SIZES[-1]:,} photos, {slowest} takes the most time of the data stages, "
        f"{hours[slowest]:,.0f} CPU hours, and {largest} the most memory, "
        f"{memory[largest] / 1e9:.0f} GB in one process."
    )
    print(f"measured {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
