"""Which two photos show the same picture: proposed by hashes, decided on pixels.

A copy may be re-encoded, resized, brightened, mirrored, turned by quarters, framed, or cut by up
to a tenth on any side. No distance between two hashes tells such copies from other shots of the
same scene, so hashes only propose: each photo asks with the hashes of its eight orientations, cut
and uncut, for photos whose own hash is near. Each proposal is then laid over the other photo
(Lucas-Kanade over shift, scale, gain and offset) and judged by what is left, place by place: a
copy leaves compression noise everywhere, another shot leaves the outline of what moved.

Places run from 0 to 1 over a photo's box, x before y. A placement is the (3, 3) matrix that takes
a place (x, y, 1) on one photo to the same place on the other.
"""

import math
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from anklealign.io.pixel_store import Pixels
from anklealign.similarity import perceptual_hash
from anklealign.similarity.borders import content_box

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]

SIDE = 64  # pixels, side of a thumbnail and of the last comparison
# Shares cut off left, top, right and bottom. On 243 real photos an 8 percent cut moves a hash by
# more than 10 bits as often as not; within this grid random cuts of 0 to 5 percent on all sides at
# once stay within 6.
CUTS = (
    (0.0, 0.0, 0.0, 0.0),
    *(tuple(np.eye(4)[side] * share) for share in (0.04, 0.08) for side in range(4)),
    *((share,) * 4 for share in (0.04, 0.08)),
)
# Sides of the pictures that Lucas-Kanade runs on: each halves the error left by the one before. The
# last two are taken from the photos, those before from thumbnails.
ROUNDS = (16, 16, 16, 32, 32, SIDE, SIDE)
FROM_PHOTOS = 5
# Residual over contrast, over the whole picture, beyond which a round is the last. Of the copies
# planted in the phantom (seed 2) and the ants and bees (train), 99 percent leave less than 0.2 and
# 0.16; of the phantom's different photos, 55 and 94 percent leave more than is let pass here.
HOPELESS = {2: 0.6, 3: 0.35}
LEAST_SHARED = 0.7  # of either photo's side; two cuts of 8 percent on each side leave 0.84
LEAST_COMMON = 0.3  # of a side, where a plain sky was taken for the border of one of the two
SHIFT = 0.08  # of the side: a cut on one end moves the centre square of a photo by half as much
PIECE = 2048  # entries whose thumbnails are in floating point at once: 64 MiB
RIM = 1 / SIDE  # share of the side beside a content's edge, where the border may show
CLIPPED = 32  # of 255: the share of clipped pixels from which a comparison leaves a spot out
PLACES = 8  # a side: the residual is judged in 8 x 8 places
SATURATED = 250  # level from which a channel of a brightened copy is clipped and says nothing
PLAIN = 3.0  # grey levels: a picture that varies less about a smooth slope looks like any other
IN_MEMORY = 1 << 28  # bytes of thumbnails; beyond that they go to a temporary file


@dataclass(frozen=True)
class Match:
    """Two photos that show the same picture."""

    a: int
    b: int
    residual: float  # worst place's, over the picture's contrast
    placement: Floats  # from places on b to places on a

    @property
    def mirrored(self) -> bool:
        """Whether they are mirror images, turned or not."""
        return bool(np.linalg.det(self.placement) < 0)

    def reversed(self) -> "Match":
        """Return the match of b with a."""
        return Match(self.b, self.a, self.residual, np.linalg.inv(self.placement))


@dataclass(frozen=True)
class Proposals:
    """Pairs that may show the same picture, the likeliest first."""

    a: Indices  # (M,)
    b: Indices  # (M,)
    turns: Indices  # (M,) of a
    views: Floats  # (M, 4) rectangle of a that, turned, ...
    rects: Floats  # (M, 4) ... may equal this one of b
    crowded: bool  # some photo has more likely copies than are proposed for one

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.a)

    def __iter__(self) -> Iterator[tuple[int, int, Floats]]:
        """Yield (a, b, placement)."""
        for a, b, turn, view, rect in zip(
            self.a, self.b, self.turns, self.views, self.rects, strict=True
        ):
            yield int(a), int(b), placement_of(int(turn), view, rect)


class Album:
    """N photos, (H, W, 3) each and perhaps mapped from disk, and what is needed to compare them.

    An entry is a rectangle of a photo that is looked up: the whole, and its content where there
    are borders. Of photos that came cut to their centre square there are five more: the centre
    square of the content, as a picture squared with bars came whole and its original without its
    ends; and the photo less a strip on each side, as a cut photo's square lies elsewhere on the
    picture than its original's.
    """

    def __init__(
        self,
        photos: Sequence[Pixels],
        chosen: Sequence[int] | None = None,
        *,
        squares: bool = False,
    ) -> None:
        """Read every photo, or the chosen ones, once; some 0.2 KiB of each stay in memory."""
        self._photos = photos
        self._chosen = range(len(photos)) if chosen is None else chosen
        self._thumbs = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - lives as long
        weakref.finalize(self, self._thumbs.close)
        sizes, contents, least, plain = [], [], [], []
        owners, rects, words = [], [], [np.zeros((0, perceptual_hash.WORDS), np.uint64)]
        greys: list[Pixels] = []
        for photo in tqdm(range(len(self._chosen)), "read", unit="photo", disable=None):
            grey = Image.fromarray(np.asarray(self._photo(photo))).convert("L")
            box = content_box(np.asarray(grey))
            content = np.array(box) / (grey.size * 2)
            width, height = box[2] - box[0], box[3] - box[1]
            shorter = min(width, height)
            thumb = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
            self._thumbs.write(thumb.tobytes())
            inner = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)
            plain.append(_contrast(np.asarray(inner, np.float64), np.ones((SIDE, SIDE))) < PLAIN)
            sizes.append(grey.size)
            contents.append(content)
            sides = (shorter, shorter) if squares else (width, height)
            least.append(np.array(sides) / grey.size)
            left, top = box[0] + (width - shorter) / 2, box[1] + (height - shorter) / 2
            parts: list[tuple[float, float, float, float]] = [(0, 0, *grey.size), box]
            if squares:
                parts.append((left, top, left + shorter, top + shorter))
                whole = np.array([(0.0, 0.0, *grey.size)])
                parts += [tuple(_cut(whole, SHIFT * side)[0]) for side in np.eye(4)]
            for part in dict.fromkeys(parts):
                owners.append(photo)
                rects.append(np.array(part) / (grey.size * 2))
                small = (perceptual_hash.SIDE, perceptual_hash.SIDE)
                greys.append(np.asarray(grey.resize(small, Image.Resampling.LANCZOS, box=part)))
            if len(greys) >= PIECE:
                words.append(perceptual_hash.pack(perceptual_hash.spectra(np.array(greys))))
                greys.clear()
        if greys:
            words.append(perceptual_hash.pack(perceptual_hash.spectra(np.array(greys))))
        self.contents = np.array(contents, np.float64).reshape(-1, 4)
        self._sizes = np.array(sizes, np.float64).reshape(-1, 2)
        least_nd = np.array(least, np.float64).reshape(-1, 1, 2)
        self._bounds = np.concatenate([self.contents.reshape(-1, 2, 2), least_nd], axis=1)
        self._plain = np.array(plain, bool)
        self._owners = np.array(owners, np.int64)
        self._rects = np.array(rects, np.float64).reshape(-1, 4)
        self._words = np.concatenate(words)
        self._channels = lru_cache(maxsize=1024)(self._read)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._chosen)

    def _photo(self, photo: int) -> Pixels:
        return self._photos[self._chosen[photo]]

    def _thumb(self, photo: int) -> Pixels:
        """Return a photo's (64, 64) grey thumbnail."""
        self._thumbs.seek(photo * SIDE**2)
        return np.frombuffer(self._thumbs.read(SIDE**2), np.uint8).reshape(SIDE, SIDE)

    def _read(self, photo: int) -> tuple[Image.Image, Image.Image]:
        """Return grey levels, and 255 where a channel is clipped."""
        pixels = np.asarray(self._photo(photo))
        clipped = np.where(pixels.max(axis=2) < SATURATED, 0, 255).astype(np.uint8)
        return Image.fromarray(pixels).convert("L"), Image.fromarray(clipped)

    def propose(self, distance: int, among: Sequence[int] | None = None) -> Proposals:
        """Return the pairs where a view of a and b itself hash within `distance` bits.

        Each pair comes once an orientation, with the view whose hash is nearest, and each photo
        with those alone that are nearest to it. Plain photos look like any other and are left out.
        """
        wanted = ~self._plain
        if among is not None:
            wanted &= np.isin(np.arange(len(self)), among)
        entries = np.flatnonzero(wanted[self._owners])
        nearest = perceptual_hash.Nearest(self._words[entries], self._owners[entries], distance)
        for cut in tqdm(CUTS, "search", unit="view", disable=(among is not None) or None):
            nearest.ask(self._hashes_of(entries, np.array(cut)))
        query, answer = nearest.found()
        view, entry = np.divmod(query, max(len(entries), 1))
        cuts, turns = np.divmod(view, len(perceptual_hash.ORIENTATIONS))
        asking, found = entries[entry], entries[answer]
        return Proposals(
            self._owners[asking],
            self._owners[found],
            turns,
            _cut(self._rects[asking], np.array(CUTS)[cuts]),
            self._rects[found],
            nearest.crowded,
        )

    def _hashes_of(self, entries: Indices, cut: Floats) -> perceptual_hash.Hashes:
        """Return the (8 N, 4) words of N entries less a cut, orientation by orientation."""
        packed = np.zeros(
            (len(perceptual_hash.ORIENTATIONS), len(entries), perceptual_hash.WORDS), np.uint64
        )
        for start in range(0, len(entries), PIECE):
            piece = entries[start : start + PIECE]
            thumbs = np.stack([self._thumb(photo) for photo in self._owners[piece]])
            spectra = _view_spectra(thumbs, _cut(self._rects[piece], cut))
            for turn, turned in enumerate(perceptual_hash.orientations(spectra)):
                packed[turn, start : start + PIECE] = perceptual_hash.pack(turned)
        return packed.reshape(-1, perceptual_hash.WORDS)

    def compare(
        self, a: int, b: int, placement: Floats, shared: float = LEAST_SHARED
    ) -> Match | None:
        """Lay b over a, starting from a placement; None where they cannot be the same picture.

        They are to have at least the share `shared` of either's sides in common.
        """
        turned = abs(placement[0, 0]) < abs(placement[0, 1])
        # From here on a's axes run like b's: the placement scales and shifts each by itself.
        swap = np.eye(3)[[1, 0, 2]] if turned else np.eye(3)
        order = [1, 0] if turned else [0, 1]
        straight = swap @ placement
        scale, shift = np.diag(straight)[:2].copy(), straight[:2, 2].copy()
        least = np.array([[1.0], [1.0], [shared]])
        inner_a, inner_b = self._bounds[a][:, order] * least, self._bounds[b] * least
        bounds_a, bounds_b = inner_a, inner_b
        if _shared(scale, shift, bounds_a, bounds_b) is None:
            bounds_a = bounds_b = WHOLE * least
        for number, most in enumerate(ROUNDS):
            part = _shared(scale, shift, bounds_a, bounds_b)
            common = _common(scale, shift, inner_a, inner_b)
            if part is None or (common[1] - common[0] < LEAST_COMMON).any():
                return None
            start, size = part
            # Detail that a small copy lacks says nothing: both are shown as coarse as the coarser.
            shown = np.minimum(abs(scale * size) * self._sizes[a][order], size * self._sizes[b])
            side = max(ROUNDS[0], min(most, int(shown.min()) // PLACES * PLACES))
            fine = number >= FROM_PHOTOS
            over, in_a = self._part(
                a, scale * start + shift, scale * size, side, fine=fine, turned=turned
            )
            under, in_b = self._part(b, start, size, side, fine=fine, turned=False)
            weights = (in_a & in_b).astype(np.float64)
            # Two different photos in one frame share the contrast of the frame.
            inside = _inside((common - start) / size, side)
            if (weights * inside).mean() < 0.05:  # all but white: compare what there is
                weights[:] = 1
            laid = _same_light(over, under, weights)
            left = laid - under
            contrast = (
                _contrast(under, weights * inside) if number in {*HOPELESS, len(ROUNDS) - 1} else 0
            )
            if number in HOPELESS:
                left_over = math.sqrt(_mean(left**2, weights))
                if left_over > HOPELESS[number] * max(PLAIN, contrast):
                    return None
            if number < len(ROUNDS) - 1:
                grown, moved = _step(laid, left, weights)
                shift += scale * (size * moved - start * grown)
                scale *= 1 + grown
        if contrast < PLAIN:
            return None
        residual = _worst_place(left, weights) / contrast
        straight = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])
        return Match(a, b, residual, swap @ straight)

    def _part(
        self, photo: int, start: Floats, size: Floats, side: int, *, fine: bool, turned: bool
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return (side, side) grey levels of a part, and which are true; negative sizes mirror."""
        corners = np.clip(np.sort([start, start + size], axis=0), 0, 1)
        mirror = (
            slice(None, None, -1 if size[1] < 0 else 1),
            slice(None, None, -1 if size[0] < 0 else 1),
        )

        def part(image: Image.Image) -> Pixels:
            if turned:
                image = image.transpose(Image.Transpose.TRANSPOSE)
            box = tuple((corners * image.size).ravel())
            return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))[mirror]

        if not fine:
            pixels = part(Image.fromarray(self._thumb(photo)))
            return pixels.astype(np.float64), pixels < SATURATED
        grey, clipped = self._channels(photo)
        return part(grey).astype(np.float64), part(clipped) < CLIPPED


def _cut(rects: Floats, cut: Floats) -> Floats:
    """Return (N, 4) rectangles less shares of their width and height, (4,) or (N, 4)."""
    sizes = rects[:, 2:] - rects[:, :2]
    return np.hstack([rects[:, :2] + cut[..., :2] * sizes, rects[:, 2:] - cut[..., 2:] * sizes])


def _view_spectra(thumbs: Pixels, rects: Floats) -> Floats:
    """Return the (N, 16, 16) spectra of rectangles of (N, 64, 64) thumbnails.

    The cosines of the rectangle are applied to the thumbnail as it is; against the hash of the
    resized rectangle, the first word differs by 0.3 bits on average and 2 at most.
    """
    across, down = _cosines(rects[:, 0], rects[:, 2]), _cosines(rects[:, 1], rects[:, 3])
    spectra: Floats = down @ thumbs.astype(np.float64) @ across.transpose(0, 2, 1)
    return spectra


def _cosines(start: Floats, end: Floats) -> Floats:
    """Return (N, 16, 64): the first 16 cosines from start to end, sampled at the pixels."""
    centre = (np.arange(SIDE) + 0.5) / SIDE
    low, high = centre - 0.5 / SIDE, centre + 0.5 / SIDE
    inside = np.minimum(high, end[:, None]) - np.maximum(low, start[:, None])
    place = (centre - start[:, None]) / (end - start)[:, None]
    waves = np.cos(np.pi * np.arange(perceptual_hash.FINE)[:, None] * place[:, None, :])
    weighted: Floats = waves * np.clip(inside, 0, None)[:, None, :]
    return weighted


def placement_of(turn: int, view: Floats, place: Floats) -> Floats:
    """Return the matrix from b's places to a's, where a's view, turned, equals b's rectangle."""
    transposed, flip_x, flip_y = perceptual_hash.ORIENTATIONS[turn]
    to_unit = np.linalg.inv(_rectangle(place))
    flip = _rectangle(np.array([flip_x, flip_y, not flip_x, not flip_y], np.float64))
    swap = np.eye(3)[[1, 0, 2]] if transposed else np.eye(3)
    placement: Floats = _rectangle(view) @ swap @ flip @ to_unit
    return placement


def _rectangle(rect: Floats) -> Floats:
    """Return the matrix from the unit square to a rectangle; left > right mirrors."""
    left, top, right, bottom = rect
    return np.array([[right - left, 0, left], [0, bottom - top, top], [0, 0, 1]])


# Bounds are (3, 2): start and end of a content, and the sides of which a share is to be in common.
WHOLE = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])


def _common(scale: Floats, shift: Floats, bounds_a: Floats, bounds_b: Floats) -> Floats:
    """Return start and end, in b's places, of what both show; the end may lie before the start."""
    ends = np.sort((bounds_a[:2] - shift) / scale, axis=0)
    return np.stack([np.maximum(ends[0], bounds_b[0]), np.minimum(ends[1], bounds_b[1])])


def _shared(
    scale: Floats, shift: Floats, bounds_a: Floats, bounds_b: Floats
) -> tuple[Floats, Floats] | None:
    """Return start and size, in b's places, of what both show; None when it is too little."""
    start, end = _common(scale, shift, bounds_a, bounds_b)
    if (end - start < np.maximum(bounds_a[2] / abs(scale), bounds_b[2])).any():
        return None
    return start + RIM * (end - start), (1 - 2 * RIM) * (end - start)


def _inside(ends: Floats, side: int) -> Floats:
    """Return (side, side): 1 where a pixel's centre lies between (2, 2) ends, elsewhere 0."""
    centre = (np.arange(side)[:, None] + 0.5) / side
    across, down = ((ends[0] <= centre) & (centre <= ends[1])).T
    inside: Floats = (down[:, None] & across).astype(np.float64)
    return inside


def _mean(values: Floats, weights: Floats) -> float:
    return float((values * weights).sum() / weights.sum())


def _same_light(over: Floats, under: Floats, weights: Floats) -> Floats:
    """Return `over` with the gain and offset that bring it nearest to `under`."""
    mean_over, mean_under = _mean(over, weights), _mean(under, weights)
    shared = _mean((over - mean_over) * (under - mean_under), weights)
    gain = shared / (_mean((over - mean_over) ** 2, weights) + 1e-9)
    laid: Floats = gain * (over - mean_over) + mean_under
    return laid


def _contrast(grey: Floats, weights: Floats) -> float:
    """Return the standard deviation about the best quadratic surface, in grey levels.

    A lit wall is a smooth slope; any two slopes fit each other, and say nothing.
    """
    surface = _surface(len(grey))
    fit = _least_squares(surface, grey, weights, ridge=1e-9)
    return math.sqrt(_mean((grey - np.tensordot(surface, fit, 1)) ** 2, weights))


@cache
def _surface(side: int) -> Floats:
    """Return the (side, side, 6) terms of a quadratic surface."""
    place = np.linspace(-1, 1, side)
    x, y = np.meshgrid(place, place)
    return np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=-1)


def _least_squares(terms: Floats, values: Floats, weights: Floats, ridge: float) -> Floats:
    """Return the (K,) factors of (S, S, K) terms that add up to about (S, S) values."""
    # einsum, because the threads of a BLAS cost more than they bring on arrays this small, and
    # because its sums do not depend on their number.
    weighted = terms * weights[..., None]
    normal = np.einsum("yxi,yxj->ij", weighted, terms)
    wanted = np.einsum("yxi,yx->i", weighted, values)
    damped = normal + ridge * np.trace(normal) * np.eye(len(normal))
    factors: Floats = np.linalg.solve(damped, wanted)
    return factors


def _step(laid: Floats, left: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return one Gauss-Newton step: growth of the scale and shift, each (2,), x before y."""
    side = len(laid)
    place = (np.arange(side) + 0.5) / side
    down, across = (slope * side for slope in np.gradient(laid))
    terms = (across * place, down * place[:, None], across, down, laid, np.ones_like(laid))
    step = _least_squares(np.stack(terms, axis=-1), -left, weights, ridge=1e-6)
    growth, shift = np.clip(step[:4], -0.05, 0.05).reshape(2, 2)
    return growth, shift


def _worst_place(left: Floats, weights: Floats) -> float:
    """Return the largest root mean square of what is left, over PLACES x PLACES places."""
    size = len(left) // PLACES

    def places(values: Floats) -> Floats:
        parts: Floats = values.reshape(PLACES, size, PLACES, size).sum(axis=(1, 3))
        return parts

    seen = places(weights)
    mean = places(weights * left**2) / np.maximum(seen, 1)
    return float(np.sqrt(mean[seen >= size * size / 4].max(initial=0)))
