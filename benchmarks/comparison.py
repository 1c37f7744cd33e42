"""Measure the false positive rate and the power of the comparison of two models.

    python -m benchmarks.comparison             # five minutes on one core

Simulates test splits of G groups with 1 to 8 photos each, with the class frequencies of the ankle
set. The probability of a correct prediction depends on the group (SD 1 on the logit, shared by both
models) and on the group and the model (SD 0.7). At a gain of 0 both models are equally good, so
each 'better' or 'worse' is a false positive; the limit is 5 %.
"""

import argparse

import numpy as np
from tqdm import tqdm

from anklealign.experiments.comparison import PairedPredictions, differences

SHARES = (0.41, 0.43, 0.16)
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


def simulate(groups: int, gain: float, generator: np.random.Generator) -> PairedPredictions:
    """Draw the predictions of two models; the second has a logit of accuracy higher by `gain`."""
    classes = len(SHARES)
    sizes = generator.integers(1, 9, groups)
    of_group = np.repeat(np.arange(groups), sizes)
    # The first groups have one class each, so that no class is missing.
    kinds = np.concatenate([range(classes), generator.choice(classes, groups - classes, p=SHARES)])
    labels = kinds[of_group].astype(np.int64)
    difficulty = generator.normal(0, 1, groups)
    predictions = []
    for offset in (0.0, gain):
        logit = 1.0 + offset + (difficulty + generator.normal(0, 0.7, groups))[of_group]
        correct = generator.random(len(labels)) < 1 / (1 + np.exp(-logit))
        wrong = (labels + generator.integers(1, classes, len(labels))) % classes
        predicted = np.where(correct, labels, wrong)
        confidence = generator.uniform(0.4, 0.95, len(labels))
        probabilities = np.repeat(((1 - confidence) / (classes - 1))[:, None], classes, axis=1)
        probabilities[np.arange(len(labels)), predicted] = confidence
        predictions.append(probabilities)
    return PairedPredictions(labels, of_group.astype(np.int64), *predictions)


def rates(groups: int, gain: float, sets: int, resamples: int = 1000) -> dict[str, float]:
    """Return the fraction of simulated test splits with a significant difference, by score."""
    generator = np.random.default_rng([groups, round(1000 * gain)])
    significant = dict.fromkeys(SCORES, 0)
    for number in range(sets):
        results = differences(simulate(groups, gain, generator), resamples, number)
        for score in SCORES:
            significant[score] += results[score].conclusion != "within noise"
    return {score: count / sets for score, count in significant.items()}


def main() -> int:
    """Print the table; the exit status is 1 if the false positive rate exceeds the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sets", type=int, default=10000, help="simulated test splits per row")
    sets = parser.parse_args().sets
    rows = []
    for groups, gain in tqdm([(g, d) for d in (0.0, 1.0) for g in (10, 15, 20, 60)], disable=None):
        rows.append((groups, gain, rates(groups, gain, sets)))
    print(f"| groups | gain, logit | {' | '.join(s.replace('_', ' ') for s in SCORES)} |")
    print("|---:|---:|" + "---:|" * len(SCORES))
    for groups, gain, row in rows:
        print(f"| {groups} | {gain:g} | {' | '.join(f'{row[s]:.1%}' for s in SCORES)} |")
    highest = max(rate for _, gain, row in rows if not gain for rate in row.values())
    limit = 0.05 + 2 * (0.05 * 0.95 / sets) ** 0.5
    print(f"highest false positive rate {highest:.1%} of {sets}; limit {limit:.1%} (5 % + 2 SE)")
    return int(highest > limit)


if __name__ == "__main__":
    raise SystemExit(main())
