"""How far several people's votes agree, and the labels that follow from them.

Votes are (N, A) class indices: photo n's by annotator a, NOBODY (-1) where there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Method = Literal["majority", "dawid_skene"]

NOBODY = -1
# Two shares nearer than this are equal: sums of thirds differ in their last digits.
EQUAL = 1e-9
# What the model believes of an annotator before any vote, as votes on each class's photos: 60 %
# right, as people are on such photos, the rest spread evenly. Without it, who met a class once
# would be sure of what it is not.
PRIOR = 3.0
RIGHT = 0.6


@dataclass(frozen=True)
class Consensus:
    """What the votes say of N photos."""

    soft: Floats  # (N, K): each class's share of the votes, or its probability
    labels: Integers  # (N,): the consensus label; NOBODY where a tie stays
    tied: Booleans  # (N,): several classes were equal first


@dataclass(frozen=True)
class Reliability:
    """What Dawid and Skene's model finds: photos' classes and annotators' errors."""

    posterior: Floats  # (N, K): how probable each class is of each photo
    confusion: Floats  # (A, K, K): how probable each vote is, given the true class
    prevalence: Floats  # (K,)

    def accuracy(self) -> Floats:
        """Return how often each annotator is right by the model, (A,)."""
        right: Floats = np.einsum("k,akk->a", self.prevalence, self.confusion)
        return right


def matrix(table: pd.DataFrame, classes: Sequence[str]) -> tuple[list[str], list[str], Integers]:
    """Return the photos, the annotators, both sorted, and (N, A) votes of a votes.csv."""
    photos, annotators = sorted(set(table.photo)), sorted(set(table.annotator))
    rows = table.photo.map({photo: n for n, photo in enumerate(photos)})
    columns = table.annotator.map({name: a for a, name in enumerate(annotators)})
    votes = np.full((len(photos), len(annotators)), NOBODY, np.int64)
    votes[rows.to_numpy(np.int64), columns.to_numpy(np.int64)] = table.label.map(
        {name: k for k, name in enumerate(classes)}
    ).to_numpy(np.int64)
    return photos, annotators, votes


def ballots(votes: Integers, classes: int) -> Floats:
    """Return votes as 0 and 1: (N, A) -> (N, A, K); nobody's vote is all 0."""
    given: Floats = (votes[:, :, None] == np.arange(classes)).astype(np.float64)
    return given


def settle(
    votes: Integers, own: Integers, classes: int, *, method: Method, ordered: bool
) -> Consensus:
    """Return the consensus on N photos with a vote each at least.

    Of classes that are equal first, on a scale the one nearest to the mean of the votes is taken;
    else, or if two are as near, the photo's own label (N,), NOBODY where it has none, if it is one
    of them. A tie that both rules leave stays: nobody knows.
    """
    given = ballots(votes, classes)
    if method == "majority":
        soft = given.sum(1)
        soft /= soft.sum(1, keepdims=True)
    else:
        soft = dawid_skene(given).posterior
    first = _first(soft)
    left = first
    if ordered:
        places = np.arange(classes)
        distance = np.where(first, np.abs(places - soft @ places[:, None]), np.inf)
        left = _first(-distance)
    mine = left & places_of(own, classes)
    left = np.where(mine.any(1, keepdims=True), mine, left)
    labels = np.where(left.sum(1) == 1, left.argmax(1), NOBODY)
    return Consensus(soft, labels, first.sum(1) > 1)


def _first(values: Floats) -> Booleans:
    """Return which of a row's values are its largest: (N, K) -> (N, K)."""
    largest: Booleans = values >= values.max(1, keepdims=True) - EQUAL
    return largest


def places_of(labels: Integers, classes: int) -> Booleans:
    """Return labels as truth values: (N,) -> (N, K)."""
    places: Booleans = labels[:, None] == np.arange(classes)
    return places


def dawid_skene(
    given: Floats, *, prior: float = PRIOR, steps: int = 1000, tolerance: float = 1e-8
) -> Reliability:
    """Estimate true classes and error rates from (N, A, K) numbers of votes.

    Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm,
    Applied Statistics 28 (1979) 20; started from the vote shares, as there. With a prior of 0 it is
    their maximum likelihood, else the mode under Dirichlet priors.
    """
    photos, _, classes = given.shape
    posterior = given.sum(1)
    posterior /= np.maximum(posterior.sum(1, keepdims=True), 1)
    right = np.eye(classes)
    believed = prior * (RIGHT * right + (1 - RIGHT) / (classes - 1) * (1 - right))
    seen_before = 1.0 if prior else 0.0  # photos of each class
    least = np.finfo(np.float64).tiny
    for _ in range(steps):
        prevalence = (posterior.sum(0) + seen_before) / (photos + classes * seen_before)
        confusion = np.einsum("nj,nak->ajk", posterior, given) + believed
        confusion /= np.maximum(confusion.sum(2, keepdims=True), least)
        score = np.log(np.maximum(prevalence, least)) + np.einsum(
            "nak,ajk->nj", given, np.log(np.maximum(confusion, least))
        )
        likely = np.exp(score - score.max(1, keepdims=True))
        likely /= likely.sum(1, keepdims=True)
        moved = float(np.abs(likely - posterior).max(initial=0))
        posterior = likely
        if moved < tolerance:
            break
    return Reliability(posterior, confusion, prevalence)


def alpha(votes: Integers, classes: int, *, ordered: bool = False) -> float:
    """Return Krippendorff's alpha: 1 is perfect, 0 is chance; NaN where nothing can differ.

    By the coincidence matrix and the difference functions of Krippendorff, Computing
    Krippendorff's Alpha-Reliability (2011): the nominal one, or for ordered classes the ordinal
    one. Photos with fewer than two votes do not count.
    """
    counts = ballots(votes, classes).sum(1)
    counts = counts[counts.sum(1) >= 2]
    paired = counts / (counts.sum(1, keepdims=True) - 1)
    coincidences = counts.T @ paired - np.diag(paired.sum(0))
    margins = coincidences.sum(0)
    difference = 1 - np.eye(classes)
    if ordered:
        # Squared number of values between two classes, half of those of both included.
        middle = np.cumsum(margins) - margins / 2
        difference = (middle[:, None] - middle) ** 2
    expected = float(margins @ difference @ margins)
    if not expected:
        return float("nan")
    return float(1 - (margins.sum() - 1) * (coincidences * difference).sum() / expected)


def pairwise(votes: Integers, classes: int) -> float:
    """Return the mean, over pairs of annotators who share a photo, of the share they agree on.

    NaN where no two share one.
    """
    given = ballots(votes, classes)
    there = given.sum(2)
    both = there.T @ there
    same = np.einsum("nak,nbk->ab", given, given, optimize=True)
    pairs = np.triu(both > 0, 1)
    return float((same[pairs] / both[pairs]).mean()) if pairs.any() else float("nan")


def with_mode(votes: Integers, classes: int) -> Floats:
    """Return, for each photo with two votes or more, the share of them for its first class."""
    counts = ballots(votes, classes).sum(1)
    counts = counts[counts.sum(1) >= 2]
    shares: Floats = counts.max(1) / counts.sum(1)
    return shares


def with_rest(votes: Integers, classes: int) -> Floats:
    """Return the share of each annotator's votes that the others' mode confirms: (N, A) -> (A,).

    Where the others are tied between m classes, one of them counts 1 / m. Photos without another
    vote do not count; NaN where that leaves none.
    """
    given = ballots(votes, classes)
    others = given.sum(1, keepdims=True) - given
    most = others.max(2, keepdims=True)
    first = (others == most) & (most > 0)
    confirmed = (given * first / np.maximum(first.sum(2, keepdims=True), 1)).sum((0, 2))
    counted = ((votes != NOBODY) & (most[:, :, 0] > 0)).sum(0)
    shares: Floats = np.where(counted > 0, confirmed / np.maximum(counted, 1), np.nan)
    return shares


def measure(
    votes: Integers, annotators: Sequence[str], classes: int, *, ordered: bool
) -> dict[str, Any]:
    """Return the numbers for metrics/prepare.json; what is not defined is left out."""
    numbers: dict[str, Any] = {
        "votes": int((votes != NOBODY).sum()),
        "photos": len(votes),
        "annotators": len(annotators),
    }
    if not len(votes):
        return numbers
    modes = with_mode(votes, classes)
    numbers |= _defined(
        {
            "alpha_nominal": alpha(votes, classes),
            "alpha_ordinal": alpha(votes, classes, ordered=True) if ordered else np.nan,
            "pairwise": pairwise(votes, classes),
            "mode_mean": float(modes.mean()) if len(modes) else np.nan,
            "mode_least": float(modes.min(initial=1)) if len(modes) else np.nan,
        }
    )
    accuracy = dawid_skene(ballots(votes, classes)).accuracy()
    by_annotator: dict[str, dict[str, float]] = {}
    counts, rest = (votes != NOBODY).sum(0), with_rest(votes, classes)
    for a, name in enumerate(annotators):
        key = name.replace(".", "_")  # DVC takes a dot in a key for a step down
        while key in by_annotator:
            key += "_"
        by_annotator[key] = {"votes": int(counts[a])} | _defined(
            {"with_rest": float(rest[a]), "dawid_skene": float(accuracy[a])}
        )
    numbers["by_annotator"] = by_annotator
    return numbers


def _defined(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in numbers.items() if np.isfinite(value)}
