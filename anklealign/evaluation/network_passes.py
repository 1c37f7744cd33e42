"""All that evaluate asks a bundle's networks about photos of the store.

Shapes: N photos, S the store's side, K classes, C features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from anklealign.evaluation import robustness
from anklealign.evaluation.robustness import CorruptionSample, CorruptionScore
from anklealign.explainability import attribution, faithfulness
from anklealign.explainability.attribution import Maps
from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Photos
from anklealign.metrics.scores import Floats, Integers
from anklealign.models import inputs, novelty

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkPasses:
    """The networks of a bundle, and the photos.

    Attributes:
        predictor: The bundle on a device.
        store: uint8 (n, S, S, 3).
    """

    predictor: Predictor
    store: Photos

    def describe(self, rows: Integers) -> tuple[Floats, Tensor]:
        """Return the probabilities and the features of rows of the store: (N, K), (N, C)."""
        return self.predictor.describe(self.store, rows)

    def features(self, rows: Integers) -> Tensor:
        """Return the features of rows of the store: (N, C) on the CPU."""
        own = self.predictor.for_inference
        return inputs.features(own.model, self.store, rows, own.input_config, self.predictor.device)

    def general_features(
        self, rows: Integers, known: Mapping[int, Vectors] | None = None
    ) -> Vectors:
        """Return the general network's features (`novelty.describe`) of rows of the store: (N, C).

        `known` has the features (C,) of rows that need not be computed.
        """
        by_row = dict(known or {})
        unknown = np.array([row for row in rows.tolist() if row not in by_row], np.int64)
        if len(unknown):
            computed = novelty.describe(self.store, unknown, self.predictor.device)
            by_row |= dict(zip(unknown.tolist(), computed, strict=True))
        return np.stack([by_row[row] for row in rows.tolist()])

    def corruption_scores(
        self, sample: CorruptionSample, *, flip: bool
    ) -> Iterator[CorruptionScore]:
        """Yield the scores of corrupted photos by kind and level.

        Args:
            sample: The photos.
            flip: Whether a flipped photo keeps its label; otherwise the flip is left out.
        """
        for kind, level in robustness.levels(flip=flip):
            yield robustness.corruption_score(sample, self.predictor.probabilities, kind, level)

    def heat_maps(self, photos: pd.DataFrame) -> Iterator[tuple[str, Maps]]:
        """Yield the id and the Grad-CAM map (S, S) of the predicted class of photos.

        Args:
            photos: id, row and predicted.
        """
        own = self.predictor.for_inference
        classes = photos.predicted.map(own.classes.index).to_numpy(np.int64)
        rows = photos.row.to_numpy(np.int64)
        for start in range(0, len(photos), inputs.CHUNK):
            shard = slice(start, start + inputs.CHUNK)
            maps = attribution.heat_maps(
                own, self.store[rows[shard]], classes[shard], device=self.predictor.device
            )
            yield from zip(photos.id.iloc[shard], maps, strict=True)

    def faithfulness(self, photos: pd.DataFrame, maps: Maps, seed: int) -> dict[str, float | int]:
        """Return the metrics of the heat maps of photos.

        Args:
            photos: row and predicted of N photos.
            maps: Their heat maps, (N, S, S).
            seed: Of the random orders and the random weights.
        """
        own, device = self.predictor.for_inference, self.predictor.device
        classes = photos.predicted.map(own.classes.index).to_numpy(np.int64)
        pixels = self.store[photos.row.to_numpy(np.int64)]
        cells = faithfulness.cell_means(maps)
        orders = faithfulness.cell_orders(cells, seed)
        measured = faithfulness.areas(own, pixels, classes, orders, device)
        random = faithfulness.randomize_weights(self.predictor.bundle, seed)
        others = faithfulness.cell_means(
            attribution.heat_maps(random, pixels, classes, device=device)
        )
        return faithfulness.scores(measured, faithfulness.correlations(cells, others))
