"""Measure time and peak memory of the scores, intervals, tables and plots by number of classes.

    python -m benchmarks.many_classes              # 2 minutes on one core
    python -m benchmarks.many_classes --measure 37 --pictures FOLDER    # one number, with its plots
    python -m benchmarks.many_classes --coverage   # of the 95% intervals with few photos a class

Five test photos per class, each a group of its own. The probabilities are independent of the class:
the photos of a class are spread over the whole ranking, which is the slowest case. Each number of
classes runs in a process of its own; the last column is the growth of the time per class.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from anklealign.config.params import Evaluate
from anklealign.evaluation import plots, score_tables
from anklealign.evaluation.score_tables import Predictions
from anklealign.metrics import bootstrap
from anklealign.metrics.scores import confusion
from anklealign.models import calibration
from anklealign.plotting import style
from anklealign.reporting import metric_tables, model_card

CLASSES = (10, 100, 200, 1000)
PHOTOS_PER_CLASS = 5
SETTINGS = Evaluate(
    bootstrap=2000, confidence=0.95, mistakes=24, explained=1, robustness=0
)  # as params.yaml, without the forward passes


def draw(classes: int, seed: int) -> Predictions:
    """Return random predictions on five photos of each class."""
    labels = np.repeat(np.arange(classes), PHOTOS_PER_CLASS)
    drawn = np.random.default_rng(seed).dirichlet(np.full(classes, 0.2), len(labels))
    return Predictions(labels, drawn, [f"{seed} {n}" for n in range(len(labels))])


def evaluate(classes: int, folder: Path | None) -> None:
    """Compute what stages.evaluate writes from the predictions, and save the plots."""
    names = [f"class {k:04}" for k in range(classes)]
    test, validation = draw(classes, 0), draw(classes, 1)
    sets = calibration.prediction_sets(test.probabilities, 0.5)
    table = pd.DataFrame(
        {"label": [names[k] for k in test.labels], "group": test.groups, "collector": ""}
    )
    metrics = score_tables.classification_scores(
        table, names, test.probabilities, np.full(classes, 1 / classes), SETTINGS,
        ordered=True, seed=1,
    )  # fmt: skip
    metrics["calibration"] = score_tables.calibration_scores(
        test, validation, uncalibrated=test.probabilities, sets=sets, settings=SETTINGS, seed=1
    )
    counts = pd.DataFrame(confusion(test.labels, test.predicted, classes), names, names)
    score_tables.class_table(metrics, counts).to_csv()
    model_card.markdown(metric_tables.class_table(metrics))
    figures = {
        "confusion": plots.confusion(counts),
        "reliability": plots.reliability(test.labels, test.probabilities, test.probabilities, 1.0),
    }
    with tempfile.TemporaryDirectory() as temporary:
        for name, figure in figures.items():
            style.save(figure, (folder or Path(temporary)) / f"{name}_{classes}.png")


def measure(classes: int, folder: Path | None) -> dict[str, float]:
    """Return the CPU seconds and the peak memory of this process, without its imports' time."""
    start = time.process_time()
    evaluate(classes, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": round(time.process_time() - start, 1), "memory_mb": round(peak)}


def print_coverage(splits: int = 200) -> None:
    """Print the share of simulated test splits whose 95% intervals contain the true accuracy.

    All classes have the same accuracy, so it is also the true balanced accuracy.
    """
    print("| classes | photos per class | accuracy | accuracy's coverage | balanced accuracy's |")
    print("|--:|--:|--:|--:|--:|")
    for classes, photos in ((136, 1), (50, 2), (50, 5), (20, 3), (20, 10)):
        for truth in (0.1, 0.5, 0.9):
            covered = np.array([cover(classes, photos, truth, seed) for seed in range(splits)])
            shares = " | ".join(f"{share:.1%}" for share in covered.mean(0))
            print(f"| {classes} | {photos} | {truth} | {shares} |", flush=True)


def cover(classes: int, photos: int, truth: float, seed: int) -> list[bool]:
    """Return whether the intervals of a simulated split contain its true accuracy."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), photos)
    wrong = (labels + rng.integers(1, classes, len(labels))) % classes
    predicted = np.where(rng.random(len(labels)) < truth, labels, wrong)
    probabilities = np.eye(classes)[predicted] * 0.8 + 0.2 / classes
    groups = [str(n) for n in range(len(labels))]
    estimates = bootstrap.scores_with_ci(
        labels, probabilities, groups, np.full(classes, 1 / classes),
        resamples=500, confidence=0.95, seed=seed,
    )  # fmt: skip
    scores = (estimates[name] for name in ("accuracy", "balanced_accuracy"))
    return [bool(score["ci_low"] <= truth <= score["ci_high"]) for score in scores]


def main() -> None:
    """Measure one number of classes, or each of them in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--measure", type=int, help="number of classes")
    parser.add_argument("--pictures", type=Path, help="folder for the plots")
    parser.add_argument("--coverage", action="store_true", help="simulate the intervals' coverage")
    options = parser.parse_args()
    if options.coverage:
        print_coverage()
        return
    if options.measure:
        print(json.dumps(measure(options.measure, options.pictures)))
        return
    print("| classes | photos | CPU s | MB | CPU ms per class |\n|--:|--:|--:|--:|--:|")
    for classes in CLASSES:
        command = [sys.executable, "-m", "benchmarks.many_classes", "--measure", str(classes)]
        row = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        each = 1000 * row["cpu_s"] / classes
        photos = PHOTOS_PER_CLASS * classes
        print(f"| {classes} | {photos:,} | {row['cpu_s']} | {row['memory_mb']} | {each:.0f} |")


if __name__ == "__main__":
    main()
