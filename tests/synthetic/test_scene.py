"""synthetic/scene.py: every floor, wall and thing can be seen, and none depends on another."""

from dataclasses import replace

import numpy as np
import pytest

from synthetic import scene
from synthetic.canvas import View, generator
from synthetic.scene import FLOOR_SHARES, THINGS, WALL_SHARES, Furniture

VIEW = View(left=-15, bottom=-4, width=30, height=30, density=6)
AT = scene.Place(along=0, wall=60, distance=150, turn=0)
EMPTY = replace(
    scene.room(generator("room"), studio=False),
    wall="paint", floor="plain", skirting=None, rug=None, things=(),
)  # fmt: skip


def background(**changes):
    setting = scene.Scene(VIEW, replace(EMPTY, **changes), AT, scene.light(generator("light")), 6.0)
    return scene.background(setting, generator("shot"))


def seen(canvas):
    assert canvas.shape == (180, 180, 3)
    assert np.isfinite(canvas).all()
    assert canvas.min() >= 0
    return canvas


@pytest.mark.parametrize("kind", [k for k in FLOOR_SHARES if k != "plain"])
def test_a_floor_ends_at_the_wall(kind):
    changed = np.abs(seen(background(floor=kind)) - seen(background())).max(axis=(1, 2)) > 0.003
    edge = 180 - round((AT.up(AT.wall) + 4) * 6)
    assert changed[edge + 12 :].mean() > 0.9
    assert not changed[: edge - 12].any()


@pytest.mark.parametrize("kind", [k for k in WALL_SHARES if k != "paint"])
def test_a_wall_ends_at_the_floor(kind):
    changed = np.abs(seen(background(wall=kind)) - seen(background())).max(axis=(1, 2)) > 0.003
    edge = 180 - round((AT.up(AT.wall) + 4) * 6)
    assert changed[: edge - 12].all()
    assert not changed[edge + 12 :].any()


@pytest.mark.parametrize("kind", THINGS)
def test_a_thing_is_seen_where_it_stands(kind):
    thing = Furniture(kind, 0.0, 5.0, 20.0, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9))
    changed = np.abs(seen(background(things=(thing,))) - seen(background())).max(axis=2) > 0.02
    middle = 90
    assert changed[:, middle - 35 : middle + 35].mean() > 0.1
    away = replace(thing, place=500.0)
    assert np.array_equal(background(things=(away,)), background())


def test_what_lies_further_ahead_is_seen_higher_and_smaller():
    ahead = np.linspace(0, 140, 50)
    assert (np.diff([AT.up(z) for z in ahead]) > 0).all()
    assert (np.diff([AT.shrink(z) for z in ahead]) > 0).all()
    assert AT.up(1e9) == pytest.approx(scene.RISE * AT.distance)  # the horizon
