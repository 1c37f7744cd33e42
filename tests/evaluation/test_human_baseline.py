"""People and model are judged by the same votes of others."""

import numpy as np
import pandas as pd

from anklealign.evaluation.human_baseline import (
    beside_people,
    by_annotator,
    others_majority,
)

CLASSES = ["a", "b", "c"]


def votes(**photos: str) -> pd.DataFrame:
    """votes(p1="aab") is: on p1, annotators u, v, w, … say a, a, b; a dot says nothing."""
    rows = [
        (photo, annotator, label)
        for photo, said in photos.items()
        for annotator, label in zip("uvwx", said, strict=False)
        if label != "."
    ]
    return pd.DataFrame(rows, columns=["photo", "annotator", "label"])


def test_the_own_vote_is_not_among_the_others():
    table = votes(p1="aab", p2="abb", p3="cc")
    assert others_majority(table, "w", CLASSES).to_dict() == {"p1": 0, "p3": 2}
    # On p1 the others of u are v and w, a and b: a tie. On p3 only v is left.
    assert others_majority(table, "u", CLASSES).to_dict() == {"p2": 1, "p3": 2}


def test_everyone_is_judged_beside_the_model_on_the_same_photos():
    table = votes(p1="aaab", p2="bbba", p3="cccc", p4="a", elsewhere="ab")
    rows = beside_people(table, ["p1", "p2", "p3", "p4", "p5"], np.array([0, 1, 0, 0, 2]), CLASSES)
    assert set(rows.photo) == {"p1", "p2", "p3"}  # nobody else saw p4
    assert len(rows) == 12
    found = by_annotator(rows, 3).set_index("annotator")
    assert found.photos.tolist() == [3] * 4
    assert found.accuracy.round(3).tolist() == [1, 1, 1, 0.333]
    assert found.model_accuracy.round(3).tolist() == [0.667] * 4
    assert found.balanced_accuracy.round(3).tolist() == [1, 1, 1, 0.333]


def test_a_tie_among_the_others_judges_nobody():
    rows = beside_people(votes(p1="ab."), ["p1"], np.array([0]), CLASSES)
    assert len(rows) == 2  # of two people, each is the other's only judge
    rows = beside_people(votes(p1="abc"), ["p1"], np.array([0]), CLASSES)
    assert rows.empty
    assert by_annotator(rows, 3).empty


def test_unknown_labels_and_photos_and_an_empty_table_are_no_votes():
    assert beside_people(votes(), ["p1"], np.array([0]), CLASSES).empty
    assert beside_people(votes(p2="aa"), ["p1"], np.array([0]), CLASSES).empty
    assert beside_people(votes(p1="zz"), ["p1"], np.array([0]), CLASSES).empty


def test_the_order_of_votes_changes_nothing():
    table = votes(p1="aabc", p2="bbba", p3="ccac")
    said = np.array([0, 1, 0])
    shuffled = table.sample(frac=1, random_state=1)
    one, other = (beside_people(t, ["p1", "p2", "p3"], said, CLASSES) for t in (table, shuffled))
    pd.testing.assert_frame_equal(one, other)
