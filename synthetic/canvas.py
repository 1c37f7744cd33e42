"""Provide the canvas in cm and pixels, named random streams, and shared drawing primitives.

Fields are (R, C) arrays with rows from the top; heights are (R, 1) columns, places (1, C) rows. All
values are 64-bit floats. A random stream depends on its name only, not on the order of use.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.interpolate import PchipInterpolator

Field = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Color = tuple[float, float, float]  # linear light


@dataclass(frozen=True)
class View:
    """Extent of the canvas in cm, and its resolution."""

    left: float
    bottom: float
    width: float
    height: float
    density: float  # pixels per cm

    @property
    def places(self) -> Field:
        """(1, C) cm to the right of the midpoint between the heels."""
        columns = np.arange(round(self.width * self.density), dtype=np.float64)
        return self.left + (columns[None] + 0.5) / self.density

    @property
    def heights(self) -> Field:
        """(R, 1) cm above the floor at the heels."""
        rows = np.arange(round(self.height * self.density), dtype=np.float64)
        return self.bottom + self.height - (rows[:, None] + 0.5) / self.density


def generator(*names: str | int) -> np.random.Generator:
    """Return the random generator with this name; other generators do not affect it."""
    text = "/".join(str(name) for name in names)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16]))


def paint(paints: tuple[Color, ...], rng: np.random.Generator, spread: float = 0.22) -> Color:
    """Return a random paint, lighter or darker by up to `spread`."""
    red, green, blue = paints[rng.integers(len(paints))]
    bright = rng.uniform(1 - spread, 1 + spread)
    return red * bright, green * bright, blue * bright


def clouds(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> Field:
    """Return (R, C) smooth noise, -1 to 1, with peaks about `cell` pixels apart."""
    rows, columns = (max(2, round(side / cell) + 1) for side in shape)
    small = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    large = small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(large) / 127.5 - 1


def curve(heights: tuple[float, ...], values: tuple[float, ...], h: Field) -> Field:
    """Return the monotone cubic (PCHIP) curve through the values at heights `h` of any shape."""
    inside = np.clip(h, heights[0], heights[-1])
    return np.asarray(PchipInterpolator(heights, values)(inside))


def rise(h: Field, low: float, high: float) -> Field:
    """Return a smooth step from 0 at `low` and below to 1 at `high` and above."""
    t = np.clip((h - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(distance: Field, width: float) -> Field:
    """Return a Gaussian bell curve of height 1."""
    return np.exp(-((distance / width) ** 2))


def lines(place: Field, period: float, width: float, footprint: Field | float) -> Field:
    """Return the share of each pixel covered by parallel lines; `footprint` is a pixel's width."""
    aside = np.abs(place - np.round(place / period) * period)
    reach = footprint / 2
    covered = np.minimum(aside + reach, width / 2) - np.maximum(aside - reach, -width / 2)
    share: Field = np.clip(covered, 0, None) / footprint
    return share
