"""The benchmark of clean measures what it documents, and clean meets its targets on a small set."""

import pandas as pd
import pytest

from benchmarks import cleaning
from benchmarks.cleaning import EXACT, JOINED, LOST, OPPOSED, CorruptedSet, Outcome

BLURRED = "blurred, sigma 1.5% of the side"


def corrupted() -> CorruptedSet:
    """Two intact photos with a twin, a blurred photo, and a contradiction."""
    rows = [
        ("a/good.jpg", 0, ""), ("a/twin.jpg", 0, EXACT), ("a/other.jpg", 1, ""),
        ("a/mirrored.jpg", 1, "flipped horizontally"), ("a/soft.jpg", 1, BLURRED),
        ("a/yes.jpg", 2, OPPOSED), ("b/no.jpg", 2, OPPOSED),
    ]  # fmt: skip
    return CorruptedSet(
        cleaning.ROOT, pd.DataFrame(rows, columns=["path", "source", "kind"]).set_index("path")
    )


REASONS = {
    "a/twin.jpg": "exact_duplicate",
    "a/mirrored.jpg": "near_duplicate",
    "a/soft.jpg": "blurred",
    "a/yes.jpg": "contradicting_labels",
    "b/no.jpg": "contradicting_labels",
}
ALIKE = [{"a/good.jpg", "a/twin.jpg"}, {"a/other.jpg", "a/mirrored.jpg"}]


def outcome(reasons: dict[str, str], groups: list[set[str]]) -> Outcome:
    alike = {path: group - {path} for group in groups for path in group}
    removed = pd.DataFrame({"reason": reasons})
    return Outcome(alike, {p for p, r in reasons.items() if r in {"blurred", "dark"}}, 1, removed)


def missed_kinds(reasons: dict[str, str], groups: list[set[str]]) -> list[str]:
    """Return which of the injected kinds miss their target."""
    lines = cleaning.missed_targets(corrupted(), outcome(reasons, groups))
    return [line.split(":")[0] for line in lines]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kinds that are not injected here
@pytest.mark.parametrize(
    ("change", "groups", "missed"),
    [
        ({}, ALIKE, []),
        ({"a/twin.jpg": "near_duplicate"}, ALIKE, ["a/twin.jpg"]),
        ({}, ALIKE[1:], [EXACT]),
        ({}, ALIKE[:1], ["flipped horizontally"]),
        ({"a/mirrored.jpg": ""}, ALIKE, ["flipped horizontally"]),  # in one cluster, and both kept
        ({"a/soft.jpg": "dark"}, ALIKE, [BLURRED]),
        ({"b/no.jpg": ""}, ALIKE, [OPPOSED]),
        ({"a/other.jpg": "blurred"}, ALIKE, [LOST]),
        ({"a/other.jpg": "near_duplicate"}, ALIKE, [LOST]),  # and no copy stays
        # and only a blurred copy stays
        ({"a/other.jpg": "near_duplicate", "a/soft.jpg": ""}, ALIKE, [BLURRED, LOST]),
        ({}, [ALIKE[0] | ALIKE[1]], [JOINED]),
    ],
)
def test_each_miss_misses_its_target_and_nothing_else_does(change, groups, missed) -> None:
    reasons = {path: reason for path, reason in (REASONS | change).items() if reason}
    assert missed_kinds(reasons, groups) == missed


@pytest.mark.slow
def test_clean_meets_its_targets_on_two_dozen_photos(tmp_path) -> None:
    sources = cleaning.drawn(2, maximum=24)
    few = cleaning.inject(sources, tmp_path / "corrupted", each=6, contradicting=4)
    result = cleaning.ours(few, tmp_path / "work", "letterbox")
    assert cleaning.missed_targets(few, result) == []
