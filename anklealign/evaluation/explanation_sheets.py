"""Contact sheets of selected test photos with their attribution maps."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from anklealign.io.pixel_store import Photos
from anklealign.plotting import contact_sheets, heat_maps

METHODS = {"grad_cam": "Grad-CAM", "rollout": "attention rollout"}
HEADS_PER_ROW = 6


def attribution_sheets(
    arrays: Mapping[str, npt.NDArray[Any]], predictions: pd.DataFrame, store: Photos
) -> Iterator[Image.Image]:
    """Yield the pages of each class: photos next to the attribution maps of the predicted class.

    Args:
        arrays: Result of `explained_photos.attribution_maps`.
        predictions: id, row, left, top, right, bottom, path, actual, predicted, and probability
            of the predicted class.
        store: (N, S, S, 3) uint8.
    """
    rows = predictions.set_index("id").loc[list(arrays["ids"])]
    methods = {name: arrays[key] for key, name in METHODS.items() if key in arrays}
    for name in sorted(set(rows.actual)):
        tiles = []
        for n in np.flatnonzero(rows.actual == name):
            row = rows.iloc[n]
            photo, box = store[row.row], _box(row)
            overlays = [_overlay(photo, maps[n])[box] for maps in methods.values()]
            lines = (str(arrays["kinds"][n]), _outcome(row), row.path)
            tiles.append(contact_sheets.Tile((photo[box], *overlays), lines))
        title = f"{name}: attribution maps ({', '.join(methods)})"
        yield from contact_sheets.pages(
            tiles, title, "no photo", columns=3 if len(methods) == 1 else 2
        )


def attention_head_sheets(
    arrays: Mapping[str, npt.NDArray[Any]], predictions: pd.DataFrame, store: Photos
) -> Iterator[Image.Image]:
    """Yield pages with the attention of each head of a transformer's last layer.

    Shows one photo per class. The heads of a photo fill as many rows as they need. The arguments
    are those of `attribution_sheets`.
    """
    rows = predictions.set_index("id").loc[list(arrays["head_ids"])]
    tiles = []
    for row, heads in zip(rows.itertuples(), arrays["heads"], strict=True):
        photo, box = store[int(row.row)], _box(row)  # type: ignore[arg-type]
        for start in range(0, len(heads), HEADS_PER_ROW):
            shown = heads[start : start + HEADS_PER_ROW]
            overlays = (_overlay(photo, head)[box] for head in shown)
            numbers = f"heads {start + 1} to {start + len(shown)} of {len(heads)}"
            lines = (_outcome(row), numbers, str(row.path))
            tiles.append(contact_sheets.Tile((photo[box], *overlays), lines))
    yield from contact_sheets.pages(tiles, "Attention heads of the last layer", "no photo", 1, 4)


def _overlay(photo: npt.NDArray[np.uint8], heat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return heat_maps.overlay(photo, heat.astype(np.float32) / np.float32(255))


def _outcome(row: Any) -> str:  # noqa: ANN401 - a row or a named tuple
    return f"actual {row.actual}, predicted {row.predicted} {row.probability:.0%}"


def _box(row: Any) -> tuple[slice, slice]:  # noqa: ANN401 - a row or a named tuple
    """Return the rows and columns of a photo inside its letterbox."""
    return slice(row.top, row.bottom), slice(row.left, row.right)
