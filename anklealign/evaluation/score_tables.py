"""A trained model's figures as DVC keeps them: nested dicts of numbers, rounded to a millionth.

Shapes: N photos, K classes. An interval is `ci_low` and `ci_high` beside a value; with fewer groups
than `intervals.LEAST_GROUPS` both are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anklealign.config.params import Evaluate
from anklealign.evaluation import human_baseline
from anklealign.metrics.bootstrap import Parts, mean_with_interval, scores_with_intervals
from anklealign.metrics.scores import (
    FURTHER,
    OVERALL,
    PER_CLASS,
    RANKED,
    Floats,
    Integers,
    loss_scores,
)
from anklealign.models import calibration

# A collector with fewer photos is not called the worst: one mistake would decide it.
LEAST_PHOTOS = 5


@dataclass(frozen=True)
class Answers:
    """A model's answers to a part: labels (N,), calibrated probabilities (N, K) and groups (N,)."""

    labels: Integers
    probabilities: Floats
    groups: Sequence[str]

    @property
    def predicted(self) -> Integers:
        """Return the most probable classes: (N,)."""
        return np.asarray(self.probabilities.argmax(1), np.int64)


def numbers(parts: Mapping[str, npt.ArrayLike]) -> dict[str, float]:
    """Return scalars as plain numbers."""
    # Adding 0 makes 0 of -0, which would be shown with its sign.
    return {name: round(float(np.asarray(value)), 6) + 0.0 for name, value in parts.items()}


def scored(
    test: pd.DataFrame,
    classes: Sequence[str],
    probabilities: Floats,
    frequencies: Floats,
    settings: Evaluate,
    *,
    ordered: bool,
    seed: int,
) -> dict[str, Any]:
    """Return all scores with intervals, those per class, and the worst class and collector.

    Args:
        test: A row a photo: label, group, collector.
        classes: K names.
        probabilities: (N, K).
        frequencies: (K,) of the classes in train, which the majority baseline knows.
        settings: How many resamples, which confidence.
        ordered: Whether the classes lie on a scale; kappa is of such alone.
        seed: Of the resamples.
    """
    labels = test.label.map(list(classes).index).to_numpy(np.int64)
    found = scores_with_intervals(
        labels,
        probabilities,
        list(test.group),
        frequencies,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=seed,
    )
    names = [name for name in (*OVERALL, *FURTHER) if ordered or name != "kappa"]
    metrics: dict[str, Any] = {name: numbers(found[name]) for name in names}
    for k, name in enumerate(classes):
        metrics[f"class_{name}"] = {"support": int((labels == k).sum())} | of_class(found, k)
    return metrics | {"worst": worst(test, classes, probabilities)}


def of_class(found: Mapping[str, Parts], k: int) -> dict[str, float]:
    """Return one class's scores and their intervals, without the majority's."""
    metrics = {}
    sources = {name: name for name in PER_CLASS} | {name: f"class_{name}" for name in RANKED}
    for name, source in sources.items():
        parts = {part: value[k] for part, value in found[source].items()}
        metrics[name] = parts["value"]
        metrics |= {f"{name}_{end}": parts[end] for end in ("ci_low", "ci_high") if end in parts}
    return numbers(metrics)


def worst(
    test: pd.DataFrame, classes: Sequence[str], probabilities: Floats
) -> dict[str, str | int | float]:
    """Return the class of least recall and the collector of least accuracy, with their photos."""
    right = test.label.to_numpy() == np.array(classes)[probabilities.argmax(1)]
    by_class = pd.Series(right).groupby(test.label.to_numpy()).agg(["mean", "size"])
    name = str(by_class["mean"].idxmin())
    metrics: dict[str, str | int | float] = {
        "class": name,
        "class_photos": int(by_class["size"][name]),
        "class_recall": round(float(by_class["mean"][name]), 6),
    }
    by_collector = pd.Series(right).groupby(test.collector.to_numpy()).agg(["mean", "size"])
    enough = by_collector[(by_collector["size"] >= LEAST_PHOTOS) & (by_collector.index != "")]
    if len(enough):
        name = str(enough["mean"].idxmin())
        metrics |= {
            "collector": name,
            "collector_photos": int(enough["size"][name]),
            "collector_accuracy": round(float(enough["mean"][name]), 6),
        }
    return metrics


def calibrated(
    test: Answers,
    validation: Answers,
    *,
    uncalibrated: Floats,
    sets: npt.NDArray[np.bool_],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return what the temperature changed, and what the prediction sets hold.

    `expected_low` and `expected_high` are the coverage's where chance deals the groups of both
    parts anew.

    Args:
        test: N photos.
        validation: Those that temperature and threshold were fitted on.
        uncalibrated: (N, K), of the same model without its temperature.
        sets: (N, K), the prediction sets.
        settings: How many resamples, which confidence.
        seed: Of the resamples.
    """
    photos, classes = test.probabilities.shape
    before = loss_scores(test.labels, uncalibrated, photos)(np.ones(photos))
    held = sets[np.arange(photos), test.labels]
    abstained = calibration.abstains(sets)
    right = test.predicted == test.labels
    fitting_groups = len(set(validation.groups))
    low, high = calibration.coverage_range(
        np.concatenate(
            [calibration.of_truth(part.probabilities, part.labels) for part in (validation, test)]
        ),
        [*validation.groups, *test.groups],
        fitting_groups,
        confidence=settings.confidence,
        draws=settings.bootstrap,
        seed=seed,
    )
    promised = calibration.promised(fitting_groups)

    def mean(values: npt.ArrayLike, most: float = 1.0) -> dict[str, float]:
        return numbers(
            mean_with_interval(
                values,
                test.groups,
                (0.0, most),
                resamples=settings.bootstrap,
                confidence=settings.confidence,
                seed=seed,
            )
        )

    metrics: dict[str, Any] = {
        "before_temperature": numbers(before),
        "coverage": mean(held)
        | numbers({"promised": promised, "expected_low": low, "expected_high": high}),
        "set_size": mean(sets.sum(1), classes),
        "abstention": mean(abstained),
    }
    if not abstained.all():
        answered = float(right[~abstained].mean())
        metrics["accuracy_where_answered"] = round(answered, 6)
    return metrics


def beside_people(
    rows: pd.DataFrame, groups: pd.Series, classes: int, settings: Evaluate, seed: int
) -> dict[str, Any]:
    """Return people's accuracy and the model's, each against the other people's majority.

    Args:
        rows: As `people.beside_people` returns them.
        groups: Photo id to group.
        classes: K.
        settings: How many resamples, which confidence.
        seed: Of the resamples.
    """
    told: dict[str, Any] = {
        "annotators": int(rows.annotator.nunique()),
        "photos": int(rows.photo.nunique()),
        "votes": len(rows),
    }
    if rows.empty:
        return told
    said, predicted = ((rows[name] == rows.truth).astype(float) for name in ("said", "predicted"))
    each = {
        "accuracy": (said, (0.0, 1.0)),
        "model_accuracy": (predicted, (0.0, 1.0)),
        "model_gain": (predicted - said, (-1.0, 1.0)),
    }
    of_photo = list(groups[rows.photo])
    told |= {
        name: numbers(
            mean_with_interval(
                values,
                of_photo,
                bounds,
                resamples=settings.bootstrap,
                confidence=settings.confidence,
                seed=seed,
            )
        )
        for name, (values, bounds) in each.items()
    }
    table = human_baseline.by_annotator(rows, classes).set_index("annotator")
    return told | {"by_annotator": table.to_dict("index")}
