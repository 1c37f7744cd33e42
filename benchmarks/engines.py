"""Compare PyTorch and ONNX Runtime on this CPU: single photos and batches of 16.

    python -m benchmarks.engines [--rounds 15] [--settings] [MODEL ...]

Measures variants of params.yaml; by default the configured model, mobilenet_v3_small and resnet18.
The weights are random, which does not affect speed. The time includes resizing and excludes
decoding. The engines alternate, and the best round counts, because other load only adds time.
`make export` measures the trained bundle, and the service uses ONNX Runtime unless PyTorch is
faster by a fifth. Exit status 1: the engines disagree.

With --settings, compares settings of ONNX Runtime instead: the service's (graph optimization `all`,
a thread per core, threads that do not spin), and each with one change. Prints the wall and the CPU
time of a photo, because the service decodes the next photos on the same cores. Run it with
OPENBLAS_NUM_THREADS=1, as the service does: threads of OpenBLAS spin after resizing a photo.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime import GraphOptimizationLevel as Level
from tqdm import tqdm

from anklealign.cli import export
from anklealign.config import params
from anklealign.config.params import Model, Prepare
from anklealign.inference import onnx_predictor
from anklealign.inference.base_predictor import BasePredictor
from anklealign.inference.onnx_predictor import OnnxPredictor
from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Pixels
from anklealign.models import bundle, factory
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.models.input_config import CHUNK

CLASSES = ("pronation", "neutral", "supination")
PAUSE = 0.02  # seconds between photos, in which idle threads may spin
# Attributes of SessionOptions, or keys of its config entries, which have a dot.
SETTINGS: dict[str, dict[str, Any]] = {
    "as in the service": {},
    "threads spin": {"session.intra_op.allow_spinning": "1"},
    "one thread": {"intra_op_num_threads": 1},
    "branches in parallel": {"execution_mode": onnxruntime.ExecutionMode.ORT_PARALLEL},
    "extended optimization": {"graph_optimization_level": Level.ORT_ENABLE_EXTENDED},
    "basic optimization": {"graph_optimization_level": Level.ORT_ENABLE_BASIC},
    "no memory arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
}


def main() -> int:
    """Print a row per model; return 1 if the engines disagree."""
    raw = params.read(Path("params.yaml"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--settings", action="store_true", help="compare those of ONNX Runtime")
    default_models = (str(raw["model"]), "mobilenet_v3_small", "resnet18")
    parser.add_argument("models", nargs="*", default=default_models, metavar="MODEL")
    options = parser.parse_args()
    if options.settings:
        return compare_settings(options.models, raw, options.rounds)
    print(
        f"PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}, "
        f"{torch.get_num_threads()} threads; ms per photo, best of {options.rounds} rounds"
    )
    print("| model | input, px | torch, one | onnx, one | torch, batch of 16 | onnx, batch of 16 |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in options.models:
        try:
            model_bundle = untrained_bundle(name, raw)
            engines = both_engines(model_bundle)
            side = model_bundle.preprocessing.size
            pixels = np.random.default_rng(0).integers(0, 256, (CHUNK, side, side, 3), np.uint8)
            export.compare(*engines, pixels)
        except ValueError as error:
            print(f"engines: {name}: {error}", file=sys.stderr)
            return 1
        times = [measure(engines, batch, options.rounds) for batch in (pixels[:1], pixels)]
        cells = " | ".join(f"{ms:.2f}" for pair in times for ms in pair)
        print(f"| {name} | {model_bundle.input_config.image_size} | {cells} |", flush=True)
    return 0


def compare_settings(models: Sequence[str], raw: dict[str, object], rounds: int) -> int:
    """Print a row per model and setting of ONNX Runtime."""
    print(
        f"ONNX Runtime {onnxruntime.__version__}; ms per photo of {rounds} rounds: the least wall "
        "time and the mean CPU time"
    )
    print("| model | settings | one, wall | one, CPU | batch of 16, wall | batch of 16, CPU |")
    print("|---|---|--:|--:|--:|--:|")
    for name in models:
        trained = untrained_bundle(name, raw)
        exported = export.exported(trained).SerializeToString()
        pytorch = partial(Predictor, trained, export.CPU)
        side = trained.preprocessing.size
        pixels = np.random.default_rng(0).integers(0, 256, (CHUNK, side, side, 3), np.uint8)
        for setting, changes in SETTINGS.items():
            session = onnx_predictor.open_session(exported, changed(changes))
            engine = OnnxPredictor(trained, pytorch, session)
            times = [time_of(engine, batch, rounds) for batch in (pixels[:1], pixels)]
            cells = " | ".join(f"{ms:.2f}" for pair in times for ms in pair)
            print(f"| {name} | {setting} | {cells} |", flush=True)
    return 0


def time_of(engine: BasePredictor, pixels_nhwc: Pixels, rounds: int) -> tuple[float, float]:
    """Return ms per photo: the minimum wall time, and the mean CPU time with a pause after each."""
    engine.probabilities(pixels_nhwc)
    walls, before = [], time.process_time()
    for _ in range(rounds):
        start = time.perf_counter()
        engine.probabilities(pixels_nhwc)
        walls.append(time.perf_counter() - start)
        time.sleep(PAUSE)
    scale = 1e3 / len(pixels_nhwc)
    return min(walls) * scale, (time.process_time() - before) / rounds * scale


def changed(changes: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    """Return the settings of the service with changes."""
    options = onnx_predictor.session_options()
    for key, value in changes.items():
        if "." in key:
            options.add_session_config_entry(key, value)
        else:
            setattr(options, key, value)
    return options


def both_engines(trained: Bundle) -> tuple[Predictor, OnnxPredictor]:
    """Return the predictors of a bundle: PyTorch and ONNX Runtime."""
    reference = Predictor(trained, export.CPU)
    session = onnx_predictor.open_session(export.exported(trained).SerializeToString())
    return reference, OnnxPredictor(trained, lambda: reference, session)


def untrained_bundle(name: str, raw: dict[str, object]) -> Bundle:
    """Return the bundle of a variant with random weights.

    Raises:
        ValueError: params.yaml defines no such variant.
    """
    config = replace(
        params.section(raw, f"models.{name}", Model),
        pretrained=False, frozen=False, weights=None, weights_sha256=None,
        logistic_regression=False,
    )  # fmt: skip
    prepare = params.section(raw, "prepare", Prepare)
    torch.manual_seed(0)
    model = factory.build(name, config, len(CLASSES)).eval()
    preprocessing = Preprocessing(prepare.size, "letterbox", prepare.fill, prepare.max_megapixels)
    input_config = bundle.default_input(model, config.image_size)
    return Bundle(CLASSES, preprocessing, input_config, 1.0, 0.5, {}, model=model)


def measure(
    engines: Sequence[BasePredictor], pixels_nhwc: Pixels, rounds: int
) -> tuple[float, ...]:
    """Return the minimum ms per photo of each engine, for uint8 pixels (N, S, S, 3)."""
    seconds: list[list[float]] = [[] for _ in engines]
    bar = tqdm(range(rounds + 1), "speed", unit="round", delay=2, leave=False, disable=None)
    for number in bar:
        for engine, durations in zip(engines, seconds, strict=True):
            start = time.perf_counter()
            engine.probabilities(pixels_nhwc)
            if number:  # the first round is a warm-up
                durations.append(time.perf_counter() - start)
    return tuple(min(durations) / len(pixels_nhwc) * 1e3 for durations in seconds)


if __name__ == "__main__":
    sys.exit(main())
