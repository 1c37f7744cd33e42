"""Measure training speed on photos from the pixel store against a bare step on a constant batch.

    python -m benchmarks.speed                                   # ResNet-18 and ViT-tiny on the CPU
    python -m benchmarks.speed --device cuda --precision bf16 --batch-size 256 --steps 40 \
        --models resnet18 vit_small_patch16_224 vit_base_patch16_224 --timm

The store on disk holds random photos of 256 px. Each round trains for some steps on photos from the
store, augmented as in params.yaml, and for as many steps on one constant batch that is already on
the device (the bare step). The ratio of the two rates in each round is the cost of loading and
augmentation. --timm also measures timm's loader and augmentation on the same photos as JPEG files.
Weights are random, which does not affect the time. The benchmark fails if the median ratio of a
model is below 0.95.
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
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import Batch, FitConfig, Trainer

SIDE, CLASSES = 256, 2
MIN_RATIO = 0.95  # of the bare step's rate


def main() -> None:
    """Print the hardware, then one line per model: rates and their ratio.

    Raises:
        SystemExit: Loading and augmentation cost a model more than 5% of its rate.
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
        data = write_store(Path(folder), options.steps * options.batch_size)
        if options.timm:
            write_files(Path(folder) / "files", data)
        slow = []
        for model in options.models:
            trainer = make_trainer(model, data, options, device)
            real, bare = measure(trainer, options.rounds)
            ratios = [a / b for a, b in zip(real, bare, strict=True)]
            slow += [model] if statistics.median(ratios) < MIN_RATIO else []
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
        raise SystemExit(f"below {MIN_RATIO}: {', '.join(slow)}; was other work running?")


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Training speed on photos against the bare step")
    models = ["resnet18", "vit_tiny_patch16_224"]
    parser.add_argument("--models", nargs="+", default=models, help="timm's names")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument(
        "--timm", action="store_true", help="also measure timm's loader on JPEG files"
    )
    return parser.parse_args()


def processor() -> str:
    """Return the CPU's name, from /proc/cpuinfo on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")


def write_store(folder: Path, count: int) -> LabeledPhotos:
    """Write a store of smooth random photos; their JPEG files have realistic sizes."""
    rng = np.random.default_rng(0)
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
        pixels[i] = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    pixel_store.write_store(folder / "pixels", pixels)
    ids = tuple(pixel_store.photo_id(str(i)) for i in range(count))
    mapped = pixel_store.open_store(folder / "pixels")
    return LabeledPhotos(mapped, np.arange(count), ids, np.arange(count) % CLASSES)


def write_files(folder: Path, data: LabeledPhotos) -> None:
    """Write the photos as JPEG files in class folders."""
    for row, label in zip(data.rows, data.labels, strict=True):
        path = folder / f"class{label}" / f"{row}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(data.pixels[row])).save(path, quality=90)


def make_trainer(
    name: str, data: LabeledPhotos, options: argparse.Namespace, device: torch.device
) -> Trainer:
    """Return a trainer with the settings of params.yaml and a model of random weights."""
    settings = replace(
        params.section(params.read(), "train", Train),
        precision=options.precision,
        batch_size=options.batch_size,
    )
    model_config = Model(name, image_size=options.image_size, epochs=1000, learning_rate=1e-4)
    model = factory.build(name, model_config, CLASSES).to(device)
    model.to(memory_format=torch.channels_last)
    config = FitConfig(
        bundle.default_input(model, options.image_size), CLASSES, model_config, settings, 1, device
    )
    return Trainer(model, data, data, config)


def measure(trainer: Trainer, rounds: int) -> tuple[list[float], list[float]]:
    """Return the rates of each round in photos/s: on the store's photos, and of the bare step."""
    with reproducible(1, deterministic=trainer.config.device.type != "cuda"):
        trainer.start_epoch(1)
        constant = next(trainer.batches(1))
        steps = trainer.steps_per_epoch
        photos_per_second(trainer, [constant] * 3)  # warm-up: select kernels, fill caches
        real, bare = [], []
        for number in range(rounds):
            # A round is an epoch: it includes the wait for the first batch, and prefetches no more.
            real.append(photos_per_second(trainer, trainer.batches(number + 1)))
            bare.append(photos_per_second(trainer, [constant] * steps))
    return real, bare


def photos_per_second(trainer: Trainer, batches: Iterable[Batch]) -> float:
    """Train on the batches; return photos/s."""
    wait: Callable[[], None] = (
        torch.cuda.synchronize if trainer.config.device.type == "cuda" else lambda: None
    )
    wait()
    start, count = time.perf_counter(), 0
    for batch in batches:
        take_step(trainer, batch)
        count += batch.num_photos
    wait()
    return count / (time.perf_counter() - start)


def take_step(trainer: Trainer, batch: Batch) -> None:
    """Take a training step as `loop.fit` does."""
    trainer.optimizer.zero_grad(set_to_none=True)
    for micro_batch in batch.split(trainer.config.train_config.gradient_accumulation_steps):
        with trainer.gradient_sync(micro_batch):
            trainer.backward(trainer.loss(trainer.forward(micro_batch.x), micro_batch))
    trainer.step()


def timm_rate(trainer: Trainer, folder: Path, options: argparse.Namespace) -> float:
    """Return the photos/s of timm's loader with its default training transforms."""
    input_config = trainer.config.input_config
    loader = create_loader(
        create_dataset("", root=str(folder), is_training=True),
        input_size=(3, options.image_size, options.image_size),
        batch_size=options.batch_size,
        is_training=True,
        color_jitter=0.4,
        mean=input_config.mean,
        std=input_config.std,
        interpolation=input_config.interpolation,
        num_workers=min(16, torch.get_num_threads()),
        device=trainer.config.device,
        persistent_workers=True,
    )

    def batches() -> Iterator[Batch]:
        for x, labels in loader:
            x = x.to(trainer.config.device, memory_format=torch.channels_last)  # noqa: PLW2901
            targets = torch.eye(CLASSES, device=x.device)[labels.to(x.device)]
            yield Batch(x.float(), targets, torch.ones(len(x), device=x.device), len(x))

    with reproducible(1, deterministic=trainer.config.device.type != "cuda"):
        return statistics.median(
            photos_per_second(trainer, batches()) for _ in range(1 + options.rounds)
        )


if __name__ == "__main__":
    main()
