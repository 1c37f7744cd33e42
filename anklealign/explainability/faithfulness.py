"""Measure the faithfulness of heat maps, by deletion, insertion and a randomization test.

Shapes: N photos, S the store's side, K classes.

Deletion and insertion (Petsiuk et al., RISE (2018)): the photo's cells are blurred (deletion), or
restored in the blurred photo (insertion), in descending order of heat. The area under the
probability of the predicted class is compared with that of random orders of the same cells. A
faithful map has a smaller deletion area and a larger insertion area.

Model randomization (Adebayo et al., Sanity Checks for Saliency Maps (2018)): rank correlation with
the maps of the same network with random weights. A high correlation means that the maps show edges
rather than learned features.
"""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata
from torch import nn

from anklealign.explainability.attribution import Maps, heat_maps
from anklealign.io.pixel_store import Pixels
from anklealign.models import calibration
from anklealign.models.bundle import Bundle
from anklealign.models.input_config import Floats, Integers
from anklealign.models.inputs import logits

CELLS = 16  # per side; a heel spans about two cells
STEPS = 6  # per curve, each a sixth of the cells
RANDOM_ORDERS = 2  # per photo
BLUR = 0.08  # sigma, as a share of the side; hides both the class and the edge of a removed cell


class Areas(NamedTuple):
    """Areas under the probability curves, in 0 to 1, each (N,)."""

    deletion: Floats
    deletion_random: Floats
    insertion: Floats
    insertion_random: Floats


def cell_orders(cells: Floats, seed: int) -> Integers:
    """Return the orders in which each photo's cells are replaced: by heat, and random ones.

    Args:
        cells: `cell_means` of N maps, (N, 16, 16).
        seed: Of the random orders.

    Returns:
        (N, 1 + RANDOM_ORDERS, 256) cell indices.
    """
    generator = np.random.default_rng(seed)
    orders = [
        [
            np.argsort(-heat.ravel(), kind="stable"),
            *(generator.permutation(CELLS * CELLS) for _ in range(RANDOM_ORDERS)),
        ]
        for heat in cells
    ]
    return np.array(orders, np.int64).reshape(-1, 1 + RANDOM_ORDERS, CELLS * CELLS)


def areas(
    bundle: Bundle,
    pixels_nhwc: Pixels,
    classes: Integers,
    orders: Integers,
    device: torch.device,
) -> Areas:
    """Return the areas of each photo, from its `cell_orders`: (N, S, S, 3), (N,).

    The network runs 2 + 2 (1 + 2) 5 = 32 times per photo: all curves start and end at the photo
    or at the blurred one.
    """
    results = []
    for pixels, label, own in zip(pixels_nhwc, classes, orders, strict=True):
        blurred = gaussian_filter(pixels, (BLUR * len(pixels), BLUR * len(pixels), 0))
        directions = ((pixels, blurred), (blurred, pixels))
        between = [replace_cells(*pair, order)[1:-1] for order in own for pair in directions]
        steps = np.concatenate([pixels[None], blurred[None], *between])
        rows = np.arange(len(steps))
        outputs = logits(bundle.model, steps, rows, bundle.input_config, device)
        p = calibration.probabilities(outputs, bundle.temperature, bundle.class_bias)[:, label]
        curves = np.empty((1 + RANDOM_ORDERS, 2, STEPS + 1))
        curves[..., 1:-1] = p[2:].reshape(1 + RANDOM_ORDERS, 2, STEPS - 1)
        curves[:, 0, 0] = curves[:, 1, -1] = p[0]
        curves[:, 1, 0] = curves[:, 0, -1] = p[1]
        area: Floats = np.asarray(np.trapezoid(curves, dx=1 / STEPS))
        results.append((area[0, 0], area[1:, 0].mean(), area[0, 1], area[1:, 1].mean()))
    columns = np.array(results, np.float64).reshape(-1, 4).T
    return Areas(*columns)


def cell_means(maps: Maps) -> Floats:
    """Return the mean heat of each cell: (N, S, S) -> (N, 16, 16); S may be any side from 16 on."""
    size = maps.shape[-1]
    edges = np.linspace(0, size, CELLS + 1).round().astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(maps.astype(np.float64), edges, 1), edges, 2)
    sizes = np.diff(np.append(edges, size))
    means: Floats = sums / np.outer(sizes, sizes)
    return means


def replace_cells(start: Pixels, end: Pixels, order: Integers) -> Pixels:
    """Replace a photo's cells by another's, in steps: (S, S, 3) twice -> (7, S, S, 3)."""
    side = len(start)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    cell = np.arange(side) * CELLS // side
    pixel_rank = rank.reshape(CELLS, CELLS)[cell][:, cell]
    limits = np.arange(STEPS + 1) * len(order) // STEPS
    replaced = pixel_rank[None] < limits[:, None, None]
    return np.where(replaced[..., None], end[None], start[None])


def randomize_weights(bundle: Bundle, seed: int) -> Bundle:
    """Return the bundle with the same network and random weights."""
    device = next(bundle.model.parameters()).device
    # Drawn on the CPU: a GPU's generator draws other numbers from the same seed.
    model = copy.deepcopy(bundle.model).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialized = set()
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
                initialized |= {id(p) for p in module.parameters(recurse=False)}
        for parameter in model.parameters():
            if id(parameter) not in initialized:  # class tokens, position embeddings, layer scales
                nn.init.normal_(parameter.data, std=0.02)
    return replace(bundle, model=model.to(device))


def correlations(cells: Floats, others: Floats) -> Floats:
    """Return the rank correlation of each pair of maps, which is 0 if one of them is constant.

    `cell_means` of both, (N, 16, 16) -> (N,).
    """
    values = []
    for pair in zip(cells, others, strict=True):
        a, b = (rankdata(heat) for heat in pair)
        constant = a.std() == 0 or b.std() == 0
        values.append(0.0 if constant else float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))
    return np.array(values, np.float64)


def measure(
    bundle: Bundle, pixels_nhwc: Pixels, classes: Integers, seed: int, device: torch.device
) -> dict[str, float | int]:
    """Return the `scores` of a bundle's heat maps of N photos and their classes."""
    cells = cell_means(heat_maps(bundle, pixels_nhwc, classes, device=device))
    measured = areas(bundle, pixels_nhwc, classes, cell_orders(cells, seed), device)
    random = randomize_weights(bundle, seed)
    others = cell_means(heat_maps(random, pixels_nhwc, classes, device=device))
    return scores(measured, correlations(cells, others))


def scores(measured: Areas, untrained: Floats) -> dict[str, float | int]:
    """Return the metrics for metrics/details/evaluate.json, as means over N photos.

    `deletion_gain` is the area of random orders minus that of the map, and `insertion_gain` the
    reverse; a positive gain means that the maps are better than chance. `deletion_better_share` and
    `insertion_better_share` are the shares of photos with a positive gain.

    Args:
        measured: Areas of N photos.
        untrained: (N,) correlations with the maps of a network with random weights.
    """
    gains = (
        measured.deletion_random - measured.deletion,
        measured.insertion - measured.insertion_random,
    )
    means = {name: float(values.mean()) for name, values in measured._asdict().items()}
    for name, gain in zip(("deletion", "insertion"), gains, strict=True):
        means[f"{name}_gain"] = float(gain.mean())
        means[f"{name}_better_share"] = float((gain > 0).mean())
    means["untrained_correlation"] = float(untrained.mean())
    return {"photos": len(untrained)} | {name: round(value, 6) for name, value in means.items()}
