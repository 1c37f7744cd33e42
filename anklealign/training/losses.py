"""What a fit is told to bring down: losses by name, targets, and weights against rare classes.

Shapes: N photos of a set, B of a batch, K classes. Every loss is one number a photo, so that a step
over parts or processes is the same sum.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from timm.loss import (  # type: ignore[attr-defined]
    AsymmetricLossMultiLabel,
    BinaryCrossEntropy,
    PolyCrossEntropy,
)
from torch import Tensor
from torch.nn import functional

from anklealign.models.inputs import Floats
from anklealign.training.sampling import Photos


def targets(photos: Photos, classes: int, smoothing: float) -> Floats:
    """Return what each photo is to be answered: N photos -> (N, K), rows summing to 1.

    Raises:
        ValueError: Soft labels are not one share a class.
    """
    wanted = np.eye(classes)[photos.labels] if photos.soft is None else photos.soft
    if wanted.shape != (len(photos.labels), classes):
        raise ValueError(
            f"soft labels of shape {wanted.shape} for {len(photos.labels)} photos of {classes} "
            "classes; give each photo a share for each class"
        )
    return wanted * (1 - smoothing) + smoothing / classes


def soft_labels(photos: Photos, voted: pd.DataFrame, classes: Sequence[str]) -> Floats:
    """Return each class's share of the votes, or of a photo without votes its class: (N, K).

    Args:
        photos: N photos.
        voted: A row a photo that people voted on: its id in `photo`, shares in `soft_<class>`.
        classes: K names.
    """
    shares = voted.set_index("photo")[[f"soft_{name}" for name in classes]]
    shares = shares.div(shares.sum(axis=1), axis=0)  # they are rounded in the file
    found = np.eye(len(classes))[photos.labels]
    places = [place for place, photo in enumerate(photos.ids) if photo in shares.index]
    found[places] = shares.loc[[photos.ids[place] for place in places]].to_numpy()
    return found


def weights(wanted: Floats) -> Floats:
    """Return weights by 1 / class frequency: targets (N, K) -> (N,), of mean 1.

    A photo between classes is weighed between them.
    """
    photos, classes = wanted.shape
    shares: Floats = wanted @ (photos / (classes * wanted.sum(0)))
    return shares


def losses(name: str, answers: Tensor, wanted: Tensor) -> Tensor:
    """Return each photo's loss: logits (B, K), targets (B, K) -> (B,).

    cross_entropy, in nats; bce, each class a yes or no (Wightman, ResNet strikes back (2021));
    asymmetric, bce that cares less for sure answers, most so for a no (Ridnik et al., Asymmetric
    Loss (2021)); poly, Poly-1 (Leng et al., PolyLoss (2022)).
    """
    if name == "bce":
        each: Tensor = BinaryCrossEntropy(smoothing=0.0, reduction="none")(answers, wanted)
        return each.sum(1)
    if name == "asymmetric":
        sums: Tensor = AsymmetricLossMultiLabel(reduction="none")(answers, wanted).sum(1)
        return sums
    if name == "poly":
        found: Tensor = PolyCrossEntropy(reduction="none")(answers, wanted)
        return found
    return functional.cross_entropy(answers, wanted, reduction="none")


def as_tensors(wanted: Floats, weight: Floats, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return targets and weights on a device in single precision."""
    return torch.tensor(wanted).float().to(device), torch.tensor(weight).float().to(device)
