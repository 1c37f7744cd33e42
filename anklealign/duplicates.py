"""Which photos show the same picture: proposed by hashes, decided on pixels, gathered in clusters.

A copy may be re-encoded, resized, brightened, mirrored, turned by quarters, framed, or cut by up
to a tenth on any side. No distance between two hashes tells such copies from other shots of the
same scene, so hashes only propose: each photo asks with the hashes of its eight orientations, cut
and uncut, for photos whose own hash is near. Each proposal is then laid over the other photo
(Lucas-Kanade over shift, scale, gain and offset) and judged by what is left, place by place: a
copy leaves compression noise everywhere, another shot leaves the outline of what moved.

Places run from 0 to 1 over a photo's box, x before y. A placement is the (3, 3) matrix that takes
a place (x, y, 1) on one photo to the same place on the other.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anklealign import hashes
from anklealign.borders import content_box
from anklealign.photos import Pixels

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
# Sides of the pictures that Lucas-Kanade runs on: each halves the error left by the one before.
ROUNDS = (16, 16, 16, 32, 32, SIDE, SIDE)
HOPELESS_AFTER = 3  # rounds, and ...
HOPELESS = 0.6  # ... residual over contrast; copies are below 0.3 there
LEAST_SHARED = 0.7  # of either photo's side; two cuts of 8 percent on each side leave 0.84
PIECE = 2048  # photos whose thumbnails are in floating point at once: 64 MiB
RIM = 1 / SIDE  # share of the side beside a content's edge, where the border may show
CLIPPED = 32  # of 255: the share of clipped pixels from which a comparison leaves a spot out
PLACES = 8  # a side: the residual is judged in 8 x 8 places
SATURATED = 250  # level from which a channel of a brightened copy is clipped and says nothing
PLAIN = 3.0  # grey levels: a picture that varies less about a smooth slope looks like any other


@dataclass(frozen=True)
class Match:
    """Two photos that show the same picture."""

    a: int
    b: int
    residual: float  # worst place's, over the picture's contrast
    placement: Floats  # from places on b to places on a


@dataclass(frozen=True)
class Cluster:
    """The photo of lowest rank and the copies of it."""

    kept: int
    copies: dict[int, float]  # photo -> residual against the kept one
    identical: frozenset[int]  # those of the copies that equal it in every pixel


class Album:
    """N photos, (H, W, 3) each and perhaps mapped from disk, and what is needed to compare them."""

    def __init__(self, photos: Sequence[Pixels]) -> None:
        """Read every photo once; 8 KiB of each stay in memory."""
        self._photos = photos
        thumbs, contents, under = [], [], []
        for photo in photos:
            grey = Image.fromarray(photo).convert("L")
            box = content_box(np.asarray(grey))
            thumbs.append(np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
            contents.append(np.array(box) / (grey.size * 2))
            small = (hashes.SIDE, hashes.SIDE)
            under += [
                np.asarray(grey.resize(small, Image.Resampling.LANCZOS)),
                np.asarray(grey.crop(box).resize(small, Image.Resampling.LANCZOS)),
            ]
        self._thumbs = np.array(thumbs, np.uint8).reshape(-1, SIDE, SIDE)
        self.contents = np.array(contents, np.float64).reshape(-1, 4)
        sides = (-1, hashes.SIDE, hashes.SIDE)
        packed = hashes.pack(hashes.spectra(np.array(under, np.uint8).reshape(sides)))
        self.hashes = packed.reshape(-1, 2)  # of the whole photo, of its content
        self._channels = lru_cache(maxsize=1024)(self._read)

    def _read(self, photo: int) -> tuple[Image.Image, Image.Image]:
        """Return grey levels, and 255 where a channel is clipped."""
        pixels = np.asarray(self._photos[photo])
        clipped = np.where(pixels.max(axis=2) < SATURATED, 0, 255).astype(np.uint8)
        return Image.fromarray(pixels).convert("L"), Image.fromarray(clipped)

    def propose(self, distance: int) -> Iterator[tuple[int, int, Floats]]:
        """Yield (a, b, placement) where a view of a and b itself hash within `distance` bits.

        Each pair comes once an orientation, with the view whose hash is nearest; the nearest first.
        """
        everyone = np.arange(len(self.contents))
        whole = np.tile((0.0, 0.0, 1.0, 1.0), (len(everyone), 1))
        framed = np.flatnonzero((self.contents != whole).any(axis=1))
        # Photos as they are, and again without their borders.
        photos = np.concatenate([everyone, framed])
        rects = np.concatenate([whole, self.contents[framed]])
        index = np.concatenate([self.hashes[:, 0], self.hashes[framed, 1]])
        views = [_cut(rects, np.array(cut)) for cut in CUTS]
        asked = np.concatenate([self._hashes_of(photos, view) for view in views])
        pieces = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for query, answer in hashes.near(asked, index, distance):
            other = photos[query % len(photos)] != photos[answer]
            pieces.append((query[other], answer[other]))
        query, answer = (np.concatenate(column) for column in zip(*pieces, strict=True))
        entry = query % len(photos)
        cut, turn = np.divmod(query // len(photos), len(hashes.ORIENTATIONS))
        a, b = photos[entry], photos[answer]
        bits = np.bitwise_count(asked[query] ^ index[answer])
        pair = (np.minimum(a, b) * len(everyone) + np.maximum(a, b)) * 8 + turn
        order = np.lexsort((answer, query, bits, pair))
        nearest = order[np.unique(pair[order], return_index=True)[1]]
        for n in nearest[np.argsort(bits[nearest], kind="stable")]:
            view, place = views[cut[n]][entry[n]], rects[answer[n]]
            yield int(a[n]), int(b[n]), placement_of(int(turn[n]), view, place)

    def _hashes_of(self, photos: Indices, rects: Floats) -> hashes.Hashes:
        """Return the (8 N,) hashes of (N, 4) rectangles of N photos, orientation by orientation."""
        pieces = [
            _view_spectra(self._thumbs[photos[start : start + PIECE]], rects[start : start + PIECE])
            for start in range(0, max(len(photos), 1), PIECE)
        ]
        return np.concatenate(list(map(hashes.pack, hashes.orientations(np.concatenate(pieces)))))

    def compare(self, a: int, b: int, placement: Floats) -> Match | None:
        """Lay b over a, starting from a placement; None where they cannot be the same picture."""
        turned = abs(placement[0, 0]) < abs(placement[0, 1])
        # From here on a's axes run like b's: the placement scales and shifts each by itself.
        swap = np.eye(3)[[1, 0, 2]] if turned else np.eye(3)
        content = self.contents[a][[1, 0, 3, 2]] if turned else self.contents[a]
        straight = swap @ placement
        scale, shift = np.diag(straight)[:2].copy(), straight[:2, 2].copy()
        for number, side in enumerate(ROUNDS):
            part = _shared(scale, shift, content, self.contents[b])
            if part is None:
                return None
            start, size = part
            over, in_a = self._part(a, scale * start + shift, scale * size, side, turned=turned)
            under, in_b = self._part(b, start, size, side, turned=False)
            weights = (in_a & in_b).astype(np.float64)
            if weights.mean() < 0.05:  # all but white: compare what there is
                weights[:] = 1
            laid = _same_light(over, under, weights)
            left = laid - under
            if number == HOPELESS_AFTER:
                left_over = math.sqrt(_mean(left**2, weights))
                if left_over > HOPELESS * max(PLAIN, _contrast(under, weights)):
                    return None
            if number < len(ROUNDS) - 1:
                grown, moved = _step(laid, left, weights)
                shift += scale * (size * moved - start * grown)
                scale *= 1 + grown
        contrast = _contrast(under, weights)
        if contrast < PLAIN:
            return None
        residual = _worst_place(left, weights) / contrast
        straight = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])
        return Match(a, b, residual, swap @ straight)

    def _part(
        self, photo: int, start: Floats, size: Floats, side: int, *, turned: bool
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

        if side < SIDE:
            pixels = part(Image.fromarray(self._thumbs[photo]))
            return pixels.astype(np.float64), pixels < SATURATED
        grey, clipped = self._channels(photo)
        return part(grey).astype(np.float64), part(clipped) < CLIPPED


def find(
    photos: Sequence[Pixels], rank: Sequence[Any], distance: int, residual: float
) -> list[Cluster]:
    """Return the clusters among (H, W, 3) photos, each with its member of lowest rank as kept.

    Two photos match when their hashes lie within `distance` bits in some view, and some placement
    leaves at most `residual` of the contrast in every place.
    """
    twins: dict[bytes, list[int]] = {}
    for photo in sorted(range(len(photos)), key=lambda n: rank[n]):
        digest = hashlib.sha256(f"{photos[photo].shape}".encode() + photos[photo].tobytes())
        twins.setdefault(digest.digest(), []).append(photo)
    first = [group[0] for group in twins.values()]  # in the order of their rank
    others = {group[0]: group[1:] for group in twins.values()}
    album = Album([photos[photo] for photo in first])

    result = []
    for star in _stars(album, _links(album, distance, residual), residual):
        best, *rest = sorted(star)
        kept = first[best]
        copies = dict.fromkeys(others[kept], 0.0)
        for photo in rest:
            match = album.compare(
                best, photo, np.linalg.inv(star[best].placement) @ star[photo].placement
            )
            left = match.residual if match else star[photo].residual
            copies |= dict.fromkeys([first[photo], *others[first[photo]]], left)
        if copies:
            result.append(Cluster(kept, copies, frozenset(others[kept])))
    return result


Links = dict[int, dict[int, list[Floats]]]  # photo -> photo -> placements of the second on it


def _links(album: Album, distance: int, residual: float) -> Links:
    """Return placements that connect all photos that match: those found, and those left untried.

    Two photos that are connected already are not compared again, so that the work grows with the
    number of copies and not with its square.
    """
    root = list(range(len(album.contents)))

    def find_root(photo: int) -> int:
        while root[photo] != photo:
            root[photo] = root[root[photo]]
            photo = root[photo]
        return photo

    links: Links = {photo: {} for photo in root}
    for a, b, proposed in album.propose(distance):
        placement = proposed
        if find_root(a) != find_root(b):
            match = album.compare(a, b, proposed)
            if match is None or match.residual > residual:
                continue
            placement = match.placement
            root[find_root(a)] = find_root(b)
        links[a].setdefault(b, []).append(placement)
        links[b].setdefault(a, []).append(np.linalg.inv(placement))
    return links


def _stars(album: Album, links: Links, residual: float) -> Iterator[dict[int, Match]]:
    """Yield every photo's cluster: its members, each with its match with the cluster's centre.

    Matches chain: a cut on the left, the whole, a cut on the right. Each photo of a chain is
    compared with the centre itself, and one that does not match it is left for a cluster of its
    own, so that unlike photos never share a cluster. The centre is the earliest photo that matches
    all the others, or else the earliest of those that match most.
    """
    free = set(links)
    for earliest in links:
        while earliest in free:
            chained = [earliest]
            for via in chained:  # which grows meanwhile
                chained += sorted((links[via].keys() & free) - set(chained))
            best: dict[int, Match] = {}
            for centre in sorted(chained):
                star = _star(album, links, centre, set(chained), residual)
                if len(star) > len(best):
                    best = star
                if len(star) == len(chained):
                    break
            free -= best.keys()
            yield best


def _star(
    album: Album, links: Links, centre: int, chained: set[int], residual: float
) -> dict[int, Match]:
    """Return the matches of `centre` with itself and with those of a chain that match it."""
    star = {centre: Match(centre, centre, 0.0, np.eye(3))}
    waiting = [centre]
    for via in waiting:  # which grows meanwhile
        for photo in sorted(links[via].keys() & chained - star.keys()):
            tries = (
                album.compare(centre, photo, star[via].placement @ placement)
                for placement in links[via][photo]
            )
            good = [match for match in tries if match and match.residual <= residual]
            if good:
                star[photo] = min(good, key=lambda match: match.residual)
                waiting.append(photo)
    return star


def _cut(rects: Floats, cut: Floats) -> Floats:
    """Return (N, 4) rectangles less a share of their width and height on each side."""
    sizes = rects[:, 2:] - rects[:, :2]
    return np.hstack([rects[:, :2] + cut[:2] * sizes, rects[:, 2:] - cut[2:] * sizes])


def _view_spectra(thumbs: Pixels, rects: Floats) -> Floats:
    """Return the (N, 8, 8) spectra of rectangles of (N, 64, 64) thumbnails.

    The cosines of the rectangle are applied to the thumbnail as it is; against the hash of the
    resized rectangle, the outcome differs by 0.3 bits on average and 2 at most.
    """
    across, down = _cosines(rects[:, 0], rects[:, 2]), _cosines(rects[:, 1], rects[:, 3])
    spectra: Floats = down @ thumbs.astype(np.float64) @ across.transpose(0, 2, 1)
    return spectra


def _cosines(start: Floats, end: Floats) -> Floats:
    """Return (N, 8, 64): the first 8 cosines from start to end, sampled at the pixels."""
    centre = (np.arange(SIDE) + 0.5) / SIDE
    low, high = centre - 0.5 / SIDE, centre + 0.5 / SIDE
    inside = np.minimum(high, end[:, None]) - np.maximum(low, start[:, None])
    place = (centre - start[:, None]) / (end - start)[:, None]
    waves = np.cos(np.pi * np.arange(hashes.LOW)[:, None] * place[:, None, :])
    weighted: Floats = waves * np.clip(inside, 0, None)[:, None, :]
    return weighted


def placement_of(turn: int, view: Floats, place: Floats) -> Floats:
    """Return the matrix from b's places to a's, where a's view, turned, equals b's rectangle."""
    transposed, flip_x, flip_y = hashes.ORIENTATIONS[turn]
    to_unit = np.linalg.inv(_rectangle(place))
    flip = _rectangle(np.array([flip_x, flip_y, not flip_x, not flip_y], np.float64))
    swap = np.eye(3)[[1, 0, 2]] if transposed else np.eye(3)
    placement: Floats = _rectangle(view) @ swap @ flip @ to_unit
    return placement


def _rectangle(rect: Floats) -> Floats:
    """Return the matrix from the unit square to a rectangle; left > right mirrors."""
    left, top, right, bottom = rect
    return np.array([[right - left, 0, left], [0, bottom - top, top], [0, 0, 1]])


def _shared(
    scale: Floats, shift: Floats, content_a: Floats, content_b: Floats
) -> tuple[Floats, Floats] | None:
    """Return start and size, in b's places, of what both contents show; None when too little."""
    ends = np.sort((content_a.reshape(2, 2) - shift) / scale, axis=0)
    start, end = np.maximum(ends[0], content_b[:2]), np.minimum(ends[1], content_b[2:])
    larger = np.maximum(ends[1] - ends[0], content_b[2:] - content_b[:2])
    if (end - start < LEAST_SHARED * larger).any():
        return None
    return start + RIM * (end - start), (1 - 2 * RIM) * (end - start)


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
