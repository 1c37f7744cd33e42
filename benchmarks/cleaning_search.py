"""Benchmark the search for duplicates: time and memory by the number of photos.

    python -m benchmarks.cleaning_search                 # about 15 minutes on one core
    python -m benchmarks.cleaning_search stages 30000    # clean and split on as many photos

`near` is the search for 64-bit words within 8 bits, every photo against every other. `view` is the
search of clean for one of its 11 crops, but in all eight orientations of every photo, against all
photos, keeping the nearest few of each. Both use random words, one in a hundred of which has a
near-duplicate. `skewed` is `view` on words in clusters of 100, each up to 6 bits from its cluster's
center, so that far more neighbors are found than are kept. Memory is the peak of the process. The
exit status is 1 if twice the photos take four times as long, if a near-duplicate is missed, or if a
million photos take 2 GiB or more.

`stages` runs clean and split, with its audit, on pictures that are all different, 256 pixels a
side: each blends two regions of two of the ants and bees. Its memory is the process's own, without
the memory-mapped pages of the pixel store, which the system can reclaim; it is read from /proc five
times a second, so only on Linux.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from anklealign.config import params
from anklealign.config.paths import PREPARED, STORE
from anklealign.io import files
from anklealign.io.pixel_store import (
    PREPARED_COLUMNS,
    Pixels,
    StoreWriter,
    photo_id,
    shard_slices,
)
from anklealign.similarity import perceptual_hash

ROOT = Path(__file__).resolve().parents[1]
DISTANCE = 8  # params.yaml's clean.hash_distance
SIZES = dict.fromkeys(("near", "view", "skewed"), (100_000, 200_000, 1_000_000))
CROWD = 100
GIB = 2**30
REAL = ROOT / "data/raw/ants_bees"
STAGES = ("clean", "split")
SIDE = 256  # pixels, side of the pictures that the stages process
PIXELS = 2**20  # maximum of the source photos, 1 MP
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, unit of ru_maxrss


def words_of(photos: int, crowd: int = 1) -> perceptual_hash.Hashes:
    """Return (N, 4) random words; the first hundredth has near-duplicates, 8 bits off per word.

    With `crowd` > 1, the others form clusters of that size, up to 6 bits per word from a center.
    """
    rng = np.random.default_rng(photos)
    words = rng.integers(0, 2**64, (photos, perceptual_hash.WORDS), dtype=np.uint64)
    copies = photos // 100
    bits = rng.permuted(np.tile(np.arange(perceptual_hash.BITS), (copies, 1)), axis=1)[:, :DISTANCE]
    off = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), axis=1)
    words[copies : 2 * copies] = words[:copies] ^ off[:, None]
    if crowd > 1:
        centers = words[2 * copies :: crowd].repeat(crowd, axis=0)[: photos - 2 * copies]
        places = rng.integers(0, perceptual_hash.BITS, (len(centers), 6), dtype=np.uint64)
        off = np.bitwise_or.reduce(np.uint64(1) << places, axis=1)
        words[2 * copies :] = centers ^ off[:, None]
    return words


def measure(kind: str, photos: int) -> dict[str, float]:
    """Return CPU seconds, near-duplicates missed, and the peak memory of this process in GiB."""
    words = words_of(photos, CROWD if kind == "skewed" else 1)
    copies = photos // 100
    detected = np.zeros(copies, bool)
    start = time.process_time()
    if kind == "near":
        for a, b in perceptual_hash.pairs_within(words[:, 0], words[:, 0], DISTANCE):
            detected[a[(a < copies) & (b == a + copies)]] = True
    else:
        nearest = perceptual_hash.NearestNeighbors(words, np.arange(photos), DISTANCE)
        # The words themselves and seven random orientations.
        turned = np.random.default_rng(0).integers(
            0, 2**64, (7 * photos, perceptual_hash.WORDS), dtype=np.uint64
        )
        nearest.query(np.concatenate([words, turned]))
        query, neighbor = nearest.result()
        a, b = np.sort([query % photos, neighbor], axis=0)
        detected[a[(a < copies) & (b == a + copies)]] = True
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    return {"seconds": seconds, "missed": int((~detected).sum()), "gib": peak / GIB}


def different_pictures(count: int) -> Iterator[Pixels]:
    """Yield (256, 256, 3) pictures that are all different."""
    sources = []
    for path in sorted(REAL.rglob("*.jpg")):
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((PIXELS**0.5,) * 2)
        sources.append(picture)
    rng = np.random.default_rng(count)

    def region() -> npt.NDArray[np.float64]:
        picture = sources[rng.integers(len(sources))]
        side = rng.uniform(0.35, 0.6) * min(picture.size)
        left, top = rng.random(2) * (np.array(picture.size) - side)
        box = (left, top, left + side, top + side)
        return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box), float)

    for _ in range(count):
        share = rng.uniform(0.4, 0.6)
        yield np.rint(share * region() + (1 - share) * region()).astype(np.uint8)


def prepare(work: Path, count: int) -> None:
    """Write the outputs of prepare for `count` photos of three classes, one subject each."""
    with StoreWriter(work / STORE, SIDE) as writer:
        pictures = different_pictures(count)
        for photos in shard_slices([photo_id(f"{n:06}") for n in range(count)]):
            shard = writer.reserve(photos.stop - photos.start)
            for place in range(len(shard.pixels)):
                shard.pixels[place] = next(pictures)
            writer.add(shard)
    names = [f"{n:06}" for n in range(count)]
    table = pd.DataFrame("", index=range(count), columns=list(PREPARED_COLUMNS)).assign(
        id=[photo_id(name) for name in names],
        row=range(count),
        path=names,
        label=[f"class{n % 3}" for n in range(count)],
        subject=names,
        **dict.fromkeys(("width", "height", "right", "bottom"), SIDE),
        **dict.fromkeys(("left", "top"), 0),
    )
    files.write_table(work / PREPARED / "photos.csv", table)
    raw = params.read(ROOT / "params.yaml")
    classes: dict[str, list[str]] = {name: [] for name in sorted(set(table.label))}
    raw["datasets"] = {"different": {"layout": "folders", "classes": classes}}
    raw["dataset"] = "different"
    (work / "params.yaml").write_text(json.dumps(raw), encoding="utf-8")


def stages(count: int) -> None:
    """Print a row for each stage: photos, CPU seconds, wall seconds, memory in GiB."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        prepare(work, count)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        for name in STAGES:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start, peak = time.perf_counter(), 0
            running = subprocess.Popen(
                [sys.executable, "-m", f"stages.{name}"], cwd=work, env=environment
            )
            while running.poll() is None:
                peak = max(peak, own_memory(running.pid))
                time.sleep(0.2)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            row = (name, f"{count:,}", f"{seconds:.0f}", f"{time.perf_counter() - start:.0f}")
            print(f"| {' | '.join(row)} | {peak / GIB:.2f} | exit status {running.returncode}")


def own_memory(process: int) -> int:
    """Return the bytes of anonymous memory, 0 once the process has ended."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


def main() -> int:
    """Print the table; each row is measured in a separate process."""
    print("| search | photos | CPU time, s | memory, GiB |\n|---|--:|--:|--:|")
    failures = []
    for kind, sizes in SIZES.items():
        seconds = {}
        for photos in sizes:
            command = [sys.executable, "-m", "benchmarks.cleaning_search", kind, str(photos)]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout)
            seconds[photos] = row["seconds"]
            print(f"| {kind} | {photos:,} | {row['seconds']:.3g} | {row['gib']:.2f} |", flush=True)
            if row["missed"]:
                failures.append(
                    f"{kind}, {photos:,} photos: {row['missed']} near-duplicates missed"
                )
            if photos == max(sizes) and row["gib"] >= 2:
                failures.append(f"{kind}, {photos:,} photos: {row['gib']:.2f} GiB, the limit is 2")
        growth = seconds[sizes[1]] / seconds[sizes[0]]
        print(f"\n{kind}: twice the photos take {growth:.2f} times as long (n²: 4)\n")
        if growth >= 4:
            failures.append(f"{kind}: twice the photos take {growth:.2f} times as long")
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["stages"]:
        stages(int(sys.argv[2]))
    elif len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        sys.exit(main())
