"""Photos in one folder per class, optionally below train/, val/ and test/, with any subfolders.

bees/1.jpg    train/bees/1.jpg    val/ants/spring/2.png
"""

from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import (
    Entry,
    Inventory,
    Skip,
    compile_subject_pattern,
    list_files,
    predefined_split_of,
    subject_of,
)


def read_class_folders(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos below a folder, labeled by the names of their class folders.

    Raises:
        ValueError: The folder does not exist.
    """
    labels = Labels(dataset.classes)
    pattern = compile_subject_pattern(dataset.subject_pattern)
    files, skips = list_files(root)
    seen = len(files) + len(skips)
    entries: list[Entry] = []
    for file in tqdm(files, "labels", unit="photo", delay=1, leave=False, disable=None):
        folders = file.split("/")[:-1]
        # A folder named train is a class if a class has that name.
        split = predefined_split_of(file) if folders and labels.class_of(folders[0]) is None else ""
        name = folders[1:2] if split else folders[:1]
        if not name:
            skips.append(Skip(file, "file", "no_class_folder"))
            continue
        label = labels.class_of(name[0])
        if label is None:
            skips.append(Skip(file, "file", "label_unknown", labels.suggest(name[0])))
            continue
        entries.append(
            Entry(file, label, subject=subject_of(file, pattern, "", ()), predefined_split=split)
        )
    return Inventory(tuple(entries), tuple(skips), seen)
