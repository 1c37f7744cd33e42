"""Choose which unlabeled photos to label next: those the model is uncertain of, and different ones.

The most uncertain photos alone are often alike, such as one burst of a hard subject. So the photos
are the centers of clusters among the uncertain ones, in the features of the network (Zhdanov,
Diverse Mini-batch Active Learning (2019)): k-means with the uncertainty as weight, and of each
cluster the photo nearest to its center. `python -m benchmarks.labeling` compares the choice with a
random one.

Shapes: N photos, C features, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from anklealign.cleaning import duplicate_clusters
from anklealign.io.pixel_store import Pixels
from anklealign.similarity.registration import PhotoMatcher

Floats = npt.NDArray[np.floating[Any]]

CANDIDATES = 10  # of the most uncertain photos per photo that is chosen, as in the paper
DIGITS = 6  # another number of threads changes the eighth digit of a probability


def uncertainty(probabilities: Floats) -> npt.NDArray[np.float64]:
    """Return 1 minus the margin of the two most probable classes: (N, K) -> (N,), 0 to 1."""
    ordered = np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0)
    return np.asarray(1 - margin, np.float64).round(DIGITS)


def choose(features: Floats, uncertain: Floats, names: Sequence[str], count: int) -> list[int]:
    """Return up to `count` photos, the most uncertain first; the same for any order of the photos.

    Args:
        features: (N, C).
        uncertain: (N,) uncertainties.
        names: N different names, such as hashes, that decide ties.
        count: Number of photos.
    """
    order = sorted(range(len(names)), key=lambda n: (-float(uncertain[n]), names[n]))
    candidates = np.array(order[: CANDIDATES * count], np.int64)
    if len(candidates) <= count:
        return [int(n) for n in candidates]
    own = np.asarray(features, np.float64)[candidates]
    unit = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    weights = np.maximum(np.asarray(uncertain, np.float64)[candidates], 10.0**-DIGITS)
    with threadpool_limits(1):  # another number of threads rounds, and then clusters, differently
        clusters = min(count, len(np.unique(unit.round(DIGITS), axis=0)))
        fitted = KMeans(clusters, n_init=4, random_state=0).fit(unit, sample_weight=weights)
        distance = ((unit - fitted.cluster_centers_[fitted.labels_]) ** 2).sum(1).round(DIGITS)
    nearest: dict[int, int] = {}
    for place in np.argsort(distance, kind="stable").tolist():  # candidates are in order
        nearest.setdefault(int(fitted.labels_[place]), place)
    # With fewer different photos than wanted, the most uncertain others fill up.
    chosen = dict.fromkeys([*nearest.values(), *range(len(candidates))])
    return [int(candidates[place]) for place in sorted(list(chosen)[:count])]


def without_duplicates(
    labeled: Sequence[Pixels],
    unlabeled: Sequence[Pixels],
    *,
    distance: int,
    residual: float,
    squares: bool,
    mirror_safe: bool,
) -> list[int]:
    """Return the unlabeled photos that are no near-duplicates of a labeled or an earlier one.

    A near-duplicate is what clean calls one.

    Args:
        labeled: (H, W, 3) photos without letterbox.
        unlabeled: The same, in order of preference.
        distance: `clean.hash_distance`.
        residual: `clean.residual`.
        squares: Whether the photos were cropped to their center square.
        mirror_safe: Whether mirror images are duplicates.
    """
    photos = [*labeled, *unlabeled]
    clusters, _ = duplicate_clusters.find_clusters(
        PhotoMatcher(photos, squares=squares),
        range(len(photos)),
        distance,
        residual,
        mirror_safe=mirror_safe,
    )
    repeated = {photo for cluster in clusters for photo in cluster.duplicates}
    return [n for n in range(len(unlabeled)) if n + len(labeled) not in repeated]
