import base64
import io

import numpy as np
import pytest
from PIL import Image

from anklealign.reporting import thumbnails


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_a_photo_keeps_its_shape_and_is_never_enlarged():
    pixels = np.full((60, 120, 3), 90, np.uint8)
    assert opened(thumbnails.photo(pixels, 40)).size == (40, 20)
    assert opened(thumbnails.photo(pixels, 400)).size == (120, 60)


def test_a_heat_map_covers_the_photo_without_its_letterbox_and_is_clear_where_it_is_zero():
    heat = np.zeros((32, 32), np.uint8)
    heat[16:, 16:] = 255
    picture = opened(thumbnails.heat_map(heat, (0, 0.25, 1, 0.75)))
    assert picture.size == (64, 32)
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    assert alpha[:10, :20].max() <= 8
    assert alpha[24:, 44:].min() == pytest.approx(255 * thumbnails.OPACITY, abs=8)
