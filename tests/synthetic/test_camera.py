"""synthetic/camera.py: the same photo whenever it is taken, and angles where they belong."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from anklealign.config.params import Phantom
from anklealign.io import decode
from synthetic import boxes, camera, generate, legs, photo_plan, scene
from synthetic.camera import Sitting

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
        (photo,) = generate._draw(1, [first])
        opened = decode.open_photo(photo.data, max_megapixels=20)
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
    return [s for s in photo_plan.plan(Phantom(1, 323, 22, 1.0, 0))[1] if not s.fate]


def test_each_heel_lies_inside_the_photo_and_spans_a_sixth_of_its_height():
    heels_are_large_and_inside(plan()[::40])


@pytest.mark.slow
def test_each_heel_of_the_whole_set_spans_a_sixth_of_the_height():
    heels_are_large_and_inside(plan())


def extremes():
    """Compositions of 200 persons, with the steepest rolls and pitches from the least distance."""
    for number in range(200):
        rng = np.random.default_rng(number)
        build = legs.person(rng, legs.outfit(rng))
        view, frame = camera._compose(build, 1000, rng)
        for pitch, roll in itertools.product((-camera.MOST_PITCH, camera.MOST_PITCH), (-3.0, 3.0)):
            lens = camera._lens(view, replace(frame, roll=roll), pitch, scene.NEAREST)
            yield build, view, replace(frame, roll=roll), lens


def through(lens, points):
    seen = lens @ np.column_stack([points, np.ones(len(points))]).T
    return (seen[:2] / seen[2]).T


def test_a_camera_rolled_and_pitched_sees_nothing_beyond_the_canvas():
    for _, view, frame, lens in extremes():
        corners = [(x, y) for x in (0, frame.width) for y in (0, frame.height)]
        across, down = through(lens, np.array(corners, float)).T
        assert 0 < across.min() < across.max() < view.places.size
        assert 0 < down.min() < down.max() < view.heights.size


def test_a_pitch_moves_the_angle_between_leg_and_heel_by_six_tenths_of_a_degree_at_most():
    worst = 0.0
    for build, view, frame, lens in extremes():
        for side, angle in itertools.product((legs.LEFT, legs.RIGHT), (-12.0, 22.0)):
            # Above the ankle the leg's line, below it the heel's; pronation turns it outwards.
            foot, ankle = side * frame.stance / 2, legs.ANKLE * build.size
            up, down = (math.tan(math.radians(a)) for a in (build.bow, angle - build.bow))
            points = np.array(
                (
                    (foot + side * up * 12, ankle + 12),
                    (foot, ankle),
                    (foot + side * down * ankle, 0),
                )
            )
            points -= (view.left, view.bottom + view.height)
            seen = through(np.linalg.inv(lens), points * (view.density, -view.density))
            leg, heel = (math.degrees(math.atan2(*step)) for step in np.diff(seen, axis=0))
            worst = max(worst, abs(side * (heel - leg) - angle))
    assert 0.3 < worst < 0.6


def test_a_pitch_makes_what_is_nearer_to_the_camera_larger():
    _, view, frame, _ = next(extremes())
    upright = replace(frame, roll=0.0)
    corners = np.array([(0, 0), (frame.width, 0), (0, frame.height), (frame.width, frame.height)])
    middle = np.array([[frame.width / 2, frame.height / 2]])
    for pitch in (-8.0, 0.0, 8.0):
        lens = camera._lens(view, upright, pitch, 150.0)
        top_left, top_right, low_left, low_right = through(lens, corners.astype(float))
        # Less of the canvas fills the photo's width where it is seen larger.
        top, low = top_right[0] - top_left[0], low_right[0] - low_left[0]
        assert np.sign(round(low - top, 6)) == np.sign(pitch)
        expected = 2 * math.sin(math.radians(pitch)) / 150 * frame.tall / 2
        assert (low - top) / top == pytest.approx(expected, rel=0.05, abs=1e-9)
        size = (view.places.size / 2, view.heights.size / 2)
        assert through(lens, middle)[0] == pytest.approx(size)


def test_a_heels_box_goes_through_the_lens_with_the_picture(monkeypatch):
    level = [taken(SITTING, number=n) for n in range(1, 5)]
    monkeypatch.setattr(camera, "PITCH", 1e9)  # all are at one of the ends
    steep = [taken(SITTING, number=n) for n in range(1, 5)]
    moved = 0
    for before, after in zip(level, steep, strict=True):
        assert before.pixels.shape == after.pixels.shape
        for heel in ("heel_left", "heel_right"):
            one, other = getattr(before, heel), getattr(after, heel)
            moved += one != other
            # What lies in the box stays in it.
            patches = [
                np.asarray(Image.fromarray(photo.pixels).crop(box).resize((24, 24)), float)
                for photo, box in ((before, one), (after, other))
            ]
            alike = np.corrcoef(*(patch.ravel() for patch in patches))[0, 1]
            assert alike > 0.97, (heel, alike)
    assert moved >= 6
