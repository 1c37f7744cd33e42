"""Rank the photos whose label is probably wrong, for review.

    anklealign label-issues                # writes to label_issues/

Reads the pixel store, data/split/photos.csv and the trained bundle; writes label_issues.csv (all
photos, ranked), sheet_01.png, … (the first 96) and label_studio.json: the first 96 as tasks with
the suggested class as a prediction, for import into Label Studio. After the review, `anklealign
correct` takes over the export, or label_issues.csv with a column new_label.

Confident learning (Northcutt, Jiang and Chuang 2021): a photo has a label issue when another class
exceeds its own threshold by more than the label exceeds its threshold. The threshold of a class is
the mean probability of the class over the photos labeled with it. The probabilities come from a
linear model on the network's last features, cross-validated by group, so no photo and no group is
scored by a model fitted on it. The features themselves were fitted on the labels of the train
split, so the ranking finds fewer issues there than with a pretrained and frozen network.

The suggestions are only as good as that model. Its cross-validated balanced accuracy is printed,
and the largest number of false alarms to expect: the label issues of as many photos whose labels
are drawn from the model's calibrated probabilities, so that none of them is wrong by the model.
Wrong labels lower the calibrated confidence and so raise this number. At chance there is no list.

Shapes: N photos, F features, K classes.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from anklealign.config import params, paths
from anklealign.config.params import Dataset
from anklealign.evaluation import cross_validation
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store, results
from anklealign.metrics.scores import point_scores
from anklealign.models import calibration, inputs
from anklealign.models.input_config import Floats, Integers
from anklealign.plotting import contact_sheets

Booleans = npt.NDArray[np.bool_]

SHOWN = 96  # eight contact sheets
DRAWS = 1000
STRENGTH = 1e-3  # C of the linear model: chosen on synthetic seed 2


def write_label_issues(out: Path, address: str, from_name: str, to_name: str) -> int:
    """Rank the photos of the last run; return the exit status, 1 if there is none.

    Args:
        out: Folder to write to.
        address: Address in Label Studio before a photo's path.
        from_name: Name of the project's Choices tag.
        to_name: Name of its Image tag, and key of the data.
    """
    try:
        name, dataset = params.dataset(params.read())
        predictor = Predictor.load(paths.MODEL)
        table = pixel_store.read_table(paths.SPLIT / "photos.csv").sort_values(
            "id", ignore_index=True
        )
        store = pixel_store.open_store()
        other = results.other_input(predictor.bundle.record)
    except (ValueError, OSError) as error:
        print(f"label-issues: {error}; run `dvc repro` first", file=sys.stderr)
        return 1
    if other:
        print(
            f"label-issues: {paths.MODEL}/ was trained on another {other}; run `dvc repro`, or "
            "`anklealign restore` to restore the committed results",
            file=sys.stderr,
        )
        return 1
    classes = list(predictor.classes)
    labels = table.label.map(classes.index).to_numpy(np.int64)
    try:
        features = features_of(predictor, store, table.row.to_numpy(np.int64))
        probabilities = cross_validated(features, labels, list(table.group))
    except ValueError as error:
        print(f"label-issues: {error}", file=sys.stderr)
        return 1
    quality = point_scores(labels, probabilities)["balanced_accuracy"]
    if quality <= (least := chance_limit(labels)):
        print(
            f"label-issues: the cross-validated model has a balanced accuracy of {quality:.3f}, "
            f"which guessing reaches, too (up to {least:.3f}); it cannot tell wrong labels. Train "
            "a better model first, for example with pretrained weights (model: lite0_probe)",
            file=sys.stderr,
        )
        return 1
    issues = ranked(table, classes, labels, probabilities)
    top = issues.head(SHOWN)
    files.write_table(out / "label_issues.csv", issues.drop(columns="place"))
    sheets = contact_sheets.pages(
        tiles(top, table, store), "Label issues", "no photo", columns=4, rows=3
    )
    contact_sheets.write(out, "sheet", sheets)
    suggestions = [
        Suggestion(f"{name}/{row['path']}", row["suggested"], row["p_suggested"],
                   {"labeled": row["label"], "sha256": row["sha256"]})
        for row in top.to_dict("records")
    ]  # fmt: skip
    tasks = Tasks(dataset, address, from_name, to_name)
    tasks.write(out / "label_studio.json", suggestions)
    found = int(issues.confident.sum())
    expected = false_alarms(labels, probabilities)
    print(
        f"label-issues: {found} of {len(issues)} photos have a label issue; if all labels are "
        f"right, chance gives up to {expected:.0f}. The balanced accuracy of the cross-validated "
        f"model is {quality:.3f}. The first {len(top)} are in {out}/sheet_01.png and, for Label "
        f"Studio, in {out}/label_studio.json"
    )
    return 0


def features_of(predictor: Predictor, store: pixel_store.Photos, rows: Integers) -> Floats:
    """Return the features of the network's last layer: (N,) rows -> (N, F)."""
    print(f"label-issues: features of {len(rows)} photos")
    bundle = predictor.bundle
    features = inputs.features(bundle.model, store, rows, bundle.input_config, predictor.device)
    return features.numpy().astype(np.float64)


def cross_validated(features: Floats, labels: Integers, groups: Sequence[str]) -> Floats:
    """Return out-of-fold probabilities of a linear model: (N, F) -> (N, K).

    Raises:
        ValueError: All photos of a class are in one group, which cannot be in train and held out.
    """
    classes = int(labels.max()) + 1
    fold = cross_validation.assign_folds(labels, groups, classes)
    if fold is None:
        raise ValueError(
            "all photos of a class are in one group, so they cannot be cross-validated; add photos "
            "of other groups"
        )
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    )
    probabilities = np.zeros((len(labels), classes))
    for number in tqdm(
        np.unique(fold), "cross-validate", unit="fold", delay=1, leave=False, disable=None
    ):
        test = fold == number
        probabilities[test] = cross_validation.probabilities_on(
            model, features, labels, ~test, test
        )
    return probabilities


def chance_limit(labels: Integers) -> float:
    """Return the 99th percentile of the balanced accuracy of guesses with the class frequencies."""
    generator = np.random.default_rng(0)
    counts = np.bincount(labels)
    recalls = np.zeros(DRAWS)
    for k in np.flatnonzero(counts):
        hits = generator.binomial(counts[k], 1 / np.count_nonzero(counts), DRAWS)
        recalls += hits / counts[k] / np.count_nonzero(counts)
    return float(np.quantile(recalls, 0.99))


def false_alarms(labels: Integers, probabilities: Floats) -> float:
    """Return the expected number of confident issues if the model is right: (N,), (N, K).

    Labels are drawn from the calibrated probabilities. Those of a strongly penalized model are too
    uncertain by far: 41 false alarms instead of 2 on ants and bees.
    """
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    temperature = calibration.fit_temperature(logits, labels)
    cumulative = calibration.probabilities(logits, temperature).cumsum(1)[:, :-1]
    generator = np.random.default_rng(0)
    counts = []
    for _ in range(DRAWS // 10):
        drawn = (generator.random((len(labels), 1)) > cumulative).sum(1)
        if len(np.unique(drawn)) == probabilities.shape[1]:
            counts.append(int(margins(drawn, probabilities)[2].sum()))
    return float(np.mean(counts)) if counts else 0.0


def margins(labels: Integers, probabilities: Floats) -> tuple[Floats, Integers, Booleans]:
    """Return each photo's margin, the suggested class, and True for a confident label issue.

    (N,), (N, K) -> (N,), (N,), (N,). Probabilities are relative to the threshold of their class:
    the mean probability of the class over the photos labeled with it. The margin is the label's
    relative probability minus the highest of the other classes; label issues have a low margin.
    A label issue is confident when that other class exceeds its threshold and the label's
    relative probability.
    """
    photos = np.arange(len(labels))
    thresholds = np.array(
        [probabilities[labels == k, k].mean() for k in range(probabilities.shape[1])]
    )
    relative = probabilities - thresholds
    own = relative[photos, labels]
    others = relative.copy()
    others[photos, labels] = -np.inf
    against = others.argmax(1)
    strongest = others[photos, against]
    return own - strongest, against, (strongest >= 0) & (strongest > own)


def ranked(
    table: pd.DataFrame, classes: Sequence[str], labels: Integers, probabilities: Floats
) -> pd.DataFrame:
    """Return the photos by rising margin: id, path, label, suggested class, probabilities."""
    margin, against, confident = margins(labels, probabilities)
    numbers = np.arange(len(labels))
    issues = pd.DataFrame(
        {
            "id": table.id,
            "sha256": table.sha256,
            "path": table.path,
            "split": table.split,
            "label": table.label,
            "suggested": [classes[k] for k in against],
            "p_label": probabilities[numbers, labels].round(4),
            "p_suggested": probabilities[numbers, against].round(4),
            "margin": margin.round(4),
            "confident": confident,
            "place": numbers,
        }
    )
    return issues.sort_values(["margin", "path"], ignore_index=True)


def tiles(
    top: pd.DataFrame, table: pd.DataFrame, store: pixel_store.Photos
) -> list[contact_sheets.Tile]:
    """Return tiles of the photos with label and suggested class."""
    pictures = pixel_store.Boxes(table.loc[top.place], store)
    return [
        contact_sheets.Tile(
            (picture,),
            (
                f"label {row['label']} ({row['p_label']:.0%})",
                f"suggested {row['suggested']} ({row['p_suggested']:.0%})",
                row["path"],
            ),
        )
        for row, picture in zip(top.to_dict("records"), pictures, strict=True)
    ]


@dataclass(frozen=True)
class Suggestion:
    """A suggested class of a photo, its probability, and what else a task holds.

    `path` is relative to data/raw, or to the folder's parent.
    """

    path: str
    label: str
    probability: float
    data: Mapping[str, str]


@dataclass(frozen=True)
class Tasks:
    """How suggestions become tasks of Label Studio.

    Attributes:
        dataset: Its classes have the team's spelling.
        address: Address in Label Studio before a photo's path.
        from_name: Name of the project's Choices tag.
        to_name: Name of its Image tag, and key of the data.
    """

    dataset: Dataset
    address: str
    from_name: str
    to_name: str

    def write(self, path: Path, suggestions: Sequence[Suggestion]) -> None:
        """Write tasks with pre-annotations (labelstud.io/guide/predictions)."""
        tasks = [self.task(suggestion) for suggestion in suggestions]
        files.write_text(path, json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")

    def task(self, suggestion: Suggestion) -> dict[str, Any]:
        """Return the task of one suggestion."""
        spellings = self.dataset.classes[suggestion.label]
        result = {
            "from_name": self.from_name,
            "to_name": self.to_name,
            "type": "choices",
            "value": {"choices": [next(iter(spellings), suggestion.label)]},
        }
        predicted = {
            "model_version": "anklealign", "score": suggestion.probability, "result": [result],
        }  # fmt: skip
        data = {self.to_name: f"{self.address}{quote(suggestion.path)}", **suggestion.data}
        return {"data": data, "predictions": [predicted]}
