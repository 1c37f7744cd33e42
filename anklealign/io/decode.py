"""Decode a photo: untrusted bytes in, RGB pixels and the photo's box out.

prepare, the predictor and the service all read photos with this module, so a photo has the same
pixels in each of them. No property of the bytes is trusted: the format is detected from the content
and not from the name, only the formats of FORMATS are tried, photos above the size limit are
rejected by their header before any pixel is decoded, and every decoder error becomes one
`PhotoError` with a reason code. A decoder can crash or loop, so everything outside of the tests and
the synthetic set decodes through `decoder_pool`, which runs this module in worker processes
wherever that can happen.

Colors are converted from an embedded ICC profile to sRGB. 16-bit pixels are scaled by the bit depth
that they use. Transparent areas become white. Only the first frame of an animation is decoded.
"""

import io
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from pi_heif import HeifImageFile  # type: ignore[import-untyped]
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from anklealign.io import camera_raw, color_profiles

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

# Reason code -> "meaning: remedy".
REASONS = {
    "cannot_open": "the file cannot be opened, usually because of missing permissions: run "
    "`chmod u+r` on it",
    "zero_bytes": "the file is empty: download or copy it again",
    "not_an_image": "the content is not in a photo format, whatever the file name: remove it, or "
    "save it again as JPEG or PNG",
    "truncated": "the file ends before the picture does: download or copy it again",
    "unreadable": "the content is damaged or uses an unsupported encoding: download or copy it "
    "again, or save it again as JPEG or PNG",
    "camera_raw": "a raw file of a camera (NEF, CR2, CR3, ARW, DNG, RAF, …), of which only a "
    "thumbnail could be decoded: convert it to JPEG or PNG",
    "unsupported": "an encoding that is not read, such as 32-bit floats, ASCII PPM or RLE BMP: "
    "save it again as JPEG or PNG",
    "too_large": "more megapixels or bytes than prepare.max_megapixels allows, over 65,535 px or "
    "1,000 times as long as wide, or a decompression bomb: save it smaller, or raise "
    "prepare.max_megapixels",
    "too_slow": "decoding takes longer than for any photo of its size: save it again as JPEG or "
    "PNG",
    "decoder_crashed": "the decoder crashed on the content, which is damaged or malicious: "
    "download or copy it again, or save it again as JPEG or PNG",
}
# Suffixes of photo files, in lower case.
PHOTO_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".heic",
    ".heif", ".hif", ".avif", ".jp2", ".ppm", ".pgm", ".pbm",
}  # fmt: skip

# The allow-list of decoders: what cameras, phones, scanners and published datasets use. Some other
# decoders do more than decode (EPS starts a program).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
    b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"P5", b"P6",
)  # fmt: skip
# Variants that no camera, phone or dataset writes; their decoders loop over bytes in Python.
ASCII_OR_BILEVEL = (b"P1", b"P2", b"P3", b"P4")
BMP_RLE = (b"\1\0\0\0", b"\2\0\0\0")  # field biCompression, after a header of 40 bytes and more
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
HEAD = 64  # bytes needed to detect the format
# What is saved or downloaded in place of a photo, by its first bytes in lower case.
OTHER_CONTENT = {
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull` in its repository",
    b"<!doctype html": "a web page; download the photo again",
    b"<html": "a web page; download the photo again",
}

# The memory address of an object, which decoders put into messages; it differs between runs.
ADDRESS = re.compile(r" ?<[^<>]* at 0x[0-9a-fA-F]+>")

# The marker after a JPEG scan; restart markers and stuffed zeros belong to the scan.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# A decoder processes the whole picture once per JPEG scan, so a few kB of empty scans over a large
# frame would take minutes. Encoders write one scan, or about ten.
SCAN_PIXELS = 1_500_000_000
# Pillow reads the segments and fill bytes of a JPEG in Python, 2 us each. 1,024 segments of 64 kB
# are METADATA_BYTES; encoders write no fill bytes.
MAX_SEGMENTS = 1024
MAX_FILL = 1 << 16
# Likewise the chunks of a PNG, 5 us each; encoders write chunks of 8 kB and more. Pillow inflates
# each of the compressed ones to 1 MB, even if it came as 1 kB: 280 color profiles took 1 s.
MAX_CHUNKS = 1 << 16
MAX_COMPRESSED_CHUNKS = 32
COMPRESSED_CHUNKS = (b"iCCP", b"zTXt", b"iTXt")
# The format of JPEG ends here. A PNG of 1 x 40 million px, 78 kB, took 3.4 GB.
MAX_SIDE = 65_535
MAX_ASPECT = 1000
# Decoders that hold several copies of the picture: the megapixel limit is scaled by this factor.
# The largest HEIC of a phone has 50 MP.
COSTLY = {"JPEG2000": 0.5, "WEBP": 0.5, "HEIF": 0.65, "AVIF": 0.65}
# Peak bytes per pixel of decoding and conversion to RGB, measured on photos of 40 to 80 MP and
# rounded up: libwebp and OpenJPEG hold planes and the frame. Pillow uses 4 bytes for RGB, and 4
# more to turn it; other modes are converted, which takes 12 together, and so does a second decode
# of 16-bit colors.
PEAK_BYTES = {"HEIF": 12, "AVIF": 12, "WEBP": 17, "TIFF": 16, "JPEG2000": 20}
PEAK_BYTES_RGB, PEAK_BYTES_OTHER = 8, 12
# Limits of a quick photo (Cost). The rest takes turns in the service. 30 MP of noise as JPEG take
# 0.4 s.
QUICK_FORMATS = ("JPEG", "PNG", "WEBP")
QUICK_PIXELS = 30_000_000  # times the number of scans
QUICK_BYTES = 64 << 20
# The largest valid file is uncompressed 16-bit RGBA, plus metadata.
BYTES_PER_PIXEL = 8
METADATA_BYTES = 64 << 20

# TIFF's tag of what the values mean, and that of scanners and X-ray plates.
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
# Bits of 16-bit pixels; 8 for 8-bit pictures that a program saved as 16.
BIT_DEPTHS = (8, 10, 12, 14, 16)
# Pillow's name of 16-bit colors, of which it keeps the high bytes -> the name that gives the low
# bytes: that of the other byte order. Four bytes of gray and alpha are read as those of RGBA.
LOW_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
} | {"LA;16B": "RGBA"}
GRAY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {TURNS[value] for value in (5, 6, 7, 8)}


class PhotoError(ValueError):
    """A photo that cannot be decoded; `reason` is a key of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        """Set the message and the reason code."""
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["PhotoError"], tuple[str, str]]:
        """Pickle both arguments; exceptions pickle only what `Exception` was given."""
        return PhotoError, (self.reason, str(self))


@dataclass(frozen=True)
class Photo:
    """A decoded, upright photo and its properties.

    `image` is RGB. `width` and `height` are those of the full photo in px, even if `image` was
    decoded at a smaller size; `orientation` is the EXIF value of the file, or 1 if it is missing or
    invalid. `notes` are sentences on conversions: of the color profile and of the bit depth.
    """

    image: Image.Image
    format: str
    orientation: int
    width: int
    height: int
    notes: tuple[str, ...] = ()


class Cost(NamedTuple):
    """The estimated cost of decoding a photo, from its header.

    Attributes:
        memory: Peak memory in bytes.
        megapixels: Pixels of the photo, which bound its time.
        quick: True for a photo of a common format that takes well under a second and 64 MB.
    """

    memory: int
    megapixels: float
    quick: bool


def is_photo(head: bytes) -> bool:
    """Return True if the first HEAD bytes of a file have the signature of a photo format."""
    return (
        head.startswith(SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and any(b in head[8:] for b in HEIF_BRANDS + AVIF_BRANDS))
    )


def check_signature(head: bytes) -> None:
    """Check that the first HEAD bytes of a file have the signature of a photo format.

    Raises:
        PhotoError: They do not.
    """
    if head.startswith(ASCII_OR_BILEVEL):
        raise PhotoError("unsupported", "an ASCII or bilevel PNM; only binary P5 and P6 are read")
    if not is_photo(head):
        start = head.lstrip().lower()
        known = (what for first, what in OTHER_CONTENT.items() if start.startswith(first))
        unknown = f"starts with {head[:12]!r}, which is not a photo format"
        raise PhotoError("not_an_image", next(known, unknown))


def read_bytes(path: Path, max_megapixels: float) -> bytes:
    """Return the bytes of a photo file after checking its type, size and signature.

    Raises:
        PhotoError: The file is not a readable regular file, is empty, is not in a photo format, or
            is larger than any photo of `max_megapixels` can be.
    """
    try:
        # Opening a named pipe would block forever.
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise PhotoError("cannot_open", "not a regular file but a folder, pipe or device")
        if facts.st_size == 0:
            raise PhotoError("zero_bytes", "the file has 0 bytes")
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            if kind := camera_raw.raw_format(head):
                raise PhotoError("camera_raw", kind)
            check_signature(head)
            most = most_bytes(max_megapixels)
            if facts.st_size > most:
                raise PhotoError(
                    "too_large",
                    f"{facts.st_size} bytes; a photo of {max_megapixels:g} MP has at most {most}",
                )
            return head + stream.read()
    except OSError as error:
        raise PhotoError("cannot_open", error.strerror or str(error)) from None


def open_photo(
    source: bytes | Path,
    max_megapixels: float,
    least_side: int = 0,
    admit: Callable[[Cost], None] | None = None,
) -> Photo:
    """Return the photo in a file's bytes, or in the file at a path.

    Args:
        source: The bytes of a file, or its path.
        max_megapixels: Larger photos are rejected by their header. Pillow's limit of 178.9 MP
            also applies.
        least_side: If positive, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as
            its shorter side keeps this many pixels. With twice the side of the stored square, this
            is four times faster and within 57 dB of the full decode.
        admit: Called with the cost before any pixel is decoded; it may wait, or raise.

    Raises:
        PhotoError: The photo cannot be decoded. No other exception is raised for any bytes, except
            those of `admit`.
    """
    data = read_bytes(source, max_megapixels) if isinstance(source, Path) else source
    if not data:
        raise PhotoError("zero_bytes", "the file has 0 bytes")
    if kind := camera_raw.raw_format(data):
        raise PhotoError("camera_raw", kind)
    check_signature(data[:HEAD])
    if len(data) > most_bytes(max_megapixels):
        raise PhotoError(
            "too_large", f"{len(data)} bytes exceed the limit for {max_megapixels:g} MP"
        )
    with _photo_errors():
        image, scans = _open_header(data, max_megapixels)
    if admit is not None:
        admit(_cost(image, scans, least_side))
    with _photo_errors():
        return _decode(image, data, least_side)


@contextmanager
def _photo_errors() -> Iterator[None]:
    """Turn every error of a decoder into a PhotoError."""
    try:
        yield
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("too_large", _line(error)) from None
    except MemoryError:
        raise PhotoError("too_large", "not enough memory to decode it") from None
    except Exception as error:  # noqa: BLE001 - decoders raise OSError, SyntaxError, struct.error, …
        raise PhotoError(_reason(error), _line(error)) from None


def _open_header(data: bytes, max_megapixels: float) -> tuple[Image.Image, int]:
    """Return a photo whose pixels are not decoded, and its number of JPEG scans.

    Raises:
        PhotoError: The size exceeds a limit, or the variant of the format is not read.
    """
    scans = 1
    if data.startswith(b"\xff\xd8"):
        data, scans = _open_ended(data)
    elif data.startswith(b"BM") and data[14:15] >= b"\x28" and data[30:34] in BMP_RLE:
        raise PhotoError("unsupported", "a BMP with run-length encoding")
    elif data.startswith(b"\x89PNG"):
        _check_chunks(data)
    image = identify(data)
    width, height = image.size
    pixels = width * height
    most = max_megapixels * COSTLY.get(image.format or "", 1)
    if pixels > most * 1e6:
        raise PhotoError(
            "too_large",
            f"{width} x {height} px are {pixels / 1e6:.3g} MP; the limit for {image.format} is "
            f"{most:g} MP",
        )
    if max(width, height) > min(MAX_SIDE, MAX_ASPECT * min(width, height)):
        raise PhotoError(
            "too_large",
            f"{width} x {height} px; a photo has at most {MAX_SIDE} px a side, and is at most "
            f"{MAX_ASPECT} times as long as wide",
        )
    if scans * pixels > SCAN_PIXELS:
        raise PhotoError("too_large", f"{scans} scans of {pixels} px: a decompression bomb")
    return image, scans


def _cost(image: Image.Image, scans: int, least_side: int) -> Cost:
    pixels = image.width * image.height
    opaque = image.mode == "RGB" and "transparency" not in image.info and not _is_deep(image)
    memory = pixels * PEAK_BYTES.get(
        image.format or "", PEAK_BYTES_RGB if opaque else PEAK_BYTES_OTHER
    )
    if image.format == "JPEG":
        scale = 8
        while scale > 1 and (not least_side or min(image.size) < scale * least_side):
            scale //= 2
        # libjpeg keeps all coefficients, 2 bytes each, if there are several scans.
        memory = pixels * 12 // scale**2 + (6 * pixels if scans > 1 else 0)
    quick = image.format in QUICK_FORMATS and scans * pixels <= QUICK_PIXELS
    return Cost(memory, pixels / 1e6, quick and memory <= QUICK_BYTES)


def _decode(image: Image.Image, data: bytes, least_side: int) -> Photo:
    kind = image.format or ""
    size = image.size
    # Decoders of these two formats apply the orientation while they decode, so it is read before.
    upright = kind in {"HEIF", "TIFF"}
    orientation = _orientation(image) if upright else 1
    profile = image.info.get("icc_profile")
    if least_side and kind == "JPEG":
        image.draft(None, (least_side, least_side))
    # Pixels before metadata: getexif() of a PNG decodes the pixels, and load() after an error in
    # them returns the rest of the picture as black, without an error.
    deep = _is_deep(image)
    image.load()
    depth_note = _stretch_colors(image, data) if deep else ""
    turn = None
    if not upright:
        orientation = _orientation(image)
        turn = TURNS.get(orientation)
    rgb, notes = _srgb(image, profile, depth_note)
    if turn is not None:
        rgb = rgb.transpose(turn)
    if upright:
        size = image.size
    width, height = size[::-1] if turn in SIDEWAYS else size
    return Photo(rgb, kind, orientation, width, height, notes)


def identify(data: bytes) -> Image.Image:
    """Return a photo whose header is read and whose pixels are not; decoder errors propagate."""
    brands = data[8:HEAD]
    if data[4:8] == b"ftyp" and not any(brand in brands for brand in AVIF_BRANDS):
        # Called directly, because registering the plugin would change Pillow for the whole process.
        heif: Image.Image = HeifImageFile(io.BytesIO(data))
        return heif
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _open_ended(jpeg: bytes) -> tuple[bytes, int]:
    """Return a JPEG and its number of scans; a single scan gets zeros for its end marker.

    If the marker comes too early (a truncated download that some tool has "repaired"), libjpeg
    fills the rest with gray and emits a warning that Pillow drops. Without a marker, libjpeg needs
    more data and Pillow raises an error for a truncated file. A complete picture needs a few bits
    of look-ahead, hence 16 zero bytes.

    Raises:
        PhotoError: A scan has no end, as in files whose missing part is filled with zeros, or the
            header takes too long to read.
    """
    at, scans, segments, fill = 2, 0, 0, 0
    while jpeg[at : at + 2] != b"\xff\xd9":
        scan = jpeg[at : at + 2] == b"\xff\xda"
        scans += scan
        segments += not scans
        if segments > MAX_SEGMENTS or fill > MAX_FILL:
            raise PhotoError("too_slow", "a JPEG header of too many segments or fill bytes")
        if not scan and MARKER.match(jpeg, at):
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
            continue
        end = len(jpeg) if scans else min(len(jpeg), at + MAX_FILL + 2)
        following = MARKER.search(jpeg, at + 2 * scan, end)
        if following is None and end < len(jpeg):
            raise PhotoError("too_slow", "a JPEG header of too many fill bytes")
        if following is None:
            if scans:
                raise PhotoError("truncated", "the picture has no end marker")
            return jpeg, scans
        fill += 0 if scans else following.start() - at
        at = following.start()
    return (jpeg[:at] + bytes(16) if scans == 1 else jpeg), scans


def _check_chunks(png: bytes) -> None:
    """Check that a PNG has at most MAX_CHUNKS chunks, and few with compressed text or profiles."""
    at, compressed = 8, 0
    for _ in range(MAX_CHUNKS):
        compressed += png[at + 4 : at + 8] in COMPRESSED_CHUNKS
        if compressed > MAX_COMPRESSED_CHUNKS:
            raise PhotoError(
                "too_slow", f"a PNG with over {MAX_COMPRESSED_CHUNKS} compressed texts and profiles"
            )
        at += 12 + int.from_bytes(png[at : at + 4], "big")
        if at >= len(png):
            return
    raise PhotoError("too_slow", f"a PNG of over {MAX_CHUNKS} chunks")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of the file, or 1 if it is missing, broken or out of range.

    Except for HEIF and TIFF, the pixels must have been decoded.
    """
    if image.format == "HEIF":  # the plugin sets the tag to 1 and keeps the original value
        value = image.info.get("original_orientation")
    else:
        try:
            value = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # noqa: BLE001 - broken metadata raises any exception; pixels may be valid
            value = None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _srgb(
    image: Image.Image, profile: object, depth_note: str
) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the decoded picture as 8-bit sRGB, and notes on its conversion."""
    rgb, gray_note = _rgb_and_depth(image, profile)
    depth_note = depth_note or gray_note
    if not isinstance(profile, bytes) or not profile:
        return rgb, (depth_note,) if depth_note else ()
    mode = "CMYK" if image.mode == "CMYK" else "L" if image.mode in GRAY_MODES else "RGB"
    rgb, note = color_profiles.to_srgb(rgb, mode, profile)
    return rgb, tuple(filter(None, (depth_note, note)))


def _rgb_and_depth(image: Image.Image, profile: object) -> tuple[Image.Image, str]:
    """Return the picture as 8-bit RGB and a note on its bit depth; transparency becomes white.

    CMYK stays CMYK if the profile converts it.
    """
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N"} or (
        # Pillow returns 16-bit gray images in 32 bits, scaled to 16.
        image.mode == "I" and image.format in {"PPM", "PNG"}
    ):
        return _from_16_bits(image)
    if image.mode in {"I", "F", "LAB"}:
        raise PhotoError("unsupported", f"pixels of mode {image.mode} have no defined white")
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        rgb = Image.new("RGB", rgba.size, "white")
        rgb.paste(rgba, mask=rgba.getchannel("A"))
        return rgb, ""
    if image.mode == "CMYK" and isinstance(profile, bytes):
        usable = color_profiles.conversion_of(profile, "CMYK").transform is not None
        return image if usable else image.convert("RGB"), ""
    return image if image.mode == "RGB" else image.convert("RGB"), ""


def _is_deep(image: Image.Image) -> bool:
    """Return whether a photo that is not decoded yet has 16-bit colors."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and all(_rawmode(tile.args) in LOW_BYTES for tile in tiles)


def _rawmode(args: object) -> object:
    """Return how the pixels of a tile lie in the file, in Pillow's words."""
    return args[0] if isinstance(args, tuple) and args else args


def _stretch_colors(image: Image.Image, data: bytes) -> str:
    """Scale 16-bit colors by the bits in use, in place, and return a note if these are fewer.

    Pillow keeps the high bytes only, so 12 bits in 16 come as black. If these bytes show that fewer
    bits are in use, the file is decoded again for the low ones.
    """
    extrema: list[tuple[int, int]] = list(image.getextrema())  # type: ignore[arg-type]
    brightest = max(high for _, high in extrema[:3])
    depth = next(bits for bits in BIT_DEPTHS if brightest << 8 < 1 << bits)
    if depth == BIT_DEPTHS[-1] or "transparency" in image.info:
        return ""
    low = cast("ImageFile.ImageFile", identify(data))
    with_alpha = str(_rawmode(low.tile[0].args)).startswith("LA")
    low.tile = [
        tile._replace(args=(LOW_BYTES[tile.args[0]], *tile.args[1:]))
        if isinstance(tile.args, tuple)
        else tile._replace(args=LOW_BYTES[str(tile.args)])
        for tile in low.tile
    ]
    low.load()
    white, largest = (1 << depth) - 1, 0
    for top in range(0, image.height, 256):  # in strips, to avoid a second copy of the photo
        box = (0, top, image.width, min(top + 256, image.height))
        strip, lower = np.array(image.crop(box)), np.asarray(low.crop(box))
        lower = lower[..., 1:2] if with_alpha else lower[..., :3]
        values = (strip[..., :3].astype(np.uint32) << 8) + lower
        strip[..., :3] = (values * 510 + white) // (2 * white)  # rounded
        largest = max(largest, int(values.max()))
        image.paste(Image.fromarray(strip), box)
    return _depth_note(depth, largest)


def _depth_note(depth: int, largest: int) -> str:
    return f"scaled as {depth} bits in 16; the largest value is {largest}"


def _from_16_bits(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a 16-bit gray image as RGB, and a note if it uses fewer bits.

    Cameras and scanners store 10, 12 or 14 bits in 16 without saying so in the file. A single
    photo does not show its camera's depth, and prepare and the service must agree on each photo, so
    the depth is the smallest usual one that holds the largest value.
    """
    values = np.asarray(image)
    clear = image.info.get("transparency")
    opaque = values if not isinstance(clear, int) else values[values != clear]
    largest = int(opaque.max(initial=0))
    depth = next(bits for bits in BIT_DEPTHS if largest < 1 << bits)
    white = (1 << depth) - 1
    gray = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):  # in strips, to avoid a second copy of the photo
        strip = values[top : top + 256].astype(np.uint32)
        if isinstance(clear, int):
            strip[strip == clear] = white
        gray[top : top + 256] = (strip * 510 + white) // (2 * white)  # rounded
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        gray = 255 - gray  # Pillow inverts 8 bits only
    note = "" if depth == 16 else _depth_note(depth, largest)
    return Image.fromarray(gray).convert("RGB"), note


def fit(
    image: Image.Image, size: int, mode: Literal["letterbox", "crop", "stretch"], fill: int
) -> tuple[Pixels, Box]:
    """Return (S, S, 3) uint8 pixels and the photo's half-open box (left, top, right, bottom).

    letterbox keeps the whole photo and its aspect ratio: the longer side fills the square, small
    photos are enlarged, and the rest is gray `fill`. crop takes the center square; stretch ignores
    the aspect ratio. Both fill the square, so the box is the whole square.
    """
    if mode == "stretch":
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)), (0, 0, size, size)
    if mode == "crop":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        part = (left, top, left + side, top + side)
        square = image.resize((size, size), Image.Resampling.LANCZOS, box=part)
        return np.asarray(square), (0, 0, size, size)
    longer = max(image.size)
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    left, top = (size - width) // 2, (size - height) // 2
    pixels = np.full((size, size, 3), fill, np.uint8)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels[top : top + height, left : left + width] = np.asarray(small)
    return pixels, (left, top, left + width, top + height)


def most_bytes(max_megapixels: float) -> int:
    """Return the size of the largest file that a photo of `max_megapixels` can have."""
    return int(max_megapixels * 1e6 * BYTES_PER_PIXEL) + METADATA_BYTES


def _reason(error: Exception) -> str:
    text = str(error).lower()
    cut = isinstance(error, EOFError) or any(
        word in text for word in ("truncated", "end of file", "end-of-file", "not enough data")
    )
    return "truncated" if cut else "unreadable"


def _line(error: BaseException) -> str:
    text = ADDRESS.sub("", str(error))
    return " ".join(text.split())[:300] or type(error).__name__
