"""Scores of a classifier, of photos that may weigh more or less than one another.

Shapes: N photos, K classes, G groups, B resamples, … any leading shape: a row a resample, where the
weights say how often each photo counts (anklealign/metrics/bootstrap.py).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss")
FURTHER = ("mcc", "kappa", "roc_auc", "average_precision", "brier", "calibration_error")
PER_CLASS = ("precision", "recall", "f1")
RANKED = ("roc_auc", "average_precision")  # overall, and per class one against the rest
LESS_IS_BETTER = ("log_loss", "brier", "calibration_error")

# Below, a probability counts as this: one impossible photo would make the log loss infinite.
# It is scikit-learn's choice too: the resolution of a double.
SMALLEST = float(np.finfo(np.float64).eps)

# Bins of the calibration error and the reliability diagram: as many photos in each, for equal steps
# of probability leave bins of one photo (Roelofs et al., Mitigating Bias in Calibration Error
# Estimation (2022)).
MOST_BINS, PHOTOS_A_BIN = 10, 10


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Count photos: (N,), (N,) -> (K, K), rows the truth, columns the prediction."""
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def scores_of(confusions: npt.NDArray[np.number]) -> dict[str, Floats]:
    """Return the scores of confusion counts: (..., K, K) -> (...) overall, (..., K) per class.

    Means over classes take the classes that have photos, as a resample may lack one. Precision of
    a class that was never predicted is 0, as in scikit-learn. `mcc` is Gorodkin's R_K (2004), 0
    where only one class is predicted; `kappa` Cohen's with quadratic weights (1968), which takes
    the classes as steps of one scale.
    """
    counts = np.asarray(confusions, np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    support = counts.sum(-1)
    predicted = counts.sum(-2)
    total = support.sum(-1)
    present = support > 0
    recall = _ratio(right, support)
    f1 = _ratio(2 * right, support + predicted)
    agreed = right.sum(-1) * total - (support * predicted).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (support**2).sum(-1))
    steps = np.arange(counts.shape[-1])
    far = (steps[:, None] - steps) ** 2
    by_chance = (support[..., :, None] * predicted[..., None, :] * far).sum((-2, -1))
    return {
        "accuracy": _ratio(right.sum(-1), total),
        "balanced_accuracy": _ratio((recall * present).sum(-1), present.sum(-1)),
        "macro_f1": _ratio((f1 * present).sum(-1), present.sum(-1)),
        "weighted_f1": _ratio((f1 * support).sum(-1), total),
        "mcc": _ratio(agreed, np.sqrt(np.maximum(spread, 0))),
        "kappa": np.where(
            by_chance > 0, 1 - _ratio((counts * far).sum((-2, -1)) * total, by_chance), 0
        ),
        "precision": _ratio(right, predicted),
        "recall": recall,
        "f1": f1,
    }


def _ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Floats:
    part = np.asarray(part, np.float64)
    ratio: Floats = np.divide(part, whole, out=np.zeros_like(part), where=np.asarray(whole) > 0)
    return ratio


def log_losses(labels: Integers, probabilities: Floats) -> Floats:
    """Return each photo's negative log probability of its label, in nats: (N,), (N, K) -> (N,)."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(chosen, SMALLEST, 1.0))


def brier_scores(labels: Integers, probabilities: Floats) -> Floats:
    """Return each photo's squared distance to its label: (N,), (N, K) -> (N,), 0 to 2.

    Brier, Verification of Forecasts Expressed in Terms of Probability (1950).
    """
    truth = np.eye(probabilities.shape[1])[labels]
    distances: Floats = ((probabilities - truth) ** 2).sum(1)
    return distances


def bins_of(probabilities: Floats) -> Integers:
    """Return each photo's bin by its largest probability, from 0: (N, K) -> (N,).

    Ten bins of as many photos each, or fewer, so that each has ten photos; equal probabilities
    share a bin.
    """
    sure = probabilities.max(1)
    count = min(MOST_BINS, max(1, len(sure) // PHOTOS_A_BIN))
    edges = np.quantile(sure, np.arange(1, count) / count)
    bins: Integers = np.searchsorted(edges, sure, side="left").astype(np.int64)
    return bins


Weighted = Callable[[Floats], dict[str, Floats]]


def decision_scores(labels: Integers, probabilities: Floats) -> Weighted:
    """Return what scores the predicted classes for weights (..., N): those of `scores_of`."""
    classes = probabilities.shape[1]
    predicted = np.eye(classes)[probabilities.argmax(1)]
    members = [np.flatnonzero(labels == k) for k in range(classes)]

    def weighted(weights: Floats) -> dict[str, Floats]:
        rows = [weights[..., some] @ predicted[some] for some in members]
        return scores_of(np.stack(rows, -2))

    return weighted


def loss_scores(labels: Integers, probabilities: Floats, photos: int) -> Weighted:
    """Return what scores the probabilities for weights (..., M): log loss, Brier, calibration.

    The first N of M rows are photos. The others lose at most what the worst photo loses, or an even
    guess if that is more, and have no say in the calibration error: the mean distance of accuracy
    and largest probability over `bins_of` (Guo et al. 2017), which chance alone keeps from 0.
    """
    classes = probabilities.shape[1]
    even = np.array([np.log(classes), 1 - 1 / classes])
    losses = np.stack([log_losses(labels, probabilities), brier_scores(labels, probabilities)], 1)
    worst = np.maximum(losses[:photos].max(0), even)
    losses[photos:] = np.minimum(losses[photos:], worst)
    labels, probabilities = labels[:photos], probabilities[:photos]
    surplus = (probabilities.argmax(1) == labels) - probabilities.max(1)
    bins = bins_of(probabilities)
    binned = np.eye(bins.max() + 1)[bins] * surplus[:, None]

    def weighted(weights: Floats) -> dict[str, Floats]:
        total = weights.sum(-1)
        log_loss, brier = np.moveaxis(weights @ losses, -1, 0)
        real = weights[..., :photos]
        return {
            "log_loss": _ratio(log_loss, total),
            "brier": _ratio(brier, total),
            "calibration_error": _ratio(np.abs(real @ binned).sum(-1), real.sum(-1)),
        }

    return weighted


def rank_scores(labels: Integers, probabilities: Floats) -> Weighted:
    """Return what scores the order of the probabilities for weights (..., N).

    One class against the rest: (..., K) `class_roc_auc`, ties counting half, and
    `class_average_precision`, the step-wise area that scikit-learn takes; `roc_auc` and
    `average_precision` are their means over the classes that have photos. A class without photos
    has 0.5 and 0.
    """
    classes = probabilities.shape[1]
    orders = np.argsort(-probabilities, axis=0, kind="stable")
    present = np.bincount(labels, minlength=classes) > 0

    def one(weights: Floats, k: int) -> tuple[Floats, Floats]:
        order = orders[:, k]
        ranked = probabilities[order, k]
        last = np.append(ranked[1:] != ranked[:-1], True)  # of its ties
        own = labels[order] == k
        drawn = weights[..., order]
        hits = np.cumsum(drawn * own, -1)[..., last]
        misses = np.cumsum(drawn * ~own, -1)[..., last]
        new_hits = np.diff(hits, axis=-1, prepend=0)
        new_misses = np.diff(misses, axis=-1, prepend=0)
        pairs = hits[..., -1] * misses[..., -1]
        below = (new_misses * (hits - new_hits / 2)).sum(-1)
        precise = (new_hits * _ratio(hits, hits + misses)).sum(-1)
        area = np.where(pairs > 0, _ratio(below, pairs), 0.5)
        return area, _ratio(precise, hits[..., -1])

    def weighted(weights: Floats) -> dict[str, Floats]:
        found = [one(weights, k) for k in range(classes)]
        areas, precisions = (np.stack(some, -1) for some in zip(*found, strict=True))
        return {
            "class_roc_auc": areas,
            "class_average_precision": precisions,
            "roc_auc": areas[..., present].mean(-1),
            "average_precision": precisions[..., present].mean(-1),
        }

    return weighted


def point_scores(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Return the overall scores without intervals: (N,), (N, K) -> name to value."""
    labels = np.asarray(labels, np.int64)
    counts = confusion(labels, probabilities.argmax(1), probabilities.shape[1])
    scores = scores_of(counts)
    scores["log_loss"] = log_losses(labels, probabilities).mean()
    return {name: float(scores[name]) for name in OVERALL}


def further_scores(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Return the further scores without intervals: (N,), (N, K) -> name to value."""
    labels = np.asarray(labels, np.int64)
    once = np.ones(len(labels))
    scores = scores_of(confusion(labels, probabilities.argmax(1), probabilities.shape[1]))
    scores |= loss_scores(labels, probabilities, len(labels))(once)
    scores |= rank_scores(labels, probabilities)(once)
    return {name: float(scores[name]) for name in FURTHER}


def resample(groups: int, resamples: int, generator: np.random.Generator) -> Integers:
    """Return how often each group is drawn: (B, G), each row summing to G."""
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
