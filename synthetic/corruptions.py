"""What goes wrong with photos, done on purpose, so that what clean finds can be counted.

Copies show the picture of another photo: the same file under another name, saved again, resized,
cut, mirrored, turned, framed, brightened, or labelled otherwise. Poor photos show too little. Each
change tells where a point of the picture went, so that boxes can follow.
"""

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFilter, ImageOps

from anklealign.io.decode import TURNS
from synthetic.boxes import Box

Move = npt.NDArray[np.float64]  # (2, 3): a place (x, y, 1) in pixels to the place where it went
Change = Callable[[Image.Image, np.random.Generator], tuple[Image.Image, Move]]
Format = Literal["JPEG", "PNG", "WEBP", "AVIF"]

STAYS = np.eye(2, 3)
BACK = {turn: turn for turn in TURNS.values()} | {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
TINY = 48  # pixels of the longer side


def encode(image: Image.Image, form: Format, quality: int, orientation: int = 1) -> bytes:
    """Return a photo's file: its pixels turned so that EXIF `orientation` turns them upright."""
    if orientation > 1:
        image = image.transpose(BACK[TURNS[orientation]])
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Phantom"
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    if form == "JPEG":
        image.save(stream, form, quality=quality, exif=exif)
    elif form == "WEBP":
        image.save(stream, form, quality=quality, method=2)
    elif form == "AVIF":
        # One thread: the bytes must not depend on the number of cores.
        image.save(stream, form, quality=quality, speed=8, max_threads=1)
    else:
        image.save(stream, form, compress_level=4)
    return stream.getvalue()


def moved(box: Box, move: Move, width: int, height: int) -> Box:
    """Return where a box went, inside a picture of width x height."""
    corners = np.array([[box[0], box[2]], [box[1], box[3]], [1, 1]], np.float64)
    (x0, x1), (y0, y1) = np.sort(move @ corners, axis=1)
    left, right = (min(max(round(x), 0), width) for x in (x0, x1))
    top, bottom = (min(max(round(y), 0), height) for y in (y0, y1))
    return left, top, right, bottom


def _same(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Move]:
    return image, STAYS


def _resized(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Move]:
    return _scaled(image, round(image.width / 3), round(image.height / 3))


def _tiny(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Move]:
    scale = TINY / max(image.size)
    return _scaled(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)))


def _scaled(image: Image.Image, width: int, height: int) -> tuple[Image.Image, Move]:
    move = np.array([[width / image.width, 0, 0], [0, height / image.height, 0]])
    return image.resize((width, height), Image.Resampling.BICUBIC), move


def _cropped(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Move]:
    """Cut 8 percent of the width or the height off one side."""
    edges = [0, 0, image.width, image.height]
    side = int(rng.integers(4))
    cut = round(0.08 * image.size[side % 2])
    edges[side] += cut if side < 2 else -cut
    left, top, right, bottom = edges
    return image.crop((left, top, right, bottom)), np.array([[1.0, 0, -left], [0, 1.0, -top]])


def _mirrored(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Move]:
    return ImageOps.mirror(image), np.array([[-1.0, 0, image.width], [0, 1.0, 0]])


def _turned(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Move]:
    width, height = image.size
    turn, move = (
        (Image.Transpose.ROTATE_90, [[0, 1, 0], [-1, 0, width]]),
        (Image.Transpose.ROTATE_180, [[-1, 0, width], [0, -1, height]]),
        (Image.Transpose.ROTATE_270, [[0, -1, height], [1, 0, 0]]),
    )[rng.integers(3)]
    return image.transpose(turn), np.array(move, np.float64)


def _framed(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Move]:
    wide = round(rng.uniform(0.03, 0.08) * max(image.size))
    plain = ((0, 0, 0), (255, 255, 255), (128, 128, 128))[rng.integers(3)]
    return ImageOps.expand(image, wide, plain), np.array([[1.0, 0, wide], [0, 1.0, wide]])


def _brightened(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Move]:
    return image.point([min(255, round(1.2 * level)) for level in range(256)] * 3), STAYS


def _blurred(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Move]:
    """Blur by a sigma of 1.5 to 2.5 percent of the shorter side."""
    sigma = rng.uniform(0.015, 0.025) * min(image.size)
    return image.filter(ImageFilter.GaussianBlur(sigma)), STAYS


def _dark(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Move]:
    return image.point([round(0.2 * level) for level in range(256)] * 3), STAYS


def _washed_out(image: Image.Image, _: np.random.Generator) -> tuple[Image.Image, Move]:
    """Leave a fifth of the contrast about the mean."""
    mean = float(np.asarray(image.convert("L")).mean())
    return image.point([round(mean + 0.2 * (level - mean)) for level in range(256)] * 3), STAYS


def _blank(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Move]:
    """Return a photo of a bare wall: light that falls off to a side, and noise."""
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
# With the reason for which clean is to remove each.
POOR: dict[str, tuple[str, Change]] = {
    "blurred": ("blurred", _blurred),
    "dark": ("dark", _dark),
    "washed_out": ("low_contrast", _washed_out),
    "blank": ("low_contrast", _blank),
    "tiny": ("too_small", _tiny),
}
WRONG_LABEL = "wrong_label"
# One file from the web in several collectors' folders, one of whom labels it otherwise.
SHARED = "shared"
KINDS = (*COPIES, *POOR, WRONG_LABEL)
QUALITY = {"reencoded": 60}
