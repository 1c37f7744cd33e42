"""Detect photos that are unlike a model's training photos.

Shapes: N photos, S the store's side, R reference photos, C features.

A classifier assigns one of its classes to any picture, often with confidence. Its own features were
trained to separate the classes alone, so a second, general network describes the photos here:
EfficientNet-Lite0 with ImageNet weights, which are part of the installation. The score of a photo
is its mean cosine distance to the nearest training photos (Sun, Ming, Zhu and Li,
Out-of-Distribution Detection with Deep Nearest Neighbors (2022)). The threshold is a conformal
quantile of the scores of the validation photos and, left out, of the training photos. `python -m
benchmarks.novelty` compares the method with others on pairs of real datasets.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from anklealign.io.pixel_store import Photos
from anklealign.models import factory, fusion, inputs
from anklealign.models.input_config import Floats, Integers
from anklealign.models.novelty_detector import (
    GENERAL_INPUT,
    MAX_REFERENCES,
    Features,
    NoveltyDetector,
)
from anklealign.models.weights import GENERAL_NETWORK


def fit(
    pixels: Photos,
    train: Integers,
    val: Integers,
    device: torch.device,
    false_refusals: float,
    *,
    groups: Sequence[str] | Sequence[int],
) -> NoveltyDetector:
    """Return a detector from rows of the store.

    The threshold is a quantile of the scores of the validation photos and of the references, each
    by those of other groups. The validation photos alone are often so few that their quantile is
    that of a single outlier (`python -m benchmarks.novelty`).

    Args:
        pixels: The store, uint8 (n, S, S, 3).
        train: Rows of the training photos in random order, such as by id; the first
            `MAX_REFERENCES` become references.
        val: Rows of the validation photos.
        device: Device of the general network.
        false_refusals: Share of similar photos that may be refused, above 0 and below 1.
        groups: Of the training photos, as split has kept them together.

    Raises:
        ValueError: The weights of the general network are missing.
    """
    references = describe(pixels, train[:MAX_REFERENCES], device)
    detector = NoveltyDetector(references, math.inf, false_refusals)
    scores = detector.scores(describe(pixels, val, device))
    own = detector.own_scores(groups[: len(references)])
    return replace(detector, threshold=threshold(np.concatenate([scores, own]), false_refusals))


def threshold(scores: Floats, false_refusals: float) -> float:
    """Return the score that a similar photo exceeds with this probability at most: (N,) -> float.

    The rank is that of split conformal prediction, ⌈(N + 1)(1 - false_refusals)⌉. With too few
    photos for it, the largest score is the threshold, and the rate is not guaranteed.
    """
    rank = math.ceil((len(scores) + 1) * (1 - false_refusals))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def describe(
    pixels: Photos, rows: Integers, device: torch.device, size: int = GENERAL_NETWORK.image_size
) -> Features:
    """Return features of length 1: uint8 (n, S, S, 3), rows (N,) -> (N, C) float32.

    Rounded to half precision, as they are stored.

    Args:
        pixels: The store.
        rows: Rows of it.
        device: Device of the general network.
        size: Side of its input in px.
    """
    config = replace(GENERAL_INPUT, image_size=size)
    return unit(inputs.features(general_network(str(device)), pixels, rows, config, device))


def unit(features: Tensor) -> Features:
    """Return features of length 1, rounded to half precision: (N, C) -> (N, C)."""
    scaled = nn.functional.normalize(features, dim=1)
    rounded: Features = scaled.half().float().numpy()
    return rounded


@functools.lru_cache(maxsize=2)
def general_network(device: str) -> nn.Module:
    """Return the general network; a process builds it once per device."""
    with torch.random.fork_rng(devices=[]):  # building draws random weights first
        network = factory.build("novelty", GENERAL_NETWORK, 1).to(device)
    return fusion.for_inference(network, GENERAL_INPUT)
