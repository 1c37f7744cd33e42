"""Measure the coverage of several 95% CIs over groups on simulated test splits.

    python -m benchmarks.intervals              # 20 to 60 minutes on one core

Simulates test splits of G groups with 1 to 8 photos each and every class, as in the ankle set: the
classes are imbalanced (41, 43, 16 %), and most photos of a group have the same class. The logits of
a photo are the sum of the class signal, an effect shared by the group and noise. The true scores
are those of 200,000 groups.
"""

import argparse
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats
from tqdm import tqdm

from anklealign.metrics import bootstrap
from anklealign.metrics.scores import Floats, Integers, confusion_scores, resample

CONFIDENCE = 0.95
NAMES = ("accuracy", "balanced_accuracy", "macro_f1")
IN_USE = "in use"  # the method of anklealign.metrics.bootstrap


@dataclass(frozen=True)
class Case:
    """A simulated model and test split.

    Attributes:
        shares: (K,) class frequencies.
        strength: Logit of the true class; sets the quality of the model.
        group_sd: Standard deviation of the logits between groups.
        photo_sd: Standard deviation of the logits between photos of a group.
        mixed: Fraction of photos whose class is drawn independently of the group's class.
    """

    shares: tuple[float, ...]
    strength: float
    group_sd: float
    photo_sd: float
    mixed: float


ANKLE = (0.41, 0.43, 0.16)
CASES = {
    "weak": Case(ANKLE, 0.8, 1.0, 0.8, 0.0),
    "fair": Case(ANKLE, 2.0, 1.0, 0.8, 0.0),
    "good": Case(ANKLE, 3.5, 1.0, 0.8, 0.0),
    "near perfect": Case(ANKLE, 5.0, 1.0, 0.8, 0.0),
    "fair, mixed groups": Case(ANKLE, 2.0, 1.0, 0.8, 0.4),
    "fair, similar photos": Case(ANKLE, 2.3, 1.5, 0.5, 0.0),
    "good, two classes": Case((0.5, 0.5), 2.5, 1.0, 0.8, 0.3),
    "fair, five classes": Case((0.3, 0.25, 0.2, 0.15, 0.1), 2.3, 1.0, 0.8, 0.2),
}


@dataclass(frozen=True)
class Test:
    """Labels (N,), probabilities (N, K) and group numbers (N,)."""

    labels: Integers
    probabilities: Floats
    groups: Integers


def simulate(case: Case, count: int, generator: np.random.Generator) -> Test:
    """Draw a test split of `count` groups with every class."""
    classes = len(case.shares)
    group_class = np.concatenate(
        [range(classes), generator.choice(classes, count - classes, p=case.shares)]
    )
    groups = np.repeat(np.arange(count), generator.integers(1, 9, count))
    independent = generator.choice(classes, len(groups), p=case.shares)
    mixed = generator.random(len(groups)) < case.mixed
    labels = np.where(mixed, independent, group_class[groups])
    shared = generator.normal(0, case.group_sd, (count, classes))
    logits = shared[groups] + generator.normal(0, case.photo_sd, (len(groups), classes))
    logits += case.strength * np.eye(classes)[labels]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return Test(labels.astype(np.int64), odds / odds.sum(1, keepdims=True), groups)


@cache
def true_scores(case: Case, groups: int = 200_000) -> dict[str, float]:
    """Return every score and gain of a test split large enough for an error of 0.001."""
    test = simulate(case, groups, np.random.default_rng(0))
    shares = np.array(case.shares)
    estimates = bootstrap.scores_with_ci(
        # A single group is below MIN_GROUPS, so nothing is resampled.
        test.labels, test.probabilities, ["one"] * len(test.labels), shares,
        resamples=0, confidence=CONFIDENCE, seed=0,
    )  # fmt: skip
    scalars = {name: e for name, e in estimates.items() if e["value"].ndim == 0}
    values = {name: float(e["value"]) for name, e in scalars.items()}
    return values | {f"{name} gain": float(e["gain"]) for name, e in scalars.items()}


def in_use(test: Test, shares: Floats, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return the CI of every score and gain by `anklealign.metrics.bootstrap`."""
    estimates = bootstrap.scores_with_ci(
        test.labels, test.probabilities, [f"{g:04}" for g in test.groups], shares,
        resamples=resamples, confidence=CONFIDENCE, seed=seed,
    )  # fmt: skip
    ends = {}
    for name, estimate in estimates.items():
        if estimate["value"].ndim == 0:
            ends[name] = (float(estimate["ci_low"]), float(estimate["ci_high"]))
            gain = float(estimate["gain_ci_low"]), float(estimate["gain_ci_high"])
            ends[f"{name} gain"] = gain
    return ends


def group_confusions(test: Test, shares: Floats) -> Floats:
    """Return the confusion counts of model and majority baseline by group: (G, 2 K K)."""
    classes = len(shares)
    predictions = [test.probabilities.argmax(1), np.full(len(test.labels), shares.argmax())]
    counts = []
    for predicted in predictions:
        cells = (test.groups * classes + test.labels) * classes + predicted
        size = (test.groups.max() + 1) * classes * classes
        counts.append(np.bincount(cells, minlength=size).reshape(-1, classes * classes))
    return np.concatenate(counts, axis=1).astype(np.float64)


def scores_and_gains(counts: Floats) -> Floats:
    """Return the scores of NAMES and their gains: (..., 2 K K) -> (..., 6)."""
    half = counts.shape[-1] // 2
    side = round(half**0.5)
    model, majority = (
        confusion_scores(cells.reshape(*cells.shape[:-1], side, side))
        for cells in (counts[..., :half], counts[..., half:])
    )
    values = [model[name] for name in NAMES] + [model[name] - majority[name] for name in NAMES]
    return np.stack(values, -1)


def textbook_intervals(
    test: Test, shares: Floats, resamples: int, generator: np.random.Generator
) -> dict[str, tuple[Floats, Floats]]:
    """Return the textbook CIs of NAMES and their gains by method: lower ends (6,), upper ends (6,).

    Davison and Hinkley, Bootstrap Methods and their Application (1997), chapter 5, with groups as
    the observations.
    """
    by_group = group_confusions(test, shares)
    groups = len(by_group)
    draws = resample(groups, resamples, generator)
    drawn, value = scores_and_gains(draws @ by_group), scores_and_gains(by_group.sum(0))
    tails = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = np.quantile(drawn, tails, axis=0)
    ends = {"percentile": (low, high)}

    jackknife = scores_and_gains(by_group.sum(0) - by_group)
    influence = jackknife.mean(0) - jackknife
    acceleration = (influence**3).sum(0) / (6 * np.maximum((influence**2).sum(0), 1e-12) ** 1.5)
    below = ((drawn < value).mean(0) + (drawn == value).mean(0) / 2).clip(0.001, 0.999)
    bias = stats.norm.ppf(below)
    z = bias + stats.norm.ppf(tails)[:, None]
    levels = stats.norm.cdf(bias + z / (1 - acceleration * z))
    columns = range(len(value))
    bca = np.array([np.quantile(drawn[:, k], levels[:, k]) for k in columns])
    ends["BCa"] = (bca[:, 0], bca[:, 1])

    error = standard_errors(by_group, np.ones((1, groups)))[0]
    errors = standard_errors(by_group, draws)
    steps = np.divide(drawn - value, errors, out=np.zeros_like(drawn), where=errors > 1e-9)
    lower, upper = np.quantile(steps, tails, axis=0)
    ends["studentized"] = (value - upper * error, value - lower * error)
    return ends


def standard_errors(by_group: Floats, draws: Floats | Integers) -> Floats:
    """Return the linearized standard errors over groups: (G, 2 K K), (B, G) -> (B, 6)."""
    total = draws @ by_group
    step = 1e-4 * by_group.sum() / 2
    value = scores_and_gains(total)
    slopes = [
        (scores_and_gains(total + cell) - value) / step for cell in np.eye(by_group.shape[1]) * step
    ]
    influence = np.stack(slopes, -1) @ by_group.T
    groups = len(by_group)
    errors: Floats = np.sqrt(groups / (groups - 1) * (influence**2 * draws[:, None, :]).sum(-1))
    return errors


def coverage(
    case: Case, groups: int, tests: int, resamples: int, *, textbook: bool
) -> dict[str, dict[str, float]]:
    """Return the fraction of CIs that cover the true value, by method and score."""
    generator = np.random.default_rng([groups, tests])
    shares, true = np.array(case.shares), true_scores(case)
    covered: dict[str, dict[str, int]] = {}
    keys = [*NAMES, *(f"{name} gain" for name in NAMES)]
    for seed in range(tests):
        test = simulate(case, groups, generator)
        ends = {IN_USE: in_use(test, shares, resamples, seed)}
        if textbook:
            for method, bounds in textbook_intervals(test, shares, resamples, generator).items():
                pairs = zip(*(values.tolist() for values in bounds), strict=True)
                ends[method] = dict(zip(keys, pairs, strict=True))
        for method, intervals in ends.items():
            counts = covered.setdefault(method, {})
            for name, (low, high) in intervals.items():
                counts[name] = counts.get(name, 0) + (low - 1e-9 <= true[name] <= high + 1e-9)
    return {m: {name: n / tests for name, n in counts.items()} for m, counts in covered.items()}


def main() -> None:
    """Measure all cases and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tests", type=int, default=1000, help="simulated test splits per case")
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    bootstrap.MIN_GROUPS = 2  # also measure fewer groups than the library accepts
    results = {
        (groups, name): coverage(
            case, groups, options.tests, options.resamples, textbook=groups in (20, 60)
        )
        for groups, (name, case) in tqdm(
            [(g, item) for g in (5, 8, 10, 15, 20, 60, 200) for item in CASES.items()], disable=None
        )
    }
    print_coverage(results)
    print_cases(results)


Results = dict[tuple[int, str], dict[str, dict[str, float]]]  # groups, case to method to score


def print_coverage(results: Results) -> None:
    """Print the lowest and highest coverage over the cases, by groups, method and score."""
    keys = [*NAMES, *(f"{name} gain" for name in NAMES)]
    print(f"lowest and highest coverage in {len(CASES)} cases, %")
    print(f"| groups | method | {' | '.join(keys)} |\n|---:|---|{'---|' * len(keys)}")
    for groups in sorted({groups for groups, _ in results}):
        for method in results[groups, "fair"]:
            cells = [span([results[groups, c][method][key] for c in CASES]) for key in keys]
            print(f"| {groups} | {method} | {' | '.join(cells)} |")
    others = [key for key in results[20, "fair"][IN_USE] if key not in keys and "gain" not in key]
    print("\nother scores, method in use")
    print(f"| groups | {' | '.join(others)} |\n|---:|{'---|' * len(others)}")
    for groups in (10, 20, 60):
        cells = [span([results[groups, c][IN_USE][key] for c in CASES]) for key in others]
        print(f"| {groups} | {' | '.join(cells)} |")


def print_cases(results: Results) -> None:
    """Print the coverage of the method in use and the true value of each case, for 20 and 60."""
    keys = [*NAMES, *(f"{name} gain" for name in NAMES)]
    head = f"| case | {' | '.join(keys)} |\n|---|{'---|' * len(keys)}"
    for groups in (20, 60):
        print(f"\n{groups} groups, method in use\n{head}")
        for name, case in CASES.items():
            measured, true = results[groups, name][IN_USE], true_scores(case)
            cells = [f"{measured[key]:.1%} of {true[key]:.2f}" for key in keys]
            print(f"| {name} | {' | '.join(cells)} |")


def span(shares: list[float]) -> str:
    """Return the lowest and highest fraction in percent."""
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f}"


if __name__ == "__main__":
    main()
