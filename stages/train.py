"""Train: fit the selected model, keep its best epoch, and calibrate it.

Reads pixels/ and soft_labels.csv in data/prepared/, and data/split/photos.csv. Writes model/
(config.json, model.safetensors, novelty.safetensors and, if the dataset config allows them,
examples/), data/train/repeats.csv (test probabilities of each training seed),
metrics/details/train.json (inputs, settings, versions and scores of the run),
plots/train/history.csv (one row per epoch) and plots/train/augmented.npz (augmented photos, which
the report shows).

    python -m stages.train                                  # or, on several hosts, on each:
    torchrun --nnodes=2 --nproc-per-node=8 … -m stages.train

The default model takes about 25 seconds on 2 cores for each of `train.repeats` seeds; the model
with the median validation score is kept. Prints one line per epoch. No output contains a time: two
runs on one machine write the same bytes. An interrupted run resumes from its last epoch, which is
stored in checkpoints/; no other stage reads that folder.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from anklealign.config import environment, params, paths, stage
from anklealign.config.params import Auto, Dataset, Model, OperatingTarget, Prepare, Train
from anklealign.evaluation import photo_attributes
from anklealign.explainability import attribution
from anklealign.io import execution, files, pixel_store, results
from anklealign.io.pixel_store import Photos
from anklealign.metrics.scores import LOWER_IS_BETTER, further_scores, point_scores
from anklealign.models import (
    bundle,
    calibration,
    example_photos,
    factory,
    inputs,
    novelty,
    operating_point,
    weights,
)
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.models.input_config import Floats, InputConfig, Integers
from anklealign.models.networks import Majority
from anklealign.models.novelty_detector import NoveltyDetector
from anklealign.models.operating_point import OperatingPoint
from anklealign.splitting import stratified_groups
from anklealign.splitting.stratified_groups import InfeasibleError
from anklealign.training import (
    augmentation_preview,
    checkpoints,
    distributed,
    loop,
    losses,
    resource_estimates,
    selection,
    trainer,
)
from anklealign.training.callbacks import ProgressPrinter
from anklealign.training.distributed import ProcessGroup
from anklealign.training.history import EpochRecord, FitResult
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig

METRICS = paths.DETAILS / "train.json"

TRAIN, VAL = "train", "val"
MOST_MEASURED = 5000  # training photos, for the quantiles of their attributes; 3 ms each


@dataclass(frozen=True)
class Settings:
    """The settings in params.yaml that this stage uses.

    With `candidates`, which are the model configs of `auto`, the model is chosen among them.
    """

    seed: int
    dataset_name: str
    dataset: Dataset
    prepare: Prepare
    train: Train
    model_name: str
    model: Model
    budget: int = 0
    candidates: Mapping[str, Model] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """The inputs: K classes, the split table, the pixel store, the photos of two splits.

    And the goal of the operating point, if the dataset has one.
    """

    classes: tuple[str, ...]
    table: pd.DataFrame
    store: Photos
    train: LabeledPhotos
    val: LabeledPhotos
    target: OperatingTarget | None = None


@dataclass(frozen=True)
class FittedModel:
    """A model after its fit, and how it was fitted."""

    model: nn.Module
    config: FitConfig
    result: FitResult
    checkpoint: Path


@dataclass(frozen=True)
class Calibration:
    """Temperature, class bias, thresholds, and the scores of the calibrated probabilities."""

    temperature: float
    class_bias: tuple[float, ...]
    threshold: float
    train_scores: dict[str, float]
    val_scores: dict[str, float]
    operating_point: OperatingPoint | None = None


def main() -> None:
    """Fit in one or more processes; rank 0 calibrates the model and writes the outputs."""
    raw = params.read()
    settings = read_settings(raw)
    data = read_data(settings)
    if settings.train.num_processes > 1 and not distributed.started_by_torchrun():
        distributed.exec_torchrun("stages.train", settings.train.num_processes)
    inputs.configure_cpu(settings.train.threads)
    execution.configure(**vars(params.execution(raw)))
    with distributed.join_process_group(settings.train.device) as (group, device):
        sources = describe_sources(settings)
        if group.rank == 0:
            print_replaced_weights(settings)
        settings, choice, leftovers = choose_model(settings, data, sources, group, device)
        seeds = range(settings.seed, settings.seed + count_repeats(settings))
        fits = {
            seed: fit_model(replace(settings, seed=seed), data, sources | choice, group, device)
            for seed in seeds
        }
        if group.rank == 0:
            calibrations = {seed: calibrate(fits[seed], data) for seed in seeds}
            chosen = median_seed(fits, settings.train.monitor)
            fitted, calibrated = fits[chosen], calibrations[chosen]
            record = describe_choice(settings, data, fits, chosen) | sources | choice
            # Before write_bundle, which moves the selected model to the CPU.
            repeats = repeat_table(data, fits, calibrations)
            record |= describe_use(data, calibrated)
            write_bundle(settings, data, fitted, calibrated, record)
            write_records(settings, data, fitted, calibrated, record)
            files.write_table(paths.REPEATS, repeats)
            if choice:
                files.write_table(paths.CANDIDATES, candidate_table(choice))
            for path in [*leftovers, *(fit.checkpoint for fit in fits.values())]:
                checkpoints.remove(path)
            stage.print_wrapped(summary(settings, data, fitted, calibrated))


def read_settings(raw: dict[str, Any]) -> Settings:
    """Return the settings of a run, adapted to the dataset.

    Horizontal flips are off unless the dataset is `mirror_safe`. Without a mapping from ImageNet's
    classes, `imagenet_head` falls back to a new head; with one, `head_epochs` is not needed.
    """
    dataset_name, dataset = params.dataset(raw)
    model_name, config = params.model(raw)
    train = params.section(raw, "train", Train)
    models = {
        name.rpartition(".candidates.")[2]: adapted(model, dataset)
        for name, model in params.models(raw).items()
    }
    for name, model in models.items():
        if model.ordinal_head and train.loss == "bce":
            raise ValueError(
                f"params.yaml: models.{name}: ordinal_head gives log probabilities, which "
                "train.loss = 'bce' cannot use; set train.loss: cross_entropy"
            )
    if not dataset.mirror_safe:
        train = replace(train, augmentation=replace(train.augmentation, horizontal_flip=False))
    return Settings(
        seed=params.section(raw, "seed", int) if train.seed is None else train.seed,
        dataset_name=dataset_name,
        dataset=dataset,
        prepare=params.section(raw, "prepare", Prepare),
        train=train,
        model_name=model_name,
        model=next(iter(models.values())),
        budget=config.budget if isinstance(config, Auto) else 0,
        candidates=models if isinstance(config, Auto) else {},
    )


def adapted(model: Model, dataset: Dataset) -> Model:
    """Return a model config without what the dataset does not allow or does not need."""
    if not model.imagenet_head:
        return model
    if not dataset.imagenet:
        return replace(model, imagenet_head=False)
    return replace(model, head_epochs=0, head_learning_rate=0.0, logistic_regression=False)


def read_data(settings: Settings) -> Data:
    """Return the training photos, with soft labels if enabled, and the validation photos."""
    classes = tuple(settings.dataset.classes)
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    store = pixel_store.open_store()
    train, val = (select_split(table, name, classes, store) for name in (TRAIN, VAL))
    if settings.train.soft_labels:
        votes = pd.read_csv(paths.SOFT_LABELS, dtype={"photo": str})
        train = replace(train, soft=losses.soft_labels(train, votes, classes))
    if settings.candidates or settings.model.logistic_regression:
        train = replace(train, folds=assign_folds(table, train, classes, settings.seed))
    return Data(classes, table, store, train, val, settings.dataset.operating_point)


def select_split(
    table: pd.DataFrame, name: str, classes: Sequence[str], store: Photos
) -> LabeledPhotos:
    """Return the photos of a split, sorted by id, whatever the order of the table.

    Raises:
        ValueError: The split has no photo of a class.
    """
    rows = table[table.split == name].sort_values("id")
    for label in classes:
        if not (rows.label == label).any():
            raise ValueError(
                f"{paths.SPLIT / 'photos.csv'}: no photo of class {label} in {name}; "
                "add photos of the class, merge it with another one in datasets.<name>.classes, "
                "or change the seed"
            )
    labels = rows.label.map({label: k for k, label in enumerate(classes)})
    indices = np.asarray(rows.row, np.int64)
    return LabeledPhotos(store, indices, tuple(rows.id), np.asarray(labels, np.int64))


def assign_folds(
    table: pd.DataFrame, train: LabeledPhotos, classes: Sequence[str], seed: int
) -> Integers:
    """Return the fold of each training photo, (N,); one fold if the groups of a class are too few.

    No group is in two folds, and each fold has each class.
    """
    groups = table.set_index("id").group[list(train.ids)].to_numpy()
    counts = {
        name: np.bincount(train.labels[groups == name], minlength=len(classes))
        for name in sorted(set(groups))
    }
    for count in range(selection.FOLDS, 1, -1):
        shares = {str(fold): 1 / count for fold in range(count)}
        with suppress(InfeasibleError):
            folds = stratified_groups.assign(counts, shares, classes, seed)
            return np.array([int(folds[name]) for name in groups], np.int64)
    return np.zeros(len(groups), np.int64)


def describe_sources(settings: Settings) -> dict[str, Any]:
    """Return the hashes of the inputs, library versions and settings."""
    return {
        "pixels_sha256": pixel_store.store_sha256(),
        "split_sha256": files.sha256(paths.SPLIT / "photos.csv"),
        "soft_labels_sha256": files.sha256(paths.SOFT_LABELS),
        "weights": {name: weights.origin(model) for name, model in settings.candidates.items()}
        or weights.origin(settings.model),
        "versions": environment.installed_versions(environment.TRAINING),
        "params": used_params(settings),
    }


def used_params(settings: Settings) -> dict[str, Any]:
    """Return the settings as a dict, without those of `auto` for another model."""
    unused = {"model"} if settings.candidates else {"budget", "candidates"}
    return {key: value for key, value in asdict(settings).items() if key not in unused}


def print_replaced_weights(settings: Settings) -> None:
    """Print which weights files are absent and replaced by the hub's."""
    for model in settings.candidates.values() or [settings.model]:
        if model.weights and "hub" in str(weights.origin(model)):
            print(f"train: {model.weights} does not exist; the hub's weights are used")


def choose_model(
    settings: Settings,
    data: Data,
    sources: dict[str, Any],
    group: ProcessGroup,
    device: torch.device,
) -> tuple[Settings, dict[str, Any], list[Path]]:
    """Choose among the candidates of `auto` by cross-validation on the training photos.

    Returns:
        The settings with the chosen model config; what the run's record says about the choice; and
        the checkpoints of the cross-validation. Without candidates, nothing is chosen.

    Raises:
        ValueError: The groups are too few to cross-validate.
    """
    if not settings.candidates:
        return settings, {}, []
    folds = data.train.folds
    if folds is None or len(np.unique(folds)) < selection.FEWEST_FOLDS:
        raise ValueError(
            f"params.yaml: model = {settings.model_name!r} cross-validates on train, where each "
            f"class needs {selection.FEWEST_FOLDS} groups; choose one of its candidates: "
            f"{', '.join(settings.candidates)}"
        )
    sizes = len(data.train.rows), len(data.val.rows), settings.train.repeats
    costs = {
        name: selection.image_passes(model, *sizes) for name, model in settings.candidates.items()
    }
    planned = selection.plan(costs, settings.budget)
    trials, leftovers = [], []
    if group.rank == 0:
        speed = passes_per_second(settings.candidates[planned[-1]], settings, data, device)
        stage.print_wrapped(selection.describe(planned, costs, settings.budget, speed))
    for name in planned:
        own = replace(
            settings, model_name=f"auto.candidates.{name}", model=settings.candidates[name]
        )
        scores, checkpoints_of_folds = cross_validate(own, data, sources, group, device)
        trials.append(selection.Trial(name, costs[name], scores))
        leftovers += checkpoints_of_folds
        if group.rank == 0:
            stage.print_wrapped(f"train: {trials[-1].describe(settings.train.monitor)}")
    chosen = selection.best(trials, settings.train.monitor).name
    skipped = [selection.Trial(n, cost) for n, cost in costs.items() if n not in planned]
    choice = selection.record(trials + skipped, chosen)
    choice["params"] = sources["params"] | {"model": asdict(settings.candidates[chosen])}
    return replace(settings, model=settings.candidates[chosen]), choice, leftovers


def passes_per_second(
    model_config: Model, settings: Settings, data: Data, device: torch.device
) -> float:
    """Return the speed of a candidate on this machine, in image passes of `selection`."""
    with loop.reproducible(settings.seed):
        imagenet = settings.dataset.imagenet_indices()
        model = factory.build(settings.model_name, model_config, len(data.classes), imagenet)
    size = model_config.image_size
    input_config = bundle.default_input(model, size)
    speed = resource_estimates.photos_per_second(model.to(device), input_config, device)
    return speed * (size / selection.SIDE) ** 2


def cross_validate(
    settings: Settings,
    data: Data,
    sources: dict[str, Any],
    group: ProcessGroup,
    device: torch.device,
) -> tuple[dict[str, float], list[Path]]:
    """Return the scores of a model config on the folds of train, and the fits' checkpoints."""
    train, folds = data.train, data.train.folds
    assert folds is not None  # noqa: S101 - for mypy; `choose_model` checks it
    probabilities = np.zeros((len(train.rows), len(data.classes)))
    paths_of_folds = []
    names = np.unique(folds).tolist()
    for fold in tqdm(names, settings.model_name, unit="fold", leave=False, disable=None):
        held_out = np.flatnonzero(folds == fold)
        part = replace(data, train=train.subset(np.flatnonzero(folds != fold)))
        fitted = fit_model(settings, part, sources, group, device, fold=fold)
        paths_of_folds.append(fitted.checkpoint)
        temperature, bias = fit_calibration(fitted, part, predict(fitted, part, part.val.rows))
        probabilities[held_out] = calibration.probabilities(
            predict(fitted, data, train.rows[held_out]), temperature, bias
        )
    shared = torch.from_numpy(probabilities).to(device)
    group.broadcast([shared])  # on CPUs, processes have their own batch statistics
    probabilities = shared.cpu().numpy()
    scores = point_scores(train.labels, probabilities) | further_scores(train.labels, probabilities)
    return {name: round(value, 6) for name, value in scores.items()}, paths_of_folds


def candidate_table(choice: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per candidate: its image passes, its scores, and whether it was chosen."""
    rows = [{"candidate": name} | dict(values) for name, values in choice["candidates"].items()]
    return pd.DataFrame(rows)


def predict(fitted: FittedModel, data: Data, rows: Integers) -> Floats:
    """Return a fitted model's logits of rows of the store: (N,) -> (N, K)."""
    return trainer.predict(fitted.model, data.store, rows, fitted.config)


def fit_model(
    settings: Settings,
    data: Data,
    sources: dict[str, Any],
    group: ProcessGroup,
    device: torch.device,
    *,
    fold: int | None = None,
) -> FittedModel:
    """Build the model and fit it; rank 0 shows progress, except for a fold of a candidate."""
    num_classes = len(data.classes)
    with loop.reproducible(settings.seed, deterministic=settings.train.deterministic):
        model = factory.build(
            settings.model_name, settings.model, num_classes, settings.dataset.imagenet_indices()
        )
        input_config = bundle.default_input(model, settings.model.image_size)
        if fold is None:
            check_network(settings, data, model, input_config)
        model = model.to(device)
        if isinstance(model, Majority):
            model.set_counts(class_counts(data))
        config = FitConfig(
            input_config,
            num_classes,
            settings.model,
            settings.train,
            settings.seed,
            device,
            group,
        )
        run = {"seed": settings.seed, "device": device.type, "processes": group.size}
        if fold is not None:
            run |= {"candidate": settings.model_name, "fold": fold}
        path = checkpoints.path_for(sources | run)
        printer = ProgressPrinter(
            settings.model_name, lambda records: write_history(records, settings.train.monitor)
        )
        with printer if group.rank == 0 and fold is None else nullcontext() as progress:
            result = loop.fit(model, data.train, data.val, config, progress, checkpoint=path)
    return FittedModel(model, config, result, path)


def count_repeats(settings: Settings) -> int:
    """Return the number of seeds to train with: one for a model without training."""
    return settings.train.repeats if settings.model.epochs else 1


def median_seed(fits: Mapping[int, FittedModel], monitor: str) -> int:
    """Return the seed with the median validation score, the worse of two middle ones."""
    sign = 1.0 if monitor in LOWER_IS_BETTER else -1.0
    ranked = sorted(fits, key=lambda seed: (sign * (fits[seed].result.best_score or 0.0), seed))
    return ranked[len(ranked) // 2]


def repeat_table(
    data: Data, fits: Mapping[int, FittedModel], calibrations: Mapping[int, "Calibration"]
) -> pd.DataFrame:
    """Return the calibrated probabilities of the test photos by each seed's model.

    The labels of the test photos are not used; evaluate scores the table.
    """
    rows = data.table[data.table.split == "test"].sort_values("id")
    index = rows.row.to_numpy(np.int64)
    tables = []
    for seed, fitted in fits.items():
        own = calibrations[seed]
        raw = predict(fitted, data, index)
        fitted_probabilities = calibration.probabilities(raw, own.temperature, own.class_bias)
        table = pd.DataFrame(
            fitted_probabilities.round(6), columns=[f"p_{name}" for name in data.classes]
        )
        table.insert(0, "seed", seed)
        table.insert(1, "id", rows.id.to_numpy())
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def check_network(
    settings: Settings, data: Data, model: nn.Module, input_config: InputConfig
) -> None:
    """Explain a photo and rebuild the network, before hours of training.

    Raises:
        ValueError: One of them fails; evaluate and prediction would fail after training.
    """
    try:
        attribution.check(
            Bundle(data.classes, preprocessing(settings), input_config, 1.0, 0.0, {}, model=model)
        )
    except ValueError as error:
        raise ValueError(
            f"params.yaml: models.{settings.model_name}: {settings.model.architecture}: {error}; "
            "choose another architecture there"
        ) from None


def preprocessing(settings: Settings) -> Preprocessing:
    """Return the conversion of a photo file to the stored square."""
    prepare = settings.prepare
    return Preprocessing(prepare.size, settings.dataset.fit, prepare.fill, prepare.max_megapixels)


def calibrate(fitted: FittedModel, data: Data) -> Calibration:
    """Fit temperature, class bias and conformal threshold to the validation photos."""
    train_logits, val_logits = (
        predict(fitted, data, photos.rows) for photos in (data.train, data.val)
    )
    temperature, bias = fit_calibration(fitted, data, val_logits)
    train_fitted, val_fitted = (
        calibration.probabilities(logits, temperature, bias)
        for logits in (train_logits, val_logits)
    )
    groups = list(data.table.set_index("id").group[list(data.val.ids)])
    return Calibration(
        temperature,
        bias,
        calibration.fit_conformal(val_fitted, data.val.labels, groups),
        rounded_scores(data.train.labels, train_fitted),
        rounded_scores(data.val.labels, val_fitted),
        choose_operating_point(data, val_fitted),
    )


def choose_operating_point(data: Data, val_fitted: Floats) -> OperatingPoint | None:
    """Return the operating point that the dataset asks for, from the validation photos (N, K)."""
    if data.target is None:
        return None
    labels = [data.classes[k] for k in data.val.labels.tolist()]
    return operating_point.choose(data.target, val_fitted, labels, data.classes)


def fit_calibration(
    fitted: FittedModel, data: Data, val_logits: Floats
) -> tuple[float, tuple[float, ...]]:
    """Fit temperature and class bias to the logits (N, K) of the validation photos."""
    if isinstance(fitted.model, Majority):
        return 1.0, ()  # its class shares need no calibration
    counts = np.array(class_counts(data))
    balanced = (
        fitted.config.model_config.fitted and fitted.config.train_config.class_balancing != "none"
    )
    return calibration.fit(val_logits, data.val.labels, counts / counts.sum(), balanced=balanced)


def describe_choice(
    settings: Settings, data: Data, fits: Mapping[int, FittedModel], chosen: int
) -> dict[str, Any]:
    """Return the selected seed and epoch, all seeds' scores, and the training photos' classes."""
    fitted = fits[chosen]
    return {
        "chosen": {
            "seed": chosen,
            "epoch": fitted.result.best_epoch,
            "monitor": settings.train.monitor,
            "score": fitted.result.best_score,
        },
        "validation_by_seed": {str(seed): fit.result.best_score for seed, fit in fits.items()},
        "train_class_counts": dict(zip(data.classes, class_counts(data), strict=True)),
    }


def describe_use(data: Data, calibrated: Calibration) -> dict[str, Any]:
    """Return what the bundle's users compare with: the training photos, the operating point."""
    train = data.table[data.table.split == TRAIN].sort_values("id")
    attributes = photo_attributes.measure(train.head(MOST_MEASURED), data.store)
    use: dict[str, Any] = {"photo_attributes": photo_attributes.quantiles(attributes)}
    if calibrated.operating_point:
        use[operating_point.RECORD] = operating_point.record(calibrated.operating_point)
    return use


def write_bundle(
    settings: Settings,
    data: Data,
    fitted: FittedModel,
    calibrated: Calibration,
    record: dict[str, Any],
) -> None:
    """Write model/."""
    bundle.save(
        paths.MODEL,
        Bundle(
            data.classes,
            preprocessing(settings),
            fitted.config.input_config,
            calibrated.temperature,
            calibrated.threshold,
            record,
            calibrated.class_bias,
            novelty=fit_novelty(settings, data, fitted.config.device),
            examples=choose_examples(settings, data, fitted, calibrated),
            model=fitted.model,
        ),
    )


def choose_examples(
    settings: Settings, data: Data, fitted: FittedModel, calibrated: Calibration
) -> dict[str, tuple[bytes, ...]]:
    """Return the example photos of each class as JPEG, without letterbox; none unless allowed."""
    page = settings.dataset.page
    if page is None or not page.examples:
        return {}
    logits = predict(fitted, data, data.val.rows)
    probabilities = calibration.probabilities(logits, calibrated.temperature, calibrated.class_bias)
    chosen = example_photos.choose(probabilities, data.val.labels, data.classes, page.examples)
    boxes = data.table.set_index("row")[["left", "top", "right", "bottom"]]
    examples = {}
    for name, positions in chosen.items():
        photos = []
        for row in data.val.rows[positions].tolist():
            left, top, right, bottom = boxes.loc[row].tolist()
            photos.append(example_photos.encode(data.store[row][top:bottom, left:right]))
        examples[name] = tuple(photos)
    return examples


def fit_novelty(settings: Settings, data: Data, device: torch.device) -> NoveltyDetector | None:
    """Return the detector of photos that are unlike the training photos, if it is enabled."""
    share = settings.train.false_refusals
    if not share:
        return None
    groups = data.table.set_index("id").group[list(data.train.ids)].tolist()
    return novelty.fit(data.store, data.train.rows, data.val.rows, device, share, groups=groups)


def write_records(
    settings: Settings,
    data: Data,
    fitted: FittedModel,
    calibrated: Calibration,
    record: dict[str, Any],
) -> None:
    """Write metrics, history, run record and augmentation preview."""
    metrics: dict[str, Any] = {
        "parameters": factory.count_parameters(fitted.model),
        "epochs": fitted.result.epochs,
        "best_epoch": fitted.result.best_epoch,
        "temperature": round(calibrated.temperature, 6),
        "class_bias": [round(value, 6) for value in calibrated.class_bias],
        "conformal_threshold": round(calibrated.threshold, 6),
        "train": calibrated.train_scores,
        "val": calibrated.val_scores,
    }
    write_history(fitted.result.records, settings.train.monitor)
    photos = {"photos": count_photos(data.table, data.classes)}
    architecture = {"architecture": str(fitted.model).splitlines()}
    bundle_hash = {results.BUNDLE: results.bundle_hash(paths.MODEL)}
    results.write_details(METRICS, bundle_hash | record | photos | metrics | architecture)
    examples = augmentation_preview.examples(data.train, data.classes, fitted.config)
    results.write_arrays(paths.AUGMENTED, examples)


def summary(settings: Settings, data: Data, fitted: FittedModel, calibrated: Calibration) -> str:
    """Return the final line: the selected epoch and its validation scores."""
    scores = ", ".join(f"{name} {value:.3f}" for name, value in calibrated.val_scores.items())
    repeats = count_repeats(settings)
    median = f", the median of {repeats} seeds by validation" if repeats > 1 else ""
    return (
        f"train: {settings.model_name}, seed {fitted.config.seed}{median}, "
        f"epoch {fitted.result.best_epoch} of {fitted.result.epochs} "
        f"selected by {settings.train.monitor} on {len(data.val.rows)} validation photos: {scores}"
    )


def class_counts(data: Data) -> list[int]:
    """Return the number of training photos of each class."""
    counts: list[int] = np.bincount(data.train.labels, minlength=len(data.classes)).tolist()
    return counts


def rounded_scores(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Return the scores of calibrated probabilities (N, K), rounded to six decimals."""
    scores = point_scores(labels, probabilities)
    return {name: round(value, 6) for name, value in scores.items()}


def write_history(records: Sequence[EpochRecord], monitor: str) -> None:
    """Write one row per epoch; the monitored score has one column, under its own name.

    Called after every epoch, so that `dvc plots show` and the VS Code extension show a run while it
    trains.
    """
    columns = [field.name for field in fields(EpochRecord)]
    table = pd.DataFrame(map(asdict, records), columns=columns)
    table = table.rename(columns={"monitored": f"val_{monitor}"})
    table = table.rename(columns={"val_log_loss": "val_loss"})
    files.write_table(paths.HISTORY, table.loc[:, ~table.columns.duplicated()].round(6))


def count_photos(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of photos of each split and class."""
    return {
        str(name): {label: int((rows.label == label).sum()) for label in classes}
        for name, rows in table.groupby("split")
    }


if __name__ == "__main__":
    stage.run("train", main)
