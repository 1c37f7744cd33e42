"""synthetic/annotators.py: people lean, err, and agree as often as was asked."""

import numpy as np
import pytest

from synthetic import annotators
from synthetic.annotators import FEW, NOBODY

CUTS = (0.0, 10.0)


def votes(seed=0, agreement=0.57, photos=53):
    rng = np.random.default_rng(seed)
    angles = rng.choice([15.0, 5.0, -5.0], photos, p=[0.42, 0.42, 0.16]) + rng.normal(
        0, 2.5, photos
    )
    return angles, annotators.vote(angles, CUTS, 18, agreement, rng)


@pytest.mark.parametrize("seed", range(10))
def test_two_annotators_agree_as_often_as_asked(seed):
    _, given = votes(seed)
    assert annotators.pairwise_agreement(given) == pytest.approx(0.57, abs=0.02)


def test_agreement_counts_equal_labels_of_photos_that_both_labelled():
    given = np.array([[0, 1, 2, NOBODY], [0, 1, 1, 2], [0, NOBODY, NOBODY, NOBODY]])
    # 2 of 3, 1 of 1, 1 of 1.
    assert annotators.pairwise_agreement(given) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_the_last_annotator_labelled_a_few_and_the_others_nearly_all():
    _, given = votes()
    counts = (given != NOBODY).sum(axis=1)
    assert counts[-1] == FEW
    assert counts[:-1].min() > 40


def test_annotators_lean_to_each_of_the_classes():
    leaning = set()
    for seed in range(5):
        _, given = votes(seed)
        shares = np.array([[(own == c)[own != NOBODY].mean() for c in range(3)] for own in given])
        leaning |= set((shares - shares.mean(axis=0)).argmax(axis=1))
        assert shares.max(axis=0)[1] > 0.6  # somebody says neutral most of the time
    assert leaning == {0, 1, 2}


def test_votes_follow_the_angle():
    angles, given = votes()
    low, high = (given[:-1, angles < 0], given[:-1, angles > 12])
    assert low[low != NOBODY].mean() < high[high != NOBODY].mean() - 0.3
