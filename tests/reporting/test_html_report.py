"""The HTML report, as source and in a browser."""

import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anklealign.io import results
from anklealign.reporting import html_report, metric_tables

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "clean", "split", "train", "evaluate")
CHROMIUM = shutil.which("chromium")


@pytest.fixture
def metrics():
    return {s: results.read_details(ROOT / f"metrics/details/{s}.json") for s in STAGES}


@pytest.fixture
def run():
    return results.read_details(ROOT / "metrics/details/train.json")


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    """Return a plots folder with one chart and six pages of two contact sheets."""
    tmp_path = tmp_path_factory.mktemp("run")
    generator = np.random.default_rng(0)
    for name in ("evaluate/pictures/mistakes", "evaluate/explanations/maps"):
        for page in range(1, 7):
            path = tmp_path / f"plots/{name}_{page:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = generator.integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(noise).resize((1500, 1100)).save(path, compress_level=1)
    Image.new("RGB", (600, 400), "white").save(tmp_path / "plots/evaluate/pictures/confusion.png")
    return tmp_path / "plots"


def test_page_is_self_contained_and_below_ten_megabytes(metrics, run, plots):
    page = html_report.html(metrics, run, html_report.pictures(plots))
    assert len(page.encode()) < 10_000_000
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=\"(?!data:image/|#)", page) == []
    assert "url(" not in page
    assert page.count("<figure>") == 1 + 2 * html_report.MAX_PAGES
    assert "first 4 of 6 pages" in page


def test_names_are_escaped(metrics, run):
    run["params"]["dataset_name"] = "<script>alert(1)</script>"
    page = html_report.html(metrics, run, {})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_skipped_and_removed_files_are_listed_with_reasons(metrics, run):
    metrics["prepare"]["skipped"] = {"total": 7, "no_label": 7}
    metrics["clean"]["reasons"]["blurred"] = 5
    page = html_report.html(metrics, run, {})
    assert '<td>files skipped</td><td class="n">7</td><td>no label 7</td>' in page
    (removed,) = [line for line in page.splitlines() if "<td>photos removed</td>" in line]
    assert "blurred 5" in removed


def test_warnings_of_clean_come_first(metrics, run):
    metrics["clean"]["warnings"] = {"dark": "dark applies to 12 of 300 photos (4.0%)"}
    page = html_report.html(metrics, run, {})
    first = page.index("<li>dark applies to 12 of 300 photos (4.0%)</li>")
    assert page.index("<h1>") < first < page.index('class="lead"')
    metrics["clean"]["warnings"] = {}
    assert "<b>Clean removed" not in html_report.html(metrics, run, {})


def test_page_is_deterministic(metrics, run, plots):
    assert html_report.html(metrics, run, html_report.pictures(plots)) == html_report.html(
        metrics, run, html_report.pictures(plots)
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_browser_shows_every_picture_without_horizontal_scrolling(
    width, metrics, run, plots, tmp_path
):
    if not CHROMIUM and not os.environ.get("CI"):
        pytest.skip("chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api") if not os.environ.get("CI") else None
    if sync_api is None:
        from playwright import sync_api  # noqa: PLC0415
    path = tmp_path / "report.html"
    path.write_text(html_report.html(metrics, run, html_report.pictures(plots)), encoding="utf-8")
    requests = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        for picture in page.locator("img").all():
            picture.scroll_into_view_if_needed()
        loaded = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
        wide = page.evaluate("document.documentElement.scrollWidth")
        text = page.inner_text("body")
        browser.close()
    assert loaded
    assert all(loaded)
    assert wide <= width
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert f"{metrics['evaluate']['accuracy']['value']:.1%}" in text


def test_each_block_of_metrics_is_summarized_in_words(metrics, run):
    block = {"value": 0.7, "ci_low": 0.6, "ci_high": 0.8}
    metrics["evaluate"]["human_baseline"] = {
        "annotators": 3, "photos": 12, "votes": 30, "accuracy": block, "model_accuracy": block,
        "model_gain": {"value": 0.0, "ci_low": -0.1, "ci_high": 0.1},
        "by_annotator": {"anna": {"photos": 12, "accuracy": 0.987654}},
    }  # fmt: skip
    metrics["evaluate"]["robustness"]["jpeg_compression"] = {"50": 0.9, "5": 0.0123}
    page = " ".join(html_report.html(metrics, run, {}).split())
    expected = "match the majority of the others on 70.0% of 30 votes on 12 test photos"
    assert expected in page
    assert "difference is +0.000 (95% CI -0.100 to 0.100)." in page
    assert "0.012 under the worst corruption (jpeg compression, level 5)" in page
    assert "0.988" not in page
    coverage = metrics["evaluate"]["calibration"]["coverage"]
    assert f"{coverage['value']:.1%} of the prediction sets contain the true class" in page
    metrics["evaluate"]["human_baseline"] = {"annotators": 0, "photos": 0, "votes": 0}
    assert "No test photo has votes of several annotators" in html_report.html(metrics, run, {})


def test_page_shows_no_ci_when_groups_are_few(metrics, run):
    for block in metrics["evaluate"].values():
        if isinstance(block, dict):
            for key in [key for key in block if "ci_" in key]:
                del block[key]
    page = html_report.html(metrics, run, {})
    assert "too few groups for a 95% CI" in page
    assert "<small>0." not in page
    assert "<small>+0." not in page


def test_the_page_shows_every_picture_of_the_last_run():
    """A pattern that matches nothing would silently drop its pictures from the page."""
    written = {
        path.relative_to(ROOT / "plots").as_posix() for path in (ROOT / "plots").rglob("*.png")
    }
    if not written:
        pytest.skip("plots/ holds no pictures; run `dvc repro` or `dvc pull`")
    patterns = {pattern for pairs in html_report.PICTURES.values() for pattern, _ in pairs}
    shown = {path for path in written if any(fnmatch(path, pattern) for pattern in patterns)}
    assert written - shown == set()


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
