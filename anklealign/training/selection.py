"""Choose among model configs by cross-validation on the training photos, within a budget.

Shapes: N photos, K classes.

A candidate's score is that of photos that it has not seen: for each fold, it is fitted to the other
folds and calibrated by the validation split, which also selects its epoch, as in the run that
follows. The cost is counted in image passes, not in time, so that the choice depends on no machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anklealign.config.params import Model
from anklealign.metrics.scores import LOWER_IS_BETTER
from anklealign.training import resource_estimates

FOLDS = 4
FEWEST_FOLDS = 3  # a candidate's own cross-validation, inside a fold's training photos, needs two
TRAINING = 3  # image passes of a training step for each photo: forward, and twice that backward
OVER_BUDGET = "over budget"
SIDE = 224  # px, of the image that one pass counts; another size counts by its area


@dataclass(frozen=True)
class TrialCost:
    """Image passes of a candidate's cross-validation, and of the run that follows if chosen."""

    cross_validation: int
    run: int


@dataclass(frozen=True)
class Trial:
    """A candidate, its cost, and its cross-validated scores; none if it was over budget."""

    name: str
    cost: TrialCost
    scores: Mapping[str, float] = field(default_factory=dict)

    def describe(self, monitor: str) -> str:
        """Return the cross-validated scores in words."""
        shown = dict.fromkeys((monitor, "accuracy", "balanced_accuracy"))
        scores = ", ".join(f"{name} {self.scores[name]:.3f}" for name in shown)
        return f"{self.name} on folds of train: {scores}"


def image_passes(config: Model, train: int, val: int, repeats: int) -> TrialCost:
    """Return the cost of a candidate; an upper bound, as a fit may stop early.

    Args:
        config: The candidate.
        train: Number of training photos.
        val: Number of validation photos.
        repeats: Number of seeds of the run.
    """
    if config.head_alone:
        cost = (train + val, 0)  # features are computed once
    else:
        part = train * (FOLDS - 1) // FOLDS
        cross_validation = FOLDS * (_fit_passes(config, part, val) + val) + train
        run = (repeats if config.epochs else 1) * (_fit_passes(config, train, val) + train + val)
        features = train + val if config.head_epochs or config.logistic_regression else 0
        cost = (features + cross_validation, run)
    scale = (config.image_size / SIDE) ** 2
    return TrialCost(*(int(np.ceil(passes * scale)) for passes in cost))


def _fit_passes(config: Model, train: int, val: int) -> int:
    return config.epochs * (TRAINING * train + val)


def plan(costs: Mapping[str, TrialCost], budget: int) -> list[str]:
    """Return the candidates that fit into the budget, cheapest first.

    The passes of a candidate are those of its cross-validation, of those before it, and of its run.
    The cheapest candidate is always one of them.
    """
    spent = 0
    names: list[str] = []
    for name in sorted(costs, key=lambda key: costs[key].cross_validation + costs[key].run):
        cost = costs[name]
        if not names or spent + cost.cross_validation + cost.run <= budget:
            names.append(name)
            spent += cost.cross_validation
    return names


def best(trials: list[Trial], monitor: str) -> Trial:
    """Return the trial with the best score, the first of equal ones."""
    sign = 1.0 if monitor in LOWER_IS_BETTER else -1.0
    return min((t for t in trials if t.scores), key=lambda trial: sign * trial.scores[monitor])


def describe(
    planned: Sequence[str], costs: Mapping[str, TrialCost], budget: int, speed: float
) -> str:
    """Return which candidates are compared, at what cost, in words.

    Args:
        planned: Names of the candidates within the budget.
        costs: Cost of each candidate.
        budget: In image passes.
        speed: Image passes per second of this machine.
    """
    passes = sum(costs[name].cross_validation for name in planned)
    passes += max(costs[name].run for name in planned)
    skipped = [f"{name} needs more" for name in costs if name not in planned]
    duration = resource_estimates.format_duration(passes / speed)
    return (
        f"train: auto compares {', '.join(planned)} on folds of train and trains the best one: up "
        f"to {passes:,} image passes of the budget of {budget:,}, about {duration} here"
        + (f"; {', '.join(skipped)}" if skipped else "")
    )


def record(trials: Sequence[Trial], chosen: str) -> dict[str, Any]:
    """Return the candidates and their scores for the record of a run."""
    return {
        "candidates": {
            trial.name: {
                "image_passes": trial.cost.cross_validation + trial.cost.run,
                "status": "chosen" if trial.name == chosen else "" if trial.scores else OVER_BUDGET,
                **trial.scores,
            }
            for trial in trials
        }
    }
