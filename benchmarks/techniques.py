"""Compare ways to use the features of a frozen network, over random splits of sets of photos.

    python -m benchmarks.techniques ants_bees=DIR flowers=DIR    # folders of class folders

The network is EfficientNet-Lite0 of the installation. Each split takes 60% of the photos for
training and 40% for the scores. Every technique is one change to `lite0_probe`: logistic regression
with a cross-validated penalty at 224 px. A row has the mean over sets and splits, and the mean
difference to the probe with its standard error over the splits. A positive difference of the
accuracy and a negative one of the log loss are better. All log losses are after temperature
scaling on half of the scored photos, and are those of the other half.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import nn

from anklealign.config import params
from anklealign.metrics.scores import point_scores
from anklealign.models import calibration, factory, inputs
from anklealign.models.input_config import Floats, Integers
from anklealign.models.novelty_detector import GENERAL_INPUT
from anklealign.models.weights import GENERAL_NETWORK
from anklealign.training import logistic
from anklealign.training.logistic import Examples

SIDE = 256
PASSES = {"f224": (224, False), "f224m": (224, True), "f288": (288, False)}
SUFFIXES = {".jpg", ".jpeg", ".png"}
FOLDS = 4
NEIGHBORS = 10
BASELINE = "lite0_probe"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="techniques on the features of a frozen network")
    parser.add_argument("data", nargs="+", metavar="NAME=DIR", help="a folder of class folders")
    parser.add_argument("--cache", type=Path, default=Path("data/techniques"), help="for features")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--photos", type=int, default=500, help="random photos of each split")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for item in options.data:
        name, _, folder = item.partition("=")
        features, labels = read_features(name, Path(folder), options.cache)
        for split in range(options.splits):
            order = np.random.default_rng(split).permutation(len(labels))[: options.photos]
            table = pd.DataFrame(compare({k: v[order] for k, v in features.items()}, labels[order]))
            rows.append(table.assign(set=name, split=split))
            print(f"{name}, split {split}", flush=True)
    print_table(pd.concat(rows))


def read_features(name: str, folder: Path, cache: Path) -> tuple[dict[str, torch.Tensor], Integers]:
    """Return the features (N, C) of each of `PASSES` and the classes (N,) of a folder's photos."""
    path = cache / f"{name}.npz"
    if not path.exists():
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        known = params.read()["datasets"].get(name, {})
        crop = known.get("fit") == "crop"
        arrays = {"labels": np.array([file.parent.name for file in files])}
        pixels = np.stack([read_photo(file, crop=crop) for file in files])
        network = factory.build(name, GENERAL_NETWORK, 1).eval()
        for key, (size, mirror) in PASSES.items():
            view = pixels[:, :, ::-1] if mirror else pixels
            config = replace(GENERAL_INPUT, image_size=size)
            computed = inputs.features(
                network, view, np.arange(len(view)), config, torch.device("cpu")
            )
            arrays[key] = computed.numpy()
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)  # type: ignore[arg-type]
    stored = np.load(path)
    labels = np.unique(stored["labels"], return_inverse=True)[1].astype(np.int64)
    return {key: torch.from_numpy(stored[key]) for key in PASSES if key in stored}, labels


def read_photo(file: Path, *, crop: bool) -> np.ndarray:
    """Return a photo as a square, uint8 (SIDE, SIDE, 3)."""
    photo = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    square = (
        ImageOps.fit(photo, (SIDE, SIDE))
        if crop
        else ImageOps.pad(photo, (SIDE, SIDE), color=(114, 114, 114))
    )
    return np.asarray(square)


def compare(features: dict[str, torch.Tensor], labels: Integers) -> list[dict[str, float | str]]:
    """Return the scores of each technique on one split of N photos."""
    train = np.arange(len(labels)) < 0.6 * len(labels)
    classes = int(labels.max()) + 1
    x, mirrored = features["f224"], features["f224m"]
    targets = torch.eye(classes, dtype=torch.float64)[labels]

    def examples(inputs_: torch.Tensor, targets_: torch.Tensor = targets) -> Examples:
        own = torch.from_numpy(train)
        ones = torch.ones(int(train.sum()), dtype=torch.float64)
        return Examples(inputs_[own], targets_[own], ones, np.arange(len(ones)) % FOLDS)

    probe = logistic.fit(examples(x), "cross_entropy")
    test = torch.from_numpy(~train)
    outputs = {
        BASELINE: probe.logits(x[test]),
        "test-time mirror": probe.logits(x[test]) / 2 + probe.logits(mirrored[test]) / 2,
        "label smoothing 0.1": logistic.fit(
            examples(x, targets * 0.9 + 0.1 / classes), "cross_entropy"
        ).logits(x[test]),
        "binary cross-entropy": logistic.fit(examples(x), "bce").logits(x[test]),
        "features of length 1": normalized_probe(examples(x), x[test]),
        "ensemble over folds": ensemble(examples(x), x[test], probe.penalty),
        "mixup of features": mixup(examples(x), x[test], probe.penalty),
        "k-nearest neighbors": neighbors(x[train], labels[train], x[test], classes),
        "prototypes": prototypes(x[train], labels[train], x[test], classes),
    }
    if "f288" in features:
        large = features["f288"]
        outputs["288 px"] = logistic.fit(examples(large), "cross_entropy").logits(large[test])
    return [
        {"technique": name} | scores(values.numpy().astype(np.float64), labels[~train])
        for name, values in outputs.items()
    ]


def scores(logits: Floats, labels: Integers) -> dict[str, float]:
    """Return accuracy on all photos, and log loss on the half that fits no temperature."""
    even = np.arange(len(labels)) % 2 == 0
    losses = []
    for own in (even, ~even):
        temperature = calibration.fit_temperature(logits[own], labels[own])
        probabilities = calibration.probabilities(logits[~own], temperature)
        losses.append(point_scores(labels[~own], probabilities)["log_loss"])
    return {
        "accuracy": float((logits.argmax(1) == labels).mean()),
        "log loss": float(np.mean(losses)),
    }


def normalized_probe(examples: Examples, x: torch.Tensor) -> torch.Tensor:
    """Return the logits of a probe on features of length 1."""
    unit = replace(examples, features=nn.functional.normalize(examples.features, dim=1))
    return logistic.fit(unit, "cross_entropy").logits(nn.functional.normalize(x, dim=1))


def ensemble(examples: Examples, x: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the mean log probabilities of probes that each lack one fold of the photos."""
    layers = [
        next(logistic.fit_path(examples.subset(examples.folds != f), "cross_entropy", (penalty,)))
        for f in range(FOLDS)
    ]
    return torch.stack([layer.logits(x).log_softmax(1) for layer in layers]).mean(0)


def mixup(examples: Examples, x: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the logits of a probe on the features and on mixtures of random pairs of them."""
    rng = np.random.default_rng(0)
    count = len(examples.features)
    other, share = rng.permutation(count), torch.from_numpy(rng.beta(0.2, 0.2, (count, 1)))
    features, targets = (
        torch.cat([t.double(), t.double() * share + t.double()[other] * (1 - share)])
        for t in (examples.features, examples.targets)
    )
    doubled = Examples(features, targets, examples.weights.repeat(2), np.tile(examples.folds, 2))
    return next(logistic.fit_path(doubled, "cross_entropy", (penalty,))).logits(x)


def neighbors(train: torch.Tensor, labels: Integers, x: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the log of the smoothed class shares of the nearest training photos, by cosine."""
    similarity = nn.functional.normalize(x) @ nn.functional.normalize(train).T
    nearest = labels[similarity.topk(NEIGHBORS, dim=1).indices.numpy()]
    counts = torch.from_numpy(np.stack([(nearest == k).sum(1) for k in range(classes)], 1))
    return ((counts + 0.5) / (NEIGHBORS + 0.5 * classes)).log()


def prototypes(
    train: torch.Tensor, labels: Integers, x: torch.Tensor, classes: int
) -> torch.Tensor:
    """Return ten times the cosine similarity to the mean of each class."""
    unit = nn.functional.normalize(train)
    means = torch.stack([unit[torch.from_numpy(labels == k)].mean(0) for k in range(classes)])
    return 10 * nn.functional.normalize(x) @ nn.functional.normalize(means).T


def print_table(table: pd.DataFrame) -> None:
    """Print the mean scores, and the differences to the baseline over sets and splits."""
    print("| technique | accuracy | difference | log loss | difference |\n|---|---|---|---|---|")
    wide = table.pivot_table(index=["set", "split"], columns="technique")
    for name in dict.fromkeys(table.technique):
        cells = []
        for score, digits in (("accuracy", 3), ("log loss", 3)):
            own = wide[score][name].dropna()
            difference = own - wide[score][BASELINE][own.index]
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            cells += [f"{own.mean():.{digits}f}", f"{difference.mean():+.{digits}f} ± {error:.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
