"""Proposed pairs are few and include every copy."""

import numpy as np
from PIL import Image, ImageOps

from anklealign.similarity import perceptual_hash, registration
from anklealign.similarity.registration import PhotoMatcher

DISTANCE = 8


def alike(seed: int, crowd: int) -> list[np.ndarray]:
    """Return photos of one scene that differ only in small details."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (6, 8, 3), dtype=np.uint8))
    large = np.asarray(coarse.resize((256, 192), Image.Resampling.BICUBIC), np.float64)
    photos = []
    for _ in range(crowd):
        fine = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small = np.asarray(fine.resize((256, 192), Image.Resampling.BICUBIC), np.float64) - 128
        photos.append(np.clip(large + 0.25 * small, 0, 255).astype(np.uint8))
    return photos


def walls(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    across = np.linspace(-20, 20, 256)[None, :, None]
    return [
        np.clip(rng.uniform(60, 200, 3) + across + rng.normal(0, 2, (192, 256, 3)), 0, 255).astype(
            np.uint8
        )
        for _ in range(count)
    ]


def proposed(photos: list[np.ndarray]) -> list[tuple[int, int]]:
    return [(a, b) for a, b, _ in PhotoMatcher(photos).propose(DISTANCE)]


def test_copies_are_proposed_among_many_similar_photos_and_few_other_pairs() -> None:
    crowd = alike(1, 160)
    copies = [np.asarray(ImageOps.mirror(Image.fromarray(photo))) for photo in crowd[:20]]
    cuts = [photo[:, 20:] for photo in crowd[20:40]]
    pairs = proposed([*crowd, *copies, *cuts])
    words = PhotoMatcher(crowd)._words[:, 0]
    near = sum(len(a) for a, _ in perceptual_hash.pairs_within(words, words, DISTANCE)) - len(words)
    assert near / 2 > 2000  # what one hash alone would propose: the crowd is one
    assert len(pairs) < 200 * perceptual_hash.NEIGHBORS
    assert {(n, 160 + n) for n in range(40)} <= {(min(pair), max(pair)) for pair in pairs}


def test_plain_photos_are_not_proposed() -> None:
    crowd = walls(80)
    photos = [*crowd, *alike(2, 3), *alike(2, 1)]
    assert {frozenset(pair) for pair in proposed(photos)} <= {
        frozenset(pair) for pair in ((80, 81), (80, 82), (81, 82), (80, 83), (81, 83), (82, 83))
    }
    assert (80, 83) in {(min(pair), max(pair)) for pair in proposed(photos)}


def test_other_colors_are_rejected_before_the_photos_are_read(monkeypatch) -> None:
    one = alike(3, 1)[0]
    brighter = np.minimum(one * 1.15 + 8, 255).astype(np.uint8)
    swapped = np.ascontiguousarray(one[:, :, ::-1])
    matcher = PhotoMatcher([one, brighter, swapped])
    read = []
    channels = matcher._channels
    monkeypatch.setattr(matcher, "_channels", lambda photo: read.append(photo) or channels(photo))
    assert matcher.register(0, 2, np.eye(3)) is None
    comparison = matcher.compare(0, 2, np.eye(3))
    assert not comparison.same_picture
    assert comparison.color > registration.REJECT_COLOR
    assert not read
    found = matcher.register(0, 1, np.eye(3))
    assert found is not None
    assert found.residual < 0.1
    assert set(read) == {0, 1}
    assert matcher.compare(0, 1, found.transform).same_picture
