"""Corrections apply by hash and old label; stale ones are named and change nothing."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from anklealign.annotation import label_corrections
from anklealign.annotation.label_corrections import COLUMNS, apply, count, merge, read, write
from anklealign.config import paths

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["ants", "bees", "wasps"]


def photos() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sha256": ["aa", "bb", "bb", "cc"],
            "label": ["ants", "bees", "bees", "ants"],
            "consensus": ["", "bees", "", ""],
        }
    )


def corrections(*rows: tuple[str, str, str], dataset: str = "mine") -> pd.DataFrame:
    cells = [(dataset, sha, f"{sha}.jpg", old, new, "R1", "") for sha, old, new in rows]
    return pd.DataFrame(cells, columns=list(COLUMNS))


def test_every_photo_with_the_hash_and_the_old_label_is_corrected_with_its_consensus():
    before = photos()
    after, outcomes = apply(before, corrections(("bb", "bees", "ants")), "mine", CLASSES)
    assert after.label.tolist() == ["ants", "ants", "ants", "ants"]
    assert after.consensus.tolist() == ["", "ants", "", ""]
    assert outcomes[["outcome", "photos"]].to_numpy().tolist() == [["applied", 2]]
    assert before.equals(photos())


def test_stale_corrections_change_nothing_and_are_counted_by_reason():
    stale = corrections(("zz", "ants", "bees"), ("cc", "wasps", "bees"), ("aa", "ants", "bees"))
    after, outcomes = apply(photos(), stale, "mine", CLASSES)
    assert after.label.tolist() == ["bees", "bees", "bees", "ants"]
    assert outcomes.outcome.tolist() == ["photo_missing", "label_changed", "applied"]
    assert count(outcomes) == {
        "corrections": 3, "photos": 1, "stale": 2, "photo_missing": 1, "label_changed": 1,
    }  # fmt: skip


def test_two_corrections_of_one_photo_do_not_chain():
    rows = corrections(("aa", "ants", "bees"), ("aa", "bees", "wasps"))
    after, outcomes = apply(photos(), rows, "mine", CLASSES)
    assert after.label[0] == "bees"
    assert outcomes.outcome.tolist() == ["applied", "label_changed"]


def test_corrections_of_another_dataset_are_left_out():
    other = corrections(("aa", "ants", "bees"), dataset="other")
    after, outcomes = apply(photos(), other, "mine", CLASSES)
    assert after.equals(photos())
    assert not len(outcomes)


def test_a_new_label_that_is_no_class_is_an_error_with_the_classes():
    with pytest.raises(ValueError, match=r"aa\.jpg has the new label 'moths'.*ants, bees, wasps"):
        apply(photos(), corrections(("aa", "ants", "moths")), "mine", CLASSES)


def test_no_file_is_no_corrections_and_a_written_table_is_read_again(tmp_path):
    path = tmp_path / "corrections.csv"
    assert not len(read(path))
    table = corrections(("bb", "bees", "ants"), ("aa", "ants", "bees"))
    write(path, table)
    assert read(path).equals(table.sort_values("sha256", ignore_index=True))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("dataset,sha256\nmine,aa\n", "no column path"),
        (",".join(COLUMNS) + "\nmine,aa,a.jpg,ants,,R1,\n", "line 2"),
        (",".join(COLUMNS) + "\nmine,aa,a,ants,bees,R1,\nmine,aa,a,ants,wasps,R1,\n", "twice"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, rows, message):
    path = tmp_path / "corrections.csv"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read(path)


def review(sha: str, label: str, new: str) -> dict[str, str]:
    return {
        "sha256": sha, "path": f"{sha}.jpg", "label": label, "new_label": new,
        "reviewer": "R2", "reason": "blurred",
    }  # fmt: skip


def test_reviews_add_correct_again_confirm_and_restore():
    table = corrections(("aa", "ants", "bees"), ("bb", "bees", "ants"))
    reviews = [
        review("aa", "bees", "wasps"),  # corrected again: the row keeps the label of the data
        review("bb", "ants", "bees"),  # the label of the data again
        review("cc", "ants", "bees"),
        review("dd", "ants", "ants"),
    ]
    merged, counts = merge(table, reviews, "mine")
    assert counts == {"corrected": 2, "confirmed": 1, "restored": 1}
    assert merged[["sha256", "old_label", "new_label", "reviewer"]].to_numpy().tolist() == [
        ["aa", "ants", "wasps", "R2"], ["cc", "ants", "bees", "R2"],
    ]  # fmt: skip
    same, _ = merge(merged, reviews[2:], "mine")
    assert same.equals(merged)


def test_prepare_depends_on_the_committed_file_which_has_no_rows():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert paths.CORRECTIONS.as_posix() in stages["prepare"]["deps"]
    assert list(read(ROOT / paths.CORRECTIONS).columns) == list(COLUMNS)
    subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--error-unmatch", paths.CORRECTIONS],
        check=True, capture_output=True,
    )  # fmt: skip


def test_every_outcome_but_applied_has_a_remedy():
    assert all(text for name, text in label_corrections.OUTCOMES.items() if name != "applied")
