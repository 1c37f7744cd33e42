"""Examples of augmented training photos, which the report draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anklealign.training import augmentation
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig

EPOCHS = 5  # shown of each photo
MAX_CLASSES = 12  # the first ones, for one readable page


def examples(
    photos: LabeledPhotos, classes: Sequence[str], config: FitConfig
) -> dict[str, npt.NDArray[Any]]:
    """Return one photo of each class as it is, and its augmentation in each epoch.

    Returns:
        `labels` (N,), `originals` (N, S, S, 3) uint8 with the store's side S, and `augmented`
        (N, EPOCHS, H, H, 3) uint8 with the network's side H. N is 0 for a model that sees each
        photo once, unchanged.
    """
    augments = config.model_config.epochs and not config.model_config.head_alone
    labels = list(classes[:MAX_CLASSES]) if augments else []
    rows = [int(np.flatnonzero(photos.labels == k)[0]) for k in range(len(labels))]
    side = config.input_config.image_size
    augmented = np.zeros((len(rows), EPOCHS, side, side, 3), np.uint8)
    settings = config.train_config.augmentation
    for k, photo in enumerate(rows):
        for epoch in range(1, EPOCHS + 1):
            draws = augmentation.draw([photos.ids[photo]], [0], config.seed, epoch)
            cropped = augmentation.crop_and_flip(
                photos.pixels, photos.rows[photo : photo + 1], draws, settings, config.input_config
            )
            x = augmentation.adjust_and_warp(cropped, draws, settings)[0].permute(1, 2, 0)
            augmented[k, epoch - 1] = (255 * x).round().to(torch.uint8).numpy()
    return {
        "labels": np.array(labels, str),
        "originals": np.asarray(photos.pixels[photos.rows[np.array(rows, int)]]),
        "augmented": augmented,
    }
