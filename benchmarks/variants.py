"""Measure time, memory and disk space of each variant in params.yaml, and the memory estimate.

    python -m benchmarks.variants                           # some 7 minutes on 2 cores
    python -m benchmarks.variants --models resnet18 grid_pool_cnn

Each variant trains for a few steps on as many random photos as the synthetic set has, at its own
input size and with random weights. The time of all epochs is extrapolated from these steps and a
few validation photos. Memory is the increase of the process's peak after the network is built.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from anklealign.config import params
from anklealign.config.params import Model, Train
from anklealign.models import bundle, factory, inputs
from anklealign.models.bundle import Bundle
from anklealign.models.description import WEIGHTS, Preprocessing
from anklealign.models.input_config import CHUNK
from anklealign.training import resource_estimates
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig, Trainer
from benchmarks.speed import take_step

ROOT = Path(__file__).resolve().parents[1]
PHOTOS, VAL_PHOTOS, SIDE = 226, 46, 256
MIB = 2**20


def main() -> None:
    """Print a table; each variant is measured in its own process."""
    parser = argparse.ArgumentParser(description="Time, memory and disk space of each variant")
    models = [key for key, value in params.read()["models"].items() if "candidates" not in value]
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--alone", action="store_true", help="measure one variant in this process")
    options = parser.parse_args()
    if options.alone:
        print(measure(options.models[0]))
        return
    print(f"{torch.get_num_threads()} threads, {PHOTOS} photos, {VAL_PHOTOS} for validation")
    print("| model | weights | epochs | minutes | memory, MiB | estimate, MiB | model/, MiB |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        command = [sys.executable, "-m", "benchmarks.variants", "--alone", "--models", name]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        print(done.stdout.strip(), flush=True)


def measure(name: str) -> str:
    """Return the table row of a variant."""
    raw = params.read()
    model_config = params.section(raw, f"models.{name}", Model)
    settings = replace(params.section(raw, "train", Train), device="cpu")
    photos = random_photos()
    before = peak_memory()
    built = replace(
        model_config, pretrained=False, frozen=False, unfreeze_last_n=0, head_epochs=0,
        head_learning_rate=0.0, imagenet_head=False, zero_shot=False, weights=None,
        weights_sha256=None, logistic_regression=False,
    )  # fmt: skip
    model = factory.build(name, built, 3)
    cpu = torch.device("cpu")
    config = FitConfig(
        bundle.default_input(model, model_config.image_size), 3, model_config, settings, 1, cpu
    )
    minutes, estimate = 0.0, 0.0
    few = replace(
        photos, rows=photos.rows[:CHUNK], ids=photos.ids[:CHUNK], labels=photos.labels[:CHUNK]
    )
    start = time.perf_counter()
    inputs.logits(model, photos.pixels, few.rows, config.input_config, cpu)
    forward_seconds = (time.perf_counter() - start) / len(few.rows)
    if model_config.epochs:
        estimate = resource_estimates.expected_memory(model, config) / MIB
        model.to(memory_format=torch.channels_last)
        trainer = Trainer(model, few if model_config.head_alone else photos, few, config)
        trainer.start_epoch(1)
        times = []
        for _, batch in zip(range(3), trainer.batches(1), strict=False):
            start = time.perf_counter()
            take_step(trainer, batch)
            times.append((time.perf_counter() - start) / batch.num_photos)
        step_seconds = min(times)
        seconds = model_config.epochs * PHOTOS * step_seconds
        if not trainer.head_alone:
            seconds += model_config.epochs * VAL_PHOTOS * forward_seconds
        if trainer.head_alone or model_config.head_epochs:
            # The features of a frozen backbone are computed once, before the first epoch.
            seconds += (PHOTOS + VAL_PHOTOS) * forward_seconds
        minutes = seconds / 60
    grown = (peak_memory() - before) / MIB
    with tempfile.TemporaryDirectory() as folder:
        kept = Preprocessing(SIDE, "letterbox", 114, 80.0)
        names = ("a", "b", "c")
        made = Bundle(names, kept, config.input_config, 1.0, 0.5, {}, model=model)
        bundle.save(Path(folder) / "model", made)
        size = (Path(folder) / "model" / WEIGHTS).stat().st_size / MIB
    estimated = f"{estimate:,.0f}" if estimate else "-"
    return (
        f"| `{name}` | {factory.count_parameters(model):,} | {model_config.epochs} | "
        f"{minutes:.1f} | {grown:,.0f} | {estimated} | {size:,.1f} |"
    )


def random_photos() -> LabeledPhotos:
    """Return random photos in memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (PHOTOS, SIDE, SIDE, 3), np.uint8)
    ids = tuple(f"{i:012x}" for i in range(PHOTOS))
    return LabeledPhotos(pixels, np.arange(PHOTOS), ids, np.arange(PHOTOS) % 3)


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
