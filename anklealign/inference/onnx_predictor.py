"""The predictor with its network run by ONNX Runtime, from a file that anklealign.cli.export wrote.

Opening, fitting, resizing and normalising are the predictor's own, so that only the network's
arithmetic differs: probabilities agree with PyTorch's to 1e-4.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from anklealign.inference.predictor import Predictor
from anklealign.io import files
from anklealign.io.pixel_store import Pixels
from anklealign.models import bundle, inputs
from anklealign.models.inputs import Floats, Integers

# Keys of the ONNX file's metadata.
BUNDLE_HASH = "bundle_sha256"
FASTER = "faster_engine"
# Names that no module has for a parameter: the exporter would mix them up.
INPUT, OUTPUT = "normalised_photos", "class_logits"


@dataclass(frozen=True)
class OnnxPredictor(Predictor):
    """A trained bundle whose network is run by ONNX Runtime on the CPU."""

    session: onnxruntime.InferenceSession

    def logits(self, pixels_nhwc: Pixels, rows: Integers | None = None) -> Floats:
        """Return the network's answers: uint8 (N, S, S, 3) -> (N, K)."""
        some = np.arange(len(pixels_nhwc)) if rows is None else rows
        answers = []
        # At least one pass, in the chunks of the other engine: the answer to none has K columns.
        for start in range(0, max(1, len(some)), inputs.CHUNK):
            chunk = pixels_nhwc[some[start : start + inputs.CHUNK]]
            with one_thread():
                x = inputs.whole(chunk, self.bundle.network_input, self.device).numpy()
            answers += self.session.run([OUTPUT], {INPUT: x})
        return np.concatenate(answers).astype(np.float64)

    @property
    def faster_engine(self) -> str:
        """Return the engine that was the faster one when the file was written: onnx or torch."""
        return str(self.session.get_modelmeta().custom_metadata_map.get(FASTER, "onnx"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep PyTorch to this thread for a while.

    Resizing a batch gains nothing from others, and they wait busily on cores that decode: 1.9 ms of
    CPU a photo instead of 0.8, on two busy cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bundle_hash(folder: Path) -> str:
    """Return the SHA-256 that tells a bundle: its config's, which names its weights' own."""
    return files.sha256(folder / bundle.CONFIG)


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Return a session on the CPU for the bytes of an ONNX model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about its own optimiser
    # Threads that wait for work would otherwise burn the cores that decode the next photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load(folder: Path, export: Path) -> OnnxPredictor:
    """Read a bundle from its folder and the network from its export.

    Raises:
        ValueError: There is no sound bundle or export, or the export is another bundle's.
    """
    remedy = "run `make export`, or remove the file to be served by PyTorch"
    loaded = bundle.load(folder)
    try:
        # From bytes: a path would let the file name others beside it.
        session = open_session(export.read_bytes())
    except OSError as error:
        raise ValueError(f"{export} cannot be read ({error.strerror}); {remedy}") from None
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base of their own
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{export} is no model for ONNX Runtime ({reason}); {remedy}") from None
    made_for = session.get_modelmeta().custom_metadata_map.get(BUNDLE_HASH)
    if made_for != bundle_hash(folder):
        raise ValueError(f"{export} was made from another bundle than {folder}; {remedy}")
    return OnnxPredictor(loaded, torch.device("cpu"), session)
