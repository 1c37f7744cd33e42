"""Perceptual hashes of pictures and an exact search for hashes within a Hamming distance.

The first word of a hash is imagehash's pHash, 64 bits: the signs of the 8 x 8 lowest frequencies
of the cosine transform of the gray picture at 32 x 32, relative to their median. Three more words
hold the signs of the remaining frequencies of the lowest 16 x 16. They describe finer detail and
separate pictures that are alike only at a coarse scale. Mirroring and quarter turns only change the
signs and positions of frequencies, so the hashes of all eight orientations need one transform.

Pictures are looked up in their canonical orientation: the one with more energy in the frequencies
across than in those down, and brighter on the left and at the top. Where this is in doubt, the
other orientations in question are looked up as well.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy.fftpack

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Spectra = npt.NDArray[np.floating]

BITS = 64  # of the first word
SIDE = 32  # pixels, side of the gray picture that is hashed
LOW, FINE = 8, 16  # frequencies on each axis: of the first word, of all four
WORDS = FINE**2 // 64
CHUNK = 1 << 21  # pairs compared at once: 16 MiB a column
BLOCK = 1 << 15  # hashes looked up at once, which stay in the processor's cache
NEIGHBORS = 16  # neighbors kept for each photo
# Bits of the last three words that may differ. Of the injected duplicates in the synthetic set
# (seed 2) and the ants and bees (train), 0.5 percent differ in more bits in their best view. Of the
# synthetic set's different photos within 8 bits in the first word, 65 percent do.
MAX_DETAIL_BITS = 68
# Nanoseconds of the search: for each query, hash of the index, possible key, and pair compared.
QUERY_COST, INDEX_COST, KEY_COST, PAIR_COST = 30, 60, 5, 17
# For each bit of the four words: its place among the 16 x 16 frequencies, and the bit at the place
# with row and column swapped.
_PLACES = np.arange(FINE**2).reshape(FINE, FINE)
_ORDER = np.r_[_PLACES[:LOW, :LOW].ravel(), np.setdiff1d(_PLACES, _PLACES[:LOW, :LOW])]
_TRANSPOSED = np.argsort(_ORDER)[_PLACES.T.ravel()[_ORDER]]


def spectra(grays: npt.NDArray[np.uint8]) -> Spectra:
    """Return the (N, 16, 16) low frequencies of (N, 32, 32) gray pictures, rows before columns.

    scipy.fftpack is used because imagehash uses it; other transforms round differently.
    """
    rows = scipy.fftpack.dct(grays, axis=1)
    return np.ascontiguousarray(scipy.fftpack.dct(rows, axis=2)[:, :FINE, :FINE])


def pack(spectra_nhw: Spectra) -> Hashes:
    """Return the (N, 4) hash words of (N, 16, 16) spectra: one bit per frequency."""
    ordered: Spectra = np.take(spectra_nhw.reshape(-1, FINE**2), _ORDER, axis=1)
    return _packed(_bits(ordered))


# (transposed, then mirrored left-right, then mirrored top-bottom): the eight symmetries of the
# square. An even number of flags is a rotation, an odd number a reflection.
ORIENTATIONS = tuple(itertools.product((False, True), repeat=3))


def pack_orientations(spectra_nhw: Spectra) -> Hashes:
    """Return the (8, N, 4) hash words of (N, 16, 16) spectra in the order of ORIENTATIONS.

    They are the words of `pack` for the oriented spectra: mirroring changes signs, and transposing
    only moves the bits.
    """
    packed = np.empty((len(ORIENTATIONS), len(spectra_nhw), WORDS), np.uint64)
    ordered = spectra_nhw.reshape(-1, FINE**2).take(_ORDER, axis=1)
    signs = ((-1.0) ** np.arange(FINE)).astype(spectra_nhw.dtype)
    for flip_x, flip_y in itertools.product((False, True), repeat=2):
        mirrored = np.outer(signs**flip_y, signs**flip_x).ravel()[_ORDER]
        bits = _bits(ordered * mirrored)
        packed[ORIENTATIONS.index((False, flip_x, flip_y))] = _packed(bits)
        packed[ORIENTATIONS.index((True, flip_y, flip_x))] = _packed(bits.take(_TRANSPOSED, axis=1))
    return packed


# A measure of `orientations_in_question` that is below this in a view may have the other sign in a
# duplicate, of which only the canonical orientation is in the index. Of 1,135 pairs of duplicates
# among 4,000 real photos in variants, 1 to 2 percent differ in the sign of a measure, and that of
# the view is at most 0.17 then. On average, 2.1 of the 8 orientations of a view are looked up.
IN_DOUBT = 0.2


def orientations_in_question(spectra_nhw: Spectra, doubt: float) -> npt.NDArray[np.bool_]:
    """Return (8, N): whether the canonical orientation of a picture may be that of ORIENTATIONS.

    Three measures from -1 to 1 change their sign if a picture is transposed, mirrored left-right,
    or mirrored top-bottom: how much more of the energy is in frequencies across than down, and the
    lowest frequency across and down, as shares of the five lowest.

    Args:
        spectra_nhw: (N, 16, 16) spectra of the pictures.
        doubt: A measure up to this may have either sign; with 0, one orientation remains but for
            ties.
    """
    squares = spectra_nhw[:, :LOW, :LOW] ** 2
    squares[:, 0, 0] = 0
    energy = squares.sum(axis=(1, 2)) + 1e-9
    across_more = np.triu(squares).sum(axis=(1, 2)) - np.tril(squares).sum(axis=(1, 2))
    lowest = squares[:, (0, 1, 1, 0, 2), (1, 0, 1, 2, 0)].sum(axis=1)
    left, top = spectra_nhw[:, (0, 1), (1, 0)].T / np.sqrt(lowest + 1e-9)
    possible = np.empty((len(ORIENTATIONS), len(spectra_nhw)), bool)
    for orientation, (transposed, flip_x, flip_y) in enumerate(ORIENTATIONS):
        x, y = (top, left) if transposed else (left, top)
        possible[orientation] = (
            ((-1) ** transposed * across_more / energy >= -doubt)
            & ((-1) ** flip_x * x >= -doubt)
            & ((-1) ** flip_y * y >= -doubt)
        )
    return possible


def pack_canonical(spectra_nhw: Spectra) -> tuple[Hashes, npt.NDArray[np.uint8]]:
    """Return the (N, 4) hash words of pictures in canonical orientation, and which it is: (N,)."""
    turns = orientations_in_question(spectra_nhw, 0).argmax(axis=0).astype(np.uint8)
    transposed, flip_x, flip_y = np.array(ORIENTATIONS)[turns].T[..., None, None]
    turned = np.where(transposed, spectra_nhw.transpose(0, 2, 1), spectra_nhw)
    odd = np.arange(FINE) % 2 == 1
    turned = np.where((flip_x & odd) ^ (flip_y & odd[:, None]), -turned, turned)
    return pack(turned), turns


def _relative_orientations() -> npt.NDArray[np.uint8]:
    """Return (8, 8): the orientation of a that equals b, if a in the second equals b in the first.

    An orientation acts on coordinates as an orthogonal matrix.
    """
    matrices = [
        np.diag([-1 if flip_x else 1, -1 if flip_y else 1])
        @ np.eye(2, dtype=int)[:: -1 if t else 1]
        for t, flip_x, flip_y in ORIENTATIONS
    ]
    numbers = {matrix.tobytes(): number for number, matrix in enumerate(matrices)}
    relative = [[numbers[(b.T @ a).tobytes()] for a in matrices] for b in matrices]
    return np.array(relative, np.uint8)


RELATIVE = _relative_orientations()


def _bits(ordered: Spectra) -> npt.NDArray[np.bool_]:
    """Return the (N, 256) bits of (N, 256) frequencies, both in the order of the words."""
    bits = np.empty(ordered.shape, bool)
    # As np.median, in a sixth of the time.
    halves = np.partition(ordered[:, :BITS], BITS // 2, axis=1)
    median = (halves[:, : BITS // 2].max(axis=1) + halves[:, BITS // 2]) / 2
    np.greater(ordered[:, :BITS], median[:, None], out=bits[:, :BITS])
    np.greater(ordered[:, BITS:], 0, out=bits[:, BITS:])
    return bits


def _packed(bits: npt.NDArray[np.bool_]) -> Hashes:
    """Return the (N, 4) words of (N, 256) bits."""
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64)


def pairs_within(
    queries: Hashes, index: Hashes, distance: int
) -> Iterator[tuple[Indices, Indices]]:
    """Yield every (query, index) pair at most `distance` bits apart, once each, in batches.

    The search is exact: if a hash is divided into t + k chunks, two hashes t bits apart agree in at
    least k of them. For every choice of k chunks, a table is indexed by these chunks and only
    hashes that agree on them are compared. Equal hashes are compared once regardless of their
    number. Memory beyond the hashes is bounded.
    """
    left, right = _UniqueHashes(queries), _UniqueHashes(index)
    for a, b in _search(left.hashes, right.hashes, distance):
        for pair, nth in _expand(left.sizes[a] * right.sizes[b]):
            width = right.sizes[b[pair]]
            yield (
                left.order[left.starts[a[pair]] + nth // width],
                right.order[right.starts[b[pair]] + nth % width],
            )


class NearestNeighbors:
    """Find the nearest other photos of each photo's views, in bounded memory.

    The index has M entries, one or more per photo: the whole photo or a region of it. At most
    NEIGHBORS neighbors are kept per photo, so the cost of many photos that are alike at a coarse
    scale grows linearly with their number. A duplicate differs in fewer bits than such photos do
    and is among those kept.
    """

    def __init__(
        self,
        index: Hashes,
        owners: Indices,
        distance: int,
        askers: Indices | None = None,
        turns: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Index the (M, 4) words of the entries, which belong to the (M,) photos `owners`.

        Args:
            index: Words of the entries.
            owners: Their photos.
            distance: Bits of 64.
            askers: (Q,) photos of the entries that are looked up; default, all M entries are.
            turns: (M,) orientations in which the entries were hashed; default, 0 for all.
        """
        self._index, self._owners, self._distance = index, owners, distance
        self._askers = owners if askers is None else askers
        self._turns = np.zeros(len(index), np.uint8) if turns is None else turns
        self._truncated: set[int] = set()
        self._queried = 0
        self._photos = int(owners.max(initial=-1)) + 1
        # Query, neighbor, differing bits. 32 bits can number the 88 views of 24 million entries.
        self._pool = np.zeros((0, 3), np.int32)

    def query(self, views: Hashes, numbers: Indices | None = None) -> None:
        """Look up one view of every entry, in several orientations.

        Args:
            views: (V, 4) words.
            numbers: (V,) orientation * Q + entry of each; None if V is 8 Q and they are all.
        """
        numbers = np.arange(len(views)) if numbers is None else numbers
        capacity = NEIGHBORS * self._photos + 2 * CHUNK
        found, rows = [self._pool], len(self._pool)
        for query, neighbor in pairs_within(views[:, 0], self._index[:, 0], self._distance):
            differing = np.bitwise_count(views[query] ^ self._index[neighbor])
            likely = differing[:, 1:].sum(axis=1) <= MAX_DETAIL_BITS
            number = numbers[query]
            likely &= self._askers[number % len(self._askers)] != self._owners[neighbor]
            columns = (
                number[likely] + self._queried,
                neighbor[likely],
                differing[likely].sum(axis=1),
            )
            found.append(np.stack(columns, axis=1).astype(np.int32))
            rows += len(found[-1])
            if rows > capacity:
                self._pool, found = np.concatenate(found), []
                self._pool = self._nearest()
                found, rows = [self._pool], len(self._pool)
        self._pool = np.concatenate(found)
        self._queried += len(ORIENTATIONS) * len(self._askers)

    @property
    def truncated(self) -> Indices:
        """The photos with more neighbors than are kept, in ascending order."""
        return np.array(sorted(self._truncated), np.int64)

    def result(self) -> tuple[Indices, Indices]:
        """Return queries and neighbors, the nearest first; query numbers run on across views.

        Each pair of photos occurs once per orientation, with the query whose view is nearer.
        """
        self._pool = self._nearest()
        batches = []
        for batch in self._batches(lower=True):
            a, b, orientation = self._keys(batch)
            batches.append(_nearest_per_key(batch, np.minimum(a, b), np.maximum(a, b), orientation))
        self._pool = np.concatenate(batches)
        order = np.lexsort((self._pool[:, 1], self._pool[:, 0], self._pool[:, 2]))
        return self._pool[order, 0].astype(np.int64), self._pool[order, 1].astype(np.int64)

    def _batches(self, *, lower: bool = False) -> Iterator[Rows]:
        """Yield the pool by querying photo, or by the lower photo of each pair, CHUNK rows each.

        Sorting takes several times the memory of its rows, so it is done batch by batch.
        """
        count = len(self._pool) // CHUNK + 1
        photos, neighbors, _ = self._keys(self._pool)
        if lower:
            np.minimum(photos, neighbors, out=photos)
        del neighbors
        for batch in range(count):
            yield self._pool[photos * count // self._photos == batch]

    def _nearest(self) -> Rows:
        """Return the pool with one row per pair and orientation and NEIGHBORS rows per photo."""
        return np.concatenate([self._nearest_in(batch) for batch in self._batches()])

    def _nearest_in(self, rows: Rows) -> Rows:
        pool = _nearest_per_key(rows, *self._keys(rows))
        photos = self._keys(pool)[0]
        order = np.argsort(photos, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(photos[order]) != 0][: len(order)])
        nth = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        self._truncated.update(photos[order[nth == NEIGHBORS]].tolist())
        nearest: Rows = pool[order[nth < NEIGHBORS]]
        return nearest

    def _keys(self, pool: Rows) -> tuple[Indices, Indices, npt.NDArray[np.uint8]]:
        """Return each row's querying photo, neighboring photo, and orientation of the former."""
        view, entry = np.divmod(pool[:, 0], len(self._askers))
        turned = RELATIVE[self._turns[pool[:, 1]], view % len(ORIENTATIONS)]
        return self._askers[entry], self._owners[pool[:, 1]], turned


def _nearest_per_key(pool: Rows, *keys: npt.NDArray[np.integer]) -> Rows:
    """Return the nearest row of (query, neighbor, bits) for each key, the nearest first."""
    order = np.lexsort((pool[:, 1], pool[:, 0], pool[:, 2], *keys))
    new = np.zeros(len(order), bool)
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    new[:1] = True
    nearest = pool[order[new]]
    ordered: Rows = nearest[np.lexsort((nearest[:, 1], nearest[:, 0], nearest[:, 2]))]
    return ordered


class _UniqueHashes:
    """The unique hashes of a list and their positions in it."""

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
        end = min(begin + CHUNK, total)
        first, last = np.searchsorted(ends, [begin, end - 1], side="right")
        # Of each count, the part between begin and end.
        parts = np.minimum(ends[first : last + 1], end)
        parts = np.diff(parts, prepend=begin)
        which = np.repeat(np.arange(first, last + 1), parts)
        yield which, np.arange(begin, end) - (ends - counts)[which]


def _search(queries: Hashes, index: Hashes, distance: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs within the distance; neither list may contain equal hashes."""
    if not len(index):
        return
    agreeing = _agreeing_chunks(len(queries), len(index), distance)
    # Neighboring bits of a pHash are correlated; assigning every n-th bit to a chunk spreads the
    # keys evenly. The bits of a chunk are then moved next to each other, so that a key is a number.
    chunks = [np.arange(first, BITS, distance + agreeing) for first in range(distance + agreeing)]
    queries, index = (_reordered(hashes, np.concatenate(chunks)) for hashes in (queries, index))
    widths = [len(chunk) for chunk in chunks]
    shifts = [BITS - end for end in itertools.accumulate(widths)]
    masks = [
        np.uint64(((1 << width) - 1) << shift) for width, shift in zip(widths, shifts, strict=True)
    ]
    key_bits = _key_bits(len(index))
    for choice in itertools.combinations(range(len(chunks)), agreeing):
        fields = [(shifts[chunk], widths[chunk]) for chunk in choice]
        chosen = np.bitwise_or.reduce([masks[chunk] for chunk in choice])
        index_keys = _keys(index, fields, key_bits)
        order = _order(index_keys).astype(np.int32)
        ordered = index[order]
        # The hashes with key k are at starts[k] to starts[k + 1].
        starts = np.zeros((1 << min(key_bits, sum(width for _, width in fields))) + 1, np.int32)
        np.cumsum(np.bincount(index_keys, minlength=len(starts) - 1), out=starts[1:])
        for begin in range(0, len(queries), BLOCK):
            block = queries[begin : begin + BLOCK]
            keys = _keys(block, fields, key_bits)
            lows, highs = starts[keys], starts[keys + 1]
            found = np.flatnonzero(highs > lows)
            for own in _parts(found, highs[found] - lows[found]):
                counts = highs[own] - lows[own]
                ends = np.cumsum(counts, dtype=np.int64)
                position = np.arange(ends[-1]) + np.repeat(highs[own] - ends, counts)
                differing = ordered[position] ^ np.repeat(block[own], counts)
                close = np.flatnonzero(np.bitwise_count(differing) <= distance)
                a = own[np.searchsorted(ends, close, side="right")]
                b, differing = order[position[close]], differing[close]
                # A pair that agrees on more chunks occurs in several choices; yield the first.
                agreed = sum((differing & chunk) == 0 for chunk in masks[: choice[-1] + 1])
                first = (agreed == agreeing) & ((differing & chosen) == 0)
                yield begin + a[first], b[first].astype(np.int64)


def _parts(numbers: Indices, counts: Rows) -> Iterator[Indices]:
    """Yield the numbers in parts whose counts, all positive, add up to CHUNK or little more.

    A part exceeds it by its largest count at most, the number of hashes with one key.
    """
    ends = np.cumsum(counts, dtype=np.int64)
    cuts = np.searchsorted(ends, np.arange(CHUNK, ends[-1] if len(ends) else 0, CHUNK))
    yield from (part for part in np.split(numbers, np.unique(cuts)) if len(part))


def _order(keys: Indices) -> Indices:
    """Return the indices that sort (N,) numbers below 2^32, N > 0; equal ones keep their order.

    numpy sorts 16-bit numbers several times as fast as others.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    if keys.max() >> 16:
        order = order[np.argsort((keys >> 16).astype(np.uint16)[order], kind="stable")]
    return order


def _reordered(hashes: Hashes, bits: Indices) -> Hashes:
    """Return (N,) hashes with their bits in another order, the highest first."""
    # What each value of each byte becomes; the new places of a byte's bits are different powers.
    values = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.uint64)
    powers = np.uint64(1) << (BITS - 1 - np.argsort(bits)).astype(np.uint64)
    reordered = np.zeros_like(hashes)
    for start in range(0, len(hashes), CHUNK):
        part = slice(start, start + CHUNK)
        for byte, own in enumerate(powers.reshape(-1, 8)):
            shifted = hashes[part] >> np.uint64(BITS - 8 * (byte + 1))
            reordered[part] |= (values * own).sum(axis=1)[(shifted & np.uint64(255)).view(np.int64)]
    return reordered


def _keys(hashes: Hashes, fields: Sequence[tuple[int, int]], bits: int) -> Indices:
    """Return (N,) numbers with the last bits of these fields: shift and width of each."""
    keys = np.zeros(len(hashes), np.uint64)
    for shift, width in fields:
        keys <<= np.uint64(width % BITS)
        keys |= (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
    return (keys & np.uint64((1 << bits) - 1)).view(np.int64)


def _key_bits(index: int) -> int:
    """Return the bits of a key, at most: of some four keys for each hash of the index."""
    return index.bit_length() + 2


def _agreeing_chunks(queries: int, index: int, distance: int) -> int:
    """Return how many chunks make a key: the number with the lowest cost on random hashes.

    More chunks make longer keys and thus fewer comparisons, but more choices of chunks. The unit
    costs, in nanoseconds on one core of an AMD EPYC, were measured on a million random hashes in an
    earlier revision; other costs would change the time only.
    """

    def cost(agreeing: int) -> float:
        chunks = distance + agreeing
        keys = math.exp2(min(_key_bits(index), BITS * agreeing / chunks))
        each = QUERY_COST * queries + INDEX_COST * index + KEY_COST * keys
        return math.comb(chunks, agreeing) * (each + PAIR_COST * queries * index / keys)

    return min(range(1, 5), key=cost)
