"""Make the README's pictures from the last run.

    python -m docs.pictures

Reads data/prepared, data/split, plots/evaluate; writes phantom.jpg, confusion.png and
history.png beside itself.
"""

import shutil
from pathlib import Path

from anklealign import photos, sheets
from anklealign.files import replacing

DOCS = Path("docs")
A_CLASS = 2


def main() -> None:
    """Show some photos of each class, of as many collectors, and copy two plots of evaluate."""
    table = photos.read_table(photos.PREPARED / "photos.csv")
    store = photos.open_store()
    shown = table.drop_duplicates(["label", "collector"]).sort_values(["label", "path"])
    tiles = [
        sheets.Tile(
            (store[place["row"], place["top"] : place["bottom"], place["left"] : place["right"]],),
            (place["label"], place["path"]),
        )
        for _, rows in shown.groupby("label", sort=True)
        for place in rows.head(A_CLASS).to_dict("records")
    ]
    (page,) = sheets.pages(tiles, "The phantom", "", columns=len(tiles), rows=1)
    with replacing(DOCS / "phantom.jpg") as path:
        page.save(path, format="JPEG", quality=85, optimize=True)
    for name in ("confusion.png", "history.png"):
        shutil.copyfile(Path("plots/evaluate/pictures", name), DOCS / name)


if __name__ == "__main__":
    main()
