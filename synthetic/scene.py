"""Paint the surroundings of a pair of legs: floor, wall, furniture, and the shadows of the legs.

A room belongs to a collector: all subjects of the collector are photographed in it, each photo at
another position. The camera is low behind the legs. A floor point z cm ahead of the heels appears
z * RISE / (1 + z / distance) cm above them, and everything there is smaller by 1 + z / distance.
Floor and wall patterns are computed in cm of the room, so that tiles and planks have perspective.

Nothing in this module depends on the angles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.ndimage import gaussian_filter

from synthetic.canvas import Color, Field, View, bump, clouds, lines, paint

MIN_DISTANCE, MAX_DISTANCE = 110.0, 230.0  # cm from the camera to the heels
RISE = 0.17  # cm up in the picture per cm ahead, at the heels; also used for the foot

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
FurnitureKind = Literal["cabinet", "chair", "sofa", "radiator", "door", "box"]
FLOOR_SHARES: dict[Floor, float] = {"plain": 0.55, "tiles": 0.15, "planks": 0.19, "carpet": 0.11}
WALL_SHARES: dict[Wall, float] = {
    "paint": 0.76, "tiles": 0.07, "panels": 0.04, "stripes": 0.04, "curtain": 0.05, "bricks": 0.04,
}  # fmt: skip
FURNITURE_KINDS: tuple[FurnitureKind, ...] = ("cabinet", "chair", "sofa", "radiator", "door", "box")


@dataclass(frozen=True)
class Furniture:
    """A piece of furniture: position along and in front of the wall, width in cm, paints."""

    kind: FurnitureKind
    along_wall: float
    before_wall: float
    width: float
    paint: Color
    other: Color


@dataclass(frozen=True)
class Room:
    """Wall, floor and furniture; lengths in cm, angles in degrees."""

    wall: Wall
    wall_paint: Color
    wall_other: Color
    wall_period: float
    floor: Floor
    floor_paint: Color
    floor_other: Color
    floor_period: float
    floor_turn: float
    baseboard: Color | None
    baseboard_height: float
    rug: tuple[float, float, float] | None  # position along the wall, width, depth
    rug_paint: Color
    rug_other: Color
    furniture: tuple[Furniture, ...]


def random_room(rng: np.random.Generator, *, studio: bool) -> Room:
    """Return a random room; a studio has a bright wall and floor only."""
    wall: Wall = "paint" if studio else _choose(WALL_SHARES, rng)
    floor: Floor = "plain" if studio else _choose(FLOOR_SHARES, rng)
    paints = {"plain": FLOORS, "tiles": STONES, "planks": WOODS, "carpet": FABRICS}[floor]
    white = paint(((0.74, 0.74, 0.75),), rng, 0.1)
    wall_paint = paint(WOODS if wall == "panels" else FABRICS if wall == "curtain" else WALLS, rng)
    furniture = [
        Furniture(
            kind=FURNITURE_KINDS[rng.integers(len(FURNITURE_KINDS))],
            along_wall=float(rng.uniform(-75, 75)),
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
        baseboard=paint(BOARDS, rng) if not studio and rng.random() < 0.65 else None,
        baseboard_height=float(rng.uniform(4, 9)),
        rug=(float(rng.uniform(-40, 40)), float(rng.uniform(50, 130)), float(rng.uniform(35, 90)))
        if not studio and rng.random() < 0.1
        else None,
        rug_paint=paint(FABRICS, rng),
        rug_other=paint(FABRICS, rng),
        furniture=tuple(sorted(furniture, key=lambda item: item.before_wall)),
    )


def _choose(shares: dict[T, float], rng: np.random.Generator) -> T:
    names = list(shares)
    return names[int(rng.choice(len(names), p=np.array(list(shares.values()))))]


@dataclass(frozen=True)
class CameraPosition:
    """Position of heels and camera in the room."""

    along: float  # cm along the wall
    wall: float  # cm ahead of the heels
    distance: float  # cm from the camera to the heels
    turn: float  # degrees between the floor pattern and the camera axis

    def floor_height(self, ahead: float) -> float:
        """Return the cm above the heels at which the floor `ahead` cm ahead appears."""
        return RISE * ahead / (1 + ahead / self.distance)

    def shrink(self, ahead: float) -> float:
        """Return the factor by which lengths `ahead` cm ahead appear smaller."""
        return 1 + ahead / self.distance


def random_position(rng: np.random.Generator) -> CameraPosition:
    """Return a random position in a room."""
    return CameraPosition(
        along=float(rng.uniform(-60, 60)),
        wall=float(rng.uniform(35, 140)),
        distance=float(rng.uniform(MIN_DISTANCE, MAX_DISTANCE)),
        turn=float(rng.normal(0, 5)),
    )


@dataclass(frozen=True)
class Light:
    """Direction of the light (right, up, toward the camera; length 1), and its ambient share."""

    direction: tuple[float, float, float]
    ambient: float


def random_light(rng: np.random.Generator) -> Light:
    """Return a random light."""
    across, up = rng.uniform(-0.9, 0.9), rng.uniform(0.15, 1.0)
    length = math.sqrt(across**2 + up**2 + 1)
    return Light((across / length, up / length, 1 / length), rng.uniform(0.3, 0.55))


@dataclass(frozen=True)
class Scene:
    """A view of a room; the heels are `half_stance` cm to the left and right of the center."""

    view: View
    room: Room
    position: CameraPosition
    light: Light
    half_stance: float


def background(scene: Scene, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) linear light of the room, with the shadows of the legs."""
    view, position = scene.view, scene.position
    x, h = view.places, view.heights
    edge = position.floor_height(position.wall)
    fall = 0.78 + 0.3 * rng.uniform(-1, 1) * (x - x.mean()) / view.width
    # Blur in pixels: limited depth of field and lens resolution.
    soft = float(rng.choice([0.6, 0.9, 1.3, 2.0]))
    of_wall, of_floor, of_things = rng.spawn(3)
    canvas = np.empty((h.size, x.size, 3))
    horizon = int(np.searchsorted(-h[:, 0], -edge))  # the first row of the floor
    canvas[:horizon] = _wall(scene, h[:horizon] - edge, of_wall)
    canvas[:horizon] *= fall[..., None] * (1 + 0.008 * (h[:horizon, :, None] - edge))
    # The floor is darker near the wall.
    dim = fall * np.clip(1.05 - 0.012 * h[horizon:], 0.6, 1.3)
    canvas[horizon:] = _floor(scene, h[horizon:], of_floor) * dim[..., None]
    _corner(canvas, scene)
    for item in scene.room.furniture:
        _furnish(canvas, item, scene, fall, of_things)
    _shadows(canvas, scene, horizon)
    return np.asarray(gaussian_filter(canvas, (soft, soft, 0), truncate=2.5))


def _shadows(canvas: Field, scene: Scene, horizon: int) -> None:
    """Darken floor and wall of the (R, C, 3) canvas in the shadow of the legs."""
    x, h = scene.view.places, scene.view.heights
    floor = h[horizon:]
    across, up, _ = scene.light.direction
    keeps = np.ones((floor.size, x.size))
    for side in (-1, 1):
        foot = side * scene.half_stance
        # The shadow points away from the light; the lower the light, the longer the shadow.
        center = foot - across * (2.0 + 0.9 * np.maximum(floor, 0) / (0.3 + up))
        wide = 3.6 + 0.12 * np.maximum(floor, 0)
        cast = np.exp(-(((x - center) / wide) ** 2) - (np.minimum(floor, 0) / 1.2) ** 2)
        near = ((x - foot - side * 1.2) / 5.0) ** 2 + ((floor - 1.2) / 2.4) ** 2
        touch = ((x - foot) / 3.6) ** 2 + (floor / 0.8) ** 2
        keeps *= (1 - 0.38 * cast) * (1 - 0.5 * np.exp(-near)) * (1 - 0.6 * np.exp(-touch))
        canvas[:horizon] *= (1 - 0.14 * bump(x - foot + across * 9.0, 6.0))[..., None]
    canvas[horizon:] *= keeps[..., None]


def _mix(share: Field, over: Color | Field, under: Color | Field) -> Field:
    """Return the (R, C, 3) blend of `over` and `under`; `share` is the (R, C) weight of `over`."""
    weight = share[..., None]
    mixed: Field = weight * np.asarray(over) + (1 - weight) * np.asarray(under)
    return mixed


def _table(values: Field, *cells: Field) -> Field:
    """Return the entry of a (256,) table for each pixel, chosen by hashing its integer cells."""
    key = np.zeros((1, 1), np.int64)
    for cell in cells:
        key = (key * 37 + cell.astype(np.int64)) % 256
    entry: Field = values[key]
    return entry


def _grain(across: Field, along: Field, rng: np.random.Generator) -> Field:
    """Return (R, C) wood grain, -1 to 1, that varies fast across the fibers and slowly along."""
    table = clouds((256, 256), 3, rng)
    row, column = (across * 14).astype(np.int64) % 256, (along * 0.9).astype(np.int64) % 256
    grain: Field = table[row, column]
    return grain


@dataclass(frozen=True)
class Ground:
    """Floor coordinates in cm: (R, C) along the wall, (R, 1) from it, and the size of a pixel."""

    side: Field
    depth: Field
    wide: Field
    deep: Field

    def turned(self, degrees: float) -> tuple[Field, Field, Field, Field]:
        """Return the coordinates of a rotated pattern, and a pixel's extent along each."""
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        across = np.hypot(cos * self.wide, sin * self.deep)
        along = np.hypot(cos * self.deep, sin * self.wide)
        u, v = self.side * cos + self.depth * sin, self.depth * cos - self.side * sin
        return u, v, across, along


def _floor(scene: Scene, h: Field, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) paint of the floor at heights `h`, (R, 1)."""
    room, position = scene.room, scene.position
    x = scene.view.places
    height = RISE * position.distance  # of the horizon above the heels, in cm of the picture
    ahead = h * position.distance / np.maximum(height - h, 1)
    shrink = 1 + ahead / position.distance
    pixel = shrink / scene.view.density
    ground = Ground(
        x * shrink + position.along, ahead - position.wall, pixel, pixel * shrink / RISE
    )
    u, v, across, along = ground.turned(room.floor_turn + position.turn)
    shape = (h.size, x.size)
    tones = rng.uniform(-1, 1, 256)
    spots = clouds(shape, 70, rng)
    period = room.floor_period
    if room.floor == "tiles":
        tone = 1 + 0.09 * _table(tones, np.floor(u / period), np.floor(v / period))
        tone = tone + 0.05 * spots + 0.04 * clouds(shape, 9, rng)
        gap = np.maximum(lines(u, period, 0.5, across), lines(v, period, 0.5, along))
        grout = 0.7 if sum(room.floor_paint) > 0.9 else 1.3
        paints = _mix(gap, np.array(room.floor_paint) * grout, tone[..., None] * room.floor_paint)
    elif room.floor == "planks":
        row = np.floor(u / period)
        shifted = v + 83 * _table(tones, row)
        tone = 1 + 0.13 * _table(tones, row, np.floor(shifted / 75))
        grain = _grain(u, v + 40 * _table(tones, row), rng)
        tone = tone + 0.12 * grain * np.minimum(1, 0.12 / across)
        gap = np.maximum(lines(u, period, 0.22, across), lines(shifted, 75.0, 0.22, along))
        paints = _mix(0.75 * gap, (0.03, 0.02, 0.015), tone[..., None] * room.floor_paint)
    elif room.floor == "carpet":
        pile = clouds(shape, 1.3, rng) * 0.16 + clouds(shape, 5, rng) * 0.08 + 0.06 * spots
        bands = lines(v, 3.2 * period, period, along)
        woven = _mix(0.35 * bands, room.floor_other, room.floor_paint)
        paints = woven * (1 + pile)[..., None]
    else:
        streaks = clouds((shape[0], shape[1] // 15 + 1), 2.5, rng)
        tone = 1 + 0.05 * spots + 0.05 * np.repeat(streaks, 15, axis=1)[:, : shape[1]]
        paints = tone[..., None] * np.array(room.floor_paint)
    return paints if room.rug is None else _lay_rug(paints, room.rug, ground, room, rng)


def _lay_rug(
    paints: Field,
    rug: tuple[float, float, float],
    ground: Ground,
    room: Room,
    rng: np.random.Generator,
) -> Field:
    """Return the (R, C, 3) floor with a rug that has a border and pile."""
    middle, width, depth = rug
    # Distance in cm inside the nearest edge, negative outside. The rug is 20 cm from the wall.
    inside_x = width / 2 - np.abs(ground.side - middle)
    inside_z = depth / 2 - np.abs(ground.depth + 20 + depth / 2)
    cover = np.clip(inside_x / ground.wide + 0.5, 0, 1) * np.clip(
        inside_z / ground.deep + 0.5, 0, 1
    )
    inside = np.minimum(inside_x, inside_z)
    border = np.clip((inside - 4) * 2, 0, 1) * np.clip((8 - inside) * 2, 0, 1)
    pile = 1 + 0.17 * clouds((paints.shape[0], paints.shape[1]), 1.5, rng)
    woven = _mix(border, room.rug_other, room.rug_paint) * pile[..., None]
    shade = 1 - 0.4 * np.exp(-np.abs(np.minimum(inside, 0)) / 0.8)
    return _mix(cover, woven, paints * shade[..., None])


def _wall(scene: Scene, up: Field, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) paint of the wall, `up` cm above its lower edge in the picture."""
    room, x = scene.room, scene.view.places
    shrink = scene.position.shrink(scene.position.wall)
    u, v = x * shrink + scene.position.along, up * shrink
    reach = shrink / scene.view.density
    shape = (up.size, x.size)
    base, period = np.array(room.wall_paint), room.wall_period
    other, cover = base, np.zeros((1, 1))
    tone = 1 + 0.03 * clouds(shape, 90, rng) + 0.02 * clouds(shape, 2.5, rng)
    tones = rng.uniform(-1, 1, 256)
    if room.wall == "tiles":
        tone = tone + 0.04 * _table(tones, np.floor(u / period), np.floor(v / period))
        cover = np.maximum(lines(u, period, 0.4, reach), lines(v, period, 0.4, reach))
        other = 0.75 * base
    elif room.wall == "bricks":
        row = np.floor(v / 7.5)
        shifted = u + 12 * (row % 2)
        tone = tone + 0.14 * _table(tones, row, np.floor(shifted / 24))
        tone = tone + 0.08 * clouds(shape, 4, rng)
        cover = np.maximum(lines(shifted, 24.0, 1.0, reach), lines(v, 7.5, 1.0, reach))
        other = 0.75 * base
    elif room.wall == "panels":
        tone = tone + 0.1 * _grain(u, v, rng)
        cover, other = 0.7 * lines(u, period, 0.5, reach), 0.25 * base
    elif room.wall == "stripes":
        cover, other = lines(u, 2 * period, period, reach), np.array(room.wall_other)
    elif room.wall == "curtain":
        sway = 1.2 * clouds((1, x.size), x.size / 5, rng)
        folds = 0.5 + 0.5 * np.sin(2 * np.pi * u / (0.6 * period) + 2 * sway)
        tone = tone * (0.7 + 0.3 * folds)
    return _mix(cover, other, base) * tone[..., None]


def _corner(canvas: Field, scene: Scene) -> None:
    """Paint the baseboard and a shadow where wall and floor meet into the (R, C, 3) canvas."""
    room, position, density = scene.room, scene.position, scene.view.density
    up = scene.view.heights - position.floor_height(position.wall)
    if room.baseboard is not None:
        top = room.baseboard_height / position.shrink(position.wall)
        board = np.clip(up * density, 0, 1) * np.clip((top - up) * density, 0, 1)
        light = 0.82 + 0.2 * bump(up - top, 0.3)
        canvas += board[..., None] * (light[..., None] * np.array(room.baseboard) - canvas)
    canvas *= (1 - 0.4 * np.exp(-np.abs(up) / 0.7))[..., None]


@dataclass(frozen=True)
class Front:
    """The front of a piece of furniture in the (R, C, 3) canvas.

    u (1, C) and v (R, 1) are in cm: to the right of its center, and above its base.
    """

    canvas: Field
    u: Field
    v: Field
    pixel: float  # cm, width of a pixel
    fall: Field  # (1, C) light
    half: float  # cm, half the width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.v.size, self.u.size

    def block(self, left: float, right: float, low: float, high: float) -> Field:
        """Return the (R, C) cover of an axis-aligned rectangle."""
        sides = np.clip((self.u - left) / self.pixel + 0.5, 0, 1) * np.clip(
            (right - self.u) / self.pixel + 0.5, 0, 1
        )
        ends = np.clip((self.v - low) / self.pixel + 0.5, 0, 1) * np.clip(
            (high - self.v) / self.pixel + 0.5, 0, 1
        )
        cover: Field = sides * ends
        return cover

    def put(self, cover: Field, color: Color | Field, tone: Field | float = 1.0) -> None:
        """Paint the covered pixels."""
        paints = np.asarray(color) * np.asarray(tone * self.fall)[..., None]
        self.canvas[...] += cover[..., None] * (paints - self.canvas)


def _furnish(
    canvas: Field, item: Furniture, scene: Scene, fall: Field, rng: np.random.Generator
) -> None:
    """Paint a piece of furniture into the (R, C, 3) canvas if it is in view."""
    position, view = scene.position, scene.view
    ahead = max(position.wall - item.before_wall, 22.0)
    shrink = position.shrink(ahead)
    u = view.places * shrink + position.along - item.along_wall
    v = (view.heights - position.floor_height(ahead)) * shrink
    half = item.width / 2
    if np.abs(u).min() > half + 10:
        return
    # Edges are 1.6 pixels wide, like those of a lens.
    front = Front(canvas, u, v, 1.6 * shrink / view.density, fall, half)
    shadow = bump(np.minimum(v, 0), 5.0) * front.block(-half - 3, half + 3, -9, 0)
    canvas *= 1 - 0.45 * shadow[..., None]
    DRAW[item.kind](front, item, 1 + 0.06 * clouds(front.shape, 3, rng), rng)


HIGH = 999.0  # cm, above the upper edge of any picture


def _cabinet(front: Front, item: Furniture, grain: Field, _: np.random.Generator) -> None:
    dark, half = 0.3 * np.array(item.paint), front.half
    front.put(front.block(-half, half, 0, 6), dark)
    front.put(front.block(-half, half, 6, HIGH), item.paint, grain)
    doors = lines(front.u - half, half, 0.5, front.pixel) * front.block(-half, half, 8, HIGH)
    drawers = lines(front.v - 8, 34.0, 0.5, front.pixel) * front.block(-half, half, 7, HIGH)
    front.put(0.8 * np.maximum(doors, drawers), dark)
    front.put(front.block(half - 5, half - 3.4, 26, 40), (0.5, 0.5, 0.5))


def _chair(front: Front, item: Furniture, grain: Field, _: np.random.Generator) -> None:
    wide = min(front.half, 24)
    for offset, low, tone in ((-0.62, 6.0, 0.6), (0.62, 6.0, 0.6), (-1, 0, 1.0), (1, 0, 1.0)):
        middle = offset * wide
        turned = np.clip(1 - 0.35 * np.abs((front.u - middle) / 1.7) ** 2, 0, 1)
        front.put(front.block(middle - 1.7, middle + 1.7, low, HIGH), item.paint, tone * turned)
    front.put(front.block(-wide, wide, 17, 20), item.paint, 0.8 * grain)


def _sofa(front: Front, item: Furniture, _: Field, rng: np.random.Generator) -> None:
    dark, half = 0.12 * np.array(item.paint), front.half
    front.put(front.block(-half, half, 0, 9), dark)
    for foot in (-half + 4, half - 4):
        front.put(front.block(foot - 2, foot + 2, 0, 9), item.paint)
    weave = 1 + 0.12 * clouds(front.shape, 1.8, rng) + 0.1 * bump(front.v - 22, 4.0)
    front.put(front.block(-half, half, 8, HIGH), item.other, weave)
    seam = lines(front.v - 25, 60.0, 0.7, front.pixel) * front.block(-half, half, 9, HIGH)
    front.put(0.6 * seam, dark)


def _radiator(front: Front, _: Furniture, __: Field, ___: np.random.Generator) -> None:
    ribs = 0.72 + 0.28 * np.cos(2 * np.pi * front.u / 5.5)
    front.put(front.block(-front.half, front.half, 11, 70), (0.68, 0.67, 0.64), ribs)


def _door(front: Front, item: Furniture, grain: Field, _: np.random.Generator) -> None:
    half = front.half
    front.put(front.block(-half - 7, half + 7, 0, HIGH), item.paint, 0.9 * grain)
    front.put(front.block(-half, half, 1, HIGH), item.paint, 1.08 * grain)
    outer, inner = (front.block(-half + n, half - n, 8.0 + n, HIGH) for n in (10, 11.2))
    front.put(0.6 * np.clip(outer - inner, 0, 1), 0.3 * np.array(item.paint))
    front.put(front.block(-half - 0.3, half + 0.3, 0, 1), (0.02, 0.02, 0.02))


def _box(front: Front, item: Furniture, grain: Field, _: np.random.Generator) -> None:
    wide, tall = 0.6 * front.half, 1.2 * front.half
    front.put(front.block(-wide, wide, 0, tall), item.other, grain)
    front.put(front.block(-1.07 * wide, 1.07 * wide, tall - 5, tall + 1), item.other, 1.25 * grain)


DRAW: dict[FurnitureKind, Callable[[Front, Furniture, Field, np.random.Generator], None]] = {
    "cabinet": _cabinet,
    "chair": _chair,
    "sofa": _sofa,
    "radiator": _radiator,
    "door": _door,
    "box": _box,
}
