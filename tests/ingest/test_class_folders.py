"""anklealign/ingest/class_folders.py: the class folder is the label."""

import pytest

from anklealign.config.params import Dataset
from anklealign.ingest import class_folders

DATASET = Dataset(layout="folders", classes={"ants": ("hangya",), "bees": ()})


def test_a_class_folder_labels_its_photos_at_any_depth(folder):
    root = folder("ants/1.jpg", "BEES/2.jpg", "1_Hangya/spring/3.jpg")
    found = class_folders.read_class_folders(root, DATASET)
    assert {e.file: (e.label, e.predefined_split) for e in found.entries} == {
        "ants/1.jpg": ("ants", ""), "BEES/2.jpg": ("bees", ""),
        "1_Hangya/spring/3.jpg": ("ants", ""),
    }  # fmt: skip
    assert (found.files_seen, found.tasks_seen, found.skips) == (3, 0, ())


@pytest.mark.parametrize(
    ("top", "part"),
    [("train", "train"), ("val", "val"), ("valid", "val"), ("Validation", "val"), ("test", "test")],
)
def test_class_folders_may_lie_below_given_parts(folder, top, part):
    found = class_folders.read_class_folders(
        folder(f"{top}/ants/1.jpg", f"{top}/bees/1.jpg"), DATASET
    )
    assert [(e.label, e.predefined_split) for e in found.entries] == [
        ("ants", part),
        ("bees", part),
    ]


def test_what_lies_in_no_class_is_skipped_with_a_reason(folder, reasons):
    root = folder("ants/1.jpg", "1.jpg", "train/2.jpg", "bess/3.jpg", "train/bugs/4.jpg")
    found = class_folders.read_class_folders(root, DATASET)
    assert reasons(found) == {
        "1.jpg": "no_class_folder", "train/2.jpg": "no_class_folder", "bess/3.jpg": "label_unknown",
        "train/bugs/4.jpg": "label_unknown",
    }  # fmt: skip
    assert "closest class is 'bees'" in next(
        s.detail for s in found.skips if s.path == "bess/3.jpg"
    )


def test_a_class_may_be_called_train(folder):
    dataset = Dataset(layout="folders", classes={"train": (), "bus": ()})
    found = class_folders.read_class_folders(
        folder("train/1.jpg", "bus/1.jpg", "val/train/1.jpg"), dataset
    )
    assert {e.file: (e.label, e.predefined_split) for e in found.entries} == {
        "train/1.jpg": ("train", ""), "bus/1.jpg": ("bus", ""), "val/train/1.jpg": ("train", "val"),
    }  # fmt: skip


def test_the_person_is_read_from_the_path(folder):
    dataset = Dataset(
        layout="folders", classes={"a": (), "b": ()}, subject_pattern=r"p(?P<subject>\d+)_"
    )
    found = class_folders.read_class_folders(
        folder("a/p1_1.jpg", "a/p01_2.jpg", "b/p2_1.jpg", "b/x.jpg"), dataset
    )
    assert [e.subject for e in found.entries] == ["01", "01", "02", ""]
