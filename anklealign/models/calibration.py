"""Calibrate probabilities by a temperature and a class bias, and fit conformal prediction sets.

Shapes: N photos, K classes, G groups. All are fitted on the validation split. Temperature scaling
follows Guo et al., On Calibration of Modern Neural Networks (2017). The class bias corrects the
class frequencies: a loss with balanced classes gives rare classes probabilities as if all classes
were equally frequent (Saerens, Latinne and Decaestecker, Adjusting the Outputs of a Classifier to
New a Priori Probabilities (2002)). The prediction sets are conformal: Sadinle, Lei and Wasserman,
Least Ambiguous Set-Valued Classifiers with Bounded Error Levels (2019).

Photos of different groups are not exchangeable, but groups are. The controlled quantity is the
share of a new group's photos whose set does not contain the true class, by conformal risk control
(Angelopoulos, Bates, Fisch, Lei and Schuster, Conformal Risk Control (2024)). The guarantee is
marginal: it holds on average over splits of G groups. The coverage of one bundle varies around it;
`coverage_range` estimates by how much.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax, softmax

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BIAS_SD = 0.5  # how far the multiple of the class bias is expected to be from 0 or 1
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0

# Nominal coverage: share of a new group's photos whose set contains the true class.
COVERAGE = 0.9

# Two devices may round a probability differently; one that ties with the threshold is included.
ROUNDING = 1e-6


def probabilities(logits: Floats, temperature: float, bias: Sequence[float] = ()) -> Floats:
    """Return calibrated probabilities: (N, K) -> (N, K), rows summing to 1; bias (K,) or none."""
    calibrated: Floats = softmax(logits / temperature + (np.array(bias) if bias else 0.0), axis=1)
    return calibrated


def undo(calibrated: Floats, temperature: float, bias: Sequence[float] = ()) -> Floats:
    """Return the probabilities before calibration: (N, K) -> (N, K)."""
    logarithms = np.log(np.maximum(calibrated, np.finfo(np.float64).tiny))
    return probabilities(logarithms - (np.array(bias) if bias else 0.0), 1 / temperature)


def fit(
    logits: Floats, labels: Integers, frequencies: Floats, *, balanced: bool
) -> tuple[float, tuple[float, ...]]:
    """Fit the temperature and the class bias: (N, K), (N,), (K,) -> temperature, (K,).

    The bias is a multiple, from 0 to 1, of the logarithms of the class frequencies, shifted to mean
    0. It is one number, so that few validation photos determine it, and it is drawn to the value
    that holds for an exact fit: 1 after training with balanced classes, otherwise 0.

    Args:
        logits: Of the validation photos.
        labels: Their classes.
        frequencies: Class frequencies in train.
        balanced: Whether training gave all classes the same weight.
    """
    logarithms = np.log(frequencies)
    direction = logarithms - logarithms.mean()
    expected = 1.0 if balanced else 0.0
    if not np.abs(direction).max() > ROUNDING:
        return fit_temperature(logits, labels), ()

    def loss(multiple: float) -> float:
        bias = tuple(multiple * direction)
        fitted = probabilities(logits, fit_temperature(logits, labels, bias), bias)
        penalty = ((multiple - expected) / BIAS_SD) ** 2 / 2 / len(labels)
        return -float((_smoothed(labels, logits) * np.log(fitted)).sum(1).mean()) + penalty

    multiple = _minimum(loss, 0.0, 1.0)
    bias = tuple((multiple * direction).tolist())
    return fit_temperature(logits, labels, bias), bias


def _smoothed(labels: Integers, logits: Floats) -> Floats:
    """Return the targets of `fit_temperature`: (N,), (N, K) -> (N, K)."""
    photos, classes = logits.shape
    targets = np.full((photos, classes), 1 / (photos + classes))
    targets[np.arange(photos), labels] += photos / (photos + classes)
    return targets


def fit_temperature(logits: Floats, labels: Integers, bias: Sequence[float] = ()) -> float:
    """Fit the temperature that minimizes the log loss: (N, K), (N,) -> 0.05 to 20.

    Targets are smoothed as if each class occurred once more (Platt, Probabilistic Outputs for
    Support Vector Machines (1999), section 2.2). Without this, a model that makes no error on a
    small validation split would get infinite confidence.
    """
    targets = _smoothed(labels, logits)
    shift = np.array(bias) if bias else 0.0

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature) + shift, axis=1)
        return -float((targets * scaled).sum(1).mean())

    return float(np.exp(_minimum(loss, np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))))


def _minimum(loss: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function of one variable is smallest between two bounds."""
    # The service, which fits nothing, starts faster without it.
    from scipy.optimize import minimize_scalar  # noqa: PLC0415

    return float(minimize_scalar(loss, bounds=(low, high), method="bounded").x)


def nominal_coverage(groups: int) -> float:
    """Return the coverage that a number of calibration groups can guarantee: COVERAGE from 9 on.

    A new group may be the hardest of G + 1, so the guaranteed miss rate is at least 1 / (G + 1).
    """
    return min(COVERAGE, groups / (groups + 1))


def fit_conformal(probabilities: Floats, labels: Integers, groups: Sequence[str]) -> float:
    """Fit the probability threshold of the prediction sets: (N, K), (N,), (N,).

    The threshold is the largest at which the groups' miss rates sum to at most
    (1 - c) (G + 1) - 1, where c is the `nominal_coverage`. If each photo is its own group, this is
    the floor((N + 1)(1 - c))-th smallest of the `largest_thresholds`.
    """
    return _threshold(
        largest_thresholds(probabilities, labels), pd.factorize(np.asarray(groups))[0]
    )


def largest_thresholds(probabilities: Floats, labels: Integers) -> Floats:
    """Return the largest threshold at which each photo's set has its true class: (N, K) -> (N,).

    This is the probability of the true class; or 1 if it is the predicted class, which is in every
    set.
    """
    true_class = probabilities[np.arange(len(labels)), labels]
    return np.where(probabilities.argmax(1) == labels, 1.0, true_class)


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

    The predicted class is in every set. A set of several classes lists those that the model cannot
    distinguish; there it abstains. Without the predicted class, the sets of a model that is right
    on more than the nominal share would be empty for its less confident photos.
    """
    sets: npt.NDArray[np.bool_] = probabilities >= threshold
    sets[np.arange(len(sets)), probabilities.argmax(1)] = True
    return sets


def abstains(sets: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return True where the model abstains: the set has several classes: (N, K) -> (N,)."""
    return np.asarray(sets.sum(1) > 1)


def format_sets(sets: npt.NDArray[np.bool_], classes: Sequence[str]) -> list[str]:
    """Return each set's classes joined by |: (N, K) -> N strings."""
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
        true_class: (N,) result of `largest_thresholds`, in both splits.
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
