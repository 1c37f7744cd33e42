"""A photo of a person in a room: where the camera stands, what it sees, and the file it leaves.

The picture is computed in 64-bit floats and rounded to 8 bits once, so that the last digits, in
which processors differ, do not reach the photo.

The room is drawn as from a camera that is held level. One that is held higher or lower and pitched
by a few degrees, so that the legs stay in the middle, sees the plane in which they stand askew: see
`_lens`. That moves the angle between a line of the leg and one of the heel by 0.6 degrees at most,
and by 0.1 usually, while a roll turns both alike.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthetic import legs, scene
from synthetic.boxes import Box
from synthetic.canvas import Field, Mask, View, generator
from synthetic.legs import ANKLE, LEFT, RIGHT, Person

DETAIL = (380, 520)  # pixels of the long side that are drawn: a camera's sharpness, not its size
# Width to height: cameras' and telephones' shapes most of all.
SHAPES = (
    *((3, 4),) * 5, *((4, 3),) * 5, *((1, 1),) * 2, *((4, 5),) * 2,
    (2, 3), (3, 2), (9, 16), (16, 9),
)  # fmt: skip
LEAST_HEEL = 1 / 5.8  # of the photo's height; a sixth is promised, and a roll takes a little
STEEPEST = 3.0  # degrees of the camera's roll
PITCH, MOST_PITCH = 3.0, 8.0  # degrees of the camera's pitch: sd, and the largest


@dataclass(frozen=True)
class Photograph:
    """(H, W, 3) upright pixels as the camera saw them, and each heel's half-open box in them."""

    pixels: npt.NDArray[np.uint8]
    heel_left: Box
    heel_right: Box


@dataclass(frozen=True)
class Sitting:
    """Who is photographed where, and how they stand; names are those of random numbers."""

    who: str
    room: str  # one whose name begins with `web` may be a studio
    number: int  # of the shot
    left: float  # degrees, pronation (a heel turned out) positive
    right: float
    side: int  # pixels of the photo's longer side


def photograph(seed: int, sitting: Sitting) -> Photograph:
    """Return one photo."""
    build = legs.person(
        generator(seed, sitting.who, "build"), legs.outfit(generator(seed, sitting.who, "outfit"))
    )
    lit = scene.light(generator(seed, sitting.who, "light"))
    furnished = generator(seed, sitting.room, "room")
    studio = sitting.room.startswith("web") and furnished.random() < 0.5
    where = scene.room(furnished, studio=studio)
    rng = generator(seed, sitting.who, sitting.number)
    view, frame = _compose(build, sitting.side, rng)
    at = scene.place(rng)
    of_pitch = generator(seed, sitting.who, sitting.number, "pitch")
    pitch = float(np.clip(of_pitch.normal(0, PITCH), -MOST_PITCH, MOST_PITCH))
    setting = scene.Scene(view, where, at, lit, frame.stance / 2)
    canvas = scene.background(setting, rng)
    heels = np.zeros(canvas.shape[:2], np.uint8)
    # Where legs overlap, either may be the nearer one.
    both = [(LEFT, sitting.left), (RIGHT, sitting.right)]
    for side, angle in both if rng.random() < 0.5 else both[::-1]:
        leg = legs.stand(view, build, frame.stance, frame.sway, side=side, angle=angle, rng=rng)
        mask = legs.paint_leg(canvas, leg, build, lit, rng)
        heels[:, leg.columns][mask] = 1 if side == LEFT else 2
    lens = _lens(view, frame, pitch, at.distance)
    return _expose(canvas, heels, lens, frame, rng)


@dataclass(frozen=True)
class Frame:
    """What the camera takes of the canvas."""

    width: int  # pixels of the photo
    height: int
    tall: float  # cm of the photo's height
    roll: float  # degrees, anticlockwise; it tilts leg and heel alike
    stance: float  # cm from heel to heel
    sway: float  # degrees: the weight on one leg tilts both


def _compose(build: Person, long_side: int, rng: np.random.Generator) -> tuple[View, Frame]:
    """Choose shape, distance and stance so that both legs are in and the heels are large."""
    across, down = SHAPES[rng.integers(len(SHAPES))]
    aspect = across / down
    heel = ANKLE * build.size
    # A shod heel that leans out by 20 degrees reaches 6.5 cm beyond the middle of its leg, and the
    # steepest pitch adds a quarter of a cm.
    room_beside = 13.0 * build.size
    stance = min(rng.uniform(10.0, 13.5), aspect * heel / LEAST_HEEL - room_beside)
    tall = max(heel / rng.uniform(0.27, 0.38), (stance + room_beside) / aspect)
    width = long_side if aspect >= 1 else round(long_side * aspect)
    height = long_side if aspect <= 1 else round(long_side / aspect)
    roll = float(np.clip(rng.normal(0, 1.2), -STEEPEST, STEEPEST))
    frame = Frame(width, height, tall, roll, stance, rng.normal(0, 0.7))
    # The canvas is larger by what a rolled and pitched camera sees beyond the upright frame.
    margin = 0.05 * max(tall, tall * aspect)
    bottom = -rng.uniform(0.09, 0.17) * tall - margin
    wide = tall * aspect
    aside = rng.uniform(-0.5, 0.5) * max(0.0, wide - stance - room_beside) * 0.6
    density = min(long_side, rng.uniform(*DETAIL)) / max(tall, wide)
    view = View(aside - wide / 2 - margin, bottom, wide + 2 * margin, tall + 2 * margin, density)
    return view, frame


def _lens(view: View, frame: Frame, pitch: float, distance: float) -> Field:
    """Return the (3, 3) projective map of a photo's pixels to the canvas's.

    A camera at `distance` cm, held higher by distance * sin(pitch) and pitched down by `pitch`
    degrees (both the other way below 0), still looks at the middle. A point x cm to the right of it
    and y below it in the plane of the legs then lies distance + y sin(pitch) away and is seen at
    x / w and y cos(pitch) / w, with w = 1 + y sin(pitch) / distance. Half a photo's height of 15 cm
    from 150 cm at 8 degrees: the upper edge 1.4 % larger, the lower one 1.4 % smaller. This is the
    way back, behind the roll.
    """
    cos, sin = math.cos(math.radians(frame.roll)), math.sin(math.radians(frame.roll))
    level, slope = math.cos(math.radians(pitch)), math.sin(math.radians(pitch)) / distance
    to_middle = np.array(((1, 0, -frame.width / 2), (0, 1, -frame.height / 2), (0, 0, 1)))
    to_cm = np.diag((frame.tall / frame.height, frame.tall / frame.height, 1.0))
    rolled = np.array(((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)))
    keystone = np.array(((level, 0, 0), (0, 1, 0), (0, -slope, level)))
    rows, columns = view.heights.size, view.places.size
    to_canvas = np.array(((view.density, 0, columns / 2), (0, view.density, rows / 2), (0, 0, 1.0)))
    lens = to_canvas @ keystone @ rolled @ to_cm @ to_middle
    return np.asarray(lens / lens[2, 2])


def _expose(
    canvas: Field, heels: npt.NDArray[np.uint8], lens: Field, frame: Frame, rng: np.random.Generator
) -> Photograph:
    """Take the photo through a (3, 3) lens: exposure, white balance, roll, pitch, size, noise."""
    rows, columns = heels.shape
    radius2 = ((np.arange(rows)[:, None] / rows - 0.5) ** 2) + (
        (np.arange(columns)[None] / columns - 0.5) ** 2
    )
    canvas *= (1 - rng.uniform(0, 0.5) * radius2)[..., None]
    gains = rng.uniform(0.8, 1.35) * np.array((rng.uniform(0.92, 1.1), 1.0, rng.uniform(0.88, 1.1)))
    # sRGB's transfer curve (IEC 61966-2-1) from a table: 4,096 steps are finer than 8 bits need.
    steps = np.arange(4096) / 4095
    curve = np.where(steps <= 0.0031308, 12.92 * steps, 1.055 * steps ** (1 / 2.4) - 0.055)
    table = np.round(curve * 255).astype(np.uint8)
    pixels = table[np.clip(canvas * gains * 4095, 0, 4095).astype(np.int64)]

    size, method = (frame.width, frame.height), Image.Transform.PERSPECTIVE
    way = tuple(map(float, lens.ravel()[:8]))
    photo = Image.fromarray(pixels).transform(size, method, way, Image.Resampling.BICUBIC)
    marks = np.asarray(
        Image.fromarray(heels).transform(size, method, way, Image.Resampling.NEAREST)
    )
    grain = rng.integers(0, 256, (2, frame.height, frame.width, 1), dtype=np.uint8)
    # Two bytes added make a bell of sd 104; shifted down to an sd of 1 to 4 grey levels.
    bell = grain[0].astype(np.int16) + grain[1] - 255
    noise = bell * np.int16(rng.integers(10, 40)) // 1024
    noisy = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    return Photograph(noisy, _box(marks == 1), _box(marks == 2))


def _box(mask: Mask) -> Box:
    """Return left, top, right, bottom of a mask's true part, half open."""
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
