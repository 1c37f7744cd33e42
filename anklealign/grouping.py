"""Who belongs together, and the parts that share nobody.

A group is what must not be divided: a person (or a collector), joined with every other person who
shares a picture with them. `assign` deals groups to parts so that each part has each class in the
proportion of the whole. scikit-learn's StratifiedGroupKFold is not used: its shuffle changed
between releases, and one seed's parts were 38 points off.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# A start is good enough when every part's class shares and sizes are this near to what was asked.
# Searching on to the very optimum would give every seed the same parts.
GOOD_ENOUGH = 0.01
STARTS = 24
# 3 parts and 11 groups make 177,147 assignments: a second to look at each.
EXHAUSTIVE = 200_000


def join(photos: Sequence[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return each photo's group: photos with a link in common, by however many steps, share one.

    Args:
        photos: Ids.
        links: (photo id, name of what it belongs to), such as a person or a duplicate cluster; ids
            may stand here that are not in `photos`: a removed copy still joins two persons.

    Returns:
        Photo id to group name: the smallest of the group's link names, or the photo's own id. So
        the name does not depend on the order of the rows.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for photo, link in links:
        one, other = root(("photo", photo)), root(("link", link))
        # Links sort before photos, and small names before large: the root is the group's name.
        parent[max(one, other)] = min(one, other)
    return {photo: root(("photo", photo))[1] for photo in photos}


def order(names: Iterable[str], *keys: object) -> list[str]:
    """Return the names in an order that looks random and depends on the keys alone.

    By SHA-256, as a random generator's stream may change with its library.
    """
    salt = "/".join(str(key) for key in keys)
    return sorted(set(names), key=lambda n: hashlib.sha256(f"{salt}/{n}".encode()).hexdigest())


def deviation(counts: Integers, shares: Floats) -> float:
    """Return how far parts are from what was asked: (P, K), (P,) -> largest difference, 0 to 1.

    The larger of: a class's share within a part against its share in the whole; a part's share of
    all photos against the share asked for. 0.05 is 5 points.
    """
    return float(_deviations(counts[None], shares)[0])


def _deviations(counts: Integers, shares: Floats) -> Floats:
    """(S, P, K), (P,) -> (S,)."""
    sizes = counts.sum(-1)
    whole = counts.sum(-2)
    total = whole.sum(-1)
    within = counts / np.maximum(sizes, 1)[..., None]
    of_class = np.abs(within - (whole / total[:, None])[:, None]).max((-2, -1))
    of_size = np.abs(sizes / total[:, None] - shares).max(-1)
    larger: Floats = np.maximum(of_class, of_size)
    return larger


def assign(
    groups: Mapping[str, Integers],
    shares: Mapping[str, float],
    classes: Sequence[str],
    seed: int,
) -> dict[str, str]:
    """Deal groups to parts, stratified by class.

    Greedy from the largest group on, then single moves and swaps while they help, from several
    seeded orders; where few groups leave that above 5 points, every assignment is looked at.

    Args:
        groups: Name to (K,) photos per class.
        shares: Part to its share of the photos; the shares sum to 1.
        classes: Names of the K classes, for the error.
        seed: Another seed gives other parts.

    Returns:
        Group name to part.

    Raises:
        ValueError: Some part cannot have some class.
    """
    parts = list(shares)
    wanted = np.array([shares[part] for part in parts])
    for k, name in enumerate(classes):
        holders = sum(1 for counts in groups.values() if counts[k])
        if holders < len(parts):
            raise ValueError(
                f"class {name} has {holders} group(s) of photos, but each of the {len(parts)} "
                f"parts ({', '.join(parts)}) needs one; add photos of other persons, merge the "
                "class with another in its dataset's classes, or, where they are set otherwise, "
                "choose split.group: person or fewer split.folds"
            )
    best: tuple[float, Integers] | None = None
    names = sorted(groups)
    counts = np.array([groups[name] for name in names], np.int64)
    position = {name: i for i, name in enumerate(names)}
    for start in range(STARTS):
        shuffled = np.array([position[name] for name in order(names, seed, start)])
        found = _search(counts, wanted, shuffled)
        cost = _cost(_tally(counts, found, len(parts))[None], wanted)[0]
        if best is None or cost < best[0]:
            best = cost, found
        if cost <= GOOD_ENOUGH:
            break
    assert best is not None  # noqa: S101 - STARTS is above 0
    if best[0] > 0.05 and len(parts) ** len(names) <= EXHAUSTIVE:
        best = _exhaustive(counts, wanted)
    if best[0] >= 1:
        tally = _tally(counts, best[1], len(parts))
        part, k = np.argwhere(tally == 0)[0]
        raise ValueError(
            f"class {classes[k]} cannot be in every part: {parts[part]} stays without, as its "
            f"photos lie in {int((counts[:, k] > 0).sum())} groups that other classes share; add "
            "photos of other persons, or merge classes in datasets.<name>.classes"
        )
    return {name: parts[best[1][i]] for i, name in enumerate(names)}


def _tally(counts: Integers, found: Integers, parts: int) -> Integers:
    """Photos per part and class: (G, K), (G,) -> (P, K)."""
    tally = np.zeros((parts, counts.shape[1]), np.int64)
    np.add.at(tally, found, counts)
    return tally


def _cost(tallies: Integers, shares: Floats) -> Floats:
    """(S, P, K) -> (S,): the deviation, plus 1 for each class that a part lacks."""
    cost: Floats = _deviations(tallies, shares) + (tallies == 0).sum((-2, -1))
    return cost


def _search(counts: Integers, shares: Floats, shuffled: Integers) -> Integers:
    """Return a part for each group: (G, K), (P,), (G,) -> (G,)."""
    parts = len(shares)
    target = shares[:, None] * counts.sum(0)
    scale = 1 / np.maximum(target, 1)
    tally = np.zeros_like(target, dtype=np.int64)
    found = np.zeros(len(counts), np.int64)
    # Stable: groups of one size stay in their shuffled order.
    for g in shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]:
        # Chi-square growth of each part's gap: fills what is emptiest in this group's classes.
        before = ((tally - target) ** 2 * scale).sum(1)
        after = ((tally + counts[g] - target) ** 2 * scale).sum(1)
        part = int(np.argmin(after - before))
        found[g] = part
        tally[part] += counts[g]

    eye = np.eye(parts, dtype=np.int64)
    cost = _cost(tally[None], shares)[0]
    improved = cost > GOOD_ENOUGH
    while improved:
        improved = False
        for g in shuffled:
            here = found[g]
            # Every move of g: out of `here`, into each part.
            moves = tally + (eye - eye[here])[:, :, None] * counts[g]
            costs = _cost(moves, shares)
            to = int(np.argmin(costs))
            if costs[to] < cost - 1e-12:
                tally, cost, found[g], improved = moves[to], costs[to], to, True
                continue
            # Every swap of g with a group of another part that differs from it.
            others = np.flatnonzero(found != here)
            others = others[(counts[others] != counts[g]).any(1)][:512]
            if not len(others):
                continue
            change = (eye[found[others]] - eye[here])[:, :, None] * (counts[g] - counts[others])[
                :, None
            ]
            costs = _cost(tally + change, shares)
            with_ = int(np.argmin(costs))
            if costs[with_] < cost - 1e-12:
                other = others[with_]
                tally, cost, improved = tally + change[with_], costs[with_], True
                found[g], found[other] = found[other], here
        improved = improved and cost > GOOD_ENOUGH
    return found


def _exhaustive(counts: Integers, shares: Floats) -> tuple[float, Integers]:
    every = np.array(list(product(range(len(shares)), repeat=len(counts))), np.int64)
    tallies = np.stack([(every == p).astype(np.int64) @ counts for p in range(len(shares))], 1)
    costs = _cost(tallies, shares)
    best = int(np.argmin(costs))
    return float(costs[best]), every[best]


def folds(
    groups: Mapping[str, Integers], count: int, classes: Sequence[str], seed: int
) -> dict[str, int]:
    """Deal groups to equal folds: each group to one, numbered from 0.

    Raises:
        ValueError: A class has fewer groups than there are folds.
    """
    names = {f"fold {i}": i for i in range(count)}
    dealt = assign(groups, dict.fromkeys(names, 1 / count), classes, seed)
    return {group: names[part] for group, part in dealt.items()}
