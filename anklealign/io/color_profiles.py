"""Convert pixels from a photo's embedded ICC profile to sRGB, with Little CMS through Pillow.

Phones embed Display P3, cameras Adobe RGB, and print files CMYK profiles. The same object has
different values in each of these spaces, so a model must see all photos in one: sRGB (IEC
61966-2-1), the space of a photo without a profile.
"""

import io
import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

# Profiles of cameras and printers have 0.5 to 2,800 kB; building a transform reads all of it.
MAX_PROFILE_BYTES = 4 << 20
# Building takes 3 to 50 ms, so that the transforms of recent profiles are kept: those of many
# phones and cameras, whose profiles are small, and of few printers.
SMALL_PROFILE_BYTES, KEPT_SMALL, KEPT_LARGE = 64 << 10, 32, 2
# Gray levels. Variants of sRGB differ from Little CMS's own by rounding; such pixels are kept.
SAME = 2
# Profile space (ICC.1, table 19) -> pixel mode.
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


class Conversion(NamedTuple):
    """The transform of a profile to sRGB, or None if pixels are kept, and a note or ''."""

    transform: ImageCms.ImageCmsTransform | None
    note: str


def to_srgb(rgb: Image.Image, mode: str, profile: bytes) -> tuple[Image.Image, str]:
    """Return an RGB image in sRGB, and a note on what was done, or '' for an sRGB profile.

    Args:
        rgb: The image as 8-bit RGB; a CMYK image with a usable profile is passed as CMYK.
        mode: Mode of the photo's own pixels: RGB, L or CMYK.
        profile: Content of the ICC profile; a broken or unsuitable one is ignored with a note.
    """
    conversion = conversion_of(profile, mode)
    if conversion.transform is None:
        return rgb, conversion.note
    if mode == "RGB":  # in place, because a second copy of 80 MP takes 320 MB
        rgb.load()
        ImageCms.applyTransform(rgb, conversion.transform, inPlace=True)
        return rgb, conversion.note
    source = rgb if rgb.mode == mode else rgb.getchannel(0)
    converted = ImageCms.applyTransform(source, conversion.transform)
    if converted is None:
        raise ValueError("Little CMS returned no image")
    return converted, conversion.note


def conversion_of(profile: bytes, mode: str) -> Conversion:
    """Return the conversion of an ICC profile for pixels of a mode: RGB, L or CMYK."""
    if len(profile) > MAX_PROFILE_BYTES:  # before the cache, which would keep it
        return Conversion(None, f"color profile ignored: {len(profile)} bytes")
    build = _conversion_of_small if len(profile) <= SMALL_PROFILE_BYTES else _conversion_of_large
    return build(profile, mode)


def _build_conversion(profile: bytes, mode: str) -> Conversion:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if MODES.get(space) != mode:
            return Conversion(None, f"color profile ignored: for {_printable(space)} pixels")
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        name = _printable(ImageCms.getProfileDescription(source)) or "an unnamed profile"
        same = mode == "RGB" and _is_identity(transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return Conversion(None, f"color profile ignored: {_printable(str(error))}")
    return Conversion(None, "") if same else Conversion(transform, f"converted from {name} to sRGB")


_conversion_of_small = lru_cache(KEPT_SMALL)(_build_conversion)
_conversion_of_large = lru_cache(KEPT_LARGE)(_build_conversion)


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return True if an RGB transform changes no color of a grid by more than SAME levels."""
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(18, -1, 3)
    changed = ImageCms.applyTransform(Image.fromarray(grid), transform)
    return bool(np.abs(np.asarray(changed).astype(int) - grid).max() <= SAME)


def _printable(text: str) -> str:
    """Return the words of a text from a file, in ASCII and at most 60 characters."""
    return " ".join(re.sub(r"[^ -~]+", " ", text).split())[:60]
