"""A pair of lower legs from behind, painted from two rearfoot angles, and what they wear.

A leg is a height field: for each point of the picture, how far the skin stands out towards the
camera, in centimetres. It is put together from the calf and ankle, which follow the line of the
leg, the heel, which hangs below the ankle and is tilted against that line by the rearfoot angle,
and the foot in front of it. The Achilles tendon runs along both and bends where they meet, as in
Helbing's sign. Slopes of the field give the shading, its hollows the soft shadows.

Each leg's angle also turns its forefoot and shapes the inner side of its ankle. All the rest is
drawn at random and knows nothing of the angles: build, skin, clothes, stance.

Lengths are in cm on the leg, heights `h` above the floor at the heel, `u` to the side from the
ankle's centre, positive away from the other leg (lateral). Shapes are those of `canvas`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from synthetic.canvas import Colour, Field, Mask, View, bump, clouds, curve, paint, rise
from synthetic.scene import RISE, Light

ANKLE = 7.5  # cm above the floor: below it a heel tilts, and so high a heel box reaches
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
SHOES = ((0.75, 0.75, 0.74), (0.035, 0.035, 0.04), (0.07, 0.12, 0.28), (0.42, 0.05, 0.06),
         (0.22, 0.23, 0.25), (0.30, 0.17, 0.09), (0.10, 0.26, 0.20))  # fmt: skip
SOCKS = ((0.72, 0.72, 0.72), (0.03, 0.03, 0.035), (0.25, 0.25, 0.27), (0.06, 0.09, 0.22),
         (0.45, 0.08, 0.09), (0.55, 0.50, 0.42), (0.12, 0.28, 0.22))  # fmt: skip
CLOTHS = ((0.06, 0.09, 0.18), (0.02, 0.02, 0.025), (0.16, 0.17, 0.19), (0.36, 0.31, 0.23),
          (0.12, 0.15, 0.10), (0.11, 0.16, 0.27), (0.45, 0.45, 0.46))  # fmt: skip
Feet = Literal["bare", "socks", "sandals", "shoes"]
FEET: tuple[Feet, ...] = ("bare", "socks", "sandals", "shoes")
FEET_SHARES = (0.90, 0.04, 0.02, 0.04)
FOOTBED = 1.7  # cm, the upper edge of a sandal's sole


@dataclass(frozen=True)
class Outfit:
    """What a person wears on feet and legs; heights in cm above the floor."""

    feet: Feet
    shoe: Colour  # of the straps, too
    sole: Colour
    sock: Colour | None
    sock_top: float
    heel_patch: Colour | None
    cloth: Colour | None  # of the trousers
    hem: float
    loose: float  # cm between cloth and leg


def outfit(rng: np.random.Generator) -> Outfit:
    """Return random clothes; a hem hides nothing below 18 cm."""
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
    worn: Outfit


def person(rng: np.random.Generator, worn: Outfit) -> Person:
    """Return a random person in these clothes."""
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
        worn=worn,
    )


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


def stand(
    view: View,
    build: Person,
    stance: float,
    sway: float,
    *,
    side: int,
    angle: float,
    rng: np.random.Generator,
) -> Leg:
    """Return one leg; angle in degrees, pronation positive.

    `stance` is the distance in cm from heel to heel; by `sway` degrees the weight on one leg tilts
    both.
    """
    tilt = build.bow + rng.normal(0, 0.6) + side * sway
    shift = side * stance / 2 + rng.normal(0, 0.25)
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


def paint_leg(canvas: Field, leg: Leg, build: Person, lit: Light, rng: np.random.Generator) -> Mask:
    """Paint one leg into the (R, C, 3) canvas; return the heel's (R, C) mask in its columns."""
    worn = build.worn
    shod = worn.feet == "shoes"
    body, body_cover = _calf(leg, build, shod=shod)
    heel, heel_cover = _heel(leg, build, shod=shod)
    foot, foot_cover = _foot(leg, shod=shod)
    joined = _union(body, heel, 0.25 if shod else 0.7)
    skin = _skin(leg, build, (body.shape[0], body.shape[1]), rng)
    if not shod:
        # Heels are paler and redder than legs, most of all where the pad meets the floor.
        pad = heel_cover * np.clip((heel - body) * 4 + 0.5, 0, 1) * np.clip(1 - leg.h / 5.5, 0, 1)
        skin *= 1 + pad[..., None] * np.array((0.20, 0.04, 0.02))
    if worn.sock is not None:
        within = np.clip((worn.sock_top + 0.3 * bump(leg.u - leg.foot, 2.0) - leg.h) * leg.px, 0, 1)
        joined = joined + 0.25 * within
        skin += within[..., None] * (_knit(leg, worn, heel - body, rng) - skin)
    if shod:
        ahead = (foot_cover * (1 - body_cover))[..., None]
        skin += ahead * (0.9 * np.array(worn.shoe) - skin)
        skin += heel_cover[..., None] * (_counter(leg, worn.shoe, worn.sole) - skin)
    cover = np.maximum(np.maximum(body_cover, heel_cover), foot_cover)
    surface = np.maximum(joined, foot)
    if worn.feet == "sandals":
        surface, cover = _strap_on(surface, cover, skin, leg, worn)
    # Where skin meets the floor, little light comes in between.
    light = _shade(surface, leg, lit) * (1 - 0.5 * np.exp(-np.abs(leg.h) / 0.45))[..., None]
    area = canvas[:, leg.columns]
    if worn.cloth is not None:  # it keeps light from the skin below its hem
        light = light * (1 - 0.45 * np.exp(-np.abs(worn.hem - leg.h) / 1.5))[..., None]
    area += cover[..., None] * (skin * light - area)
    if worn.cloth is not None and leg.h[0, 0] > worn.hem + 0.5:
        _dress(area, leg, build, lit, rng)
    mask: Mask = (heel_cover > 0.5) & (leg.h <= ANKLE)
    return mask


def _knit(leg: Leg, worn: Outfit, ahead: Field, rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) paint of a sock, its heel `ahead` cm before the leg."""
    shape = (leg.h.size, leg.u.size)
    ribs = 0.5 + 0.5 * np.cos(2 * np.pi * leg.u / 0.45)
    cuff = np.clip((leg.h - worn.sock_top + 3.5) * 3, 0, 1)
    tone = 1 + 0.07 * clouds(shape, 1.6, rng) + 0.05 * clouds(shape, leg.px, rng)
    tone = tone * (1 - 0.2 * ribs * (0.3 + 0.7 * cuff)) * (1 - 0.25 * bump(cuff - 0.5, 0.2))
    plain = np.broadcast_to(np.array(worn.sock), (*shape, 3))
    if worn.heel_patch is not None:
        patch = np.clip(ahead * 4 + 0.5, 0, 1) * np.clip((5.5 - leg.h) * 2, 0, 1)
        plain = plain + patch[..., None] * (np.array(worn.heel_patch) - plain)
    knit: Field = plain * tone[..., None]
    return knit


def _strap_on(
    surface: Field, cover: Field, skin: Field, leg: Leg, worn: Outfit
) -> tuple[Field, Field]:
    """Put a sandal's sole and heel strap on; return surface and cover, having changed the paint."""
    h = leg.h
    flat = leg.heel[int(np.argmin(np.abs(h - FOOTBED)))]
    half = 3.55 + 0.15 * bump(h - 0.9, 0.6)
    aside = np.abs(leg.u - flat)
    sole = np.clip((half - aside) * leg.px + 0.5, 0, 1) * np.clip(
        (FOOTBED - h) * leg.px + 0.5, 0, 1
    ) * np.clip(h * leg.px + 0.5, 0, 1)  # fmt: skip
    skin += sole[..., None] * (
        np.array(worn.sole) * (1 - 0.4 * bump(h - FOOTBED + 0.5, 0.12))[..., None] - skin
    )
    middle = 5.2 + 0.06 * (leg.u - leg.tendon) ** 2
    strap = np.clip((0.8 - np.abs(h - middle)) * leg.px + 0.5, 0, 1) * cover
    stitches = 1 - 0.3 * bump(np.abs(h - middle) - 0.62, 0.08)
    skin += strap[..., None] * (np.array(worn.shoe) * stitches[..., None] - skin)
    depth = 5.4 * np.sqrt(1 - np.minimum(aside / half, 1) ** 2)
    raised = np.where(sole > 0, np.maximum(surface, depth), surface + 0.3 * strap)
    return raised, np.maximum(cover, sole)


def _dress(area: Field, leg: Leg, build: Person, lit: Light, rng: np.random.Generator) -> None:
    """Put a trouser leg on the (R, C, 3) area, from its hem upwards."""
    worn = build.worn
    rows = int(np.searchsorted(-leg.h[:, 0], 1 - worn.hem))
    h = leg.h[:rows]
    shape = (rows, leg.u.size)
    off = leg.u - leg.foot[:rows]
    thick = rise(h, 10, 24)
    width = build.ankle + (build.calf - build.ankle) * thick
    # Cloth hangs from the widest part of the calf.
    sides = [curve(HEIGHTS, side, np.maximum(h, 22.0)) * width for side in (MEDIAL, LATERAL)]
    tight = [curve(HEIGHTS, side, h) * width for side in (MEDIAL, LATERAL)]
    hang = min(1.0, worn.loose)
    medial, lateral = (
        worn.loose + hang * wide + (1 - hang) * close
        for wide, close in zip(sides, tight, strict=True)
    )
    half = np.where(off < 0, medial, lateral)
    stretched = clouds((max(2, rows // 3), leg.u.size), 0.9 * leg.px, rng)
    folds = np.repeat(stretched, 4, axis=0)[:rows]
    folds = folds if len(folds) == rows else np.resize(folds, shape)
    field = 6.0 * np.sqrt(1 - np.minimum(np.abs(off) / half, 1) ** 2) + 0.35 * worn.loose * folds
    hem = worn.hem + 0.4 * np.sin(leg.u * 0.5 + worn.loose)
    cover = np.clip((half - np.abs(off)) * leg.px + 0.5, 0, 1) * np.clip(
        (h - hem) * leg.px + 0.5, 0, 1
    )
    tone = 1 + 0.06 * clouds(shape, 1.5, rng) + 0.07 * clouds(shape, leg.px, rng)
    tone = tone * (1 - 0.35 * bump(h - hem - 1.6, 0.12)) * (1 - 0.3 * bump(h - hem, 0.25))
    light = _shade(np.where(cover > 0, field, -3.0), leg, lit)
    cloth = np.array(worn.cloth) * tone[..., None]
    area[:rows] += cover[..., None] * (cloth * light - area[:rows])


def _calf(leg: Leg, build: Person, *, shod: bool) -> tuple[Field, Field]:
    """Return height field and cover of calf, ankle and the foot's sides."""
    h = leg.h
    thick = rise(h, 10, 24)  # 1 in the calf, 0 at the ankle
    width = build.ankle + (build.calf - build.ankle) * thick
    medial, lateral = (curve(HEIGHTS, side, h) * width for side in (MEDIAL, LATERAL))
    medial = medial + leg.bulge * bump(h - 5.5, 2.0)
    off, beside = leg.u - leg.foot, leg.u - leg.tendon
    half = np.where(off < 0, medial, lateral)
    # An ellipse in the calf; towards the ankle the sides fall away from the ridge of the tendon.
    ellipse = np.sqrt(1 - np.minimum(np.abs(off) / half, 1) ** 2)
    field = curve(HEIGHTS, DEPTH, h) * (0.62 + 0.38 * thick) * ellipse
    ridge = 0.5 * (1 + np.cos(np.pi * np.minimum(np.abs(beside) / (0.9 * half), 1)))
    hollow = rise(h, 1, 9) * (1 - rise(h, 10, 20)) * bump(np.abs(beside) - 1.75, 0.75)
    field += (1 - thick) * (0.9 * ridge - 0.5 * build.tendon * hollow)
    # The tendon is narrowest some 4 cm above the heel bone and widens into the muscle.
    cord = np.exp(-(np.abs(beside / (0.72 + 0.07 * np.abs(h - 10.5))) ** 3))
    field += 0.75 * build.tendon * rise(h, 3.5, 8) * (1 - rise(h, 12, 23)) * cord
    # Malleoli, and the two heads of the calf muscle with the groove between them.
    field += 1.1 * build.malleoli * bump(off + 0.86 * medial, 0.85) * bump(h - 8.6, 1.25)
    field += 1.1 * build.malleoli * bump(off - 0.86 * lateral, 0.8) * bump(h - 7.2, 1.25)
    field += 0.75 * build.calf * bump(off + 2.4, 2.0) * bump(h - 27.5, 5.0)
    field += 0.65 * build.calf * bump(off - 2.3, 1.9) * bump(h - 29.5, 5.0)
    field -= 0.35 * bump(off, 0.8) * bump(h - 31, 7.5)
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
        half, depth = curve(SHOE_HEIGHTS, SHOE_WIDTH, h), curve(SHOE_HEIGHTS, SHOE_DEPTH, h)
        top = COLLAR + 0.9 * bump(leg.u - middle, 1.2)  # with a tab to pull it on
    else:
        half, depth = curve(HEEL_HEIGHTS, HEEL_WIDTH, h), curve(HEEL_HEIGHTS, HEEL_DEPTH, h)
        depth = depth - 5 * rise(h, 6.0, 9.5)  # it sinks into the tendon
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
        squared = ((leg.u - sideways) / wide) ** 2 + ((leg.h - RISE * ahead) / tall - 0.8) ** 2
        part = tall * np.sqrt(np.maximum(1 - squared, 0)) - 0.3 * ahead
        field = np.maximum(field, np.where(squared < 1, part, -9.0))
        cover = np.maximum(cover, np.clip((1 - np.sqrt(squared)) * tall * leg.px + 0.5, 0, 1))
    return field, cover * np.clip((leg.h - 0.3) * leg.px + 0.5, 0, 1)


def _shade(surface: Field, leg: Leg, lit: Light) -> Field:
    """Return the (R, C, 3) light that a surface of (R, C) cm sends to the camera."""
    smooth = gaussian_filter(surface, 0.10 * leg.px, truncate=3)
    up, left = np.gradient(smooth, 1 / leg.px)  # of the normal; rows run downwards
    right = -left
    length = np.sqrt(right**2 + up**2 + 1)
    lamp = lit.towards
    diffuse = (right * lamp[0] + up * lamp[1] + lamp[2]) / length
    diffuse = np.maximum((diffuse + 0.25) / 1.25, 0)
    sky = 0.75 + 0.25 * up / length
    # Hollows see less of the room: how far the surface lies below its surroundings.
    near = surface - gaussian_filter(surface, 0.9 * leg.px, truncate=2.5)
    seen = np.clip(1 + 0.22 * near, 0.45, 1.15)
    light = (lit.ambient * sky + (1.15 - lit.ambient) * diffuse) * seen
    # Light that went through skin comes out red, so its shadows are warm.
    warmth = 0.12 * (1 - light) * light
    return np.stack([light + warmth, light, light - 0.5 * warmth], axis=-1)


def _skin(leg: Leg, build: Person, shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Return the (R, C, 3) colour of the leg's skin."""
    tone = 1 + 0.05 * build.blotches * clouds(shape, 2.2 * leg.px, rng)
    tone += 0.035 * build.blotches * clouds(shape, 0.5 * leg.px, rng)
    tone += 0.03 * clouds(shape, 2.0, rng)
    flush = 0.06 * build.blotches * clouds(shape, 3.0 * leg.px, rng)[..., None]
    strands = np.repeat(clouds((shape[0] // 4 + 1, shape[1]), 1.6, rng), 4, axis=0)[: shape[0]]
    tone -= 0.16 * build.hair * np.clip(strands - 0.25, 0, 1) * rise(leg.h, 12, 22)
    flushed = 1 + flush * np.array((1.0, -0.4, -0.6))
    paint: Field = tone[..., None] * np.array(build.skin) * flushed
    return paint


def _counter(leg: Leg, shoe: Colour, sole: Colour) -> Field:
    """Return the (R, C, 3) paint of a shoe from behind: sole, counter, stripe along the heel."""
    h, aside = leg.h, np.abs(leg.u - leg.heel)
    stripe = (np.clip((0.75 - aside) * leg.px + 0.5, 0, 1))[..., None]
    seams = 1 - 0.35 * bump(aside - 0.8, 0.1) - 0.3 * bump(h - COLLAR + 0.4, 0.12)
    upper = (np.array(shoe) + stripe * 0.5 * (np.array(sole) - np.array(shoe))) * seams[..., None]
    is_sole = np.clip((SOLE - h) * leg.px + 0.5, 0, 1)[..., None]
    grooves = 1 - 0.45 * bump(h - SOLE, 0.13) - 0.2 * bump(h - 0.6, 0.1)
    paint: Field = (is_sole * np.array(sole) + (1 - is_sole) * upper) * grooves[..., None]
    return paint
