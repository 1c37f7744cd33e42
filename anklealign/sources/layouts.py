"""The source that reads each layout."""

from collections.abc import Callable, Mapping
from pathlib import Path

from anklealign.params import Dataset
from anklealign.sources import folders, label_studio, table
from anklealign.sources.inventory import Inventory

LAYOUTS: Mapping[str, Callable[[Path, Dataset], Inventory]] = {
    "folders": folders.find,
    "label_studio": label_studio.find,
    "table": table.find,
}


def find(root: Path, dataset: Dataset) -> Inventory:
    """Return the inventory of a dataset's folder by the dataset's layout.

    Raises:
        ValueError: The folder, or what its layout needs, is not there or does not parse.
    """
    return LAYOUTS[dataset.layout](root, dataset)
