"""synthetic/camera.py: photos are deterministic, and angles affect the right parts."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from anklealign.config.params import Synthetic
from anklealign.io import decode
from synthetic import boxes, camera, generate, legs, photo_plan, scene
from synthetic.camera import Capture

SITTING = Capture("neutral-0", "FO6K58", 1, 4.0, 5.0, 700)


def taken(capture, **changes):
    return camera.photograph(1, replace(capture, **changes))


def test_photos_are_deterministic():
    first = taken(SITTING)
    other = taken(SITTING, seed_name="neutral-1")
    again = taken(SITTING)
    assert np.array_equal(first.pixels, again.pixels)
    assert (first.heel_left, first.heel_right) == (again.heel_left, again.heel_right)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("seed_name", ["neutral-0", "neutral-1", "neutral-2", "neutral-5"])
def test_only_the_heels_depend_on_the_angle(seed_name):
    out, inwards = (
        taken(SITTING, seed_name=seed_name, left=angle, right=angle) for angle in (14.0, -4.0)
    )
    # Pronation moves the left heel's bottom to the left and the right one's to the right.
    assert out.heel_left[0] < inwards.heel_left[0]
    assert out.heel_right[2] > inwards.heel_right[2]
    # Nothing above the ankles depends on the class.
    top = min(out.heel_left[1], out.heel_right[1])
    above = slice(0, max(8, top - (out.heel_left[3] - top)))
    assert np.abs(out.pixels[above].astype(int) - inwards.pixels[above]).mean() < 1
    assert out.pixels.shape == inwards.pixels.shape


def test_photos_in_one_room_differ():
    one, other = (taken(SITTING, number=number).pixels for number in (1, 2))
    assert one.shape != other.shape or np.abs(one.astype(int) - other).mean() > 5


def heels_are_large_and_inside(plan):
    for shot in plan:
        first = replace(shot, corruption="", defect="")
        (photo,) = generate._render(1, [first])
        opened = decode.open_photo(photo.data, max_megapixels=20)
        assert opened.format == shot.file_format
        assert opened.orientation == shot.orientation
        assert max(opened.width, opened.height) == shot.capture.side
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
    return [s for s in photo_plan.plan(Synthetic(1, 323, 22, 1.0, 0))[1] if not s.defect]


def test_each_heel_lies_inside_the_photo_and_spans_a_sixth_of_its_height():
    heels_are_large_and_inside(plan()[::40])


@pytest.mark.slow
def test_each_heel_of_the_default_set_spans_a_sixth_of_the_height():
    heels_are_large_and_inside(plan())


def extremes():
    """Yield compositions of 200 subjects at maximum roll and pitch and minimum distance."""
    for number in range(200):
        rng = np.random.default_rng(number)
        subject = legs.random_subject(rng, legs.random_outfit(rng))
        view, frame = camera._compose(subject, 1000, rng)
        for pitch, roll in itertools.product((-camera.MAX_PITCH, camera.MAX_PITCH), (-3.0, 3.0)):
            lens = camera._projection(view, replace(frame, roll=roll), pitch, scene.MIN_DISTANCE)
            yield subject, view, replace(frame, roll=roll), lens


def through(lens, points):
    seen = lens @ np.column_stack([points, np.ones(len(points))]).T
    return (seen[:2] / seen[2]).T


def test_a_rolled_and_pitched_camera_sees_only_the_canvas():
    for _, view, frame, lens in extremes():
        corners = [(x, y) for x in (0, frame.width) for y in (0, frame.height)]
        across, down = through(lens, np.array(corners, float)).T
        assert 0 < across.min() < across.max() < view.places.size
        assert 0 < down.min() < down.max() < view.heights.size


def test_pitch_changes_the_rearfoot_angle_by_at_most_0_6_degrees():
    worst = 0.0
    for subject, view, frame, lens in extremes():
        for side, angle in itertools.product((legs.LEFT, legs.RIGHT), (-12.0, 22.0)):
            # Line of the leg above the ankle, line of the heel below it.
            foot, ankle = side * frame.stance / 2, legs.ANKLE * subject.size
            up, down = (math.tan(math.radians(a)) for a in (subject.bow, angle - subject.bow))
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


def test_pitch_enlarges_what_is_nearer_to_the_camera():
    _, view, frame, _ = next(extremes())
    upright = replace(frame, roll=0.0)
    corners = np.array([(0, 0), (frame.width, 0), (0, frame.height), (frame.width, frame.height)])
    middle = np.array([[frame.width / 2, frame.height / 2]])
    for pitch in (-8.0, 0.0, 8.0):
        lens = camera._projection(view, upright, pitch, 150.0)
        top_left, top_right, low_left, low_right = through(lens, corners.astype(float))
        # Where the picture is larger, less of the canvas fills the width of the photo.
        top, low = top_right[0] - top_left[0], low_right[0] - low_left[0]
        assert np.sign(round(low - top, 6)) == np.sign(pitch)
        expected = 2 * math.sin(math.radians(pitch)) / 150 * frame.tall / 2
        assert (low - top) / top == pytest.approx(expected, rel=0.05, abs=1e-9)
        size = (view.places.size / 2, view.heights.size / 2)
        assert through(lens, middle)[0] == pytest.approx(size)


def test_heel_boxes_are_projected_like_the_picture(monkeypatch):
    level = [taken(SITTING, number=n) for n in range(1, 5)]
    monkeypatch.setattr(camera, "PITCH_SD", 1e9)  # clipped to the largest pitch
    steep = [taken(SITTING, number=n) for n in range(1, 5)]
    moved = 0
    for before, after in zip(level, steep, strict=True):
        assert before.pixels.shape == after.pixels.shape
        for heel in ("heel_left", "heel_right"):
            one, other = getattr(before, heel), getattr(after, heel)
            moved += one != other
            # The box keeps its content.
            patches = [
                np.asarray(Image.fromarray(photo.pixels).crop(box).resize((24, 24)), float)
                for photo, box in ((before, one), (after, other))
            ]
            alike = np.corrcoef(*(patch.ravel() for patch in patches))[0, 1]
            assert alike > 0.97, (heel, alike)
    assert moved >= 6
