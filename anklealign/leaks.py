"""Which photos of different parts show the same picture: the audit of a finished split.

Independent of how duplicates were found: no hashes and no clusters. Each held-out photo is set
beside its nearest photos of the other parts, in all eight orientations, by the correlation of what
is left of a small grey picture without its slow changes; those nearest are then verified on pixels.

Shapes: N photos, S the side of the small pictures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from anklealign.duplicates import Album, placement_of
from anklealign.hashes import ORIENTATIONS
from anklealign.photos import Pixels

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

SIDE = 32  # pixels
SLOW = 4.0  # pixels, sigma: light and walls change slower than that and make strangers look alike
NEAREST = 3  # photos verified for each held-out photo
CHUNK = 1024  # rows of correlations at once: 120 MiB against 30,000 photos
WHOLE = np.array([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True)
class Pair:
    """Two photos of different parts and how alike they are."""

    a: int
    b: int
    correlation: float  # of the small pictures, -1 to 1
    residual: float  # over the contrast, in the worst place; infinite where nothing fits


def nearest_pairs(
    photos: Sequence[Pixels], parts: Sequence[str], heldout: Sequence[str]
) -> list[Pair]:
    """Return the nearest pairs across parts, verified, the most alike first.

    Args:
        photos: N of (H, W, 3).
        parts: N names.
        heldout: Parts whose photos ask, in order: each asks all parts that did not ask before it.
    """
    album = Album(photos)
    small = np.array([_detail(photo) for photo in photos], np.float32).reshape(-1, SIDE, SIDE)
    names = np.asarray(parts)
    found: dict[tuple[int, int], Pair] = {}
    asked: list[str] = []
    for part in heldout:
        asked.append(part)
        queries = np.flatnonzero(names == part)
        others = np.flatnonzero(~np.isin(names, asked))
        for a, b, turn, correlation in _nearest(small, queries, others):
            match = album.compare(a, b, placement_of(turn, WHOLE, WHOLE))
            residual = match.residual if match else np.inf
            known = found.get((a, b))
            if known is None or residual < known.residual:
                found[a, b] = Pair(a, b, correlation, residual)
    return sorted(found.values(), key=lambda p: (p.residual, -p.correlation, p.a, p.b))


def _detail(photo: Pixels) -> Floats:
    """Return a photo's (S, S) grey detail with a length of 1, or zeros for a plain photo."""
    grey = Image.fromarray(np.asarray(photo)).convert("L")
    levels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float64)
    detail = levels - gaussian_filter(levels, SLOW, mode="nearest")
    length = np.linalg.norm(detail)
    return np.asarray(detail / length if length > SIDE else 0 * detail, np.float32)


def _nearest(
    small: Floats, queries: Indices, others: Indices
) -> Iterator[tuple[int, int, int, float]]:
    """Yield (query, other, orientation of the query, correlation): the nearest few of each."""
    if not len(others):
        return
    against = small[others].reshape(len(others), -1).T
    for start in range(0, len(queries), CHUNK):
        rows = queries[start : start + CHUNK]
        turned = [_turned(small[rows], *how).reshape(len(rows), -1) for how in ORIENTATIONS]
        each = np.stack([view @ against for view in turned])
        turns, best = each.argmax(0), each.max(0)
        # Stable, so that equal correlations fall by the order of the photos.
        order = np.argsort(-best, axis=1, kind="stable")[:, :NEAREST]
        for row, columns in enumerate(order):
            for column in columns:
                a, b = int(rows[row]), int(others[column])
                yield a, b, int(turns[row, column]), float(best[row, column])


def _turned(small: Floats, transposed: bool, flip_x: bool, flip_y: bool) -> Floats:
    """Return (N, S, S) pictures in one of hashes.ORIENTATIONS."""
    turned = small.transpose(0, 2, 1) if transposed else small
    return turned[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
