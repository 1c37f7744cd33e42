"""Losses, training targets and loss weights for imbalanced classes.

Shapes: N photos of a set, B of a batch, K classes. Every loss has one value per photo, so that
micro-batches and processes sum to the same step.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from timm.loss import BinaryCrossEntropy  # type: ignore[attr-defined]
from torch import Tensor
from torch.nn import functional

from anklealign.models.input_config import Floats
from anklealign.training.sampling import LabeledPhotos


def make_targets(photos: LabeledPhotos, num_classes: int, smoothing: float) -> Floats:
    """Return the target distribution of each photo: N photos -> (N, K), rows summing to 1.

    Raises:
        ValueError: The soft labels do not have one column per class.
    """
    targets = np.eye(num_classes)[photos.labels] if photos.soft is None else photos.soft
    if targets.shape != (len(photos.labels), num_classes):
        raise ValueError(
            f"soft labels of shape {targets.shape} for {len(photos.labels)} photos of "
            f"{num_classes} classes; give each photo a share for each class"
        )
    return targets * (1 - smoothing) + smoothing / num_classes


def soft_labels(photos: LabeledPhotos, votes: pd.DataFrame, classes: Sequence[str]) -> Floats:
    """Return each photo's vote shares, or the one-hot class of a photo without votes: (N, K).

    Args:
        photos: N photos.
        votes: One row per photo with votes: its id in `photo`, vote shares in `soft_<class>`.
        classes: K names.
    """
    shares = votes.set_index("photo")[[f"soft_{name}" for name in classes]]
    shares = shares.div(shares.sum(axis=1), axis=0)  # the file holds rounded shares
    targets = np.eye(len(classes))[photos.labels]
    positions = [position for position, photo in enumerate(photos.ids) if photo in shares.index]
    targets[positions] = shares.loc[[photos.ids[position] for position in positions]].to_numpy()
    return targets


def inverse_frequency_weights(targets: Floats) -> Floats:
    """Return weights by 1 / class frequency: targets (N, K) -> (N,), of mean 1.

    The weight of a photo with soft labels is the weighted mean over its classes.
    """
    photos, classes = targets.shape
    weights: Floats = targets @ (photos / (classes * targets.sum(0)))
    return weights


def loss_per_photo(name: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each photo: logits (B, K), targets (B, K) -> (B,).

    `cross_entropy` is in nats; `bce` sums a binary cross-entropy per class (Wightman, ResNet
    strikes back (2021)).
    """
    if name == "bce":
        per_class: Tensor = BinaryCrossEntropy(smoothing=0.0, reduction="none")(logits, targets)
        return per_class.sum(1)
    return functional.cross_entropy(logits, targets, reduction="none")
