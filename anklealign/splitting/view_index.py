"""Search similar views of many photos without a comparison of all pairs.

The index is an inverted file (Sivic and Zisserman, Video Google, ICCV 2003) as in Faiss's
IndexIVFFlat, with views drawn from the indexed ones as centers: each view is in the list of the
center that it resembles most, and a query is compared with the lists of the PROBES centers that it
resembles most. A photo has several views, and a copy of it resembles more than one of them, so one
miss loses no copy.

Descriptors are the lowest frequencies of a view, as whole numbers: their products are exact in
single precision, so the result depends on neither the number of threads nor the processor nor the
order of the photos. `benchmarks.leakage_audit` measures the time and what the index misses.

Shapes: Q queries, M indexed views, L lists.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from tqdm import tqdm

from anklealign.similarity.perceptual_hash import ORIENTATIONS

Floats = npt.NDArray[np.float32]
Descriptors = npt.NDArray[np.int8]
Indices = npt.NDArray[np.integer[Any]]
Hits = tuple[Indices, Indices, Indices, Floats]  # query, indexed view, orientation, correlation

FREQUENCIES = 8  # on each axis, of the 16 of a view; they hold two thirds of its energy
LENGTH = 127  # of a descriptor; rounding changes a correlation by 0.003
MIN_SHARE = 0.3  # of a view's length that these frequencies must have
MIN_CORRELATION = 0.85  # copies made for a benchmark have 0.94 and more, web photos 0.86
LIST, PROBES = 128, 16
# Views of one list that are hits of a query; more only where all photos look alike.
HITS = 8
ROWS = 1 << 14  # oriented queries at once, times L correlations with centers: 64 MiB for 100,000


def describe(detail: Floats) -> Descriptors:
    """Return the (E, 64) descriptors of (E, S, S) views of length 1; zeros for a plain view."""
    basis = scipy.fft.dct(np.eye(detail.shape[1]), norm="ortho", axis=0)[:FREQUENCIES]
    basis = basis.astype(np.float32)
    low = (basis @ detail @ basis.T).reshape(len(detail), -1)
    lengths = np.sqrt((low**2).sum(axis=1, keepdims=True))
    scaled = np.rint(LENGTH * low / np.maximum(lengths, MIN_SHARE))
    return np.where(lengths < MIN_SHARE, 0, scaled).astype(np.int8)


def oriented(descriptors: Descriptors) -> Floats:
    """Return (8, Q, 64): the descriptors in each of perceptual_hash.ORIENTATIONS."""
    square = descriptors.reshape(-1, FREQUENCIES, FREQUENCIES).astype(np.float32)
    signs = (-1.0) ** np.arange(FREQUENCIES, dtype=np.float32)
    turned = []
    for transposed, flip_x, flip_y in ORIENTATIONS:
        view = square.swapaxes(1, 2) if transposed else square
        view = view * signs if flip_x else view
        turned.append(view * signs[:, None] if flip_y else view)
    return np.stack(turned).reshape(len(ORIENTATIONS), len(square), -1)


class ViewIndex:
    """An index of (M, 64) descriptors of the views of photos."""

    def __init__(self, descriptors: Descriptors, photos: Indices, nearest: int) -> None:
        """Sort the views into lists.

        Args:
            descriptors: (M, 64).
            photos: (M,) owners of the views.
            nearest: Photos wanted for each query. Of photos with equal views, as many are indexed,
                the first ones; plain views are not indexed.
        """
        # A hash of a descriptor: its order is random and independent of that of the photos.
        factors = np.random.default_rng(0).integers(-(2**62), 2**62, descriptors.shape[1])
        keys = descriptors.astype(np.int64) @ factors
        views = _distinct(keys, photos, nearest)
        views = views[descriptors[views].any(axis=1)]
        unique = np.unique(keys[views], return_index=True)[1]
        centers = views[unique[: max(1, len(views) // LIST)]]
        self._centers = descriptors[centers].astype(np.float32)
        chosen = [
            (descriptors[views[begin : begin + ROWS]].astype(np.float32) @ self._centers.T).argmax(
                1
            )
            for begin in range(0, len(views), ROWS)
        ]
        lists = np.concatenate([np.zeros(0, np.int64), *chosen])
        order = np.argsort(lists, kind="stable")
        self._views = views[order]
        self._starts = np.searchsorted(lists[order], np.arange(len(centers) + 1))
        self._descriptors = descriptors[self._views]

    def search(self, queries: Descriptors) -> Iterator[Hits]:
        """Yield the hits of (Q, 64) queries in any orientation, in batches of queries."""
        rows = max(1, ROWS // len(ORIENTATIONS))
        firsts = range(0, len(queries), rows) if len(self._views) else ()
        for first in tqdm(firsts, "propose", delay=1, leave=False, disable=None):
            turned = oriented(queries[first : first + rows])
            row, view, correlation = self._hits(turned.reshape(-1, turned.shape[2]))
            orientation, query = np.divmod(row, turned.shape[1])
            yield first + query, self._views[view], orientation, correlation

    def _hits(self, turned: Floats) -> tuple[Indices, Indices, Floats]:
        """Return row, place in the lists, and correlation of the hits of (R, 64) queries."""
        similar = turned @ self._centers.T
        last = max(0, similar.shape[1] - PROBES)
        limit = np.partition(similar, last, axis=1)[:, last]
        row, probed = np.nonzero(similar >= limit[:, None])
        order = np.argsort(probed, kind="stable")
        row = row[order].astype(np.int32)  # all hits of a batch are in memory, twice at the end
        bounds = np.searchsorted(probed[order], np.arange(similar.shape[1] + 1))
        rows: list[Indices] = [np.zeros(0, np.int32)]
        places: list[Indices] = [np.zeros(0, np.int32)]
        values = [np.zeros(0, np.float32)]
        for n in np.flatnonzero(np.diff(bounds)).tolist():
            start, end = self._starts[n : n + 2]
            of_list = row[bounds[n] : bounds[n + 1]]
            products = turned[of_list] @ self._descriptors[start:end].astype(np.float32).T
            hits = np.flatnonzero(products >= MIN_CORRELATION * LENGTH**2)
            if len(hits) > HITS * len(of_list):
                best = np.partition(products, end - start - HITS, axis=1)[:, [end - start - HITS]]
                hits = hits[(products >= best).ravel()[hits]]
            nth, place = np.divmod(hits, end - start)
            rows.append(of_list[nth])
            places.append((start + place).astype(np.int32))
            values.append(products.ravel()[hits])
        correlation = (np.concatenate(values) / np.float32(LENGTH**2)).round(4)
        return np.concatenate(rows), np.concatenate(places), correlation


def _distinct(keys: Indices, photos: Indices, nearest: int) -> Indices:
    """Return the first view of each photo with a key, for the first photos with this key."""
    order = np.lexsort((photos, keys))
    new_key = np.diff(keys[order], prepend=keys[order[:1]] - 1) != 0
    new = new_key | (np.diff(photos[order], prepend=-1) != 0)
    order, new_key = order[new], new_key[new]
    starts = np.flatnonzero(new_key)
    nth = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    kept: Indices = np.sort(order[nth < nearest])
    return kept
