"""The HTML report as a file: what it holds, and what it does not. test_page.py opens it."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anklealign.reporting import html_report, metric_tables
from anklealign.reporting.html_report import RunComparison
from anklealign.reporting.metric_tables import Table
from tests.reporting.run_fixture import Noise, new_run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = re.compile(r"<script(?: [^>]*)?>(.*?)</script>", re.DOTALL)


@pytest.fixture
def run():
    return new_run()


def data_of(page: str) -> dict:
    return json.loads(SCRIPT.findall(page)[0])


def text_of(page: str) -> str:
    """Return the words of a page without its data, scripts and styles."""
    body = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_page_is_self_contained_and_its_policy_allows_only_its_two_scripts(run):
    page = html_report.html(run)
    assert re.findall(r"(?:src|href)=\"(?!data:image/|#)", page) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy.replace("&#39;", "'")
    scripts = SCRIPT.findall(page)
    assert len(scripts) == 3  # the data and two programs
    for text in scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"sha256-{digest}" in policy
    body = page[page.index("<body>") : page.index("<script")]
    assert re.findall(r"\son[a-z]+=", body) == []


def test_names_cannot_end_a_script_or_start_one(run):
    run.metrics["train"]["params"]["dataset_name"] = "<script>alert(1)</script>"
    photos = run.photos.assign(path=run.photos.path + "</script><script>alert(2)")
    page = html_report.html(replace(run, photos=photos))
    assert len(SCRIPT.findall(page)) == 3
    assert "&lt;script&gt;alert(1)" in page
    assert data_of(page)["photos"]["path"][0].endswith("</script><script>alert(2)")


def test_the_page_is_deterministic_whatever_the_order_of_the_rows(run):
    shuffled = replace(
        run,
        removed=run.removed.sample(frac=1, random_state=1),
        votes=run.votes.sample(frac=1, random_state=1),
    )
    assert html_report.html(run) == html_report.html(shuffled)


def test_thirty_thousand_photos_stay_below_ten_megabytes_and_the_page_states_the_bound(run):
    count = 30_000
    extra = pd.DataFrame({"path": [f"{'long folder ' * 8}/{n}.jpg" for n in range(count)]})
    extra["id"] = [f"{n:012x}" for n in range(count)]
    kept = extra.assign(
        label="neutral", collector="F1", row=range(200, 200 + count), width=400,
        height=300, left=0, top=0, right=256, bottom=256, group=extra.id, split="train",
        subject="long folder/subject " + extra.id,
    )  # fmt: skip
    photos = pd.concat([run.photos, kept.drop(columns=["split", "group"])], ignore_index=True)
    store = Noise(count + 200, side=256)
    large = replace(run, photos=photos, split=pd.concat([run.split, kept]), store=store)
    large.metrics["prepare"]["photos"] = len(photos)
    page = html_report.html(large)
    assert 4_000_000 < len(page.encode()) < 10_000_000
    shown = len(data_of(page)["photos"]["pictures"])
    assert 50 < shown < 1000
    assert f"This page has pictures of {shown:,} of {len(photos):,} photos" in text_of(page)


def test_a_dataset_without_subjects_has_no_word_of_persons_collectors_tasks_or_annotators():
    page = html_report.html(new_run(subjects=False))
    words = re.findall(
        r"\b(persons?|people|subjects?|collectors?|tasks?|annotators?|exports?|votes?)\b",
        text_of(page), re.IGNORECASE,
    )  # fmt: skip
    assert words == []
    assert data_of(page)["photos"]["subject"] == []
    with_subjects = text_of(html_report.html(new_run()))
    assert {"subjects", "collector", "tasks"} <= set(with_subjects.split())


def test_skipped_and_removed_files_are_counted_by_reason(run):
    run.metrics["prepare"]["skipped"] = {"total": 7, "no_label": 7}
    run.metrics["clean"]["reasons"]["blurred"] = 5
    page = html_report.html(run)
    assert '<button type="button" data-skip="no_label">no label <b>7</b>' in page
    assert '<button type="button" data-reason="blurred">blurred <b>5</b>' in page


def test_warnings_of_clean_are_the_first_step_and_stand_with_the_data(run):
    run.metrics["clean"]["warnings"] = {"dark": "dark: 12 of 300 photos (4.0%)"}
    page = html_report.html(run)
    warning = page.index("Dark: 12 of 300 photos (4.0%).")
    assert page.index('id="data"') < warning < page.index('id="expl')
    first = re.search(r'<ol class="steps">\s*<li>(.*?)</li>', page, re.DOTALL)[1]
    assert "Look at the removed photos" in first
    run.metrics["clean"]["warnings"] = {}
    assert "Cleaning removed or flagged" not in html_report.html(run)


def test_the_page_shows_no_interval_where_groups_are_few(run):
    for block in run.metrics["evaluate"].values():
        if isinstance(block, dict):
            for key in [key for key in block if "ci_" in key]:
                del block[key]
    text = text_of(html_report.html(run))
    assert "too few groups for a confidence interval" in text
    assert "too small to say how certain this is" in text
    assert "probably lie between" not in text


def test_the_first_screen_has_three_right_and_three_wrong_photos(run):
    page = html_report.html(run)
    trio = re.findall(r'class="tile (right|wrong)" data-photo="(\d+)"', page)
    assert [kind for kind, _ in trio] == ["right"] * 3 + ["wrong"] * 3
    photos = data_of(page)["photos"]
    for kind, place in trio:
        same = photos["label"][int(place)] == photos["predicted"][int(place)]
        assert same == (kind == "right")
    rows = run.predictions
    most = rows[rows.actual != rows.predicted].probability.max()
    first = next(int(place) for kind, place in trio if kind == "wrong")
    assert photos["test"][str(first)]["p"][0][1] == pytest.approx(most, abs=1e-4)


def test_the_learning_curve_and_the_shortcuts_are_shown_if_they_were_measured(run):
    page = html_report.html(run)
    assert "<h3>Would more photos help?</h3>" in page
    assert f"{run.metrics['evaluate']['learning_curve']['points']['100']['value']:.3f}" in page
    assert "none of these attributes alone comes near the model" in page
    run.metrics["evaluate"]["shortcuts"]["warnings"] = {"brightness": "brightness alone predicts"}
    page = html_report.html(run)
    assert "Brightness alone predicts." in page
    steps = re.search(r'<ol class="steps">(.*?)</ol>', page, re.DOTALL)[1]
    assert "the class can be guessed from brightness alone" in steps
    assert "none of these attributes alone comes near the model" not in page
    for name in ("learning_curve", "shortcuts"):
        del run.metrics["evaluate"][name]
    page = html_report.html(run)
    assert "Would more photos help?" not in page
    assert "Could the class be guessed" not in page


def test_subjects_operating_point_and_published_reliability_are_shown_if_there_are_any(run):
    evaluate = run.metrics["evaluate"]
    assert "operating point" not in text_of(html_report.html(run))
    evaluate["subjects"] = {
        "subjects": 12, "photos": 43,
        "accuracy": {"value": 0.83}, "photo_accuracy": {"value": 0.79},
    }  # fmt: skip
    evaluate["operating_point"] = {
        "positive": "neutral", "threshold": 0.278051, "target": "cost_ratio", "goal": 3,
        "sensitivity": {"value": 0.971, "ci_low": 0.919, "ci_high": 0.995},
    }  # fmt: skip
    evaluate["label_reliability"] = {"measure": "kappa", "published": 0.6, "source": "PMC1"}
    page = text_of(html_report.html(run))
    assert "83% of 12 subjects are classified correctly; photo by photo, 79% of their 43" in page
    assert "“neutral” from a probability of 0.278 on. The goal of this threshold" in page
    assert "is a cost ratio of 3. " in page
    assert "sensitivity 0.971 0.919 to 0.995" in page
    assert "Published kappa: 0.600 (PMC1)" in page


def test_the_lead_has_the_spread_over_training_seeds(run):
    run.metrics["evaluate"]["seeds"]["accuracy"] = {"mean": 0.71, "worst": 0.64, "best": 0.77}
    page = html_report.html(run)
    lead = text_of(re.search(r'<section id="result">.*?</p>', page, re.DOTALL)[0])
    assert "Trained 3 times, the model classifies 71% correctly on average (64% to 77%)." in lead
    del run.metrics["evaluate"]["seeds"]
    assert "Trained 3 times" not in html_report.html(run)


def test_the_candidates_of_auto_and_their_scores_are_listed(run):
    assert "How the model was chosen" not in html_report.html(run)
    run.metrics["train"]["candidates"] = {
        "lite0_probe": {
            "image_passes": 245, "status": "chosen", "log_loss": 0.12, "accuracy": 0.95,
        },
        "lite0": {"image_passes": 123456, "status": "over budget"},
    }  # fmt: skip
    page = text_of(html_report.html(run))
    assert "lite0_probe chosen 245 0.120 0.950 lite0 over budget 123,456" in page


def test_nothing_is_ruled_out(run):
    assert "rule out" not in html_report.html(run)


def test_a_baseline_without_epochs_maps_and_optional_blocks_has_a_page(run):
    for name in ("robustness", "novelty", "seeds", "human_baseline", "learning_curve", "shortcuts"):
        del run.metrics["evaluate"][name]
    arrays = {"heat_ids": run.arrays["heat_ids"], "heat": np.zeros_like(run.arrays["heat"])}
    none = run.augmented["augmented"][:0]
    bare = replace(
        run,
        history=run.history.head(0),
        arrays=arrays,
        augmented={"originals": none, "augmented": none},
        skipped=run.skipped.head(0),
        votes=run.votes.head(0),
    )
    page = html_report.html(bare)
    assert "This model has no epochs." in page
    for place in ("history", "robustness", "map"):
        assert f'id="chart-{place}"' not in page
    assert "More: augmented photos" not in page


def test_many_classes_have_a_list_of_confusions(run):
    names = [f"class {k:02}" for k in range(20)]
    run.metrics["train"]["train_class_counts"] = dict.fromkeys(names, 9)
    rows = run.predictions.head(50)
    rows = rows.assign(actual=names[0], predicted=[names[k % 3] for k in range(50)])
    table = html_report._confusions(replace(run, predictions=rows))
    assert [(row["a"], row["p"], row["photos"]) for row in table] == [(0, 1, 17), (0, 2, 16)]
    assert html_report._confusion(replace(run, predictions=rows)) == []


def test_a_comparison_lists_the_photos_that_only_one_run_gets_right(run):
    rows = run.predictions
    right = rows[rows.actual == rows.predicted].id.tolist()
    wrong = rows[rows.actual != rows.predicted]
    other = dict(zip(rows.id, rows.predicted, strict=True))
    other[right[0]] = "nothing"
    other[wrong.id.iloc[0]] = wrong.actual.iloc[0]
    beside = RunComparison("main", "No difference.", other, Table(["score"], [["accuracy"]]))
    page = html_report.html(run, beside)
    data = data_of(page)
    place = data["photos"]["place"]
    assert data["other"]["this"] == [place[right[0]]]
    assert data["other"]["other"] == [place[wrong.id.iloc[0]]]
    assert "Compared with main" in page
    assert 'id="comparison"' not in html_report.html(run)


def test_the_chart_library_is_the_recorded_one():
    """`make charts` builds it from the pinned versions and compares the same hashes."""
    recorded = (ROOT / ".ci/charts/SHA256SUMS").read_text(encoding="utf-8").split()
    for digest, name in zip(recorded[::2], recorded[1::2], strict=True):
        content = (html_report.ASSETS / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name
    assert {"plot.min.js", "plot.LICENSE.txt"} == set(recorded[1::2])
    versions = json.loads((ROOT / ".ci/charts/package.json").read_text(encoding="utf-8"))
    plot = versions["devDependencies"]["@observablehq/plot"]
    licenses = (html_report.ASSETS / "plot.LICENSE.txt").read_text(encoding="utf-8")
    assert f"@observablehq/plot {plot}\n" in licenses


def test_a_dataset_without_subjects_is_described_by_groups():
    split = {
        name: {"photos": 4, "subjects": 0, "groups": 3, "classes": {"a": 1, "b": 3}}
        for name in ("train", "val", "test")
    }
    table = metric_tables.split_table(split, ["a", "b"])
    assert table.header == ["split", "photos", "groups", "a", "b"]
    assert table.rows[0] == ["train", 4, 3, 1, 3]
    split["val"]["subjects"] = 2
    assert "subjects" in metric_tables.split_table(split, ["a", "b"]).header
