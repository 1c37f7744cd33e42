"""anklealign/ingest/csv_table.py: rows label photos; what does not fit is skipped with a reason."""

import pytest

from anklealign.config.params import Dataset
from anklealign.ingest import csv_table
from anklealign.ingest.table_files import parse_table

DATASET = Dataset(layout="table", classes={"cat": ("0",), "dog": ("1",)})


def found_in(root, text, dataset=DATASET, name="labels.csv", encoding="utf-8"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode(encoding))
    return csv_table.read_csv_table(root, dataset)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_is_read_however_a_spreadsheet_writes_it(folder, separator, end, encoding):
    rows = [["label", "path"], ["0", "a/1.jpg"], ["1.0", '"2.jpg"']]
    text = end.join(separator.join(row) for row in rows) + end
    found = found_in(folder("a/1.jpg", "2.jpg"), text, encoding=encoding)
    assert {e.file: (e.label, e.task) for e in found.entries} == {
        "a/1.jpg": ("cat", "labels.csv#2"), "2.jpg": ("dog", "labels.csv#3"),
    }  # fmt: skip
    assert (found.files_seen, found.tasks_seen, found.exports_seen) == (2, 2, 1)


def test_a_path_that_leads_nowhere_finds_what_ends_with_it(folder, reasons):
    root = folder("train/1.jpg", "train/dogs/2.jpg", "cats/3.jpg", "a/4.jpg", "b/4.jpg")
    found = found_in(
        root, "path,label\n1,cat\ndogs/2.jpg,dog\ndogs/3.jpg,dog\n4.jpg,cat\n../1.jpg,dog\n"
    )
    assert {e.file: e.task for e in found.entries} == {
        "train/1.jpg": "labels.csv#2", "train/dogs/2.jpg": "labels.csv#3",
    }  # fmt: skip
    assert reasons(found) == {
        "labels.csv#4": "missing_file", "cats/3.jpg": "no_task", "labels.csv#5": "ambiguous",
        "a/4.jpg": "ambiguous", "b/4.jpg": "ambiguous", "labels.csv#6": "missing_file",
    }  # fmt: skip


def test_every_odd_row_and_file_is_skipped_with_its_reason(folder, reasons):
    root = folder(*(f"{n}.jpg" for n in range(1, 10)))
    text = (
        "path,label\n1.jpg,cat\n2.jpg,\n3.jpg,NaN\n4.jpg,cow\nnowhere.jpg,dog\n,dog\n\n5.jpg,dog\n"
        "5.jpg,1\n6.jpg,cat\n6.jpg,dog\n7.jpg\n../8.jpg,dog\n"
    )
    found = found_in(root, text)
    assert {e.file for e in found.entries} == {"1.jpg", "5.jpg"}
    assert reasons(found) == {
        "2.jpg": "no_label", "labels.csv#3": "no_label", "3.jpg": "no_label",
        "labels.csv#4": "no_label", "4.jpg": "label_unknown", "labels.csv#5": "label_unknown",
        "labels.csv#6": "missing_file", "labels.csv#7": "missing_file",
        "labels.csv#10": "duplicate_task", "6.jpg": "label_conflict",
        "labels.csv#11": "label_conflict", "labels.csv#12": "label_conflict",
        "7.jpg": "no_label", "labels.csv#13": "no_label", "labels.csv#14": "missing_file",
        "8.jpg": "no_task", "9.jpg": "no_task",
    }  # fmt: skip
    assert (found.files_seen, found.tasks_seen) == (9, 12)


@pytest.mark.parametrize(
    "path",
    ["photos/É 1.JPG", "./photos/É 1.JPG", "photos\\É 1.JPG", "photos/É 1.jpg", "photos/é 1"],
)
def test_paths_may_differ_in_slashes_unicode_form_case_and_suffix(folder, path):
    found = found_in(
        folder("photos/E\u0301 1.JPG", "x.jpg"), f"path,label\n{path},cat\nx.jpg,dog\n"
    )
    assert [e.label for e in found.entries if e.file.startswith("photos")] == ["cat"]


def test_a_path_that_fits_two_photos_is_ambiguous(folder, reasons):
    found = found_in(folder("a.jpg", "a.png", "b.jpg"), "path,label\na,cat\nb.jpg,dog\n")
    assert reasons(found) == {
        "labels.csv#2": "ambiguous", "a.jpg": "ambiguous", "a.png": "ambiguous",
    }  # fmt: skip


def test_paths_are_relative_to_the_csv(folder):
    dataset = Dataset(layout="table", classes=DATASET.classes, csv="tables/l.csv")
    text = "path,label\n../photos/1.jpg,cat\n2.jpg,dog\n"
    found = found_in(folder("photos/1.jpg", "tables/2.jpg"), text, dataset, "tables/l.csv")
    assert {e.file: e.label for e in found.entries} == {
        "photos/1.jpg": "cat", "tables/2.jpg": "dog",
    }  # fmt: skip


def test_the_group_column_is_the_person(folder):
    dataset = Dataset(layout="table", classes=DATASET.classes, group_column="who", path_column="f")
    text = "who,f,label\n007,a.jpg,cat\n,b.jpg,dog\n Eve ,val/c.jpg,dog\n"
    found = found_in(folder("a.jpg", "b.jpg", "val/c.jpg"), text, dataset)
    assert [(e.subject, e.predefined_split) for e in found.entries] == [
        ("007", ""),
        ("", ""),
        ("Eve", "val"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n", r"labels\.csv has no column 'path', only file, label; rename"),
        ("", r"has no column 'path', only none"),
        ('path,label\n"a' + "b" * 200_000 + "\n", r"line \d+: field larger.*fix"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_with_a_remedy(folder, text, message):
    with pytest.raises(ValueError, match=message):
        found_in(folder("a.jpg"), text)


def test_a_table_that_is_not_there_or_not_utf8_is_an_error_with_a_remedy(folder):
    with pytest.raises(ValueError, match=r"labels\.csv does not exist; .*params\.yaml"):
        csv_table.read_csv_table(folder("a.jpg"), DATASET)
    with pytest.raises(ValueError, match="not UTF-8 at byte 11; save it as UTF-8"):
        found_in(folder("a.jpg"), "path,label\né.jpg,cat\n", encoding="latin-1")


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("# made by x\nfile,label\n1.jpg,a\n", ["file", "label"], [(3, ["1.jpg", "a"])]),
        ("#file,label\n1.jpg,a\n", ["#file", "label"], [(2, ["1.jpg", "a"])]),
        ("# file 1 2\nname kind size\na.jpg x 3\n", ["name", "kind", "size"],
         [(3, ["a.jpg", "x", "3"])]),
        ("path label\nmy photos/1.jpg a\n", ["path", "label"], [(2, ["my photos/1.jpg", "a"])]),
        ("my photos/1.jpg a\nmy photos/2.jpg b\n", ["my photos/1.jpg", "a"],
         [(2, ["my photos/2.jpg", "b"])]),
        ("1 cat.jpg a\n2 dog.jpg b\n", ["1 cat.jpg", "a"], [(2, ["2 dog.jpg", "b"])]),
    ],
)  # fmt: skip
def test_comments_and_words_of_a_table(text, columns, rows):
    table = parse_table(text.encode(), "t.txt")
    assert (table.columns, table.rows) == (columns, rows)
