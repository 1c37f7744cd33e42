"""Corrupt photos on purpose, so that the share that clean finds can be measured.

Copies show the picture of another photo: the same file under another name, re-encoded, resized,
cropped, mirrored, rotated, framed, brightened, or with another label. Poor photos are blurred,
dark, low in contrast, blank or tiny. Each change returns the affine map of picture coordinates, so
that boxes can follow.
"""

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFilter, ImageOps

from anklealign.io.decode import TURNS
from synthetic.boxes import Box

Affine = npt.NDArray[np.float64]  # (2, 3): maps (x, y, 1) in pixels to the new position
Change = Callable[[Image.Image, np.random.Generator], tuple[Image.Image, Affine]]
Format = Literal["JPEG", "PNG", "WEBP", "AVIF"]

IDENTITY = np.eye(2, 3)
INVERSE_TURNS = {turn: turn for turn in TURNS.values()} | {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
TINY_SIDE = 48  # pixels, longer side


def encode(image: Image.Image, file_format: Format, quality: int, orientation: int = 1) -> bytes:
    """Return an encoded file whose EXIF `orientation` restores the upright picture."""
    if orientation > 1:
        image = image.transpose(INVERSE_TURNS[TURNS[orientation]])
    exif = Image.Exif()
    # Part of the bytes of every JPEG; kept so that generated files stay identical.
    exif[ExifTags.Base.Make] = "Phantom"
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    if file_format == "JPEG":
        image.save(stream, file_format, quality=quality, exif=exif)
    elif file_format == "WEBP":
        image.save(stream, file_format, quality=quality, method=2)
    elif file_format == "AVIF":
        # One thread, because the bytes depend on the number of threads.
        image.save(stream, file_format, quality=quality, speed=8, max_threads=1)
    else:
        image.save(stream, file_format, compress_level=4)
    return stream.getvalue()


def transform_box(box: Box, affine: Affine, width: int, height: int) -> Box:
    """Return a box mapped by `affine` and clipped to a picture of width x height."""
    corners = np.array([[box[0], box[2]], [box[1], box[3]], [1, 1]], np.float64)
    (x0, x1), (y0, y1) = np.sort(affine @ corners, axis=1)
    left, right = (min(max(round(x), 0), width) for x in (x0, x1))
    top, bottom = (min(max(round(y), 0), height) for y in (y0, y1))
    return left, top, right, bottom


def _same(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Affine]:
    return image, IDENTITY


def _resized(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Affine]:
    return _scaled(image, round(image.width / 3), round(image.height / 3))


def _tiny(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Affine]:
    scale = TINY_SIDE / max(image.size)
    return _scaled(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)))


def _scaled(image: Image.Image, width: int, height: int) -> tuple[Image.Image, Affine]:
    affine = np.array([[width / image.width, 0, 0], [0, height / image.height, 0]])
    return image.resize((width, height), Image.Resampling.BICUBIC), affine


def _cropped(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Affine]:
    """Crop 8% of the width or the height from one side."""
    edges = [0, 0, image.width, image.height]
    side = int(rng.integers(4))
    cut = round(0.08 * image.size[side % 2])
    edges[side] += cut if side < 2 else -cut
    left, top, right, bottom = edges
    return image.crop((left, top, right, bottom)), np.array([[1.0, 0, -left], [0, 1.0, -top]])


def _mirrored(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Affine]:
    return ImageOps.mirror(image), np.array([[-1.0, 0, image.width], [0, 1.0, 0]])


def _turned(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Affine]:
    width, height = image.size
    turn, affine = (
        (Image.Transpose.ROTATE_90, [[0, 1, 0], [-1, 0, width]]),
        (Image.Transpose.ROTATE_180, [[-1, 0, width], [0, -1, height]]),
        (Image.Transpose.ROTATE_270, [[0, -1, height], [1, 0, 0]]),
    )[rng.integers(3)]
    return image.transpose(turn), np.array(affine, np.float64)


def _framed(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Affine]:
    wide = round(rng.uniform(0.03, 0.08) * max(image.size))
    plain = ((0, 0, 0), (255, 255, 255), (128, 128, 128))[rng.integers(3)]
    return ImageOps.expand(image, wide, plain), np.array([[1.0, 0, wide], [0, 1.0, wide]])


def _brightened(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Affine]:
    return image.point([min(255, round(1.2 * level)) for level in range(256)] * 3), IDENTITY


def _blurred(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Affine]:
    """Blur with a sigma of 1.5% to 2.5% of the shorter side."""
    sigma = rng.uniform(0.015, 0.025) * min(image.size)
    return image.filter(ImageFilter.GaussianBlur(sigma)), IDENTITY


def _dark(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Affine]:
    return image.point([round(0.2 * level) for level in range(256)] * 3), IDENTITY


def _washed_out(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Affine]:
    """Reduce the contrast around the mean to a fifth."""
    mean = float(np.asarray(image.convert("L")).mean())
    return image.point([round(mean + 0.2 * (level - mean)) for level in range(256)] * 3), IDENTITY


def _blank(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Affine]:
    """Return a photo of a bare wall: a horizontal gradient with noise."""
    across = np.linspace(-8, 8, image.width)[None, :, None]
    noise = rng.integers(-4, 5, (image.height, image.width, 3))
    wall = np.clip(rng.uniform(60, 200, 3) + across + noise, 0, 255)
    return Image.fromarray(wall.astype(np.uint8)), np.zeros((2, 3))


COPIES: dict[str, Change] = {
    "exact": _same,
    "reencoded": _same,
    "resized": _resized,
    "cropped": _cropped,
    "mirrored": _mirrored,
    "turned": _turned,
    "framed": _framed,
    "brightened": _brightened,
    "contradicting": _same,
}
# Each with the reason that clean gives for it.
POOR_QUALITY: dict[str, tuple[str, Change]] = {
    "blurred": ("blurred", _blurred),
    "dark": ("dark", _dark),
    "washed_out": ("low_contrast", _washed_out),
    "blank": ("low_contrast", _blank),
    "tiny": ("too_small", _tiny),
}
WRONG_LABEL = "wrong_label"
# One web picture, as the same file, in the folders of several collectors; one label differs.
SHARED = "shared"
KINDS = (*COPIES, *POOR_QUALITY, WRONG_LABEL)
QUALITY = {"reencoded": 60}
