"""Where a box of a photo lies after the photo is turned upright and fitted into a square.

A box is left, top, right, bottom in pixels, half open. These functions move boxes as
`anklealign.io.decode` moves pixels.
"""

from anklealign.config.params import Fit

Box = tuple[int, int, int, int]
Frame = tuple[float, float, float, float]


def upright(box: Box, width: int, height: int, orientation: int) -> Box:
    """Return a box of a file's width x height pixels on the photo turned by EXIF orientation 1-8.

    Raises:
        ValueError: There is no such orientation.
    """
    if not 1 <= orientation <= 8:
        raise ValueError(f"EXIF orientation {orientation} is none of 1 to 8")
    left, top, right, bottom = box
    if orientation in {2, 3, 7, 8}:  # rows are read from the right
        left, right = width - right, width - left
    if orientation in {3, 4, 6, 7}:  # columns are read from the bottom
        top, bottom = height - bottom, height - top
    return (left, top, right, bottom) if orientation <= 4 else (top, left, bottom, right)


def in_square(box: Box, width: int, height: int, size: int, fit: Fit) -> Frame:
    """Return a box of an upright photo of width x height on the square of side `size`.

    What a crop cuts off is cut off the box; one that lies all outside has no area.
    """
    if fit == "stretch":
        scale, shift = (size / width, size / height), (0.0, 0.0)
    elif fit == "crop":
        side = min(width, height)
        scale = (size / side, size / side)
        shift = ((side - width) / 2 * scale[0], (side - height) / 2 * scale[1])
    else:
        longer = max(width, height)
        across, down = (max(1, round(side * size / longer)) for side in (width, height))
        scale = (across / width, down / height)
        shift = ((size - across) // 2, (size - down) // 2)
    left, top, right, bottom = (
        min(max(edge * scale[n % 2] + shift[n % 2], 0.0), float(size)) for n, edge in enumerate(box)
    )
    return left, top, right, bottom
