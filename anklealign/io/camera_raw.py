"""Recognize the raw files of cameras, which are not photos yet.

Many raw formats are TIFF files whose first picture is a thumbnail of 160 x 120 px, which a TIFF
decoder returns as the photo. Sources: the TIFF 6.0, TIFF/EP and DNG specifications for the tags,
and the first bytes of the makers' formats as listed in LibRaw's and ExifTool's documentation.
"""

from collections.abc import Iterator

# Position and bytes of raw formats that are not plain TIFF files.
SIGNATURES = (
    (4, b"ftypcrx ", "Canon CR3"), (6, b"HEAPCCDR", "Canon CRW"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm RAF"),
    (0, b"IIRO", "Olympus ORF"), (0, b"IIRS", "Olympus ORF"), (0, b"MMOR", "Olympus ORF"),
    (0, b"IIU\0", "Panasonic RW2"), (0, b"FOVb", "Sigma X3F"), (0, b"\0MRM", "Minolta MRW"),
    (8, b"CR\2\0", "Canon CR2"),
)  # fmt: skip
NEW_SUBFILE_TYPE, PHOTOMETRIC, SUB_IFDS, DNG_VERSION = 254, 262, 330, 50706
REDUCED_RESOLUTION = 1  # bit of NEW_SUBFILE_TYPE
SENSOR_PIXELS = {32803, 34892}  # color filter array, linear raw
SHORT = 3  # type of a field with 2 bytes
MOST_FIELDS = 512


def raw_format(data: bytes) -> str:
    """Return the raw format of a file by its content, or '' if it is none.

    The first 16 bytes are sufficient for formats with a signature; TIFF files need all bytes.
    """
    for position, signature, name in SIGNATURES:
        if data[position : position + len(signature)] == signature:
            return name
    fields = dict(_first_fields(data))
    if DNG_VERSION in fields:
        return "DNG"
    thumbnail = fields.get(NEW_SUBFILE_TYPE, 0) & REDUCED_RESOLUTION and SUB_IFDS in fields
    return "camera raw (TIFF)" if thumbnail or fields.get(PHOTOMETRIC) in SENSOR_PIXELS else ""


def _first_fields(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the tag and the first value or offset of each field of a TIFF file's first picture."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(data[:4])
    if order is None:
        return

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], "big" if order == "big" else "little")

    start = number(4, 4)
    for index in range(min(number(start, 2), MOST_FIELDS)):
        field = start + 2 + 12 * index
        if field + 12 > len(data):
            return
        size = 2 if number(field + 2, 2) == SHORT else 4
        yield number(field, 2), number(field + 8, size)
