"""Blend heat maps over photos."""

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from anklealign.io.pixel_store import Pixels


def overlay(pixels: Pixels, heat: npt.NDArray[np.float32], strength: float = 0.55) -> Pixels:
    """Blend a heat map over its photo: uint8 (H, W, 3), (H, W) in 0 to 1 -> uint8 (H, W, 3).

    The opacity is proportional to the heat, up to `strength`. Where the heat is 0, the photo is
    unchanged.
    """
    colors = colormaps["inferno"](heat)[..., :3] * 255
    alpha = (strength * heat)[..., None]
    mixed: Pixels = np.rint((1 - alpha) * pixels + alpha * colors).astype(np.uint8)
    return mixed
