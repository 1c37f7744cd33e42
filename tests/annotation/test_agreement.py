"""Agreement by published examples, by what must hold for all votes, and on simulated people."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.annotation import agreement
from anklealign.annotation.agreement import NO_VOTE


def reliability(*rows):
    """Return (N, A) votes and the number of classes of a table with a row for each observer."""
    values = sorted({cell for row in rows for cell in row.split()} - {"."})
    index = {value: k for k, value in enumerate(values)} | {".": NO_VOTE}
    return np.array([[index[cell] for cell in row.split()] for row in rows]).T, len(values)


# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), sections A, B and C to E.
BINARY = reliability("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")
NOMINAL = reliability("a a b b d c c c e d d a", "b a b b b c c c e d d d")
MISSING = reliability(
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
# The worked example of the encyclopaedia's article on Krippendorff's alpha: 3 coders, 15 units.
ARTICLE = reliability(
    ". . . . . 3 4 1 2 1 1 3 3 . 3",
    "1 . 2 1 3 3 4 3 . . . . . . .",
    ". . 2 1 3 4 4 . 2 1 1 3 3 . 4",
)
# Hayes and Krippendorff, Answering the Call for a Standard Reliability Measure for Coding Data,
# Communication Methods and Measures 1 (2007) 77, table 1: the tone of 40 articles, 5 observers.
TONE = reliability(
    "1 1 2 . 0 0 1 1 2 2 . 0 1 3 1 1 2 1 1 0 0 0 2 0 1 0 0 1 1 1 1 2 2 3 2 2 2 2 2 1",
    "1 1 3 0 0 0 0 . 2 1 1 0 2 3 1 1 1 2 1 0 0 0 3 0 2 1 0 2 1 1 1 1 2 2 2 2 2 2 2 1",
    "2 0 3 0 0 0 2 2 2 1 0 0 2 2 1 1 2 3 0 0 1 . 3 0 . 1 0 1 2 2 0 2 . 2 2 3 2 . 2 1",
    ". 1 3 . . . . 0 . 1 0 0 2 2 . . . 3 1 . 1 0 3 0 2 1 1 2 2 . . 1 2 2 . . . 1 2 .",
    "2 . . 0 0 0 1 . 2 . . . . 3 1 1 2 . . 0 . 0 . . 2 . 0 . . 2 0 . 2 . 2 2 2 2 . 1",
)


@pytest.mark.parametrize(
    ("data", "ordered", "published"),
    [
        (BINARY, False, 0.095),
        (BINARY, True, 0.095),  # with two values all differences are one
        (NOMINAL, False, 0.692),
        (MISSING, False, 0.743),
        (MISSING, True, 0.815),
        (ARTICLE, False, 0.691),
        (TONE, False, 0.477),
        (TONE, True, 0.7598),
    ],
)
def test_alpha_is_that_of_the_published_examples(data, ordered, published):
    assert agreement.krippendorff_alpha(*data, ordered=ordered) == pytest.approx(
        published, abs=0.0006
    )


votes_of_people = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.integers(1, 12)
        .flatmap(
            lambda photos: st.integers(1, 6).flatmap(
                lambda people: st.lists(
                    st.lists(st.integers(-1, classes - 1), min_size=people, max_size=people),
                    min_size=photos,
                    max_size=photos,
                )
            )
        )
        .map(np.array),
        st.just(classes),
    )
)


def numbers(votes, classes):
    return [
        agreement.krippendorff_alpha(votes, classes),
        agreement.krippendorff_alpha(votes, classes, ordered=True),
        agreement.pairwise_agreement(votes, classes),
        *np.sort(agreement.modal_shares(votes, classes)),
        *np.sort(agreement.leave_one_out_agreement(votes, classes)),
    ]


@given(votes_of_people, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_photos_and_people_and_the_direction_of_the_scale_change_nothing(data, random):
    votes, classes = data
    rows, columns = list(range(len(votes))), list(range(votes.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    expected = numbers(votes, classes)
    np.testing.assert_allclose(numbers(votes[rows][:, columns], classes), expected, atol=1e-9)
    turned = np.where(votes == NO_VOTE, NO_VOTE, classes - 1 - votes)
    np.testing.assert_allclose(numbers(turned, classes), expected, atol=1e-9)


@given(votes_of_people, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_nominal_alpha_does_not_know_the_names_of_the_classes(data, random):
    votes, classes = data
    names = list(range(classes))
    random.shuffle(names)
    renamed = np.where(votes == NO_VOTE, NO_VOTE, np.array(names)[votes])
    np.testing.assert_allclose(
        agreement.krippendorff_alpha(renamed, classes),
        agreement.krippendorff_alpha(votes, classes),
        atol=1e-9,
    )


@given(votes_of_people)
@settings(max_examples=100, deadline=None)
def test_alpha_is_1_where_all_agree_and_never_more(data):
    votes, classes = data
    for ordered in (False, True):
        found = agreement.krippendorff_alpha(votes, classes, ordered=ordered)
        assert np.isnan(found) or found <= 1 + 1e-9
        same = np.where(votes == NO_VOTE, NO_VOTE, votes.max(1, keepdims=True))
        perfect = agreement.krippendorff_alpha(same, classes, ordered=ordered)
        assert np.isnan(perfect) or perfect == pytest.approx(1)


@given(votes_of_people)
@settings(max_examples=100, deadline=None)
def test_a_photo_with_one_vote_says_nothing_of_agreement(data):
    votes, classes = data
    alone = np.full((1, votes.shape[1]), NO_VOTE)
    alone[0, 0] = 0
    more = np.vstack([votes, alone])
    np.testing.assert_allclose(numbers(more, classes), numbers(votes, classes), atol=1e-9)


def test_alpha_is_near_0_by_chance_and_below_where_people_contradict_each_other():
    rng = np.random.default_rng(1)
    assert abs(agreement.krippendorff_alpha(rng.integers(0, 3, (4000, 4)), 3)) < 0.02
    assert agreement.krippendorff_alpha(np.array([[0, 1], [1, 0], [0, 1]]), 2) < -0.5


def test_ordinal_alpha_forgives_neighbours_rather_than_opposites():
    def of(mistake):
        votes = np.array([[0, 0], [1, 1], [2, 2]] * 5 + [[0, mistake]])
        return agreement.krippendorff_alpha(votes, 3, ordered=True)

    assert of(1) > of(2)


def test_where_nothing_can_differ_numbers_are_left_out_of_the_metrics():
    same = np.zeros((4, 3), np.int64)
    assert np.isnan(agreement.krippendorff_alpha(same, 2))
    found = agreement.agreement_metrics(same, ["a", "b", "c"], 2, ordered=True)
    assert "alpha_nominal" not in found
    assert found["pairwise"] == 1
    alone = agreement.agreement_metrics(np.array([[0], [1]]), ["a"], 2, ordered=False)
    assert set(alone) == {"votes", "photos", "annotators", "by_annotator"}
    assert set(alone["by_annotator"]["a"]) == {"votes", "dawid_skene"}
    nobody = agreement.agreement_metrics(np.zeros((0, 0), np.int64), [], 3, ordered=True)
    assert nobody == {"votes": 0, "photos": 0, "annotators": 0}


def test_agreement_by_hand():
    votes = np.array([[0, 0, 1], [1, 1, 1], [2, 0, NO_VOTE]])
    assert agreement.pairwise_agreement(votes, 3) == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert agreement.modal_shares(votes, 3).tolist() == pytest.approx([2 / 3, 1, 1 / 2])
    # The first: half of a tie, then right, then wrong.
    assert agreement.leave_one_out_agreement(votes, 3).tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_metric_keys_hold_no_dot_and_lose_nobody():
    found = agreement.agreement_metrics(
        np.array([[0, 1, 0]]), ["a.b", "a_b", "c"], 2, ordered=False
    )
    assert list(found["by_annotator"]) == ["a_b", "a_b_", "c"]


def test_votes_become_a_matrix():
    rows = [("p2", "b", "cat"), ("p1", "a", "dog"), ("p1", "b", "cat")]
    table = pd.DataFrame(rows, columns=["photo", "annotator", "label"])
    photos, people, votes = agreement.vote_matrix(table, ["cat", "dog"])
    assert (photos, people) == (["p1", "p2"], ["a", "b"])
    assert votes.tolist() == [[1, 0], [NO_VOTE, 0]]


def settled(row, own=NO_VOTE, *, ordered=True, method="majority"):
    found = agreement.aggregate(np.array([row]), np.array([own]), 3, method=method, ordered=ordered)
    return int(found.labels[0]), bool(found.tied[0])


def test_the_majority_wins_whatever_the_photos_own_label():
    assert settled([0, 0, 1], own=1) == (0, False)


def test_a_tie_goes_to_the_class_nearest_the_votes_mean_on_a_scale_alone():
    assert settled([0, 0, 1, 1, 2]) == (1, True)
    assert settled([0, 0, 1, 1, 2], own=0) == (1, True)
    assert settled([0, 0, 1, 1, 2], ordered=False) == (NO_VOTE, True)


def test_else_a_tie_goes_to_the_photos_own_label_or_stays():
    assert settled([0, 2], own=2) == (2, True)
    assert settled([0, 2], own=1) == (NO_VOTE, True)
    assert settled([0, 2]) == (NO_VOTE, True)
    assert settled([0, 0, 1, 1, 2], own=0, ordered=False) == (0, True)


def test_soft_labels_are_shares_of_the_votes_or_probabilities():
    votes = np.array([[0, 0, 1, NO_VOTE], [2, 2, 2, 2]])
    shares = agreement.aggregate(
        votes, np.full(2, NO_VOTE), 3, method="majority", ordered=False
    ).soft
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [0, 0, 1]])
    likely = agreement.aggregate(
        votes, np.full(2, NO_VOTE), 3, method="dawid_skene", ordered=False
    ).soft
    np.testing.assert_allclose(likely.sum(1), 1)
    assert likely.argmax(1).tolist() == [0, 2]


# Dawid and Skene (1979), table 1: how fit 45 patients are for anaesthesia, on a scale of 1 to 4, by
# five observers, the first of whom looked three times.
ANAESTHESIA = """
    111 1 1 1 1/333 4 3 3 4/112 2 1 2 2/222 3 1 2 1/222 3 2 2 2/222 3 3 2 2/122 2 1 1 1/333 3 4 3 3
    222 2 2 2 3/232 2 2 2 3/444 4 4 4 4/222 3 3 4 3/111 1 1 1 1/222 3 2 1 2/121 1 1 1 1/111 2 1 1 1
    111 1 1 1 1/111 1 1 1 1/222 2 2 2 1/222 1 3 2 2/222 2 2 2 2/222 2 2 2 1/222 3 2 2 2/221 2 2 2 2
    111 1 1 1 1/111 1 1 1 1/232 2 2 2 2/111 1 1 1 1/111 1 1 1 1/112 1 1 2 1/111 1 1 1 1/333 3 2 3 3
    111 1 1 1 1/222 2 2 2 2/222 3 2 3 2/433 4 3 4 3/221 2 2 3 2/232 3 2 3 3/333 3 4 3 2/111 1 1 1 1
    111 1 1 1 1/121 2 1 1 1/232 2 2 2 2/121 1 1 1 1/222 2 2 2 2"""


def test_dawid_skene_is_that_of_the_paper():
    patients = [row.split() for line in ANAESTHESIA.split("\n")[1:] for row in line.split("/")]
    given = np.zeros((45, 5, 4))
    for patient, observers in enumerate(patients):
        for observer, looks in enumerate(observers):
            for value in looks:
                given[patient, observer, int(value) - 1] += 1
    found = agreement.dawid_skene(given, prior=0)
    # Their table 2: the four classes' shares, and the first observer's error rates.
    np.testing.assert_allclose(found.prevalence, [0.40, 0.42, 0.11, 0.07], atol=0.005)
    np.testing.assert_allclose(
        found.confusion[0],
        [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]],
        atol=0.005,
    )


PREVALENCE = np.array([0.41, 0.43, 0.16])
SETS = range(1000, 1050)  # 0 to 49 chose the prior


def people(seed, count=18, photos=53):
    """Return true classes and the votes of unequal people, as many as on the real photos.

    Each knows a photo's class with a probability of 0 to 0.9, and else guesses by leanings of
    their own; any two agree on half of the photos.
    """
    rng = np.random.default_rng(seed)
    true = rng.choice(3, photos, p=PREVALENCE)
    knows = rng.random((photos, count)) < rng.uniform(0, 0.9, count)
    leaning = rng.dirichlet(np.ones(3), count)
    guess = (rng.random((photos, count, 1)) > leaning.cumsum(1)[None, :, :2]).sum(2)
    votes = np.where(knows, true[:, None], guess)
    votes[rng.random(votes.shape) < 0.05] = NO_VOTE
    return true, votes


@pytest.fixture(scope="module")
def simulated():
    """Return for each set: majority's and the model's share of true labels, the worst by both."""
    rows = []
    for seed in SETS:
        true, votes = people(seed)
        given = agreement.one_hot_votes(votes, 3)
        counts = given.sum(1)
        first = counts == counts.max(1, keepdims=True)
        # A tie is worth what a fair choice between the tied gets right: no rule does better.
        majority = (first / first.sum(1, keepdims=True))[range(len(true)), true].mean()
        found = agreement.dawid_skene(given)
        model = (found.posterior.argmax(1) == true).mean()
        right = ((votes == true[:, None]) & (votes != NO_VOTE)).sum(0) / (votes != NO_VOTE).sum(0)
        named = right[found.accuracy().argmin()] == right.min()
        rows.append((majority, model, named, agreement.pairwise_agreement(votes, 3)))
    return np.array(rows)


def test_dawid_skene_recovers_at_least_as_many_true_labels_as_the_majority(simulated):
    majority, model, _, pairwise = simulated.mean(0)
    print(
        f"{len(SETS)} sets: majority {majority:.4f}, Dawid-Skene {model:.4f}, pairs {pairwise:.2f}"
    )
    assert model >= majority
    assert majority < 0.99  # where the majority is always right there is nothing to show


def test_dawid_skene_names_the_worst_annotator_in_most_sets(simulated):
    named = int(simulated[:, 2].sum())
    print(f"the annotator with the fewest right votes is named in {named} of {len(SETS)} sets")
    assert named > len(SETS) // 2
