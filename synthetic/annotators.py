"""Simulate annotators who disagree: the votes behind a consensus.

An annotator perceives the angle of a photo with a random error and classifies it by two thresholds.
Each annotator is biased toward one class, for which the thresholds leave more room. The size of the
error is chosen so that pairs of annotators agree on a share `agreement` of the photos that both
labeled (57% on the real photos).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Votes = npt.NDArray[np.int64]

NO_LABEL = -1  # no label
FAVORED_CLASSES = (
    1,
    2,
    1,
    0,
    1,
    2,
)  # repeated: half are biased toward the middle class, a third toward the last
MIN_BIAS, MAX_BIAS = 1.0, 9.0  # degrees by which the favored class is wider
SKIP_RATE = 0.03  # share of photos that an annotator does not label
LAST_ANNOTATOR_PHOTOS = 8  # labeled by the last annotator
ERROR_SDS = np.linspace(0, 40, 401)  # degrees, candidates for the error


def simulate_votes(
    angles: Sequence[float],
    cuts: tuple[float, float],
    annotators: int,
    agreement: float,
    rng: np.random.Generator,
) -> Votes:
    """Return (annotators, N) labels 0, 1, 2 by increasing angle, NO_LABEL where missing.

    Args:
        angles: Angles of N photos in degrees.
        cuts: Limits of the middle class for an unbiased annotator, in degrees.
        annotators: Number of annotators; the last labels LAST_ANNOTATOR_PHOTOS photos only.
        agreement: Target of `pairwise_agreement`.
        rng: Source of errors and biases.
    """
    perceived = np.asarray(angles, np.float64)
    low, high = np.full(annotators, cuts[0]), np.full(annotators, cuts[1])
    bias = rng.uniform(MIN_BIAS, MAX_BIAS, annotators)
    favored = np.resize(FAVORED_CLASSES, annotators)
    low += np.where(favored == 0, bias, np.where(favored == 1, -bias, 0))
    high += np.where(favored == 2, -bias, np.where(favored == 1, bias, 0))
    low, high = np.minimum(low, high), np.maximum(low, high)
    error = rng.normal(size=(annotators, perceived.size))
    missing = rng.random((annotators, perceived.size)) < SKIP_RATE
    missing[-1] = True
    missing[-1, rng.permutation(perceived.size)[:LAST_ANNOTATOR_PHOTOS]] = False

    def votes(sd: float) -> Votes:
        at = perceived + sd * error
        labels = (at > low[:, None]).astype(np.int64) + (at > high[:, None])
        return np.where(missing, NO_LABEL, labels)

    deviations = [abs(pairwise_agreement(votes(sd)) - agreement) for sd in ERROR_SDS]
    return votes(float(ERROR_SDS[int(np.argmin(deviations))]))


def pairwise_agreement(votes: Votes) -> float:
    """Return the mean over pairs of annotators of the share of equal labels on common photos."""
    labeled = (votes != NO_LABEL).astype(np.int64)
    equal = sum(
        (
            is_label @ is_label.T
            for is_label in ((votes == label).astype(np.int64) for label in range(3))
        ),
        start=np.zeros((len(votes), len(votes)), np.int64),
    )
    first, second = np.triu_indices(len(votes), 1)
    both, same = (labeled @ labeled.T)[first, second], equal[first, second]
    return float((same[both > 0] / both[both > 0]).mean()) if both.any() else 1.0
