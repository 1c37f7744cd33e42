"""Encode photos and heat maps as small pictures that a page holds as base64."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from anklealign.io.pixel_store import Pixels

QUALITY = 74  # WebP; below 70, blocks show in skin and sky
COLORMAP = "inferno"
OPACITY = 0.85  # of a heat map at its maximum; the page's slider lowers it
LEGEND_STEPS = 8


def photo(pixels: Pixels, side: int) -> str:
    """Return a photo of at most `side` px as base64 of WebP: (H, W, 3) uint8 -> str."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min(1, side / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return _webp(picture)


def heat_map(heat: npt.NDArray[np.uint8], box: tuple[float, float, float, float]) -> str:
    """Return the part of a heat map over a photo as base64 of a transparent WebP.

    Args:
        heat: (H, H), 255 at the maximum.
        box: Left, top, right, bottom of the photo, as fractions of the side.
    """
    side = len(heat)
    left, top, right, bottom = (side * edge for edge in box)
    # Enlarged here, because PDF viewers show the cells of a small picture.
    size = (max(1, round(2 * (right - left))), max(1, round(2 * (bottom - top))))
    cropped = Image.fromarray(heat).resize(
        size, Image.Resampling.BICUBIC, box=(left, top, right, bottom)
    )
    values = np.asarray(cropped, np.float64) / 255
    colors: Any = colormaps[COLORMAP](values)
    colors[..., 3] = OPACITY * values
    return _webp(Image.fromarray(np.rint(255 * colors).astype(np.uint8), "RGBA"))


def legend() -> str:
    """Return the CSS gradient of the heat maps, from no to the strongest evidence."""
    stops = []
    for step in range(LEGEND_STEPS + 1):
        value = step / LEGEND_STEPS
        red, green, blue, _ = (round(255 * channel) for channel in colormaps[COLORMAP](value))
        stops.append(f"rgba({red},{green},{blue},{OPACITY * value:.2f})")
    return f"linear-gradient(90deg,{','.join(stops)})"


def _webp(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(stream.getvalue()).decode()
