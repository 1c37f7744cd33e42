"""anklealign/io/camera_raw.py: raw files are named and never read by their thumbnail."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from anklealign.io import camera_raw, decode


def tiff(size=(160, 120), **tags):
    """Return a TIFF file, of which Pillow decodes the first picture, with the given tags."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag[1:])] = value
    stream = io.BytesIO()
    Image.new("RGB", size, "teal").save(stream, "TIFF", tiffinfo=info)
    return stream.getvalue()


RAW = {
    "NEF and ARW: a thumbnail first, the sensor in a sub-picture": tiff(_254=1, _330=8),
    "DNG": tiff(_254=1, _330=8, _50706=b"\1\4\0\0"),
    "DNG whose first picture is the photo": tiff(_50706=b"\1\4\0\0"),
    "CR2": tiff()[:4] + struct.pack("<I", 16) + b"CR\2\0" + bytes(80),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(80),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(80),
    "RW2": b"IIU\0\x18\0\0\0" + bytes(80),
    "ORF": b"IIRO\x08\0\0\0" + bytes(80),
    "CRW": b"II\x1a\0\0\0HEAPCCDR" + bytes(80),
    "X3F": b"FOVb" + bytes(80),
    "sensor": b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 262, 3, 1, 32803, 0) + bytes(80),
}  # fmt: skip


@pytest.mark.parametrize("kind", RAW)
def test_a_raw_file_is_refused_by_its_content_whatever_its_name(kind, tmp_path):
    path = tmp_path / "photo.tif"
    path.write_bytes(RAW[kind])
    for source in (RAW[kind], path):
        with pytest.raises(decode.PhotoError) as caught:
            decode.open_photo(source, 60)
        assert caught.value.reason == "camera_raw"
    assert "convert it to JPEG" in decode.REASONS["camera_raw"]


def test_a_thumbnail_would_have_been_decoded():
    assert Image.open(io.BytesIO(tiff(_254=1, _330=8))).size == (160, 120)


@pytest.mark.parametrize(
    "tags", [{}, {"_254": 0}, {"_330": 8}, {"_271": "Canon", "_272": "CanoScan"}, {"_254": 2}]
)
def test_a_tiff_photo_is_read(tags):
    assert decode.open_photo(tiff(**tags), 60).width == 160


def test_a_multi_page_tiff_and_a_16_bit_one_are_read():
    stream = io.BytesIO()
    page = Image.new("L", (20, 10))
    page.save(stream, "TIFF", save_all=True, append_images=[page])
    assert decode.open_photo(stream.getvalue(), 60).width == 20


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_have_a_format_or_none(data):
    for start in (b"", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0\xff\xff"):
        assert isinstance(camera_raw.raw_format(start + data), str)
