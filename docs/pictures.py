"""Make the README's pictures from the last run, and the service's example photos.

    python -m docs.pictures

Reads data/prepared, data/split, plots/evaluate; writes phantom.jpg, confusion.png and
history.png beside itself, and draws service/page/examples/ anew.
"""

import shutil
from pathlib import Path

from PIL import Image

from anklealign.io import pixel_store
from anklealign.io.files import replacing
from anklealign.plotting import contact_sheets
from synthetic import camera

DOCS = Path("docs")
A_CLASS = 2
EXAMPLES = Path("service/page/examples")
# Class: a person whom no phantom shows, and both heels' angle in degrees.
DRAWN = {
    "pronation": ("example-5", 16),
    "neutral": ("example-3", 5),
    "supination": ("example-0", -6),
}


def main() -> None:
    """Show some photos of each class, of as many collectors, and copy two plots of evaluate."""
    table = pixel_store.read_table(pixel_store.PREPARED / "photos.csv")
    store = pixel_store.open_store()
    shown = table.drop_duplicates(["label", "collector"]).sort_values(["label", "path"])
    tiles = [
        contact_sheets.Tile(
            (store[place["row"], place["top"] : place["bottom"], place["left"] : place["right"]],),
            (place["label"], place["path"]),
        )
        for _, rows in shown.groupby("label", sort=True)
        for place in rows.head(A_CLASS).to_dict("records")
    ]
    (page,) = contact_sheets.pages(tiles, "The phantom", "", columns=len(tiles), rows=1)
    with replacing(DOCS / "phantom.jpg") as path:
        page.save(path, format="JPEG", quality=85, optimize=True)
    for name in ("confusion.png", "history.png"):
        shutil.copyfile(Path("plots/evaluate/pictures", name), DOCS / name)
    draw_examples()


def draw_examples() -> None:
    """Draw one example photo of each class, small enough for git and for a page."""
    for label, (who, angle) in DRAWN.items():
        sitting = camera.Sitting(who, who, 1, angle - 1, angle + 1, side=480)
        photo = Image.fromarray(camera.photograph(1, sitting).pixels)
        with replacing(EXAMPLES / f"{label}.jpg") as path:
            photo.save(path, format="JPEG", quality=80, optimize=True)


if __name__ == "__main__":
    main()
