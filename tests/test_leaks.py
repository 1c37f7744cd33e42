"""The audit finds one picture in two parts, however it was turned, and takes no two for one."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anklealign.leaks import nearest_pairs

SAME = 0.3


def picture(seed: int, side: int = 160) -> np.ndarray:
    """Blobs of several sizes: as much detail as a photo."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        for cells in (5, 12, 30)
    ]
    return np.mean([np.asarray(layer, np.float64) for layer in layers], axis=0).astype(np.uint8)


CHANGES = {
    "the same": lambda p: p,
    "mirrored": lambda p: p[:, ::-1],
    "turned by 90": np.rot90,
    "turned by 180": lambda p: np.rot90(p, 2),
    "turned by 270": lambda p: np.rot90(p, 3),
    "turned and mirrored": lambda p: np.rot90(p)[:, ::-1],
    "brightened": lambda p: np.clip(p * 1.2, 0, 255).astype(np.uint8),
    "blurred a little": lambda p: np.asarray(
        Image.fromarray(p).filter(ImageFilter.GaussianBlur(1))
    ),
    "cut by 4 % all round": lambda p: p[6:-6, 6:-6],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_in_another_part_is_found_whatever_was_done_to_it(change):
    photos = [picture(seed) for seed in range(12)]
    parts = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    photos.append(np.ascontiguousarray(CHANGES[change](photos[3])))
    parts.append("test")
    pairs = nearest_pairs(photos, parts, ("test", "val"))
    same = [(p.a, p.b) for p in pairs if p.residual <= SAME]
    assert same == [(12, 3)]
    assert (pairs[0].a, pairs[0].b) == (12, 3)


def test_copies_within_one_part_are_no_leak():
    photos = [picture(seed) for seed in (1, 2, 3, 3, 4, 4)]
    pairs = nearest_pairs(photos, ["train", "train", "train", "train", "test", "test"], ("test",))
    assert pairs
    assert all(pair.residual > SAME for pair in pairs)


def test_plain_photos_are_nobodys_copies():
    plain = [np.full((80, 80, 3), level, np.uint8) for level in (40, 41, 200, 200)]
    pairs = nearest_pairs(plain, ["train", "train", "test", "val"], ("test", "val"))
    assert all(pair.residual > SAME for pair in pairs)


def test_held_out_parts_are_set_beside_train_and_each_other_once():
    photos = [picture(seed) for seed in range(6)]
    parts = ["train", "train", "val", "val", "test", "test"]
    pairs = nearest_pairs(photos, parts, ("test", "val"))
    asked = {(parts[p.a], parts[p.b]) for p in pairs}
    assert asked <= {("test", "train"), ("test", "val"), ("val", "train")}
    assert len({(p.a, p.b) for p in pairs}) == len(pairs)
