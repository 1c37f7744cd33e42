"""Who belongs together, and the parts that share nobody.

A group is what must not be divided: a person (or a collector), joined with every other person who
shares a picture with them. `assign` deals groups to parts so that each part has each class in the
proportion of the whole. scikit-learn's StratifiedGroupKFold is not used: its shuffle changed
between releases, and one seed's parts were 38 points off.

What is dealt depends on the groups and the seed alone, and on no library's version: chance comes
from SHA-256, and of numpy only exact integers and single roundings of IEEE 754 (one division, one
difference, one maximum) decide. A sum of floats would not do, as its order is the library's choice.

Shapes: G groups, P parts, K classes, S deals looked at together.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# A deal this near to what was asked is taken as it is; searching on to the very optimum would give
# every seed the same parts.
ENOUGH = 0.01
# A deal that no move betters is taken when it is this near, else the next deal is tried. 5 points
# and what rounding adds: 11 of 20 less a half are 0.05000000000000004.
ALLOWED = 0.05 + 1e-12
# In 605 random cases of 6 to 10 groups in which some assignment has the classes within 5 points,
# found by trying every one, these always found such a one, with the best sizes there are or sizes
# within 5 points.
DEALS = 300
WORK = 25_000_000  # numbers looked at in a search, at most: some second and a half
MOVES = 200  # looked at together, with their 20,000 pairs, in some 10 ms


class InfeasibleError(ValueError):
    """Some part cannot have some class; says which class, in how many groups, and which parts."""


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


def deviation(counts: Integers) -> float:
    """Return how far the parts' classes are from the whole's: (P, K) photos -> 0 to 1.

    The largest difference between a class's share of a part and its share of all photos; 0.05 is 5
    points. Sizes do not count: a part may be as small as it likes.
    """
    return float(_off(counts[None])[0].max())


def assign(
    groups: Mapping[str, Integers],
    shares: Mapping[str, float],
    classes: Sequence[str],
    seed: int,
) -> dict[str, str]:
    """Deal groups to parts, stratified by class.

    The groups are dealt in a seeded order; then the best move of a group to another part, or the
    best pair of such moves (a swap is one), is made for as long as one helps. The first deal that
    ends with every class's share of each part, and every part's share of all photos, within 5
    points of what was asked is taken. Where none does, classes come first: of the deals with
    every class within 5 points that with the nearest sizes; without any, the nearest in both.

    Args:
        groups: Name to (K,) photos per class.
        shares: Part to its share of the photos; the shares sum to 1.
        classes: Names of the K classes, for the error.
        seed: Another seed gives other parts, where several will do.

    Returns:
        Group name to part; every part has every class.

    Raises:
        InfeasibleError: Some part cannot have some class.
    """
    parts = list(shares)
    wanted = np.array([shares[part] for part in parts])
    names = sorted(groups)
    counts = np.array([groups[name] for name in names], np.int64).reshape(-1, len(classes))
    holders = (counts > 0).sum(0)
    listed = ", ".join(parts)
    for name, holding in zip(classes, holders.tolist(), strict=True):
        if holding < len(parts):
            raise InfeasibleError(
                f"class {name} has photos in {holding} group{'' if holding == 1 else 's'}, but "
                f"each of the {len(parts)} parts ({listed}) needs one"
            )

    position = {name: i for i, name in enumerate(names)}
    best, found, work = np.inf, np.zeros(0, np.int64), 0
    for deal in range(DEALS):
        shuffled = np.array([position[name] for name in order(names, seed, deal)])
        start = (_greedy if len(names) > MOVES else _stretches)(counts, wanted, shuffled)
        dealt, worst, looked = _improve(counts, wanted, shuffled, start, WORK - work)
        work += looked
        if worst < best:
            best, found = worst, dealt
        if best <= ALLOWED or work >= WORK:
            break
    if best >= 2:
        part, k = np.argwhere(_tally(counts, found, len(parts)) == 0)[0]
        raise InfeasibleError(
            f"class {classes[k]} has photos in {holders[k]} groups, but no way was found to give "
            f"each of the {len(parts)} parts ({listed}) every class: {parts[part]} stayed without "
            "it, as its groups hold other classes' photos too"
        )
    return {name: parts[found[i]] for i, name in enumerate(names)}


def _stretches(counts: Integers, shares: Floats, shuffled: Integers) -> Integers:
    """Return (G,) parts: to each its stretch of the shuffled groups, as long as its share."""
    sizes = counts.sum(1)[shuffled]
    middles = np.cumsum(sizes) - sizes / 2
    found = np.zeros(len(counts), np.int64)
    found[shuffled] = np.searchsorted(np.cumsum(shares)[:-1] * sizes.sum(), middles)
    return found


def _greedy(counts: Integers, shares: Floats, shuffled: Integers) -> Integers:
    """Return (G,) parts: each group's is the one that lacks most of its classes by then.

    For many groups, which moves of one or two would be slow to sort. The larger come first, by
    powers of two: within one the order is the seed's. Where the largest group takes so much of a
    class that the other parts cannot have their share of it, these are to be smaller.
    """
    totals = counts.sum(0)
    roomy = shares.argmax()
    left = ((totals - counts[counts.sum(1).argmax()]) / totals).min()
    if left < 1 - shares[roomy]:
        shares = shares * (left / (1 - shares[roomy]))
        shares[roomy] = 1 - left
    target = shares[:, None] * totals
    tally = np.zeros_like(target)
    found = np.zeros(len(counts), np.int64)
    powers = np.frexp(counts.sum(1)[shuffled])[1]
    for g in shuffled[np.argsort(-powers, kind="stable")]:
        # The growth of chi-square; in whole millionths, whose sum is exact.
        growth = counts[g] * (2 * (tally - target) + counts[g]) / np.maximum(target, 1)
        found[g] = np.rint(growth * 1e6).astype(np.int64).sum(1).argmin()
        tally[found[g]] += counts[g]
    return found


def _improve(
    counts: Integers, shares: Floats, shuffled: Integers, found: Integers, work: int
) -> tuple[Integers, float, int]:
    """Move groups, the best one or two at a time, while that helps.

    Args:
        counts: (G, K).
        shares: (P,).
        shuffled: (G,) places in counts, in the order in which they are tried.
        found: (G,) parts to start from; changed in place.
        work: Numbers that may be looked at.

    Returns:
        (G,) parts; the worst difference, plus 1 for each class that a part lacks; the numbers
        looked at.
    """
    parts = len(shares)
    most = MOVES // (parts - 1)
    eye = np.eye(parts, dtype=np.int64)
    tally = _tally(counts, found, parts)
    (worst,), (cost,) = _cost(tally[None], shares)
    looked = idle = 0
    # `idle` counts groups tried in vain; where all fit into one try, the first such try ends it.
    while worst > ENOUGH and looked < work and idle < len(counts):
        tried = _candidates(counts, tally, shuffled, most)
        shuffled = np.roll(shuffled, -most)
        group = np.repeat(tried, parts - 1)
        to = (found[group] + np.tile(np.arange(1, parts), len(tried))) % parts
        change = (eye[to] - eye[found[group]])[:, :, None] * counts[group][:, None]
        one, other = np.triu_indices(len(group))
        apart = (group[one] != group[other]) | (one == other)
        one, other = one[apart], other[apart]
        # A move paired with itself stands for the move alone.
        moves = change[one] + change[other] * (one != other)[:, None, None]
        worsts, costs = _cost(tally + moves, shares)
        looked += moves.size
        best = int(costs.argmin())
        if costs[best] < cost:
            tally, worst, cost, idle = tally + moves[best], worsts[best], costs[best], 0
            found[group[one[best]]], found[group[other[best]]] = to[one[best]], to[other[best]]
        else:
            idle += most
    return found, float(worst), looked


def _candidates(counts: Integers, tally: Integers, shuffled: Integers, most: int) -> Integers:
    """Return the first groups in order; while a part lacks classes, of those that have them."""
    lacking = (tally == 0).any(0)
    if len(shuffled) > most and lacking.any():
        shuffled = shuffled[counts[shuffled][:, lacking].any(1)]
    return shuffled[:most]


def _tally(counts: Integers, found: Integers, parts: int) -> Integers:
    """Photos per part and class: (G, K), (G,) -> (P, K)."""
    tally = np.zeros((parts, counts.shape[1]), np.int64)
    np.add.at(tally, found, counts)
    return tally


def _off(tallies: Integers) -> Floats:
    """(S, P, K) -> (S, P, K): each class's share of a part, against its share of the whole."""
    whole = tallies.sum(1, keepdims=True)
    within = tallies / np.maximum(tallies.sum(2, keepdims=True), 1)
    off: Floats = np.abs(within - whole / whole.sum(2, keepdims=True))
    return off


def _cost(tallies: Integers, shares: Floats) -> tuple[Floats, Floats]:
    """Return the worst differences and what a search lessens: (S, P, K), (P,) -> (S,), (S,).

    The worst difference is of classes and sizes. One is added where a class is more than 5 points
    off, so that sizes give way to classes; where a part lacks classes, one and their number. The
    search also lessens the squares of all differences, or else it would stand still wherever no
    one move betters the worst.
    """
    sizes = tallies.sum(2)
    off_size = np.abs(sizes / sizes.sum(1, keepdims=True) - shares)
    off_class = _off(tallies)
    off = np.concatenate([off_class, off_size[:, :, None]], axis=2)
    lacking = (tallies == 0).sum((1, 2))
    beyond = off_class.max((1, 2)) > ALLOWED
    worst: Floats = off.max((1, 2)) + np.where(lacking, 1 + lacking, beyond)
    millionths = np.rint(off * 1e6).astype(np.int64)
    cost: Floats = worst + (millionths**2).sum((1, 2)) / 1e12
    return worst, cost


def folds(
    groups: Mapping[str, Integers], count: int, classes: Sequence[str], seed: int
) -> dict[str, int]:
    """Deal groups to equal folds: each group to one, numbered from 0.

    Raises:
        InfeasibleError: Some fold cannot have some class.
    """
    names = {f"fold {i}": i for i in range(count)}
    dealt = assign(groups, dict.fromkeys(names, 1 / count), classes, seed)
    return {group: names[part] for group, part in dealt.items()}
