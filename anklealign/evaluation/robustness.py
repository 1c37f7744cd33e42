"""How far a model holds when its photos get worse: blur, noise, JPEG, light, tilt, size, mirroring.

Shapes: N photos, S the store's side, K classes. The photo inside its letterbox is changed, the
borders stay as they were. The kinds follow Hendrycks and Dietterich, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations (2019); the levels run from hardly seen to hardly
recognised.
"""

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from anklealign.io.pixel_store import Pixels
from anklealign.metrics.scores import Floats, Integers, point_scores

SCORE = "balanced_accuracy"
MIRROR = "mirror"

# Kind to its levels, mild to strong either way; the kind's name says the unit.
LEVELS: dict[str, tuple[int, ...]] = {
    "blur_permille": (5, 10, 20, 40),  # sigma, of the store's side
    "noise_levels": (10, 20, 40, 80),  # standard deviation, of 256 grey levels
    "jpeg_quality": (50, 20, 10, 5),
    "brightness_percent": (40, 70, 150, 200),
    "rotation_degrees": (-10, -5, 5, 10),  # positive is counter-clockwise
    "downscaling_pixels": (64, 32, 16, 8),  # longer side, then enlarged again
    MIRROR: (1,),
}


def change(photo: Pixels, kind: str, level: int, *, side: int, fill: int, key: str) -> Pixels:
    """Return a worse photo: uint8 (H, W, 3) -> (H, W, 3).

    Args:
        photo: The photo without its letterbox.
        kind: A key of LEVELS.
        level: In the kind's unit.
        side: S, of which a blur is a share.
        fill: Grey level of the corners that a rotation leaves empty.
        key: The photo's id; decides its noise, whatever the order of the photos.
    """
    image = Image.fromarray(photo)
    if kind == "blur_permille":
        image = image.filter(ImageFilter.GaussianBlur(side * level / 1000))
    elif kind == "noise_levels":
        noise = np.random.default_rng([int(key, 16), level]).normal(0, level, photo.shape)
        return _levels(photo + noise)
    elif kind == "jpeg_quality":
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=level)
        image = Image.open(stream)
    elif kind == "brightness_percent":
        return _levels(photo * (level / 100))
    elif kind == "rotation_degrees":
        image = image.rotate(level, Image.Resampling.BICUBIC, fillcolor=(fill,) * 3)
    elif kind == "downscaling_pixels":
        scale = min(1.0, level / max(image.size))
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(small, Image.Resampling.LANCZOS).resize(
            image.size, Image.Resampling.BICUBIC
        )
    elif kind == MIRROR:
        return photo[:, ::-1]
    return np.asarray(image)


def _levels(values: npt.NDArray[np.floating]) -> Pixels:
    levels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


def changed(
    pixels_nhwc: Pixels, boxes: Integers, keys: Sequence[str], kind: str, level: int, *, fill: int
) -> Pixels:
    """Return worse photos in their letterboxes: uint8 (N, S, S, 3) -> (N, S, S, 3)."""
    worse = np.array(pixels_nhwc)
    for square, (left, top, right, bottom), key in zip(worse, boxes.tolist(), keys, strict=True):
        photo = square[top:bottom, left:right].copy()
        square[top:bottom, left:right] = change(
            photo, kind, level, side=len(square), fill=fill, key=key
        )
    return worse


def scores(
    pixels_nhwc: Pixels,
    boxes: Integers,
    keys: Sequence[str],
    labels: Integers,
    answer: Callable[[Pixels], Floats],
    *,
    fill: int,
    mirror: bool,
) -> Iterator[tuple[str, int, float]]:
    """Yield kind, level and the balanced accuracy there.

    Args:
        pixels_nhwc: uint8 (N, S, S, 3).
        boxes: (N, 4), where each photo lies in its square: left, top, right, bottom.
        keys: The photos' ids.
        labels: (N,) class indices.
        answer: From squares to (N, K) probabilities.
        fill: Grey level of the letterbox.
        mirror: Whether a mirrored photo has the same label.
    """
    for kind, levels in LEVELS.items():
        for level in levels if mirror or kind != MIRROR else ():
            worse = changed(pixels_nhwc, boxes, keys, kind, level, fill=fill)
            yield kind, level, point_scores(labels, answer(worse))[SCORE]
