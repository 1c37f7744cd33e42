"""Measure how well the class follows from what is no part of the subject: a shortcut.

If all photos of one class were taken by one person, in one room or at one size, a model can be
right on the test split without a look at the subject, and fail elsewhere (Geirhos et al., Shortcut
Learning in Deep Neural Networks (2020)). The collector, the image size, borders, brightness,
sharpness and the background color each predict the class here by a small random forest, in
cross-validation by group, so that a group's photos are predicted from those of others.

A balanced accuracy above that of the majority class does not show that the model uses the
attribute: flowers are behind bees. It shows that the set cannot tell whether it does.

Shapes: N photos, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from tqdm import tqdm

from anklealign.evaluation import cross_validation, photo_attributes
from anklealign.io.pixel_store import Photos
from anklealign.metrics.bootstrap import MIN_GROUPS, scores_with_ci
from anklealign.metrics.scores import Floats, Integers

SCORE = "balanced_accuracy"  # a majority class has 1 / K
MOST_PHOTOS = 2000  # the first by id, of a larger set; with two equal classes, ± 0.02 at most
TREES, DEPTH, LEAF = 40, 6, 3
# An attribute is near the model if it has at least this share of the model's gain over the majority
# class. Half of it is the least that is worth a look: the rest may be due to the subject.
NEAR = 0.5


def audit(
    table: pd.DataFrame,
    store: Photos,
    classes: Sequence[str],
    model: Mapping[str, float],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Return the balanced accuracy of each attribute alone, and warnings in words.

    Args:
        table: id, row, label, collector, group, size and box of the photos of all splits.
        store: Their pixels.
        classes: K names.
        model: value and majority of the model's balanced accuracy on the test split.
        resamples: Of the groups.
        confidence: Level of the intervals.
        seed: Of the resampling.

    Returns:
        `photos`, `attributes` (each: value, majority, gain and their intervals) and `warnings`
        (sentence by attribute); {} if the groups are too few to cross-validate.
    """
    photos = table.sort_values("id", ignore_index=True).head(MOST_PHOTOS)
    labels = photos.label.map(list(classes).index).to_numpy(np.int64)
    fold = cross_validation.assign_folds(labels, list(photos.group), len(classes))
    if fold is None or photos.group.nunique() < MIN_GROUPS:
        return {}
    attributes: dict[str, Any] = {}
    blocks = attribute_blocks(photos, store)
    for name, features in tqdm(blocks.items(), "shortcuts", delay=1, leave=False, disable=None):
        probabilities = out_of_fold(features, labels, fold)
        estimate = scores_with_ci(
            labels,
            probabilities,
            list(photos.group),
            np.bincount(labels, minlength=len(classes)) / len(labels),
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )[SCORE]
        attributes[name] = {key: round(float(value), 6) for key, value in estimate.items()}
    return {
        "photos": len(photos),
        "attributes": attributes,
        "warnings": warnings(attributes, model),
    }


def attribute_blocks(photos: pd.DataFrame, store: Photos) -> dict[str, Floats]:
    """Return the features of each attribute: (N, F) by name."""
    measured = photo_attributes.measure(photos, store)
    blocks = {
        name: measured[list(columns)].to_numpy(np.float64)
        for name, columns in photo_attributes.ATTRIBUTES.items()
    }
    if len(photos.collector.unique()) > 1:
        collectors = pd.get_dummies(photos.collector).to_numpy(np.float64)
        return {"collector": collectors, **blocks}
    return blocks


def out_of_fold(features: Floats, labels: Integers, fold: Integers) -> Floats:
    """Return the probabilities of each photo by a model of the other folds: (N, F) -> (N, K)."""
    forest = RandomForestClassifier(
        TREES, max_depth=DEPTH, min_samples_leaf=LEAF, class_weight="balanced", random_state=0
    )
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    for number in np.unique(fold):
        test = fold == number
        probabilities[test] = cross_validation.probabilities_on(
            forest, features, labels, ~test, test
        )
    return probabilities


def warnings(
    attributes: Mapping[str, Mapping[str, float]], model: Mapping[str, float]
) -> dict[str, str]:
    """Return a sentence for each attribute that comes near the model."""
    sentences = {}
    for name, score in attributes.items():
        above = score["value"] - score["majority"]
        if score["ci_low"] <= score["majority"] or above < NEAR * model["gain"]:
            continue
        sentences[name] = (
            f"{name.replace('_', ' ')} alone predicts the class with a balanced accuracy of "
            f"{score['value']:.2f} ({score['ci_low']:.2f} to {score['ci_high']:.2f}; majority "
            f"class {score['majority']:.2f}, the model on test {model['value']:.2f}): the scores "
            "do not show that the model looks at anything else"
        )
    return sentences
