"""Measure a photo's size, lighting, contrast, and sharpness.

All measures are taken inside plain borders: a frame darkens a good photo, and its edge makes a
blurred photo look sharp. Sharpness is the width of the sharpest edges as a share of the photo, so
it is comparable between small and large photos, and between a sharp subject in front of a blurred
background and a photo that is sharp everywhere.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from anklealign.io.pixel_store import Pixels
from anklealign.similarity.borders import content_box, frame_box

BLURS = (1.0, 1.5)  # pixels, sigmas of the two blurs between which edges are measured
EDGES = 2.0  # percent of the pixels, those with the steepest slopes, that count as edges
SHARPEST = 75  # percentile of their sharpness: a photo may be blurred outside its subject
MARGIN = 4  # pixels along the boundary, where the filters extend beyond the photo
# Pixels. No edge is narrower than about half a pixel, so a photo with fewer pixels is measured
# against this side; otherwise it would count as blurred because it is small.
MIN_SIDE = 160
# Edges are measured at no more than this side: compression noise hides a blur many pixels wide.
MAX_SIDE = 256


@dataclass(frozen=True)
class ImageQuality:
    """The measures of one photo, named like the reasons for removal."""

    too_small: float  # pixels, the shorter side inside the borders, at the original size
    aspect: float  # longer side over shorter, inside the borders or with them: the larger
    dark: float  # gray level, 0 to 255, below which 95 percent of the pixels are
    bright: float  # gray level that 99 percent of the pixels reach
    low_contrast: float  # gray levels from the 1st to the 99th percentile
    blurred: float  # percent of the longer side, sigma of the sharpest edges
    # Not reasons; used to choose which duplicate to keep:
    area: float  # pixels inside a frame or bars, at the original size
    framed: bool  # whether the photo has a frame or bars


def measure(photo: Pixels, width: int, height: int, *, square: bool = False) -> ImageQuality:
    """Return the measures of (H, W, 3) pixels of a photo of width x height pixels.

    Args:
        photo: At the photo's aspect ratio and not enlarged: enlarging adds pixels without
            information about sharpness (`pixel_store.Pictures`).
        width: Pixels of the original photo.
        height: Pixels of the original photo.
        square: Whether the pixels show only the photo's center square.
    """
    gray = Image.fromarray(photo).convert("L")
    left, top, right, bottom = content_box(np.asarray(gray))
    content = gray.crop((left, top, right, bottom))
    shorter, longer = sorted((width, height))
    scale = shorter / gray.width if square else longer / max(gray.size)
    sides = (content.width * scale, content.height * scale)
    frame = frame_box(np.asarray(gray))
    unframed = (frame[2] - frame[0]) * (frame[3] - frame[1]) / (gray.width * gray.height)
    cumulative = np.cumsum(content.histogram()) / (content.width * content.height)
    low, p95, high = (float(np.searchsorted(cumulative, share)) for share in (0.01, 0.95, 0.99))
    # The ends that the square lacks belong to the photo, unless a bar hides where they begin.
    uncut = content.width == gray.width if width > height else content.height == gray.height
    side = gray.width * longer / shorter if square and uncut else max(content.size)
    zoom = min(1.0, MAX_SIDE / side)
    pixels = (max(1, round(content.width * zoom)), max(1, round(content.height * zoom)))
    levels = np.asarray(content.resize(pixels, Image.Resampling.LANCZOS), np.float32)
    return ImageQuality(
        too_small=min(sides),
        # The ends of a strip may be plain and look like borders.
        aspect=max(max(sides) / min(sides), longer / shorter),
        dark=p95,
        bright=low,
        low_contrast=high - low,
        blurred=100 * _edge_width(levels) / max(MIN_SIDE, zoom * side),
        area=unframed * (shorter**2 if square else width * height),
        framed=frame != (0, 0, *gray.size),
    )


def _edge_width(gray: npt.NDArray[np.float32]) -> float:
    """Return the sigma, in pixels, of the Gaussian blur of the sharpest edges of (H, W) gray.

    An edge of width s that is blurred by r has a slope of 1 / sqrt(s^2 + r^2). The ratio of its
    slopes after two blurs gives s regardless of the edge's contrast (after Zhuo and Sim, Pattern
    Recognition 44, 2011, 1852-1858, who compare one blur with none, which measures compression
    noise).
    """
    if min(gray.shape) <= 2 * MARGIN + 1:
        return 0.0
    inner = (slice(MARGIN, -MARGIN),) * 2
    first, second = BLURS
    steep, soft = (
        np.hypot(*np.gradient(ndimage.gaussian_filter(gray, sigma)))[inner] for sigma in BLURS
    )
    edges = soft >= max(np.percentile(soft, 100 - EDGES), 1e-3)
    if not edges.any():
        return 0.0  # a single gray level: low contrast, not blurred
    squared = float(np.percentile(steep[edges] / soft[edges], SHARPEST)) ** 2
    # Between an edge of width zero and one wider than the picture.
    squared = min(max(squared, 1.0001), (second / first) ** 2)
    return math.sqrt((second**2 - squared * first**2) / (squared - 1))


# Reason -> side of its threshold on which a photo is unusable, in the order of their precedence.
QUALITY_REASONS = {
    "too_small": "below",
    "aspect": "above",
    "dark": "below",
    "bright": "above",
    "low_contrast": "below",
    "blurred": "above",
}

UNITS = {
    "too_small": " px",
    "aspect": ":1",
    "dark": " of 255",
    "bright": " of 255",
    "low_contrast": " gray levels",
    "blurred": "% of the side",
}


def quality_reason(quality: ImageQuality, limits: Mapping[str, float]) -> str | None:
    """Return the first reason for which a photo is unusable, or None."""
    for reason, side in QUALITY_REASONS.items():
        score, limit = getattr(quality, reason), limits[reason]
        if (score < limit) if side == "below" else (score > limit):
            return reason
    return None
