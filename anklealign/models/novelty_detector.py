"""What a bundle keeps of its training photos, to detect photos unlike them. Needs no PyTorch.

Shapes: N photos, R reference photos, C features. novelty.py describes the method.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import safetensors.numpy

from anklealign.io import files
from anklealign.models.input_config import Floats, InputConfig
from anklealign.models.weights import GENERAL_NETWORK

Features = npt.NDArray[np.float32]

# The input of the general network (novelty.py) by timm.
GENERAL_INPUT = InputConfig(GENERAL_NETWORK.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
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

    references: Features
    threshold: float
    false_refusals: float

    def scores(self, features: Features) -> Floats:
        """Return the mean cosine distance of photos to the nearest references: (N, C) -> (N,).

        Rounded to six decimals, which no number of threads changes.

        Args:
            features: Of `novelty.describe`, (N, C).
        """
        return nearest_distances(features @ self.references.T)

    def own_scores(self, groups: Sequence[str] | Sequence[int]) -> Floats:
        """Return the scores of the references, each by those of other groups: (R,) groups -> (N,).

        A reference without NEIGHBORS of other groups has no score.
        """
        codes = np.unique(np.asarray(groups), return_inverse=True)[1]
        similarities = self.references @ self.references.T
        similarities[codes[:, None] == codes] = -np.inf
        scored = np.isfinite(similarities).sum(axis=1) >= NEIGHBORS
        return nearest_distances(similarities[scored])

    def by_row(self, train: pd.DataFrame) -> dict[int, Features]:
        """Return the references (C,) by row of the store; {} if the bundle has other photos.

        Args:
            train: id and row of the training photos that the detector was fitted on.
        """
        rows = train.sort_values("id").row.to_numpy(np.int64)[:MAX_REFERENCES].tolist()
        if len(rows) != len(self.references):
            return {}
        return dict(zip(rows, self.references, strict=True))

    def similar(self, scores: Floats) -> npt.NDArray[np.bool_]:
        """Return whether photos are similar to the training photos: (N,) -> (N,)."""
        return scores <= self.threshold


def nearest_distances(similarities: Features) -> Floats:
    """Return the mean distance of the nearest references: cosines (N, R) -> (N,)."""
    count = min(NEIGHBORS, similarities.shape[1])
    nearest = -np.partition(-similarities, count - 1, axis=1)[:, :count]
    distances: Floats = (1 - np.sort(nearest, axis=1).astype(np.float64).mean(1)).round(6)
    return distances


def unit(features: Features) -> Features:
    """Return what `novelty.unit` does: features of length 1 in half precision, (N, C) -> (N, C)."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: Features = features / np.maximum(lengths, 1e-12)
    return scaled.astype(np.float16).astype(np.float32)


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
