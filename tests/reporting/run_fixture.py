"""A run for the report's tests: the committed metrics and predictions, with drawn photos."""

from pathlib import Path

import numpy as np
import pandas as pd

from anklealign.evaluation import prediction_tables
from anklealign.evaluation.score_tables import Predictions
from anklealign.io import pixel_store, results
from anklealign.models import calibration
from anklealign.reporting.run_files import RunFiles

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "clean", "split", "train", "evaluate")
SIDE = 64
TRAIN, VAL, REMOVED = 60, 20, 8


class Noise:
    """A store of any number of photos of noise, which compress badly, from a few in memory."""

    def __init__(self, count: int, side: int = SIDE, distinct: int = 40) -> None:
        generator = np.random.default_rng(0)
        self._photos = generator.integers(0, 256, (distinct, side, side, 3), np.uint8)
        self.shape = (count, side, side, 3)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._photos[row % len(self._photos)]


def new_run(*, subjects: bool = True) -> RunFiles:
    """Return a run of the test photos of the committed run and some others of three classes."""
    metrics = {s: results.read_details(ROOT / f"metrics/details/{s}.json") for s in STAGES}
    predictions = pixel_store.read_table(ROOT / "plots/evaluate/predictions.csv")
    classes = list(metrics["train"]["train_class_counts"])
    paths = [f"F{n % 4}/photo_{n:02}.jpg" for n in range(TRAIN + VAL + REMOVED)]
    others = pd.DataFrame({"path": paths, "collector": [p.split("/")[0] for p in paths]})
    others["id"] = [pixel_store.photo_id(path) for path in paths]
    others["label"] = [classes[n % 3] for n in range(len(paths))]
    others["split"] = ["train"] * TRAIN + ["val"] * VAL + ["removed"] * REMOVED
    tested = predictions[["id", "path", "collector"]].assign(label=predictions.actual, split="test")
    table = pd.concat([others, tested], ignore_index=True)
    table = table.assign(
        row=range(len(table)), subject=[f"s{n % 9}" for n in range(len(table))],
        width=400, height=300, left=0, top=8, right=SIDE, bottom=SIDE - 8, group=table.id,
    )  # fmt: skip
    removed = table[table.split == "removed"].assign(
        reason=["blurred", "near_duplicate"] * (REMOVED // 2),
        why="the kept photo is larger",
        beside=["", table.id[0]] * (REMOVED // 2),
    )
    if not subjects:
        table = table.assign(subject="", collector="")
        without_people(metrics)
    photos = table.drop(columns=["split", "group"])
    kept = table[table.split != "removed"]
    return RunFiles(
        metrics=metrics,
        photos=photos,
        split=kept,
        removed=removed,
        flagged=removed.head(0),
        skipped=pd.DataFrame(
            [["a/b.txt", "file", "not_an_image", "</script>", "remove it"]],
            columns=["path", "item", "reason", "detail", "remedy"],
        ),
        votes=pd.DataFrame(
            [(predictions.id[0], f"v{n}", classes[n % 2]) for n in range(3)],
            columns=["photo", "annotator", "label"],
        ),
        predictions=predictions,
        history=pd.read_csv(ROOT / "plots/train/history.csv"),
        reliability=reliability(metrics, predictions),
        arrays=arrays(kept, predictions),
        augmented={
            "originals": np.zeros((2, 32, 32, 3), np.uint8),
            "augmented": np.zeros((2, 5, 32, 32, 3), np.uint8),
        },
        store=Noise(len(table)),
        fit="letterbox",
    )


def reliability(metrics: dict, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return what evaluate writes: the bins of confidence before and after calibration."""
    train = metrics["train"]
    classes = list(train["train_class_counts"])
    probabilities = predictions[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    labels = predictions.actual.map(classes.index).to_numpy(np.int64)
    before = calibration.undo(probabilities, train["temperature"], tuple(train["class_bias"]))
    tested = Predictions(labels, probabilities, list(predictions.group))
    return prediction_tables.reliability_table(tested, before)


def without_people(metrics: dict) -> None:
    """Change the metrics to those of class folders: no subjects, collectors, tasks or votes."""
    for split in ("train", "val", "test"):
        metrics["split"][split]["subjects"] = 0
        metrics["split"][split]["groups"] = metrics["split"][split]["photos"]
    metrics["evaluate"]["groups"] = metrics["evaluate"]["photos"]
    metrics["evaluate"]["human_baseline"] = {"annotators": 0, "photos": 0, "votes": 0}
    for key in ("skipped_tasks", "skipped_exports", "skipped_names", "skipped_votes"):
        metrics["prepare"][key] = {"total": 0}
    metrics["prepare"]["skipped"] = {"total": 1, "not_an_image": 1}
    metrics["prepare"]["tasks_seen"] = 0
    for key in ("collector", "collector_photos", "collector_accuracy"):
        metrics["evaluate"]["worst"].pop(key, None)
    # evaluate writes none of these without subjects and collectors.
    metrics["evaluate"].pop("subjects", None)
    metrics["evaluate"].get("shortcuts", {}).get("attributes", {}).pop("collector", None)


def arrays(kept: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return what evaluate stores: heat maps of the test photos, neighbors and a map."""
    count = len(kept)
    train = np.flatnonzero(kept.split == "train")
    generator = np.random.default_rng(1)
    wrong = predictions.actual != predictions.predicted
    heat_ids = [*predictions.id[wrong], *predictions.id[~wrong]]
    agreeing = np.full(count, 9, np.uint8)
    agreeing[3] = 0
    return {
        "ids": np.array(heat_ids[:2]),
        "heat_ids": np.array(heat_ids),
        "heat": generator.integers(0, 256, (len(heat_ids), 32, 32), np.uint8),
        "map_ids": kept.id.to_numpy(str),
        "map_xy": generator.integers(0, 1000, (count, 2)).astype(np.uint16),
        "neighbors": np.tile(train[:5], (count, 1)).astype(np.int32),
        "similarities": np.tile([90, 80, 70, 60, 50], (count, 1)).astype(np.uint8),
        "agreeing": agreeing,
    }
