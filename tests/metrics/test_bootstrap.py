"""CIs resample whole groups, have the nominal coverage and are omitted when groups are few."""

import json
import subprocess
import sys

import numpy as np
import pytest

from anklealign.metrics import bootstrap
from anklealign.metrics.bootstrap import (
    mean_with_ci,
    pseudo_shapes,
    resampling_weights,
    scores_with_ci,
)
from anklealign.metrics.scores import margins
from benchmarks.intervals import (
    CASES,
    IN_USE,
    NAMES,
    coverage,
    group_confusions,
    simulate,
    textbook_intervals,
)


def guesses(seed: int, photos: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, photos - classes)])
    logits = rng.normal(size=(photos, classes)) + np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def estimates(labels, probabilities, groups, **changes):
    options = {"resamples": 1000, "confidence": 0.95, "seed": 1} | changes
    baseline = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    return scores_with_ci(labels, probabilities, groups, baseline, **options)


def width(parts):
    return parts["ci_high"] - parts["ci_low"]


def test_without_pseudo_groups_it_is_the_bayesian_bootstrap(monkeypatch):
    monkeypatch.setattr(bootstrap, "PSEUDO_GROUPS", 1e-9)
    labels, probabilities = guesses(3, 400, 3)
    scores = estimates(labels, probabilities, [f"g{i // 4:03}" for i in range(400)], resamples=4000)
    right = (probabilities.argmax(1) == labels).reshape(100, 4).mean(1)
    # On a hundred groups of one size the mean is nearly normal.
    error = right.std(ddof=1) / 10
    assert width(scores["accuracy"]) == pytest.approx(2 * 1.98 * error, rel=0.05)


def test_photos_of_a_group_share_a_weight_and_blocks_are_complete(monkeypatch):
    monkeypatch.setattr(bootstrap, "BLOCK_SIZE", 100)
    codes = np.array([0, 0, 1, 2, 2, 2])
    blocks = list(resampling_weights(codes, 3, np.full(4, 0.25), 50, np.random.default_rng(0)))
    assert len(blocks) > 1
    drawn = np.concatenate(blocks)
    assert drawn.shape == (50, 10)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    np.testing.assert_array_equal(drawn[:, 3], drawn[:, 5])
    assert np.ptp(drawn[:, 2]) > 0


def test_photos_of_one_group_widen_the_ci():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 400)
    right = np.repeat(
        rng.random(40) < 0.7, 10
    )  # all photos of a group are correct or all are wrong
    probabilities = np.where((np.eye(2)[labels] == 1) == right[:, None], 0.9, 0.1)
    grouped = estimates(labels, probabilities, [f"p{i // 10}" for i in range(400)])["accuracy"]
    single = estimates(labels, probabilities, [f"p{i}" for i in range(400)])["accuracy"]
    assert width(grouped) > 2 * width(single)


def test_row_order_does_not_matter():
    labels, probabilities = guesses(3, 60, 3)
    groups = np.array([f"g{i // 4:02}" for i in range(60)])
    shuffled = np.random.default_rng(0).permutation(60)
    one = estimates(labels, probabilities, list(groups))
    other = estimates(labels[shuffled], probabilities[shuffled], list(groups[shuffled]))
    for name, parts in one.items():
        for part, value in parts.items():
            np.testing.assert_allclose(other[name][part], value, atol=1e-9, err_msg=name)


def test_every_ci_contains_its_score():
    labels, probabilities = guesses(4, 80, 3)
    for name, parts in estimates(labels, probabilities, [f"g{i // 4}" for i in range(80)]).items():
        for value, prefix in ((parts["value"], ""), (parts["gain"], "gain_")):
            assert np.all(parts[f"{prefix}ci_low"] <= value), name
            assert np.all(parts[f"{prefix}ci_high"] >= value), name
        assert np.all(parts["gain"] == parts["value"] - parts["majority"]), name
        assert np.all(parts["ci_high"] > parts["ci_low"]), name


def test_gain_is_the_paired_difference_to_the_majority():
    labels, probabilities = guesses(3, 300, 3)
    gain = estimates(labels, probabilities, [str(i) for i in range(300)])["accuracy"]
    assert gain["gain"] == pytest.approx(gain["value"] - np.bincount(labels).max() / 300)
    assert 0 < gain["gain_ci_low"] < gain["gain"] < gain["gain_ci_high"]


def test_perfect_test_split_keeps_a_ci_that_narrows_with_more_groups():
    widths = []
    for groups in (10, 20, 60):
        labels = np.repeat(np.arange(groups) % 3, 3)
        scores = estimates(
            labels, np.eye(3)[labels] * 0.94 + 0.02, [f"{i // 3}" for i in range(3 * groups)]
        )
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "roc_auc"):
            assert scores[name]["value"] == scores[name]["ci_high"] == pytest.approx(1), name
        widths.append(width(scores["balanced_accuracy"]))
    assert 0.3 > widths[0] > widths[1] > widths[2] > 0.01


@pytest.mark.parametrize(("count", "has_ci"), [(9, False), (10, True)])
def test_too_few_groups_have_no_ci(count, has_ci):
    assert bootstrap.MIN_GROUPS == 10
    labels, probabilities = guesses(1, 4 * count, 2)
    groups = [f"{i % count}" for i in range(4 * count)]
    for parts in estimates(labels, probabilities, groups).values():
        assert set(parts) >= {"value", "majority", "gain"}
        assert ("ci_low" in parts) == ("gain_ci_high" in parts) == has_ci
    options = {"resamples": 200, "confidence": 0.95, "seed": 1}
    assert ("ci_low" in mean_with_ci(labels, groups, (0, 1), **options)) == has_ci


def test_ci_of_a_proportion_stays_in_bounds_and_covers_it():
    rng = np.random.default_rng(1)
    options = {"resamples": 1000, "confidence": 0.95, "seed": 1}
    held = 0
    for _ in range(200):
        groups = [str(k) for k in range(40)]
        parts = mean_with_ci(rng.random(40) < 0.9, groups, (0, 1), **options)
        assert 0 <= parts["ci_low"] <= parts["value"] <= parts["ci_high"] <= 1
        held += parts["ci_low"] <= 0.9 <= parts["ci_high"]
    assert 0.91 <= held / 200 <= 0.99


def test_more_groups_narrow_the_ci():
    widths = []
    for photos in (240, 960):
        labels, probabilities = guesses(1, photos, 3)
        scores = estimates(
            labels, probabilities, [f"{i // 3}" for i in range(photos)], resamples=400
        )
        widths.append(
            [width(scores[name]) for name in ("accuracy", "roc_auc", "log_loss", "brier")]
        )
    # Four times the groups, half the width.
    np.testing.assert_allclose(np.divide(*widths), 2, atol=0.6)


def test_textbook_cis_of_the_benchmark_agree_on_an_easy_case():
    case = CASES["fair, mixed groups"]
    shares = np.array(case.shares)
    test = simulate(case, 400, np.random.default_rng(1))
    ends = textbook_intervals(test, shares, 2000, np.random.default_rng(2))
    for method in ("BCa", "studentized"):
        for ours, other in zip(ends[method], ends["percentile"], strict=True):
            np.testing.assert_allclose(ours, other, atol=0.02)
    assert group_confusions(test, shares).sum() == 2 * len(test.labels)


def test_sticks_and_single_pseudo_photos_give_the_same_intervals(monkeypatch):
    labels, probabilities = guesses(6, 180, 12)
    groups = [f"g{i // 3:02}" for i in range(180)]
    dense = estimates(labels, probabilities, groups, resamples=4000)
    monkeypatch.setattr(bootstrap, "DENSE_CLASSES", 1)
    sticks = estimates(labels, probabilities, groups, resamples=4000)
    for name, parts in dense.items():
        assert np.array_equal(sticks[name]["value"], parts["value"]), name
        for end in ("ci_low", "ci_high", "gain_ci_low", "gain_ci_high"):
            # Both ends are quantiles of 4,000 draws: they agree within their sampling error.
            error = np.max(np.abs(sticks[name][end] - parts[end]) / np.max(width(parts)))
            assert error < 0.08, (name, end, error)


@pytest.mark.parametrize("accuracy", [0.06, 0.5, 0.9])
def test_the_interval_of_many_classes_of_one_photo_is_that_of_the_photos(accuracy):
    rng = np.random.default_rng(0)
    labels = np.arange(136)
    predicted = np.where(rng.random(136) < accuracy, labels, (labels + 1) % 136)
    estimate = bootstrap.scores_with_ci(
        labels, np.eye(136)[predicted] * 0.9 + 0.1 / 136, [str(i) for i in labels],
        np.full(136, 1 / 136), resamples=1000, confidence=0.95, seed=1,
    )["accuracy"]  # fmt: skip
    value = (predicted == labels).mean()
    half = 1.96 * np.sqrt(value * (1 - value) / 136)
    assert estimate["ci_low"] == pytest.approx(value - half, abs=0.03)
    assert estimate["ci_high"] == pytest.approx(value + half, abs=0.03)


@pytest.mark.parametrize("classes", [2, 5])
def test_up_to_five_classes_half_of_a_pseudo_group_is_right(classes):
    labels = np.arange(classes)
    assert bootstrap.right_share(labels, np.eye(classes)) == 0.5


@pytest.mark.parametrize("right", [0.5, 0.2])
def test_sticks_have_the_moments_of_single_pseudo_photos(right):
    counts, shape, rows = np.array([5, 0, 2, 9]), 0.5, 40_000
    rng = np.random.default_rng(2)
    sticks = bootstrap._sparse_margins(counts, shape, 1.0, rows, rng, right_share=right)
    shapes = pseudo_shapes(counts / counts.sum(), right)
    single = margins(rng.gamma(shapes, size=(rows, 4, 4)))
    for name in ("right", "support", "predicted", "squared_steps", "far"):
        ours, other = getattr(sticks, name), getattr(single, name)
        for moment in (np.mean, np.std):
            np.testing.assert_allclose(moment(ours, 0), moment(other, 0), rtol=0.06, err_msg=name)


@pytest.mark.slow
def test_a_thousand_classes_take_at_most_two_gigabytes():
    line = subprocess.run(
        [sys.executable, "-m", "benchmarks.many_classes", "--measure", "1000"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    row = json.loads(line)
    assert row["memory_mb"] < 2000
    assert row["cpu_s"] < 240  # two minutes on two cores


@pytest.mark.slow
@pytest.mark.parametrize("groups", [20, 60])
@pytest.mark.parametrize("case", ["fair", "good"])
def test_95_percent_cis_cover_the_true_value_in_92_to_97_percent(groups, case):
    tests = 400
    shares = coverage(CASES[case], groups, tests, 400, textbook=False)[IN_USE]
    # Two standard errors of the simulation either way.
    beyond = 2 * (0.05 * 0.95 / tests) ** 0.5
    for name in NAMES:
        for key in (name, f"{name} gain"):
            assert 0.92 - beyond <= shares[key] <= 0.97 + beyond, (key, shares[key])
