"""Predictions of a bundle on labeled photos, and the tables that are written of them.

Shapes: N photos, K classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from anklealign.evaluation.network_passes import NetworkPasses
from anklealign.evaluation.score_tables import Predictions
from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Photos
from anklealign.metrics.scores import Floats, confidence_bins
from anklealign.models import calibration
from anklealign.models.operating_point import OperatingPoint

# Of a probability in predictions.csv: another number of threads changes the eighth. The report
# draws the probabilities before calibration from them.
PROBABILITY_DIGITS = 6
RELIABILITY_DIGITS = 4

Features = npt.NDArray[np.float32]


def predict_table(
    table: pd.DataFrame, store: Photos, predictor: Predictor
) -> tuple[pd.DataFrame, Predictions]:
    """Return the photos of a table, sorted by path, and the predictions on them."""
    rows = table.sort_values("path", ignore_index=True)
    labels = rows.label.map(predictor.classes.index).to_numpy(np.int64)
    probabilities = predictor.probabilities(store, rows.row.to_numpy())
    return rows, Predictions(labels, probabilities, list(rows.group))


def describe_table(
    table: pd.DataFrame, networks: NetworkPasses
) -> tuple[pd.DataFrame, Predictions, dict[int, Features]]:
    """Return what `predict_table` returns, and the model's features (C,) by row of the store."""
    rows = table.sort_values("path", ignore_index=True)
    labels = rows.label.map(networks.predictor.classes.index).to_numpy(np.int64)
    photo_rows = rows.row.to_numpy(np.int64)
    probabilities, features = networks.describe(photo_rows)
    by_row = dict(zip(photo_rows.tolist(), features.numpy(), strict=True))
    return rows, Predictions(labels, probabilities, list(rows.group)), by_row


def prediction_table(
    test: pd.DataFrame,
    classes: Sequence[str],
    probabilities: Floats,
    sets: npt.NDArray[np.bool_],
    point: OperatingPoint | None = None,
) -> pd.DataFrame:
    """Return one row per photo: group, classes, probabilities, prediction set, abstention.

    With an operating point, `at_operating_point` is the class at it.
    """
    rows = test[["id", "path", "collector", "group"]].assign(
        actual=test.label,
        predicted=[classes[k] for k in probabilities.argmax(1)],
        probability=probabilities.max(1),
    )
    columns = [f"p_{name}" for name in classes]
    rows = pd.concat([rows, pd.DataFrame(probabilities, rows.index, columns)], axis=1)
    if point:
        rows["at_operating_point"] = point.classes_of(probabilities, classes)
    # The hash shows whether the test photo of another run is the same picture.
    return rows.assign(
        prediction_set=calibration.format_sets(sets, classes),
        abstain=calibration.abstains(sets),
        sha256=test.sha256,
    )


def rounded_probabilities(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions, rounded so that no number of threads changes them."""
    columns = ["probability", "novelty", *(c for c in rows.columns if c.startswith("p_"))]
    return rows.assign(**{name: rows[name].round(PROBABILITY_DIGITS) for name in columns})


def reliability_table(predictions: Predictions, uncalibrated: Floats | None = None) -> pd.DataFrame:
    """Return the mean confidence, accuracy and photos of each equal-count bin of confidence.

    With `uncalibrated`, the probabilities before calibration (N, K), the columns
    `confidence_before` and `accuracy_before` have the same of their own bins.
    """
    table = _reliability(predictions.labels, predictions.probabilities)
    if uncalibrated is None:
        return table
    before = _reliability(predictions.labels, uncalibrated).drop(columns="photos")
    return table.join(before.add_suffix("_before"), how="outer")


def _reliability(labels: npt.NDArray[np.int64], probabilities: Floats) -> pd.DataFrame:
    """Return one row for each bin of confidence: (N,), (N, K)."""
    table = pd.DataFrame(
        {
            "bin": confidence_bins(probabilities),
            "confidence": probabilities.max(1),
            "accuracy": (probabilities.argmax(1) == labels).astype(float),
            "photos": 1,
        }
    )
    means = {"confidence": "mean", "accuracy": "mean", "photos": "sum"}
    return table.groupby("bin").agg(means).round(RELIABILITY_DIGITS).reset_index(drop=True)
