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

The pixel store is a folder of shards and an index. A shard is an uncompressed .npy file, (n, S, S,
3) uint8, of consecutive photos in the order of their paths, named by the SHA-256 of its bytes.
index.json lists the side S and the name and number of photos of each shard, in order. No other
module knows this format.

A shard ends after a photo whose id is the smallest among its REACH neighbors on each side. Ids are
hashes of paths, so shards have 129 photos on average, and a new photo changes only the shards of
its neighborhood: among 30,000 random ids, 10 in one new folder rewrite 0.6% of the bytes (at most
1.4% in 60 trials), and 10 scattered ones 4.9% (at most 6.6%). At twice the size, 10 scattered ones
rewrite up to 12.7%; a minimum and a maximum size with a mask for the ids between them make that
share larger, because a cut at the maximum moves with every new photo.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from copy import copy
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from operator import sub
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from anklealign.config.paths import CACHE, STORE
from anklealign.io import files

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.integer[Any]]

REACH = 64  # photos on each side
INDEX = "index.json"
ARCHIVE = CACHE / "shards"
# Shards mapped at a time. Each takes a file descriptor, of which a process may have 1,024 on Linux
# and 256 on macOS.
MAPPED = 128
REMEDY = "run `dvc checkout` or `dvc repro prepare`"

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
    return files.read_table(path, TEXT_COLUMNS)


class PixelStore(Sequence[Pixels]):
    """The photos of a store, (N, S, S, 3) uint8 RGB, read-only and memory-mapped by shard.

    Indexed like an array by its first axis: a number gives a view of one photo, a slice or an array
    of numbers a copy of several, and a tuple that starts with a number a part of one photo.
    """

    def __init__(self, folder: Path) -> None:
        """Read the index.

        Raises:
            FileNotFoundError: There is no store.
            ValueError: The index is damaged.
        """
        self._folder = folder
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self._side = int(index["side"])
            self._names = [str(name) for name, _ in index["shards"]]
            self._starts = list(
                accumulate((int(photos) for _, photos in index["shards"]), initial=0)
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{folder / INDEX}: not the index of a pixel store; {REMEDY}"
            ) from None
        self._shard = lru_cache(MAPPED)(self._map)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return (N, S, S, 3)."""
        return len(self), self._side, self._side, 3

    @property
    def shards(self) -> list[tuple[str, int]]:
        """Return the file name and the number of photos of each shard."""
        return list(zip(self._names, map(sub, self._starts[1:], self._starts), strict=True))

    def __len__(self) -> int:
        """Return the number of photos N."""
        return self._starts[-1]

    # Rows are chosen by arrays, too, and the result is always an array.
    @overload  # type: ignore[override]
    def __getitem__(self, rows: int | np.integer[Any] | tuple[Any, ...]) -> Pixels: ...
    @overload
    def __getitem__(self, rows: slice | Rows) -> Pixels: ...
    def __getitem__(self, rows: Any) -> Pixels:
        """Return the pixels of one photo or several.

        Raises:
            IndexError: A row is not in the store.
            FileNotFoundError, ValueError: A shard is missing or damaged.
        """
        if isinstance(rows, tuple):
            row, *rest = rows
            part: Pixels = self._photo(int(row))[tuple(rest)]
            return part
        if isinstance(rows, int | np.integer):
            return self._photo(int(rows))
        if isinstance(rows, slice):
            rows = range(len(self))[rows]
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            chosen = np.arange(len(self))[chosen]
        pixels: Pixels = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for n, row in enumerate(chosen.tolist()):
            pixels[n] = self._photo(row)
        return pixels

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:  # noqa: ANN401
        """Return all pixels in memory."""
        return np.asarray(self[:], dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path only: another process maps the same files."""
        return PixelStore, (self._folder,)

    def _photo(self, row: int) -> Pixels:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a pixel store of {len(self)} photos")
        row %= len(self)
        number = bisect_right(self._starts, row) - 1
        photo: Pixels = self._shard(number)[row - self._starts[number]]
        return photo

    def _map(self, number: int) -> Pixels:
        """Return the pixels of a shard."""
        path = self._folder / self._names[number]
        shape = (self._starts[number + 1] - self._starts[number], *self.shape[1:])
        try:
            pixels = _load(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} is missing; {REMEDY}") from None
        except (ValueError, EOFError):
            pixels = None
        if pixels is None or pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError(f"{path} is damaged; {REMEDY}")
        return pixels


# What functions read photos from: a store, or an array of (N, S, S, 3).
Photos = PixelStore | Pixels


def open_store(folder: Path = STORE) -> PixelStore:
    """Return the pixel store.

    Raises:
        FileNotFoundError: prepare has not run.
    """
    return PixelStore(folder)


def store_sha256(folder: Path = STORE) -> str:
    """Return the hex SHA-256 of the index, which names the content of every shard."""
    return files.sha256(folder / INDEX)


def shard_slices(ids: Sequence[str]) -> list[slice]:
    """Return the photos of each shard of a store with these photo ids, in order."""
    if not ids:
        return []
    hashes = np.array([int(name, 16) for name in ids], np.uint64)
    padded = np.pad(hashes, REACH, constant_values=np.iinfo(np.uint64).max)
    ends = np.flatnonzero(hashes == sliding_window_view(padded, 2 * REACH + 1).min(axis=1)) + 1
    edges = sorted({0, *ends.tolist(), len(ids)})
    return [slice(start, end) for start, end in pairwise(edges)]


class Shard:
    """A shard that is being written: (n, S, S, 3) `pixels`, for which the disk has room."""

    def __init__(self, folder: Path, photos: int, side: int) -> None:
        """Reserve the space.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        self.path = files.temporary_path(folder / "shard.npy")
        try:
            self.pixels: Pixels = np.lib.format.open_memmap(
                self.path, mode="w+", dtype=np.uint8, shape=(photos, side, side, 3)
            )
            # Without this, writing to a mapped file on a full disk ends the process with SIGBUS.
            _reserve(self.path)
        except OSError as error:
            self.discard()
            error.filename = str(folder)
            raise

    def keep(self, places: Sequence[int]) -> None:
        """Keep the photos at these places only, in order."""
        if list(places) != list(range(len(self.pixels))):
            kept = self.pixels[list(places)]
            with self.path.open("wb") as stream:
                np.save(stream, kept)

    def sync(self) -> None:
        """Write the file to the disk, or to the server of a network file system."""
        with self.path.open("r+b") as stream:
            os.fsync(stream.fileno())

    def discard(self) -> None:
        """Remove the temporary file."""
        self.path.unlink(missing_ok=True)


class StoreWriter:
    """Writes a store shard by shard; the index is written last, if nothing fails.

        with StoreWriter(paths.STORE, 256) as writer:
            for photos in shard_slices(ids):
                shard = writer.reserve(photos.stop - photos.start)
                shard.pixels[...] = ...
                writer.add(shard)

    An old store stays as it is until then, and its shards that the new one does not have are
    removed. With an archive, a folder of hard links to shards of earlier stores, a shard that is in
    the archive is linked and not written: DVC, which removes outputs before a stage runs, sees the
    same file again and does not hash it (`keep_shards`). Where files cannot be linked, they are
    copied.
    """

    def __init__(
        self, folder: Path, side: int, archive: Path | None = None, *, synced: bool = False
    ) -> None:
        """Create the folders; write no file.

        Args:
            folder: Of the store.
            side: S.
            archive: Folder of the shards of earlier stores.
            synced: Whether a shard is on the disk before its name is returned, for other hosts.
        """
        self._folder, self._side, self._archive, self._synced = folder, side, archive, synced
        self._shards: list[tuple[str, int]] = []
        self._intact: dict[str, bool] = {}  # archived shards whose bytes were compared
        self._mapped = lru_cache(MAPPED)(_load)
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._old: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        if archive:
            try:
                archive.mkdir(parents=True, exist_ok=True)
            except OSError:  # of another user, say: the archive only saves time
                self._archive = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a writer that writes shards into the same folder; `append` lists them here."""
        create = partial(StoreWriter, synced=self._synced)
        return create, (self._folder, self._side, self._archive)

    def __enter__(self) -> Self:
        """Note the files that are there, and return the writer."""
        self._old = {path.name for path in self._folder.glob("*.npy")}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the index and remove other shards; after an error, remove the new ones.

        So are the temporary files of worker processes that died.
        """
        kept = {name for name, _ in self._shards} if kind is None else self._old
        if kind is None:
            index = {"side": self._side, "photos": sum(photos for _, photos in self._shards)}
            lines = ",\n".join(json.dumps(shard) for shard in self._shards)
            start = json.dumps(index)[:-1]
            files.write_text(self._folder / INDEX, f'{start}, "shards": [\n{lines}\n]}}\n')
        for path in self._folder.glob("*.npy"):  # temporary ones, too
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def reserve(self, photos: int) -> Shard:
        """Return a new shard with room for this many photos.

        Raises:
            OSError: The disk is full.
        """
        return Shard(self._folder, photos, self._side)

    def add(self, shard: Shard) -> str:
        """Write and append the photos of a shard; return its name."""
        name = self.write(shard)
        self.append(name, len(shard.pixels))
        return name

    def append(self, name: str, photos: int) -> None:
        """Append a shard that this writer, or a pickled one, has written or linked."""
        self._shards.append((name, photos))

    def write(self, shard: Shard, places: Sequence[int] | None = None) -> str:
        """Write the photos of a shard, or those at some places, and return its name."""
        if places is not None:
            shard.keep(places)
        if self._synced:
            shard.sync()
        name = f"{files.sha256(shard.path)}.npy"
        if self.archived(name) is None:
            files.apply_umask(shard.path)
            shard.path.replace(self._folder / name)
            if self._archive:
                with contextlib.suppress(OSError):
                    _link(self._folder / name, self._archive / name)
                self._intact.pop(name, None)
        else:
            shard.discard()
            self.link(name)
        return name

    def link(self, name: str) -> None:
        """Link a shard of the archive, for which `archived` has returned its pixels."""
        assert self._archive  # noqa: S101 - for mypy
        _link(self._archive / name, self._folder / name)

    def archived(self, name: str) -> Pixels | None:
        """Return the mapped pixels of a shard of the archive, or None.

        Its bytes are compared with its name once, so that no damaged shard is used.
        """
        if self._archive is None:
            return None
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._intact:
                self._intact[name] = _is_intact(self._archive / name, self._side)
            return self._mapped(self._archive / name) if self._intact[name] else None

    def prune(self, most_bytes: int) -> None:
        """Delete the archived shards that this store lacks, but for the latest `most_bytes`."""
        if self._archive is None:
            return
        names = {name for name, _ in self._shards}
        others = [path for path in self._archive.iterdir() if path.name not in names]
        # Linking a file changes its ctime.
        for path in sorted(others, key=lambda path: path.stat().st_ctime_ns, reverse=True):
            most_bytes -= path.stat().st_size
            if most_bytes < 0 or path.name.startswith("."):  # a temporary file
                with contextlib.suppress(OSError):
                    path.unlink()


def keep_shards(folder: Path = STORE, archive: Path = ARCHIVE) -> None:
    """Make the archive's shards the same files as the store's, for the stage after prepare.

    After a stage, DVC replaces its outputs by copies from its cache, and knows those by their inode
    and time. Linked again, they are not hashed again, and take no space beside the store's.
    """
    with contextlib.suppress(OSError):  # the archive only saves time
        archive.mkdir(parents=True, exist_ok=True)
        for name, _ in open_store(folder).shards:
            if not (archive / name).exists() or not (archive / name).samefile(folder / name):
                _link(folder / name, archive / name, copy=False)


def write_store(folder: Path, photos: Pixels | Sequence[Pixels]) -> None:
    """Write a store of (N, S, S, 3) pixels; the photos of shards are chosen by position."""
    side = np.shape(photos)[1] if isinstance(photos, np.ndarray) else len(photos[0])
    with StoreWriter(folder, side) as writer:
        for rows in shard_slices([photo_id(str(row)) for row in range(len(photos))]):
            shard = writer.reserve(rows.stop - rows.start)
            for place, row in enumerate(range(rows.start, rows.stop)):
                shard.pixels[place] = photos[row]
            writer.add(shard)


def _load(path: Path) -> Pixels:
    """Return the pixels of a shard as a plain array on mapped memory."""
    # A view of a plain array takes 0.1 KiB, a view of a memory map five times as much.
    return np.asarray(np.load(path, mmap_mode="r"))


def _is_intact(path: Path, side: int) -> bool:
    """Return True for a shard of this side whose bytes match its name."""
    try:
        intact = f"{files.sha256(path)}.npy" == path.name
        return intact and _load(path).shape[1:] == (side, side, 3)
    except (OSError, ValueError):
        return False


def _reserve(path: Path) -> None:
    """Allocate all blocks of a file.

    Raises:
        OSError: The disk is full.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS and Windows
        return
    with path.open("r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


def _link(source: Path, target: Path, *, copy: bool = True) -> None:
    """Make `target` the same file as `source`, or a copy of it on another file system."""
    temporary = files.temporary_path(target)
    temporary.unlink()
    try:
        try:
            os.link(source, temporary)
        except OSError:
            if not copy:
                raise
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


class Boxes(Sequence[Pixels]):
    """Memory-mapped (H, W, 3) pixels of photos without their letterbox."""

    def __init__(self, table: pd.DataFrame, store: Photos) -> None:
        """Set the photo table and the pixels of its rows."""
        self._store = store
        self._boxes = table[["row", "left", "top", "right", "bottom"]].to_numpy()

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
        row, left, top, right, bottom = self._boxes[photo].tolist()
        return np.asarray(self._store[row][top:bottom, left:right])


class Pictures(Sequence[Pixels]):
    """Photos at their original aspect ratio, (H, W, 3) each, and at most their stored size.

    Letterbox, stretching and enlargement are undone, because they make sharp photos look blurred.
    Photos that need no change are memory-mapped; others are computed on access.
    """

    def __init__(self, table: pd.DataFrame, store: Photos, fit: str) -> None:
        """Set the photo table and the mode in which its photos were fitted into the square."""
        self._boxes = Boxes(table, store)
        self._sizes = table[["width", "height"]].to_numpy()
        if fit == "crop":
            self._sizes = np.repeat(self._sizes.min(axis=1, keepdims=True), 2, axis=1)

    def part(self, photos: slice) -> "Pictures":
        """Return some of the photos, without reading them."""
        part = copy(self)
        part._boxes = copy(self._boxes)  # noqa: SLF001 - its own class
        part._boxes._boxes = self._boxes._boxes[photos]  # noqa: SLF001
        part._sizes = self._sizes[photos]  # noqa: SLF001
        return part

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


def part_of(photos: Sequence[Pixels], rows: slice) -> Sequence[Pixels]:
    """Return some of the photos: views of the store, which another process opens itself."""
    return photos.part(rows) if isinstance(photos, Pictures) else photos[rows]
