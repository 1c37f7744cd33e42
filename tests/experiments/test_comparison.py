import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from anklealign.experiments.comparison import (
    PairedPredictions,
    differences,
    mcnemar,
    pair,
    report,
)
from anklealign.metrics.scores import confusion_scores, resample
from benchmarks.comparison import rates, simulate

CLASSES = ["a", "b", "c"]


def predictions(paired: PairedPredictions, probabilities) -> pd.DataFrame:
    numbers = range(len(paired.labels))
    table = pd.DataFrame(
        {
            "id": [f"{n:012x}" for n in numbers],
            "path": [f"p{n}.jpg" for n in numbers],
            "group": [f"subject:{g}" for g in paired.groups],
            "actual": [CLASSES[k] for k in paired.labels],
            "sha256": [f"{n:064x}" for n in numbers],
        }
    )
    return table.assign(**{f"p_{name}": probabilities[:, k] for k, name in enumerate(CLASSES)})


@pytest.fixture
def paired():
    return simulate(30, 1.5, np.random.default_rng(1))


@pytest.fixture
def tables(paired):
    return predictions(paired, paired.first), predictions(paired, paired.second)


def test_model_is_within_noise_of_itself(paired):
    same = PairedPredictions(paired.labels, paired.groups, paired.first, paired.first)
    for difference in differences(same, 500).values():
        assert difference.conclusion == "within noise"
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_much_better_model_is_better_and_the_other_worse():
    paired = simulate(60, 3.0, np.random.default_rng(2))
    turned = PairedPredictions(paired.labels, paired.groups, paired.second, paired.first)
    for name, difference in differences(paired, 500).items():
        assert difference.conclusion == "better", name
        assert differences(turned, 500)[name].conclusion == "worse"


def test_difference_on_a_single_group_is_noise():
    labels = np.zeros(40, np.int64)
    first = np.tile([0.9, 0.1], (40, 1))
    second = first.copy()
    second[:20] = [0.1, 0.9]  # all twenty photos of the largest group are wrong
    groups = np.r_[np.zeros(20, np.int64), 1 + np.arange(20)]
    difference = differences(PairedPredictions(labels, groups, first, second), 500)["accuracy"]
    assert difference.value == -0.5
    assert difference.conclusion == "within noise"
    # A test that treats photos as independent is significant.
    assert mcnemar(PairedPredictions(labels, groups, first, second)) == (
        20,
        0,
        pytest.approx(2 * 0.5**20),
    )


def test_the_scores_are_those_of_scikit_learn(paired):
    found = differences(paired, 10)
    predicted = paired.second.argmax(1)
    assert found["accuracy"].second == pytest.approx(
        metrics.accuracy_score(paired.labels, predicted)
    )
    balanced = metrics.balanced_accuracy_score(paired.labels, predicted)
    assert found["balanced_accuracy"].second == pytest.approx(balanced)
    assert found["log_loss"].second == pytest.approx(metrics.log_loss(paired.labels, paired.second))


def test_the_intervals_are_those_of_confusion_matrices_summed_over_resampled_groups(paired):
    found = differences(paired, 200, seed=3)
    draws = resample(30, 200, np.random.default_rng(3))
    drawn = []
    for probabilities in (paired.first, paired.second):
        predicted = probabilities.argmax(1)
        matrices = [
            metrics.confusion_matrix(
                paired.labels, predicted, labels=range(3), sample_weight=draw[paired.groups]
            )
            for draw in draws
        ]
        drawn.append(confusion_scores(np.stack(matrices))["macro_f1"])
    expected = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
    assert (found["macro_f1"].low, found["macro_f1"].high) == pytest.approx(tuple(expected))


def test_a_thousand_classes_need_no_matrix_of_all_pairs_per_group():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 400)
    first, second = rng.dirichlet(np.ones(1000), (2, 400))
    second[:300] = 0.5 * (second[:300] + np.eye(1000)[labels[:300]])
    tracemalloc.start()
    found = differences(PairedPredictions(labels, np.arange(400), first, second), 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # 400 matrices of 1,000 x 1,000 take 3.2 GB
    assert found["accuracy"].conclusion == "better"


def test_mcnemar_counts_photos_that_one_model_alone_classifies_correctly():
    labels = np.zeros(12, np.int64)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    first = np.array([right] * 9 + [wrong] * 3)
    second = np.array([right] * 8 + [wrong] * 1 + [right] * 3)
    lost, won, p = mcnemar(PairedPredictions(labels, np.arange(12), first, second))
    assert (lost, won) == (1, 3)
    assert p == pytest.approx(0.625)  # 2 (1 + 4) / 2^4


def test_pairing_does_not_depend_on_the_order_of_rows_or_columns(tables, paired):
    first, second = tables
    shuffled = second.sample(frac=1, random_state=0)
    shuffled = shuffled[[*shuffled.columns[:4], "sha256", "p_c", "p_a", "p_b"]]
    found = pair(first.sample(frac=1, random_state=1), shuffled, ("x", "y"))
    assert (found.labels == paired.labels).all()
    assert np.allclose(found.first, paired.first)
    assert np.allclose(found.second, paired.second)
    assert differences(found, 200) == differences(pair(first, second, ("x", "y")), 200)


def test_overlapping_groups_are_merged(tables):
    first, second = tables
    coarse = second.assign(group="all")
    assert set(pair(first, coarse, ("x", "y")).groups) == {0}
    assert len(set(pair(first, second, ("x", "y")).groups)) == 30


def test_different_test_photos_are_rejected_by_name(tables):
    first, second = tables
    with pytest.raises(
        ValueError, match=r"1 of the \d+ test photos of main are not in mine.*p3\.jpg"
    ):
        pair(first, second.drop(3), ("main", "mine"))
    with pytest.raises(ValueError, match=r"test photos of mine are not in main, such as p0\.jpg"):
        pair(first.drop(0), second, ("main", "mine"))


def test_different_labels_are_rejected_by_name(tables):
    first, second = tables
    second.loc[4, "actual"] = "b" if second.actual[4] != "b" else "a"
    with pytest.raises(ValueError, match=r"1 photos have different labels in mine.*p4\.jpg \("):
        pair(first, second, ("main", "mine"))


def test_different_content_under_the_same_path_is_rejected_by_name(tables):
    first, second = tables
    second.loc[5, "sha256"] = "0" * 64
    with pytest.raises(
        ValueError, match=r"1 of \d+ photos have different content in mine.*p5\.jpg"
    ):
        pair(first, second, ("main", "mine"))
    with pytest.raises(ValueError, match=r"predictions\.csv of main has no column sha256"):
        pair(first.drop(columns="sha256"), second, ("main", "mine"))


def test_different_classes_are_rejected(tables):
    first, second = tables
    with pytest.raises(ValueError, match="main has the classes a, b, c, mine has a, b"):
        pair(first, second.drop(columns="p_c"), ("main", "mine"))


def test_report_starts_with_the_conclusion(paired):
    lines = report(paired, "main", "mine", "accuracy")
    verdict = differences(paired)["accuracy"].conclusion
    expected = "within noise" if verdict == "within noise" else f"mine is {verdict} than main"
    assert expected in lines[0]
    assert any("McNemar" in line for line in lines)


def test_report_explains_a_ci_that_excludes_0_within_noise():
    first = np.tile([0.9, 0.1], (20, 1))
    second = first.copy()
    second[::2] = [0.1, 0.9]  # half of the photos of each of five groups
    groups = np.repeat(np.arange(5), 4)
    lines = report(
        PairedPredictions(np.zeros(20, np.int64), groups, first, second), "main", "mine", "accuracy"
    )
    assert "within noise" in lines[0]
    assert "95% CI -0.500 to -0.500" in lines[1]
    assert "the CI alone excludes 0" in lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("groups", [15, 20, 60])
def test_false_positive_rate_is_at_most_five_percent(groups):
    sets = 500
    limit = 0.05 + 2 * (0.05 * 0.95 / sets) ** 0.5
    assert max(rates(groups, 0.0, sets).values()) <= limit


@pytest.mark.slow
def test_gain_of_one_logit_is_detected_with_sixty_groups():
    assert min(rates(60, 1.0, 200).values()) >= 0.7
