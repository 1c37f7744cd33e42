"""Heat maps as PNG images: blended over the photo, or as a separate transparent layer.

This module imports PyTorch, so only `pytorch.load` imports it first.
"""

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from anklealign.explainability import attribution
from anklealign.explainability.attribution import Maps
from anklealign.inference.base_predictor import OpenedPhoto
from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Pixels
from anklealign.plotting import heat_maps


def compute(predictor: Predictor, photo: OpenedPhoto, predicted: int) -> tuple[Pixels, Maps]:
    """Return the model input and its heat map, both cropped to remove the letterbox padding."""
    heat = attribution.heat_maps(
        predictor.bundle, photo.pixels[None], np.array([predicted]), device=predictor.device
    )[0]
    left, top, right, bottom = photo.box
    return photo.pixels[top:bottom, left:right], heat[top:bottom, left:right]


def over_photo(pixels: Pixels, heat: Maps) -> bytes:
    """Return a photo with its heat map as a PNG: uint8 (H, W, 3), (H, W) in 0 to 1."""
    return encode_png(heat_maps.overlay(pixels, heat))


def to_rgba(heat: Maps) -> Pixels:
    """Return a heat map as an overlay: (H, W) in 0 to 1 -> RGBA (H, W, 4), alpha is the heat."""
    rgba: Pixels = colormaps["inferno"](heat, bytes=True)
    rgba[..., 3] = np.rint(heat * 255)
    return rgba


def encode_png(pixels: Pixels) -> bytes:
    """Return (H, W, 3 or 4) uint8 pixels as a PNG."""
    stream = io.BytesIO()
    # Level 1 is five times faster than the default level 6; files are a tenth larger.
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
