"""Agreement on published examples, on random votes and on simulated annotators."""

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
def test_alpha_matches_the_published_examples(data, ordered, published):
    assert agreement.krippendorff_alpha(*data, ordered=ordered) == pytest.approx(
        published, abs=0.0006
    )


random_votes = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.integers(1, 12)
        .flatmap(
            lambda photos: st.integers(1, 6).flatmap(
                lambda count: st.lists(
                    st.lists(st.integers(-1, classes - 1), min_size=count, max_size=count),
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


@given(random_votes, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_alpha_does_not_depend_on_order_or_direction_of_the_scale(data, random):
    votes, classes = data
    rows, columns = list(range(len(votes))), list(range(votes.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    expected = numbers(votes, classes)
    np.testing.assert_allclose(numbers(votes[rows][:, columns], classes), expected, atol=1e-9)
    turned = np.where(votes == NO_VOTE, NO_VOTE, classes - 1 - votes)
    np.testing.assert_allclose(numbers(turned, classes), expected, atol=1e-9)


@given(random_votes, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_nominal_alpha_does_not_depend_on_the_class_order(data, random):
    votes, classes = data
    names = list(range(classes))
    random.shuffle(names)
    renamed = np.where(votes == NO_VOTE, NO_VOTE, np.array(names)[votes])
    np.testing.assert_allclose(
        agreement.krippendorff_alpha(renamed, classes),
        agreement.krippendorff_alpha(votes, classes),
        atol=1e-9,
    )


@given(random_votes)
@settings(max_examples=100, deadline=None)
def test_alpha_is_at_most_1_and_1_if_all_agree(data):
    votes, classes = data
    for ordered in (False, True):
        found = agreement.krippendorff_alpha(votes, classes, ordered=ordered)
        assert np.isnan(found) or found <= 1 + 1e-9
        same = np.where(votes == NO_VOTE, NO_VOTE, votes.max(1, keepdims=True))
        perfect = agreement.krippendorff_alpha(same, classes, ordered=ordered)
        assert np.isnan(perfect) or perfect == pytest.approx(1)


@given(random_votes)
@settings(max_examples=100, deadline=None)
def test_a_photo_with_one_vote_does_not_affect_alpha(data):
    votes, classes = data
    alone = np.full((1, votes.shape[1]), NO_VOTE)
    alone[0, 0] = 0
    more = np.vstack([votes, alone])
    np.testing.assert_allclose(numbers(more, classes), numbers(votes, classes), atol=1e-9)


def test_alpha_is_near_0_by_chance_and_negative_for_systematic_disagreement():
    rng = np.random.default_rng(1)
    assert abs(agreement.krippendorff_alpha(rng.integers(0, 3, (4000, 4)), 3)) < 0.02
    assert agreement.krippendorff_alpha(np.array([[0, 1], [1, 0], [0, 1]]), 2) < -0.5


def test_ordinal_alpha_penalizes_opposites_more_than_neighbors():
    def of(mistake):
        votes = np.array([[0, 0], [1, 1], [2, 2]] * 5 + [[0, mistake]])
        return agreement.krippendorff_alpha(votes, 3, ordered=True)

    assert of(1) > of(2)


def test_undefined_numbers_are_omitted_from_the_metrics():
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


def test_agreement_matches_a_calculation_by_hand():
    votes = np.array([[0, 0, 1], [1, 1, 1], [2, 0, NO_VOTE]])
    assert agreement.pairwise_agreement(votes, 3) == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert agreement.modal_shares(votes, 3).tolist() == pytest.approx([2 / 3, 1, 1 / 2])
    # The first: half of a tie, then right, then wrong.
    assert agreement.leave_one_out_agreement(votes, 3).tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_metric_keys_contain_no_dot_and_every_annotator():
    found = agreement.agreement_metrics(
        np.array([[0, 1, 0]]), ["a.b", "a_b", "c"], 2, ordered=False
    )
    assert list(found["by_annotator"]) == ["a_b", "a_b_", "c"]


def test_votes_become_a_matrix():
    rows = [("p2", "b", "cat"), ("p1", "a", "dog"), ("p1", "b", "cat")]
    table = pd.DataFrame(rows, columns=["photo", "annotator", "label"])
    photos, annotators, votes = agreement.vote_matrix(table, ["cat", "dog"])
    assert (photos, annotators) == (["p1", "p2"], ["a", "b"])
    assert votes.tolist() == [[1, 0], [NO_VOTE, 0]]


def settled(row, own=NO_VOTE, *, ordered=True, method="majority"):
    found = agreement.aggregate(np.array([row]), np.array([own]), 3, method=method, ordered=ordered)
    return int(found.labels[0]), bool(found.tied[0])


def test_the_majority_overrides_the_label_of_the_photo():
    assert settled([0, 0, 1], own=1) == (0, False)


def test_ordered_classes_break_a_tie_by_the_mean_vote():
    assert settled([0, 0, 1, 1, 2]) == (1, True)
    assert settled([0, 0, 1, 1, 2], own=0) == (1, True)
    assert settled([0, 0, 1, 1, 2], ordered=False) == (NO_VOTE, True)


def test_unordered_classes_break_a_tie_by_the_label_of_the_photo():
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


def test_dawid_skene_matches_the_paper():
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


def simulate_votes(seed, count=18, photos=53):
    """Return true classes and votes of annotators of unequal accuracy, as many as on real photos.

    Each annotator votes for the true class with a probability of 0 to 0.9, and otherwise draws
    from a distribution of their own. Two annotators agree on half of the photos on average.
    """
    rng = np.random.default_rng(seed)
    true = rng.choice(3, photos, p=PREVALENCE)
    votes_true = rng.random((photos, count)) < rng.uniform(0, 0.9, count)
    preference = rng.dirichlet(np.ones(3), count)
    guess = (rng.random((photos, count, 1)) > preference.cumsum(1)[None, :, :2]).sum(2)
    votes = np.where(votes_true, true[:, None], guess)
    votes[rng.random(votes.shape) < 0.05] = NO_VOTE
    return true, votes


@pytest.fixture(scope="module")
def simulated():
    """Return accuracy of majority and model, worst annotator named, and agreement per set."""
    rows = []
    for seed in SETS:
        true, votes = simulate_votes(seed)
        given = agreement.one_hot_votes(votes, 3)
        counts = given.sum(1)
        first = counts == counts.max(1, keepdims=True)
        # A tie counts as the expected accuracy of a random choice between the tied classes.
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
