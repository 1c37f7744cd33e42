"""Probabilities that mean what they say, and sets of classes that hold the truth often enough.

Shapes: N photos, K classes, G groups (persons). Both are fitted on validation photos. Temperature
scaling is Guo et al., On Calibration of Modern Neural Networks (2017); it never changes which class
comes first. The prediction sets are conformal: Sadinle, Lei and Wasserman, Least Ambiguous
Set-Valued Classifiers with Bounded Error Levels (2019).

Photos of one person are not exchangeable with another's, persons are. So what is controlled is the
share of a new person's photos whose set lacks the truth, by conformal risk control (Angelopoulos,
Bates, Fisch, Lei and Schuster, Conformal Risk Control (2024)). Its promise holds on average over
parts of G persons; the coverage of one bundle strays around it, as `coverage_range` tells.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 20.0

# Share of a new person's photos whose set holds the truth: what a bundle's threshold is fitted for.
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


def promised(groups: int) -> float:
    """Return the coverage that so many calibration groups can promise: COVERAGE from 9 on.

    A new person may be the worst of G + 1, so that less than 1 / (G + 1) cannot be left out.
    """
    return min(COVERAGE, groups / (groups + 1))


def fit_conformal(probabilities: Floats, labels: Integers, groups: Sequence[str]) -> float:
    """Return the probability from which on a class is in a photo's set: (N, K), (N,), (N,).

    The largest one at which the shares of missed photos, summed over the groups, are at most
    (1 - c) (G + 1) - 1, with c as `promised`. Where each photo is a group, that is the
    floor((N + 1)(1 - c))-th smallest probability that a photo's own class got.
    """
    return _threshold(of_truth(probabilities, labels), pd.factorize(np.asarray(groups))[0])


def of_truth(probabilities: Floats, labels: Integers) -> Floats:
    """Return what each photo's own class got: (N, K), (N,) -> (N,)."""
    own: Floats = probabilities[np.arange(len(labels)), labels]
    return own


def _threshold(own: Floats, groups: Integers) -> float:
    """Return `fit_conformal`'s of what each photo's own class got: (N,), (N,) from 0 on."""
    sizes = np.bincount(groups)
    order = np.argsort(own, kind="stable")
    shares = 1 / sizes[groups[order]]
    missed = (np.cumsum(shares) - shares)[np.searchsorted(own[order], own[order])]
    allowed = (1 - promised(len(sizes))) * (len(sizes) + 1) - 1
    last = np.searchsorted(missed, allowed + 1e-9, side="right") - 1
    return max(float(own[order][last]) - ROUNDING, 0.0)


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
    own: Floats,
    groups: Sequence[str],
    calibration: int,
    *,
    confidence: float,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """Return between which shares of other photos the sets hold the truth when chance decides.

    Groups are exchanged between calibration and the others at random and the threshold is fitted
    anew each time: what parts of so few persons give when neither is the harder one.

    Args:
        own: (N,) what each photo's own class got, in both parts.
        groups: (N,).
        calibration: How many of the G groups the threshold is fitted on.
        confidence: Of the range, such as 0.95.
        draws: Random exchanges.
        seed: Of them.
    """
    codes, names = pd.factorize(np.asarray(groups), sort=True)
    generator = np.random.default_rng(seed)
    shares = []
    for _ in range(draws):
        fit = np.isin(codes, generator.permutation(len(names))[:calibration])
        threshold = _threshold(own[fit], pd.factorize(codes[fit])[0])
        shares.append((own[~fit] >= threshold).mean())
    low, high = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
