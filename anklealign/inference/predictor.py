"""Compute class probabilities of photos: evaluate, predict and the service share this module.

Shapes: N photos, S side of the stored image in px, K classes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from anklealign.inference.base_predictor import BasePredictor
from anklealign.io.pixel_store import Photos
from anklealign.models import bundle, calibration, factory, fusion, inputs, novelty
from anklealign.models.bundle import Bundle
from anklealign.models.input_config import Floats, Integers
from anklealign.models.inputs import logits, pick_device
from anklealign.models.novelty_detector import Features


@dataclass(frozen=True)
class Predictor(BasePredictor):
    """A trained bundle on a device, computed by PyTorch.

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
    def device_name(self) -> str:
        """Return the name of the device."""
        return str(self.device)

    @property
    def pytorch(self) -> "Predictor":
        """Return this predictor."""
        return self

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

    def logits(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return the logits of all photos, or of some rows: uint8 (N, S, S, 3) -> (N, K)."""
        index = np.arange(len(pixels_nhwc)) if rows is None else rows
        own = self.for_inference
        return logits(own.model, pixels_nhwc, index, own.input_config, self.device)

    def describe(self, pixels_nhwc: Photos, rows: Integers) -> tuple[Floats, torch.Tensor]:
        """Return what `probabilities` returns, and the features of the same forward pass.

        uint8 (n, S, S, 3), rows (N,) -> (N, K), (N, C) on the CPU: the input of the last layer.
        """
        own = self.for_inference
        scores, features = inputs.logits_and_features(
            own.model, pixels_nhwc, rows, own.input_config, self.device
        )
        return calibration.probabilities(scores, own.temperature, own.class_bias), features

    def general_features(self, pixels_nhwc: Photos, rows: Integers) -> Features:
        """Return what `novelty.describe` does: uint8 (n, S, S, 3), rows (N,) -> (N, C)."""
        return novelty.describe(pixels_nhwc, rows, self.device)
