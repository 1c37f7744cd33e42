"""Contact sheets: pages of photos in a grid, each tile with lines of text.

tiles = [contact_sheets.Tile((pixels,), ("a.jpg", "blurred: 1.2 above 0.6")), …]
pages = contact_sheets.pages(tiles, title="…", empty="no photo removed")
contact_sheets.write(folder, "removed", pages)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from anklealign.io.files import replacing
from anklealign.io.pixel_store import Pixels

SIDE = 208  # pixels: photos are scaled to this square; three pairs fit the width of a screen
GAP = 14
MARGIN = 20
TITLE, TEXT = 19, 13  # pixels, font sizes
INK, FAINT, PAPER, BACKGROUND = "#1a1a1a", "#5c5c5c", "#ffffff", "#ececec"


@dataclass(frozen=True)
class Tile:
    """Pictures side by side, (H, W, 3) each, above lines of text; the first line is bold."""

    pictures: tuple[Pixels, ...]
    lines: tuple[str, ...]


def pages(
    tiles: Sequence[Tile], title: str, empty: str, columns: int = 3, rows: int = 4
) -> Iterator[Image.Image]:
    """Yield the pages with all tiles; without tiles, one page with the text `empty`."""
    if not tiles:
        yield _blank(title, empty)
    size = columns * rows
    starts = range(0, len(tiles), size)
    for n, start in enumerate(
        tqdm(starts, "contact sheets", unit="page", delay=1, leave=False, disable=None), 1
    ):
        yield _page(tiles[start : start + size], _numbered(title, n, len(starts)), columns)


def write(folder: Path, name: str, sheets: Iterable[Image.Image]) -> list[Path]:
    """Write name_01.png, name_02.png, … and return their paths; earlier such pages are deleted."""
    for old in folder.glob(f"{name}_*.png"):  # an earlier run may have written more pages
        old.unlink()
    paths = []
    for n, page in enumerate(sheets, 1):
        paths.append(folder / f"{name}_{n:02}.png")
        with replacing(paths[-1]) as temporary:
            page.save(temporary, format="PNG", compress_level=3)
    return paths


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib ships this font on every system; the basic layout does not need libraqm.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(mpl.get_data_path(), "fonts", "ttf", name)
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _numbered(title: str, number: int, count: int) -> str:
    return f"{title}   (page {number} of {count})" if count > 1 else title


def _blank(title: str, text: str) -> Image.Image:
    width = 2 * MARGIN + 3 * SIDE
    page = Image.new("RGB", (width, 2 * MARGIN + 3 * TITLE), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), _fitted(title, width - 2 * MARGIN, TITLE), INK, _font(TITLE))
    draw.text((MARGIN, MARGIN + 2 * TITLE), text, FAINT, _font(TEXT))
    return page


def _page(tiles: Sequence[Tile], title: str, columns: int) -> Image.Image:
    columns = min(columns, len(tiles))
    across = max(len(tile.pictures) for tile in tiles)
    tile_width = max(across * SIDE + (across - 1) * 4, SIDE)
    line = round(TEXT * 1.4)
    tile_height = SIDE + 6 + line * max(len(tile.lines) for tile in tiles)
    down = -(-len(tiles) // columns)
    top = MARGIN + 2 * TITLE
    # A single narrow column would truncate the title.
    width = max(2 * MARGIN + columns * (tile_width + GAP) - GAP, 3 * SIDE)
    height = top + down * (tile_height + GAP) - GAP + MARGIN
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 4), _fitted(title, width - 2 * MARGIN, TITLE), INK, _font(TITLE))
    for n, tile in enumerate(tiles):
        x = MARGIN + n % columns * (tile_width + GAP)
        y = top + n // columns * (tile_height + GAP)
        for k, pixels in enumerate(tile.pictures):
            left = x + k * (SIDE + 4)
            draw.rectangle((left, y, left + SIDE - 1, y + SIDE - 1), fill=BACKGROUND)
            picture = _within(Image.fromarray(pixels), SIDE)
            inset = ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2)
            page.paste(picture, (left + inset[0], y + inset[1]))
        for k, text in enumerate(tile.lines):
            at = (x, y + SIDE + 4 + k * line)
            fitted = _fitted(text, tile_width, TEXT, bold=k == 0)
            draw.text(at, fitted, INK if k == 0 else FAINT, _font(TEXT, bold=k == 0))
    return page


def _within(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture scaled, up or down, to fit a square."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _fitted(text: str, width: int, size: int, *, bold: bool = False) -> str:
    """Return the text with its middle replaced by … if it is wider than `width` pixels.

    The ends of a path are more informative than its middle.
    """
    font = _font(size, bold=bold)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 1:
        keep -= 1
        head = (keep + 1) // 2
        short = f"{text[:head]}…{text[len(text) - keep + head :]}"
        if font.getlength(short) <= width:
            return short
    return "…"
