"""Test photos worth a look, with what the model saw in them, as contact sheets."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from PIL import Image

from anklealign.explainability import attribution
from anklealign.io.pixel_store import Pixels
from anklealign.models.bundle import Bundle
from anklealign.plotting import contact_sheets

EACH = 4  # photos of a kind and class: with three kinds, a page a class
KINDS = ("surest right", "surest wrong", "least sure")
HEADS = 6  # of attention in a row


def chosen(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the photos to explain, a class after the other, with their `kind`.

    Args:
        predictions: actual, predicted, probability (of the predicted class), path; the index is
            kept. A photo that is of two kinds stands under the first.
    """
    ordered = predictions.sort_values(["probability", "path"], ascending=[False, True])
    right = ordered.actual == ordered.predicted
    found: list[pd.DataFrame] = []
    for name in sorted(set(ordered.actual)):
        here = ordered.actual == name
        unsure = ordered[here].iloc[::-1]
        taken: set[int] = set()
        for kind, rows in zip(
            KINDS, (ordered[here & right], ordered[here & ~right], unsure), strict=True
        ):
            some = rows[~rows.index.isin(taken)].head(EACH)
            taken |= set(some.index)
            found.append(some.assign(kind=kind))
    return pd.concat(found)


def explained(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Pixels,
    bundle: Bundle,
    device: torch.device,
) -> Iterator[Image.Image]:
    """Yield a page a class: each photo beside what spoke for the class that the model said.

    Beside the photo stands Grad-CAM's map and, for a transformer, attention rollout's.
    """
    rows = chosen(predictions)
    places = test.loc[rows.index]
    pixels = store[places.row.to_numpy()]
    said = rows.predicted.map(bundle.classes.index).to_numpy(np.int64)
    maps = [attribution.heat_maps(bundle, pixels, said, device=device)]
    shown = "Grad-CAM"
    if attribution.has_attention(bundle.model):
        maps.append(attribution.heat_maps(bundle, pixels, said, "rollout", device))
        shown = "Grad-CAM, attention rollout"
    boxes = windows_of(places)
    for name in sorted(set(rows.actual)):
        tiles = []
        for n in np.flatnonzero(rows.actual == name):
            row, box = rows.iloc[n], boxes[n]
            over = [attribution.overlay(pixels[n], some[n])[box] for some in maps]
            answer = f"is {name}, said {row.predicted} {row.probability:.0%}"
            lines = (row.kind, answer, row.path)
            tiles.append(contact_sheets.Tile((pixels[n][box], *over), lines))
        title = f"{name}: where the model looked ({shown})"
        yield from contact_sheets.pages(
            tiles, title, "no photo", columns=3 if len(maps) == 1 else 2
        )


def heads(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Pixels,
    bundle: Bundle,
    device: torch.device,
) -> Iterator[Image.Image]:
    """Yield pages of what each head of a transformer's last layer attends to, a photo a class.

    A photo's heads fill as many rows as they need.
    """
    rows = chosen(predictions).groupby("actual", sort=True).head(1)
    places = test.loc[rows.index]
    pixels = store[places.row.to_numpy()]
    maps = attribution.attention_maps(bundle, pixels, device)
    boxes = windows_of(places)
    tiles = []
    for photo, heads, box, row in zip(pixels, maps, boxes, rows.to_dict("records"), strict=True):
        answer = f"is {row['actual']}, said {row['predicted']} {row['probability']:.0%}"
        for start in range(0, len(heads), HEADS):
            some = heads[start : start + HEADS]
            over = (attribution.overlay(photo, head)[box] for head in some)
            numbers = f"heads {start + 1} to {start + len(some)} of {len(heads)}"
            tiles.append(contact_sheets.Tile((photo[box], *over), (answer, numbers, row["path"])))
    yield from contact_sheets.pages(tiles, "Attention of the last layer's heads", "no photo", 1, 4)


def windows_of(places: pd.DataFrame) -> list[tuple[slice, slice]]:
    """Return where each photo lies in its square, inside the letterbox."""
    edges = places[["top", "bottom", "left", "right"]].to_numpy()
    return [(slice(top, bottom), slice(left, right)) for top, bottom, left, right in edges]
