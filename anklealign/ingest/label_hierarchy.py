"""Labels of hierarchical answers: Taxonomy and nested Choices of Label Studio.

An answer is the path from the topmost choice to the selected one, such as (Animal, cat). Taxonomy,
and Choices with allowNested, export paths. Choices that only nest their tags export a flat list in
which each parent precedes its children: [Animal, cat]. A question with several independent answers
exports the same form: [cat, blurred]. `find_ancestors` tells them apart by all answers of a
dataset, and `as_paths` converts a flat list into paths.

The label is the last level of the path (the leaf) or the level that the dataset config chooses.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from anklealign.config.class_names import Labels

AnswerPath = tuple[str, ...]
SEPARATOR = "/"  # the default of Taxonomy's pathSeparator
# An ancestor precedes its descendants in at least this number and share of the lists that have it,
# so that one annotation with two answers by mistake is not read as a hierarchy.
LEAST_LISTS = 2
LEAST_SHARE = 0.5


def find_ancestors(lists: Iterable[Sequence[str]]) -> dict[str, AnswerPath]:
    """Return the ancestors of each choice, topmost first, by all flat lists of one question."""
    lists = [list(dict.fromkeys(choices)) for choices in lists]
    before: dict[str, set[str]] = {}
    for choices in lists:
        for position, choice in enumerate(choices):
            earlier = set(choices[:position])
            before[choice] = before[choice] & earlier if choice in before else earlier
    occurrences = Counter(choice for choices in lists for choice in choices)
    with_descendant: Counter[str] = Counter()
    for choices in lists:
        with_descendant.update(set().union(*(before[choice] for choice in choices)))
    ancestors = {
        choice
        for choice, count in with_descendant.items()
        if count >= LEAST_LISTS and count >= LEAST_SHARE * occurrences[choice]
    }
    # The topmost ancestor has the fewest ancestors of its own.
    return {
        choice: tuple(sorted(earlier & ancestors, key=lambda name: (len(before[name]), name)))
        for choice, earlier in before.items()
    }


def as_paths(choices: Sequence[str], ancestors: Mapping[str, AnswerPath]) -> list[AnswerPath]:
    """Return the paths of a flat list; a choice without ancestors is a path of one level."""
    return [(*ancestors.get(choice, ()), choice) for choice in choices]


def deepest(paths: Iterable[AnswerPath]) -> list[AnswerPath]:
    """Return the distinct paths that are not the start of another path."""
    distinct = list(dict.fromkeys(paths))
    return [
        path
        for path in distinct
        if not any(len(other) > len(path) and other[: len(path)] == path for other in distinct)
    ]


def recurring_leaves(paths: Iterable[AnswerPath]) -> set[str]:
    """Return the leaves that occur below several parents, such as Left/other and Right/other."""
    parents: dict[str, set[AnswerPath]] = defaultdict(set)
    for path in paths:
        parents[path[-1]].add(path[:-1])
    return {leaf for leaf, above in parents.items() if len(above) > 1}


def label_text(
    path: AnswerPath,
    level: int | None,
    labels: Labels | None = None,
    recurring: Collection[str] = (),
) -> str:
    """Return the label of an answer.

    Args:
        path: The answer.
        level: The level that is the label, 1 for the topmost; a shorter path has its leaf. None is
            the leaf.
        labels: The classes. If the full path (Left/other) is an alias of a class, it is the label.
        recurring: Leaves whose label is the full path, because they have several parents.
    """
    if level is not None:
        return path[min(level, len(path)) - 1]
    full = SEPARATOR.join(path)
    if path[-1] in recurring or (labels is not None and labels.class_of(full) is not None):
        return full
    return path[-1]
