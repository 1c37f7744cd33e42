import resource
import subprocess
import sys
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from anklealign import hashes

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
PHOTOS = SHARED / "photos" / "hymenoptera"


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 7, 5, 3), dtype=np.uint8)
    return [Image.fromarray(c).resize((150, 210), Image.Resampling.BICUBIC) for c in coarse]


def grey(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS))


def hash_of(picture: Image.Image) -> int:
    return int(hashes.pack(hashes.spectra(grey(picture)[None]))[0])


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
    np.testing.assert_array_equal(joined(hashes.near(values, values, distance)), every)
    once = every[every[:, 0] < every[:, 1]]
    np.testing.assert_array_equal(joined(hashes.near_pairs(values, distance)), once)


def flip_bits(values: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    for _ in range(times):
        values = values ^ (np.uint64(1) << rng.integers(0, 64, len(values)).astype(np.uint64))
    return values


def test_a_hash_equals_imagehash_bit_for_bit() -> None:
    for picture in [*pictures(50), Image.new("RGB", (90, 60), "white")]:
        assert hash_of(picture) == int(str(imagehash.phash(picture)), 16)


@pytest.mark.parametrize("turn", range(8))
def test_the_eight_orientations_are_the_hashes_of_the_turned_picture(turn: int) -> None:
    transposed, flip_x, flip_y = hashes.ORIENTATIONS[turn]
    for picture in pictures(20):
        spectra = hashes.spectra(grey(picture)[None])
        turned = picture.transpose(Image.Transpose.TRANSPOSE) if transposed else picture
        turned = ImageOps.mirror(turned) if flip_x else turned
        turned = ImageOps.flip(turned) if flip_y else turned
        cheap = int(hashes.pack(list(hashes.orientations(spectra))[turn])[0])
        # Rounding to grey levels after another order of resizing may move a bit at the median.
        assert (cheap ^ hash_of(turned)).bit_count() <= 2


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(0, 12), st.integers(0, 2**32))
def test_the_search_finds_what_brute_force_finds(values, distance: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seeds = np.array(values, np.uint64)
    near = flip_bits(np.concatenate([seeds, seeds, seeds]), distance // 2, rng)
    everything = np.concatenate([seeds, near])
    if len(everything):
        assert_exact(everything, distance)


def test_the_search_takes_empty_lists() -> None:
    none = np.zeros(0, np.uint64)
    assert len(joined(hashes.near(none, none, 8))) == 0
    assert len(joined(hashes.near(np.ones(3, np.uint64), none, 8))) == 0
    assert len(joined(hashes.near_pairs(none, 8))) == 0


@pytest.mark.parametrize("distance", [0, 4, 8, 10])
def test_among_20_000_random_hashes_the_search_is_exact(distance: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    values[:3000] = flip_bits(values[3000:6000], 8, rng)
    assert_exact(values, distance)


@pytest.mark.slow
def test_among_20_000_hashes_of_real_photos_the_search_is_exact() -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"{PHOTOS} is not there")
    rng = np.random.default_rng(2)
    greys = np.stack([grey(Image.open(path).convert("RGB")) for path in PHOTOS.rglob("*.jpg")])
    spectra = hashes.spectra(greys)
    views = [hashes.pack(turned) for turned in hashes.orientations(spectra)]
    real = np.concatenate(views)
    # Few photos, each many times and a few bits off: the skew that near-blank photos make.
    often = (len(real) * rng.random(20_000) ** 3).astype(int)
    values = real[often]
    for _ in range(6):
        flipped = flip_bits(values, 1, rng)
        values = np.where(rng.random(len(values)) < 0.5, values, flipped)
    assert_exact(values, 8)


def test_many_equal_hashes_are_all_paired() -> None:
    values = np.full(3000, 7, np.uint64)
    pairs = sum(len(i) for i, _ in hashes.near_pairs(values, 8))
    assert pairs == 3000 * 2999 // 2


@pytest.mark.slow
def test_a_million_hashes_are_searched_in_under_2_gib() -> None:
    code = (
        "import numpy as np, resource; from anklealign import hashes\n"
        "values = np.random.default_rng(3).integers(0, 2**64, 10**6, dtype=np.uint64)\n"
        "values[:1000] = values[1000:2000] ^ np.uint64(0b1011)\n"
        "print(sum(len(i) for i, _ in hashes.near_pairs(values, 8)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    pairs, kilobytes = map(int, done.stdout.split())
    assert pairs >= 1000
    unit = 1 if sys.platform == "darwin" else 1024
    assert kilobytes * unit < 2 * 2**30, resource.RUSAGE_SELF
