"""Metrics of a trained model as nested dicts for DVC, rounded to six decimals.

Shapes: N photos, K classes. A confidence interval is stored as `ci_low` and `ci_high` next to its
value. Both are missing where there are fewer groups than `bootstrap.MIN_GROUPS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax

from anklealign.config.params import Evaluate
from anklealign.evaluation import human_baseline
from anklealign.metrics.bootstrap import (
    MIN_GROUPS,
    Estimate,
    ci_bounds,
    mean_with_ci,
    resampling_weights,
    scores_with_ci,
)
from anklealign.metrics.scores import (
    EPSILON,
    FURTHER,
    LOWER_IS_BETTER,
    ORDERED,
    OVERALL,
    PER_CLASS,
    RANKED,
    Floats,
    Integers,
    loss_scores,
    point_scores,
)
from anklealign.models import calibration
from anklealign.models.operating_point import OperatingPoint

# Fewer photos do not qualify a collector as the worst: a single mistake would decide.
MIN_COLLECTOR_PHOTOS = 5
SEED_SCORES = ("balanced_accuracy", "accuracy", "log_loss")  # whose spread over seeds is given


@dataclass(frozen=True)
class Predictions:
    """Predictions on one split: labels (N,), calibrated probabilities (N, K), groups (N,)."""

    labels: Integers
    probabilities: Floats
    groups: Sequence[str]

    @property
    def predicted(self) -> Integers:
        """Return the most probable classes: (N,)."""
        return np.asarray(self.probabilities.argmax(1), np.int64)


def rounded(values: Mapping[str, npt.ArrayLike]) -> dict[str, float]:
    """Return scalars as Python floats with six decimals."""
    # Adding 0 turns -0 into 0, which would otherwise print with its sign.
    return {name: round(float(np.asarray(value)), 6) + 0.0 for name, value in values.items()}


def classification_scores(
    test: pd.DataFrame,
    classes: Sequence[str],
    probabilities: Floats,
    frequencies: Floats,
    settings: Evaluate,
    *,
    ordered: bool,
    seed: int,
) -> dict[str, Any]:
    """Return overall and per-class scores with CIs, and the worst class and collector.

    Args:
        test: One row per photo: label, group, collector.
        classes: K names.
        probabilities: (N, K).
        frequencies: (K,) class frequencies in train, used by the majority baseline.
        settings: Number of resamples and confidence level.
        ordered: Whether the classes are ordered; the scores in ORDERED are reported only then.
        seed: Seed of the resampling.
    """
    labels = test.label.map(list(classes).index).to_numpy(np.int64)
    estimates = scores_with_ci(
        labels,
        probabilities,
        list(test.group),
        frequencies,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
    )
    names = [name for name in (*OVERALL, *FURTHER) if ordered or name not in ORDERED]
    metrics: dict[str, Any] = {name: rounded(estimates[name]) for name in names}
    for k, name in enumerate(classes):
        support = int((labels == k).sum())
        # Calibration of the class: over many photos, both are equal.
        calibrated = {"share": support / len(test), "mean_probability": probabilities[:, k].mean()}
        metrics[f"class_{name}"] = {
            "support": support,
            **class_scores(estimates, k),
            **rounded(calibrated),
        }
    return metrics | {"worst": worst(test, classes, probabilities)}


def class_scores(estimates: Mapping[str, Estimate], k: int) -> dict[str, float]:
    """Return the scores of class k with their CIs, without those of the majority baseline."""
    metrics = {}
    sources = {name: name for name in PER_CLASS} | {name: f"class_{name}" for name in RANKED}
    for name, source in sources.items():
        estimate = {key: values[k] for key, values in estimates[source].items()}
        metrics[name] = estimate["value"]
        metrics |= {
            f"{name}_{end}": estimate[end] for end in ("ci_low", "ci_high") if end in estimate
        }
    return rounded(metrics)


def seed_scores(
    test: pd.DataFrame, classes: Sequence[str], repeats: pd.DataFrame
) -> dict[str, Any]:
    """Return the mean and the standard deviation of the scores over training seeds.

    Args:
        test: One row per photo: id, label.
        classes: K names.
        repeats: seed, id and p_<class>, one row per seed and photo.

    Returns:
        An empty dict for a single seed.
    """
    label_of = test.set_index("id").label
    by_seed = {}
    for seed, rows in repeats.groupby("seed", sort=True):
        labels = label_of[rows.id].map(list(classes).index).to_numpy(np.int64)
        by_seed[seed] = point_scores(
            labels, rows[[f"p_{name}" for name in classes]].to_numpy(np.float64)
        )
    if len(by_seed) < 2:
        return {}
    table = pd.DataFrame(by_seed).T
    scores: dict[str, Any] = {"count": len(table)}
    for name in SEED_SCORES:
        values = {
            "mean": table[name].mean(),
            "sd": table[name].std(),
            "worst": table[name].min(),
            "best": table[name].max(),
        }
        if name in LOWER_IS_BETTER:
            values |= {"worst": values["best"], "best": values["worst"]}
        scores[name] = rounded(values)
    return scores


def subject_scores(
    test: pd.DataFrame, predictions: Predictions, settings: Evaluate, seed: int
) -> dict[str, Any]:
    """Return the scores of one prediction per subject, and of their photos one by one.

    The probabilities of a subject are the geometric means of those of its photos, normalized: the
    mean of the log probabilities. Subjects whose photos have several labels have no label to score
    and are counted.

    Args:
        test: One row per photo: label, subject ('' if unknown), group.
        predictions: On these photos.
        settings: Number of resamples and confidence level.
        seed: Seed of the resampling.

    Returns:
        An empty dict unless a subject has several photos.
    """
    known = np.flatnonzero((test.subject != "").to_numpy())
    codes, names = pd.factorize(test.subject.to_numpy()[known], sort=True)
    counts = np.bincount(codes, minlength=len(names))
    if not len(names) or counts.max() < 2:
        return {}
    labels = predictions.labels[known]
    lowest, highest = (
        pd.Series(labels).groupby(codes).agg(kind).to_numpy(np.int64) for kind in ("min", "max")
    )
    single = lowest == highest
    if not single.any():
        return {}
    logarithms = np.log(np.clip(predictions.probabilities[known], EPSILON, 1))
    sums = np.zeros((len(names), logarithms.shape[1]))
    np.add.at(sums, codes, logarithms)
    combined = softmax(sums / counts[:, None], axis=1)[single]
    photos = known[single[codes]].tolist()
    # All photos of a subject are in one group.
    group_of = dict(
        zip(codes.tolist(), [predictions.groups[n] for n in known.tolist()], strict=True)
    )
    groups = [group_of[k] for k in np.flatnonzero(single).tolist()]
    by_subject = Predictions(lowest[single], combined, groups)
    by_photo = Predictions(
        predictions.labels[photos],
        predictions.probabilities[photos],
        [predictions.groups[n] for n in photos],
    )
    metrics: dict[str, Any] = {
        "subjects": len(groups),
        "photos": len(photos),
        "several_labels": int((~single).sum()),
    }
    for prefix, scored in (("", by_subject), ("photo_", by_photo)):
        right = scored.predicted == scored.labels
        metrics[f"{prefix}accuracy"] = mean_score(right, scored.groups, (0.0, 1.0), settings, seed)
        points = point_scores(scored.labels, scored.probabilities)
        metrics |= rounded(
            {f"{prefix}{name}": points[name] for name in ("balanced_accuracy", "log_loss")}
        )
    return metrics


def operating_point_scores(
    predictions: Predictions,
    point: OperatingPoint,
    classes: Sequence[str],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return sensitivity, specificity and precision of a bundle's operating point.

    Args:
        predictions: On N photos.
        point: The operating point.
        classes: K names.
        settings: Number of resamples and confidence level.
        seed: Seed of the resampling.

    Returns:
        A score without photos to measure it on is left out.
    """
    flagged = point.flags(predictions.probabilities, classes)
    positive = predictions.labels == list(classes).index(point.positive)
    groups = np.array(predictions.groups)
    metrics: dict[str, Any] = asdict(point)
    for name, values, of in (
        ("sensitivity", flagged, positive),
        ("specificity", ~flagged, ~positive),
        ("precision", positive, flagged),
    ):
        if of.any():
            metrics[name] = mean_score(values[of], list(groups[of]), (0.0, 1.0), settings, seed)
    return metrics


def confusion_table(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return the confusion matrix: index the actual class, columns the predicted class."""
    counts = pd.crosstab(predictions.actual, predictions.predicted)
    return counts.reindex(index=list(classes), columns=list(classes), fill_value=0)


def class_table(metrics: Mapping[str, Any], counts: pd.DataFrame) -> pd.DataFrame:
    """Return one row per class, lowest recall first: scores and most frequent wrong prediction.

    Args:
        metrics: Result of `classification_scores`.
        counts: Photo counts; the index is the actual class, the columns the predicted class.
    """
    wrong = counts.to_numpy().copy()
    np.fill_diagonal(wrong, 0)
    most = wrong.max(1)
    confused = np.where(most > 0, counts.columns.to_numpy()[wrong.argmax(1)], "")
    rows = [
        {"class": name, **metrics[f"class_{name}"], "confused_with": other, "confused_photos": n}
        for name, other, n in zip(counts.index, confused, most.tolist(), strict=True)
    ]
    return pd.DataFrame(rows).sort_values(["recall", "class"], ignore_index=True)


def worst(
    test: pd.DataFrame, classes: Sequence[str], probabilities: Floats
) -> dict[str, str | int | float]:
    """Return the class with the lowest recall and the collector with the lowest accuracy."""
    correct = test.label.to_numpy() == np.array(classes)[probabilities.argmax(1)]
    by_class = pd.Series(correct).groupby(test.label.to_numpy()).agg(["mean", "size"])
    name = str(by_class["mean"].idxmin())
    metrics: dict[str, str | int | float] = {
        "class": name,
        "class_photos": int(by_class["size"][name]),
        "class_recall": round(float(by_class["mean"][name]), 6),
    }
    by_collector = pd.Series(correct).groupby(test.collector.to_numpy()).agg(["mean", "size"])
    large = by_collector["size"] >= MIN_COLLECTOR_PHOTOS
    eligible = by_collector[large & (by_collector.index != "")]
    if len(eligible):
        name = str(eligible["mean"].idxmin())
        metrics |= {
            "collector": name,
            "collector_photos": int(eligible["size"][name]),
            "collector_accuracy": round(float(eligible["mean"][name]), 6),
        }
    return metrics


def calibration_scores(
    test: Predictions,
    validation: Predictions | None,
    *,
    uncalibrated: Floats,
    sets: npt.NDArray[np.bool_],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return the scores before calibration and those of the prediction sets.

    `expected_low` and `expected_high` are the range of the coverage when the groups of both splits
    are reassigned at random; they need the validation photos.

    Args:
        test: Predictions on N photos.
        validation: Predictions on the photos that calibration and threshold were fitted on, or
            None where they are not at hand.
        uncalibrated: (N, K) test probabilities of the same model before calibration.
        sets: (N, K) prediction sets.
        settings: Number of resamples and confidence level.
        seed: Seed of the resampling.
    """
    photos, classes = test.probabilities.shape
    scores = loss_scores(test.labels, uncalibrated)(np.ones(photos))
    before = {name: score for name, score in scores.items() if name not in ORDERED}
    covered = sets[np.arange(photos), test.labels]
    abstained = calibration.abstains(sets)
    correct = test.predicted == test.labels
    expected = {"nominal": calibration.COVERAGE}
    if validation is not None:
        expected = _expected_coverage(test, validation, settings, seed)

    def mean(values: npt.ArrayLike, upper: float = 1.0) -> dict[str, float]:
        return mean_score(values, test.groups, (0.0, upper), settings, seed)

    metrics: dict[str, Any] = {
        "before_calibration": rounded(before),
        "coverage": mean(covered) | rounded(expected),
        "set_size": mean(sets.sum(1), classes),
        "abstention": mean(abstained),
    }
    if not abstained.all():
        metrics["selective_accuracy"] = round(float(correct[~abstained].mean()), 6)
        if abstained.any():
            metrics["selective_gain"] = _selective_gain(
                correct, ~abstained, test.groups, settings, seed
            )
    return metrics


def _selective_gain(
    correct: npt.NDArray[np.bool_],
    answered: npt.NDArray[np.bool_],
    groups: Sequence[str],
    settings: Evaluate,
    seed: int,
) -> dict[str, float]:
    """Return the accuracy without abstention minus that on all photos, with its CI.

    Abstaining helps where the interval is above 0: it leaves out photos that are more often wrong.
    """

    def gain(weights: Floats) -> Floats:
        chosen = np.maximum(weights @ answered, np.finfo(np.float64).tiny)
        selective: Floats = weights @ (correct & answered) / chosen
        every: Floats = weights @ correct / weights.sum(-1)
        return np.asarray(selective - every)

    value = gain(np.ones(len(correct)))
    codes = pd.factorize(np.asarray(groups), sort=True)[0].astype(np.int64)
    count = int(codes.max()) + 1
    if count < MIN_GROUPS:
        return rounded({"value": value})
    blocks = resampling_weights(
        codes, count, np.zeros(0), settings.bootstrap, np.random.default_rng(seed)
    )
    drawn = np.concatenate([gain(block) for block in blocks])
    low, high = ci_bounds(drawn, value, count, settings.confidence)
    return rounded({"value": value, "ci_low": low, "ci_high": high})


def _expected_coverage(
    test: Predictions, validation: Predictions, settings: Evaluate, seed: int
) -> dict[str, float]:
    """Return the nominal coverage, and its range under random exchanges of the groups."""
    groups = len(set(validation.groups))
    low, high = calibration.coverage_range(
        np.concatenate(
            [
                calibration.largest_thresholds(split.probabilities, split.labels)
                for split in (validation, test)
            ]
        ),
        [*validation.groups, *test.groups],
        groups,
        confidence=settings.confidence,
        draws=settings.bootstrap,
        seed=seed,
    )
    nominal = calibration.nominal_coverage(groups)
    return {"nominal": nominal, "expected_low": low, "expected_high": high}


def novelty_scores(
    refused: npt.NDArray[np.bool_],
    groups: Sequence[str],
    detected: Mapping[str, float],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return the shares of test photos and of drawn images that are unlike the training photos.

    Args:
        refused: (N,) whether a test photo counts as unlike the training photos.
        groups: (N,) group names.
        detected: Share of the drawn images of each kind that count as unlike.
        settings: Number of resamples and confidence level.
        seed: Seed of the resampling.
    """
    share = mean_score(refused, groups, (0.0, 1.0), settings, seed)
    return {"false_refusals": share, "detected": rounded(detected)}


def human_baseline_scores(
    rows: pd.DataFrame, groups: pd.Series, classes: int, settings: Evaluate, seed: int
) -> dict[str, Any]:
    """Return the accuracy of the annotators and of the model against the other annotators.

    Args:
        rows: Result of `human_baseline.scored_votes`.
        groups: Group of each photo, indexed by photo id.
        classes: K.
        settings: Number of resamples and confidence level.
        seed: Seed of the resampling.
    """
    metrics: dict[str, Any] = {
        "annotators": int(rows.annotator.nunique()),
        "photos": int(rows.photo.nunique()),
        "votes": len(rows),
    }
    if rows.empty:
        return metrics
    vote, predicted = (
        (rows[name] == rows.reference).astype(float) for name in ("vote", "predicted")
    )
    vote_groups = list(groups[rows.photo])
    table = human_baseline.scores_by_annotator(rows, classes).set_index("annotator")
    return metrics | {
        "accuracy": mean_score(vote, vote_groups, (0.0, 1.0), settings, seed),
        "model_accuracy": mean_score(predicted, vote_groups, (0.0, 1.0), settings, seed),
        "model_gain": mean_score(predicted - vote, vote_groups, (-1.0, 1.0), settings, seed),
        "by_annotator": table.to_dict("index"),
    }


def mean_score(
    values: npt.ArrayLike,
    groups: Sequence[str],
    bounds: tuple[float, float],
    settings: Evaluate,
    seed: int,
) -> dict[str, float]:
    """Return the mean of bounded values (N,) with its CI, rounded (`bootstrap.mean_with_ci`)."""
    return rounded(
        mean_with_ci(
            values,
            groups,
            bounds,
            resamples=settings.bootstrap,
            confidence=settings.confidence,
            seed=seed,
        )
    )
