"""Variants over seeds: what pretrained weights are worth, and what each rung of the ladder is.

    python -m benchmarks.seeds                          # ants and bees: half an hour on 2 cores
    python -m benchmarks.seeds --models mobilenet_v2 --seeds 6 --part val           # while tuning
    python -m benchmarks.seeds --dataset phantom --part val             # the ladder of own networks

Needs the photos in data/raw/<dataset> (`make repro` draws the phantom), and for the ants and bees
the ImageNet weights in data/weights/mobilenetv2_100.pth. Runs the stages in a temporary folder,
with the project's params.yaml. Each seed makes another split; of the ants and bees the photos' own
val/ folder stays the test part. Settings are chosen on validation, so the ladder is shown on that.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from anklealign.inference.predictor import Predictor
from anklealign.io import pixel_store
from anklealign.metrics.scores import point_scores
from stages import clean, prepare, split, train

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    "ants_bees": (
        "majority",
        "cnn_gap",
        "gap_cnn",
        "imagenet_zero_shot",
        "mobilenet_v2_frozen",
        "mobilenet_v2",
    ),
    "phantom": (
        "majority",
        "cnn_strided",
        "cnn_deep",
        "cnn_pooled",
        "cnn_batch_norm",
        "cnn_dropout",
        "cnn_gap",
        "tiny_cnn",
        "gap_cnn",
        "cnn_1m",
        "cnn_13m",
    ),
}


def main() -> None:
    """Print a table: mean and deviation of the scores over seeds, and what a run takes."""
    options = read_options()
    models = options.models or MODELS.get(options.dataset)
    if not models:
        raise SystemExit(f"--models: say which variants, as none are known for {options.dataset}")
    data = f"data/raw/{options.dataset}"
    if not (ROOT / data).exists():
        raise SystemExit(f"{data} is not there; README.md says what belongs there")
    links = [link for link in (data, "data/weights", "requirements.txt") if (ROOT / link).exists()]
    print(
        f"| model | accuracy on {options.part}, mean ± sd of seeds | balanced | weights | minutes |"
    )
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="seeds-") as name:
        folder = Path(name)
        for link in links:
            (folder / link).parent.mkdir(parents=True, exist_ok=True)
            (folder / link).symlink_to((ROOT / link).resolve())
        os.chdir(folder)
        write_params(options.dataset, "majority", 1)
        quietly(prepare.main)
        quietly(clean.main)
        for model in models:
            print(line(options.dataset, model, options.seeds, options.part), flush=True)


def read_options() -> argparse.Namespace:
    """Return models, seeds and the part to score."""
    parser = argparse.ArgumentParser(description="Variants over seeds")
    parser.add_argument("--dataset", default="ants_bees", help="of params.yaml")
    parser.add_argument("--models", nargs="+", help="of params.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--part", default="test", choices=["test", "val"])
    return parser.parse_args()


def line(dataset: str, model: str, seeds: list[int], part: str) -> str:
    """Train with each seed; return the model's row of the table."""
    accuracies: list[float] = []
    balanced: list[float] = []
    parameters, start = 0, time.perf_counter()
    for seed in seeds:
        write_params(dataset, model, seed)
        quietly(split.main)
        quietly(train.main)
        predictor = Predictor.load(Path("model"), "cpu")
        table = pixel_store.read_table(pixel_store.SPLIT / "photos.csv")
        rows = table[table.split == part]
        found = predictor.probabilities(pixel_store.open_store()[rows.row.to_numpy()])
        scores = point_scores(rows.label.map(predictor.classes.index).to_numpy(), found)
        accuracies.append(scores["accuracy"])
        balanced.append(scores["balanced_accuracy"])
        parameters = predictor.parameter_count
    minutes = (time.perf_counter() - start) / 60 / len(seeds)
    each = " ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return (
        f"| `{model}` | {mean_and_sd(accuracies)} ({each}) | {mean_and_sd(balanced)} | "
        f"{parameters:,} | {minutes:.1f} |"
    )


def mean_and_sd(values: list[float]) -> str:
    """Return both as a table shows them."""
    spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else "-"
    return f"{statistics.mean(values):.3f} ± {spread}"


def write_params(dataset: str, model: str, seed: int) -> None:
    """Write the project's params.yaml with another dataset, model and seed."""
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["dataset"], values["model"], values["seed"] = dataset, model, seed
    with Path("params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)


def quietly(stage_main: Callable[[], None]) -> None:
    """Run a stage without its lines."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stage_main()


if __name__ == "__main__":
    main()
