"""Choose the unlabeled photos to label next, as an import for Label Studio.

    anklealign next --count 50                   # of the dataset's photos without a label
    anklealign next ~/photos/new --count 50      # of a folder

Reads the trained bundle, the labeled photos of the last run, and the unlabeled photos: those that
prepare skipped for want of a label, or those below the given folders. Writes next_photos.csv (the
chosen photos, most uncertain first) and label_studio.json, with the predicted class of each photo
as a pre-annotation. Near-duplicates of labeled photos and of each other are left out
(`anklealign/annotation/photo_selection.py`). The same photos give the same files.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from anklealign.annotation import photo_selection
from anklealign.cli.label_issues import Suggestion, Tasks
from anklealign.cli.photo_sources import photos_in
from anklealign.config import params, paths
from anklealign.config.params import Clean
from anklealign.inference.predictor import Predictor
from anklealign.ingest.inventory import escape_unprintable
from anklealign.io import decode, files, pixel_store
from anklealign.io.pixel_store import Pixels

# Reasons of skipped.csv for which a photo has no label, but may be a good one.
UNLABELED = (
    "no_task", "no_label", "prediction_only", "draft_only", "no_class_folder", "no_label_in_name",
)  # fmt: skip
CHUNK = 256  # photos decoded before a forward pass; bounds the memory
COLUMNS = ["path", "sha256", "predicted", "probability", "uncertainty"]


@dataclass(frozen=True)
class UnlabeledPhoto:
    """A photo to choose from: its file, its address after the prefix, and its SHA-256."""

    file: Path
    address: str
    sha256: str


def write_next(
    folders: Sequence[Path], count: int, out: Path, *, address: str, from_name: str, to_name: str
) -> int:
    """Write the chosen photos; return the exit status, 1 if there are none.

    Args:
        folders: Photos and folders; empty for the unlabeled photos of the dataset.
        count: Number of photos.
        out: Folder to write to.
        address: Address in Label Studio before a photo's path.
        from_name: Name of the project's Choices tag.
        to_name: Name of its Image tag, and key of the data.
    """
    try:
        raw = params.read()
        name, dataset = params.dataset(raw)
        clean = params.section(raw, "clean", Clean)
        predictor = Predictor.load(paths.MODEL, params.section(raw, "train.device", str))
        table = pixel_store.read_table(paths.PREPARED / "photos.csv").sort_values("id")
        labeled = pixel_store.Boxes(table, pixel_store.open_store())
        photos = distinct(unlabeled_photos(folders, name), set(table.sha256))
        described = describe(predictor, photos)
    except (ValueError, OSError) as error:
        print(f"next: {error}", file=sys.stderr)
        return 1
    order = described.order()
    kept = photo_selection.without_duplicates(
        list(labeled), [described.pictures[n] for n in order],
        distance=clean.hash_distance, residual=clean.residual,
        squares=dataset.fit == "crop", mirror_safe=dataset.mirror_safe,
    )  # fmt: skip
    different = np.array(order)[kept]
    chosen = different[
        photo_selection.choose(
            described.features[different],
            described.uncertainty[different],
            [described.photos[n].sha256 for n in different],
            count,
        )
    ]
    rows = described.rows(chosen.tolist(), predictor.classes)
    files.write_table(out / "next_photos.csv", rows)
    suggestions = [
        Suggestion(row["path"], row["predicted"], row["probability"], {"sha256": row["sha256"]})
        for row in rows.to_dict("records")
    ]
    tasks = Tasks(dataset, address, from_name, to_name)
    tasks.write(out / "label_studio.json", suggestions)
    print(
        f"next: {len(rows)} of {len(photos)} unlabeled photos chosen,\n"
        f"{len(order) - len(kept)} near-duplicates left out, {described.unreadable} unreadable;\n"
        f"see {out}/next_photos.csv and, for Label Studio, {out}/label_studio.json"
    )
    return 0


def unlabeled_photos(folders: Sequence[Path], name: str) -> list[tuple[Path, str]]:
    """Return the files and their addresses: below the dataset's folder, or the folders given.

    Raises:
        ValueError: There is no photo in the folders.
    """
    if folders:
        parents = {folder: (folder if folder.is_dir() else folder.parent) for folder in folders}
        return [
            (Path(file), Path(file).resolve().relative_to(parent.resolve().parent).as_posix())
            for folder, parent in parents.items()
            for file in photos_in([str(folder)])
        ]
    skipped = pd.read_csv(paths.PREPARED / "skipped.csv", dtype=str, keep_default_na=False)
    rows = skipped[(skipped["item"] == "file") & skipped.reason.isin(UNLABELED)]
    root = paths.RAW / name
    # A path that had to be escaped is no path; its file is left out.
    return [(root / p, f"{name}/{p}") for p in sorted(rows.path) if (root / p).is_file()]


def distinct(photos: Sequence[tuple[Path, str]], labeled: set[str]) -> list[UnlabeledPhoto]:
    """Return the photos by hash, without files that are labeled, and each file once."""
    by_hash: dict[str, UnlabeledPhoto] = {}
    for file, address in sorted(photos, key=lambda photo: photo[1]):
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if sha256 not in labeled and escape_unprintable(address) == address:
            by_hash.setdefault(sha256, UnlabeledPhoto(file, address, sha256))
    return [by_hash[sha256] for sha256 in sorted(by_hash)]


@dataclass(frozen=True)
class Described:
    """The readable photos, what the model says of them, and the number of unreadable ones."""

    photos: list[UnlabeledPhoto]
    pictures: list[Pixels]  # without letterbox
    features: np.ndarray[tuple[int, ...], np.dtype[np.float32]]  # (N, C)
    probabilities: np.ndarray[tuple[int, ...], np.dtype[np.float64]]  # (N, K)
    unreadable: int

    @property
    def uncertainty(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Return the uncertainty of each photo: (N,)."""
        return photo_selection.uncertainty(self.probabilities)

    def order(self) -> list[int]:
        """Return the photos, the most uncertain first; ties by hash."""
        values = self.uncertainty
        return sorted(range(len(self.photos)), key=lambda n: (-values[n], self.photos[n].sha256))

    def rows(self, chosen: Sequence[int], classes: Sequence[str]) -> pd.DataFrame:
        """Return the table of the chosen photos."""
        values = self.uncertainty
        rows = [
            (
                self.photos[n].address,
                self.photos[n].sha256,
                classes[int(self.probabilities[n].argmax())],
                round(float(self.probabilities[n].max()), 4),
                round(float(values[n]), 4),
            )
            for n in chosen
        ]
        return pd.DataFrame(rows, columns=COLUMNS)


def describe(predictor: Predictor, photos: Sequence[UnlabeledPhoto]) -> Described:
    """Return features and probabilities of the readable photos.

    Raises:
        ValueError: There is no photo, or none can be read.
    """
    if not photos:
        raise ValueError("there is no unlabeled photo; name a folder: anklealign next PHOTOS")
    readable: list[UnlabeledPhoto] = []
    pictures: list[Pixels] = []
    features, probabilities = [], []
    with tqdm(total=len(photos), unit="photo", delay=1, leave=False, disable=None) as bar:
        for start in range(0, len(photos), CHUNK):
            squares = []
            for photo in photos[start : start + CHUNK]:
                bar.update()
                try:
                    opened = predictor.open_photo(photo.file)
                except decode.PhotoError:
                    continue
                left, top, right, bottom = opened.box
                readable.append(photo)
                squares.append(opened.pixels)
                pictures.append(opened.pixels[top:bottom, left:right])
            if squares:
                own, values = predictor.describe(np.stack(squares), np.arange(len(squares)))
                probabilities.append(own)
                features.append(values.flatten(1).numpy())
    if not readable:
        raise ValueError(f"none of {len(photos)} unlabeled photos can be read")
    return Described(
        readable,
        pictures,
        np.concatenate(features),
        np.concatenate(probabilities),
        len(photos) - len(readable),
    )
