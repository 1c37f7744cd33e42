"""anklealign/camera.py: the same photo whenever it is taken, and angles where they belong."""

from dataclasses import replace

import numpy as np
import pytest

from anklealign import boxes, camera, images, phantom, shots
from anklealign.camera import Sitting
from anklealign.params import Phantom

SITTING = Sitting("neutral-0", "FO6K58", 1, 4.0, 5.0, 700)


def taken(sitting, **changes):
    return camera.photograph(1, replace(sitting, **changes))


def test_a_photo_is_the_same_whenever_it_is_drawn():
    first = taken(SITTING)
    other = taken(SITTING, who="neutral-1")
    again = taken(SITTING)
    assert np.array_equal(first.pixels, again.pixels)
    assert (first.heel_left, first.heel_right) == (again.heel_left, again.heel_right)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("who", ["neutral-0", "neutral-1", "neutral-2", "neutral-5"])
def test_only_the_heels_follow_the_angle(who):
    out, inwards = (taken(SITTING, who=who, left=angle, right=angle) for angle in (14.0, -4.0))
    # Pronation moves the left heel's bottom to the left and the right one's to the right.
    assert out.heel_left[0] < inwards.heel_left[0]
    assert out.heel_right[2] > inwards.heel_right[2]
    # All above the ankles, where the class must not show, is the same.
    top = min(out.heel_left[1], out.heel_right[1])
    above = slice(0, max(8, top - (out.heel_left[3] - top)))
    assert np.abs(out.pixels[above].astype(int) - inwards.pixels[above]).mean() < 1
    assert out.pixels.shape == inwards.pixels.shape


def test_one_room_looks_another_way_at_every_shot():
    one, other = (taken(SITTING, number=number).pixels for number in (1, 2))
    assert one.shape != other.shape or np.abs(one.astype(int) - other).mean() > 5


def heels_are_large_and_inside(plan):
    for shot in plan:
        first = replace(shot, planted="", fate="")
        (photo,) = phantom._draw(1, [first])
        opened = images.open_photo(photo.data, max_megapixels=20)
        assert opened.format == shot.form
        assert opened.orientation == shot.orientation
        assert max(opened.width, opened.height) == shot.sitting.side
        left, right = (
            boxes.upright(box, photo.width, photo.height, shot.orientation) for box in photo.heels
        )
        for box in (left, right):
            assert 0 < box[0] < box[2] < opened.width, shot
            assert 0 < box[1] < box[3] < opened.height, shot
            assert box[3] - box[1] >= opened.height / 6, shot
        assert left[0] < right[0], shot
        assert left[2] < right[2], shot


def plan():
    return [s for s in shots.plan(Phantom(1, 323, 22, 1.0, 0))[1] if not s.fate]


def test_each_heel_lies_inside_the_photo_and_spans_a_sixth_of_its_height():
    heels_are_large_and_inside(plan()[::40])


@pytest.mark.slow
def test_each_heel_of_the_whole_set_spans_a_sixth_of_the_height():
    heels_are_large_and_inside(plan())
