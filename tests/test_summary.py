"""The summary says what became of every photo and how good the model is, from the metrics alone."""

import os
import subprocess
from pathlib import Path

import pytest

from anklealign import summary

ROOT = Path(__file__).resolve().parents[1]


def test_without_a_run_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert summary.main() == 1
    assert "run `dvc repro` first" in capsys.readouterr().err


def test_reasons_are_listed_with_their_counts_and_no_zeros():
    assert summary._reasons({"total": 3, "truncated": 2, "no_label": 1, "dark": 0}) == (
        "3 (truncated 2, no_label 1)"
    )
    assert summary._reasons({"total": 0}) == "0"


def test_votes_are_told_with_what_is_known_of_their_agreement():
    agreed = {"votes": 9, "annotators": 3, "photos": 4, "alpha_nominal": 0.231, "pairwise": 0.5}
    assert summary.vote_line(agreed) == (
        "votes     9 by 3 people on 4 photos; alpha 0.23, pairwise 0.50"
    )


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
    lines = summary.score_table({"photos": 50, "groups": 15} | dict.fromkeys(summary.SCORES, score))
    assert lines[0] == "50 test photos of 15 groups"
    assert lines[2].split() == [
        "accuracy",
        "0.750",
        *["0.600", "to", "0.900"],
        "0.400",
        *["+0.350,", "+0.100", "to", "+0.500"],
    ]


def test_the_readme_shows_the_committed_runs_real_output(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], check=False)
    if changed.returncode and "CI" not in os.environ:
        pytest.skip("params.yaml is not the committed one, so neither are the metrics")
    # Which pictures there are depends on what was pulled.
    monkeypatch.setattr(summary, "PICTURES", {})
    assert summary.main() == 0
    printed = capsys.readouterr().out.strip()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert printed in readme
