"""What augmentation makes of training photos, to look at."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from anklealign.plotting import contact_sheets
from anklealign.training import augmentation
from anklealign.training.sampling import Photos
from anklealign.training.trainer import Recipe

EPOCHS = 5  # shown of each photo


def pages(train: Photos, classes: Sequence[str], recipe: Recipe) -> Iterator[Image.Image]:
    """Yield sheets of a photo a class, as it is and as the first epochs show it."""
    tiles = []
    settings = recipe.settings.augmentation
    side = recipe.network_input.image_size
    said = f"as it is, then as epochs 1 to {EPOCHS} show it, {side} pixels a side"
    if recipe.block.epochs and not recipe.block.head_alone:
        for k, label in enumerate(classes):
            photo = int(np.flatnonzero(train.labels == k)[0])
            pictures = [np.array(train.pixels[train.rows[photo]])]
            for epoch in range(1, EPOCHS + 1):
                draws = augmentation.draw([train.ids[photo]], [0], recipe.seed, epoch)
                rows = train.rows[photo : photo + 1]
                cut = augmentation.cut(train.pixels, rows, draws, settings, recipe.network_input)
                x = augmentation.finish(cut, draws, settings)[0].permute(1, 2, 0)
                pictures.append((255 * x).round().to(torch.uint8).numpy())
            tiles.append(contact_sheets.Tile(tuple(pictures), (label, said)))
    title = "What augmentation makes of a training photo"
    empty = "nothing: this model looks at each photo once, as it is"
    return contact_sheets.pages(tiles, title, empty, columns=1, rows=max(1, len(tiles)))
