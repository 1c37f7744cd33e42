"""Photos in one folder per class, also below train/, val/ and test/; deeper folders are free.

bees/1.jpg    train/bees/1.jpg    val/ants/spring/2.png
"""

from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import Entry, Inventory, Skip, compiled, given, person, walk


def find(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos below a folder, labelled by their class folder's name.

    Raises:
        ValueError: The folder is not there.
    """
    labels = Labels(dataset.classes)
    pattern = compiled(dataset.person)
    files, skips = walk(root)
    seen = len(files) + len(skips)
    entries: list[Entry] = []
    for file in tqdm(files, "labels", unit="photo", delay=1, leave=False, disable=None):
        folders = file.split("/")[:-1]
        # A class may itself be called train; then it is a class.
        part = given(file) if folders and labels.find(folders[0]) is None else ""
        name = folders[1:2] if part else folders[:1]
        if not name:
            skips.append(Skip(file, "file", "no_class_folder"))
            continue
        label = labels.find(name[0])
        if label is None:
            skips.append(Skip(file, "file", "label_unknown", labels.nearest(name[0])))
            continue
        entries.append(Entry(file, label, person=person(file, pattern, "", ()), given=part))
    return Inventory(tuple(entries), tuple(skips), seen)
