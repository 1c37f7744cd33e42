"""synthetic/annotators.py: annotators are biased, err, and agree at the requested rate."""

import numpy as np
import pytest

from synthetic import annotators
from synthetic.annotators import LAST_ANNOTATOR_PHOTOS, NO_LABEL

CUTS = (0.0, 10.0)


def votes(seed=0, agreement=0.57, photos=53):
    rng = np.random.default_rng(seed)
    angles = rng.choice([15.0, 5.0, -5.0], photos, p=[0.42, 0.42, 0.16]) + rng.normal(
        0, 2.5, photos
    )
    return angles, annotators.simulate_votes(angles, CUTS, 18, agreement, rng)


@pytest.mark.parametrize("seed", range(10))
def test_pairwise_agreement_matches_the_requested_value(seed):
    _, given = votes(seed)
    assert annotators.pairwise_agreement(given) == pytest.approx(0.57, abs=0.02)


def test_agreement_counts_photos_that_both_annotators_labeled():
    given = np.array([[0, 1, 2, NO_LABEL], [0, 1, 1, 2], [0, NO_LABEL, NO_LABEL, NO_LABEL]])
    # 2 of 3, 1 of 1, 1 of 1.
    assert annotators.pairwise_agreement(given) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_the_last_annotator_labels_few_photos_and_the_others_nearly_all():
    _, given = votes()
    counts = (given != NO_LABEL).sum(axis=1)
    assert counts[-1] == LAST_ANNOTATOR_PHOTOS
    assert counts[:-1].min() > 40


def test_every_class_is_favored_by_some_annotator():
    favored = set()
    for seed in range(5):
        _, given = votes(seed)
        shares = np.array([[(own == c)[own != NO_LABEL].mean() for c in range(3)] for own in given])
        favored |= set((shares - shares.mean(axis=0)).argmax(axis=1))
        assert shares.max(axis=0)[1] > 0.6  # some annotator mostly chooses neutral
    assert favored == {0, 1, 2}


def test_votes_follow_the_angle():
    angles, given = votes()
    low, high = (given[:-1, angles < 0], given[:-1, angles > 12])
    assert low[low != NO_LABEL].mean() < high[high != NO_LABEL].mean() - 0.3
