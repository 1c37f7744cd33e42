"""Measure a GPU: photos/s and memory of training and inference, equal bytes, agreement with CPUs.

    python -m benchmarks.gpu                                       # some 7 minutes on a GPU
    python -m benchmarks.gpu --device cpu --small                  # tries every section on a CPU
    python -m benchmarks.gpu --sections bytes sync --models resnet50

Each section prints a Markdown table, and every row is written to --out (JSON) at once. Variants
come from params.yaml with random weights, which do not affect the time; the photos are random.

- bytes: two fits, and one that is interrupted and resumed, end in the same state bit by bit.
- sync: two processes on one GPU fit like one through synchronized batch normalization. NCCL refuses
  two processes on one GPU, so they communicate through gloo. Without synchronization they differ.
- agree: probabilities, heat maps, their faithfulness and the robustness scores equal the CPU's.
- data: photos/s from the pixel store to augmented input on the device, by loader threads.
- predict: photos/s of evaluation, from the store to probabilities, and of the network alone.
- train: photos/s of training on photos of the store, with the wait for the first batch, and on a
  constant batch (bare step); peak memory of a GPU beside the estimate that train prints.
- compile: photos/s of the bare step under torch.compile, and the photos after which it pays.

The benchmark fails if a check of the first three sections fails or a section raises an error.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import timm
import torch
from torch import Tensor, nn

from anklealign.config import params
from anklealign.config.params import Model, Train
from anklealign.evaluation import robustness
from anklealign.explainability import attribution, faithfulness
from anklealign.inference.predictor import Predictor
from anklealign.models import bundle, factory
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.models.inputs import pick_device
from anklealign.training import loop, resource_estimates, trainer
from anklealign.training.callbacks import Callback
from anklealign.training.distributed import ProcessGroup
from anklealign.training.history import EpochRecord, FitResult
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import Batch, FitConfig, Trainer
from benchmarks.speed import CLASSES, SIDE, photos_per_second, processor, write_store

MODELS = ["grid_pool_cnn", "mobilenet_v2", "resnet50", "vit_small", "convnext_tiny"]
MIB, ROUNDS = 2**20, 3
SYNC_TOLERANCE = 1e-3  # of a loss and, relative to the largest weight, of a weight
PROBABILITY_TOLERANCE = 1e-4  # as `anklealign export`
MAP_TOLERANCE = 0.01  # of a heat map in 0 to 1, and of the areas of faithfulness
DETERMINISM = "does not have a deterministic implementation"  # in PyTorch's warning
CPU = torch.device("cpu")

Row = dict[str, str | float | int | bool]


@dataclass
class Run:
    """The settings of a run, and the rows so far.

    Attributes:
        device: Measured device.
        small: Small inputs and batches, to try the sections on a CPU.
        models: Keys of `models` in params.yaml.
        deadline: Value of time.monotonic() after which nothing new is measured.
        data: Random photos in a pixel store.
        folder: For checkpoints and the files of processes.
        out: JSON file.
        results: Machine, and rows and errors of each section.
    """

    device: torch.device
    small: bool
    models: list[str]
    deadline: float
    data: LabeledPhotos
    folder: Path
    out: Path
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Return the batch size of the measured rates."""
        return 8 if self.small else 256

    @property
    def seconds(self) -> float:
        """Return the least duration of each of three timed rounds."""
        return 0.05 if self.small else 0.4

    @property
    def precisions(self) -> list[str]:
        """Return the precisions that the device trains in."""
        return ["fp32", "bf16", "fp16"] if self.device.type == "cuda" else ["fp32", "bf16"]

    def variant(self, name: str) -> Model:
        """Return a variant of params.yaml with random weights, all of which are trained."""
        config = replace(
            params.section(params.read(), f"models.{name}", Model), pretrained=False, weights=None,
            weights_sha256=None, head_epochs=0, head_learning_rate=0.0, imagenet_head=False,
            freeze_batch_norm=False, epochs=1000, learning_rate=1e-4,
        )  # fmt: skip
        return replace(config, image_size=64) if self.small else config

    def expired(self, needed: float = 0.0) -> bool:
        """Return whether fewer than `needed` seconds remain."""
        return time.monotonic() + needed > self.deadline

    def write(self) -> None:
        """Write the JSON file."""
        self.out.write_text(json.dumps(self.results, indent=1), encoding="utf-8")


def main() -> None:
    """Run the sections in order.

    Raises:
        SystemExit: A check or a section failed.
    """
    options = read_options()
    # cuBLAS reads it when it starts, for the section of equal bytes.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    start, failed = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as folder:
        run = Run(
            pick_device(options.device), options.small, options.models, start + options.seconds,
            write_store(Path(folder), 48 if options.small else 4096), Path(folder), options.out,
        )  # fmt: skip
        run.results["machine"] = machine(run)
        print(", ".join(f"{key} {value}" for key, value in run.results["machine"].items()))
        for name in options.sections:
            failed += run_section(run, name)
    print(f"\n{time.monotonic() - start:.0f} s; failed: {', '.join(failed) or 'nothing'}")
    if failed:
        raise SystemExit(1)


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Rates, memory, bytes and agreement of a GPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", nargs="+", default=MODELS, help="keys of models")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--small", action="store_true", help="64 px, batches of 8: for a CPU")
    parser.add_argument("--seconds", type=float, default=400, help="start nothing new after these")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    return parser.parse_args()


def machine(run: Run) -> dict[str, str]:
    """Return the hardware and the versions."""
    details = {"device": processor(), "threads": str(torch.get_num_threads())}
    if run.device.type == "cuda":
        details = {"device": torch.cuda.get_device_name(run.device)} | {"CPU": processor()}
        details |= {"CPUs": str(os.cpu_count()), "CUDA": str(torch.version.cuda)}
    auto = trainer.pick_precision("auto", run.device)
    return details | {
        "PyTorch": torch.__version__,
        "timm": timm.__version__,
        "precision auto": str(auto).removeprefix("torch."),
    }


def run_section(run: Run, name: str) -> list[str]:
    """Run a section, print its table and return its failed checks; an error does not propagate."""
    start = time.monotonic()
    rows: list[Row] = []
    failed: list[str] = []
    section = run.results[name] = {"rows": rows}
    print(f"\n## {name}\n", flush=True)
    try:
        for row in SECTIONS[name](run):
            rows.append(row)
            if len(rows) == 1 or list(row) != list(rows[-2]):
                print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
            print("| " + " | ".join(map(cell, row.values())) + " |", flush=True)
            failed += [f"{name} {row['model']}"] if row.get("ok") is False else []
            run.write()
    except Exception:  # noqa: BLE001 - the other sections are measured nevertheless
        section["error"] = traceback.format_exc()
        print(section["error"], flush=True)
        failed.append(name)
    section["seconds"] = round(time.monotonic() - start, 1)
    print(f"\n{name}: {section['seconds']} s", flush=True)
    run.write()
    return failed


def cell(value: object) -> str:
    """Return a value for a table: two digits below 100, thousands separated, yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def build(run: Run, config: Model, settings: Train, group: ProcessGroup | None = None) -> FitConfig:
    """Return the settings of a fit of a variant on the run's device."""
    input_config = bundle.default_input(factory.build("x", config, CLASSES), config.image_size)
    group = group or ProcessGroup()
    return FitConfig(input_config, CLASSES, config, settings, 1, run.device, group)


def settings_with(**changes: Any) -> Train:  # noqa: ANN401 - values of any field
    """Return the training settings of params.yaml with changes."""
    return replace(params.section(params.read(), "train", Train), **changes)


def first(data: LabeledPhotos, count: int, skip: int = 0) -> LabeledPhotos:
    """Return `count` photos."""
    rows = slice(skip, skip + count)
    return LabeledPhotos(data.pixels, data.rows[rows], data.ids[rows], data.labels[rows])


class Interruption(Callback):
    """Stop a fit after its first epoch, whose checkpoint is already written."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Raise after the first epoch."""
        if record.epoch == 1:
            raise InterruptedError


def fit(
    run: Run, config: FitConfig, checkpoint: Path, callback: Callback | None = None
) -> tuple[FitResult, nn.Module]:
    """Fit a variant on 45 photos for two epochs of three batches; return result and network."""
    train, val = first(run.data, 45), first(run.data, 3, 45)
    config = replace(config, model_config=replace(config.model_config, epochs=2))
    with loop.reproducible(1, deterministic=config.train_config.deterministic):
        model = factory.build("variant", config.model_config, CLASSES).to(run.device)
        return loop.fit(model, train, val, config, callback, checkpoint=checkpoint), model


def state_hash(path: Path) -> str:
    """Return a hash of weights, optimizer and scaler in a checkpoint; remove the file."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, Mapping):
            for key in value:
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    add(torch.load(path, map_location="cpu", weights_only=True))
    path.unlink()
    return digest.hexdigest()


def measure_bytes(run: Run) -> Iterator[Row]:
    """Yield whether repeated, and interrupted and resumed fits have equal states."""
    path = run.folder / "checkpoint.pt"
    for name in run.models:
        for precision in run.precisions:
            if run.expired():
                return
            settings = settings_with(precision=precision, batch_size=16)
            config = build(run, run.variant(name), settings)
            hashes = []
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for interrupted in (False, False, True):
                    if interrupted:
                        with suppress(InterruptedError):
                            fit(run, config, path, Interruption())
                    fit(run, config, path)
                    hashes.append(state_hash(path))
            same, resumed = hashes[0] == hashes[1], hashes[0] == hashes[2]
            operations = {
                str(w.message).split()[0] for w in caught if DETERMINISM in str(w.message)
            }
            yield {
                "model": name, "precision": precision, "two fits equal": same,
                "resumed equal": resumed, "ok": same and resumed,
                "without deterministic kernel": " ".join(sorted(operations)) or "none",
            }  # fmt: skip


def process(rank: int, run: Run, name: str, settings: Train) -> None:
    """Fit in one of two processes, with and without synchronization; rank 0 saves the results."""
    store = run.folder / f"{name}.store"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    for synchronized in (True, False):
        config = build(run, sync_variant(run, name), settings, ProcessGroup(rank, 2))
        path = run.folder / f"{name}-{synchronized}.pt"
        without = patch.object(trainer, "convert_sync_batchnorm", lambda model: model)
        with nullcontext() if synchronized else without:
            result, model = fit(run, config, path)
        if rank == 0:
            torch.save(outcome(result, model), run.folder / f"{name}-{synchronized}.result")
    torch.distributed.destroy_process_group()


def sync_variant(run: Run, name: str) -> Model:
    """Return the variant; on a CPU, whose processes have their own statistics, without norms."""
    config = replace(run.variant(name), learning_rate=0.01)
    if run.device.type == "cuda":
        return config
    return replace(config, arguments=dict(config.arguments) | {"norm": False})


def outcome(result: FitResult, model: nn.Module) -> dict[str, Any]:
    """Return the losses and weights of a fit."""
    losses = [[record.train_loss, record.val_loss] for record in result.records]
    weights = {name: t.detach().cpu() for name, t in model.state_dict().items()}
    return {"losses": losses, "weights": weights}


def measure_sync(run: Run) -> Iterator[Row]:
    """Yield the differences between a fit in one process and in two on the same device.

    Trained by SGD, whose steps are linear in the gradient: AdamW divides gradients near zero by
    themselves, so that rounding alone changes weights.
    """
    settings = settings_with(precision="fp32", batch_size=15, optimizer="sgd", warmup=0.0)
    few = first(run.data, 48)
    few = replace(few, pixels=np.array(few.pixels[:48]))  # pickled for the processes
    run = replace(run, data=few)
    names = ["grid_pool_cnn"] if run.device.type != "cuda" else ["grid_pool_cnn", "mobilenet_v2"]
    for name in names:
        with tf32(enabled=False):
            config = build(run, sync_variant(run, name), settings)
            one = outcome(*fit(run, config, run.folder / f"{name}.pt"))
        # Missing in the module's __all__, and without types.
        context = torch.multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
            process_without_tf32, (run, name, settings), nprocs=2, join=False
        )
        end = time.monotonic() + 120
        while not context.join(timeout=5):
            if time.monotonic() > end:
                for worker in context.processes:
                    worker.kill()
                raise TimeoutError("two processes did not finish within 120 s")
        for synchronized in (True, False):
            two = torch.load(run.folder / f"{name}-{synchronized}.result")
            loss = float(np.abs(np.subtract(one["losses"], two["losses"])).max())
            weight = largest_difference(one["weights"], two["weights"])
            row: Row = {"model": name, "synchronized": synchronized, "loss": loss, "weight": weight}
            # Without norms there is nothing to synchronize on a CPU, and both agree.
            agree = max(loss, weight) <= SYNC_TOLERANCE
            yield row | {"ok": agree == (synchronized or run.device.type != "cuda")}


def process_without_tf32(rank: int, run: Run, name: str, settings: Train) -> None:
    """Run `process` in single precision."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with tf32(enabled=False):
        process(rank, run, name, settings)


def largest_difference(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
    """Return the largest difference of a value, relative to the largest value of its tensor."""
    differences = [
        float((one[name] - two[name]).abs().max() / one[name].abs().max().clamp(min=1e-6))
        for name in one
        if one[name].is_floating_point()
    ]
    return max(differences)


@contextmanager
def tf32(*, enabled: bool) -> Iterator[None]:
    """Allow or disable TF32 for matrix products and convolutions inside the context."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def measure_agreement(run: Run) -> Iterator[Row]:
    """Yield the differences between the device and the CPU, and the seconds of both."""
    photos = first(run.data, 8)
    for name in run.models:
        if run.expired():
            return
        made = untrained(run.variant(name))
        cpu, cpu_seconds = evaluated(made, photos, CPU)
        made.model.to(run.device)
        evaluated(made, first(photos, 1), run.device)  # selects kernels
        other, seconds = evaluated(made, photos, run.device)
        differences = {
            key: float(np.abs(np.subtract(value, other[key])).max()) for key, value in cpu.items()
        }
        yield {
            "model": name, **differences, "CPU s": cpu_seconds, "device s": seconds,
            "ok": differences["probability"] <= PROBABILITY_TOLERANCE
            and max(differences["map"], differences["faithfulness"]) <= MAP_TOLERANCE
            # A photo between two classes may change sides; each weighs 1 / 4 of its class.
            and differences["robustness"] <= 0.25,
        }  # fmt: skip


def evaluated(
    made: Bundle, photos: LabeledPhotos, device: torch.device
) -> tuple[dict[str, Any], float]:
    """Return what evaluate computes on a device, and the seconds."""
    start = time.perf_counter()
    predictor = Predictor(made, device)
    pixels = np.asarray(photos.pixels[photos.rows])
    probabilities = predictor.probabilities(pixels)
    # The CPU's classes on both devices: the maps of another class would be another map.
    classes = np.zeros(len(pixels), np.int64)
    scores = faithfulness.measure(made, pixels, classes, 1, device)
    boxes = np.tile([0, 0, SIDE, SIDE], (len(pixels), 1))
    ids = list(photos.ids)
    sample = robustness.CorruptionSample(
        pixels, np.arange(len(pixels)), boxes, ids, photos.labels,
        unchanged=probabilities.argmax(1), groups=ids, fill=114,
    )  # fmt: skip
    corrupted = [
        robustness.corruption_score(sample, predictor.probabilities, kind, level)
        for kind, level in robustness.levels(flip=True)
    ]
    results = {
        "probability": probabilities,
        "map": attribution.heat_maps(made, pixels, classes, device=device),
        # Shares of photos change by whole photos.
        "faithfulness": [value for key, value in scores.items() if not key.endswith("share")],
        "robustness": [own.score for own in corrupted],
    }
    return results, time.perf_counter() - start


def measure_data(run: Run) -> Iterator[Row]:
    """Yield photos/s of loading, augmentation and the copy, without a training step."""
    for size in (32, 64) if run.small else (96, 224):
        model_config = replace(run.variant("grid_pool_cnn"), image_size=size)
        made = make_trainer(run, model_config, settings_with(batch_size=run.batch))
        for workers in (1, 2, 4, 8, 16):
            if workers > (os.cpu_count() or 1):
                continue
            made.workers = workers
            wait(run)
            start, photos = time.perf_counter(), 0
            while time.perf_counter() < start + 3 * run.seconds:
                photos += sum(batch.num_photos for batch in made.batches(1))
                wait(run)
            loaded = photos / (time.perf_counter() - start)
            yield {"model": f"none, {size} px", "threads": workers, "photos/s": loaded}


def wait(run: Run) -> None:
    """Wait for the device."""
    if run.device.type == "cuda":
        torch.cuda.synchronize()


def make_trainer(run: Run, config: Model, settings: Train) -> Trainer:
    """Return a trainer of a variant with random weights, on all photos."""
    model = factory.build("variant", config, CLASSES).to(run.device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    return Trainer(model, run.data, first(run.data, 16), build(run, config, settings))


VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "fp32": {"precision": "fp32", "tf32": False},
    "fp32, TF32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "bf16, no channels_last": {"precision": "bf16", "channels_last": False},
    "bf16, not deterministic": {"precision": "bf16", "deterministic": False},
    "bf16, batch as in params.yaml": {"precision": "bf16", "batch_size": None},
}


def measure_training(run: Run) -> Iterator[Row]:
    """Yield photos/s and peak memory of each variant and precision."""
    for name in run.models:
        config = run.variant(name)
        for label, changes in VARIANTS.items():
            if run.expired():
                return
            options = {"batch_size": run.batch, "tf32": True} | changes
            allow = options.pop("tf32")
            if options["precision"] not in run.precisions:
                continue
            if options["batch_size"] is None:
                del options["batch_size"]
            made = make_trainer(run, config, settings_with(**options))
            with tf32(enabled=allow):
                real, bare, memory = training_rates(run, made)
            expected = resource_estimates.expected_memory(made.model, made.config) / MIB
            yield {
                "model": name, "variant": label, "photos/s": real, "bare step": bare,
                "ratio": real / bare, "MiB": memory, "MiB estimated": expected,
            }  # fmt: skip


def training_rates(run: Run, made: Trainer) -> tuple[float, float, float]:
    """Return photos/s on the store's photos and on a constant batch, and the peak MiB of a GPU."""
    cuda = run.device.type == "cuda"
    with loop.reproducible(1, deterministic=made.config.train_config.deterministic):
        made.start_epoch(1)
        constant = next(made.batches(1))
        photos_per_second(made, repeat(constant, 3))  # selects kernels
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        single = photos_per_second(made, repeat(constant, 3)) / constant.num_photos
        steps = max(3, round(run.seconds * single))
        bare = [photos_per_second(made, repeat(constant, steps)) for _ in range(ROUNDS)]
        memory = torch.cuda.max_memory_allocated() / MIB if cuda else 0.0
        photos = epochs(made)
        real = photos_per_second(made, islice(photos, max(3 if run.small else 8, 3 * steps)))
        photos.close()
    return real, statistics.median(bare), memory


def epochs(made: Trainer) -> Generator[Batch, None, None]:
    """Yield the batches of epoch after epoch."""
    for epoch in count(1):
        yield from made.batches(epoch)


def measure_prediction(run: Run) -> Iterator[Row]:
    """Yield photos/s of evaluation, of the network alone by precision, and ms for one photo."""
    for name in run.models:
        if run.expired():
            return
        made = untrained(run.variant(name))
        made.model.to(run.device)
        predictor = Predictor(made, run.device)
        photos = first(run.data, 32 if run.small else 1024)

        def evaluate(few: LabeledPhotos, predictor: Predictor = predictor) -> float:
            """Return the photos/s of evaluation."""
            return rate(run, lambda: predictor.probabilities(few.pixels, few.rows), len(few.rows))

        yield {
            "model": name, "one photo, ms": 1e3 / evaluate(first(photos, 1)),
            "evaluate": evaluate(photos), **network_rates(run, made),
        }  # fmt: skip


def network_rates(run: Run, made: Bundle) -> dict[str, float]:
    """Return photos/s of the network alone on a batch, by precision and memory format."""
    size, rates = made.input_config.image_size, {}
    x = torch.rand(run.batch, 3, size, size, device=run.device)
    formats = {"": torch.contiguous_format, ", channels_last": torch.channels_last}
    precisions = {"fp32": torch.float32, "TF32": torch.float32, "bf16": torch.bfloat16}
    for layout, memory_format in formats.items():
        model = made.model.to(memory_format=memory_format)
        x = x.contiguous(memory_format=memory_format)
        for label, kind in precisions.items():
            mixed = torch.autocast(run.device.type, kind, enabled=kind is not torch.float32)
            with torch.no_grad(), tf32(enabled=label != "fp32"), mixed:
                rates[label + layout] = rate(run, partial(model, x), run.batch)
    return rates


def untrained(config: Model) -> Bundle:
    """Return a bundle with random weights whose probabilities differ between photos."""
    torch.manual_seed(0)
    model = factory.build("variant", config, CLASSES)
    head: nn.Linear = model.get_classifier()  # type: ignore[operator]
    head.weight.data.normal_(0, 0.5)
    return Bundle(
        ("a", "b"), Preprocessing(SIDE, "letterbox", 114, 80),
        bundle.default_input(model, config.image_size), 1.0, 0.5, {}, model=model.eval(),
    )  # fmt: skip


def rate(run: Run, work: Callable[[], object], photos: int) -> float:
    """Return photos/s of work that takes so many photos: the median of three rounds."""
    rates = []
    work()
    for _ in range(ROUNDS):
        wait(run)
        start, times = time.perf_counter(), 0
        while time.perf_counter() < start + run.seconds / ROUNDS:
            work()
            times += 1
            wait(run)
        rates.append(times * photos / (time.perf_counter() - start))
    return statistics.median(rates)


def measure_compiled(run: Run) -> Iterator[Row]:
    """Yield the bare step's photos/s without and with torch.compile, and when it pays."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(run.folder / "inductor")  # empty: a cold start
    for name in ["resnet50", "vit_small", *run.models]:
        known = [row["model"] for row in run.results["compile"]["rows"]]
        if name in known or name not in run.models or run.expired(0 if run.small else 60):
            continue
        made = make_trainer(run, run.variant(name), settings_with(batch_size=run.batch))
        with loop.reproducible(1, deterministic=made.config.train_config.deterministic):
            made.start_epoch(1)
            constant = next(made.batches(1))
            rates, cold = [], 0.0
            for compiled in (False, True):
                if compiled:
                    torch._dynamo.reset()  # noqa: SLF001 - PyTorch's documented name
                    made.network = torch.compile(made.network)  # type: ignore[assignment]
                start = time.perf_counter()
                photos_per_second(made, repeat(constant, 3))
                cold = time.perf_counter() - start
                single = photos_per_second(made, repeat(constant, 3)) / constant.num_photos
                steps = max(3, round(run.seconds * single))
                timed = [photos_per_second(made, repeat(constant, steps)) for _ in range(ROUNDS)]
                rates.append(statistics.median(timed))
        eager, fast = rates
        pays = f"{cold / (1 / eager - 1 / fast):,.0f}" if fast > eager else "never"
        yield {
            "model": name, "eager": eager, "compiled": fast, "gain": fast / eager,
            "cold start, s": cold, "pays after photos": pays,
        }  # fmt: skip


SECTIONS: dict[str, Callable[[Run], Iterator[Row]]] = {
    "bytes": measure_bytes,
    "sync": measure_sync,
    "agree": measure_agreement,
    "data": measure_data,
    "predict": measure_prediction,
    "train": measure_training,
    "compile": measure_compiled,
}


if __name__ == "__main__":
    main()
