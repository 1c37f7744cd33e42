"""From photos to class probabilities: the one path that evaluate, predict and the service share.

Shapes: N photos, S the store's side, K classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anklealign.io import decode
from anklealign.io.pixel_store import Pixels
from anklealign.models import bundle, calibration, factory
from anklealign.models.bundle import Bundle
from anklealign.models.inputs import Floats, Integers, logits, pick_device


@dataclass(frozen=True)
class Opened:
    """A photo as the store would hold it: (S, S, 3) uint8, where it lies in it, its full size.

    `box` is half open: left, top, right, bottom. `width` and `height` are the upright photo's.
    """

    pixels: Pixels
    box: decode.Box
    width: int
    height: int


@dataclass(frozen=True)
class Predictor:
    """A trained bundle on a device."""

    bundle: Bundle
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "Predictor":
        """Read a bundle from its folder and put its model on a device.

        Raises:
            ValueError: The folder holds no sound bundle, or there is no such device.
        """
        chosen = pick_device(device)
        loaded = bundle.load(folder)
        loaded.model.to(chosen)
        return cls(loaded, chosen)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the K names, in the order of the probabilities."""
        return self.bundle.classes

    @property
    def parameter_count(self) -> int:
        """Return how many weights the model has."""
        return factory.parameters(self.bundle.model)

    def prepare(self, photo: bytes | Path) -> Pixels:
        """Return a photo file as the store would hold it: its bytes or path -> (S, S, 3) uint8.

        Raises:
            images.PhotoError: The photo is refused; its `reason` says why.
        """
        return self.open(photo).pixels

    def open(self, photo: bytes | Path) -> Opened:
        """Return a photo file as the store would hold it, and where and how large it is.

        Raises:
            images.PhotoError: The photo is refused; its `reason` says why.
        """
        how = self.bundle.preparation
        opened = decode.open_photo(photo, how.max_megapixels, least_side=2 * how.size)
        pixels, box = decode.fit(opened.image, how.size, how.fit, how.fill)
        return Opened(pixels, box, opened.width, opened.height)

    def logits(self, pixels_nhwc: Pixels, rows: Integers | None = None) -> Floats:
        """Return the network's answers: uint8 (N, S, S, 3) -> (N, K)."""
        some = np.arange(len(pixels_nhwc)) if rows is None else rows
        return logits(self.bundle.model, pixels_nhwc, some, self.bundle.network_input, self.device)

    def probabilities(self, pixels_nhwc: Pixels, rows: Integers | None = None) -> Floats:
        """Return calibrated probabilities: uint8 (N, S, S, 3) -> (N, K), rows summing to 1.

        With `rows` of those alone, of which no more than a batch is read at a time.
        """
        return calibration.probabilities(self.logits(pixels_nhwc, rows), self.bundle.temperature)

    def prediction_sets(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        """Return which classes are in each photo's prediction set: (N, K) -> (N, K)."""
        return calibration.prediction_sets(probabilities, self.bundle.conformal_threshold)
