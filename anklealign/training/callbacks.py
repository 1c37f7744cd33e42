"""Callbacks that observe a fit: a progress bar, printed lines and timing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import nn
from tqdm import tqdm

from anklealign.config import stage
from anklealign.models import factory
from anklealign.training import resource_estimates
from anklealign.training.history import EpochRecord
from anklealign.training.sampling import LabeledPhotos, even_batches
from anklealign.training.trainer import FitConfig


class Callback:
    """Base class: methods that `loop.fit` calls, each of which does nothing by default."""

    def on_fit_start(
        self,
        model: nn.Module,
        train: LabeledPhotos,
        val: LabeledPhotos,
        config: FitConfig,
        checkpoint: Path | None,
    ) -> None:
        """Run before anything else, with the arguments of the fit."""

    def on_step_end(self) -> None:
        """Run after every optimizer step."""

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Run after every epoch, and once per epoch that a checkpoint restores."""


class ProgressPrinter(Callback):
    """Print model, memory estimate and one line per epoch, under a progress bar.

    Use it as a context manager, which closes the bar, also after an error.
    """

    def __init__(self, name: str, save: Callable[[Sequence[EpochRecord]], None]) -> None:
        """Start without a bar.

        Args:
            name: Of the model, as printed.
            save: Called after every epoch with all epochs so far, for live plots.
        """
        self.name = name
        self.save = save
        self.records: list[EpochRecord] = []
        self.timer = resource_estimates.StepTimer()
        self.epochs = self.steps_per_epoch = self.steps = 0
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        """Return the callback."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def on_fit_start(
        self,
        model: nn.Module,
        train: LabeledPhotos,
        val: LabeledPhotos,
        config: FitConfig,
        checkpoint: Path | None,
    ) -> None:
        """Print the setup, and open the bar."""
        processes = config.process_group.size
        self.epochs = config.model_config.epochs
        self.steps_per_epoch = len(even_batches(len(train.rows), config.train_config.batch_size))
        stage.print_wrapped(
            f"train: {self.name} with {factory.count_parameters(model):,} parameters on "
            f"{len(train.rows)} photos, {len(val.rows)} for validation, on {config.device}"
            + (f" in {processes} processes" if processes > 1 else "")
        )
        if self.epochs:
            print(f"train: {resource_estimates.describe_memory(model, config)}")
        if checkpoint is not None and checkpoint.is_file():
            print(f"train: resuming from {checkpoint}")
        elif config.model_config.head_epochs:
            head_epochs = config.model_config.head_epochs
            print(f"train: fitting the head first, for up to {head_epochs} epochs")
        self.bar = tqdm(
            total=self.epochs * self.steps_per_epoch, unit="step", desc=self.name, disable=None,
            leave=False,
        )  # fmt: skip

    def on_step_end(self) -> None:
        """Advance the bar, and print the expected duration once."""
        self._advance(self.steps + 1)
        step_seconds = self.timer.tick()
        if step_seconds is not None:
            remaining = self.epochs * self.steps_per_epoch - self.steps
            duration = resource_estimates.format_duration(step_seconds * remaining)
            tqdm.write(f"train: at most {duration} remaining, plus validation")

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Print the epoch's losses and scores, and save the epochs so far."""
        self.records.append(record)
        self.save(self.records)
        tqdm.write(
            f"epoch {record.epoch:3d}/{self.epochs}  "
            f"train loss {record.train_loss:.3f}  "
            f"val loss {record.val_loss:.3f}, accuracy {record.val_accuracy:.3f}, "
            f"balanced {record.val_balanced_accuracy:.3f}"
        )
        self._advance(record.epoch * self.steps_per_epoch)

    def _advance(self, steps: int) -> None:
        if self.bar is not None:
            self.bar.update(steps - self.steps)
        self.steps = steps
