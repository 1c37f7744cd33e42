"""Classification scores on weighted photos.

Shapes: N photos, K classes, G groups, B resamples, ... any leading shape. Each row of weights is
one resample; a weight is how often a photo counts (anklealign/metrics/bootstrap.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss")
FURTHER = (
    "mcc", "kappa", "two_step_errors", "roc_auc", "average_precision", "brier", "rps",
    "calibration_error",
)  # fmt: skip
PER_CLASS = ("precision", "recall", "f1")
RANKED = ("roc_auc", "average_precision")  # overall, and one-vs-rest per class
ORDERED = ("kappa", "two_step_errors", "rps")  # only where the classes lie on a scale
LOWER_IS_BETTER = ("two_step_errors", "log_loss", "brier", "rps", "calibration_error")

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
    """Return the scores of confusion counts: (..., K, K) -> (...) overall, (..., K) per class."""
    return margin_scores(margins(confusions))


@dataclass(frozen=True)
class Margins:
    """The sums of confusion counts that all scores depend on. They need K numbers instead of K * K.

    Attributes:
        right: (..., K) counts on the diagonal.
        support: (..., K) counts of each actual class.
        predicted: (..., K) counts of each predicted class.
        squared_steps: (...) sum of the squared distances of the actual and the predicted class.
        far: (...) counts of errors by two steps or more.
    """

    right: Floats
    support: Floats
    predicted: Floats
    squared_steps: Floats
    far: Floats

    def __add__(self, other: "Margins") -> "Margins":
        """Return the margins of the sum of both confusion matrices."""
        return Margins(
            self.right + other.right,
            self.support + other.support,
            self.predicted + other.predicted,
            self.squared_steps + other.squared_steps,
            self.far + other.far,
        )


def margins(confusions: npt.NDArray[np.number]) -> Margins:
    """Return the margins of confusion counts: (..., K, K)."""
    counts = np.asarray(confusions, np.float64)
    steps = _squared_steps(counts.shape[-1])
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    return Margins(
        right,
        counts.sum(-1),
        counts.sum(-2),
        (counts * steps).sum((-2, -1)),
        (counts * is_far(steps)).sum((-2, -1)),
    )


def is_far(squared_steps: npt.NDArray[np.number]) -> Floats:
    """Return 1 where classes are two steps or more apart, given squared distances, else 0."""
    return np.asarray(np.asarray(squared_steps) >= 4, np.float64)


def margin_scores(counts: Margins) -> dict[str, Floats]:
    """Return the scores of confusion counts, given their margins.

    Means over classes include only classes with photos, as a resample may lack a class. The
    precision of a class that is never predicted is 0, as in scikit-learn. `mcc` is Gorodkin's R_K
    (2004), 0 where only one class is predicted. `kappa` is Cohen's with quadratic weights (1968),
    which treats the classes as equidistant steps of a scale; `two_step_errors` is the share of
    photos whose predicted class is two steps or more from the actual one.
    """
    right, support, predicted = counts.right, counts.support, counts.predicted
    total = support.sum(-1)
    present = support > 0
    recall = _ratio(right, support)
    f1 = _ratio(2 * right, support + predicted)
    agreed = right.sum(-1) * total - (support * predicted).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (support**2).sum(-1))
    by_chance = (support @ _squared_steps(support.shape[-1]) * predicted).sum(-1)
    return {
        "accuracy": _ratio(right.sum(-1), total),
        "balanced_accuracy": _ratio((recall * present).sum(-1), present.sum(-1)),
        "macro_f1": _ratio((f1 * present).sum(-1), present.sum(-1)),
        "weighted_f1": _ratio((f1 * support).sum(-1), total),
        "mcc": _ratio(agreed, np.sqrt(np.maximum(spread, 0))),
        "kappa": np.where(by_chance > 0, 1 - _ratio(counts.squared_steps * total, by_chance), 0),
        "two_step_errors": _ratio(counts.far, total),
        "precision": _ratio(right, predicted),
        "recall": recall,
        "f1": f1,
    }


def _squared_steps(classes: int) -> Floats:
    """Return the squared distance of each pair of classes on a scale: (K, K)."""
    steps = np.arange(classes, dtype=np.float64)
    return np.asarray((steps[:, None] - steps) ** 2)


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


def ranked_probability_scores(labels: Integers, probabilities: Floats) -> Floats:
    """Return each photo's mean squared distance of cumulative probabilities: (N,), (N, K) -> (N,).

    The classes lie on a scale; a probability far from the label costs more than one next to it.
    Divided by K - 1, so that it is 0 to 1 and, with two classes, half the Brier score (Epstein, A
    Scoring System for Probability Forecasts of Ranked Categories (1969)).
    """
    classes = probabilities.shape[1]
    reached = np.arange(classes - 1) >= labels[:, None]
    distances = (np.cumsum(probabilities[:, :-1], 1) - reached) ** 2
    scores: Floats = distances.sum(1) / max(1, classes - 1)
    return scores


def confidence_bins(probabilities: Floats) -> Integers:
    """Return the bin of each photo's largest probability, from 0: (N, K) -> (N,).

    Uses up to ten equal-count bins with at least ten photos each; equal probabilities share a bin.
    """
    confidence = probabilities.max(1)
    count = min(MAX_BINS, max(1, len(confidence) // MIN_PHOTOS_PER_BIN))
    edges = np.quantile(confidence, np.arange(1, count) / count)
    bins: Integers = np.searchsorted(edges, confidence, side="left").astype(np.int64)
    return bins


# Rows of a sparse matrix that are multiplied at once, and the share of nonzero entries from which
# the product with a dense copy is faster.
ROWS_PER_PRODUCT = 256
DENSE_SHARE = 0.02


class WeightedScores(Protocol):
    """Return scores, given weights (..., N) and the margins of pseudo-photos, if any."""

    def __call__(self, weights: Floats, pseudo: Margins | None = None) -> dict[str, Floats]:
        """Return the scores: (...) overall, (..., K) per class."""


def decision_scores(labels: Integers, probabilities: Floats) -> WeightedScores:
    """Return a function from weights (..., N) to the scores of `confusion_scores`."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    photos = np.arange(len(labels))
    right = np.flatnonzero(predicted == labels)
    sums = _indicator(
        [labels[right], classes + labels, 2 * classes + predicted],
        [right, photos, photos],
        (3 * classes, len(labels)),
    )
    squared_steps = ((labels - predicted) ** 2).astype(np.float64)
    distances = np.stack([squared_steps, is_far(squared_steps)], 1)

    def weighted(weights: Floats, pseudo: Margins | None = None) -> dict[str, Floats]:
        summed = _weighted_sums(sums, weights)
        right_counts, support, guesses = np.split(summed, 3, axis=-1)
        squared, far = np.moveaxis(weights @ distances, -1, 0)
        counts = Margins(right_counts, support, guesses, squared, far)
        return margin_scores(counts if pseudo is None else counts + pseudo)

    return weighted


def loss_scores(labels: Integers, probabilities: Floats) -> WeightedScores:
    """Return a function from weights (..., N) to the scores of the probabilities.

    These are log loss, Brier score, ranked probability score and calibration error.

    The loss of a wrong pseudo-photo is the largest loss of a photo, or the loss of a uniform guess
    if that is larger; that of a right one is 0. Pseudo-photos do not enter the calibration error,
    the mean distance between accuracy and confidence over `confidence_bins` (Guo et al. 2017).
    Sampling alone keeps that error above 0.
    """
    classes = probabilities.shape[1]
    losses = _losses(labels, probabilities)
    every_class, guess = np.arange(classes), np.full((classes, classes), 1 / classes)
    largest = np.maximum(losses.max(0, initial=0), _losses(every_class, guess).max(0))
    surplus = (probabilities.argmax(1) == labels) - probabilities.max(1)
    bins = confidence_bins(probabilities)
    binned = np.eye(bins.max() + 1)[bins] * surplus[:, None]

    def weighted(weights: Floats, pseudo: Margins | None = None) -> dict[str, Floats]:
        real = weights.sum(-1)
        total, summed = real, weights @ losses
        if pseudo is not None:
            total = real + pseudo.support.sum(-1)
            wrong = (pseudo.support - pseudo.right).sum(-1)
            summed = summed + wrong[..., None] * largest
        return {
            **{name: _ratio(summed[..., k], total) for k, name in enumerate(LOSSES)},
            "calibration_error": _ratio(np.abs(weights @ binned).sum(-1), real),
        }

    return weighted


LOSSES = ("log_loss", "brier", "rps")  # means over photos


def _losses(labels: Integers, probabilities: Floats) -> Floats:
    """Return each photo's LOSSES: (N,), (N, K) -> (N, 3)."""
    functions = (log_losses, brier_scores, ranked_probability_scores)
    return np.stack([loss(labels, probabilities) for loss in functions], 1)


def rank_scores(labels: Integers, probabilities: Floats) -> WeightedScores:
    """Return a function from weights (..., N) to the scores of the ranking by probability.

    One-vs-rest scores (..., K): `class_roc_auc`, where ties count half, and
    `class_average_precision`, the stepwise area as in scikit-learn. `roc_auc` and
    `average_precision` are their means over the classes with photos. A class without photos scores
    0.5 and 0.
    """
    photos, classes = probabilities.shape
    present = np.bincount(labels, minlength=classes) > 0
    by_class = np.ascontiguousarray(probabilities.T)
    ranked = [_rank(labels == k, by_class[k]) for k in range(classes)]
    # Classes with as many levels are scored together: their rows follow each other.
    levels = np.array([rank.levels for rank in ranked])
    order = np.argsort(levels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(3 * levels[order])])
    # One product with a matrix ranks all classes. It has a row for each class's photos and, below
    # these, the rows of each class's ranking.
    sums = _indicator(
        [
            labels,
            *(ranked[k].row + classes + first for k, first in zip(order, starts, strict=False)),
        ],
        [np.arange(photos), *(ranked[k].photo for k in order)],
        (classes + int(starts[-1]), photos),
    )

    def weighted(weights: Floats, pseudo: Margins | None = None) -> dict[str, Floats]:
        summed = np.moveaxis(_weighted_sums(sums, weights), -1, 0)
        support, rows = summed[:classes], summed[classes:]
        right, pseudo_support, predicted = (
            np.zeros((3, *support.shape))
            if pseudo is None
            else (np.moveaxis(m, -1, 0) for m in (pseudo.right, pseudo.support, pseudo.predicted))
        )
        others = _sums_of_others(support + pseudo_support)
        top_misses = np.maximum(predicted - right, 0)
        bottom_misses = np.maximum(_sums_of_others(pseudo_support) - top_misses, 0)
        scores = np.empty((2, *support.shape))
        for count in np.unique(levels):
            alike = np.flatnonzero(levels[order] == count)
            k, first = order[alike], starts[alike[0]]
            shape = (len(k), 3 * count, *support.shape[1:])
            own = rows[first : first + 3 * count * len(k)].reshape(shape)
            hits, misses = own[:, 2 * count :], own[:, : 2 * count]
            hits[:, 0] += right[k]
            hits[:, -1] += (pseudo_support - right)[k]
            misses[:, 1] += top_misses[k]
            misses[:, -1] += bottom_misses[k]
            scores[:, k] = _one_vs_rest(hits, misses, others[k])
        areas, precisions = np.moveaxis(scores, 1, -1)
        return {
            "class_roc_auc": areas,
            "class_average_precision": precisions,
            "roc_auc": areas[..., present].mean(-1),
            "average_precision": precisions[..., present].mean(-1),
        }

    return weighted


def constant_scores(labels: Integers, frequencies: Floats) -> Callable[..., dict[str, Floats]]:
    """Return the scores of the same probabilities (K,) for every photo, by weights (..., N).

    The scores are those of `decision_scores`, `rank_scores` and `loss_scores`. The pseudo-photos
    get these probabilities, too.
    """
    classes = len(frequencies)
    majority = np.arange(classes) == frequencies.argmax()
    sums = _indicator([labels], [np.arange(len(labels))], (classes, len(labels)))
    squared_steps = _squared_steps(classes)[:, frequencies.argmax()]
    far = is_far(squared_steps)
    losses = _losses(np.arange(classes), np.broadcast_to(frequencies, (classes, classes)))
    present = np.bincount(labels, minlength=classes) > 0

    def weighted(
        weights: Floats, for_decisions: Margins | None = None, for_ranks: Margins | None = None
    ) -> dict[str, Floats]:
        real = _weighted_sums(sums, weights)
        support = real if for_decisions is None else real + for_decisions.support
        predicted = majority * support.sum(-1, keepdims=True)
        scores = margin_scores(
            Margins(majority * support, support, predicted, support @ squared_steps, support @ far)
        )
        support = real if for_ranks is None else real + for_ranks.support
        total = support.sum(-1)
        precisions = _ratio(support, np.broadcast_to(total[..., None], support.shape))
        summed = support @ losses
        surplus = np.abs(real @ majority - real.sum(-1) * frequencies.max())
        return scores | {
            "class_roc_auc": np.full_like(support, 0.5),
            "class_average_precision": precisions,
            "roc_auc": np.full_like(total, 0.5),
            "average_precision": precisions[..., present].mean(-1),
            **{name: _ratio(summed[..., k], total) for k, name in enumerate(LOSSES)},
            "calibration_error": _ratio(surplus, real.sum(-1)),
        }

    return weighted


class _Rank(NamedTuple):
    """Row of each photo in the ranking of a class: `photo` is in `row` of `rows`.

    The probabilities of the class's photos, with 1 and 0, form L levels. Rows 2 l and 2 l + 1 are
    the other photos between the levels l - 1 and l and at level l. Row 2 L + l are the class's
    photos at level l. Photos between the last two levels have no row: they are most photos, and
    their weight is the rest.
    """

    row: Integers
    photo: Integers
    levels: int


def _rank(own: npt.NDArray[np.bool_], probability: Floats) -> _Rank:
    """Return the ranking of a class, given its photos (N,) and its probabilities (N,)."""
    probability = np.clip(probability, 0, 1)
    ascending = np.unique(np.concatenate([[0, 1], probability[own]]))
    above = np.searchsorted(ascending, probability, side="left")
    tied = ascending[above] == probability
    levels = len(ascending)
    level = levels - 1 - above + ~tied  # from the highest; of a photo between two, the lower one
    row = np.where(own, 2 * levels + level, 2 * level + tied)
    photo = np.flatnonzero(row != 2 * levels - 2)
    return _Rank(row[photo], photo, levels)


def _one_vs_rest(hits: Floats, misses: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return ROC AUC and average precision of C classes.

    Args:
        hits: (C, L, ...) weights of the class's photos at each level.
        misses: (C, 2 L, ...) weights of the other photos above and at each level, as in `_Rank`.
        others: (C, ...) weights of all photos of the other classes.
    """
    ranked = np.cumsum(misses, 1)
    above, through = ranked[:, ::2], ranked[:, 1::2]
    above[:, -1], through[:, -1] = np.maximum(others - misses[:, -1], 0), others
    positives = hits.sum(1)
    lost = (hits * (above + through)).sum(1) / 2
    pairs = positives * others
    area = np.where(pairs > 0, 1 - _ratio(lost, pairs), 0.5)
    hits_through = np.cumsum(hits, 1)
    precision = (hits * _ratio(hits_through, hits_through + through)).sum(1)
    return area, _ratio(precision, positives)


def _sums_of_others(values: Floats) -> Floats:
    """Return, for each row, the sum of the other rows, without cancellation: (K, ...)."""
    sums = np.zeros_like(values)
    sums[1:] = np.cumsum(values[:-1], 0)
    sums[:-1] += np.cumsum(values[:0:-1], 0)[::-1]
    return sums


def _indicator(
    rows: Sequence[Integers], columns: Sequence[Integers], shape: tuple[int, int]
) -> sparse.csr_array:
    """Return a matrix of zeros with a one in each given place."""
    at = tuple(np.concatenate(indices).astype(np.int32) for indices in (rows, columns))
    return sparse.csr_array((np.ones(len(at[0])), at), shape=shape)


def _weighted_sums(matrix: sparse.csr_array, weights: Floats) -> Floats:
    """Return the sums of the weights in each row of an indicator: (M, N), (..., N) -> (..., M)."""
    columns = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]).T)
    sums = np.empty((matrix.shape[0], columns.shape[1]))
    for start in range(0, len(sums), ROWS_PER_PRODUCT):
        rows = matrix[start : start + ROWS_PER_PRODUCT]
        dense = rows.nnz > DENSE_SHARE * rows.shape[0] * rows.shape[1]
        sums[start : start + ROWS_PER_PRODUCT] = (rows.toarray() if dense else rows) @ columns
    return sums.T.reshape(*weights.shape[:-1], -1)


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
    scores |= loss_scores(labels, probabilities)(weights)
    scores |= rank_scores(labels, probabilities)(weights)
    return {name: float(scores[name]) for name in FURTHER}


def resample(groups: int, resamples: int, generator: np.random.Generator) -> Integers:
    """Draw bootstrap counts of the groups: (B, G), each row sums to G."""
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
