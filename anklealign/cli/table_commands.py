"""Commands that the user can run to make a table readable: join, write a path or a split list."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anklealign.cli.layout_candidates import LayoutCandidate
from anklealign.cli.table_readings import TableGroup, TableReading, set_option
from anklealign.ingest.inventory import split_of_path, suffix
from anklealign.ingest.table_files import JSON, JSON_LINES

PLAIN = re.compile(r"[\w .,:/()+#%=-]*")  # names without a meaning in a shell's quotation marks


def is_delimited(group: TableGroup) -> bool:
    """Return whether a command can read the table, and its names mean nothing to a shell."""
    names = (*group.files, *group.columns)
    return (
        len(group.files) == 1
        and suffix(group.files[0]) not in {JSON, *JSON_LINES}
        and all(PLAIN.fullmatch(name) for name in names)
    )


def folder_of(group: TableGroup) -> str:
    """Return the folder of the first table."""
    return group.files[0].rpartition("/")[0]


def path_command(group: TableGroup, folder: str, name: str) -> str:
    """Return a command that writes a table with the path in one column, and how to read it."""
    if not is_delimited(group):
        return f"path = {folder}/{name}"
    joined = f"{folder_of(group)}/joined.csv".lstrip("/")
    option = set_option("csv", joined)
    places = [f"t[{_pandas_column(group, column)}]" for column in (folder, name)]
    return (
        f"python -c \"import pandas; t = {_pandas_table(group)}; t['path'] = {places[0]} + '/' "
        f'+ {places[1]}; t.to_csv({joined!r}, index=False)"; then pass {option}'
    )


def _pandas_column(group: TableGroup, name: str) -> str:
    """Return a column's name in pandas, which numbers the columns of a table without a header."""
    return str(group.columns.index(name)) if name.startswith("#") else repr(name)


def _pandas_table(group: TableGroup) -> str:
    """Return the expression that reads a table with pandas as texts."""
    options = ["dtype=str", "sep=None", "engine='python'"]
    if group.encoding != "utf-8":
        options.append(f"encoding={group.encoding!r}")
    if group.columns[0].startswith("#"):
        options.append("header=None")
    return f"pandas.read_csv({group.files[0]!r}, {', '.join(options)})"


def join_command(
    photos: TableGroup, other: TableGroup, key: str, path: str, *, right: str = ""
) -> str:
    """Return a command that joins a table of photos with one of their labels or splits.

    Args:
        photos: The table with the paths.
        other: The other table.
        key: The column of the first table that the other one names.
        path: The column of paths.
        right: The column of the other table that names it, by default the first one.
    """
    if not key.startswith("#"):
        keys = f"left_on={key!r}, right_on={_pandas_column(other, right or other.columns[0])}"
        return (
            f'python -c "import pandas; {_pandas_table(photos)}.merge({_pandas_table(other)}, '
            f"how='left', {keys}).to_csv('joined.csv', index=False)\"; then pass "
            f"{set_option('csv', 'joined.csv')}"
        )
    files = shlex.join([photos.files[0], other.files[0]])
    words = re.findall(r"[a-z]+", Path(other.files[0]).stem.casefold())
    paths = f"NR == FNR {{path[$1] = ${path[1:]}; next}}"
    if {"train", "test"} <= set(words):
        split = '{print path[$1] > ($2 ? "train.txt" : "test.txt")}'
        return f"awk '{paths} {split}' {files}"
    label = '{print path[$1] "," $2}'
    return f"(echo path,label; awk '{paths} {label}' {files}) > labels.csv"


def votes_command(group: TableGroup) -> str:
    """Return how to write tables of one annotator each into one table of votes, or ''."""
    folder = f"{folder_of(group)}/".lstrip("/")
    each = [replace(group, files=(file,)) for file in group.files]
    if group.columns[0].startswith("#") or not all(map(is_delimited, each)):
        return ""
    table = _pandas_table(each[0]).replace(repr(group.files[0]), "f")
    return (
        "write one table, in the folder of the dataset: "
        f'python -c "import pandas; pandas.concat([{table}.assign(annotator=f) for f in '
        f'{list(group.files)}]).to_csv({f"{folder}votes.csv"!r}, index=False)"; then pass '
        f"{set_option('csv', f'{folder}votes.csv')}"
    )


def padded_command(group: TableGroup, column: str, width: int) -> str:
    """Return how to write a table whose numbers have the zeros that a spreadsheet removed."""
    option = set_option("csv", f"{folder_of(group)}/padded.csv".lstrip("/"))
    name = _pandas_column(group, column)
    return (
        f'python -c "import pandas; t = {_pandas_table(group)}; t[{name}] = '
        f't[{name}].str.zfill({width}); t.to_csv({option.partition("=")[2]!r}, index=False)"; '
        f"then pass {option}"
    )


def folder_tables_command(table: LayoutCandidate, folders: LayoutCandidate) -> str:
    """Return a command that writes class folders into tables that are read with another, or ''."""
    path, label = str(table.keys.get("path_column")), str(table.keys.get("label_column"))
    tops = {photo.partition("/")[0]: split_of_path(photo, None) for photo in folders.labels}
    roots = folders.keys.get("class_roots") or (tops if all(tops.values()) else {"": ""})
    # Top folders of the table's photos, which are no classes.
    others = sorted({photo.partition("/")[0] for photo in table.labels if "/" in photo})
    if {"group_column", "split_column", "one_hot", "vote_columns"} & table.keys.keys() or not all(
        PLAIN.fullmatch(name) and not name.startswith("#")
        for name in (path, label, *roots, *others)
    ):
        return ""
    tables = {
        root or ".": "_".join(filter(None, ("folders", split))) + ".csv"
        for root, split in roots.items()
    }
    beside = "" if "." not in tables else f" and p.parts[0] not in {others}"
    return (
        'python -c "import pandas; from pathlib import Path; [pandas.DataFrame([(p.as_posix(), '
        f"p.relative_to(r).parts[0]) for p in Path(r).rglob('*/*') if p.is_file(){beside}], "
        f'columns={[path, label]}).to_csv(f, index=False) for r, f in {tables}.items()]"'
    )


def lists_command(reading: TableReading, column: str, meaning: Mapping[str, str]) -> str:
    """Return how to write the splits of a column into lists of photos, which are read."""
    group, path = reading.group, reading.path
    if not is_delimited(group) or reading.folders:
        return "write lists of the photos: train.txt, val.txt, test.txt"
    folder = f"{folder_of(group)}/".lstrip("/")
    name, split = (_pandas_column(group, each) for each in (path.name, column))
    where = f"{folder!r} + s" if folder else "s"
    return (
        "write lists of the photos, in the folder of the dataset: "
        f'python -c "import pandas; t = {_pandas_table(group)}; '
        f"[g[{name}].to_csv({where} + '.txt', index=False, header=False) for s, g in "
        f't.groupby(t[{split}].map({dict(meaning)}))]"'
    )
