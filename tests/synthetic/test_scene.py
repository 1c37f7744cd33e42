"""synthetic/scene.py: floors, walls and furniture are visible and independent."""

from dataclasses import replace

import numpy as np
import pytest

from synthetic import scene
from synthetic.canvas import View, generator
from synthetic.scene import FLOOR_SHARES, FURNITURE_KINDS, WALL_SHARES, Furniture

VIEW = View(left=-15, bottom=-4, width=30, height=30, density=6)
POSITION = scene.CameraPosition(along=0, wall=60, distance=150, turn=0)
EMPTY = replace(
    scene.random_room(generator("room"), studio=False),
    wall="paint", floor="plain", baseboard=None, rug=None, furniture=(),
)  # fmt: skip


def background(**changes):
    view_of_room = scene.Scene(
        VIEW, replace(EMPTY, **changes), POSITION, scene.random_light(generator("light")), 6.0
    )
    return scene.background(view_of_room, generator("shot"))


def seen(canvas):
    assert canvas.shape == (180, 180, 3)
    assert np.isfinite(canvas).all()
    assert canvas.min() >= 0
    return canvas


@pytest.mark.parametrize("kind", [k for k in FLOOR_SHARES if k != "plain"])
def test_a_floor_ends_at_the_wall(kind):
    changed = np.abs(seen(background(floor=kind)) - seen(background())).max(axis=(1, 2)) > 0.003
    edge = 180 - round((POSITION.floor_height(POSITION.wall) + 4) * 6)
    assert changed[edge + 12 :].mean() > 0.9
    assert not changed[: edge - 12].any()


@pytest.mark.parametrize("kind", [k for k in WALL_SHARES if k != "paint"])
def test_a_wall_ends_at_the_floor(kind):
    changed = np.abs(seen(background(wall=kind)) - seen(background())).max(axis=(1, 2)) > 0.003
    edge = 180 - round((POSITION.floor_height(POSITION.wall) + 4) * 6)
    assert changed[: edge - 12].all()
    assert not changed[edge + 12 :].any()


@pytest.mark.parametrize("kind", FURNITURE_KINDS)
def test_furniture_is_visible_at_its_position(kind):
    item = Furniture(kind, 0.0, 5.0, 20.0, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9))
    changed = np.abs(seen(background(furniture=(item,))) - seen(background())).max(axis=2) > 0.02
    middle = 90
    assert changed[:, middle - 35 : middle + 35].mean() > 0.1
    away = replace(item, along_wall=500.0)
    assert np.array_equal(background(furniture=(away,)), background())


def test_distant_points_appear_higher_and_smaller():
    ahead = np.linspace(0, 140, 50)
    assert (np.diff([POSITION.floor_height(z) for z in ahead]) > 0).all()
    assert (np.diff([POSITION.shrink(z) for z in ahead]) > 0).all()
    assert POSITION.floor_height(1e9) == pytest.approx(
        scene.RISE * POSITION.distance
    )  # the horizon
