"""Which photos of different parts show the same picture: the audit of a finished split.

Its own: which pairs are looked at, and their correlation. No hash, no cluster and no group decides
that. Small grey views of each photo, whole and without borders, uncut and cut on a side, are freed
of their slow changes and correlated with those of every photo of the other parts in all eight
orientations; the nearest few photos are then correlated at a higher resolution.
Shared with clean: the box without borders (borders.py), and the residual of the nearest few after
they were laid over each other (Album.compare), which also finds copies cut otherwise than here.
So an error in hashes or clusters shows here; an error in the residual shows only where a copy's
correlation is high, as it is for copies that are neither framed nor cut.

10,000 photos, 3,000 of them held out, take 36 s of one core and 0.2 GB; both measured on photos of
64 pixels. Time grows with the square of their number.

Shapes: N photos, E views, S the side of a view in pixels. A rectangle is left, top, right, bottom
in shares of the photo's sides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from anklealign.io.pixel_store import Pixels
from anklealign.similarity.perceptual_hash import ORIENTATIONS
from anklealign.similarity.registration import Album, placement_of

Floats = npt.NDArray[np.float32]
Rects = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

WHOLE = (0.0, 0.0, 1.0, 1.0)
# Shares cut off left, top, right and bottom. A cut of 8 % moves what is at the other side by as
# much; in uncut views of 323 drawn legs, 9 such copies of 160 were not among the nearest 3.
CUTS = np.vstack([np.zeros(4), np.full(4, 0.04), 0.08 * np.eye(4)])
# Sides in pixels of what proposes and what decides, and the sigma, in pixels, above which changes
# are slow: light and walls change so, and make strangers look alike.
COARSE, COARSE_SLOW = 16, 2.0
FINE, FINE_SLOW = 64, 4.0
NEAREST = 3  # photos verified for each held-out photo
CELLS = 1 << 23  # correlations at once, 32 MiB, of which there are three copies at the most
PIECE = 2048  # photos whose views are cut at once: at most 40 MiB


@dataclass(frozen=True)
class Pair:
    """Two photos of different parts and how alike they are."""

    a: int
    b: int
    correlation: float  # of their detail at 64 pixels, where they were proposed; -1 to 1
    residual: float  # over the contrast, in the worst place; infinite where nothing fits


@dataclass(frozen=True)
class _Views:
    """Views photo by photo: whose, which rectangle, whether cut, (E, S * S) detail."""

    photo: Indices
    rect: Rects
    cut: npt.NDArray[np.bool_]
    detail: Floats

    def select(self, chosen: npt.NDArray[np.bool_]) -> "_Views":
        return _Views(self.photo[chosen], self.rect[chosen], self.cut[chosen], self.detail[chosen])


@dataclass(frozen=True)
class _Proposal:
    """Two views that look alike, the first of them turned."""

    correlation: float
    turn: int  # of hashes.ORIENTATIONS
    rect_a: Rects
    rect_b: Rects


def nearest_pairs(
    photos: Sequence[Pixels],
    parts: Sequence[str],
    heldout: Sequence[str],
    *,
    squares: bool = False,
) -> list[Pair]:
    """Return the nearest pairs across parts, verified, those with the least residual first.

    Args:
        photos: N of (H, W, 3).
        parts: N names.
        heldout: Parts whose photos ask, in order: each asks all parts that did not ask before it.
        squares: The photos came cut to their centre square.
    """
    album = Album(photos, squares=squares)
    views = _views(photos, album.contents, squares=squares)
    names = np.asarray(parts)
    found: list[Pair] = []
    asked: list[str] = []
    for part in heldout:
        asked.append(part)
        queries = views.select((names == part)[views.photo])
        others = views.select(~np.isin(names, asked)[views.photo])
        proposals: dict[int, dict[int, _Proposal]] = {}
        # A cut copy is like the cut view of what it was cut from, on whichever side that stands.
        for left, right in (
            (queries, others.select(~others.cut)),
            (queries.select(~queries.cut), others.select(others.cut)),
        ):
            for a, b, proposal in _propose(left, right):
                known = proposals.setdefault(a, {}).get(b)
                if known is None or proposal.correlation > known.correlation:
                    proposals[a][b] = proposal
        for a, of_a in tqdm(
            sorted(proposals.items()), desc=f"audit {part}", disable=None, leave=False
        ):
            nearest = sorted(of_a.items(), key=lambda item: (-item[1].correlation, item[0]))
            found += [_verify(album, photos, a, b, how) for b, how in nearest[:NEAREST]]
    return sorted(found, key=lambda p: (p.residual, -p.correlation, p.a, p.b))


def _views(photos: Sequence[Pixels], contents: Rects, *, squares: bool) -> _Views:
    """Return the views of (H, W, 3) photos: whole and, where they differ, their (4,) content.

    Of photos that came cut to their centre square also the content's: a picture squared with bars
    came whole, and its original without its ends.
    """
    owners, rects, cuts, details = [], [], [], []
    for start in tqdm(range(0, len(photos), PIECE), "views", delay=1, leave=False, disable=None):
        greys = []
        for n in range(start, min(start + PIECE, len(photos))):
            # What is cut from a picture of 64 pixels is as good at 16, and cut in a tenth of time.
            grey = _grey(photos[n]).resize((FINE, FINE), Image.Resampling.LANCZOS)
            bases = [WHOLE, contents[n]]
            if squares:
                bases.append(_centre_square(contents[n], photos[n].shape))
            for base in np.unique(bases, axis=0):
                sizes = np.tile(base[2:] - base[:2], 2)
                for cut in CUTS:
                    rect = base + cut * sizes * (1, 1, -1, -1)
                    greys.append(_part(grey, rect, COARSE))
                    owners.append(n)
                    rects.append(rect)
                    cuts.append(bool(cut.any()))
        details.append(_detail(np.array(greys), COARSE_SLOW).reshape(len(greys), -1))
    return _Views(
        np.array(owners, np.int64),
        np.array(rects, np.float64).reshape(-1, 4),
        np.array(cuts, np.bool_),
        np.concatenate([np.zeros((0, COARSE * COARSE), np.float32), *details]),
    )


def _centre_square(content: Rects, shape: tuple[int, ...]) -> Rects:
    """Return the centre square of the (4,) content of a photo of shape (H, W, 3)."""
    size = (content[2:] - content[:2]) * shape[1::-1]
    ends = (size - size.min()) / 2 / shape[1::-1]
    return np.array([*(content[:2] + ends), *(content[2:] - ends)])


def _propose(queries: _Views, others: _Views) -> Iterator[tuple[int, int, _Proposal]]:
    """Yield (photo, other photo, proposal): for each query the most alike view of the nearest."""
    if not len(others.photo):
        return
    starts = np.flatnonzero(np.diff(others.photo, prepend=-1))
    ends = np.append(starts[1:], len(others.photo))
    rows = max(1, CELLS // len(others.photo))
    firsts = range(0, len(queries.photo), rows)
    for first in tqdm(firsts, "propose", delay=1, leave=False, disable=None):
        small = queries.detail[first : first + rows].reshape(-1, COARSE, COARSE)
        best = np.full((len(small), len(others.photo)), -1, np.float32)
        for turn in range(len(ORIENTATIONS)):
            view = _turned(small, turn).reshape(len(small), -1)
            np.maximum(best, view @ others.detail.T, out=best)
        # The last digits depend on the threads of the product; equal ones fall by place.
        np.round(best, 4, out=best)
        by_photo = np.maximum.reduceat(best, starts, axis=1)
        for _ in range(min(NEAREST, len(starts))):
            nearest = by_photo.argmax(axis=1)
            for row, column in enumerate(nearest.tolist()):
                by_photo[row, column] = -2
                begin, end = starts[column], ends[column]
                a, b = first + row, int(begin + best[row, begin:end].argmax())
                correlation = float(best[row, b])
                views = np.stack([_turned(small[row], turn).ravel() for turn in range(8)])
                turn = int((views @ others.detail[b]).round(4).argmax())
                yield (
                    int(queries.photo[a]),
                    int(others.photo[b]),
                    _Proposal(correlation, turn, queries.rect[a], others.rect[b]),
                )


def _verify(album: Album, photos: Sequence[Pixels], a: int, b: int, how: _Proposal) -> Pair:
    """Return the pair with its correlation at 64 pixels and its residual."""
    match = album.compare(a, b, placement_of(how.turn, how.rect_a, how.rect_b))
    views = ((photos[a], how.rect_a), (photos[b], how.rect_b))
    fine = _detail(np.stack([_part(_grey(p), rect, FINE) for p, rect in views]), FINE_SLOW)
    correlation = float((_turned(fine[0], how.turn) * fine[1]).sum())
    return Pair(a, b, correlation, match.residual if match else np.inf)


def _grey(photo: Pixels) -> Image.Image:
    return Image.fromarray(np.asarray(photo)).convert("L")


def _part(grey: Image.Image, rect: Rects, side: int) -> Pixels:
    """Return a rectangle of a picture as (S, S) grey levels."""
    left, top, right, bottom = (rect * (grey.size * 2)).tolist()
    box = (left, top, right, bottom)
    return np.asarray(grey.resize((side, side), Image.Resampling.LANCZOS, box=box))


def _detail(greys: Pixels, slow: float) -> Floats:
    """Return the detail of (E, S, S) grey levels, of length 1 each, or zeros where all is plain."""
    levels = greys.astype(np.float32)
    detail = levels - gaussian_filter(levels, (0, slow, slow), mode="nearest")
    lengths = np.sqrt((detail**2).sum((1, 2), keepdims=True))
    # A side's length is a root mean square of one grey level.
    seen = lengths > greys.shape[1]
    return np.asarray(np.where(seen, detail / np.maximum(lengths, 1), 0), np.float32)


def _turned(small: Floats, turn: int) -> Floats:
    """Return (..., S, S) pictures in one of hashes.ORIENTATIONS."""
    transposed, flip_x, flip_y = ORIENTATIONS[turn]
    turned = small.swapaxes(-1, -2) if transposed else small
    return turned[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1]
