"""Contact sheets of selected test photos with their attribution maps."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from PIL import Image

from anklealign.explainability import attribution
from anklealign.io.pixel_store import Photos
from anklealign.models.bundle import Bundle
from anklealign.plotting import contact_sheets

PHOTOS_PER_KIND = 4  # for each class; with three kinds, one page per class
MAX_CLASSES = 12  # pages; of more classes, those with the lowest recall
KINDS = ("most confident correct", "most confident wrong", "least confident")
HEADS_PER_ROW = 6


def select(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the photos to explain with their `kind`, class by class of `MAX_CLASSES`.

    Args:
        predictions: actual, predicted, probability (of the predicted class), path; the index is
            kept. A photo that qualifies for two kinds is listed under the first.
    """
    ordered = predictions.sort_values(["probability", "path"], ascending=[False, True])
    correct = ordered.actual == ordered.predicted
    tables: list[pd.DataFrame] = []
    recall = correct.groupby(ordered.actual).mean()
    shown = recall.sort_index().sort_values(kind="stable").index[:MAX_CLASSES]
    for name in sorted(shown):
        of_class = ordered.actual == name
        least_confident = ordered[of_class].iloc[::-1]
        selected: set[int] = set()
        for kind, candidates in zip(
            KINDS,
            (ordered[of_class & correct], ordered[of_class & ~correct], least_confident),
            strict=True,
        ):
            rows = candidates[~candidates.index.isin(selected)].head(PHOTOS_PER_KIND)
            selected |= set(rows.index)
            tables.append(rows.assign(kind=kind))
    return pd.concat(tables)


def attribution_sheets(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Photos,
    bundle: Bundle,
    device: torch.device,
) -> Iterator[Image.Image]:
    """Yield the pages of each class: photos next to the attribution maps of the predicted class.

    The maps are Grad-CAM and, for a transformer, also attention rollout.
    """
    rows = select(predictions)
    photos = test.loc[rows.index]
    pixels = store[photos.row.to_numpy()]
    predicted = rows.predicted.map(bundle.classes.index).to_numpy(np.int64)
    methods = {"Grad-CAM": attribution.heat_maps(bundle, pixels, predicted, device=device)}
    if attribution.has_attention(bundle.model):
        rollout = attribution.heat_maps(bundle, pixels, predicted, "rollout", device)
        methods["attention rollout"] = rollout
    boxes = photo_windows(photos)
    for name in sorted(set(rows.actual)):
        tiles = []
        for n in np.flatnonzero(rows.actual == name):
            row, box = rows.iloc[n], boxes[n]
            overlays = [attribution.overlay(pixels[n], maps[n])[box] for maps in methods.values()]
            outcome = f"actual {name}, predicted {row.predicted} {row.probability:.0%}"
            lines = (row.kind, outcome, row.path)
            tiles.append(contact_sheets.Tile((pixels[n][box], *overlays), lines))
        title = f"{name}: attribution maps ({', '.join(methods)})"
        yield from contact_sheets.pages(
            tiles, title, "no photo", columns=3 if len(methods) == 1 else 2
        )


def attention_head_sheets(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Photos,
    bundle: Bundle,
    device: torch.device,
) -> Iterator[Image.Image]:
    """Yield pages with the attention of each head of a transformer's last layer.

    Shows one photo per class. The heads of a photo fill as many rows as they need.
    """
    rows = select(predictions).groupby("actual", sort=True).head(1)
    photos = test.loc[rows.index]
    pixels = store[photos.row.to_numpy()]
    maps = attribution.attention_maps(bundle, pixels, device)
    boxes = photo_windows(photos)
    tiles = []
    for photo, heads, box, row in zip(pixels, maps, boxes, rows.to_dict("records"), strict=True):
        outcome = f"actual {row['actual']}, predicted {row['predicted']} {row['probability']:.0%}"
        for start in range(0, len(heads), HEADS_PER_ROW):
            shown = heads[start : start + HEADS_PER_ROW]
            overlays = (attribution.overlay(photo, head)[box] for head in shown)
            numbers = f"heads {start + 1} to {start + len(shown)} of {len(heads)}"
            lines = (outcome, numbers, row["path"])
            tiles.append(contact_sheets.Tile((photo[box], *overlays), lines))
    yield from contact_sheets.pages(tiles, "Attention heads of the last layer", "no photo", 1, 4)


def photo_windows(photos: pd.DataFrame) -> list[tuple[slice, slice]]:
    """Return the rows and columns of each photo inside its letterbox."""
    edges = photos[["top", "bottom", "left", "right"]].to_numpy()
    return [(slice(top, bottom), slice(left, right)) for top, bottom, left, right in edges]
