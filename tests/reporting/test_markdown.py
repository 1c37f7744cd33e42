"""Hostile names are text in every Markdown, CSV and HTML output."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from anklealign.experiments import data_diff
from anklealign.io import results
from anklealign.reporting import html_report, model_card, reporting_checklist
from anklealign.reporting.markdown import code, code_block, escape
from tests.reporting.run_fixture import new_run

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "clean", "split", "train", "evaluate")
NAMES = [
    "<img src=x onerror=alert(1)>", "</table><script>alert(1)</script>", "a|b", "`code`",
    "**bold**", "[link](http://evil.example)", "![x](http://evil.example/p.png)", "@everyone",
    "#12", "_em_",
    "line\nbreak", "{{7*7}}", "&lt;b&gt;", "$x$", "\\|", "=1+1", "www.evil.example", "```",
]  # fmt: skip
# Anything that Markdown or HTML would interpret.
ACTIVE = re.compile(r"<(?!!--)[a-z/]|\]\(|`code|\*\*bold|@every|#12|://|www\.|\$x", re.IGNORECASE)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_line_of_text(name):
    escaped = escape(name)
    assert not ACTIVE.search(escaped.replace("&#", ""))
    assert not set(escaped) & set("|`*<>\n\\")
    decoded = re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), escaped)
    assert decoded == name.replace("\n", " ")
    assert "|" not in code(name)
    assert code(name).count("`") in {0, 2}


def test_ordinary_names_stay_as_they_are():
    for name in ("pronation", "golden_retriever", "Class A (left)", "0.5", "+0.1 (0.1 to 0.2)"):
        assert escape(name) == name


def test_a_code_block_cannot_be_closed_by_its_content():
    assert code_block(["```", "x"]) == ["````text", "```", "x", "````"]


@pytest.fixture
def hostile():
    """The committed metrics, with hostile names of classes, collectors and annotators."""
    text = json.dumps(
        {stage: results.read_details(ROOT / f"metrics/details/{stage}.json") for stage in STAGES}
    )
    metrics = json.loads(text)
    names = dict(zip(["pronation", "neutral", "supination"], NAMES, strict=False))

    def renamed_key(key):
        label = key.removeprefix("class_")
        return key.removesuffix(label) + names.get(label, label)

    def renamed(value):
        if isinstance(value, dict):
            return {renamed_key(key): renamed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    metrics = renamed(metrics)
    worst = metrics["evaluate"]["worst"]
    worst["collector"] = "<b>@anna|</b>"
    human = metrics["evaluate"]["human_baseline"]["by_annotator"]
    human["<script>alert(2)</script>|x"] = next(iter(human.values()))
    return metrics


def test_card_and_checklist_show_hostile_names_as_text(hostile):
    for text in (
        model_card.card(hostile, hostile["train"]),
        reporting_checklist.checklist(hostile, hostile["train"]),
    ):
        body = text.partition("\n---\n")[2] or text
        assert "<img" not in body
        assert "<script" not in body
        assert "</table" not in body
        assert "<b>" not in body
        assert "@anna" not in body
        for line in body.splitlines():
            if line.startswith("|"):
                table = line.count("|")
                assert table >= 3
    card = model_card.card(hostile, hostile["train"])
    tables = re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE)
    assert tables
    for table in tables:  # no name adds a cell
        assert len({row.count("|") for row in table.splitlines()}) == 1


def test_the_comparison_of_data_shows_hostile_names_as_text():
    rows = [("added", name, name, "", "train") for name in NAMES]
    rows += [("renamed", name, name, f"old {name}", name) for name in NAMES]
    lines = data_diff.report(pd.DataFrame(rows, columns=list(data_diff.COLUMNS)), "main", "mine")
    counts = {line.count("|") for line in lines if line.startswith("|")}
    assert len(counts) == 1
    outside = re.sub(r"`[^`\n]*`", "", "\n".join(lines))
    assert not re.search(r"<[a-z/]|\]\(|@every|://", outside)


class Tags(HTMLParser):
    """Collects elements and their event handlers."""

    def __init__(self):
        super().__init__()
        self.bad = []

    def handle_starttag(self, tag, attrs):
        if any(name.startswith("on") and "alert" in (value or "") for name, value in attrs):
            self.bad.append(tag)
        if tag == "img" and dict(attrs).get("src") == "x":
            self.bad.append(tag)

    def handle_data(self, data):
        if self.rawdata and "<script>alert" in data and self.lasttag == "script":
            self.bad.append("script")


def test_the_html_report_shows_hostile_names_as_text(hostile):
    run = new_run()
    names = dict(zip(run.classes, hostile["train"]["train_class_counts"], strict=True))
    columns = {f"p_{old}": f"p_{new}" for old, new in names.items()}
    tables = {
        name: getattr(run, name).replace(names).rename(columns=columns)
        for name in ("photos", "split", "removed", "flagged", "votes", "predictions")
    }
    tables["photos"] = tables["photos"].assign(collector="<script>alert(3)</script>")
    page = html_report.html(replace(run, metrics=hostile, **tables))
    assert "alert(1)" in page
    parser = Tags()
    parser.feed(page)
    assert parser.bad == []
    assert "<script>alert(" not in page
    assert "</table><script>" not in page
