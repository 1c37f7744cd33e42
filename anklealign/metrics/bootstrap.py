"""Confidence intervals of scores by a bootstrap over groups.

Shapes: N photos, K classes, G groups, B resamples, P = K * K pseudo-photos.

Photos of one group are not independent (photos of one subject share legs, light and camera), so
whole groups are resampled. With 20 groups, 3 of them of the rare class, the standard methods fail:
percentile, BCa and studentized 95% CIs of a nearly perfect model cover the true score in one third
of the cases (`benchmarks/intervals.py`), because a model without errors has none in any resample.
This module therefore differs in three ways:

1. Groups get exponential weights (the Bayesian bootstrap, Rubin 1981), so no resample lacks a
   class.
2. Each class gets a pseudo-group whose predictions are correct or wrong with equal weight. It
   counts as `PSEUDO_GROUPS` groups for scores of the predicted class and as half of that for scores
   of the probabilities. With independent photos and a count of 1, this is Jeffreys' interval of a
   proportion (Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion (2001)). The
   wrong predictions are distributed over the other classes by their frequencies.
3. Percentiles are widened by Student's t and sqrt(G / (G - 1)) (Hesterberg, What Teachers Should
   Know About the Bootstrap (2015), section 4.3).

The resulting 95% CIs of accuracy, balanced accuracy, macro F1 and their gains cover the true value
in 91.8 to 97.5 % of simulated test splits with 20 and 60 groups (sampling error 0.7 points), those
of the other scores in 91.5 to 98.4 %, and that of the calibration error in 84 to 97 %.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from tqdm import tqdm

from anklealign.metrics.scores import (
    Floats,
    Integers,
    Margins,
    constant_scores,
    decision_scores,
    is_far,
    loss_scores,
    margins,
    rank_scores,
)

# No CI with fewer groups: it would be too wide to be informative.
MIN_GROUPS = 10
# Pseudo-groups per class. Of the sizes tried, this one keeps the coverage closest to 95 %.
PSEUDO_GROUPS = 0.5
# Up to this number of classes, half of a pseudo-group is right. With more classes, its share moves
# to the accuracy: with 136 classes of one test photo each, equal halves gave an accuracy of 0.06 an
# interval of 0.06 to 0.26. `python -m benchmarks.many_classes --coverage` simulates the coverage.
EQUAL_CLASSES = 5
# Numbers per block of weights; limits the memory to about 16 MB per array.
BLOCK_SIZE = 2_000_000
# Up to this number of classes, each of the K * K pseudo-photos gets a weight of its own. Above it,
# K * STICKS sticks have the same distribution (`_sparse_margins`).
DENSE_CLASSES = 64
STICKS = 8
# Resampling biases the calibration error upward, as sampling already did. Only the upper end of the
# resamples is informative; the lower end is placed at the same distance below the value.
ONE_SIDED = ("calibration_error",)

# Keys value, ci_low and ci_high, and for scores also majority, gain, gain_ci_low and gain_ci_high.
Estimate = dict[str, Floats]


def scores_with_ci(
    labels: Integers,
    probabilities: Floats,
    groups: Sequence[str],
    frequencies: Floats,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Estimate]:
    """Return every score with its CI, the majority baseline's score and the paired gain.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K); the largest one is the predicted class.
        groups: (N,) group names; groups are the resampling units.
        frequencies: (K,) class frequencies in train, the probabilities of the majority baseline.
        resamples: B.
        confidence: Confidence level, such as 0.95.
        seed: Seed of the resampling.

    Returns:
        Score name to value, ci_low, ci_high, majority, gain, gain_ci_low and gain_ci_high: scalars,
        or (K,) for per-class scores. The gain is the model's score minus the baseline's on the same
        resamples. The ci keys are missing with fewer than `MIN_GROUPS` groups.
    """
    labels = np.asarray(labels, np.int64)
    codes, count = _group_codes(groups)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    score = _paired_scores(labels, probabilities, frequencies)
    model, baseline = score(np.ones(len(labels)))
    estimates = {
        name: {"value": model[name], "majority": majority, "gain": model[name] - majority}
        for name, majority in baseline.items()
    }
    if count < MIN_GROUPS:
        return estimates
    generator = np.random.default_rng(seed)
    draw = _dense_resamples if len(counts) <= DENSE_CLASSES else _sparse_resamples
    right = right_share(labels, probabilities)
    blocks = [
        score(*block) for block in draw(codes, count, counts, resamples, generator, right=right)
    ]
    for name, estimate in estimates.items():
        drawn, majority = (np.concatenate([block[k][name] for block in blocks]) for k in (0, 1))
        for prefix, draws, value in (
            ("", drawn, estimate["value"]),
            ("gain_", drawn - majority, estimate["gain"]),
        ):
            low, high = ci_bounds(draws, value, count, confidence)
            if name in ONE_SIDED:
                low = 2 * value - high if prefix else np.maximum(2 * value - high, 0)
            estimate[f"{prefix}ci_low"], estimate[f"{prefix}ci_high"] = low, high
    return estimates


# Weights of photos (rows, N), and the margins of the pseudo-photos for scores of the predicted
# class and for scores of the probabilities.
Resamples = Iterator[tuple[Floats, Margins, Margins]]


def _paired_scores(
    labels: Integers, probabilities: Floats, frequencies: Floats
) -> Callable[..., tuple[Estimate, Estimate]]:
    """Return a function from weights to the scores of the model and of the baseline.

    It takes the weights (..., N) and, for a resample, both margins of the pseudo-photos.
    """
    decision = decision_scores(labels, probabilities)
    rank, loss = rank_scores(labels, probabilities), loss_scores(labels, probabilities)
    constant = constant_scores(labels, frequencies)

    def score(
        weights: Floats, for_decisions: Margins | None = None, for_ranks: Margins | None = None
    ) -> tuple[Estimate, Estimate]:
        model = decision(weights, for_decisions) | rank(weights, for_ranks)
        return model | loss(weights, for_ranks), constant(weights, for_decisions, for_ranks)

    return score


def mean_with_ci(
    values: npt.ArrayLike,
    groups: Sequence[str],
    bounds: tuple[float, float],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Estimate:
    """Return the mean of bounded values (N,) with its CI: value, ci_low, ci_high.

    The method is that of the scores, with a pseudo-group split equally between both bounds. The ci
    keys are missing with fewer than `MIN_GROUPS` groups.
    """
    values = np.asarray(values, np.float64)
    codes, count = _group_codes(groups)
    estimate = {"value": values.mean()}
    if count < MIN_GROUPS:
        return estimate
    with_pseudo = np.concatenate([values, bounds])
    generator = np.random.default_rng(seed)
    shapes = np.full(2, PSEUDO_GROUPS / 2)
    drawn = np.concatenate(
        [
            block @ with_pseudo / block.sum(-1)
            for block in resampling_weights(codes, count, shapes, resamples, generator)
        ]
    )
    low, high = ci_bounds(drawn, estimate["value"], count, confidence)
    return estimate | {"ci_low": low, "ci_high": high}


def right_share(labels: Integers, probabilities: Floats) -> float:
    """Return the share of right predictions in a pseudo-group: (N,), (N, K) -> 0 to 1."""
    right = (probabilities.argmax(1) == labels).sum()
    accuracy = float((right + 0.5) / (len(labels) + 1))  # Jeffreys' estimate, never 0 or 1
    return accuracy + (0.5 - accuracy) * min(1.0, EQUAL_CLASSES / len(np.unique(labels)))


def pseudo_shapes(shares: Floats, right: float = 0.5) -> Floats:
    """Return the Gamma shapes of the pseudo-photos: (K,) class shares -> (K, K).

    Rows are actual, columns predicted classes. Classes without photos have shape 0. `right` is the
    share of right predictions.
    """
    classes = len(shares)
    others = np.tile(shares, (classes, 1))
    np.fill_diagonal(others, 0)
    others /= np.maximum(others.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    predicted = right * np.eye(classes) + (1 - right) * others
    shapes: Floats = PSEUDO_GROUPS * predicted * (shares > 0)[:, None]
    return shapes


def _dense_resamples(
    codes: Integers,
    groups: int,
    counts: Integers,
    resamples: int,
    generator: np.random.Generator,
    *,
    right: float,
) -> Resamples:
    """Yield blocks of resamples with a weight for each of the P = K * K pseudo-photos."""
    classes = len(counts)
    cells = pseudo_shapes(counts / len(codes), right).ravel()
    shapes = np.concatenate([cells, cells / 2])
    for block in resampling_weights(codes, groups, shapes, resamples, generator):
        real, half, quarter = np.split(block, [len(codes), len(codes) + len(cells)], axis=-1)
        yield (
            real,
            margins(half.reshape(-1, classes, classes)),
            margins(quarter.reshape(-1, classes, classes)),
        )


def _sparse_resamples(
    codes: Integers,
    groups: int,
    counts: Integers,
    resamples: int,
    generator: np.random.Generator,
    *,
    right: float,
) -> Resamples:
    """Yield blocks with the distribution of `_dense_resamples`, drawn by K * `STICKS` sticks."""
    mean_size = len(codes) / groups
    block_rows = max(1, BLOCK_SIZE // (len(codes) + 2 * STICKS * len(counts)))
    starts = range(0, resamples, block_rows)
    for start in tqdm(starts, "bootstrap", unit="block", delay=1, leave=False, disable=None):
        rows = min(block_rows, resamples - start)
        drawn = generator.exponential(size=(rows, groups))
        half, quarter = (
            _sparse_margins(
                counts, PSEUDO_GROUPS / divisor, mean_size, rows, generator, right_share=right
            )
            for divisor in (1, 2)
        )
        yield drawn[:, codes], half, quarter


def _sparse_margins(
    counts: Integers,
    shape: float,
    scale: float,
    rows: int,
    generator: np.random.Generator,
    *,
    right_share: float,
) -> Margins:
    """Return the margins of pseudo-photos, whose classes each have Gamma shape `shape`.

    Independent Gamma weights of the wrong predictions of a class are a Gamma total, divided by a
    Dirichlet distribution. With total shape a, this is a Dirichlet process over the other classes,
    which stick-breaking draws: each stick takes a Beta(1, a) share of the rest and belongs to a
    class drawn by frequency (Sethuraman, A Constructive Definition of Dirichlet Priors (1994)). The
    last stick takes the rest, on average (a / (1 + a))^(STICKS - 1), below 1e-4.

    Args:
        counts: (K,) photos of each class.
        shape: Of the right and the wrong predictions together; a is that of the wrong ones.
        scale: Factor on the weights.
        rows: Number of resamples.
        generator: Random number generator.
        right_share: Share of the right predictions.
    """
    classes, photos = len(counts), counts.sum()
    right = scale * generator.gamma(shape * right_share * (counts > 0), size=(rows, classes))
    shape *= 1 - right_share
    # A class that has all photos cannot be confused with another one.
    wrong_shapes = shape * ((counts > 0) & (counts < photos))
    wrong = scale * generator.gamma(wrong_shapes, size=(rows, classes))
    left = np.cumprod(generator.random((rows, classes, STICKS - 1)) ** (1 / shape), axis=-1)
    sticks = -np.diff(left, axis=-1, prepend=1, append=0) * wrong[..., None]
    # The class of a random photo of another class: photos in the order of their classes.
    others = (photos - counts)[:, None]
    photo = np.minimum((generator.random(sticks.shape) * others).astype(np.int64), others - 1)
    photo += np.where(photo >= (np.cumsum(counts) - counts)[:, None], counts[:, None], 0)
    predicted = np.repeat(np.arange(classes), counts)[photo]
    cells = np.arange(rows)[:, None, None] * classes + predicted
    by_class = np.bincount(cells.ravel(), sticks.ravel(), rows * classes).reshape(rows, classes)
    squared_steps = (predicted - np.arange(classes)[:, None]) ** 2
    squared, far = (
        (sticks * distance).sum((-2, -1)) for distance in (squared_steps, is_far(squared_steps))
    )
    return Margins(right, right + wrong, right + by_class, squared, far)


def resampling_weights(
    codes: Integers,
    groups: int,
    shapes: Floats,
    resamples: int,
    generator: np.random.Generator,
) -> Iterator[Floats]:
    """Yield blocks of weights of photos and pseudo-photos: rows of N + P, B rows in total.

    Args:
        codes: (N,) group numbers from 0.
        groups: G.
        shapes: (P,) Gamma shapes of the pseudo-photos.
        resamples: B.
        generator: Random number generator.
    """
    mean_size = len(codes) / groups
    block_rows = max(1, BLOCK_SIZE // (len(codes) + len(shapes)))
    starts = range(0, resamples, block_rows)
    for start in tqdm(starts, "bootstrap", unit="block", delay=1, leave=False, disable=None):
        rows = min(block_rows, resamples - start)
        drawn = generator.exponential(size=(rows, groups))
        pseudo = generator.gamma(shapes, size=(rows, len(shapes)))
        yield np.concatenate([drawn[:, codes], mean_size * pseudo], axis=1)


def _group_codes(groups: Sequence[str]) -> tuple[Integers, int]:
    codes = pd.factorize(np.asarray(groups), sort=True)[0].astype(np.int64)
    return codes, int(codes.max(initial=-1)) + 1


def ci_bounds(
    drawn: Floats, value: Floats, groups: int, confidence: float
) -> tuple[Floats, Floats]:
    """Return the widened percentile CI, extended to include the value: (B, ...) -> (...), (...)."""
    quantile = np.sqrt(groups / (groups - 1)) * stats.t.ppf((1 - confidence) / 2, groups - 1)
    tail = float(stats.norm.cdf(quantile))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return np.minimum(low, value), np.maximum(high, value)
