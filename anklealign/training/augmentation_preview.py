"""Contact sheets of augmented training photos."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from anklealign.plotting import contact_sheets
from anklealign.training import augmentation
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig

EPOCHS = 5  # shown of each photo
MOST_CLASSES = 12  # a sheet of 136 classes had 36,000 pixels, more than WebP permits in the report


def pages(
    photos: LabeledPhotos, classes: Sequence[str], config: FitConfig
) -> Iterator[Image.Image]:
    """Yield a sheet with one photo per class: the original, and its augmentation in each epoch.

    Of more than MOST_CLASSES classes, the first ones are shown.
    """
    tiles = []
    settings = config.train_config.augmentation
    side = config.input_config.image_size
    caption = f"original, then augmented as in epochs 1 to {EPOCHS}, {side} px"
    if config.model_config.epochs and not config.model_config.head_alone:
        for k, label in enumerate(classes[:MOST_CLASSES]):
            photo = int(np.flatnonzero(photos.labels == k)[0])
            rows = photos.rows[photo : photo + 1]
            pictures = [np.array(photos.pixels[rows[0]])]
            for epoch in range(1, EPOCHS + 1):
                draws = augmentation.draw([photos.ids[photo]], [0], config.seed, epoch)
                cropped = augmentation.crop_and_flip(
                    photos.pixels, rows, draws, settings, config.input_config
                )
                x = augmentation.adjust_and_warp(cropped, draws, settings)[0].permute(1, 2, 0)
                pictures.append((255 * x).round().to(torch.uint8).numpy())
            tiles.append(contact_sheets.Tile(tuple(pictures), (label, caption)))
    title = "Augmented training photos"
    if 0 < len(tiles) < len(classes):
        title += f" of {len(tiles)} of {len(classes)} classes"
    empty = "no augmentation: this model sees each photo once, unchanged"
    return contact_sheets.pages(tiles, title, empty, columns=1, rows=max(1, len(tiles)))
