"""Train: fit the chosen model, keep its best epoch, calibrate it.

Reads pixels.npy and soft_labels.csv in data/prepared/, and data/split/photos.csv; writes model/
(config.json and model.safetensors), metrics/train.json, plots/train/history.csv (a row an epoch),
plots/train/run.json (what was run on what, and how it came out) and plots/train/pictures/.

    python -m stages.train                                  # or, on several hosts, on each:
    torchrun --nnodes=2 --nproc-per-node=8 … -m stages.train

The default model takes some 25 seconds on 2 cores. Prints a line an epoch. No file holds a time:
two runs on one machine write the same bytes. A killed run goes on from its last epoch, by
checkpoints/, which nothing else reads.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from anklealign.config import params, stage
from anklealign.config.params import Dataset, Model, Prepare, Train
from anklealign.io import files, pixel_store
from anklealign.io.pixel_store import Pixels
from anklealign.metrics.scores import point_scores
from anklealign.models import bundle, calibration, factory, inputs
from anklealign.models.bundle import Bundle, Preparation
from anklealign.models.inputs import Floats
from anklealign.models.networks import Majority
from anklealign.plotting import contact_sheets
from anklealign.training import (
    augmentation_preview,
    checkpoints,
    distributed,
    environment,
    loop,
    losses,
    progress,
)
from anklealign.training.distributed import World
from anklealign.training.loop import Epoch
from anklealign.training.sampling import Photos
from anklealign.training.trainer import Recipe

MODEL = Path("model")
METRICS = Path("metrics/train.json")
HISTORY = Path("plots/train/history.csv")
RUN = Path("plots/train/run.json")
PICTURES = Path("plots/train/pictures")
REQUIREMENTS = Path("requirements.txt")

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Settings:
    """What params.yaml says of a run."""

    seed: int
    dataset_name: str
    dataset: Dataset
    prepare: Prepare
    train: Train
    model_name: str
    model: Model


@dataclass(frozen=True)
class Data:
    """What was read: K classes, the split table, the store, and two parts of it."""

    classes: tuple[str, ...]
    table: pd.DataFrame
    store: Pixels
    train: Photos
    validation: Photos


def main() -> None:
    """Fit in one process or several; the first of them writes."""
    settings = read_settings(params.read())
    data = read_data(settings)
    if settings.train.processes > 1 and not distributed.launched():
        distributed.launch("stages.train", settings.train.processes)
    with distributed.joined(settings.train.device) as (world, device):
        run(settings, data, world, device)


def run(settings: Settings, data: Data, world: World, device: torch.device) -> None:
    """Fit, calibrate, write the bundle and what is to be known of it."""
    pins = environment.pins(REQUIREMENTS.read_text(encoding="utf-8"))
    installed = environment.installed(list(pins))
    if world.rank == 0:
        for line in environment.differences(pins, installed):
            print(f"train: {line}; results may differ", file=sys.stderr)
    classes, train, validation = data.classes, data.train, data.validation
    sources = {
        "pixels_sha256": files.sha256(pixel_store.STORE),
        "split_sha256": files.sha256(pixel_store.SPLIT / "photos.csv"),
        "soft_labels_sha256": files.sha256(pixel_store.SOFT_LABELS),
        "versions": installed,
        "params": asdict(settings),
    }
    with loop.reproducible(settings.seed, deterministic=settings.train.deterministic):
        model = factory.build(
            settings.model_name,
            settings.model,
            len(classes),
            settings.dataset.imagenet_indices(),
        ).to(device)
        counts = np.bincount(train.labels, minlength=len(classes)).tolist()
        if isinstance(model, Majority):
            model.set_counts(counts)
        network_input = bundle.input_of(model, settings.model.image_size)
        place = checkpoints.place({**sources, "device": device.type, "processes": world.size})
        recipe = Recipe(
            network_input,
            len(classes),
            settings.model,
            settings.train,
            settings.seed,
            device,
            world,
        )
        fit = progress.fit(settings.model_name, model, train, validation, recipe, checkpoint=place)
    if world.rank:
        return
    answers = {
        name: inputs.logits(model, data.store, some.rows, network_input, device)
        for name, some in (("training", train), ("validation", validation))
    }
    # Class shares, which no epoch fitted, are what they are: there is nothing to calibrate.
    temperature = 1.0
    if not isinstance(model, Majority):
        temperature = calibration.fit_temperature(answers["validation"], validation.labels)
    threshold = calibration.fit_conformal(
        calibration.probabilities(answers["validation"], temperature),
        validation.labels,
        list(data.table.set_index("id").group[list(validation.ids)]),
    )
    found = scores(validation, answers["validation"], temperature)
    metrics = {
        "parameters": factory.parameters(model),
        "epochs": fit.epochs,
        "best_epoch": fit.best_epoch,
        "temperature": round(temperature, 6),
        "conformal_threshold": round(threshold, 6),
        "training": scores(train, answers["training"], temperature),
        "validation": found,
    }
    record = {
        "chosen": {
            "epoch": fit.best_epoch,
            "monitor": settings.train.monitor,
            "score": fit.best_score,
        },
        "train_class_counts": dict(zip(classes, counts, strict=True)),
        **sources,
    }
    bundle.save(
        MODEL,
        Bundle(
            model,
            classes,
            preparation(settings),
            network_input,
            temperature,
            threshold,
            record,
        ),
    )
    history = pd.DataFrame(map(asdict, fit.history), columns=[f.name for f in fields(Epoch)])
    files.write_table(HISTORY, columns(history, settings.train.monitor).round(6))
    run = record | {"photos": photo_counts(data.table, classes)} | metrics
    files.write_json(RUN, run | {"architecture": str(model).splitlines()})
    files.write_json(METRICS, metrics)
    contact_sheets.write(PICTURES, "augmented", augmentation_preview.pages(train, classes, recipe))
    checkpoints.remove(place)  # nothing is left to go on from
    print(
        f"train: {settings.model_name}, epoch {fit.best_epoch} of {fit.epochs} chosen by "
        f"{settings.train.monitor} on {len(validation.rows)} validation photos; there "
        + ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    )


def read_data(settings: Settings) -> Data:
    """Return the photos to learn from and to choose the epoch by."""
    classes = tuple(settings.dataset.classes)
    table = pixel_store.read_table(pixel_store.SPLIT / "photos.csv")
    store = pixel_store.open_store()
    train, validation = (part(table, name, classes, store) for name in (TRAIN, VALIDATION))
    if settings.train.soft_labels:
        voted = pd.read_csv(pixel_store.SOFT_LABELS, dtype={"photo": str})
        train = replace(train, soft=losses.soft_labels(train, voted, classes))
    return Data(classes, table, store, train, validation)


def preparation(settings: Settings) -> Preparation:
    """Return how a new photo is made ready: as prepare did it, without what concerns labels."""
    how = settings.prepare
    return Preparation(how.size, settings.dataset.fit, how.fill, how.max_megapixels)


def read_settings(raw: dict[str, Any]) -> Settings:
    """Return what params.yaml says of this run; mirroring only where the dataset allows it."""
    dataset_name, dataset = params.dataset(raw)
    model_name, model = params.choice(raw, "model", "models", Model)
    train = params.section(raw, "train", Train)
    if model.imagenet_head:
        # Such a head need not be fitted first, and without a table of classes it starts anew.
        known = bool(dataset.imagenet)
        model = replace(
            model,
            imagenet_head=known,
            head_epochs=0 if known else model.head_epochs,
            head_learning_rate=0.0 if known else model.head_learning_rate,
        )
    if not dataset.mirror_safe:
        train = replace(train, augmentation=replace(train.augmentation, mirror=False))
    return Settings(
        seed=params.section(raw, "seed", int),
        dataset_name=dataset_name,
        dataset=dataset,
        prepare=params.section(raw, "prepare", Prepare),
        train=train,
        model_name=model_name,
        model=model,
    )


def part(table: pd.DataFrame, name: str, classes: Sequence[str], store: Pixels) -> Photos:
    """Return one part's photos, by id: the order of the table's rows changes nothing.

    Raises:
        ValueError: The part has no photo, or lacks a class.
    """
    rows = table[table.split == name].sort_values("id")
    for label in classes:
        if not (rows.label == label).any():
            raise ValueError(
                f"{pixel_store.SPLIT / 'photos.csv'}: no photo of class {label} in {name}; "
                "add photos of it, merge it with another in datasets.<name>.classes, or "
                "another seed"
            )
    labels = rows.label.map({label: k for k, label in enumerate(classes)})
    indices = np.asarray(rows.row, np.int64)
    return Photos(store, indices, tuple(rows.id), np.asarray(labels, np.int64))


def scores(photos: Photos, logits: Floats, temperature: float) -> dict[str, float]:
    """Return the scores of calibrated answers, rounded to a millionth."""
    found = point_scores(photos.labels, calibration.probabilities(logits, temperature))
    return {name: round(value, 6) for name, value in found.items()}


def columns(history: pd.DataFrame, monitor: str) -> pd.DataFrame:
    """Return a row an epoch with the monitored score under its name, once."""
    named = history.rename(columns={"monitored": f"val_{monitor}"}).rename(
        columns={"val_log_loss": "val_loss"}
    )
    return named.loc[:, ~named.columns.duplicated()]


def photo_counts(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return part to class to photos."""
    return {
        str(name): {label: int((rows.label == label).sum()) for label in classes}
        for name, rows in table.groupby("split")
    }


if __name__ == "__main__":
    stage.run("train", main)
