"""Measure whether the photos that `anklealign next` chooses are worth more labels than random ones.

    python -m benchmarks.labeling                          # photos of the last prepare
    python -m benchmarks.labeling --project ../my-clone --seeds 20 --steps 5 --count 20

Simulates labeling: a third of the groups is held out for testing, some random photos of the others
are labeled, and in each step the labels of as many more are revealed, chosen by `next`, by
uncertainty alone, or at random. The model is a logistic regression on the features of the general
network (EfficientNet-Lite0, ImageNet), fitted anew after each step. Prints the balanced accuracy by
the number of labels, as means over seeds, the difference of each choice to the random one with its
95% interval over seeds.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from anklealign.annotation import photo_selection
from anklealign.config import paths
from anklealign.io import pixel_store
from anklealign.metrics.scores import point_scores
from anklealign.models import novelty
from anklealign.models.input_config import Floats, Integers

STRENGTH = 1e-2  # C of the linear model
Choose = Callable[[Floats, Floats, list[str], int, np.random.Generator], list[int]]


def by_next(
    features: Floats, probabilities: Floats, names: list[str], count: int, _: np.random.Generator
) -> list[int]:
    """Choose as `anklealign next`."""
    uncertain = photo_selection.uncertainty(probabilities)
    return photo_selection.choose(features, uncertain, names, count)


def by_uncertainty(
    _: Floats, probabilities: Floats, names: list[str], count: int, __: np.random.Generator
) -> list[int]:
    """Choose the most uncertain photos, alike or not."""
    values = photo_selection.uncertainty(probabilities)
    return sorted(range(len(names)), key=lambda n: (-values[n], names[n]))[:count]


def at_random(
    _: Floats, __: Floats, names: list[str], count: int, generator: np.random.Generator
) -> list[int]:
    """Choose at random."""
    chosen: list[int] = generator.permutation(len(names))[:count].tolist()
    return chosen


STRATEGIES: dict[str, Choose] = {
    "next": by_next, "uncertainty": by_uncertainty, "random": at_random,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the learning curves and the differences."""
    parser = argparse.ArgumentParser(description="What the choice of `anklealign next` is worth")
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="with data/prepared")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--start", type=int, default=20, help="photos labeled at first")
    parser.add_argument("--count", type=int, default=20, help="photos labeled in each step")
    options = parser.parse_args(arguments)
    os.chdir(options.project)
    table = pixel_store.read_table(paths.PREPARED / "photos.csv").sort_values("id")
    rows = table.row.to_numpy(np.int64)
    torch.set_num_threads(1)
    features = novelty.describe(pixel_store.open_store(), rows, torch.device("cpu"))
    labels = np.unique(table.label, return_inverse=True)[1].astype(np.int64)
    groups = table.subject.where(table.subject != "", table.id).to_numpy(str)
    curves = {
        name: np.array(
            [
                curve(
                    choose, features.astype(np.float64), labels, groups, seed=seed, options=options
                )
                for seed in tqdm(range(options.seeds), name, disable=None)
            ]
        )
        for name, choose in STRATEGIES.items()
    }
    report(curves, options)


def curve(
    choose: Choose,
    features: Floats,
    labels: Integers,
    groups: np.ndarray[tuple[int], np.dtype[np.str_]],
    *,
    seed: int,
    options: argparse.Namespace,
) -> list[float]:
    """Return the balanced accuracy on held-out groups after each step."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(np.unique(groups))
    held_out = np.isin(groups, shuffled[: len(shuffled) // 3])
    test, pool = np.flatnonzero(held_out), generator.permutation(np.flatnonzero(~held_out))
    # At least one photo of each class is known, as in a project that has a model.
    first = [int(pool[labels[pool] == k][0]) for k in np.unique(labels)]
    known = list(dict.fromkeys([*first, *pool.tolist()]))[: options.start]
    scores = []
    for step in range(options.steps + 1):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000),
        ).fit(features[known], labels[known])
        predicted = model.predict_proba(features[test])
        scores.append(point_scores(labels[test], predicted)["balanced_accuracy"])
        if step < options.steps:
            rest = np.array(sorted(set(pool.tolist()) - set(known)))
            probabilities = model.predict_proba(features[rest])
            names = [f"{n:08}" for n in rest]
            chosen = choose(features[rest], probabilities, names, options.count, generator)
            known += rest[chosen].tolist()
    return scores


def report(curves: dict[str, Floats], options: argparse.Namespace) -> None:
    """Print the table of means and of differences to the random choice."""
    counts = [options.start + step * options.count for step in range(options.steps + 1)]
    print(f"| labels | {' | '.join(curves)} | next - random (95% CI) | uncertainty - random |")
    print("|--:|" + "--:|" * (len(curves) + 2))
    for n, count in enumerate(counts):
        cells = [f"{values[:, n].mean():.3f}" for values in curves.values()]
        for name in ("next", "uncertainty"):
            difference = curves[name][:, n] - curves["random"][:, n]
            half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
            mean = difference.mean()
            cells.append(f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})")
        print(f"| {count} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
