"""Train models with several seeds: the effect of pretrained weights and of each change in size.

    python -m benchmarks.seeds                          # ants and bees: half an hour on 2 cores
    python -m benchmarks.seeds --models mobilenet_v2 --seeds 6 --split val      # for tuning
    python -m benchmarks.seeds --dataset synthetic --split val      # networks from scratch

Requires the photos in data/raw/<dataset> (`make repro` creates the synthetic set). Ants and bees
also require the ImageNet weights in data/weights/mobilenetv2_100.pth. The stages run in a temporary
folder with the project's params.yaml. Each seed creates another split, but the val/ folder of ants
and bees always remains the test split. Settings are selected on the validation split, so the
networks from scratch are compared on that split.
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

from anklealign.config import paths
from anklealign.inference.predictor import Predictor
from anklealign.io import pixel_store
from anklealign.metrics.scores import point_scores
from stages import clean, prepare, split, train

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    "ants_bees": (
        "majority",
        "cnn_gap",
        "grid_pool_cnn",
        "imagenet_zero_shot",
        "mobilenet_v2_frozen",
        "mobilenet_v2",
    ),
    "synthetic": (
        "majority",
        "cnn_strided",
        "cnn_deep",
        "cnn_pooled",
        "cnn_batch_norm",
        "cnn_dropout",
        "cnn_gap",
        "tiny_cnn",
        "grid_pool_cnn",
        "cnn_1m",
        "cnn_13m",
    ),
}


def main() -> None:
    """Print a table: mean and standard deviation of the scores, and minutes per run."""
    options = read_options()
    models = options.models or MODELS.get(options.dataset)
    if not models:
        raise SystemExit(f"--models is required for the dataset {options.dataset}")
    data = f"data/raw/{options.dataset}"
    if not (ROOT / data).exists():
        raise SystemExit(f"{data} does not exist; see docs/model-zoo.md")
    links = [link for link in (data, "data/weights", "pins.yaml") if (ROOT / link).exists()]
    print(
        f"| model | {options.split} accuracy, mean ± SD over seeds | balanced | weights | minutes |"
    )
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="seeds-") as name:
        folder = Path(name)
        for link in links:
            (folder / link).parent.mkdir(parents=True, exist_ok=True)
            (folder / link).symlink_to((ROOT / link).resolve())
        os.chdir(folder)
        write_params(options.dataset, "majority", 1)
        run_quietly(prepare.main)
        run_quietly(clean.main)
        for model in models:
            print(table_row(options.dataset, model, options.seeds, options.split), flush=True)


def read_options() -> argparse.Namespace:
    """Return the command-line options."""
    parser = argparse.ArgumentParser(description="Train models with several seeds")
    parser.add_argument("--dataset", default="ants_bees", help="key of datasets in params.yaml")
    parser.add_argument("--models", nargs="+", help="keys of models in params.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--split", default="test", choices=["test", "val"])
    return parser.parse_args()


def table_row(dataset: str, model: str, seeds: list[int], split_name: str) -> str:
    """Train the model with each seed and return its row of the table."""
    accuracies: list[float] = []
    balanced: list[float] = []
    parameters, start = 0, time.perf_counter()
    for seed in seeds:
        write_params(dataset, model, seed)
        run_quietly(split.main)
        run_quietly(train.main)
        predictor = Predictor.load(Path("model"), "cpu")
        table = pixel_store.read_table(paths.SPLIT / "photos.csv")
        rows = table[table.split == split_name]
        probabilities = predictor.probabilities(pixel_store.open_store()[rows.row.to_numpy()])
        scores = point_scores(rows.label.map(predictor.classes.index).to_numpy(), probabilities)
        accuracies.append(scores["accuracy"])
        balanced.append(scores["balanced_accuracy"])
        parameters = predictor.parameter_count
    minutes = (time.perf_counter() - start) / 60 / len(seeds)
    per_seed = " ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return (
        f"| `{model}` | {mean_and_sd(accuracies)} ({per_seed}) | {mean_and_sd(balanced)} | "
        f"{parameters:,} | {minutes:.1f} |"
    )


def mean_and_sd(values: list[float]) -> str:
    """Return the mean and the standard deviation as text."""
    spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else "-"
    return f"{statistics.mean(values):.3f} ± {spread}"


def write_params(dataset: str, model: str, seed: int) -> None:
    """Write the project's params.yaml with this dataset, model and seed."""
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["dataset"], values["model"], values["seed"] = dataset, model, seed
    values["train"]["repeats"] = 1
    with Path("params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)


def run_quietly(stage_main: Callable[[], None]) -> None:
    """Run a stage without its output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stage_main()


if __name__ == "__main__":
    main()
