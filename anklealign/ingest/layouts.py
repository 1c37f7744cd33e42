"""The reader of each layout."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from anklealign.config.params import Dataset
from anklealign.ingest import class_folders, csv_table, extra_tables, label_studio, split_lists
from anklealign.ingest.inventory import Entry, Inventory, Skip, escape_unprintable, skips_of_entry
from anklealign.io.pixel_store import photo_id

LAYOUTS: Mapping[str, Callable[[Path, Dataset], Inventory]] = {
    "folders": class_folders.read_class_folders,
    "file_names": class_folders.read_file_names,
    "label_studio": label_studio.read_label_studio,
    "table": csv_table.read_csv_table,
}


def read_inventory(root: Path, dataset: Dataset) -> Inventory:
    """Return the inventory of a dataset's folder, sorted by path.

    Two names that differ only in Unicode form have the same id and are one file on macOS, so one of
    them is skipped. If all photos are in one predefined split, there is nothing to keep apart, and
    none is returned.

    Raises:
        ValueError: The folder, or a file that its layout needs, does not exist or cannot be parsed.
    """
    extra = extra_tables.read_extra_tables(root, dataset)
    own = extra_tables.without_extra_columns(dataset, extra)
    inventory = LAYOUTS[dataset.layout](root, own)
    if extra:
        inventory = extra_tables.apply_extra_tables(dataset, extra, inventory)
    if dataset.split_lists:
        inventory = split_lists.apply_split_lists(root, dataset.split_lists, inventory)
    first: dict[str, Entry] = {}
    skips: list[Skip] = []
    for entry in sorted(inventory.entries, key=lambda e: e.file):
        twin = first.setdefault(photo_id(escape_unprintable(entry.file)), entry)
        if twin is not entry:
            skips += skips_of_entry(entry, "id_taken", f"by {twin.file}")
    entries = tuple(first.values())
    if len({entry.predefined_split for entry in entries}) == 1:
        entries = tuple(replace(entry, predefined_split="") for entry in entries)
    return replace(inventory, entries=entries, skips=(*inventory.skips, *skips))
