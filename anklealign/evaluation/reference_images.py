"""Draw images that are photos of nothing: what a detector of unlike photos must refuse.

They are drawn from a fixed seed, so every bundle is tested on the same images. Photographs of other
subjects are the harder test: `python -m benchmarks.novelty`.

Shapes: n images, S side in px.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from anklealign.io.pixel_store import Pixels

COUNT = 40  # images of each kind; one is 2.5 % of the detection rate


def draw(size: int) -> dict[str, Pixels]:
    """Return images by kind: noise, gradients and documents, each (n, S, S, 3) uint8."""
    rng = np.random.default_rng(0)
    return {
        "noise": rng.integers(0, 256, (COUNT, size, size, 3), np.uint8),
        "gradients": np.stack([_gradient(rng, size) for _ in range(COUNT)]),
        "documents": np.stack([_document(rng, size) for _ in range(COUNT)]),
    }


def _gradient(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """Return a linear transition between two colors, in one of four directions: (S, S, 3)."""
    first, second = rng.integers(0, 256, (2, 3))
    share = np.linspace(0, 1, size)[:, None, None]
    column = (first * (1 - share) + second * share).round().astype(np.uint8)
    return np.rot90(np.repeat(column, size, axis=1), int(rng.integers(4)))


def _document(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """Return a page with lines of dark words, and on every second page a bar chart: (S, S, 3)."""
    page = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(225, 256, 3)))
    pen = ImageDraw.Draw(page)
    unit = size / 64
    chart = bool(rng.integers(2))
    y = 4 * unit
    while y < (32 if chart else 60) * unit:
        x, end = 4 * unit, rng.uniform(20, 60) * unit
        while x < end:
            width = rng.uniform(1, 6) * unit
            gray = int(rng.integers(0, 90))
            pen.rectangle((x, y, x + width, y + 0.8 * unit), fill=(gray, gray, gray))
            x += width + unit
        y += rng.choice([2, 2, 2, 4]) * unit
    if chart:
        for bar in range(6):
            left, top = (8 + 8 * bar) * unit, rng.uniform(36, 56) * unit
            color = tuple(int(v) for v in rng.integers(0, 256, 3))
            pen.rectangle((left, top, left + 5 * unit, 60 * unit), fill=color)
    return np.asarray(page)
