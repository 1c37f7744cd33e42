"""What the search for copies costs in time and memory, by the number of photos.

    python -m benchmarks.cleaning_search            # about 15 minutes on one core

`near` is the search for 64-bit words within 8 bits, every photo against every other; `view` is all
that clean's search does for one of the 11 cuts that it looks each photo up with: eight orientations
of every photo against all photos, the few nearest answers of each kept. Both on random words, of
which one in a hundred has a planted copy; memory is the highest of the whole process. Exit status 1
where twice the photos take four times as long, where a planted copy is missed, or where a million
photos take 2 GiB or more.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from anklealign import hashes

ROOT = Path(__file__).resolve().parents[1]
DISTANCE = 8  # params.yaml's clean.hash_distance
SIZES = {"near": (100_000, 200_000, 1_000_000), "view": (100_000, 200_000, 1_000_000)}
GIB = 2**30


def words_of(photos: int) -> hashes.Hashes:
    """Return (N, 4) random words; the first hundredth is copied, 8 bits off in each word."""
    rng = np.random.default_rng(photos)
    words = rng.integers(0, 2**64, (photos, hashes.WORDS), dtype=np.uint64)
    copies = photos // 100
    bits = rng.permuted(np.tile(np.arange(hashes.BITS), (copies, 1)), axis=1)[:, :DISTANCE]
    off = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), axis=1)
    words[copies : 2 * copies] = words[:copies] ^ off[:, None]
    return words


def measure(kind: str, photos: int) -> dict[str, float]:
    """Return CPU seconds, planted copies missed, and the highest memory of this process in GiB."""
    words = words_of(photos)
    copies = photos // 100
    found = np.zeros(copies, bool)
    start = time.process_time()
    if kind == "near":
        for a, b in hashes.near(words[:, 0], words[:, 0], DISTANCE):
            found[a[(a < copies) & (b == a + copies)]] = True
    else:
        nearest = hashes.Nearest(words, np.arange(photos), DISTANCE)
        # As they are, and seven orientations that resemble nothing.
        turned = np.random.default_rng(0).integers(
            0, 2**64, (7 * photos, hashes.WORDS), dtype=np.uint64
        )
        nearest.ask(np.concatenate([words, turned]))
        query, answer = nearest.found()
        a, b = np.sort([query % photos, answer], axis=0)
        found[a[(a < copies) & (b == a + copies)]] = True
    seconds = time.process_time() - start
    unit = 1 if sys.platform == "darwin" else 1024
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "missed": int((~found).sum()), "gib": highest / GIB}


def main() -> int:
    """Print the table; each row in a process of its own."""
    print("| search | photos | CPU time, s | memory, GiB |\n|---|--:|--:|--:|")
    faults = []
    for kind, sizes in SIZES.items():
        taken = {}
        for photos in sizes:
            command = [sys.executable, "-m", "benchmarks.cleaning_search", kind, str(photos)]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout)
            taken[photos] = row["seconds"]
            print(f"| {kind} | {photos:,} | {row['seconds']:.3g} | {row['gib']:.2f} |", flush=True)
            if row["missed"]:
                faults.append(f"{kind}, {photos:,} photos: {row['missed']} planted copies missed")
            if photos == max(sizes) and row["gib"] >= 2:
                faults.append(f"{kind}, {photos:,} photos: {row['gib']:.2f} GiB, the bar is 2")
        growth = taken[sizes[1]] / taken[sizes[0]]
        print(f"\n{kind}: twice the photos take {growth:.2f} times as long; n² would be 4\n")
        if growth >= 4:
            faults.append(f"{kind}: twice the photos take {growth:.2f} times as long")
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        sys.exit(main())
