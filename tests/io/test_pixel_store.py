"""Tables keep text as text, the store keeps its pixels, and ids are stable."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anklealign.io import files, pixel_store


@given(st.lists(st.text(min_size=1), unique_by=lambda t: unicodedata.normalize("NFC", t)))
def test_ids_differ_by_path_and_not_by_order_or_unicode_form(paths):
    ids = [pixel_store.photo_id(path) for path in paths]
    assert len(set(ids)) == len(paths)
    assert ids == [pixel_store.photo_id(unicodedata.normalize("NFD", p)) for p in paths] or any(
        unicodedata.normalize("NFC", unicodedata.normalize("NFD", p))
        != unicodedata.normalize("NFC", p)
        for p in paths
    )


def test_ids_are_the_same_as_in_earlier_versions():
    assert pixel_store.photo_id("FO6K58/sajat_reszvevo03_02.jpg") == "3f9fa7f972f6"


def test_names_that_are_not_utf8_have_ids():
    assert len(pixel_store.photo_id(b"a\xff.jpg".decode("utf-8", "surrogateescape"))) == 12


def test_text_columns_remain_text(tmp_path):
    table = pd.DataFrame({"id": ["007", "1e5"], "row": [0, 1], "subject": ["", "NA"]})
    files.write_table(tmp_path / "photos.csv", table)
    pd.testing.assert_frame_equal(pixel_store.read_table(tmp_path / "photos.csv"), table)


def test_the_store_is_written_atomically(tmp_path):
    path = tmp_path / "pixels.npy"
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    with pixel_store.writing_store(path, 2, 4) as store:
        store[:] = pixels
        assert not path.exists()
    assert (pixel_store.open_store(path) == pixels).all()
    with pytest.raises(RuntimeError), pixel_store.writing_store(path, 1, 4):
        raise RuntimeError
    assert len(pixel_store.open_store(path)) == 2


def test_a_photos_box_is_its_pixels_without_the_letterbox(tmp_path):
    pixels = np.arange(2 * 6 * 6 * 3, dtype=np.uint8).reshape(2, 6, 6, 3)
    with pixel_store.writing_store(tmp_path / "pixels.npy", 2, 6) as store:
        store[:] = pixels
    table = pd.DataFrame({"row": [1, 0], "left": 0, "top": [1, 2], "right": 6, "bottom": [5, 4]})
    boxes = pixel_store.boxes_of(table, pixel_store.open_store(tmp_path / "pixels.npy"))
    np.testing.assert_array_equal(boxes[0], pixels[1, 1:5])
    np.testing.assert_array_equal(boxes[1], pixels[0, 2:4])
