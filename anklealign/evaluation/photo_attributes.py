"""Measure what a photo shows beside its subject: size, borders, brightness, sharpness, background.

A class that follows from these alone can be learned without a look at the subject (`shortcuts`),
and photos of another place differ in them first (`external`).

Shapes: N photos, H x W pixels of a photo in the store.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from anklealign.io.pixel_store import Boxes, Photos, Pixels
from anklealign.similarity.borders import content_box

# Attribute -> its columns in the table of `measure`.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "image_size": ("width", "height", "aspect"),
    "borders": ("border_left", "border_top", "border_right", "border_bottom"),
    "brightness": ("brightness", "darkest", "brightest"),
    "sharpness": ("sharpness",),
    "background_color": ("background_red", "background_green", "background_blue"),
}
COLUMNS = tuple(name for names in ATTRIBUTES.values() for name in names)
RIM = 0.1  # fraction of each side of the photo, inside its borders, that counts as background
QUANTILES = 21  # of each column in a bundle: 0, 5, …, 100 %
DIGITS = 4


def measure(table: pd.DataFrame, store: Photos) -> pd.DataFrame:
    """Return the attributes of photos, one row per row of the photo table.

    Args:
        table: row, left, top, right, bottom, width and height of N photos.
        store: The pixels that `row` refers to.

    Returns:
        COLUMNS: width and height of the original in px, and their ratio; plain borders as fractions
        of the side; mean, 5th and 95th percentile of the gray levels (0 to 255) inside the borders;
        the logarithm of the mean squared Laplacian; the mean background color (0 to 255).
    """
    photos = Boxes(table, store)
    rows = [
        _measure(photo)
        for photo in tqdm(photos, "attributes", unit="photo", delay=1, leave=False, disable=None)
    ]
    measured = pd.DataFrame(rows, columns=list(COLUMNS[3:]), index=table.index)
    sizes = table[["width", "height"]].assign(aspect=table.width / table.height)
    return pd.concat([sizes, measured.round(DIGITS)], axis=1)


def _measure(photo: Pixels) -> list[float]:
    """Return the columns that depend on (H, W, 3) pixels."""
    gray = np.asarray(Image.fromarray(photo).convert("L"))
    height, width = gray.shape
    left, top, right, bottom = content_box(gray)
    borders = [left / width, top / height, 1 - right / width, 1 - bottom / height]
    inside, colors = gray[top:bottom, left:right], photo[top:bottom, left:right]
    levels = [float(inside.mean()), *np.percentile(inside, [5, 95]).tolist()]
    edges = ndimage.laplace(inside.astype(np.float32))
    sharpness = float(np.log(1 + (edges.astype(np.float64) ** 2).mean()))
    return [*borders, *levels, sharpness, *_rim(colors).tolist()]


def _rim(colors: Pixels) -> npt.NDArray[np.float64]:
    """Return the mean color of the pixels near the edges: (H, W, 3) -> (3,)."""
    y, x = (max(1, round(RIM * float(side))) for side in colors.shape[:2])
    inner = colors[y:-y, x:-x]
    # Whole numbers, so the difference of the sums is exact.
    total, inside = (part.sum((0, 1), dtype=np.int64) for part in (colors, inner))
    count = (colors.size - inner.size) // colors.shape[2]
    mean: npt.NDArray[np.float64] = (total - inside) / count
    return mean


def quantiles(attributes: pd.DataFrame) -> dict[str, list[float]]:
    """Return `QUANTILES` equally spaced quantiles of each column, which a bundle holds."""
    levels = np.linspace(0, 1, QUANTILES)
    return {name: np.quantile(attributes[name], levels).round(DIGITS).tolist() for name in COLUMNS}
