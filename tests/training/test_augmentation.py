"""What augmentation does to a photo depends on seed, epoch and id alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.config.params import Augmentation
from anklealign.models.input_config import InputConfig
from anklealign.training.augmentation import (
    BRIGHTNESS,
    HORIZONTAL_FLIP,
    LEFT,
    ROTATION,
    SHEAR,
    TOP,
    VERTICAL_FLIP,
    adjust_and_warp,
    adjust_color,
    crop_and_flip,
    draw,
    rotate_and_shear,
)
from anklealign.training.augmentation import SIDE as SIDE_DRAW

NONE = Augmentation(
    random_crop=0.0,
    horizontal_flip=False,
    rotation=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
)
ALL = Augmentation(
    random_crop=0.3,
    horizontal_flip=True,
    rotation=20.0,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    translate=0.1,
    vertical_flip=True,
    shear=10.0,
)
SIDE = 32
INPUT = InputConfig(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
WHOLE = replace(INPUT, image_size=SIDE)
IDS = [f"{i:012x}" for i in range(6)]
FIRST = [0] * 6


def store(photos: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (photos, SIDE, SIDE, 3), np.uint8)


def augment(rows: list[int], how: Augmentation = ALL, epoch: int = 1) -> torch.Tensor:
    draws = draw([IDS[row] for row in rows], [0] * len(rows), 1, epoch)
    return adjust_and_warp(crop_and_flip(store(), np.array(rows), draws, how, INPUT), draws, how)


@given(st.permutations(range(6)), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_photo_s_augmentation_does_not_depend_on_its_batch(order: list[int], size: int) -> None:
    rows = order[:size]
    alone = torch.cat([augment([row]) for row in rows])
    torch.testing.assert_close(augment(rows), alone, rtol=0, atol=1e-6)


def test_another_epoch_seed_id_or_repeat_gives_other_draws() -> None:
    first = draw(IDS, FIRST, 1, 1)
    assert not np.isclose(first, draw(IDS, FIRST, 1, 2)).any()
    assert not np.isclose(first, draw(IDS, FIRST, 2, 1)).any()
    assert not np.isclose(first, draw(IDS, [1] * 6, 1, 1)).any()
    assert len(np.unique(first)) == first.size
    assert (first >= 0).all()
    assert (first < 1).all()


def test_zero_strength_changes_nothing() -> None:
    draws = draw(IDS, FIRST, 1, 1)
    same = crop_and_flip(store(), np.arange(6), draws, NONE, WHOLE)
    np.testing.assert_array_equal(same.permute(0, 2, 3, 1).numpy(), store())
    x = same.float() / 255
    assert adjust_color(x, draws, NONE).equal(x)
    assert rotate_and_shear(x, draws, NONE).equal(x)


def test_horizontal_flips_affect_about_half_the_photos() -> None:
    many = [f"{i:012x}" for i in range(400)]
    draws = draw(many, [0] * 400, 1, 1)
    rows = np.arange(400) % 6
    x = (
        crop_and_flip(store(), rows, draws, replace(NONE, horizontal_flip=True), WHOLE)
        .permute(0, 2, 3, 1)
        .numpy()
    )
    flipped = draws[:, HORIZONTAL_FLIP] < 0.5
    np.testing.assert_array_equal(x[flipped], store()[rows[flipped], :, ::-1])
    np.testing.assert_array_equal(x[~flipped], store()[rows[~flipped]])
    assert 160 < flipped.sum() < 240


@given(st.floats(0, 0.9), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_crop_is_a_square_part_of_the_photo_and_no_smaller_than_allowed(
    crop: float, seed: int
) -> None:
    # Each pixel tells its place, so that the corners of the result tell the crop's.
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    pixels = np.stack([y, x, np.zeros_like(x)], -1)[None]
    draws = draw(IDS[:1], [0], seed, 1)
    seen = crop_and_flip(
        pixels, np.zeros(1, np.int64), draws, replace(NONE, random_crop=crop), WHOLE
    )[0].int()
    down, right = seen[0, -1, 0] - seen[0, 0, 0], seen[1, 0, -1] - seen[1, 0, 0]
    assert abs(int(down - right)) <= 1
    assert int(down) >= SIDE * (1 - crop) - 3  # two pixels' middles, and rounding
    assert seen[0, 0, 0] >= 0
    assert seen[1, 0, -1] <= SIDE - 1


def test_brightness_is_a_factor_and_stays_within_white() -> None:
    draws = draw(IDS, FIRST, 1, 1)
    x = torch.full((6, 3, 4, 4), 0.9)
    bright = adjust_color(x, draws, replace(NONE, brightness=0.5))
    factors = torch.tensor(1 + 0.5 * (2 * draws[:, BRIGHTNESS] - 1)).float().view(-1, 1, 1, 1)
    torch.testing.assert_close(bright, (x * factors).clamp(0, 1))


def test_contrast_keeps_the_mean_and_saturation_keeps_the_gray() -> None:
    draws = draw(IDS, FIRST, 1, 1)
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(6, 3, 8, 8, generator=generator)
    gray = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    contrasted = adjust_color(x, draws, replace(NONE, contrast=0.5))
    saturated = adjust_color(x, draws, replace(NONE, saturation=0.5))
    torch.testing.assert_close(
        (contrasted * gray).sum(1).mean((1, 2)), (x * gray).sum(1).mean((1, 2))
    )
    torch.testing.assert_close((saturated * gray).sum(1), (x * gray).sum(1))
    assert not torch.allclose(contrasted, x)
    assert not torch.allclose(saturated, x)


def test_vertical_flips_affect_about_half_the_photos() -> None:
    many = [f"{i:012x}" for i in range(400)]
    draws = draw(many, [0] * 400, 1, 1)
    rows = np.arange(400) % 6
    x = (
        crop_and_flip(store(), rows, draws, replace(NONE, vertical_flip=True), WHOLE)
        .permute(0, 2, 3, 1)
        .numpy()
    )
    flipped = draws[:, VERTICAL_FLIP] < 0.5
    np.testing.assert_array_equal(x[flipped], store()[rows[flipped], ::-1])
    np.testing.assert_array_equal(x[~flipped], store()[rows[~flipped]])
    assert 160 < flipped.sum() < 240


def test_translation_moves_the_photo_both_ways_and_repeats_its_edge() -> None:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    pixels = np.stack([y, x, np.zeros_like(x)], -1)[None]
    moves = set()
    for seed in range(60):
        draws = draw(IDS[:1], [0], seed, 1)
        how = replace(NONE, translate=0.125)
        seen = crop_and_flip(pixels, np.zeros(1, np.int64), draws, how, WHOLE)[0].int()
        middle = (int(seen[0, 16, 16]) - 16, int(seen[1, 16, 16]) - 16)
        expected = (
            np.clip(np.arange(SIDE) + middle[0], 0, SIDE - 1),
            np.clip(np.arange(SIDE) + middle[1], 0, SIDE - 1),
        )
        np.testing.assert_array_equal(seen[0, :, 0], expected[0])
        np.testing.assert_array_equal(seen[1, 0], expected[1])
        moves |= set(middle)
    assert moves == set(range(-4, 5))


def test_a_small_crop_shifted_beyond_the_photo_is_its_repeated_edge() -> None:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    pixels = np.stack([y, x, np.zeros_like(x)], -1)[None]
    how = replace(NONE, random_crop=0.9, translate=0.45)
    beyond = 0
    for seed in range(100):
        draws = draw(IDS[:1], [0], seed, 1)
        length = round(SIDE * (1 - 0.9 * draws[0, SIDE_DRAW]))
        reach = round(0.45 * SIDE)
        top, left = (
            int(draws[0, column] * (SIDE - length + 2 * reach + 1)) - reach
            for column in (TOP, LEFT)
        )
        down, across = (
            np.clip(np.arange(first, first + length), 0, SIDE - 1) for first in (top, left)
        )
        expected = pixels[0][down[:, None], across]
        exact = replace(INPUT, image_size=length)
        seen = crop_and_flip(pixels, np.zeros(1, np.int64), draws, how, exact)[0].permute(1, 2, 0)
        np.testing.assert_array_equal(seen.numpy(), expected)
        beyond += min(top, left) + length <= 0 or max(top, left) >= SIDE
    assert beyond > 5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rotation_stays_within_its_range(share: float) -> None:
    x = torch.zeros(1, 1, 65, 65)
    x[:, :, 32, :] = 1  # a level bar through the center
    draws = np.zeros((1, 10))
    draws[:, ROTATION] = share
    turned = rotate_and_shear(x, draws, replace(NONE, rotation=45.0))[0, 0]
    diagonal = torch.eye(65).flip(1) if share else torch.eye(65)
    assert (turned * diagonal).sum() > 40


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shear_slants_vertical_lines_and_keeps_horizontal_ones(share: float) -> None:
    level, upright = torch.zeros(2, 1, 1, 65, 65)
    level[:, :, 32, :] = 1
    upright[:, :, :, 32] = 1
    draws = np.zeros((1, 10))
    draws[:, SHEAR] = share
    how = replace(NONE, shear=45.0)
    torch.testing.assert_close(rotate_and_shear(level, draws, how), level)
    diagonal = torch.eye(65).flip(1) if share else torch.eye(65)
    assert (rotate_and_shear(upright, draws, how)[0, 0] * diagonal).sum() > 40
