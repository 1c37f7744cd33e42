"""Inter-annotator agreement, and consensus labels from votes.

Votes are (N, A) class indices of photo n by annotator a, with NO_VOTE (-1) for a missing vote.
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

NO_VOTE = -1
# Fractions closer than this are equal: sums of thirds differ in their last digits.
EQUAL = 1e-9
# Dirichlet prior on an annotator's errors, as a number of votes on photos of each class: 60% are
# correct, as is typical for such photos, and the rest is spread evenly. Without a prior, an
# annotator with a single vote on a class would be estimated to make no other errors.
PRIOR = 3.0
RIGHT = 0.6


@dataclass(frozen=True)
class AggregatedVotes:
    """Consensus labels and soft labels of N photos."""

    soft: Floats  # (N, K): fraction of the votes for each class, or its probability
    labels: Integers  # (N,): the consensus label; NO_VOTE for an unresolved tie
    tied: Booleans  # (N,): True if several classes have the most votes


@dataclass(frozen=True)
class Reliability:
    """Estimates of the Dawid-Skene model: the photos' classes and the annotators' errors."""

    posterior: Floats  # (N, K): probability of each class
    confusion: Floats  # (A, K, K): probability of each vote, given the true class
    prevalence: Floats  # (K,)

    def accuracy(self) -> Floats:
        """Return the estimated accuracy of each annotator, (A,)."""
        right: Floats = np.einsum("k,akk->a", self.prevalence, self.confusion)
        return right


def vote_matrix(
    table: pd.DataFrame, classes: Sequence[str]
) -> tuple[list[str], list[str], Integers]:
    """Return the sorted photos, the sorted annotators, and the (N, A) votes of a votes table."""
    photos, annotators = sorted(set(table.photo)), sorted(set(table.annotator))
    rows = table.photo.map({photo: n for n, photo in enumerate(photos)})
    columns = table.annotator.map({name: a for a, name in enumerate(annotators)})
    votes = np.full((len(photos), len(annotators)), NO_VOTE, np.int64)
    votes[rows.to_numpy(np.int64), columns.to_numpy(np.int64)] = table.label.map(
        {name: k for k, name in enumerate(classes)}
    ).to_numpy(np.int64)
    return photos, annotators, votes


def one_hot_votes(votes: Integers, classes: int) -> Floats:
    """Return one-hot votes: (N, A) -> (N, A, K); a missing vote is all 0."""
    one_hot: Floats = (votes[:, :, None] == np.arange(classes)).astype(np.float64)
    return one_hot


def aggregate(
    votes: Integers, own: Integers, classes: int, *, method: Method, ordered: bool
) -> AggregatedVotes:
    """Return the consensus labels of N photos with at least one vote each.

    If several classes have the most votes and the classes are ordered, the class nearest to the
    mean vote wins. Any remaining tie is resolved by the photo's own label (N,), NO_VOTE for none,
    if it is one of the tied classes. Otherwise the tie stays unresolved.
    """
    given = one_hot_votes(votes, classes)
    if method == "majority":
        soft = given.sum(1)
        soft /= soft.sum(1, keepdims=True)
    else:
        soft = dawid_skene(given).posterior
    first = _first(soft)
    candidates = first
    if ordered:
        places = np.arange(classes)
        distance = np.where(first, np.abs(places - soft @ places[:, None]), np.inf)
        candidates = _first(-distance)
    by_own = candidates & one_hot_labels(own, classes)
    candidates = np.where(by_own.any(1, keepdims=True), by_own, candidates)
    labels = np.where(candidates.sum(1) == 1, candidates.argmax(1), NO_VOTE)
    return AggregatedVotes(soft, labels, first.sum(1) > 1)


def _first(values: Floats) -> Booleans:
    """Return a mask of the largest values in each row: (N, K) -> (N, K)."""
    largest: Booleans = values >= values.max(1, keepdims=True) - EQUAL
    return largest


def one_hot_labels(labels: Integers, classes: int) -> Booleans:
    """Return one-hot labels: (N,) -> (N, K)."""
    one_hot: Booleans = labels[:, None] == np.arange(classes)
    return one_hot


def dawid_skene(
    given: Floats, *, prior: float = PRIOR, steps: int = 1000, tolerance: float = 1e-8
) -> Reliability:
    """Estimate true classes and error rates from (N, A, K) vote counts.

    Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm,
    Applied Statistics 28 (1979) 20, initialized with the vote fractions. A prior of 0 gives their
    maximum likelihood estimate, a positive prior the mode under Dirichlet priors.
    """
    photos, _, classes = given.shape
    posterior = given.sum(1)
    posterior /= np.maximum(posterior.sum(1, keepdims=True), 1)
    right = np.eye(classes)
    prior_votes = prior * (RIGHT * right + (1 - RIGHT) / (classes - 1) * (1 - right))
    prior_photos = 1.0 if prior else 0.0  # per class
    tiny = np.finfo(np.float64).tiny
    for _ in range(steps):
        prevalence = (posterior.sum(0) + prior_photos) / (photos + classes * prior_photos)
        confusion = np.einsum("nj,nak->ajk", posterior, given) + prior_votes
        confusion /= np.maximum(confusion.sum(2, keepdims=True), tiny)
        score = np.log(np.maximum(prevalence, tiny)) + np.einsum(
            "nak,ajk->nj", given, np.log(np.maximum(confusion, tiny))
        )
        updated = np.exp(score - score.max(1, keepdims=True))
        updated /= updated.sum(1, keepdims=True)
        change = float(np.abs(updated - posterior).max(initial=0))
        posterior = updated
        if change < tolerance:
            break
    return Reliability(posterior, confusion, prevalence)


def krippendorff_alpha(votes: Integers, classes: int, *, ordered: bool = False) -> float:
    """Return Krippendorff's alpha: 1 is perfect, 0 is chance, NaN if no votes can differ.

    Uses the coincidence matrix and the difference functions of Krippendorff, Computing
    Krippendorff's Alpha-Reliability (2011): nominal, or ordinal for ordered classes. Photos with
    fewer than two votes are excluded.
    """
    counts = one_hot_votes(votes, classes).sum(1)
    counts = counts[counts.sum(1) >= 2]
    paired = counts / (counts.sum(1, keepdims=True) - 1)
    coincidences = counts.T @ paired - np.diag(paired.sum(0))
    margins = coincidences.sum(0)
    difference = 1 - np.eye(classes)
    if ordered:
        # Squared number of votes between two classes, including half of the votes for each of them.
        middle = np.cumsum(margins) - margins / 2
        difference = (middle[:, None] - middle) ** 2
    expected = float(margins @ difference @ margins)
    if not expected:
        return float("nan")
    return float(1 - (margins.sum() - 1) * (coincidences * difference).sum() / expected)


def pairwise_agreement(votes: Integers, classes: int) -> float:
    """Return the mean agreement over all pairs of annotators with a photo in common.

    NaN if no pair has one.
    """
    given = one_hot_votes(votes, classes)
    voted = given.sum(2)
    both = voted.T @ voted
    same = np.einsum("nak,nbk->ab", given, given, optimize=True)
    pairs = np.triu(both > 0, 1)
    return float((same[pairs] / both[pairs]).mean()) if pairs.any() else float("nan")


def modal_shares(votes: Integers, classes: int) -> Floats:
    """Return the fraction of votes for the most frequent class of each photo with 2+ votes."""
    counts = one_hot_votes(votes, classes).sum(1)
    counts = counts[counts.sum(1) >= 2]
    shares: Floats = counts.max(1) / counts.sum(1)
    return shares


def leave_one_out_agreement(votes: Integers, classes: int) -> Floats:
    """Return each annotator's agreement with the majority of the others: (N, A) -> (A,).

    If the others are tied between m classes, each of these counts 1 / m. Photos without another
    vote are excluded; an annotator without any remaining photo gets NaN.
    """
    given = one_hot_votes(votes, classes)
    others = given.sum(1, keepdims=True) - given
    most = others.max(2, keepdims=True)
    first = (others == most) & (most > 0)
    confirmed = (given * first / np.maximum(first.sum(2, keepdims=True), 1)).sum((0, 2))
    counted = ((votes != NO_VOTE) & (most[:, :, 0] > 0)).sum(0)
    shares: Floats = np.where(counted > 0, confirmed / np.maximum(counted, 1), np.nan)
    return shares


def agreement_metrics(
    votes: Integers, annotators: Sequence[str], classes: int, *, ordered: bool
) -> dict[str, Any]:
    """Return the numbers for metrics/details/prepare.json; undefined ones are omitted."""
    numbers: dict[str, Any] = {
        "votes": int((votes != NO_VOTE).sum()),
        "photos": len(votes),
        "annotators": len(annotators),
    }
    if not len(votes):
        return numbers
    modes = modal_shares(votes, classes)
    numbers |= _defined(
        {
            "alpha_nominal": krippendorff_alpha(votes, classes),
            "alpha_ordinal": krippendorff_alpha(votes, classes, ordered=True)
            if ordered
            else np.nan,
            "pairwise": pairwise_agreement(votes, classes),
            "modal_share_mean": float(modes.mean()) if len(modes) else np.nan,
            "modal_share_min": float(modes.min(initial=1)) if len(modes) else np.nan,
        }
    )
    accuracy = dawid_skene(one_hot_votes(votes, classes)).accuracy()
    by_annotator: dict[str, dict[str, float]] = {}
    counts, others = (votes != NO_VOTE).sum(0), leave_one_out_agreement(votes, classes)
    for a, name in enumerate(annotators):
        key = name.replace(".", "_")  # DVC treats a dot in a key as nesting
        while key in by_annotator:
            key += "_"
        by_annotator[key] = {"votes": int(counts[a])} | _defined(
            {"leave_one_out_agreement": float(others[a]), "dawid_skene": float(accuracy[a])}
        )
    numbers["by_annotator"] = by_annotator
    return numbers


def _defined(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in numbers.items() if np.isfinite(value)}
