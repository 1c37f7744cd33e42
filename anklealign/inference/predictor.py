"""Compute class probabilities of photos: evaluate, predict and the service share this module.

Shapes: N photos, S side of the stored image in px, K classes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anklealign.io import decode, decoder_pool
from anklealign.io.decoder_pool import DecoderPool, Target
from anklealign.io.pixel_store import Photos, Pixels
from anklealign.models import bundle, calibration, factory, fusion, inputs
from anklealign.models.bundle import Bundle
from anklealign.models.inputs import Floats, Integers, logits, pick_device


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
class Predictor:
    """A trained bundle on a device.

    Attributes:
        bundle: Model, class names, preprocessing and calibration.
        device: Device of the model.

    >>> predictor = Predictor.load("model")
    >>> pixels = np.stack([predictor.preprocess(path) for path in ["photo.jpg", "photo.jpg"]])
    >>> predictor.probabilities(pixels).sum(axis=1).round(6).tolist()
    [1.0, 1.0]
    """

    bundle: Bundle
    device: torch.device

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "Predictor":
        """Load a bundle from its folder and move its model to a device.

        Args:
            folder: Folder with config.json and model.safetensors.
            device: auto, cpu, cuda, cuda:1 or mps.

        Raises:
            ValueError: The folder contains no valid bundle, or the device does not exist.
        """
        chosen = pick_device(device)
        loaded = bundle.load(Path(folder))
        loaded.model.to(chosen)
        return cls(loaded, chosen)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the K class names, in the order of the probabilities."""
        return self.bundle.classes

    @cached_property
    def for_inference(self) -> Bundle:
        """The bundle with a faster model that is computed from its own (fusion.py).

        Its outputs are those of `bundle` but for rounding.
        """
        own = self.bundle
        return replace(own, model=fusion.for_inference(own.model, own.input_config))

    @property
    def parameter_count(self) -> int:
        """Return the number of parameters of the model."""
        return factory.count_parameters(self.bundle.model)

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

    def logits(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return the logits of all photos, or of some rows: uint8 (N, S, S, 3) -> (N, K)."""
        index = np.arange(len(pixels_nhwc)) if rows is None else rows
        own = self.for_inference
        return logits(own.model, pixels_nhwc, index, own.input_config, self.device)

    def probabilities(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return calibrated probabilities: uint8 (N, S, S, 3) -> (N, K), rows summing to 1.

        With `rows`, only those rows are read, one batch at a time.
        """
        own = self.bundle
        scores = self.logits(pixels_nhwc, rows)
        return calibration.probabilities(scores, own.temperature, own.class_bias)

    def describe(self, pixels_nhwc: Photos, rows: Integers) -> tuple[Floats, torch.Tensor]:
        """Return what `probabilities` returns, and the features of the same forward pass.

        uint8 (n, S, S, 3), rows (N,) -> (N, K), (N, C) on the CPU: the input of the last layer.
        """
        own = self.for_inference
        scores, features = inputs.logits_and_features(
            own.model, pixels_nhwc, rows, own.input_config, self.device
        )
        return calibration.probabilities(scores, own.temperature, own.class_bias), features

    def novelty_scores(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return how unlike the training photos photos are: uint8 (N, S, S, 3) -> (N,), 0 to 2.

        NaN if the bundle was trained without a novelty detector.
        """
        index = np.arange(len(pixels_nhwc)) if rows is None else rows
        if self.bundle.novelty is None:
            return np.full(len(index), np.nan)
        return self.bundle.novelty.scores(pixels_nhwc, index, self.device)

    def in_distribution(self, scores: Floats) -> npt.NDArray[np.bool_]:
        """Return whether photos are similar to the training photos, from their scores: (N,).

        True for all if the bundle was trained without a novelty detector.
        """
        detector = self.bundle.novelty
        return np.full(len(scores), True) if detector is None else detector.similar(scores)

    def prediction_sets(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        """Return True for the classes in each photo's prediction set: (N, K) -> (N, K) bool."""
        return calibration.prediction_sets(probabilities, self.bundle.conformal_threshold)
