"""What the report shows of single photos: heat maps, most similar training photos, a 2-D map.

Shapes: M mapped photos, C features, K neighbors, P test photos with a heat map, S the store's side.

The features are the input of the model's last layer. Photos that the model sees alike are near each
other, so the most similar training photos show what a prediction rests on (Papernot and McDaniel,
Deep k-Nearest Neighbors (2018)). The map is t-SNE (van der Maaten and Hinton, Visualizing Data
using t-SNE (2008)): near photos are alike; far distances and the axes have no meaning.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits
from torch import Tensor

from anklealign.explainability import attribution
from anklealign.models.input_config import Integers

# Photos of each split on the map, chosen by id. More cost a forward pass each, and t-SNE of 4,000
# takes half a minute of one core.
MAX_PHOTOS = {"train": 2000, "val": 500, "test": 1500}
NEIGHBORS = 5  # training photos shown beside a photo
VOTERS = 10  # neighbors whose labels tell an odd one out
COMPONENTS = 50  # principal components that t-SNE starts from, as its authors do
ITERATIONS = 500
ANGLE = 0.7  # of t-SNE's approximation of distant points; 0.5 takes half as long again
HEAT_MAPS = 240  # test photos; each takes a forward and a backward pass
HEAT_ERRORS = 160  # of these, at most
HEAT_SIDE = 32  # pixels; finer than the last feature map of most networks, 7 to 16
EDGE = 1000  # the map's coordinates are 0 to EDGE

Arrays = dict[str, npt.NDArray[np.generic]]
Features = npt.NDArray[np.float32]


def select(table: pd.DataFrame, wrong: set[str]) -> pd.DataFrame:
    """Return the mapped photos, sorted by id: `MAX_PHOTOS` of each split, errors of test first.

    Args:
        table: Photo table with id and split.
        wrong: Ids of the misclassified test photos.
    """
    chosen = []
    for split, limit in MAX_PHOTOS.items():
        rows = table[table.split == split]
        rows = rows.assign(correct=~rows.id.isin(wrong)).sort_values(["correct", "id"])
        chosen.append(rows.head(limit).drop(columns="correct"))
    return pd.concat(chosen).sort_values("id", ignore_index=True)


def describe(
    table: pd.DataFrame,
    wrong: set[str],
    compute: Callable[[Integers], Tensor],
    known: Mapping[int, npt.NDArray[Any]] = MappingProxyType({}),
) -> Arrays:
    """Return the map and the neighbors of photos, or an empty dict for a model without features.

    Args:
        table: Photo table with id, row, split, group and label.
        wrong: Ids of the misclassified test photos.
        compute: Returns the model's features of rows of the store: (N,) -> (N, C) on the CPU.
        known: Features (C,) of photos by their row in the store; the others are computed.

    Returns:
        `map_ids` (M,), `map_xy` (M, 2) uint16, 0 to `EDGE`; `neighbors` (M, K) int32, positions in
        `map_ids` of the most similar training photos of other groups, -1 where there are fewer;
        `similarities` (M, K) uint8, their cosine similarity in percent; `agreeing` (M,) uint8, how
        many of the `VOTERS` nearest photos of other groups have the photo's label.
    """
    photos = select(table, wrong)
    rows = photos.row.to_numpy(np.int64)
    unknown = np.array([row for row in rows.tolist() if row not in known], np.int64)
    by_row = dict(known)
    if len(unknown):
        by_row |= dict(zip(unknown.tolist(), compute(unknown).numpy(), strict=True))
    raw = np.stack([by_row[row] for row in rows.tolist()])
    if (
        raw.ndim != 2
        or len(photos) < 3
        or not np.isfinite(raw).all()
        or np.ptp(raw, axis=0).max() == 0
    ):
        return {}
    with threadpool_limits(1):  # another number of threads rounds, and then draws, differently
        nearest = find_neighbors(raw, photos)
        xy = layout(raw)
    return {
        "map_ids": photos.id.to_numpy(str),
        "map_xy": xy,
        "neighbors": nearest.positions,
        "similarities": nearest.similarities,
        "agreeing": nearest.agreeing,
    }


@dataclass(frozen=True)
class Neighbors:
    """Neighbors of M photos, as in the result of `describe`."""

    positions: npt.NDArray[np.int32]
    similarities: npt.NDArray[np.uint8]
    agreeing: npt.NDArray[np.uint8]


def find_neighbors(raw: Features, photos: pd.DataFrame) -> Neighbors:
    """Return the neighbors of photos in other groups: (M, C) and their split, group and label."""
    unit = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
    cosine = (unit @ unit.T).round(6)  # ties are then broken by position
    groups, labels = (pd.factorize(photos[name])[0] for name in ("group", "label"))
    cosine[groups[:, None] == groups[None, :]] = -np.inf
    voters = np.argsort(-cosine, axis=1, kind="stable")[:, :VOTERS]
    counted = np.isfinite(np.take_along_axis(cosine, voters, 1))
    agreeing = ((labels[voters] == labels[:, None]) & counted).sum(1)
    cosine[:, photos.split.to_numpy() != "train"] = -np.inf
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :NEIGHBORS]
    values = np.take_along_axis(cosine, order, 1)
    known = np.isfinite(values)
    percent = np.rint(100 * np.clip(np.where(known, values, 0), 0, 1))
    positions = np.where(known, order, -1)
    return Neighbors(
        positions.astype(np.int32), percent.astype(np.uint8), agreeing.astype(np.uint8)
    )


def layout(raw: Features) -> npt.NDArray[np.uint16]:
    """Return positions on the map, the same for the same features: (M, C) -> (M, 2), 0 to EDGE."""
    scaled = raw - raw.mean(axis=0)
    components = min(COMPONENTS, *scaled.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(scaled.astype(np.float64))
    estimator: Any = TSNE(
        perplexity=min(30, (len(raw) - 1) / 3),
        init=reduced[:, :2] / max(reduced[:, 0].std(), 1e-12) * 1e-4
        if components > 1
        else "random",
        max_iter=ITERATIONS,
        angle=ANGLE,
        random_state=0,
    )
    xy = estimator.fit_transform(reduced)
    low, high = xy.min(axis=0), xy.max(axis=0)
    places: npt.NDArray[np.uint16] = np.rint(
        EDGE * (xy - low) / np.maximum(high - low, 1e-12)
    ).astype(np.uint16)
    return places


def small_heat_maps(
    predictions: pd.DataFrame,
    compute: Callable[[pd.DataFrame], Iterable[tuple[str, attribution.Maps]]],
    known: Mapping[str, attribution.Maps] = MappingProxyType({}),
) -> Arrays:
    """Return Grad-CAM maps of the predicted class of up to `HEAT_MAPS` test photos.

    Up to `HEAT_ERRORS` highest-confidence errors come first, then the other photos by id.

    Args:
        predictions: id, actual, predicted and probability of the test photos.
        compute: Returns the id and the heat map (S, S) of rows of `predictions`, one by one.
        known: Heat maps (S, S) of photos by id; the others are computed.

    Returns:
        `heat_ids` (P,), and `heat` (P, HEAT_SIDE, HEAT_SIDE) uint8, 255 at the maximum of a map.
    """
    ordered = predictions.sort_values(["probability", "id"], ascending=[False, True])
    wrong = ordered[ordered.actual != ordered.predicted].head(HEAT_ERRORS)
    others = predictions.drop(wrong.index).sort_values("id")
    rows = pd.concat([wrong, others]).head(HEAT_MAPS)
    small = {name: _shrink(heat) for name, heat in known.items()}
    # One at a time: all of them at full size would take 60 MB at 256 px.
    small |= {name: _shrink(heat) for name, heat in compute(rows[~rows.id.isin(list(known))])}
    maps = np.zeros((len(rows), HEAT_SIDE, HEAT_SIDE), np.uint8)
    for place, name in enumerate(rows.id):
        maps[place] = small[name]
    return {"heat_ids": rows.id.to_numpy(str), "heat": maps}


def _shrink(heat: attribution.Maps) -> npt.NDArray[np.uint8]:
    """Return a heat map as uint8: (S, S) in 0 to 1 -> (HEAT_SIDE, HEAT_SIDE)."""
    picture = Image.fromarray(np.rint(255 * heat).astype(np.uint8))
    return np.asarray(picture.resize((HEAT_SIDE, HEAT_SIDE), Image.Resampling.BOX))
