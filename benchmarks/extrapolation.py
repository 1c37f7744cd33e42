"""Check the extrapolated gain of twice as many photos against the gain of twice as many photos.

    python -m benchmarks.extrapolation flowers=DIR clothing=DIR    # folders of class folders

Photos are split at random into a test part and two parts of n photos each. The learning curve of
`evaluate` is measured on one part, by cross-validation, and extrapolated to 2 n. Then the same
model, logistic regression on the features of EfficientNet-Lite0, is fitted on this part and on both
parts, and the test photos give the gain that twice as many photos had. Both are means over random
splits; the error has its standard error over the splits. The exit status is 1 if an extrapolation
is off by more than 0.01, the gain that `evaluate` regards as worth the work, and two standard
errors.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from anklealign.evaluation import cross_validation, learning_curve
from anklealign.metrics.scores import Floats, Integers
from anklealign.models import novelty
from benchmarks.techniques import SUFFIXES, read_photo

TEST = 400  # photos of the test part, at most
REPEATS = 2  # cross-validations of a curve


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description="back-test of the learning curve")
    parser.add_argument("data", nargs="+", metavar="NAME=DIR", help="a folder of class folders")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 400], help="photos n")
    parser.add_argument("--splits", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| photos | n | extrapolated gain | gain of 2 n | error |\n|---|--:|--:|--:|--:|")
    passed = True
    for item in options.data:
        name, _, folder = item.partition("=")
        features, labels = read_features(Path(folder), TEST + 2 * max(options.sizes))
        for size in options.sizes:
            pairs = np.array(
                [compare(features, labels, size, seed) for seed in range(options.splits)]
            )
            extrapolated, measured = pairs.mean(0)
            errors = pairs[:, 0] - pairs[:, 1]
            spread = errors.std(ddof=1) / np.sqrt(len(errors))
            passed &= bool(abs(errors.mean()) <= learning_curve.LEAST_GAIN + 2 * spread)
            print(
                f"| {name}, {labels.max() + 1} classes | {size} | {extrapolated:+.3f} "
                f"| {measured:+.3f} | {errors.mean():+.3f} ± {spread:.3f} |", flush=True,
            )  # fmt: skip
    return 0 if passed else 1


def read_features(folder: Path, count: int) -> tuple[Floats, Integers]:
    """Return the features, (N, F), and classes, (N,), of random photos."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    order = np.random.default_rng(0).permutation(len(files))[:count]
    chosen = [files[n] for n in order.tolist()]
    pixels = np.stack([read_photo(file, crop=False) for file in chosen])
    features = novelty.describe(pixels, np.arange(len(pixels)), torch.device("cpu"))
    labels = np.unique([file.parent.name for file in chosen], return_inverse=True)[1]
    return np.asarray(features, np.float64), labels.astype(np.int64)


def compare(features: Floats, labels: Integers, size: int, seed: int) -> tuple[float, float]:
    """Return the extrapolated and the measured gain of balanced accuracy in one random split."""
    order = np.random.default_rng(seed).permutation(len(labels))
    half, both, test = order[:size], order[: 2 * size], order[2 * size :][:TEST]
    classes = int(labels.max()) + 1
    groups = [str(n) for n in range(size)]
    right = learning_curve.probe_curve(
        features[half], labels[half], groups, classes, repeats=REPEATS, seed=seed
    )
    if right is None:
        sys.exit(f"extrapolation: {size} photos are too few for {classes} classes")
    per_class = np.stack([labels[half] == k for k in np.unique(labels[half])], 1).astype(float)
    scores = learning_curve.balanced(right.mean(1), per_class)
    sizes = np.array(learning_curve.SHARES) * size
    extrapolated = float(learning_curve.extrapolated_gain(scores, sizes, size))
    accuracies = []
    for part in (half, both):
        train = np.isin(np.arange(len(labels)), part)
        tested = np.isin(np.arange(len(labels)), test)
        probabilities = cross_validation.probabilities_on(
            learning_curve.probe(), features, labels, train, tested
        )
        hits = probabilities.argmax(1) == labels[tested]
        accuracies.append(
            np.mean([hits[labels[tested] == k].mean() for k in np.unique(labels[tested])])
        )
    return extrapolated, float(accuracies[1] - accuracies[0])


if __name__ == "__main__":
    sys.exit(main())
