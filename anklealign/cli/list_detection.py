"""Find lists of photos without labels: of predefined splits, of classes, and others."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from anklealign.cli.layout_candidates import LayoutCandidate
from anklealign.config.class_names import fold, unnumbered
from anklealign.ingest.inventory import escape_unprintable, split_of_name, split_of_path, suffix
from anklealign.ingest.split_lists import photos_of_lines
from anklealign.ingest.table_files import PathIndex, PathRule
from anklealign.ingest.wording import counted

LISTS = {".csv", ".tsv", ".tab", ".txt", ".lst"}
LARGEST_LIST = 64 << 20  # bytes
MOST = 0.5  # least share of lines that name a photo
HELD_OUT_FIRST = ("test", "val", "train")  # of two lists that name a photo, the first one counts
QUERY = re.compile(r"://[^?#\s]*[?#][^,;\t|]*[,;\t|]")  # an address with a query, before a cell
FIRST = 20  # lines that show whether a file is a table
SHOWN = 6  # lists named in a remark


@dataclass(frozen=True)
class PhotoList:
    """A file whose lines are paths of photos; `header` if the first line is none."""

    file: str
    photos: tuple[str, ...]
    header: bool

    @property
    def stem(self) -> str:
        """Return the name of the file without its suffix."""
        return PurePosixPath(self.file).stem


def find_lists(root: Path, files: Iterable[str], photos: Sequence[str]) -> list[PhotoList]:
    """Return the files whose lines are paths of photos, and nothing else."""
    index = PathIndex(photos)
    lists: list[PhotoList] = []
    for file in files:
        if suffix(file) not in LISTS or (root / file).stat().st_size > LARGEST_LIST:
            continue
        data = (root / file).read_bytes()
        found = photos_of_lines(data, file, index, whole=True)
        if _is_table(data, file, index) or (
            any(len(match) > 1 for match in found) and not split_of_name(PurePosixPath(file).stem)
        ):
            continue  # names of classes are no photos in their folders
        if found and sum(map(bool, found)) >= max(MOST * len(found), 2):
            named = dict.fromkeys(photo for match in found for photo in match)
            lists.append(PhotoList(file, tuple(named), not found[0]))
    return lists


def _is_table(data: bytes, file: str, index: PathIndex) -> bool:
    """Return whether a line is several cells, one of which is a path: 1 cats/1.jpg."""
    rule = PathRule(file.rpartition("/")[0])
    for line in data.decode("utf-8-sig", "replace").splitlines()[:FIRST]:
        cells = re.split(r"[,;\t| ]", line.strip())
        if QUERY.search(line):  # the end of a signed address is no part of a path
            return True
        if (
            len(cells) > 1
            and not index.find(line, rule)
            and any(cell and index.find(cell, rule) for cell in cells)
        ):
            return True
    return False


def split_files(root: Path, files: Iterable[str], photos: Iterable[str]) -> dict[str, list[str]]:
    """Return the files named after splits whose lines start with paths of photos."""
    index = PathIndex(photos)
    found: dict[str, list[str]] = {}
    ordered = sorted(
        (file for file in files if split_of_name(PurePosixPath(file).stem)),
        key=lambda file: (HELD_OUT_FIRST.index(split_of_name(PurePosixPath(file).stem)), file),
    )
    for file in ordered:
        if suffix(file) not in LISTS or (root / file).stat().st_size > LARGEST_LIST:
            continue
        lines = photos_of_lines((root / file).read_bytes(), file, index)
        if named := list(dict.fromkeys(photo for match in lines for photo in match)):
            found[file] = named
    return found


def with_splits(
    reading: LayoutCandidate, root: Path, files: Iterable[str], photos: Sequence[str]
) -> LayoutCandidate:
    """Return a reading with the predefined splits of the lists that name its photos."""
    csv = reading.keys.get("csv", ())
    tables = {csv} if isinstance(csv, str) else set(csv)
    lists = split_files(root, (file for file in files if file not in tables), photos)
    splits: dict[str, str] = {}
    several = 0
    for file, named in list(lists.items()):
        split = split_of_name(PurePosixPath(file).stem)
        own = [photo for photo in named if photo in reading.labels]
        several += sum(splits.setdefault(photo, split) != split for photo in own)
        if not own:
            del lists[file]
    roots = reading.keys.get("class_roots")
    before = {photo: reading.splits.get(photo) or split_of_path(photo, roots) for photo in splits}
    if before == splits or len({splits.get(photo, "") for photo in reading.labels}) < 2:
        return reading
    counts = Counter(splits.values())
    listed = ", ".join(f"{counts[split]} {split}" for split in HELD_OUT_FIRST[::-1])
    remarks = [f"predefined splits by {_named(lists)}: {listed}"]
    if several:
        number = counted(several, "photo is", "photos are")
        remarks.append(f"{number} in several of these lists; the first list counts")
    differing = sorted(photo for photo, split in splits.items() if before[photo] not in {"", split})
    if differing:
        remarks.append(
            f"{counted(len(differing), 'photo has', 'photos have')} another split by folder or "
            f"table, for example {escape_unprintable(differing[0])}; the lists count, and "
            "--set split_lists=null takes the folder or table"
        )
    keys = {**reading.keys, "split_lists": list(lists)}
    return replace(reading, keys=keys, remarks=(*reading.remarks, *remarks))


def remarks_on(lists: Sequence[PhotoList], labels: Mapping[str, str]) -> list[str]:
    """Return a remark on each list that names photos without a label, or is not read."""
    lines = []
    for each in lists:
        unlabeled = sum(photo not in labels for photo in each.photos)
        if unlabeled:
            lines.append(
                f"{escape_unprintable(each.file)} names {counted(unlabeled, 'photo', 'photos')} "
                "without a label"
            )
        elif not split_of_name(each.stem):
            lines.append(f"{escape_unprintable(each.file)}: a list of photos, not read")
    return lines


def by_class(lists: Sequence[PhotoList]) -> LayoutCandidate | None:
    """Return lists that may be named after classes as a table whose labels must be written."""
    named = [each for each in lists if not split_of_name(each.stem)]
    stems = {unnumbered(fold(each.stem)) for each in named}
    numbered = {re.sub(r"\d+", "#", each.stem) for each in named}
    counts = Counter(photo for each in named for photo in each.photos)
    if len(stems) < 2 or len(numbered) < 2 or counts.total() > len(counts):
        return None
    texts = Counter({each.stem: len(each.photos) for each in named})
    files = shlex.join(escape_unprintable(PurePosixPath(each.file).name) for each in named)
    folder = escape_unprintable(str(PurePosixPath(named[0].file).parent))
    rows = "FNR > 1 " if any(each.header for each in named) else ""
    command = (
        f'(echo path,label; awk \'{rows}{{sub(/\\r$/, ""); print $0 "," substr(FILENAME, 1, '
        f"length(FILENAME) - {len(suffix(named[0].file))})}}' {files}) > labels.csv"
    )
    return LayoutCandidate(
        "table",
        f"{_named([each.file for each in named])} name {len(counts)} photos without a label",
        texts,
        question=(
            f"{_named([each.file for each in named])} are lists of photos; if they are named after "
            f"the classes, write one table, in folder {folder}: {command}"
        ),
        labels={photo: each.stem for each in named for photo in each.photos},
    )


def _named(files: Iterable[str]) -> str:
    names = [escape_unprintable(file) for file in files]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
