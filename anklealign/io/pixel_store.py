"""The photo table and the pixel store that all stages pass on.

One row a photo. prepare fills these columns, later stages add theirs and drop rows, never values,
but for the label of a test part by consensus:

| column | meaning |
|---|---|
| id | 12 hex digits of the SHA-256 of the path: stable whatever the order of the files |
| row | index of the photo in the pixel store |
| path | POSIX path below data/raw/<dataset> |
| label | one of the dataset's classes; split puts the consensus here in a test part by consensus |
| collector | who took the photos: the top folder's name in a label_studio layout, or '' |
| person | who is on the photo, unique in the dataset, or '' where the name does not say |
| given | train, val or test where the photo came in such a folder, or '' |
| consensus | the class that the photo's votes come to (votes.csv), or '' |
| panel | 1 for a photo that several people were to judge: listed in consensus/, or voted on; or 0 |
| width, height | of the photo as seen, after EXIF orientation, in pixels |
| format | the decoder's name for the file's real format: JPEG, PNG, … |
| orientation | EXIF orientation 1 to 8 as found; 1 where there is none |
| bytes, sha256 | of the file |
| left, top, right, bottom | the photo's box inside the store's square, half open, in pixels |
| cluster | from clean: id of one of all the photos that copies connect with this one, or '' |
| group, split | from split: what may not be divided, and train, val or test |

Two tables stand beside it, of the photos that people voted on (both empty where nobody did):
votes.csv (photo, annotator, label), and soft_labels.csv (photo, and soft_<class> for each class:
its share of the votes, or its probability by prepare.consensus: dawid_skene). `photo` is the id.
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

from anklealign.io.files import replacing

Pixels = npt.NDArray[np.uint8]

TEXT_COLUMNS = (
    "id", "path", "label", "collector", "person", "given", "consensus", "format", "sha256",
    "cluster", "group", "split",
    "photo", "annotator",
)  # fmt: skip
PREPARED_COLUMNS = (
    "id", "row", "path", "label", "collector", "person", "given", "consensus", "panel",
    "width", "height", "format", "orientation", "bytes", "sha256", "left", "top", "right", "bottom",
)  # fmt: skip

PREPARED = Path("data/prepared")
CLEAN = Path("data/clean")
SPLIT = Path("data/split")
STORE = PREPARED / "pixels.npy"
VOTES = PREPARED / "votes.csv"
SOFT_LABELS = PREPARED / "soft_labels.csv"


def photo_id(path: str) -> str:
    """Return a photo's 12 hex digits from its POSIX path below data/raw/<dataset>.

    macOS stores accents decomposed (NFD), Linux composed (NFC): both give the same id. The chance
    that two of 30,000 photos collide is 1.6e-6; prepare checks.
    """
    text = unicodedata.normalize("NFC", path)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def read_table(path: Path) -> pd.DataFrame:
    """Return a photo table; text columns stay text, so that '007' and 'NA' survive.

    Raises:
        FileNotFoundError: The stage that writes it has not run.
    """
    columns = pd.read_csv(path, nrows=0).columns
    text = {name: str for name in columns if name in TEXT_COLUMNS}
    return pd.read_csv(path, dtype=text, keep_default_na=False)


@contextmanager
def writing_store(path: Path, photos: int, size: int) -> Iterator[Pixels]:
    """Yield a writable (N, S, S, 3) uint8 memory map that becomes the store when all went well."""
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
    """Return the (N, S, S, 3) uint8 RGB pixels, mapped, not read.

    Raises:
        FileNotFoundError: prepare has not run.
    """
    store: Pixels = np.load(path, mmap_mode="r")
    return store


def boxes_of(table: pd.DataFrame, store: Pixels) -> list[Pixels]:
    """Return each photo's (H, W, 3) pixels without the letterbox, still mapped."""
    # A plain array's view weighs 0.1 KiB, a memory map's five times that.
    pixels = np.asarray(store)
    boxes = table[["row", "left", "top", "right", "bottom"]].to_numpy()
    return [pixels[row, top:bottom, left:right] for row, left, top, right, bottom in boxes]


class Pictures(Sequence[Pixels]):
    """Photos as they came, (H, W, 3) each, but no larger than in the store.

    Without letterbox, stretch or enlargement, which make sharp photos look blurred. Those that
    need no change are still mapped; the others are made whenever they are asked for.
    """

    def __init__(self, table: pd.DataFrame, store: Pixels, fit: str) -> None:
        """Take the photo table and how its photos were fitted into the store's square."""
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
        """Return one photo's pixels, or those of several."""
        if isinstance(photo, slice):
            return [self[n] for n in range(len(self))[photo]]
        box, came = self._boxes[photo], self._sizes[photo]
        stored = np.array(box.shape[1::-1])
        width, height = np.maximum(np.round(came * min(1, *(stored / came))), 1).astype(int)
        # A letterbox rounds its sides too: a pixel more or less is no other shape.
        if abs(stored - (width, height)).max() <= 1:
            return box
        picture = Image.fromarray(box).resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(picture)
