"""Fit a network to labeled photos and keep the weights of its best epoch.

Shapes: N photos, K classes. The same seed gives the same weights on one machine, whether a fit was
interrupted or not: bit by bit on a CPU, and on a GPU as far as PyTorch has deterministic kernels.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anklealign.metrics.scores import OVERALL, further_scores, point_scores
from anklealign.models import calibration
from anklealign.models.input_config import Floats
from anklealign.training import checkpoints, logistic, losses
from anklealign.training.callbacks import Callback
from anklealign.training.distributed import ProcessGroup
from anklealign.training.history import EpochRecord, FitResult, History
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import REMEDY, FitConfig, Trainer


def fit(
    model: nn.Module,
    train: LabeledPhotos,
    val: LabeledPhotos,
    config: FitConfig,
    callback: Callback | None = None,
    *,
    checkpoint: Path | None = None,
) -> FitResult:
    """Fit a network in place; it ends with the weights of the best epoch.

    Args:
        model: Network with K outputs, on the device of the config.
        train: Photos to fit.
        val: Photos that select the best epoch.
        config: Settings of the fit.
        callback: Observer of steps and epochs.
        checkpoint: File to resume from if it exists, and to write after every epoch.

    Raises:
        ValueError: The loss is not finite, the GPU runs out of memory, the optimizer is unknown,
            or the checkpoint is damaged.
        OSError: The checkpoint cannot be written.
    """
    callback = callback or Callback()
    callback.on_fit_start(model, train, val, config, checkpoint)
    settings, epochs = config.train_config, config.model_config.epochs
    if not config.model_config.fitted:
        return FitResult((), 0, None)
    with _explain_out_of_memory(config):
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)
        if not epochs:
            record = _fit_head(model, train, val, config, None)
            callback.on_epoch_end(record)
            return FitResult((record,), 0, record.monitored)
        trainer, history = _start_or_resume(model, train, val, config, checkpoint)
        for record in history.records:
            callback.on_epoch_end(record)

        for epoch in range(history.last_epoch + 1, epochs + 1):
            # Early stopping. Checked first, since a resumed fit may already have reached its end.
            if epoch - 1 - history.best_epoch >= settings.patience:
                break
            trainer.start_epoch(epoch)
            epoch_loss = _EpochLoss()
            for batch in trainer.batches(epoch):
                trainer.optimizer.zero_grad(set_to_none=True)
                micro_losses = []
                for micro_batch in batch.split(settings.gradient_accumulation_steps):
                    with trainer.gradient_sync(micro_batch):
                        logits = trainer.forward(micro_batch.x)
                        loss = trainer.loss(logits, micro_batch)
                        trainer.backward(loss)
                    micro_losses.append(loss.detach())
                trainer.step()
                epoch_loss.add(micro_losses, trainer.learning_rate, batch.num_photos)
                callback.on_step_end()

            train_loss = epoch_loss.mean(epoch, config.process_group)
            record = _validate(trainer, epoch, train_loss)
            history.append(record, trainer.learner)  # copies the weights of the best epoch
            if checkpoint is not None and config.process_group.rank == 0:
                checkpoints.save(checkpoint, trainer.state_dict() | history.state_dict())
            callback.on_epoch_end(record)

        trainer.learner.load_state_dict(history.best_weights)
    return history.result()


def _start_or_resume(
    model: nn.Module,
    train: LabeledPhotos,
    val: LabeledPhotos,
    config: FitConfig,
    checkpoint: Path | None,
) -> tuple[Trainer, History]:
    """Return a trainer and the epochs so far: the checkpoint's, epoch 0, or none.

    With `head_epochs`, the head is fitted on the backbone's features first, as with `frozen`, and
    the whole network starts from there: the gradients of a random head would distort the features
    (LP-FT, Kumar et al., https://arxiv.org/abs/2202.10054). With `logistic_regression`, the head is
    the result of one. The network with that head, or with `imagenet_head`, is epoch 0, and is kept
    if no later epoch is better.
    """
    model_config = config.model_config
    history = History(config.train_config.monitor)
    state = _load_checkpoint(checkpoint, config)
    if state is not None:
        trainer = Trainer(model, train, val, config)
        history.load_state_dict(state)
        trainer.load_state_dict(state, history.last_epoch)
    elif model_config.head_epochs or model_config.logistic_regression:
        record = _fit_head(model, train, val, config, checkpoint)
        trainer = Trainer(model, train, val, config)
        history.append(record, trainer.learner)
    else:
        trainer = Trainer(model, train, val, config)
        if model_config.imagenet_head:
            history.append(_validate(trainer, 0, _initial_loss(trainer)), trainer.learner)
    return trainer, history


def _load_checkpoint(path: Path | None, config: FitConfig) -> dict[str, Any] | None:
    """Return the state in the checkpoint, or None if there is none.

    Raises:
        ValueError: It is damaged, or differs between processes.
    """
    state = None if path is None else checkpoints.load(path)
    epochs = 0 if state is None else len(state["records"])
    group = config.process_group
    total = group.all_reduce(torch.tensor([float(epochs)], device=config.device))
    if float(total) != epochs * group.size:
        raise ValueError(
            f"{path} differs between the processes; run them in one folder that all hosts share, "
            "or remove the file on every host"
        )
    return state


def _fit_head(
    model: nn.Module,
    train: LabeledPhotos,
    val: LabeledPhotos,
    config: FitConfig,
    checkpoint: Path | None,
) -> EpochRecord:
    """Fit the head on the features of the frozen backbone; return its state as epoch 0."""
    model_config = config.model_config
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    alone = replace(
        model_config, frozen=True, unfreeze_last_n=0, imagenet_head=False, head_epochs=0,
        head_learning_rate=0.0, logistic_regression=False, epochs=model_config.head_epochs or 1,
        learning_rate=model_config.head_learning_rate or 1.0,
    )  # fmt: skip
    head_config = replace(config, model_config=alone)
    if model_config.logistic_regression:
        record = _fit_logistic_regression(model, train, val, head_config)
    else:
        record = _fit_head_epochs(model, train, val, head_config, checkpoint)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable[name])
    return record


def _fit_head_epochs(
    model: nn.Module,
    train: LabeledPhotos,
    val: LabeledPhotos,
    config: FitConfig,
    checkpoint: Path | None,
) -> EpochRecord:
    """Fit the head for `head_epochs`; return its best epoch as epoch 0."""
    path = None if checkpoint is None else checkpoints.head_path(checkpoint)
    try:
        result = fit(model, train, val, config, checkpoint=path)
    except ValueError as error:
        message = str(error).replace("the model's learning_rate", "head_learning_rate")
        if message == str(error):  # the error is not about the learning rate
            raise
        raise ValueError(f"while fitting the head: {message}") from error
    return replace(result.records[result.best_epoch - 1], epoch=0)


def _fit_logistic_regression(
    model: nn.Module, train: LabeledPhotos, val: LabeledPhotos, config: FitConfig
) -> EpochRecord:
    """Fit the head by logistic regression; return its scores as epoch 0.

    Raises:
        ValueError: The network does not end in one linear layer, or the photos have no folds.
    """
    trainer = Trainer(model, train, val, config)
    learner = trainer.learner
    if not trainer.head_alone or not isinstance(learner, nn.Linear):
        raise ValueError(
            f"logistic_regression needs a network that ends in one linear layer, but "
            f"{config.model_config.architecture} does not; use head_epochs, or epochs with frozen"
        )
    if train.folds is None:
        raise ValueError("logistic_regression needs training photos with folds")
    examples = logistic.Examples(
        trainer.train_features, trainer.targets, trainer.weights, train.folds
    )
    layer = logistic.fit(examples, config.train_config.loss)
    with torch.no_grad():
        learner.weight.copy_(layer.weight)
        learner.bias.copy_(layer.bias)
    return _validate(trainer, 0, _initial_loss(trainer))


def _initial_loss(trainer: Trainer) -> float:
    """Return the mean training loss before the first epoch, without augmentation."""
    logits = torch.from_numpy(_require_finite(trainer.predict(trainer.train), 0, 0.0)).float()
    targets, weights = trainer.targets.cpu(), trainer.weights.cpu()
    each = losses.loss_per_photo(trainer.config.train_config.loss, logits, targets)
    return float((each * weights).mean())


def _validate(trainer: Trainer, epoch: int, train_loss: float) -> EpochRecord:
    """Return the epoch's record, with the scores of the validation photos."""
    monitor, labels = trainer.config.train_config.monitor, trainer.val.labels
    logits = _require_finite(trainer.predict(trainer.val), epoch, trainer.learning_rate)
    probabilities = calibration.probabilities(logits, 1.0)
    scores = point_scores(labels, probabilities)
    if monitor not in OVERALL:
        scores |= further_scores(labels, probabilities)
    return EpochRecord(
        epoch=epoch,
        train_loss=train_loss,
        val_loss=scores["log_loss"],
        val_accuracy=scores["accuracy"],
        val_balanced_accuracy=scores["balanced_accuracy"],
        val_macro_f1=scores["macro_f1"],
        learning_rate=trainer.learning_rate,
        monitored=scores[monitor],
    )


def _require_finite(logits: Floats, epoch: int, learning_rate: float) -> Floats:
    """Return logits unchanged: (N, K).

    Raises:
        ValueError: A logit is not finite, for example after an epoch's last step overflowed.
    """
    if np.isfinite(logits).all():
        return logits
    if not epoch:
        raise ValueError(
            "the network's outputs are not finite before the first epoch: its weights are broken; "
            "set weights and weights_sha256 in the model config to another file"
        )
    raise ValueError(
        f"the validation loss is not finite after epoch {epoch}, at a learning rate of "
        f"{learning_rate:.3g}; {REMEDY}"
    )


class _EpochLoss:
    """The losses of an epoch's batches, kept on the device: reading each would stall a GPU."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.learning_rates: list[float] = []
        self.sizes: list[int] = []

    def add(self, micro_losses: list[Tensor], learning_rate: float, num_photos: int) -> None:
        """Add a batch as the losses of its micro-batches in this process."""
        self.losses.append(torch.stack(micro_losses).sum())
        self.learning_rates.append(learning_rate)
        self.sizes.append(num_photos)

    def mean(self, epoch: int, group: ProcessGroup) -> float:
        """Return the mean loss over all photos and processes.

        Raises:
            ValueError: A batch's loss is not finite.
        """
        values = group.all_reduce(torch.stack(self.losses)).cpu().double().numpy()
        if not np.isfinite(values).all():
            batch = int(np.argmin(np.isfinite(values)))
            raise ValueError(
                f"the loss is {values[batch]} in epoch {epoch}, batch {batch + 1}, at a learning "
                f"rate of {self.learning_rates[batch]:.3g}; {REMEDY}"
            )
        return float(np.average(values, weights=self.sizes))


@contextmanager
def _explain_out_of_memory(config: FitConfig) -> Iterator[None]:
    """Convert an out-of-memory error of a GPU into a ValueError that lists the settings to change.

    Raises:
        ValueError: The GPU runs out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise ValueError(
            f"{config.device} ran out of memory with train.batch_size = "
            f"{config.train_config.batch_size} and image_size = {config.model_config.image_size}; "
            "raise train.gradient_accumulation_steps, or lower one of the two"
        ) from None


@contextmanager
def reproducible(seed: int, *, deterministic: bool = True) -> Iterator[None]:
    """Seed torch and select deterministic kernels inside the context.

    An operation without a deterministic kernel warns and runs nevertheless; its result may differ
    in the last digit. Attention in float32 uses PyTorch's math kernel: the backward pass of the
    memory-efficient one has equal bytes only under `warn_only=False` (measured on an H200:
    two fits of ViT-S in float32 differed, in bfloat16 and float16 they were equal).
    """
    # cuBLAS reads it at startup: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    mode = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    efficient_attention = torch.backends.cuda.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.use_deterministic_algorithms(mode=deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cuda.enable_mem_efficient_sdp(efficient_attention and not deterministic)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(mode=mode, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cuda.enable_mem_efficient_sdp(efficient_attention)
