"""Calibrate probabilities by temperature scaling, and fit conformal prediction sets.

Shapes: N photos, K classes, G groups. Both are fitted on the validation split. Temperature scaling
follows Guo et al., On Calibration of Modern Neural Networks (2017); it never changes the predicted
class. The prediction sets are conformal: Sadinle, Lei and Wasserman, Least Ambiguous Set-Valued
Classifiers with Bounded Error Levels (2019).

Photos of different groups are not exchangeable, but groups are. The controlled quantity is the
share of a new group's photos whose set does not contain the true class, by conformal risk control
(Angelopoulos, Bates, Fisch, Lei and Schuster, Conformal Risk Control (2024)). The guarantee is
marginal: it holds on average over splits of G groups. The coverage of one bundle varies around it;
`coverage_range` estimates by how much.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0

# Nominal coverage: share of a new group's photos whose set contains the true class.
COVERAGE = 0.9

# Two devices may round a probability differently; one that ties with the threshold is included.
ROUNDING = 1e-6


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Return calibrated probabilities: (N, K) -> (N, K), rows summing to 1."""
    calibrated: Floats = softmax(logits / temperature, axis=1)
    return calibrated


def undo_temperature(calibrated: Floats, temperature: float) -> Floats:
    """Return the probabilities before temperature scaling: (N, K) -> (N, K)."""
    logarithms = np.log(np.maximum(calibrated, np.finfo(np.float64).tiny))
    return probabilities(logarithms, 1 / temperature)


def fit_temperature(logits: Floats, labels: Integers) -> float:
    """Fit the temperature that minimizes the log loss: (N, K), (N,) -> 0.05 to 20.

    Targets are smoothed as if each class occurred once more (Platt, Probabilistic Outputs for
    Support Vector Machines (1999), section 2.2). Without this, a model that makes no error on a
    small validation split would get infinite confidence.
    """
    photos, classes = logits.shape
    targets = np.full((photos, classes), 1 / (photos + classes))
    targets[np.arange(photos), labels] += photos / (photos + classes)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float((targets * scaled).sum(1).mean())

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    optimum = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(optimum.x))


def nominal_coverage(groups: int) -> float:
    """Return the coverage that a number of calibration groups can guarantee: COVERAGE from 9 on.

    A new group may be the hardest of G + 1, so the guaranteed miss rate is at least 1 / (G + 1).
    """
    return min(COVERAGE, groups / (groups + 1))


def fit_conformal(probabilities: Floats, labels: Integers, groups: Sequence[str]) -> float:
    """Fit the probability threshold of the prediction sets: (N, K), (N,), (N,).

    The threshold is the largest at which the groups' miss rates sum to at most
    (1 - c) (G + 1) - 1, where c is the `nominal_coverage`. If each photo is its own group, this is
    the floor((N + 1)(1 - c))-th smallest probability of a true class.
    """
    return _threshold(
        true_class_probabilities(probabilities, labels), pd.factorize(np.asarray(groups))[0]
    )


def true_class_probabilities(probabilities: Floats, labels: Integers) -> Floats:
    """Return the probability of each photo's true class: (N, K), (N,) -> (N,)."""
    selected: Floats = probabilities[np.arange(len(labels)), labels]
    return selected


def _threshold(true_class: Floats, groups: Integers) -> float:
    """Return the threshold of `fit_conformal` from true class probabilities (N,) and codes (N,)."""
    sizes = np.bincount(groups)
    order = np.argsort(true_class, kind="stable")
    ordered = true_class[order]
    shares = 1 / sizes[groups[order]]
    missed = (np.cumsum(shares) - shares)[np.searchsorted(ordered, ordered)]
    allowed = (1 - nominal_coverage(len(sizes))) * (len(sizes) + 1) - 1
    last = np.searchsorted(missed, allowed + 1e-9, side="right") - 1
    return max(float(ordered[last]) - ROUNDING, 0.0)


def prediction_sets(probabilities: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """Return the classes in each photo's prediction set: (N, K) -> (N, K).

    A set of several classes lists those that the model cannot distinguish. An empty set means that
    no class is as probable as true classes usually are. The model abstains in both cases.
    """
    sets: npt.NDArray[np.bool_] = probabilities >= threshold
    return sets


def abstains(sets: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return True where the model abstains, that is, the set is not one class: (N, K) -> (N,)."""
    return np.asarray(sets.sum(1) != 1)


def format_sets(sets: npt.NDArray[np.bool_], classes: Sequence[str]) -> list[str]:
    """Return each set's classes joined by |, or '' for an empty set: (N, K) -> N strings."""
    return ["|".join(classes[k] for k in np.flatnonzero(row).tolist()) for row in sets]


def coverage_range(
    true_class: Floats,
    groups: Sequence[str],
    calibration: int,
    *,
    confidence: float,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """Return the range of coverage expected from the random choice of calibration groups.

    Each draw reassigns the groups at random to the calibration and the test split and refits the
    threshold. The range is what splits of this size give if neither is harder than the other.

    Args:
        true_class: (N,) probability of each photo's true class, in both splits.
        groups: (N,) group of each photo.
        calibration: Number of the G groups that the threshold is fitted on.
        confidence: Share of draws inside the range, such as 0.95.
        draws: Number of random reassignments.
        seed: Seed of the reassignments.
    """
    codes, names = pd.factorize(np.asarray(groups), sort=True)
    generator = np.random.default_rng(seed)
    shares = []
    for _ in range(draws):
        fit = np.isin(codes, generator.permutation(len(names))[:calibration])
        threshold = _threshold(true_class[fit], pd.factorize(codes[fit])[0])
        shares.append((true_class[~fit] >= threshold).mean())
    low, high = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
