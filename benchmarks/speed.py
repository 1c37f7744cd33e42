"""How much of the bare step's rate is left when the photos are real, and how fast timm's loader is.

    python -m benchmarks.speed                                   # ResNet-18 and ViT-tiny on the CPU
    python -m benchmarks.speed --device cuda --precision bf16 --batch-size 256 --steps 40 \
        --models resnet18 vit_small_patch16_224 vit_base_patch16_224 --timm

A store of random photos, 256 pixels a side, on the disk. Each round trains for some steps on photos
from the store, cropped, shifted, mirrored and coloured as params.yaml says, and for as many on one
constant batch that already lies on the device: the bare step. The ratio of the two rates, round by
round, is what feeding the photos costs. With --timm also on the same photos as JPEG files through
timm's own loader and augmentation. Random weights, as they change no time. Fails where a
model's median ratio is below 0.95.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader  # type: ignore[attr-defined]

from anklealign.config import params
from anklealign.config.params import Model, Train
from anklealign.io import pixel_store
from anklealign.models import bundle, factory
from anklealign.models.inputs import pick_device
from anklealign.training.loop import reproducible
from anklealign.training.sampling import Photos
from anklealign.training.trainer import Batch, Recipe, Trainer

SIDE, CLASSES = 256, 2
GOAL = 0.95  # of the bare step's rate


def main() -> None:
    """Print the hardware, then a line a model: rates and their ratio.

    Raises:
        SystemExit: Feeding the photos costs a model more than a twentieth of its rate.
    """
    options = read_options()
    device = pick_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    print(
        f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, timm "
        f"{timm.__version__}; {options.precision}, batches of {options.batch_size}, "
        f"{options.rounds} rounds of {options.steps} steps"
    )
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        data = store(Path(folder), options.steps * options.batch_size)
        if options.timm:
            write_files(Path(folder) / "files", data)
        slow = []
        for model in options.models:
            trainer = ready(model, data, options, device)
            real, bare = measure(trainer, options.rounds)
            ratios = [a / b for a, b in zip(real, bare, strict=True)]
            slow += [model] if statistics.median(ratios) < GOAL else []
            line = (
                f"{model:24} store {statistics.median(real):8.1f} photos/s, bare step "
                f"{statistics.median(bare):8.1f}, ratio {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f})"
            )
            if options.timm:
                rate = timm_rate(trainer, Path(folder) / "files", options)
                line += f", timm's loader {rate:8.1f}"
            print(line, flush=True)
    if slow:
        raise SystemExit(f"below {GOAL}: {', '.join(slow)}; was other work running?")


def read_options() -> argparse.Namespace:
    """Return models and how to run them."""
    parser = argparse.ArgumentParser(description="Training on photos against the bare step")
    models = ["resnet18", "vit_tiny_patch16_224"]
    parser.add_argument("--models", nargs="+", default=models, help="timm's names")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--timm", action="store_true", help="also timm's loader on JPEG files")
    return parser.parse_args()


def processor() -> str:
    """Return the CPU's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")


def store(folder: Path, count: int) -> Photos:
    """Write a store of smooth random photos, so that their JPEGs have a photo's size."""
    rng = np.random.default_rng(0)
    with pixel_store.writing_store(folder / "pixels.npy", count, SIDE) as pixels:
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
            pixels[i] = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    ids = tuple(pixel_store.photo_id(str(i)) for i in range(count))
    mapped = pixel_store.open_store(folder / "pixels.npy")
    return Photos(mapped, np.arange(count), ids, np.arange(count) % CLASSES)


def write_files(folder: Path, data: Photos) -> None:
    """Write the photos as JPEG files in class folders."""
    for row, label in zip(data.rows, data.labels, strict=True):
        path = folder / f"class{label}" / f"{row}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(data.pixels[row])).save(path, quality=90)


def ready(name: str, data: Photos, options: argparse.Namespace, device: torch.device) -> Trainer:
    """Return a trainer as params.yaml has it, for a model of random weights."""
    settings = replace(
        params.section(params.read(), "train", Train),
        precision=options.precision,
        batch_size=options.batch_size,
    )
    block = Model(name, image_size=options.image_size, epochs=1000, learning_rate=1e-4)
    model = factory.build(name, block, CLASSES).to(device)
    model.to(memory_format=torch.channels_last)
    recipe = Recipe(bundle.input_of(model, options.image_size), CLASSES, block, settings, 1, device)
    return Trainer(model, data, data, recipe)


def measure(trainer: Trainer, rounds: int) -> tuple[list[float], list[float]]:
    """Return the rates of each round in photos a second: on the store's photos, and bare."""
    with reproducible(1, deterministic=trainer.recipe.device.type != "cuda"):
        trainer.shown.train()
        constant = next(trainer.batches(1))
        steps = trainer.steps_an_epoch
        timed(trainer, [constant] * 3)  # kernels are chosen, caches filled
        real, bare = [], []
        for number in range(rounds):
            # An epoch is a round: its first batch is waited for, and none is made in vain.
            real.append(timed(trainer, trainer.batches(number + 1)))
            bare.append(timed(trainer, [constant] * steps))
    return real, bare


def timed(trainer: Trainer, batches: Iterable[Batch]) -> float:
    """Train on the batches; return photos a second."""
    wait: Callable[[], None] = (
        torch.cuda.synchronize if trainer.recipe.device.type == "cuda" else lambda: None
    )
    wait()
    start, count = time.perf_counter(), 0
    for batch in batches:
        trainer.learn(batch)
        count += batch.photos
    wait()
    return count / (time.perf_counter() - start)


def timm_rate(trainer: Trainer, folder: Path, options: argparse.Namespace) -> float:
    """Return the photos a second through timm's loader, with its default training transforms."""
    network_input = trainer.recipe.network_input
    loader = create_loader(
        create_dataset("", root=str(folder), is_training=True),
        input_size=(3, options.image_size, options.image_size),
        batch_size=options.batch_size,
        is_training=True,
        color_jitter=0.4,
        mean=network_input.mean,
        std=network_input.std,
        interpolation=network_input.interpolation,
        num_workers=min(16, torch.get_num_threads()),
        device=trainer.recipe.device,
        persistent_workers=True,
    )

    def batches() -> Iterator[Batch]:
        for x, labels in loader:
            x = x.to(trainer.recipe.device, memory_format=torch.channels_last)  # noqa: PLW2901
            targets = torch.eye(CLASSES, device=x.device)[labels.to(x.device)]
            yield Batch(x.float(), targets, torch.ones(len(x), device=x.device), len(x))

    with reproducible(1, deterministic=trainer.recipe.device.type != "cuda"):
        return statistics.median(timed(trainer, batches()) for _ in range(1 + options.rounds))


if __name__ == "__main__":
    main()
