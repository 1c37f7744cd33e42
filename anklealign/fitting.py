"""Fits a network to labelled photos and keeps its best epoch's weights.

Shapes: N photos, K classes. AdamW (Loshchilov and Hutter 2019) under a cosine schedule with a short
warm-up. The same seed gives the same weights on one machine: bit by bit on a CPU, and on a GPU as
far as PyTorch has deterministic kernels.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import Tensor, nn

from anklealign import augmentation, calibration
from anklealign.architectures import freeze
from anklealign.augmentation import Draws
from anklealign.batches import (
    Floats,
    Input,
    Integers,
    Photos,
    ahead,
    epoch_batches,
    features,
    full_precision,
    logits,
    normalise,
)
from anklealign.params import Model, Train
from anklealign.scores import point_scores

# Of all steps: the learning rate rises while AdamW's averages and the batch norms settle.
WARM_UP = 0.05


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training photos came to."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_macro_f1: float
    learning_rate: float


@dataclass(frozen=True)
class Fit:
    """How a fit went: the network holds the weights of `best_epoch`, whose monitored score it was.

    Without epochs there is nothing to fit: epoch 0, no score.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    best_score: float | None


Report = Callable[[Epoch | None], None]


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in: auto is bfloat16 on a GPU that has it.

    Raises:
        ValueError: float16 without a GPU, whose small gradients vanish unscaled.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if name == "fp16" and device.type != "cuda":
        raise ValueError(
            f"train.precision = 'fp16' needs a CUDA GPU, but the device is {device}; "
            "choose auto, bf16 or fp32"
        )
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels for a while.

    A kernel that has no deterministic form warns: a result that differs in the last digit is better
    than none.
    """
    # cuBLAS reads it when it starts: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(mode=before, warn_only=warned)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step, from 0: a linear rise, then half a cosine down to 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def class_weights(labels: Integers, classes: int) -> Tensor:
    """Return weights (K,) by 1 / class frequency, whose mean over the N photos is 1."""
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


@dataclass(frozen=True)
class Recipe:
    """How to fit.

    Attributes:
        network_input: Of the network.
        classes: K.
        block: How many epochs at which learning rate, and what is frozen.
        settings: The rest; `augmentation.mirror` is taken as it stands.
        seed: Of the order of photos and their augmentation.
        device: To compute on.
    """

    network_input: Input
    classes: int
    block: Model
    settings: Train
    seed: int
    device: torch.device


def fit(
    model: nn.Module,
    train: Photos,
    validation: Photos,
    recipe: Recipe,
    report: Report = lambda _: None,
) -> Fit:
    """Fit a network, which stands on the recipe's device, in place.

    Args:
        model: With K outputs.
        train: Photos to learn from.
        validation: Photos to choose the epoch by.
        recipe: How.
        report: Called after each step with None and after each epoch with its record.

    Raises:
        ValueError: The loss is not finite, or the GPU's memory does not suffice.
    """
    block, settings, device = recipe.block, recipe.settings, recipe.device
    if not block.epochs:
        return Fit((), 0, None)
    model.to(memory_format=torch.channels_last)  # 1.2 to 1.8 times fp32's rate on a CPU
    trainer = _Trainer(model, train, validation, recipe, report)
    history: list[Epoch] = []
    best, best_rank, best_epoch, best_score = _copy(model), (-math.inf, -math.inf), 0, math.nan
    for epoch in range(1, block.epochs + 1):
        try:
            train_loss = trainer.run(epoch)
        except torch.OutOfMemoryError:
            raise ValueError(
                f"the memory of {device} does not suffice for train.batch_size = "
                f"{settings.batch_size} at image_size = {block.image_size}; lower one of them"
            ) from None
        answers = trainer.answers()
        scores = point_scores(validation.labels, calibration.probabilities(answers, 1.0))
        record = Epoch(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=scores["log_loss"],
            val_accuracy=scores["accuracy"],
            val_balanced_accuracy=scores["balanced_accuracy"],
            val_macro_f1=scores["macro_f1"],
            learning_rate=trainer.rate,
        )
        history.append(record)
        # On some fifty photos scores tie often; the loss then says which epoch is better.
        descending = settings.monitor == "log_loss"
        rank = (-1 if descending else 1) * scores[settings.monitor], -scores["log_loss"]
        if rank > best_rank:
            best, best_rank, best_epoch = _copy(model), rank, epoch
            best_score = scores[settings.monitor]
        report(record)
        if epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(best)
    return Fit(tuple(history), best_epoch, best_score)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


class _Trainer:
    """What goes on from epoch to epoch: optimiser, schedule, mixed precision."""

    def __init__(
        self, model: nn.Module, train: Photos, validation: Photos, recipe: Recipe, report: Report
    ) -> None:
        self.model, self.recipe, self.report = model, recipe, report
        self.train, self.validation = train, validation
        self.learner = model
        if recipe.block.frozen:
            # The backbone answers each photo alike in every epoch: once is enough.
            freeze(model)
            self.learner = model.get_classifier()  # type: ignore[operator]
            self.train_features, self.validation_features = (
                features(model, some.pixels, some.rows, recipe.network_input, recipe.device).to(
                    recipe.device
                )
                for some in (train, validation)
            )
        settings, device = recipe.settings, recipe.device
        self.precision = pick_precision(settings.precision, device)
        weights = class_weights(train.labels, recipe.classes) if settings.class_weights else None
        self.loss = nn.CrossEntropyLoss(weights, label_smoothing=settings.label_smoothing)
        self.loss.to(device)
        # Biases, norms and what the architecture names are spared the decay.
        self.optimiser = create_optimizer_v2(
            model, "adamw", lr=recipe.block.learning_rate, weight_decay=settings.weight_decay
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is torch.float16)
        # On a CPU the steps themselves need the cores.
        self.workers = 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
        self.step, self.rate = 0, 0.0

    def run(self, epoch: int) -> float:
        """Learn from every photo once; return the mean loss."""
        train, recipe = self.train, self.recipe
        batches = epoch_batches(len(train.rows), recipe.settings.batch_size, recipe.seed, epoch)
        steps = recipe.block.epochs * len(batches)
        self.learner.train()
        losses = []
        for labels, x in self._inputs(batches, epoch):
            self.rate = learning_rate(self.step, steps, recipe.block.learning_rate)
            losses.append(self._learn(labels, x))
            self.step += 1
            self.report(None)
        # Looked at once an epoch, as each look makes a GPU wait.
        found = torch.stack(losses).cpu().double().numpy()
        _check_finite(found, epoch, self.rate)
        return float(np.average(found, weights=[len(batch) for batch in batches]))

    def answers(self) -> Floats:
        """Return the logits of the validation photos: (N, K)."""
        if self.recipe.block.frozen:
            self.learner.eval()
            with torch.no_grad(), full_precision():
                found = self.learner(self.validation_features)
            answers: Floats = found.cpu().numpy().astype(np.float64)
            return answers
        photos, recipe = self.validation, self.recipe
        return logits(self.model, photos.pixels, photos.rows, recipe.network_input, recipe.device)

    def _inputs(self, batches: list[Integers], epoch: int) -> Iterator[tuple[Integers, Tensor]]:
        """Yield each batch's labels and what the learner is shown."""
        train, recipe = self.train, self.recipe
        if recipe.block.frozen:
            for batch in batches:
                yield train.labels[batch], self.train_features[torch.from_numpy(batch)]
            return
        settings, device = recipe.settings.augmentation, recipe.device

        def make(batch: Integers) -> tuple[Integers, Draws, Tensor]:
            draws = augmentation.draw([train.ids[i] for i in batch], recipe.seed, epoch)
            rows = train.rows[batch]
            cut = augmentation.cut(train.pixels, rows, draws, settings, recipe.network_input)
            return train.labels[batch], draws, cut

        for labels, draws, cut in ahead(make, batches, self.workers):
            x = cut.to(device, non_blocking=True).float() / 255
            x = augmentation.rotate(augmentation.colour(x, draws, settings), draws, settings)
            yield labels, normalise(x, recipe.network_input)

    def _learn(self, labels: Integers, x: Tensor) -> Tensor:
        """Take one step; return its loss, on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        device = self.recipe.device
        mixed = self.precision is not torch.float32
        with torch.autocast(device.type, self.precision, enabled=mixed):
            answers = self.learner(x)
        loss: Tensor = self.loss(answers.float(), torch.from_numpy(labels).to(device))
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.detach()


def _check_finite(losses: Floats, epoch: int, rate: float) -> None:
    if not np.isfinite(losses).all():
        batch = int(np.argmin(np.isfinite(losses))) + 1
        raise ValueError(
            f"the loss is {losses[batch - 1]} in epoch {epoch}, batch {batch}, at a learning rate "
            f"of {rate:.3g}; try a tenth of the model's learning_rate, or train.precision: fp32"
        )
