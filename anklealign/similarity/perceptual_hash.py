"""Perceptual hashes of pictures and the exact search for hashes that lie close together.

The first word of a hash is imagehash's pHash, 64 bits: the signs of the 8 x 8 lowest frequencies
of the cosine transform of the grey picture at 32 x 32, taken against their median. Three more words
hold the signs of the other of the 16 x 16 lowest: finer detail, which tells apart pictures that are
alike in the large. Mirroring and quarter turns only change signs and places of frequencies, so the
hashes of all eight orientations cost one transform.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.fftpack

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Spectra = npt.NDArray[np.floating]

BITS = 64  # of the first word
SIDE = 32  # pixels, side of the grey picture under a hash
LOW, FINE = 8, 16  # frequencies on each axis: of the first word, of all four
WORDS = FINE**2 // 64
CHUNK = 1 << 21  # pairs compared at once: 16 MiB a column
NEAREST = 16  # answers kept for each photo
# Bits of the last three words that may differ. Of pairs of copies planted in the phantom (seed 2)
# and the ants and bees (train), 0.5 percent differ in more in their best view; so do 65 percent of
# the phantom's different photos that come within 8 bits in the first word.
DETAIL = 68
_DETAIL = np.ones((FINE, FINE), bool)
_DETAIL[:LOW, :LOW] = False


def spectra(greys: npt.NDArray[np.uint8]) -> Spectra:
    """Return the (N, 16, 16) low frequencies of (N, 32, 32) grey pictures, rows before columns.

    scipy.fftpack, because imagehash uses it: other transforms round differently.
    """
    rows = scipy.fftpack.dct(greys, axis=1)
    return np.ascontiguousarray(scipy.fftpack.dct(rows, axis=2)[:, :FINE, :FINE])


def pack(spectra_nhw: Spectra) -> Hashes:
    """Return the (N, 4) words of (N, 16, 16) spectra: one bit a frequency."""
    low = spectra_nhw[:, :LOW, :LOW].reshape(len(spectra_nhw), BITS)
    above = low > np.median(low, axis=1, keepdims=True)
    bits = np.concatenate([above, spectra_nhw[:, _DETAIL] > 0], axis=1)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64)


def orientations(spectra_nhw: Spectra) -> Iterator[Spectra]:
    """Yield the spectra of the eight orientations, in the order of ORIENTATIONS."""
    signs = (-1.0) ** np.arange(FINE)
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
    """Yield all pairs of a query and an index word at most `distance` bits apart, once, in pieces.

    Exact: of t + k chunks of a hash at least k agree between two hashes t bits apart. So for every
    choice of k chunks the hashes are sorted by these, and only those that agree are compared.
    Equal hashes are compared once, however many there are. Memory beyond the hashes is bounded.
    """
    left, right = _Groups(queries), _Groups(index)
    for a, b in _search(left.hashes, right.hashes, distance):
        for pair, nth in _expand(left.sizes[a] * right.sizes[b]):
            width = right.sizes[b[pair]]
            yield (
                left.order[left.starts[a[pair]] + nth // width],
                right.order[right.starts[b[pair]] + nth % width],
            )


class Nearest:
    """For each photo the few others that its views resemble most, found in bounded memory.

    M entries are looked up: one or more of each photo, the photo itself or a part of it. What is
    kept is at most NEAREST answers a photo, so that a crowd of photos that are alike in the large
    costs no more than its number; a copy differs in fewer bits than the crowd and is among them.
    """

    def __init__(self, index: Hashes, owners: Indices, distance: int) -> None:
        """Take the (M, 4) words and (M,) photos of the entries."""
        self._index, self._owners, self._distance = index, owners, distance
        self.crowded = False  # whether a photo has more answers than are kept
        self._asked = 0
        self._photos = int(owners.max(initial=-1)) + 1
        # Query, answer, bits that differ. 32 bits number the 88 views of 24 million entries.
        self._pool = np.zeros((0, 3), np.int32)

    def ask(self, views: Hashes) -> None:
        """Look up (8 M, 4) words: a view of every entry, orientation by orientation."""
        most = NEAREST * self._photos + 2 * CHUNK
        for query, answer in near(views[:, 0], self._index[:, 0], self._distance):
            differing = np.bitwise_count(views[query] ^ self._index[answer])
            likely = differing[:, 1:].sum(axis=1) <= DETAIL
            likely &= self._owners[query % len(self._index)] != self._owners[answer]
            rows = (query[likely] + self._asked, answer[likely], differing[likely].sum(axis=1))
            self._pool = np.concatenate([self._pool, np.stack(rows, axis=1).astype(np.int32)])
            if len(self._pool) > most:
                self._pool = self._best()
        self._asked += len(views)

    def found(self) -> tuple[Indices, Indices]:
        """Return queries and answers, the nearest first; queries count on from view to view.

        A pair comes once an orientation, asked by the one whose view is nearer.
        """
        self._pool = self._best()
        pieces = []
        for piece in self._pieces(lower=True):
            a, b, turn = self._asked_by(piece)
            pieces.append(_first(piece, np.minimum(a, b), np.maximum(a, b), turn))
        self._pool = np.concatenate(pieces)
        order = np.lexsort((self._pool[:, 1], self._pool[:, 0], self._pool[:, 2]))
        return self._pool[order, 0].astype(np.int64), self._pool[order, 1].astype(np.int64)

    def _pieces(self, *, lower: bool = False) -> Iterator[Rows]:
        """Yield the pool by the photo that asks, or the lower of the two, some CHUNK at a time.

        What is sorted is a piece, since sorting takes several times the memory of its rows.
        """
        count = len(self._pool) // CHUNK + 1
        asking, answering, _ = self._asked_by(self._pool)
        if lower:
            np.minimum(asking, answering, out=asking)
        del answering
        for piece in range(count):
            yield self._pool[asking * count // self._photos == piece]

    def _best(self) -> Rows:
        """Return the pool with each answer once an orientation, and NEAREST answers a photo."""
        return np.concatenate([self._best_of(piece) for piece in self._pieces()])

    def _best_of(self, rows: Rows) -> Rows:
        pool = _first(rows, *self._asked_by(rows))
        asking = self._asked_by(pool)[0]
        order = np.argsort(asking, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(asking[order]) != 0][: len(order)])
        nth = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        self.crowded |= bool((nth >= NEAREST).any())
        best: Rows = pool[order[nth < NEAREST]]
        return best

    def _asked_by(self, pool: Rows) -> tuple[Indices, Indices, Indices]:
        """Return who asks, who answers, and the asker's orientation."""
        view, entry = np.divmod(pool[:, 0], len(self._index))
        return self._owners[entry], self._owners[pool[:, 1]], view % len(ORIENTATIONS)


def _first(pool: Rows, *keys: npt.NDArray[np.integer]) -> Rows:
    """Return the nearest row of (query, answer, bits) for each key, the nearest first."""
    order = np.lexsort((pool[:, 1], pool[:, 0], pool[:, 2], *keys))
    new = np.zeros(len(order), bool)
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    new[:1] = True
    nearest = pool[order[new]]
    best: Rows = nearest[np.lexsort((nearest[:, 1], nearest[:, 0], nearest[:, 2]))]
    return best


class _Groups:
    """The different hashes in a list, and where in it each stands."""

    def __init__(self, hashes: Hashes) -> None:
        self.order = np.argsort(hashes, kind="stable")
        ordered = hashes[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
        self.sizes = np.diff(np.r_[self.starts, len(ordered)])
        self.hashes = ordered[self.starts]


def _expand(counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield (which, nth) for nth = 0 … counts[which] - 1, at most about CHUNK at a time."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, CHUNK):
        flat = np.arange(begin, min(begin + CHUNK, total))
        which = np.searchsorted(ends, flat, side="right")
        yield which, flat - (ends[which] - counts[which])


def _search(queries: Hashes, index: Hashes, distance: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield the near pairs of lists without equal hashes."""
    agreeing = _agreeing_chunks(len(queries), len(index), distance)
    # Neighbouring bits of a pHash go together; every n-th bit to a chunk evens the keys out.
    masks = [
        np.uint64(sum(1 << bit for bit in range(first, BITS, distance + agreeing)))
        for first in range(distance + agreeing)
    ]
    for choice in itertools.combinations(range(len(masks)), agreeing):
        key = np.uint64(sum(int(masks[chunk]) for chunk in choice))
        order = np.argsort(index & key)
        keys = (index & key)[order]
        # Sorted queries look at neighbouring keys, which lie in the processor's cache.
        asked = np.argsort(queries & key)
        wanted = (queries & key)[asked]
        starts = np.searchsorted(keys, wanted, side="left")
        counts = np.searchsorted(keys, wanted, side="right") - starts
        for which, nth in _expand(counts):
            a, b = asked[which], order[starts[which] + nth]
            differing = queries[a] ^ index[b]
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
