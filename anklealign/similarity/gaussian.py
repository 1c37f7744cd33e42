"""Blur a gray picture by a Gaussian, in a third of the time of SciPy's filter."""

from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Grays = npt.NDArray[np.float32]

TRUNCATE = 4.0  # standard deviations, as in scipy.ndimage.gaussian_filter
LINES = 16  # that one product of matrices returns
# Multiplications of a product up to which OpenBLAS uses one thread. With several, it may add in
# another order, and the result would depend on their number.
ONE_THREAD = 1 << 18


def blur(gray: npt.NDArray[np.floating[Any]], sigma: float) -> Grays:
    """Return (H, W) gray levels blurred by `sigma` pixels; the picture is mirrored at its edges.

    `scipy.ndimage.gaussian_filter` returns the same but for the rounding of float32. Its loops take
    three times as long as products with the matrix of the filter (0.95 and 0.28 ms of CPU for 256 x
    256 levels and sigma 1 or 1.5), and clean blurs every photo twice, and some pairs four times.
    """
    kernel = _kernel(sigma)
    size = kernel.shape[1]
    blurred = gray.astype(np.float32, copy=False)
    for _ in range(2):
        lines = blurred.T
        padded = np.take(lines, _mirrored(len(lines), (size - LINES) // 2), axis=0)
        windows = sliding_window_view(padded, size, axis=0)[::LINES]
        columns = ONE_THREAD // kernel.size
        products = [
            kernel @ windows[:, start : start + columns].transpose(0, 2, 1)
            for start in range(0, padded.shape[1], columns)
        ]
        product = products[0] if len(products) == 1 else np.concatenate(products, axis=2)
        blurred = product.reshape(-1, padded.shape[1])[: len(lines)]
    return blurred


@lru_cache(maxsize=1024)
def _mirrored(lines: int, reach: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the lines, mirrored at both ends, padded to a multiple of LINES."""
    return np.pad(np.arange(lines), (reach, reach + -lines % LINES), mode="symmetric")


@cache
def _kernel(sigma: float) -> Grays:
    """Return the matrix that maps the lines of a window to the blurred ones in its middle."""
    reach = int(TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = np.zeros((LINES, LINES + 2 * reach), np.float32)
    for line in range(LINES):
        kernel[line, line : line + len(weights)] = weights / weights.sum()
    return kernel
