"""The parts of a training step: batches, forward pass, loss, backward pass and optimizer step.

Shapes: N photos, B of a batch, K classes. Every loss is a sum over photos divided by the size of
the batch, so that micro-batches and processes add up to the same step. `loop.fit` calls the parts.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]
from timm.optim import (  # type: ignore[attr-defined]
    create_optimizer_v2,
    get_optimizer_class,
    list_optimizers,
)
from timm.scheduler import create_scheduler_v2  # type: ignore[attr-defined]
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from anklealign.config.params import Model, Train
from anklealign.io.pixel_store import Photos
from anklealign.models.factory import classifier_of_features, freeze, freeze_batch_norm
from anklealign.models.features import stored_features
from anklealign.models.input_config import Floats, InputConfig, Integers
from anklealign.models.inputs import (
    features,
    full_precision,
    logits,
    normalize,
    to_device,
)
from anklealign.training import augmentation, losses
from anklealign.training.augmentation import Draws
from anklealign.training.distributed import ProcessGroup
from anklealign.training.sampling import (
    LabeledPhotos,
    epoch_order,
    even_batches,
    prefetch,
    repeat_index,
)

REMEDY = (
    "try a tenth of the model's learning_rate, train.max_grad_norm: 1, or train.precision: fp32"
)
# Optimizers of PyTorch with a fused kernel for CUDA.
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the data type of the forward pass; auto is bfloat16 on a GPU that supports it.

    On a CPU, auto is float32. bfloat16 is faster only on CPUs with AVX512-BF16 or AMX, and it gives
    different weights.

    Raises:
        ValueError: float16 on a CPU, which has no gradient scaling: small gradients underflow.
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


@dataclass(frozen=True)
class FitConfig:
    """Everything that determines a fit, except the model and the photos.

    Attributes:
        input_config: Input size and normalization of the network.
        num_classes: K.
        model_config: Epochs, learning rate, and which weights are frozen.
        train_config: All other settings. `horizontal_flip` is already adapted to the dataset.
        seed: Seeds the order of photos, their augmentation, and dropout.
        device: Device of the network.
        process_group: The processes that fit together.
    """

    input_config: InputConfig
    num_classes: int
    model_config: Model
    train_config: Train
    seed: int
    device: torch.device
    process_group: ProcessGroup = field(default_factory=ProcessGroup)


@dataclass(frozen=True)
class Batch:
    """This process's shard of a batch, or a micro-batch of it.

    Attributes:
        x: Input of the learner, (B, …).
        targets: Target distributions, (B, K).
        weights: Loss weight of each photo, (B,); 0 for the photo that fills an empty shard.
        num_photos: Photos of the whole batch, over all processes.
        completes_step: Whether this is the last micro-batch before the optimizer step.
    """

    x: Tensor
    targets: Tensor
    weights: Tensor
    num_photos: int
    completes_step: bool = True

    def split(self, count: int) -> Iterator["Batch"]:
        """Yield at most `count` micro-batches of nearly equal sizes."""
        for part in np.array_split(np.arange(len(self.x)), min(count, len(self.x))):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            last = rows.stop == len(self.x)
            yield Batch(self.x[rows], self.targets[rows], self.weights[rows], self.num_photos, last)


class Trainer:
    """Learner, optimizer, learning-rate schedule and mixed precision of a fit.

    The learner is the model; or, if all else is frozen, its head on features computed once.

    Attributes:
        learner: The trained module.
        network: The learner, wrapped in DistributedDataParallel in several processes.
        head_alone: Whether the learner is the head.
        targets: Target distribution of each training photo, (N, K).
        weights: Loss weight of each training photo, (N,).
        learning_rate: Of the last step; the highest of the parameter groups.
    """

    def __init__(
        self, model: nn.Module, train: LabeledPhotos, val: LabeledPhotos, config: FitConfig
    ) -> None:
        """Prepare the first step.

        Raises:
            ValueError: The optimizer, the precision or `unfreeze_last_n` is invalid.
        """
        self.model, self.config = model, config
        self.train, self.val = train, val
        settings, device, model_config = config.train_config, config.device, config.model_config
        self.learner = model
        classifier = separate_head(model, config)
        # Without features that the classifier alone maps to logits, the whole network runs.
        self.head_alone = classifier is not None
        if model_config.frozen:
            freeze(model, model_config.unfreeze_last_n)
        if classifier is not None:
            # A frozen backbone maps each photo to the same features in every epoch.
            self.learner = classifier
            self.train_features = self._extract_features(train)
            self.val_features = self._extract_features(val)
        elif config.process_group.size > 1 and device.type == "cuda":
            convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self.precision = pick_precision(settings.precision, device)
        self.targets, self.weights = _targets_and_weights(train, config)
        self.steps_per_epoch = len(even_batches(len(train.rows), settings.batch_size))
        self.optimizer = _make_optimizer(model, config)
        self.scheduler = _make_scheduler(self.optimizer, config, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is torch.float16)
        self.network: nn.Module = self.learner
        if config.process_group.size > 1:
            self.network = DistributedDataParallel(self.learner)
        # On a CPU, the training step itself needs the cores.
        self.workers = 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
        self.steps_taken, self.learning_rate = 0, 0.0

    def start_epoch(self, epoch: int) -> None:
        """Seed dropout by the epoch, and switch the network to training mode."""
        # The seed does not depend on earlier epochs, so that a resumed run draws the same numbers.
        key = np.random.SeedSequence([self.config.seed, epoch, self.config.process_group.rank])
        torch.manual_seed(int(key.generate_state(1)[0]))
        self.network.train()
        freeze_batch_norm(self.learner, everywhere=self.config.model_config.freeze_batch_norm)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this process's shard of each batch of an epoch."""
        config, train = self.config, self.train
        order = epoch_order(
            train.labels,
            config.seed,
            epoch,
            balanced=config.train_config.class_balancing == "sampler",
        )
        repeats = repeat_index(order)

        def load(positions: Integers) -> tuple[Integers, int, Draws, Tensor]:
            """Return a shard's photo indices and own size, and its draws and uint8 crops."""
            own = config.process_group.shard(positions)
            # A process with an empty shard loads one photo, whose loss gets weight 0.
            shard = own if len(own) else positions[:1]
            indices = order[shard]
            if self.head_alone:
                return indices, len(own), np.empty(0), torch.empty(0)
            ids = [train.ids[index] for index in indices]
            draws = augmentation.draw(ids, repeats[shard].tolist(), config.seed, epoch)
            crops = augmentation.crop_and_flip(
                train.pixels, train.rows[indices], draws, config.train_config.augmentation,
                config.input_config,
            )  # fmt: skip
            pinned = crops.pin_memory() if config.device.type == "cuda" else crops
            return indices, len(own), draws, pinned

        batches = even_batches(len(order), config.train_config.batch_size)
        for positions, (indices, own, draws, crops) in zip(
            batches, prefetch(load, batches, self.workers), strict=True
        ):
            index = to_device(torch.from_numpy(indices), config.device)
            x = self.train_features[index] if self.head_alone else self._to_input(crops, draws)
            weights = self.weights[index] * (1.0 if own else 0.0)
            yield Batch(x, self.targets[index], weights, len(positions))

    def gradient_sync(self, micro_batch: Batch) -> AbstractContextManager[None]:
        """Return a context in which processes exchange gradients only for the last micro-batch."""
        if isinstance(self.network, DistributedDataParallel) and not micro_batch.completes_step:
            context: AbstractContextManager[None] = self.network.no_sync()
            return context
        return nullcontext()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits in single precision, computed in mixed precision: (B, …) -> (B, K)."""
        mixed = self.precision is not torch.float32
        with torch.autocast(self.config.device.type, self.precision, enabled=mixed):
            outputs: Tensor = self.network(x)
        return outputs.float()

    def loss(self, predicted: Tensor, micro_batch: Batch) -> Tensor:
        """Return a micro-batch's part of the batch's mean loss: logits (B, K) -> scalar."""
        name = self.config.train_config.loss
        each = losses.loss_per_photo(name, predicted, micro_batch.targets)
        return (each * micro_batch.weights).sum() / micro_batch.num_photos

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, scaled against underflow in float16."""
        # DistributedDataParallel averages over the processes; the gradient needed is their sum.
        scaled = self.scaler.scale(loss * self.config.process_group.size)
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Set the learning rate, clip the gradients and update the weights.

        Raises:
            ValueError: The update overflows.
        """
        self.scheduler.step_update(self.steps_taken)
        self.learning_rate = max(float(group["lr"]) for group in self.optimizer.param_groups)
        max_norm = self.config.train_config.max_grad_norm
        if max_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.learner.parameters(), max_norm)
        try:
            self.scaler.step(self.optimizer)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            epochs, steps = divmod(self.steps_taken, self.steps_per_epoch)
            raise ValueError(
                f"the optimizer's step is not finite in epoch {epochs + 1}, batch {steps + 1}, at "
                f"a learning rate of {self.learning_rate:.3g}; {REMEDY}"
            ) from None
        self.scaler.update()
        self.steps_taken += 1

    def predict(self, photos: LabeledPhotos) -> Floats:
        """Return the logits of the training or validation photos, without augmentation: (N, K)."""
        config = self.config
        if self.head_alone:
            inputs = self.train_features if photos is self.train else self.val_features
            self.learner.eval()
            with torch.no_grad(), full_precision():
                outputs = self.learner(inputs)
            predicted: Floats = outputs.cpu().numpy().astype(np.float64)
            return predicted
        # On CPUs, each process has its own batch statistics; those of rank 0 are kept.
        config.process_group.broadcast(self.model.buffers())
        rows = config.process_group.shard(photos.rows)
        own = logits(self.model, photos.pixels, rows, config.input_config, config.device)
        if config.process_group.size == 1:
            return own
        shard = torch.from_numpy(own).to(config.device)
        gathered: Floats = config.process_group.gather(shard, len(photos.rows)).cpu().numpy()
        return gathered

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {
            "learner": self.learner.state_dict(),
            # Parameter groups follow from params.yaml, and their learning rate from the schedule.
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], epochs: int) -> None:
        """Restore the state that a checkpoint stored after `epochs` epochs."""
        self.learner.load_state_dict(state["learner"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.steps_taken = epochs * self.steps_per_epoch

    def _to_input(self, crops: Tensor, draws: Draws) -> Tensor:
        """Finish augmentation on the device: (B, 3, H, H) uint8, (B, 10) -> (B, 3, H, H)."""
        config = self.config
        x = crops.to(config.device, non_blocking=True)
        x = augmentation.adjust_and_warp(x, draws, config.train_config.augmentation)
        x = normalize(x, config.input_config)
        if config.train_config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def _extract_features(self, photos: LabeledPhotos) -> Tensor:
        """Return the input of the head for each photo: (N, C), on the device."""
        config = self.config
        if config.process_group.size == 1:
            return frozen_features(self.model, photos.pixels, photos.rows, config)
        rows = config.process_group.shard(photos.rows)
        own = features(self.model, photos.pixels, rows, config.input_config, config.device)
        return config.process_group.gather(own.to(config.device), len(photos.rows))


def separate_head(model: nn.Module, config: FitConfig) -> nn.Module | None:
    """Return the head, if it is trained alone and maps the backbone's features to the logits."""
    if not config.model_config.head_alone:
        return None
    side, channels = config.input_config.image_size, config.input_config.channels
    x = torch.linspace(-1, 1, channels * side * side, device=config.device)
    return classifier_of_features(model, x.view(1, channels, side, side))


def frozen_features(model: nn.Module, pixels: Photos, rows: Integers, config: FitConfig) -> Tensor:
    """Return the features of a frozen backbone, which are computed once: (N, C) on the device."""
    own = stored_features(
        model,
        pixels,
        rows,
        input_config=config.input_config,
        device=config.device,
    )
    return own.to(config.device)


def predict(model: nn.Module, pixels: Photos, rows: Integers, config: FitConfig) -> Floats:
    """Return the logits of rows of the store after a fit, without augmentation: (N, K)."""
    head = separate_head(model, config)
    if head is None:
        return logits(model, pixels, rows, config.input_config, config.device)
    head.eval()
    with torch.no_grad(), full_precision():
        outputs = head(frozen_features(model, pixels, rows, config))
    predicted: Floats = outputs.cpu().numpy().astype(np.float64)
    return predicted


def _targets_and_weights(train: LabeledPhotos, config: FitConfig) -> tuple[Tensor, Tensor]:
    """Return target distributions (N, K) and loss weights (N,) on the device."""
    settings = config.train_config
    targets = losses.make_targets(train, config.num_classes, settings.label_smoothing)
    weights = np.ones(len(targets))
    if settings.class_balancing == "loss_weights":
        unsmoothed = losses.make_targets(train, config.num_classes, 0.0)
        weights = losses.inverse_frequency_weights(unsmoothed)
    return (
        torch.tensor(targets).float().to(config.device),
        torch.tensor(weights).float().to(config.device),
    )


def _make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """Return timm's optimizer of that name.

    Raises:
        ValueError: The name is unknown, or an argument is invalid for it.
    """
    settings, model_config = config.train_config, config.model_config
    arguments: dict[str, Any] = dict(settings.optimizer_arguments)
    names = [str(name) for name in list_optimizers()]
    if settings.optimizer not in names:
        raise ValueError(
            f"params.yaml: train.optimizer = {settings.optimizer!r} is not an optimizer of timm; "
            f"choose one of: {', '.join(names)}"
        )
    try:
        # timm silently drops arguments that an optimizer does not accept; bind them here first.
        optimizer_class = get_optimizer_class(settings.optimizer, bind_defaults=False)
        signature(optimizer_class).bind_partial(**arguments)
        fusible = isinstance(optimizer_class, type) and issubclass(optimizer_class, FUSED)
        if config.device.type == "cuda" and fusible:
            # One kernel for all weights, which also checks float16 gradients without a wait.
            arguments.setdefault("fused", not arguments.get("foreach"))
        # timm excludes biases, norms and the parameters an architecture names from weight decay.
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            model,
            settings.optimizer,
            lr=model_config.learning_rate,
            weight_decay=settings.weight_decay,
            layer_decay=model_config.layer_decay if model_config.layer_decay < 1 else None,
            **arguments,
        )
    except Exception as error:  # noqa: BLE001 - optimizers raise errors of any type
        raise ValueError(
            f"params.yaml: train.optimizer = {settings.optimizer!r} with optimizer_arguments "
            f"{settings.optimizer_arguments} cannot be used here: {error}; change them"
        ) from None
    return optimizer


def _make_scheduler(
    optimizer: torch.optim.Optimizer, config: FitConfig, steps_per_epoch: int
) -> Scheduler:
    """Return timm's schedule of that name, updated once per step."""
    settings = config.train_config
    total = config.model_config.epochs * steps_per_epoch
    warmup = round(settings.warmup * total)
    scheduler: Scheduler = create_scheduler_v2(
        optimizer,
        settings.scheduler,
        num_epochs=total,
        warmup_epochs=warmup,
        warmup_lr=config.model_config.learning_rate / (warmup + 1),
        decay_milestones=[round(share * total) for share in settings.decay_at],
        # timm reads the exponent of `poly` from the same argument.
        decay_rate=settings.decay_rate if settings.scheduler == "multistep" else 1.0,
        step_on_epochs=False,
        updates_per_epoch=1,  # timm's epochs are steps here
    )[0]
    return scheduler
