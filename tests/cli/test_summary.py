"""The summary lists photo counts and scores from the metrics files."""

import os
import subprocess
from pathlib import Path

import pytest

from anklealign.cli import summary

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_run_the_message_has_a_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert summary.print_summary() == 1
    assert "run `dvc repro` first" in capsys.readouterr().err


def test_reasons_are_listed_with_their_counts_and_no_zeros():
    assert summary._reasons({"total": 3, "truncated": 2, "no_label": 1, "dark": 0}) == (
        "3 (truncated 2, no_label 1)"
    )
    assert summary._reasons({"total": 0}) == "0"


def test_skipped_files_and_labeling_tasks_are_counted_apart():
    prepare = {
        "files_seen": 9,
        "skipped": {"total": 3, "no_label": 2, "truncated": 1},
        "skipped_tasks": {"total": 1, "cancelled": 1},
        "skipped_votes": {"total": 0},
    }
    assert summary.skipped(prepare) == ("3 files (no_label 2, truncated 1), 1 tasks (cancelled 1)")
    assert summary.skipped({"skipped": {"total": 0}}) == "0"


def test_votes_are_summarized_with_their_agreement():
    agreed = {"votes": 9, "annotators": 3, "photos": 4, "alpha_nominal": 0.231, "pairwise": 0.5}
    assert summary.vote_line(agreed) == (
        "votes     9 by 3 annotators on 4 photos; alpha 0.23, pairwise 0.50"
    )


def test_corrected_labels_and_stale_corrections_are_counted():
    line = summary.correction_line({"corrections": 5, "photos": 4, "stale": 1})
    assert line.startswith("corrected 4 labels, 1 corrections are stale")


def test_the_score_table_has_value_interval_majority_and_gain():
    score = {
        "value": 0.75,
        "ci_low": 0.6,
        "ci_high": 0.9,
        "majority": 0.4,
        "gain": 0.35,
        "gain_ci_low": 0.1,
        "gain_ci_high": 0.5,
    }
    evaluate = {"photos": 50, "groups": 15} | dict.fromkeys(summary.SCORES, score)
    lines = summary.score_table(evaluate)
    assert lines[0] == "50 test photos of 15 groups"
    assert lines[2].split() == [
        "accuracy",
        "0.750",
        *["0.600", "to", "0.900"],
        "0.400",
        *["+0.350,", "+0.100", "to", "+0.500"],
    ]


def test_the_table_states_that_groups_are_few():
    score = {"value": 0.75, "majority": 0.4, "gain": 0.35}
    evaluate = {"photos": 20, "groups": 6} | dict.fromkeys(summary.SCORES, score)
    assert summary.score_table(evaluate)[2].split() == [
        *["accuracy", "0.750", "n/a,", "6", "groups", "0.400", "+0.350"]
    ]


def test_the_table_has_kappa_for_ordered_classes_and_matthews_correlation_otherwise():
    score = {"value": 0.75, "majority": 0.4, "gain": 0.35}
    evaluate = {"photos": 20, "groups": 6} | dict.fromkeys(summary.SCORES, score)
    ordered = [line.split()[0] for line in summary.score_table(evaluate)]
    assert ("kappa" in ordered, "mcc" in ordered) == (True, False)
    del evaluate["kappa"]
    other = [line.split()[0] for line in summary.score_table(evaluate)]
    assert ("kappa" in other, "mcc" in other) == (False, True)


def test_the_remarks_name_the_worst_class_and_the_coverage():
    evaluate = {
        "worst": {
            "class": "b", "class_photos": 8, "class_recall": 0.5,
            "collector": "KH8Z2Q", "collector_photos": 6, "collector_accuracy": 0.25,
        },
        "calibration": {
            "coverage": {
                "value": 0.85, "nominal": 0.9, "expected_low": 0.78, "expected_high": 1.0,
            },
            "abstention": {"value": 0.125},
        },
        "human_baseline": {
            "votes": 60, "accuracy": {"value": 0.73}, "model_accuracy": {"value": 0.68},
        },
    }  # fmt: skip
    assert summary.remarks(evaluate) == [
        "worst class       b, recall 0.500 on 8 photos",
        "worst collector   KH8Z2Q, accuracy 0.250 on 6 photos",
        (
            "prediction sets   contain the true class for 85% of photos (nominal 90%, expected "
            "range under resampling of groups 78% to 100%); 12% abstained"
        ),
        ("annotators        match the majority of the others on 73% of 60 votes, the model on 68%"),
    ]
    evaluate["novelty"] = {"false_refusals": {"value": 0.04}, "detected": {"noise": 1, "text": 1}}
    assert summary.remarks(evaluate)[3] == (
        "unlike photos     4% of the test photos are marked by mistake; of drawn images, all "
        "(noise, text) are marked"
    )
    evaluate["novelty"]["detected"]["text"] = 0.98
    assert "of drawn images, 100% of noise, 98% of text are marked" in summary.remarks(evaluate)[3]
    evaluate["operating_point"] = {
        "positive": "b", "threshold": 0.25, "goal": 0.9, "sensitivity": {"value": 0.9},
        "specificity": {"value": 0.8},
    }  # fmt: skip
    assert summary.remarks(evaluate)[-1] == (
        "operating point   b from probability 0.250 on: sensitivity 0.900, specificity 0.800"
    )
    del evaluate["operating_point"]
    del evaluate["novelty"], evaluate["worst"]["collector"], evaluate["human_baseline"]
    assert len(summary.remarks(evaluate)) == 2


def test_the_readme_shows_the_committed_runs_real_output(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], check=False)
    if changed.returncode and "CI" not in os.environ:
        pytest.skip("params.yaml is not the committed one, so neither are the metrics")
    # Which pictures there are depends on what was pulled.
    monkeypatch.setattr(summary, "PICTURES", {})
    assert summary.print_summary() == 0
    printed = capsys.readouterr().out.strip()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert printed in readme


def test_what_the_set_says_is_in_the_summary_where_it_was_measured():
    assert summary.set_remarks({}) == []
    sentence = "brightness alone predicts the class"
    lines = summary.set_remarks(
        {
            "subjects": {
                "subjects": 12, "accuracy": {"value": 0.9}, "photo_accuracy": {"value": 0.8},
            },
            "learning_curve": {"answer": "more photos would help"},
            "shortcuts": {"warnings": {"brightness": sentence}},
        }
    )  # fmt: skip
    assert lines == [
        "per subject       accuracy 0.900 on 12 subjects, photo by photo 0.800",
        "more photos       more photos would help",
        f"shortcut          {sentence}",
    ]
