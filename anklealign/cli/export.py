"""Export a bundle to ONNX, to serve it without the overhead of PyTorch.

    anklealign export [--model model] [--out export/model.onnx]

The export is checked before it is written: its probabilities must agree with PyTorch's to 1e-4 and
its predicted classes must be equal, on the test photos if data/split and the pixel store exist and
on seeded noise otherwise. Both engines are then timed on this machine. The file stores which one
is faster and the hash of its bundle, so that the service refuses a stale export.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from tqdm import tqdm

from anklealign.config import paths
from anklealign.inference import onnx_predictor
from anklealign.inference.onnx_predictor import OnnxPredictor
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Pixels
from anklealign.models import inputs
from anklealign.models.bundle import Bundle

TOLERANCE = 1e-4  # of a probability
CPU = torch.device("cpu")
ROUNDS = 7


@dataclass(frozen=True)
class Speed:
    """Median milliseconds per photo on this machine's CPU: single, and in batches of 16."""

    single: float
    batched: float


def export_model(model: Path, out: Path) -> int:
    """Export a bundle, check and time it, write the file; return the exit status, 1 on an error."""
    try:
        reference = Predictor.load(model, "cpu")
        onnx_model = exported(reference.bundle)
        session = onnx_predictor.open_session(onnx_model.SerializeToString())
        candidate = OnnxPredictor(reference.bundle, CPU, session)
        pixels, source = test_photos(reference.bundle)
        difference = compare(reference, candidate, pixels)
        speeds = {"torch": speed(reference, pixels), "onnx": speed(candidate, pixels)}
        faster = min(speeds, key=lambda name: speeds[name].single + speeds[name].batched)
        properties = {
            onnx_predictor.BUNDLE_HASH: results.bundle_hash(model),
            onnx_predictor.FASTER_ENGINE: faster,
        }
        onnx.helper.set_model_props(onnx_model, properties)
        with files.replacing(out) as path:
            path.write_bytes(onnx_model.SerializeToString())
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    for name, times in speeds.items():
        print(f"{name:5}  {times.single:7.2f} ms per photo, {times.batched:7.2f} in batches of 16")
    print(
        f"export: {out}, {len(pixels)} {source}: same classes, probabilities within "
        f"{difference:.1e}; {faster} is faster on this CPU"
    )
    return 0


def exported(bundle: Bundle) -> onnx.ModelProto:
    """Return a bundle's network as an ONNX model: float (N, 3, H, H) -> (N, K), N free."""
    side = bundle.input_config.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's own internals
        try:
            program = torch.onnx.export(
                bundle.model.eval(),
                # Two photos: with one, the exporter treats the number of photos as a constant.
                (torch.zeros(2, bundle.input_config.channels, side, side),),
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
    """Return the pixels of the test split, or seeded noise if there are none, and their name."""
    listed, side = paths.SPLIT / "photos.csv", bundle.preprocessing.size
    if listed.is_file():
        table, store = pixel_store.read_table(listed), pixel_store.open_store()
        rows = table[table.split == "test"].row.to_numpy()
        if store.shape[1] == side and len(rows):
            return np.asarray(store[rows]), "test photos"
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (32, side, side, 3), np.uint8), "noise images"


def compare(reference: Predictor, candidate: Predictor, pixels: Pixels) -> float:
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


def speed(predictor: Predictor, pixels: Pixels) -> Speed:
    """Measure a predictor from pixels to probabilities, after a warm-up round."""
    sixteen = np.resize(pixels, (inputs.CHUNK, *pixels.shape[1:]))

    def median_ms(work: Callable[[], object]) -> float:
        seconds = []
        for _ in tqdm(range(ROUNDS + 1), "speed", unit="round", delay=1, leave=False, disable=None):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:]) * 1e3

    batched = median_ms(lambda: predictor.probabilities(sixteen)) / len(sixteen)
    return Speed(median_ms(lambda: predictor.probabilities(sixteen[:1])), batched)
