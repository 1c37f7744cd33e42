"""Open, orient, convert, fit: hostile bytes in, RGB pixels and the photo's box out.

The one way in which photos are read: prepare, the predictor and the service share it, so that a
photo looks the same to each of them. Bytes are trusted in nothing: the format is told by the
content and never by the name, only formats that photos come in are tried, a photo is refused by
the size that its header states before a pixel is decoded, and whatever a decoder raises becomes
one `PhotoError` with a reason code.

Embedded colour profiles (ICC) are left aside: pixels are taken as sRGB. Transparent parts are laid
on white. Of an animation the first frame counts.
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

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

# What it means, a colon, and what to do about it.
REASONS = {
    "cannot_open": "the file cannot be opened, mostly for want of permission: `chmod u+r` it",
    "zero_bytes": "the file is empty: fetch it again",
    "not_an_image": "the content is in no photo format, whatever the name says: take it away, or "
    "save it again as JPEG or PNG",
    "truncated": "the file ends before its picture does: fetch it again",
    "unreadable": "the content is damaged, or of a kind that the decoder does not know: fetch it "
    "again, or save it again as JPEG or PNG",
    "unsupported": "the pixels are of a kind without a fixed white, such as 32-bit floats: save "
    "it again as JPEG or PNG",
    "too_large": "more megapixels or bytes than prepare.max_megapixels allows, or a bomb: save it "
    "smaller, or raise that key",
}

# Some decoders do much more than decode (EPS starts a program), so only photo formats are tried.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
    b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
    b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
)  # fmt: skip
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
HEAD = 64  # bytes that tell the format

# Where an object lies in memory: decoders name their stream so, and it differs from run to run.
ADDRESS = re.compile(r" ?<[^<>]* at 0x[0-9a-fA-F]+>")

# What ends a JPEG's scan; restarts and stuffed zeros belong to it.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# A decoder passes over the whole picture once for each scan of a JPEG: a few kB of empty scans
# over a large frame would keep it busy for minutes. Encoders write one, or about ten.
SCAN_PIXELS = 1_500_000_000
# These decoders hold several copies of the picture: this share of the megapixels takes a GiB.
COSTLY = {"JPEG2000": 0.5, "WEBP": 0.5}
# 16-bit RGBA without compression, the largest honest file, and room for metadata beside it.
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
    """A photo that is refused; `reason` is a key of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the code beside the sentence."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Photo:
    """A decoded photo as it is meant to be seen, and what its file says of it.

    `image` is RGB. `width` and `height` are the full photo's, in pixels, also where `image` was
    decoded smaller; `orientation` is the EXIF value as found, 1 where there is none or no good one.
    """

    image: Image.Image
    format: str
    orientation: int
    width: int
    height: int


def is_photo(head: bytes) -> bool:
    """Tell by a file's first HEAD bytes whether it claims to be in a photo format."""
    return (
        head.startswith(SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and any(b in head[8:] for b in HEIF_BRANDS + AVIF_BRANDS))
    )


def read_bytes(path: Path, max_megapixels: float) -> bytes:
    """Return a photo file's bytes, having looked at its kind, size and first bytes.

    Raises:
        PhotoError: No plain file that may be read, empty, in no photo format, or longer than any
            photo of `max_megapixels` can be.
    """
    try:
        # Opening a named pipe would wait for ever.
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise PhotoError("cannot_open", "no plain file but a folder, pipe or device")
        if facts.st_size == 0:
            raise PhotoError("zero_bytes", "the file has 0 bytes")
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            if not is_photo(head):
                raise PhotoError("not_an_image", _describe(head))
            most = _most_bytes(max_megapixels)
            if facts.st_size > most:
                raise PhotoError(
                    "too_large",
                    f"{facts.st_size} bytes are more than a photo of {max_megapixels:g} MP can "
                    f"take ({most})",
                )
            return head + stream.read()
    except OSError as error:
        raise PhotoError("cannot_open", error.strerror or str(error)) from None


def open_photo(source: bytes | Path, max_megapixels: float, least_side: int = 0) -> Photo:
    """Return the photo in a file's bytes, or in the file at a path.

    Args:
        source: The bytes of a file, or its path.
        max_megapixels: Larger photos are refused by their header. Pillow's own limit of 178.9
            stays in force above it.
        least_side: When positive, a JPEG may be decoded at a half, a quarter or an eighth of its
            size as long as its shorter side keeps this many pixels. At twice the side that it is
            then fitted to, this is four times faster and within 57 dB of the full decode.

    Raises:
        PhotoError: The photo is refused; nothing else is raised whatever the bytes are.
    """
    data = read_bytes(source, max_megapixels) if isinstance(source, Path) else source
    if not data:
        raise PhotoError("zero_bytes", "there are 0 bytes")
    if not is_photo(data[:HEAD]):
        raise PhotoError("not_an_image", _describe(data[:HEAD]))
    if len(data) > _most_bytes(max_megapixels):
        raise PhotoError("too_large", f"{len(data)} bytes for at most {max_megapixels:g} MP")
    try:
        return _decode(data, max_megapixels, least_side)
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("too_large", _line(error)) from None
    except MemoryError:
        raise PhotoError("too_large", "there is not enough memory to decode it") from None
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
            f"{image.width} x {image.height} px are {pixels / 1e6:.3g} MP; the most that is "
            f"decoded from {image.format} is {most:g}",
        )
    if scans * pixels > SCAN_PIXELS:
        raise PhotoError("too_large", f"{scans} scans over {pixels} px: a bomb")
    found = _orientation(image)
    # The decoders of these two turn the picture themselves.
    turn = None if image.format in {"HEIF", "TIFF"} else TURNS.get(found)
    width, height = image.size if turn not in SIDEWAYS else image.size[::-1]
    if least_side and image.format == "JPEG":
        image.draft(None, (least_side, least_side))
    image.load()
    rgb = _rgb(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
    return Photo(rgb, image.format or "", found, width, height)


def identify(data: bytes) -> Image.Image:
    """Return a photo of which only the header is read; whatever a decoder raises is passed on."""
    brands = data[8:HEAD]
    if data[4:8] == b"ftyp" and not any(brand in brands for brand in AVIF_BRANDS):
        # Called directly: registering it would change Pillow for the whole process.
        heif: Image.Image = HeifImageFile(io.BytesIO(data))
        return heif
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _open_ended(jpeg: bytes) -> tuple[bytes, int]:
    """Return a JPEG with zeros in the place of its end marker if it has one scan, and its scans.

    Where the marker comes too early (a cut download that some tool has "repaired"), libjpeg paints
    the rest grey and only warns, which Pillow does not pass on. Without a marker it waits for more
    and Pillow says that the file is truncated. A whole picture needs a few bits of look-ahead, so
    the zeros are 16 bytes.

    Raises:
        PhotoError: A scan never ends: disks and downloads fill what is missing with zeros.
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
    """Return the EXIF orientation as found, 1 where it is missing, broken or out of range."""
    if image.format == "HEIF":  # the plugin sets the tag to 1 and keeps what it was
        value = image.info.get("original_orientation")
    else:
        try:
            value = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # noqa: BLE001 - broken metadata raises anything; the pixels may be fine
            value = None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Return the picture in 8-bit RGB: 16 bits scaled, transparency laid on white."""
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N"} or (
        # Pillow hands 16-bit grey maps over in 32 bits, scaled to 16.
        image.mode == "I" and image.format in {"PPM", "PNG"}
    ):
        return _from_16_bits(image)
    if image.mode in {"I", "F", "LAB"}:
        raise PhotoError("unsupported", f"pixels of mode {image.mode} have no fixed white")
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        seen = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", seen.size, "white")
        white.paste(seen, mask=seen.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    clear = image.info.get("transparency")
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):  # in strips, to hold no second copy of the photo
        strip = values[top : top + 256].astype(np.uint32)
        if isinstance(clear, int):
            strip[strip == clear] = 65535
        # 65535 is 255 x 257, so this rounds 16 bits to 8 exactly.
        grey[top : top + 256] = (strip + 128) // 257
    return Image.fromarray(grey).convert("RGB")


def fit(
    image: Image.Image, size: int, mode: Literal["letterbox", "crop", "stretch"], fill: int
) -> tuple[Pixels, Box]:
    """Return (S, S, 3) uint8 pixels and the photo's half-open box (left, top, right, bottom).

    letterbox keeps all of the photo and its shape: the longer side fills the square, small photos
    are enlarged, and the rest is grey `fill`. crop takes the centre square; stretch ignores the
    shape. Both fill the square, so the box is all of it.
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
    return f"begins with {head[:12]!r}, which no photo format does"
