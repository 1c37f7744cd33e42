"""What a photo is like: its size, its light, its contrast, its sharpness.

Everything is measured inside plain borders: a frame darkens a good photo, and its edge makes a
blurred one look sharp. Sharpness is the width of the sharpest edges as a share of the photo, so
that it means the same for a small photo as for a large one, and for a sharp subject before a
blurred ground as for a photo sharp all over.
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
EDGES = 2.0  # percent of the pixels, those with the steepest slopes, are taken for edges
SHARPEST = 75  # percentile of their sharpness: a photo may be blurred outside its subject
RIM = 4  # pixels beside the rim, where the filters see beyond the photo
# Pixels. No edge of a photo is narrower than about half a pixel, so a photo with fewer pixels is
# measured against this side, or it would be 'blurred' for being small.
LEAST_SIDE = 160
# Nor are edges measured at more than this: a blur many pixels wide drowns in compression noise.
MOST_SIDE = 256


@dataclass(frozen=True)
class Scores:
    """One photo's measures, named like their reasons."""

    too_small: float  # pixels, the shorter side inside the borders, of the photo as it came
    aspect: float  # longer side over shorter, inside the borders or with them: the larger
    dark: float  # grey level, 0 to 255, that 95 percent of the pixels stay below
    bright: float  # grey level that 99 percent of the pixels reach
    low_contrast: float  # grey levels from the 1st to the 99th percentile
    blurred: float  # percent of the longer side, sigma of the sharpest edges
    # No reasons, but for the choice between copies:
    area: float  # pixels inside a frame or bars, of the photo as it came
    framed: bool  # it has a frame or bars


def scores(photo: Pixels, width: int, height: int, *, square: bool = False) -> Scores:
    """Return the measures of (H, W, 3) pixels that came as a photo of width x height pixels.

    Args:
        photo: In the shape that it came in, but not enlarged: pixels made by enlarging say nothing
            about sharpness (`photos.Pictures`).
        width: Pixels.
        height: Pixels.
        square: Only the centre square of the photo is there.
    """
    grey = Image.fromarray(photo).convert("L")
    left, top, right, bottom = content_box(np.asarray(grey))
    box = grey.crop((left, top, right, bottom))
    shorter, longer = sorted((width, height))
    came = shorter / grey.width if square else longer / max(grey.size)
    sides = (box.width * came, box.height * came)
    frame = frame_box(np.asarray(grey))
    shown = (frame[2] - frame[0]) * (frame[3] - frame[1]) / (grey.width * grey.height)
    shares = np.cumsum(box.histogram()) / (box.width * box.height)
    low, lit, high = (float(np.searchsorted(shares, share)) for share in (0.01, 0.95, 0.99))
    # The ends that the square lacks are part of the photo, unless a bar hides where they begin.
    ends = box.width == grey.width if width > height else box.height == grey.height
    side = grey.width * longer / shorter if square and ends else max(box.size)
    seen = min(1.0, MOST_SIDE / side)
    pixels = (max(1, round(box.width * seen)), max(1, round(box.height * seen)))
    levels = np.asarray(box.resize(pixels, Image.Resampling.LANCZOS), np.float32)
    return Scores(
        too_small=min(sides),
        # The ends of a strip may be plain, and look like borders.
        aspect=max(max(sides) / min(sides), longer / shorter),
        dark=lit,
        bright=low,
        low_contrast=high - low,
        blurred=100 * _edge_width(levels) / max(LEAST_SIDE, seen * side),
        area=shown * (shorter**2 if square else width * height),
        framed=frame != (0, 0, *grey.size),
    )


def _edge_width(grey: npt.NDArray[np.float32]) -> float:
    """Return the sigma, in pixels, of the Gaussian that blurred the sharpest edges of (H, W) grey.

    An edge of width s that is blurred by r has a slope of 1 / sqrt(s^2 + r^2). The ratio of its
    slopes after two blurs gives s whatever the edge's contrast (after Zhuo and Sim, Pattern
    Recognition 44, 2011, 1852-1858, who compare one blur with none and so see compression noise).
    """
    if min(grey.shape) <= 2 * RIM + 1:
        return 0.0
    rim = (slice(RIM, -RIM),) * 2
    first, second = BLURS
    steep, soft = (
        np.hypot(*np.gradient(ndimage.gaussian_filter(grey, sigma)))[rim] for sigma in BLURS
    )
    edges = soft >= max(np.percentile(soft, 100 - EDGES), 1e-3)
    if not edges.any():
        return 0.0  # nothing but one grey: low in contrast, not blurred
    squared = float(np.percentile(steep[edges] / soft[edges], SHARPEST)) ** 2
    # Between an edge of no width and one wider than the picture.
    squared = min(max(squared, 1.0001), (second / first) ** 2)
    return math.sqrt((second**2 - squared * first**2) / (squared - 1))


# Which side of its threshold makes a photo unusable, in the order in which reasons are given.
UNUSABLE = {
    "too_small": "below",
    "aspect": "above",
    "dark": "below",
    "bright": "above",
    "low_contrast": "below",
    "blurred": "above",
}

UNITS = {
    "too_small": " px",
    "aspect": " to 1",
    "dark": " of 255",
    "bright": " of 255",
    "low_contrast": " grey levels",
    "blurred": " % of the side",
}


def fault(measured: Scores, limits: Mapping[str, float]) -> str | None:
    """Return the first of the reasons for which a photo is unusable, or None."""
    for reason, side in UNUSABLE.items():
        score, limit = getattr(measured, reason), limits[reason]
        if (score < limit) if side == "below" else (score > limit):
            return reason
    return None
