"""Positions and names in metadata are counted and removed; pixels and orientation stay."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from anklealign.cli.photo_metadata import has_position_and_name, without_metadata
from anklealign.io import decode
from benchmarks.fuzz import mutation, seeds

XMP = b'<x:xmpmeta><rdf:li>dc:creator exif:GPSLatitude="47"</rdf:li></x:xmpmeta>'


def photo(kind, orientation=6, *, gps=True, artist="Anna", **options):
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if artist:
        exif[0x013B] = artist
    if gps:
        exif.get_ifd(0x8825)[2] = (47.0, 29.0, 33.0)
    stream = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise).save(stream, kind, exif=exif, icc_profile=profile, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC"])
@pytest.mark.parametrize(("gps", "artist"), [(True, ""), (False, "Anna"), (True, "A"), (False, "")])
def test_positions_and_names_are_found(kind, gps, artist):
    if kind in {"TIFF", "HEIC"}:  # Pillow writes no position into a TIFF, and no HEIC
        exif = Image.open(io.BytesIO(photo("JPEG", gps=gps, artist=artist))).info["exif"]
        data = exif.removeprefix(b"Exif\0\0") if kind == "TIFF" else b"\0\0\0\x18ftypheic" + exif
    else:
        data = photo(kind, gps=gps, artist=artist)
    assert has_position_and_name(data) == (gps, bool(artist))


def test_a_position_and_a_name_in_xmp_are_found():
    assert has_position_and_name(photo("JPEG", gps=False, artist="", xmp=XMP)) == (True, True)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"xmp": XMP, "comment": b"Anna"}), ("JPEG", {"progressive": True}), ("PNG", {}),
     ("WEBP", {"xmp": XMP, "quality": 90}), ("WEBP", {"lossless": True}),
     ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (60, 40))]})],
)  # fmt: skip
@pytest.mark.parametrize("orientation", [1, 6])
def test_without_metadata_a_photo_looks_the_same(kind, options, orientation):
    data = photo(kind, orientation, **options)
    assert has_position_and_name(data) == (True, True)
    stripped = without_metadata(data)
    assert has_position_and_name(stripped) == (False, False)
    assert b"Anna" not in stripped
    assert len(stripped) < len(data)
    before, after = decode.open_photo(data, 1), decode.open_photo(stripped, 1)
    assert np.array_equal(np.asarray(before.image), np.asarray(after.image))
    assert (before.orientation, before.notes) == (after.orientation, after.notes)
    assert before.orientation == orientation
    assert without_metadata(stripped) == stripped


def test_damaged_and_other_files_raise_nothing():
    assert without_metadata(photo("TIFF")) is None
    assert without_metadata(b"\xff\xd8\xff\xe1") is None
    files = seeds()
    for number in range(600):
        _, data = mutation(7, number, files)
        has_position_and_name(data)
        without_metadata(data)
