"""The passes of evaluate ask the networks only for what is not known."""

import numpy as np
import torch

from anklealign.evaluation.network_passes import NetworkPasses
from anklealign.inference.predictor import Predictor
from anklealign.models import novelty
from tests.explainability.test_attribution import bundle_of

CPU = torch.device("cpu")


def test_known_features_are_not_computed(monkeypatch):
    computed = []

    def describe(_, rows, __):
        computed.extend(rows.tolist())
        return np.full((len(rows), 3), 2, np.float32)

    monkeypatch.setattr(novelty, "describe", describe)
    predictor = Predictor(bundle_of("anklealign_cnn"), CPU)
    networks = NetworkPasses(predictor, np.zeros((10, 4, 4, 3), np.uint8))
    known = {5: np.float32([1, 0, 0]), 7: np.float32([0, 0, 1])}
    found = networks.general_features(np.array([5, 1, 7]), known)
    assert found.tolist() == [[1, 0, 0], [2, 2, 2], [0, 0, 1]]
    assert computed == [1]
