"""Evaluate: the trained model on the test part, which nothing before has looked at.

Reads pixels.npy and votes.csv in data/prepared/, data/split/photos.csv, model/ and
plots/train/history.csv; writes metrics/evaluate.json (every score with its interval over groups,
beside the majority baseline's; beside people's where test photos have votes; calibration,
prediction sets, robustness), plots/evaluate/predictions.csv (a row a test photo), confusion.csv,
pictures/ and explanations/.
From these and the other stages' metrics and pictures it makes metrics/MODEL_CARD.md and
plots/report.html, the page for a person to open.

    python -m stages.evaluate

In fp32 with TF32 off, by the same predictor that `anklealign.cli.predict` and the service use.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign.config import params, stage
from anklealign.config.params import Evaluate
from anklealign.evaluation import (
    galleries,
    human_baseline,
    plots,
    robustness,
    score_tables,
)
from anklealign.evaluation.score_tables import Answers
from anklealign.explainability import faithfulness
from anklealign.explainability.attribution import has_attention
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store
from anklealign.io.pixel_store import Pixels
from anklealign.metrics.scores import Floats, point_scores
from anklealign.models import calibration
from anklealign.plotting import contact_sheets, style
from anklealign.reporting import html_report, model_card

MODEL = Path("model")
HISTORY = Path("plots/train/history.csv")
RUN = Path("plots/train/run.json")
METRICS = Path("metrics/evaluate.json")
PLOTS = Path("plots/evaluate")
PICTURES = PLOTS / "pictures"
CARD = Path("metrics/MODEL_CARD.md")
REPORT = Path("plots/report.html")


def main() -> None:
    """Predict the test photos, write scores, tables and pictures."""
    raw = params.read()
    settings = params.section(raw, "evaluate", Evaluate)
    seed = params.section(raw, "seed", int)
    _, dataset = params.dataset(raw)
    table = pixel_store.read_table(pixel_store.SPLIT / "photos.csv")
    store = pixel_store.open_store()
    predictor = Predictor.load(MODEL, params.section(raw, "train.device", str))
    classes = list(predictor.classes)

    _, validation = answered(table, "val", store, predictor)
    test, answers = answered(table, "test", store, predictor)
    frequencies = np.array(
        [(table.label[table.split == "train"] == name).mean() for name in classes]
    )
    sets = predictor.prediction_sets(answers.probabilities)
    predictions = predictions_of(test, classes, answers.probabilities, sets)
    counts = pd.crosstab(predictions.actual, predictions.predicted)
    counts = counts.reindex(index=classes, columns=classes, fill_value=0)

    temperature = predictor.bundle.temperature
    uncalibrated = calibration.uncalibrated(answers.probabilities, temperature)
    metrics: dict[str, Any] = {
        "photos": len(test),
        "groups": int(test.group.nunique()),
        "parameters": predictor.parameter_count,
        **score_tables.scored(
            test,
            classes,
            answers.probabilities,
            frequencies,
            settings,
            ordered=dataset.ordered,
            seed=seed,
        ),
        "calibration": score_tables.calibrated(
            answers, validation, uncalibrated=uncalibrated, sets=sets, settings=settings, seed=seed
        ),
    }
    diagram = plots.reliability(answers.labels, uncalibrated, answers.probabilities, temperature)
    drawn = {"confusion": plots.confusion(counts), "reliability": diagram}
    votes = pixel_store.read_table(pixel_store.VOTES)
    if len(votes):
        judged = human_baseline.beside_people(votes, list(test.id), answers.predicted, classes)
        metrics["people"] = score_tables.beside_people(
            judged, test.set_index("id").group, len(classes), settings, seed
        )
        if len(judged):
            drawn["people"] = plots.people(metrics["people"])
    if settings.robustness:
        metrics["robustness"], drawn["robustness"] = worsen(
            test, store, predictor, most=settings.robustness, mirror=dataset.mirror_safe
        )
    metrics["explanations"] = explain(
        predictions, test, store, predictor, most=settings.explained, seed=seed
    )
    history = pd.read_csv(HISTORY)
    if len(history):  # the majority class is not fitted by epochs
        chosen = predictor.bundle.record["chosen"]
        drawn["history"] = plots.history(history, chosen["epoch"], chosen["monitor"])
    files.write_json(METRICS, metrics)
    files.write_table(PLOTS / "predictions.csv", predictions)
    files.write_table(PLOTS / "confusion.csv", counts.rename_axis("actual").reset_index())
    bar = tqdm(drawn.items(), "draw", unit="picture", delay=1, leave=False, disable=None)
    for name, picture in bar:
        style.save(picture, PICTURES / f"{name}.png")
    wrong = mistakes(predictions, test, store, settings.mistakes)
    title = f"The surest of {int((predictions.actual != predictions.predicted).sum())} mistakes"
    pages = contact_sheets.pages(wrong, title, "no mistake on the test photos", columns=4, rows=3)
    contact_sheets.write(PICTURES, "mistakes", pages)
    tell(metrics)
    found = metrics["accuracy"]
    interval = f" ({found['ci_low']:.3f} to {found['ci_high']:.3f})" if "ci_low" in found else ""
    print(
        f"evaluate: accuracy {found['value']:.3f}{interval} against {found['majority']:.3f} for "
        f"the majority class, on {len(test)} photos of {metrics['groups']} groups"
    )


def answered(
    table: pd.DataFrame, part: str, store: Pixels, predictor: Predictor
) -> tuple[pd.DataFrame, Answers]:
    """Return a part's photos by path, and the model's answers to them."""
    rows = table[table.split == part].sort_values("path", ignore_index=True)
    labels = rows.label.map(predictor.classes.index).to_numpy(np.int64)
    probabilities = predictor.probabilities(store, rows.row.to_numpy())
    return rows, Answers(labels, probabilities, list(rows.group))


def predictions_of(
    test: pd.DataFrame, classes: list[str], probabilities: Floats, sets: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    """Return a row a photo: who, what it is, what the model says, probabilities, prediction set."""
    rows = test[["id", "path", "collector", "group"]].assign(
        actual=test.label,
        predicted=[classes[k] for k in probabilities.argmax(1)],
        probability=probabilities.max(1),
    )
    for k, name in enumerate(classes):
        rows[f"p_{name}"] = probabilities[:, k]
    # The photo's bytes tell whether another run's test photo is the same picture.
    return rows.assign(
        set=calibration.spelled(sets, classes),
        abstain=calibration.abstains(sets),
        sha256=test.sha256,
    )


def worsen(
    test: pd.DataFrame, store: Pixels, predictor: Predictor, *, most: int, mirror: bool
) -> tuple[dict[str, Any], Figure]:
    """Return the scores on worse photos, by kind and level, and their plot.

    Takes the first photos by id, which no path and no label orders.
    """
    some = test.sort_values("id").head(most)
    pixels = store[some.row.to_numpy()]
    truth = some.label.map(predictor.classes.index).to_numpy(np.int64)
    kept = point_scores(truth, predictor.probabilities(pixels))[robustness.SCORE]
    found: dict[str, dict[int, float]] = {}
    scored = robustness.scores(
        pixels,
        some[["left", "top", "right", "bottom"]].to_numpy(np.int64),
        list(some.id),
        truth,
        predictor.probabilities,
        fill=predictor.bundle.preparation.fill,
        mirror=mirror,
    )
    total = sum(map(len, robustness.LEVELS.values()))
    for kind, level, score in tqdm(scored, total=total, desc="worse photos", disable=None):
        found.setdefault(kind, {})[level] = round(score, 6)
    metrics = {"photos": len(some), "unchanged": round(kept, 6), **found}
    return metrics, plots.robustness(found, kept, len(some), len(predictor.classes))


def explain(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    store: Pixels,
    predictor: Predictor,
    *,
    most: int,
    seed: int,
) -> dict[str, float | int]:
    """Draw where the model looked; return how far the maps can be trusted.

    The check takes the first photos by id, which no path and no label orders.
    """
    folder, bundle, device = PLOTS / "explanations", predictor.bundle, predictor.device
    contact_sheets.write(
        folder, "maps", galleries.explained(predictions, test, store, bundle, device)
    )
    if has_attention(bundle.model):
        contact_sheets.write(
            folder, "heads", galleries.heads(predictions, test, store, bundle, device)
        )
    some = predictions.sort_values("id").head(most)
    said = some.predicted.map(bundle.classes.index).to_numpy(np.int64)
    pixels = store[test.row[some.index].to_numpy()]
    return faithfulness.check(bundle, pixels, said, seed, device)


def mistakes(
    predictions: pd.DataFrame, test: pd.DataFrame, store: Pixels, most: int
) -> list[contact_sheets.Tile]:
    """Return the wrongly classified photos, surest first: those the model should be ashamed of."""
    wrong = predictions[predictions.actual != predictions.predicted]
    wrong = wrong.sort_values(["probability", "path"], ascending=[False, True]).head(most)
    tiles = []
    places = test.loc[wrong.index].to_dict("records")
    for row, place in zip(wrong.to_dict("records"), places, strict=True):
        photo = store[place["row"], place["top"] : place["bottom"], place["left"] : place["right"]]
        actual, predicted = row["actual"], row["predicted"]
        said = f"said {predicted} {row['probability']:.0%}"
        truth = f"is {actual}, given {row[f'p_{actual}']:.0%}"
        tiles.append(contact_sheets.Tile((photo,), (said, truth, row["path"])))
    return tiles


def tell(metrics: dict[str, Any]) -> None:
    """Write model card and report, from these and the other stages' metrics and pictures."""
    before = ("prepare", "clean", "split", "train")
    told = {name: json.loads(Path(f"metrics/{name}.json").read_text("utf-8")) for name in before}
    told["evaluate"] = metrics
    run = json.loads(RUN.read_text("utf-8"))
    files.write_text(CARD, model_card.card(told, run))
    files.write_text(REPORT, html_report.html(told, run, html_report.pictures(REPORT.parent)))


if __name__ == "__main__":
    stage.run("evaluate", main)
