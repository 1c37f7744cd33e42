"""Compare the predictions of two models and test whether the difference is within noise.

    anklealign diff main workspace
    anklealign diff main my-experiment --score accuracy

Reads plots/evaluate/predictions.csv of two revisions (git revisions, experiment names or
'workspace') through DVC. Both revisions must have the same test photos with the same labels. The
exit status is 0 if the comparison was made, whatever its result, and 2 if the revisions cannot be
compared.

Shapes: N photos, K classes, G groups, B resamples.

Photos of one group are not independent, so whole groups are resampled (paired: both models on the
same groups). A difference counts as significant if two conditions hold for the chosen score: the
95% CI of the difference excludes 0, and when the predictions of the two models are swapped at
random group by group, at most 5 % of the permutations have a difference as large. The second is an
exact permutation test (Pitman 1937; Good, Permutation, Parametric and Bootstrap Tests of Hypotheses
(2005), chapter 3). It keeps the false positive rate below 5 % for any number of groups, which the
CI does not when groups are few. McNemar's exact test, which treats photos as independent, is
printed for reference.
"""

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import binomtest

from anklealign.config import paths
from anklealign.experiments.revisions import Revision
from anklealign.metrics.scores import (
    LOWER_IS_BETTER,
    OVERALL,
    Floats,
    Integers,
    Margins,
    log_losses,
    margin_scores,
    resample,
)
from anklealign.splitting.stratified_groups import connected_groups

PREDICTIONS = paths.PREDICTIONS.as_posix()
CONFIDENCE = 0.95
RESAMPLES = 5000
SHOWN = 5


@dataclass(frozen=True)
class PairedPredictions:
    """Predictions of two models on the same photos.

    Attributes:
        labels: (N,) class indices.
        groups: (N,) group numbers from 0.
        first: (N, K) probabilities of the first model.
        second: (N, K) probabilities of the second model.
    """

    labels: Integers
    groups: Integers
    first: Floats
    second: Floats


@dataclass(frozen=True)
class Difference:
    """Difference of a score between two models: second minus first.

    Attributes:
        score: Name of the score.
        first: Score of the first model.
        second: Score of the second model.
        low: Lower end of the 95% CI of the difference, over groups.
        high: Upper end.
        p_value: Fraction of the permutations with a difference as large.
    """

    score: str
    first: float
    second: float
    low: float
    high: float
    p_value: float

    @property
    def value(self) -> float:
        """Return second minus first."""
        return self.second - self.first

    @property
    def conclusion(self) -> str:
        """Return 'better' or 'worse' for the second model, or 'within noise'."""
        if self.low <= 0 <= self.high or self.p_value > 1 - CONFIDENCE:
            return "within noise"
        return "better" if (self.value > 0) != (self.score in LOWER_IS_BETTER) else "worse"


def print_comparison(first: str, second: str, score: str) -> int:
    """Print the comparison of two revisions; return the exit status, 2 if they do not compare."""
    names = (first, second)
    try:
        tables = [Revision.open(name).table(PREDICTIONS) for name in names]
        predictions = pair(tables[0], tables[1], names)
    except ValueError as error:
        print(f"diff: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(predictions, first, second, score)))
    return 0


def classes_of(table: pd.DataFrame) -> list[str]:
    """Return the classes of a predictions table in column order."""
    return [name.removeprefix("p_") for name in table.columns if name.startswith("p_")]


def pair(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> PairedPredictions:
    """Match two tables of predictions photo by photo.

    Where the tables group photos differently, overlapping groups are merged.

    Raises:
        ValueError: The tables differ in photos, their bytes, labels or classes.
    """
    _check_classes_and_photos(first, second, names)
    first, second = (table.set_index("id").sort_index() for table in (first, second))
    _check_labels_and_bytes(first, second, names)
    links = [
        (photo, f"{k}:{group}")
        for k, table in enumerate((first, second))
        for photo, group in zip(table.index, table.group, strict=True)
    ]
    merged = connected_groups(list(first.index), links)
    classes = classes_of(first)
    columns = [f"p_{name}" for name in classes]
    return PairedPredictions(
        labels=first.actual.map(classes.index).to_numpy(np.int64),
        groups=pd.factorize(first.index.map(merged), sort=True)[0].astype(np.int64),
        first=first[columns].to_numpy(np.float64),
        second=second[columns].to_numpy(np.float64),
    )


def _check_classes_and_photos(
    first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]
) -> None:
    classes = classes_of(first)
    if set(classes) != set(classes_of(second)):
        raise ValueError(
            f"{names[0]} has the classes {', '.join(classes)}, {names[1]} has "
            f"{', '.join(classes_of(second))}; only models with the same classes can be compared"
        )
    paths = [dict(zip(table.id, table.path, strict=True)) for table in (first, second)]
    for k, name in enumerate(names):
        missing = sorted(paths[k][photo] for photo in set(paths[k]) - set(paths[1 - k]))
        if missing:
            raise ValueError(
                f"the test splits differ: {len(missing)} of the {len(paths[k])} test photos of "
                f"{name} are not in {names[1 - k]}, such as {', '.join(missing[:SHOWN])}; compare "
                "runs with the same dataset, clean, split and seed"
            )


def _check_labels_and_bytes(
    first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]
) -> None:
    relabeled = first.index[first.actual != second.actual]
    if len(relabeled):
        examples = ", ".join(
            f"{first.path[photo]} ({first.actual[photo]}, now {second.actual[photo]})"
            for photo in relabeled[:SHOWN]
        )
        raise ValueError(
            f"the test splits differ: {len(relabeled)} photos have different labels in {names[1]} "
            f"and {names[0]}, such as {examples}; rerun {names[0]} with the new labels"
        )
    for table, name in zip((first, second), names, strict=True):
        if "sha256" not in table:
            raise ValueError(
                f"{PREDICTIONS} of {name} has no column sha256, which shows whether the photos are "
                "the same; run `dvc repro evaluate` there"
            )
    replaced = first.index[first.sha256 != second.sha256]
    if len(replaced):
        raise ValueError(
            f"the test splits differ: {len(replaced)} of {len(first)} photos have different "
            f"content in {names[1]} and {names[0]}, such as "
            f"{', '.join(first.path[replaced[:SHOWN]])}; rerun {names[0]} with the new photos"
        )


def differences(
    predictions: PairedPredictions, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """Return the difference of each overall score from B resamples and B permutations."""
    generator = np.random.default_rng(seed)
    tallies = [_tally(predictions, p) for p in (predictions.first, predictions.second)]
    count = len(tallies[0].numbers)
    draws = resample(count, resamples, generator).astype(np.float64)
    swapped = generator.random((resamples, count)) < 0.5

    first, second = (tally.scores(np.ones(count)) for tally in tallies)
    drawn = [tally.scores(draws) for tally in tallies]
    permuted = [
        tally.scores(1.0 - swapped.astype(np.float64), other, swapped.astype(np.float64))
        for tally, other in (tallies, tallies[::-1])
    ]
    tail = (1 - CONFIDENCE) / 2
    results = {}
    for name in OVERALL:
        low, high = np.quantile(drawn[1][name] - drawn[0][name], [tail, 1 - tail])
        value = float(second[name] - first[name])
        # The tolerance absorbs rounding differences between sums in different order.
        as_large = np.abs(permuted[1][name] - permuted[0][name]) >= abs(value) - 1e-12
        # The observed assignment counts as a permutation (Phipson and Smyth 2010).
        p_value = (1 + int(as_large.sum())) / (1 + resamples)
        results[name] = Difference(
            name, float(first[name]), float(second[name]), float(low), float(high), p_value
        )
    return results


@dataclass(frozen=True)
class _Tally:
    """Sums of each group, from which the scores of any weighted groups follow.

    All are integers but the log loss, so sums do not depend on the order of the groups.

    Attributes:
        margins: (G, 3 K) photos by right class, by actual class and by predicted class; sparse, as
            a group holds few of the classes.
        numbers: (G, 3) squared steps, log loss and photos.
    """

    margins: sparse.csr_array
    numbers: Floats

    def scores(
        self, weights: Floats, other: "_Tally | None" = None, other_weights: Floats | None = None
    ) -> dict[str, Floats]:
        """Return the overall scores of weighted groups, (..., G) -> name to (...).

        Args:
            weights: How often each group counts.
            other: Tally of another model whose groups are added.
            other_weights: Weights of its groups, of the same shape.
        """
        margins, numbers = weights @ self.margins, weights @ self.numbers
        if other is not None and other_weights is not None:
            margins = margins + other_weights @ other.margins
            numbers = numbers + other_weights @ other.numbers
        right, support, guesses = np.split(margins, 3, axis=-1)
        far = np.zeros_like(numbers[..., 0])  # no score of OVERALL needs it
        scores = margin_scores(Margins(right, support, guesses, numbers[..., 0], far))
        scores["log_loss"] = numbers[..., 1] / numbers[..., 2]
        return {name: scores[name] for name in OVERALL}


def _tally(predictions: PairedPredictions, probabilities: Floats) -> _Tally:
    """Return the sums of each group for the predictions of one model, (N, K)."""
    labels, groups = predictions.labels, predictions.groups
    classes = probabilities.shape[1]
    count = int(groups.max()) + 1
    predicted = probabilities.argmax(1)
    right = predicted == labels
    columns = np.concatenate([labels[right], classes + labels, 2 * classes + predicted])
    rows = np.concatenate([groups[right], groups, groups])
    margins = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(count, 3 * classes))
    per_photo = [(labels - predicted) ** 2, log_losses(labels, probabilities), np.ones(len(labels))]
    numbers = [np.bincount(groups, weights=values, minlength=count) for values in per_photo]
    return _Tally(margins, np.stack(numbers, 1))


def mcnemar(predictions: PairedPredictions) -> tuple[int, int, float]:
    """Return the photos that only the first or only the second model classifies correctly, and p.

    McNemar 1947, exact.
    """
    first, second = (
        p.argmax(1) == predictions.labels for p in (predictions.first, predictions.second)
    )
    lost, won = int((first & ~second).sum()), int((second & ~first).sum())
    return lost, won, float(binomtest(won, lost + won).pvalue) if lost + won else 1.0


def report(predictions: PairedPredictions, first: str, second: str, score: str) -> list[str]:
    """Return the comparison as lines: result, chosen score, table of all scores."""
    results = differences(predictions)
    chosen = results[score]
    lost, won, p = mcnemar(predictions)
    note = ""
    if chosen.conclusion == "within noise" and not chosen.low <= 0 <= chosen.high:
        note = "; the CI alone excludes 0, which is not reliable with so few groups"
    lines = [
        f"The difference between {second} and {first} is within noise"
        if chosen.conclusion == "within noise"
        else f"{second} is {chosen.conclusion} than {first}",
        (
            f"{score.replace('_', ' ')} {chosen.value:+.3f}, 95% CI {chosen.low:+.3f} to "
            f"{chosen.high:+.3f}, permutation test p = {chosen.p_value:.3f}{note}"
        ),
        "",
        f"{len(predictions.labels)} test photos of {int(predictions.groups.max()) + 1} groups",
        f"{'score':<20}{first[:12]:>14}{second[:12]:>14}   difference, 95% CI",
    ]
    lines += [
        f"{d.score.replace('_', ' '):<20}{d.first:>14.3f}{d.second:>14.3f}   "
        f"{d.value:+.3f}, {d.low:+.3f} to {d.high:+.3f}"
        for d in results.values()
    ]
    return [
        *lines,
        "",
        (
            f"correct only in {first}: {lost} photos, only in {second}: {won}; McNemar's exact "
            f"test p = {p:.3f} (assumes independent photos)"
        ),
    ]
