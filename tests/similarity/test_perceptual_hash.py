import subprocess
import sys
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from anklealign.similarity import perceptual_hash

PHOTOS = Path(__file__).resolve().parents[2] / "data/raw/ants_bees"


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 7, 5, 3), dtype=np.uint8)
    return [Image.fromarray(c).resize((150, 210), Image.Resampling.BICUBIC) for c in coarse]


def gray(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS))


def hash_of(picture: Image.Image) -> int:
    return int(perceptual_hash.pack(perceptual_hash.spectra(gray(picture)[None]))[0, 0])


def brute_force(queries: np.ndarray, index: np.ndarray, distance: int) -> np.ndarray:
    found = [
        np.stack([np.full(len(near), q), near], axis=1)
        for q, h in enumerate(queries)
        for near in [np.flatnonzero(np.bitwise_count(index ^ h) <= distance)]
    ]
    return np.concatenate(found)


def joined(pieces) -> np.ndarray:
    rows = [np.stack(piece, axis=1) for piece in pieces]
    table = np.concatenate([np.zeros((0, 2), np.int64), *rows])
    return table[np.lexsort(table.T[::-1])]


def assert_exact(values: np.ndarray, distance: int) -> None:
    every = brute_force(values, values, distance)
    np.testing.assert_array_equal(
        joined(perceptual_hash.pairs_within(values, values, distance)), every
    )


def flip_bits(values: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    for _ in range(times):
        values = values ^ (np.uint64(1) << rng.integers(0, 64, len(values)).astype(np.uint64))
    return values


def test_a_hash_equals_imagehash_bit_for_bit() -> None:
    for picture in [*pictures(50), Image.new("RGB", (90, 60), "white")]:
        assert hash_of(picture) == int(str(imagehash.phash(picture)), 16)


@pytest.mark.parametrize("turn", range(8))
def test_the_eight_orientations_are_the_hashes_of_the_turned_picture(turn: int) -> None:
    transposed, flip_x, flip_y = perceptual_hash.ORIENTATIONS[turn]
    for picture in pictures(20):
        spectra = perceptual_hash.spectra(gray(picture)[None])
        turned = picture.transpose(Image.Transpose.TRANSPOSE) if transposed else picture
        turned = ImageOps.mirror(turned) if flip_x else turned
        turned = ImageOps.flip(turned) if flip_y else turned
        cheap = int(perceptual_hash.pack_orientations(spectra)[turn, 0, 0])
        # Rounding to gray levels after another order of resizing may move a bit at the median.
        assert (cheap ^ hash_of(turned)).bit_count() <= 2


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_picture_has_the_words_of_its_original_in_canonical_orientation(turn) -> None:
    rng = np.random.default_rng(6)
    spectra = rng.normal(0, 100, (200, 16, 16))
    transposed, flip_x, flip_y = perceptual_hash.ORIENTATIONS[turn]
    signs = (-1.0) ** np.arange(16)
    turned = spectra.transpose(0, 2, 1) if transposed else spectra
    turned = turned * signs**flip_x * signs[:, None] ** flip_y
    words, turns = perceptual_hash.pack_canonical(spectra)
    same, own = perceptual_hash.pack_canonical(turned)
    np.testing.assert_array_equal(words, same)
    assert (perceptual_hash.RELATIVE[own, turns] == turn).all()
    in_all = perceptual_hash.pack_orientations(spectra)
    np.testing.assert_array_equal(words, in_all[turns, np.arange(200)])


def test_an_orientation_in_doubt_is_in_question() -> None:
    rng = np.random.default_rng(7)
    spectra = rng.normal(0, 100, (500, 16, 16))
    question = perceptual_hash.orientations_in_question(spectra, perceptual_hash.IN_DOUBT)
    turns = perceptual_hash.orientations_in_question(spectra, 0).argmax(axis=0)
    assert question[turns, np.arange(500)].all()
    # As bright on the left as on the right: both are in question, and neither top nor bottom.
    spectra[:, 0, 1], spectra[:, 1, 0] = 0, 500
    question = perceptual_hash.orientations_in_question(spectra, perceptual_hash.IN_DOUBT)
    for transposed, flip_x, flip_y in perceptual_hash.ORIENTATIONS:
        number = perceptual_hash.ORIENTATIONS.index((transposed, flip_x, flip_y))
        opposite = perceptual_hash.ORIENTATIONS.index(
            (transposed, flip_x ^ (not transposed), flip_y ^ transposed)
        )
        np.testing.assert_array_equal(question[number], question[opposite])
        if flip_x if transposed else flip_y:
            assert not question[number].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_orientations_have_all_words_of_the_oriented_spectra(dtype: type) -> None:
    rng = np.random.default_rng(5)
    spectra = rng.normal(0, 100, (60, 16, 16)).astype(dtype)
    spectra[:20] = np.round(spectra[:20] / 100)  # equal frequencies, and zeros
    spectra[0] = 0
    signs = ((-1.0) ** np.arange(16)).astype(dtype)
    packed = perceptual_hash.pack_orientations(spectra)
    for turn, (transposed, flip_x, flip_y) in enumerate(perceptual_hash.ORIENTATIONS):
        oriented = spectra.transpose(0, 2, 1) if transposed else spectra
        oriented = oriented * signs if flip_x else oriented
        oriented = oriented * signs[:, None] if flip_y else oriented
        np.testing.assert_array_equal(packed[turn], perceptual_hash.pack(oriented))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(0, 12), st.integers(0, 2**32))
def test_the_search_finds_what_brute_force_finds(values, distance: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seeds = np.array(values, np.uint64)
    near = flip_bits(np.concatenate([seeds, seeds, seeds]), distance // 2, rng)
    everything = np.concatenate([seeds, near])
    if len(everything):
        assert_exact(everything, distance)


def test_the_search_accepts_empty_lists() -> None:
    none = np.zeros(0, np.uint64)
    assert len(joined(perceptual_hash.pairs_within(none, none, 8))) == 0
    assert len(joined(perceptual_hash.pairs_within(np.ones(3, np.uint64), none, 8))) == 0


@pytest.mark.parametrize("distance", [0, 4, 8, 10])
def test_among_20_000_random_hashes_the_search_is_exact(distance: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    values[:3000] = flip_bits(values[3000:6000], 8, rng)
    assert_exact(values, distance)


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"{PHOTOS} is not there")
@pytest.mark.parametrize("skewed", [False, True], ids=["places of photos", "few photos, often"])
def test_among_20_000_hashes_of_real_photos_the_search_is_exact(skewed: bool) -> None:
    rng = np.random.default_rng(2)
    grays = []
    for path in sorted(PHOTOS.rglob("*.jpg")):
        photo = Image.open(path).convert("L")
        photo.thumbnail((256, 256))
        for share in rng.uniform(0.6, 1, 8):  # overlapping, so that many hashes lie close together
            size = share * np.array(photo.size)
            start = rng.random(2) * (photo.size - size)
            box = tuple(np.concatenate([start, start + size]))
            grays.append(np.asarray(photo.resize((32, 32), Image.Resampling.LANCZOS, box=box)))
    spectra = perceptual_hash.spectra(np.stack(grays))
    views = perceptual_hash.pack_orientations(spectra)[:, :, 0].ravel()
    values = rng.permutation(views)[:20_000]
    if skewed:
        # Few, each many times and a few bits off: the skew that near-blank photos make.
        values = values[(len(values) * rng.random(20_000) ** 3).astype(int)]
        for _ in range(6):
            flipped = flip_bits(values, 1, rng)
            values = np.where(rng.random(len(values)) < 0.5, values, flipped)
    assert len(values) == 20_000
    assert_exact(values, 8)


def views_of(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Words of eight views of each entry; the first view is a few bits off, the others random."""
    views = rng.integers(0, 2**64, (8, *index.shape), dtype=np.uint64)
    views[0] = flip_bits(index.ravel(), 2, rng).reshape(index.shape)
    return views.reshape(-1, perceptual_hash.WORDS)


def crowd(size: int, seed: int) -> np.ndarray:
    """Return (N, 4) words that are alike in the first and less so in the others, and copies."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**64, (size, perceptual_hash.WORDS), dtype=np.uint64)
    words[:, 0] = flip_bits(np.full(size, words[0, 0]), 2, rng)
    # Half as many bits off as two strangers.
    words[:, 1:] = words[0, 1:]
    words[:, 1:] = flip_bits(words[:, 1:].ravel(), 12, rng).reshape(size, -1)
    return np.concatenate([words, flip_bits(words.ravel(), 1, rng).reshape(size, -1)])


def test_each_photo_keeps_its_nearest_matches_among_many() -> None:
    index = crowd(300, 1)
    nearest = perceptual_hash.NearestNeighbors(index, np.arange(600), 8)
    views = views_of(index, np.random.default_rng(2))
    nearest.query(views)
    query, neighbor = nearest.result()
    assert nearest.truncated.tolist() == list(range(600))
    assert np.unique(query % 600, return_counts=True)[1].max() <= perceptual_hash.NEIGHBORS
    pairs = {frozenset(pair) for pair in zip(query % 600, neighbor, strict=True)}
    assert {frozenset((n, n + 300)) for n in range(300)} <= pairs
    bits = np.bitwise_count(views[query] ^ index[neighbor]).sum(axis=1)
    assert (np.diff(bits.astype(int)) >= 0).all()


def test_the_matches_do_not_depend_on_the_size_of_the_blocks(monkeypatch) -> None:
    index = crowd(120, 3)
    views = [views_of(index, np.random.default_rng(seed)) for seed in range(3)]
    found = []
    for chunk in (1 << 21, 64):
        monkeypatch.setattr(perceptual_hash, "CHUNK", chunk)
        nearest = perceptual_hash.NearestNeighbors(index, np.arange(240) // 2, 8)
        for view in views:
            nearest.query(view)
        found.append(np.stack(nearest.result()))
    np.testing.assert_array_equal(*found)


def test_parts_have_all_numbers_in_order_and_are_little_longer_than_a_chunk(monkeypatch) -> None:
    monkeypatch.setattr(perceptual_hash, "CHUNK", 10)
    counts = np.array([3, 4, 4, 25, 1, 9, 1, 10])
    parts = list(perceptual_hash._parts(np.arange(8) * 5, counts))
    assert np.concatenate(parts).tolist() == list(range(0, 40, 5))
    assert all(own.sum() <= 10 + own.max() for own in (counts[part // 5] for part in parts))
    assert list(perceptual_hash._parts(np.arange(0), np.zeros(0, np.int32))) == []


def test_every_pair_is_found_once() -> None:
    rng = np.random.default_rng(5)
    index = rng.integers(0, 2**64, (500, perceptual_hash.WORDS), dtype=np.uint64)
    index[250:] = flip_bits(index[:250].ravel(), 2, rng).reshape(250, -1)
    nearest = perceptual_hash.NearestNeighbors(index, np.arange(500), 8)
    nearest.query(views_of(index, rng))
    query, neighbor = nearest.result()
    pairs = sorted(tuple(sorted(pair)) for pair in zip(query % 500, neighbor, strict=True))
    assert pairs == [(n, n + 250) for n in range(250)]
    assert not len(nearest.truncated)


def test_photos_that_ask_are_paired_with_all_others() -> None:
    rng = np.random.default_rng(5)
    index = rng.integers(0, 2**64, (500, perceptual_hash.WORDS), dtype=np.uint64)
    index[250:] = flip_bits(index[:250].ravel(), 2, rng).reshape(250, -1)
    asking = np.array([7, 20, 260])
    nearest = perceptual_hash.NearestNeighbors(index, np.arange(500), 8, asking)
    for _ in range(2):
        nearest.query(views_of(index[asking], rng))
    query, neighbor = nearest.result()
    assert set(zip(asking[query % 3].tolist(), neighbor.tolist(), strict=True)) == {
        (7, 257),
        (20, 270),
        (260, 10),
    }


def test_turned_photos_are_found_in_the_orientations_that_are_looked_up() -> None:
    rng = np.random.default_rng(8)
    originals = rng.normal(0, 100, (60, 16, 16))
    duplicates = originals.transpose(0, 2, 1) * (-1.0) ** np.arange(16)  # transposed, then mirrored
    spectra = np.concatenate([originals, duplicates + rng.normal(0, 1, duplicates.shape)])
    words, turns = perceptual_hash.pack_canonical(spectra)
    question = perceptual_hash.orientations_in_question(spectra, perceptual_hash.IN_DOUBT)
    numbers = np.flatnonzero(question)
    order = rng.permutation(len(numbers))
    nearest = perceptual_hash.NearestNeighbors(words, np.arange(120), 8, turns=turns)
    views = perceptual_hash.pack_orientations(spectra).reshape(-1, perceptual_hash.WORDS)
    for _ in range(2):  # as of two crops; numbers of the second begin at 8 * 120
        nearest.query(views[numbers[order]], numbers[order])
    query, neighbor = nearest.result()
    assert query.max() < 8 * 120  # the first of equal views
    found = {}
    for number, other in zip(query.tolist(), neighbor.tolist(), strict=True):
        orientation = perceptual_hash.RELATIVE[turns[other], number // 120]
        found.setdefault(frozenset((number % 120, other)), []).append((number % 120, orientation))
    assert found.keys() == {frozenset((n, n + 60)) for n in range(60)}
    there = perceptual_hash.ORIENTATIONS.index((True, True, False))
    back = perceptual_hash.ORIENTATIONS.index((True, False, True))
    for pairs in found.values():
        assert all(orientation == (there if asker < 60 else back) for asker, orientation in pairs)


FULL = """
import resource, numpy as np
from anklealign.similarity import perceptual_hash
photos, rng = 1_000_000, np.random.default_rng(0)
def words(count): return rng.integers(0, 2**64, (count, 4), dtype=np.uint64)
nearest = perceptual_hash.NearestNeighbors(words(photos), np.arange(photos), 8)
views = words(8 * photos)  # which a search holds meanwhile
capacity = perceptual_hash.NEIGHBORS * photos + 3 * perceptual_hash.CHUNK
for start in range(0, capacity, perceptual_hash.CHUNK):
    ends = (88 * photos, photos, 60)
    rows = rng.integers(0, ends, (perceptual_hash.CHUNK, 3), dtype=np.int32)
    nearest._pool = np.concatenate([nearest._pool, rows])
found = nearest.result()
print(len(found[0]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss has another unit")
def test_a_million_photos_with_the_maximum_number_of_matches_take_less_than_2_gib() -> None:
    done = subprocess.run([sys.executable, "-c", FULL], check=True, capture_output=True, text=True)
    matches, gib = map(float, done.stdout.split())
    assert matches > 15_000_000
    assert gib < 2
