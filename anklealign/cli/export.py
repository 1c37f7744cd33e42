"""Export a bundle to ONNX, to serve it without the overhead of PyTorch.

    anklealign export [--model model] [--out export/model.onnx]

The file stands on its own: its outputs are the logits and the calibrated probabilities, and its
metadata has the classes and the preprocessing (onnx_predictor.py).

The export is checked before it is written: its probabilities must agree with PyTorch's to 1e-4 and
its predicted classes must be equal, on the test photos if data/split and the pixel store exist and
on seeded noise otherwise. Both engines are then timed on this machine. The file stores which one
the service should use and the hash of its bundle, so that the service refuses a stale export.
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn
from tqdm import tqdm

from anklealign.config import paths
from anklealign.inference import onnx_predictor
from anklealign.inference.base_predictor import BasePredictor
from anklealign.inference.onnx_predictor import OnnxPredictor
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Pixels
from anklealign.models import inputs, novelty
from anklealign.models.bundle import Bundle
from anklealign.models.input_config import CHUNK, InputConfig
from anklealign.models.novelty_detector import GENERAL_INPUT
from anklealign.models.weights import GENERAL_NETWORK

TOLERANCE = 1e-4  # of a probability
NOVELTY_TOLERANCE = 1e-3  # of a score, whose features are rounded to half precision
CPU = torch.device("cpu")
ROUNDS = 7
# PyTorch must be faster than ONNX Runtime by a fifth, because with it the service starts later and
# takes twice the memory (4.3 instead of 1.7 s, 1,226 instead of 604 MB, benchmarks/serving.py).
PYTORCH_SHARE = 0.8


@dataclass(frozen=True)
class Speed:
    """Median milliseconds per photo on this machine's CPU: single, and in batches of 16."""

    single: float
    batched: float


def preferred_engine(speeds: Mapping[str, Speed]) -> str:
    """Return the engine, onnx or torch, that the service should use."""
    torch_ms, onnx_ms = (speeds[name].single + speeds[name].batched for name in ("torch", "onnx"))
    return "torch" if torch_ms < PYTORCH_SHARE * onnx_ms else "onnx"


def export_model(model: Path, out: Path, final: Path | None = None) -> int:
    """Export a bundle, check and time it, write the file; return the exit status, 1 on an error.

    `final` is the path to print if the file is moved there later.
    """
    try:
        reference = Predictor.load(model, "cpu")
        onnx_model = exported(reference.bundle)
        session = onnx_predictor.open_session(onnx_model.SerializeToString())
        candidate = OnnxPredictor(reference.bundle, lambda: reference, session)
        pixels, source = test_photos(reference.bundle)
        difference = compare(reference, candidate, pixels)
        check_probabilities(session, reference, pixels)
        speeds = {"torch": speed(reference, pixels), "onnx": speed(candidate, pixels)}
        preferred = preferred_engine(speeds)
        properties = {
            onnx_predictor.BUNDLE_HASH: results.bundle_hash(model),
            onnx_predictor.PREFERRED_ENGINE: preferred,
            onnx_predictor.DESCRIPTION: json.dumps(reference.bundle.as_config()),
        }
        onnx.helper.set_model_props(onnx_model, properties)
        if reference.bundle.novelty is not None:
            write_general_network(out.with_name(onnx_predictor.NOVELTY_FILE), reference, pixels)
        with files.replacing(out) as path:
            path.write_bytes(onnx_model.SerializeToString())
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    for name, times in speeds.items():
        print(f"{name:5}  {times.single:7.2f} ms per photo, {times.batched:7.2f} in batches of 16")
    print(
        f"export: {final or out}, {len(pixels)} {source}: same classes, probabilities within "
        f"{difference:.1e}; the service uses {preferred} on this CPU"
    )
    return 0


def write_general_network(path: Path, reference: Predictor, pixels: Pixels) -> None:
    """Write the general network of the novelty detector, after a check of its scores.

    Raises:
        ValueError: A score differs from PyTorch's by more than the tolerance.
    """
    model = to_onnx(_Features(novelty.general_network("cpu")), GENERAL_INPUT)
    properties = {onnx_predictor.NOVELTY_CONFIG: str(GENERAL_NETWORK)}
    onnx.helper.set_model_props(model, properties)
    session = onnx_predictor.open_session(model.SerializeToString())
    # Its first session would run the classifier, which is not needed here.
    candidate = OnnxPredictor(reference.bundle, lambda: reference, session, session)
    expected, actual = (p.novelty_scores(pixels) for p in (reference, candidate))
    difference = float(np.abs(expected - actual).max())
    if not difference <= NOVELTY_TOLERANCE:
        raise ValueError(
            f"ONNX Runtime differs from PyTorch by up to {difference:.2g} in a novelty score "
            f"({NOVELTY_TOLERANCE:g} is the limit); serve with PyTorch"
        )
    with files.replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


class _Features(nn.Module):
    """A network's features: (N, 3, H, H) -> (N, C)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        maps = self.network.forward_features(x)  # type: ignore[operator]
        pooled: Tensor = self.network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
        return pooled


def exported(bundle: Bundle) -> onnx.ModelProto:
    """Return a bundle's network as an ONNX model: float (N, 3, H, H) -> two of (N, K), N free.

    Its outputs are the logits and the calibrated probabilities.
    """
    model = to_onnx(bundle.model, bundle.input_config)
    graph, classes = model.graph, len(bundle.classes)
    constants = {
        "calibration_scale": np.float32(1 / bundle.temperature),
        "calibration_bias": np.array(bundle.class_bias or [0.0] * classes, np.float32),
    }
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    scale, bias = constants
    scaled, shifted = "scaled_logits", "calibrated_logits"
    graph.node.extend(
        [
            onnx.helper.make_node("Mul", [onnx_predictor.OUTPUT, scale], [scaled]),
            onnx.helper.make_node("Add", [scaled, bias], [shifted]),
            onnx.helper.make_node("Softmax", [shifted], [onnx_predictor.PROBABILITIES], axis=1),
        ]
    )
    shape = [graph.output[0].type.tensor_type.shape.dim[0].dim_param or "photos", classes]
    graph.output.append(
        onnx.helper.make_tensor_value_info(
            onnx_predictor.PROBABILITIES, onnx.TensorProto.FLOAT, shape
        )
    )
    onnx.checker.check_model(model)
    return model


def check_probabilities(session: InferenceSession, reference: Predictor, pixels: Pixels) -> None:
    """Check the probabilities in the file, which other programs use.

    Raises:
        ValueError: One differs from PyTorch's by more than the tolerance.
    """
    chunk = pixels[:CHUNK]
    x = inputs.to_input(chunk, reference.bundle.input_config, CPU).numpy()
    (actual,) = session.run([onnx_predictor.PROBABILITIES], {onnx_predictor.INPUT: x})
    difference = float(np.abs(actual - reference.probabilities(chunk)).max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the file's probabilities differ from PyTorch's by up to {difference:.2g} "
            f"({TOLERANCE:g} is the limit); nothing was written, serve with PyTorch"
        )


def to_onnx(network: nn.Module, input_config: InputConfig) -> onnx.ModelProto:
    """Return a network as an ONNX model: float (N, 3, H, H) -> (N, outputs), N free."""
    side = input_config.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's own internals
        try:
            program = torch.onnx.export(
                network.eval(),
                # Two photos: with one, the exporter treats the number of photos as a constant.
                (torch.zeros(2, input_config.channels, side, side),),
                input_names=[onnx_predictor.INPUT],
                output_names=[onnx_predictor.OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("photos", min=1, max=1 << 16)},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise ValueError(
                f"PyTorch cannot export this network to ONNX: {reason}; serve with PyTorch"
            ) from error
    if program is None:
        raise ValueError("torch.onnx.export returned nothing for this network")
    model: onnx.ModelProto = program.model_proto
    onnx.checker.check_model(model)
    return model


def test_photos(bundle: Bundle) -> tuple[Pixels, str]:
    """Return the pixels of the test split, or seeded noise if there are none, and their name.

    The photos of another run show as well whether the engines agree; the name says so.
    """
    listed, side = paths.SPLIT / "photos.csv", bundle.preprocessing.size
    if listed.is_file():
        table, store = pixel_store.read_table(listed), pixel_store.open_store()
        rows = table[table.split == "test"].row.to_numpy()
        if store.shape[1] == side and len(rows):
            other = results.other_input(bundle.record)
            return np.asarray(store[rows]), "photos of another run" if other else "test photos"
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (32, side, side, 3), np.uint8), "noise images"


def compare(reference: BasePredictor, candidate: BasePredictor, pixels: Pixels) -> float:
    """Return the largest difference of a probability between two engines on the same pixels.

    Raises:
        ValueError: It exceeds the tolerance, or a predicted class differs.
    """
    expected, actual = reference.probabilities(pixels), candidate.probabilities(pixels)
    difference = float(np.abs(expected - actual).max())
    mismatches = int((expected.argmax(1) != actual.argmax(1)).sum())
    if not difference <= TOLERANCE or mismatches:  # `not <=` also catches NaN
        raise ValueError(
            f"ONNX Runtime differs from PyTorch by up to {difference:.2g} in a probability "
            f"({TOLERANCE:g} is the limit) and in {mismatches} of {len(pixels)} classes; "
            "nothing was written, serve with PyTorch"
        )
    return difference


def speed(predictor: BasePredictor, pixels: Pixels) -> Speed:
    """Measure a predictor from pixels to probabilities, after a warm-up round."""
    sixteen = np.resize(pixels, (CHUNK, *pixels.shape[1:]))

    def median_ms(work: Callable[[], object]) -> float:
        seconds = []
        for _ in tqdm(range(ROUNDS + 1), "speed", unit="round", delay=1, leave=False, disable=None):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:]) * 1e3

    batched = median_ms(lambda: predictor.probabilities(sixteen)) / len(sixteen)
    return Speed(median_ms(lambda: predictor.probabilities(sixteen[:1])), batched)
