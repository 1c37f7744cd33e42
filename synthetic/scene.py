"""What stands around a pair of legs: floor, wall, furniture, and the shadows of the legs.

A room is its collector's: all whom a collector meets stand in it, each shot at another place. The
camera stands low behind the legs, so a point of the floor that lies z cm ahead of the heels is seen
z * RISE / (1 + z / distance) cm above them, and everything there is smaller by 1 + z / distance.
Floor and wall are computed in their own centimetres, so that tiles and planks run into the depth.

Nothing here knows of the angles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.ndimage import gaussian_filter

from synthetic.canvas import Colour, Field, View, bump, clouds, lines, paint

NEAREST, FARTHEST = 110.0, 230.0  # cm from the camera to the heels
RISE = 0.17  # cm up in the picture for each cm ahead, at the heels; the foot uses it too

WALLS = ((0.62, 0.60, 0.55), (0.50, 0.53, 0.56), (0.56, 0.47, 0.35), (0.30, 0.36, 0.38),
         (0.42, 0.47, 0.36), (0.70, 0.69, 0.68), (0.66, 0.65, 0.62),
         (0.33, 0.27, 0.24))  # fmt: skip
FLOORS = ((0.36, 0.25, 0.15), (0.20, 0.12, 0.07), (0.45, 0.43, 0.40), (0.24, 0.25, 0.27),
          (0.55, 0.50, 0.42), (0.28, 0.20, 0.17), (0.12, 0.13, 0.15))  # fmt: skip
WOODS = ((0.40, 0.25, 0.13), (0.28, 0.15, 0.07), (0.52, 0.37, 0.22), (0.16, 0.09, 0.05),
         (0.45, 0.40, 0.34), (0.60, 0.48, 0.33))  # fmt: skip
STONES = ((0.55, 0.53, 0.49), (0.42, 0.40, 0.38), (0.60, 0.52, 0.42), (0.26, 0.26, 0.27),
          (0.70, 0.69, 0.67), (0.45, 0.30, 0.22))  # fmt: skip
FABRICS = ((0.35, 0.06, 0.06), (0.10, 0.13, 0.25), (0.40, 0.36, 0.30), (0.16, 0.17, 0.18),
           (0.12, 0.20, 0.14), (0.50, 0.42, 0.30), (0.30, 0.20, 0.28),
           (0.62, 0.60, 0.56))  # fmt: skip
LACQUERS = ((0.68, 0.67, 0.65), (0.10, 0.10, 0.11), (0.30, 0.31, 0.33), *WOODS)
BOARDS = ((0.62, 0.60, 0.56), (0.68, 0.68, 0.67), *WOODS[:3])

T = TypeVar("T", bound=str)
Floor = Literal["plain", "tiles", "planks", "carpet"]
Wall = Literal["paint", "tiles", "panels", "stripes", "curtain", "bricks"]
Thing = Literal["cabinet", "chair", "sofa", "radiator", "door", "box"]
FLOOR_SHARES: dict[Floor, float] = {"plain": 0.55, "tiles": 0.15, "planks": 0.19, "carpet": 0.11}
WALL_SHARES: dict[Wall, float] = {
    "paint": 0.76, "tiles": 0.07, "panels": 0.04, "stripes": 0.04, "curtain": 0.05, "bricks": 0.04,
}  # fmt: skip
THINGS: tuple[Thing, ...] = ("cabinet", "chair", "sofa", "radiator", "door", "box")


@dataclass(frozen=True)
class Furniture:
    """One thing: what, where along the wall, how far before it, how wide, in cm; its paints."""

    kind: Thing
    place: float
    before_wall: float
    width: float
    paint: Colour
    other: Colour


@dataclass(frozen=True)
class Room:
    """Wall, floor and what stands there; lengths in cm, angles in degrees."""

    wall: Wall
    wall_paint: Colour
    wall_other: Colour
    wall_period: float
    floor: Floor
    floor_paint: Colour
    floor_other: Colour
    floor_period: float
    floor_turn: float
    skirting: Colour | None
    skirting_height: float
    rug: tuple[float, float, float] | None  # place along the wall, width, depth
    rug_paint: Colour
    rug_other: Colour
    things: tuple[Furniture, ...]


def room(rng: np.random.Generator, *, studio: bool) -> Room:
    """Return a random room; a studio is a bright wall and floor and nothing else."""
    wall: Wall = "paint" if studio else _choose(WALL_SHARES, rng)
    floor: Floor = "plain" if studio else _choose(FLOOR_SHARES, rng)
    paints = {"plain": FLOORS, "tiles": STONES, "planks": WOODS, "carpet": FABRICS}[floor]
    white = paint(((0.74, 0.74, 0.75),), rng, 0.1)
    wall_paint = paint(WOODS if wall == "panels" else FABRICS if wall == "curtain" else WALLS, rng)
    things = [
        Furniture(
            kind=THINGS[rng.integers(len(THINGS))],
            place=float(rng.uniform(-75, 75)),
            before_wall=float(rng.uniform(0, 12)),
            width=float(rng.uniform(35, 85)),
            paint=paint(LACQUERS, rng),
            other=paint(FABRICS, rng),
        )
        for _ in range(0 if studio else int(rng.choice(3, p=(0.6, 0.25, 0.15))))
    ]
    return Room(
        wall=wall,
        wall_paint=white if studio else wall_paint,
        wall_other=paint(WALLS, rng),
        wall_period=float(rng.uniform(10, 22)),
        floor=floor,
        floor_paint=white if studio else paint(paints, rng),
        floor_other=paint(paints, rng),
        floor_period=float({"tiles": rng.uniform(15, 42)}.get(floor, rng.uniform(7, 14))),
        floor_turn=float(rng.choice([0, 0, 0, 45, 90, 90]) + rng.normal(0, 3)),
        skirting=paint(BOARDS, rng) if not studio and rng.random() < 0.65 else None,
        skirting_height=float(rng.uniform(4, 9)),
        rug=(float(rng.uniform(-40, 40)), float(rng.uniform(50, 130)), float(rng.uniform(35, 90)))
        if not studio and rng.random() < 0.1
        else None,
        rug_paint=paint(FABRICS, rng),
        rug_other=paint(FABRICS, rng),
        things=tuple(sorted(things, key=lambda thing: thing.before_wall)),
    )


def _choose(shares: dict[T, float], rng: np.random.Generator) -> T:
    names = list(shares)
    return names[int(rng.choice(len(names), p=np.array(list(shares.values()))))]


@dataclass(frozen=True)
class Place:
    """Where in the room a shot is taken."""

    along: float  # cm along the wall
    wall: float  # cm ahead of the heels
    distance: float  # cm from the camera to the heels
    turn: float  # degrees by which the floor's pattern runs off the camera's axis

    def up(self, ahead: float) -> float:
        """Return how many cm above the heels the floor is seen so far ahead."""
        return RISE * ahead / (1 + ahead / self.distance)

    def shrink(self, ahead: float) -> float:
        """Return by what a length so far ahead is divided."""
        return 1 + ahead / self.distance


def place(rng: np.random.Generator) -> Place:
    """Return a random place of a room."""
    return Place(
        along=float(rng.uniform(-60, 60)),
        wall=float(rng.uniform(35, 140)),
        distance=float(rng.uniform(NEAREST, FARTHEST)),
        turn=float(rng.normal(0, 5)),
    )


@dataclass(frozen=True)
class Light:
    """Where light comes from (right, up, towards the camera; length 1), and how much is ambient."""

    towards: tuple[float, float, float]
    ambient: float


def light(rng: np.random.Generator) -> Light:
    """Return a random light."""
    across, up = rng.uniform(-0.9, 0.9), rng.uniform(0.15, 1.0)
    length = math.sqrt(across**2 + up**2 + 1)
    return Light((across / length, up / length, 1 / length), rng.uniform(0.3, 0.55))


@dataclass(frozen=True)
class Scene:
    """A view of a room, in which legs stand `spread` cm to the left and right of the middle."""

    view: View
    where: Room
    at: Place
    lit: Light
    spread: float


def background(scene: Scene, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) linear light of the room, with the shadows of the legs."""
    view, at = scene.view, scene.at
    x, h = view.places, view.heights
    edge = at.up(at.wall)
    fall = 0.78 + 0.3 * rng.uniform(-1, 1) * (x - x.mean()) / view.width
    # Not all lies in the depth of field, and no lens draws a line thinner than its pixels.
    soft = float(rng.choice([0.6, 0.9, 1.3, 2.0]))
    of_wall, of_floor, of_things = rng.spawn(3)
    canvas = np.empty((h.size, x.size, 3))
    horizon = int(np.searchsorted(-h[:, 0], -edge))  # the first row of the floor
    canvas[:horizon] = _wall(scene, h[:horizon] - edge, of_wall)
    canvas[:horizon] *= fall[..., None] * (1 + 0.008 * (h[:horizon, :, None] - edge))
    # The floor darkens towards the wall.
    dim = fall * np.clip(1.05 - 0.012 * h[horizon:], 0.6, 1.3)
    canvas[horizon:] = _floor(scene, h[horizon:], of_floor) * dim[..., None]
    _corner(canvas, scene)
    for thing in scene.where.things:
        _furnish(canvas, thing, scene, fall, of_things)
    _shadows(canvas, scene, horizon)
    return np.asarray(gaussian_filter(canvas, (soft, soft, 0), truncate=2.5))


def _shadows(canvas: Field, scene: Scene, horizon: int) -> None:
    """Darken (R, C, 3) floor and wall where the legs keep the light away."""
    x, h = scene.view.places, scene.view.heights
    floor = h[horizon:]
    across, up, _ = scene.lit.towards
    keeps = np.ones((floor.size, x.size))
    for side in (-1, 1):
        foot = side * scene.spread
        # A shadow falls away from the light, longer the lower the light stands.
        centre = foot - across * (2.0 + 0.9 * np.maximum(floor, 0) / (0.3 + up))
        wide = 3.6 + 0.12 * np.maximum(floor, 0)
        cast = np.exp(-(((x - centre) / wide) ** 2) - (np.minimum(floor, 0) / 1.2) ** 2)
        near = ((x - foot - side * 1.2) / 5.0) ** 2 + ((floor - 1.2) / 2.4) ** 2
        touch = ((x - foot) / 3.6) ** 2 + (floor / 0.8) ** 2
        keeps *= (1 - 0.38 * cast) * (1 - 0.5 * np.exp(-near)) * (1 - 0.6 * np.exp(-touch))
        canvas[:horizon] *= (1 - 0.14 * bump(x - foot + across * 9.0, 6.0))[..., None]
    canvas[horizon:] *= keeps[..., None]


def _mix(share: Field, over: Colour | Field, under: Colour | Field) -> Field:
    """Return (R, C, 3) light of which (R, C) shares come from `over`."""
    weight = share[..., None]
    mixed: Field = weight * np.asarray(over) + (1 - weight) * np.asarray(under)
    return mixed


def _table(values: Field, *cells: Field) -> Field:
    """Return for each pixel the entry of a (256,) table that belongs to its whole-numbered cell."""
    key = np.zeros((1, 1), np.int64)
    for cell in cells:
        key = (key * 37 + cell.astype(np.int64)) % 256
    entry: Field = values[key]
    return entry


def _grain(across: Field, along: Field, rng: np.random.Generator) -> Field:
    """Return (R, C) wood grain, -1 to 1: it changes fast across the fibres and slowly along."""
    table = clouds((256, 256), 3, rng)
    row, column = (across * 14).astype(np.int64) % 256, (along * 0.9).astype(np.int64) % 256
    grain: Field = table[row, column]
    return grain


@dataclass(frozen=True)
class Ground:
    """Places on the floor in cm: (R, C) along the wall, (R, 1) before it, and a pixel's size."""

    side: Field
    depth: Field
    wide: Field
    deep: Field

    def turned(self, degrees: float) -> tuple[Field, Field, Field, Field]:
        """Return both coordinates of a turned pattern, and what a pixel covers of either."""
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        across = np.hypot(cos * self.wide, sin * self.deep)
        along = np.hypot(cos * self.deep, sin * self.wide)
        u, v = self.side * cos + self.depth * sin, self.depth * cos - self.side * sin
        return u, v, across, along


def _floor(scene: Scene, h: Field, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) paint of the floor's rows."""
    where, at = scene.where, scene.at
    x = scene.view.places
    height = RISE * at.distance  # of the camera, up in the picture
    ahead = h * at.distance / np.maximum(height - h, 1)
    shrink = 1 + ahead / at.distance
    pixel = shrink / scene.view.density
    ground = Ground(x * shrink + at.along, ahead - at.wall, pixel, pixel * shrink / RISE)
    u, v, across, along = ground.turned(where.floor_turn + at.turn)
    shape = (h.size, x.size)
    tones = rng.uniform(-1, 1, 256)
    spots = clouds(shape, 70, rng)
    period = where.floor_period
    if where.floor == "tiles":
        tone = 1 + 0.09 * _table(tones, np.floor(u / period), np.floor(v / period))
        tone = tone + 0.05 * spots + 0.04 * clouds(shape, 9, rng)
        gap = np.maximum(lines(u, period, 0.5, across), lines(v, period, 0.5, along))
        grout = 0.7 if sum(where.floor_paint) > 0.9 else 1.3
        paints = _mix(gap, np.array(where.floor_paint) * grout, tone[..., None] * where.floor_paint)
    elif where.floor == "planks":
        row = np.floor(u / period)
        shifted = v + 83 * _table(tones, row)
        tone = 1 + 0.13 * _table(tones, row, np.floor(shifted / 75))
        grain = _grain(u, v + 40 * _table(tones, row), rng)
        tone = tone + 0.12 * grain * np.minimum(1, 0.12 / across)
        gap = np.maximum(lines(u, period, 0.22, across), lines(shifted, 75.0, 0.22, along))
        paints = _mix(0.75 * gap, (0.03, 0.02, 0.015), tone[..., None] * where.floor_paint)
    elif where.floor == "carpet":
        pile = clouds(shape, 1.3, rng) * 0.16 + clouds(shape, 5, rng) * 0.08 + 0.06 * spots
        bands = lines(v, 3.2 * period, period, along)
        woven = _mix(0.35 * bands, where.floor_other, where.floor_paint)
        paints = woven * (1 + pile)[..., None]
    else:
        streaks = clouds((shape[0], shape[1] // 15 + 1), 2.5, rng)
        tone = 1 + 0.05 * spots + 0.05 * np.repeat(streaks, 15, axis=1)[:, : shape[1]]
        paints = tone[..., None] * np.array(where.floor_paint)
    return paints if where.rug is None else _lay_rug(paints, where.rug, ground, where, rng)


def _lay_rug(
    paints: Field,
    rug: tuple[float, float, float],
    ground: Ground,
    where: Room,
    rng: np.random.Generator,
) -> Field:
    """Return the (R, C, 3) floor with a rug on it: a border, and pile."""
    middle, width, depth = rug
    # How far inside its nearest edge, in cm; negative outside. It lies 20 cm before the wall.
    inside_x = width / 2 - np.abs(ground.side - middle)
    inside_z = depth / 2 - np.abs(ground.depth + 20 + depth / 2)
    cover = np.clip(inside_x / ground.wide + 0.5, 0, 1) * np.clip(
        inside_z / ground.deep + 0.5, 0, 1
    )
    inside = np.minimum(inside_x, inside_z)
    border = np.clip((inside - 4) * 2, 0, 1) * np.clip((8 - inside) * 2, 0, 1)
    pile = 1 + 0.17 * clouds((paints.shape[0], paints.shape[1]), 1.5, rng)
    woven = _mix(border, where.rug_other, where.rug_paint) * pile[..., None]
    shade = 1 - 0.4 * np.exp(-np.abs(np.minimum(inside, 0)) / 0.8)
    return _mix(cover, woven, paints * shade[..., None])


def _wall(scene: Scene, up: Field, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) paint of the wall's rows, `up` cm above its foot in the picture."""
    where, x = scene.where, scene.view.places
    shrink = scene.at.shrink(scene.at.wall)
    u, v = x * shrink + scene.at.along, up * shrink
    reach = shrink / scene.view.density
    shape = (up.size, x.size)
    base, period = np.array(where.wall_paint), where.wall_period
    other, cover = base, np.zeros((1, 1))
    tone = 1 + 0.03 * clouds(shape, 90, rng) + 0.02 * clouds(shape, 2.5, rng)
    tones = rng.uniform(-1, 1, 256)
    if where.wall == "tiles":
        tone = tone + 0.04 * _table(tones, np.floor(u / period), np.floor(v / period))
        cover = np.maximum(lines(u, period, 0.4, reach), lines(v, period, 0.4, reach))
        other = 0.75 * base
    elif where.wall == "bricks":
        row = np.floor(v / 7.5)
        shifted = u + 12 * (row % 2)
        tone = tone + 0.14 * _table(tones, row, np.floor(shifted / 24))
        tone = tone + 0.08 * clouds(shape, 4, rng)
        cover = np.maximum(lines(shifted, 24.0, 1.0, reach), lines(v, 7.5, 1.0, reach))
        other = 0.75 * base
    elif where.wall == "panels":
        tone = tone + 0.1 * _grain(u, v, rng)
        cover, other = 0.7 * lines(u, period, 0.5, reach), 0.25 * base
    elif where.wall == "stripes":
        cover, other = lines(u, 2 * period, period, reach), np.array(where.wall_other)
    elif where.wall == "curtain":
        sway = 1.2 * clouds((1, x.size), x.size / 5, rng)
        folds = 0.5 + 0.5 * np.sin(2 * np.pi * u / (0.6 * period) + 2 * sway)
        tone = tone * (0.7 + 0.3 * folds)
    return _mix(cover, other, base) * tone[..., None]


def _corner(canvas: Field, scene: Scene) -> None:
    """Put the skirting board into the (R, C, 3) canvas, and dark where wall and floor meet."""
    where, at, density = scene.where, scene.at, scene.view.density
    up = scene.view.heights - at.up(at.wall)
    if where.skirting is not None:
        top = where.skirting_height / at.shrink(at.wall)
        board = np.clip(up * density, 0, 1) * np.clip((top - up) * density, 0, 1)
        lit = 0.82 + 0.2 * bump(up - top, 0.3)
        canvas += board[..., None] * (lit[..., None] * np.array(where.skirting) - canvas)
    canvas *= (1 - 0.4 * np.exp(-np.abs(up) / 0.7))[..., None]


@dataclass(frozen=True)
class Front:
    """A thing's front in the (R, C, 3) canvas.

    u (1, C) and v (R, 1) are the thing's own cm: to the right of its middle, and above its foot.
    """

    canvas: Field
    u: Field
    v: Field
    pixel: float  # cm
    fall: Field  # (1, C) light
    half: float  # cm, half its width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.v.size, self.u.size

    def block(self, left: float, right: float, low: float, high: float) -> Field:
        """Return the (R, C) cover of an upright rectangle."""
        sides = np.clip((self.u - left) / self.pixel + 0.5, 0, 1) * np.clip(
            (right - self.u) / self.pixel + 0.5, 0, 1
        )
        ends = np.clip((self.v - low) / self.pixel + 0.5, 0, 1) * np.clip(
            (high - self.v) / self.pixel + 0.5, 0, 1
        )
        cover: Field = sides * ends
        return cover

    def put(self, cover: Field, colour: Colour | Field, tone: Field | float = 1.0) -> None:
        """Paint what is covered."""
        paints = np.asarray(colour) * np.asarray(tone * self.fall)[..., None]
        self.canvas[...] += cover[..., None] * (paints - self.canvas)


def _furnish(
    canvas: Field, thing: Furniture, scene: Scene, fall: Field, rng: np.random.Generator
) -> None:
    """Put a thing into the (R, C, 3) canvas, unless it is out of sight."""
    at, view = scene.at, scene.view
    ahead = max(at.wall - thing.before_wall, 22.0)
    shrink = at.shrink(ahead)
    u = view.places * shrink + at.along - thing.place
    v = (view.heights - at.up(ahead)) * shrink
    half = thing.width / 2
    if np.abs(u).min() > half + 10:
        return
    # Edges run over 1.6 pixels, as a lens draws them.
    front = Front(canvas, u, v, 1.6 * shrink / view.density, fall, half)
    shadow = bump(np.minimum(v, 0), 5.0) * front.block(-half - 3, half + 3, -9, 0)
    canvas *= 1 - 0.45 * shadow[..., None]
    DRAW[thing.kind](front, thing, 1 + 0.06 * clouds(front.shape, 3, rng), rng)


HIGH = 999.0  # cm, above all pictures


def _cabinet(front: Front, thing: Furniture, grain: Field, _: np.random.Generator) -> None:
    dark, half = 0.3 * np.array(thing.paint), front.half
    front.put(front.block(-half, half, 0, 6), dark)
    front.put(front.block(-half, half, 6, HIGH), thing.paint, grain)
    doors = lines(front.u - half, half, 0.5, front.pixel) * front.block(-half, half, 8, HIGH)
    drawers = lines(front.v - 8, 34.0, 0.5, front.pixel) * front.block(-half, half, 7, HIGH)
    front.put(0.8 * np.maximum(doors, drawers), dark)
    front.put(front.block(half - 5, half - 3.4, 26, 40), (0.5, 0.5, 0.5))


def _chair(front: Front, thing: Furniture, grain: Field, _: np.random.Generator) -> None:
    wide = min(front.half, 24)
    for place_, low, tone in ((-0.62, 6.0, 0.6), (0.62, 6.0, 0.6), (-1, 0, 1.0), (1, 0, 1.0)):
        middle = place_ * wide
        turned = np.clip(1 - 0.35 * np.abs((front.u - middle) / 1.7) ** 2, 0, 1)
        front.put(front.block(middle - 1.7, middle + 1.7, low, HIGH), thing.paint, tone * turned)
    front.put(front.block(-wide, wide, 17, 20), thing.paint, 0.8 * grain)


def _sofa(front: Front, thing: Furniture, _: Field, rng: np.random.Generator) -> None:
    dark, half = 0.12 * np.array(thing.paint), front.half
    front.put(front.block(-half, half, 0, 9), dark)
    for foot in (-half + 4, half - 4):
        front.put(front.block(foot - 2, foot + 2, 0, 9), thing.paint)
    weave = 1 + 0.12 * clouds(front.shape, 1.8, rng) + 0.1 * bump(front.v - 22, 4.0)
    front.put(front.block(-half, half, 8, HIGH), thing.other, weave)
    seam = lines(front.v - 25, 60.0, 0.7, front.pixel) * front.block(-half, half, 9, HIGH)
    front.put(0.6 * seam, dark)


def _radiator(front: Front, _: Furniture, __: Field, ___: np.random.Generator) -> None:
    ribs = 0.72 + 0.28 * np.cos(2 * np.pi * front.u / 5.5)
    front.put(front.block(-front.half, front.half, 11, 70), (0.68, 0.67, 0.64), ribs)


def _door(front: Front, thing: Furniture, grain: Field, _: np.random.Generator) -> None:
    half = front.half
    front.put(front.block(-half - 7, half + 7, 0, HIGH), thing.paint, 0.9 * grain)
    front.put(front.block(-half, half, 1, HIGH), thing.paint, 1.08 * grain)
    outer, inner = (front.block(-half + n, half - n, 8.0 + n, HIGH) for n in (10, 11.2))
    front.put(0.6 * np.clip(outer - inner, 0, 1), 0.3 * np.array(thing.paint))
    front.put(front.block(-half - 0.3, half + 0.3, 0, 1), (0.02, 0.02, 0.02))


def _box(front: Front, thing: Furniture, grain: Field, _: np.random.Generator) -> None:
    wide, tall = 0.6 * front.half, 1.2 * front.half
    front.put(front.block(-wide, wide, 0, tall), thing.other, grain)
    front.put(front.block(-1.07 * wide, 1.07 * wide, tall - 5, tall + 1), thing.other, 1.25 * grain)


DRAW: dict[Thing, Callable[[Front, Furniture, Field, np.random.Generator], None]] = {
    "cabinet": _cabinet,
    "chair": _chair,
    "sofa": _sofa,
    "radiator": _radiator,
    "door": _door,
    "box": _box,
}
