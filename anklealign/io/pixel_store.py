"""The photo table and the pixel store that the stages pass on.

The table has one row per photo. prepare fills these columns; later stages add columns and drop rows
but never change values, except for the label of a test split by consensus:

| column | meaning |
|---|---|
| id | first 12 hex digits of the SHA-256 of the path: independent of the order of the files |
| row | index of the photo in the pixel store |
| path | POSIX path below data/raw/<dataset> |
| label | one of the dataset's classes; in a test split by consensus, the consensus label |
| collector | who took the photo: the top-level folder in a label_studio layout, or '' |
| subject | who is in the photo, unique in the dataset, or '' if unknown |
| predefined_split | train, val or test if the photo is in such a folder, or '' |
| consensus | the label aggregated from the photo's votes (votes.csv), or '' |
| multi_annotated | 1 for a photo that is listed in consensus/ or has votes, else 0 |
| width, height | of the photo after applying the EXIF orientation, in px |
| format | the decoder's name of the file's format: JPEG, PNG, … |
| orientation | EXIF orientation 1 to 8 of the file; 1 if missing |
| bytes, sha256 | size and hash of the file |
| left, top, right, bottom | the photo's half-open box inside the store's square, in px |
| cluster | from clean: the id of one photo in the cluster of duplicates, or '' |
| group, split | from split: what stays within one split, and train, val or test |

Two more tables hold the photos with votes (both are empty without votes): votes.csv (photo,
annotator, label), and soft_labels.csv (photo, and soft_<class> for each class: its fraction of the
votes, or its probability with prepare.consensus: dawid_skene). `photo` is the id.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from anklealign.config.paths import STORE
from anklealign.io.files import replacing

Pixels = npt.NDArray[np.uint8]

TEXT_COLUMNS = (
    "id", "path", "label", "collector", "subject", "predefined_split", "consensus", "format",
    "sha256",
    "cluster", "group", "split",
    "photo", "annotator", "actual", "predicted", "class",
    "reason", "kept_id", "kept_path", "why", "beside", "path_a", "path_b",
)  # fmt: skip
PREPARED_COLUMNS = (
    "id", "row", "path", "label", "collector", "subject", "predefined_split", "consensus",
    "multi_annotated",
    "width", "height", "format", "orientation", "bytes", "sha256", "left", "top", "right", "bottom",
)  # fmt: skip


def photo_id(path: str) -> str:
    """Return the id of a photo, 12 hex digits, from its POSIX path below data/raw/<dataset>.

    macOS stores accents decomposed (NFD), Linux composed (NFC); both give the same id. Among 30,000
    photos, the probability of a collision is 1.6e-6; prepare checks for it.
    """
    text = unicodedata.normalize("NFC", path)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def read_table(path: Path) -> pd.DataFrame:
    """Return a photo table; text columns are read as text, so that '007' and 'NA' are kept.

    Raises:
        FileNotFoundError: The stage that writes the table has not run.
    """
    columns = pd.read_csv(path, nrows=0).columns
    text = {name: str for name in columns if name in TEXT_COLUMNS}
    return pd.read_csv(path, dtype=text, keep_default_na=False)


@contextmanager
def writing_store(path: Path, photos: int, size: int) -> Iterator[Pixels]:
    """Yield a writable (N, S, S, 3) uint8 memory map that becomes the store on success."""
    with replacing(path) as temporary:
        if photos:
            store: Pixels = np.lib.format.open_memmap(
                temporary, mode="w+", dtype=np.uint8, shape=(photos, size, size, 3)
            )
        else:  # an empty file cannot be mapped
            store = np.zeros((0, size, size, 3), np.uint8)
            with temporary.open("wb") as stream:
                np.save(stream, store)
        yield store
        if isinstance(store, np.memmap):
            store.flush()


def open_store(path: Path = STORE) -> Pixels:
    """Return the memory-mapped (N, S, S, 3) uint8 RGB pixels.

    Raises:
        FileNotFoundError: prepare has not run.
    """
    store: Pixels = np.load(path, mmap_mode="r")
    return store


def boxes_of(table: pd.DataFrame, store: Pixels) -> list[Pixels]:
    """Return memory-mapped (H, W, 3) pixels of each photo without its letterbox."""
    # A view of a plain array takes 0.1 KiB, a view of a memory map five times as much.
    pixels = np.asarray(store)
    boxes = table[["row", "left", "top", "right", "bottom"]].to_numpy()
    return [pixels[row, top:bottom, left:right] for row, left, top, right, bottom in boxes]


class Pictures(Sequence[Pixels]):
    """Photos at their original aspect ratio, (H, W, 3) each, and at most their stored size.

    Letterbox, stretching and enlargement are undone, because they make sharp photos look blurred.
    Photos that need no change are memory-mapped; others are computed on access.
    """

    def __init__(self, table: pd.DataFrame, store: Pixels, fit: str) -> None:
        """Set the photo table and the mode in which its photos were fitted into the square."""
        self._boxes = boxes_of(table, store)
        self._sizes = table[["width", "height"]].to_numpy()
        if fit == "crop":
            self._sizes = np.repeat(self._sizes.min(axis=1, keepdims=True), 2, axis=1)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._boxes)

    @overload
    def __getitem__(self, photo: int) -> Pixels: ...
    @overload
    def __getitem__(self, photo: slice) -> "list[Pixels]": ...
    def __getitem__(self, photo: int | slice) -> "Pixels | list[Pixels]":
        """Return the pixels of one photo, or a list for a slice."""
        if isinstance(photo, slice):
            return [self[n] for n in range(len(self))[photo]]
        box, original = self._boxes[photo], self._sizes[photo]
        stored = np.array(box.shape[1::-1])
        width, height = np.maximum(np.round(original * min(1, *(stored / original))), 1).astype(int)
        # The letterbox rounds its sides, so a difference of 1 px is the same shape.
        if abs(stored - (width, height)).max() <= 1:
            return box
        picture = Image.fromarray(box).resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(picture)
