"""Measure how scores grow with the number of subjects: would more photos help?

Models are fitted on 25, 50, 75 and 100 % of the training groups and predict photos of other groups,
several times with other groups. The error is extrapolated to twice as many groups by a power law,
error = a n^-b, which learning curves follow over a wide range (Hestness et al., Deep Learning
Scaling is Predictable, Empirically (2017)). It has no floor, so the gain is what is to be had if
the error keeps falling as it does: wrong labels, for example, end it earlier.

`evaluate` measures the curve of a cheap model, a linear one on the features of a general network;
`anklealign learning-curve` that of the selected model, which it trains each time.

Shapes: N photos, F features, K classes, R repeats, S = len(SHARES) sizes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from anklealign.evaluation import cross_validation
from anklealign.metrics.bootstrap import MIN_GROUPS, ci_bounds, resampling_weights
from anklealign.metrics.scores import Floats, Integers

SHARES = (0.25, 0.5, 0.75, 1.0)  # of the training groups
MOST_PHOTOS = 2000  # of a larger set, the first groups in a seeded order up to this number
STRENGTH = 1e-3  # C of the linear model, as in label-issues
LEAST_GAIN = 0.01  # of balanced accuracy; less is not worth the work of twice as many photos


def choose_photos(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return all photos by id, or those of seeded groups, about `MOST_PHOTOS`."""
    photos = table.sort_values("id", ignore_index=True)
    if len(photos) <= MOST_PHOTOS:
        return photos
    names = np.random.default_rng(seed).permutation(np.unique(photos.group.to_numpy(str)))
    sizes = photos.group.value_counts()[names].to_numpy()
    kept = names[: int(np.searchsorted(np.cumsum(sizes), MOST_PHOTOS)) + 1]
    return photos[photos.group.isin(kept)].reset_index(drop=True)


def probe() -> Pipeline:
    """Return the cheap model, not fitted."""
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    )


def probe_curve(
    features: npt.NDArray[np.floating[Any]],
    labels: Integers,
    groups: Sequence[str],
    classes: int,
    *,
    repeats: int,
    seed: int,
) -> Floats | None:
    """Return whether the linear model is right, by size and repeat: (S, R, N) of 0 and 1.

    Each repeat is a cross-validation by group with other folds, in which the model is fitted on
    nested subsets of the other folds' groups. None if the groups are too few.

    Args:
        features: (N, F).
        labels: (N,) class indices.
        groups: (N,) group names.
        classes: K.
        repeats: R.
        seed: Of folds and subsets.
    """
    model = probe()
    right = np.zeros((len(SHARES), repeats, len(labels)))
    names = np.asarray(groups, str)
    for repeat in tqdm(range(repeats), "learning curve", delay=1, leave=False, disable=None):
        fold = cross_validation.assign_folds(labels, groups, classes, seed + repeat)
        if fold is None:
            return None
        for number in np.unique(fold):
            test = np.flatnonzero(fold == number)
            order = group_order(names[fold != number], labels[fold != number], seed + repeat)
            for size, share in enumerate(SHARES):
                train = np.isin(names, subset(order, share, classes)) & (fold != number)
                predicted = cross_validation.probabilities_on(
                    model, features, labels, train, test
                ).argmax(1)
                right[size, repeat, test] = predicted == labels[test]
    return right


def group_order(groups: npt.NDArray[np.str_], labels: Integers, seed: int) -> list[str]:
    """Return the groups in a seeded order, first one of each class: (N,), (N,) -> G names."""
    shuffled = np.random.default_rng(seed).permutation(np.unique(groups)).tolist()
    of_class = [set(groups[labels == k].tolist()) for k in np.unique(labels)]
    first = [next(name for name in shuffled if name in own) for own in of_class]
    return list(dict.fromkeys([*first, *shuffled]))


def subset(order: Sequence[str], share: float, classes: int) -> list[str]:
    """Return this share of the groups, at least one per class."""
    return list(order[: max(classes, round(share * len(order)))])


def describe(
    right: Floats,
    labels: Integers,
    groups: Sequence[str],
    training: Sequence[tuple[float, float]],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Return the curve, the gain of twice as many groups with its interval, and the answer.

    Args:
        right: (S, R, N) of 0 and 1: whether a photo is classified correctly.
        labels: (N,) class indices.
        groups: (N,) group names.
        training: Mean number of training groups and photos of each size.
        resamples: Of the groups.
        confidence: Level of the interval.
        seed: Of the resampling.
    """
    per_class = np.stack([labels == k for k in np.unique(labels)], 1).astype(np.float64)

    def accuracies(weights: Floats) -> Floats:
        """Return balanced accuracies: (..., N) -> (..., S), means over the repeats."""
        hits = np.stack([weights @ (own[:, None] * per_class) for own in right.mean(1)], -2)
        balanced: Floats = (hits / (weights @ per_class)[..., None, :]).mean(-1)
        return balanced

    every = np.ones(len(labels))
    repeats = np.array([balanced(r, per_class) for r in np.moveaxis(right, 1, 0)])  # (R, S)
    sizes = np.array([count for count, _ in training])
    gain = extrapolated_gain(accuracies(every), sizes, len(labels))
    points = {
        f"{share:.0%}".rstrip("%"): {
            "groups": round(training[n][0], 1),
            "photos": round(training[n][1], 1),
            "value": round(float(repeats[:, n].mean()), 6),
            "sd": round(float(repeats[:, n].std(ddof=1)) if len(repeats) > 1 else 0.0, 6),
        }
        for n, share in enumerate(SHARES)
    }
    metrics: dict[str, Any] = {
        "repeats": len(repeats),
        "points": points,
        "twice": {"gain": round(float(gain), 6)},
    }
    codes = pd.factorize(np.asarray(groups), sort=True)[0].astype(np.int64)
    count = int(codes.max()) + 1
    if count >= MIN_GROUPS:
        drawn = np.concatenate(
            [
                extrapolated_gain(accuracies(block), sizes, len(labels))
                for block in resampling_weights(
                    codes, count, np.zeros(0), resamples, np.random.default_rng(seed)
                )
            ]
        )
        low, high = ci_bounds(drawn, gain, count, confidence)
        metrics["twice"] |= {"ci_low": round(float(low), 6), "ci_high": round(float(high), 6)}
    return metrics | {"answer": answer(metrics["twice"])}


def balanced(right: Floats, per_class: Floats) -> Floats:
    """Return balanced accuracies: (S, N), (N, K) -> (S,)."""
    means: Floats = (right @ per_class / per_class.sum(0)).mean(-1)
    return means


def extrapolated_gain(scores: Floats, sizes: Floats, photos: int) -> Floats:
    """Return the gain of twice the largest size by a power law of the error: (..., S) -> (...).

    The law is fitted to the logarithms by least squares. Errors count as at least that of half a
    photo. A growing error is extrapolated as constant.

    Args:
        scores: (..., S) balanced accuracies.
        sizes: (S,) ascending.
        photos: Number of photos that the scores were measured on.
    """
    errors = np.log(np.maximum(1 - scores, 0.5 / photos))
    x = np.log(sizes) - np.log(sizes).mean()
    slope = np.minimum((errors @ x) / (x @ x), 0.0)
    fitted = np.exp(errors.mean(-1) + slope * x[-1])
    gain: Floats = fitted * (1 - 2.0**slope)
    return gain


def answer(twice: dict[str, float]) -> str:
    """Return in words whether more photos would help."""
    gain = f"with twice as many, balanced accuracy {twice['gain']:+.3f}"
    if "ci_low" not in twice:
        return f"{gain} (too few groups for an interval)"
    gain += f" ({twice['ci_low']:+.3f} to {twice['ci_high']:+.3f})"
    if twice["ci_low"] > LEAST_GAIN:
        return f"more photos would help; {gain}"
    if twice["ci_high"] < LEAST_GAIN:
        return f"more photos of the same kind would hardly help; {gain}"
    return f"more photos may help; {gain}"


# What a curve is measured with, and the numbers of groups and photos of its points.
Measure = Callable[[pd.DataFrame], npt.NDArray[np.floating[Any]]]


def of_probe(
    table: pd.DataFrame,
    classes: Sequence[str],
    describe_photos: Measure,
    model_score: float,
    *,
    repeats: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Return the curve of a linear model on general features, and how far it is from the model.

    Args:
        table: id, row, label and group of the photos of all splits.
        classes: K names.
        describe_photos: Returns the features of photos of the table, (N, F).
        model_score: The model's balanced accuracy on the test split.
        repeats: R.
        resamples: Of the groups.
        confidence: Level of the interval.
        seed: Of photos, folds, subsets and resamples.

    Returns:
        {} if the groups are too few.
    """
    photos = choose_photos(table, seed)
    labels, groups = photos.label.map(list(classes).index).to_numpy(np.int64), list(photos.group)
    if len(np.unique(labels)) < len(classes):
        return {}
    right = probe_curve(
        describe_photos(photos), labels, groups, len(classes), repeats=repeats, seed=seed
    )
    if right is None:
        return {}
    folds = cross_validation.FOLDS
    largest = photos.group.nunique() * (folds - 1) / folds, len(photos) * (folds - 1) / folds
    training = [(share * largest[0], share * largest[1]) for share in SHARES]
    metrics = describe(
        right,
        labels,
        groups,
        training,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    chance = 1 / len(classes)
    reached = metrics["points"]["100"]["value"] - chance
    represents = reached >= 0.75 * (model_score - chance)
    if not represents:
        metrics["answer"] = (
            "the linear model is much weaker than this model, so its curve does not answer for it; "
            "`anklealign learning-curve` trains this model on parts of the photos"
        )
    return {"method": "linear model on general features", "represents_model": represents} | metrics
