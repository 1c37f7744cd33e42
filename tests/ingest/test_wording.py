"""anklealign/ingest/wording.py: one photo is in the singular, in the messages of the stages too."""

import pandas as pd
import pytest

from anklealign.annotation import label_corrections
from anklealign.ingest.wording import counted
from stages import prepare


def test_one_is_singular_and_every_other_number_plural():
    assert [counted(n, "photo") for n in (0, 1, 2)] == ["0 photos", "1 photo", "2 photos"]
    assert counted(1, "row is", "rows are") == "1 row is"
    assert counted(3, "row is", "rows are") == "3 rows are"


@pytest.mark.parametrize(("number", "end"), [(1, ""), (2, "s")])
def test_the_line_of_prepare_follows_the_numbers(number, end):
    items = ("skipped", "skipped_tasks", "skipped_exports", "skipped_votes")
    skips = {item: {"total": number} for item in items}
    seen = dict.fromkeys(["photos", "files_seen", "tasks_seen", "subjects", "votes_seen"], number)
    agreement = dict.fromkeys(["votes", "annotators", "photos"], number)
    line = prepare.summary_line({**skips, **seen, "agreement": agreement})
    for word in ("photo", "file", "task", "subject", "export", "vote", "annotator"):
        assert f"{number} {word}{end} " in line.replace(",", " ").replace(";", " ") + " "


def test_one_stale_correction_is_singular():
    row = {"path": "a.jpg", "old_label": "x", "new_label": "y"}
    outcomes = {"applied": 1, "label_changed": 0}
    assert outcomes.keys() <= label_corrections.OUTCOMES.keys()
    table = pd.DataFrame([row | {"outcome": o, "photos": n} for o, n in outcomes.items()])
    first = prepare.correction_lines(table)[0]
    assert "1 label corrected by" in first
    assert first.endswith("1 correction is stale")
