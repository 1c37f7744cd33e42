"""The input that a network expects, and what code around networks shares. Needs no PyTorch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Photos per forward pass outside training. Fixed, as another batch size may round differently.
CHUNK = 16

PHOTO_CHANNELS = (1, 3)  # input channels that photos can be converted to
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class InputConfig:
    """The input that a network expects.

    Attributes:
        image_size: Side in pixels.
        mean: Mean of each channel, in 0 to 1. With one channel, photos are converted to gray.
        std: Standard deviation of each channel, in 0 to 1.
        interpolation: bilinear or bicubic.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    @property
    def channels(self) -> int:
        """Return the number of input channels: 3, or 1 for gray photos."""
        return len(self.mean)
