"""Convert stored pixels to network input with NumPy: the bytes of `inputs.to_input` on a CPU.

Programs that run networks with ONNX Runtime need no PyTorch this way. Resizing is that of PyTorch
(and of Pillow, but for the number of bits): weights are rounded to integers of 16 bits, and the
columns are rounded to whole pixel values before the rows. Sums of such products are exact in
floating point, in any order, so that BLAS computes them: a block of neighboring outputs is a
product of a small matrix. Gray input, a sum of three channels, may differ in the last bit.

Shapes: N photos, S the store's side, H the network's side, C input channels.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anklealign.io.pixel_store import Pixels
from anklealign.models.input_config import LUMA, InputConfig

Reals = npt.NDArray[np.floating[Any]]
BLOCK = 32  # outputs; most of a wider block's weights are 0, and each block is a call
MAX_WEIGHT = 2**15
MAX_BITS = 22
EXACT = 2**24  # whole numbers below it are exact in 32 bits


class Block(NamedTuple):
    """Neighboring outputs, the inputs that they depend on, and the weights (outputs, inputs)."""

    outputs: slice
    inputs: slice
    weights: Reals


def to_input(pixels_nhwc: Pixels, config: InputConfig) -> npt.NDArray[np.float32]:
    """Convert photos to network input: uint8 (N, S, S, 3) -> (N, C, H, H)."""
    side = config.image_size
    result = np.empty((len(pixels_nhwc), config.channels, side, side), np.float32)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (config.mean, config.std))
    for photo, target in zip(pixels_nhwc, result, strict=True):  # one fits in the CPU's cache
        x = resize(photo.transpose(2, 0, 1).astype(np.float32), side, config.interpolation) / 255
        if config.channels == 1:
            x = np.tensordot(np.array(LUMA, np.float32), x, 1)[None]
        np.divide(x - mean, std, out=target)
    return result


def resize(x: npt.NDArray[np.float32], size: int, interpolation: str) -> npt.NDArray[np.float32]:
    """Resize with antialiasing: whole numbers of 0 to 255, (3, S, S) -> (3, H, H)."""
    side = x.shape[-1]
    if side == size:
        return x
    blocks = resizing(side, size, interpolation)
    wide = x.astype(blocks[0].weights.dtype, copy=False)
    columns = np.empty((3, side, size), wide.dtype)
    for block in blocks:
        np.matmul(wide[..., block.inputs], block.weights.T, out=columns[..., block.outputs])
    columns = _rounded(columns)
    rows = np.empty((3, size, size), wide.dtype)
    for block in blocks:
        np.matmul(block.weights, columns[:, block.inputs], out=rows[:, block.outputs])
    return _rounded(rows).astype(np.float32, copy=False)


def _rounded(x: Reals) -> Reals:
    x += 0.5
    return np.floor(np.clip(x, 0, 255, out=x), out=x)


@functools.lru_cache(maxsize=8)
def resizing(side: int, size: int, interpolation: str) -> list[Block]:
    """Return the weights by which rows or columns of `side` pixels become `size` pixels."""
    scale = side / size
    stretch = max(scale, 1.0)
    radius = stretch * (1 if interpolation == "bilinear" else 2)
    centers = scale * (np.arange(size) + 0.5)[:, None]
    first = np.maximum((centers - radius + 0.5).astype(int), 0)
    last = np.minimum((centers + radius + 0.5).astype(int), side)
    positions = np.arange(side)
    x = np.abs(positions - centers + 0.5) / stretch
    if interpolation == "bilinear":
        weights = np.maximum(1 - x, 0)
    else:  # the cubic convolution of Keys (1981) with a = -0.5
        outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, outer, 0))
    weights *= (positions >= first) & (positions < last)
    weights /= weights.sum(1, keepdims=True)
    bits = 0
    while bits < MAX_BITS and int(weights.max() * 2 ** (bits + 1) + 0.5) < MAX_WEIGHT:
        bits += 1
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights))
    largest = 255 * np.abs(whole).sum(1).max() + 2**bits / 2  # a half is added to round
    whole = (whole / 2**bits).astype(np.float32 if largest < EXACT else np.float64)
    blocks = []
    for start in range(0, size, BLOCK):
        outputs = slice(start, min(start + BLOCK, size))
        inputs = slice(int(first[start, 0]), int(last[outputs.stop - 1, 0]))
        blocks.append(Block(outputs, inputs, np.ascontiguousarray(whole[outputs, inputs])))
    return blocks
