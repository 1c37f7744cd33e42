"""One step after another: what learns, by which optimiser, from which batches.

Shapes: N photos, B of a batch, K classes. Every loss is a sum over photos divided by the batch's
photos, so that parts of a batch and several processes come to the same step.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
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
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from anklealign.config.params import Model, Train
from anklealign.models.factory import freeze, hold_batch_norm
from anklealign.models.inputs import (
    Floats,
    Input,
    Integers,
    features,
    full_precision,
    logits,
    normalise,
)
from anklealign.training import augmentation, losses
from anklealign.training.augmentation import Draws
from anklealign.training.distributed import World
from anklealign.training.sampling import Photos, ahead, epoch_order, even_parts, times_seen

REMEDY = (
    "try a tenth of the model's learning_rate, train.clip_gradient: 1, or train.precision: fp32"
)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in: auto is bfloat16 on a GPU that has it.

    On a CPU auto is float32: bfloat16 is faster where the CPU has AVX512-BF16 or AMX and slower
    where not, and the two give other weights.

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
        world: The processes that fit together.
    """

    network_input: Input
    classes: int
    block: Model
    settings: Train
    seed: int
    device: torch.device
    world: World = field(default_factory=World)


@dataclass(frozen=True)
class Batch:
    """This process's part of a step.

    Attributes:
        x: What the learner is shown, (B, …).
        targets: What it should say, (B, K).
        weights: Of each photo's loss, (B,); 0 for a photo that only fills a process's empty share.
        photos: Of all processes together.
    """

    x: Tensor
    targets: Tensor
    weights: Tensor
    photos: int


class Trainer:
    """What goes on from epoch to epoch: learner, optimiser, schedule, mixed precision.

    The learner is the model, or its head alone on features computed once, where all else is frozen.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Photos,
        validation: Photos,
        recipe: Recipe,
    ) -> None:
        """Get everything ready for the first step.

        Raises:
            ValueError: The optimiser, the precision or the number of blocks does not fit.
        """
        self.model, self.recipe = model, recipe
        self.stepped: Callable[[], None] = lambda: None  # called after each step
        self.train, self.validation = train, validation
        settings, device, block = recipe.settings, recipe.device, recipe.block
        self.learner = model
        self.on_features = block.head_alone
        if block.frozen:
            freeze(model, block.last_blocks)
        if self.on_features:
            # The backbone answers each photo alike in every epoch: once is enough.
            self.learner = model.get_classifier()  # type: ignore[operator]
            self.train_features = self._features(train)
            self.validation_features = self._features(validation)
        elif recipe.world.size > 1 and device.type == "cuda":
            convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self.precision = pick_precision(settings.precision, device)
        wanted = losses.targets(train, recipe.classes, settings.label_smoothing)
        unsmoothed = losses.targets(train, recipe.classes, 0.0)
        weights = losses.weights(unsmoothed) if settings.balance == "weights" else None
        self.targets, self.weights = losses.as_tensors(
            wanted, np.ones(len(wanted)) if weights is None else weights, device
        )
        self.steps_an_epoch = len(even_parts(len(train.rows), settings.batch_size))
        self.optimiser = self._optimiser()
        total = block.epochs * self.steps_an_epoch
        warm = round(settings.warmup * total)
        self.scheduler, _ = create_scheduler_v2(
            self.optimiser,
            settings.scheduler,
            num_epochs=total,
            warmup_epochs=warm,
            warmup_lr=block.learning_rate / (warm + 1),
            decay_milestones=[round(share * total) for share in settings.decay_at],
            # timm takes poly's power by the same name.
            decay_rate=settings.decay_rate if settings.scheduler == "multistep" else 1.0,
            step_on_epochs=False,
            updates_per_epoch=1,  # its epochs are our steps
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is torch.float16)
        self.shown: nn.Module = self.learner
        if recipe.world.size > 1:
            self.shown = DistributedDataParallel(self.learner)
        # On a CPU the steps themselves need the cores.
        self.workers = 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
        self.step, self.rate = 0, 0.0

    def run(self, epoch: int) -> float:
        """Learn from every photo once; return the mean loss.

        Raises:
            ValueError: The loss, or a step, is not finite.
        """
        recipe = self.recipe
        # Dropout's numbers depend on the epoch, not on those before it: a resumed run has the same.
        key = np.random.SeedSequence([recipe.seed, epoch, recipe.world.rank])
        torch.manual_seed(int(key.generate_state(1)[0]))
        self.shown.train()
        hold_batch_norm(self.learner, everywhere=recipe.block.freeze_batch_norm)
        found, rates, sizes = [], [], []
        for number, batch in enumerate(self.batches(epoch), 1):
            try:
                found.append(self.learn(batch))
            except RuntimeError as error:
                if "without overflow" not in str(error):
                    raise
                raise ValueError(
                    f"the optimizer's step is not finite in epoch {epoch}, batch {number}, at a "
                    f"learning rate of {self.rate:.3g}; {REMEDY}"
                ) from None
            rates.append(self.rate)
            sizes.append(batch.photos)
            self.stepped()
        # Looked at once an epoch, as each look makes a GPU wait.
        sums = recipe.world.add(torch.stack(found)).cpu().double().numpy()
        _check_finite(sums, epoch, rates)
        return float(np.average(sums, weights=sizes))

    def answers(self, photos: Photos) -> Floats:
        """Return the logits of the training or the validation photos, as they are: (N, K)."""
        recipe = self.recipe
        if self.on_features:
            self.learner.eval()
            known = ((self.train, self.train_features), (self.validation, self.validation_features))
            shown = next(features for some, features in known if some is photos)
            with torch.no_grad(), full_precision():
                found = self.learner(shown)
            answers: Floats = found.cpu().numpy().astype(np.float64)
            return answers
        rows = recipe.world.share(photos.rows)
        # On CPUs each process has batch statistics of its own; the first's are kept.
        recipe.world.align(self.model.buffers())
        own = logits(self.model, photos.pixels, rows, recipe.network_input, recipe.device)
        if recipe.world.size == 1:
            return own
        together = recipe.world.gather(torch.from_numpy(own).to(recipe.device), len(photos.rows))
        answers = together.cpu().numpy()
        return answers  # noqa: RET504 - typed above

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this process's part of each step of an epoch."""
        train, recipe = self.train, self.recipe
        settings = recipe.settings
        order = epoch_order(
            train.labels, recipe.seed, epoch, balanced=settings.balance == "sampler"
        )
        times = times_seen(order)
        parts = even_parts(len(order), settings.batch_size)

        def make(places: Integers) -> tuple[Integers, Draws, Tensor, int]:
            mine = recipe.world.share(places)
            # A process whose share is empty sees one photo that counts for nothing.
            shown = mine if len(mine) else places[:1]
            rows = order[shown]
            if self.on_features:
                return rows, np.empty(0), torch.empty(0), len(mine)
            draws = augmentation.draw(
                [train.ids[i] for i in rows], times[shown].tolist(), recipe.seed, epoch
            )
            cut = augmentation.cut(
                train.pixels, train.rows[rows], draws, settings.augmentation, recipe.network_input
            )
            pinned = cut.pin_memory() if recipe.device.type == "cuda" else cut
            return rows, draws, pinned, len(mine)

        for part, (rows, draws, cut, mine) in zip(
            parts, ahead(make, parts, self.workers), strict=True
        ):
            index = torch.from_numpy(rows).to(recipe.device, non_blocking=True)
            if self.on_features:
                x = self.train_features[index]
            else:
                x = cut.to(recipe.device, non_blocking=True)
                x = augmentation.finish(x, draws, settings.augmentation)
                x = normalise(x, recipe.network_input)
                if settings.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
            weights = self.weights[index] * (1.0 if mine else 0.0)
            yield Batch(x, self.targets[index], weights, len(part))

    def learn(self, batch: Batch) -> Tensor:
        """Take one step; return this process's share of its loss, on the device."""
        self.scheduler.step_update(self.step)
        self.rate = max(float(group["lr"]) for group in self.optimiser.param_groups)
        settings, device, world = self.recipe.settings, self.recipe.device, self.recipe.world
        mixed = self.precision is not torch.float32
        parts = np.array_split(np.arange(len(batch.x)), min(settings.accumulation, len(batch.x)))
        self.optimiser.zero_grad(set_to_none=True)
        found = []
        for part in parts:
            here = slice(int(part[0]), int(part[-1]) + 1)
            last = here.stop == len(batch.x)
            alone = isinstance(self.shown, DistributedDataParallel) and not last
            with self.shown.no_sync() if alone else nullcontext():  # type: ignore[operator]
                with torch.autocast(device.type, self.precision, enabled=mixed):
                    answers = self.shown(batch.x[here])
                each = losses.losses(settings.loss, answers.float(), batch.targets[here])
                loss = (each * batch.weights[here]).sum() / batch.photos
                # DistributedDataParallel takes the processes' mean; what is wanted is their sum.
                self.scaler.scale(loss * world.size).backward()  # type: ignore[no-untyped-call]
            found.append(loss.detach())
        if settings.clip_gradient:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.learner.parameters(), settings.clip_gradient)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        return torch.stack(found).sum()

    def state(self) -> dict[str, Any]:
        """Return what the next epoch goes on from: nested, of tensors and numbers."""
        return {
            "learner": self.learner.state_dict(),
            # Its groups are what params.yaml makes them; the rate in them is the schedule's.
            "optimiser": self.optimiser.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any], epochs: int) -> None:
        """Take up the state after so many epochs."""
        self.learner.load_state_dict(state["learner"])
        weights = [p for group in self.optimiser.param_groups for p in group["params"]]
        moments = {
            number: {key: _laid_out(item, weights[number]) for key, item in values.items()}
            for number, values in state["optimiser"].items()
        }
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.step = epochs * self.steps_an_epoch

    def _features(self, photos: Photos) -> Tensor:
        """Return what the head is shown of each photo: (N, C), on the device."""
        recipe = self.recipe
        rows = recipe.world.share(photos.rows)
        own = features(self.model, photos.pixels, rows, recipe.network_input, recipe.device)
        return recipe.world.gather(own.to(recipe.device), len(photos.rows))

    def _optimiser(self) -> torch.optim.Optimizer:
        settings, block = self.recipe.settings, self.recipe.block
        arguments: dict[str, Any] = dict(settings.optimizer_arguments)
        known = [str(name) for name in list_optimizers()]
        if settings.optimizer not in known:
            raise ValueError(
                f"params.yaml: train.optimizer = {settings.optimizer!r} is no name of timm's; "
                f"choose one of: {', '.join(known)}"
            )
        try:
            # Some that an optimiser does not take, timm leaves out without a word.
            plain = get_optimizer_class(settings.optimizer, bind_defaults=False)
            signature(plain).bind_partial(**arguments)
            # Biases, norms and what the architecture names are spared the decay.
            optimiser: torch.optim.Optimizer = create_optimizer_v2(
                self.model,
                settings.optimizer,
                lr=block.learning_rate,
                weight_decay=settings.weight_decay,
                layer_decay=block.layer_decay if block.layer_decay < 1 else None,
                **arguments,
            )
        except Exception as error:  # noqa: BLE001 - optimisers raise what they please
            raise ValueError(
                f"params.yaml: train.optimizer = {settings.optimizer!r} with optimizer_arguments "
                f"{settings.optimizer_arguments} cannot be used here: {error}; change them"
            ) from None
        return optimiser


def _laid_out(value: Any, like: Tensor) -> Any:  # noqa: ANN401 - an optimiser's state
    """Return a weight's moment in the weight's memory layout: the same bits take the same path."""
    if isinstance(value, Tensor) and value.shape == like.shape:
        return torch.empty_like(like, dtype=value.dtype).copy_(value)
    return value


def _check_finite(found: Floats, epoch: int, rates: Sequence[float]) -> None:
    if not np.isfinite(found).all():
        batch = int(np.argmin(np.isfinite(found)))
        raise ValueError(
            f"the loss is {found[batch]} in epoch {epoch}, batch {batch + 1}, at a learning rate "
            f"of {rates[batch]:.3g}; {REMEDY}"
        )
