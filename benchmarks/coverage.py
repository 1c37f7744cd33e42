"""Whether prediction sets hold the truth as often as promised, on many photos and on few.

    python -m benchmarks.coverage               # some ten minutes on 2 cores

Draws a phantom of 3,230 photos (seed 2), trains gap_cnn briefly on a third, fits temperature and
threshold on a third by train's own code, and looks at the sets of the last third: 1,000 photos
either way. The split is by person. Then persons are exchanged between the last two thirds at random
(the network saw neither, but for the choice of its epoch), for thresholds on 1,000 photos and on as
few as the committed run has: this is the spread that persons alone give.
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

from anklealign.inference.predictor import Predictor
from anklealign.io import pixel_store
from anklealign.metrics.scores import Floats, Integers
from anklealign.models import calibration

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("synthetic.generate", "stages.prepare", "stages.clean", "stages.split", "stages.train")
THIRD = 0.31  # of 3,230 photos: 1,001
# Calibration and test photos of the exchanges: as many as there are, and the committed run's.
SIZES = ((1000, 1000), (46, 51))


def main() -> int:
    """Print the table; exit status 1 when the coverage is over 3 points off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--seed", type=int, default=2, help="of the phantom; 1 is the committed one"
    )
    parser.add_argument("--photos", type=int, default=3230)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--exchanges", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coverage-") as name:
        table, probabilities, threshold = run(Path(name), options)
    labels = table.label.map(table.label.cat.categories.get_loc).to_numpy(np.int64)
    test = (table.split == "test").to_numpy()
    sets = calibration.prediction_sets(probabilities[test], threshold)
    share = held(sets, labels[test])
    right = (probabilities.argmax(1) == labels)[test].mean()
    print(
        f"\n{(~test).sum()} calibration and {test.sum()} test photos of phantom seed "
        f"{options.seed}, no person in both\n"
        f"accuracy of the network         {right:.3f}\n"
        f"coverage, promised {calibration.COVERAGE:.3f}        {share:.3f}\n"
        f"mean set size                   {sets.sum(1).mean():.3f}\n"
        f"abstained                       {calibration.abstains(sets).mean():.3f}\n"
    )
    print("| calibration photos | test photos | mean coverage | 95 % of exchanges |")
    print("|---:|---:|---:|---:|")
    generator = np.random.default_rng(options.seed)
    for sizes in SIZES:
        shares = [
            exchanged(probabilities, labels, table.group.to_numpy(), sizes, generator)
            for _ in range(options.exchanges)
        ]
        ends = np.quantile(shares, [0.025, 0.975])
        print(
            f"| {sizes[0]} | {sizes[1]} | {np.mean(shares):.3f} | {ends[0]:.3f} to {ends[1]:.3f} |"
        )
    return int(abs(share - calibration.COVERAGE) > 0.03)


def run(folder: Path, options: argparse.Namespace) -> tuple[pd.DataFrame, Floats, float]:
    """Run the pipeline up to train; return validation and test photos, answers and threshold."""
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    drawn = values["phantom"]
    drawn["collectors"] = max(1, round(drawn["collectors"] * options.photos / drawn["photos"]))
    drawn["photos"], drawn["seed"] = options.photos, options.seed
    values["dataset"], values["model"] = "phantom", "gap_cnn"
    values["models"]["gap_cnn"]["epochs"] = options.epochs
    values["split"]["validation"] = values["split"]["test"] = THIRD
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)
    (folder / "requirements.txt").symlink_to(ROOT / "requirements.txt")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for step in STEPS:
        subprocess.run([sys.executable, "-m", step], cwd=folder, env=environment, check=True)
    table = pixel_store.read_table(folder / pixel_store.SPLIT / "photos.csv")
    table = table[table.split.isin(["val", "test"])].sort_values("id", ignore_index=True)
    predictor = Predictor.load(folder / "model")
    store = pixel_store.open_store(folder / pixel_store.STORE)
    probabilities = predictor.probabilities(store, table.row.to_numpy())
    table["label"] = pd.Categorical(table.label, categories=list(predictor.classes))
    return table, probabilities, predictor.bundle.conformal_threshold


def held(sets: npt.NDArray[np.bool_], labels: Integers) -> float:
    """Return the share of sets that hold the truth: (N, K), (N,)."""
    return float(sets[np.arange(len(labels)), labels].mean())


def exchanged(
    probabilities: Floats,
    labels: Integers,
    groups: Integers,
    sizes: tuple[int, int],
    generator: np.random.Generator,
) -> float:
    """Return the coverage after whole persons were dealt anew to both parts.

    Each part takes persons until it has its number of photos, or all that are left.
    """
    order = generator.permutation(np.unique(groups))
    place = pd.Series(np.arange(len(order)), index=order)[groups].to_numpy()
    ranked = np.argsort(place, kind="stable")
    ends = np.flatnonzero(np.diff(place[ranked], append=-1)) + 1  # after each person
    first = ends[np.searchsorted(ends, sizes[0])]
    last = ends[min(np.searchsorted(ends, first + sizes[1]), len(ends) - 1)]
    fit, test = ranked[:first], ranked[first:last]
    threshold = calibration.fit_conformal(probabilities[fit], labels[fit], list(groups[fit]))
    return held(calibration.prediction_sets(probabilities[test], threshold), labels[test])


if __name__ == "__main__":
    raise SystemExit(main())
