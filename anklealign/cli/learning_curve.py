"""Train the selected model on parts of the photos: would more photos help?

    anklealign learning-curve                # writes to learning_curve/

Runs the train stage on 25, 50, 75 and 100 % of the training groups, `--repeats` times with another
seed and other groups, each in a temporary folder, and scores the test split. The last run, its
model and its metrics stay as they are. Writes learning_curve.csv (one row per size) and
learning_curve.json (also the gain that twice as many groups would have by extrapolation, with its
interval). Takes 2.5 times as long as training, for each repeat.

The evaluate stage measures the same curve of a cheap linear model on general features
(`evaluate.learning_curve`), which says little about a model that is much better than it.
Exit status: 0 done, 1 there is no split, or a training run failed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from anklealign.cli import summary
from anklealign.config import params, paths
from anklealign.config.params import PARAMS, Evaluate
from anklealign.evaluation import learning_curve
from anklealign.evaluation.learning_curve import SHARES
from anklealign.ingest.wording import counted
from anklealign.io import files, pixel_store

PINS = Path("pins.yaml")


def write_learning_curve(out: Path, repeats: int) -> int:
    """Measure the curve and write it; return the exit status.

    Args:
        out: Folder to write to.
        repeats: Training runs per size.
    """
    try:
        raw = params.read()
        params.dataset(raw)
        table = pixel_store.read_table(paths.SPLIT / "photos.csv")
        metrics = measure(raw, table, repeats)
    except (ValueError, OSError) as error:
        print(f"learning-curve: {error}; run `dvc repro split` first", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(error.stderr or "", end="", file=sys.stderr)
        print("learning-curve: a training run failed, as above", file=sys.stderr)
        return 1
    points = pd.DataFrame.from_dict(metrics["points"], orient="index")
    points.insert(0, "percent", points.index)
    files.write_table(out / "learning_curve.csv", points)
    files.write_json(out / "learning_curve.json", metrics)
    print("\n".join(lines(metrics, out)))
    return 0


def measure(raw: Mapping[str, Any], table: pd.DataFrame, repeats: int) -> dict[str, Any]:
    """Return the curve of the selected model."""
    settings = params.section(raw, "evaluate", Evaluate)
    _, dataset = params.dataset(raw)
    first = raw["seed"] if raw["train"].get("seed") is None else raw["train"]["seed"]
    classes = list(dataset.classes)
    test = table[table.split == "test"].sort_values("id", ignore_index=True)
    train = table[table.split == "train"]
    labels = test.label.map(classes.index).to_numpy(np.int64)
    right = np.zeros((len(SHARES), repeats, len(test)))
    training = np.zeros((len(SHARES), repeats, 2))
    for repeat in range(repeats):
        seed = first + repeat
        order = learning_curve.group_order(
            train.group.to_numpy(str), train.label.map(classes.index).to_numpy(np.int64), seed
        )
        for size, share in enumerate(SHARES):
            groups = learning_curve.subset(order, share, len(classes))
            kept = table[(table.split != "train") | table.group.isin(groups)]
            photos = int((kept.split == "train").sum())
            training[size, repeat] = len(groups), photos
            print(
                f"learning-curve: seed {seed}, {counted(photos, 'photo')} of "
                f"{counted(len(groups), 'group')}"
            )
            predicted = train_and_predict(raw, kept, seed, classes)
            right[size, repeat] = predicted.loc[test.id].to_numpy() == labels
    sizes = [(float(groups), float(photos)) for groups, photos in training.mean(1)]
    return {"method": f"model {raw['model']} on dataset {raw['dataset']}, test split"} | (
        learning_curve.describe(
            right,
            labels,
            list(test.group),
            sizes,
            resamples=settings.bootstrap,
            confidence=settings.confidence,
            seed=raw["seed"],
        )
    )


def train_and_predict(
    raw: Mapping[str, Any], table: pd.DataFrame, seed: int, classes: list[str]
) -> "pd.Series[int]":
    """Run the train stage on a split table; return the predicted class index of each test photo.

    Raises:
        CalledProcessError: The stage failed.
    """
    root = Path.cwd()
    values = dict(raw) | {"train": dict(raw["train"]) | {"seed": seed, "repeats": 1}}
    with tempfile.TemporaryDirectory(prefix="anklealign-learning-curve-") as name:
        folder = Path(name)
        with (folder / PARAMS).open("w", encoding="utf-8") as stream:
            YAML().dump(values, stream)
        for path in (PINS, paths.PREPARED, Path("data/weights"), paths.CACHE):
            if path.exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).symlink_to(root / path)
        files.write_table(folder / paths.SPLIT / "photos.csv", table)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        }
        subprocess.run(
            [sys.executable, "-m", "stages.train"], cwd=folder, env=environment, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        repeats = pd.read_csv(folder / paths.REPEATS, dtype={"id": str}).set_index("id")
    columns = repeats[[f"p_{name}" for name in classes]]
    return pd.Series(columns.to_numpy().argmax(1), index=columns.index)


def lines(metrics: Mapping[str, Any], out: Path) -> list[str]:
    """Return the table and the answer for the terminal."""
    repeats = metrics["repeats"]
    seeds = f"{repeats} seed{'s' * (repeats > 1)}"
    table = [f"{'groups':>8}{'photos':>8}   balanced accuracy, sd over {seeds}"]
    table += [
        f"{point['groups']:>8.0f}{point['photos']:>8.0f}   {point['value']:.3f}, {point['sd']:.3f}"
        for point in metrics["points"].values()
    ]
    answer = metrics["answer"]
    return ["", *table, "", *summary.wrapped([f"{answer[0].upper()}{answer[1:]}; see {out}"], 0)]
