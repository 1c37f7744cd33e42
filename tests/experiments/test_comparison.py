import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from anklealign.experiments.comparison import Answers, differences, mcnemar, pair, report
from benchmarks.comparison import rates, simulate

CLASSES = ["a", "b", "c"]


def predictions(answers: Answers, probabilities) -> pd.DataFrame:
    numbers = range(len(answers.labels))
    table = pd.DataFrame(
        {
            "id": [f"{n:012x}" for n in numbers],
            "path": [f"p{n}.jpg" for n in numbers],
            "group": [f"person:{g}" for g in answers.groups],
            "actual": [CLASSES[k] for k in answers.labels],
            "sha256": [f"{n:064x}" for n in numbers],
        }
    )
    return table.assign(**{f"p_{name}": probabilities[:, k] for k, name in enumerate(CLASSES)})


@pytest.fixture
def answers():
    return simulate(30, 1.5, np.random.default_rng(1))


@pytest.fixture
def tables(answers):
    return predictions(answers, answers.first), predictions(answers, answers.second)


def test_a_model_is_within_noise_of_itself(answers):
    same = Answers(answers.labels, answers.groups, answers.first, answers.first)
    for difference in differences(same, 500).values():
        assert difference.verdict == "within noise"
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_a_much_better_model_is_better_and_the_other_worse():
    answers = simulate(60, 3.0, np.random.default_rng(2))
    turned = Answers(answers.labels, answers.groups, answers.second, answers.first)
    for name, difference in differences(answers, 500).items():
        assert difference.verdict == "better", name
        assert differences(turned, 500)[name].verdict == "worse"


def test_a_difference_on_one_person_alone_is_noise():
    labels = np.zeros(40, np.int64)
    first = np.tile([0.9, 0.1], (40, 1))
    second = first.copy()
    second[:20] = [0.1, 0.9]  # the largest person's twenty photos, all wrong
    groups = np.r_[np.zeros(20, np.int64), 1 + np.arange(20)]
    difference = differences(Answers(labels, groups, first, second), 500)["accuracy"]
    assert difference.value == -0.5
    assert difference.verdict == "within noise"
    # Photo by photo the same would look certain.
    assert mcnemar(Answers(labels, groups, first, second)) == (20, 0, pytest.approx(2 * 0.5**20))


def test_the_scores_are_those_of_scikit_learn(answers):
    found = differences(answers, 10)
    said = answers.second.argmax(1)
    assert found["accuracy"].second == pytest.approx(metrics.accuracy_score(answers.labels, said))
    balanced = metrics.balanced_accuracy_score(answers.labels, said)
    assert found["balanced_accuracy"].second == pytest.approx(balanced)
    assert found["log_loss"].second == pytest.approx(
        metrics.log_loss(answers.labels, answers.second)
    )


def test_mcnemar_counts_what_one_alone_had_right():
    labels = np.zeros(12, np.int64)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    first = np.array([right] * 9 + [wrong] * 3)
    second = np.array([right] * 8 + [wrong] * 1 + [right] * 3)
    lost, won, p = mcnemar(Answers(labels, np.arange(12), first, second))
    assert (lost, won) == (1, 3)
    assert p == pytest.approx(0.625)  # 2 (1 + 4) / 2^4


def test_pairing_does_not_depend_on_the_order_of_rows_or_columns(tables, answers):
    first, second = tables
    shuffled = second.sample(frac=1, random_state=0)
    shuffled = shuffled[[*shuffled.columns[:4], "sha256", "p_c", "p_a", "p_b"]]
    found = pair(first.sample(frac=1, random_state=1), shuffled, ("x", "y"))
    assert (found.labels == answers.labels).all()
    assert np.allclose(found.first, answers.first)
    assert np.allclose(found.second, answers.second)
    assert differences(found, 200) == differences(pair(first, second, ("x", "y")), 200)


def test_groups_that_touch_are_joined(tables):
    first, second = tables
    coarse = second.assign(group="all")
    assert set(pair(first, coarse, ("x", "y")).groups) == {0}
    assert len(set(pair(first, second, ("x", "y")).groups)) == 30


def test_other_test_photos_are_refused_with_their_names(tables):
    first, second = tables
    with pytest.raises(ValueError, match=r"1 of the \d+ test photos of main.* not mine's.*p3\.jpg"):
        pair(first, second.drop(3), ("main", "mine"))
    with pytest.raises(ValueError, match=r"test photos of mine are not main's, such as p0\.jpg"):
        pair(first.drop(0), second, ("main", "mine"))


def test_other_labels_are_refused_with_their_names(tables):
    first, second = tables
    second.loc[4, "actual"] = "b" if second.actual[4] != "b" else "a"
    with pytest.raises(ValueError, match=r"1 photos have another label in mine.*p4\.jpg \("):
        pair(first, second, ("main", "mine"))


def test_other_pictures_under_the_same_paths_are_refused_with_their_names(tables):
    first, second = tables
    second.loc[5, "sha256"] = "0" * 64
    with pytest.raises(ValueError, match=r"1 of \d+ photos are other pictures in mine.*p5\.jpg"):
        pair(first, second, ("main", "mine"))
    with pytest.raises(ValueError, match=r"predictions\.csv of main has no column sha256"):
        pair(first.drop(columns="sha256"), second, ("main", "mine"))


def test_other_classes_are_refused(tables):
    first, second = tables
    with pytest.raises(ValueError, match="main knows the classes a, b, c, mine a, b"):
        pair(first, second.drop(columns="p_c"), ("main", "mine"))


def test_the_report_says_it_in_words(answers):
    lines = report(answers, "main", "mine", "accuracy")
    verdict = differences(answers)["accuracy"].verdict
    words = "within noise" if verdict == "within noise" else f"mine is {verdict} than main"
    assert words in lines[0]
    assert any("McNemar" in line for line in lines)


def test_noise_that_the_interval_takes_for_a_difference_is_explained():
    first = np.tile([0.9, 0.1], (20, 1))
    second = first.copy()
    second[::2] = [0.1, 0.9]  # half of each of five persons' photos
    groups = np.repeat(np.arange(5), 4)
    lines = report(
        Answers(np.zeros(20, np.int64), groups, first, second), "main", "mine", "accuracy"
    )
    assert "within noise" in lines[0]
    assert "interval -0.500 to -0.500" in lines[1]
    assert "the interval alone leaves 0 out" in lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("groups", [15, 20, 60])
def test_false_alarms_are_at_most_five_percent(groups):
    sets = 500
    limit = 0.05 + 2 * (0.05 * 0.95 / sets) ** 0.5
    assert max(rates(groups, 0.0, sets).values()) <= limit


@pytest.mark.slow
def test_a_gain_of_one_logit_is_seen_on_sixty_persons():
    assert min(rates(60, 1.0, 200).values()) >= 0.7
