"""All that evaluate asks a bundle's networks about photos of the store, shard by shard.

A shard is a fixed number of photos, or a level of corruption, and runs wherever `io/execution.py`
says. Shards of photos are whole passes of `CHUNK` photos, so that each photo is in the pass
that it would be in without shards: its outputs are then the same bytes. Sums over photos are made
by the process that maps.

Shapes: N photos, S the store's side, K classes, C features.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from anklealign.evaluation import robustness
from anklealign.evaluation.robustness import CorruptionSample, CorruptionScore
from anklealign.explainability import attribution, faithfulness
from anklealign.explainability.attribution import Maps
from anklealign.explainability.faithfulness import Areas
from anklealign.inference.predictor import Predictor
from anklealign.inference.predictor_source import PredictorSource
from anklealign.io import execution, results
from anklealign.io.pixel_store import Photos
from anklealign.metrics.scores import Floats, Integers
from anklealign.models import inputs, novelty
from anklealign.models.bundle import Bundle
from anklealign.models.input_config import CHUNK

Vectors = npt.NDArray[np.float32]
Shard = TypeVar("Shard")
Result = TypeVar("Result")

PHOTOS = 2 * CHUNK  # of a shard of forward passes
CHECKED = 4  # photos of a shard of deletion and insertion curves, 32 forward passes each


@dataclass(frozen=True)
class NetworkPasses:
    """The networks of a bundle, and the photos.

    Attributes:
        predictor: The bundle on a device.
        source: Where other processes get it from.
        store: uint8 (n, S, S, 3).
    """

    predictor: Predictor
    source: PredictorSource
    store: Photos

    @classmethod
    def load(cls, folder: Path, device: str, store: Photos) -> Self:
        """Load a bundle for as many CPU threads as this process has now.

        Raises:
            ValueError: The folder contains no valid bundle, or the device does not exist.
        """
        predictor = Predictor.load(folder, device)
        source = PredictorSource(
            folder.absolute(), results.bundle_hash(folder), predictor.device.type,
            torch.get_num_threads(),
        )  # fmt: skip
        return cls(source.keep(predictor), source, store)

    def describe(self, rows: Integers) -> tuple[Floats, Tensor]:
        """Return the probabilities and the features of rows of the store: (N, K), (N, C)."""
        probabilities, features = zip(*self._map(_described, _by_row(rows), "network"), strict=True)
        return np.concatenate(probabilities), torch.cat(features)

    def features(self, rows: Integers) -> Tensor:
        """Return the features of rows of the store: (N, C) on the CPU."""
        return torch.cat(list(self._map(_features, _by_row(rows), "network")))

    def general_features(
        self, rows: Integers, known: Mapping[int, Vectors] | None = None
    ) -> Vectors:
        """Return the general network's features (`novelty.describe`) of rows of the store: (N, C).

        `known` has the features (C,) of rows that need not be computed.
        """
        by_row = dict(known or {})
        unknown = np.array([row for row in rows.tolist() if row not in by_row], np.int64)
        if len(unknown):
            computed = self._map(_general_features, _by_row(unknown), "network")
            by_row |= dict(zip(unknown.tolist(), np.concatenate(list(computed)), strict=True))
        return np.stack([by_row[row] for row in rows.tolist()])

    def corruption_scores(
        self, sample: CorruptionSample, *, flip: bool
    ) -> Iterator[CorruptionScore]:
        """Yield the scores of corrupted photos by kind and level.

        A shard is a level, which uses as many photos as it needs.

        Args:
            sample: The photos.
            flip: Whether a flipped photo keeps its label; otherwise the flip is left out.
        """
        shards = robustness.levels(flip=flip)
        return self._map(partial(_corruption_score, sample), shards, "robustness")

    def heat_maps(self, photos: pd.DataFrame) -> Iterator[tuple[str, Maps]]:
        """Yield the id and the Grad-CAM map (S, S) of the predicted class of photos.

        Args:
            photos: id, row and predicted.
        """
        rows, classes = self._explained(photos)
        shards = [(rows[own], classes[own]) for own in _slices(len(rows), CHUNK)]
        computed = self._map(_heat_maps, shards, "heat maps")
        yield from zip(photos.id, (heat for maps in computed for heat in maps), strict=True)

    def faithfulness(self, photos: pd.DataFrame, maps: Maps, seed: int) -> dict[str, float | int]:
        """Return the metrics of the heat maps of photos.

        Args:
            photos: row and predicted of N photos.
            maps: Their heat maps, (N, S, S).
            seed: Of the random orders and the random weights.
        """
        rows, classes = self._explained(photos)
        cells = faithfulness.cell_means(maps)
        orders = faithfulness.cell_orders(cells, seed)
        checked = [(rows[own], classes[own], orders[own]) for own in _slices(len(rows), CHECKED)]
        measured = self._map(_areas, checked, "maps checked")
        areas = Areas(*map(np.concatenate, zip(*measured, strict=True)))
        shards = [(rows[own], classes[own]) for own in _slices(len(rows), CHUNK)]
        untrained = partial(_untrained_cells, self.source, seed)
        others = np.concatenate(list(self._map(untrained, shards, "maps of random weights")))
        return faithfulness.scores(areas, faithfulness.correlations(cells, others))

    def _explained(self, photos: pd.DataFrame) -> tuple[Integers, Integers]:
        """Return the rows of photos in the store and the indices of their predicted classes."""
        classes = photos.predicted.map(self.predictor.classes.index)
        return photos.row.to_numpy(np.int64), classes.to_numpy(np.int64)

    def _map(
        self,
        function: Callable[[Predictor, Photos, Shard], Result],
        shards: Sequence[Shard],
        name: str,
    ) -> Iterator[Result]:
        """Yield a function's results in the order of the shards, with a progress bar."""
        call = partial(_call, function, self.source, self.store)
        resources = execution.of_network(self.source.device, self.source.threads)
        with inputs.full_precision():  # for all threads until the last one ends
            computed = execution.map_shards(call, shards, resources)
            yield from tqdm(
                computed, name, len(shards), unit="shard", delay=1, leave=False, disable=None
            )


def _call(
    function: Callable[[Predictor, Photos, Shard], Result],
    source: PredictorSource,
    store: Photos,
    shard: Shard,
) -> Result:
    return function(source.predictor(), store, shard)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _by_row(rows: Integers) -> list[Integers]:
    """Return shards of rows of the store, at least one, whose outputs have K or C columns."""
    return [rows[own] for own in _slices(max(1, len(rows)), PHOTOS)]


def _described(predictor: Predictor, store: Photos, rows: Integers) -> tuple[Floats, Tensor]:
    return predictor.describe(store, rows)


def _features(predictor: Predictor, store: Photos, rows: Integers) -> Tensor:
    own = predictor.for_inference
    return inputs.features(own.model, store, rows, own.input_config, predictor.device)


def _general_features(predictor: Predictor, store: Photos, rows: Integers) -> Vectors:
    return novelty.describe(store, rows, predictor.device)


def _corruption_score(
    sample: CorruptionSample, predictor: Predictor, _: Photos, level: tuple[str, int]
) -> CorruptionScore:
    return robustness.corruption_score(sample, predictor.probabilities, *level)


# A pass with gradients keeps the outputs of all layers, and hooks of one model see the passes of
# all threads: one at a time in each process.
_GRADIENTS = threading.Lock()


def _heat_maps(predictor: Predictor, store: Photos, shard: tuple[Integers, Integers]) -> Maps:
    rows, classes = shard
    with _GRADIENTS:
        return attribution.heat_maps(
            predictor.for_inference, store[rows], classes, device=predictor.device
        )


def _untrained_cells(
    source: PredictorSource,
    seed: int,
    predictor: Predictor,
    store: Photos,
    shard: tuple[Integers, Integers],
) -> Floats:
    """Return `faithfulness.cell_means` of the heat maps of random weights."""
    rows, classes = shard
    with _GRADIENTS:
        random = _untrained(source, seed)
        maps = attribution.heat_maps(random, store[rows], classes, device=predictor.device)
    return faithfulness.cell_means(maps)


@functools.lru_cache(maxsize=1)
def _untrained(source: PredictorSource, seed: int) -> Bundle:
    return faithfulness.randomize_weights(source.predictor().bundle, seed)


def _areas(
    predictor: Predictor, store: Photos, shard: tuple[Integers, Integers, Integers]
) -> Areas:
    rows, classes, orders = shard
    return faithfulness.areas(
        predictor.for_inference, store[rows], classes, orders, predictor.device
    )
