"""Folders as people have them: every photo gets its true label and split, or the user is asked.

Each generator writes a folder of one kind and returns the true label and predefined split of each
photo that has a label. The photos are copies of one small JPEG: labels come from names and tables.
"""

import csv
import importlib.util
import io
import json
import re
import shlex
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from anklealign.cli import add, layout_detection, table_detection
from anklealign.cli.dataset_config import scalar
from anklealign.config import params
from anklealign.config.params import Dataset
from anklealign.ingest import layouts

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases"
PETS = ("cat", "dog")


@pytest.fixture(scope="module")
def raw():
    return params.read(ROOT / "params.yaml")


@pytest.fixture
def write(tmp_path, jpeg):
    """Return a function that writes photos (paths) and texts (by path) below a folder."""

    def fill(photos, **texts):
        for path in photos:
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(jpeg)
        for path, text in texts.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            data = text if isinstance(text, bytes) else text.encode()
            target.write_bytes(data)
        return tmp_path

    return fill


def read(root, raw, layout=None, **forced):
    """Return the reading, the config, and the label and split of each photo, with its subject."""
    proposal = add.propose(root, "mine", layout, raw, forced)
    inventory = layouts.read_inventory(root, proposal.dataset)
    entries = {entry.file: entry for entry in inventory.entries}
    return proposal, inventory, entries


def labels_of(entries):
    return {file: entry.label for file, entry in entries.items()}


def splits_of(entries):
    return {file: entry.predefined_split for file, entry in entries.items()}


def table(header, rows, delimiter=","):
    return "".join(f"{delimiter.join(map(str, row))}\n" for row in (header, *rows))


def numbered(count, folder="images/"):
    return [f"{folder}{n}.jpg" for n in range(count)]


def shuffled(count):
    return np.random.default_rng(5).permutation(count).tolist()


# --- Tables: (photos, texts, true labels) --------------------------------------------------------


def running_number(order):
    """A running number beside the file name: photos 8.jpg, id 0, 1, 2, ..."""

    def make():
        photos = numbered(40)
        rows = [(n, f"{m}.jpg", PETS[m % 2]) for n, m in enumerate(shuffled(40))]
        if order == "shuffled":
            rows = [rows[n] for n in reversed(shuffled(40))]
        return photos, {"train.csv": table(("id", "image_name", "label"), rows)}

    return make, {f"images/{n}.jpg": PETS[n % 2] for n in range(40)}


def kaggle_ids():
    photos = [f"train/{n}.jpg" for n in range(1, 31)]
    return photos, {
        "trainLabels.csv": table(("id", "label"), [(n, PETS[n % 2]) for n in range(1, 31)])
    }


def nih():
    """Photos in images_001/images, ... named in one table with patients and several findings."""
    photos = [f"images_{1 + n % 3:03}/images/{n:08}_000.png" for n in range(60)]
    rows = [
        (f"{n:08}_000.png", ["Mass", "No Finding", "Mass|Nodule", "Nodule"][n % 4], n % 3, n // 2,
         40 + n % 7, "MF"[n % 2], "PA")
        for n in range(60)
    ]  # fmt: skip
    header = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
              "Patient Gender", "View Position")  # fmt: skip
    return photos, {"Data_Entry_2017.csv": table(header, rows)}


def roboflow():
    photos, texts = [], {}
    for split, count in (("train", 12), ("valid", 6), ("test", 6)):
        names = [f"{split}{n}.jpg" for n in range(count)]
        photos += [f"{split}/{name}" for name in names]
        rows = [(name, int(n % 2 == 0), int(n % 2 == 1)) for n, name in enumerate(names)]
        texts[f"{split}/_classes.csv"] = table(("filename", " cat", " dog"), rows)
    return photos, texts


def metadata_in_each_split(suffix):
    def make():
        photos, texts = [], {}
        for split, count in (("train", 12), ("test", 6)):
            photos += [f"{split}/{n}.jpg" for n in range(count)]
            records = [{"file_name": f"{n}.jpg", "label": PETS[n % 2]} for n in range(count)]
            if suffix == "jsonl":
                texts[f"{split}/metadata.jsonl"] = "".join(json.dumps(r) + "\n" for r in records)
            else:
                rows = [tuple(record.values()) for record in records]
                texts[f"{split}/metadata.csv"] = table(("file_name", "label"), rows)
        return photos, texts

    return make


def other_disk(prefix):
    """Absolute paths, where each folder has a photo 1.jpg."""

    def make():
        photos = [f"{place}/{n}.jpg" for place in ("rome", "oslo") for n in range(8)]
        rows = [(f"{prefix}{photo}".replace("/", "\\") if ":\\" in prefix else prefix + photo,
                 PETS[n % 2]) for n, photo in enumerate(photos)]  # fmt: skip
        return photos, {"labels.csv": table(("path", "label"), rows)}

    return make


def excel():
    rows = [(f"{n}.jpg", PETS[n % 2]) for n in range(12)]
    return numbered(12, ""), {"t.csv": "sep=;\n" + table(("kép", "címke"), rows, ";")}


def spaced_list():
    photos = [f"my photos/{n}.jpg" for n in range(12)]
    return photos, {"list.txt": "".join(f"{p} {PETS[n % 2]}\n" for n, p in enumerate(photos))}


def many_folders():
    """Two hundred folders of five photos, such as days, and a table with the labels."""
    photos = [f"day{n // 5:03}/{n}.jpg" for n in range(1000)]
    return photos, {
        "t.csv": table(("file", "label"), [(p, PETS[n % 2]) for n, p in enumerate(photos)])
    }


def constant_column():
    rows = [(f"{n}.jpg", PETS[n % 2], "P1", "2024") for n in range(12)]
    return numbered(12), {"t.csv": table(("file", "label", "patient_id", "year"), rows)}


def twin_columns():
    rows = [(f"{n}.jpg", n % 2, PETS[n % 2]) for n in range(12)]
    return numbered(12), {"t.csv": table(("file", "class_id", "class_name"), rows)}


def unlabeled_test_table():
    rows = [(f"{n}.jpg", PETS[n % 2]) for n in range(12)]
    photos = numbered(12, "train/") + [f"test/{n}.jpg" for n in range(100, 140)]
    return photos, {
        "train.csv": table(("file", "label"), rows),
        "test.csv": table(("file",), [(f"{n}.jpg",) for n in range(100, 140)]),
        "sampleSubmission.csv": table(
            ("file", "label"), [(f"{n}.jpg", PETS[n % 2]) for n in range(100, 140)]
        ),
    }


def by_number(photos):
    """The label of each photo by the last number of its name."""
    names = [photo.rpartition("/")[2] for photo in photos]
    return {
        photo: PETS[int("".join(c for c in name.split(".")[0].split("_")[0] if c.isdigit())) % 2]
        for photo, name in zip(photos, names, strict=True)
    }


def by_position(photos):
    return {photo: PETS[n % 2] for n, photo in enumerate(photos)}


TABLES = {
    "running number": (running_number("in order")[0], by_number, {"path_column": "image_name"}),
    "shuffled number": (running_number("shuffled")[0], by_number, {"path_column": "image_name"}),
    "Kaggle ids": (kaggle_ids, by_number, {"path_column": "id"}),
    "Roboflow one-hot": (roboflow, by_number, {"one_hot": True}),
    "Hugging Face csv": (metadata_in_each_split("csv"), by_number, {}),
    "Hugging Face jsonl": (metadata_in_each_split("jsonl"), by_number, {}),
    "POSIX path elsewhere": (other_disk("/mnt/disk7/data/"), by_position, {}),
    "Windows path elsewhere": (other_disk("D:\\me\\data\\"), by_position, {}),
    "URL": (other_disk("https://host/a/"), by_position, {}),
    "bucket": (other_disk("gs://bucket/data/"), by_position, {}),
    "Excel sep line": (excel, by_number, {"label_column": "címke"}),
    "list with spaces": (spaced_list, by_position, {"path_column": "#1", "label_column": "#2"}),
    "200 folders of 5": (many_folders, by_number, {"layout": "table"}),
    "constant column": (constant_column, by_number, {"group_column": None}),
    "number and name": (twin_columns, by_number, {"label_column": "class_name"}),
    "unlabeled test table": (unlabeled_test_table, None, {"csv": "train.csv"}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_gives_each_photo_its_label(write, raw, kind):
    make, truth, keys = TABLES[kind]
    photos, texts = make()
    root = write(photos, **texts)
    proposal, _, entries = read(root, raw)
    expected = (truth or by_number)(photos if truth else photos[:12])
    assert labels_of(entries) == expected
    assert {key: getattr(proposal.dataset, key) for key in keys} == keys
    named = {"test": "test", "valid": "val", "train": "train"}
    if kind.startswith(("Roboflow", "Hugging")):
        assert splits_of(entries) == {photo: named[photo.split("/")[0]] for photo in photos}
    else:
        assert set(splits_of(entries).values()) == {""}


def test_patients_group_photos_and_rows_with_several_findings_are_skipped_with_a_word(write, raw):
    photos, texts = nih()
    proposal, inventory, entries = read(write(photos, **texts), raw)
    assert Counter(labels_of(entries).values()) == {"Mass": 15, "No Finding": 15, "Nodule": 15}
    assert {entry.subject for entry in entries.values()} == {str(n) for n in range(30)}
    assert Counter(s.reason for s in inventory.skips if s.item == "task") == {"several_choices": 15}
    remarks = " ".join(proposal.reading.remarks)
    assert "15 rows hold several labels (Mass|Nodule) and are skipped" in remarks
    assert "folders, not chosen" in remarks


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("split", ("train", "val", "test")),
        ("set", ("TRAIN", "VALIDATION", "TEST")),
        ("is_valid", ("False", "True", "True")),
        ("fold", ("train", "valid", "test")),
    ],
)
def test_a_split_column_is_kept(write, raw, header, cells):
    rows = [(f"{n}.jpg", PETS[n % 2], cells[n % 3]) for n in range(24)]
    root = write(numbered(24), **{"t.csv": table(("file", "label", header), rows)})
    proposal, _, entries = read(root, raw)
    meanings = ("train", "val", "val" if header == "is_valid" else "test")
    assert proposal.dataset.split_column == header
    assert splits_of(entries) == {f"images/{n}.jpg": meanings[n % 3] for n in range(24)}


def test_numbered_folds_are_named_and_not_read(write, raw):
    rows = [(f"{n}.jpg", PETS[n % 2], n % 5) for n in range(30)]
    root = write(numbered(30), **{"t.csv": table(("file", "pet", "fold"), rows)})
    proposal, _, _ = read(root, raw)
    assert proposal.dataset.split_column is None
    remarks = " ".join(proposal.reading.remarks)
    assert "column 'fold' numbers 5 folds" in remarks
    assert "--set group_column=fold keeps each fold in one split" in remarks
    _, _, entries = read(root, raw, group_column="fold")
    assert {e.subject for e in entries.values()} == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize(
    "names", [[f"rater{n}" for n in range(5)], ["Ann", "Bo", "Cy", "Di", "Ed"]]
)
def test_columns_of_several_raters_are_votes(write, raw, names):
    wrong = np.random.default_rng(1).random((101, len(names))) < 0.1
    votes = [[PETS[(n + int(w)) % 2] for w in row] for n, row in enumerate(wrong)]
    rows = [(f"{n}.jpg", 30 + n % 9, *cast) for n, cast in enumerate(votes)]
    root = write(numbered(101), **{"t.csv": table(("file", "age", *names), rows)})
    proposal, inventory, entries = read(root, raw)
    assert proposal.dataset.vote_columns == tuple(names)
    assert len(inventory.votes) == 505
    assert {(v.file, v.annotator): v.label for v in inventory.votes} == {
        (f"images/{n}.jpg", name): label
        for n, cast in enumerate(votes) for name, label in zip(names, cast, strict=True)
    }  # fmt: skip
    assert all(entry.by_vote for entry in entries.values())
    report = add.examine(root, "mine", None, raw)
    majority = {
        f"images/{n}.jpg": Counter(cast).most_common(1)[0][0] for n, cast in enumerate(votes)
    }
    assert {entry.file: entry.label for entry in report.used} == majority
    assert "votes     505 by 5 annotators on 101 photos" in "\n".join(add.report(report, 10))


@pytest.mark.parametrize("names", [["anna_left", "anna_right", "bela_left", "bela_right"],
                                   ["bal", "jobb", "Arzt"]])  # fmt: skip
def test_columns_of_left_and_right_are_no_votes_without_a_question(write, raw, names):
    rows = [(f"{n}.jpg", *[PETS[n % 2]] * (len(names) - 1), PETS[n % 3 > 0]) for n in range(30)]
    root = write(numbered(30), **{"t.csv": table(("file", *names), rows)})
    with pytest.raises(ValueError, match="annotator's; if each labels a part of the photo, cut"):
        read(root, raw)
    proposal, _, _ = read(root, raw, vote_columns=names)
    assert proposal.dataset.vote_columns == tuple(names)


def test_rows_of_both_sides_of_a_photo_are_mentioned_and_give_no_wrong_label(write, raw):
    rows = [
        (f"{n}.jpg", side, PETS[(n + (side == "right" and n % 3 == 0)) % 2])
        for n in range(30) for side in ("left", "right")
    ]  # fmt: skip
    root = write(numbered(30), **{"t.csv": table(("file", "side", "label"), rows)})
    proposal, _, entries = read(root, raw)
    remarks = " ".join(proposal.reading.remarks)
    assert "10 rows contradict an earlier row of the photo; if they are votes" in remarks
    assert "if each labels a part of the photo, cut the photos into these parts" in remarks
    assert labels_of(entries) == {f"images/{n}.jpg": PETS[n % 2] for n in range(30) if n % 3}


def test_rows_of_several_annotators_are_votes(write, raw):
    rows = [(f"{n}.jpg", who, PETS[n % 2]) for n in range(20) for who in ("a1", "a2", "a3")]
    rows[0] = ("0.jpg", "a1", "dog")
    rows = [row for row in rows if row[0] != "19.jpg" or row[1] == "a1"]
    rows.append(("5.jpg", "a1", "cat"))  # a second vote, which counts
    root = write(numbered(20), **{"t.csv": table(("file", "annotator", "label"), rows)})
    proposal, inventory, entries = read(root, raw)
    assert proposal.dataset.annotator_column == "annotator"
    assert len(inventory.votes) == 57
    assert inventory.votes_seen == 58
    assert inventory.tasks_seen == 1
    assert not entries["images/19.jpg"].by_vote
    assert entries["images/19.jpg"].label == "dog"
    votes = {(v.file, v.annotator): v.label for v in inventory.votes}
    assert votes["images/0.jpg", "a1"] == "dog"
    assert votes["images/5.jpg", "a1"] == "cat"


def test_votes_beside_a_label_column_keep_that_label(write, raw):
    rows = [(f"{n}.jpg", PETS[n % 2], PETS[n % 2], PETS[0]) for n in range(20)]
    root = write(numbered(20), **{"t.csv": table(("file", "label", "rater1", "rater2"), rows)})
    proposal, inventory, entries = read(root, raw)
    assert proposal.dataset.label_column == "label"
    assert proposal.dataset.vote_columns == ("rater1", "rater2")
    assert labels_of(entries) == by_number(numbered(20))
    assert len(inventory.votes) == 40


# --- Questions -----------------------------------------------------------------------------------


def two_image_columns():
    rows = [(f"{n}_a.jpg", f"{n}_b.jpg", PETS[n % 2]) for n in range(12)]
    photos = [f"images/{n}_{side}.jpg" for n in range(12) for side in "ab"]
    return photos, {"t.csv": table(("left", "right", "label"), rows)}


def multi_label():
    rows = [(f"{n}.jpg", int(n % 2), int(n % 3 == 0), int(n % 5 == 0)) for n in range(24)]
    return numbered(24), {"t.csv": table(("image", "sky", "sea", "sand"), rows)}


def contradicting_tables():
    rows = [(f"{n}.jpg", PETS[n % 2]) for n in range(12)]
    other = [(f"{n}.jpg", PETS[n % 3 == 0]) for n in range(12)]
    header = ("file", "label")
    return numbered(12), {"v1.csv": table(header, rows), "v2.csv": table(header, other)}


def index_alone():
    rows = [(n, f"photo_{n}.jpg", PETS[n % 2]) for n in range(12)]
    return numbered(12), {"t.csv": table(("nr", "file", "label"), rows)}


def unnamed_index():
    return numbered(12), {"t.csv": table(("", "label"), [(n, PETS[n % 2]) for n in range(12)])}


def numbers_and_picture_names():
    """An index, an id and the name of the photo, all of them numbers."""
    rows = zip(range(30), shuffled(30), reversed(range(30)), PETS * 15, strict=True)
    return numbered(30), {"t.csv": table(("", "id", "image_name", "label"), list(rows))}


def words_in_names():
    return [f"train/{PETS[n % 2]}.{n}.jpg" for n in range(12)] + numbered(6, "test1/"), {}


def parts_without_table():
    return [f"images_{n % 3:03}/{n}.jpg" for n in range(30)], {}


QUESTIONS = {
    "two image columns": (
        two_image_columns,
        "'left' and 'right' name different photos.*path_column=left or --set path_column=right",
        {"path_column": "right"},
    ),
    "several labels per photo": (
        multi_label, r"one class in \d+ and several in \d+ of 24 rows.*--set one_hot=true, which",
        {"one_hot": True},
    ),
    "contradicting tables": (
        contradicting_tables,
        r"label \d photos differently; pass --set csv=v1\.csv or --set csv=v2\.csv",
        {"csv": "v1.csv"},
    ),
    "a number and file names that are not here": (
        index_alone, r"'file' looks like file names, but names no photo.*--set path_column=nr",
        {"path_column": "nr"},
    ),
    "an unnamed index": (
        unnamed_index,
        r"looks like a running number.*--set 'path_column=Unnamed: 0'",
        {"path_column": "Unnamed: 0"},
    ),
    "numbers of three kinds": (
        numbers_and_picture_names,
        "'image_name', 'id' and 'Unnamed: 0' name.*pass --set path_column=image_name or --set",
        {"path_column": "image_name"},
    ),
    "words in file names": (
        words_in_names, r"words that may be the labels: cat, dog.*--layout file_names",
        {"layout": "file_names"},
    ),
    "parts of one set": (
        parts_without_table, "look like parts of one set, not classes.*--layout folders",
        {"layout": "folders"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", QUESTIONS)
def test_what_evidence_does_not_decide_is_asked_with_the_option_that_decides(write, raw, kind):
    make, message, options = QUESTIONS[kind]
    photos, texts = make()
    root = write(photos, **texts)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read(root, raw)
    proposal, _, entries = read(root, raw, **options)
    assert {key: getattr(proposal.dataset, key) for key in options} == options
    assert len(entries) >= 3


def run_command(message, root):
    """Run the command that a message names in the folder of the dataset."""
    command = re.search(r'python -c "[^"]*"', message)
    subprocess.run(command[0], shell=True, check=True, cwd=root)  # noqa: S602


@pytest.mark.parametrize("each", [2, 5])
def test_two_columns_that_form_a_path_are_asked_about_with_a_command(write, raw, each):
    cases = [(f"pat{n:02}", f"img{m}.jpg") for n in range(10) for m in range(each)]
    rows = [(*case, PETS[n % 2]) for n, case in enumerate(cases)]
    root = write(
        ["/".join(case) for case in cases], **{"l.csv": table(("patient", "file", "label"), rows)}
    )
    with pytest.raises(ValueError, match="'patient' and 'file' form the paths") as error:
        read(root, raw)
    assert "--set csv=joined.csv" in str(error.value)
    run_command(str(error.value), root)
    proposal, _, entries = read(root, raw, csv="joined.csv")
    assert labels_of(entries) == {f"{case}/{file}": label for case, file, label in rows}
    assert proposal.dataset.group_column == "patient"


def test_two_columns_of_class_and_name_are_no_question_beside_class_folders(write, raw):
    photos = [f"{pet}/{n}.jpg" for pet in PETS for n in range(12)]
    rows = [(*photo.split("/"), 640) for photo in photos]
    root = write(photos, **{"l.csv": table(("kind", "file", "width"), rows)})
    proposal, _, entries = read(root, raw)
    assert proposal.dataset.layout == "folders"
    assert labels_of(entries) == {photo: photo.partition("/")[0] for photo in photos}


@pytest.mark.parametrize(
    ("column", "cells"), [("camera", ("canon", "nikon")), ("partition", "012"), ("kind", "ab")]
)
def test_a_question_is_asked_beside_another_table_of_as_many_photos(write, raw, column, cells):
    photos = numbered(30, "")
    truth = [(p, PETS[n % 2], ("wood", "field", "city")[n // 2 % 3]) for n, p in enumerate(photos)]
    other = [(photo, cells[n // 5 % len(cells)]) for n, photo in enumerate(photos)]
    root = write(
        photos,
        **{
            "truth.csv": table(("image", "pet", "habitat"), truth),
            "a.csv": table(("image", column), other),
        },
    )
    with pytest.raises(ValueError, match=r"'pet' \(cat, dog\), 'habitat'") as error:
        read(root, raw)
    assert ("--set csv=a.csv reads" in str(error.value)) == (column == "kind")
    _, _, entries = read(root, raw, label_column="pet")
    assert labels_of(entries) == {photo: label for photo, label, _ in truth}
    (root / "truth.csv").unlink()
    if column == "camera":
        with pytest.raises(
            ValueError, match=f"(?s)no label was found.*--set label_column={column}"
        ):
            read(root, raw)
    _, _, entries = read(root, raw, label_column=column)
    assert labels_of(entries) == dict(other)


@pytest.mark.parametrize("place", ["images/", ""])
@pytest.mark.parametrize("layout", ["table", "folders", "same table"])
def test_codes_of_splits_are_named_with_a_command(write, raw, place, layout):
    photos = [f"images/{PETS[n % 2]}/{n:02}.jpg" for n in range(30)]
    names = [photo.removeprefix("images/") for photo in photos]
    rows = [(name, n // 2 % 3) for n, name in enumerate(names)]
    texts = {
        f"{place}labels.csv": table(("file", "kind"), [(n, n[:3]) for n in names]),
        f"{place}s.csv": table(("name", "partition"), rows),
    }
    if layout == "folders":
        del texts[f"{place}labels.csv"]
    if layout == "same table":
        rows = [(*row, row[0][:3]) for row in rows]
        texts = {f"{place}s.csv": table(("name", "partition", "kind"), rows)}
    root = write(photos, **texts)
    proposal, _, entries = read(root, raw)
    assert set(splits_of(entries).values()) == {""}
    (remark,) = [r for r in proposal.reading.remarks if f"{place}s.csv: column" in r]
    run_command(remark, root)
    _, _, entries = read(root, raw)
    words = ("train", "val", "test")
    assert splits_of(entries) == {photo: words[n // 2 % 3] for n, photo in enumerate(photos)}
    assert labels_of(entries) == {photo: photo[7:10] for photo in photos}


@pytest.mark.parametrize("place", ["images/", ""])
@pytest.mark.parametrize("layout", ["table", "folders", "other name"])
@pytest.mark.parametrize(
    ("column", "cells"), [("split", ("train", "val", "test")), ("is_test", (0, 1, 1))]
)
def test_splits_in_a_table_of_their_own_are_read(write, raw, place, column, cells, layout):  # noqa: PLR0917
    photos = [f"images/{PETS[n % 2]}/{n:02}.jpg" for n in range(30)]
    names = [photo.removeprefix("images/") for photo in photos]
    header = ("name" if layout == "other name" else "file", column)
    rows = [(name, cells[n // 2 % 3]) for n, name in enumerate(names)]
    texts = {f"{place}s.csv": table(header, rows)}
    if layout != "folders":
        texts[f"{place}labels.csv"] = table(("file", "kind"), [(n, n[:3]) for n in names])
    proposal, inventory, entries = read(write(photos, **texts), raw)
    words = ("train", "val", "test") if column == "split" else ("train", "test", "test")
    assert splits_of(entries) == {photo: words[n // 2 % 3] for n, photo in enumerate(photos)}
    assert labels_of(entries) == {photo: photo[7:10] for photo in photos}
    assert proposal.dataset.extra_csv == {f"{place}s.csv": header[0]}
    assert f"{place}s.csv: column {column!r} holds predefined splits" in proposal.reading.remarks
    assert (inventory.exports_seen, inventory.skips) == (len(texts), ())


@pytest.mark.parametrize("layout", ["table", "folders", "csv chosen", "folders of splits"])
@pytest.mark.parametrize("column", ["patient_id", "fold"])
def test_groups_in_a_table_of_their_own_are_read_and_folds_by_an_option(write, raw, layout, column):
    photos = [f"{PETS[n % 2]}/{n:02}.jpg" for n in range(30)]
    if layout == "folders of splits":
        photos = [f"{('train', 'test')[n // 5 % 2]}/{p}" for n, p in enumerate(photos)]
    rows = [(photo.rpartition("/")[2], n // 5, 30 + n // 5) for n, photo in enumerate(photos)]
    texts = {"meta.csv": table(("photo", column, "age"), rows)}
    options = {}
    if layout in {"table", "csv chosen"}:
        labels = [(photo, PETS[n % 3 == 0]) for n, photo in enumerate(photos)]
        texts["labels.csv"] = table(("image", "wild"), labels)
        options = {"layout": "table"} | ({"csv": "labels.csv"} if layout == "csv chosen" else {})
    root = write(photos, **texts)
    proposal, _, entries = read(root, raw, **options)
    if column == "fold":
        assert {entry.subject for entry in entries.values()} == {""}
        (remark,) = [r for r in proposal.reading.remarks if "meta.csv: column 'fold'" in r]
        assert "--set group_column=fold keeps each fold in one split" in remark
        proposal, _, entries = read(root, raw, group_column="fold", **options)
    assert {p: e.subject for p, e in entries.items()} == {
        p: str(n // 5) for n, p in enumerate(photos)
    }
    assert proposal.dataset.extra_csv == {"meta.csv": "photo"}
    assert set(labels_of(entries).values()) == set(PETS)


@pytest.mark.parametrize("kind", ["table", "lists", "no labels"])
def test_groups_and_splits_of_other_tables_beside_label_studio_are_read(write, raw, kind):
    photos = numbered(24, "")
    tasks = [
        {"id": n, "data": {"image": photo}, "annotations": [{"result": [
            {"from_name": "c", "type": "choices", "value": {"choices": [PETS[n % 2]]}}]}]}
        for n, photo in enumerate(photos)
    ]  # fmt: skip
    splits = ("train", "val", "test")
    texts = {
        "patients.csv": table(("file", "patient"), [(p, n // 4) for n, p in enumerate(photos)]),
        "splits.csv": table(("file", "split"), [(p, splits[n % 3]) for n, p in enumerate(photos)]),
    }
    if kind == "no labels":
        with pytest.raises(ValueError, match="is not read: no photo has a label yet") as error:
            read(write(photos, **texts), raw)
        assert "--set" not in str(error.value)
        return
    if kind == "lists":
        del texts["splits.csv"]
        texts |= {f"{s}.txt": "\n".join(photos[n::3]) for n, s in enumerate(splits)}
    proposal, _, entries = read(write(photos, **texts, **{"export.json": json.dumps(tasks)}), raw)
    assert "patients.csv" in proposal.dataset.extra_csv
    assert {p: (e.label, e.subject, e.predefined_split) for p, e in entries.items()} == {
        p: (PETS[n % 2], str(n // 4), splits[n % 3]) for n, p in enumerate(photos)
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("label.csv", "label.csv: --set csv names it, but the folder has no such table"),
        ("patients.csv", "patients.csv: not read: no column contains two recurring labels"),
    ],
)
def test_a_table_that_the_user_names_is_not_replaced_by_folders(write, raw, name, reason):
    photos = tree(*PETS, each=12)
    rows = [(photo, n // 4) for n, photo in enumerate(photos)]
    root = write(photos, **{"patients.csv": table(("file", "patient"), rows)})
    with pytest.raises(ValueError, match="does not look like layout table") as error:
        read(root, raw, csv=name)
    assert reason in str(error.value)
    assert read(root, raw, "folders", csv=name)[0].dataset.layout == "folders"


def test_groups_and_splits_of_another_table_that_are_not_read_are_named(write, raw):
    photos = numbered(30, "")
    half = [(photo, n // 5) for n, photo in enumerate(photos[:12])]
    twice = [(photo, n // 5, n % 3) for n, photo in enumerate([*photos, *photos[1:]])]
    labels = [(p, PETS[n % 2], ("train", "test")[n // 15]) for n, p in enumerate(photos)]
    splits = [(photo, ("train", "test")[n % 2]) for n, photo in enumerate(photos)]
    texts = {
        "labels.csv": table(("image", "label", "split"), labels),
        "half.csv": table(("image", "patient"), half),
        "twice.csv": table(("image", "subject", "x"), twice),
        "splits.csv": table(("image", "subset"), splits),
    }
    root = write(photos, **texts)
    proposal, _, _ = read(root, raw)
    assert proposal.dataset.extra_csv is None
    remarks = " ".join(proposal.reading.remarks)
    assert "it names 12 of 30 photos with a label; --set group_column=patient reads it" in remarks
    assert "'subject' groups the photos, and is not read: 29 photos have several values" in remarks
    assert "lists give the splits, and 14 photos have another split by folder or table" in remarks
    assert "1.jpg is test here and train there; --set split_column=subset reads it" in remarks
    proposal, _, entries = read(root, raw, group_column="patient", split_column="subset")
    assert proposal.dataset.extra_csv == {"half.csv": "image", "splits.csv": "image"}
    assert {e.subject for e in entries.values()} == {"", "0", "1", "2"}
    assert splits_of(entries) == dict(splits)
    with pytest.raises(ValueError, match=r"group_column: 'no' .* layout folders has none"):
        read(write(tree(*PETS)), raw, "folders", group_column="no")


def test_one_column_per_class_comes_before_a_table_of_attributes_which_gives_the_groups(write, raw):
    names = [f"ISIC_{n:04}" for n in range(40)]
    hot = [(name, float(n % 2), float(n % 2 == 0)) for n, name in enumerate(names)]
    facts = [(name, 30 + n % 9, ["torso", "leg"][n % 3 == 0], ["a", "b", "c"][n % 3],
              f"L{n // 4}") for n, name in enumerate(names)]  # fmt: skip
    header = ("image", "age_approx", "part", "scanner", "lesion_id")
    texts = {
        "truth.csv": table(("image", "MEL", "NV"), hot), "meta.csv": table(header, facts)
    }  # fmt: skip
    proposal, _, entries = read(write([f"img/{name}.jpg" for name in names], **texts), raw)
    assert proposal.dataset.one_hot
    assert {p: (e.label, e.subject) for p, e in entries.items()} == {
        f"img/{name}.jpg": (("NV", "MEL")[n % 2], f"L{n // 4}") for n, name in enumerate(names)
    }


@pytest.mark.parametrize("labels", ["in the table of patients", "in the table of photos"])
def test_a_table_of_patients_is_named_with_the_command_that_joins_it(write, raw, labels):
    photos = numbered(40)
    pets, split = ("diagnosis", PETS * 5), ("split", ["train", "test"] * 5)
    first, second = [("image", photos)], [("patient_id", [f"{n:02}" for n in range(10)])]
    first.append(("patient_id", [f"{n // 4:02}" for n in range(40)]))
    if labels == "in the table of patients":
        second.append(pets)
    else:
        first.append(("diagnosis", [PETS[n // 4 % 2] for n in range(40)]))
        second.append(split)
    texts = {
        name: table([head for head, _ in columns], zip(*(own for _, own in columns), strict=True))
        for name, columns in (("photos.csv", first), ("patients.csv", second))
    }
    root = write(photos, **texts)
    if labels == "in the table of patients":
        with pytest.raises(ValueError, match=r"rows name column 'patient_id' of ph") as error:
            read(root, raw)
        message = str(error.value)
    else:
        message = " ".join(read(root, raw)[0].reading.remarks)
    assert "then pass --set csv=joined.csv" in message
    assert "in the folder of the dataset: python" in message
    assert "no row names a photo" not in message
    run_command(message, root)
    _, _, entries = read(root, raw, csv="joined.csv")
    assert {p: (e.label, e.subject) for p, e in entries.items()} == {
        photo: (PETS[n // 4 % 2], f"{n // 4:02}") for n, photo in enumerate(photos)
    }
    if labels == "in the table of photos":
        assert splits_of(entries) == {p: split[1][n // 4] for n, p in enumerate(photos)}
    else:
        (remark,) = [r for r in read(root, raw)[0].reading.remarks if "patients.csv" in r]
        assert remark.endswith("which has the paths; joined.csv has its columns, too")


def test_a_table_of_patients_traits_beside_class_folders_is_not_joined(write, raw):
    photos = tree(*PETS, each=12)
    traits = [(f"P{n}", "FM"[n % 2], 30 + n) for n in range(8)]
    texts = {
        "photos.csv": table(("file", "patient"), [(p, f"P{n % 8}") for n, p in enumerate(photos)]),
        "patients.csv": table(("patient", "sex", "age"), traits),
    }
    proposal, _, entries = read(write(photos, **texts), raw)
    assert {entry.subject for entry in entries.values()} == {f"P{n}" for n in range(8)}
    (remark,) = [r for r in proposal.reading.remarks if "patients.csv" in r]
    assert remark.endswith("not read: sex, age are no labels, groups or splits by their names")


def test_celeba_attributes_are_asked_about_and_its_partition_is_no_label(write, raw):
    photos = [f"img/{n:06}.jpg" for n in range(1, 41)]
    rows = [(photo[4:], 1 if n % 2 else -1, 1 if n % 3 else -1) for n, photo in enumerate(photos)]
    codes = "".join(f"{photo[4:]} {n // 2 % 3}\n" for n, photo in enumerate(photos))
    root = write(photos, **{"list_eval_partition.txt": codes})
    with pytest.raises(ValueError, match=r"(?s)no label was.* has the codes 0, 1, 2") as error:
        read(root, raw)
    run_command(str(error.value), root)
    attributes = table(("Smiling", "Male"), rows, " ")
    write([], **{"list_attr.txt": f"40\n{attributes}"})
    with pytest.raises(ValueError, match=r"'Smiling' .* choose with --set label_column=Smiling"):
        read(root, raw)
    _, _, entries = read(root, raw, label_column="Smiling")
    assert labels_of(entries) == {f"img/{row[0]}": str(row[1]) for row in rows}
    splits = ("train", "val", "test")
    assert splits_of(entries) == {photo: splits[n // 2 % 3] for n, photo in enumerate(photos)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "meta.csv does not exist; add it, or fix extra_csv"),
        ("a,b\n1.jpg,2\n", "has no column 'photo', only a, b; fix"),
        ("photo,b\n1.jpg,2\n", "has no column named by group_column or split_column"),
        ("photo,who\nno.jpg,2\n", "names no photo with a label; fix"),
        ("photo,who\n1.jpg,2\n1.jpg,3\n", "has 2 and 3 for cat/1.jpg; keep one row per photo"),
    ],
)
def test_an_extra_table_that_cannot_be_used_is_an_error(write, text, message):
    root = write([f"{pet}/{n + 4 * k}.jpg" for k, pet in enumerate(PETS) for n in range(4)],
                 **({"meta.csv": text} if text else {}))  # fmt: skip
    dataset = Dataset(
        "folders", {"cat": (), "dog": ()}, group_column="who", extra_csv={"meta.csv": "photo"}
    )
    with pytest.raises(ValueError, match=message):
        layouts.read_inventory(root, dataset)


@pytest.mark.parametrize("split", [None, "split"])
def test_groups_of_another_table_can_be_turned_off_as_split_proposes(write, split):
    photos = tree(*PETS)
    root = write(photos, **{
        "patients.csv": table(("photo", "patient"), [(photo, photo[:3]) for photo in photos]),
        "splits.csv": table(("photo", "split"), zip(photos, ["train", "test"] * 4, strict=True)),
    })  # fmt: skip
    tables = {"patients.csv": "photo"} | ({"splits.csv": "photo"} if split else {})
    facts = {"layout": "folders", "classes": {"cat": [], "dog": []}, "extra_csv": tables}
    facts["split_column"] = split
    on, off = (
        params.section({"x": facts | {"group_column": group}}, "x", Dataset)
        for group in ("patient", None)
    )
    assert {e.subject for e in layouts.read_inventory(root, on).entries} == {"cat", "dog"}
    entries = layouts.read_inventory(root, off).entries
    assert {entry.subject for entry in entries} == {""}
    assert {e.predefined_split for e in entries} == ({"train", "test"} if split else {""})


def test_tables_whose_headers_differ_by_case_are_read_together(write, raw):
    photos = numbered(30)
    true = {photo: PETS[n % 2] for n, photo in enumerate(photos)}
    rows = [(photo.removeprefix("images/"), label) for photo, label in true.items()]
    texts = {
        "test.csv": table(("IMAGE", "Label"), rows[:6]),
        "train.csv": table(("Image", "Label"), rows[6:24]),
        "val.csv": table(("image", "label"), rows[24:]),
    }
    _, _, entries = read(write(photos, **texts), raw)
    assert labels_of(entries) == true
    assert Counter(splits_of(entries).values()) == {"train": 18, "test": 6, "val": 6}


def test_tables_of_numbers_with_the_same_first_line_are_not_read_together(write, raw):
    photos = [f"images/{PETS[n % 2]}/{n:04}.jpg" for n in range(24)]
    lines = [(n, photo.removeprefix("images/")) for n, photo in enumerate(photos, 1)]
    texts = {
        "images.txt": table(lines[0], lines[1:], " "),
        "train_test_split.txt": "".join(f"{n} {n % 3 and 1}\n" for n, _ in lines),
        "image_class_labels.txt": "".join(f"{n} {2 - n % 2}\n" for n, _ in lines),
    }
    proposal, _, _ = read(write(photos, **texts), raw)
    for name in ("train_test_split.txt", "image_class_labels.txt"):
        assert any(r.startswith(f"{name}: its rows name") for r in proposal.reading.remarks)


def test_remarks_on_one_photo_are_singular(write, raw):
    photos = numbered(20, "")
    rows = [(photo, PETS[n % 2]) for n, photo in enumerate(photos[:-1])]
    rows[0] = (photos[0], "cat|dog")
    lists = {"others.txt": f"{photos[0]}\n{photos[-1]}\n"}
    proposal, _, _ = read(write(photos, **{"t.csv": table(("file", "label"), rows)}, **lists), raw)
    remarks = " ".join(proposal.reading.remarks)
    assert "1 row holds several labels (cat|dog) and is skipped" in remarks
    assert "2 photos are without a label" in remarks
    rows[0] = (photos[0], "cat")
    proposal, _, _ = read(write([], **{"t.csv": table(("file", "label"), rows)}), raw)
    remarks = " ".join(proposal.reading.remarks)
    assert "1 photo is without a label" in remarks
    assert "others.txt names 1 photo without a label" in remarks


def test_remarks_on_one_photo_of_another_place_are_singular(write, raw):
    photos = [f"{('train', 'test')[n % 3 == 0]}/{n}.jpg" for n in range(24)]
    rows = [(f"{n}.jpg", PETS[n % 2], photo.split("/")[0]) for n, photo in enumerate(photos)]
    rows[1] = (*rows[1][:2], "test")
    root = write([*photos, "a/5.jpg"], **{"t.csv": table(("file", "label", "split"), rows)})
    remarks = " ".join(read(root, raw)[0].reading.remarks)
    assert "1 photo lies in the folder of another split, for example train/1.jpg" in remarks
    root = write([], **{"t.csv": table(("file", "label"), [row[:2] for row in rows])})
    remarks = " ".join(read(root, raw)[0].reading.remarks)
    assert "1 row names several photos in column 'file', for example 5.jpg" in remarks


def test_a_question_does_not_come_before_a_column_label(write, raw):
    photos = numbered(30, "")
    rows = [(p, PETS[n % 2], ("wood", "field", "city")[n // 2 % 3]) for n, p in enumerate(photos)]
    root = write(
        photos,
        **{
            "traits.csv": table(("image", "color", "habitat"), rows),
            "labels.csv": table(
                ("image", "label"), [(p, PETS[n < 9]) for n, p in enumerate(photos)]
            ),
        },
    )
    proposal, _, _ = read(root, raw)
    assert proposal.dataset.csv == "labels.csv"
    (remark,) = [r for r in proposal.reading.remarks if "several columns may" in r]
    assert remark.startswith("traits.csv: several columns")


def test_a_demo_dataset_decides_between_no_columns_and_no_questions(write, raw):
    demo = {"pet": PETS, "health": ("sick", "well")}
    cells = [(demo["pet"][n % 2], demo["health"][n // 2 % 2]) for n in range(24)]
    rows = [(f"{n}.jpg", *own) for n, own in enumerate(cells)]
    root = write(numbered(24), **{"t.csv": table(("file", *demo), rows)})
    with pytest.raises(ValueError, match=r"'pet' \(cat, dog\), 'health' \(sick, well\)"):
        read(root, raw)
    _, _, entries = read(root, raw, label_column="health")
    assert set(labels_of(entries).values()) == {"sick", "well"}
    (root / "t.csv").unlink()
    tasks = [
        {"id": n, "file_upload": f"aaaaaa{n:02}-{n}.jpg", "annotations": [{"result": [
            {"from_name": name, "type": "choices", "value": {"choices": [cell]}}
            for name, cell in zip(demo, own, strict=True)
        ]}]}
        for n, own in enumerate(cells)
    ]  # fmt: skip
    write([], **{"images/p.json": json.dumps(tasks)})
    with pytest.raises(ValueError, match=r"2 questions.*'classes=\{sick: \[\], well: \[\]\}'"):
        read(root, raw)
    _, _, entries = read(root, raw, classes={"sick": [], "well": []})
    assert labels_of(entries) == {f"images/{n}.jpg": own[1] for n, own in enumerate(cells)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"insect": ("ant", "bee"), "day": (1, 1, 0), "night": (0, 0, 1)},
         r"day, night mark one class in 30 of 30 rows; .* one_hot=true; .*label_column=insect"),
        ({"insect": ("ant", "bee"), "plant_moved": (1, 0, 0), "planted": (1, 0, 0, 0, 0)},
         r"'insect' \(ant, bee\), 'plant_moved' .*choose with --set label_column=insect"),
        ({"sick": (1, 0), "plant_moved": (0, 0, 0, 1, 0)},
         r"sick, plant_moved mark one class in 15 and several in 3 of 30 .* label_column=sick"),
        ({"sick": (1, 0), "plant_moved": (0, 1, 0, 1, 0, 0)},
         r"mark one class in 25 of 30 .*one_hot=true, which skips the others.* label_column=sick"),
    ],
)  # fmt: skip
def test_columns_of_traits_are_no_classes_without_a_question(write, raw, columns, message):
    rows = [(f"{n}.jpg", *(c[n % len(c)] for c in columns.values())) for n in range(30)]
    root = write(numbered(30), **{"t.csv": table(("file", *columns), rows)})
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read(root, raw)
    first = next(iter(columns))
    _, _, entries = read(root, raw, label_column=first)
    assert labels_of(entries) == {f"images/{n}.jpg": str(columns[first][n % 2]) for n in range(30)}


def patients(photos, *, named):
    """A table of patients, whose numbers are names of photos, and a table of the photos."""
    of_photos = [(photo.rpartition("/")[2], 1 + n // 3) for n, photo in enumerate(photos)]
    diagnoses = [(n, 40 + n, ("well", "sick", "sick")[n % 3]) for n in range(1, 11)]
    texts = {"patients.csv": table(("patient", "age", "diagnosis"), diagnoses)}
    if named:
        texts["photos.csv"] = table(("photo", "patient"), of_photos)
    return texts


def test_numbers_of_patients_that_are_names_of_photos_are_asked_about_with_commands(write, raw):
    photos = [f"{n}.jpg" for n in range(1, 31)]
    root = write(photos, **patients(photos, named=True))
    message = "names of photos, and cells in column 'patient' of photos.csv.*for the photos, pass"
    with pytest.raises(ValueError, match=message) as error:
        read(root, raw)
    assert "--set csv=patients.csv --set path_column=patient" in str(error.value)
    _, _, entries = read(root, raw, csv="patients.csv", path_column="patient")
    assert labels_of(entries)["1.jpg"] == "sick"
    assert len(entries) == 10
    run_command(str(error.value), root)
    proposal, _, entries = read(root, raw, csv="joined.csv")
    truth = {f"{n}.jpg": ("well", "sick", "sick")[(1 + (n - 1) // 3) % 3] for n in range(1, 31)}
    assert labels_of(entries) == truth
    assert proposal.dataset.group_column == "patient"


@pytest.mark.parametrize("folders", [True, False])
def test_numbers_of_patients_beside_more_photos_of_such_names_are_asked_about(write, raw, folders):
    photos = [f"{PETS[n % 2]}/{n}.jpg" if folders else f"{n}.jpg" for n in range(1, 31)]
    root = write(photos, **patients(photos, named=False))
    message = (
        "'patient' names photos, and it is named like groups and names 10 of 30 photos; .*"
        + ("--layout folders reads" if folders else "--layout table --set path_column=patient")
    )
    with pytest.raises(ValueError, match=message):
        read(root, raw)
    assert len(read(root, raw, "table", path_column="patient")[2]) == 10
    if folders:
        assert set(labels_of(read(root, raw, "folders")[2]).values()) == set(PETS)
    # A table of traits, or one with a row for each photo, is no question.
    texts = {"patients.csv": table(("patient", "age"), [(n, 40 + n // 4) for n in range(1, 11)])}
    if not folders:
        texts = {"patients.csv": table(
            ("patient", "diagnosis"), [(n, PETS[n % 2]) for n in range(1, 31)]
        )}  # fmt: skip
    assert len(read(write([], **texts), raw)[2]) == 30


def test_two_tables_of_groups_are_asked_about_unless_one_is_coarser(write, raw):
    photos = [f"{PETS[n % 2]}/{n}.jpg" for n in range(24)]
    groups = {
        "patients.csv": table(("photo", "patient"), [(p, n // 4) for n, p in enumerate(photos)]),
        "sites.csv": table(("photo", "subject"), [(p, n % 3) for n, p in enumerate(photos)]),
    }
    root = write(photos, **groups)
    message = "patients.csv by column 'patient' and sites.csv by column 'subject'; pass --set "
    with pytest.raises(ValueError, match=f"{message}group_column=patient or --set group_column=s"):
        read(root, raw)
    for column, file in (("patient", "patients.csv"), ("subject", "sites.csv")):
        proposal, _, entries = read(root, raw, group_column=column)
        assert proposal.dataset.extra_csv == {file: "photo"}
        assert len({entry.subject for entry in entries.values()}) == {"patient": 6}.get(column, 3)
    coarse = table(("photo", "subject"), [(p, n // 8) for n, p in enumerate(photos)])
    proposal, _, _ = read(write([], **{"sites.csv": coarse}), raw)
    assert proposal.dataset.group_column == "subject"
    assert "'patient' groups the photos, and is not read" in " ".join(proposal.reading.remarks)


def test_a_table_of_places_beside_folders_is_asked_about_with_the_option_for_groups(write, raw):
    photos = [f"{PETS[n % 2]}/{n}.jpg" for n in range(24)]
    rows = [(photo, n % 3) for n, photo in enumerate(photos)]
    root = write(photos, **{"sites.csv": table(("photo", "hospital"), rows)})
    with pytest.raises(ValueError, match="or --set group_column=hospital if column 'hospital'"):
        read(root, raw)
    proposal, _, entries = read(root, raw, group_column="hospital")
    assert labels_of(entries) == {photo: photo.partition("/")[0] for photo in photos}
    assert {entry.subject for entry in entries.values()} == {"0", "1", "2"}
    proposal, _, _ = read(root, raw, "folders")
    assert "table, not read: sites.csv with 24 rows" in " ".join(proposal.reading.remarks)


def test_a_table_of_splits_that_contradicts_split_folders_is_counted(write, raw):
    photos = [f"{('train', 'test')[n % 3 == 0]}/{PETS[n % 2]}/{n}.jpg" for n in range(24)]
    rows = [(photo, ("train", "test")[n % 4 == 0]) for n, photo in enumerate(photos)]
    root = write(photos, **{"splits.csv": table(("photo", "split"), rows)})
    proposal, _, entries = read(root, raw)
    number = "10 photos have another split by folder or table, for example test/"
    assert number in " ".join(proposal.reading.remarks)
    assert splits_of(entries) == {photo: photo.partition("/")[0] for photo in photos}
    proposal, _, entries = read(root, raw, split_column="split")
    assert f"column 'split' counts; {number}" in " ".join(proposal.reading.remarks)
    assert splits_of(entries) == dict(rows)


@pytest.mark.parametrize(
    "name", ["cat - Kopie", "cat - Copy (2)", "Copy of cat", "cat_copy", "Cat (2)", "cat - másolat"]
)
def test_a_folder_named_as_a_copy_of_a_class_is_asked_about(write, raw, name):
    photos = [f"{(*PETS, name)[n % 3]}/{n}.jpg" for n in range(24)]
    root = write(photos)
    option = f"--layout folders --set 'classes={scalar({'cat': [name], 'dog': []})}'"
    with pytest.raises(ValueError, match=f"is named as a copy of 'cat'.*{re.escape(option)}"):
        read(root, raw)
    _, _, entries = read(root, raw, "folders", classes={"cat": [name], "dog": []})
    assert labels_of(entries) == {p: "dog" if p.startswith("dog") else "cat" for p in photos}


@pytest.mark.parametrize("name", ["_unsortiert", "Unlabeled", "temp"])
def test_a_folder_named_as_without_a_label_is_asked_about(write, raw, name):
    photos = [f"{(*PETS, name)[n % 3]}/{n}.jpg" for n in range(24)]
    root = write(photos)
    with pytest.raises(ValueError, match=f"{name} may hold photos without a label.*--layout f"):
        read(root, raw)
    _, inventory, entries = read(root, raw, "folders", classes={"cat": [], "dog": []})
    assert labels_of(entries) == {p: p.partition("/")[0] for p in photos if p[:3] in PETS}
    assert sum(skip.reason == "label_unknown" for skip in inventory.skips) == 8
    _, _, entries = read(root, raw, "folders", classes={"cat": [], "dog": [], name: []})
    assert len(entries) == 24


@pytest.mark.parametrize(("stem", "asked"), [("", False), ("IMG_", True)])
def test_a_folder_of_waste_is_a_class_if_its_photos_are_named_as_those_of_others(
    write, raw, stem, asked
):
    root = write([f"{name}/{stem or name}{n}.jpg" for name in ("paper", "trash") for n in range(9)])
    if asked:
        with pytest.raises(ValueError, match="trash may hold photos without a label"):
            read(root, raw)
    else:
        assert Counter(labels_of(read(root, raw)[2]).values()) == {"paper": 9, "trash": 9}


def test_named_folders_below_the_class_folders_are_mentioned_with_the_option_that_reads_them(
    write, raw
):
    kinds = {"Fruit": ("Apple", "Banana", "Kiwi"), "Packages": ("Juice", "Milk")}
    folders = [f"{above}/{name}" for above, names in kinds.items() for name in names]
    photos = [
        f"{split}/{folder}/{split}_{n}.jpg"
        for split in ("train", "test") for folder in folders for n in range(4)
    ]  # fmt: skip
    root = write(photos)
    proposal, _, entries = read(root, raw)
    assert set(labels_of(entries).values()) == set(kinds)
    (remark,) = [text for text in proposal.reading.remarks if "are not read" in text]
    assert "(apple, banana, juice, kiwi, milk)" in remark
    roots = {"test/Fruit": "test", "test/Packages": "test"}
    roots |= {"train/Fruit": "train", "train/Packages": "train"}
    shown = ", ".join(f"{name}: {split}" for name, split in roots.items())
    assert f"pass --set 'class_roots={{{shown}}}'" in remark
    _, _, entries = read(root, raw, class_roots=roots)
    assert set(labels_of(entries).values()) == {"Apple", "Banana", "Juice", "Kiwi", "Milk"}
    assert Counter(splits_of(entries).values()) == {"train": 20, "test": 20}


def test_numbered_folders_below_the_class_folders_are_no_classes(write, raw):
    root = write([f"{'ab'[n // 20]}/patient_{n // 4}/{n}.jpg" for n in range(40)])
    assert not any("are not read" in text for text in read(root, raw)[0].reading.remarks)


@pytest.mark.parametrize("comma", [".", ","])
def test_columns_of_probabilities_are_no_labels(write, raw, comma):
    shares = [("0.9", "0.1"), ("0.2", "0.8"), ("1.0", "0")]
    rows = [(f"{n}.jpg", *(s.replace(".", comma) for s in shares[n % 3])) for n in range(24)]
    root = write(numbered(24), **{"t.csv": table(("file", "ant", "bee"), rows, ";")})
    with pytest.raises(ValueError, match=r"'ant' .* is no label by its name or numbers; --set l"):
        read(root, raw)
    assert len(set(labels_of(read(root, raw, label_column="ant")[2]).values())) == 3
    (root / "t.csv").write_text(table(("file", "class", "bee"), rows, ";"))
    assert read(root, raw)[0].dataset.label_column == "class"


def test_folders_that_name_copies_of_no_other_folder_are_classes(write, raw):
    photos = [f"{('hard copy', 'screen (2)')[n % 2]}/{n}.jpg" for n in range(24)]
    assert set(labels_of(read(write(photos), raw)[2]).values()) == {"hard copy", "screen (2)"}


def test_a_table_in_another_encoding_is_read_if_it_is_named(write, raw):
    text = table(("ファイル", "ラベル"), [(f"{n}.jpg", ("アリ", "ハチ")[n % 2]) for n in range(12)])
    root = write(numbered(12), **{"t.csv": text.encode("shift_jis")})
    remark = "t.csv: no UTF-8, read as cp1252; if its letters look wrong, save it as UTF-8, or pass"
    assert remark in " ".join(read(root, raw)[0].reading.remarks)
    proposal, _, entries = read(root, raw, encoding="shift_jis")
    assert set(labels_of(entries).values()) == {"アリ", "ハチ"}
    assert proposal.dataset.encoding == "shift_jis"


def test_numbers_without_their_zeros_are_named_with_a_command(write, raw):
    photos = [f"{n:03}.jpg" for n in range(1, 25)]
    rows = [(n, PETS[n % 2]) for n in range(1, 25)]
    root = write(photos, **{"t.csv": table(("nr", "label"), rows)})
    with pytest.raises(ValueError, match="'nr' names photos without their leading zeros") as error:
        read(root, raw)
    run_command(str(error.value), root)
    _, _, entries = read(root, raw, csv="padded.csv")
    assert labels_of(entries) == {f"{n:03}.jpg": pet for n, pet in rows}


def test_tables_of_two_annotators_are_joined_into_votes_by_a_command(write, raw):
    photos = numbered(24, "")
    texts = {
        "anna.csv": table(("file", "label"), [(p, PETS[n % 2]) for n, p in enumerate(photos)]),
        "bo.csv": table(("file", "label"), [(p, PETS[n % 5 % 2]) for n, p in enumerate(photos)]),
    }
    root = write(photos, **texts)
    with pytest.raises(ValueError, match=r"anna\.csv and bo\.csv label 10 photos d") as error:
        read(root, raw)
    run_command(str(error.value), root)
    proposal, inventory, _ = read(root, raw, csv="votes.csv")
    assert proposal.dataset.annotator_column == "annotator"
    assert {vote.annotator for vote in inventory.votes} == {"anna.csv", "bo.csv"}
    assert len(inventory.votes) == 48


def test_cells_that_a_spreadsheet_merged_are_named(write, raw):
    rows = [(f"{n}.jpg", PETS[n // 12] if n % 6 == 0 else "") for n in range(24)]
    root = write(numbered(24), **{"t.csv": table(("file", "label"), rows)})
    with pytest.raises(ValueError, match="column 'label' is empty in 20 of 24 rows; cells that a"):
        read(root, raw)


CLASSES_OPTION = "--set one_hot=true --set 'classes={ant: [], bee: []}'"


@pytest.mark.parametrize(
    ("columns", "message", "other"),
    [
        ({"rater1": (1, 0, 0), "rater2": (1, 1, 0)},
         f"for the classes, pass {CLASSES_OPTION}; for the votes, --set 'vote_columns",
         {"vote_columns": ["rater1", "rater2"]}),
        ({"outdoor": (0, 0, 1), "smiling": (1, 1, 0, 0)},
         f"such as ant, bee, add {CLASSES_OPTION[19:]}; if they are traits",
         {"label_column": "smiling"}),
    ],
)  # fmt: skip
def test_classes_beside_other_columns_of_0_and_1_are_asked_about(
    write, raw, columns, message, other
):
    columns = {"outside": (1, 0, 0, 0), "ant": (1, 0), "bee": (0, 1)} | columns
    rows = [(f"{n}.jpg", *(c[n % len(c)] for c in columns.values())) for n in range(30)]
    root = write(numbered(30), **{"t.csv": table(("file", *columns), rows)})
    with pytest.raises(ValueError, match=re.escape(message)):
        read(root, raw)
    proposal, _, entries = read(root, raw, one_hot=True, classes={"ant": [], "bee": []})
    assert labels_of(entries) == {f"images/{n}.jpg": ("ant", "bee")[n % 2] for n in range(30)}
    remarks = " ".join(proposal.reading.remarks)
    assert "one column per class: ant, bee" in remarks
    assert all(
        name in remarks.partition("columns not read: ")[2] for name in columns if len(name) > 3
    )
    assert set(labels_of(read(root, raw, **other)[2]).values()) >= {"0", "1"}


def test_contradicting_classes_of_folders_and_table_are_asked_about(write, raw):
    photos = [f"{PETS[n % 2]}/{n}.jpg" for n in range(24)]
    rows = [(photo, PETS[n % 3 == 0]) for n, photo in enumerate(photos)]
    root = write(photos, **{"t.csv": table(("path", "label"), rows)})
    with pytest.raises(ValueError, match="pass --layout table or --layout folders"):
        read(root, raw)


@pytest.mark.parametrize(
    ("train", "test", "csv"),
    [
        ("train/", "test/", "test.csv"),
        ("train/", "test/", "test/labels.csv"),
        ("data/{}/", "data/test/", "test_labels.csv"),
        ("", "test/", "test.csv"),
    ],
)
@pytest.mark.parametrize("words", [True, False])
def test_class_folders_and_a_table_of_other_photos_are_asked_about_with_a_command(  # noqa: PLR0917
    write, raw, train, test, csv, words
):
    def split(n):
        return ("train", "val")[n // 2 % 2 if "{}" in train else 0]

    photos = [f"{train.format(split(n))}{PETS[n % 2]}/{n:03}.jpg" for n in range(24)]
    tested = [f"{test}{n:03}.jpg" for n in range(12)]
    cells = PETS if words else ("0", "1")
    rows = [(f"{n:03}.jpg", cells[n // 2 % 2]) for n in range(12)]
    root = write([*photos, *tested], **{csv: table(("image", "label"), rows)})
    with pytest.raises(ValueError, match=r"label different photos.*--layout table or") as error:
        read(root, raw)
    assert len(read(root, raw, "table")[2]) == 12
    if train:
        assert labels_of(read(root, raw, "folders")[2]).keys() == set(photos)
    run_command(str(error.value), root)
    options = {}
    if not words:
        assert '\'classes={cat: ["…"], dog: ["…"]}\'' in str(error.value)
        options = {"classes": {"cat": ["0"], "dog": ["1"]}}
    _, inventory, entries = read(root, raw, **options)
    truth = {p: (PETS[n % 2], split(n) if train else "") for n, p in enumerate(photos)}
    truth |= {photo: (PETS[n // 2 % 2], "test") for n, photo in enumerate(tested)}
    assert both(entries) == truth
    assert not inventory.skips


@pytest.mark.parametrize(
    ("cells", "several"),
    [
        (["cat|Hernia", "dog|Hernia", "cat", "dog"], 2),  # a label that never stands alone
        (["cat|Hernia", "dog|Hernia"], 2),
        (["[a, b]", "a", "b"], 1),
        (["[a, b]", "[a, c]"], 2),
        (["ant bee", "ant", "bee"], 1),
        (["red ant", "ant", "bee"], 0),
        (["tench, Tinca tinca", "goldfish, Carassius auratus"], 0),  # one label with its synonym
        (["cat; dog", "cat", "dog"], 1),
        (["black, cat", "white, cat"], 0),
    ],
)
def test_cells_that_join_several_labels(cells, several):
    assert table_detection._several_labels(cells).total() == several


def test_a_table_of_words_wins_over_folders_that_each_have_one_label(write, raw):
    photos = [f"{('hospital A', 'hospital B')[n % 2]}/{n}.jpg" for n in range(24)]
    rows = [(f"{n}.jpg", ("benign", "malignant")[n % 2]) for n in range(24)]
    root = write(photos, **{"t.csv": table(("file", "diagnosis"), rows)})
    proposal, _, entries = read(root, raw)
    assert proposal.dataset.layout == "table"
    assert set(labels_of(entries).values()) == {"benign", "malignant"}
    assert "folders, not chosen" in " ".join(proposal.reading.remarks)


@pytest.mark.parametrize("labels", [PETS, ("0", "1")])
def test_folders_and_a_table_that_agree_are_one_reading(write, raw, labels):
    photos = [f"{PETS[n % 2]}/{n}.jpg" for n in range(24)]
    rows = [(photo, labels[n % 2]) for n, photo in enumerate(photos)]
    root = write([*photos, "cat/24.jpg"], **{"t.csv": table(("path", "label"), rows)})
    proposal, _, entries = read(root, raw)
    assert proposal.dataset.layout == "folders"
    assert labels_of(entries)["cat/24.jpg"] == "cat"
    assert "table, not chosen" in " ".join(proposal.reading.remarks)


# --- Tables of folders, and names that recur -----------------------------------------------------


def cases(header, names, places="{}"):
    """Folders of five photos, and a table that names the folders."""
    photos = [f"{places.format(name)}/{n}.jpg" for name in names for n in range(5)]
    rows = [(name, PETS[n % 3 == 0]) for n, name in enumerate(names)]
    truth = {photo: PETS[n // 5 % 3 == 0] for n, photo in enumerate(photos)}
    return (
        photos,
        {"labels.csv": table(header, rows) if header else table(rows[0], rows[1:])},
        truth,
    )


@pytest.mark.parametrize(
    ("header", "name", "places"),
    [
        (("case", "label"), "case_{:03}", "{}"),
        (("patient_id", "diagnosis"), "{:04}", "data/{}"),
        (("patient_id", "diagnosis"), "{}", "{}"),  # beside photos of such numbers
        (("folder", "age", "label"), "sheep {}", "{}"),
        (None, "scan-{}", "scans/{}"),
    ],
)
def test_a_table_of_folders_labels_their_photos_and_the_folders_are_subjects(
    write, raw, header, name, places
):
    names = [name.format(n) for n in range(1, 41)]
    photos, texts, truth = cases(header if not header or len(header) == 2 else None, names, places)
    if header and len(header) == 3:
        rows = [(folder, 30 + n % 7, PETS[n % 3 == 0]) for n, folder in enumerate(names)]
        texts = {"labels.csv": table(header, rows)}
    proposal, inventory, entries = read(write(photos, **texts), raw)
    assert labels_of(entries) == truth
    assert {e.subject for e in entries.values()} == set(names)
    assert proposal.dataset.path_column == proposal.dataset.group_column
    assert proposal.dataset.path_column == (header or ("#1",))[0]
    assert "labels.csv names 40 folders with 200 photos" in proposal.reading.summary
    assert not inventory.skips


def test_a_row_whose_folder_is_missing_labels_no_photo_of_that_name(write, raw):
    photos, texts, truth = cases(("id", "label"), [str(n) for n in range(20)])
    texts["labels.csv"] += "77,dog\n"
    root = write([*photos, "19/77.jpg"], **texts)
    _, inventory, entries = read(root, raw)
    assert labels_of(entries) == truth | {"19/77.jpg": "cat"}
    assert [(s.path, s.reason) for s in inventory.skips] == [("labels.csv#22", "missing_file")]


@pytest.mark.parametrize("name", ["{}", "n{:08}"])
def test_named_folders_with_a_table_of_their_kinds_are_asked_about(write, raw, name):
    words = [
        "ash",
        "beech",
        "birch",
        "cedar",
        "elm",
        "fir",
        "larch",
        "lime",
        "maple",
        "oak",
        "pine",
        "spruce",
    ]
    names = [name.format(word if name == "{}" else n) for n, word in enumerate(words)]
    photos, texts, truth = cases(("name", "family"), names)
    root = write(photos, **texts)
    with pytest.raises(ValueError, match="pass --layout folders; otherwise, pass --layout table"):
        read(root, raw)
    assert labels_of(read(root, raw, "table")[2]) == truth
    assert len(read(root, raw, "folders")[0].dataset.classes) == 12


def recurring(folder, cell="{:03}.jpg", tables="{}.csv"):
    """The same names in the folder of each split, and a table for each; splits and labels."""
    photos, texts, truth = [], {}, {}
    for number, (split, count) in enumerate((("train", 20), ("val", 8), ("test", 10))):
        own = [f"{folder.format(split)}/{n:03}.jpg" for n in range(count)]
        labels = [PETS[(n // (1 + number)) % 2] for n in range(count)]
        rows = [(cell.format(n), label) for n, label in enumerate(labels)]
        photos += own
        texts[tables.format(split)] = table(("image", "label"), rows)
        truth |= {photo: (label, split) for photo, label in zip(own, labels, strict=True)}
    return photos, texts, truth


def both(entries):
    return {file: (entry.label, entry.predefined_split) for file, entry in entries.items()}


@pytest.mark.parametrize(
    ("folder", "cell", "tables"),
    [
        ("{}", "{:03}.jpg", "{}.csv"),
        ("images/{}", "{:03}.jpg", "{}.csv"),
        ("{}/images", "{:03}", "labels/{}_labels.csv"),
        ("{}", "D:/me/photos/{:03}.jpg", "{}.csv"),
    ],
)
def test_a_table_named_after_a_split_reads_the_photos_of_its_folder(
    write, raw, folder, cell, tables
):
    photos, texts, truth = recurring(folder, cell, tables)
    _, inventory, entries = read(write(photos, **texts), raw)
    assert both(entries) == truth
    assert not inventory.skips


def test_a_photo_that_its_split_folder_lacks_is_not_taken_from_another_one(write, raw):
    photos, texts, truth = recurring("{}")
    del truth["train/002.jpg"]
    photos.remove("train/002.jpg")
    photos.remove("test/002.jpg")
    del truth["test/002.jpg"]
    _, inventory, entries = read(write(photos, **texts), raw)
    assert both(entries) == truth
    assert {s.reason for s in inventory.skips} == {"missing_file"}


def test_a_split_column_tells_photos_of_one_name_apart(write, raw):
    photos, _, truth = recurring("images/{}")
    rows = [(photo.rpartition("/")[2], *pair) for photo, pair in truth.items()]
    root = write(photos, **{"labels.csv": table(("image", "label", "set"), rows)})
    assert both(read(root, raw)[2]) == truth


def test_split_folders_at_any_depth_are_kept_for_a_table(write, raw):
    photos, _, truth = recurring("data/images/{}_set")
    rows = [(photo, label) for photo, (label, _) in truth.items()]
    root = write(photos, **{"labels.csv": table(("image", "label"), rows)})
    proposal, _, entries = read(root, raw)
    assert both(entries) == truth
    assert "predefined splits by folder: data/images/test_set (test)" in " ".join(
        proposal.reading.remarks
    )


@pytest.mark.parametrize(
    ("photos", "shown"),
    [
        ([f"images/{s}/{n}.jpg" for s in ("train", "test") for n in range(20)],
         "images/test/0.jpg, images/train/0.jpg"),
        ([f"{s}/{n}.jpg" for s in ("day one", "day two") for n in range(20)],
         "day one/0.jpg, day two/0.jpg"),
        ([f"images/{n}.{s}" for s in ("jpg", "png") for n in range(20)],
         "images/0.jpg, images/0.png"),
    ],
)  # fmt: skip
def test_names_of_several_photos_are_asked_about_with_an_example(write, raw, photos, shown):
    rows = [(n, PETS[n % 2]) for n in range(20)]
    root = write(sorted(photos), **{"labels.csv": table(("image_id", "label"), rows)})
    with pytest.raises(ValueError, match=f"20 rows name several photos .*0 may be {shown}; write"):
        read(root, raw)


def test_names_of_several_photos_are_no_question_beside_folders_of_their_labels(write, raw):
    rows = [(f"{n}.jpg", pet) for pet in PETS for n in range(12)]
    root = write(tree(*PETS, each=12), **{"t.csv": table(("file", "label"), rows)})
    proposal, _, entries = read(root, raw)
    assert labels_of(entries) == {p: p.split("/")[0] for p in tree(*PETS, each=12)}
    assert "table, not chosen" in " ".join(proposal.reading.remarks)


def test_a_split_column_that_contradicts_the_folders_counts_with_a_word(write, raw):
    photos = [f"{('train', 'test')[n % 3 == 0]}/{n}.jpg" for n in range(24)]
    rows = [
        (f"{n}.jpg", PETS[n % 2], "test" if n in {1, 2} else photo.split("/")[0])
        for n, photo in enumerate(photos)
    ]
    root = write(photos, **{"t.csv": table(("file", "label", "split"), rows)})
    proposal, _, entries = read(root, raw)
    assert splits_of(entries) == {photo: rows[n][2] for n, photo in enumerate(photos)}
    remarks = " ".join(proposal.reading.remarks)
    assert "2 photos lie in the folder of another split, for example train/1.jpg is test" in remarks
    assert "--set split_column=null takes the folders" in remarks
    forced = add.read_settings(["split_column=null"])
    proposal, _, entries = read(root, raw, **forced)
    assert splits_of(entries) == {photo: photo.split("/")[0] for photo in photos}


def test_a_photo_in_two_split_tables_is_named_and_the_test_split_counts(write, raw):
    rows = [(f"{n}.jpg", PETS[n % 2]) for n in range(24)]
    texts = {
        "train.csv": table(("file", "label"), rows[:18]),
        "test.csv": table(("file", "label"), rows[16:]),
    }
    proposal, _, entries = read(write(numbered(24), **texts), raw)
    assert Counter(splits_of(entries).values()) == {"train": 16, "test": 8}
    assert "2 photos are in several splits, for example images/16.jpg in test and train" in (
        " ".join(proposal.reading.remarks)
    )


# --- Lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "names", "line"),
    [
        ("images/", "meta/{}.txt", "{pet}/{n}"),
        ("", "{}.txt", "{pet}/{n}.jpg"),
        ("", "{}_files.csv", "{pet}/{n}.jpg"),
        ("", "{}.txt", "{pet}/{n}.jpg {label}"),
        ("", "{}.lst", "/data/me/{pet}/{n}.jpg"),
    ],
)
@pytest.mark.parametrize("pets", [PETS, ("house cat", "my dog")])
def test_lists_named_after_splits_split_the_photos_of_class_folders(  # noqa: PLR0917
    write, raw, folder, names, line, pets
):
    lists, truth = {"train": "", "val": "", "test": ""}, {}
    for n in range(40):
        pet, split = pets[n % 2], ("train", "train", "val", "test")[n // 2 % 4]
        truth[f"{folder}{pet}/{n}.jpg"] = (pet, split)
        lists[split] += line.format(pet=pet, n=n, label=n % 2) + "\n"
    texts = {names.format(split): text for split, text in lists.items()}
    if names.endswith(".csv"):
        texts = {name: "image\n" + text for name, text in texts.items()}
    root = write(truth, **texts)
    proposal, inventory, entries = read(root, raw)
    assert both(entries) == truth
    assert proposal.dataset.layout == "folders"
    assert set(proposal.dataset.split_lists) == set(texts)
    assert (inventory.files_seen, inventory.exports_seen, inventory.skips) == (40, 3, ())


def test_lists_that_contradict_folders_count_with_a_word_and_equal_ones_are_not_read(write, raw):
    photos = [f"{('train', 'test')[n % 3 == 0]}/{PETS[n % 2]}/{n}.jpg" for n in range(24)]
    by_split = {s: [p for p in photos if p.startswith(s)] for s in ("train", "test")}
    texts = {f"{split}.txt": "\n".join(own) for split, own in by_split.items()}
    root = write(photos, **texts)
    assert read(root, raw)[0].dataset.split_lists is None
    moved = by_split["train"][0]
    write([], **{"test.txt": "\n".join([*by_split["test"], moved])})
    proposal, _, entries = read(root, raw)
    assert splits_of(entries) == {p: "test" if p == moved else p.split("/")[0] for p in photos}
    remarks = " ".join(proposal.reading.remarks)
    assert f"1 photo has another split by folder or table, for example {moved}" in remarks
    assert "1 photo is in several of these lists; the first list counts" in remarks
    _, _, entries = read(root, raw, split_lists=None)
    assert splits_of(entries) == {photo: photo.split("/")[0] for photo in photos}


def oxford():
    """Photos named after breeds, and lists of name, class, species and breed with comments."""
    breeds = ("Abyssinian", "american_bulldog", "Bengal", "beagle")
    names = sorted((f"{breeds[n % 4]}_{n // 4 + 100}", n % 4 + 1, n % 2 + 1) for n in range(40))
    lines = [f"{name} {number} {species} {(number + 1) // 2}\n" for name, number, species in names]
    comment = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n#BREED ID: 1-25:Cat\n"
    truth = {
        f"images/{name}.jpg": (breeds[number - 1], "test" if n % 5 == 0 else "train")
        for n, (name, number, _) in enumerate(names)
    }
    texts = {
        "annotations/list.txt": comment + "".join(lines),
        "annotations/trainval.txt": "".join(line for n, line in enumerate(lines) if n % 5),
        "annotations/test.txt": "".join(lines[::5]),
    }
    return truth, texts


@pytest.mark.parametrize("lists", [("list", "trainval", "test"), ("trainval", "test")])
def test_lists_of_several_words_a_line_with_comments_are_tables(write, raw, lists):
    truth, texts = oxford()
    root = write(truth, **{n: t for n, t in texts.items() if Path(n).stem in lists})
    with pytest.raises(ValueError, match=r"(?s)'#2' .* 'label_column=#2'.*--layout file_names"):
        read(root, raw)
    proposal, _, entries = read(root, raw, label_column="#2")
    words = {"1": "Abyssinian", "2": "american_bulldog", "3": "Bengal", "4": "beagle"}
    assert {p: (words[label], split) for p, (label, split) in both(entries).items()} == truth
    remark = ", ".join(f"{code} is {word}" for code, word in words.items())
    assert f"{remark}; --layout file_names reads them" in " ".join(proposal.reading.remarks)
    proposal, inventory, entries = read(root, raw, "file_names")
    assert both(entries) == truth
    assert set(proposal.dataset.split_lists) == {
        "annotations/test.txt", "annotations/trainval.txt"
    }  # fmt: skip
    assert all(skip.path == "annotations/list.txt" for skip in inventory.skips)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.txt", None, "train.txt does not exist; fix"),
        ("list.txt", "cat/0.jpg", "is not named after train, val or test; fix"),
        ("train.txt", "cow/0.jpg", "names no photo with a label; write"),
    ],
)
def test_a_split_list_that_cannot_be_used_is_an_error(write, name, text, message):
    root = write(tree(*PETS), **({name: text} if text else {}))
    dataset = Dataset("folders", {"cat": (), "dog": ()}, split_lists=(name,))
    with pytest.raises(ValueError, match=message):
        layouts.read_inventory(root, dataset)


@pytest.mark.parametrize("words", [True, False])
def test_a_split_column_is_kept_beside_class_folders(write, raw, words):
    photos = [f"{PETS[n % 2]}/{n}.jpg" for n in range(24)]
    rows = [
        (photo, PETS[n % 2] if words else n % 2, ("train", "test")[n % 3 == 0])
        for n, photo in enumerate(photos)
    ]
    root = write([*photos], **{"t.csv": table(("path", "label", "split"), rows)})
    proposal, _, entries = read(root, raw)
    assert splits_of(entries) == {photo: split for photo, _, split in rows}
    assert proposal.dataset.layout == ("table" if words else "folders")


@pytest.mark.parametrize("columns", [("hospital",), ("hospital", "scanner")])
def test_class_folders_and_a_table_of_traits_are_asked_about(write, raw, columns):
    photos = [f"{PETS[n % 2]}/{n:02}.jpg" for n in range(40)]
    traits = {"hospital": ("north", "south"), "scanner": "xyz"}
    rows = [
        (photo[4:], n // 4, *(traits[c][n // 3 % len(traits[c])] for c in columns))
        for n, photo in enumerate(photos)
    ]
    root = write(photos, **{"meta.csv": table(("file", "patient_id", *columns), rows)})
    with pytest.raises(ValueError, match="--layout folders"):
        read(root, raw)
    _, _, entries = read(root, raw, "folders")
    assert {p: (e.label, e.subject) for p, e in entries.items()} == {
        photo: (PETS[n % 2], str(n // 4)) for n, photo in enumerate(photos)
    }


@pytest.mark.parametrize("layout", ["folders", "table"])
def test_groups_in_a_table_of_an_old_encoding_are_read_or_named(write, raw, layout):
    photos = [f"{PETS[n % 2]}/{n:02}.jpg" for n in range(20)]
    rows = [(photo, f"őz{n // 4}") for n, photo in enumerate(photos)]
    texts = {"meta.csv": table(("kép", "beteg"), rows).encode("cp1250")}
    if layout == "table":
        labels = [(photo, PETS[n % 2]) for n, photo in enumerate(photos)]
        texts["labels.csv"] = table(("file", "label"), labels)
    proposal, _, entries = read(write(photos, **texts), raw, layout)
    if layout == "folders":
        assert {p: e.subject for p, e in entries.items()} == dict(rows)
    else:
        assert "is not read: it is CP1250; save it as UTF-8" in " ".join(proposal.reading.remarks)


def test_tables_that_name_photos_by_the_numbers_of_another_are_named_with_a_command(write, raw):
    photos = [f"images/00{1 + n % 2}.{PETS[n % 2]}/{n:04}.jpg" for n in range(24)]
    lines = [(n, photo.removeprefix("images/")) for n, photo in enumerate(photos, 1)]
    texts = {
        "images.txt": table(lines[0], lines[1:], " "),
        "train_test_split.txt": "".join(f"{n} {n // 2 % 2}\n" for n, _ in lines),
        "classes.txt": "1 001.cat\n2 002.dog\n",
    }
    root = write(photos, **texts)
    proposal, _, entries = read(root, raw)
    assert proposal.dataset.layout == "folders"
    assert proposal.dataset.group_column is None
    assert not any(r.startswith("classes.txt: its rows") for r in proposal.reading.remarks)
    (command,) = [
        remark.partition("of the dataset: ")[2]
        for remark in proposal.reading.remarks
        if remark.startswith("train_test_split.txt: its rows name those of images.txt")
    ]
    subprocess.run(command, shell=True, check=True, cwd=root)  # noqa: S602
    _, _, entries = read(root, raw)
    assert splits_of(entries) == {
        photo: ("test", "train")[n // 2 % 2] for n, photo in enumerate(photos, 1)
    }
    (root / "train_test_split.txt").unlink()
    (root / "images.txt").unlink()
    texts = {
        "photos.csv": table(("nr", "file"), lines),
        "animals.csv": table(("photo", "animal"), [(n, PETS[n % 3 == 0]) for n, _ in lines]),
    }
    proposal, _, _ = read(write([], **texts), raw)
    remarks = " ".join(proposal.reading.remarks)
    assert "animals.csv: its rows name those of photos.csv" in remarks
    assert "left_on='nr', right_on='photo'" in remarks


@pytest.mark.parametrize("header", ["", "file\n"])
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_lists_named_after_classes_are_asked_about_with_a_command(write, raw, header, suffix):
    photos = numbered(24)
    texts = {
        f"{pet}.{suffix}": header + "".join(f"{n}.jpg\n" for n in range(24) if n % 2 == k)
        for k, pet in enumerate(PETS)
    }
    root = write(photos, **texts)
    with pytest.raises(ValueError, match="are lists of photos; if they are named after") as error:
        read(root, raw)
    command = str(error.value).partition("in folder .: ")[2].partition("; evidence")[0]
    subprocess.run(command, shell=True, check=True, cwd=root)  # noqa: S602
    assert labels_of(read(root, raw)[2]) == by_number(photos)


def test_photos_without_a_label_are_counted_with_their_folder(write, raw):
    photos = [*numbered(24, "train/"), *numbered(9, "test/")]
    rows = [(f"{n}.jpg", PETS[n % 2]) for n in range(24)]
    texts = {
        "train.csv": table(("file", "label"), rows),
        "test.csv": table(("file",), [(f"{n}.jpg",) for n in range(9)]),
    }
    proposal, inventory, entries = read(write(photos, **texts), raw)
    assert labels_of(entries) == by_number(photos[:24])
    assert "9 photos are without a label: 9 in test" in proposal.reading.remarks
    assert "test.csv names 9 photos without a label" in proposal.reading.remarks
    assert Counter(s.reason for s in inventory.skips) == {"no_task": 9, "other_file": 1}


# --- Folders -------------------------------------------------------------------------------------


def tree(*folders, each=4):
    return [f"{folder}/{n}.jpg" for folder in folders for n in range(each)]


FOLDERS = {
    "Kaggle sets": tree(
        "training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"
    ),
    "doubled sets": tree(
        "training_set/training_set/cats", "training_set/training_set/dogs",
        "test_set/test_set/cats", "test_set/test_set/dogs",
    ),
    "capitals": tree("Train/cats", "Train/dogs", "Valid/cats", "Valid/dogs"),
    "below a wrapper": tree(
        "archive/data/train/cats", "archive/data/train/dogs", "archive/data/test/cats",
        "archive/data/test/dogs",
    ),
    "a test set of one class": tree("train/cats", "train/dogs", "test/cats"),
    "a wrapper": tree("PetImages/cats", "PetImages/dogs"),
    "splits below the classes": tree("cats/train", "cats/test", "dogs/train", "dogs/test"),
    "a stray folder": [
        *tree("train/cats", "train/dogs", "test/cats", "test/dogs"), *tree("samples", "logs/cats"),
    ],
    "an unlabeled test folder": [
        *tree("train/cats", "train/dogs", "val/cats", "val/dogs"), *tree("test"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_that_mean_splits_are_no_classes(write, raw, kind):
    photos = FOLDERS[kind]
    proposal, _, entries = read(write(photos), raw)
    assert proposal.dataset.layout == "folders"
    stray = [p for p in photos if p.startswith(("samples", "logs"))]
    stray += [p for p in photos if kind == "an unlabeled test folder" and p.startswith("test/")]
    used = [photo for photo in photos if photo not in stray]
    assert labels_of(entries) == {p: "cats" if "cats" in p else "dogs" for p in used}

    def split(path):
        words = {"train": "train", "val": "val", "test": "test"}
        return next((s for word, s in words.items() if f"/{word}" in f"/{path.lower()}"), "")

    assert splits_of(entries) == {photo: split(photo) for photo in used}
    for folder in {p.split("/")[0] for p in stray}:
        assert any(f"{folder}: " in r and "set aside" in r for r in proposal.reading.remarks)


@pytest.mark.parametrize("above", ["", "set/", "{}/"])
def test_folders_that_recur_are_chosen_by_the_option_that_the_question_names(write, raw, above):
    tops = [f"{above.format(split)}{kind}" for split in ("train", "test") for kind in ("rgb", "ir")]
    root = write(tree(*(f"{top}/{pet}" for top in tops for pet in ("cats", "dogs"))))
    with pytest.raises(ValueError, match=r"cats, dogs recur below 2.* --set") as error:
        add.propose(root, "mine", None, raw, {})
    words = shlex.split(str(error.value).partition("--set ")[2].partition(" with those")[0])
    chosen = add.read_settings(words)["class_roots"]
    assert list(chosen) == sorted(set(tops))
    proposal, _, entries = read(root, raw, class_roots=chosen)
    assert proposal.dataset.classes == {"cats": (), "dogs": ()}
    assert len(entries) == 8 * len(chosen)
    if "{}" in above:
        assert set(splits_of(entries).values()) == {"train", "test"}
    rgb = {root: split for root, split in chosen.items() if root.endswith("rgb")}
    _, inventory, entries = read(root, raw, class_roots=rgb)
    assert labels_of(entries).keys() == {f for f in labels_of(entries) if "rgb/" in f}
    assert {skip.reason for skip in inventory.skips} == {"outside_class_roots"}


def two_columns(write, names, first="ab", second="ab", *, agree=True):
    """Write a table of 20 photos with two columns of labels."""
    lines = [f"file,{names[0]},{names[1]}"]
    for n in range(20):
        other = n % 2 if agree else n // 2 % 2
        lines.append(f"{n}.png,{first[n % 2]},{second[other]}")
    return write([f"{n}.png" for n in range(20)], **{"labels.csv": "\n".join(lines)})


@pytest.mark.parametrize(
    "names", [("rater1", "rater2"), ("reader_a", "reader_b"), ("R1", "R2"), ("label1", "label2")]
)
def test_two_columns_named_as_annotators_are_votes(write, raw, names):
    proposal, _, _ = read(two_columns(write, names), raw)
    assert proposal.dataset.vote_columns == names


@pytest.mark.parametrize(
    ("names", "second", "agree"),
    [
        (("label_anna", "label_ben"), "ab", True),
        (("AnnaLabel", "BenLabel"), "ab", True),
        (("eye left", "eye right"), "ab", False),
        (("label1", "label2"), "ab", False),  # independent: two questions
        (("label1", "label2"), "xy", False),
        (("label_color", "label_size"), "xy", False),
        (("label_anna", "label_ben"), "01", True),
        (("label", "label_2"), "ab", True),
        (("label", "Old Label"), "ab", True),
    ],
)
def test_two_columns_that_may_be_votes_or_two_questions_are_asked_about_with_each_option(
    write, raw, names, second, agree
):
    first, votes = second if second == "01" else "ab", second != "xy"
    root = two_columns(write, names, first, second, agree=agree)
    if agree and second != "xy":  # the same in all rows: a second reading of the same labels
        text = (root / "labels.csv").read_text()
        (root / "labels.csv").write_text(text.replace("3.png,b,b", "3.png,b,a"))
    option = f"vote_columns=[{', '.join(names)}]"
    with pytest.raises(ValueError, match=r"labels\.csv") as error:
        read(root, raw)
    first_line = str(error.value).splitlines()[0]
    assert (f"--set '{option}' if each is one annotator's" in first_line) == votes
    assert ("if each labels a part of the photo, cut the photos" in first_line) == votes
    if second != "01":
        for name in names:
            assert f"label_column={name}" in first_line
            assert read(root, raw, label_column=name)[0].dataset.label_column == name
    if votes:
        proposal, _, _ = read(root, raw, vote_columns=list(names))
        assert proposal.dataset.vote_columns == names


@pytest.mark.parametrize("second", ["xy", "ab"])
def test_a_second_column_named_like_the_label_is_another_question_or_the_same(write, raw, second):
    root = two_columns(write, ("label", "label_2"), "ab", second, agree=True)
    assert read(root, raw)[0].dataset.label_column == "label"


def test_a_consensus_beside_votes_is_the_label(write, raw):
    lines = [f"{n}.png,{'ab'[n % 2]},{'ab'[n % 2]},{'ab'[n % 2]}" for n in range(20)]
    text = "\n".join(["file,rater1,rater2,consensus", *lines])
    proposal, _, _ = read(write([f"{n}.png" for n in range(20)], **{"labels.csv": text}), raw)
    assert proposal.dataset.label_column == "consensus"
    assert proposal.dataset.vote_columns == ("rater1", "rater2")


@pytest.mark.parametrize("kind", ["columns", "rows"])
def test_votes_beside_a_table_of_labels_are_named_with_the_option_that_reads_them(write, raw, kind):
    photos = [f"{n}.png" for n in range(24)]
    votes = {photo: [PETS[n % 2]] * 2 + [PETS[n % 3 == 0]] for n, photo in enumerate(photos)}
    names = ("ann", "bo", "chris")
    texts = {
        "labels.csv": table(("image", "label"), [(p, own[0]) for p, own in votes.items()]),
        "votes.csv": table(("image", *names), [(p, *own) for p, own in votes.items()])
        if kind == "columns"
        else table(
            ("image", "rater", "label"),
            [(p, *pair) for p, own in votes.items() for pair in zip(names, own, strict=True)],
        ),
    }
    root = write(photos, **texts)
    proposal, _, _ = read(root, raw)
    assert proposal.dataset.csv == "labels.csv"
    remark = "votes.csv: votes on 24 photos are not read; --set csv=votes.csv reads them"
    assert remark in proposal.reading.remarks
    proposal, inventory, _ = read(root, raw, csv="votes.csv")
    assert len(inventory.votes) == 72


@pytest.mark.parametrize("end", ["?sig=a%2Bb&e=1", "#top", ""])
def test_addresses_with_a_query_and_escapes_name_photos(write, raw, end):
    rows = [f"https://x.y/z/my%20photo%20{n}.png{end},{PETS[n % 2]}" for n in range(8)]
    root = write(
        [f"my photo {n}.png" for n in range(8)], **{"labels.csv": "\n".join(["file,label", *rows])}
    )
    proposal, _, entries = read(root, raw)
    assert proposal.dataset.layout == "table"
    assert labels_of(entries) == {f"my photo {n}.png": PETS[n % 2] for n in range(8)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\x14\0\x90\x81", "a spreadsheet or an archive by its content, not read; save"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "a spreadsheet by its content, not read; save"),
        (b"\n<!DOCTYPE html><p>Sign in</p>", "a web page, not read; download the table again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid x",
            "a pointer of Git LFS, not read; run",
        ),
    ],
)
def test_a_table_that_is_something_else_is_named(write, raw, content, said):
    root = write([f"{n}.png" for n in range(8)], **{"labels.csv": content})
    with pytest.raises(ValueError, match=f"labels.csv: {said}"):
        read(root, raw)


def test_a_folder_with_the_photos_of_all_classes_is_asked_about(write, raw):
    own = [f"{pet}/{pet[0]}{n}.png" for pet in PETS for n in range(4)]
    root = write([*own, *(f"all/{photo.rpartition('/')[2]}" for photo in own)])
    with pytest.raises(ValueError, match="all holds the photos of all other folders, by their"):
        read(root, raw)
    (root / "all" / f"{PETS[0][0]}0.png").unlink()
    assert "all" in read(root, raw)[0].dataset.classes


def test_a_pattern_that_the_user_sets_finds_the_labels_in_file_names(write, raw):
    root = write([f"IMG_{n:04}{'ab'[n % 2]}_{PETS[n % 2]}.png" for n in range(8)])
    with pytest.raises(ValueError, match="no label was found"):
        read(root, raw)
    for layout in ("file_names", None):
        pattern = r"_(?P<label>[a-z]+)\.png$"
        _, _, entries = read(root, raw, layout, label_pattern=pattern)
        assert set(labels_of(entries).values()) == set(PETS)
        assert len(entries) == 8
    for pattern, problem in (("_([a-z]+)", "has no group"), ("(", "is no regular expression")):
        with pytest.raises(ValueError, match=f"label_pattern.*{problem}"):
            read(root, raw, label_pattern=pattern)


def test_a_demo_dataset_takes_no_class_away(write, raw):
    photos = tree("bike", "car", "cat", each=100)
    proposal, _, entries = read(write(photos), raw)
    assert list(proposal.dataset.classes) == ["bike", "car", "cat"]
    assert Counter(labels_of(entries).values()) == {"bike": 100, "car": 100, "cat": 100}
    assert proposal.dataset.imagenet is None


def test_a_demo_dataset_with_the_same_classes_gives_its_imagenet_map_to_their_own_spelling(
    write, raw
):
    proposal, _, entries = read(write(tree("Cat", "Dog")), raw)
    demo = params.section(raw, "datasets.cat_dog", Dataset)
    assert proposal.dataset.imagenet == {"Cat": demo.imagenet["cat"], "Dog": demo.imagenet["dog"]}
    assert set(labels_of(entries).values()) == {"Cat", "Dog"}


def test_photo_numbers_in_class_folders_are_no_subjects(write, raw):
    photos = [f"{pet}/p{n}.jpeg" for pet in PETS for n in range(1, 9)]
    proposal, _, entries = read(write(photos), raw)
    assert proposal.dataset.subject_pattern is None
    assert {entry.subject for entry in entries.values()} == {""}


def test_classes_that_differ_by_case_are_both_kept_with_a_warning(write, raw):
    root = write(tree("a", "A", "b"))
    proposal, _, entries = read(root, raw)
    assert Counter(labels_of(entries).values()) == {"a": 4, "A": 4, "b": 4}
    assert proposal.named.by_case == (("A", "a"),)
    report = "\n".join(add.report(add.examine(root, "mine", None, raw), 10))
    assert "warning: 'A' and 'a' differ by case alone" in report


def test_at_1200_classes_a_handful_of_look_alikes_is_listed():
    chance = np.random.default_rng(2)
    syllables = ["ba", "ke", "lo", "mi", "ru", "ta", "ve", "zo", "shi", "gar"]
    names = sorted({"".join(chance.choice(syllables, 4)) for _ in range(1500)})[:1200]
    texts = dict.fromkeys(names, 40) | {"garbalozo": 60, "garbalosso": 4}
    start = time.perf_counter()
    classes = layout_detection.name_classes(texts, {})
    assert time.perf_counter() - start < 20
    assert len(classes.classes) >= 1200
    assert len(classes.alike) <= 5


def test_numbered_and_lettered_classes_are_no_look_alikes():
    texts = {f"type {letter}": 9 for letter in "abcdefgh"} | {f"grade {n}": 9 for n in range(9)}
    assert layout_detection.name_classes(texts, {}).alike == ()


UNREAD = {
    "labels.xlsx": (b"PK", "labels.xlsx: a spreadsheet, not read; save it as CSV"),
    "t.parquet": (b"PAR1", "`pip install pyarrow`; to write a labels.csv, run `anklealign convert"),
    "a.7z": (b"7z", "a.7z: an archive, not read; unpack it into the folder"),
    "a.rar": (b"Rar!", "a.rar: an archive, not read; unpack it into the folder"),
    "clip.mp4": (b"ftyp", "clip.mp4: videos, not read; save frames as JPEG"),
    "broken.json": (b'[{"image": ', "broken.json cannot be read: .*; save it again"),
    "settings.json": (b'{"lr": 1, "size": [1, 2]}', "settings.json: JSON of another kind, not"),
    "indices.json": (b'{"cat": 70, "dog": 71}', "indices.json: JSON that names no photo, not read"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_files_that_no_layout_reads_are_named_with_the_remedy(write, raw, name):
    content, remark = UNREAD[name]
    root = write(numbered(12), **{name: content})
    with pytest.raises(ValueError, match=f"(?s)no label was found.*{remark}"):
        read(root, raw)


@pytest.mark.parametrize("suffix", ["json", "xml", "txt"])
def test_label_files_beside_each_photo_are_one_line_of_the_report(write, raw, suffix):
    content = {
        "json": '{"imagePath": "1.jpg", "shapes": []}',
        "xml": "<annotation><filename>1.jpg</filename></annotation>",
        "txt": "0 0.5 0.5 0.1 0.2\n",
    }[suffix]
    texts = {f"images/{n}.{suffix}": content for n in range(40)}
    with pytest.raises(ValueError, match="no label was found") as error:
        read(write(numbered(40), **texts), raw)
    (line,) = [line for line in str(error.value).splitlines() if f"0.{suffix}" in line]
    assert "and 37 more: " in line
    assert "to write a labels.csv, run `anklealign convert " in line


def json_kinds():
    """A table of twelve photos in each form of JSON."""
    rows = [(f"{n}.jpg", PETS[n % 2]) for n in range(12)]
    records = [dict(zip(("image", "label"), row, strict=True)) for row in rows]
    columns = {key: [record[key] for record in records] for key in ("image", "label")}
    return {
        "records": records,
        "records with an id": [{"id": n, **record} for n, record in enumerate(records)],
        "labels in lists": [{**record, "label": [record["label"]]} for record in records],
        "columns": columns,
        "pandas": {k: {str(n): v for n, v in enumerate(column)} for k, column in columns.items()},
        "pandas split": {"columns": ["image", "label"], "index": [*range(12)], "data": rows},
        "pairs": rows,
        "label by file": dict(rows),
        "label by name": {name.removesuffix(".jpg"): label for name, label in rows},
        "record by file": {name: {"label": label, "x": 1} for name, label in rows},
        "files by class": {pet: [name for name, label in rows if label == pet] for pet in PETS},
        "wrapped": {"version": 1, "images": records},
        "wrapped as data": {"data": records},
    }


@pytest.mark.parametrize("kind", json_kinds())
def test_a_table_in_json_gives_each_photo_its_label(write, raw, kind):
    root = write(numbered(12), **{"labels.json": json.dumps(json_kinds()[kind])})
    proposal, _, entries = read(root, raw)
    assert labels_of(entries) == by_number(numbered(12))
    assert proposal.dataset.csv == "labels.json"


def test_lists_of_photos_by_split_or_side_are_no_classes(write, raw):
    names = [f"{n}.jpg" for n in range(12)]
    for content in ({"train": names[:6], "val": names[6:]}, {"left": names, "right": names[::-1]}):
        root = write(numbered(12), **{"labels.json": json.dumps(content)})
        with pytest.raises(ValueError, match=r"labels\.json"):
            read(root, raw)


CELLS = {
    "a list as pandas writes it": lambda pet: f"['{pet}']",
    "JSON": lambda pet: f'["{pet}"]',
    "a set": lambda pet: f"{{'{pet}'}}",
    "a tuple": lambda pet: f"('{pet}',)",
    "a NumPy array": lambda pet: f"array(['{pet}'], dtype=object)",
    "a list without quotes": lambda pet: f"[{pet}]",
    "attributes of VGG Image Annotator": lambda pet: json.dumps({"class": pet}),
    "a checkbox of VGG Image Annotator": lambda pet: json.dumps({"class": {pet: True}}),
}


def quoted_table(cells):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerows([("file", "label"), *((f"{n}.jpg", cell) for n, cell in enumerate(cells))])
    return stream.getvalue()


@pytest.mark.parametrize("kind", CELLS)
def test_a_list_or_object_of_one_label_is_that_label(write, raw, kind):
    cells = [CELLS[kind](PETS[n % 2]) for n in range(12)] + ["[]", "set()", "{}"]
    root = write(numbered(15), **{"t.csv": quoted_table(cells)})
    proposal, inventory, entries = read(root, raw)
    assert sorted(proposal.dataset.classes) == [*PETS]
    assert labels_of(entries) == by_number(numbered(12))
    assert Counter(s.reason for s in inventory.skips if s.item == "task") == {"no_label": 3}


@pytest.mark.parametrize(
    "cell", ["['cat', 'dog']", '["cat" "dog"]', "['cat'\n 'dog']", "[cat, dog]", "cat dog",
             "{'cat', 'dog'}", "cat|dog"],
)  # fmt: skip
def test_several_labels_in_a_cell_are_skipped_or_refused_with_a_word(write, raw, cell):
    some = [cell if n > 9 else PETS[n % 2] for n in range(12)]
    root = write(numbered(12), **{"t.csv": quoted_table(some)})
    proposal, inventory, entries = read(root, raw)
    assert labels_of(entries) == by_number(numbered(10))
    assert "2 rows hold several labels" in " ".join(proposal.reading.remarks)
    tasks = [s.reason for s in inventory.skips if s.item == "task"]
    assert tasks == ["several_choices"] * 2
    (root / "t.csv").write_text(quoted_table([cell] * 8 + [*PETS] * 2))
    with pytest.raises(ValueError, match="holds several labels in 8 of 12 rows"):
        read(root, raw)


def test_names_in_brackets_and_of_several_words_stay_labels(write, raw):
    cells = [("(left)", "red fox", "grey fox")[n % 3] for n in range(12)]
    proposal, _, _ = read(write(numbered(12), **{"t.csv": quoted_table(cells)}), raw)
    assert set(proposal.dataset.classes) == {"(left)", "red fox", "grey fox"}


def test_objects_and_recombined_words_in_cells_are_named(write, raw):
    objects = [json.dumps({"class": PETS[n % 2], "size": "big"}) for n in range(12)]
    root = write(numbered(12), **{"t.csv": quoted_table(objects)})
    with pytest.raises(ValueError, match=r"several values in a row \(class, size\)"):
        read(root, raw)
    words = [" ".join(w for k, w in enumerate("abcd") if n >> k & 1) for n in range(1, 16)]
    (root / "t.csv").write_text(quoted_table([*words, *"abcd" * 6]))
    write(numbered(48))
    proposal, _, _ = read(root, raw)
    assert "and are skipped; if they are one label, join its words by _" in " ".join(
        proposal.reading.remarks
    )
    (root / "t.csv").write_text(quoted_table([w for w in words if " " in w] * 4))
    proposal, _, _ = read(root, raw)
    assert "the labels combine the same words (" in " ".join(proposal.reading.remarks)


def test_twenty_thousand_photos_in_one_folder_with_a_table_take_seconds(write, raw):
    photos = [f"{n:05}.jpg" for n in range(20_000)]
    rows = [(n, f"{n:05}", PETS[n % 2], n % 90) for n in range(20_000)]
    root = write(photos, **{"t.csv": table(("nr", "image", "label", "age"), rows)})
    start = time.process_time()
    _, _, entries = read(root, raw)
    assert time.process_time() - start < 30
    assert len(entries) == 20_000
    assert labels_of(entries) == by_number(photos)


# --- The shared cases ----------------------------------------------------------------------------

SHARED = {
    "ham10000_metadata": ({"layout": "table", "label_column": "dx", "group_column": "lesion_id"},
                          {"bkl", "nv", "mel", "bcc"}),
    "onehot_isic": ({"one_hot": True}, {"MEL", "NV", "BCC"}),
    "pandas_index_shuffled": ({"path_column": "filename"}, {"cat", "dog"}),
    "sample_submission": ({"csv": "labels.csv", "path_column": "id", "label_column": "breed"},
                          {"affenpinscher", "beagle", "boxer"}),
    "several_tables": ({"csv": ("test.csv", "train.csv", "val.csv")}, {"cat", "dog"}),
    "split_column": ({"split_column": "split"}, {"ant", "bee"}),
    "split_named_folders": ({"layout": "folders"}, {"buildings", "forest", "sea"}),
    "unmentioned_labels": ({"csv": "metadata.jsonl"}, {"0", "1"}),
}  # fmt: skip


def make_case(name, target):
    path = CASES / "cases.py"
    if not path.is_file():
        pytest.skip("needs ../shared/cases")
    spec = importlib.util.spec_from_file_location("shared_cases", path)
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    maker = (CASES / name / "make.py").read_text().split("cases.main(cases.")[1].split(")")[0]
    target.mkdir(exist_ok=True)
    getattr(cases, maker)(target)
    return target


@pytest.mark.parametrize("name", SHARED)
def test_shared_cases_come_out_as_expected(tmp_path, raw, name):
    keys, classes = SHARED[name]
    root = make_case(name, tmp_path / "case")
    proposal, _, entries = read(root, raw)
    assert {key: getattr(proposal.dataset, key) for key in keys} == keys
    assert set(labels_of(entries).values()) == classes
    if name in {"several_tables", "split_column"}:
        assert Counter(splits_of(entries).values()) == {"train": 24, "val": 8, "test": 8}
    if name == "split_named_folders":
        assert Counter(splits_of(entries).values()) == {"train": 18, "test": 18}
    if name == "unmentioned_labels":
        remarks = " ".join(proposal.reading.remarks)
        for file in ("labels.xlsx", "annotations.xml", "list.txt"):
            assert file in remarks


def test_the_shared_case_of_labels_in_file_names_is_asked_about(tmp_path, raw):
    root = make_case("label_in_file_name", tmp_path / "case")
    with pytest.raises(ValueError, match="cat, dog; if so, pass --layout file_names"):
        read(root, raw)
    _, _, entries = read(root, raw, "file_names")
    assert Counter(labels_of(entries).values()) == {"cat": 10, "dog": 10}
