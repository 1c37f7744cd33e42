"""Create the README's pictures from the last run, and the photos of the notebook.

    python -m docs.pictures

Reads data/prepared and plots/evaluate. Writes synthetic.jpg, confusion.png and history.png to
docs/, and examples/photos/.
"""

import shutil
from pathlib import Path

from PIL import Image

from anklealign.config import paths
from anklealign.io import pixel_store
from anklealign.io.files import replacing
from anklealign.plotting import contact_sheets
from synthetic import camera

DOCS = Path("docs")
PER_CLASS = 2
EXAMPLES = Path("examples/photos")
# Class: a subject that no synthetic set contains, and the mean rearfoot angle in degrees.
EXAMPLE_SUBJECTS = {
    "pronation": ("example-5", 16),
    "neutral": ("example-3", 5),
    "supination": ("example-0", -6),
}


def main() -> None:
    """Create a contact sheet of each class, copy two plots of evaluate, render the examples."""
    table = pixel_store.read_table(paths.PREPARED / "photos.csv")
    store = pixel_store.open_store()
    photos = table.drop_duplicates(["label", "collector"]).sort_values(["label", "path"])
    tiles = [
        contact_sheets.Tile(
            (store[row["row"], row["top"] : row["bottom"], row["left"] : row["right"]],),
            (row["label"], row["path"]),
        )
        for _, rows in photos.groupby("label", sort=True)
        for row in rows.head(PER_CLASS).to_dict("records")
    ]
    (page,) = contact_sheets.pages(tiles, "The synthetic set", "", columns=len(tiles), rows=1)
    with replacing(DOCS / "synthetic.jpg") as path:
        page.save(path, format="JPEG", quality=85, optimize=True)
    for name in ("confusion.png", "history.png"):
        shutil.copyfile(Path("plots/evaluate/pictures", name), DOCS / name)
    render_examples()


def render_examples() -> None:
    """Render one example photo per class, small enough for git and a web page."""
    for label, (name, angle) in EXAMPLE_SUBJECTS.items():
        capture = camera.Capture(name, name, 1, angle - 1, angle + 1, side=480)
        photo = Image.fromarray(camera.photograph(1, capture).pixels)
        with replacing(EXAMPLES / f"{label}.jpg") as path:
            photo.save(path, format="JPEG", quality=80, optimize=True)


if __name__ == "__main__":
    main()
