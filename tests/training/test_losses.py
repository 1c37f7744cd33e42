"""Targets, weights and losses have one value per photo and match their definitions."""

import numpy as np
import pandas as pd
import pytest
import torch

from anklealign.training import losses
from anklealign.training.sampling import LabeledPhotos


def photos(labels: list[int], soft: np.ndarray | None = None) -> LabeledPhotos:
    count = len(labels)
    ids = tuple(f"{i:012x}" for i in range(count))
    pixels = np.zeros((count, 32, 32, 3), np.uint8)
    return LabeledPhotos(pixels, np.arange(count), ids, np.array(labels), soft)


def test_targets_are_the_class_or_soft_labels_smoothed() -> None:
    np.testing.assert_array_equal(losses.make_targets(photos([1, 0]), 2, 0.0), [[0, 1], [1, 0]])
    np.testing.assert_allclose(losses.make_targets(photos([1]), 2, 0.2), [[0.1, 0.9]])
    soft = np.array([[0.25, 0.75], [1.0, 0.0]])
    np.testing.assert_array_equal(losses.make_targets(photos([1, 0], soft), 2, 0.0), soft)


def test_soft_labels_are_vote_shares_or_the_class_without_votes() -> None:
    votes = pd.DataFrame(
        {"photo": [f"{2:012x}", f"{9:012x}", f"{0:012x}"], "soft_b": [0.5, 1.0, 0.333333],
         "soft_a": [0.5, 0.0, 0.666667]}
    )  # fmt: skip
    targets = losses.soft_labels(photos([1, 1, 0]), votes, ["a", "b"])
    np.testing.assert_allclose(targets, [[2 / 3, 1 / 3], [0, 1], [0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-12)


def test_soft_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"soft labels of shape \(2, 3\) for 2 photos of 2"):
        losses.make_targets(photos([1, 0], np.full((2, 3), 1 / 3)), 2, 0.0)


def test_weights_are_inverse_frequencies_of_mean_one() -> None:
    labels = [0] * 6 + [1] * 3 + [2]
    weights = losses.inverse_frequency_weights(losses.make_targets(photos(labels), 3, 0.0))
    np.testing.assert_allclose(weights, [10 / 18] * 6 + [10 / 9] * 3 + [10 / 3])
    assert weights.mean() == pytest.approx(1)


def test_a_soft_label_gets_the_mean_weight_of_its_classes() -> None:
    soft = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    weights = losses.inverse_frequency_weights(soft)
    np.testing.assert_allclose(weights, [4 / 6, 4 / 6, 8 / 6, 8 / 6])


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
ONE_HOT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
SOFT = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])


@pytest.mark.parametrize("targets", [ONE_HOT, SOFT])
def test_losses_are_those_of_their_papers(targets: torch.Tensor) -> None:
    log_p = LOGITS.log_softmax(1)
    entropy = -(targets * log_p).sum(1)
    torch.testing.assert_close(losses.loss_per_photo("cross_entropy", LOGITS, targets), entropy)
    sigmoid = LOGITS.sigmoid()
    bce = -(targets * sigmoid.log() + (1 - targets) * (1 - sigmoid).log()).sum(1)
    torch.testing.assert_close(losses.loss_per_photo("bce", LOGITS, targets), bce)
