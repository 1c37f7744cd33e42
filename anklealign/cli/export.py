"""The command that exports a bundle to ONNX, for serving without PyTorch's overhead.

    python -m anklealign.cli.export [--model model] [--out export/model.onnx]

The export is checked before it is written: on the test photos where data/split and the pixel store
are there, on seeded noise otherwise, probabilities must agree with PyTorch's to 1e-4 and the class
must be the same. Both engines are then timed on this machine; the file remembers which was the
faster, and which bundle it was made from, so that the service refuses a stale one.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from tqdm import tqdm

from anklealign.inference import onnx_predictor
from anklealign.inference.onnx_predictor import OnnxPredictor
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store
from anklealign.io.pixel_store import Pixels
from anklealign.models import inputs
from anklealign.models.bundle import Bundle

TOLERANCE = 1e-4  # of a probability
CPU = torch.device("cpu")
ROUNDS = 7


@dataclass(frozen=True)
class Speed:
    """Milliseconds a photo on this machine's CPU, medians: alone, and in batches of 16."""

    alone: float
    together: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, check, measure, write; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.cli.export", description="Export a trained bundle to ONNX."
    )
    parser.add_argument("--model", type=Path, default=Path("model"), help="the bundle's folder")
    parser.add_argument("--out", type=Path, default=Path("export/model.onnx"))
    given = parser.parse_args(arguments)
    try:
        reference = Predictor.load(given.model, "cpu")
        model = exported(reference.bundle)
        found = OnnxPredictor(
            reference.bundle, CPU, onnx_predictor.open_session(model.SerializeToString())
        )
        pixels, source = test_photos(reference.bundle)
        difference = compare(reference, found, pixels)
        speeds = {"torch": speed(reference, pixels), "onnx": speed(found, pixels)}
        faster = min(speeds, key=lambda name: speeds[name].alone + speeds[name].together)
        remember = {
            onnx_predictor.BUNDLE_HASH: onnx_predictor.bundle_hash(given.model),
            onnx_predictor.FASTER: faster,
        }
        onnx.helper.set_model_props(model, remember)
        with files.replacing(given.out) as path:
            path.write_bytes(model.SerializeToString())
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    for name, measured in speeds.items():
        print(f"{name:5}  {measured.alone:7.2f} ms a photo alone, {measured.together:7.2f} in 16")
    print(
        f"export: {given.out}, {len(pixels)} {source}: the same classes, probabilities within "
        f"{difference:.1e}; {faster} is the faster on this CPU"
    )
    return 0


def exported(bundle: Bundle) -> onnx.ModelProto:
    """Return a bundle's network as an ONNX model: float (N, 3, H, H) -> (N, K), N free."""
    side = bundle.network_input.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's own internals
        program = torch.onnx.export(
            bundle.model.eval(),
            # Two: at one, the exporter would take the number of photos for a constant.
            (torch.zeros(2, 3, side, side),),
            input_names=[onnx_predictor.INPUT],
            output_names=[onnx_predictor.OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("photos", min=1, max=1 << 16)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ValueError("torch.onnx.export returned nothing for this network")
    model: onnx.ModelProto = program.model_proto
    onnx.checker.check_model(model)
    return model


def test_photos(bundle: Bundle) -> tuple[Pixels, str]:
    """Return the test part's squares, or seeded noise where they are not there, and their name."""
    listed, side = pixel_store.SPLIT / "photos.csv", bundle.preparation.size
    if listed.is_file():
        table, store = pixel_store.read_table(listed), pixel_store.open_store()
        rows = table[table.split == "test"].row.to_numpy()
        if store.shape[1] == side and len(rows):
            return np.asarray(store[rows]), "test photos"
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (32, side, side, 3), np.uint8), "squares of noise"


def compare(reference: Predictor, found: Predictor, pixels: Pixels) -> float:
    """Return the largest difference of a probability between two engines on the same squares.

    Raises:
        ValueError: It is over the tolerance, or a class differs.
    """
    expected, answers = reference.probabilities(pixels), found.probabilities(pixels)
    difference = float(np.abs(expected - answers).max())
    other = int((expected.argmax(1) != answers.argmax(1)).sum())
    if not difference <= TOLERANCE or other:  # NaN is not within
        raise ValueError(
            f"ONNX Runtime differs from PyTorch by up to {difference:.2g} in a probability "
            f"({TOLERANCE:g} is the limit) and in {other} of {len(pixels)} classes; nothing was "
            "written, serve by PyTorch"
        )
    return difference


def speed(predictor: Predictor, pixels: Pixels) -> Speed:
    """Measure a predictor from squares to probabilities, after a warm-up."""
    sixteen = np.resize(pixels, (inputs.CHUNK, *pixels.shape[1:]))

    def median(work: Callable[[], object]) -> float:
        seconds = []
        for _ in tqdm(range(ROUNDS + 1), "speed", unit="round", delay=1, leave=False, disable=None):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:]) * 1e3

    together = median(lambda: predictor.probabilities(sixteen)) / len(sixteen)
    return Speed(median(lambda: predictor.probabilities(sixteen[:1])), together)


if __name__ == "__main__":
    sys.exit(main())
