"""Whether heat maps tell what the model uses: photos are taken apart in their order.

Shapes: N photos, S the store's side, K classes.

Deletion and insertion (Petsiuk et al., RISE (2018)): the photo's cells are blurred away, or brought
back into the blurred photo, hottest first, and the area under the probability of the predicted
class is compared with that of random orders of the same cells. A map that is right takes the
answer away sooner (smaller deletion area) and brings it back sooner (larger insertion area).

Rank correlation with the maps of the same network untrained (Adebayo et al., Sanity Checks for
Saliency Maps (2018)): a map that an untrained network draws too shows edges, not what was learned.
"""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata
from torch import nn
from tqdm import tqdm

from anklealign.explainability.attribution import Maps, heat_maps
from anklealign.io.pixel_store import Pixels
from anklealign.models import calibration
from anklealign.models.bundle import Bundle
from anklealign.models.inputs import Floats, Integers, logits

CELLS = 16  # a side: cells of a sixteenth of the photo hold a heel twice
STEPS = 6  # of the curve, each a sixth of the cells
ORDERS = 2  # random ones a photo
BLUR = 0.08  # of the side, sigma: what is left tells neither class nor edge of the removed cell


class Areas(NamedTuple):
    """Mean areas under the curves, in 0 to 1, each (N,)."""

    deletion: Floats
    deletion_random: Floats
    insertion: Floats
    insertion_random: Floats


def areas(
    bundle: Bundle,
    pixels_nhwc: Pixels,
    classes: Integers,
    maps: Maps,
    *,
    seed: int,
    device: torch.device,
) -> Areas:
    """Return each photo's areas: (N, S, S, 3), (N,), (N, S, S).

    Every photo is seen 2 (1 + 2) 7 times by the network.
    """
    generator = np.random.default_rng(seed)
    found = []
    each = zip(pixels_nhwc, classes, maps, strict=True)
    bar = tqdm(each, "maps checked", len(maps), unit="photo", delay=1, disable=None)
    for pixels, label, heat in bar:
        orders = [np.argsort(-cell_means(heat).ravel(), kind="stable")]
        orders += [generator.permutation(CELLS * CELLS) for _ in range(ORDERS)]
        blurred = gaussian_filter(pixels, (BLUR * len(pixels), BLUR * len(pixels), 0))
        ways = ((pixels, blurred), (blurred, pixels))
        steps = np.concatenate([steps_of(*way, order) for order in orders for way in ways])
        rows = np.arange(len(steps))
        answers = logits(bundle.model, steps, rows, bundle.network_input, device)
        p = calibration.probabilities(answers, bundle.temperature)[:, label]
        curves = p.reshape(1 + ORDERS, 2, STEPS + 1)
        under: Floats = np.asarray(np.trapezoid(curves, dx=1 / STEPS))
        found.append((under[0, 0], under[1:, 0].mean(), under[0, 1], under[1:, 1].mean()))
    columns = np.array(found, np.float64).reshape(-1, 4).T
    return Areas(*columns)


def cell_means(heat: Maps) -> Floats:
    """Return the mean heat of each cell: (S, S) -> (16, 16); S need not divide."""
    edges = np.linspace(0, len(heat), CELLS + 1).round().astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(heat.astype(np.float64), edges, 0), edges, 1)
    sizes = np.diff(np.append(edges, len(heat)))
    means: Floats = sums / np.outer(sizes, sizes)
    return means


def steps_of(start: Pixels, end: Pixels, order: Integers) -> Pixels:
    """Return a photo on its way to another, cell by cell: (S, S, 3) twice -> (7, S, S, 3)."""
    side = len(start)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    place = np.arange(side) * CELLS // side
    turn = rank.reshape(CELLS, CELLS)[place][:, place]
    limits = np.arange(STEPS + 1) * len(order) // STEPS
    gone = turn[None] < limits[:, None, None]
    return np.where(gone[..., None], end[None], start[None])


def untrained(bundle: Bundle, seed: int) -> Bundle:
    """Return the bundle with a network of the same form and random weights."""
    model = copy.deepcopy(bundle.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = set()
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
                fresh |= {id(p) for p in module.parameters(recurse=False)}
        for parameter in model.parameters():
            if id(parameter) not in fresh:  # class tokens, positions, scales
                nn.init.normal_(parameter.data, std=0.02)
    return replace(bundle, model=model)


def correlations(maps: Maps, others: Maps) -> Floats:
    """Return each pair's rank correlation: (N, S, S) twice -> (N,); 0 where a map is flat."""
    found = []
    for one, other in zip(maps, others, strict=True):
        a, b = (rankdata(cell_means(heat)) for heat in (one, other))
        flat = a.std() == 0 or b.std() == 0
        found.append(0.0 if flat else float(np.corrcoef(a.ravel(), b.ravel())[0, 1]))
    return np.array(found, np.float64)


def check(
    bundle: Bundle,
    pixels_nhwc: Pixels,
    classes: Integers,
    seed: int,
    device: torch.device,
) -> dict[str, float | int]:
    """Return the figures for metrics/evaluate.json, means over N photos.

    `deletion_gain` and `insertion_gain` are the random orders' area less the map's, and the map's
    less the random orders': above 0 the maps are better than chance. `..._share` is the share of
    photos on which they are.
    """
    maps = heat_maps(bundle, pixels_nhwc, classes, device=device)
    found = areas(bundle, pixels_nhwc, classes, maps, seed=seed, device=device)
    others = heat_maps(untrained(bundle, seed), pixels_nhwc, classes, device=device)
    gains = (found.deletion_random - found.deletion, found.insertion - found.insertion_random)
    means = {name: float(values.mean()) for name, values in found._asdict().items()}
    for name, gain in zip(("deletion", "insertion"), gains, strict=True):
        means[f"{name}_gain"] = float(gain.mean())
        means[f"{name}_better_share"] = float((gain > 0).mean())
    means["untrained_correlation"] = float(correlations(maps, others).mean())
    return {"photos": len(maps)} | {name: round(value, 6) for name, value in means.items()}
