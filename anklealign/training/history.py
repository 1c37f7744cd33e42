"""The epochs of a fit so far, and the weights of the best one."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from anklealign.metrics.scores import LOWER_IS_BETTER


@dataclass(frozen=True)
class EpochRecord:
    """Losses and validation scores of one epoch; `monitored` is the score that ranks epochs.

    Epoch 0 is the state before the first epoch: a separately fitted head, or ImageNet's.
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
class FitResult:
    """The epochs of a finished fit, and the epoch whose weights the network holds.

    A fit of zero epochs has best epoch 0 and no score.
    """

    records: tuple[EpochRecord, ...]
    best_epoch: int
    best_score: float | None

    @property
    def epochs(self) -> int:
        """Return the number of epochs; epoch 0 does not count."""
        return self.records[-1].epoch if self.records else 0


@dataclass
class History:
    """Epochs so far, ranked by the score `monitor` and then by validation loss.

    The loss breaks ties, which are frequent with some fifty validation photos.
    """

    monitor: str
    records: list[EpochRecord] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: float = math.nan
    best_rank: tuple[float, float] = (-math.inf, -math.inf)

    @property
    def last_epoch(self) -> int:
        """Return the number of the last epoch, or 0."""
        return self.records[-1].epoch if self.records else 0

    def append(self, record: EpochRecord, learner: nn.Module) -> None:
        """Add an epoch, and copy the learner's weights if it is the best so far."""
        self.records.append(record)
        score = record.monitored
        rank = (-score if self.monitor in LOWER_IS_BETTER else score), -record.val_loss
        if rank > self.best_rank or not self.best_weights:
            self.best_rank, self.best_epoch, self.best_score = rank, record.epoch, score
            self.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in learner.state_dict().items()
            }

    def result(self) -> FitResult:
        """Return the result of a fit that ends here."""
        return FitResult(tuple(self.records), self.best_epoch, self.best_score)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {
            "records": [asdict(record) for record in self.records],
            "best_weights": self.best_weights,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "best_rank": self.best_rank,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what a checkpoint stores."""
        self.records = [EpochRecord(**values) for values in state["records"]]
        self.best_weights = dict(state["best_weights"])
        self.best_epoch, self.best_score = state["best_epoch"], state["best_score"]
        self.best_rank = state["best_rank"]
