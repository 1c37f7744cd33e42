"""Decode a photo: untrusted bytes in, RGB pixels and the photo's box out.

prepare, the predictor and the service all read photos with this module, so a photo has the same
pixels in each of them. No property of the bytes is trusted: the format is detected from the content
and not from the name, only common photo formats are tried, photos above the size limit are rejected
by their header before any pixel is decoded, and every decoder error becomes one `PhotoError` with a
reason code.

Embedded color profiles (ICC) are ignored; pixels are read as sRGB. Transparent areas become white.
Only the first frame of an animation is decoded.
"""

import io
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pi_heif import HeifImageFile  # type: ignore[import-untyped]
from PIL import ExifTags, Image

from anklealign.io import camera_raw

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
    "unsupported": "the pixel format has no defined white, such as 32-bit floats: save it again as "
    "JPEG or PNG",
    "too_large": "more megapixels or bytes than prepare.max_megapixels allows, or a decompression "
    "bomb: save it smaller, or raise prepare.max_megapixels",
}
# Suffixes of photo files, in lower case.
PHOTO_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".heic",
    ".heif", ".hif", ".avif", ".jp2", ".ppm", ".pgm", ".pbm",
}  # fmt: skip

# Only photo formats are tried: some other decoders do more than decode (EPS starts a program).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
    b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
    b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
)  # fmt: skip
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
HEAD = 64  # bytes needed to detect the format

# The memory address of an object, which decoders put into messages; it differs between runs.
ADDRESS = re.compile(r" ?<[^<>]* at 0x[0-9a-fA-F]+>")

# The marker after a JPEG scan; restart markers and stuffed zeros belong to the scan.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# A decoder processes the whole picture once per JPEG scan, so a few kB of empty scans over a large
# frame would take minutes. Encoders write one scan, or about ten.
SCAN_PIXELS = 1_500_000_000
# Decoders that hold several copies of the picture: the megapixel limit is scaled by this factor.
COSTLY = {"JPEG2000": 0.5, "WEBP": 0.5}
# The largest valid file is uncompressed 16-bit RGBA, plus metadata.
BYTES_PER_PIXEL = 8
METADATA_BYTES = 64 << 20

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


@dataclass(frozen=True)
class Photo:
    """A decoded, upright photo and its properties.

    `image` is RGB. `width` and `height` are those of the full photo in px, even if `image` was
    decoded at a smaller size; `orientation` is the EXIF value of the file, or 1 if it is missing or
    invalid.
    """

    image: Image.Image
    format: str
    orientation: int
    width: int
    height: int


def is_photo(head: bytes) -> bool:
    """Return True if the first HEAD bytes of a file have the signature of a photo format."""
    return (
        head.startswith(SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and any(b in head[8:] for b in HEIF_BRANDS + AVIF_BRANDS))
    )


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
            if not is_photo(head):
                raise PhotoError("not_an_image", _describe(head))
            most = _most_bytes(max_megapixels)
            if facts.st_size > most:
                raise PhotoError(
                    "too_large",
                    f"{facts.st_size} bytes; a photo of {max_megapixels:g} MP has at most {most}",
                )
            return head + stream.read()
    except OSError as error:
        raise PhotoError("cannot_open", error.strerror or str(error)) from None


def open_photo(source: bytes | Path, max_megapixels: float, least_side: int = 0) -> Photo:
    """Return the photo in a file's bytes, or in the file at a path.

    Args:
        source: The bytes of a file, or its path.
        max_megapixels: Larger photos are rejected by their header. Pillow's limit of 178.9 MP
            also applies.
        least_side: If positive, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as
            its shorter side keeps this many pixels. With twice the side of the stored square, this
            is four times faster and within 57 dB of the full decode.

    Raises:
        PhotoError: The photo cannot be decoded. No other exception is raised for any bytes.
    """
    data = read_bytes(source, max_megapixels) if isinstance(source, Path) else source
    if not data:
        raise PhotoError("zero_bytes", "the file has 0 bytes")
    if kind := camera_raw.raw_format(data):
        raise PhotoError("camera_raw", kind)
    if not is_photo(data[:HEAD]):
        raise PhotoError("not_an_image", _describe(data[:HEAD]))
    if len(data) > _most_bytes(max_megapixels):
        raise PhotoError(
            "too_large", f"{len(data)} bytes exceed the limit for {max_megapixels:g} MP"
        )
    try:
        return _decode(data, max_megapixels, least_side)
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("too_large", _line(error)) from None
    except MemoryError:
        raise PhotoError("too_large", "not enough memory to decode it") from None
    except Exception as error:  # noqa: BLE001 - decoders raise OSError, SyntaxError, struct.error, …
        raise PhotoError(_reason(error), _line(error)) from None


def _decode(data: bytes, max_megapixels: float, least_side: int) -> Photo:
    scans = 1
    if data.startswith(b"\xff\xd8"):
        data, scans = _open_ended(data)
    image = identify(data)
    pixels = image.width * image.height
    most = max_megapixels * COSTLY.get(image.format or "", 1)
    if pixels > most * 1e6:
        raise PhotoError(
            "too_large",
            f"{image.width} x {image.height} px are {pixels / 1e6:.3g} MP; the limit for "
            f"{image.format} is {most:g} MP",
        )
    if scans * pixels > SCAN_PIXELS:
        raise PhotoError("too_large", f"{scans} scans of {pixels} px: a decompression bomb")
    orientation = _orientation(image)
    # The decoders of these two formats apply the orientation.
    turn = None if image.format in {"HEIF", "TIFF"} else TURNS.get(orientation)
    width, height = image.size if turn not in SIDEWAYS else image.size[::-1]
    if least_side and image.format == "JPEG":
        image.draft(None, (least_side, least_side))
    image.load()
    rgb = _rgb(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
    return Photo(rgb, image.format or "", orientation, width, height)


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
        PhotoError: A scan has no end, as in files whose missing part is filled with zeros.
    """
    at, scans = 2, 0
    while jpeg[at : at + 2] != b"\xff\xd9":
        scan = jpeg[at : at + 2] == b"\xff\xda"
        scans += scan
        if not scan and MARKER.match(jpeg, at):
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
            continue
        following = MARKER.search(jpeg, at + 2 * scan)
        if following is None:
            if scans:
                raise PhotoError("truncated", "the picture has no end marker")
            return jpeg, scans
        at = following.start()
    return (jpeg[:at] + bytes(16) if scans == 1 else jpeg), scans


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of the file, or 1 if it is missing, broken or out of range."""
    if image.format == "HEIF":  # the plugin sets the tag to 1 and keeps the original value
        value = image.info.get("original_orientation")
    else:
        try:
            value = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # noqa: BLE001 - broken metadata raises any exception; pixels may be valid
            value = None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Return the picture as 8-bit RGB; 16 bits are scaled, transparent pixels become white."""
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
        return rgb
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    clear = image.info.get("transparency")
    gray = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):  # in strips, to avoid a second copy of the photo
        strip = values[top : top + 256].astype(np.uint32)
        if isinstance(clear, int):
            strip[strip == clear] = 65535
        # 65535 is 255 x 257, so this rounds 16 bits to 8 exactly.
        gray[top : top + 256] = (strip + 128) // 257
    return Image.fromarray(gray).convert("RGB")


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


def _most_bytes(max_megapixels: float) -> int:
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


def _describe(head: bytes) -> str:
    return f"starts with {head[:12]!r}, which is not a photo format"
