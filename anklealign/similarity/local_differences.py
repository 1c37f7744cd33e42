"""Tell a duplicate from a picture that differs from it in a detail, a color, or the exposure.

A small residual over the contrast of a picture proves no duplicate: two pages with one letterhead,
a part with and without a scratch, and two shots of a fixed camera leave little. A duplicate

- agrees in detail everywhere: in the window of 9 x 9 pixels where the high-pass filtered gray
  levels agree least, their normalized covariance 2 cov(a, b) / (var(a) + var(b)) is still high;
- has the same colors, up to one gain and offset for all channels;
- has the same noise, while two exposures have independent noise.

The thresholds are from `python -m benchmarks.same_picture`.

Shapes: S the side of the compared square in pixels; H, W those of a photo.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter

from anklealign.similarity.gaussian import blur

Levels = npt.NDArray[np.float64]

MIN_GAIN = 0.1  # of a darkened duplicate
SATURATED = 250  # gray level from which a channel of a brightened duplicate counts as clipped
# ITU-R BT.601, as in JPEG, which stores luminance at a higher resolution than color.
LUMINANCE = np.array([0.299, 0.587, 0.114])
SIGMA, WINDOW = 4.0, 9  # pixels of 96: of the high-pass filter, and the side of a window
# A window counts if its detail reaches this many gray levels, and this share of the whole's, in one
# of the pictures: compression leaves less, a scratch or a line of text more.
MIN_DETAIL, MIN_DETAIL_SHARE = 10.0, 0.35
MIN_AGREEMENT = 0.75
MAX_COLOR = 25.0  # gray levels, in the worst of 4 x 4 cells
CELLS = 4
GRAY = 3.0  # gray levels of color, root mean square in the worst cell: less is a gray picture
# Exposures: the pixels compared are the quarter with the weakest gradients.
FLAT = 0.25
CLIPPED_REACH = 2  # pixels: a pixel this close to a clipped one is not compared
MIN_FLAT_PIXELS = 500
MIN_NOISE = 0.5  # gray levels; the rounding to whole levels has 0.29
MAX_NOISE_CORRELATION = 0.2
MAX_NOISE_RATIO = 1.5  # re-encoding removes noise, so a duplicate may have much less


@dataclass(frozen=True)
class Comparison:
    """How two registered pictures differ locally."""

    agreement: float  # of the detail, in the window where they agree least; -1 to 1
    color: float  # difference in gray levels, in the worst cell
    # Two exposures of one scene by a fixed camera; looked for where the rest is a duplicate's.
    exposures: bool = False

    @property
    def same_picture(self) -> bool:
        """Whether one can be a duplicate of the other."""
        return self.agreement >= MIN_AGREEMENT and self.color <= MAX_COLOR and not self.exposures


def compare(one: Levels, other: Levels) -> Comparison:
    """Return how two (S, S, 3) pictures, laid on each other, differ."""
    one, other = _matched(one, other)
    return Comparison(
        least_agreement(one @ LUMINANCE, other @ LUMINANCE), color_difference(one, other)
    )


def matched_color_difference(one: Levels, other: Levels) -> float:
    """Return the color difference of two (S, S, 3) pictures, laid on each other."""
    return color_difference(*_matched(one, other))


def _matched(one: Levels, other: Levels) -> tuple[Levels, Levels]:
    """Return the pictures with one's brightness matched to the other's, both clipped alike.

    Where one is clipped, the other's level is unknown beyond the clipping and not a difference.
    """
    valid = (brightest(one) < SATURATED) & (brightest(other) < SATURATED)
    if valid.mean() < 0.05:
        valid[:] = True
    counted = valid[..., None] / (3 * np.count_nonzero(valid))
    mean_one, mean_other = (one * counted).sum(), (other * counted).sum()
    centered = one - mean_one
    weighted = centered * counted
    gain = (weighted * (other - mean_other)).sum() / ((weighted * centered).sum() + 1e-9)
    # Other colors can have no gain in common, or that of a negative; a tiny gain would make any
    # picture gray.
    gain = min(float(gain), 10.0) if gain >= MIN_GAIN else 1.0
    offset = mean_other - gain * mean_one
    white = min(SATURATED, gain * SATURATED + offset)
    return np.minimum(gain * one + offset, white), np.minimum(other, white)


def brightest(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the highest of the channels of each pixel: (H, W) of (H, W, 3).

    Ten times as fast as `pixels.max(axis=2)`, which calls a loop for every pixel.
    """
    red_or_green = np.maximum(pixels[..., 0], pixels[..., 1])
    highest: npt.NDArray[Any] = np.maximum(red_or_green, pixels[..., 2])
    return highest


def least_agreement(one: Levels, other: Levels) -> float:
    """Return the lowest normalized covariance of the detail of (S, S) gray levels; 1 if plain."""
    detail = [levels - gaussian_filter(levels, SIGMA, mode="nearest") for levels in (one, other)]
    energies = [uniform_filter(levels**2, WINDOW, mode="nearest") for levels in detail]
    covariance = uniform_filter(detail[0] * detail[1], WINDOW, mode="nearest")
    typical = min(float(np.sqrt((levels**2).mean())) for levels in detail)
    floor = max(MIN_DETAIL, MIN_DETAIL_SHARE * typical)
    inside = slice(WINDOW // 2, len(one) - WINDOW // 2)
    detailed = np.maximum(*energies)[inside, inside] > floor**2
    agreement = (2 * covariance / (energies[0] + energies[1] + 1e-9))[inside, inside]
    return float(agreement[detailed].min(initial=1.0))


def color_difference(one: Levels, other: Levels) -> float:
    """Return the difference of (S, S, 3) colors beyond brightness, in the worst cell; 0 if gray.

    If one of the pictures is gray, the other may be the original in color.
    """
    colors = [levels - (levels @ np.full(3, 1 / 3))[..., None] for levels in (one, other)]
    # In the worst cell, since a colored object on white hardly changes the mean.
    if min(map(_in_worst_cell, colors)) < GRAY:
        return 0.0
    return _in_worst_cell(colors[0] - colors[1])


def _in_worst_cell(color: Levels) -> float:
    """Return the root mean square of (S, S, 3) colors in the cell where it is largest."""
    squares = np.einsum("yxc,yxc->yx", color, color)
    size = len(squares) // CELLS
    squares = squares[: CELLS * size, : CELLS * size]
    cells = squares.reshape(CELLS, size, CELLS, size).mean(axis=(1, 3))
    return float(np.sqrt(cells.max()))


def percentile(values: npt.NDArray[np.float32], percent: float) -> float:
    """Return a percentile of numbers, a few times as fast as by np.percentile."""
    rank = percent / 100 * (values.size - 1)
    below = int(rank)
    ordered = np.partition(values, below, axis=None)
    value = float(ordered[below])
    if rank == below:
        return value
    return value + (rank - below) * (float(ordered[below + 1 :].min()) - value)


def independent_noise(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> bool:
    """Return whether two (H, W) gray pictures of one scene have noise of their own.

    A re-encoded duplicate keeps part of the noise, or loses most of it. Two exposures have as much
    noise as each other, and it is not correlated. Pictures without noise return False.
    """
    valid = (one > 8) & (one < SATURATED) & (other > 8) & (other < SATURATED)
    if np.count_nonzero(valid) < MIN_FLAT_PIXELS:
        return False
    levels = [gray.astype(np.float32) for gray in (one, other)]
    counted = [gray[valid] for gray in levels]
    gain = counted[1].std() / max(counted[0].std(), 1e-9)
    levels[0] = gain * (levels[0] - counted[0].mean()) + counted[1].mean()
    down, across = np.gradient(blur((levels[0] + levels[1]) / 2, 1.5))
    gradient = blur(np.sqrt(down * down + across * across), 1.5)
    valid = _eroded(valid, CLIPPED_REACH)
    if np.count_nonzero(valid) < MIN_FLAT_PIXELS:
        return False
    flat = valid & (gradient <= percentile(gradient[valid], 100 * FLAT))
    noise = [(gray - blur(gray, 1))[flat] for gray in levels]
    low, high = sorted(float(values.std()) for values in noise)
    if low < MIN_NOISE or high > MAX_NOISE_RATIO * low:
        return False
    correlation = float((noise[0] * noise[1]).mean() / (low * high))
    return correlation < MAX_NOISE_CORRELATION


def _eroded(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Return where all pixels of an (H, W) mask up to `reach` to each side are set."""
    for _ in range(2):  # rows, then columns
        padded = np.pad(mask, [(reach, reach), (0, 0)], mode="edge")
        lines = [padded[start : start + len(mask)] for start in range(2 * reach + 1)]
        mask = np.logical_and.reduce(lines).T
    return mask
