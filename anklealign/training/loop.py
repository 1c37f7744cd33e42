"""Fits a network to labelled photos and keeps its best epoch's weights.

Shapes: N photos, K classes. The same seed gives the same weights on one machine, whether the fit
was interrupted or not: bit by bit on a CPU, and on a GPU as far as PyTorch has deterministic
kernels.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anklealign.metrics.scores import LESS_IS_BETTER, OVERALL, further_scores, point_scores
from anklealign.models import calibration
from anklealign.models.inputs import Floats
from anklealign.training import checkpoints, losses
from anklealign.training.sampling import Photos
from anklealign.training.trainer import REMEDY, Recipe, Trainer


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training photos came to.

    Epoch 0 is what there is before the first: a head that learned alone, or ImageNet's.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_macro_f1: float
    learning_rate: float
    monitored: float


@dataclass(frozen=True)
class Fit:
    """How a fit went: the network holds the weights of `best_epoch`, whose monitored score it was.

    Without epochs there is nothing to fit: epoch 0, no score.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    best_score: float | None

    @property
    def epochs(self) -> int:
        """How many there were; what comes before epoch 1 is left out."""
        return self.history[-1].epoch if self.history else 0


Report = Callable[[Epoch | None], None]


@contextmanager
def reproducible(seed: int, *, deterministic: bool = True) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels for a while.

    A kernel that has no deterministic form warns: a result that differs in the last digit is better
    than none.
    """
    # cuBLAS reads it when it starts: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    tried = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(mode=deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(mode=before, warn_only=warned)
        torch.backends.cudnn.benchmark = tried


def fit(
    model: nn.Module,
    train: Photos,
    validation: Photos,
    recipe: Recipe,
    report: Report = lambda _: None,
    *,
    checkpoint: Path | None = None,
) -> Fit:
    """Fit a network, which stands on the recipe's device, in place.

    With `head_epochs` the head is fitted on the backbone's features first, as a frozen variant's
    is, and the rest learns from there (LP-FT, Kumar et al., https://arxiv.org/abs/2202.10054: a
    random head's gradients would distort the features). What that comes to, or with `imagenet_head`
    the network as it starts, is epoch 0, and is kept where no later epoch is better.

    Args:
        model: With K outputs.
        train: Photos to learn from.
        validation: Photos to choose the epoch by.
        recipe: How.
        report: Called after each step with None and after each epoch with its record; for epochs
            that the checkpoint holds, at once and without steps.
        checkpoint: File to go on from where there is one, and to keep up to date.

    Raises:
        ValueError: The loss is not finite, the GPU's memory does not suffice, the optimiser is
            unknown, or the checkpoint is damaged.
        OSError: The checkpoint cannot be written.
    """
    block, settings = recipe.block, recipe.settings
    if not block.epochs:
        return Fit((), 0, None)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    try:
        trainer, course = _begun(model, train, validation, recipe, checkpoint)
        trainer.stepped = lambda: report(None)
        for done in course.history:
            report(done)
        for epoch in range(course.fit().epochs + 1, block.epochs + 1):
            if course.history and epoch - 1 - course.best_epoch >= settings.patience:
                break
            course.take(_epoch(trainer, epoch), settings.monitor, trainer.learner)
            if checkpoint is not None and recipe.world.rank == 0:
                checkpoints.save(checkpoint, trainer.state() | asdict(course))
            report(course.history[-1])
    except torch.OutOfMemoryError:
        raise ValueError(
            f"the memory of {recipe.device} does not suffice for train.batch_size = "
            f"{settings.batch_size} at image_size = {block.image_size}; raise train.accumulation, "
            "or lower one of them"
        ) from None
    trainer.learner.load_state_dict(course.best)
    return course.fit()


@dataclass
class _Course:
    """The epochs so far, and the weights of the best of them."""

    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: float = math.nan
    best_rank: tuple[float, float] = (-math.inf, -math.inf)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "_Course":
        """Return the course that a checkpoint holds."""
        known = {name: state[name] for name in ("best", "best_epoch", "best_score")}
        history = [Epoch(**values) for values in state["history"]]
        return cls(history, **known, best_rank=tuple(state["best_rank"]))

    def fit(self) -> Fit:
        """Return how it went so far."""
        return Fit(tuple(self.history), self.best_epoch, self.best_score)

    def take(self, epoch: Epoch, monitor: str, learner: nn.Module) -> None:
        """Add an epoch; keep the learner's weights if it is the best."""
        self.history.append(epoch)
        # On some fifty photos scores tie often; the loss then says which epoch is better.
        score = epoch.monitored
        rank = (-score if monitor in LESS_IS_BETTER else score), -epoch.val_loss
        if rank > self.best_rank or not self.best:
            self.best_rank, self.best_epoch, self.best_score = rank, epoch.epoch, score
            self.best = {
                name: tensor.detach().cpu().clone() for name, tensor in learner.state_dict().items()
            }


def _finite(answers: Floats, epoch: int, rate: float) -> Floats:
    """Return photos' logits: (N, K).

    Raises:
        ValueError: One is not finite, as when an epoch's last step broke the weights.
    """
    if not np.isfinite(answers).all():
        if not epoch:
            raise ValueError(
                "the answers are not finite before the first epoch: the weights are broken; "
                "give a file of others by weights and weights_sha256 in the model's block"
            )
        raise ValueError(
            f"the validation loss is not finite after epoch {epoch}, at a learning rate of "
            f"{rate:.3g}; {REMEDY}"
        )
    return answers


def _begun(
    model: nn.Module, train: Photos, validation: Photos, recipe: Recipe, checkpoint: Path | None
) -> tuple[Trainer, _Course]:
    """Return what goes on, and the epochs so far: the checkpoint's, or epoch 0, or none."""
    state = _saved(recipe, checkpoint)
    before = None
    if recipe.block.head_epochs and state is None:
        before = _fit_head(model, train, validation, recipe, checkpoint)
    trainer = Trainer(model, train, validation, recipe)
    if recipe.block.imagenet_head and state is None:
        before = _judged(trainer, 0, _loss_at_start(trainer))
    course = _Course() if state is None else _Course.of(state)
    if state is not None:
        trainer.load(state, course.fit().epochs)
    if before is not None:
        course.take(before, recipe.settings.monitor, trainer.learner)
    return trainer, course


def _epoch(trainer: Trainer, number: int) -> Epoch:
    """Learn from every training photo once; score the validation photos."""
    return _judged(trainer, number, trainer.run(number))


def _loss_at_start(trainer: Trainer) -> float:
    """Return the mean loss of the training photos as they are, by the loss that is learned by."""
    answers = torch.from_numpy(_finite(trainer.answers(trainer.train), 0, 0.0)).float()
    targets, weights = trainer.targets.cpu(), trainer.weights.cpu()
    each = losses.losses(trainer.recipe.settings.loss, answers, targets) * weights
    return float(each.mean())


def _judged(trainer: Trainer, number: int, train_loss: float) -> Epoch:
    """Score the validation photos."""
    monitor, photos = trainer.recipe.settings.monitor, trainer.validation
    labels = photos.labels
    found = calibration.probabilities(_finite(trainer.answers(photos), number, trainer.rate), 1.0)
    scores = point_scores(labels, found)
    if monitor not in OVERALL:
        scores |= further_scores(labels, found)
    return Epoch(
        epoch=number,
        train_loss=train_loss,
        val_loss=scores["log_loss"],
        val_accuracy=scores["accuracy"],
        val_balanced_accuracy=scores["balanced_accuracy"],
        val_macro_f1=scores["macro_f1"],
        learning_rate=trainer.rate,
        monitored=scores[monitor],
    )


def _saved(recipe: Recipe, path: Path | None) -> dict[str, Any] | None:
    """Return what the checkpoint holds, if there is one.

    Raises:
        ValueError: It is damaged, or the processes see different ones.
    """
    state: dict[str, Any] | None = None if path is None else checkpoints.load(path)
    epochs = 0 if state is None else len(state["history"])
    seen = recipe.world.add(torch.tensor([float(epochs)], device=recipe.device))
    if float(seen) != epochs * recipe.world.size:
        raise ValueError(
            f"the processes do not see the same {path}; run them in one folder that all hosts "
            "share, or remove it everywhere"
        )
    return state


def _fit_head(
    model: nn.Module, train: Photos, validation: Photos, recipe: Recipe, checkpoint: Path | None
) -> Epoch:
    """Fit the head alone on the features of the network as it is; return its best epoch as 0."""
    block = recipe.block
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    head_alone = replace(
        block, frozen=True, last_blocks=0, imagenet_head=False, head_epochs=0,
        head_learning_rate=0.0, epochs=block.head_epochs, learning_rate=block.head_learning_rate,
    )  # fmt: skip
    place = None if checkpoint is None else checkpoints.of_the_head(checkpoint)
    try:
        found = fit(model, train, validation, replace(recipe, block=head_alone), checkpoint=place)
    except ValueError as error:
        message = str(error).replace("the model's learning_rate", "head_learning_rate")
        if message == str(error):  # of something else than the rate
            raise
        raise ValueError(f"while the head learned alone: {message}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns[name])
    return replace(found.history[found.best_epoch - 1], epoch=0)
