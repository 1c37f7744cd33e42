"""Whether one model is better than another, or whether the difference is noise.

    python -m anklealign.experiments.comparison main workspace
    python -m anklealign.experiments.comparison main my-experiment --score accuracy

Reads plots/evaluate/predictions.csv of two revisions (git revisions, experiments' names, or
'workspace') through DVC. Both must have predicted the same test photos with the same labels.
Exit status 0 when compared, whatever came out; 2 when the two cannot be compared.

Shapes: N photos, K classes, G groups, B resamples.

Photos of one person are not independent, so whole groups are resampled (paired: both models on the
same groups), and the verdict asks two things of the chosen score. The interval of the difference
must leave 0 out; and when the two models' answers are exchanged at random group by group, a
difference as large must come up in at most 5 % of the exchanges. The second is an exact test
(Pitman 1937; Good, Permutation, Parametric and Bootstrap Tests of Hypotheses (2005), chapter 3)
and keeps false alarms below 5 % with any number of groups, which the interval with few does not.
McNemar's exact test is printed beside: it takes photos as independent.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from anklealign.experiments.revisions import Revision
from anklealign.metrics.scores import (
    OVERALL,
    Floats,
    Integers,
    log_losses,
    resample,
    scores_of,
)
from anklealign.splitting.stratified_groups import join

PREDICTIONS = "plots/evaluate/predictions.csv"
LESS_IS_BETTER = ("log_loss",)
CONFIDENCE = 0.95
RESAMPLES = 5000
SHOWN = 5


@dataclass(frozen=True)
class Answers:
    """Two models' answers to the same photos.

    Attributes:
        labels: (N,) class indices.
        groups: (N,) group numbers from 0.
        first: (N, K) probabilities of the one model.
        second: (N, K) of the other.
    """

    labels: Integers
    groups: Integers
    first: Floats
    second: Floats


@dataclass(frozen=True)
class Difference:
    """The second model's score less the first's.

    Attributes:
        first: The first model's score.
        second: The second's.
        low: Lower end of the difference's 95 % interval over groups.
        high: Upper end.
        chance: Share of the exchanges of the models, group by group, with a difference as large.
    """

    score: str
    first: float
    second: float
    low: float
    high: float
    chance: float

    @property
    def value(self) -> float:
        """Return the difference."""
        return self.second - self.first

    @property
    def verdict(self) -> str:
        """Return 'better', 'worse' (the second than the first) or 'within noise'."""
        if self.low <= 0 <= self.high or self.chance > 1 - CONFIDENCE:
            return "within noise"
        return "better" if (self.value > 0) != (self.score in LESS_IS_BETTER) else "worse"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the predictions of two revisions and print what is known."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.experiments.comparison",
        description=(__doc__ or "").split("\n", 1)[0],
    )
    parser.add_argument("first", help="git revision, experiment or 'workspace'")
    parser.add_argument("second", help="the same; the one that may be better or worse")
    parser.add_argument("--score", choices=OVERALL, default="balanced_accuracy")
    chosen = parser.parse_args(arguments)
    try:
        names = (chosen.first, chosen.second)
        first, second = (Revision.open(name).table(PREDICTIONS) for name in names)
        answers = pair(first, second, names)
    except ValueError as error:
        print(f"comparison: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(answers, chosen.first, chosen.second, chosen.score)))
    return 0


def classes_of(table: pd.DataFrame) -> list[str]:
    """Return the classes of a predictions table in the order of its columns."""
    return [name.removeprefix("p_") for name in table.columns if name.startswith("p_")]


def pair(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> Answers:
    """Return two predictions tables' answers, photo by photo.

    Where the two group photos differently, groups that touch are joined.

    Raises:
        ValueError: Other photos, other bytes, other labels or other classes; it says which.
    """
    classes = classes_of(first)
    if set(classes) != set(classes_of(second)):
        raise ValueError(
            f"{names[0]} knows the classes {', '.join(classes)}, {names[1]} "
            f"{', '.join(classes_of(second))}; only models of the same classes can be compared"
        )
    paths = [dict(zip(table.id, table.path, strict=True)) for table in (first, second)]
    for k, name in enumerate(names):
        alone = sorted(paths[k][photo] for photo in set(paths[k]) - set(paths[1 - k]))
        if alone:
            raise ValueError(
                f"the test sets differ: {len(alone)} of the {len(paths[k])} test photos of {name} "
                f"are not {names[1 - k]}'s, such as {', '.join(alone[:SHOWN])}; compare runs with "
                "the same dataset, clean, split and seed, or rerun one with the other's"
            )
    one, other = (table.set_index("id").sort_index() for table in (first, second))
    changed = one.index[one.actual != other.actual]
    if len(changed):
        told = ", ".join(
            f"{one.path[photo]} ({one.actual[photo]}, now {other.actual[photo]})"
            for photo in changed[:SHOWN]
        )
        raise ValueError(
            f"the test sets differ: {len(changed)} photos have another label in {names[1]} than in "
            f"{names[0]}, such as {told}; rerun {names[0]} on the new labels"
        )
    for table, name in ((one, names[0]), (other, names[1])):
        if "sha256" not in table:
            raise ValueError(
                f"{PREDICTIONS} of {name} has no column sha256, so that nobody knows whether the "
                f"photos are the same; run evaluate again there: `dvc repro evaluate`"
            )
    replaced = one.index[one.sha256 != other.sha256]
    if len(replaced):
        raise ValueError(
            f"the test sets differ: {len(replaced)} of {len(one)} photos are other pictures in "
            f"{names[1]} than in {names[0]}, such as {', '.join(one.path[replaced[:SHOWN]])}; "
            f"rerun {names[0]} on the new photos"
        )
    links = [
        (photo, f"{k}:{group}")
        for k, table in enumerate((one, other))
        for photo, group in zip(table.index, table.group, strict=True)
    ]
    joined = join(list(one.index), links)
    columns = [f"p_{name}" for name in classes]
    return Answers(
        labels=one.actual.map(classes.index).to_numpy(np.int64),
        groups=pd.factorize(one.index.map(joined), sort=True)[0].astype(np.int64),
        first=one[columns].to_numpy(np.float64),
        second=other[columns].to_numpy(np.float64),
    )


def differences(
    answers: Answers, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """Return each overall score's difference, over B resamples and as many exchanges."""
    generator = np.random.default_rng(seed)
    tallies = [_tally(answers, some) for some in (answers.first, answers.second)]
    count = len(tallies[0])
    draws = resample(count, resamples, generator).astype(np.float64)
    exchanged = generator.random((resamples, count)) < 0.5

    one, other = (_scores(tally.sum(0)) for tally in tallies)
    drawn = [_scores(draws @ tally) for tally in tallies]
    step = tallies[1] - tallies[0]
    swapped = (
        _scores(tallies[0].sum(0) + exchanged @ step),
        _scores(tallies[1].sum(0) - exchanged @ step),
    )
    tail = (1 - CONFIDENCE) / 2
    found = {}
    for name in OVERALL:
        low, high = np.quantile(drawn[1][name] - drawn[0][name], [tail, 1 - tail])
        value = float(other[name] - one[name])
        # The tolerance takes sums of the same numbers in another order as equal.
        as_large = np.abs(swapped[1][name] - swapped[0][name]) >= abs(value) - 1e-12
        # The true order is one of the exchanges (Phipson and Smyth 2010).
        chance = (1 + int(as_large.sum())) / (1 + resamples)
        found[name] = Difference(
            name, float(one[name]), float(other[name]), float(low), float(high), chance
        )
    return found


def _tally(answers: Answers, probabilities: Floats) -> Floats:
    """Return what each group adds: (G, K * K + 2): confusion counts, log losses, photos."""
    classes = probabilities.shape[1]
    groups = int(answers.groups.max()) + 1
    cells = (answers.groups * classes + answers.labels) * classes + probabilities.argmax(1)
    counts = np.bincount(cells, minlength=groups * classes**2).reshape(groups, -1)
    losses = np.bincount(answers.groups, weights=log_losses(answers.labels, probabilities))
    return np.column_stack([counts, losses, np.bincount(answers.groups)])


def _scores(tally: Floats) -> dict[str, Floats]:
    """Return the overall scores of summed tallies: (..., K * K + 2) -> name to (...)."""
    classes = round((tally.shape[-1] - 2) ** 0.5)
    confusions = tally[..., :-2].reshape(*tally.shape[:-1], classes, classes)
    found = scores_of(confusions)
    found["log_loss"] = tally[..., -2] / tally[..., -1]
    return {name: found[name] for name in OVERALL}


def mcnemar(answers: Answers) -> tuple[int, int, float]:
    """Return how many photos only the first had right, only the second, and p (McNemar 1947)."""
    right = [some.argmax(1) == answers.labels for some in (answers.first, answers.second)]
    lost, won = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return lost, won, float(binomtest(won, lost + won).pvalue) if lost + won else 1.0


def report(answers: Answers, first: str, second: str, score: str) -> list[str]:
    """Return the comparison in words and as a table, as lines."""
    found = differences(answers)
    chosen = found[score]
    lost, won, p = mcnemar(answers)
    name = score.replace("_", " ")
    both = ""
    if chosen.verdict == "within noise" and not chosen.low <= 0 <= chosen.high:
        both = "; the interval alone leaves 0 out, but of so few persons it does so too often"
    lines = [
        f"{second} is {chosen.verdict} than {first}"
        if chosen.verdict != "within noise"
        else f"the difference between {second} and {first} is within noise",
        (
            f"{name} {chosen.value:+.3f}, 95 % interval {chosen.low:+.3f} to {chosen.high:+.3f}, "
            f"by chance in {chosen.chance:.1%} of exchanges{both}"
        ),
        "",
        f"{len(answers.labels)} test photos of {int(answers.groups.max()) + 1} groups",
        f"{'score':<20}{first[:12]:>14}{second[:12]:>14}   difference, 95 % interval",
    ]
    lines += [
        f"{d.score.replace('_', ' '):<20}{d.first:>14.3f}{d.second:>14.3f}   "
        f"{d.value:+.3f}, {d.low:+.3f} to {d.high:+.3f}"
        for d in found.values()
    ]
    lines += [
        "",
        (
            f"right only in {first}: {lost} photos, only in {second}: {won}; McNemar's exact p "
            f"{p:.3f}, which takes photos as independent"
        ),
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
