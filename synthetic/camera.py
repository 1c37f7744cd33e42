"""Render a photo of a subject in a room: camera position, projection, exposure and heel boxes.

The picture is computed in 64-bit floats and rounded to 8 bits once, so that last-digit differences
between processors do not reach the photo.

The room is drawn for a level camera. A camera that is higher or lower, and pitched by a few degrees
to keep the legs centered, sees the plane of the legs in perspective (see `_projection`). This
changes the angle between a line of the leg and one of the heel by at most 0.6 degrees, usually by
0.1. A roll rotates both equally.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthetic import legs, scene
from synthetic.boxes import Box
from synthetic.canvas import Field, Mask, View, generator
from synthetic.legs import ANKLE, LEFT, RIGHT, Subject

DRAWN_SIDE = (
    380,
    520,
)  # pixels, long side of the drawn canvas: the sharpness, not the size, of a photo
# (width, height), mostly ratios of cameras and phones.
ASPECT_RATIOS = (
    *((3, 4),) * 5, *((4, 3),) * 5, *((1, 1),) * 2, *((4, 5),) * 2,
    (2, 3), (3, 2), (9, 16), (16, 9),
)  # fmt: skip
MIN_HEEL_HEIGHT = (
    1 / 5.8
)  # of the photo's height; above the guaranteed sixth, because a roll reduces it
MAX_ROLL = 3.0  # degrees, camera roll
PITCH_SD, MAX_PITCH = 3.0, 8.0  # degrees, camera pitch


@dataclass(frozen=True)
class Photograph:
    """(H, W, 3) upright pixels, and the half-open box of each heel in them."""

    pixels: npt.NDArray[np.uint8]
    heel_left: Box
    heel_right: Box


@dataclass(frozen=True)
class Capture:
    """Subject, room and stance of one photo; `seed_name` and `room` name random streams."""

    seed_name: str
    room: str  # may be a studio if the name starts with `web`
    number: int  # of the photo
    left: float  # degrees, pronation (a heel turned out) positive
    right: float
    side: int  # pixels, longer side of the photo


def photograph(seed: int, capture: Capture) -> Photograph:
    """Return one photo."""
    subject = legs.random_subject(
        generator(seed, capture.seed_name, "build"),
        legs.random_outfit(generator(seed, capture.seed_name, "outfit")),
    )
    light = scene.random_light(generator(seed, capture.seed_name, "light"))
    room_rng = generator(seed, capture.room, "room")
    studio = capture.room.startswith("web") and room_rng.random() < 0.5
    room = scene.random_room(room_rng, studio=studio)
    rng = generator(seed, capture.seed_name, capture.number)
    view, frame = _compose(subject, capture.side, rng)
    position = scene.random_position(rng)
    pitch_rng = generator(seed, capture.seed_name, capture.number, "pitch")
    pitch = float(np.clip(pitch_rng.normal(0, PITCH_SD), -MAX_PITCH, MAX_PITCH))
    setting = scene.Scene(view, room, position, light, frame.stance / 2)
    canvas = scene.background(setting, rng)
    heels = np.zeros(canvas.shape[:2], np.uint8)
    # The leg painted last is in front where legs overlap.
    sides = [(LEFT, capture.left), (RIGHT, capture.right)]
    for side, angle in sides if rng.random() < 0.5 else sides[::-1]:
        leg = legs.place_leg(
            view, subject, frame.stance, frame.sway, side=side, angle=angle, rng=rng
        )
        mask = legs.paint_leg(canvas, leg, subject, light, rng)
        heels[:, leg.columns][mask] = 1 if side == LEFT else 2
    projection = _projection(view, frame, pitch, position.distance)
    return _expose(canvas, heels, projection, frame, rng)


@dataclass(frozen=True)
class Frame:
    """The part of the canvas in the photo."""

    width: int  # pixels, of the photo
    height: int
    tall: float  # cm, height of the photo
    roll: float  # degrees, counterclockwise; tilts leg and heel equally
    stance: float  # cm between the heels
    sway: float  # degrees, tilt of both legs when the weight is on one


def _compose(subject: Subject, long_side: int, rng: np.random.Generator) -> tuple[View, Frame]:
    """Choose aspect, distance and stance so that both legs are in view and the heels are large."""
    across, down = ASPECT_RATIOS[rng.integers(len(ASPECT_RATIOS))]
    aspect = across / down
    heel = ANKLE * subject.size
    # A shod heel that leans out by 20 degrees reaches 6.5 cm beyond the middle of its leg, and
    # the largest pitch adds 0.25 cm.
    room_beside = 13.0 * subject.size
    stance = min(rng.uniform(10.0, 13.5), aspect * heel / MIN_HEEL_HEIGHT - room_beside)
    tall = max(heel / rng.uniform(0.27, 0.38), (stance + room_beside) / aspect)
    width = long_side if aspect >= 1 else round(long_side * aspect)
    height = long_side if aspect <= 1 else round(long_side / aspect)
    roll = float(np.clip(rng.normal(0, 1.2), -MAX_ROLL, MAX_ROLL))
    frame = Frame(width, height, tall, roll, stance, rng.normal(0, 0.7))
    # Margin of the canvas for what a rolled and pitched camera sees outside the upright frame.
    margin = 0.05 * max(tall, tall * aspect)
    bottom = -rng.uniform(0.09, 0.17) * tall - margin
    wide = tall * aspect
    aside = rng.uniform(-0.5, 0.5) * max(0.0, wide - stance - room_beside) * 0.6
    density = min(long_side, rng.uniform(*DRAWN_SIDE)) / max(tall, wide)
    view = View(aside - wide / 2 - margin, bottom, wide + 2 * margin, tall + 2 * margin, density)
    return view, frame


def _projection(view: View, frame: Frame, pitch: float, distance: float) -> Field:
    """Return the (3, 3) projective map from pixels of the photo to pixels of the canvas.

    A camera at `distance` cm that is higher by distance * sin(pitch) and pitched down by `pitch`
    degrees (lower and pitched up if negative) still points at the center. A point x cm to the right
    of it and y cm below it in the plane of the legs is then distance + y sin(pitch) away. The point
    appears at x / w and y cos(pitch) / w, with w = 1 + y sin(pitch) / distance. For half a photo
    height of 15 cm at 150 cm and 8 degrees, the upper edge is 1.4% larger and the lower edge 1.4%
    smaller.
    The result is the inverse of this map, composed with the roll.
    """
    cos, sin = math.cos(math.radians(frame.roll)), math.sin(math.radians(frame.roll))
    level, slope = math.cos(math.radians(pitch)), math.sin(math.radians(pitch)) / distance
    to_middle = np.array(((1, 0, -frame.width / 2), (0, 1, -frame.height / 2), (0, 0, 1)))
    to_cm = np.diag((frame.tall / frame.height, frame.tall / frame.height, 1.0))
    rolled = np.array(((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)))
    keystone = np.array(((level, 0, 0), (0, 1, 0), (0, -slope, level)))
    rows, columns = view.heights.size, view.places.size
    to_canvas = np.array(((view.density, 0, columns / 2), (0, view.density, rows / 2), (0, 0, 1.0)))
    projection = to_canvas @ keystone @ rolled @ to_cm @ to_middle
    return np.asarray(projection / projection[2, 2])


def _expose(
    canvas: Field,
    heels: npt.NDArray[np.uint8],
    projection: Field,
    frame: Frame,
    rng: np.random.Generator,
) -> Photograph:
    """Expose the photo: vignetting, exposure, white balance, projection, size and noise."""
    rows, columns = heels.shape
    radius2 = ((np.arange(rows)[:, None] / rows - 0.5) ** 2) + (
        (np.arange(columns)[None] / columns - 0.5) ** 2
    )
    canvas *= (1 - rng.uniform(0, 0.5) * radius2)[..., None]
    gains = rng.uniform(0.8, 1.35) * np.array((rng.uniform(0.92, 1.1), 1.0, rng.uniform(0.88, 1.1)))
    # sRGB transfer curve (IEC 61966-2-1) as a table; 4,096 steps are more than 8 bits need.
    steps = np.arange(4096) / 4095
    curve = np.where(steps <= 0.0031308, 12.92 * steps, 1.055 * steps ** (1 / 2.4) - 0.055)
    table = np.round(curve * 255).astype(np.uint8)
    pixels = table[np.clip(canvas * gains * 4095, 0, 4095).astype(np.int64)]

    size, method = (frame.width, frame.height), Image.Transform.PERSPECTIVE
    coefficients = tuple(map(float, projection.ravel()[:8]))
    photo = Image.fromarray(pixels).transform(size, method, coefficients, Image.Resampling.BICUBIC)
    marks = np.asarray(
        Image.fromarray(heels).transform(size, method, coefficients, Image.Resampling.NEAREST)
    )
    grain = rng.integers(0, 256, (2, frame.height, frame.width, 1), dtype=np.uint8)
    # The sum of two uniform bytes has an sd of 104; it is scaled to 1 to 4 gray levels.
    centered = grain[0].astype(np.int16) + grain[1] - 255
    noise = centered * np.int16(rng.integers(10, 40)) // 1024
    noisy = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    return Photograph(noisy, _box(marks == 1), _box(marks == 2))


def _box(mask: Mask) -> Box:
    """Return the half-open bounding box of a mask."""
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
