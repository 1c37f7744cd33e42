"""Evaluate: score the trained model on the test split, which no earlier stage uses.

Reads pixels.npy and votes.csv in data/prepared/, data/split/photos.csv, model/ and
plots/train/history.csv. Writes metrics/evaluate.json (every score with its 95% CI over groups and
the majority baseline; calibration, prediction sets, human baseline where test photos have votes,
robustness), plots/evaluate/predictions.csv (one row per test photo), confusion.csv, classes.csv
(scores of each class), pictures/ and explanations/. From these and from the metrics and pictures
of the other stages it writes metrics/MODEL_CARD.md and plots/report.html.

    python -m stages.evaluate

Runs in fp32 with TF32 off, with the same predictor as `anklealign predict` and the service.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign.config import params, paths, stage
from anklealign.config.params import Evaluate
from anklealign.evaluation import (
    explanation_sheets,
    human_baseline,
    plots,
    robustness,
    score_tables,
)
from anklealign.evaluation.score_tables import Predictions
from anklealign.explainability import faithfulness
from anklealign.explainability.attribution import has_attention
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store
from anklealign.io.pixel_store import Pixels
from anklealign.metrics.scores import Floats, point_scores
from anklealign.models import calibration
from anklealign.plotting import contact_sheets, style
from anklealign.reporting import html_report, model_card

METRICS = paths.METRICS / "evaluate.json"
PLOTS = paths.PLOTS / "evaluate"
PICTURES = PLOTS / "pictures"
CARD = paths.METRICS / "MODEL_CARD.md"


def main() -> None:
    """Predict the test photos and write scores, tables, pictures, model card and report."""
    raw = params.read()
    settings = params.section(raw, "evaluate", Evaluate)
    seed = params.section(raw, "seed", int)
    _, dataset = params.dataset(raw)
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    store = pixel_store.open_store()
    predictor = Predictor.load(paths.MODEL, params.section(raw, "train.device", str))
    classes = list(predictor.classes)

    _, validation = predict_split(table, "val", store, predictor)
    test, predictions = predict_split(table, "test", store, predictor)
    probabilities = predictions.probabilities
    temperature = predictor.bundle.temperature
    uncalibrated = calibration.undo_temperature(probabilities, temperature)
    sets = predictor.prediction_sets(probabilities)
    rows = prediction_table(test, classes, probabilities, sets)
    counts = confusion_table(rows, classes)

    metrics: dict[str, Any] = {
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
    figures = {
        "confusion": plots.confusion(counts),
        "reliability": plots.reliability(
            predictions.labels, uncalibrated, probabilities, temperature
        ),
        **training_history(predictor),
    }
    votes = pixel_store.read_table(paths.VOTES)
    if len(votes):
        scored = human_baseline.scored_votes(votes, list(test.id), predictions.predicted, classes)
        metrics["human_baseline"] = score_tables.human_baseline_scores(
            scored, test.set_index("id").group, len(classes), settings, seed
        )
        if len(scored):
            figures["human_baseline"] = plots.human_baseline(metrics["human_baseline"])
    if settings.robustness:
        metrics["robustness"], figures["robustness"] = measure_robustness(
            test, store, predictor, limit=settings.robustness, flip=dataset.mirror_safe
        )
    metrics["explanations"] = explain(
        rows, test, store, predictor, limit=settings.explained, seed=seed
    )
    write_outputs(metrics, rows, counts, figures)
    write_mistakes(rows, test, store, settings.mistakes)
    write_reports(metrics)
    print(headline(metrics))


def predict_split(
    table: pd.DataFrame, split: str, store: Pixels, predictor: Predictor
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


def confusion_table(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return the confusion matrix: index the actual class, columns the predicted class."""
    counts = pd.crosstab(predictions.actual, predictions.predicted)
    return counts.reindex(index=list(classes), columns=list(classes), fill_value=0)


def training_history(predictor: Predictor) -> dict[str, Figure]:
    """Return the plot of the training history; none for the majority baseline (no epochs)."""
    history = pd.read_csv(paths.HISTORY)
    if history.empty:
        return {}
    chosen = predictor.bundle.record["chosen"]
    return {"history": plots.history(history, chosen["epoch"], chosen["monitor"])}


def measure_robustness(
    test: pd.DataFrame, store: Pixels, predictor: Predictor, *, limit: int, flip: bool
) -> tuple[dict[str, Any], Figure]:
    """Return the scores on corrupted photos, by kind and level, and their plot.

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
    metrics = {"photos": len(photos), "unchanged": round(clean, 6), **scores}
    return metrics, plots.robustness(scores, clean, len(photos), len(predictor.classes))


def explain(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Pixels,
    predictor: Predictor,
    *,
    limit: int,
    seed: int,
) -> dict[str, float | int]:
    """Write the attribution maps and return their faithfulness scores.

    The scores use the first `limit` photos by id, an order independent of path and label.
    """
    folder, bundle, device = PLOTS / "explanations", predictor.bundle, predictor.device
    maps = explanation_sheets.attribution_sheets(predictions, test, store, bundle, device)
    contact_sheets.write(folder, "maps", maps)
    if has_attention(bundle.model):
        heads = explanation_sheets.attention_head_sheets(predictions, test, store, bundle, device)
        contact_sheets.write(folder, "heads", heads)
    rows = predictions.sort_values("id").head(limit)
    predicted = rows.predicted.map(bundle.classes.index).to_numpy(np.int64)
    pixels = store[test.row[rows.index].to_numpy()]
    return faithfulness.measure(bundle, pixels, predicted, seed, device)


def write_outputs(
    metrics: Mapping[str, Any],
    predictions: pd.DataFrame,
    counts: pd.DataFrame,
    figures: Mapping[str, Figure],
) -> None:
    """Write metrics, predictions, confusion matrix and each figure as a PNG named after its key."""
    files.write_json(METRICS, metrics)
    files.write_table(PLOTS / "predictions.csv", predictions)
    files.write_table(PLOTS / "confusion.csv", counts.rename_axis("actual").reset_index())
    files.write_table(PLOTS / "classes.csv", score_tables.class_table(metrics, counts))
    for name, figure in tqdm(
        figures.items(), "draw", unit="picture", delay=1, leave=False, disable=None
    ):
        style.save(figure, PICTURES / f"{name}.png")


def write_mistakes(
    predictions: pd.DataFrame, test: pd.DataFrame, store: Pixels, limit: int
) -> None:
    """Write the contact sheets of the misclassified photos."""
    count = int((predictions.actual != predictions.predicted).sum())
    title = f"Highest-confidence errors of {count}"
    tiles = mistake_tiles(predictions, test, store, limit)
    pages = contact_sheets.pages(tiles, title, "no error on the test photos", columns=4, rows=3)
    contact_sheets.write(PICTURES, "mistakes", pages)


def mistake_tiles(
    predictions: pd.DataFrame, test: pd.DataFrame, store: Pixels, limit: int
) -> list[contact_sheets.Tile]:
    """Return the misclassified photos, highest-confidence errors first."""
    wrong = predictions[predictions.actual != predictions.predicted]
    wrong = wrong.sort_values(["probability", "path"], ascending=[False, True]).head(limit)
    tiles = []
    photos = test.loc[wrong.index].to_dict("records")
    for row, photo in zip(wrong.to_dict("records"), photos, strict=True):
        pixels = store[photo["row"], photo["top"] : photo["bottom"], photo["left"] : photo["right"]]
        predicted = f"predicted {row['predicted']} {row['probability']:.0%}"
        actual = row["actual"]
        truth = f"actual {actual} {row[f'p_{actual}']:.0%}"
        tiles.append(contact_sheets.Tile((pixels,), (predicted, truth, row["path"])))
    return tiles


def write_reports(evaluate: Mapping[str, Any]) -> None:
    """Write model card and report from the metrics and pictures of all stages."""
    metrics: dict[str, Any] = {
        name: json.loads((paths.METRICS / f"{name}.json").read_text("utf-8"))
        for name in ("prepare", "clean", "split", "train")
    }
    metrics["evaluate"] = evaluate
    run = json.loads(paths.RUN.read_text("utf-8"))
    files.write_text(CARD, model_card.card(metrics, run))
    files.write_text(
        paths.REPORT, html_report.html(metrics, run, html_report.pictures(paths.REPORT.parent))
    )


def headline(metrics: Mapping[str, Any]) -> str:
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
