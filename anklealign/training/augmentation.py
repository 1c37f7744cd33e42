"""Random augmentation of training photos: crop, translation, flips, rotation, shear and color.

Shapes: N photos, S the side of the pixel store, H the network's input side. The augmentation of a
photo depends only on the seed, the epoch, the photo's id and, where a balanced sampler repeats the
photo within an epoch, the repeat index; never on the batch or the process.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from anklealign.config.params import Augmentation
from anklealign.io.pixel_store import Photos
from anklealign.models.input_config import LUMA, InputConfig, Integers
from anklealign.models.inputs import resize, to_device

Draws = npt.NDArray[np.float64]

# Columns of the draws.
SIDE, LEFT, TOP, HORIZONTAL_FLIP, ROTATION, BRIGHTNESS, CONTRAST, SATURATION = range(8)
VERTICAL_FLIP, SHEAR = 8, 9


def draw(ids: Sequence[str], repeats: Sequence[int], seed: int, epoch: int) -> Draws:
    """Return ten uniform numbers in [0, 1) per photo: N ids and repeat indices -> (N, 10)."""
    keys = [
        [seed, epoch, int(photo_id, 16), *([repeat] if repeat else [])]
        for photo_id, repeat in zip(ids, repeats, strict=True)
    ]
    return np.array([np.random.default_rng(key).random(10) for key in keys]).reshape(-1, 10)


def crop_and_flip(
    pixels: Photos, rows: Integers, draws: Draws, settings: Augmentation, input_config: InputConfig
) -> Tensor:
    """Crop, resize and flip: N rows of (·, S, S, 3) uint8, (N, 10) -> (N, 3, H, H) uint8.

    The crop is a square, which preserves angles, of at least 1 - `random_crop` of the side. It may
    extend beyond the photo by `translate` of the side, where edge pixels are repeated.
    """
    side = pixels.shape[1]
    size = input_config.image_size
    x = torch.empty((len(rows), 3, size, size), dtype=torch.uint8)
    reach = round(settings.translate * side)
    sides = np.rint(side * (1 - settings.random_crop * draws[:, SIDE])).astype(int)
    room = side - sides + 2 * reach + 1
    lefts = np.floor(draws[:, LEFT] * room).astype(int) - reach
    tops = np.floor(draws[:, TOP] * room).astype(int) - reach
    flipped_across = (draws[:, HORIZONTAL_FLIP] < 0.5) & settings.horizontal_flip
    flipped_down = (draws[:, VERTICAL_FLIP] < 0.5) & settings.vertical_flip
    for i, row in enumerate(rows):
        down, pad_down = _span(tops[i], sides[i], side)
        across, pad_across = _span(lefts[i], sides[i], side)
        # np.pad always copies: torch does not accept the store's read-only memory.
        photo = np.pad(pixels[row, down, across], [pad_down, pad_across, (0, 0)], mode="edge")
        crop = torch.from_numpy(photo).permute(2, 0, 1)[None]
        resized = resize(crop, size, input_config.interpolation)[0]
        axes = [axis for axis, flip in ((-1, flipped_across[i]), (-2, flipped_down[i])) if flip]
        x[i] = resized.flip(axes) if axes else resized
    return x


def _span(first: int, length: int, side: int) -> tuple[slice, tuple[int, int]]:
    """Return the pixels a crop covers along one axis, and its edge padding before and after.

    The slice holds at least one pixel, even where the crop lies entirely outside the photo.
    """
    last = first + length
    inside = slice(min(max(first, 0), side - 1), max(min(last, side), 1))
    return inside, (min(max(-first, 0), length - 1), min(max(last - side, 0), length - 1))


def adjust_color(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Change brightness, saturation and contrast: (N, 3, H, H) in 0 to 1, (N, 10) -> same shape.

    A single pass suffices because each change is linear in the pixel, its gray value and the
    photo's mean gray value. Channels are summed one by one: a sum over the channel axis takes four
    times as long.
    """
    reaches = np.array([settings.brightness, settings.contrast, settings.saturation])
    values = 1 + reaches[:, None] * (2 * draws[:, [BRIGHTNESS, CONTRAST, SATURATION]].T - 1)
    factors = to_device(torch.tensor(values, dtype=x.dtype), x.device)
    brightness, contrast, saturation = factors.view(3, -1, 1, 1, 1)
    red, green, blue = x.unbind(1)
    gray = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]
    mean = gray.mean((2, 3), keepdim=True)
    scale = brightness * contrast
    changed: Tensor = x * (scale * saturation)
    changed += gray.mul_(scale * (1 - saturation)).add_(brightness * (1 - contrast) * mean)
    return changed.clamp_(0, 1)


def rotate_and_shear(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Rotate and shear about the center, repeating edges: (N, 3, H, H), (N, 10) -> same shape."""
    if not (settings.rotation or settings.shear):
        return x

    def angle(column: int, reach: float) -> Tensor:
        return torch.tensor(np.deg2rad(reach) * (2 * draws[:, column] - 1), dtype=x.dtype)

    rotation, shear = angle(ROTATION, settings.rotation), angle(SHEAR, settings.shear).tan()
    cos, sin, zero = rotation.cos(), rotation.sin(), torch.zeros_like(rotation)
    rows = [cos, cos * shear - sin, zero, sin, sin * shear + cos, zero]
    matrices = to_device(torch.stack(rows, 1).view(-1, 2, 3), x.device)
    grid = functional.affine_grid(matrices, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def adjust_and_warp(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Change color, rotate and shear: (N, 3, H, H) uint8, (N, 10) -> (N, 3, H, H) in 0 to 1."""
    return rotate_and_shear(adjust_color(x.float().div_(255), draws, settings), draws, settings)
