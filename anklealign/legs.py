"""The picture of one pair of lower legs from behind, drawn from two rearfoot angles.

A leg is a height field: for each point of the picture, how far the skin stands out towards the
camera, in centimetres. It is put together from the calf and ankle, which follow the line of the
leg, the heel, which hangs below the ankle and is tilted against that line by the rearfoot angle,
and the foot in front of it. The Achilles tendon runs along both and bends where they meet, as in
Helbing's sign. Slopes of the field give the shading, its hollows the soft shadows.

Each leg's angle also turns its forefoot and shapes the inner side of its ankle. All the rest is
drawn at random and knows nothing of the angles: build, skin, shoes, stance, room, light, camera.
The picture is computed in 64-bit floats and rounded to 8 bits once, so that the last digits, in
which processors differ, do not reach the photo.

Lengths are in cm on the leg, heights `h` above the floor at the heel, `u` to the side from the
ankle's centre, positive away from the other leg (lateral). Fields are (R, C) arrays, rows from the
top; a column of heights is (R, 1), a row of places (1, C).
"""

import hashlib
import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

Field = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]
Colour = tuple[float, float, float]  # linear light

ANKLE = 7.5  # cm above the floor: below it a heel tilts, and so high a heel box reaches
TALLEST = 44.0  # cm, the hollow of the knee; no picture shows more
DETAIL = (380, 520)  # pixels of the long side that are drawn: a camera's sharpness, not its size
LEFT, RIGHT = -1, 1  # the side on which a leg stands in the picture, and its lateral direction

# Half widths of calf and ankle in cm from the leg's line, by height above the floor. The medial
# head of the calf muscle is the larger and reaches lower; the lateral malleolus lies lower and
# further back than the medial one.
HEIGHTS = (0.0, 2.5, 4.5, 6.2, 7.4, 8.6, 10.0, 12.0, 14.5, 18.0, 22.0, 26.0, 30.0, 34.0, 38.0, 44.0)
MEDIAL = (2.9, 2.9, 2.9, 3.05, 3.35, 3.55, 3.2, 2.85, 2.9, 3.5, 4.5, 5.4, 5.9, 5.8, 5.4, 5.1)
LATERAL = (2.9, 2.9, 3.0, 3.35, 3.5, 3.2, 2.95, 2.8, 2.85, 3.3, 4.0, 4.7, 5.1, 5.1, 4.9, 4.9)
# How far leg and heel stand out: the calf is thick, the ankle thin and its back a narrow ridge.
DEPTH = (2.4, 2.4, 2.6, 3.0, 3.2, 3.3, 3.3, 3.4, 3.6, 4.2, 5.0, 5.6, 5.9, 5.9, 5.6, 5.6)
HEEL_HEIGHTS = (0.0, 0.35, 0.9, 1.8, 3.0, 4.2, 5.4, 6.6, 8.0, 9.5)
HEEL_WIDTH = (2.25, 2.65, 2.9, 3.0, 2.92, 2.7, 2.35, 1.95, 1.5, 1.2)
HEEL_DEPTH = (3.0, 3.9, 4.6, 5.1, 5.2, 4.9, 4.4, 3.9, 3.4, 2.6)
SHOE_HEIGHTS = (0.0, 0.25, 0.7, 2.2, 2.6, 4.0, 5.5, 6.8, 7.6, 8.6)
SHOE_WIDTH = (3.35, 3.65, 3.8, 3.7, 3.5, 3.5, 3.45, 3.5, 3.6, 3.5)
SHOE_DEPTH = (4.4, 4.8, 5.0, 5.0, 4.9, 5.5, 5.6, 5.3, 5.1, 5.0)
SOLE, COLLAR = 2.4, 7.2  # cm: the sole's upper edge, the shoe's rim beside the heel tab

# Skin in linear light, light to dark: plausible reflectances in red, green and blue.
SKIN = (
    (0.66, 0.43, 0.33),
    (0.60, 0.37, 0.26),
    (0.50, 0.29, 0.19),
    (0.38, 0.205, 0.125),
    (0.24, 0.125, 0.075),
    (0.125, 0.065, 0.042),
)
WALLS = ((0.62, 0.60, 0.55), (0.50, 0.53, 0.56), (0.56, 0.47, 0.35), (0.30, 0.36, 0.38),
         (0.42, 0.47, 0.36), (0.70, 0.69, 0.68), (0.33, 0.27, 0.24))  # fmt: skip
FLOORS = ((0.36, 0.25, 0.15), (0.20, 0.12, 0.07), (0.45, 0.43, 0.40), (0.24, 0.25, 0.27),
          (0.55, 0.50, 0.42), (0.28, 0.20, 0.17), (0.12, 0.13, 0.15))  # fmt: skip
SHOES = ((0.75, 0.75, 0.74), (0.035, 0.035, 0.04), (0.07, 0.12, 0.28), (0.42, 0.05, 0.06),
         (0.22, 0.23, 0.25), (0.30, 0.17, 0.09), (0.10, 0.26, 0.20))  # fmt: skip
SHAPES = ((3, 4), (4, 5), (1, 1), (5, 4), (4, 3))  # width to height


def generator(*names: str | int) -> np.random.Generator:
    """Return the random numbers that belong to these names, whatever else is drawn."""
    text = "/".join(str(name) for name in names)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16]))


@dataclass(frozen=True)
class Person:
    """What stays the same from one photo of a person to the next; factors are about 1."""

    skin: Colour
    calf: float
    ankle: float
    heel: float
    size: float  # times the lengths of an average adult
    bow: float  # degrees by which the knees lie further out than the ankles
    tendon: float
    malleoli: float
    blotches: float
    hair: float


def person(rng: np.random.Generator) -> Person:
    """Return a random person."""
    tone = rng.uniform(0, len(SKIN) - 1)
    low = min(int(tone), len(SKIN) - 2)
    mix = tone - low
    red, green, blue = (
        (1 - mix) * a + mix * b for a, b in zip(SKIN[low], SKIN[low + 1], strict=True)
    )
    warmth = rng.uniform(0.94, 1.06)
    return Person(
        skin=(red * warmth, green, blue / warmth),
        calf=rng.uniform(0.82, 1.12),
        ankle=rng.uniform(0.92, 1.1),
        heel=rng.uniform(0.93, 1.08),
        size=rng.uniform(0.9, 1.1),
        bow=rng.normal(3.0, 1.2),
        tendon=rng.uniform(0.6, 1.3),
        malleoli=rng.uniform(0.6, 1.4),
        blotches=rng.uniform(0.3, 1.0),
        hair=max(0.0, rng.uniform(-1.0, 1.0)),
    )


@dataclass(frozen=True)
class Room:
    """Wall, floor and the light between them, and what is on the feet."""

    wall: Colour
    floor: Colour
    skirting: bool
    light: tuple[float, float, float]  # where it comes from: right, up, towards the camera
    ambient: float
    shoe: Colour | None
    sole: Colour


def room(rng: np.random.Generator) -> Room:
    """Return a random room."""

    def paint(paints: tuple[Colour, ...]) -> Colour:
        red, green, blue = paints[rng.integers(len(paints))]
        bright = rng.uniform(0.75, 1.2)
        return red * bright, green * bright, blue * bright

    across, up = rng.uniform(-0.9, 0.9), rng.uniform(0.15, 1.0)
    length = math.sqrt(across**2 + up**2 + 1)
    return Room(
        wall=paint(WALLS),
        floor=paint(FLOORS),
        skirting=bool(rng.random() < 0.5),
        light=(across / length, up / length, 1 / length),
        ambient=rng.uniform(0.3, 0.55),
        shoe=paint(SHOES) if rng.random() < 0.25 else None,
        sole=paint(SHOES[:1] * 2 + SHOES[1:2] + SHOES[5:6]),
    )


@dataclass(frozen=True)
class View:
    """The canvas in cm and in pixels."""

    left: float
    bottom: float
    width: float
    height: float
    density: float  # pixels a cm

    @property
    def places(self) -> Field:
        """(1, C) cm to the right of the middle between the heels."""
        columns = np.arange(round(self.width * self.density), dtype=np.float64)
        return self.left + (columns[None] + 0.5) / self.density

    @property
    def heights(self) -> Field:
        """(R, 1) cm above the floor at the heels."""
        rows = np.arange(round(self.height * self.density), dtype=np.float64)
        return self.bottom + self.height - (rows[:, None] + 0.5) / self.density


@dataclass(frozen=True)
class Photograph:
    """A JPEG file's bytes, its size, and each heel's half-open box in its pixels."""

    jpeg: bytes
    width: int
    height: int
    heel_left: Box
    heel_right: Box


def photograph(seed: int, who: str, shot: int, angle_left: float, angle_right: float) -> Photograph:
    """Return one photo of a person; angles in degrees, pronation (a heel turned out) positive."""
    build = person(generator(seed, who, "build"))
    where = room(generator(seed, who, "room"))
    rng = generator(seed, who, shot)
    view, frame = _compose(build, rng)
    canvas = _background(view, where, frame.stance / 2, rng)
    heels = np.zeros(canvas.shape[:2], np.uint8)
    # Where legs overlap, either may be the nearer one.
    both = [(LEFT, angle_left), (RIGHT, angle_right)]
    for side, angle in both if rng.random() < 0.5 else both[::-1]:
        leg = _stand(view, build, frame, side=side, angle=angle, rng=rng)
        mask = _paint_leg(canvas, leg, build, where, rng)
        heels[:, leg.columns][mask] = 1 if side == LEFT else 2
    return _expose(canvas, heels, view, frame, rng)


@dataclass(frozen=True)
class Frame:
    """What the camera takes of the canvas."""

    width: int  # pixels of the photo
    height: int
    tall: float  # cm of the photo's height
    roll: float  # degrees, anticlockwise
    stance: float  # cm from heel to heel
    sway: float  # degrees: the weight on one leg tilts both


def _compose(build: Person, rng: np.random.Generator) -> tuple[View, Frame]:
    """Choose shape, distance and stance so that both legs are in and the heels are large."""
    across, down = SHAPES[rng.integers(len(SHAPES))]
    aspect = across / down
    heel = ANKLE * build.size
    # A shod heel that leans out by 20 degrees reaches 6.5 cm beyond the middle of its leg.
    room_beside = 13.5 * build.size
    stance = rng.uniform(10.5, 14.5)
    tall = max(heel / rng.uniform(0.25, 0.36), (stance + room_beside) / aspect)
    long_side = int(rng.integers(500, 1101))
    width = long_side if aspect >= 1 else round(long_side * aspect)
    height = long_side if aspect <= 1 else round(long_side / aspect)
    frame = Frame(width, height, tall, rng.normal(0, 0.6), stance, rng.normal(0, 0.7))
    # The canvas is larger by what a rolled camera sees beyond the upright frame.
    margin = 0.05 * max(tall, tall * aspect)
    bottom = -rng.uniform(0.07, 0.16) * tall - margin
    wide = tall * aspect
    aside = rng.uniform(-0.5, 0.5) * max(0.0, wide - stance - room_beside) * 0.6
    density = min(long_side, rng.uniform(*DETAIL)) / max(tall, wide)
    view = View(aside - wide / 2 - margin, bottom, wide + 2 * margin, tall + 2 * margin, density)
    return view, frame


def _clouds(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> Field:
    """Return an (R, C) field of soft noise, -1 to 1, with hills about `cell` pixels apart."""
    rows, columns = (max(2, round(side / cell) + 1) for side in shape)
    small = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    large = small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(large) / 127.5 - 1


def _background(view: View, where: Room, spread: float, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) linear light of wall and floor with the legs' shadows."""
    x, h = view.places, view.heights
    shape = (h.size, x.size)
    edge = rng.uniform(5, 20)  # cm in the picture from the heels up to where the wall begins
    light = 0.75 + 0.25 * rng.uniform(-1, 1) * (x - x.mean()) / view.width
    wall = light * (1 + 0.012 * (h - edge)) * (1 + 0.03 * _clouds(shape, 90, rng))
    wall *= 1 + 0.02 * _clouds(shape, 2.5, rng)
    # The floor darkens towards the wall and shows streaks that lie flat.
    floor = light * (1.05 - 0.02 * h) * (1 + 0.05 * _clouds(shape, 60, rng))
    streaks = _clouds((shape[0], max(2, shape[1] // 14)), 2.5, rng)
    floor *= 1 + 0.06 * np.repeat(streaks, 15, axis=1)[:, : shape[1]]
    across, up, _ = where.light
    for side in (LEFT, RIGHT):
        # A shadow falls away from the light, longer the lower the light stands.
        centre = side * spread - across * (2.0 + 0.9 * np.maximum(h, 0) / (0.3 + up))
        wide = 3.6 + 0.12 * np.maximum(h, 0)
        floor *= 1 - 0.35 * np.exp(-(((x - centre) / wide) ** 2) - (np.minimum(h, 0) / 1.2) ** 2)
        near = ((x - side * spread - side * 1.2) / 5.0) ** 2 + ((h - 1.2) / 2.4) ** 2
        touch = ((x - side * spread) / 3.6) ** 2 + (h / 0.8) ** 2
        floor *= (1 - 0.5 * np.exp(-near)) * (1 - 0.6 * np.exp(-touch))
        far = side * spread - across * 9.0
        wall *= 1 - 0.14 * np.exp(-(((x - far) / 6.0) ** 2))
    is_wall = np.clip((h - edge) * view.density + 0.5, 0, 1)
    foot_of_wall = 1 - 0.35 * np.exp(-np.abs(h - edge) / 0.8)
    canvas: Field = (
        is_wall[..., None] * wall[..., None] * np.array(where.wall)
        + (1 - is_wall)[..., None] * floor[..., None] * np.array(where.floor)
    ) * foot_of_wall[..., None]
    if where.skirting:
        board = np.clip((h - edge) * view.density, 0, 1) * np.clip(
            (edge + 4.5 - h) * view.density, 0, 1
        )
        lit = (light * (0.85 + 0.15 * np.exp(-(((h - edge - 4.3) / 0.4) ** 2))))[..., None]
        canvas += board[..., None] * (lit * np.array((0.62, 0.6, 0.56)) - canvas)
    return canvas


def _curve(heights: tuple[float, ...], values: tuple[float, ...], h: Field) -> Field:
    """Return the smooth, never overshooting curve through the values, at heights of any shape."""
    inside = np.clip(h, heights[0], heights[-1])
    return np.asarray(PchipInterpolator(heights, values)(inside))


def _rise(h: Field, low: float, high: float) -> Field:
    """Return the smooth step from 0 at and below `low` to 1 at and above `high`."""
    part = np.clip((h - low) / (high - low), 0, 1)
    return part * part * (3 - 2 * part)


def _bump(distance: Field, width: float) -> Field:
    """Return a bell curve of height 1."""
    return np.exp(-((distance / width) ** 2))


def _union(a: Field, b: Field, blend: float) -> Field:
    """Return the larger of two height fields, their seam smoothed over `blend` cm."""
    difference = a - b
    return 0.5 * (a + b + np.sqrt(difference**2 + blend**2))


@dataclass(frozen=True)
class Leg:
    """Where one leg stands: its coordinates in the canvas and the lines that it follows."""

    columns: slice  # of the canvas
    u: Field  # (1, C)
    h: Field  # (R, 1)
    px: float  # pixels a cm
    tendon: Field  # (R, 1) place of the Achilles tendon: the leg's line, bending into the heel's
    foot: Field  # (R, 1) middle of calf, ankle and foot; below the ankle they follow most of it
    heel: Field  # (R, 1) place of the heel's middle
    out: float  # cm that the foot goes outwards for each cm ahead
    bulge: float  # cm by which the inner side below the ankle stands out


def _stand(
    view: View, build: Person, frame: Frame, *, side: int, angle: float, rng: np.random.Generator
) -> Leg:
    """Return one leg; angle in degrees, pronation positive."""
    tilt = build.bow + rng.normal(0, 0.6) + side * frame.sway
    shift = side * frame.stance / 2 + rng.normal(0, 0.25)
    outward = side * (view.places - shift) / build.size
    columns = np.flatnonzero((outward[0] > -9.0) & (outward[0] < 10.0))
    inside = slice(int(columns[0]), int(columns[-1]) + 1)
    h = (view.heights - rng.normal(0, 0.25)) / build.size  # one foot a little ahead of the other
    bend = np.sqrt((h - ANKLE) ** 2 + 1.0)
    leg_line = math.tan(math.radians(tilt)) * (h - ANKLE + bend) / 2
    heel_line = math.tan(math.radians(angle - tilt)) * (ANKLE - h + bend) / 2
    return Leg(
        columns=inside,
        u=outward[:, inside],
        h=h,
        px=view.density * build.size,
        tendon=leg_line + heel_line,
        foot=leg_line + 0.8 * heel_line,
        heel=math.tan(math.radians(angle - tilt)) * (ANKLE - h),
        # Pronation is one movement in three planes: the heel turns out, the forefoot with it ("too
        # many toes", Johnson and Strom 1989), and the inner side bulges (Foot Posture Index).
        out=math.sin(math.radians(rng.uniform(3, 13) + 0.7 * (angle - 5))) + 0.085,
        bulge=0.05 * (angle - 5),
    )


def _paint_leg(
    canvas: Field, leg: Leg, build: Person, where: Room, rng: np.random.Generator
) -> Mask:
    """Paint one leg into the (R, C, 3) canvas; return the heel's (R, C) mask in its columns."""
    body, body_cover = _calf(leg, build, shod=where.shoe is not None)
    heel, heel_cover = _heel(leg, build, shod=where.shoe is not None)
    foot, foot_cover = _foot(leg, shod=where.shoe is not None)
    joined = _union(body, heel, 0.7 if where.shoe is None else 0.25)
    light = _shade(np.maximum(joined, foot), leg, where)
    paint = _skin(leg, build, (body.shape[0], body.shape[1]), rng)
    if where.shoe is None:
        # Heels are paler and redder than legs, most of all where the pad meets the floor.
        pad = heel_cover * np.clip((heel - body) * 4 + 0.5, 0, 1) * np.clip(1 - leg.h / 5.5, 0, 1)
        paint *= 1 + pad[..., None] * np.array((0.20, 0.04, 0.02))
    else:
        ahead = (foot_cover * (1 - body_cover))[..., None]
        paint += ahead * (0.9 * np.array(where.shoe) - paint)
        paint += heel_cover[..., None] * (_counter(leg, where.shoe, where.sole) - paint)
    area = canvas[:, leg.columns]
    cover = np.maximum(np.maximum(body_cover, heel_cover), foot_cover)
    area += cover[..., None] * (paint * light - area)
    mask: Mask = (heel_cover > 0.5) & (leg.h <= ANKLE)
    return mask


def _calf(leg: Leg, build: Person, *, shod: bool) -> tuple[Field, Field]:
    """Return height field and cover of calf, ankle and the foot's sides."""
    h = leg.h
    thick = _rise(h, 10, 24)  # 1 in the calf, 0 at the ankle
    width = build.ankle + (build.calf - build.ankle) * thick
    medial, lateral = (_curve(HEIGHTS, side, h) * width for side in (MEDIAL, LATERAL))
    medial = medial + leg.bulge * _bump(h - 5.5, 2.0)
    off, beside = leg.u - leg.foot, leg.u - leg.tendon
    half = np.where(off < 0, medial, lateral)
    # An ellipse in the calf; towards the ankle the sides fall away from the ridge of the tendon.
    ellipse = np.sqrt(1 - np.minimum(np.abs(off) / half, 1) ** 2)
    field = _curve(HEIGHTS, DEPTH, h) * (0.62 + 0.38 * thick) * ellipse
    ridge = 0.5 * (1 + np.cos(np.pi * np.minimum(np.abs(beside) / (0.9 * half), 1)))
    hollow = _rise(h, 1, 9) * (1 - _rise(h, 10, 20)) * _bump(np.abs(beside) - 1.75, 0.75)
    field += (1 - thick) * (0.9 * ridge - 0.5 * build.tendon * hollow)
    # The tendon is narrowest some 4 cm above the heel bone and widens into the muscle.
    cord = np.exp(-(np.abs(beside / (0.72 + 0.07 * np.abs(h - 10.5))) ** 3))
    field += 0.75 * build.tendon * _rise(h, 3.5, 8) * (1 - _rise(h, 12, 23)) * cord
    # Malleoli, and the two heads of the calf muscle with the groove between them.
    field += 1.1 * build.malleoli * _bump(off + 0.86 * medial, 0.85) * _bump(h - 8.6, 1.25)
    field += 1.1 * build.malleoli * _bump(off - 0.86 * lateral, 0.8) * _bump(h - 7.2, 1.25)
    field += 0.75 * build.calf * _bump(off + 2.4, 2.0) * _bump(h - 27.5, 5.0)
    field += 0.65 * build.calf * _bump(off - 2.3, 1.9) * _bump(h - 29.5, 5.0)
    field -= 0.35 * _bump(off, 0.8) * _bump(h - 31, 7.5)
    # Out of sight under the heel's pad, or inside the shoe.
    lowest = COLLAR - 0.6 if shod else 1.6
    cover = np.clip((half - np.abs(off)) * leg.px + 0.5, 0, 1)
    cover = cover * np.clip((h - lowest) * leg.px / 8, 0, 1)
    return np.where(cover > 0, field, -3.0), cover


def _heel(leg: Leg, build: Person, *, shod: bool) -> tuple[Field, Field]:
    """Return height field and cover of the heel, or of the shoe's counter and sole."""
    h, middle = leg.h, leg.heel
    if shod:
        # The sole stays flat on the floor below the tilted counter.
        flat = int(np.argmin(np.abs(h - SOLE)))
        middle = np.where(h < SOLE, middle[flat], middle)
        half, depth = _curve(SHOE_HEIGHTS, SHOE_WIDTH, h), _curve(SHOE_HEIGHTS, SHOE_DEPTH, h)
        top = COLLAR + 0.9 * _bump(leg.u - middle, 1.2)  # with a tab to pull it on
    else:
        half, depth = _curve(HEEL_HEIGHTS, HEEL_WIDTH, h), _curve(HEEL_HEIGHTS, HEEL_DEPTH, h)
        depth = depth - 5 * _rise(h, 6.0, 9.5)  # it sinks into the tendon
        top = np.full_like(leg.u, HEEL_HEIGHTS[-1])
    half = half * build.heel
    aside = np.abs(leg.u - middle)
    field = depth * np.sqrt(1 - np.minimum(aside / half, 1) ** 2)
    cover = np.clip((half - aside) * leg.px + 0.5, 0, 1)
    cover = cover * np.clip(h * leg.px + 0.5, 0, 1) * np.clip((top - h) * leg.px + 0.5, 0, 1)
    return np.where(cover > 0, field, -3.0), cover


def _foot(leg: Leg, *, shod: bool) -> tuple[Field, Field]:
    """Return height field and cover of the foot in front of the heel.

    The camera stands above the floor, so what lies further ahead is seen higher up.
    """
    field = np.full((leg.h.size, leg.u.size), -9.0)
    cover = np.zeros_like(field)
    # Ahead of the heel, to the side, half height and half width, all in cm.
    if shod:
        parts = [(a, leg.out * a, 2.5 - 0.03 * a, 3.5) for a in (2.0, 4.5, 7.0, 9.5, 12.0, 14.5)]
    else:
        parts = [(a, leg.out * a, 2.1 - 0.045 * a, 2.6) for a in (3.0, 7.0, 11.0)]
        parts += [(15.0, leg.out * 15 + 0.6 - 1.35 * toe, 1.15, 0.95) for toe in range(3)]
    for ahead, sideways, tall, wide in parts:
        squared = ((leg.u - sideways) / wide) ** 2 + ((leg.h - 0.17 * ahead) / tall - 0.8) ** 2
        part = tall * np.sqrt(np.maximum(1 - squared, 0)) - 0.3 * ahead
        field = np.maximum(field, np.where(squared < 1, part, -9.0))
        cover = np.maximum(cover, np.clip((1 - np.sqrt(squared)) * tall * leg.px + 0.5, 0, 1))
    return field, cover * np.clip((leg.h - 0.3) * leg.px + 0.5, 0, 1)


def _shade(surface: Field, leg: Leg, where: Room) -> Field:
    """Return the (R, C, 3) light that a surface of (R, C) cm sends to the camera."""
    smooth = gaussian_filter(surface, 0.10 * leg.px, truncate=3)
    up, left = np.gradient(smooth, 1 / leg.px)  # of the normal; rows run downwards
    right = -left
    length = np.sqrt(right**2 + up**2 + 1)
    lamp = where.light
    diffuse = (right * lamp[0] + up * lamp[1] + lamp[2]) / length
    diffuse = np.maximum((diffuse + 0.25) / 1.25, 0)
    sky = 0.75 + 0.25 * up / length
    # Hollows see less of the room: how far the surface lies below its surroundings.
    near = surface - gaussian_filter(surface, 0.9 * leg.px, truncate=2.5)
    seen = np.clip(1 + 0.22 * near, 0.45, 1.15)
    light = (where.ambient * sky + (1.15 - where.ambient) * diffuse) * seen
    # Light that went through skin comes out red, so its shadows are warm.
    warmth = 0.12 * (1 - light) * light
    return np.stack([light + warmth, light, light - 0.5 * warmth], axis=-1)


def _skin(leg: Leg, build: Person, shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) colour of the leg's skin."""
    tone = 1 + 0.05 * build.blotches * _clouds(shape, 2.2 * leg.px, rng)
    tone += 0.035 * build.blotches * _clouds(shape, 0.5 * leg.px, rng)
    tone += 0.03 * _clouds(shape, 2.0, rng)
    flush = 0.06 * build.blotches * _clouds(shape, 3.0 * leg.px, rng)[..., None]
    strands = np.repeat(_clouds((shape[0] // 4 + 1, shape[1]), 1.6, rng), 4, axis=0)[: shape[0]]
    tone -= 0.16 * build.hair * np.clip(strands - 0.25, 0, 1) * _rise(leg.h, 12, 22)
    flushed = 1 + flush * np.array((1.0, -0.4, -0.6))
    paint: Field = tone[..., None] * np.array(build.skin) * flushed
    return paint


def _counter(leg: Leg, shoe: Colour, sole: Colour) -> Field:
    """Return the (R, C, 3) paint of a shoe from behind: sole, counter, stripe along the heel."""
    h, aside = leg.h, np.abs(leg.u - leg.heel)
    stripe = (np.clip((0.75 - aside) * leg.px + 0.5, 0, 1))[..., None]
    seams = 1 - 0.35 * _bump(aside - 0.8, 0.1) - 0.3 * _bump(h - COLLAR + 0.4, 0.12)
    upper = (np.array(shoe) + stripe * 0.5 * (np.array(sole) - np.array(shoe))) * seams[..., None]
    is_sole = np.clip((SOLE - h) * leg.px + 0.5, 0, 1)[..., None]
    grooves = 1 - 0.45 * _bump(h - SOLE, 0.13) - 0.2 * _bump(h - 0.6, 0.1)
    paint: Field = (is_sole * np.array(sole) + (1 - is_sole) * upper) * grooves[..., None]
    return paint


def _expose(
    canvas: Field, heels: npt.NDArray[np.uint8], view: View, frame: Frame, rng: np.random.Generator
) -> Photograph:
    """Take the photo: exposure, white balance, roll, size, noise and JPEG."""
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

    scale = frame.tall / frame.height * view.density  # canvas pixels a photo pixel
    cos, sin = (f(math.radians(frame.roll)) * scale for f in (math.cos, math.sin))
    affine = (
        cos, sin, columns / 2 - cos * frame.width / 2 - sin * frame.height / 2,
        -sin, cos, rows / 2 + sin * frame.width / 2 - cos * frame.height / 2,
    )  # fmt: skip
    size, method = (frame.width, frame.height), Image.Transform.AFFINE
    photo = Image.fromarray(pixels).transform(size, method, affine, Image.Resampling.BICUBIC)
    marks = np.asarray(
        Image.fromarray(heels).transform(size, method, affine, Image.Resampling.NEAREST)
    )
    grain = rng.integers(0, 256, (2, frame.height, frame.width, 1), dtype=np.uint8)
    # Two bytes added make a bell of sd 104; shifted down to an sd of 1 to 4 grey levels.
    noise = (grain[0].astype(np.int32) + grain[1] - 255) * int(rng.integers(10, 40)) // 1024
    noisy = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=int(rng.integers(85, 96)))
    return Photograph(
        stream.getvalue(), frame.width, frame.height, _box(marks == 1), _box(marks == 2)
    )


def _box(mask: Mask) -> Box:
    """Return left, top, right, bottom of a mask's true part, half open."""
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
