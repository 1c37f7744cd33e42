"""What every predictor does: decode photos, and turn logits into calibrated probabilities.

Shapes: N photos, S side of the stored image in px, K classes. This module needs no PyTorch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from anklealign.io import decode, decoder_pool
from anklealign.io.decoder_pool import DecoderPool, Target
from anklealign.io.pixel_store import Photos, Pixels
from anklealign.models import calibration
from anklealign.models.description import Description
from anklealign.models.input_config import Floats, Integers
from anklealign.models.novelty_detector import Features

if TYPE_CHECKING:
    from anklealign.inference.predictor import Predictor


@dataclass(frozen=True)
class OpenedPhoto:
    """A preprocessed photo, the box of the photo inside its letterbox, and the original size.

    Attributes:
        pixels: (S, S, 3) uint8, as in the pixel store.
        box: Half-open left, top, right, bottom of the photo in `pixels`.
        width: Width of the upright original in px.
        height: Height of the upright original in px.
    """

    pixels: Pixels
    box: decode.Box
    width: int
    height: int


@dataclass(frozen=True)
class BasePredictor(ABC):
    """A trained bundle, whatever computes its networks.

    Attributes:
        bundle: Class names, preprocessing and calibration.
    """

    bundle: Description

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the K class names, in the order of the probabilities."""
        return self.bundle.classes

    @property
    @abstractmethod
    def device_name(self) -> str:
        """Return the name of the device that computes the network."""

    @property
    @abstractmethod
    def pytorch(self) -> "Predictor":
        """Return the predictor that computes the same network with PyTorch, as heat maps need."""

    def preprocess(self, photo: bytes | str | Path) -> Pixels:
        """Return the pixels of a photo, given its bytes or its path: (S, S, 3) uint8.

        Raises:
            PhotoError: The photo cannot be read; `reason` has the reason code.
        """
        return self.open_photo(photo).pixels

    def open_photo(
        self, photo: bytes | str | Path, decoders: DecoderPool | None = None, *, wait: bool = True
    ) -> OpenedPhoto:
        """Return a preprocessed photo with its box and original size, given its bytes or path.

        Args:
            photo: Content of a photo file, or its path.
            decoders: Pool that decodes it; default, the one of this process.
            wait: Whether to wait while the pool decodes other large photos.

        Raises:
            PhotoError: The photo cannot be read; `reason` has the reason code.
            BusyError: The photo would wait, and `wait` is False.
        """
        config = self.bundle.preprocessing
        if not isinstance(photo, bytes):
            photo = decode.read_bytes(Path(photo), config.max_megapixels)
        target = Target(config.max_megapixels, config.size, config.fit, config.fill)
        fitted = (decoders or decoder_pool.shared()).decode(photo, target, wait=wait)
        return OpenedPhoto(fitted.pixels, fitted.box, fitted.width, fitted.height)

    @abstractmethod
    def logits(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return the logits of all photos, or of some rows: uint8 (N, S, S, 3) -> (N, K)."""

    def probabilities(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return calibrated probabilities: uint8 (N, S, S, 3) -> (N, K), rows summing to 1.

        With `rows`, only those rows are read, one batch at a time.
        """
        own = self.bundle
        scores = self.logits(pixels_nhwc, rows)
        return calibration.probabilities(scores, own.temperature, own.class_bias)

    @abstractmethod
    def general_features(self, pixels_nhwc: Photos, rows: Integers) -> Features:
        """Return what `novelty.describe` does: uint8 (n, S, S, 3), rows (N,) -> (N, C)."""

    def novelty_scores(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return how unlike the training photos photos are: uint8 (N, S, S, 3) -> (N,), 0 to 2.

        NaN if the bundle was trained without a novelty detector.
        """
        index = np.arange(len(pixels_nhwc)) if rows is None else rows
        if self.bundle.novelty is None:
            return np.full(len(index), np.nan)
        return self.bundle.novelty.scores(self.general_features(pixels_nhwc, index))

    def in_distribution(self, scores: Floats) -> npt.NDArray[np.bool_]:
        """Return whether photos are similar to the training photos, from their scores: (N,).

        True for all if the bundle was trained without a novelty detector.
        """
        detector = self.bundle.novelty
        return np.full(len(scores), True) if detector is None else detector.similar(scores)

    def prediction_sets(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        """Return True for the classes in each photo's prediction set: (N, K) -> (N, K) bool."""
        return calibration.prediction_sets(probabilities, self.bundle.conformal_threshold)
