"""Robustness to common corruptions: blur, noise, JPEG, brightness, rotation, downscaling, flip.

Shapes: N photos, S the store's side, K classes. Only the photo inside its letterbox is corrupted;
the borders stay as they are. The kinds follow Hendrycks and Dietterich, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations (2019). The levels range from barely visible to
barely recognizable.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from anklealign.io.pixel_store import Photos, Pixels
from anklealign.metrics.scores import Floats, Integers

FLIP = "horizontal_flip"

# Kind to levels, mild to strong in each direction. The comment gives the unit.
LEVELS: dict[str, tuple[int, ...]] = {
    "gaussian_blur": (5, 10, 20, 40),  # sigma, thousandths of the store's side
    "gaussian_noise": (10, 20, 40, 80),  # standard deviation, gray levels of 0 to 255
    "jpeg_compression": (50, 20, 10, 5),  # JPEG quality, 1 to 95
    "brightness": (40, 70, 150, 200),  # percent of the original brightness
    "rotation": (-10, -5, 5, 10),  # degrees, positive is counterclockwise
    "downscaling": (64, 32, 16, 8),  # longer side in pixels, then enlarged to the original size
    FLIP: (1,),  # no unit
}


# A level is measured on blocks of photos until half the width of the drop's 95% interval is at most
# `WIDTH`, or this share of the drop: a drop of 0.4 is as clear with 0.12 as one of 0.1 with 0.05.
BLOCK = 32
WIDTH = 0.06
RELATIVE_WIDTH = 0.3


class CorruptionScore(NamedTuple):
    """A score on corrupted photos, half the width of its drop's interval, and photos used."""

    kind: str
    level: int
    score: float
    width: float
    photos: int


@dataclass(frozen=True)
class CorruptionSample:
    """The photos that are corrupted.

    Attributes:
        store: uint8 (n, S, S, 3).
        rows: (N,) rows of it.
        boxes: (N, 4), position of each photo in its square: left, top, right, bottom.
        ids: N photo ids.
        labels: (N,) class indices.
        unchanged: (N,) predicted classes of the photos without corruption.
        groups: (N,) group of each photo, for the interval.
        fill: Gray level of the letterbox.
    """

    store: Photos
    rows: Integers
    boxes: Integers
    ids: Sequence[str]
    labels: Integers
    unchanged: Integers
    groups: Sequence[str]
    fill: int


@dataclass(frozen=True)
class Context:
    """Properties of a photo and its store that some corruptions need.

    Attributes:
        side: S, the store's side in pixels; a blur is a fraction of it.
        fill: Gray level of the corners that a rotation leaves empty.
        photo_id: Hexadecimal id of the photo. It seeds the noise, so the noise does not depend on
            the order of the photos.
    """

    side: int
    fill: int
    photo_id: str


def gaussian_blur(photo: Pixels, level: int, context: Context) -> Pixels:
    """Blur with a sigma of `level` thousandths of the store's side."""
    blur = ImageFilter.GaussianBlur(context.side * level / 1000)
    return np.asarray(Image.fromarray(photo).filter(blur))


def gaussian_noise(photo: Pixels, level: int, context: Context) -> Pixels:
    """Add noise with a standard deviation of `level` gray levels."""
    generator = np.random.default_rng([int(context.photo_id, 16), level])
    return _to_uint8(photo + generator.normal(0, level, photo.shape))


def jpeg_compression(photo: Pixels, level: int, _: Context) -> Pixels:
    """Compress as JPEG of quality `level`."""
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "JPEG", quality=level)
    return np.asarray(Image.open(stream))


def brightness(photo: Pixels, level: int, _: Context) -> Pixels:
    """Scale the brightness to `level` percent."""
    return _to_uint8(photo * (level / 100))


def rotation(photo: Pixels, level: int, context: Context) -> Pixels:
    """Rotate counterclockwise by `level` degrees."""
    fill = (context.fill,) * 3
    rotated = Image.fromarray(photo).rotate(level, Image.Resampling.BICUBIC, fillcolor=fill)
    return np.asarray(rotated)


def downscaling(photo: Pixels, level: int, _: Context) -> Pixels:
    """Reduce the longer side to `level` pixels and enlarge to the original size."""
    image = Image.fromarray(photo)
    scale = min(1.0, level / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def horizontal_flip(photo: Pixels, _: int, __: Context) -> Pixels:
    """Flip left and right."""
    return photo[:, ::-1]


CORRUPTIONS: dict[str, Callable[[Pixels, int, Context], Pixels]] = {
    "gaussian_blur": gaussian_blur,
    "gaussian_noise": gaussian_noise,
    "jpeg_compression": jpeg_compression,
    "brightness": brightness,
    "rotation": rotation,
    "downscaling": downscaling,
    FLIP: horizontal_flip,
}


def _to_uint8(values: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def corrupt(
    pixels_nhwc: Pixels, boxes: Integers, ids: Sequence[str], kind: str, level: int, *, fill: int
) -> Pixels:
    """Return corrupted photos in their letterboxes: uint8 (N, S, S, 3) -> (N, S, S, 3)."""
    corrupted = np.array(pixels_nhwc)
    for square, (left, top, right, bottom), photo_id in zip(
        corrupted, boxes.tolist(), ids, strict=True
    ):
        photo = square[top:bottom, left:right].copy()
        context = Context(side=len(square), fill=fill, photo_id=photo_id)
        square[top:bottom, left:right] = CORRUPTIONS[kind](photo, level, context)
    return corrupted


def levels(*, flip: bool) -> list[tuple[str, int]]:
    """Return each kind with each of its levels; `flip` tells if a flipped photo keeps its label."""
    return [(kind, level) for kind in LEVELS if flip or kind != FLIP for level in LEVELS[kind]]


def corruption_score(
    sample: CorruptionSample, predict: Callable[[Pixels], Floats], kind: str, level: int
) -> CorruptionScore:
    """Return the balanced accuracy of the photos that are corrupted at a level.

    It uses the photos in their order, a block at a time, until the drop is known (`is_known`).
    The score is that of all N unchanged photos minus the drop, which is measured on the same photos
    with and without the corruption: which photos were drawn then matters little.

    Args:
        sample: N photos.
        predict: Function from squares to (N, K) probabilities.
        kind: Key of `LEVELS`.
        level: One of its levels.
    """
    labels, ids = sample.labels, sample.ids
    correct = sample.unchanged == labels
    codes = np.unique(np.asarray(sample.groups), return_inverse=True)[1]
    lost, drop, width = np.zeros(0), 0.0, np.inf
    while len(lost) < len(ids) and not is_known(drop, width):
        block = slice(len(lost), len(lost) + BLOCK)
        corrupted = corrupt(
            sample.store[sample.rows[block]], sample.boxes[block], ids[block], kind, level,
            fill=sample.fill,
        )  # fmt: skip
        right = predict(corrupted).argmax(1) == labels[block]
        lost = np.append(lost, correct[block].astype(float) - right)
        drop, width = drop_with_width(lost, labels, codes)
    score = class_mean(correct.astype(float), labels) - drop
    return CorruptionScore(kind, level, float(np.clip(score, 0, 1)), width, len(lost))


def class_mean(values: Floats, labels: Integers) -> float:
    """Return the mean over the classes of the class's mean: (N,), (N,)."""
    return float(np.mean([values[labels == k].mean() for k in np.unique(labels)]))


def drop_with_width(lost: Floats, labels: Integers, codes: Integers) -> tuple[float, float]:
    """Return the drop of the balanced accuracy, and half the width of its 95% interval.

    The variance is that of sums over groups, whose photos are not independent, or that of
    independent photos with one more change in each direction (Agresti and Min, Simple Improved
    Confidence Intervals for Comparing Matched Proportions (2005)), whichever is larger: without the
    latter, the first photos that do not change would be taken as proof that none does. The width is
    infinite while a class has no photo.

    Args:
        lost: (n,) of the first n photos: 1 if only the unchanged photo is classified correctly, -1
            if only the corrupted one, otherwise 0.
        labels: (N,) class indices.
        codes: (N,) group indices.
    """
    own = labels[: len(lost)]
    classes, counts = np.unique(own, return_counts=True)
    if len(classes) < len(np.unique(labels)):
        return class_mean(lost, own), np.inf
    drop = class_mean(lost, own)
    independent = 0.0
    influence = np.zeros(len(lost))
    for k, count in zip(classes, counts, strict=True):
        values = lost[own == k]
        influence[own == k] = (values - values.mean()) / (count * len(classes))
        square = (np.square(values).sum() + 2) / (count + 2)
        independent += (square - (values.sum() / (count + 2)) ** 2) / (count * len(classes) ** 2)
    sums = np.bincount(codes[: len(lost)], influence)
    clustered = np.square(sums).sum()
    return drop, 1.96 * float(np.sqrt(max(independent, clustered)))


def is_known(drop: float, width: float) -> bool:
    """Return True if half the width of the interval is small: absolutely, or against the drop."""
    return width <= max(WIDTH, RELATIVE_WIDTH * abs(drop))
