"""What a network reaches on a phantom, against the ceiling that the true angles allow.

    python -m benchmarks.phantom                    # seed 2, as many photos as params.yaml says
    python -m benchmarks.phantom --photos 3230        # ten times as many: some 20 minutes, 2 cores


Draws the phantom and runs the five stages in a temporary folder, with the project's params.yaml but
for what the options say, then compares the scores with the truth table. Seed 1 is the
committed set, on which nothing is tuned: take others.

A few labels are wrong on purpose, in test as in train. The stages know the labels that collectors
gave and are scored by them; here the same predictions are scored by the true labels, too, and these
are compared with the ceiling, which is one of true labels.

The heat maps of the test photos are held against the true heels: the share of a map's heat inside
the two boxes, and the pointing game (is the hottest pixel inside?; Zhang et al., Top-down Neural
Attention by Excitation Backprop (2018)), beside the boxes' share of the photo, which a map without
knowledge reaches. And the list of suspicious labels is held against those that are wrong.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from anklealign.explainability.attribution import heat_maps
from anklealign.inference.predictor import Predictor
from anklealign.io import pixel_store
from synthetic import boxes, corruptions, generate

ROOT = Path(__file__).resolve().parents[1]
STEPS = (
    "synthetic.generate",
    "stages.prepare",
    "stages.clean",
    "stages.split",
    "stages.train",
    "stages.evaluate",
    "anklealign.cli.label_issues",
)


def main() -> None:
    """Run the pipeline on a phantom of its own and print how near it comes to the ceiling."""
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="phantom-") as name:
        folder = Path(name)
        write_params(folder, options)
        (folder / "requirements.txt").symlink_to(ROOT / "requirements.txt")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        for step in STEPS:
            command = [sys.executable, "-m", step]
            subprocess.run(command, cwd=folder, env=environment, check=True)
        truth = generate.read_truth(folder / generate.TRUTH)
        predictions = pd.read_csv(folder / "plots/evaluate/predictions.csv")
        metrics = json.loads((folder / "metrics/evaluate.json").read_text(encoding="utf-8"))
        heels = heels_of(folder, truth)
        suspects = pd.read_csv(folder / "suspects/suspects.csv")
    usable = generate.usable(truth)
    ceiling = generate.ceiling(usable)
    balanced, accuracy = metrics["balanced_accuracy"], metrics["accuracy"]
    by_truth = score_by_truth(predictions, truth)
    print(
        f"\n{options.model} on {len(usable)} photos of phantom seed {options.seed}, "
        f"{metrics['photos']} of {metrics['groups']} groups in test\n"
        f"ceiling by the true angles    {ceiling:.3f} balanced accuracy\n"
        f"balanced accuracy             {_with_interval(balanced)} by the given labels\n"
        f"  by the true labels          {by_truth:.3f}\n"
        f"share of the ceiling          {by_truth / ceiling:.3f} by the true labels\n"
        f"accuracy                      {_with_interval(accuracy)}, "
        f"majority {accuracy['majority']:.3f}\n"
        f"gain over the majority        {accuracy['gain']:+.3f} "
        f"({accuracy['gain_ci_low']:+.3f} to {accuracy['gain_ci_high']:+.3f})\n"
        f"heat inside the heels         {heels['inside']:.3f}, by chance {heels['area']:.3f}\n"
        f"hottest pixel on a heel       {heels['pointing']:.3f}, by chance {heels['area']:.3f}"
    )
    wrong = set(truth.path[truth.planted == corruptions.WRONG_LABEL]) & set(suspects.path)
    if wrong:
        top = suspects.path.head(round(len(suspects) / 10))
        print(
            f"wrong labels found            {len(wrong & set(top)) / len(wrong):.3f} of "
            f"{len(wrong)} in the first tenth of the list"
        )


def read_options() -> argparse.Namespace:
    """Return seed, photos and model."""
    committed = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text("utf-8"))
    parser = argparse.ArgumentParser(description="A network against the phantom's ceiling")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--photos", type=int, default=committed["phantom"]["photos"])
    parser.add_argument("--model", default=committed["model"])
    return parser.parse_args()


def write_params(folder: Path, options: argparse.Namespace) -> None:
    """Write the project's params.yaml with another phantom, collectors and faults in proportion."""
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    drawn = values["phantom"]
    drawn["collectors"] = max(1, round(drawn["collectors"] * options.photos / drawn["photos"]))
    drawn["planted"] = round(drawn["planted"] * options.photos / drawn["photos"])
    drawn["photos"], drawn["seed"] = options.photos, options.seed
    values["dataset"], values["model"] = "phantom", options.model
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)


def heels_of(folder: Path, truth: pd.DataFrame) -> dict[str, float]:
    """Return the mean shares of the test photos' heat maps inside the true heels.

    `inside` of the heat, `pointing` of the photos whose hottest pixel is there, and `area` of the
    photo (without its letterbox), which is chance's share of both.
    """
    predictor = Predictor.load(folder / "model")
    table = pixel_store.read_table(folder / pixel_store.SPLIT / "photos.csv")
    known = truth[truth.heel_left_left.notna()].set_index("path")
    test = table[(table.split == "test") & table.path.isin(known.index)]
    pixels = pixel_store.open_store(folder / pixel_store.STORE)[test.row.to_numpy()]
    said = predictor.probabilities(pixels).argmax(1)
    maps = heat_maps(predictor.bundle, pixels, said, device=predictor.device)
    how = predictor.bundle.preparation
    found = []
    for heat, row in zip(maps, test.to_dict("records"), strict=True):
        true = known.loc[row["path"]].to_dict()
        inside = np.zeros(heat.shape, bool)
        for side in ("left", "right"):
            edges = (true[f"heel_{side}_{edge}"] for edge in ("left", "top", "right", "bottom"))
            first, second, third, fourth = map(int, edges)
            box = (first, second, third, fourth)
            box = boxes.upright(box, true["width"], true["height"], true["orientation"])
            seen = boxes.in_square(box, row["width"], row["height"], how.size, how.fit)
            left, top, right, bottom = map(round, seen)
            inside[top:bottom, left:right] = True
        photo = inside[row["top"] : row["bottom"], row["left"] : row["right"]]
        hottest = np.unravel_index(heat.argmax(), heat.shape)
        if heat.any():
            found.append((heat[inside].sum() / heat.sum(), inside[hottest], photo.mean()))
    names = ("inside", "pointing", "area")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def score_by_truth(predictions: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Return the balanced accuracy of predictions (path, predicted) by the truth's labels."""
    true = predictions.path.map(truth.set_index("path").true_label)
    return float((predictions.predicted == true).groupby(true).mean().mean())


def _with_interval(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} ({score['ci_low']:.3f} to {score['ci_high']:.3f})"


if __name__ == "__main__":
    main()
