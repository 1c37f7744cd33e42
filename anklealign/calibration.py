"""Probabilities that mean what they say, and sets of classes that hold the truth often enough.

Shapes: N photos, K classes. Both are fitted on validation photos. Temperature scaling is Guo et
al., On Calibration of Modern Neural Networks (2017); it never changes which class comes first. The
prediction sets are split conformal: Sadinle, Lei and Wasserman, Least Ambiguous Set-Valued
Classifiers with Bounded Error Levels (2019). Their promise, the truth in the set for `COVERAGE` of
photos, holds on average over calibration sets for photos exchangeable with those; photos of one
person are not independent, so on a few persons the coverage of one bundle strays further.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import betabinom

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 20.0

# Share of photos whose set holds the truth: what a bundle's threshold is fitted for.
COVERAGE = 0.9

# Two devices may round a probability differently; one that ties with the threshold stays in.
ROUNDING = 1e-6


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Return calibrated probabilities: (N, K) -> (N, K), rows summing to 1."""
    calibrated: Floats = softmax(logits / temperature, axis=1)
    return calibrated


def uncalibrated(calibrated: Floats, temperature: float) -> Floats:
    """Return a model's probabilities before its temperature from those after: (N, K) -> (N, K)."""
    logarithms = np.log(np.maximum(calibrated, np.finfo(np.float64).tiny))
    return probabilities(logarithms, 1 / temperature)


def fit_temperature(logits: Floats, labels: Integers) -> float:
    """Return the temperature of least log loss: (N, K), (N,) -> 0.05 to 20.

    Each photo's target is softened as if every class had been seen once more (Platt,
    Probabilistic Outputs for Support Vector Machines (1999), section 2.2): a model without a
    mistake on a few validation photos would otherwise become infinitely sure.
    """
    photos, classes = logits.shape
    targets = np.full((photos, classes), 1 / (photos + classes))
    targets[np.arange(photos), labels] += photos / (photos + classes)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float((targets * scaled).sum(1).mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def fit_conformal(probabilities: Floats, labels: Integers, coverage: float) -> float:
    """Return the probability from which on a class is in a photo's set: (N, K), (N,) -> 0 to 1.

    It is the floor((N + 1)(1 - coverage))-th smallest probability that a photo's own class got.
    With fewer than coverage / (1 - coverage) photos there is none: 0, every class is in each set.
    """
    own = np.sort(probabilities[np.arange(len(labels)), labels])
    rank = _rank(len(labels), coverage)
    return max(float(own[rank - 1]) - ROUNDING, 0.0) if rank else 0.0


def prediction_sets(probabilities: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """Return which classes are in each photo's set: (N, K) -> (N, K).

    A set of several classes says which ones the model cannot tell apart; an empty one that no class
    is as sure as the truth usually is. Either way the model had better abstain.
    """
    sets: npt.NDArray[np.bool_] = probabilities >= threshold
    return sets


def abstains(sets: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return whether the model abstains: not exactly one class in the set: (N, K) -> (N,)."""
    return np.asarray(sets.sum(1) != 1)


def spelled(sets: npt.NDArray[np.bool_], classes: Sequence[str]) -> list[str]:
    """Return each set's classes in their order, joined by |; '' for an empty set: (N, K) -> N."""
    return ["|".join(name for name, held in zip(classes, row, strict=True) if held) for row in sets]


def coverage_range(
    calibration_photos: int, photos: int, coverage: float, confidence: float
) -> tuple[float, float]:
    """Return between which shares of `photos` the sets should hold the truth.

    After a threshold on n photos, the truths held among others follow a beta-binomial law with
    n + 1 - r and r, r the rank of `fit_conformal` (Vovk, Conditional Validity of Inductive
    Conformal Predictors (2012)). It takes photos as exchangeable; those of few persons stray
    further. A model that gives many photos equal probabilities holds more.
    """
    rank = _rank(calibration_photos, coverage)
    if not rank or not photos:
        return 1.0, 1.0
    law = betabinom(photos, calibration_photos + 1 - rank, rank)
    low, high = law.ppf([(1 - confidence) / 2, (1 + confidence) / 2]) / photos
    return float(low), float(high)


def _rank(photos: int, coverage: float) -> int:
    # 10 x (1 - 0.9) is 0.9999… in doubles.
    return int(np.floor((photos + 1) * (1 - coverage) + 1e-9))
