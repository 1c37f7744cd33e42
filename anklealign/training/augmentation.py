"""Random changes of a training photo: crop, shift, mirror, tilt, colour.

Shapes: N photos, S the store's side, H the network's side. What happens to a photo depends on the
seed, the epoch and the photo's id alone, never on its batch, its neighbours or the process; and
where a balanced sampler shows it more than once an epoch, on which time it is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from anklealign.config.params import Augmentation
from anklealign.io.pixel_store import Pixels
from anklealign.models.inputs import Input, Integers, resize

Draws = npt.NDArray[np.float64]

SIDE, LEFT, TOP, MIRROR, ROTATION, BRIGHTNESS, CONTRAST, SATURATION, FLIP, SHEAR = range(10)
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def draw(ids: Sequence[str], times: Sequence[int], seed: int, epoch: int) -> Draws:
    """Return ten uniform numbers from 0 to 1 a photo: ids and times, from 0, of N -> (N, 10)."""
    keys = [
        [seed, epoch, int(i, 16), *([time] if time else [])]
        for i, time in zip(ids, times, strict=True)
    ]
    return np.array([np.random.default_rng(key).random(10) for key in keys]).reshape(-1, 10)


def cut(
    pixels: Pixels, rows: Integers, draws: Draws, settings: Augmentation, network_input: Input
) -> Tensor:
    """Crop, shift, resize and mirror: N rows of (·, S, S, 3) uint8, (N, 10) -> (N, 3, H, H) uint8.

    The crop is a square, so that angles stay, of at least 1 - `crop` of the side; it may reach
    over the store's edge by `shift` of the side, where the edge is repeated.
    """
    side = pixels.shape[1]
    size = network_input.image_size
    x = torch.empty((len(rows), 3, size, size), dtype=torch.uint8)
    reach = round(settings.shift * side)
    sides = np.rint(side * (1 - settings.crop * draws[:, SIDE])).astype(int)
    room = side - sides + 2 * reach + 1
    lefts = np.floor(draws[:, LEFT] * room).astype(int) - reach
    tops = np.floor(draws[:, TOP] * room).astype(int) - reach
    mirrored = draws[:, MIRROR] < 0.5 if settings.mirror else np.zeros(len(rows), bool)
    flipped = draws[:, FLIP] < 0.5 if settings.flip else np.zeros(len(rows), bool)
    for i, row in enumerate(rows):
        down, over_down = _span(tops[i], sides[i], side)
        across, over_across = _span(lefts[i], sides[i], side)
        # A copy in any case, as torch does not take the store's read-only memory.
        photo = np.pad(pixels[row, down, across], [over_down, over_across, (0, 0)], mode="edge")
        cropped = torch.from_numpy(photo).permute(2, 0, 1)[None]
        resized = resize(cropped, size, network_input.interpolation)[0]
        turned = [axis for axis, yes in ((-1, mirrored[i]), (-2, flipped[i])) if yes]
        x[i] = resized.flip(turned) if turned else resized
    return x


def _span(first: int, length: int, side: int) -> tuple[slice, tuple[int, int]]:
    """Return what a crop takes of a side, and how often that repeats its first and last pixel.

    At least one pixel of the side, also where a small crop shifted far lies beyond it.
    """
    last = first + length
    inside = slice(min(max(first, 0), side - 1), max(min(last, side), 1))
    return inside, (min(max(-first, 0), length - 1), min(max(last - side, 0), length - 1))


def colour(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Change brightness, saturation, contrast: (N, 3, H, H) in 0 to 1, (N, 10) -> the same.

    As one pass, as each is linear in the pixel, its grey and the photo's mean grey; a channel's
    pixels lie together, as a sum over three neighbours takes four times as long.
    """

    def factor(column: int, reach: float) -> Tensor:
        values = 1 + reach * (2 * draws[:, column] - 1)
        return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, 1, 1, 1)

    brightness = factor(BRIGHTNESS, settings.brightness)
    contrast = factor(CONTRAST, settings.contrast)
    saturation = factor(SATURATION, settings.saturation)
    red, green, blue = x.unbind(1)
    grey = (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])[:, None]
    mean = grey.mean((2, 3), keepdim=True)
    scale = brightness * contrast
    changed = x * (scale * saturation)
    changed += grey.mul_(scale * (1 - saturation)).add_(brightness * (1 - contrast) * mean)
    return changed.clamp_(0, 1)


def tilt(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Rotate and shear about the centre, edges repeated: (N, 3, H, H), (N, 10) -> the same."""
    if not (settings.rotation or settings.shear):
        return x

    def angle(column: int, reach: float) -> Tensor:
        return torch.tensor(np.deg2rad(reach) * (2 * draws[:, column] - 1), dtype=x.dtype)

    turned, sheared = angle(ROTATION, settings.rotation), angle(SHEAR, settings.shear).tan()
    cos, sin, zero = turned.cos(), turned.sin(), torch.zeros_like(turned)
    rows = [cos, cos * sheared - sin, zero, sin, sin * sheared + cos, zero]
    matrices = torch.stack(rows, 1).view(-1, 2, 3).to(x.device)
    grid = functional.affine_grid(matrices, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def finish(x: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Change colours and tilt: (N, 3, H, H) uint8, (N, 10) -> (N, 3, H, H) in 0 to 1."""
    return tilt(colour(x.float().div_(255), draws, settings), draws, settings)
