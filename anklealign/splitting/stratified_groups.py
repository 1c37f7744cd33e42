"""Form groups of photos and assign them to splits, stratified by class.

A group is not divided between splits: a subject (or a collector), joined with every other one that
shares a picture with it. `assign` gives each split each class in the proportion of the whole.
scikit-learn's StratifiedGroupKFold is not used: its shuffle changed between releases, and for one
seed its class shares were off by 38 points.

The result depends only on the groups and the seed, not on the version of any library: randomness
comes from SHA-256, and only exact integers and single IEEE 754 roundings of numpy (one division,
one difference, one maximum) affect decisions. A sum of floats would not do, as its order is up to
the library.

Shapes: G groups, P splits, K classes, S candidate assignments evaluated together.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import DisjointSet

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# An assignment this close to the requested shares is accepted at once; searching on to the optimum
# would give every seed the same splits.
CLOSE_ENOUGH = 0.01
# An assignment that no move improves is accepted if it is this close; otherwise the search restarts
# from another one. 5 points plus rounding: 11 of 20 minus a half is 0.05000000000000004.
ALLOWED = 0.05 + 1e-12
# In 605 random cases of 6 to 10 groups in which exhaustive search found an assignment with the
# classes within 5 points, these restarts always found one too, with the best possible sizes or with
# sizes within 5 points.
RESTARTS = 300
WORK = 25_000_000  # numbers evaluated in a search, at most: about a second and a half
MOVES = 200  # evaluated together, with their 20,000 pairs, in about 10 ms


class InfeasibleError(ValueError):
    """A split cannot have a class; the message names the class, its group count, and the splits."""


def connected_groups(photos: Sequence[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return each photo's group: photos connected by shared links, even indirectly, form a group.

    Args:
        photos: Ids.
        links: (photo id, name of what it belongs to), such as a subject or a duplicate cluster. Ids
            may be missing from `photos`: a removed duplicate still joins two subjects.

    Returns:
        Photo id to group name: the smallest of the group's link names, or the photo's own id. The
        name therefore does not depend on the order of the rows.
    """
    nodes = DisjointSet(("photo", photo) for photo in photos)
    for photo, link in links:
        for node in (("photo", photo), ("link", link)):
            nodes.add(node)
        nodes.merge(("photo", photo), ("link", link))
    # Links sort before photos, and small names before large.
    names = {node: min(group)[1] for group in nodes.subsets() for node in group}
    return {photo: names["photo", photo] for photo in photos}


def hash_order(names: Iterable[str], *keys: object) -> list[str]:
    """Return the names in a pseudorandom order that depends only on the keys.

    SHA-256 is used because the stream of a random generator may change with its library.
    """
    salt = "/".join(str(key) for key in keys)
    return sorted(set(names), key=lambda n: hashlib.sha256(f"{salt}/{n}".encode()).hexdigest())


def deviation(counts: Integers) -> float:
    """Return how far the splits' class shares are from the whole's: (P, K) photos -> 0 to 1.

    The largest difference between a class's share of a split and its share of all photos; 0.05 is 5
    points. The sizes of the splits do not count.
    """
    return float(_class_errors(counts[None])[0].max())


def assign(
    groups: Mapping[str, Integers],
    shares: Mapping[str, float],
    classes: Sequence[str],
    seed: int,
    start: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Assign groups to splits, stratified by class.

    The groups are assigned in a seeded order. Then the best move of a group to another split, or
    the best pair of such moves (for example a swap), is made as long as one improves the result.
    The first assignment with every class's share of each split, and every split's share of all
    photos, within 5 points of the request is returned. If there is none, classes take precedence:
    of the assignments with every class within 5 points, the one with the closest sizes; if there is
    none of these either, the closest in both.

    Args:
        groups: Name to (K,) photos per class.
        shares: Split to its share of the photos; the shares sum to 1.
        classes: Names of the K classes, for the error message.
        seed: Different seeds give different splits where several are possible.
        start: Group name to split; the assignment to improve first, instead of a seeded one.

    Returns:
        Group name to split; every split has every class.

    Raises:
        InfeasibleError: A split cannot have a class.
    """
    splits = list(shares)
    targets = np.array([shares[split] for split in splits])
    names = sorted(groups)
    counts = np.array([groups[name] for name in names], np.int64).reshape(-1, len(classes))
    groups_with = (counts > 0).sum(0)
    listed = ", ".join(splits)
    for name, count in zip(classes, groups_with.tolist(), strict=True):
        if count < len(splits):
            raise InfeasibleError(
                f"class {name} has photos in {count} group{'' if count == 1 else 's'}, but each of "
                f"the {len(splits)} splits ({listed}) needs one"
            )

    position = {name: i for i, name in enumerate(names)}
    best, assignment, work = np.inf, np.zeros(0, np.int64), 0
    for restart in range(RESTARTS):
        shuffled = np.array([position[name] for name in hash_order(names, seed, restart)])
        if start and not restart:
            first = np.array([splits.index(start[name]) for name in names])
        else:
            first = (_greedy if len(names) > MOVES else _consecutive)(counts, targets, shuffled)
        improved, worst, evaluated = _improve(counts, targets, shuffled, first, WORK - work)
        work += evaluated
        if worst < best:
            best, assignment = worst, improved
        if best <= ALLOWED or work >= WORK:
            break
    if best >= 2:
        split, k = np.argwhere(_tally(counts, assignment, len(splits)) == 0)[0]
        raise InfeasibleError(
            f"class {classes[k]} has photos in {groups_with[k]} groups, but no assignment was "
            f"found that gives each of the {len(splits)} splits ({listed}) every class: "
            f"{splits[split]} lacks it, because its groups also hold photos of other classes"
        )
    return {name: splits[assignment[i]] for i, name in enumerate(names)}


def _consecutive(counts: Integers, shares: Floats, shuffled: Integers) -> Integers:
    """Return (G,) splits: each gets consecutive shuffled groups, according to its share."""
    sizes = counts.sum(1)[shuffled]
    middles = np.cumsum(sizes) - sizes / 2
    assignment = np.zeros(len(counts), np.int64)
    assignment[shuffled] = np.searchsorted(np.cumsum(shares)[:-1] * sizes.sum(), middles)
    return assignment


def _greedy(counts: Integers, shares: Floats, shuffled: Integers) -> Integers:
    """Return (G,) splits: each group goes to the split that lacks its classes most at that point.

    For many groups, where moves of one or two would be slow. Larger groups come first, by powers of
    two; within a power, the order is the seed's. If the largest group holds so much of a class that
    the other splits cannot have their share of it, these are made smaller.
    """
    totals = counts.sum(0)
    largest = shares.argmax()
    left = ((totals - counts[counts.sum(1).argmax()]) / totals).min()
    if left < 1 - shares[largest]:
        shares = shares * (left / (1 - shares[largest]))
        shares[largest] = 1 - left
    target = shares[:, None] * totals
    tally = np.zeros_like(target)
    assignment = np.zeros(len(counts), np.int64)
    powers = np.frexp(counts.sum(1)[shuffled])[1]
    for g in shuffled[np.argsort(-powers, kind="stable")]:
        # The growth of chi-square, in whole millionths, whose sum is exact.
        growth = counts[g] * (2 * (tally - target) + counts[g]) / np.maximum(target, 1)
        assignment[g] = np.rint(growth * 1e6).astype(np.int64).sum(1).argmin()
        tally[assignment[g]] += counts[g]
    return assignment


def _improve(
    counts: Integers, shares: Floats, shuffled: Integers, assignment: Integers, work: int
) -> tuple[Integers, float, int]:
    """Move groups, the best one or two at a time, as long as that improves the assignment.

    Args:
        counts: (G, K).
        shares: (P,).
        shuffled: (G,) positions in counts, in the order in which they are tried.
        assignment: (G,) initial splits; changed in place.
        work: Maximum of numbers to evaluate.

    Returns:
        (G,) splits; the worst difference, plus 1 for each class that a split lacks; the count of
        numbers evaluated.
    """
    splits = len(shares)
    batch = MOVES // (splits - 1)
    eye = np.eye(splits, dtype=np.int64)
    tally = _tally(counts, assignment, splits)
    (worst,), (cost,) = _cost(tally[None], shares)
    evaluated = idle = 0
    # `idle` counts groups tried in vain; if all fit into one batch, the first such batch ends it.
    while worst > CLOSE_ENOUGH and evaluated < work and idle < len(counts):
        candidates = _candidates(counts, tally, shuffled, batch)
        shuffled = np.roll(shuffled, -batch)
        group = np.repeat(candidates, splits - 1)
        to = (assignment[group] + np.tile(np.arange(1, splits), len(candidates))) % splits
        change = (eye[to] - eye[assignment[group]])[:, :, None] * counts[group][:, None]
        one, other = np.triu_indices(len(group))
        distinct = (group[one] != group[other]) | (one == other)
        one, other = one[distinct], other[distinct]
        # A move paired with itself represents that move alone.
        moves = change[one] + change[other] * (one != other)[:, None, None]
        worsts, costs = _cost(tally + moves, shares)
        evaluated += moves.size
        best = int(costs.argmin())
        if costs[best] < cost:
            tally, worst, cost, idle = tally + moves[best], worsts[best], costs[best], 0
            assignment[group[one[best]]] = to[one[best]]
            assignment[group[other[best]]] = to[other[best]]
        else:
            idle += batch
    return assignment, float(worst), evaluated


def _candidates(counts: Integers, tally: Integers, shuffled: Integers, batch: int) -> Integers:
    """Return the first groups in order; while a split lacks classes, only groups with these."""
    lacking = (tally == 0).any(0)
    if len(shuffled) > batch and lacking.any():
        shuffled = shuffled[counts[shuffled][:, lacking].any(1)]
    return shuffled[:batch]


def _tally(counts: Integers, assignment: Integers, splits: int) -> Integers:
    """Return the photos per split and class: (G, K), (G,) -> (P, K)."""
    tally = np.zeros((splits, counts.shape[1]), np.int64)
    np.add.at(tally, assignment, counts)
    return tally


def _class_errors(tallies: Integers) -> Floats:
    """Return each class's share of a split minus its share of the whole, absolute.

    (S, P, K) -> (S, P, K).
    """
    whole = tallies.sum(1, keepdims=True)
    within = tallies / np.maximum(tallies.sum(2, keepdims=True), 1)
    errors: Floats = np.abs(within - whole / whole.sum(2, keepdims=True))
    return errors


def _cost(tallies: Integers, shares: Floats) -> tuple[Floats, Floats]:
    """Return the worst differences and the costs to minimize: (S, P, K), (P,) -> (S,), (S,).

    The worst difference is of classes and sizes. One is added if a class is more than 5 points off,
    so that classes take precedence over sizes; if splits lack classes, one plus their number. The
    cost adds the squares of all differences; without them the search would stop wherever no single
    move improves the worst difference.
    """
    sizes = tallies.sum(2)
    size_errors = np.abs(sizes / sizes.sum(1, keepdims=True) - shares)
    class_errors = _class_errors(tallies)
    errors = np.concatenate([class_errors, size_errors[:, :, None]], axis=2)
    lacking = (tallies == 0).sum((1, 2))
    beyond = class_errors.max((1, 2)) > ALLOWED
    worst: Floats = errors.max((1, 2)) + np.where(lacking, 1 + lacking, beyond)
    millionths = np.rint(errors * 1e6).astype(np.int64)
    cost: Floats = worst + (millionths**2).sum((1, 2)) / 1e12
    return worst, cost


def folds(
    groups: Mapping[str, Integers], count: int, classes: Sequence[str], seed: int
) -> dict[str, int]:
    """Assign groups to folds of equal size, numbered from 0.

    Raises:
        InfeasibleError: A fold cannot have a class.
    """
    names = {f"fold {i}": i for i in range(count)}
    assignment = assign(groups, dict.fromkeys(names, 1 / count), classes, seed)
    return {group: names[fold] for group, fold in assignment.items()}
