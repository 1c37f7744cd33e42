"""The checklist has every item of CLAIM and TRIPOD+AI, numbers of the run, and named blanks."""

import copy
import re
from pathlib import Path

import pytest

from anklealign.io import results
from anklealign.reporting import reporting_checklist

ROOT = Path(__file__).resolve().parents[2]
TRIPOD = {
    "1", "2", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6b", "6c", "7", "8a", "8b", "8c", "9a",
    "9b", "9c", "10", "11", "12a", "12c", "12e", "13", "14", "15", "16", "17", "18a", "18b", "18c",
    "18d", "18e", "18f", "19", "20a", "20b", "20c", "21", "22", "23a", "23b", "24", "25", "26",
    "27a", "27b", "27c",
}  # fmt: skip


@pytest.fixture
def metrics():
    return {s: results.read_details(ROOT / f"metrics/details/{s}.json") for s in results.STAGES}


def rows(text):
    """Return the cells of each item."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [re.split(r"(?<!\\)\|", line.strip("| ")) for line in lines if "| CLAIM |" not in line]


def numbers(cell):
    """Return the item numbers of a cell, with ranges such as 3a-3c expanded."""
    found = set()
    for entry in cell.strip().split(", "):
        first, _, last = entry.partition("-")
        if first and last:
            found |= {f"{first[:-1]}{chr(c)}" for c in range(ord(first[-1]), ord(last[-1]) + 1)}
        elif first:
            found.add(first)
    return found


def test_every_item_of_both_checklists_has_a_row(metrics):
    items = rows(reporting_checklist.checklist(metrics, metrics["train"]))
    assert all(len(cells) == 4 for cells in items)
    claim = set().union(*(numbers(cells[1]) for cells in items))
    assert claim == {str(n) for n in range(1, 45)}
    assert set().union(*(numbers(cells[2]) for cells in items)) == TRIPOD


def test_an_item_has_an_entry_or_names_what_the_authors_fill_in(metrics):
    text = reporting_checklist.checklist(metrics, metrics["train"])
    items = rows(text)
    for cells in items:
        entry = cells[3].replace(reporting_checklist.BLANK, "").strip(" :")
        assert len(entry) > 4, cells[0]
    blanks = {cells[0].strip() for cells in items if reporting_checklist.BLANK in cells[3]}
    assert {
        "Eligibility and recruitment", "Annotators", "Sample size", "De-identification",
        "Performance, external", "Ethics", "Funding and interests",
    } <= blanks  # fmt: skip
    assert f"{len(blanks)} of {len(items)} items have a blank" in text


def test_the_entries_follow_the_metrics(metrics):
    run = metrics["train"]
    changed = copy.deepcopy(metrics)
    changed["evaluate"]["accuracy"]["value"] = 0.123456
    changed["split"]["test"]["photos"] = 4321
    changed["prepare"]["skipped"]["unreadable"] = 987
    text = reporting_checklist.checklist(changed, run)
    for number in ("accuracy 0.123", "4321 test photos", "unreadable 987"):
        assert number in text
        assert number not in reporting_checklist.checklist(metrics, run)


def test_a_dataset_without_votes_subjects_intervals_and_robustness(metrics):
    run = metrics["train"]
    metrics["prepare"]["agreement"] = {"listed": 0, "votes": 0, "photos": 0, "annotators": 0}
    for split in ("train", "val", "test"):
        metrics["split"][split]["subjects"] = 0
    for score in metrics["evaluate"].values():
        if isinstance(score, dict):
            for key in [key for key in score if "ci_" in key]:
                del score[key]
    del metrics["evaluate"]["human_baseline"], metrics["evaluate"]["robustness"]
    del metrics["evaluate"]["worst"]["collector"]
    text = reporting_checklist.checklist(metrics, run)
    for sentence in (
        "No photo has several votes.", "does not identify subjects", "fewer than 10 groups",
        "no test photo has several votes", "Not measured",
    ):  # fmt: skip
        assert sentence in text
