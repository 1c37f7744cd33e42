"""How often two equally good models are called different, and how often a better one is seen.

    python -m benchmarks.comparison             # five minutes on one core

Simulates test parts of G persons with 1 to 8 photos each, classes as in the ankle set. Whether a
photo is right depends on the person (some are hard for every model, sd 1 on the logit), on the
person and the model together (sd 0.7), and on chance. At a gain of 0 both models are alike, so each
'better' or 'worse' is a false alarm, of which at most 5 % are wanted.
"""

import argparse

import numpy as np
from tqdm import tqdm

from anklealign.experiments.comparison import Answers, differences

SHARES = (0.41, 0.43, 0.16)
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


def simulate(groups: int, gain: float, generator: np.random.Generator) -> Answers:
    """Draw two models' answers; the second's logit of being right is `gain` higher."""
    classes = len(SHARES)
    sizes = generator.integers(1, 9, groups)
    of_group = np.repeat(np.arange(groups), sizes)
    # The first three persons have a class each: a test part without a class is not accepted.
    kinds = np.concatenate([range(classes), generator.choice(classes, groups - classes, p=SHARES)])
    labels = kinds[of_group].astype(np.int64)
    hard = generator.normal(0, 1, groups)
    answers = []
    for better in (0.0, gain):
        logit = 1.0 + better + (hard + generator.normal(0, 0.7, groups))[of_group]
        right = generator.random(len(labels)) < 1 / (1 + np.exp(-logit))
        wrong = (labels + generator.integers(1, classes, len(labels))) % classes
        said = np.where(right, labels, wrong)
        sure = generator.uniform(0.4, 0.95, len(labels))
        probabilities = np.repeat(((1 - sure) / (classes - 1))[:, None], classes, axis=1)
        probabilities[np.arange(len(labels)), said] = sure
        answers.append(probabilities)
    return Answers(labels, of_group.astype(np.int64), *answers)


def rates(groups: int, gain: float, sets: int, resamples: int = 1000) -> dict[str, float]:
    """Return the share of simulated test parts with a verdict other than noise, by score."""
    generator = np.random.default_rng([groups, round(1000 * gain)])
    called = dict.fromkeys(SCORES, 0)
    for number in range(sets):
        found = differences(simulate(groups, gain, generator), resamples, number)
        for score in SCORES:
            called[score] += found[score].verdict != "within noise"
    return {score: count / sets for score, count in called.items()}


def main() -> int:
    """Print the table; exit status 1 when more than 5 % (and its sampling error) are false."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sets", type=int, default=10000, help="simulated test parts each")
    sets = parser.parse_args().sets
    rows = []
    for groups, gain in tqdm([(g, d) for d in (0.0, 1.0) for g in (10, 15, 20, 60)], disable=None):
        rows.append((groups, gain, rates(groups, gain, sets)))
    print(f"| groups | gain, logit | {' | '.join(s.replace('_', ' ') for s in SCORES)} |")
    print("|---:|---:|" + "---:|" * len(SCORES))
    for groups, gain, found in rows:
        print(f"| {groups} | {gain:g} | {' | '.join(f'{found[s]:.1%}' for s in SCORES)} |")
    most = max(rate for _, gain, found in rows if not gain for rate in found.values())
    limit = 0.05 + 2 * (0.05 * 0.95 / sets) ** 0.5
    print(f"most false alarms {most:.1%} of {sets}; limit 5 %, with sampling error {limit:.1%}")
    return int(most > limit)


if __name__ == "__main__":
    raise SystemExit(main())
