"""How often a 95 % interval over groups holds the true score: several methods, on simulated tests.

    python -m benchmarks.intervals              # twenty minutes to an hour on one core

Simulates test parts of G persons with 1 to 8 photos each and every class, as in the ankle set: the
classes are unequal (41, 43, 16 %), and most photos of a person are of one class. A photo's logits
are its class's strength, plus what all photos of the person share, plus noise. The true scores are
those of 200,000 persons.
"""

import argparse
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats
from tqdm import tqdm

from anklealign.metrics import bootstrap
from anklealign.metrics.scores import Floats, Integers, resample, scores_of

CONFIDENCE = 0.95
NAMES = ("accuracy", "balanced_accuracy", "macro_f1")
IN_USE = "in use"


@dataclass(frozen=True)
class Case:
    """A kind of model and of test part.

    Attributes:
        shares: (K,) of the classes.
        strength: Of the true class's logit; decides how good the model is.
        person: Standard deviation of what a person's photos share, in the logits.
        photo: Of what they do not.
        mixed: Share of photos whose class is drawn anew, not the person's.
    """

    shares: tuple[float, ...]
    strength: float
    person: float
    photo: float
    mixed: float


ANKLE = (0.41, 0.43, 0.16)
CASES = {
    "weak": Case(ANKLE, 0.8, 1.0, 0.8, 0.0),
    "fair": Case(ANKLE, 2.0, 1.0, 0.8, 0.0),
    "good": Case(ANKLE, 3.5, 1.0, 0.8, 0.0),
    "near faultless": Case(ANKLE, 5.0, 1.0, 0.8, 0.0),
    "fair, mixed persons": Case(ANKLE, 2.0, 1.0, 0.8, 0.4),
    "fair, alike photos": Case(ANKLE, 2.3, 1.5, 0.5, 0.0),
    "good, two classes": Case((0.5, 0.5), 2.5, 1.0, 0.8, 0.3),
    "fair, five classes": Case((0.3, 0.25, 0.2, 0.15, 0.1), 2.3, 1.0, 0.8, 0.2),
}


@dataclass(frozen=True)
class Test:
    """Labels (N,), probabilities (N, K) and group numbers (N,)."""

    labels: Integers
    probabilities: Floats
    groups: Integers


def simulate(case: Case, persons: int, generator: np.random.Generator) -> Test:
    """Draw a test part with every class."""
    classes = len(case.shares)
    of_person = np.concatenate(
        [range(classes), generator.choice(classes, persons - classes, p=case.shares)]
    )
    groups = np.repeat(np.arange(persons), generator.integers(1, 9, persons))
    anew = generator.choice(classes, len(groups), p=case.shares)
    labels = np.where(generator.random(len(groups)) < case.mixed, anew, of_person[groups])
    shared = generator.normal(0, case.person, (persons, classes))
    logits = shared[groups] + generator.normal(0, case.photo, (len(groups), classes))
    logits += case.strength * np.eye(classes)[labels]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    return Test(labels.astype(np.int64), chances / chances.sum(1, keepdims=True), groups)


@cache
def truth(case: Case, persons: int = 200_000) -> dict[str, float]:
    """Return every score and gain of so many persons that the rest is 0.001."""
    test = simulate(case, persons, np.random.default_rng(0))
    shares = np.array(case.shares)
    some = bootstrap.scores_with_intervals(
        # Below the least number of groups nothing is resampled.
        test.labels, test.probabilities, ["one"] * len(test.labels), shares,
        resamples=0, confidence=CONFIDENCE, seed=0,
    )  # fmt: skip
    scalars = {name: parts for name, parts in some.items() if parts["value"].ndim == 0}
    values = {name: float(parts["value"]) for name, parts in scalars.items()}
    return values | {f"{name} gain": float(parts["gain"]) for name, parts in scalars.items()}


def in_use(test: Test, shares: Floats, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return every score's and gain's interval as the project gives it."""
    found = bootstrap.scores_with_intervals(
        test.labels, test.probabilities, [f"{g:04}" for g in test.groups], shares,
        resamples=resamples, confidence=CONFIDENCE, seed=seed,
    )  # fmt: skip
    ends = {}
    for name, parts in found.items():
        if parts["value"].ndim == 0:
            ends[name] = (float(parts["ci_low"]), float(parts["ci_high"]))
            ends[f"{name} gain"] = (float(parts["gain_ci_low"]), float(parts["gain_ci_high"]))
    return ends


def tallied(test: Test, shares: Floats) -> Floats:
    """Return each person's confusion counts of the model and of the majority: (G, 2 K K)."""
    classes = len(shares)
    said = [test.probabilities.argmax(1), np.full(len(test.labels), shares.argmax())]
    counts = []
    for predicted in said:
        cells = (test.groups * classes + test.labels) * classes + predicted
        size = (test.groups.max() + 1) * classes * classes
        counts.append(np.bincount(cells, minlength=size).reshape(-1, classes * classes))
    return np.concatenate(counts, axis=1).astype(np.float64)


def named(counts: Floats) -> Floats:
    """Return NAMES and their gains: (..., 2 K K) -> (..., 6)."""
    half = counts.shape[-1] // 2
    side = round(half**0.5)
    model, other = (
        scores_of(some.reshape(*some.shape[:-1], side, side))
        for some in (counts[..., :half], counts[..., half:])
    )
    values = [model[name] for name in NAMES] + [model[name] - other[name] for name in NAMES]
    return np.stack(values, -1)


def plain(
    test: Test, shares: Floats, resamples: int, generator: np.random.Generator
) -> dict[str, tuple[Floats, Floats]]:
    """Return the textbook intervals of NAMES and their gains, by method: (6,) lows, (6,) highs.

    Davison and Hinkley, Bootstrap Methods and their Application (1997), chapter 5, whole groups
    for observations.
    """
    by_group = tallied(test, shares)
    groups = len(by_group)
    draws = resample(groups, resamples, generator)
    drawn, value = named(draws @ by_group), named(by_group.sum(0))
    tails = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = np.quantile(drawn, tails, axis=0)
    ends = {"percentile": (low, high)}

    left_out = named(by_group.sum(0) - by_group)
    pull = left_out.mean(0) - left_out
    skew = (pull**3).sum(0) / (6 * np.maximum((pull**2).sum(0), 1e-12) ** 1.5)
    below = ((drawn < value).mean(0) + (drawn == value).mean(0) / 2).clip(0.001, 0.999)
    bias = stats.norm.ppf(below)
    z = bias + stats.norm.ppf(tails)[:, None]
    levels = stats.norm.cdf(bias + z / (1 - skew * z))
    columns = range(len(value))
    bca = np.array([np.quantile(drawn[:, k], levels[:, k]) for k in columns])
    ends["BCa"] = (bca[:, 0], bca[:, 1])

    error = standard_errors(by_group, np.ones((1, groups)))[0]
    errors = standard_errors(by_group, draws)
    steps = np.divide(drawn - value, errors, out=np.zeros_like(drawn), where=errors > 1e-9)
    few, many = np.quantile(steps, tails, axis=0)
    ends["studentised"] = (value - many * error, value - few * error)
    return ends


def standard_errors(by_group: Floats, draws: Floats | Integers) -> Floats:
    """Return NAMES' linearised standard errors over groups: (G, 2 K K), (B, G) -> (B, 6)."""
    total = draws @ by_group
    step = 1e-4 * by_group.sum() / 2
    here = named(total)
    slopes = [(named(total + cell) - here) / step for cell in np.eye(by_group.shape[1]) * step]
    influence = np.stack(slopes, -1) @ by_group.T
    groups = len(by_group)
    errors: Floats = np.sqrt(groups / (groups - 1) * (influence**2 * draws[:, None, :]).sum(-1))
    return errors


def coverage(
    case: Case, persons: int, tests: int, resamples: int, *, textbook: bool
) -> dict[str, dict[str, float]]:
    """Return method to score to the share of simulated tests whose interval holds the truth."""
    generator = np.random.default_rng([persons, tests])
    shares, true = np.array(case.shares), truth(case)
    held: dict[str, dict[str, int]] = {}
    keys = [*NAMES, *(f"{name} gain" for name in NAMES)]
    for seed in range(tests):
        test = simulate(case, persons, generator)
        ends = {IN_USE: in_use(test, shares, resamples, seed)}
        if textbook:
            for method, both in plain(test, shares, resamples, generator).items():
                pairs = zip(*(some.tolist() for some in both), strict=True)
                ends[method] = dict(zip(keys, pairs, strict=True))
        for method, found in ends.items():
            counts = held.setdefault(method, {})
            for name, (low, high) in found.items():
                counts[name] = counts.get(name, 0) + (low - 1e-9 <= true[name] <= high + 1e-9)
    return {m: {name: n / tests for name, n in counts.items()} for m, counts in held.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tests", type=int, default=1000, help="simulated test parts a case")
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    bootstrap.LEAST_GROUPS = 2  # fewer groups are measured too
    found = {
        (groups, name): coverage(
            case, groups, options.tests, options.resamples, textbook=groups in (20, 60)
        )
        for groups, (name, case) in tqdm(
            [(g, item) for g in (5, 8, 10, 15, 20, 60, 200) for item in CASES.items()], disable=None
        )
    }
    keys = [*NAMES, *(f"{name} gain" for name in NAMES)]
    print(f"lowest and highest coverage in {len(CASES)} cases, %")
    print(f"| groups | method | {' | '.join(keys)} |\n|---:|---|{'---|' * len(keys)}")
    for groups in sorted({groups for groups, _ in found}):
        for method in found[groups, "fair"]:
            cells = [span([found[groups, c][method][key] for c in CASES]) for key in keys]
            print(f"| {groups} | {method} | {' | '.join(cells)} |")
    others = [key for key in found[20, "fair"][IN_USE] if key not in keys and "gain" not in key]
    print("\nthe other scores, in use")
    print(f"| groups | {' | '.join(others)} |\n|---:|{'---|' * len(others)}")
    for groups in (10, 20, 60):
        cells = [span([found[groups, c][IN_USE][key] for c in CASES]) for key in others]
        print(f"| {groups} | {' | '.join(cells)} |")
    for groups in (20, 60):
        print(
            f"\n{groups} groups, in use\n| case | {' | '.join(keys)} |\n|---|{'---|' * len(keys)}"
        )
        for name, case in CASES.items():
            cells = [
                f"{found[groups, name][IN_USE][key]:.1%} of {truth(case)[key]:.2f}" for key in keys
            ]
            print(f"| {name} | {' | '.join(cells)} |")


def span(shares: list[float]) -> str:
    """Return the lowest and highest share in per cent."""
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f}"


if __name__ == "__main__":
    main()
