"""Scores of a classifier, and their bootstrap intervals over groups.

Shapes: N photos, K classes, G groups, B resamples. Photos of one person are not independent
(they share legs, light and camera), so whole groups are resampled: the cluster bootstrap of
Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8, percentile
interval of section 5.3.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss")
PER_CLASS = ("precision", "recall", "f1")

# Below, a probability counts as this: one impossible photo would make the log loss infinite.
# It is scikit-learn's choice too: the resolution of a double.
SMALLEST = float(np.finfo(np.float64).eps)


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Count photos: (N,), (N,) -> (K, K), rows the truth, columns the prediction."""
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def scores_of(confusions: npt.NDArray[np.number]) -> dict[str, Floats]:
    """Return the scores of confusion counts: (..., K, K) -> (...) overall, (..., K) per class.

    Means over classes take the classes that have photos, as a resample may lack one. Precision of
    a class that was never predicted is 0, as in scikit-learn.
    """
    counts = np.asarray(confusions, np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    support = counts.sum(-1)
    predicted = counts.sum(-2)
    total = support.sum(-1)
    present = support > 0
    recall = _ratio(right, support)
    f1 = _ratio(2 * right, support + predicted)
    return {
        "accuracy": _ratio(right.sum(-1), total),
        "balanced_accuracy": _ratio((recall * present).sum(-1), present.sum(-1)),
        "macro_f1": _ratio((f1 * present).sum(-1), present.sum(-1)),
        "weighted_f1": _ratio((f1 * support).sum(-1), total),
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


def point_scores(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Return the overall scores without intervals: (N,), (N, K) -> name to value."""
    labels = np.asarray(labels, np.int64)
    counts = confusion(labels, probabilities.argmax(1), probabilities.shape[1])
    scores = scores_of(counts)
    scores["log_loss"] = log_losses(labels, probabilities).mean()
    return {name: float(scores[name]) for name in OVERALL}


def resample(groups: int, resamples: int, generator: np.random.Generator) -> Integers:
    """Return how often each group is drawn: (B, G), each row summing to G."""
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples)


def scores_with_intervals(
    labels: Integers,
    probabilities: Floats,
    groups: Sequence[str],
    frequencies: Floats,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, dict[str, Floats]]:
    """Return every score with its interval, the majority baseline's, and the paired gain.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K) of the model; its prediction is the largest.
        groups: (N,) names; what is resampled.
        frequencies: (K,) of the classes in train: the majority baseline gives these probabilities
            to every photo alike.
        resamples: B.
        confidence: Of the intervals, such as 0.95.
        seed: Of the resampling.

    Returns:
        Score name to value, ci_low, ci_high, majority, gain, gain_ci_low and gain_ci_high: scalars,
        or (K,) for the scores per class. Gains are the model's score less the majority's on the
        same resamples; for log_loss, where less is better, a good model's gain is negative.
    """
    labels = np.asarray(labels, np.int64)
    photos, classes = probabilities.shape
    codes = pd.factorize(np.asarray(groups), sort=True)[0]
    draws = resample(codes.max() + 1, resamples, np.random.default_rng(seed))

    def draw(probabilities: Floats) -> dict[str, tuple[Floats, Floats]]:
        predicted = probabilities.argmax(1)
        cells = (codes * classes + labels) * classes + predicted
        by_group = np.bincount(cells, minlength=(codes.max() + 1) * classes * classes)
        by_group = by_group.reshape(-1, classes * classes)
        losses = log_losses(labels, probabilities)
        group_loss = np.bincount(codes, weights=losses)
        group_size = np.bincount(codes)
        value = scores_of(by_group.sum(0).reshape(classes, classes))
        value["log_loss"] = losses.mean()
        drawn = scores_of((draws @ by_group).reshape(-1, classes, classes))
        drawn["log_loss"] = (draws @ group_loss) / (draws @ group_size)
        return {name: (value[name], drawn[name]) for name in (*OVERALL, *PER_CLASS)}

    model = draw(probabilities)
    other = draw(np.broadcast_to(frequencies, (photos, classes)))
    tail = (1 - confidence) / 2
    result = {}
    for name, (value, drawn) in model.items():
        low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
        gain_low, gain_high = np.quantile(drawn - other[name][1], [tail, 1 - tail], axis=0)
        result[name] = {
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "majority": other[name][0],
            "gain": value - other[name][0],
            "gain_ci_low": gain_low,
            "gain_ci_high": gain_high,
        }
    return result
