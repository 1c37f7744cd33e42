"""What a network reaches on a phantom, against the ceiling that the true angles allow.

    python -m benchmarks.phantom                    # seed 2, as many photos as params.yaml says
    python -m benchmarks.phantom --photos 3230        # ten times as many: some 20 minutes, 2 cores

Draws the phantom and runs the five stages in a temporary folder, with the project's params.yaml but
for what the options say, then compares the scores with the truth table. Seed 1 is the
committed set, on which nothing is tuned: take others.

A few labels are wrong on purpose, in test as in train. The stages know the labels that collectors
gave and are scored by them; here the same predictions are scored by the true labels, too, and these
are compared with the ceiling, which is one of true labels.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from anklealign import phantom

ROOT = Path(__file__).resolve().parents[1]
STEPS = (
    "anklealign.phantom",
    "stages.prepare",
    "stages.clean",
    "stages.split",
    "stages.train",
    "stages.evaluate",
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
        truth = phantom.read_truth(folder / phantom.TRUTH)
        predictions = pd.read_csv(folder / "plots/evaluate/predictions.csv")
        metrics = json.loads((folder / "metrics/evaluate.json").read_text(encoding="utf-8"))
    usable = phantom.usable(truth)
    ceiling = phantom.ceiling(usable)
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
        f"({accuracy['gain_ci_low']:+.3f} to {accuracy['gain_ci_high']:+.3f})"
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
    """Write the project's params.yaml with another phantom: collectors in proportion to photos."""
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    drawn = values["phantom"]
    drawn["collectors"] = max(1, round(drawn["collectors"] * options.photos / drawn["photos"]))
    drawn["photos"], drawn["seed"] = options.photos, options.seed
    values["dataset"], values["model"] = "phantom", options.model
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)


def score_by_truth(predictions: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Return the balanced accuracy of predictions (path, predicted) by the truth's labels."""
    true = predictions.path.map(truth.set_index("path").true_label)
    return float((predictions.predicted == true).groupby(true).mean().mean())


def _with_interval(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} ({score['ci_low']:.3f} to {score['ci_high']:.3f})"


if __name__ == "__main__":
    main()
