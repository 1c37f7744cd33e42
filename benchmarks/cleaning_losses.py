"""Count the photos that the quality reasons of clean would take from folders of real photos.

    python -m benchmarks.cleaning_losses FOLDER... [--list]

Each FOLDER is one set, with a folder per class; docs/data-cleaning.md has the table of the sets
that the defaults were chosen on. Every photo is decoded and judged as prepare and clean do, with
the thresholds of params.yaml, next to the thresholds alone (without regard to the photo's set). A
set is halved by the hash of the paths, so that thresholds can be chosen on half A and reported on
half B; that was not kept for the table there. --list also prints the path and the score of each
photo that would be removed, to be looked
at. The exit status is 1 if more than 0.2% of the photos of half B of all sets would be removed;
sets with unusable photos are to be judged by eye.
"""

import argparse
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

from anklealign.cleaning import image_quality
from anklealign.cleaning.image_quality import QUALITY_REASONS, ImageQuality
from anklealign.config import params
from anklealign.io import decode, pixel_store

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.002  # fraction of the usable photos


@dataclass(frozen=True)
class Photo:
    """One photo of a set: its path in the folder, its class, and its measures."""

    path: str
    label: str
    quality: ImageQuality


def measure(path: Path, folder: Path, prepare: params.Prepare) -> Photo | None:
    """Return the measures of one file as prepare stores it, or None if it cannot be read."""
    try:
        photo = decode.open_photo(path, prepare.max_megapixels, 2 * prepare.size)
    except decode.PhotoError:
        return None
    pixels, (left, top, right, bottom) = decode.fit(
        photo.image, prepare.size, "letterbox", prepare.fill
    )
    row = {"row": 0, "left": left, "top": top, "right": right, "bottom": bottom}
    table = pd.DataFrame([row | {"width": photo.width, "height": photo.height}])
    (shown,) = pixel_store.Pictures(table, pixels[None], "letterbox")
    quality = image_quality.measure(shown, photo.width, photo.height)
    return Photo(path.relative_to(folder).as_posix(), path.parent.name, quality)


def read(folder: Path, prepare: params.Prepare) -> list[Photo]:
    """Return all photos of a set, in order of path."""
    files = sorted(path for path in folder.resolve().rglob("*") if path.is_file())
    measure_one = partial(measure, folder=folder.resolve(), prepare=prepare)
    with ThreadPoolExecutor() as pool:
        return [photo for photo in pool.map(measure_one, files) if photo]


def losses(photos: list[Photo], limits: dict[str, float]) -> dict[str, tuple[str, str]]:
    """Return the reason, and the score with its limit, of each photo that would be removed."""
    faults = image_quality.find_faults(
        [photo.quality for photo in photos], [[photo.label for photo in photos]], limits
    )
    removed = {}
    for photo, found in zip(photos, faults, strict=True):
        if found:
            reason, limit = found[0].reason, found[0].limit
            removed[photo.path] = (reason, f"{getattr(photo.quality, reason):.4g} ({limit:.4g})")
    return removed


def by_threshold(photos: list[Photo], limits: dict[str, float]) -> int:
    """Return how many photos the thresholds alone would remove."""
    return sum(bool(image_quality.find_faults([photo.quality], [], limits)[0]) for photo in photos)


def in_half_b(path: str) -> bool:
    """Return whether a photo is in the half that results are reported on."""
    return int(pixel_store.photo_id(path), 16) % 2 == 1


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="print each photo removed")
    options = parser.parse_args()
    raw = params.read(ROOT / "params.yaml")
    prepare = params.section(raw, "prepare", params.Prepare)
    settings = params.section(raw, "clean", params.Clean)
    limits = {reason: float(getattr(settings, reason)) for reason in QUALITY_REASONS}
    Image.MAX_IMAGE_PIXELS = None  # prepare has its own limit
    warnings.filterwarnings("ignore", module="PIL")
    print("| set | half | photos | removed | % | reasons | by thresholds alone |")
    print("| --- | --- | --: | --: | --: | --- | --: |")
    photos_b = removed_b = 0
    for folder in options.folders:
        photos = read(folder, prepare)
        removed = losses(photos, limits)
        for half in "AB":
            members = [photo for photo in photos if in_half_b(photo.path) == (half == "B")]
            reasons = Counter(removed[p.path][0] for p in members if p.path in removed)
            count = sum(reasons.values())
            if half == "B":
                photos_b, removed_b = photos_b + len(members), removed_b + count
            share = 100 * count / max(1, len(members))
            listed = ", ".join(f"{name} {n}" for name, n in sorted(reasons.items()))
            alone = by_threshold(members, limits)
            print(
                f"| {folder.name} | {half} | {len(members)} | {count} | {share:.2f} | {listed} | "
                f"{alone} |",
                flush=True,
            )
        if options.list:
            for path, (reason, score) in removed.items():
                print(f"  {path}: {reason} {score}")
    print(f"\nhalf B of all sets: {removed_b} of {photos_b} photos removed")
    return int(removed_b > GOAL * photos_b)


if __name__ == "__main__":
    sys.exit(main())
