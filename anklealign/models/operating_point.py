"""Choose the probability from which a photo counts as positive, on the validation photos.

A class that matters more than the others (the rare finding, the defect) is not always best
predicted by the largest probability: a missed one and a false alarm cost differently. The dataset
config names the class and what is asked of the decision; the threshold is chosen once, on
validation, and is part of the bundle.

Shapes: N photos, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anklealign.config.params import OperatingTarget

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

RECORD = "operating_point"  # key of a bundle's record
# Two devices may round a probability differently; one that ties with the threshold is on its side.
ROUNDING = 1e-6


@dataclass(frozen=True)
class OperatingPoint:
    """A class and the probability of it from which a photo counts as this class.

    Attributes:
        positive: Name of the class.
        threshold: Calibrated probability, 0 to 1.
        target: sensitivity, specificity or cost_ratio.
        goal: The value of the target.
    """

    positive: str
    threshold: float
    target: str
    goal: float

    def flags(self, probabilities: Floats, classes: Sequence[str]) -> Booleans:
        """Return whether photos count as positive: (N, K) -> (N,)."""
        return np.asarray(probabilities[:, list(classes).index(self.positive)] >= self.threshold)

    def classes_of(self, probabilities: Floats, classes: Sequence[str]) -> list[str]:
        """Return each photo's class at this point: (N, K) -> N names.

        The positive class from its threshold on, otherwise the most probable of the others.
        """
        others = probabilities.copy()
        others[:, list(classes).index(self.positive)] = -1
        return [
            self.positive if flag else classes[k]
            for flag, k in zip(
                self.flags(probabilities, classes), others.argmax(1).tolist(), strict=True
            )
        ]


def choose(
    target: OperatingTarget, probabilities: Floats, labels: Sequence[str], classes: Sequence[str]
) -> OperatingPoint:
    """Return the operating point that reaches a target on new photos like the validation photos.

    A sensitivity or specificity is reached on average over validation splits of this size, by the
    rank of split conformal prediction. With too few photos for the goal, the threshold is beyond
    all of them, and the goal is not guaranteed. A cost ratio r needs no search: calibrated
    probabilities cost least with the threshold 1 / (1 + r) (Elkan, The Foundations of
    Cost-Sensitive Learning (2001)).

    Args:
        target: The class and the goal.
        probabilities: (N, K) calibrated probabilities of the validation photos.
        labels: Their classes.
        classes: K names.
    """
    own = probabilities[:, list(classes).index(target.positive)]
    positive = np.array([label == target.positive for label in labels])
    if target.sensitivity is not None:
        ranked = np.sort(own[positive])
        missed = math.floor((len(ranked) + 1) * (1 - target.sensitivity) + ROUNDING)
        threshold = ranked[max(missed, 1) - 1] - ROUNDING
        name, goal = "sensitivity", target.sensitivity
    elif target.specificity is not None:
        ranked = np.sort(own[~positive])
        passed = math.ceil((len(ranked) + 1) * target.specificity - ROUNDING)
        threshold = ranked[min(passed, len(ranked)) - 1] + ROUNDING
        name, goal = "specificity", target.specificity
    else:
        name, goal = "cost_ratio", target.cost_ratio or 0.0
        threshold = 1 / (1 + goal)
    return OperatingPoint(target.positive, round(float(min(max(threshold, 0), 1)), 6), name, goal)


def record(point: OperatingPoint) -> dict[str, Any]:
    """Return what a bundle's record holds of a point."""
    return asdict(point)


def from_record(bundle_record: Mapping[str, Any]) -> OperatingPoint | None:
    """Return the operating point of a bundle's record, if it has one."""
    values = bundle_record.get(RECORD)
    return OperatingPoint(**values) if values else None
