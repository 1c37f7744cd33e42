"""Detect photos that are unlike a model's training photos.

Shapes: N photos, S the store's side, R reference photos, C features.

A classifier assigns one of its classes to any picture, often with confidence. Its own features were
trained to separate the classes alone, so a second, general network describes the photos here:
EfficientNet-Lite0 with ImageNet weights, which are part of the installation. The score of a photo
is its mean cosine distance to the nearest training photos (Sun, Ming, Zhu and Li,
Out-of-Distribution Detection with Deep Nearest Neighbors (2022)). The threshold is a conformal
quantile of the scores of the validation photos. `python -m benchmarks.novelty` compares the method
with others on pairs of real datasets.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
import timm
import torch
from torch import Tensor, nn

from anklealign.io import files
from anklealign.io.pixel_store import Photos
from anklealign.models import factory, fusion, inputs
from anklealign.models.inputs import Floats, InputConfig, Integers
from anklealign.models.weights import GENERAL_NETWORK

FILE = "novelty.safetensors"
NEIGHBORS = 5
MAX_REFERENCES = 2000  # bounds the file at 5 MB and a photo's comparison at 3 million products


@dataclass(frozen=True)
class NoveltyDetector:
    """Scores how unlike the training photos a photo is.

    Attributes:
        references: Features of training photos, (R, C) float32 with rows of length 1.
        threshold: Largest score, 0 to 2, of a photo that counts as similar.
        false_refusals: Share of similar photos whose score is expected above the threshold.
    """

    references: np.ndarray[Any, np.dtype[np.float32]]
    threshold: float
    false_refusals: float

    def scores(self, pixels: Photos, rows: Integers, device: torch.device) -> Floats:
        """Return the score of photos of the store: uint8 (n, S, S, 3), rows (N,) -> (N,)."""
        return distances(describe(pixels, rows, device), self.references)

    def by_row(self, train: pd.DataFrame) -> dict[int, np.ndarray[Any, np.dtype[np.float32]]]:
        """Return the references (C,) by row of the store; {} if the bundle has other photos.

        Args:
            train: id and row of the training photos that the detector was fitted on.
        """
        rows = train.sort_values("id").row.to_numpy(np.int64)[:MAX_REFERENCES].tolist()
        if len(rows) != len(self.references):
            return {}
        return dict(zip(rows, self.references, strict=True))

    def scores_of(self, features: Tensor) -> Floats:
        """Return the score of photos from the network's features: (N, C) -> (N,)."""
        return distances(unit(features), self.references)

    def similar(self, scores: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return whether photos are similar to the training photos: (N,) -> (N,)."""
        return scores <= self.threshold


def fit(
    pixels: Photos, train: Integers, val: Integers, device: torch.device, false_refusals: float
) -> NoveltyDetector:
    """Return a detector from rows of the store.

    Args:
        pixels: The store, uint8 (n, S, S, 3).
        train: Rows of the training photos in random order, such as by id; the first
            `MAX_REFERENCES` become references.
        val: Rows of the validation photos.
        device: Device of the general network.
        false_refusals: Share of similar photos that may be refused, above 0 and below 1.

    Raises:
        ValueError: The weights of the general network are missing.
    """
    references = describe(pixels, train[:MAX_REFERENCES], device)
    scores = distances(describe(pixels, val, device), references)
    return NoveltyDetector(references, threshold(scores, false_refusals), false_refusals)


def threshold(scores: Floats, false_refusals: float) -> float:
    """Return the score that a similar photo exceeds with this probability at most: (N,) -> float.

    The rank is that of split conformal prediction, ⌈(N + 1)(1 - false_refusals)⌉. With too few
    photos for it, the largest score is the threshold, and the rate is not guaranteed.
    """
    rank = math.ceil((len(scores) + 1) * (1 - false_refusals))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def describe(
    pixels: Photos, rows: Integers, device: torch.device, size: int = GENERAL_NETWORK.image_size
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return features of length 1: uint8 (n, S, S, 3), rows (N,) -> (N, C) float32.

    Rounded to half precision, as they are stored.

    Args:
        pixels: The store.
        rows: Rows of it.
        device: Device of the general network.
        size: Side of its input in px.
    """
    config = replace(input_config(), image_size=size)
    return unit(inputs.features(general_network(str(device)), pixels, rows, config, device))


def unit(features: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return features of length 1, rounded to half precision: (N, C) -> (N, C)."""
    scaled = nn.functional.normalize(features, dim=1)
    rounded: np.ndarray[Any, np.dtype[np.float32]] = scaled.half().float().numpy()
    return rounded


def distances(
    features: np.ndarray[Any, np.dtype[np.float32]],
    references: np.ndarray[Any, np.dtype[np.float32]],
) -> Floats:
    """Return the mean cosine distance to the nearest references: (N, C), (R, C) -> (N,).

    Rounded to six decimals, which no number of threads changes.
    """
    count = min(NEIGHBORS, len(references))
    similarities = features @ references.T
    nearest = -np.partition(-similarities, count - 1, axis=1)[:, :count]
    scores: Floats = (1 - np.sort(nearest, axis=1).astype(np.float64).mean(1)).round(6)
    return scores


def input_config() -> InputConfig:
    """Return the input of the general network."""
    config = timm.get_pretrained_cfg(GENERAL_NETWORK.architecture)
    assert config  # noqa: S101 - for mypy; the architecture is a constant
    return InputConfig(
        GENERAL_NETWORK.image_size, tuple(config.mean), tuple(config.std), config.interpolation
    )


@functools.lru_cache(maxsize=2)
def general_network(device: str) -> nn.Module:
    """Return the general network; a process builds it once per device."""
    with torch.random.fork_rng(devices=[]):  # building draws random weights first
        network = factory.build("novelty", GENERAL_NETWORK, 1).to(device)
    return fusion.for_inference(network, input_config())


def save(folder: Path, detector: NoveltyDetector) -> dict[str, Any]:
    """Write the references to a bundle's folder; return what its config holds."""
    with files.replacing(folder / FILE) as path:
        safetensors.numpy.save_file({"references": detector.references.astype(np.float16)}, path)
    return {
        "threshold": detector.threshold,
        "false_refusals": detector.false_refusals,
        "sha256": files.sha256(folder / FILE),
    }


def load(folder: Path, config: Mapping[str, Any]) -> NoveltyDetector:
    """Return the detector of a bundle from its folder and its config.

    Raises:
        ValueError: The config is incomplete, or the file is missing or not the one of the config.
    """
    path = folder / FILE
    if missing := [key for key in ("threshold", "false_refusals", "sha256") if key not in config]:
        raise ValueError(
            f"{folder / 'config.json'}: novelty.{missing[0]} is missing, so the bundle is of "
            "another version or was edited; restore it with `dvc checkout`, or train again with "
            "`dvc repro train`"
        )
    if not path.is_file() or files.sha256(path) != config["sha256"]:
        raise ValueError(
            f"{path} is missing or does not match the bundle's config; restore both with "
            "`dvc checkout` or `dvc pull`"
        )
    references = safetensors.numpy.load_file(path)["references"].astype(np.float32)
    return NoveltyDetector(references, float(config["threshold"]), float(config["false_refusals"]))
