"""Targets, weights and losses are numbers a photo, and mean what their names say."""

import numpy as np
import pandas as pd
import pytest
import torch

from anklealign.training import losses
from anklealign.training.sampling import Photos


def photos(labels: list[int], soft: np.ndarray | None = None) -> Photos:
    count = len(labels)
    ids = tuple(f"{i:012x}" for i in range(count))
    pixels = np.zeros((count, 32, 32, 3), np.uint8)
    return Photos(pixels, np.arange(count), ids, np.array(labels), soft)


def test_targets_are_the_class_or_what_annotators_said_smoothed() -> None:
    np.testing.assert_array_equal(losses.targets(photos([1, 0]), 2, 0.0), [[0, 1], [1, 0]])
    np.testing.assert_allclose(losses.targets(photos([1]), 2, 0.2), [[0.1, 0.9]])
    soft = np.array([[0.25, 0.75], [1.0, 0.0]])
    np.testing.assert_array_equal(losses.targets(photos([1, 0], soft), 2, 0.0), soft)


def test_votes_are_learned_where_there_are_some_and_else_the_class() -> None:
    voted = pd.DataFrame(
        {"photo": [f"{2:012x}", f"{9:012x}", f"{0:012x}"], "soft_b": [0.5, 1.0, 0.333333],
         "soft_a": [0.5, 0.0, 0.666667]}
    )  # fmt: skip
    found = losses.soft_labels(photos([1, 1, 0]), voted, ["a", "b"])
    np.testing.assert_allclose(found, [[2 / 3, 1 / 3], [0, 1], [0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)


def test_soft_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"soft labels of shape \(2, 3\) for 2 photos of 2"):
        losses.targets(photos([1, 0], np.full((2, 3), 1 / 3)), 2, 0.0)


def test_weights_are_inverse_frequencies_of_mean_one() -> None:
    labels = [0] * 6 + [1] * 3 + [2]
    found = losses.weights(losses.targets(photos(labels), 3, 0.0))
    np.testing.assert_allclose(found, [10 / 18] * 6 + [10 / 9] * 3 + [10 / 3])
    assert found.mean() == pytest.approx(1)


def test_a_photo_between_classes_is_weighed_between_them() -> None:
    soft = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    found = losses.weights(soft)
    np.testing.assert_allclose(found, [4 / 6, 4 / 6, 8 / 6, 8 / 6])


ANSWERS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
SURE = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
SOFT = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])


@pytest.mark.parametrize("wanted", [SURE, SOFT])
def test_losses_are_those_of_their_papers(wanted: torch.Tensor) -> None:
    log_p = ANSWERS.log_softmax(1)
    entropy = -(wanted * log_p).sum(1)
    torch.testing.assert_close(losses.losses("cross_entropy", ANSWERS, wanted), entropy)
    poly = entropy + 2 * (1 - (wanted * log_p.exp()).sum(1))
    torch.testing.assert_close(losses.losses("poly", ANSWERS, wanted), poly)
    sigmoid = ANSWERS.sigmoid()
    bce = -(wanted * sigmoid.log() + (1 - wanted) * (1 - sigmoid).log()).sum(1)
    torch.testing.assert_close(losses.losses("bce", ANSWERS, wanted), bce)


def test_the_asymmetric_loss_is_the_paper_s() -> None:
    yes = ANSWERS.sigmoid()
    no = (1 - yes + 0.05).clamp(max=1)  # a sure no costs nothing
    wanted = torch.eye(ANSWERS.shape[1])[torch.arange(len(ANSWERS)) % ANSWERS.shape[1]]
    each = wanted * (1 - yes) * yes.log() + (1 - wanted) * (1 - no) ** 4 * no.log()
    found = losses.losses("asymmetric", ANSWERS, wanted)
    torch.testing.assert_close(found, -each.sum(1))
