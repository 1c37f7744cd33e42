"""Find pairs of photos that show the same picture: propose them by hash, verify them on pixels.

A duplicate may be re-encoded, resized, brightened, mirrored, rotated by quarter turns, framed, or
cropped by up to a tenth on any side. No hash distance separates such duplicates from other photos
of the same scene, so hashes only propose pairs: the hashes of each photo, cropped and uncropped and
in up to eight orientations, are looked up among the hashes of all photos. Each proposed pair is
then registered (Lucas-Kanade over shift, scale, gain, and offset) and scored by the residual in
every cell of a grid: a duplicate leaves compression noise everywhere, another photo of the scene
leaves the outline of whatever moved.

Coordinates run from 0 to 1 over a photo's box, x before y. A transform is the (3, 3) matrix that
maps a point (x, y, 1) of one photo to the same point of the other.
"""

import math
import struct
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from anklealign.io import execution, pixel_store, result_cache
from anklealign.io.pixel_store import Pixels
from anklealign.io.result_cache import ResultCache
from anklealign.similarity import local_differences, perceptual_hash
from anklealign.similarity.borders import Box, PhotoPixels
from anklealign.similarity.local_differences import (
    SATURATED,
    Comparison,
    Levels,
    independent_noise,
)

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]

SIDE = 64  # pixels, side of a thumbnail and of the last comparison
COLOR_SIDE = 16  # pixels, side of the thumbnail in color
THUMBS = SIDE**2 + 3 * COLOR_SIDE**2  # bytes of both thumbnails of a photo
# Shares cropped off left, top, right, and bottom. On 243 real photos, an 8 percent crop moves a
# hash by more than 10 bits in half of the cases; with this grid, random crops of 0 to 5 percent on
# all sides at once stay within 6.
CROPS = (
    (0.0, 0.0, 0.0, 0.0),
    *(tuple(np.eye(4)[side] * share) for share in (0.04, 0.08) for side in range(4)),
    *((share,) * 4 for share in (0.04, 0.08)),
)
# Picture sides of the Lucas-Kanade iterations; each halves the remaining error. The last two use
# the photos, the others use thumbnails.
ITERATION_SIDES = (16, 16, 16, 32, 32, SIDE, SIDE)
FROM_PHOTOS = 5
# Gray levels between the mean colors of two cells, above which a pair is rejected at the start. The
# means differ less than the pixels, which may differ by MAX_COLOR. 85 percent of the proposed pairs
# of 4,000 real photos in variants that show other pictures are above it; the duplicates reach 26.
REJECT_COLOR = 35.0
CONVERGED = 0.05  # pixels: after a smaller step, the other iterations of this side are left out
# Iteration -> residual over contrast, over the whole picture, above which a pair is rejected early.
# Of the duplicates injected into the synthetic set (seed 2) and the ants and bees (train), 99
# percent are below 0.2 and 0.16; of the synthetic set's different photos, 55 and 94 percent are
# above these limits.
REJECT_ABOVE = {2: 0.6, 3: 0.35}
MIN_OVERLAP = 0.55  # of either photo's side; the center square of a 16:9 photo leaves 0.56
MIN_COMMON = 0.3  # of a side, where a plain sky was detected as a border in one of the two
SHIFT = 0.08  # of the side: a crop on one end moves a photo's center square by half as much
THUMBNAIL_SHIFT = 0.12  # as SHIFT, of thumbnails of the same picture under other crops
SHARD = 64  # photos of a call: half a second with the measures of clean
KEPT_PHOTOS = 512  # in memory, for the next comparison with one: some 170 MB of 256 x 256 pixels
BATCH = 2048  # entries whose thumbnails are in floating point at once: 64 MiB
MARGIN = 1 / SIDE  # share of the side next to a content's edge, where the border may bleed in
CLIPPED = 32  # of 255: share of clipped pixels from which a comparison ignores a pixel
GRID = 8  # the residual is the worst of 8 x 8 cells
DETAIL_SIDE = 96  # pixels, side of the comparison of details; a multiple of GRID
# Of the side, by which two exposures of a fixed camera may be moved, and differ in size, at most.
# The drawn ones of benchmarks.same_picture are registered as up to 0.3% larger. A duplicate cropped
# by a little is 0.2 to 3% larger than its original, and its noise is not correlated either.
STILL, SAME_SCALE = 0.03, 0.004
MIN_CONTRAST = 3.0  # gray levels: a picture that varies less about a smooth slope is plain
# Pillow's `reducing_gap`: a large picture is first divided by a whole number that leaves at least
# this many times the new side, which takes less time. For hashes and thumbnails, and for regions of
# photos. With these gaps, the same duplicates among 4,000 real photos in variants are found; with
# 1.5 everywhere, also for regions of thumbnails, 1 percent fewer thumbnails under other crops.
HASH_GAP, PHOTO_GAP = 2.0, 1.5
IN_MEMORY = 1 << 28  # bytes of thumbnails above which a temporary file is used


@dataclass(frozen=True)
class Registration:
    """Two registered photos; a low residual means that they show the same picture."""

    a: int
    b: int
    residual: float  # in the worst cell, divided by the picture's contrast
    transform: Floats  # from coordinates in b to coordinates in a

    @property
    def mirrored(self) -> bool:
        """Whether the photos are mirror images, rotated or not."""
        return bool(np.linalg.det(self.transform) < 0)

    def reversed(self) -> "Registration":
        """Return the registration of b with a."""
        return Registration(self.b, self.a, self.residual, np.linalg.inv(self.transform))


@dataclass(frozen=True)
class Proposals:
    """Pairs that may show the same picture, the most similar hashes first."""

    a: Indices  # (M,)
    b: Indices  # (M,)
    orientations: Indices  # (M,) of a
    views: Floats  # (M, 4) rectangle of a that, oriented, ...
    rects: Floats  # (M, 4) ... may equal this rectangle of b
    truncated: Indices  # photos with more candidates than are proposed per photo

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.a)

    def __iter__(self) -> Iterator[tuple[int, int, Floats]]:
        """Yield (a, b, transform)."""
        for a, b, orientation, view, rect in zip(
            self.a, self.b, self.orientations, self.views, self.rects, strict=True
        ):
            yield int(a), int(b), transform_between(int(orientation), view, rect)


def cache_for() -> ResultCache:
    """Return the cache of hashes, contents and thumbnails."""
    return ResultCache("hashes", {}, [__name__], ["numpy", "pillow", "scipy"])


def shard_slices(photos: int) -> Iterator[slice]:
    """Yield the slice of photos for each call that reads some of them."""
    return (slice(start, start + SHARD) for start in range(0, photos, SHARD))


@dataclass(frozen=True)
class PhotoDescription:
    """What is looked up of a photo: E entries, as in `_entry_boxes`."""

    digest: bytes  # of its pixels; empty without hashes
    size: tuple[int, int]
    box: Box  # of the content
    plain: bool
    thumb: bytes  # (64, 64) gray levels
    colors: bytes  # (16, 16, 3)
    entries: Sequence[tuple[float, float, float, float]] = ()  # E boxes
    words: perceptual_hash.Hashes = field(
        default_factory=lambda: np.zeros((0, perceptual_hash.WORDS), np.uint64)
    )  # (E, 4), in these orientations
    turns: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))  # (E,)
    new: bytes = b""  # the key in the cache, if it lacks this photo

    def to_bytes(self) -> bytes:
        """Return what the cache keeps."""
        head = struct.pack("<4i?", *self.box, self.plain)
        return head + self.thumb + self.colors + self.words.tobytes() + self.turns.tobytes()


@dataclass(frozen=True)
class Describer:
    """Describes photos for a PhotoMatcher.

    Attributes:
        squares: Whether the photos were cropped to their center square.
        mixed: Whether some photos of the set are not square.
        hashes: Whether to compute the hashes.
        cache: Of `cache_for`.
    """

    squares: bool
    mixed: bool
    hashes: bool = True
    cache: ResultCache | None = None

    @classmethod
    def of(
        cls,
        photos: Sequence[Pixels],
        *,
        squares: bool = False,
        hashes: bool = True,
        cache: ResultCache | None = None,
    ) -> "Describer":
        """Return the describer of N photos of (H, W, 3); reads those up to one not square."""
        mixed = not squares and not all(_is_square(np.shape(photo)[1::-1]) for photo in photos)
        return cls(squares, mixed, hashes, cache)

    def describe_all(self, photos: Sequence[Pixels]) -> list[PhotoDescription]:
        """Return the descriptions of n photos of (H, W, 3)."""
        return [self.describe(PhotoPixels(photo)) for photo in photos]

    def describe(self, photo: PhotoPixels) -> PhotoDescription:
        """Return the description of a photo, from the cache if it has it."""
        digest = photo.digest if self.hashes or self.cache else b""
        size = photo.pixels.shape[1::-1]
        shift = SHIFT if self.squares else THUMBNAIL_SHIFT * (self.mixed and _is_square(size))
        key = result_cache.key_of(np.frombuffer(digest, np.uint8), shift, self.squares)
        known = self.cache.get(key) if self.cache else None
        if known is not None:
            *sides, plain = struct.unpack_from("<4i?", known)
            box, start = tuple(sides), struct.calcsize("<4i?")
            thumb, colors = known[start : start + SIDE**2], known[start + SIDE**2 : start + THUMBS]
            described = PhotoDescription(digest, size, box, plain, thumb, colors)
        else:
            described = _outlined(photo, digest)
        if not self.hashes:
            return described
        entries = _entry_boxes(size, described.box, shift=shift, squares=self.squares)
        if known is not None:
            # Copies, which do not hold the thumbnails.
            offset, count = start + THUMBS, perceptual_hash.WORDS * len(entries)
            flat = np.frombuffer(known, np.uint64, count, offset)
            turns = np.frombuffer(known, np.uint8, offset=offset + flat.nbytes)
            return replace(
                described,
                entries=entries,
                words=flat.reshape(-1, perceptual_hash.WORDS).copy(),
                turns=turns.copy(),
            )
        grays = np.array([_resized(photo.gray, perceptual_hash.SIDE, entry) for entry in entries])
        # One photo at a time, so that the bits cannot depend on which others are known.
        words, turns = perceptual_hash.pack_canonical(perceptual_hash.spectra(grays))
        new = key if self.cache else b""
        return replace(described, entries=entries, words=words, turns=turns, new=new)


class PhotoMatcher:
    """Propose and register pairs among N photos, (H, W, 3) each, in memory or memory-mapped.

    An entry is a rectangle of a photo that is looked up: the whole photo, its content where there
    are borders, and the center square of either, which is how websites make thumbnails. Photos
    cropped to their center square, and square ones among others, have four more entries: the photo
    without a strip on each side, because the center square of a cropped photo covers another part
    of the picture than that of its original.
    """

    def __init__(
        self,
        photos: Sequence[Pixels],
        *,
        squares: bool = False,
        hashes: bool = True,
        cache: ResultCache | None = None,
        described: Iterable[Sequence[PhotoDescription]] | None = None,
    ) -> None:
        """Read every photo once; about 0.2 KiB per photo stay in memory.

        Args:
            photos: N of (H, W, 3).
            squares: Whether the photos were cropped to their center square.
            hashes: Whether to compute the hashes, which only `propose` needs and which take most
                of the time.
            cache: Of `cache_for`, with what is known of photos.
            described: Their descriptions in shards, by a `Describer` with the same `squares`,
                `hashes` and `cache`; the photos are then not read here.
        """
        self._photos = photos
        self._positions = np.arange(len(photos))
        self._thumbs = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed by finalize
        weakref.finalize(self, self._thumbs.close)
        if described is None:
            describer = Describer.of(photos, squares=squares, hashes=hashes, cache=cache)
            shards = (pixel_store.part_of(photos, rows) for rows in shard_slices(len(photos)))
            described = execution.map_shards(describer.describe_all, shards)
        self.digests: list[bytes] = []  # equal for photos with the same pixels; none without hashes
        sizes, contents, min_sides, plain = [], [], [], []
        owners, rects, words = [], [], [np.zeros((0, perceptual_hash.WORDS), np.uint64)]
        turns = [np.zeros(0, np.uint8)]
        with tqdm(None, "read", len(photos), unit="photo", disable=None) as bar:
            for shard in described:
                for photo in shard:
                    box, size = photo.box, photo.size
                    self._thumbs.write(photo.thumb + photo.colors)
                    self.digests += [photo.digest] if hashes else []
                    plain.append(photo.plain)
                    sizes.append(size)
                    contents.append(np.array(box) / (size * 2))
                    sides = np.array([box[2] - box[0], box[3] - box[1]])
                    min_sides.append((np.full(2, sides.min()) if squares else sides) / size)
                    words.append(photo.words)
                    turns.append(photo.turns)
                    owners += [len(plain) - 1] * len(photo.entries)
                    rects += [np.array(entry) / (size * 2) for entry in photo.entries]
                if cache:
                    cache.put_all((own.new, own.to_bytes()) for own in shard if own.new)
                bar.update(len(shard))
        self.contents = np.array(contents, np.float64).reshape(-1, 4)
        self.sizes = np.array(sizes, np.float64).reshape(-1, 2)
        min_sides_nd = np.array(min_sides, np.float64).reshape(-1, 1, 2)
        self._bounds = np.concatenate([self.contents.reshape(-1, 2, 2), min_sides_nd], axis=1)
        self._plain = np.array(plain, bool)
        self._owners = np.array(owners, np.int64)
        self._rects = np.array(rects, np.float64).reshape(-1, 4)
        self._words, self._turns = np.concatenate(words), np.concatenate(turns)
        self._hashes = hashes
        self._channels = lru_cache(maxsize=KEPT_PHOTOS)(self._read_channels)
        self._thumb_images = lru_cache(maxsize=16 * KEPT_PHOTOS)(
            lambda photo: Image.fromarray(self.thumb(photo))
        )

    def select(self, photos: Sequence[int]) -> None:
        """Keep only these photos, numbered anew in this order."""
        chosen = np.asarray(photos, np.int64)
        numbers = np.full(len(self), -1)
        numbers[chosen] = np.arange(len(chosen))
        owners = numbers[self._owners]
        entries = np.argsort(owners, kind="stable")[np.count_nonzero(owners < 0) :]
        self._owners, self._rects = owners[entries], self._rects[entries]
        self._words, self._turns = self._words[entries], self._turns[entries]
        self.digests = [self.digests[n] for n in photos]
        for name in ("_positions", "contents", "sizes", "_bounds", "_plain"):
            setattr(self, name, getattr(self, name)[chosen])
        self._channels.cache_clear()
        self._thumb_images.cache_clear()

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._positions)

    def _photo(self, photo: int) -> Pixels:
        return self._photos[int(self._positions[photo])]

    def thumb(self, photo: int) -> Pixels:
        """Return a photo's (64, 64) gray thumbnail."""
        self._thumbs.seek(int(self._positions[photo]) * THUMBS)
        return np.frombuffer(self._thumbs.read(SIDE**2), np.uint8).reshape(SIDE, SIDE)

    def _color_thumb(self, photo: int) -> Image.Image:
        self._thumbs.seek(int(self._positions[photo]) * THUMBS + SIDE**2)
        size = (COLOR_SIDE, COLOR_SIDE)
        return Image.frombytes("RGB", size, self._thumbs.read(THUMBS - SIDE**2))

    def _read_channels(self, photo: int) -> tuple[Image.Image, Image.Image, Image.Image | None]:
        """Return colors, gray levels, and a mask, 255 where a channel is clipped, if one is."""
        pixels = np.asarray(self._photo(photo))
        clipped = local_differences.brightest(pixels) >= SATURATED
        mask = Image.fromarray(np.where(clipped, np.uint8(255), np.uint8(0)))
        colors = Image.fromarray(pixels)
        return colors, colors.convert("L"), mask if clipped.any() else None

    def propose(
        self,
        distance: int,
        among: Sequence[int] | None = None,
        of: Sequence[int] | None = None,
    ) -> Proposals:
        """Return the pairs where a view of a and an entry of b hash within `distance` bits.

        A view is looked up in the orientations that its lowest frequencies leave in question. Each
        pair occurs once per orientation, with the view whose hash is nearest, and each photo is
        paired only with its nearest photos. Plain photos resemble any other plain photo and are
        skipped.

        Args:
            distance: Bits of 64.
            among: The photos that may be a or b; None for all.
            of: The photos of `among` that are a; None for all of them.

        Raises:
            ValueError: The matcher was made without hashes.
        """
        if not self._hashes:
            raise ValueError("a PhotoMatcher with hashes=False proposes no pairs")
        searched = ~self._plain
        if among is not None:
            searched &= np.isin(np.arange(len(self)), among)
        entries = np.flatnonzero(searched[self._owners])
        asking = entries if of is None else entries[np.isin(self._owners[entries], of)]
        nearest = perceptual_hash.NearestNeighbors(
            self._words[entries],
            self._owners[entries],
            distance,
            self._owners[asking],
            self._turns[entries],
        )
        for crop in tqdm(CROPS, "search", unit="view", disable=(among is not None) or None):
            nearest.query(*self._view_hashes(asking, np.array(crop)))
        query, neighbor = nearest.result()
        view, entry = np.divmod(query, max(len(asking), 1))
        crops, orientations = np.divmod(view, len(perceptual_hash.ORIENTATIONS))
        entries_a, entries_b = asking[entry], entries[neighbor]
        return Proposals(
            self._owners[entries_a],
            self._owners[entries_b],
            perceptual_hash.RELATIVE[self._turns[entries_b], orientations].astype(np.int64),
            _cropped(self._rects[entries_a], np.array(CROPS)[crops]),
            self._rects[entries_b],
            nearest.truncated,
        )

    def _view_hashes(
        self, entries: Indices, crop: Floats
    ) -> tuple[perceptual_hash.Hashes, Indices]:
        """Return (V, 4) words of N cropped entries, and the (V,) orientation * N + entry of each.

        An entry has those of the orientations in question, at least one of the eight.
        """
        words, numbers = [np.zeros((0, perceptual_hash.WORDS), np.uint64)], [np.zeros(0, np.int64)]
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            # A photo's entries follow each other, so its thumbnail is read once for all of them.
            photos, number = np.unique(self._owners[batch], return_inverse=True)
            thumbs = np.stack([self.thumb(photo) for photo in photos]).astype(np.float32)
            spectra = _view_spectra(thumbs[number], _cropped(self._rects[batch], crop))
            turned = perceptual_hash.orientations_in_question(spectra, perceptual_hash.IN_DOUBT)
            words.append(perceptual_hash.pack_orientations(spectra)[turned])
            orientation, entry = np.nonzero(turned)
            numbers.append(orientation * len(entries) + start + entry)
        return np.concatenate(words), np.concatenate(numbers)

    def register(
        self, a: int, b: int, transform: Floats, min_overlap: float = MIN_OVERLAP
    ) -> Registration | None:
        """Register b with a, starting from a transform; return None if they clearly differ.

        The photos must overlap by at least the share `min_overlap` of either's sides.
        """
        transposed = bool(abs(transform[0, 0]) < abs(transform[0, 1]))
        # With a's axes swapped to run like b's, the transform scales and shifts each axis alone.
        swap = np.eye(3)[[1, 0, 2]] if transposed else np.eye(3)
        aligned = swap @ transform
        scale, shift = np.diag(aligned)[:2].copy(), aligned[:2, 2].copy()
        factors = np.array([[1.0], [1.0], [min_overlap]])
        content_a = self._bounds[a][:, _axis_order(transposed)] * factors
        content_b = self._bounds[b] * factors
        bounds_a, bounds_b = content_a, content_b
        if _overlap(scale, shift, bounds_a, bounds_b) is None:
            bounds_a = bounds_b = FULL * factors
        last, number = len(ITERATION_SIDES) - 1, 0
        colors = partial(self._coarse_color, a, b, transposed=transposed)
        while True:
            common = _common(scale, shift, content_a, content_b)
            ends = common if bounds_a is content_a else _common(scale, shift, bounds_a, bounds_b)
            region = _region_between(ends, scale, bounds_a, bounds_b)
            if (
                region is None
                or (common[1] - common[0] < MIN_COMMON).any()
                or (number == 0 and colors(scale, shift, region) > REJECT_COLOR)
            ):
                return None
            start, size = region
            warped, target, weights = self._sample(
                a, b, scale, shift, region, number=number, transposed=transposed
            )
            # Two different photos in equal frames share the contrast of the frame.
            inside = _inside((common - start) / size, len(target))
            if (weights * inside).mean() < 0.05:  # almost all clipped: use every pixel
                weights[:] = 1
            matched = _match_brightness(warped, target, weights)
            difference = matched - target
            contrast = _contrast(target, weights * inside) if number in {*REJECT_ABOVE, last} else 0
            limit = REJECT_ABOVE.get(number, math.inf) * max(MIN_CONTRAST, contrast)
            if math.sqrt(_mean(difference**2, weights)) > limit:
                return None
            if number == last:
                break
            growth, move = _step(matched, difference, weights)
            shift += scale * (size * move - start * growth)
            scale *= 1 + growth
            moved = len(target) * max(np.abs(growth).max(), np.abs(move).max())
            number += 1
            while moved < CONVERGED and number < FROM_PHOTOS and _repeats(number):
                number += 1
        if contrast < MIN_CONTRAST:
            return None
        residual = _worst_cell(difference, weights) / contrast
        aligned = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])
        return Registration(a, b, residual, swap @ aligned)

    def compare(self, a: int, b: int, transform: Floats) -> Comparison:
        """Return how b and a differ locally, where a transform lays one on the other.

        They are compared on what they share at up to 96 pixels, but at most at 3/4 of the smaller
        one's own resolution, because compression spoils the finest detail. The detail of pictures
        that share too little, or whose colors differ by more than REJECT_COLOR, is not compared:
        their agreement is -1.
        """
        transposed = bool(abs(transform[0, 0]) < abs(transform[0, 1]))
        aligned = (np.eye(3)[[1, 0, 2]] if transposed else np.eye(3)) @ transform
        scale, shift = np.diag(aligned)[:2], aligned[:2, 2]
        factors = np.array([[1.0], [1.0], [MIN_COMMON]])
        content_a = self._bounds[a][:, _axis_order(transposed)] * factors
        region = _overlap(scale, shift, content_a, self._bounds[b] * factors)
        if region is None:
            return Comparison(-1.0, math.inf)
        color = self._coarse_color(a, b, scale, shift, region, transposed=transposed)
        if color > REJECT_COLOR:
            return Comparison(-1.0, color)
        start, size = region
        pixels = np.minimum(
            abs(scale * size) * self.sizes[a][_axis_order(transposed)], size * self.sizes[b]
        )
        side = min(DETAIL_SIDE, int(0.75 * pixels.min()) // GRID * GRID)
        side = max(ITERATION_SIDES[0], side)
        moved = abs(transform - np.eye(3))
        still = moved[:2, 2].max() <= STILL and moved[:2, :2].max() <= SAME_SCALE
        comparison = local_differences.compare(
            self._colors(a, scale * start + shift, scale * size, side, transposed=transposed),
            self._colors(b, start, size, side, transposed=False),
        )
        exposures = still and (self.sizes[a] == self.sizes[b]).all() and comparison.same_picture
        if exposures and independent_noise(*(np.asarray(self.gray(photo)) for photo in (a, b))):
            comparison = replace(comparison, exposures=True)
        return comparison

    def gray(self, photo: int) -> Image.Image:
        """Return a photo's gray levels, at its stored size."""
        return self._channels(photo)[1]

    def _colors(
        self, photo: int, start: Floats, size: Floats, side: int, *, transposed: bool
    ) -> Levels:
        """Return the (side, side, 3) colors of a region; negative sizes mirror."""
        image = self._channels(photo)[0]
        return _cut_out(image, start, size, side, transposed=transposed).astype(np.float64)

    def _coarse_color(
        self,
        a: int,
        b: int,
        scale: Floats,
        shift: Floats,
        region: tuple[Floats, Floats],
        *,
        transposed: bool,
    ) -> float:
        """Return how much the cells of a and b differ in color over a region of b."""
        start, size = region
        cells = [
            _cut_out(
                self._color_thumb(photo), first, sides, local_differences.CELLS,
                transposed=turned, resample=Image.Resampling.BOX,
            ).astype(np.float64)
            for photo, first, sides, turned in (
                (a, scale * start + shift, scale * size, transposed),
                (b, start, size, False),
            )
        ]  # fmt: skip
        return local_differences.matched_color_difference(*cells)

    def _sample(
        self,
        a: int,
        b: int,
        scale: Floats,
        shift: Floats,
        region: tuple[Floats, Floats],
        *,
        number: int,
        transposed: bool,
    ) -> tuple[Floats, Floats, Floats]:
        """Return gray levels of a and b over a region of b, and weights, 0 where either clips.

        Each is (side, side), with the side of this iteration or of the smaller photo.
        """
        start, size = region
        # A small duplicate lacks fine detail, so both are compared at the coarser resolution.
        pixels = np.minimum(
            abs(scale * size) * self.sizes[a][_axis_order(transposed)], size * self.sizes[b]
        )
        available = int(pixels.min()) // GRID * GRID
        side = max(ITERATION_SIDES[0], min(ITERATION_SIDES[number], available))
        fine = number >= FROM_PHOTOS
        warped, valid_a = self._region(
            a, scale * start + shift, scale * size, side, fine=fine, transposed=transposed
        )
        target, valid_b = self._region(b, start, size, side, fine=fine, transposed=False)
        return warped, target, (valid_a & valid_b).astype(np.float64)

    def _region(
        self, photo: int, start: Floats, size: Floats, side: int, *, fine: bool, transposed: bool
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return (side, side) gray levels and validity of a region; negative sizes mirror."""
        if not fine:
            thumb = self._thumb_images(photo)
            pixels = _cut_out(thumb, start, size, side, transposed=transposed)
            return pixels.astype(np.float64), pixels < SATURATED
        _, image, mask = self._channels(photo)
        cut = partial(
            _cut_out, start=start, size=size, side=side, transposed=transposed, gap=PHOTO_GAP
        )
        gray = cut(image).astype(np.float64)
        if mask is None:
            return gray, np.ones(gray.shape, bool)
        return gray, cut(mask) < CLIPPED


def _repeats(number: int) -> bool:
    """Return whether an iteration has the side of the one before it."""
    return ITERATION_SIDES[number] == ITERATION_SIDES[number - 1]


def _cut_out(
    image: Image.Image,
    start: Floats,
    size: Floats,
    side: int,
    *,
    transposed: bool,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
    gap: float | None = None,
) -> Pixels:
    """Return the (side, side) or (side, side, 3) pixels of a region; negative sizes mirror."""
    corners = np.clip(np.sort([start, start + size], axis=0), 0, 1)
    if transposed:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    box = tuple((corners * image.size).ravel())
    pixels = np.asarray(image.resize((side, side), resample, box=box, reducing_gap=gap))
    return pixels[:: -1 if size[1] < 0 else 1, :: -1 if size[0] < 0 else 1]


def _axis_order(transposed: bool) -> list[int]:
    """Return the order of the axes x and y."""
    return [1, 0] if transposed else [0, 1]


def _resized(
    gray: Image.Image, side: int, box: tuple[float, float, float, float] | None = None
) -> Pixels:
    """Return (side, side) gray levels of a picture or of a box of it."""
    resample = Image.Resampling.LANCZOS
    return np.asarray(gray.resize((side, side), resample, box=box, reducing_gap=HASH_GAP))


def _is_square(size: tuple[int, ...]) -> bool:
    """Return whether the sides of a photo differ by 2 percent at most."""
    return max(size) <= 1.02 * min(size)


def _outlined(photo: PhotoPixels, digest: bytes) -> PhotoDescription:
    """Return the description of a photo without its hashes."""
    gray, box = photo.gray, photo.content
    thumb = _resized(gray, SIDE)
    content = thumb if box == (0, 0, *gray.size) else _resized(gray, SIDE, box)
    plain = _plain_contrast(content.astype(np.float64)) < MIN_CONTRAST
    colors = photo.image.resize((COLOR_SIDE, COLOR_SIDE), Image.Resampling.BOX)
    return PhotoDescription(digest, gray.size, box, plain, thumb.tobytes(), colors.tobytes())


def _entry_boxes(
    size: tuple[int, int], content: Box, *, shift: float, squares: bool
) -> list[tuple[float, float, float, float]]:
    """Return the boxes, in pixels, under which a photo is looked up."""
    boxes: list[tuple[float, float, float, float]] = [(0, 0, *size), content]
    for left, top, right, bottom in [content] if squares else [(0, 0, *size), content]:
        shorter = min(right - left, bottom - top)
        x, y = left + (right - left - shorter) / 2, top + (bottom - top - shorter) / 2
        boxes.append((x, y, x + shorter, y + shorter))
    if shift:
        full = np.array([(0.0, 0.0, *size)])
        boxes += [tuple(_cropped(full, shift * side)[0].tolist()) for side in np.eye(4)]
    return list(dict.fromkeys(boxes))


def _cropped(rects: Floats, crop: Floats) -> Floats:
    """Return (N, 4) rectangles cropped by shares of their width and height, (4,) or (N, 4)."""
    sizes = rects[:, 2:] - rects[:, :2]
    return np.hstack([rects[:, :2] + crop[..., :2] * sizes, rects[:, 2:] - crop[..., 2:] * sizes])


def _view_spectra(thumbs: npt.NDArray[np.float32], rects: Floats) -> Floats:
    """Return the (N, 16, 16) spectra of rectangles of (N, 64, 64) thumbnails.

    The rectangle's cosines are applied to the thumbnail directly. Compared with the hash of the
    resized rectangle, the first word differs by 0.3 bits on average and by 2 at most.
    """
    across, down = _cosines(rects[:, 0], rects[:, 2]), _cosines(rects[:, 1], rects[:, 3])
    # Single precision takes half the time. It can only change a bit whose frequency is almost at
    # the median.
    spectra: Floats = down @ thumbs @ across.transpose(0, 2, 1)
    return spectra


def _cosines(start: Floats, end: Floats) -> Floats:
    """Return (N, 16, 64): the first 16 cosines from start to end, sampled at the pixels."""
    # Most rectangles are the whole photo or its center square, so few are different.
    ends, number = np.unique(start + 1j * end, return_inverse=True)
    start, end = ends.real, ends.imag
    center = (np.arange(SIDE) + 0.5) / SIDE
    low, high = center - 0.5 / SIDE, center + 0.5 / SIDE
    inside = np.minimum(high, end[:, None]) - np.maximum(low, start[:, None])
    position = (center - start[:, None]) / (end - start)[:, None]
    angles = np.pi * np.arange(perceptual_hash.FINE)[:, None] * position[:, None, :]
    weights = np.clip(inside, 0, None)[:, None, :]
    # Cosines, too, take less than half the time in single precision.
    weighted: Floats = np.cos(angles.astype(np.float32)) * weights.astype(np.float32)
    return weighted[number]


def transform_between(orientation: int, view: Floats, rect: Floats) -> Floats:
    """Return the matrix from b's to a's coordinates if a's view, oriented, equals b's rectangle."""
    transposed, flip_x, flip_y = perceptual_hash.ORIENTATIONS[orientation]
    to_unit = np.linalg.inv(_rectangle(rect))
    flip = _rectangle(np.array([flip_x, flip_y, not flip_x, not flip_y], np.float64))
    swap = np.eye(3)[[1, 0, 2]] if transposed else np.eye(3)
    transform: Floats = _rectangle(view) @ swap @ flip @ to_unit
    return transform


def _rectangle(rect: Floats) -> Floats:
    """Return the matrix from the unit square to a rectangle; left > right mirrors."""
    left, top, right, bottom = rect
    return np.array([[right - left, 0, left], [0, bottom - top, top], [0, 0, 1]])


# Bounds are (3, 2): start and end of a content, and the sides of which a share must overlap.
FULL = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])


def _common(scale: Floats, shift: Floats, bounds_a: Floats, bounds_b: Floats) -> Floats:
    """Return start and end, in b's coordinates, of the overlap; the end may precede the start."""
    ends = np.sort((bounds_a[:2] - shift) / scale, axis=0)
    return np.stack([np.maximum(ends[0], bounds_b[0]), np.minimum(ends[1], bounds_b[1])])


def _overlap(
    scale: Floats, shift: Floats, bounds_a: Floats, bounds_b: Floats
) -> tuple[Floats, Floats] | None:
    """Return start and size, in b's coordinates, of the overlap; None if it is too small."""
    ends = _common(scale, shift, bounds_a, bounds_b)
    return _region_between(ends, scale, bounds_a, bounds_b)


def _region_between(
    ends: Floats, scale: Floats, bounds_a: Floats, bounds_b: Floats
) -> tuple[Floats, Floats] | None:
    """Return start and size of the overlap between (2, 2) ends; None if it is too small."""
    start, end = ends
    if (end - start < np.maximum(bounds_a[2] / abs(scale), bounds_b[2])).any():
        return None
    return start + MARGIN * (end - start), (1 - 2 * MARGIN) * (end - start)


def _inside(ends: Floats, side: int) -> Floats:
    """Return (side, side): 1 where a pixel's center lies between (2, 2) ends, else 0."""
    center = (np.arange(side)[:, None] + 0.5) / side
    across, down = ((ends[0] <= center) & (center <= ends[1])).T
    inside: Floats = (down[:, None] & across).astype(np.float64)
    return inside


def _mean(values: Floats, weights: Floats) -> float:
    return float((values * weights).sum() / weights.sum())


def _match_brightness(source: Floats, target: Floats, weights: Floats) -> Floats:
    """Return `source` with the gain and offset that bring it closest to `target`."""
    mean_source, mean_target = _mean(source, weights), _mean(target, weights)
    covariance = _mean((source - mean_source) * (target - mean_target), weights)
    gain = covariance / (_mean((source - mean_source) ** 2, weights) + 1e-9)
    matched: Floats = gain * (source - mean_source) + mean_target
    return matched


def _contrast(gray: Floats, weights: Floats) -> float:
    """Return the standard deviation about the best quadratic surface, in gray levels.

    A lit wall is a smooth slope, and any two slopes fit each other.
    """
    surface = _surface(len(gray))
    fit = _least_squares(surface, gray, weights, ridge=1e-9)
    return math.sqrt(_mean((gray - np.einsum("k,kyx->yx", fit, surface)) ** 2, weights))


def _plain_contrast(gray: Floats) -> float:
    """Return the contrast of (S, S) gray levels with equal weights."""
    basis = _orthonormal_surface(len(gray))
    fit = np.einsum("nk,n->k", basis, gray.ravel())
    return math.sqrt(((gray.ravel() - np.einsum("nk,k->n", basis, fit)) ** 2).mean())


@cache
def _surface(side: int) -> Floats:
    """Return the (6, side, side) terms of a quadratic surface."""
    position = np.linspace(-1, 1, side)
    x, y = np.meshgrid(position, position)
    return np.stack([np.ones_like(x), x, y, x * y, x**2, y**2])


@cache
def _orthonormal_surface(side: int) -> Floats:
    """Return an orthonormal basis, (side * side, 6), of the terms of a quadratic surface."""
    basis: Floats = np.linalg.qr(_surface(side).reshape(-1, side * side).T)[0]
    return basis


def _least_squares(terms: Floats, values: Floats, weights: Floats, ridge: float) -> Floats:
    """Return the (K,) coefficients of (K, S, S) terms that best fit (S, S) values."""
    # einsum: on arrays this small, BLAS threads cost more than they save, and the sums of einsum do
    # not depend on the number of threads.
    flat = terms.reshape(len(terms), -1)
    weighted = flat * weights.ravel()
    normal = np.einsum("in,jn->ij", weighted, flat)
    right_side = np.einsum("in,n->i", weighted, values.ravel())
    damped = normal + ridge * np.trace(normal) * np.eye(len(normal))
    coefficients: Floats = np.linalg.solve(damped, right_side)
    return coefficients


def _step(matched: Floats, difference: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return one Gauss-Newton step: growth of the scale and shift, each (2,), x before y."""
    side = len(matched)
    position = (np.arange(side) + 0.5) / side
    terms = np.empty((6, side, side))
    terms[3], terms[2] = np.gradient(matched, 1 / side)
    terms[0], terms[1] = terms[2] * position, terms[3] * position[:, None]
    terms[4], terms[5] = matched, 1
    step = _least_squares(terms, -difference, weights, ridge=1e-6)
    growth, shift = np.clip(step[:4], -0.05, 0.05).reshape(2, 2)
    return growth, shift


def _worst_cell(difference: Floats, weights: Floats) -> float:
    """Return the largest root mean square of the difference over the GRID x GRID cells."""
    size = len(difference) // GRID

    def cell_sums(values: Floats) -> Floats:
        sums: Floats = values.reshape(GRID, size, GRID, size).sum(axis=(1, 3))
        return sums

    valid = cell_sums(weights)
    mean = cell_sums(weights * difference**2) / np.maximum(valid, 1)
    return float(np.sqrt(mean[valid >= size * size / 4].max(initial=0)))
