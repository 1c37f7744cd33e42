"""anklealign/ingest/label_hierarchy.py: nested answers are told from several answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anklealign.config.class_names import Labels
from anklealign.ingest import label_hierarchy as tree

NESTED = [["Animal", "cat"], ["Animal", "dog"]] * 3 + [["Plant", "tree", "oak"], ["Plant", "moss"]]


def paths(lists):
    ancestors = tree.find_ancestors(lists)
    return [tree.deepest(tree.as_paths(choices, ancestors)) for choices in lists]


def test_parents_precede_their_children_in_every_list():
    lists = [*NESTED, ["Plant", "tree", "oak"]]
    assert paths(lists)[0] == [("Animal", "cat")]
    assert paths(lists)[-1] == [("Plant", "tree", "oak")]


def test_two_leaves_of_one_parent_are_two_answers():
    lists = [*NESTED, ["Animal", "cat", "dog"]]
    assert paths(lists)[-1] == [("Animal", "cat"), ("Animal", "dog")]


@pytest.mark.parametrize(
    "lists",
    [
        # Independent answers to one question.
        [["cat", "blurred"], ["dog", "blurred"], ["cat"], ["dog"]],
        # One annotation with two answers by mistake.
        [["cat"]] * 9 + [["dog"]] * 9 + [["cat", "dog"]],
        [["cat"]] * 9 + [["dog", "other"]] + [["dog"]] * 9,
        [["dog", "other"]],
    ],
)
def test_several_answers_are_no_path(lists):
    for choices, found in zip(lists, paths(lists), strict=True):
        assert found == [(choice,) for choice in choices]


@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.integers(0, 2), st.booleans()), min_size=30, max_size=60
    )
)
def test_any_tree_is_found_again(draws):
    full = [[top, f"{top}{n}", f"{top}{n}x"] for top, n, _ in draws]
    lists = [*full, *full]
    assert paths(lists) == [[tuple(path)] for path in lists]


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=20), st.randoms())
def test_the_order_of_the_lists_does_not_matter(lists, random):
    shuffled = list(lists)
    random.shuffle(shuffled)
    assert tree.find_ancestors(lists) == tree.find_ancestors(shuffled)
    for choices, found in zip(lists, paths(lists), strict=True):
        assert {path[-1] for path in found} <= set(choices)


@pytest.mark.parametrize(
    ("level", "text"), [(None, "oak"), (1, "Plant"), (2, "tree"), (3, "oak"), (9, "oak")]
)
def test_the_level_chooses_the_label(level, text):
    assert tree.label_text(("Plant", "tree", "oak"), level) == text


def test_a_class_may_be_a_full_path_and_leaves_of_several_parents_are():
    labels = Labels({"left other": ["Left/other"], "rest": []})
    assert tree.label_text(("Left", "other"), None, labels) == "Left/other"
    assert tree.label_text(("Right", "other"), None, labels) == "other"
    recurring = tree.recurring_leaves([("Left", "other"), ("Right", "other"), ("Left", "a")])
    assert recurring == {"other"}
    assert tree.label_text(("Left", "other"), None, recurring=recurring) == "Left/other"


def test_a_selected_parent_is_part_of_the_path_of_its_child():
    assert tree.deepest([("A",), ("A", "b"), ("C",), ("A", "b")]) == [("A", "b"), ("C",)]
