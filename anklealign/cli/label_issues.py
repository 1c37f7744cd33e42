"""Photos whose label is probably wrong, most suspicious first, for people to look at again.

    python -m anklealign.cli.label_issues                # into suspects/

Reads the pixel store, data/split/photos.csv and the trained bundle; writes suspects.csv (every
photo, ranked), sheet_01.png … (the first 96) and label_studio.json, the first 96 as tasks with the
model's suggestion as a prediction, to be imported where the photos were labelled.

Confident learning (Northcutt, Jiang and Chuang 2021): a photo is suspicious when another class is
more probable, by the measure of that class's own photos, than its label by the measure of its own.
The probabilities are of a linear model on the network's last features, cross-validated by group, so
that no photo and no person is judged by a model that has learned its label; the features themselves
have seen the labels of the train part, which makes the list more lenient there than a pretrained
and frozen network's would be.

Shapes: N photos, F features, K classes.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
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

from anklealign.config import params
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store
from anklealign.models import inputs
from anklealign.models.inputs import Floats, Integers
from anklealign.plotting import contact_sheets
from anklealign.splitting.stratified_groups import folds

Booleans = npt.NDArray[np.bool_]

MODEL = Path("model")
FOLDS = 5  # at most; a class with fewer groups allows as many as it has
SHOWN = 96  # eight pages of the sheet
STRENGTH = 1e-3  # C of the linear model: chosen on phantom seed 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Rank the photos of the last run; exit status 1 when there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.cli.label_issues", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--out", type=Path, default=Path("suspects"))
    parser.add_argument(
        "--address", default="/data/local-files/?d=", help="Label Studio's, before a photo's path"
    )
    parser.add_argument("--from-name", default="choice", help="name of the project's Choices tag")
    parser.add_argument("--to-name", default="image", help="name of its Image tag, and data key")
    chosen = parser.parse_args(arguments)
    try:
        name, dataset = params.dataset(params.read())
        predictor = Predictor.load(MODEL)
        table = pixel_store.read_table(pixel_store.SPLIT / "photos.csv").sort_values(
            "id", ignore_index=True
        )
        store = pixel_store.open_store()
    except (ValueError, OSError) as error:
        print(f"suspects: {error}; run `dvc repro` first", file=sys.stderr)
        return 1
    classes = list(predictor.classes)
    labels = table.label.map(classes.index).to_numpy(np.int64)
    bundle = predictor.bundle
    rows = table.row.to_numpy(np.int64)
    print(f"suspects: features of {len(rows)} photos")
    features = inputs.features(bundle.model, store, rows, bundle.network_input, predictor.device)
    known = features.numpy().astype(np.float64)
    try:
        probabilities = cross_validated(known, labels, list(table.group))
    except ValueError as error:
        print(f"suspects: {error}", file=sys.stderr)
        return 1
    found = ranked(table, classes, labels, probabilities)
    top = found.head(SHOWN)
    files.write_table(chosen.out / "suspects.csv", found.drop(columns="place"))
    sheet = contact_sheets.pages(
        tiles(top, table, store), "Labels to look at again", "no photo", columns=4, rows=3
    )
    contact_sheets.write(chosen.out, "sheet", sheet)
    spelled = {label: next(iter(aliases), label) for label, aliases in dataset.classes.items()}
    tasks = [
        task(
            row,
            f"{chosen.address}{quote(f'{name}/' + row['path'])}",
            spelled,
            chosen.from_name,
            chosen.to_name,
        )
        for row in top.to_dict("records")
    ]
    files.write_text(
        chosen.out / "label_studio.json", json.dumps(tasks, indent=1, ensure_ascii=False) + "\n"
    )
    print(
        f"suspects: {int(found.confident.sum())} of {len(found)} photos look mislabelled; the "
        f"first {len(top)} of the list in {chosen.out}/sheet_01.png, and for Label Studio in "
        f"{chosen.out}/label_studio.json"
    )
    return 0


def cross_validated(features: Floats, labels: Integers, groups: Sequence[str]) -> Floats:
    """Return probabilities of a linear model that has not seen the photo's group: (N, F) -> (N, K).

    Raises:
        ValueError: A class has photos of a single group: nothing else tells what it looks like.
    """
    classes = int(labels.max()) + 1
    names = sorted(set(groups))
    place = {name: n for n, name in enumerate(names)}
    of_group = np.array([place[name] for name in groups])
    counts = np.zeros((len(names), classes), np.int64)
    np.add.at(counts, (of_group, labels), 1)
    count = min(FOLDS, int((counts > 0).sum(0).min()))
    if count < 2:
        raise ValueError(
            "a class has photos of one group (person) alone, so that none can be judged by others; "
            "add photos of other persons"
        )
    kinds = [str(k) for k in range(classes)]
    dealt = folds(dict(zip(names, counts, strict=True)), count, kinds, 0)
    fold = np.array([dealt[name] for name in groups])
    found = np.zeros((len(labels), classes))
    for number in tqdm(range(count), "judge", unit="fold", delay=1, leave=False, disable=None):
        train = fold != number
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000),
        )
        model.fit(features[train], labels[train])
        found[np.ix_(~train, model.classes_)] = model.predict_proba(features[~train])
    return found


def margins(labels: Integers, probabilities: Floats) -> tuple[Floats, Integers, Booleans]:
    """Return each photo's margin, the class that speaks against its label, and whether surely.

    (N,), (N, K) -> (N,), (N,), (N,). Probabilities are taken relative to their class's threshold,
    the mean probability that the photos with this label get. The margin is the label's less the
    strongest other's: the smaller, the more suspicious. A photo is confidently mislabelled when
    that other one is above its threshold and above the label's.
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
    """Return the photos, most suspicious first: id, path, label, suggested, their probabilities."""
    margin, against, confident = margins(labels, probabilities)
    numbers = np.arange(len(labels))
    found = pd.DataFrame(
        {
            "id": table.id,
            "path": table.path,
            "part": table.split,
            "label": table.label,
            "suggested": [classes[k] for k in against],
            "p_label": probabilities[numbers, labels].round(4),
            "p_suggested": probabilities[numbers, against].round(4),
            "margin": margin.round(4),
            "confident": confident,
            "place": numbers,
        }
    )
    return found.sort_values(["margin", "path"], ignore_index=True)


def tiles(
    top: pd.DataFrame, table: pd.DataFrame, store: pixel_store.Pixels
) -> list[contact_sheets.Tile]:
    """Return the photos with their labels and what speaks against them."""
    pictures = pixel_store.boxes_of(table.loc[top.place], store)
    return [
        contact_sheets.Tile(
            (picture,),
            (
                f"labelled {row['label']} ({row['p_label']:.0%})",
                f"looks like {row['suggested']} ({row['p_suggested']:.0%})",
                row["path"],
            ),
        )
        for row, picture in zip(top.to_dict("records"), pictures, strict=True)
    ]


def task(
    row: Mapping[Any, Any], address: str, spelled: Mapping[str, str], from_name: str, to_name: str
) -> dict[str, Any]:
    """Return a Label Studio task with the suggestion as a prediction, spelled as the team does."""
    result = {
        "from_name": from_name,
        "to_name": to_name,
        "type": "choices",
        "value": {"choices": [spelled[row["suggested"]]]},
    }
    prediction = {"model_version": "anklealign", "score": row["p_suggested"], "result": [result]}
    return {"data": {to_name: address, "labelled": row["label"]}, "predictions": [prediction]}


if __name__ == "__main__":
    sys.exit(main())
