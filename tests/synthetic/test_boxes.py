"""Tests of synthetic/boxes.py: boxes are transformed like pixels."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anklealign.io import decode
from synthetic import boxes, corruptions

FILL = 114


def marked(width, height, box):
    """Return a black image with a white box."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 255
    return Image.fromarray(pixels)


def white(image):
    found = np.asarray(image.convert("L")) > 128
    columns, rows = (np.flatnonzero(found.any(axis)) for axis in (0, 1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_rotated_like_the_decoded_photo(orientation):
    box = (3, 8, 21, 17)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    marked(64, 40, box).save(stream, "PNG", exif=exif)
    photo = decode.open_photo(stream.getvalue(), max_megapixels=1)
    assert boxes.upright(box, 64, 40, orientation) == white(photo.image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_an_encoded_file_restores_the_upright_photo(orientation):
    box = (3, 8, 21, 17)
    data = corruptions.encode(marked(64, 40, box), "JPEG", 95, orientation)
    photo = decode.open_photo(data, max_megapixels=1)
    assert (photo.width, photo.height, photo.orientation) == (64, 40, orientation)
    assert np.abs(np.subtract(white(photo.image), box)).max() <= 1


def test_an_invalid_orientation_is_rejected():
    with pytest.raises(ValueError, match="orientation 9 is not in 1 to 8"):
        boxes.upright((0, 0, 1, 1), 4, 4, 9)


@given(
    st.integers(40, 90),
    st.integers(40, 90),
    st.data(),
    st.sampled_from(["letterbox", "crop", "stretch"]),
)
def test_a_box_is_fitted_like_the_photo(width, height, data, fit):
    left, right = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2)))
    top, bottom = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2)))
    box = (left, top, max(right, left + 12), max(bottom, top + 12))
    box = tuple(min(edge, (width, height)[n % 2]) for n, edge in enumerate(box))
    square, _ = decode.fit(marked(width, height, box), 200, fit, FILL)
    found = boxes.in_square(box, width, height, 200, fit)
    if found[2] - found[0] < 12 or found[3] - found[1] < 12:
        return  # cut off, or too thin to stay white
    assert np.abs(np.subtract(white(Image.fromarray(square)), found)).max() <= 1.5
