"""What each variant of params.yaml takes: minutes, memory and disk, and what it was said to take.

    python -m benchmarks.variants                           # some 7 minutes on 2 cores
    python -m benchmarks.variants --models resnet18 gap_cnn

As many photos as the phantom has, at each variant's size, on random weights: a few steps and some
validation photos are timed, and all of its epochs reckoned from them. Memory is what the process's
peak grows by over what it took before the network was built.
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
from anklealign.models.bundle import Bundle, Preparation
from anklealign.models.inputs import CHUNK
from anklealign.training import progress
from anklealign.training.sampling import Photos
from anklealign.training.trainer import Recipe, Trainer

ROOT = Path(__file__).resolve().parents[1]
PHOTOS, VALIDATION, SIDE = 226, 46, 256
MIB = 2**20


def main() -> None:
    """Print a table, each variant measured in a process of its own."""
    parser = argparse.ArgumentParser(description="Minutes, memory and disk of each variant")
    parser.add_argument("--models", nargs="+", default=list(params.read()["models"]))
    parser.add_argument("--alone", action="store_true", help="measure one, in this process")
    options = parser.parse_args()
    if options.alone:
        print(measured(options.models[0]))
        return
    print(f"{torch.get_num_threads()} threads, {PHOTOS} photos, {VALIDATION} for validation")
    print("| model | weights | epochs | minutes | memory, MiB | as told before | model/, MiB |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        command = [sys.executable, "-m", "benchmarks.variants", "--alone", "--models", name]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        print(done.stdout.strip(), flush=True)


def measured(name: str) -> str:
    """Return a variant's row of the table."""
    raw = params.read()
    block = params.section(raw, f"models.{name}", Model)
    settings = replace(params.section(raw, "train", Train), device="cpu")
    some = data()
    before = peak()
    built = replace(
        block, pretrained=False, frozen=False, last_blocks=0, head_epochs=0, head_learning_rate=0.0,
        imagenet_head=False, zero_shot=False, weights=None, weights_sha256=None,
    )  # fmt: skip
    model = factory.build(name, built, 3)
    cpu = torch.device("cpu")
    recipe = Recipe(bundle.input_of(model, block.image_size), 3, block, settings, 1, cpu)
    minutes, told = 0.0, 0.0
    few = replace(some, rows=some.rows[:CHUNK], ids=some.ids[:CHUNK], labels=some.labels[:CHUNK])
    start = time.perf_counter()
    inputs.logits(model, some.pixels, few.rows, recipe.network_input, cpu)
    answer = (time.perf_counter() - start) / len(few.rows)
    if block.epochs:
        told = progress.expected_bytes(model, recipe) / MIB
        model.to(memory_format=torch.channels_last)
        trainer = Trainer(model, few if block.head_alone else some, few, recipe)
        trainer.shown.train()
        times = []
        for _, batch in zip(range(3), trainer.batches(1), strict=False):
            start = time.perf_counter()
            trainer.learn(batch)
            times.append((time.perf_counter() - start) / batch.photos)
        step = min(times)
        seconds = block.epochs * PHOTOS * step
        if not trainer.on_features:
            seconds += block.epochs * VALIDATION * answer
        if trainer.on_features or block.head_epochs:
            # What a head that learns alone is shown passes the backbone before its first epoch.
            seconds += (PHOTOS + VALIDATION) * answer
        minutes = seconds / 60
    grown = (peak() - before) / MIB
    with tempfile.TemporaryDirectory() as folder:
        kept = Preparation(SIDE, "letterbox", 114, 80.0)
        names = ("a", "b", "c")
        made = Bundle(model, names, kept, recipe.network_input, 1.0, 0.5, {})
        bundle.save(Path(folder) / "model", made)
        size = (Path(folder) / "model" / bundle.WEIGHTS).stat().st_size / MIB
    said = f"{told:,.0f}" if told else "-"
    return (
        f"| `{name}` | {factory.parameters(model):,} | {block.epochs} | {minutes:.1f} | "
        f"{grown:,.0f} | {said} | {size:,.1f} |"
    )


def data() -> Photos:
    """Return random photos in memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (PHOTOS, SIDE, SIDE, 3), np.uint8)
    ids = tuple(f"{i:012x}" for i in range(PHOTOS))
    return Photos(pixels, np.arange(PHOTOS), ids, np.arange(PHOTOS) % 3)


def peak() -> int:
    """Return the most bytes that this process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
