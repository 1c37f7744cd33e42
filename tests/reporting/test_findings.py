"""The report's first sentence and its advice follow from the numbers."""

from dataclasses import replace

import pytest

from anklealign.reporting import findings
from tests.reporting.run_fixture import new_run


@pytest.fixture
def run():
    return new_run()


@pytest.mark.parametrize(
    ("gain", "balanced", "words"),
    [
        ((0.1, 0.5), (0.1, 0.5), "clearly more than always answering “neutral” would ({:.0%})."),
        ((-0.1, 0.5), (0.1, 0.5), "but not certainly better overall than"),
        ((-0.1, 0.5), (-0.1, 0.5), "it is not certain that this is more than always answering"),
        ((-0.5, -0.1), (-0.5, -0.1), "fewer than always answering “neutral” would."),
    ],
)
def test_the_headline_claims_no_more_than_the_interval_allows(run, gain, balanced, words):
    evaluate = run.metrics["evaluate"]
    for name, (low, high) in (("accuracy", gain), ("balanced_accuracy", balanced)):
        evaluate[name] |= {"gain_ci_low": low, "gain_ci_high": high}
    sentence = findings.headline(run)
    tested = run.predictions
    right = (tested.actual == tested.predicted).sum()
    assert sentence.startswith(f"The model classifies {right} of {len(tested)} test photos corr")
    assert words.format(evaluate["accuracy"]["majority"]) in sentence


def test_leaks_come_before_all_other_advice(run):
    run.metrics["split"]["leaking_pairs"] = 3
    steps = findings.next_steps(run, [])
    assert steps[0].startswith("Look at 3 pairs of the same picture in two splits")
    assert len(steps) == findings.MAX_STEPS


def test_a_wide_interval_asks_for_more_subjects_and_without_subjects_for_more_photos(run):
    assert any("test photos of more subjects" in step for step in findings.next_steps(run, []))
    without = new_run(subjects=False)
    steps = findings.next_steps(without, [])
    assert any(step.startswith("Add test photos. ") for step in steps)
    assert "subject" not in " ".join(steps)


def test_a_good_class_is_not_called_weak_and_a_brighter_class_is_named(run):
    run.metrics["evaluate"]["worst"]["class_recall"] = 0.97
    run.metrics["clean"]["warnings"] = {}
    row = {"class": "neutral", "effect": {"brightness": 1.5, "contrast": 0, "saturation": 0}}
    steps = findings.next_steps(run, [row])
    assert not any("found least often" in step for step in steps)
    assert any(step.startswith("Photos of neutral are much brighter") for step in steps)


def test_a_threshold_is_recommended_only_if_it_raises_the_accuracy_enough(run):
    rows = run.predictions.copy()
    rows["predicted"] = rows.actual
    rows["probability"] = 0.9
    assert findings._threshold(replace(run, predictions=rows)) == []
    rows.loc[:9, "probability"] = 0.52
    rows.loc[:9, "predicted"] = "nothing"
    (step,) = findings._threshold(replace(run, predictions=rows))
    assert f"From 55% on, 100% of {len(rows) - 10} are right" in step
    assert "the other 10 photos" in step


def test_annotators_are_in_the_first_chart_only_if_there_are_votes(run):
    assert [row["kind"] for row in findings.score_rows(run)] == [
        "model", "baseline", "annotators", "model",
    ]  # fmt: skip
    rows = findings.score_rows(new_run(subjects=False))
    assert [row["kind"] for row in rows] == ["model", "baseline"]
