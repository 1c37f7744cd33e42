"""Select test photos and compute their attribution maps, which the report draws.

Shapes: N selected photos, S the store's side, A attention heads.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from anklealign.explainability import attribution
from anklealign.io.pixel_store import Photos
from anklealign.models.bundle import Bundle

PHOTOS_PER_KIND = 4  # for each class; with three kinds, one page per class
MAX_CLASSES = 12  # pages; of more classes, those with the lowest recall
KINDS = ("most confident correct", "most confident wrong", "least confident")


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


def attribution_maps(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Photos,
    bundle: Bundle,
    device: torch.device,
    *,
    known: Mapping[str, attribution.Maps] | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the maps of the selected photos, as uint8 with 255 for the maximum of a map.

    `known` holds heat maps (S, S) by id, of all selected photos; without it, they are computed.

    Returns:
        `ids` and `kinds` (N,), and `grad_cam` (N, S, S) of the predicted class. Of a transformer,
        also `rollout` (N, S, S), and `heads` (M, A, S, S) of the last layer for one photo of each
        class, whose ids are `head_ids` (M,).
    """
    rows = select(predictions)
    pixels = store[test.row[rows.index].to_numpy()]
    predicted = rows.predicted.map(bundle.classes.index).to_numpy(np.int64)
    arrays = {
        "ids": rows.id.to_numpy(str),
        "kinds": rows.kind.to_numpy(str),
        "grad_cam": _to_uint8(
            attribution.heat_maps(bundle, pixels, predicted, device=device)
            if known is None
            else np.stack([known[name] for name in rows.id])
        ),
    }
    if attribution.has_attention(bundle.model):
        rollout = attribution.heat_maps(bundle, pixels, predicted, "rollout", device)
        arrays["rollout"] = _to_uint8(rollout)
        first = rows.groupby("actual", sort=True).head(1)
        pixels = store[test.row[first.index].to_numpy()]
        arrays["head_ids"] = first.id.to_numpy(str)
        arrays["heads"] = _to_uint8(attribution.attention_maps(bundle, pixels, device))
    return arrays


def _to_uint8(maps: attribution.Maps) -> npt.NDArray[np.uint8]:
    rounded: npt.NDArray[np.uint8] = np.rint(255 * maps).astype(np.uint8)
    return rounded
