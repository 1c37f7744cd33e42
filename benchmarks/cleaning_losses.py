"""Count the usable photos that the quality reasons of clean would take from real sets.

    python -m benchmarks.cleaning_losses FOLDER... [--list]

Each FOLDER is one set, with a folder per class or without. Every photo is decoded and judged as
prepare and clean do, with the thresholds and actions of params.yaml, next to the thresholds alone
(without regard to the photo's set). A set is halved by the hash of the paths: thresholds are chosen
on half A and reported on half B. --list also prints each photo that would be removed or flagged.
The exit status is 1 if more than 0.2% of the usable photos of half B of all sets would be removed.

usable_photos.csv beside this file says which photos are usable. It was written by one viewer, by
eye, from contact sheets of the 24 most extreme photos by each score and of all photos that clean
removed, before any threshold moved. It lists the photos that were removed then, and those that are
not usable; any other photo, and any set that it does not name, counts as usable. The last three
sets were run once, after all thresholds were final; of these, only removed photos were looked at.
The sets are files of public GitHub repositories, in folders of these names:

    ct        GKasperek/data_c19_cropped 2f7fa6d: CT_COVID, CT_NonCOVID
    faces     muxspace/facial_expressions 5fb9c13: images
    fashion   GaneshNeupane01/Fashion-Recommendation-System 7cf2634: images/*0.jpg, images/*5.jpg
    grocery   marcusklasson/GroceryStoreDataset fc80ba9: dataset
    hands     ardamavi/Sign-Language-Digits-Dataset 4b09433: Dataset
    masks     chandrikadeb7/Face-Mask-Detection 7e50074: dataset, without with_mask/with_mask057.jpg
    monkeys   nikhildutta333/Monkey-Species-Classification cb62130: training, validation
    signs     jovanzac/Traffic 4218b16: gtsrb/*/*_000?0.ppm
    trash     congduytran12/Trash-Classification- 00212f2: dataset-resized
    fashion_rest  as fashion: images/*1.jpg, images/*6.jpg
    leaves    tran-khanhtrang/plantvillage-applergb c6e4f2b: PlantVillage/ImageDataset
    thumbs    safwan20/masks-classifier 9a589ed: dataset
"""

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from anklealign.cleaning import image_quality, removal
from anklealign.cleaning.image_quality import QUALITY_REASONS, ImageQuality
from anklealign.config import params
from anklealign.io import decode, pixel_store
from anklealign.similarity.borders import PhotoPixels

ROOT = Path(__file__).resolve().parents[1]
VERDICTS = ROOT / "benchmarks/usable_photos.csv"
GOAL = 0.002  # fraction of the usable photos
Judged = dict[str, tuple[str, str]]  # path -> reason, and score with its limit


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
    quality = image_quality.measure(PhotoPixels(shown), photo.width, photo.height)
    return Photo(path.relative_to(folder).as_posix(), path.parent.name, quality)


def read(folder: Path, prepare: params.Prepare) -> list[Photo]:
    """Return all photos of a set, in order of path."""
    files = sorted(path for path in folder.resolve().rglob("*") if path.is_file())
    measure_one = partial(measure, folder=folder.resolve(), prepare=prepare)
    with ThreadPoolExecutor() as pool:
        return [photo for photo in pool.map(measure_one, files) if photo]


def judge(photos: list[Photo], settings: params.Clean) -> tuple[Judged, Judged]:
    """Return the photos that clean would remove, and those that it would flag and keep."""
    table = pd.DataFrame({"label": [photo.label for photo in photos], "collector": ""})
    faults = removal.faults_by_action(table, [photo.quality for photo in photos], settings)
    removed, flagged = (
        {
            photo.path: (
                fault.reason,
                f"{getattr(photo.quality, fault.reason):.4g} ({fault.limit:.4g})",
            )
            for photo, fault in zip(photos, found, strict=True)
            if fault
        }
        for found in faults
    )
    return removed, {path: why for path, why in flagged.items() if path not in removed}


def by_threshold(photos: list[Photo], settings: params.Clean) -> int:
    """Return how many photos are beyond a threshold, whether or not that is unusual."""
    limits = {reason: float(getattr(settings, reason)) for reason in QUALITY_REASONS}
    return sum(bool(image_quality.find_faults([photo.quality], [], limits)[0]) for photo in photos)


def read_verdicts(path: Path) -> dict[str, set[str]]:
    """Return the paths of the unusable photos of each set."""
    unusable: dict[str, set[str]] = {}
    for row in pd.read_csv(path, dtype=str, keep_default_na=False).itertuples():
        if row.usable == "no":
            unusable.setdefault(str(row.set), set()).add(str(row.path))
    return unusable


def in_half_b(path: str) -> bool:
    """Return whether a photo is in the half that results are reported on."""
    return int(pixel_store.photo_id(path), 16) % 2 == 1


def row_of(
    photos: list[Photo], unusable: Collection[str], judged: tuple[Judged, Judged]
) -> dict[str, Any]:
    """Return the counts of the photos of one half of a set.

    Args:
        photos: N photos.
        unusable: Paths of those that are not usable, by eye; the others are.
        judged: Removed and flagged photos of the whole set.
    """
    removed, flagged = judged
    good = [photo.path for photo in photos if photo.path not in unusable]
    poor = [photo.path for photo in photos if photo.path in unusable]
    lost = [path for path in good if path in removed]
    reasons = Counter(removed[path][0] for path in lost)
    return {
        "usable": len(good),
        "lost": len(lost),
        "%": f"{100 * len(lost) / max(1, len(good)):.2f}",
        "reasons": ", ".join(f"{name} {n}" for name, n in sorted(reasons.items())),
        "flagged": sum(path in flagged for path in good),
        "unusable": len(poor),
        "unusable removed": sum(path in removed for path in poor),
        "unusable flagged": sum(path in flagged for path in poor),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="print each photo removed or flagged")
    options = parser.parse_args()
    raw = params.read(ROOT / "params.yaml")
    prepare = params.section(raw, "prepare", params.Prepare)
    settings = params.section(raw, "clean", params.Clean)
    unusable = read_verdicts(VERDICTS)
    Image.MAX_IMAGE_PIXELS = None  # prepare has its own limit
    warnings.filterwarnings("ignore", module="PIL")
    rows = []
    for folder in options.folders:
        photos = read(folder, prepare)
        judged = judge(photos, settings)
        for half in "AB":
            members = [photo for photo in photos if in_half_b(photo.path) == (half == "B")]
            counts = row_of(members, unusable.get(folder.name, ()), judged)
            alone = {"beyond a threshold": by_threshold(members, settings)}
            rows.append({"set": folder.name, "half": half} | counts | alone)
        if options.list:
            for name, found in zip(("removed", "flagged"), judged, strict=True):
                for path, (reason, score) in found.items():
                    verdict = "not usable" if path in unusable.get(folder.name, ()) else "usable"
                    print(f"{folder.name}/{path}: {name}, {reason} {score}; {verdict}", flush=True)
    table = pd.DataFrame(rows)
    print(table.to_markdown(index=False, disable_numparse=True))
    halves_b = table[table.half == "B"]
    lost, usable = halves_b.lost.sum(), halves_b.usable.sum()
    print(f"\nhalf B of all sets: {lost} of {usable} usable photos removed")
    return int(lost > GOAL * usable)


if __name__ == "__main__":
    sys.exit(main())
