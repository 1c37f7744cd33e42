"""Report: draw all pictures, and write the model card and the HTML report.

Reads metrics/details/, the tables in data/ and plots/, and the pixel store. Writes
plots/report.html, metrics/MODEL_CARD.md and REPORTING_CHECKLIST.md, and the pictures:

    plots/prepare/                samples of each class, sizes, collectors, annotators
    plots/clean/                  removed photos next to the kept ones, histograms of the scores
    plots/split/                  classes by split, most similar photos of different splits
    plots/train/pictures/         augmented training photos
    plots/evaluate/pictures/      confusion, learning curves, reliability, robustness, mistakes
    plots/evaluate/explanations/  attribution maps

    python -m stages.report

Computes no score. It is the only stage that draws, so a change of a picture or a new version of
Matplotlib repeats neither decoding nor training nor evaluation. `anklealign report --photos` draws
the pictures of the photos alone, before a model is trained.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

import anklealign.annotation.plots as annotation_plots
import anklealign.cleaning.plots as cleaning_plots
import anklealign.splitting.plots as splitting_plots
from anklealign.config import params, paths, stage
from anklealign.config.params import Clean, Dataset, Evaluate, Split
from anklealign.evaluation import explanation_sheets, plots, score_tables
from anklealign.ingest import overview
from anklealign.io import files, pixel_store, results
from anklealign.io.pixel_store import Photos
from anklealign.models import calibration
from anklealign.plotting import contact_sheets, style
from anklealign.reporting import html_report, model_card, reporting_checklist, run_files
from anklealign.splitting.splits import SPLITS

SKIPPED_ITEMS = ("file", "task", "export")  # shown in the overview
EVALUATE = paths.PLOTS / "evaluate"
PICTURES = EVALUATE / "pictures"


def main() -> None:
    """Draw the pictures; write the model card and the report from all stages' results."""
    metrics = results.read_results()
    draw_photos()
    contact_sheets.write(paths.PLOTS / "train/pictures", "augmented", augmentation_sheets())
    draw_evaluation(metrics)
    run = metrics["train"]
    files.write_text(paths.MODEL_CARD, model_card.card(metrics, run))
    files.write_text(paths.CHECKLIST, reporting_checklist.checklist(metrics, run))
    files.write_text(paths.REPORT, html_report.html(run_files.read()))
    print(f"report: {paths.REPORT}, {paths.MODEL_CARD} and {paths.CHECKLIST}")


def draw_photos() -> None:
    """Draw the pictures of prepare, clean and split, as far as these stages have run.

    Raises:
        FileNotFoundError: prepare has not run.
    """
    raw = params.read()
    _, dataset = params.dataset(raw)
    table = pixel_store.read_table(paths.PREPARED / "photos.csv")
    store = pixel_store.open_store()
    draw_prepare(table, store, dataset)
    if (paths.DETAILS / "clean.json").exists():
        draw_clean(table, store, dataset, params.section(raw, "clean", Clean))
    if (paths.DETAILS / "split.json").exists():
        draw_split(store, dataset, params.section(raw, "split", Split))


def draw_prepare(table: pd.DataFrame, store: Photos, dataset: Dataset) -> None:
    """Draw the overview of the photos, and the agreement of the annotators if there are votes."""
    folder, classes = paths.PLOTS / "prepare", list(dataset.classes)
    skipped = pixel_store.read_table(paths.PREPARED / "skipped.csv")
    reasons = Counter(skipped.reason[skipped.item.isin(SKIPPED_ITEMS)])
    overview.write_overview(folder, table, store, classes, reasons)
    votes = pixel_store.read_table(paths.VOTES)
    if len(votes):
        agreement = results.read_details(paths.DETAILS / "prepare.json")["agreement"]
        figure = annotation_plots.agreement_figure(votes, agreement, classes)
        style.save(figure, folder / "agreement.png")


def draw_clean(table: pd.DataFrame, store: Photos, dataset: Dataset, settings: Clean) -> None:
    """Draw the photos that clean removed or flagged, and the histograms of the scores."""
    folder = paths.PLOTS / "clean"
    removed, flagged, scores, residuals = (
        pixel_store.read_table(paths.CLEAN / f"{name}.csv")
        for name in ("removed", "flagged", "scores", "residuals")
    )
    pictures = pixel_store.Pictures(table, store, dataset.fit)
    cleaning_plots.write_contact_sheets(folder, table, removed, flagged, pictures)
    reasons = results.read_details(paths.DETAILS / "clean.json")["reasons"]
    figure = cleaning_plots.score_figure(scores, residuals.residual, removed, settings, reasons)
    style.save(figure, folder / "scores.png")


def draw_split(store: Photos, dataset: Dataset, settings: Split) -> None:
    """Draw the classes of each split and the most similar photos of different splits."""
    folder = paths.PLOTS / "split"
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    figure = splitting_plots.class_shares(table, list(dataset.classes), SPLITS)
    style.save(figure, folder / "classes.png")
    pairs = pixel_store.read_table(paths.SPLIT / "nearest_pairs.csv")
    pictures = pixel_store.Pictures(table, store, dataset.fit)
    splitting_plots.write_contact_sheets(folder, table, pairs, pictures, settings)


def augmentation_sheets() -> Iterator[Image.Image]:
    """Yield the sheet of the augmented training photos, one row for each photo."""
    arrays = results.read_arrays(paths.AUGMENTED)
    augmented = arrays["augmented"]
    caption = (
        f"original, then augmented as in epochs 1 to {augmented.shape[1]}, {augmented.shape[2]} px"
    )
    tiles = [
        contact_sheets.Tile((original, *pictures), (str(label), caption))
        for label, original, pictures in zip(
            arrays["labels"], arrays["originals"], augmented, strict=True
        )
    ]
    title = "Augmented training photos"
    empty = "no augmentation: this model sees each photo once, unchanged"
    return contact_sheets.pages(tiles, title, empty, columns=1, rows=max(1, len(tiles)))


def draw_evaluation(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the scores, the mistakes and the explanations of the test photos."""
    settings = params.section(params.read(), "evaluate", Evaluate)
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    test = table[table.split == "test"].sort_values("path", ignore_index=True)
    predictions = pixel_store.read_table(paths.PREDICTIONS)
    store = pixel_store.open_store()
    for name, figure in tqdm(
        figures(metrics, predictions).items(), "draw", unit="picture", delay=1, disable=None
    ):
        style.save(figure, PICTURES / f"{name}.png")
    write_mistakes(predictions, test, store, settings.mistakes)

    arrays, folder = results.read_arrays(paths.EXPLANATIONS), EVALUATE / "explanations"
    places = test[["id", "row", "left", "top", "right", "bottom"]]
    explained = predictions.merge(places, on="id", validate="one_to_one")
    maps = explanation_sheets.attribution_sheets(arrays, explained, store)
    contact_sheets.write(folder, "maps", maps)
    if "heads" in arrays:
        heads = explanation_sheets.attention_head_sheets(arrays, explained, store)
        contact_sheets.write(folder, "heads", heads)


def figures(
    metrics: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame
) -> dict[str, Figure]:
    """Return the figures of the evaluation by name."""
    train, evaluate = metrics["train"], metrics["evaluate"]
    classes = list(train["train_class_counts"])
    calibrated = predictions[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    temperature = train["temperature"]
    uncalibrated = calibration.undo(calibrated, temperature, tuple(train["class_bias"]))
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
        block = evaluate["robustness"]
        kinds = {kind: levels for kind, levels in block.items() if isinstance(levels, Mapping)}
        drawn["robustness"] = plots.robustness(
            kinds, block["unchanged"], block["photos"], len(classes)
        )
    return drawn


def write_mistakes(
    predictions: pd.DataFrame, test: pd.DataFrame, store: Photos, limit: int
) -> None:
    """Write the contact sheets of the misclassified photos."""
    count = int((predictions.actual != predictions.predicted).sum())
    title = f"Highest-confidence errors of {count}"
    tiles = mistake_tiles(predictions, test, store, limit)
    pages = contact_sheets.pages(tiles, title, "no error on the test photos", columns=4, rows=3)
    contact_sheets.write(PICTURES, "mistakes", pages)


def mistake_tiles(
    predictions: pd.DataFrame, test: pd.DataFrame, store: Photos, limit: int
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
