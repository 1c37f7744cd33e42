"""Positions and names in the metadata of photos: count them, and remove them without decoding.

EXIF, XMP, IPTC and comments go; the orientation, the color profile and the compressed pixels stay,
so that a photo looks the same. Formats: Exif 2.32, XMP part 3, PNG 3rd edition, the WebP container.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from PIL import ExifTags, Image

from anklealign.io.decode import MARKER

# Bytes at the start of a file in which cameras and programs write metadata.
HEAD_BYTES = 256 << 10
EXIF = re.compile(rb"(?:Exif\0\0|eXIf|EXIF.{4})(?=II\*\0|MM\0\*)", re.DOTALL)
NAME_TAGS = (ExifTags.Base.Artist, ExifTags.Base.XPAuthor)
OWNER_TAG = ExifTags.Base.CameraOwnerName  # of the Exif IFD
XMP_POSITION = re.compile(rb"exif:GPSLatitude|photoshop:City|Iptc4xmpCore:Location")
XMP_NAME = re.compile(rb"dc:creator|aux:OwnerName|photoshop:Credit|mwg-rs:Name")
PNG_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"}
WEBP_METADATA = {b"EXIF", b"XMP "}
JPEG_METADATA = {0xE1, 0xED, 0xFE}  # APP1: EXIF and XMP; APP13: IPTC; comment


def has_position_and_name(data: bytes) -> tuple[bool, bool]:
    """Return whether a photo's metadata have a position, and the name of a person."""
    position, name = bool(XMP_POSITION.search(data)), bool(XMP_NAME.search(data))
    for exif in _exif_blocks(data):
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        position |= ExifTags.GPS.GPSLatitude in gps
        owner = exif.get_ifd(ExifTags.IFD.Exif).get(OWNER_TAG)
        values = [owner, *(exif.get(tag) for tag in NAME_TAGS)]
        name |= any(str(value or "").strip("\0 ") for value in values)
    return position, name


def without_metadata(data: bytes) -> bytes | None:
    """Return a JPEG, PNG or WebP without metadata but its orientation; None for anything else."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _stripped_jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _stripped_png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _stripped_webp(data)
    except (struct.error, IndexError):
        pass  # damaged
    return None


def _exif_blocks(data: bytes) -> Iterator[Image.Exif]:
    """Yield the readable EXIF blocks of a file; Pillow parses them in Python."""
    starts = [match.end() for match in EXIF.finditer(data)][:4]
    if data.startswith((b"II*\0", b"MM\0*")):  # a TIFF
        starts.append(0)
    for start in starts:
        exif = Image.Exif()
        try:
            exif.load(data[start:] if start == 0 else data[start : start + (64 << 10)])
            for tag in (ExifTags.IFD.GPSInfo, ExifTags.IFD.Exif):
                exif.get_ifd(tag)
        except Exception:  # noqa: BLE001, S112 - broken metadata raise anything
            continue
        yield exif


def _orientation(data: bytes) -> bytes:
    """Return an EXIF block with the orientation of a photo alone, or b'' if it is upright."""
    for exif in _exif_blocks(data):
        value = exif.get(ExifTags.Base.Orientation)
        if isinstance(value, int) and 2 <= value <= 8:
            only = Image.Exif()
            only[ExifTags.Base.Orientation] = value
            return only.tobytes()
    return b""


def _stripped_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG up to the end of its first picture, without metadata; None if it has no end."""
    exif = _orientation(data[:HEAD_BYTES])
    kept = [b"\xff\xd8"]
    if exif:
        kept.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    at = 2
    while True:
        match = MARKER.search(data, at)
        if match is None:
            return None
        kept.append(data[at : match.start()])  # the pixels behind a scan's header
        marker = match[0][1]
        if marker == 0xD9:
            return b"".join([*kept, b"\xff\xd9"])
        end = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
        # A second picture (MPF) has its own metadata and is cut off.
        pictures = marker == 0xE2 and data[match.end() + 2 : match.end() + 6] == b"MPF\0"
        if marker not in JPEG_METADATA and not pictures:
            kept.append(data[match.start() : end])
        at = end


def _stripped_png(data: bytes) -> bytes:
    exif = _orientation(data).removeprefix(b"Exif\0\0")
    kept, at = [data[:8]], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if exif and kind == b"IDAT":
            chunk = b"eXIf" + exif
            kept.append(struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)))
            exif = b""
        if kind not in PNG_METADATA:
            kept.append(data[at:end])
        at = end
        if kind == b"IEND":
            break
    return b"".join(kept)


def _stripped_webp(data: bytes) -> bytes:
    exif = _orientation(data).removeprefix(b"Exif\0\0")
    kept, at = [], 12
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        kind, (length,) = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])
        chunk = data[at : at + 8 + length + length % 2]
        if kind == b"VP8X":  # flags of EXIF and XMP
            chunk = chunk[:8] + bytes([chunk[8] & ~0x0C | (0x08 if exif else 0)]) + chunk[9:]
        if kind not in WEBP_METADATA:
            kept.append(chunk)
        at += len(chunk)
    if exif:
        kept.append(b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
