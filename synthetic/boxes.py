"""Map boxes from a file's pixels to the upright photo and to the stored square.

A box is (left, top, right, bottom) in pixels, half-open. The functions transform boxes as
`anklealign.io.decode` transforms pixels.
"""

from anklealign.config.params import Fit

Box = tuple[int, int, int, int]
Frame = tuple[float, float, float, float]


def upright(box: Box, width: int, height: int, orientation: int) -> Box:
    """Return a box in width x height pixels after EXIF orientation 1 to 8 is applied.

    Raises:
        ValueError: The orientation is not 1 to 8.
    """
    if not 1 <= orientation <= 8:
        raise ValueError(f"EXIF orientation {orientation} is not in 1 to 8")
    left, top, right, bottom = box
    if orientation in {2, 3, 7, 8}:  # mirrored horizontally
        left, right = width - right, width - left
    if orientation in {3, 4, 6, 7}:  # mirrored vertically
        top, bottom = height - bottom, height - top
    return (left, top, right, bottom) if orientation <= 4 else (top, left, bottom, right)


def in_square(box: Box, width: int, height: int, size: int, fit: Fit) -> Frame:
    """Return a box of an upright width x height photo in the square of side `size`.

    Boxes are clipped to the square; a box outside it has no area.
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
