import numpy as np
from PIL import Image

from anklealign.plotting import contact_sheets


def tiles(count: int, pictures: int = 2) -> list[contact_sheets.Tile]:
    rng = np.random.default_rng(0)
    return [
        contact_sheets.Tile(
            tuple(rng.integers(0, 256, (60, 80 + n, 3), dtype=np.uint8) for _ in range(pictures)),
            (f"tile {n}", "a line that is far too long for its tile " * 5, "\x00ő/日本.jpg"),
        )
        for n in range(count)
    ]


def test_every_tile_is_on_one_page_and_pages_are_full() -> None:
    assert len(list(contact_sheets.pages(tiles(12), "title", "none", columns=3, rows=4))) == 1
    assert len(list(contact_sheets.pages(tiles(13), "title", "none", columns=3, rows=4))) == 2


def test_without_tiles_one_page_shows_a_message() -> None:
    (page,) = contact_sheets.pages([], "title", "nothing was removed")
    assert np.asarray(page).min() < 100  # ink on paper


def test_a_page_fits_a_screen() -> None:
    (page,) = contact_sheets.pages(tiles(12), "title", "none")
    assert page.width <= 1920
    assert page.height <= 1400


def test_a_long_line_keeps_both_ends() -> None:
    fitted = contact_sheets._fitted("folder/" + "x" * 300 + "/photo.jpg", 300, 13)
    assert fitted.startswith("folder/")
    assert fitted.endswith("photo.jpg")
    assert "…" in fitted


def test_pages_are_deterministic(tmp_path) -> None:
    for folder in ("a", "b"):
        paths = contact_sheets.write(
            tmp_path / folder, "page", contact_sheets.pages(tiles(14), "title", "none")
        )
        assert [path.name for path in paths] == ["page_01.png", "page_02.png"]
    for name in ("page_01.png", "page_02.png"):
        one, other = (tmp_path / folder / name for folder in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()
        with Image.open(one) as page:
            assert page.mode == "RGB"


def test_pages_of_an_earlier_longer_run_are_removed(tmp_path) -> None:
    for count in (30, 2):
        contact_sheets.write(tmp_path, "page", contact_sheets.pages(tiles(count), "title", "none"))
        contact_sheets.write(tmp_path, "other", contact_sheets.pages(tiles(1), "title", "none"))
    assert {path.name for path in tmp_path.iterdir()} == {"page_01.png", "other_01.png"}
