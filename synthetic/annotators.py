"""People who look at the same photos and do not agree: the votes behind a consensus.

An annotator sees a photo's angle with an error of their own and puts it between two thresholds.
Everyone leans to one class, by thresholds that give it more room. The error is as large as it must
be for any two annotators to agree on `agreement` of the photos that both labelled, as they did on
the real photos (57 %).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Votes = npt.NDArray[np.int64]

NOBODY = -1  # no label
LEANINGS = (1, 2, 1, 0, 1, 2)  # over and over: half lean to the middle class, a third to the last
LEAST_LEAN, MOST_LEAN = 1.0, 9.0  # degrees by which the class that somebody leans to is wider
SKIPPED = 0.03  # share of the photos that an annotator leaves out
FEW = 8  # photos that the last annotator labelled
ERRORS = np.linspace(0, 40, 401)  # degrees, tried one after the other


def vote(
    angles: Sequence[float],
    cuts: tuple[float, float],
    annotators: int,
    agreement: float,
    rng: np.random.Generator,
) -> Votes:
    """Return (annotators, N) labels 0, 1, 2 by rising angle, NOBODY where one gave none.

    Args:
        angles: N photos' angles in degrees.
        cuts: What an annotator without any leaning takes for the limits of the middle class.
        annotators: How many people; the last one labels FEW photos only.
        agreement: Mean share, over pairs of people, of equal labels among those that both gave.
        rng: Where errors and leanings come from.
    """
    seen = np.asarray(angles, np.float64)
    low, high = np.full(annotators, cuts[0]), np.full(annotators, cuts[1])
    lean = rng.uniform(LEAST_LEAN, MOST_LEAN, annotators)
    side = np.resize(LEANINGS, annotators)
    low += np.where(side == 0, lean, np.where(side == 1, -lean, 0))
    high += np.where(side == 2, -lean, np.where(side == 1, lean, 0))
    low, high = np.minimum(low, high), np.maximum(low, high)
    error = rng.normal(size=(annotators, seen.size))
    absent = rng.random((annotators, seen.size)) < SKIPPED
    absent[-1] = True
    absent[-1, rng.permutation(seen.size)[:FEW]] = False

    def votes(sd: float) -> Votes:
        at = seen + sd * error
        labels = (at > low[:, None]).astype(np.int64) + (at > high[:, None])
        return np.where(absent, NOBODY, labels)

    off = [abs(pairwise_agreement(votes(sd)) - agreement) for sd in ERRORS]
    return votes(float(ERRORS[int(np.argmin(off))]))


def pairwise_agreement(votes: Votes) -> float:
    """Return the mean share of equal labels over pairs of annotators who share a photo."""
    given = (votes != NOBODY).astype(np.int64)
    equal = sum(
        (chosen @ chosen.T for chosen in ((votes == label).astype(np.int64) for label in range(3))),
        start=np.zeros((len(votes), len(votes)), np.int64),
    )
    one, other = np.triu_indices(len(votes), 1)
    both, same = (given @ given.T)[one, other], equal[one, other]
    return float((same[both > 0] / both[both > 0]).mean()) if both.any() else 1.0
