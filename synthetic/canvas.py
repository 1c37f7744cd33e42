"""What a picture is painted on: a canvas in centimetres and pixels, and the strokes all share.

Fields are (R, C) arrays, rows from the top; a column of heights is (R, 1), a row of places (1, C).
Everything is computed in 64-bit floats; random numbers belong to names, never to an order.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.interpolate import PchipInterpolator

Field = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Colour = tuple[float, float, float]  # linear light


@dataclass(frozen=True)
class View:
    """The canvas in cm and in pixels."""

    left: float
    bottom: float
    width: float
    height: float
    density: float  # pixels a cm

    @property
    def places(self) -> Field:
        """(1, C) cm to the right of the middle between the heels."""
        columns = np.arange(round(self.width * self.density), dtype=np.float64)
        return self.left + (columns[None] + 0.5) / self.density

    @property
    def heights(self) -> Field:
        """(R, 1) cm above the floor at the heels."""
        rows = np.arange(round(self.height * self.density), dtype=np.float64)
        return self.bottom + self.height - (rows[:, None] + 0.5) / self.density


def generator(*names: str | int) -> np.random.Generator:
    """Return the random numbers that belong to these names, whatever else is drawn."""
    text = "/".join(str(name) for name in names)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16]))


def paint(paints: tuple[Colour, ...], rng: np.random.Generator, spread: float = 0.22) -> Colour:
    """Return one of the paints, lighter or darker by up to `spread`."""
    red, green, blue = paints[rng.integers(len(paints))]
    bright = rng.uniform(1 - spread, 1 + spread)
    return red * bright, green * bright, blue * bright


def clouds(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> Field:
    """Return an (R, C) field of soft noise, -1 to 1, with hills about `cell` pixels apart."""
    rows, columns = (max(2, round(side / cell) + 1) for side in shape)
    small = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    large = small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(large) / 127.5 - 1


def curve(heights: tuple[float, ...], values: tuple[float, ...], h: Field) -> Field:
    """Return the smooth, never overshooting curve through the values, at heights of any shape."""
    inside = np.clip(h, heights[0], heights[-1])
    return np.asarray(PchipInterpolator(heights, values)(inside))


def rise(h: Field, low: float, high: float) -> Field:
    """Return the smooth step from 0 at and below `low` to 1 at and above `high`."""
    part = np.clip((h - low) / (high - low), 0, 1)
    return part * part * (3 - 2 * part)


def bump(distance: Field, width: float) -> Field:
    """Return a bell curve of height 1."""
    return np.exp(-((distance / width) ** 2))


def lines(place: Field, period: float, width: float, footprint: Field | float) -> Field:
    """Return the share of each pixel that parallel lines cover, where a pixel is so wide."""
    aside = np.abs(place - np.round(place / period) * period)
    reach = footprint / 2
    covered = np.minimum(aside + reach, width / 2) - np.maximum(aside - reach, -width / 2)
    share: Field = np.clip(covered, 0, None) / footprint
    return share
