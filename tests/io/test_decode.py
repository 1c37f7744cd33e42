"""Every kind of file is read correctly or refused with a reason code."""

import io
import os
import re
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from anklealign.io import color_profiles, decode
from anklealign.io.decode import REASONS, PhotoError, fit, is_photo, open_photo
from benchmarks import fuzz as fuzzing
from benchmarks.fuzz import mutate

DATA = Path(__file__).parent / "data"  # Pillow writes no HEIC, so two small ones lie there
LIMIT = 80  # megapixels
CASES = Path(__file__).parents[3] / "shared" / "cases"
# Pillow warns of the damage that these tests do.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def gradient(width=96, height=64):
    """Return an image whose colors distinguish every rotation and mirroring."""
    y, x = np.mgrid[0:height, 0:width]
    blue = np.full_like(x, 60)
    stacked = [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), blue]
    return Image.fromarray(np.stack(stacked, -1).astype(np.uint8))


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(data, **options):
    return np.asarray(open_photo(data, LIMIT, **options).image).astype(int)


def outcome(data):
    """Open a file that may be damaged; return its photo or None, and the reason or ''."""
    try:
        photo = open_photo(data, LIMIT)
    except PhotoError as error:
        return None, error.reason
    return photo, ""


def reason(data, limit=LIMIT):
    with pytest.raises(PhotoError) as caught:
        open_photo(data, limit)
    assert caught.value.reason in REASONS
    assert "\n" not in str(caught.value)
    assert str(caught.value)
    return caught.value.reason


def good_files():
    image = gradient()
    files = {
        "JPEG": encoded(image, "JPEG", quality=92),
        "progressive": encoded(image, "JPEG", quality=92, progressive=True),
        "PNG": encoded(image, "PNG"),
        "palette PNG": encoded(image.quantize(64), "PNG"),
        "WEBP": encoded(image, "WEBP", quality=90),
        "lossless WEBP": encoded(image, "WEBP", lossless=True),
        "GIF": encoded(image, "GIF"),
        "TIFF": encoded(image, "TIFF"),
        "LZW TIFF": encoded(image, "TIFF", compression="tiff_lzw"),
        "JPEG TIFF": encoded(image, "TIFF", compression="jpeg"),
        "BMP": encoded(image, "BMP"),
        "JPEG2000": encoded(image, "JPEG2000"),
        "HEIC": (DATA / "upright.heic").read_bytes(),
    }
    if features.check("avif"):
        files["AVIF"] = encoded(image, "AVIF", quality=90)
    return files


@pytest.mark.parametrize("kind", list(good_files()))
def test_every_photo_format_is_read(kind):
    seen = pixels(good_files()[kind])
    assert seen.shape == (64, 96, 3)
    assert np.abs(seen - np.asarray(gradient())).mean() < 8


def test_avif_is_read_by_the_pinned_pillow():
    assert features.check("avif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_each_exif_orientation_shows_the_photo_upright(kind, value):
    image = gradient()
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[value]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = value
    stored = image if undo is None else image.transpose(undo)
    photo = open_photo(encoded(stored, kind, exif=exif), LIMIT)
    assert (photo.width, photo.height) == photo.image.size == (96, 64)
    assert np.abs(np.asarray(photo.image).astype(int) - np.asarray(image)).mean() < 12
    if kind != "AVIF":  # AVIF says the same with boxes of its own
        assert photo.orientation == value


def test_a_turned_heic_is_shown_upright():
    photo = open_photo(DATA / "turned.heic", LIMIT)
    assert (photo.format, photo.orientation, photo.width, photo.height) == ("HEIF", 6, 64, 96)
    # A quarter turn clockwise: red grew to the right, now it grows downwards.
    seen = np.asarray(photo.image).astype(int)
    assert seen[-3, 30, 0] - seen[2, 30, 0] > 220
    assert seen[30, 2, 1] - seen[30, -3, 1] > 220


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_out_of_range_counts_as_none(value):
    exif = Image.Exif()
    exif[0x0112] = value
    photo = open_photo(encoded(gradient(), "JPEG", exif=exif), LIMIT)
    assert (photo.orientation, photo.width, photo.height) == (1, 96, 64)


@pytest.mark.parametrize(
    "broken",
    [
        b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 600,
    ],
)  # fmt: skip
def test_a_photo_with_broken_exif_is_read(broken):
    data = encoded(gradient(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken
    photo = open_photo(data[:2] + segment + data[2:], LIMIT)
    assert (photo.orientation, photo.image.size) == (1, (96, 64))


def test_cmyk_jpegs_have_the_colors_of_their_rgb_version():
    # Pillow writes CMYK as Adobe does, inverted, with the marker that says so.
    seen = pixels(encoded(gradient().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(seen - np.asarray(gradient())).mean() < 4
    seen = pixels(encoded(gradient().convert("CMYK"), "TIFF"))
    assert np.abs(seen - np.asarray(gradient())).mean() < 4


def test_16_bit_gray_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    expected = np.rint(ramp / 257.0)
    for kind in ("PNG", "TIFF", "PPM"):
        seen = pixels(encoded(Image.fromarray(ramp), kind))
        assert np.abs(seen - expected[..., None]).max() <= 1, kind


def png(width, height, depth, colour, rows, *chunks):
    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*c) for c in chunks), chunk(b"IDAT", rows)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def test_a_png_of_many_compressed_texts_is_too_slow():
    rows = zlib.compress((b"\0" + bytes(9)) * 2)
    text = (b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 20)))
    few = decode.MAX_COMPRESSED_CHUNKS
    assert open_photo(png(3, 2, 8, 2, rows, *[text] * few), LIMIT).image.size == (3, 2)
    with pytest.raises(PhotoError, match="compressed texts") as error:
        open_photo(png(3, 2, 8, 2, rows, *[text] * (few + 1)), LIMIT)
    assert error.value.reason == "too_slow"


def test_huge_color_profiles_are_not_kept():
    profile = bytes(color_profiles.MAX_PROFILE_BYTES + 1)
    before = color_profiles._conversion_of_large.cache_info().misses
    assert "ignored" in color_profiles.conversion_of(profile, "RGB").note
    assert color_profiles._conversion_of_large.cache_info().misses == before


@pytest.mark.parametrize(("colour", "bands"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_color_and_alpha_are_scaled(colour, bands):
    values = np.random.default_rng(1).integers(0, 65536, (8, 9, bands), dtype=np.uint16)
    if bands in {2, 4}:
        values[..., -1] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    seen = pixels(png(9, 8, 16, colour, zlib.compress(rows)))
    expected = values[..., : bands - 1 if bands in {2, 4} else bands] / 257.0
    assert np.abs(seen - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_16_are_scaled_by_the_bits_in_use(kind, bits):
    white = (1 << bits) - 1
    ramp = np.linspace(0, white, 64 * 48).astype(np.uint16).reshape(48, 64)
    photo = open_photo(encoded(Image.fromarray(ramp), kind), LIMIT)
    expected = np.rint(ramp * (255.0 / white))
    assert np.abs(np.asarray(photo.image) - expected[..., None]).max() <= 1
    note = f"scaled as {bits} bits in 16; the largest value is {white}"
    assert photo.notes == ((note,) if bits < 16 else ())


@pytest.mark.parametrize(
    "kind", ["rgb", "rgba", "gray and alpha", "interlaced", "tiff", "deflated"]
)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_of_16_bit_colors_are_scaled_by_the_bits_in_use(kind, bits):
    white = (1 << bits) - 1
    bands = 1 if kind == "gray and alpha" else 3
    values = np.random.default_rng(2).integers(0, white, (300, 9, bands), endpoint=True)
    values[0, 0] = white
    if kind in {"tiff", "deflated"}:
        data = tiff(values, kind == "deflated")
    else:
        alpha = np.full((300, 9, 1), 65535)
        shown = values if kind in {"rgb", "interlaced"} else np.concatenate([values, alpha], -1)
        data = png_of(shown.astype(">u2"), kind == "interlaced")
    photo = open_photo(data, LIMIT)
    assert np.abs(np.asarray(photo.image) - values * (255.0 / white)).max() <= 1
    note = f"scaled as {bits} bits in 16; the largest value is {white}"
    assert photo.notes == ((note,) if bits < 16 else ())


def test_the_second_decode_of_16_bit_colors_is_part_of_the_estimated_memory():
    costs = []
    for data in (png_of(np.zeros((8, 9, 3), ">u2")), encoded(Image.new("RGB", (9, 8)), "PNG")):
        open_photo(data, LIMIT, admit=costs.append)
    # Measured on 20 MP: 10.7 to 11.9 bytes per pixel, and 4.9 without a second decode.
    assert [cost.memory / 72 for cost in costs] == [12, 8]


def png_of(values, interlaced=False):
    """Return a 16-bit PNG of (height, width, bands) big-endian values."""
    height, width, bands = values.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2),
                  (0, 1, 2, 2), (1, 0, 2, 1)]  # fmt: skip
    parts = [values[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    data = png(width, height, 16, {2: 4, 3: 2, 4: 6}[bands], zlib.compress(rows))
    if interlaced:
        header = data[12:28] + b"\1"
        data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    return data


def tiff(values, compressed):
    """Return a 16-bit RGB TIFF."""
    height, width, _ = values.shape
    rows = values.astype("<u2").tobytes()
    if compressed:  # what libtiff decodes
        rows = zlib.compress(rows)
    fields = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8),
        (259, 3, 1, 8 if compressed else 1), (262, 3, 1, 2), (273, 4, 1, 14), (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(rows)), (284, 3, 1, 1),
    ]  # fmt: skip
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *f) for f in fields)
    start = struct.pack("<4sI3H", b"II*\0", 14 + len(rows), 16, 16, 16)
    return start + rows + directory + bytes(4)


def test_a_transparent_16_bit_gray_value_becomes_white():
    values = np.array([[0, 1000, 65535]], np.uint16)
    rows = zlib.compress(b"\0" + values.astype(">u2").tobytes())
    seen = pixels(png(3, 1, 16, 0, rows, (b"tRNS", struct.pack(">H", 1000))))
    assert seen[0, :, 0].tolist() == [0, 255, 255]


def test_gray_bilevel_and_palette_photos_become_rgb():
    grey = gradient().convert("L")
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        seen = pixels(encoded(grey, kind))
        assert np.abs(seen - np.asarray(grey)[..., None]).mean() < 4, kind
    bilevel = gradient().convert("1")
    assert set(np.unique(pixels(encoded(bilevel, "PNG")))) == {0, 255}
    table = gradient().quantize(200)
    assert np.array_equal(pixels(encoded(table, "PNG")), np.asarray(table.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode):
    image = Image.new("RGBA", (20, 10), (10, 200, 30, 0))
    image.paste((10, 200, 30, 255), (0, 0, 10, 10))
    if mode == "LA":
        image = image.convert("LA")
    options = {}
    if mode == "P":
        image = Image.new("P", (20, 10), 1)
        image.putpalette([10, 200, 30, 0, 0, 0])
        image.paste(0, (0, 0, 10, 10))
        options = {"transparency": 1}
    seen = pixels(encoded(image, "PNG", **options))
    assert (seen[:, 10:] == 255).all()
    assert not (seen[:, :10] == 255).any()


def test_half_transparent_pixels_are_blended_with_white():
    seen = pixels(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG"))
    assert np.abs(seen - 127).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(kind):
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue", "lime")]
    seen = pixels(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(seen - (255, 0, 0)).max() < 12


def test_an_srgb_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("PNG", "TIFF", "JPEG"):
        plain, tagged = encoded(gradient(), kind), encoded(gradient(), kind, icc_profile=profile)
        assert np.array_equal(pixels(plain), pixels(tagged))
        assert open_photo(tagged, LIMIT).notes == ()


# s15Fixed16 columns of red, green and blue in the D50 connection space, and the name.
DISPLAY_P3 = ("Display P3", (0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189),
              (0.15710, 0.06657, 0.78407))  # fmt: skip
ADOBE_RGB = ("Adobe RGB (1998)", (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087),
             (0.14919, 0.06322, 0.74457))  # fmt: skip


def icc(name, *columns, space=b"RGB ", gamma=2.2):
    """Return a matrix profile, or a gray profile without columns (ICC.1:2001-04)."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    text = name.encode() + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0x\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    if columns:
        for letter, column in zip(b"rgb", columns, strict=True):
            tags[bytes([letter]) + b"XYZ"], tags[bytes([letter]) + b"TRC"] = xyz(column), curve
    else:
        tags[b"kTRC"] = curve
    table, content = struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += key + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(padded))
        content += padded
    head = bytes(8) + struct.pack(">I", 0x02400000) + b"mntr" + space + b"XYZ " + bytes(12)
    head += b"acsp" + bytes(28)
    head += b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    head = head.ljust(128, b"\0")
    size = struct.pack(">I", 128 + len(table) + len(content))
    return size + head[4:] + table + content


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("space", [DISPLAY_P3, ADOBE_RGB])
def test_colors_are_converted_from_the_profile_to_srgb(kind, space):
    # The formula of a matrix profile: linear light, to XYZ (D50), to linear sRGB, encoded.
    rgb = np.array([[200, 90, 60], [60, 160, 70], [128, 128, 128], [255, 255, 255]])
    to_xyz = np.array(space[1:]).T
    to_srgb = np.array([[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540],
                        [0.0719453, -0.2289914, 1.4052427]])  # Lindbloom, sRGB D50  # fmt: skip
    linear = np.clip((rgb / 255) ** 2.2 @ (to_srgb @ to_xyz).T, 0, 1)
    encoded_srgb = np.where(linear <= 0.0031308, 12.92 * linear,
                            1.055 * linear ** (1 / 2.4) - 0.055) * 255  # fmt: skip
    image = Image.fromarray(np.repeat(np.repeat(rgb[None].astype(np.uint8), 64, 0), 32, 1))
    options = {"PNG": {}, "TIFF": {}}.get(kind, {"quality": 95})
    if kind == "JPEG":
        options["subsampling"] = 0
    photo = open_photo(encoded(image, kind, icc_profile=icc(*space), **options), LIMIT)
    seen = np.asarray(photo.image).astype(float)[32, 16::32]
    assert np.abs(seen - encoded_srgb).max() <= (2 if kind in {"PNG", "TIFF"} else 6)
    assert np.abs(rgb - encoded_srgb).max() > 15
    assert photo.notes == (f"converted from {space[0]} to sRGB",)
    again = open_photo(encoded(image, kind, icc_profile=icc(*space), **options), LIMIT)
    assert np.array_equal(np.asarray(again.image), np.asarray(photo.image))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_gray_photos_are_converted_from_a_gray_profile(kind):
    gray = Image.fromarray(np.full((32, 32), 100, np.uint8))
    photo = open_photo(
        encoded(gray, kind, icc_profile=icc("dark", space=b"GRAY", gamma=1.0)), LIMIT
    )
    # 100 of 255 in linear light.
    assert np.abs(np.asarray(photo.image).astype(int) - 168).max() <= 2
    assert photo.notes == ("converted from dark to sRGB",)


def test_cmyk_photos_are_converted_from_a_cmyk_profile():
    # Little CMS's own conversions make no CMYK profile, so this one is a minimal table (lut8).
    photo = open_photo(encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "JPEG",
                               icc_profile=cmyk_profile(), quality=95), LIMIT)  # fmt: skip
    assert photo.notes == ("converted from ink to sRGB",)
    # The table says that full black ink leaves half of the lightness.
    assert np.abs(np.asarray(photo.image).astype(int) - 119).max() <= 3


def cmyk_profile():
    """Return a CMYK profile whose L* is 100 less half of the black ink: a table of 2^4 corners."""
    corners = bytes(
        value for index in range(16) for value in (round(255 * (1 - 0.5 * (index & 1))), 128, 128)
    )
    identity = b"".join(struct.pack(">i", 65536 * (row == column)) for row in range(3)
                        for column in range(3))  # fmt: skip
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners + ramp * 3
    data = icc("ink", space=b"CMYK").replace(b"mntrCMYKXYZ ", b"prtrCMYKLab ")
    at = data.index(b"kTRC")
    # The tag kTRC, the last one, becomes the table from device to Lab.
    entry = b"A2B0" + data[at + 4 : at + 8] + struct.pack(">I", len(table))
    start = struct.unpack(">I", data[at + 4 : at + 8])[0]
    data = data[:at] + entry + data[at + 12 : start] + table
    return struct.pack(">I", len(data)) + data[4:]


def test_a_broken_or_unsuitable_profile_is_ignored_with_a_note():
    right = icc(*DISPLAY_P3)
    profiles = [b"nonsense", right[:200], right.replace(b"rXYZ", b"xxxx"), bytes(5 << 20),
                icc("gray", space=b"GRAY")]  # fmt: skip
    for profile in profiles:
        photo = open_photo(encoded(gradient(), "TIFF", icc_profile=profile), LIMIT)
        assert np.array_equal(np.asarray(photo.image), np.asarray(gradient()))
        assert photo.notes[0].startswith("color profile ignored: ")
        assert photo.notes[0].isprintable()


def test_transparency_and_a_profile_are_both_applied():
    image = Image.new("RGBA", (8, 8), (200, 90, 60, 255))
    image.paste((200, 90, 60, 0), (4, 0, 8, 8))
    seen = pixels(encoded(image, "PNG", icc_profile=icc(*DISPLAY_P3)))
    assert (seen[:, 4:] == 255).all()
    assert seen[0, 0, 0] > 205


def test_the_format_is_detected_from_the_content_and_not_the_name(tmp_path):
    path = tmp_path / "photo.jpg"
    for kind in ("PNG", "WEBP", "GIF", "AVIF"):
        path.write_bytes(good_files()[kind])
        assert open_photo(path, LIMIT).format == kind


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_16_bit_tiff_whose_zero_is_white_is_no_negative(bits, compression):
    values = np.linspace(0, 2**bits - 1, 96 * 64).astype(np.uint16).reshape(64, 96)
    seen = []
    for photometric, stored in ((1, values), (0, values.max() - values)):
        data = encoded(
            Image.fromarray(stored), "TIFF", compression=compression, tiffinfo={262: photometric}
        )
        assert Image.open(io.BytesIO(data)).tag_v2[262] == photometric
        seen.append(pixels(data).astype(int))
    assert np.abs(seen[0] - seen[1]).max() <= 1
    assert seen[1][0, 0, 0] == 0
    assert seen[1][-1, -1, 0] == 255


def test_pixels_without_a_fixed_white_are_refused():
    assert reason(encoded(Image.new("F", (8, 8), 0.5), "TIFF")) == "unsupported"
    assert reason(encoded(Image.new("I", (8, 8), 70000), "TIFF")) == "unsupported"


def test_a_reduced_decode_keeps_metadata_and_picture():
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (150, 200, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise.resize((2000, 1500)), "JPEG", quality=95, exif=exif)
    full, fast = open_photo(data, LIMIT), open_photo(data, LIMIT, least_side=256)
    assert (fast.width, fast.height) == (full.width, full.height) == (1500, 2000)
    assert min(fast.image.size) >= 256
    assert fast.image.width < full.image.width
    for mode in ("letterbox", "crop", "stretch"):
        (a, box), (b, other) = (fit(p.image, 128, mode, 114) for p in (full, fast))
        assert box == other
        error = ((a.astype(float) - b) ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 40


# Damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in good_files() if k != "progressive"])
def test_a_file_truncated_anywhere_is_refused_or_complete(kind):
    data = good_files()[kind]
    whole = pixels(data)
    cuts = sorted({*range(1, 40), *np.linspace(40, len(data) - 1, 60).astype(int).tolist()})
    for cut in cuts:
        photo, why = outcome(data[:cut])
        if photo is None:
            assert why in {"truncated", "unreadable", "not_an_image"}, cut
        else:  # what is cut off was no part of the picture
            assert np.array_equal(np.asarray(photo.image), whole), cut


def test_a_truncated_jpeg_has_the_reason_truncated():
    data = encoded(gradient(400, 300), "JPEG", quality=95)
    assert reason(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("tail", [b"\xff\xd9", b"\xff\xd9" + b"\xd8\xff" * 500, bytes(50_000)])
def test_a_truncated_jpeg_with_an_end_marker_is_not_read_half_gray(share, tail):
    noise = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for options in ({}, {"subsampling": 0}, {"restart_marker_rows": 1}):
        data = encoded(Image.fromarray(noise).resize((640, 480)), "JPEG", quality=95, **options)
        assert reason(data[: int(len(data) * share)] + tail) == "truncated"


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 17), (1000, 3), (640, 480)])
def test_a_complete_jpeg_is_decoded_as_by_pillow(size):
    options = (
        {},
        {"optimize": True},
        {"subsampling": 0},
        {"restart_marker_rows": 1},
        {"progressive": True},
    )
    for each in options:
        for mode in ("RGB", "L"):
            data = encoded(gradient(*size).convert(mode), "JPEG", **each)
            plain = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.array_equal(pixels(data), plain)
            assert np.array_equal(pixels(data + b"trailing bytes"), plain)


def test_the_first_of_several_pictures_in_a_file_is_read():
    image = gradient()
    data = encoded(image, "MPO", save_all=True, append_images=[image.rotate(180)])
    assert np.abs(pixels(data) - np.asarray(image)).mean() < 8


def peak():
    """Return the most memory, in MiB, that this process has held since it was last forgotten.

    Not ru_maxrss, which never falls, and counts the process that started this one too.
    """
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) / 1024


def forget_peak():
    # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
    Path("/proc/self/clear_refs").write_text("5")


def hog(_):
    return bytearray(b"x") * (1100 << 20) and (None, "unreadable")


def crash(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(_):
    while True:
        pass


OPENERS = {"outcome": outcome, "hog": hog, "crash": crash, "hang": hang}


def worker(count, seed, opener, seconds):
    """Open `count` damaged files; print each one's number before, and how it ended behind."""
    files = list(good_files().values())
    rng = np.random.default_rng(seed)
    warnings.filterwarnings("ignore", module="PIL")
    for number in range(count):
        data = mutate(rng, files[number % len(files)], files)
        print(number, end=" ", flush=True)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # which ends a process, whatever it is at
        forget_peak()
        before, start = peak(), time.perf_counter()
        photo, why = OPENERS[opener](data)
        taken, grown = time.perf_counter() - start, peak() - before
        signal.setitimer(signal.ITIMER_REAL, 0)
        if photo is not None:
            assert photo.image.mode == "RGB"
            assert photo.width * photo.height <= LIMIT * 1e6
        print(why or "read", f"{taken:.3f} {grown:.1f}", flush=True)


def fuzz(count, seed, opener="outcome", seconds=5.0, most=1024):
    """Return how `count` damaged files ended in a process of their own.

    Each one that crashed it, took longer than `seconds` or held more than `most` MiB fails by its
    number, which with the seed makes it again.
    """
    arguments = [str(count), str(seed), opener, str(seconds)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    last = f"mutation {lines[-1][0]} of seed {seed}" if lines else "before the first mutation"
    assert done.returncode != -signal.SIGALRM, f"{last}: over {seconds} s"
    assert done.returncode == 0, f"{last}: exit status {done.returncode}\n{done.stderr}"
    assert len(lines) == count
    for number, why, _, grown in lines:
        assert float(grown) <= most, f"mutation {number} of seed {seed}: {grown} MiB"
        assert why == "read" or why in REASONS
    ends = Counter(why for _, why, _, _ in lines)
    slowest, largest = (max(float(line[column]) for line in lines) for column in (2, 3))
    print(f"{dict(ends)}; the slowest {slowest:.2f} s, the largest {largest:.0f} MiB")
    return ends


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")


@linux
def test_300_damaged_files_are_read_or_refused_with_a_reason():
    ends = fuzz(300, seed=1)
    assert ends.total() == 300
    assert len(ends) >= 4


@linux
@pytest.mark.slow
def test_10_000_damaged_files_are_read_or_refused_with_a_reason():
    assert fuzz(10_000, seed=2).total() == 10_000


@linux
@pytest.mark.parametrize(
    ("opener", "message"),
    [
        ("hog", r"mutation 0 of seed 3: 1\d\d\d\.\d MiB"),
        ("crash", "mutation 0 of seed 3: exit status -11"),
        ("hang", r"mutation 0 of seed 3: over 1\.0 s"),
    ],
)
def test_a_file_beyond_the_limits_would_be_reported(opener, message):
    with pytest.raises(AssertionError, match=message):
        fuzz(1, seed=3, opener=opener, seconds=60.0 if opener != "hang" else 1.0)


@given(
    st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"P6"])
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_behind_a_signature_are_read_or_refused(tail, signature):
    photo, why = outcome(signature + tail)
    assert photo is not None or why in REASONS


@pytest.mark.timing
def test_a_bomb_of_few_kilobytes_is_refused_by_its_header():
    line = zlib.compress(b"\0" * (60_000 // 8 + 1) * 200, 9)
    bomb = png(60_000, 60_000, 1, 0, line)
    assert len(bomb) < 10_000
    start = time.perf_counter()
    assert reason(bomb) == "too_large"
    assert time.perf_counter() - start < 1


def test_the_limit_in_megapixels_is_a_parameter():
    data = encoded(Image.new("L", (2000, 1500)), "PNG")
    assert reason(data, limit=2.9) == "too_large"
    assert open_photo(data, 3.0).width == 2000
    between = png(12_000, 10_000, 1, 0, b"")  # Pillow alone would only warn
    assert reason(between) == "too_large"


@pytest.mark.timing
def test_a_photo_with_huge_metadata_is_read():
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x07\0\xff\xff\xff\x7f\0\0\0\0" * 5000
    segment = b"\xff\xe1" + struct.pack(">H", 65535) + exif[:65533].ljust(65533, b"\0")
    data = encoded(gradient(), "JPEG")
    start = time.perf_counter()
    photo = open_photo(data[:2] + segment * 100 + data[2:], LIMIT)
    assert photo.image.size == (96, 64)
    assert time.perf_counter() - start < 5


@pytest.mark.timing
def test_a_nested_profile_bomb_is_read_or_refused():
    bomb = zlib.compress(b"\0" * 200_000_000, 9)
    rows = zlib.compress(b"\0ab\0cd")
    for profile in (bomb, zlib.compress(bomb, 9)):
        each = png(2, 2, 8, 0, rows, (b"iCCP", b"p\0\0" + profile))
        start = time.perf_counter()
        photo, why = outcome(each)
        assert photo is not None or why in REASONS
        assert time.perf_counter() - start < 5


@pytest.mark.timing
def test_a_jpeg_of_thousands_of_scans_is_refused():
    data = encoded(gradient(2000, 1500), "JPEG", progressive=True, quality=30)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    assert open_photo(data, LIMIT).width == 2000
    start = time.perf_counter()
    assert reason(data[:-2] + scan * 600 + data[-2:]) == "too_large"
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"\r\n<!DOCTYPE HTML><p>403</p>", "a web page; download the photo again"),
        (b"This is a text.\n", "starts with b'This is a te', which is not a photo format"),
    ],
)
def test_what_is_saved_in_place_of_a_photo_is_named(data, said):
    with pytest.raises(PhotoError, match=re.escape(said)):
        open_photo(data, LIMIT)


def test_other_files_are_refused_with_a_reason(tmp_path):
    assert reason(b"") == "zero_bytes"
    assert reason(b"This is a text.\n") == "not_an_image"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not_an_image"
    assert reason(b"\xff\xd8\xff\xe0") in {"truncated", "unreadable"}
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "zero_bytes"
    (tmp_path / "text.jpg").write_text("no photo")
    assert reason(tmp_path / "text.jpg") == "not_an_image"
    (tmp_path / "folder.jpg").mkdir()
    assert reason(tmp_path / "folder.jpg") == "cannot_open"
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    assert reason(tmp_path / "link.jpg") == "cannot_open"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "cannot_open"


def test_the_refusal_message_is_deterministic():
    # Pillow names its stream by the address in memory, which would make skipped.csv another file.
    garbled = good_files()["JPEG"][:16] + bytes(500)
    message = set()
    for _ in range(3):
        with pytest.raises(PhotoError) as caught:
            open_photo(garbled, LIMIT)
        message.add(str(caught.value))
    assert message == {"cannot identify image file"}


@pytest.mark.timing
def test_a_file_far_too_long_for_a_photo_is_not_read(tmp_path):
    path = tmp_path / "long.jpg"
    with path.open("wb") as stream:
        stream.write(good_files()["JPEG"])
        stream.truncate(10 << 30)  # sparse
    start = time.perf_counter()
    assert reason(path) == "too_large"
    assert time.perf_counter() - start < 1


def test_a_file_without_read_permission_is_refused(nobody):
    path = nobody.folder / "locked.jpg"
    path.write_bytes(good_files()["JPEG"])
    with nobody:
        assert open_photo(path, LIMIT).format == "JPEG"
    path.chmod(0)
    with nobody:
        assert reason(path) == "cannot_open"


def test_is_photo_accepts_every_format_and_no_text():
    assert all(is_photo(data[:64]) for data in good_files().values())
    assert not any(map(is_photo, (b"", b"PK\x03\x04", b"{}", b"%PDF-1.7", b"\0\0\0\x18ftypmp42")))


# The plain library, bombs and limits -------------------------------------------------------------


@linux
def test_nothing_is_read_that_the_plain_library_refuses():
    rows, failures = fuzzing.run(50 * len(fuzzing.seeds()), seed=3)
    assert failures == []
    assert all(row.files == 50 for row in rows.values())
    # The test could fail: in each format the library refuses some files and reads others.
    refused = {kind: row.refused_by_library for kind, row in rows.items()}
    assert all(count >= 10 for count in refused.values()), refused
    assert sum(row.reasons["read"] for row in rows.values()) > 150


@linux
def test_a_file_that_crashes_a_decoder_is_decoded_again_in_isolation():
    crash = "import os, sys; print(sys.argv[2], 'here', flush=True); os.abort()"
    rows, failures = fuzzing.run(20, seed=3, command=[sys.executable, "-c", crash])
    crashed = {kind for kind, row in rows.items() if row.crashed}
    assert len(crashed) == 20
    assert all(rows[kind].reasons.total() == 1 for kind in crashed)
    assert set().union(*(row.reasons for row in rows.values())) <= {"read", *REASONS}
    assert len(failures) == len(fuzzing.IN_PROCESS)


@linux
@pytest.mark.slow
def test_nothing_is_read_that_the_plain_library_refuses_in_10_000_files():
    assert fuzzing.run(10_000, seed=4)[1] == []


def test_a_png_with_one_flipped_bit_in_its_pixels_is_refused():
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "PNG")
    for place in range(100, len(data) - 40, 97):
        changed = bytearray(data)
        changed[place] ^= 4
        with pytest.raises((OSError, SyntaxError)):
            Image.open(io.BytesIO(changed)).load()
        assert reason(bytes(changed)) in {"unreadable", "truncated"}


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_damaged_pngs_are_refused_and_12_bits_are_bright(tmp_path):
    for case in ("png_damaged", "twelve_bit_png"):
        subprocess.run(
            [sys.executable, CASES / case / "make.py", tmp_path / case], check=True, cwd=tmp_path
        )
    damaged = 0
    for path in sorted((tmp_path / "png_damaged").rglob("*.png")):
        try:
            Image.open(path).load()
        except (OSError, SyntaxError):
            damaged += 1
            assert reason(path.read_bytes()) in {"unreadable", "truncated"}
        else:
            open_photo(path, LIMIT)
    assert damaged == 20
    for path in sorted((tmp_path / "twelve_bit_png").rglob("*.png")):
        photo = open_photo(path, LIMIT)
        assert np.asarray(photo.image).max() > 128
        assert photo.notes[0].startswith("scaled as ")


@pytest.mark.timing
@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1), (1, 40_000_000), (1, 1100), (5000, 4)])
def test_thin_photos_are_refused_by_their_header(size):
    thin = png(*size, 8, 0, b"")
    start = time.perf_counter()
    assert reason(thin) == "too_large"
    assert time.perf_counter() - start < 1


def test_formats_that_no_camera_writes_are_refused_as_unsupported():
    for data in (b"P3\n2 2\n255\n" + b"1 2 3 " * 4, b"P2\n1 1\n255\n7\n", b"P1\n1 1\n1\n",
                 b"P4\n8 1\n\xff"):  # fmt: skip
        assert reason(data) == "unsupported"
    bmp = bytearray(encoded(gradient().convert("L"), "BMP"))
    assert open_photo(bytes(bmp), LIMIT).width == 96
    bmp[30] = 1
    assert reason(bytes(bmp)) == "unsupported"


def test_headers_that_take_long_to_read_are_refused_in_time():
    jpeg, picture = encoded(gradient(), "JPEG"), encoded(gradient(), "PNG")
    comment = b"\xff\xfe\0\2"
    chunk = bytes(4) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    for data in (
        jpeg[:2] + comment * 5_000_000 + jpeg[2:],
        jpeg[:2] + b"\xff" * 20_000_000 + jpeg[2:],
        jpeg[:2] + comment + bytes(20_000_000) + jpeg[2:],
        picture[:33] + chunk * 1_000_000 + picture[33:],
    ):
        start = time.process_time()
        assert reason(data) == "too_slow"
        assert time.process_time() - start < 1
    assert open_photo(jpeg[:2] + comment * 900 + jpeg[2:], LIMIT).width == 96


# fit ---------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 400), st.integers(32, 96))
@settings(max_examples=60, deadline=None)
def test_a_letterbox_keeps_the_complete_photo_and_its_aspect_ratio(width, height, size):
    image = Image.new("RGB", (width, height), (200, 10, 10))
    seen, (left, top, right, bottom) = fit(image, size, "letterbox", 7)
    assert seen.shape == (size, size, 3)
    assert seen.dtype == np.uint8
    assert 0 <= left < right <= size
    assert 0 <= top < bottom <= size
    assert max(right - left, bottom - top) == size
    scale = size / max(width, height)
    assert abs((right - left) - width * scale) <= max(0.5, 1 - width * scale)
    assert abs((bottom - top) - height * scale) <= max(0.5, 1 - height * scale)
    assert abs(left - (size - right)) <= 1
    assert abs(top - (size - bottom)) <= 1
    inside = np.zeros((size, size), bool)
    inside[top:bottom, left:right] = True
    assert (np.abs(seen[inside].astype(int) - (200, 10, 10)) <= 1).all()
    assert (seen[~inside] == 7).all()


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["crop", "stretch"]))
@settings(max_examples=30, deadline=None)
def test_crop_and_stretch_fill_the_square(width, height, mode):
    seen, box = fit(Image.new("RGB", (width, height), "white"), 48, mode, 7)
    assert seen.shape == (48, 48, 3)
    assert box == (0, 0, 48, 48)
    assert (seen == 255).all()


def test_crop_keeps_the_center():
    seen, _ = fit(gradient(300, 100), 50, "crop", 0)
    assert abs(int(seen[25, 25, 0]) - 127) < 6
    assert seen[:, 0, 0].mean() > 80
    assert seen[:, -1, 0].mean() < 175


def test_a_small_photo_is_enlarged_until_it_fills_one_side():
    seen, box = fit(gradient(40, 20), 128, "letterbox", 114)
    assert box == (0, 32, 128, 96)
    assert int(seen[64, 120, 0]) - int(seen[64, 8, 0]) > 200


if __name__ == "__main__":
    worker(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
