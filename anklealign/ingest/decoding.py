"""Decode the photos of a dataset into a pixel store, photos that are known from the cache.

The photos of a shard of the store are one call of `map_shards`: it reads, decodes and writes them,
and returns their columns. Only the table, the index and the cache are written by the stage itself.
"""

import hashlib
import json
import threading
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache as cached
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from anklealign.ingest.inventory import Entry, escape_unprintable
from anklealign.io import decode, decoder_pool, execution, pixel_store
from anklealign.io.decoder_pool import Target
from anklealign.io.pixel_store import Shard, StoreWriter
from anklealign.io.result_cache import ResultCache


class Place(NamedTuple):
    """Where the pixels of a known photo are: a shard of the archive, and the position in it."""

    shard: str
    position: int


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo's columns that depend on its file, with `notes`; its place, if it is known."""

    columns: dict[str, Any]
    place: Place | None
    stamp: tuple[int, ...]  # of the file, when it was read


def cache_for(target: Target) -> ResultCache:
    """Return the cache of decoded photos: SHA-256 of a file -> its columns and its place."""
    return ResultCache(
        "decode", vars(target), ["anklealign.io.decoder_pool"], ["numpy", "pi-heif", "pillow"]
    )


def decode_photos(
    root: Path,
    entries: Sequence[Entry],
    target: Target,
    writer: StoreWriter,
    cache: ResultCache | None = None,
) -> tuple[list[dict[str, Any]], list[tuple[Entry, decode.PhotoError]]]:
    """Write the readable photos to a store; return a table row for each, and the refused ones.

    A photo is written to its position, so that no pixels accumulate in memory and the result does
    not depend on timing.

    Args:
        root: Folder of the photos.
        entries: The photos, in order of path.
        target: The square.
        writer: Of the store.
        cache: With `writer`'s archive, where known photos are; new ones are added.

    Raises:
        ValueError: A file changes while it is read, or before the last photo is decoded.
        OSError: The disk is full.
    """
    rows: list[dict[str, Any]] = []
    refused: list[tuple[Entry, decode.PhotoError]] = []
    stamps: list[tuple[Path, tuple[int, ...]]] = []
    slices = pixel_store.shard_slices(
        [pixel_store.photo_id(escape_unprintable(entry.file)) for entry in entries]
    )
    shards = [entries[photos] for photos in slices]
    function = partial(decode_shard, root, target, writer, cache)
    bar = tqdm(None, "decode", len(entries), unit="photo", disable=None)
    with warnings.catch_warnings(), bar:
        # Pillow warns about odd metadata and large photos; errors end up in skipped.csv.
        warnings.filterwarnings("ignore", module="PIL")
        for own, shard in zip(shards, execution.map_shards(function, shards), strict=True):
            bar.update(len(own))
            if shard.name:
                writer.append(shard.name, shard.count)
            if cache:
                for known, place in shard.new:
                    _remember(cache, known, place)
                cache.commit()
            for entry, photo in zip(own, shard.photos, strict=True):
                if isinstance(photo, decode.PhotoError):
                    refused.append((entry, photo))
                    continue
                path = escape_unprintable(entry.file)
                rows.append(
                    {
                        "id": pixel_store.photo_id(path), "row": len(rows), "path": path,
                        "label": entry.label, "collector": escape_unprintable(entry.collector),
                        "subject": escape_unprintable(entry.subject),
                        "predefined_split": entry.predefined_split, **photo.columns,
                    }
                )  # fmt: skip
                stamps.append((root / entry.file, photo.stamp))
    for file, stamp in stamps:
        _check_unchanged(file, stamp)
    return rows, refused


@dataclass(frozen=True)
class DecodedShard:
    """The photos of a shard, the name and number of those in the store, and places to remember."""

    photos: list[DecodedPhoto | decode.PhotoError]
    name: str  # '' if no photo was readable
    new: list[tuple[DecodedPhoto, Place]]

    @property
    def count(self) -> int:
        """Return the number of photos in the store."""
        return sum(isinstance(photo, DecodedPhoto) for photo in self.photos)


def decode_shard(
    root: Path,
    target: Target,
    writer: StoreWriter,
    cache: ResultCache | None,
    entries: Sequence[Entry],
) -> DecodedShard:
    """Decode the photos of a shard and write it; `writer.append` lists it."""
    segment = _Segment(root, entries, target, writer, cache)
    pool = _pool(execution.threads())
    with warnings.catch_warnings():  # for a process of its own
        warnings.filterwarnings("ignore", module="PIL")
        futures = [pool.submit(segment.decode_one, n) for n in range(len(entries))]
        try:
            photos = [future.result() for future in futures]
        finally:  # After an error. What runs ends before the caller removes its files.
            wait([future for future in futures if not future.cancel()])
        return segment.finish(photos)


@cached
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process, which take the photos of all its shards."""
    return ThreadPoolExecutor(threads)


class _Segment:
    """The photos of one shard, of which the file is created when the first pixels are written."""

    def __init__(
        self,
        root: Path,
        entries: Sequence[Entry],
        target: Target,
        writer: StoreWriter,
        cache: ResultCache | None,
    ) -> None:
        self.entries = entries
        self._root, self._target, self._writer, self._cache = root, target, writer, cache
        self._shard: Shard | None = None
        self._lock = threading.Lock()

    def shard(self) -> Shard:
        """Return the shard; the first call reserves its space."""
        with self._lock:
            if self._shard is None:
                self._shard = self._writer.reserve(len(self.entries))
            return self._shard

    def decode_one(self, position: int) -> DecodedPhoto | decode.PhotoError:
        """Return a photo's columns; write its pixels to its position unless they are known."""
        path = self._root / self.entries[position].file
        try:
            data, stamp = _read(path, self._target.max_megapixels)
            sha256 = hashlib.sha256(data)
            own = {"bytes": len(data), "sha256": sha256.hexdigest()}
            known = self._known(sha256.digest())
            if known:
                return DecodedPhoto(known[0] | own, known[1], stamp)
            photo = decoder_pool.shared().decode(data, self._target)
        except decode.PhotoError as error:
            return error
        self.shard().pixels[position] = photo.pixels
        columns = {
            "width": photo.width, "height": photo.height, "format": photo.format,
            "orientation": photo.orientation, "notes": photo.notes,
            **dict(zip(("left", "top", "right", "bottom"), photo.box, strict=True)),
        }  # fmt: skip
        return DecodedPhoto(columns | own, None, stamp)

    def finish(self, photos: list[DecodedPhoto | decode.PhotoError]) -> DecodedShard:
        """Write the readable photos, or link the known shard that they are."""
        readable = [n for n, photo in enumerate(photos) if isinstance(photo, DecodedPhoto)]
        decoded = [photo for photo in photos if isinstance(photo, DecodedPhoto)]
        places = [photo.place for photo in decoded]
        if not readable:
            if self._shard:
                self._shard.discard()
            return DecodedShard(photos, "", [])
        if known := self._known_shard(places):
            self._writer.link(known)
            return DecodedShard(photos, known, [])
        shard = self.shard()
        for n, place in zip(readable, places, strict=True):
            if place:
                shard.pixels[n] = self._pixels(place)
        name = self._writer.write(shard, readable)
        return DecodedShard(photos, name, [(p, Place(name, n)) for n, p in enumerate(decoded)])

    def _known_shard(self, places: Sequence[Place | None]) -> str | None:
        """Return the name of a known shard with the pixels of these places, or None."""
        known = [place for place in places if place]
        if len(known) < len(places):
            return None
        (name, _), *_ = Counter(place.shard for place in known).most_common(1)
        shard = self._writer.archived(name)
        if shard is None or len(shard) != len(known):
            return None
        # Of files with the same bytes, the place of one is known.
        same = all(
            place == Place(name, n) or np.array_equal(shard[n], self._pixels(place))
            for n, place in enumerate(known)
        )
        return name if same else None

    def _pixels(self, place: Place) -> pixel_store.Pixels:
        shard = self._writer.archived(place.shard)
        if shard is None:
            raise ValueError(f"{place.shard} was known and is missing; run the stage again")
        pixels: pixel_store.Pixels = shard[place.position]
        return pixels

    def _known(self, sha256: bytes) -> tuple[dict[str, Any], Place] | None:
        value = self._cache.get(sha256) if self._cache else None
        if value is None:
            return None
        columns = json.loads(value)
        place = Place(*columns.pop("place"))
        pixels = self._writer.archived(place.shard)
        if pixels is None or place.position >= len(pixels):
            return None
        return columns | {"notes": tuple(columns["notes"])}, place


def _remember(cache: ResultCache, photo: DecodedPhoto, place: Place) -> None:
    columns = {key: value for key, value in photo.columns.items() if key != "bytes"}
    key = bytes.fromhex(columns.pop("sha256"))
    cache.put(key, json.dumps(columns | {"place": place}).encode())


def _read(path: Path, max_megapixels: float) -> tuple[bytes, tuple[int, ...]]:
    """Return a file's bytes and its stamp.

    Raises:
        PhotoError: It cannot be read, or is no photo.
        ValueError: It changes meanwhile.
    """
    try:
        stamp = _stamp(path)
    except OSError:
        stamp = ()
    data = decode.read_bytes(path, max_megapixels)
    _check_unchanged(path, stamp)
    return data, stamp


def _stamp(path: Path) -> tuple[int, ...]:
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _check_unchanged(path: Path, stamp: tuple[int, ...]) -> None:
    """Check that a file is the one that was read.

    Raises:
        ValueError: It was replaced, changed or removed. DVC would record its new content as the
            input of this result.
    """
    try:
        unchanged = _stamp(path) == stamp
    except OSError:
        unchanged = False
    if not unchanged:
        raise ValueError(
            f"{path} changed while prepare was reading the photos; run the stage again when "
            "nothing writes there"
        )
