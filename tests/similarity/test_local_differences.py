"""Colors tell pictures apart, unless one of them is gray; percentiles are numpy's."""

import numpy as np
import pytest
from scipy.ndimage import minimum_filter

from anklealign.similarity import local_differences
from anklealign.similarity.local_differences import (
    MAX_COLOR,
    color_difference,
    compare,
    independent_noise,
    percentile,
)


def on_white(color, spot):
    levels = np.full((96, 96, 3), 255.0)
    levels[24:72, 24:72] = color
    levels[32:40, 32:40] = spot
    return levels


def test_balls_of_other_colors_on_white_are_no_duplicates():
    black, purple = on_white((48, 44, 32), (60, 140, 125)), on_white((170, 50, 175), (130, 175, 50))
    for one, other in ((black, purple), (purple, black)):
        assert compare(one, other).color > MAX_COLOR
        assert not compare(one, other).same_picture


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0), (0.5, 20), (0.2, 90), (1.0, -30)])
def test_a_duplicate_of_another_brightness_keeps_its_colors(gain, offset):
    purple = on_white((170, 50, 175), (130, 175, 50)) - 40
    assert compare(purple, gain * purple + offset).color < 1


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_gray_copy_of_a_color_picture_has_no_difference(noise):
    purple = on_white((170, 50, 175), (130, 175, 50))
    gray = np.repeat(purple.mean(axis=2, keepdims=True), 3, axis=2)
    gray += np.random.default_rng(1).normal(0, noise, gray.shape)
    assert color_difference(purple, gray) == 0


@pytest.mark.parametrize("percent", [0, 33.3, 75, 98, 100])
@pytest.mark.parametrize("shape", [(1,), (2, 1), (3,), (7, 7), (40, 50)])
def test_the_percentile_is_that_of_numpy(shape, percent: float) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    expected = np.percentile(values.astype(np.float64), percent)
    assert percentile(values, percent) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 4), (40, 30)])
def test_eroding_is_a_minimum_filter(shape) -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random(shape) < 0.9
        expected = minimum_filter(mask, 5, mode="nearest")
        np.testing.assert_array_equal(local_differences._eroded(mask, 2), expected)


def test_exposures_have_independent_noise_and_a_re_encoded_photo_has_not() -> None:
    rng = np.random.default_rng(0)
    slope = np.linspace(60, 180, 160)[:, None] + np.zeros(160)
    one, other = (slope + rng.normal(0, 3, slope.shape) for _ in range(2))
    levels = [gray.clip(0, 255).astype(np.uint8) for gray in (one, other, 0.9 * one + 10)]
    assert independent_noise(levels[0], levels[1])
    assert not independent_noise(levels[0], levels[2])
    assert not independent_noise(levels[0], levels[0] // 16 * 16)
