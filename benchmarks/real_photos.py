"""PyTorch's ants and bees, five ways: what pretrained weights are worth on some 200 photos.

    python -m benchmarks.real_photos                # five seeds of each, some 40 minutes on 2 cores
    python -m benchmarks.real_photos --models mobilenet_v2 --seeds 6 --part val     # while tuning

Needs the photos in data/raw/ants_bees and the weights in data/weights/mobilenetv2_100.pth. Runs
the stages in a temporary folder, with the project's params.yaml; the photos' own val/ folder is the
test part, and each seed carves another validation part from train/. Settings are chosen on that.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from anklealign import photos
from anklealign.predictor import Predictor
from stages import clean, prepare, split, train

ROOT = Path(__file__).resolve().parents[1]
MODELS = (
    "majority",
    "cnn_gap",
    "gap_cnn",
    "imagenet_zero_shot",
    "mobilenet_v2_frozen",
    "mobilenet_v2",
)
LINKS = ("data/raw/ants_bees", "data/weights", "requirements.txt")


def main() -> None:
    """Print a table: mean and deviation of the test accuracy, and what a run takes."""
    options = read_options()
    for link in LINKS:
        if not (ROOT / link).exists():
            raise SystemExit(f"{link} is not there; README.md says what belongs there")
    print(f"| model | accuracy on {options.part}, mean ± sd of seeds | weights | minutes a run |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="real-photos-") as name:
        folder = Path(name)
        for link in LINKS:
            (folder / link).parent.mkdir(parents=True, exist_ok=True)
            (folder / link).symlink_to((ROOT / link).resolve())
        os.chdir(folder)
        write_params("majority", 1)
        quietly(prepare.main)
        quietly(clean.main)
        for model in options.models:
            print(line(model, options.seeds, options.part), flush=True)


def read_options() -> argparse.Namespace:
    """Return models, seeds and the part to score."""
    parser = argparse.ArgumentParser(description="Ants and bees over seeds")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--part", default="test", choices=["test", "val"])
    return parser.parse_args()


def line(model: str, seeds: list[int], part: str) -> str:
    """Train with each seed; return the model's row of the table."""
    accuracies, parameters, start = [], 0, time.perf_counter()
    for seed in seeds:
        write_params(model, seed)
        quietly(split.main)
        quietly(train.main)
        predictor = Predictor.load(Path("model"), "cpu")
        table = photos.read_table(photos.SPLIT / "photos.csv")
        rows = table[table.split == part]
        found = predictor.probabilities(photos.open_store()[rows.row.to_numpy()]).argmax(1)
        labels = rows.label.map(predictor.classes.index).to_numpy()
        accuracies.append(float(np.mean(found == labels)))
        parameters = predictor.parameter_count
    minutes = (time.perf_counter() - start) / 60 / len(seeds)
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    each = " ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return (
        f"| `{model}` | {statistics.mean(accuracies):.3f} ± {spread:.3f} ({each}) | "
        f"{parameters:,} | {minutes:.1f} |"
    )


def write_params(model: str, seed: int) -> None:
    """Write the project's params.yaml with another dataset, model and seed."""
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["dataset"], values["model"], values["seed"] = "ants_bees", model, seed
    with Path("params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)


def quietly(stage_main: object) -> None:
    """Run a stage without its lines."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stage_main()  # type: ignore[operator]


if __name__ == "__main__":
    main()
