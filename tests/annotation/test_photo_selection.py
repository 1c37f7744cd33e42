"""Chosen photos are uncertain, different, and independent of the order of the photos."""

import numpy as np
import pytest

from anklealign.annotation.photo_selection import choose, uncertainty, without_duplicates


def blobs() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features of 5 directions with 40 photos each, uncertainties and names."""
    rng = np.random.default_rng(0)
    features = np.repeat(np.eye(5), 40, axis=0) + rng.normal(0, 0.02, (200, 5))
    uncertain = rng.random(200).round(6)
    return features, uncertain, [f"{n:03}" for n in rng.permutation(200)]


def test_uncertainty_is_one_minus_the_margin():
    found = uncertainty(np.array([[0.5, 0.5, 0], [0.7, 0.2, 0.1], [0, 0, 1]]))
    assert found.tolist() == pytest.approx([1, 0.5, 0])


def test_chosen_photos_come_from_different_clusters_and_are_uncertain():
    features, uncertain, names = blobs()
    uncertain[:40] = np.maximum(uncertain[:40], 0.95)  # the most uncertain ones are alike
    chosen = choose(features, uncertain, names, 5)
    assert sorted(n // 40 for n in chosen) == [0, 1, 2, 3, 4]
    assert uncertain[chosen].min() > np.quantile(uncertain, 0.6)
    assert uncertain[chosen].tolist() == sorted(uncertain[chosen], reverse=True)


def test_the_order_of_the_photos_is_irrelevant():
    features, uncertain, names = blobs()
    uncertain = uncertain.round(1)  # ties
    expected = {names[n] for n in choose(features, uncertain, names, 12)}
    order = np.random.default_rng(1).permutation(200)
    again = choose(features[order], uncertain[order], [names[n] for n in order], 12)
    assert {names[order[n]] for n in again} == expected
    assert len(expected) == 12


def test_fewer_photos_than_wanted_are_all_chosen():
    features, uncertain, names = blobs()
    assert sorted(choose(features[:3], uncertain[:3], names[:3], 5)) == [0, 1, 2]


def test_photos_that_the_model_sees_alike_fill_up_by_uncertainty():
    uncertain = np.linspace(0, 1, 40)
    features = np.ones((40, 3))
    features[3] = -1
    chosen = choose(features, uncertain, [f"{n:02}" for n in range(40)], 4)
    assert len(chosen) == len(set(chosen)) == 4
    assert {3, 39, 38} <= set(chosen)


def pattern(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)


def test_near_duplicates_of_labeled_photos_and_of_each_other_are_left_out():
    first, second, third = (pattern(n) for n in range(3))
    brighter = np.clip(first.astype(int) + 12, 0, 255).astype(np.uint8)
    kept = without_duplicates(
        [first], [second, brighter, third, second.copy()],
        distance=8, residual=0.3, squares=False, mirror_safe=True,
    )  # fmt: skip
    assert kept == [0, 2]
