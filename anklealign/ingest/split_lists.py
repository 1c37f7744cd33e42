"""Lists of photos that give the predefined splits: `train.txt` and `test.txt`, a path per line.

Paths are found as in tables (`anklealign.ingest.table_files`). A line may go on after the path
(`cats/1.jpg 0`), and may name a folder instead of a photo. Lines that name no photo, such as a
header, are ignored.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from anklealign.ingest.inventory import Inventory, split_of_name, with_tables
from anklealign.ingest.table_files import PathIndex

# The path in a line: the whole line, without the last word, its first word, or its first cell.
PATHS_IN_LINE: tuple[Callable[[str], str], ...] = (
    str.strip,
    lambda line: line.strip().rpartition(" ")[0],
    lambda line: line.split()[0],
    lambda line: re.split(r"[,;\t|]", line.strip())[0].strip("\"' "),
)


def photos_of_lines(
    data: bytes, name: str, index: PathIndex, *, whole: bool = False
) -> list[list[str]]:
    """Return the photos that each line of a list names; more than one if it names a folder.

    Args:
        data: The content of the list.
        name: Its path below the dataset's folder.
        index: The photos.
        whole: A line is a path and nothing else.
    """
    lines = [line for line in data.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    readings = (_read(lines, name, index, path_in) for path_in in PATHS_IN_LINE)
    return max([next(readings)] if whole else readings, key=lambda found: sum(map(bool, found)))


def _read(
    lines: Sequence[str], name: str, index: PathIndex, path_in: Callable[[str], str]
) -> list[list[str]]:
    cells = [path_in(line) for line in lines]
    rule = index.rule_of(cells, name)
    matches = [index.find(cell, rule) for cell in cells]
    single = [found if len(found) == 1 else [] for found in matches]
    if rule.by_folder:
        return [index.photos_below[found[0]] if found else [] for found in single]
    return single


def apply_split_lists(root: Path, lists: Iterable[str], inventory: Inventory) -> Inventory:
    """Return an inventory whose photos have the splits of the lists that name them.

    If several lists name a photo, the first one counts.

    Raises:
        ValueError: A list does not exist, is not named after a split, or names no photo.
    """
    # A name means the same photo, whether or not it has a label.
    files = {entry.file for entry in inventory.entries}
    index = PathIndex(
        [*sorted(files), *(skip.path for skip in inventory.skips if skip.item == "file")]
    )
    splits: dict[str, str] = {}
    names = [PurePosixPath(name).as_posix() for name in lists]
    for name in names:
        split = split_of_name(PurePosixPath(name).stem)
        path = root / name
        if not split or not path.is_file():
            problem = "does not exist" if split else "is not named after train, val or test"
            raise ValueError(
                f"{path} {problem}; fix split_lists, in params.yaml or by --set split_lists=…"
            )
        found = photos_of_lines(path.read_bytes(), name, index)
        if not any(photo in files for photos in found for photo in photos):
            raise ValueError(
                f"{path} names no photo with a label; write a path in each line, or leave it out "
                "of split_lists, in params.yaml or by --set split_lists=null"
            )
        for photo in (photo for photos in found for photo in photos):
            splits.setdefault(photo, split)
    entries = [
        replace(entry, predefined_split=splits.get(entry.file, entry.predefined_split))
        for entry in inventory.entries
    ]
    return with_tables(inventory, entries, names)
