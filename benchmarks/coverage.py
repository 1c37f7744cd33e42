"""Compare the coverage of prediction sets with the nominal one, on many photos and on few.

    python -m benchmarks.coverage               # about ten minutes on 2 cores

Generates a synthetic set of 3,230 photos (seed 2), trains grid_pool_cnn briefly on a third, fits
temperature and threshold on a third with the code of the train stage, and measures the sets of the
last third: about 1,000 photos each. The split is by subject. Then subjects are reassigned at random
between the last two thirds. The network was not trained on either, but its epoch was selected on
one. Thresholds are fitted on 1,000 photos and on as few as in the committed run: the result is the
variation caused by the choice of subjects alone.

    python -m benchmarks.coverage --run .       # the last run, of any dataset
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from ruamel.yaml import YAML

from anklealign.config import paths
from anklealign.inference.predictor import Predictor
from anklealign.io import pixel_store
from anklealign.metrics.scores import Floats, Integers
from anklealign.models import calibration

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("synthetic.generate", "stages.prepare", "stages.clean", "stages.split", "stages.train")
THIRD = 0.31  # of 3,230 photos: 1,001
# Calibration and test photos after reassignment: all of this run, and those of the committed run.
SIZES = ((1000, 1000), (46, 51))


def main() -> int:
    """Print the table; return 1 if the coverage is more than 3 points off, of a run too low."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--seed", type=int, default=2, help="seed of the synthetic set; 1 is the committed one"
    )
    parser.add_argument("--photos", type=int, default=3230)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--run", type=Path, help="folder of a finished run of any dataset")
    options = parser.parse_args()
    if options.run:
        table, probabilities, threshold = load(options.run)
        splits = table.split.value_counts()
        sizes: tuple[tuple[int, int], ...] = ((splits["val"], splits["test"]),)
        source = str(options.run)
    else:
        source, sizes = f"synthetic seed {options.seed}", SIZES
        table, probabilities, threshold = run_in_temporary_folder(options)
    labels = table.label.map(table.label.cat.categories.get_loc).to_numpy(np.int64)
    test = (table.split == "test").to_numpy()
    sets = calibration.prediction_sets(probabilities[test], threshold)
    coverage = coverage_of(sets, labels[test])
    right = (probabilities.argmax(1) == labels)[test]
    accuracy, answered = right.mean(), ~calibration.abstains(sets)
    selective = f"{right[answered].mean():.3f}" if answered.any() else "-"
    print(
        f"\n{(~test).sum()} calibration and {test.sum()} test photos of "
        f"{source}, no group in both\n"
        f"accuracy of the network         {accuracy:.3f}\n"
        f"coverage, nominal {calibration.COVERAGE:.3f}         {coverage:.3f}\n"
        f"mean set size                   {sets.sum(1).mean():.3f}\n"
        f"abstained                       {1 - answered.mean():.3f}\n"
        f"accuracy where it answers       {selective}\n"
    )
    print("| calibration photos | test photos | mean coverage | 95% of draws |")
    print("|---:|---:|---:|---:|")
    generator = np.random.default_rng(options.seed)
    for size in sizes:
        shares = [
            reassigned_coverage(probabilities, labels, table.group.to_numpy(), size, generator)
            for _ in range(options.draws)
        ]
        ends = np.quantile(shares, [0.025, 0.975])
        print(f"| {size[0]} | {size[1]} | {np.mean(shares):.3f} | {ends[0]:.3f} to {ends[1]:.3f} |")
    if options.run:
        return int(coverage < calibration.COVERAGE - 0.03)
    return int(abs(coverage - calibration.COVERAGE) > 0.03)


def run_in_temporary_folder(options: argparse.Namespace) -> tuple[pd.DataFrame, Floats, float]:
    """Return the result of `run`, whose folder is removed."""
    with tempfile.TemporaryDirectory(prefix="coverage-") as name:
        return run(Path(name), options)


def run(folder: Path, options: argparse.Namespace) -> tuple[pd.DataFrame, Floats, float]:
    """Run the stages up to train; return val and test photos, probabilities and threshold."""
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    synthetic = values["synthetic"]
    collectors = round(synthetic["collectors"] * options.photos / synthetic["photos"])
    synthetic["collectors"] = max(1, collectors)
    synthetic["photos"], synthetic["seed"] = options.photos, options.seed
    values["dataset"], values["model"] = "synthetic", "grid_pool_cnn"
    values["models"]["grid_pool_cnn"]["epochs"] = options.epochs
    values["train"]["repeats"] = 1
    values["split"]["val"] = values["split"]["test"] = THIRD
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)
    (folder / "pins.yaml").symlink_to(ROOT / "pins.yaml")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for step in STEPS:
        subprocess.run([sys.executable, "-m", step], cwd=folder, env=environment, check=True)
    return load(folder)


def load(folder: Path) -> tuple[pd.DataFrame, Floats, float]:
    """Return val and test photos of a run, their probabilities and the threshold."""
    table = pixel_store.read_table(folder / paths.SPLIT / "photos.csv")
    table = table[table.split.isin(["val", "test"])].sort_values("id", ignore_index=True)
    predictor = Predictor.load(folder / "model")
    store = pixel_store.open_store(folder / paths.STORE)
    probabilities = predictor.probabilities(store, table.row.to_numpy())
    table["label"] = pd.Categorical(table.label, categories=list(predictor.classes))
    return table, probabilities, predictor.bundle.conformal_threshold


def coverage_of(sets: npt.NDArray[np.bool_], labels: Integers) -> float:
    """Return the share of sets that contain the true class: (N, K), (N,)."""
    return float(sets[np.arange(len(labels)), labels].mean())


def reassigned_coverage(
    probabilities: Floats,
    labels: Integers,
    groups: Integers,
    sizes: tuple[int, int],
    generator: np.random.Generator,
) -> float:
    """Return the coverage after reassigning groups at random to both splits.

    Each split receives groups until it has its number of photos, or all remaining groups.
    """
    order = generator.permutation(np.unique(groups))
    position = pd.Series(np.arange(len(order)), index=order)[groups].to_numpy()
    ranked = np.argsort(position, kind="stable")
    ends = np.flatnonzero(np.diff(position[ranked], append=-1)) + 1  # after each group
    first = ends[np.searchsorted(ends, sizes[0])]
    last = ends[min(np.searchsorted(ends, first + sizes[1]), len(ends) - 1)]
    fit, test = ranked[:first], ranked[first:last]
    threshold = calibration.fit_conformal(probabilities[fit], labels[fit], list(groups[fit]))
    return coverage_of(calibration.prediction_sets(probabilities[test], threshold), labels[test])


if __name__ == "__main__":
    raise SystemExit(main())
