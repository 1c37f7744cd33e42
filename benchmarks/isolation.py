"""Measure the cost of decoding in worker processes against decoding in the same process.

    python -m benchmarks.isolation [FOLDER] [--photos 200]

Decodes photos of FOLDER (default: data/raw/synthetic) into squares of 256 px in alternating rounds:
in this process, as it was before decoders were isolated; as the service does, all in workers; and
as prepare does, where JPEG, PNG and WebP stay in this process unless they are slow. `classified`
adds the time that the model in model/ and export/ takes, in batches of 16, to the former two; the
time that the service takes for HTTP is left out. Prints photos per second of CPU time, of this
process and the workers, so that other programs do not matter. Exit status 1: the median ratio of
the rounds to decoding in process is below 0.9 for prepare or for the classified photos.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from anklealign.io import decode, decoder_pool
from anklealign.io.decoder_pool import DecoderPool, Target
from anklealign.io.decoder_worker import NotQuick
from anklealign.models.input_config import CHUNK
from service import app
from service.settings import from_environment

ROOT = Path(__file__).resolve().parents[1]
TARGET = Target(max_megapixels=80, size=256, fit="letterbox", fill=114)
ROUNDS = 5
MIN_RATIO = 0.9


def main() -> int:
    """Print the table; return 1 if a ratio is too low."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "data/raw/synthetic")
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    photos = quick_photos(options.folder, options.photos)
    if not photos:
        parser.error(f"{options.folder} has no photo that is decoded quickly")
    service, prepare = DecoderPool(), DecoderPool(isolate_all=False)
    ways: dict[str, Callable[[bytes], object]] = {
        "in process": partial(decoder_pool.decode_quick, target=TARGET),
        "service": partial(service.decode, target=TARGET),
        "prepare": partial(prepare.decode, target=TARGET),
    }
    service.start()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    model = model_seconds(photos)
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            taken = measure(way, photos)
            if number:  # the first round warms up
                seconds[name].append(taken)
    service.close()
    prepare.close()
    for name in ("in process", "service"):
        seconds[f"{name}, classified"] = [taken + model for taken in seconds[name]]
    size = float(np.mean([len(photo) for photo in photos])) / 1e6
    print(f"{len(photos)} photos of {size:.2f} MB on average, {ROUNDS} rounds\n")
    print("| decoding | photos per CPU second | ratio | lowest, highest |\n|---|--:|--:|--:|")
    failed = False
    for name, own in seconds.items():
        classified = name.endswith("classified")
        reference = seconds["in process, classified" if classified else "in process"]
        ratios = [b / a for a, b in zip(own, reference, strict=True)]
        ratio = statistics.median(ratios)
        failed |= ratio < MIN_RATIO and (classified or name == "prepare")
        print(f"| {name} | {1 / statistics.median(own):.1f} | {ratio:.3f} "
              f"| {min(ratios):.3f}, {max(ratios):.3f} |")  # fmt: skip
    if failed:
        print(f"isolation: a ratio is below {MIN_RATIO}", file=sys.stderr)
    return int(failed)


def model_seconds(photos: list[bytes]) -> float:
    """Return the CPU time that the service's model takes for a photo, in batches of 16."""
    predictor, _ = app.load(from_environment())
    size = predictor.bundle.preprocessing.size
    target = replace(TARGET, size=size)
    squares = np.stack([decoder_pool.decode_quick(photo, target).pixels for photo in photos[:64]])
    batches = [squares[first : first + CHUNK] for first in range(0, len(squares), CHUNK)]
    for number in range(2):  # the first round warms up
        before = cpu_seconds() if number else 0.0
        for batch in batches:
            predictor.probabilities(batch)
            predictor.novelty_scores(batch)
    return (cpu_seconds() - before) / len(squares)


def quick_photos(folder: Path, count: int) -> list[bytes]:
    """Return the content of the first `count` photos by path that are decoded quickly."""
    photos: list[bytes] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            data = decode.read_bytes(path, TARGET.max_megapixels)
            decoder_pool.decode_quick(data, TARGET)
        except (decode.PhotoError, NotQuick):
            continue
        photos.append(data)
        if len(photos) == count:
            break
    return photos


def measure(way: Callable[[bytes], object], photos: list[bytes]) -> float:
    """Return the CPU time of this process and its workers for a photo, in seconds."""
    before = cpu_seconds()
    for photo in photos:
        way(photo)
    # The time of a worker is updated at a clock tick.
    time.sleep(0.02)
    return (cpu_seconds() - before) / len(photos)


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children, ended or not."""
    process = psutil.Process()
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return float(total)


if __name__ == "__main__":
    sys.exit(main())
