"""Annotators and the model are scored against the same reference votes."""

import numpy as np
import pandas as pd

from anklealign.evaluation.human_baseline import (
    leave_one_out_majority,
    scored_votes,
    scores_by_annotator,
)

CLASSES = ["a", "b", "c"]


def votes(**photos: str) -> pd.DataFrame:
    """Return votes: p1="aab" means u, v, w vote a, a, b on p1; a dot means no vote."""
    rows = [
        (photo, annotator, label)
        for photo, labels in photos.items()
        for annotator, label in zip("uvwx", labels, strict=False)
        if label != "."
    ]
    return pd.DataFrame(rows, columns=["photo", "annotator", "label"])


def test_own_vote_is_excluded_from_the_majority():
    table = votes(p1="aab", p2="abb", p3="cc")
    assert leave_one_out_majority(table, "w", CLASSES).to_dict() == {"p1": 0, "p3": 2}
    # On p1 the others of u are v and w, a and b: a tie. On p3 only v is left.
    assert leave_one_out_majority(table, "u", CLASSES).to_dict() == {"p2": 1, "p3": 2}


def test_annotators_and_model_are_scored_on_the_same_photos():
    table = votes(p1="aaab", p2="bbba", p3="cccc", p4="a", elsewhere="ab")
    rows = scored_votes(table, ["p1", "p2", "p3", "p4", "p5"], np.array([0, 1, 0, 0, 2]), CLASSES)
    assert set(rows.photo) == {"p1", "p2", "p3"}  # p4 has no other votes
    assert len(rows) == 12
    found = scores_by_annotator(rows, 3).set_index("annotator")
    assert found.photos.tolist() == [3] * 4
    assert found.accuracy.round(3).tolist() == [1, 1, 1, 0.333]
    assert found.model_accuracy.round(3).tolist() == [0.667] * 4
    assert found.balanced_accuracy.round(3).tolist() == [1, 1, 1, 0.333]


def test_a_tie_of_the_others_scores_nobody():
    rows = scored_votes(votes(p1="ab."), ["p1"], np.array([0]), CLASSES)
    assert len(rows) == 2  # each of the two annotators is the reference of the other
    rows = scored_votes(votes(p1="abc"), ["p1"], np.array([0]), CLASSES)
    assert rows.empty
    assert scores_by_annotator(rows, 3).empty


def test_unknown_labels_unknown_photos_and_empty_tables_are_not_scored():
    assert scored_votes(votes(), ["p1"], np.array([0]), CLASSES).empty
    assert scored_votes(votes(p2="aa"), ["p1"], np.array([0]), CLASSES).empty
    assert scored_votes(votes(p1="zz"), ["p1"], np.array([0]), CLASSES).empty


def test_order_of_votes_does_not_matter():
    table = votes(p1="aabc", p2="bbba", p3="ccac")
    predicted = np.array([0, 1, 0])
    shuffled = table.sample(frac=1, random_state=1)
    one, other = (
        scored_votes(t, ["p1", "p2", "p3"], predicted, CLASSES) for t in (table, shuffled)
    )
    pd.testing.assert_frame_equal(one, other)
