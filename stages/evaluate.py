"""Evaluate: score the trained model on the test split, which no earlier stage uses.

Reads pixels/ and votes.csv in data/prepared/, data/split/photos.csv, data/train/repeats.csv, model/
and metrics/details/split.json. Writes metrics/scores.json (the headline metrics that DVC shows),
metrics/details/evaluate.json (every score with its 95% CI over groups and the majority baseline;
the spread over training seeds, calibration, prediction sets, unlike photos, human baseline where
test photos have votes, robustness), in plots/evaluate/ predictions.csv (one row per test photo),
reliability.csv, classes.csv and explanations.npz (attribution maps).

    python -m stages.evaluate

Runs in fp32 with TF32 off, with the same predictor as `anklealign predict` and the service. The
report stage draws the results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from anklealign.config import params, paths, stage
from anklealign.config.params import Evaluate
from anklealign.evaluation import (
    explained_photos,
    human_baseline,
    reference_images,
    robustness,
    score_tables,
)
from anklealign.evaluation.score_tables import Predictions
from anklealign.explainability import faithfulness
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Photos
from anklealign.io.pseudonyms import Pseudonyms
from anklealign.metrics.scores import Floats, confidence_bins, point_scores
from anklealign.models import calibration, inputs

METRICS = paths.DETAILS / "evaluate.json"
PLOTS = paths.PLOTS / "evaluate"
DIGITS = 4  # of a headline metric
# Of a probability in predictions.csv: another number of threads changes the eighth. The report
# draws the probabilities before calibration from them.
PROBABILITY_DIGITS = 6


def main() -> None:
    """Predict the test photos and write scores, tables and attribution maps."""
    raw = params.read()
    settings = params.section(raw, "evaluate", Evaluate)
    seed = params.section(raw, "seed", int)
    _, dataset = params.dataset(raw)
    inputs.set_threads(params.section(raw, "train.threads", int))
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    store = pixel_store.open_store()
    predictor = Predictor.load(paths.MODEL, params.section(raw, "train.device", str))
    classes = list(predictor.classes)

    _, validation = predict_split(table, "val", store, predictor)
    test, predictions = predict_split(table, "test", store, predictor)
    probabilities = predictions.probabilities
    own = predictor.bundle
    uncalibrated = calibration.undo(probabilities, own.temperature, own.class_bias)
    sets = predictor.prediction_sets(probabilities)
    rows = prediction_table(test, classes, probabilities, sets)
    novelty = predictor.novelty_scores(store, test.row.to_numpy())
    rows["novelty"], rows["in_distribution"] = novelty, predictor.in_distribution(novelty)

    metrics: dict[str, Any] = {
        results.BUNDLE: results.bundle_hash(paths.MODEL),
        "photos": len(test),
        "groups": int(test.group.nunique()),
        "parameters": predictor.parameter_count,
    }
    frequencies = class_frequencies(table, classes)
    metrics |= score_tables.classification_scores(
        test, classes, probabilities, frequencies, settings, ordered=dataset.ordered, seed=seed
    )
    metrics["calibration"] = score_tables.calibration_scores(
        predictions, validation, uncalibrated=uncalibrated, sets=sets, settings=settings, seed=seed
    )
    if seeds := score_tables.seed_scores(test, classes, pd.read_csv(paths.REPEATS)):
        metrics["seeds"] = seeds
    votes = pixel_store.read_table(paths.VOTES)
    if len(votes):
        scored = human_baseline.scored_votes(votes, list(test.id), predictions.predicted, classes)
        metrics["human_baseline"] = score_tables.human_baseline_scores(
            scored, test.set_index("id").group, len(classes), settings, seed
        )
    if settings.robustness:
        metrics["robustness"] = measure_robustness(
            test, store, predictor, limit=settings.robustness, flip=dataset.mirror_safe
        )
    if predictor.bundle.novelty is not None:
        metrics["novelty"] = score_tables.novelty_scores(
            ~rows.in_distribution.to_numpy(), predictions.groups, detection_rates(predictor),
            settings, seed,
        )  # fmt: skip
    metrics["explanations"] = explain(
        rows, test, store, predictor, limit=settings.explained, seed=seed
    )
    without_names(metrics, rows, Pseudonyms(settings.pseudonyms))
    write_outputs(metrics, rows, predictions, classes)
    stage.print_wrapped(summary_line(metrics))


def predict_split(
    table: pd.DataFrame, split: str, store: Photos, predictor: Predictor
) -> tuple[pd.DataFrame, Predictions]:
    """Return the photos of a split, sorted by path, and the predictions on them."""
    rows = table[table.split == split].sort_values("path", ignore_index=True)
    labels = rows.label.map(predictor.classes.index).to_numpy(np.int64)
    probabilities = predictor.probabilities(store, rows.row.to_numpy())
    return rows, Predictions(labels, probabilities, list(rows.group))


def class_frequencies(table: pd.DataFrame, classes: Sequence[str]) -> Floats:
    """Return the class frequencies in train: (K,)."""
    train = table.label[table.split == "train"]
    return np.array([(train == name).mean() for name in classes])


def prediction_table(
    test: pd.DataFrame, classes: Sequence[str], probabilities: Floats, sets: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    """Return one row per photo: group, classes, probabilities, prediction set, abstention."""
    rows = test[["id", "path", "collector", "group"]].assign(
        actual=test.label,
        predicted=[classes[k] for k in probabilities.argmax(1)],
        probability=probabilities.max(1),
    )
    columns = [f"p_{name}" for name in classes]
    rows = pd.concat([rows, pd.DataFrame(probabilities, rows.index, columns)], axis=1)
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


def write_outputs(
    metrics: Mapping[str, Any],
    rows: pd.DataFrame,
    predictions: Predictions,
    classes: Sequence[str],
) -> None:
    """Write the metrics, the headline and the tables of predictions, confidence and classes."""
    headline = headline_metrics(metrics, results.read_details(paths.DETAILS / "split.json"))
    results.write_details(METRICS, metrics)
    files.write_json(paths.SCORES, headline)
    files.write_table(paths.PREDICTIONS, rounded_probabilities(rows))
    files.write_table(PLOTS / "reliability.csv", reliability_table(predictions))
    counts = score_tables.confusion_table(rows, classes)
    files.write_table(PLOTS / "classes.csv", score_tables.class_table(metrics, counts))


def without_names(metrics: dict[str, Any], rows: pd.DataFrame, names: Pseudonyms) -> None:
    """Replace the names of persons in metrics and predictions, which git keeps, in place."""
    rows["path"] = [
        names.path(*row) for row in rows[["path", "collector", "group", "id"]].to_numpy().tolist()
    ]
    rows["collector"] = rows.collector.map(names.name)
    rows["group"] = rows.group.map(names.group)
    worst, human = metrics["worst"], metrics.get("human_baseline", {})
    if "collector" in worst:
        worst["collector"] = names.name(worst["collector"])
    if "by_annotator" in human:
        human["by_annotator"] = {
            names.name(name): scores for name, scores in human["by_annotator"].items()
        }


def reliability_table(predictions: Predictions) -> pd.DataFrame:
    """Return the mean confidence, accuracy and photos of each equal-count bin of confidence."""
    probabilities = predictions.probabilities
    table = pd.DataFrame(
        {
            "bin": confidence_bins(probabilities),
            "confidence": probabilities.max(1),
            "accuracy": (predictions.predicted == predictions.labels).astype(float),
            "photos": 1,
        }
    )
    means = {"confidence": "mean", "accuracy": "mean", "photos": "sum"}
    return table.groupby("bin").agg(means).round(DIGITS).reset_index(drop=True)


def headline_metrics(metrics: Mapping[str, Any], split: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that DVC shows: at most 15 numbers (docs/experiments.md)."""
    values = {
        name: round(score["value"], DIGITS)
        for name, score in metrics.items()
        if isinstance(score, Mapping) and "value" in score
    }
    balanced = metrics["balanced_accuracy"]
    association = "kappa" if "kappa" in metrics else "mcc"
    coverage = metrics["calibration"]["coverage"]["value"]
    seeds = metrics.get("seeds", {}).get("balanced_accuracy", {})
    # The nested keys have a dot in DVC's tables, so `dvc exp show --drop ".*[./]"` hides them.
    return {
        **{name: values[name] for name in ("balanced_accuracy", "accuracy", "log_loss")},
        "ci": {
            k: round(balanced[f"ci_{k}"], DIGITS) for k in ("low", "high") if "ci_low" in balanced
        },
        **({"seeds": {k: round(seeds[k], DIGITS) for k in ("mean", "sd")}} if seeds else {}),
        "scores": {name: values[name] for name in ("macro_f1", association)},
        "calibration": {
            "error": values["calibration_error"],
            "coverage": round(coverage, DIGITS),
        },
        "test": {
            "photos": metrics["photos"],
            "groups": metrics["groups"],
            "leaking_pairs": split["leaking_pairs"],
        },
        results.BUNDLE: {
            "parameters": metrics["parameters"],
            "sha256": metrics[results.BUNDLE][: results.SHORT],
        },
    }


def detection_rates(predictor: Predictor) -> dict[str, float]:
    """Return the share of drawn images of each kind that count as unlike the training photos."""
    drawn = reference_images.draw(predictor.bundle.preprocessing.size)
    return {
        kind: float(1 - predictor.in_distribution(predictor.novelty_scores(images)).mean())
        for kind, images in drawn.items()
    }


def measure_robustness(
    test: pd.DataFrame, store: Photos, predictor: Predictor, *, limit: int, flip: bool
) -> dict[str, Any]:
    """Return the scores on corrupted photos, by kind and level.

    Uses the first `limit` photos by id, an order independent of path and label.
    """
    photos = test.sort_values("id").head(limit)
    pixels = store[photos.row.to_numpy()]
    labels = photos.label.map(predictor.classes.index).to_numpy(np.int64)
    clean = point_scores(labels, predictor.probabilities(pixels))[robustness.SCORE]
    scores: dict[str, dict[int, float]] = {}
    corrupted = robustness.corruption_scores(
        pixels,
        photos[["left", "top", "right", "bottom"]].to_numpy(np.int64),
        list(photos.id),
        labels,
        predictor.probabilities,
        fill=predictor.bundle.preprocessing.fill,
        flip=flip,
    )
    total = sum(map(len, robustness.LEVELS.values()))
    for kind, level, score in tqdm(corrupted, total=total, desc="robustness", disable=None):
        scores.setdefault(kind, {})[level] = round(score, 6)
    return {"photos": len(photos), "unchanged": round(clean, 6), **scores}


def explain(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Photos,
    predictor: Predictor,
    *,
    limit: int,
    seed: int,
) -> dict[str, float | int]:
    """Write the attribution maps and return their faithfulness scores.

    The scores use the first `limit` photos by id, an order independent of path and label.
    """
    bundle, device = predictor.bundle, predictor.device
    maps = explained_photos.attribution_maps(predictions, test, store, bundle, device)
    results.write_arrays(paths.EXPLANATIONS, maps)
    rows = predictions.sort_values("id").head(limit)
    predicted = rows.predicted.map(bundle.classes.index).to_numpy(np.int64)
    pixels = store[test.row[rows.index].to_numpy()]
    return faithfulness.measure(bundle, pixels, predicted, seed, device)


def summary_line(metrics: Mapping[str, Any]) -> str:
    """Return the line that ends the stage: accuracy, majority baseline, photos and groups."""
    accuracy = metrics["accuracy"]
    interval = ""
    if "ci_low" in accuracy:
        interval = f" (95% CI {accuracy['ci_low']:.3f} to {accuracy['ci_high']:.3f})"
    return (
        f"evaluate: accuracy {accuracy['value']:.3f}{interval}, majority baseline "
        f"{accuracy['majority']:.3f}; {metrics['photos']} test photos in {metrics['groups']} groups"
    )


if __name__ == "__main__":
    stage.run("evaluate", main)
