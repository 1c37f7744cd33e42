import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anklealign.similarity.borders import content_box, frame_box


def scene(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture.convert("L"))


@given(st.tuples(*[st.integers(0, 40)] * 4), st.integers(0, 255), st.integers(0, 5))
def test_a_border_of_one_color_is_found_to_the_pixel(sides, level: int, seed: int) -> None:
    left, top, right, bottom = sides
    inner = scene(seed=seed)
    framed = np.full((120 + top + bottom, 160 + left + right), level, np.uint8)
    framed[top : top + 120, left : left + 160] = inner
    found = np.array(content_box(framed))
    # A line of the scene that happens to be all of the border's colour counts as border.
    assert np.abs(found - (left, top, left + 160, top + 120)).max() <= 1


def test_compression_does_not_hide_a_border(tmp_path) -> None:
    framed = np.zeros((150, 200), np.uint8)
    framed[15:135, 20:180] = scene()
    Image.fromarray(framed).save(tmp_path / "a.jpg", quality=60)
    found = np.array(content_box(np.asarray(Image.open(tmp_path / "a.jpg"))))
    assert np.abs(found - (20, 15, 180, 135)).max() <= 3


def test_a_photo_without_a_border_is_not_cropped() -> None:
    assert content_box(scene()) == (0, 0, 160, 120)


def test_a_plain_photo_and_a_subject_on_a_plain_background_are_not_cropped() -> None:
    plain = np.full((100, 100), 200, np.uint8)
    assert content_box(plain) == (0, 0, 100, 100)
    plain[45:55, 45:55] = 20
    assert content_box(plain) == (0, 0, 100, 100)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_tiny_pictures_are_not_cropped(shape) -> None:
    left, top, right, bottom = content_box(np.zeros(shape, np.uint8))
    assert (left, top, right, bottom) == (0, 0, shape[1], shape[0])


def test_a_frame_has_opposite_borders_of_one_level_and_a_plain_floor_has_none() -> None:
    floor = scene().copy()
    floor[100:] = 90
    assert content_box(floor) == (0, 0, 160, 100)
    assert frame_box(floor, content_box(floor)) == (0, 0, 160, 120)
    framed = np.pad(floor, 12, constant_values=255)
    assert frame_box(framed, content_box(framed)) == (12, 12, 172, 132)
    barred = np.pad(floor, ((0, 0), (20, 20)))
    assert frame_box(barred, content_box(barred)) == (20, 0, 180, 120)
    # A bright sky above a dark floor is no frame either.
    floor[:20] = 200
    assert frame_box(floor, content_box(floor)) == (0, 0, 160, 120)
