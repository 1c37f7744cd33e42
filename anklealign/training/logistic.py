"""Logistic regression on the features of a frozen network, with a cross-validated penalty.

Shapes: N photos, C features, K classes.

The loss is the one of training (`train.loss`, class balancing, label smoothing, soft labels), plus
an L2 penalty on the weights. It is convex, so the result has no learning rate, no number of epochs,
and no seed. All features are divided by one scale: dividing each by its own standard deviation gave
a log loss of 0.145 instead of 0.137 on ants and bees (EfficientNet-Lite0, mean of three splits).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anklealign.models.input_config import Integers
from anklealign.training import losses

# Of the squared weights, relative to the mean loss. The best one was 0.1 on ants and bees.
PENALTIES = tuple(10.0**exponent for exponent in (1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3, -4))
SINGLE_THREAD = 1 << 20  # numbers below which one thread is the fastest
DEFAULT_PENALTY = 0.1  # for photos that cannot be divided into folds
STEPS = 200  # of L-BFGS for a penalty, at most; some 20 suffice
HISTORY = 10  # steps that L-BFGS remembers; its own work grows with it
GRADIENT = 1e-5  # largest absolute gradient at which it ends


@dataclass(frozen=True)
class LinearLayer:
    """A fitted linear layer: weight (K, C) and bias (K,), in double precision."""

    weight: Tensor
    bias: Tensor
    penalty: float

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits: (N, C) -> (N, K)."""
        return features.double() @ self.weight.T + self.bias


@dataclass(frozen=True)
class Examples:
    """Photos to fit: features (N, C), target distributions (N, K), loss weights and folds (N,)."""

    features: Tensor
    targets: Tensor
    weights: Tensor
    folds: Integers

    def subset(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "Examples":
        """Return the photos where `rows` (N,) is true."""
        mask = torch.from_numpy(rows).to(self.features.device)
        return Examples(
            self.features[mask], self.targets[mask], self.weights[mask], self.folds[rows]
        )


def fit(examples: Examples, loss: str) -> LinearLayer:
    """Fit a linear layer; its penalty has the smallest loss on held-out folds of the photos.

    Args:
        examples: N photos. In a single fold, the penalty is `DEFAULT_PENALTY`.
        loss: `cross_entropy` or `bce`.
    """
    names = np.unique(examples.folds)
    if len(names) < 2:
        return next(fit_path(examples, loss, (DEFAULT_PENALTY,)))
    held_out = [examples.subset(examples.folds == fold) for fold in names]
    paths = [fit_path(examples.subset(examples.folds != fold), loss) for fold in names]
    totals: list[float] = []
    for layers in zip(*paths, strict=True):
        total = 0.0
        for layer, own in zip(layers, held_out, strict=True):
            each = losses.loss_per_photo(loss, layer.logits(own.features), own.targets)
            total += float((each * own.weights).sum())
        totals.append(total)
        # Two penalties without a better one: the loss only grows from there.
        if len(totals) - 1 - int(np.argmin(totals)) == 2:
            break
    # The largest of equally good penalties: thousandths of a loss are noise.
    best = next(i for i, total in enumerate(totals) if total <= min(totals) * 1.001)
    return list(fit_path(examples, loss, PENALTIES[: best + 1]))[-1]


def fit_path(
    examples: Examples, loss: str, penalties: tuple[float, ...] = PENALTIES
) -> Iterator[LinearLayer]:
    """Fit a layer for each of the descending penalties, from the layer of the one before it."""
    center = examples.features.double().mean(0)
    centered = examples.features.double() - center
    scale = centered.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    scaled = Examples(
        centered / scale, examples.targets.double(), examples.weights.double(), examples.folds
    )
    shape = examples.targets.shape[1], centered.shape[1]
    weight = centered.new_zeros(shape).requires_grad_()
    bias = centered.new_zeros(shape[0]).requires_grad_()
    for penalty in penalties:
        with _threads(centered.numel()):
            _minimize(weight, bias, scaled, penalty, loss)
        fitted = weight.detach() / scale
        yield LinearLayer(fitted, bias.detach() - fitted @ center, penalty)


@contextmanager
def _threads(size: int) -> Iterator[None]:
    """Use one thread for a matrix of few numbers, which more would only wait for each other on."""
    before = torch.get_num_threads()
    if size < SINGLE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _minimize(weight: Tensor, bias: Tensor, examples: Examples, penalty: float, loss: str) -> None:
    """Minimize the penalized loss over weight (K, C) and bias (K,), in place."""
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=STEPS,
        tolerance_grad=GRADIENT,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = examples.features @ weight.T + bias
        each = losses.loss_per_photo(loss, logits, examples.targets)
        total = (each * examples.weights).mean() + penalty / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
