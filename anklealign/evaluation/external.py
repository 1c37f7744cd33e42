"""Compare a labeled set that a model never saw with its training photos.

Scores on such a set (another place, another year, other cameras) hold for it only as far as it is
new and as far as it is described. This module measures both: photos that are in the training set
(`overlap`), and how the set differs from the training photos (`drift`): in its class shares, in
what its photos look like to the general network of the novelty detector, and in size, borders,
light, sharpness and background.

Shapes: N photos, K classes, R reference photos of the novelty detector.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anklealign.config.params import Evaluate
from anklealign.evaluation import bundle_scores, photo_attributes
from anklealign.evaluation.prediction_tables import predict_table
from anklealign.evaluation.score_tables import Predictions, mean_score, rounded
from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Photos
from anklealign.metrics.scores import Integers
from anklealign.models import novelty

# A photo shows the same picture as a training photo if its cosine distance to it is below this
# fraction of the distance from which a photo counts as unlike the training photos. Among photos of
# ants and bees (limit 0.072), the same file has 0.000, saved again at JPEG quality 60 to 95 at most
# 0.062, and no other photo is nearer than 0.195. Among drawn legs (limit 0.021), no other photo is
# nearer than 0.026.
SAME_PICTURE = 0.1
# As many resamples and photos as the default parameters of the evaluate stage.
SETTINGS = Evaluate(bootstrap=2000, confidence=0.95, mistakes=24, explained=1, robustness=0)
EXPECTED = 0.1  # share of the training photos below their 5th or above their 95th percentile
NOTABLE = 0.25  # share outside that range from which a difference is reported
NOTABLE_SHIFT = 0.1  # difference of a class share that is reported


def evaluate(
    predictor: Predictor,
    test: pd.DataFrame,
    store: Photos,
    votes: pd.DataFrame,
    splits: Mapping[str, str] | None,
    *,
    ordered: bool,
) -> tuple[dict[str, Any], pd.DataFrame, Predictions]:
    """Return the metrics of a bundle on photos, a row per photo and the predictions.

    The metrics have the keys of metrics/details/evaluate.json that need no training run, and
    `overlap` and `drift`.

    Args:
        predictor: The bundle.
        test: id, row, path, label, collector, subject, group, sha256, size and box of each photo.
        store: Pixels of the photos.
        votes: photo, annotator, label of the photos with votes.
        splits: Split of each photo of the training run by the SHA-256 of its file, if known.
        ordered: Whether the classes lie on a scale.
    """
    bundle, classes = predictor.bundle, list(predictor.classes)
    seed = int(bundle.record["params"]["seed"])
    test, predictions = predict_table(test, store, predictor)
    scores = predictor.novelty_scores(store, test.row.to_numpy())
    rows = bundle_scores.predicted_rows(test, predictions, predictor, scores)
    rows["seen"] = overlap(
        test, splits, shows_training_photo(predictor, store, test.row.to_numpy())
    )
    counts = bundle.record["train_class_counts"]
    frequencies = np.array([counts[name] for name in classes], np.float64)
    metrics = bundle_scores.all_scores(
        test,
        predictions,
        predictor,
        votes,
        validation=None,
        frequencies=frequencies / frequencies.sum(),
        ordered=ordered,
        settings=SETTINGS,
        seed=seed,
    )
    right = predictions.predicted == predictions.labels
    checked = splits is not None or bundle.novelty is not None
    metrics["overlap"] = overlap_scores(rows.seen, right, checked=checked)
    metrics["drift"] = class_shift(predictions.labels, predictions.predicted, classes, counts)
    if bundle.novelty is not None:
        refused = ~rows.in_distribution.to_numpy()
        metrics["drift"]["unlike"] = mean_score(
            refused, predictions.groups, (0.0, 1.0), SETTINGS, seed
        ) | {"nominal": bundle.novelty.false_refusals}
    if "photo_attributes" in bundle.record:
        metrics["drift"]["attributes"] = attribute_drift(
            photo_attributes.measure(test, store),
            bundle.record["photo_attributes"],
            predictions.groups,
            SETTINGS,
            seed,
        )
    metrics["warnings"] = warnings(metrics)
    return metrics, rows, predictions


def overlap(
    table: pd.DataFrame, splits: Mapping[str, str] | None, same_picture: npt.NDArray[np.bool_]
) -> "pd.Series[str]":
    """Return for each photo where the model has seen it: a split, `similar`, or ''.

    Args:
        table: sha256 of N photos.
        splits: Split of each photo of the training run by the SHA-256 of its file, if known.
        same_picture: (N,) result of `shows_training_photo`.
    """
    known = splits or {}
    seen = pd.Series([known.get(sha256, "") for sha256 in table.sha256], index=table.index)
    return seen.mask((seen == "") & pd.Series(same_picture, index=table.index), "similar")


def shows_training_photo(
    predictor: Predictor, store: Photos, rows: Integers
) -> npt.NDArray[np.bool_]:
    """Return whether photos show the picture of a training photo: (N,) rows -> (N,).

    All False for a bundle without features of training photos. A bundle has at most 2,000.
    """
    detector = predictor.bundle.novelty
    if detector is None:
        return np.zeros(len(rows), np.bool_)
    features = novelty.describe(store, rows, predictor.device)
    nearest = 1 - (features @ detector.references.T).max(1)
    return np.asarray(nearest <= SAME_PICTURE * detector.threshold)


def class_shift(
    labels: Integers, predicted: Integers, classes: Sequence[str], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Return each class's share of the training photos and of these, and what follows from them.

    `accuracy_at_training_shares` weights the recalls by the shares in train: what is left of a
    difference to the test split's accuracy is not due to the class shares.

    Args:
        labels: (N,) class indices.
        predicted: (N,) class indices.
        classes: K names.
        counts: Training photos of each class.
    """
    train = np.array([counts[name] for name in classes], np.float64)
    train /= train.sum()
    own = np.bincount(labels, minlength=len(classes))
    right = np.bincount(labels[labels == predicted], minlength=len(classes))
    present = own > 0
    weights = train * present / (train * present).sum()
    recalls = right[present] / own[present]
    shift: dict[str, Any] = {
        name: rounded({"train": train[k], "share": own[k] / len(labels)})
        for k, name in enumerate(classes)
    }
    return {
        "classes": shift,
        **rounded({"accuracy_at_training_shares": weights[present] @ recalls}),
    }


def attribute_drift(
    attributes: pd.DataFrame,
    train: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return, for each attribute, medians and the share outside the training photos' middle 90%.

    Args:
        attributes: Result of `photo_attributes.measure` for N photos.
        train: Result of `photo_attributes.quantiles` for the training photos.
        groups: (N,) group names.
        settings: Number of resamples and confidence level.
        seed: Seed of the resampling.
    """
    drift: dict[str, Any] = {}
    for name in photo_attributes.COLUMNS:
        values, levels = attributes[name].to_numpy(np.float64), np.asarray(train[name])
        step = (len(levels) - 1) // 20  # of five percent
        outside = (values < levels[step]) | (values > levels[-1 - step])
        drift[name] = {
            **rounded({"train_median": levels[len(levels) // 2], "median": np.median(values)}),
            "outside": mean_score(outside, groups, (0.0, 1.0), settings, seed),
        }
    return drift


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences about what makes the scores less than they seem, the gravest first."""
    seen, photos = metrics["overlap"], metrics["photos"]
    lines = []
    if count := sum(
        number for split, number in seen["splits"].items() if split in {"train", "val"}
    ):
        lines.append(
            f"{count} of the {photos} photos were used to train or calibrate the model; their "
            "scores say nothing about new photos. Remove them (column seen of predictions.csv)"
        )
    if count := seen["splits"].get("similar", 0):
        lines.append(
            f"{count} of the {photos} photos look like the same picture as a training photo; "
            "check them (column seen of predictions.csv)"
        )
    if not seen["checked"]:
        lines.append(
            "whether the photos are among the training photos is unknown: the bundle has no "
            "features of these, and this folder has no split of the same run"
        )
    return lines + drift_warnings(metrics)


def drift_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences about notable differences to the training photos."""
    lines, drift = [], metrics["drift"]
    if unlike := drift.get("unlike"):
        least = unlike.get("ci_low", unlike["value"])
        if least > unlike["nominal"] and unlike["value"] >= 2 * unlike["nominal"]:
            lines.append(
                f"{unlike['value']:.0%} of the photos are unlike the training photos "
                f"({unlike['nominal']:.0%} expected); look at these (in_distribution is False in "
                "predictions.csv), as the model may not be made for them"
            )
    changed = [
        name
        for name, values in drift["classes"].items()
        if abs(values["share"] - values["train"]) >= NOTABLE_SHIFT
    ]
    if changed:
        listed = ", ".join(
            f"{name} {drift['classes'][name]['share']:.0%} (training photos "
            f"{drift['classes'][name]['train']:.0%})"
            for name in changed[:3]
        )
        lines.append(
            f"the classes have other shares: {listed}; compare balanced accuracy rather than "
            "accuracy, and recalibrate before you use the probabilities"
        )
    notable = [
        f"{name.replace('_', ' ')} ({values['outside']['value']:.0%})"
        for name, values in drift.get("attributes", {}).items()
        if values["outside"]["value"] >= NOTABLE
        and values["outside"].get("ci_low", NOTABLE) > EXPECTED
    ]
    if notable:
        lines.append(
            "many photos are outside the middle 90% of the training photos (10% expected) in: "
            + ", ".join(notable)
        )
    return lines


def overlap_scores(
    seen: "pd.Series[str]", correct: npt.NDArray[np.bool_], *, checked: bool
) -> dict[str, Any]:
    """Return the counts of seen photos and the accuracy on the others.

    Args:
        seen: Result of `overlap`.
        correct: (N,) whether the prediction is right.
        checked: Whether there was something to compare with.
    """
    counts = seen[seen != ""].value_counts().sort_index()
    block: dict[str, Any] = {
        "checked": checked,
        "splits": {str(name): int(number) for name, number in counts.items()},
    }
    new = (seen == "").to_numpy()
    if not new.all() and new.any():
        block |= {"new_photos": int(new.sum())} | rounded({"new_accuracy": correct[new].mean()})
    return block
