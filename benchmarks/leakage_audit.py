"""Measure the leakage audit: CPU time by the number of photos, and what the index misses.

    python -m benchmarks.leakage_audit FOLDER [FOLDER …] --photos 6000 12000 25000 --against v1.0
    python -m benchmarks.leakage_audit FOLDER --crops 1 --photos 3995     # the photos as they are

Takes real photos, spread over the folders, each under --crops crops and colors, and adds changed
copies of every kind of benchmarks.cleaning. The copies and 15% of the photos are the test split, as
many validation, the others train. Each audit runs in a process of its own, on the same files. The
reference is the audit of all pairs, of the code of --against, a revision of git, or of this one.

Prints the CPU seconds of the audit (without imports), their ratio to the reference's and to those
of the size before, the share of the reference's pairs that are also detected, and the copies that
either detects. The exit status is 1 if less than the shares in MIN_RECALL of what the reference
detects are detected, or if twice the photos take over MAX_GROWTH times as long.
"""

import argparse
import io
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anklealign.io import decode
from benchmarks import cleaning

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".jpg", ".jpeg", ".png"}
LARGEST = 640  # pixels, longer side of a source photo
MIN_RECALL = {"copies": 0.99, "pairs": 0.98}
MAX_GROWTH = 2.3
SHARES = (0.15, 0.15, 0.7)  # of test, validation and train
# Left and top corner, in shares of the free space, whether mirrored, and gains of the colors.
CROPS = (
    (0.0, 0.0, False, (1.0, 1.0, 1.0)),
    (1.0, 1.0, False, (1.1, 1.0, 0.9)),
    (1.0, 0.0, True, (0.9, 0.9, 1.1)),
    (0.0, 1.0, True, (0.8, 1.0, 1.0)),
)
CROP_SIDE = 0.6  # of the photo's side
# Runs with the code of any revision, so it uses only what has long been there.
AUDIT = """
import json, sys, time
from pathlib import Path
import numpy as np
from anklealign.config import params
from anklealign.splitting import leakage
folder, exhaustive = sys.argv[1:]
if exhaustive == "True":
    leakage.EXHAUSTIVE = 10**9
pixels = np.load(folder + "/pixels.npy", mmap_mode="r")
rows = json.load(open(folder + "/photos.json"))
photos = [pixels[n, t:b, l:r] for n, (_, (l, t, r, b)) in enumerate(rows)]
settings = params.section(params.read(Path(folder) / "params.yaml"), "split", params.Split)
start = time.process_time()
pairs = leakage.LeakageAudit(photos).nearest_pairs([row[0] for row in rows], ("test", "val"))
seconds = time.process_time() - start
same = [sorted((p.a, p.b)) for p in pairs if leakage.same_picture(p, settings)]
print(json.dumps({"seconds": seconds, "compared": len(pairs), "same": same}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leakage_audit")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--photos", nargs="+", type=int, default=[2000, 4000])
    parser.add_argument("--crops", type=int, default=len(CROPS), help="of each photo, 1 to 4")
    parser.add_argument("--each", type=int, default=20, help="copies of each kind")
    parser.add_argument("--side", type=int, default=64, help="pixels, of the stored photos")
    parser.add_argument("--against", help="revision whose audit is the reference")
    parser.add_argument("--reference", nargs="*", type=int, help="sizes with it; all by default")
    options = parser.parse_args(arguments)
    failures: list[str] = []
    seconds: dict[int, float] = {}
    print("| photos | CPU s | to the size before | reference, CPU s | ratio | pairs compared "
          "| same pictures | of the reference's |\n|--:|--:|--:|--:|--:|--:|--:|--:|")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="audit-") as temporary:
        code = ROOT if options.against is None else checkout(options.against, Path(temporary))
        for count in options.photos:
            folder = Path(temporary) / str(count)
            truth = write_set(folder, sources(options.folders), count, options)
            ours = audit(folder, ROOT)
            seconds[count] = ours["seconds"]
            reference = None
            if options.reference is None or count in options.reference:
                reference = audit(folder, code, exhaustive=True)
            failures += report(count, seconds, ours, reference, truth)
    print("\n".join(failures))
    return 1 if failures else 0


def sources(folders: Sequence[Path]) -> list[Path]:
    """Return the photos of the folders, in an order that mixes them."""
    paths = sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES
    )
    return [paths[n] for n in np.random.default_rng(0).permutation(len(paths))]


def pictures(paths: Sequence[Path], crops: int) -> Iterator[Image.Image]:
    """Yield each readable photo under its crops and colors; as it is for one crop."""
    for path in paths:
        try:
            picture = Image.open(path).convert("RGB")
        except (OSError, ValueError):
            continue
        picture.thumbnail((LARGEST, LARGEST))
        if crops == 1:
            yield picture
            continue
        width, height = (max(1, round(CROP_SIDE * side)) for side in picture.size)
        for left, top, mirrored, gains in CROPS[:crops]:
            x, y = left * (picture.width - width), top * (picture.height - height)
            part = picture.crop((round(x), round(y), round(x) + width, round(y) + height))
            if mirrored:
                part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            table = [min(255, round(gain * level)) for gain in gains for level in range(256)]
            yield part.point(table)


def write_set(
    folder: Path, paths: Sequence[Path], count: int, options: argparse.Namespace
) -> dict[int, tuple[str, int]]:
    """Write `count` photos, a part of them copies; return kind and original of each copy."""
    kinds = list(cleaning.COPIES)
    originals = count - options.each * len(kinds)
    rng = np.random.default_rng(count)
    copied = rng.choice(originals, options.each * len(kinds), replace=False)
    kind_of = {int(n): kinds[place % len(kinds)] for place, n in enumerate(copied)}
    folder.mkdir()
    shape = (count, options.side, options.side, 3)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, shape)
    rows: list[tuple[str, tuple[int, ...]]] = []

    def add(picture: Image.Image, split: str) -> None:
        pixels[len(rows)], box = decode.fit(picture, options.side, "letterbox", 114)
        rows.append((split, tuple(int(edge) for edge in box)))

    copies = []
    for number, picture in zip(range(originals), pictures(paths, options.crops), strict=False):
        split = "train" if number in kind_of else rng.choice(["test", "val", "train"], p=SHARES)
        add(picture, str(split))
        if number in kind_of:
            changed = cleaning.COPIES[kind_of[number]](picture, rng)
            copies.append((number, Image.open(io.BytesIO(changed)).convert("RGB")))
    if len(rows) < originals:
        raise SystemExit(f"the folders have photos for {len(rows):,} of {originals:,}")
    truth = {}
    for number, picture in copies:
        truth[len(rows)] = (kind_of[number], number)
        add(picture, "test")
    pixels.flush()
    (folder / "photos.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return truth


def audit(folder: Path, code: Path, *, exhaustive: bool = False) -> dict[str, Any]:
    """Return the CPU seconds, the number of compared pairs, and those of the same picture."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-W", "ignore", "-c", AUDIT, str(folder), str(exhaustive)]
    environment = os.environ | threads | {"PYTHONPATH": str(code)}
    done = subprocess.run(command, cwd=code, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def checkout(revision: str, folder: Path) -> Path:
    """Return the folder of the code of a revision."""
    packed = subprocess.run(
        ["git", "archive", revision, "anklealign"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder / "code", filter="data")
    return folder / "code"


def report(
    count: int,
    seconds: dict[int, float],
    ours: dict[str, Any],
    reference: dict[str, Any] | None,
    truth: dict[int, tuple[str, int]],
) -> list[str]:
    """Print a row and return what misses its bound."""
    failures, cells = [], [f"{count:,}", f"{seconds[count]:.1f}"]
    before = max((size for size in seconds if size < count), default=0)
    cells.append("")
    if before:
        growth = seconds[count] / seconds[before]
        cells[-1] = f"{growth:.2f}"
        if growth > MAX_GROWTH ** math.log2(count / before):
            failures.append(f"{count:,} photos: {growth:.2f} times the time of {before:,}")
    same = {tuple(pair) for pair in ours["same"]}
    expected = {tuple(pair) for pair in reference["same"]} if reference else set()
    shared = len(same & expected) / max(1, len(expected))
    cells += ["", ""] if reference is None else [
        f"{reference['seconds']:.1f}", f"{seconds[count] / reference['seconds']:.3f}"
    ]  # fmt: skip
    cells += [f"{ours['compared']:,}", f"{len(same):,}"]
    cells.append(f"{len(same & expected):,} of {len(expected):,}" if reference else "")
    print(f"| {' | '.join(cells)} |", flush=True)
    detected, possible = Counter[str](), Counter[str]()
    for copy, (kind, original) in truth.items():
        detected[kind] += (original, copy) in same
        possible[kind] += (original, copy) in expected if reference else 1
    failures += [
        f"{count:,} photos, {kind}: {detected[kind]} of {possible[kind]}"
        for kind in cleaning.COPIES
        if reference and detected[kind] < MIN_RECALL["copies"] * possible[kind]
    ]
    print(f"{count:,} photos: {detected.total()} copies of {len(truth)} detected, "
          f"the reference {possible.total()}", file=sys.stderr)  # fmt: skip
    if reference and shared < MIN_RECALL["pairs"]:
        failures.append(f"{count:,} photos: {shared:.3f} of the reference's pairs")
    return failures


if __name__ == "__main__":
    sys.exit(main())
