"""Tables that give photos their groups and predefined splits, beside the labels of any layout.

`extra_csv` maps each table to its column of paths, which name photos or folders as in tables with
labels (`anklealign.ingest.table_files`). `group_column` and `split_column` are columns of these
tables; if none of them has such a column, it belongs to `csv`. Photos without a row stay as they
are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from anklealign.config.params import Dataset
from anklealign.ingest.csv_table import split_of_cell
from anklealign.ingest.inventory import Inventory, with_tables
from anklealign.ingest.table_files import POSITION, ParsedTable, PathIndex, parse_table

Tables = Mapping[str, ParsedTable]


def read_extra_tables(root: Path, dataset: Dataset) -> dict[str, ParsedTable]:
    """Return the tables of `extra_csv` by their paths.

    A table without a column of the dataset is unused if other tables have all these columns:
    `group_column=null` turns the groups off, and leaves their table.

    Raises:
        ValueError: A table does not exist, cannot be parsed or lacks a column.
    """
    tables: dict[str, ParsedTable] = {}
    for name, path_column in (dataset.extra_csv or {}).items():
        file = root / name
        if not file.is_file():
            raise ValueError(f"{file} does not exist; add it, or fix extra_csv in params.yaml")
        header = POSITION.fullmatch(path_column) is None
        try:
            table = parse_table(file.read_bytes(), str(file), header=header)
        except ValueError:
            table = parse_table(file.read_bytes(), str(file), dataset.encoding, header=header)
        if _place(table, path_column) is None:
            _refuse_columns(file, table, repr(path_column))
        tables[PurePosixPath(name).as_posix()] = table
    columns = [column for column in (dataset.group_column, dataset.split_column) if column]
    used = {
        name: table
        for name, table in tables.items()
        if any(_place(table, column) is not None for column in columns)
    }
    if any(all(_place(t, column) is None for t in used.values()) for column in columns):
        for name in sorted(tables.keys() - used.keys()):
            _refuse_columns(root / name, tables[name], "named by group_column or split_column")
    return used


def _refuse_columns(file: Path, table: ParsedTable, missing: str) -> None:
    """Raise the error of a table that lacks a column."""
    raise ValueError(
        f"{file} has no column {missing}, only {', '.join(table.columns)}; fix the columns "
        "there, or extra_csv in params.yaml"
    )


def without_extra_columns(dataset: Dataset, tables: Tables) -> Dataset:
    """Return the dataset without the columns that extra tables have."""

    def own(column: str | None) -> str | None:
        return None if any(_place(t, column) is not None for t in tables.values()) else column

    return replace(
        dataset, group_column=own(dataset.group_column), split_column=own(dataset.split_column)
    )


def apply_extra_tables(dataset: Dataset, tables: Tables, inventory: Inventory) -> Inventory:
    """Return an inventory with the groups and predefined splits of the extra tables.

    Raises:
        ValueError: A table names no photo with a label, or names one twice with different cells.
    """
    files = {entry.file for entry in inventory.entries}
    # A name means the same photo, whether or not it has a label.
    index = PathIndex(
        [*sorted(files), *(skip.path for skip in inventory.skips if skip.item == "file")]
    )
    groups: dict[str, str] = {}
    splits: dict[str, str] = {}
    for name, table in tables.items():
        rows = list(_photos_of_rows(table, name, (dataset.extra_csv or {})[name], index))
        if not any(photo in files for photos in rows for photo in photos):
            raise ValueError(f"{name} names no photo with a label; fix extra_csv in params.yaml")
        for column, values in ((dataset.group_column, groups), (dataset.split_column, splits)):
            if (place := _place(table, column)) is None:
                continue
            cells = [_cell(cells, place) for _, cells in table.rows]
            if values is splits:
                cells = [split_of_cell(str(column), cell) for cell in cells]
            _collect(values, rows, cells, f"{name}: column {column!r}")
    entries = [
        replace(
            entry,
            subject=groups.get(entry.file, entry.subject),
            predefined_split=splits.get(entry.file, entry.predefined_split),
        )
        for entry in inventory.entries
    ]
    return with_tables(inventory, entries, tables)


def _collect(
    values: dict[str, str], rows: Sequence[Sequence[str]], cells: Sequence[str], where: str
) -> None:
    """Add the cell of each photo."""
    for photos, cell in zip(rows, cells, strict=True):
        for photo in photos if cell else ():
            if (other := values.setdefault(photo, cell)) != cell:
                raise ValueError(
                    f"{where} has {other} and {cell} for {photo}; keep one row per photo"
                )


def _photos_of_rows(
    table: ParsedTable, name: str, path_column: str, index: PathIndex
) -> Sequence[Sequence[str]]:
    """Return the photos that each row of a table names."""
    place = _place(table, path_column) or 0
    paths = [_cell(cells, place) for _, cells in table.rows]
    rule = index.rule_of(paths, name)
    matches = [index.find(path, rule) if path else [] for path in paths]
    single = [found if len(found) == 1 else [] for found in matches]
    if rule.by_folder:
        return [index.photos_below[found[0]] if found else [] for found in single]
    return single


def _place(table: ParsedTable, column: str | None) -> int | None:
    """Return the position of a column, whatever the case of its name, or None."""
    names = [name.casefold() for name in table.columns]
    return names.index(column.casefold()) if column and column.casefold() in names else None


def _cell(cells: Sequence[str], place: int) -> str:
    return cells[place].strip() if place < len(cells) else ""
