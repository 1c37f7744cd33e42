"""Perceptual hashes (64 bits a picture) and the exact search for hashes that lie close together.

A hash is imagehash's pHash: the signs of the 8 x 8 lowest frequencies of the cosine transform of
the grey picture at 32 x 32, taken against their median. Mirroring and quarter turns only change
signs and places of those frequencies, so the hashes of all eight orientations cost one transform.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.fftpack

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

BITS = 64
SIDE = 32  # pixels, side of the grey picture under a hash
LOW = 8  # frequencies kept on each axis
CHUNK = 1 << 21  # pairs compared at once: 16 MiB a column


def spectra(greys: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the (N, 8, 8) low frequencies of (N, 32, 32) grey pictures, rows before columns.

    scipy.fftpack, because imagehash uses it: other transforms round differently.
    """
    rows = scipy.fftpack.dct(greys, axis=1)
    return np.ascontiguousarray(scipy.fftpack.dct(rows, axis=2)[:, :LOW, :LOW])


def pack(spectra_nhw: npt.NDArray[np.floating]) -> Hashes:
    """Return the (N,) hashes of (N, 8, 8) spectra: one bit a frequency, set above the median."""
    flat = spectra_nhw.reshape(len(spectra_nhw), BITS)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def orientations(spectra_nhw: npt.NDArray[np.floating]) -> Iterator[npt.NDArray[np.floating]]:
    """Yield the spectra of the eight orientations, in the order of ORIENTATIONS."""
    signs = (-1.0) ** np.arange(LOW)
    for transposed, flip_x, flip_y in ORIENTATIONS:
        turned = spectra_nhw.transpose(0, 2, 1) if transposed else spectra_nhw
        if flip_x:
            turned = turned * signs
        if flip_y:
            turned = turned * signs[:, None]
        yield turned


# (transposed, then mirrored left-right, then mirrored top-bottom): together the eight symmetries
# of the square. Those whose flags sum to an even number are turns, the others mirror.
ORIENTATIONS = tuple(itertools.product((False, True), repeat=3))


def near(queries: Hashes, index: Hashes, distance: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield all (query, index) pairs at most `distance` bits apart, each once, in pieces.

    Exact: of t + k chunks of a hash at least k agree between two hashes t bits apart. So for every
    choice of k chunks the hashes are sorted by these, and only those that agree are compared.
    Equal hashes are compared once, however many there are. Memory beyond the hashes is bounded.
    """
    left, right = _Groups(queries), _Groups(index)
    for a, b in _search(left.hashes, right.hashes, distance):
        yield from _members(left, right, a, b)


def near_pairs(hashes: Hashes, distance: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield all pairs i < j of hashes at most `distance` bits apart, each once, in pieces."""
    groups = _Groups(hashes)
    for a, b in _search(groups.hashes, None, distance):
        for i, j in _members(groups, groups, a, b):
            yield np.minimum(i, j), np.maximum(i, j)
    several = np.flatnonzero(groups.sizes > 1)
    for i, j in _members(groups, groups, several, several):
        once = i < j
        yield i[once], j[once]


class _Groups:
    """The different hashes in a list, and where in it each stands."""

    def __init__(self, hashes: Hashes) -> None:
        self.order = np.argsort(hashes, kind="stable")
        ordered = hashes[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
        self.sizes = np.diff(np.r_[self.starts, len(ordered)])
        self.hashes = ordered[self.starts]


def _members(
    left: _Groups, right: _Groups, a: Indices, b: Indices
) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs of members of pairs of groups."""
    for pair, nth in _expand(left.sizes[a] * right.sizes[b]):
        width = right.sizes[b[pair]]
        yield (
            left.order[left.starts[a[pair]] + nth // width],
            right.order[right.starts[b[pair]] + nth % width],
        )


def _expand(counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield (which, nth) for nth = 0 … counts[which] - 1, at most about CHUNK at a time."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, CHUNK):
        flat = np.arange(begin, min(begin + CHUNK, total))
        which = np.searchsorted(ends, flat, side="right")
        yield which, flat - (ends[which] - counts[which])


def _search(
    queries: Hashes, index: Hashes | None, distance: int
) -> Iterator[tuple[Indices, Indices]]:
    """Yield the near pairs of different hashes; with no index, those among the queries."""
    among = queries if index is None else index
    agreeing = _agreeing_chunks(len(queries), len(among), distance)
    # Neighbouring bits of a pHash go together; every n-th bit to a chunk evens the keys out.
    masks = [
        np.uint64(sum(1 << bit for bit in range(first, BITS, distance + agreeing)))
        for first in range(distance + agreeing)
    ]
    for choice in itertools.combinations(range(len(masks)), agreeing):
        key = np.uint64(sum(int(masks[chunk]) for chunk in choice))
        order = np.argsort(among & key)
        keys = (among & key)[order]
        if index is None:
            asked = order
            starts = np.arange(1, len(keys) + 1)
            wanted = keys
        else:
            asked = np.argsort(queries & key)
            wanted = (queries & key)[asked]
            starts = np.searchsorted(keys, wanted, side="left")
        counts = np.searchsorted(keys, wanted, side="right") - starts
        for which, nth in _expand(counts):
            a, b = asked[which], order[starts[which] + nth]
            differing = queries[a] ^ among[b]
            close = np.bitwise_count(differing) <= distance
            a, b, differing = a[close], b[close], differing[close]
            # A pair that agrees on more chunks comes up in several choices; the first one counts.
            agreed = sum((differing & mask) == 0 for mask in masks[: choice[-1] + 1])
            first = agreed == agreeing
            yield a[first], b[first]


def _agreeing_chunks(queries: int, index: int, distance: int) -> int:
    """Return how many chunks make a key: the number that costs least on random hashes.

    More chunks make longer keys, so fewer comparisons, but more choices and so more sorts. The
    prices, 100 ns a hash and sort and 20 ns a comparison, were measured on one core.
    """

    def cost(agreeing: int) -> float:
        chunks = distance + agreeing
        comparisons = queries * index / math.exp2(BITS * agreeing / chunks)
        return math.comb(chunks, agreeing) * (5.0 * (queries + index) + comparisons)

    return min(range(1, 5), key=cost)
