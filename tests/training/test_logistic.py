"""Logistic regression: the optimum, and the penalty that held-out folds choose."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from anklealign.training import logistic
from anklealign.training.logistic import Examples


def examples(photos: int = 120, noise: float = 1.0, weights: bool = False) -> Examples:
    """Return photos of three classes whose means differ in three of 20 features."""
    rng = np.random.default_rng(0)
    labels = np.arange(photos) % 3
    x = rng.normal(size=(photos, 20)) * noise + 5
    x[np.arange(photos), labels] += 2
    weight = 1 + labels if weights else np.ones(photos)
    return Examples(
        torch.tensor(x, dtype=torch.float32),
        torch.eye(3, dtype=torch.float64)[labels],
        torch.tensor(weight, dtype=torch.float32),
        rng.permutation(photos) % 4,
    )


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_the_layer_is_scikit_learn_s(penalty: float, weights: bool) -> None:
    made = examples(weights=weights)
    (layer,) = logistic.fit_path(made, "cross_entropy", (penalty,))
    x = made.features.numpy().astype(np.float64)
    scale = np.sqrt(((x - x.mean(0)) ** 2).mean())
    other = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-8, max_iter=10_000)
    other.fit((x - x.mean(0)) / scale, made.targets.argmax(1), made.weights.numpy())
    expected = other.predict_proba((x - x.mean(0)) / scale)
    actual = layer.logits(made.features).softmax(1).numpy()
    np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_the_penalty_grows_with_the_noise() -> None:
    penalties = [logistic.fit(examples(noise=n), "cross_entropy").penalty for n in (0.3, 1, 4)]
    assert penalties == sorted(penalties)
    assert penalties[0] < penalties[-1]


def test_the_penalty_is_the_best_one_on_held_out_folds() -> None:
    made = examples()
    totals = []
    for penalty in logistic.PENALTIES:
        total = 0.0
        for fold in range(4):
            own, other = made.folds != fold, made.folds == fold
            (layer,) = logistic.fit_path(made.subset(own), "cross_entropy", (penalty,))
            held_out = made.subset(other)
            logits = layer.logits(held_out.features)
            total += float(-(held_out.targets * logits.log_softmax(1)).sum())
        totals.append(total)
    chosen = logistic.fit(made, "cross_entropy").penalty
    assert totals[logistic.PENALTIES.index(chosen)] <= min(totals) * 1.002


def test_photos_of_one_fold_get_the_default_penalty() -> None:
    made = examples()
    alone = Examples(made.features, made.targets, made.weights, np.zeros(120, np.int64))
    assert logistic.fit(alone, "cross_entropy").penalty == logistic.DEFAULT_PENALTY


def test_it_fits_a_loss_for_each_class_too() -> None:
    made = examples(noise=0.3)
    layer = logistic.fit(made, "bce")
    assert (layer.logits(made.features).argmax(1) == made.targets.argmax(1)).all()


def test_constant_features_give_the_class_shares() -> None:
    made = examples()
    constant = Examples(torch.ones(120, 5), made.targets, made.weights, made.folds)
    probabilities = logistic.fit(constant, "cross_entropy").logits(constant.features).softmax(1)
    np.testing.assert_allclose(probabilities.numpy(), 1 / 3, atol=1e-3)
