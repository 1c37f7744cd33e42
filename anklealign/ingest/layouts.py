"""The source that reads each layout."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from anklealign.config.params import Dataset
from anklealign.ingest import class_folders, csv_table, label_studio
from anklealign.ingest.inventory import Entry, Inventory, Skip, dropped, printable
from anklealign.io.pixel_store import photo_id

LAYOUTS: Mapping[str, Callable[[Path, Dataset], Inventory]] = {
    "folders": class_folders.find,
    "label_studio": label_studio.find,
    "table": csv_table.find,
}


def find(root: Path, dataset: Dataset) -> Inventory:
    """Return the inventory of a dataset's folder by the dataset's layout, sorted by path.

    Two names that differ in Unicode form alone share an id: they are one photo on macOS, so one is
    skipped.

    Raises:
        ValueError: The folder, or what its layout needs, is not there or does not parse.
    """
    found = LAYOUTS[dataset.layout](root, dataset)
    first: dict[str, Entry] = {}
    skips: list[Skip] = []
    for entry in sorted(found.entries, key=lambda e: e.file):
        twin = first.setdefault(photo_id(printable(entry.file)), entry)
        if twin is not entry:
            skips += dropped(entry, "id_taken", f"by {twin.file}")
    return replace(found, entries=tuple(first.values()), skips=(*found.skips, *skips))
