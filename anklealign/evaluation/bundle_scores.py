"""Every score of a bundle on labeled photos: the evaluate stage and `anklealign evaluate` share it.

Shapes: N photos, K classes.
"""

from typing import Any

import pandas as pd

from anklealign.config.params import Evaluate
from anklealign.evaluation import human_baseline, score_tables
from anklealign.evaluation.prediction_tables import prediction_table
from anklealign.evaluation.score_tables import Predictions
from anklealign.inference.predictor import Predictor
from anklealign.metrics.scores import Floats
from anklealign.models import calibration, operating_point


def predicted_rows(
    photos: pd.DataFrame, predictions: Predictions, predictor: Predictor, novelty: Floats
) -> pd.DataFrame:
    """Return one row per photo for predictions.csv: `prediction_table` and the novelty (N,)."""
    probabilities = predictions.probabilities
    rows = prediction_table(
        photos,
        list(predictor.classes),
        probabilities,
        predictor.prediction_sets(probabilities),
        operating_point.from_record(predictor.bundle.record),
    )
    rows["novelty"] = novelty
    rows["in_distribution"] = predictor.in_distribution(novelty)
    return rows


def all_scores(
    photos: pd.DataFrame,
    predictions: Predictions,
    predictor: Predictor,
    votes: pd.DataFrame,
    *,
    validation: Predictions | None,
    frequencies: Floats,
    ordered: bool,
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return the scores, calibration, subjects, operating point and human baseline.

    Args:
        photos: id, label, group, subject and collector of N photos.
        predictions: On these photos, in this order.
        predictor: The bundle.
        votes: photo, annotator and label of any votes.
        validation: Predictions on the bundle's validation photos, if they are at hand.
        frequencies: (K,) class frequencies in train.
        ordered: Whether the classes lie on a scale.
        settings: Number of resamples and confidence level.
        seed: Seed of the resampling.
    """
    classes, bundle = list(predictor.classes), predictor.bundle
    probabilities = predictions.probabilities
    metrics: dict[str, Any] = {
        "photos": len(photos),
        "groups": int(photos.group.nunique()),
        "parameters": predictor.parameter_count,
    }
    metrics |= score_tables.classification_scores(
        photos, classes, probabilities, frequencies, settings, ordered=ordered, seed=seed
    )
    metrics["calibration"] = score_tables.calibration_scores(
        predictions,
        validation,
        uncalibrated=calibration.undo(probabilities, bundle.temperature, bundle.class_bias),
        sets=predictor.prediction_sets(probabilities),
        settings=settings,
        seed=seed,
    )
    if subjects := score_tables.subject_scores(photos, predictions, settings, seed):
        metrics["subjects"] = subjects
    if point := operating_point.from_record(bundle.record):
        metrics["operating_point"] = score_tables.operating_point_scores(
            predictions, point, classes, settings, seed
        )
    if len(votes):
        scored = human_baseline.scored_votes(votes, list(photos.id), predictions.predicted, classes)
        metrics["human_baseline"] = score_tables.human_baseline_scores(
            scored, photos.set_index("id").group, len(classes), settings, seed
        )
    return metrics
