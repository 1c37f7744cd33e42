"""Random changes of a training photo: crop, mirror, rotation, colour.

Shapes: N photos, S the store's side, H the network's side. What happens to a photo depends on the
seed, the epoch and the photo's id alone, never on its batch, its neighbours or the process.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from anklealign.batches import Input, Integers, resize
from anklealign.params import Augmentation
from anklealign.photos import Pixels

Draws = npt.NDArray[np.float64]

SIDE, LEFT, TOP, MIRROR, ROTATION, BRIGHTNESS, CONTRAST, SATURATION = range(8)
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def draw(ids: Sequence[str], seed: int, epoch: int) -> Draws:
    """Return eight uniform numbers from 0 to 1 a photo: ids of N photos -> (N, 8)."""
    return np.array([np.random.default_rng([seed, epoch, int(i, 16)]).random(8) for i in ids])


def cut(
    pixels: Pixels, rows: Integers, draws: Draws, settings: Augmentation, network_input: Input
) -> Tensor:
    """Crop, resize and mirror: N rows of (·, S, S, 3) uint8, (N, 8) -> (N, 3, H, H) uint8.

    The crop is a square, so that angles stay, of at least 1 - `crop` of the side.
    """
    side = pixels.shape[1]
    size = network_input.image_size
    x = torch.empty((len(rows), 3, size, size), dtype=torch.uint8).to(
        memory_format=torch.channels_last
    )
    sides = np.rint(side * (1 - settings.crop * draws[:, SIDE])).astype(int)
    lefts = np.floor(draws[:, LEFT] * (side - sides + 1)).astype(int)
    tops = np.floor(draws[:, TOP] * (side - sides + 1)).astype(int)
    mirrored = draws[:, MIRROR] < 0.5 if settings.mirror else np.zeros(len(rows), bool)
    for i, row in enumerate(rows):
        left, top, length = lefts[i], tops[i], sides[i]
        # A copy, as torch does not take the store's read-only memory.
        photo = np.array(pixels[row, top : top + length, left : left + length])
        cropped = torch.from_numpy(photo).permute(2, 0, 1)[None]
        resized = resize(cropped, size, network_input.interpolation)[0]
        x[i] = resized.flip(-1) if mirrored[i] else resized
    return x


def colour(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Change brightness, saturation, contrast: (N, 3, H, H) in 0 to 1, (N, 8) -> the same.

    As one pass, as each is linear in the pixel, its grey and the photo's mean grey.
    """

    def factor(column: int, reach: float) -> Tensor:
        values = 1 + reach * (2 * draws[:, column] - 1)
        return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, 1, 1, 1)

    brightness = factor(BRIGHTNESS, settings.brightness)
    contrast = factor(CONTRAST, settings.contrast)
    saturation = factor(SATURATION, settings.saturation)
    weights = torch.tensor(GREY, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    grey = (x * weights).sum(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    scale = brightness * contrast
    changed = scale * saturation * x
    changed += scale * (1 - saturation) * grey
    changed += brightness * (1 - contrast) * mean
    return changed.clamp_(0, 1)


def rotate(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Turn each photo about its centre, borders repeated: (N, 3, H, H), (N, 8) -> the same."""
    if not settings.rotation:
        return x
    angles = torch.tensor(
        np.deg2rad(settings.rotation) * (2 * draws[:, ROTATION] - 1), dtype=x.dtype
    )
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrices = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3).to(x.device)
    grid = functional.affine_grid(matrices, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
