"""Run a predictor's network with ONNX Runtime, from a file written by `anklealign export`.

It differs from `Predictor` only in the arithmetic of the network: probabilities agree to 1e-4.
PyTorch is imported only for what needs it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from anklealign.inference import numpy_inputs
from anklealign.inference.base_predictor import BasePredictor
from anklealign.io import results
from anklealign.io.pixel_store import Photos
from anklealign.models import description, novelty_detector
from anklealign.models.input_config import CHUNK, Floats, InputConfig, Integers
from anklealign.models.novelty_detector import GENERAL_INPUT, Features
from anklealign.models.weights import GENERAL_NETWORK

if TYPE_CHECKING:
    from collections.abc import Callable

    from anklealign.inference.predictor import Predictor

# Keys of the ONNX file's metadata. DESCRIPTION is JSON with everything around the network: classes,
# preprocessing, input, temperature, class_bias and conformal_threshold, as in the bundle's config.
BUNDLE_HASH = "bundle_sha256"
PREFERRED_ENGINE = "preferred_engine"
DESCRIPTION = "anklealign"
# Must differ from all parameter names: the exporter confuses equal names.
INPUT, OUTPUT, PROBABILITIES = "normalized_photos", "class_logits", "class_probabilities"
# Beside the export: the general network of the novelty detector (novelty.py), and the key of its
# config. It takes a quarter of PyTorch's time for one photo.
NOVELTY_FILE, NOVELTY_CONFIG = "novelty.onnx", "config"


@dataclass(frozen=True)
class OnnxPredictor(BasePredictor):
    """A trained bundle of which ONNX Runtime runs one network or both on the CPU.

    Attributes:
        load_pytorch: Loads the predictor for what PyTorch computes: a network without a session,
            and heat maps.
        session: Of the bundle's network; None means PyTorch.
        novelty_session: Of the novelty detector's general network; None means PyTorch.
    """

    load_pytorch: "Callable[[], Predictor]"
    session: onnxruntime.InferenceSession | None
    novelty_session: onnxruntime.InferenceSession | None = None

    @property
    def device_name(self) -> str:
        """Return cpu."""
        return "cpu"

    @cached_property
    def pytorch(self) -> "Predictor":
        """The predictor that computes the same network with PyTorch, loaded at the first use."""
        return self.load_pytorch()

    @property
    def needs_pytorch(self) -> bool:
        """Return whether PyTorch computes one of the networks."""
        detects = self.bundle.novelty is not None
        return self.session is None or (detects and self.novelty_session is None)

    def logits(self, pixels_nhwc: Photos, rows: Integers | None = None) -> Floats:
        """Return the logits of all photos, or of some rows: uint8 (N, S, S, 3) -> (N, K)."""
        if self.session is None:
            return self.pytorch.logits(pixels_nhwc, rows)
        index = np.arange(len(pixels_nhwc)) if rows is None else rows
        outputs = self._run(self.session, pixels_nhwc, index, self.bundle.input_config)
        return outputs.astype(np.float64)

    def general_features(self, pixels_nhwc: Photos, rows: Integers) -> Features:
        """Return what `novelty.describe` does: uint8 (n, S, S, 3), rows (N,) -> (N, C)."""
        if self.novelty_session is None:
            return self.pytorch.general_features(pixels_nhwc, rows)
        return novelty_detector.unit(
            self._run(self.novelty_session, pixels_nhwc, rows, GENERAL_INPUT)
        )

    def _run(
        self,
        session: onnxruntime.InferenceSession,
        pixels: Photos,
        index: Integers,
        input_config: InputConfig,
    ) -> Features:
        """Return a session's output for rows of the store, `CHUNK` rows at a time: (N, outputs)."""
        outputs = []
        # At least one pass, as with PyTorch, so that the output for no photos has K columns.
        for start in range(0, max(1, len(index)), CHUNK):
            chunk = pixels[index[start : start + CHUNK]]
            x = numpy_inputs.to_input(chunk, input_config)
            outputs += session.run([OUTPUT], {INPUT: x})
        return np.concatenate(outputs)

    @property
    def preferred_engine(self) -> str:
        """Return the engine that the service should use by the export: onnx or torch."""
        if self.session is None:
            return "torch"
        return str(self.session.get_modelmeta().custom_metadata_map.get(PREFERRED_ENGINE, "onnx"))


def session_options() -> onnxruntime.SessionOptions:
    """Return the settings of a session; `python -m benchmarks.engines --settings` compares them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; its warnings concern its graph optimizer
    # Idle threads would otherwise spin on the cores that decode the next photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(
    model: bytes, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """Return a CPU session for the bytes of an ONNX model."""
    options = options or session_options()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load(folder: Path, export: Path) -> OnnxPredictor:
    """Load a bundle from its folder and its network from an exported ONNX file.

    Raises:
        ValueError: The bundle or the export is missing or invalid, or the export belongs to
            another bundle.
    """
    remedy = "run `make export`, or remove the file to use PyTorch"
    described = description.load(folder)
    try:
        # From bytes: loaded from a path, the file could reference other files.
        session = open_session(export.read_bytes())
    except OSError as error:
        raise ValueError(f"{export} cannot be read ({error.strerror}); {remedy}") from None
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base class
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{export} is not a valid ONNX model ({reason}); {remedy}") from None
    exported_from = session.get_modelmeta().custom_metadata_map.get(BUNDLE_HASH)
    if exported_from != results.bundle_hash(folder):
        raise ValueError(f"{export} was exported from another bundle than {folder}; {remedy}")
    novelty_session = _novelty_session(export.with_name(NOVELTY_FILE))
    return OnnxPredictor(described, lambda: _load_pytorch(folder), session, novelty_session)


def _load_pytorch(folder: Path) -> "Predictor":
    from anklealign.inference.predictor import Predictor  # noqa: PLC0415 - takes seconds

    return Predictor.load(folder, "cpu")


def with_novelty_session(predictor: "Predictor", export: Path) -> BasePredictor:
    """Return a PyTorch predictor on the CPU whose novelty detector runs in ONNX Runtime.

    Without the exported general network beside `export`, it is returned as it is.

    Raises:
        ValueError: The exported general network is invalid.
    """
    known = predictor.bundle.novelty is not None
    session = _novelty_session(export.with_name(NOVELTY_FILE)) if known else None
    if session is None:
        return predictor
    return OnnxPredictor(predictor.bundle, lambda: predictor, None, session)


def _novelty_session(path: Path) -> onnxruntime.InferenceSession | None:
    """Return the session of the general network, or None, which means PyTorch."""
    try:
        session = open_session(path.read_bytes())
    except OSError:
        return None
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base class
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} is not a valid ONNX model ({reason}); run `make export`, or remove the file "
            "to use PyTorch"
        ) from None
    config = session.get_modelmeta().custom_metadata_map.get(NOVELTY_CONFIG)
    return session if config == str(GENERAL_NETWORK) else None
