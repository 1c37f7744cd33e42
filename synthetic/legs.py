"""Paint a pair of lower legs and their clothing from behind, given two rearfoot angles.

A leg is a height field: for each point of the picture, the distance in cm by which the skin extends
toward the camera. The field combines the calf and ankle, which follow the line of the leg; the
heel, which lies below the ankle and is tilted against that line by the rearfoot angle; and the foot
in front of it. The Achilles tendon follows both lines and bends where they meet (Helbing's sign).
The slopes of the field determine the shading, its hollows the ambient occlusion.

The angle of a leg also turns its forefoot and shapes the inner side of its ankle. Build, skin,
clothing and stance are random and independent of the angles.

Lengths are in cm on the leg. `h` is the height above the floor at the heel, `u` the lateral
distance from the center of the ankle, positive away from the other leg. Array shapes are those of
`canvas`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from synthetic.canvas import Color, Field, Mask, View, bump, clouds, curve, paint, rise
from synthetic.scene import RISE, Light

ANKLE = 7.5  # cm above the floor: pivot of the heel and upper edge of a heel box
LEFT, RIGHT = -1, 1  # side of a leg in the picture, and the sign of its lateral direction

# Half widths of calf and ankle in cm from the leg's line, by height above the floor. The medial
# head of the calf muscle is larger and extends lower; the lateral malleolus is lower and further
# back than the medial one.
HEIGHTS = (0.0, 2.5, 4.5, 6.2, 7.4, 8.6, 10.0, 12.0, 14.5, 18.0, 22.0, 26.0, 30.0, 34.0, 38.0, 44.0)
MEDIAL = (2.9, 2.9, 2.9, 3.05, 3.35, 3.55, 3.2, 2.85, 2.9, 3.5, 4.5, 5.4, 5.9, 5.8, 5.4, 5.1)
LATERAL = (2.9, 2.9, 3.0, 3.35, 3.5, 3.2, 2.95, 2.8, 2.85, 3.3, 4.0, 4.7, 5.1, 5.1, 4.9, 4.9)
# Depth of leg and heel: the calf is thick, the ankle thin and its back a narrow ridge.
DEPTH = (2.4, 2.4, 2.6, 3.0, 3.2, 3.3, 3.3, 3.4, 3.6, 4.2, 5.0, 5.6, 5.9, 5.9, 5.6, 5.6)
HEEL_HEIGHTS = (0.0, 0.35, 0.9, 1.8, 3.0, 4.2, 5.4, 6.6, 8.0, 9.5)
HEEL_WIDTH = (2.25, 2.65, 2.9, 3.0, 2.92, 2.7, 2.35, 1.95, 1.5, 1.2)
HEEL_DEPTH = (3.0, 3.9, 4.6, 5.1, 5.2, 4.9, 4.4, 3.9, 3.4, 2.6)
SHOE_HEIGHTS = (0.0, 0.25, 0.7, 2.2, 2.6, 4.0, 5.5, 6.8, 7.6, 8.6)
SHOE_WIDTH = (3.35, 3.65, 3.8, 3.7, 3.5, 3.5, 3.45, 3.5, 3.6, 3.5)
SHOE_DEPTH = (4.4, 4.8, 5.0, 5.0, 4.9, 5.5, 5.6, 5.3, 5.1, 5.0)
SOLE, COLLAR = 2.4, 7.2  # cm: upper edge of the sole, rim of the shoe beside the heel tab

# Skin in linear light, light to dark: plausible reflectances in red, green and blue.
SKIN = (
    (0.66, 0.43, 0.33),
    (0.60, 0.37, 0.26),
    (0.50, 0.29, 0.19),
    (0.38, 0.205, 0.125),
    (0.24, 0.125, 0.075),
    (0.125, 0.065, 0.042),
)
SHOES = ((0.75, 0.75, 0.74), (0.035, 0.035, 0.04), (0.07, 0.12, 0.28), (0.42, 0.05, 0.06),
         (0.22, 0.23, 0.25), (0.30, 0.17, 0.09), (0.10, 0.26, 0.20))  # fmt: skip
SOCKS = ((0.72, 0.72, 0.72), (0.03, 0.03, 0.035), (0.25, 0.25, 0.27), (0.06, 0.09, 0.22),
         (0.45, 0.08, 0.09), (0.55, 0.50, 0.42), (0.12, 0.28, 0.22))  # fmt: skip
CLOTHS = ((0.06, 0.09, 0.18), (0.02, 0.02, 0.025), (0.16, 0.17, 0.19), (0.36, 0.31, 0.23),
          (0.12, 0.15, 0.10), (0.11, 0.16, 0.27), (0.45, 0.45, 0.46))  # fmt: skip
Feet = Literal["bare", "socks", "sandals", "shoes"]
FEET: tuple[Feet, ...] = ("bare", "socks", "sandals", "shoes")
FEET_SHARES = (0.90, 0.04, 0.02, 0.04)
FOOTBED = 1.7  # cm, upper edge of a sandal's sole


@dataclass(frozen=True)
class Outfit:
    """Clothing of feet and legs; heights in cm above the floor."""

    feet: Feet
    shoe: Color  # also of the straps of a sandal
    sole: Color
    sock: Color | None
    sock_top: float
    heel_patch: Color | None
    cloth: Color | None  # of the trousers
    hem: float
    loose: float  # cm between cloth and leg


def random_outfit(rng: np.random.Generator) -> Outfit:
    """Return random clothing; a hem is at 18 cm or above."""
    feet = FEET[rng.choice(len(FEET), p=FEET_SHARES)]
    shoe, sole = paint(SHOES, rng), paint(SHOES[:1] * 2 + SHOES[1:2] + SHOES[5:6], rng)
    sock = paint(SOCKS, rng)
    wears = feet == "socks" or (feet == "shoes" and rng.random() < 0.5)
    return Outfit(
        feet=feet,
        shoe=shoe,
        sole=sole,
        sock=sock if wears else None,
        sock_top=float(rng.uniform(10.0, 22.0)),
        heel_patch=paint(SOCKS, rng) if rng.random() < 0.3 else None,
        cloth=paint(CLOTHS, rng) if rng.random() < 0.07 else None,
        hem=float(rng.uniform(18.0, 29.0)),
        loose=float(rng.uniform(0.3, 2.0)),
    )


@dataclass(frozen=True)
class Subject:
    """Properties that all photos of a subject share; factors are around 1."""

    skin: Color
    calf: float
    ankle: float
    heel: float
    size: float  # multiplies the lengths of an average adult
    bow: float  # degrees by which the legs spread from ankle to knee
    tendon: float
    malleoli: float
    blotches: float
    hair: float
    outfit: Outfit


def random_subject(rng: np.random.Generator, outfit: Outfit) -> Subject:
    """Return a random subject with this clothing."""
    tone = rng.uniform(0, len(SKIN) - 1)
    low = min(int(tone), len(SKIN) - 2)
    mix = tone - low
    red, green, blue = (
        (1 - mix) * a + mix * b for a, b in zip(SKIN[low], SKIN[low + 1], strict=True)
    )
    warmth = rng.uniform(0.94, 1.06)
    return Subject(
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
        outfit=outfit,
    )


def _union(a: Field, b: Field, blend: float) -> Field:
    """Return the maximum of two height fields, smoothed over `blend` cm at the seam."""
    difference = a - b
    return 0.5 * (a + b + np.sqrt(difference**2 + blend**2))


@dataclass(frozen=True)
class Leg:
    """Position of one leg: its coordinates in the canvas and the lines it follows."""

    columns: slice  # of the canvas
    u: Field  # (1, C)
    h: Field  # (R, 1)
    px: float  # pixels per cm
    tendon: Field  # (R, 1) u of the Achilles tendon: line of the leg, bending into that of the heel
    foot: Field  # (R, 1) u of the middle of calf, ankle and foot; partly follows the heel
    heel: Field  # (R, 1) u of the middle of the heel
    toe_out: float  # cm outwards per cm ahead along the foot
    bulge: float  # cm by which the inner side below the ankle protrudes


def place_leg(
    view: View,
    subject: Subject,
    stance: float,
    sway: float,
    *,
    side: int,
    angle: float,
    rng: np.random.Generator,
) -> Leg:
    """Return one leg; `angle` in degrees, pronation positive.

    `stance` is the distance between the heels in cm; `sway` is the tilt of both legs in degrees.
    """
    tilt = subject.bow + rng.normal(0, 0.6) + side * sway
    shift = side * stance / 2 + rng.normal(0, 0.25)
    outward = side * (view.places - shift) / subject.size
    columns = np.flatnonzero((outward[0] > -9.0) & (outward[0] < 10.0))
    inside = slice(int(columns[0]), int(columns[-1]) + 1)
    h = (
        view.heights - rng.normal(0, 0.25)
    ) / subject.size  # one foot is slightly ahead of the other
    bend = np.sqrt((h - ANKLE) ** 2 + 1.0)
    leg_line = math.tan(math.radians(tilt)) * (h - ANKLE + bend) / 2
    heel_line = math.tan(math.radians(angle - tilt)) * (ANKLE - h + bend) / 2
    return Leg(
        columns=inside,
        u=outward[:, inside],
        h=h,
        px=view.density * subject.size,
        tendon=leg_line + heel_line,
        foot=leg_line + 0.8 * heel_line,
        heel=math.tan(math.radians(angle - tilt)) * (ANKLE - h),
        # Pronation is a movement in three planes: heel and forefoot turn out ("too many toes",
        # Johnson and Strom 1989), and the inner side bulges (Foot Posture Index).
        toe_out=math.sin(math.radians(rng.uniform(3, 13) + 0.7 * (angle - 5))) + 0.085,
        bulge=0.05 * (angle - 5),
    )


def paint_leg(
    canvas: Field, leg: Leg, subject: Subject, light: Light, rng: np.random.Generator
) -> Mask:
    """Paint one leg into the (R, C, 3) canvas; return the (R, C) heel mask in its columns."""
    outfit = subject.outfit
    shape = _shape(leg, subject)
    paint = _skin(leg, subject, (leg.h.size, leg.u.size), rng)
    surface = shape.skin_surface
    if outfit.feet != "shoes":
        _redden_heel(paint, leg, shape)
    if outfit.sock is not None:
        surface = _put_on_sock(paint, leg, outfit, shape, rng)
    if outfit.feet == "shoes":
        _put_on_shoe(paint, leg, outfit, shape)
    surface, cover = np.maximum(surface, shape.foot), shape.cover
    if outfit.feet == "sandals":
        surface, cover = _put_on_sandal(surface, cover, paint, leg, outfit)
    # Contact shadow on the floor.
    shading = _shade(surface, leg, light) * (1 - 0.5 * np.exp(-np.abs(leg.h) / 0.45))[..., None]
    area = canvas[:, leg.columns]
    if outfit.cloth is not None:  # shadow of the trousers on the skin below the hem
        shading = shading * (1 - 0.45 * np.exp(-np.abs(outfit.hem - leg.h) / 1.5))[..., None]
    area += cover[..., None] * (paint * shading - area)
    if outfit.cloth is not None and leg.h[0, 0] > outfit.hem + 0.5:
        _put_on_trousers(area, leg, subject, light, rng)
    mask: Mask = (shape.heel_cover > 0.5) & (leg.h <= ANKLE)
    return mask


@dataclass(frozen=True)
class Shape:
    """(R, C) height fields in cm and covers, 0 to 1, of the parts of one leg."""

    body: Field
    body_cover: Field
    heel: Field
    heel_cover: Field
    foot: Field
    foot_cover: Field
    skin_surface: Field  # body and heel, blended

    @property
    def cover(self) -> Field:
        """Cover of all parts together."""
        return np.maximum(np.maximum(self.body_cover, self.heel_cover), self.foot_cover)


def _shape(leg: Leg, subject: Subject) -> Shape:
    """Return the height fields and covers of calf, heel and foot."""
    shod = subject.outfit.feet == "shoes"
    body, body_cover = _calf(leg, subject, shod=shod)
    heel, heel_cover = _heel(leg, subject, shod=shod)
    foot, foot_cover = _foot(leg, shod=shod)
    blended = _union(body, heel, 0.25 if shod else 0.7)
    return Shape(body, body_cover, heel, heel_cover, foot, foot_cover, blended)


def _redden_heel(paint: Field, leg: Leg, shape: Shape) -> None:
    """Make the (R, C, 3) paint of a bare heel paler and redder, most at its pad."""
    pad = shape.heel_cover * np.clip((shape.heel - shape.body) * 4 + 0.5, 0, 1)
    pad = pad * np.clip(1 - leg.h / 5.5, 0, 1)
    paint *= 1 + pad[..., None] * np.array((0.20, 0.04, 0.02))


def _put_on_sock(
    paint: Field, leg: Leg, outfit: Outfit, shape: Shape, rng: np.random.Generator
) -> Field:
    """Paint a sock into the (R, C, 3) paint; return the surface with its thickness added."""
    top = outfit.sock_top + 0.3 * bump(leg.u - leg.foot, 2.0)
    cover = np.clip((top - leg.h) * leg.px, 0, 1)
    paint += cover[..., None] * (_knit(leg, outfit, shape.heel - shape.body, rng) - paint)
    return shape.skin_surface + 0.25 * cover


def _put_on_shoe(paint: Field, leg: Leg, outfit: Outfit, shape: Shape) -> None:
    """Paint the upper in front of the heel, the counter and the sole into the (R, C, 3) paint."""
    ahead = (shape.foot_cover * (1 - shape.body_cover))[..., None]
    paint += ahead * (0.9 * np.array(outfit.shoe) - paint)
    counter = _counter(leg, outfit.shoe, outfit.sole)
    paint += shape.heel_cover[..., None] * (counter - paint)


def _knit(leg: Leg, outfit: Outfit, ahead: Field, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) paint of a sock; `ahead` is the (R, C) cm of the heel over the leg."""
    shape = (leg.h.size, leg.u.size)
    ribs = 0.5 + 0.5 * np.cos(2 * np.pi * leg.u / 0.45)
    cuff = np.clip((leg.h - outfit.sock_top + 3.5) * 3, 0, 1)
    tone = 1 + 0.07 * clouds(shape, 1.6, rng) + 0.05 * clouds(shape, leg.px, rng)
    tone = tone * (1 - 0.2 * ribs * (0.3 + 0.7 * cuff)) * (1 - 0.25 * bump(cuff - 0.5, 0.2))
    plain = np.broadcast_to(np.array(outfit.sock), (*shape, 3))
    if outfit.heel_patch is not None:
        patch = np.clip(ahead * 4 + 0.5, 0, 1) * np.clip((5.5 - leg.h) * 2, 0, 1)
        plain = plain + patch[..., None] * (np.array(outfit.heel_patch) - plain)
    knit: Field = plain * tone[..., None]
    return knit


def _put_on_sandal(
    surface: Field, cover: Field, skin: Field, leg: Leg, outfit: Outfit
) -> tuple[Field, Field]:
    """Paint a sandal's sole and heel strap into the paint; return surface and cover with them."""
    h = leg.h
    flat = leg.heel[int(np.argmin(np.abs(h - FOOTBED)))]
    half = 3.55 + 0.15 * bump(h - 0.9, 0.6)
    aside = np.abs(leg.u - flat)
    sole = np.clip((half - aside) * leg.px + 0.5, 0, 1) * np.clip(
        (FOOTBED - h) * leg.px + 0.5, 0, 1
    ) * np.clip(h * leg.px + 0.5, 0, 1)  # fmt: skip
    skin += sole[..., None] * (
        np.array(outfit.sole) * (1 - 0.4 * bump(h - FOOTBED + 0.5, 0.12))[..., None] - skin
    )
    middle = 5.2 + 0.06 * (leg.u - leg.tendon) ** 2
    strap = np.clip((0.8 - np.abs(h - middle)) * leg.px + 0.5, 0, 1) * cover
    stitches = 1 - 0.3 * bump(np.abs(h - middle) - 0.62, 0.08)
    skin += strap[..., None] * (np.array(outfit.shoe) * stitches[..., None] - skin)
    depth = 5.4 * np.sqrt(1 - np.minimum(aside / half, 1) ** 2)
    raised = np.where(sole > 0, np.maximum(surface, depth), surface + 0.3 * strap)
    return raised, np.maximum(cover, sole)


def _put_on_trousers(
    area: Field, leg: Leg, subject: Subject, light: Light, rng: np.random.Generator
) -> None:
    """Paint a trouser leg into the (R, C, 3) area, from its hem upwards."""
    outfit = subject.outfit
    rows = int(np.searchsorted(-leg.h[:, 0], 1 - outfit.hem))
    h = leg.h[:rows]
    shape = (rows, leg.u.size)
    off = leg.u - leg.foot[:rows]
    thick = rise(h, 10, 24)
    width = subject.ankle + (subject.calf - subject.ankle) * thick
    # Loose cloth hangs from the widest part of the calf.
    sides = [curve(HEIGHTS, side, np.maximum(h, 22.0)) * width for side in (MEDIAL, LATERAL)]
    tight = [curve(HEIGHTS, side, h) * width for side in (MEDIAL, LATERAL)]
    hang = min(1.0, outfit.loose)
    medial, lateral = (
        outfit.loose + hang * wide + (1 - hang) * close
        for wide, close in zip(sides, tight, strict=True)
    )
    half = np.where(off < 0, medial, lateral)
    stretched = clouds((max(2, rows // 3), leg.u.size), 0.9 * leg.px, rng)
    folds = np.repeat(stretched, 4, axis=0)[:rows]
    folds = folds if len(folds) == rows else np.resize(folds, shape)
    field = 6.0 * np.sqrt(1 - np.minimum(np.abs(off) / half, 1) ** 2) + 0.35 * outfit.loose * folds
    hem = outfit.hem + 0.4 * np.sin(leg.u * 0.5 + outfit.loose)
    cover = np.clip((half - np.abs(off)) * leg.px + 0.5, 0, 1) * np.clip(
        (h - hem) * leg.px + 0.5, 0, 1
    )
    tone = 1 + 0.06 * clouds(shape, 1.5, rng) + 0.07 * clouds(shape, leg.px, rng)
    tone = tone * (1 - 0.35 * bump(h - hem - 1.6, 0.12)) * (1 - 0.3 * bump(h - hem, 0.25))
    shading = _shade(np.where(cover > 0, field, -3.0), leg, light)
    cloth = np.array(outfit.cloth) * tone[..., None]
    area[:rows] += cover[..., None] * (cloth * shading - area[:rows])


def _calf(leg: Leg, subject: Subject, *, shod: bool) -> tuple[Field, Field]:
    """Return height field and cover of calf, ankle and the sides of the foot."""
    h = leg.h
    thick = rise(h, 10, 24)  # 1 in the calf, 0 at the ankle
    width = subject.ankle + (subject.calf - subject.ankle) * thick
    medial, lateral = (curve(HEIGHTS, side, h) * width for side in (MEDIAL, LATERAL))
    medial = medial + leg.bulge * bump(h - 5.5, 2.0)
    off, beside = leg.u - leg.foot, leg.u - leg.tendon
    half = np.where(off < 0, medial, lateral)
    # Elliptical at the calf; near the ankle the sides slope away from the ridge of the tendon.
    ellipse = np.sqrt(1 - np.minimum(np.abs(off) / half, 1) ** 2)
    field = curve(HEIGHTS, DEPTH, h) * (0.62 + 0.38 * thick) * ellipse
    ridge = 0.5 * (1 + np.cos(np.pi * np.minimum(np.abs(beside) / (0.9 * half), 1)))
    hollow = rise(h, 1, 9) * (1 - rise(h, 10, 20)) * bump(np.abs(beside) - 1.75, 0.75)
    field += (1 - thick) * (0.9 * ridge - 0.5 * subject.tendon * hollow)
    # The tendon is narrowest about 4 cm above the heel bone and widens into the muscle.
    cord = np.exp(-(np.abs(beside / (0.72 + 0.07 * np.abs(h - 10.5))) ** 3))
    field += 0.75 * subject.tendon * rise(h, 3.5, 8) * (1 - rise(h, 12, 23)) * cord
    # Malleoli, then the two heads of the calf muscle and the groove between them.
    field += 1.1 * subject.malleoli * bump(off + 0.86 * medial, 0.85) * bump(h - 8.6, 1.25)
    field += 1.1 * subject.malleoli * bump(off - 0.86 * lateral, 0.8) * bump(h - 7.2, 1.25)
    field += 0.75 * subject.calf * bump(off + 2.4, 2.0) * bump(h - 27.5, 5.0)
    field += 0.65 * subject.calf * bump(off - 2.3, 1.9) * bump(h - 29.5, 5.0)
    field -= 0.35 * bump(off, 0.8) * bump(h - 31, 7.5)
    # Hidden below the heel pad, or inside the shoe.
    lowest = COLLAR - 0.6 if shod else 1.6
    cover = np.clip((half - np.abs(off)) * leg.px + 0.5, 0, 1)
    cover = cover * np.clip((h - lowest) * leg.px / 8, 0, 1)
    return np.where(cover > 0, field, -3.0), cover


def _heel(leg: Leg, subject: Subject, *, shod: bool) -> tuple[Field, Field]:
    """Return height field and cover of the heel, or of the counter and sole of a shoe."""
    h, middle = leg.h, leg.heel
    if shod:
        # The sole stays flat on the floor below the tilted counter.
        flat = int(np.argmin(np.abs(h - SOLE)))
        middle = np.where(h < SOLE, middle[flat], middle)
        half, depth = curve(SHOE_HEIGHTS, SHOE_WIDTH, h), curve(SHOE_HEIGHTS, SHOE_DEPTH, h)
        top = COLLAR + 0.9 * bump(leg.u - middle, 1.2)  # heel tab
    else:
        half, depth = curve(HEEL_HEIGHTS, HEEL_WIDTH, h), curve(HEEL_HEIGHTS, HEEL_DEPTH, h)
        depth = depth - 5 * rise(h, 6.0, 9.5)  # recedes behind the tendon
        top = np.full_like(leg.u, HEEL_HEIGHTS[-1])
    half = half * subject.heel
    aside = np.abs(leg.u - middle)
    field = depth * np.sqrt(1 - np.minimum(aside / half, 1) ** 2)
    cover = np.clip((half - aside) * leg.px + 0.5, 0, 1)
    cover = cover * np.clip(h * leg.px + 0.5, 0, 1) * np.clip((top - h) * leg.px + 0.5, 0, 1)
    return np.where(cover > 0, field, -3.0), cover


def _foot(leg: Leg, *, shod: bool) -> tuple[Field, Field]:
    """Return height field and cover of the foot in front of the heel.

    The camera is above the floor, so points further ahead appear higher in the picture.
    """
    field = np.full((leg.h.size, leg.u.size), -9.0)
    cover = np.zeros_like(field)
    # Distance ahead of the heel, lateral offset, half height and half width, in cm.
    if shod:
        parts = [
            (a, leg.toe_out * a, 2.5 - 0.03 * a, 3.5) for a in (2.0, 4.5, 7.0, 9.5, 12.0, 14.5)
        ]
    else:
        parts = [(a, leg.toe_out * a, 2.1 - 0.045 * a, 2.6) for a in (3.0, 7.0, 11.0)]
        parts += [(15.0, leg.toe_out * 15 + 0.6 - 1.35 * toe, 1.15, 0.95) for toe in range(3)]
    for ahead, sideways, tall, wide in parts:
        squared = ((leg.u - sideways) / wide) ** 2 + ((leg.h - RISE * ahead) / tall - 0.8) ** 2
        part = tall * np.sqrt(np.maximum(1 - squared, 0)) - 0.3 * ahead
        field = np.maximum(field, np.where(squared < 1, part, -9.0))
        cover = np.maximum(cover, np.clip((1 - np.sqrt(squared)) * tall * leg.px + 0.5, 0, 1))
    return field, cover * np.clip((leg.h - 0.3) * leg.px + 0.5, 0, 1)


def _shade(surface: Field, leg: Leg, light: Light) -> Field:
    """Return the (R, C, 3) light that an (R, C) height field in cm reflects to the camera."""
    smooth = gaussian_filter(surface, 0.10 * leg.px, truncate=3)
    up, left = np.gradient(smooth, 1 / leg.px)  # components of the normal; rows run downwards
    right = -left
    length = np.sqrt(right**2 + up**2 + 1)
    lamp = light.direction
    diffuse = (right * lamp[0] + up * lamp[1] + lamp[2]) / length
    diffuse = np.maximum((diffuse + 0.25) / 1.25, 0)
    sky = 0.75 + 0.25 * up / length
    # Ambient occlusion: hollows lie below their surroundings and receive less light.
    near = surface - gaussian_filter(surface, 0.9 * leg.px, truncate=2.5)
    seen = np.clip(1 + 0.22 * near, 0.45, 1.15)
    shading = (light.ambient * sky + (1.15 - light.ambient) * diffuse) * seen
    # Subsurface scattering is red, so shadows on skin are warm.
    warmth = 0.12 * (1 - shading) * shading
    return np.stack([shading + warmth, shading, shading - 0.5 * warmth], axis=-1)


def _skin(leg: Leg, subject: Subject, shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) paint of the skin."""
    tone = 1 + 0.05 * subject.blotches * clouds(shape, 2.2 * leg.px, rng)
    tone += 0.035 * subject.blotches * clouds(shape, 0.5 * leg.px, rng)
    tone += 0.03 * clouds(shape, 2.0, rng)
    flush = 0.06 * subject.blotches * clouds(shape, 3.0 * leg.px, rng)[..., None]
    strands = np.repeat(clouds((shape[0] // 4 + 1, shape[1]), 1.6, rng), 4, axis=0)[: shape[0]]
    tone -= 0.16 * subject.hair * np.clip(strands - 0.25, 0, 1) * rise(leg.h, 12, 22)
    flushed = 1 + flush * np.array((1.0, -0.4, -0.6))
    paint: Field = tone[..., None] * np.array(subject.skin) * flushed
    return paint


def _counter(leg: Leg, shoe: Color, sole: Color) -> Field:
    """Return the (R, C, 3) paint of a shoe from behind: sole, counter and heel stripe."""
    h, aside = leg.h, np.abs(leg.u - leg.heel)
    stripe = (np.clip((0.75 - aside) * leg.px + 0.5, 0, 1))[..., None]
    seams = 1 - 0.35 * bump(aside - 0.8, 0.1) - 0.3 * bump(h - COLLAR + 0.4, 0.12)
    upper = (np.array(shoe) + stripe * 0.5 * (np.array(sole) - np.array(shoe))) * seams[..., None]
    is_sole = np.clip((SOLE - h) * leg.px + 0.5, 0, 1)[..., None]
    grooves = 1 - 0.45 * bump(h - SOLE, 0.13) - 0.2 * bump(h - 0.6, 0.1)
    paint: Field = (is_sole * np.array(sole) + (1 - is_sole) * upper) * grooves[..., None]
    return paint
