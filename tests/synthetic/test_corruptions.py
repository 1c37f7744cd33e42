"""synthetic/corruptions.py: changes match their names and return the map of coordinates."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anklealign.cleaning.removal import REASONS
from synthetic import corruptions

BOX = (60, 90, 84, 120)


def picture():
    """Return noise of medium gray levels with a white box."""
    levels = np.random.default_rng(0).integers(40, 200, (150, 200, 3), np.uint8)
    levels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return Image.fromarray(levels)


def white(image):
    smooth = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1)))
    found = smooth > 0.9 * smooth.max()
    columns, rows = (np.flatnonzero(found.any(axis)) for axis in (0, 1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["resized", "cropped", "mirrored", "turned", "brightened"])
def test_a_box_is_transformed_like_the_picture(kind, seed):
    image, move = corruptions.COPIES[kind](picture(), np.random.default_rng(seed))
    box = corruptions.transform_box(BOX, move, *image.size)
    assert np.abs(np.subtract(white(image), box)).max() <= 3


def test_a_framed_picture_is_inside_its_frame():
    image, move = corruptions.COPIES["framed"](picture(), np.random.default_rng(0))
    left, top, right, bottom = corruptions.transform_box((0, 0, 200, 150), move, *image.size)
    assert (right - left, bottom - top) == (200, 150)
    assert np.array_equal(np.asarray(image)[top:bottom, left:right], np.asarray(picture()))
    assert image.width - right == left > 0


def test_cropping_clips_the_box():
    image, move = corruptions.COPIES["cropped"](picture(), np.random.default_rng(0))
    assert image.size in {(184, 150), (200, 138)}
    box = corruptions.transform_box((0, 0, 200, 150), move, *image.size)
    assert box == (0, 0, *image.size)


def test_poor_photos_have_the_stated_quality():
    def gray(kind):
        image, _ = corruptions.POOR_QUALITY[kind][1](picture(), np.random.default_rng(0))
        return np.asarray(image.convert("L"), float)

    before = np.asarray(picture().convert("L"), float)
    assert gray("dark").mean() == pytest.approx(0.2 * before.mean(), rel=0.02)
    assert gray("washed_out").std() == pytest.approx(0.2 * before.std(), rel=0.05)
    assert gray("washed_out").mean() == pytest.approx(before.mean(), abs=1)
    assert np.ptp(gray("blank")) < 48
    assert max(gray("tiny").shape) == corruptions.TINY_SIDE
    assert gray("blurred").std() < 0.6 * before.std()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPU affinity is not supported")
def test_avif_bytes_do_not_depend_on_the_number_of_cores():
    image = picture().resize((1300, 900))
    cores = os.sched_getaffinity(0)
    first = corruptions.encode(image, "AVIF", 85)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert corruptions.encode(image, "AVIF", 85) == first
    finally:
        os.sched_setaffinity(0, cores)
    assert Image.open(io.BytesIO(first)).format == "AVIF"


def test_clean_has_a_reason_for_each_kind_of_poor_photo():
    assert {reason for reason, _ in corruptions.POOR_QUALITY.values()} <= set(REASONS)
