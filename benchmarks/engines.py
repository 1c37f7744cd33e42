"""PyTorch against ONNX Runtime on this machine's CPU: one photo, and batches of 16.

    python -m benchmarks.engines [--rounds 15] [MODEL ...]

Variants of params.yaml, without names its default, mobilenet_v3_small and resnet18, with random
weights: they change no time. Measured from stored square to probabilities, resizing included,
decoding not. The engines take turns, and the best of the rounds counts, as what else the machine
does only ever adds. `make export` measures the trained bundle, and the service takes the faster
engine. Exit status 1: the engines disagree.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tqdm import tqdm

from anklealign.cli import export
from anklealign.config import params
from anklealign.config.params import Model, Prepare
from anklealign.inference import onnx_predictor
from anklealign.inference.onnx_predictor import OnnxPredictor
from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Pixels
from anklealign.models import bundle, factory
from anklealign.models.bundle import Bundle, Preparation
from anklealign.models.inputs import CHUNK

CLASSES = ("pronation", "neutral", "supination")


def main() -> int:
    """Print a line a model; return 1 where the engines disagree."""
    raw = params.read(Path("params.yaml"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    usual = (str(raw["model"]), "mobilenet_v3_small", "resnet18")
    parser.add_argument("models", nargs="*", default=usual, metavar="MODEL")
    given = parser.parse_args()
    print(
        f"PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, "
        f"{torch.get_num_threads()} threads; ms a photo, the best of {given.rounds} rounds"
    )
    print("| model | pixels | torch, one | onnx, one | torch, of 16 | onnx, of 16 |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in given.models:
        try:
            own = fresh(name, raw)
            engines = (
                Predictor(own, export.CPU),
                OnnxPredictor(
                    own,
                    export.CPU,
                    onnx_predictor.open_session(export.exported(own).SerializeToString()),
                ),
            )
            side = own.preparation.size
            pixels = np.random.default_rng(0).integers(0, 256, (CHUNK, side, side, 3), np.uint8)
            export.compare(*engines, pixels)
        except ValueError as error:
            print(f"engines: {name}: {error}", file=sys.stderr)
            return 1
        times = [measure(engines, some, given.rounds) for some in (pixels[:1], pixels)]
        told = " | ".join(f"{ms:.2f}" for both in times for ms in both)
        print(f"| {name} | {own.network_input.image_size} | {told} |", flush=True)
    return 0


def fresh(name: str, raw: dict[str, object]) -> Bundle:
    """Return a variant's bundle, not trained.

    Raises:
        ValueError: There is no such variant.
    """
    block = replace(
        params.section(raw, f"models.{name}", Model),
        pretrained=False, frozen=False, weights=None, weights_sha256=None,
    )  # fmt: skip
    prepare = params.section(raw, "prepare", Prepare)
    torch.manual_seed(0)
    model = factory.build(name, block, len(CLASSES)).eval()
    preparation = Preparation(prepare.size, "letterbox", prepare.fill, prepare.max_megapixels)
    network_input = bundle.input_of(model, block.image_size)
    return Bundle(model, CLASSES, preparation, network_input, 1.0, 0.5, {})


def measure(engines: Sequence[Predictor], pixels_nhwc: Pixels, rounds: int) -> tuple[float, ...]:
    """Return each engine's least ms a photo on the same squares, uint8 (N, S, S, 3)."""
    seconds: list[list[float]] = [[] for _ in engines]
    bar = tqdm(range(rounds + 1), "speed", unit="round", delay=2, leave=False, disable=None)
    for number in bar:
        for engine, found in zip(engines, seconds, strict=True):
            start = time.perf_counter()
            engine.probabilities(pixels_nhwc)
            if number:  # the first warms up
                found.append(time.perf_counter() - start)
    return tuple(min(found) / len(pixels_nhwc) * 1e3 for found in seconds)


if __name__ == "__main__":
    sys.exit(main())
