"""Report: draw the results of evaluate, and write the model card and the HTML report.

Reads metrics/details/, plots/ and the test photos of the pixel store. Writes plots/report.html,
metrics/MODEL_CARD.md, metrics/REPORTING_CHECKLIST.md and plots/evaluate/pictures/: confusion
matrix, learning curves, reliability, robustness, human baseline and the misclassified photos.

    python -m stages.report

Computes no score, so a change of the report repeats neither training nor evaluation.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from anklealign.config import params, paths, stage
from anklealign.config.params import Evaluate
from anklealign.evaluation import plots, score_tables
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Pixels
from anklealign.models import calibration
from anklealign.plotting import contact_sheets, style
from anklealign.reporting import html_report, model_card, reporting_checklist

EVALUATE = paths.PLOTS / "evaluate"
PICTURES = EVALUATE / "pictures"


def main() -> None:
    """Draw the pictures; write the model card and the report from all stages' results."""
    settings = params.section(params.read(), "evaluate", Evaluate)
    metrics = results.read_results()
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    test = table[table.split == "test"].sort_values("path", ignore_index=True)
    predictions = pixel_store.read_table(paths.PREDICTIONS)
    for name, figure in tqdm(
        figures(metrics, predictions).items(), "draw", unit="picture", delay=1, disable=None
    ):
        style.save(figure, PICTURES / f"{name}.png")
    write_mistakes(predictions, test, pixel_store.open_store(), settings.mistakes)

    run = metrics["train"]
    files.write_text(paths.MODEL_CARD, model_card.card(metrics, run))
    files.write_text(paths.CHECKLIST, reporting_checklist.checklist(metrics, run))
    pictures = html_report.pictures(paths.PLOTS)
    files.write_text(paths.REPORT, html_report.html(metrics, run, pictures))
    print(f"report: {paths.REPORT}, {paths.MODEL_CARD} and {paths.CHECKLIST}")


def figures(
    metrics: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame
) -> dict[str, Figure]:
    """Return the figures of the evaluation by name."""
    train, evaluate = metrics["train"], metrics["evaluate"]
    classes = list(train["train_class_counts"])
    calibrated = predictions[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    temperature = train["temperature"]
    uncalibrated = calibration.undo_temperature(calibrated, temperature)
    labels = predictions.actual.map(classes.index).to_numpy(np.int64)
    drawn = {
        "confusion": plots.confusion(score_tables.confusion_table(predictions, classes)),
        "reliability": plots.reliability(labels, uncalibrated, calibrated, temperature),
    }
    history = pd.read_csv(paths.HISTORY)
    if len(history):  # the majority baseline has no epochs
        chosen = train["chosen"]
        drawn["history"] = plots.history(history, chosen["epoch"], chosen["monitor"])
    if evaluate.get("human_baseline", {}).get("votes"):
        drawn["human_baseline"] = plots.human_baseline(evaluate["human_baseline"])
    if "robustness" in evaluate:
        block = dict(evaluate["robustness"])
        photos, unchanged = block.pop("photos"), block.pop("unchanged")
        drawn["robustness"] = plots.robustness(block, unchanged, photos, len(classes))
    return drawn


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


if __name__ == "__main__":
    stage.run("report", main)
