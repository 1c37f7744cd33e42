"""Photos labeled by their path: by class folders, or by a pattern of the file names.

Class folders may have any subfolders, and lie at the top, below train/, val/ and test/, or below
the folders in `class_roots`. A folder train, val or test directly below a class folder is a
predefined split, too.

bees/1.jpg    train/bees/1.jpg    val/ants/spring/2.png    bees/test/3.jpg
"""

import re
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import (
    Entry,
    Inventory,
    Skip,
    class_root_of,
    compile_subject_pattern,
    is_other_file,
    list_files,
    predefined_split_of,
    split_of_path,
    subject_of,
)

# (label text, predefined split, reason) of a path; a reason means that there is no label.
LabelOfPath = Callable[[str], tuple[str, str, str]]


def read_class_folders(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos below a folder, labeled by the names of their class folders.

    Raises:
        ValueError: The folder does not exist.
    """
    labels = Labels(dataset.classes)

    def label_of(file: str) -> tuple[str, str, str]:
        split, inner = _split_of_root(file, dataset, labels)
        if inner is None:
            return "", "", "outside_class_roots"
        name, *folders = inner.split("/")[:-1] or [""]
        if not name:
            return "", "", "no_class_folder"
        return name, split or (predefined_split_of(f"{folders[0]}/x") if folders else ""), ""

    return _read_paths(root, dataset, labels, label_of)


def read_file_names(root: Path, dataset: Dataset) -> Inventory:
    """Return the photos below a folder, labeled by `label_pattern` in their paths.

    Raises:
        ValueError: The folder does not exist.
    """
    pattern = re.compile(dataset.label_pattern or "", re.IGNORECASE)

    def label_of(file: str) -> tuple[str, str, str]:
        match = pattern.search(file)
        if match is None:
            return "", "", "no_label_in_name"
        return match.group("label"), split_of_path(file, dataset.class_roots), ""

    return _read_paths(root, dataset, Labels(dataset.classes), label_of)


def _split_of_root(file: str, dataset: Dataset, labels: Labels) -> tuple[str, str | None]:
    """Return the split of the folder that holds the class folders, and the path below it."""
    if dataset.class_roots is None:
        split = predefined_split_of(file)
        # A folder named train is a class if a class has that name.
        if split and labels.class_of(file.split("/", maxsplit=1)[0]) is None:
            return split, file.partition("/")[2]
        return "", file
    root = class_root_of(file, dataset.class_roots)
    if root is None:
        return "", None
    return dataset.class_roots[root], file.removeprefix(root).removeprefix("/")


def _read_paths(root: Path, dataset: Dataset, labels: Labels, label_of: LabelOfPath) -> Inventory:
    """Return the inventory of photos that are labeled by their paths."""
    pattern = compile_subject_pattern(dataset.subject_pattern)
    files, skips = list_files(root)
    seen = len(files) + len(skips)
    entries: list[Entry] = []
    for file in tqdm(files, "labels", unit="photo", delay=1, leave=False, disable=None):
        text, split, reason = label_of(file)
        label = None if reason else labels.class_of(text)
        if is_other_file(root, file):
            skips.append(Skip(file, "file", "other_file"))
        elif reason:
            skips.append(Skip(file, "file", reason))
        elif label is None:
            skips.append(Skip(file, "file", "label_unknown", labels.suggest(text)))
        else:
            subject = subject_of(file, pattern, "", ())
            entries.append(Entry(file, label, subject=subject, predefined_split=split))
    return Inventory(tuple(entries), tuple(skips), seen)
