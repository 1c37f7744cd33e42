"""Classification scores on weighted photos.

Shapes: N photos, K classes, G groups, B resamples, ... any leading shape. Each row of weights is
one resample; a weight is how often a photo counts (anklealign/metrics/bootstrap.py).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss")
FURTHER = ("mcc", "kappa", "roc_auc", "average_precision", "brier", "calibration_error")
PER_CLASS = ("precision", "recall", "f1")
RANKED = ("roc_auc", "average_precision")  # overall, and one-vs-rest per class
LOWER_IS_BETTER = ("log_loss", "brier", "calibration_error")

# Lower bound of a probability in the log loss, which a single zero would make infinite. The
# resolution of a double, as in scikit-learn.
EPSILON = float(np.finfo(np.float64).eps)

# Bins of the calibration error and the reliability diagram hold equal counts of photos, since bins
# of equal width may hold a single photo (Roelofs et al., Mitigating Bias in Calibration Error
# Estimation (2022)).
MAX_BINS, MIN_PHOTOS_PER_BIN = 10, 10


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Count photos: (N,), (N,) -> (K, K); rows are actual, columns predicted classes."""
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def confusion_scores(confusions: npt.NDArray[np.number]) -> dict[str, Floats]:
    """Return the scores of confusion counts: (..., K, K) -> (...) overall, (..., K) per class.

    Means over classes include only classes with photos, as a resample may lack a class. The
    precision of a class that is never predicted is 0, as in scikit-learn. `mcc` is Gorodkin's R_K
    (2004), 0 where only one class is predicted. `kappa` is Cohen's with quadratic weights (1968),
    which treats the classes as equidistant steps of a scale.
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


def _ratio(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Floats:
    """Return the ratio, 0 where the denominator is 0."""
    numerator = np.asarray(numerator, np.float64)
    positive = np.asarray(denominator) > 0
    ratio: Floats = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=positive)
    return ratio


def log_losses(labels: Integers, probabilities: Floats) -> Floats:
    """Return each photo's negative log probability of its label, in nats: (N,), (N, K) -> (N,)."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(of_label, EPSILON, 1.0))


def brier_scores(labels: Integers, probabilities: Floats) -> Floats:
    """Return each photo's squared distance to its one-hot label: (N,), (N, K) -> (N,), 0 to 2.

    Brier, Verification of Forecasts Expressed in Terms of Probability (1950).
    """
    one_hot = np.eye(probabilities.shape[1])[labels]
    distances: Floats = ((probabilities - one_hot) ** 2).sum(1)
    return distances


def confidence_bins(probabilities: Floats) -> Integers:
    """Return the bin of each photo's largest probability, from 0: (N, K) -> (N,).

    Uses up to ten equal-count bins with at least ten photos each; equal probabilities share a bin.
    """
    confidence = probabilities.max(1)
    count = min(MAX_BINS, max(1, len(confidence) // MIN_PHOTOS_PER_BIN))
    edges = np.quantile(confidence, np.arange(1, count) / count)
    bins: Integers = np.searchsorted(edges, confidence, side="left").astype(np.int64)
    return bins


WeightedScores = Callable[[Floats], dict[str, Floats]]


def decision_scores(labels: Integers, probabilities: Floats) -> WeightedScores:
    """Return a function from weights (..., N) to the scores of `confusion_scores`."""
    classes = probabilities.shape[1]
    predicted = np.eye(classes)[probabilities.argmax(1)]
    members = [np.flatnonzero(labels == k) for k in range(classes)]

    def weighted(weights: Floats) -> dict[str, Floats]:
        rows = [weights[..., photos] @ predicted[photos] for photos in members]
        return confusion_scores(np.stack(rows, -2))

    return weighted


def loss_scores(labels: Integers, probabilities: Floats, photos: int) -> WeightedScores:
    """Return a function from weights (..., M) to log loss, Brier score and calibration error.

    The first N of the M rows are photos, the others pseudo-photos. The loss of a pseudo-photo is
    capped at the largest loss of a photo, or at the loss of a uniform guess if that is larger.
    Pseudo-photos do not enter the calibration error, the mean distance between accuracy and
    confidence over `confidence_bins` (Guo et al. 2017). Sampling alone keeps that error above 0.
    """
    classes = probabilities.shape[1]
    uniform = np.array([np.log(classes), 1 - 1 / classes])
    losses = np.stack([log_losses(labels, probabilities), brier_scores(labels, probabilities)], 1)
    largest = np.maximum(losses[:photos].max(0), uniform)
    losses[photos:] = np.minimum(losses[photos:], largest)
    labels, probabilities = labels[:photos], probabilities[:photos]
    surplus = (probabilities.argmax(1) == labels) - probabilities.max(1)
    bins = confidence_bins(probabilities)
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


def rank_scores(labels: Integers, probabilities: Floats) -> WeightedScores:
    """Return a function from weights (..., N) to the scores of the ranking by probability.

    One-vs-rest scores (..., K): `class_roc_auc`, where ties count half, and
    `class_average_precision`, the stepwise area as in scikit-learn. `roc_auc` and
    `average_precision` are their means over the classes with photos. A class without photos scores
    0.5 and 0.
    """
    classes = probabilities.shape[1]
    orders = np.argsort(-probabilities, axis=0, kind="stable")
    present = np.bincount(labels, minlength=classes) > 0

    def one_vs_rest(weights: Floats, k: int) -> tuple[Floats, Floats]:
        order = orders[:, k]
        ranked = probabilities[order, k]
        last = np.append(ranked[1:] != ranked[:-1], True)  # last photo of each run of ties
        positive = labels[order] == k
        sorted_weights = weights[..., order]
        hits = np.cumsum(sorted_weights * positive, -1)[..., last]
        misses = np.cumsum(sorted_weights * ~positive, -1)[..., last]
        new_hits = np.diff(hits, axis=-1, prepend=0)
        new_misses = np.diff(misses, axis=-1, prepend=0)
        pairs = hits[..., -1] * misses[..., -1]
        below = (new_misses * (hits - new_hits / 2)).sum(-1)
        precision = (new_hits * _ratio(hits, hits + misses)).sum(-1)
        area = np.where(pairs > 0, _ratio(below, pairs), 0.5)
        return area, _ratio(precision, hits[..., -1])

    def weighted(weights: Floats) -> dict[str, Floats]:
        by_class = [one_vs_rest(weights, k) for k in range(classes)]
        areas, precisions = (np.stack(values, -1) for values in zip(*by_class, strict=True))
        return {
            "class_roc_auc": areas,
            "class_average_precision": precisions,
            "roc_auc": areas[..., present].mean(-1),
            "average_precision": precisions[..., present].mean(-1),
        }

    return weighted


def point_scores(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Return the scores of OVERALL without CIs: (N,), (N, K) -> name to value."""
    labels = np.asarray(labels, np.int64)
    counts = confusion(labels, probabilities.argmax(1), probabilities.shape[1])
    scores = confusion_scores(counts)
    scores["log_loss"] = log_losses(labels, probabilities).mean()
    return {name: float(scores[name]) for name in OVERALL}


def further_scores(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Return the scores of FURTHER without CIs: (N,), (N, K) -> name to value."""
    labels = np.asarray(labels, np.int64)
    weights = np.ones(len(labels))
    scores = confusion_scores(confusion(labels, probabilities.argmax(1), probabilities.shape[1]))
    scores |= loss_scores(labels, probabilities, len(labels))(weights)
    scores |= rank_scores(labels, probabilities)(weights)
    return {name: float(scores[name]) for name in FURTHER}


def resample(groups: int, resamples: int, generator: np.random.Generator) -> Integers:
    """Draw bootstrap counts of the groups: (B, G), each row sums to G."""
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
