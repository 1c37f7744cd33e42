"""Probabilities that mean what they say: one temperature, fitted on validation photos.

Shapes: N photos, K classes. Temperature scaling is Guo et al., On Calibration of Modern Neural
Networks (2017); it never changes which class comes first.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 20.0


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Return calibrated probabilities: (N, K) -> (N, K), rows summing to 1."""
    calibrated: Floats = softmax(logits / temperature, axis=1)
    return calibrated


def fit_temperature(logits: Floats, labels: Integers) -> float:
    """Return the temperature of least log loss: (N, K), (N,) -> 0.05 to 20.

    Each photo's target is softened as if every class had been seen once more (Platt,
    Probabilistic Outputs for Support Vector Machines (1999), section 2.2): a model without a
    mistake on a few validation photos would otherwise become infinitely sure.
    """
    photos, classes = logits.shape
    targets = np.full((photos, classes), 1 / (photos + classes))
    targets[np.arange(photos), labels] += photos / (photos + classes)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float((targets * scaled).sum(1).mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))
