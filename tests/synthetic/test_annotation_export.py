"""synthetic/annotation_export.py: file names and exports match Label Studio's."""

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
from django.core.files.storage import Storage
from django.utils.text import get_valid_filename
from hypothesis import given
from hypothesis import strategies as st

from anklealign.config.class_names import Labels
from anklealign.ingest import label_studio_export
from synthetic import annotation_export
from synthetic.annotation_export import PhotoTask

LABELS = Labels({"pronation": ["1_Pronacio"], "neutral": ["2_Neutralis"]})


def rng():
    return np.random.default_rng(0)


def written(kind, *tasks):
    return annotation_export.export(kind, "FO6K58", 4, tasks, rng())


def labels(tasks):
    return {
        address.rpartition("/")[2]: question
        for task in tasks
        for address in task.addresses
        for annotation in task.annotations
        for question in annotation.questions
    }


@given(st.text(st.sampled_from("aZ09_-. áŐ(),&+"), min_size=1, max_size=140))
def test_names_are_stored_as_django_stores_them(stem):
    name = f"a{stem}.jpg"

    class Free(Storage):
        def exists(self, _name):
            return False

    ours = annotation_export.stored_name(name, 12, rng())
    bare = f"{ours[:8]}-{get_valid_filename(name)}"
    theirs = Free().get_available_name(f"upload/12/{bare}", max_length=100)
    # Django shortens only long names; both then insert seven random characters.
    theirs = theirs.removeprefix("upload/12/")
    if theirs == bare:
        assert ours == theirs
    else:
        assert len(ours) == len(theirs)
        assert re.sub(r"_\w{7}\.", ".", ours) == re.sub(r"_\w{7}\.", ".", theirs)


@pytest.mark.parametrize(
    "kind", ["json", "json_min", "csv", "old_release", "imported", "many_keys"]
)
def test_every_kind_of_export_is_read_back(kind):
    first = PhotoTask("FO6K58", "sajat_reszvevo01_01.jpg", (("1_Pronacio",),))
    second = PhotoTask("FO6K58", "b 2.jpg", (("2_Neutralis",),))
    ((name, data),) = written(kind, first, second).items()
    assert name.endswith(".csv" if kind == "csv" else ".json")
    found = labels(label_studio_export.read_tasks(name, data, LABELS))
    assert {text for question in found.values() for text in question} == {
        "1_Pronacio",
        "2_Neutralis",
    }
    assert any(name.endswith("sajat_reszvevo01_01.jpg") for name in found)
    assert written(kind, first, second) == {name: data}


def test_an_older_export_has_the_same_tasks_with_an_earlier_time():
    tasks = [PhotoTask("A", f"{n}.jpg", (("1_Pronacio",),)) for n in range(6)]
    older, newer = (
        label_studio_export.read_tasks(n, d, LABELS)
        for n, d in written("two_exports", *tasks).items()
    )
    assert len(older), len(newer) == (4, 6)
    assert [t.key for t in older] == [t.key for t in newer[:4]]
    assert all(a.updated < b.updated for a, b in zip(older, newer, strict=False))


def test_imported_tasks_have_all_address_kinds_and_name_their_task_file():
    tasks = [PhotoTask("FO6K58", f"saját {n}.jpg", (("1_Pronacio",),)) for n in range(7)]
    ((_, data),) = written("imported", *tasks).items()
    addresses = [task["data"]["image"] for task in json.loads(data)]
    starts = ("s3:/", "http", "gs:/", "azur", "uplo", "/data/local-files/", "/data/upload/4/")
    for address, start in zip(addresses, starts, strict=True):
        assert address.startswith(start)
    assert re.fullmatch(r"/data/upload/4/[0-9a-f]{8}-saj%C3%A1t_6\.jpg", addresses[-1])
    uploads = {task["file_upload"].partition("-")[2] for task in json.loads(data)}
    assert uploads == {"tasks.json", "tasks.csv"}


def test_a_name_in_use_gets_a_suffix_in_old_releases_and_a_folder_where_names_are_kept():
    tasks = [PhotoTask("A", f"bal láb {n}.jpg", (("1_Pronacio",),)) for n in range(5)]
    for kind, taken in (
        ("old_release", r"/data/upload/4/bal_l%C3%A1b_1_[0-9A-Za-z]{7}\.jpg"),
        ("many_keys", r"/data/upload/4/[0-9a-f]{8}/bal_l%C3%A1b_1\.jpg"),
    ):
        ((_, data),) = written(kind, *tasks).items()
        found = json.loads(data)
        key = "photo" if kind == "many_keys" else "image"
        first, second, *_ = (task["data"][key] for task in found)
        assert first == "/data/upload/4/bal_l%C3%A1b_0.jpg"
        assert re.fullmatch(taken, second)
        for task in found:
            assert task["file_upload"] == unquote(task["data"][key]).rpartition("/")[2]
    long = annotation_export.stored_name("a" * 90 + ".jpg", 4, rng(), "many_keys", taken=True)
    assert re.fullmatch(r"[0-9a-f]{8}/a+_[0-9A-Za-z]{7}\.jpg", long)
    assert len(f"upload/4/{long}") == annotation_export.MAX_PATH


@pytest.mark.parametrize("kind", ["json", "old_release", "json_min", "csv"])
@pytest.mark.parametrize("previous_choices", [("1_Pronacio", "2_Neutralis"), ()])
def test_earlier_choices_of_an_annotator_are_ignored(kind, previous_choices):
    task = PhotoTask("A", "1.jpg", (("1_Pronacio",),), previous_choices=previous_choices)
    ((name, data),) = written(kind, task).items()
    (found,) = label_studio_export.read_tasks(name, data, LABELS)
    assert len(found.annotations) == 2
    latest, _ = label_studio_export.newest_annotations(found.annotations)
    assert {who: a.questions for who, a in latest.items()} == {"1": (("1_Pronacio",),)}
    if kind == "old_release":
        (raw,) = json.loads(data)
        assert [a["skipped"] for a in raw["completions"]] == [not previous_choices, False]
        assert (raw["total_annotations"], raw["cancelled_annotations"]) == (
            (2, 0) if previous_choices else (1, 1)
        )
    if kind == "json_min":
        newest, older = json.loads(data)
        assert newest["choice"] == "1_Pronacio"
        assert newest["updated_at"] > older["updated_at"]
        assert older.get("choice") == (
            {"choices": list(previous_choices)} if previous_choices else None
        )


def test_old_releases_add_no_prefix_and_some_exports_describe_annotators():
    task = PhotoTask("FO6K58", "saját 1.jpg", (("1_Pronacio",),))
    ((_, old),) = written("old_release", task).items()
    (found,) = json.loads(old)
    assert found["file_upload"] == "saját_1.jpg"
    assert found["data"]["image"] == "/data/upload/4/saj%C3%A1t_1.jpg"
    ((_, new),) = written("many_keys", task).items()
    (annotation,) = json.loads(new)[0]["annotations"]
    assert annotation["completed_by"].keys() == {"id", "email", "first_name", "last_name"}


@pytest.mark.parametrize(
    ("state", "holds"),
    [("draft", "drafts"), ("prediction", "predictions"), ("cancelled", "annotations")],
)
def test_unsubmitted_results_are_stored_under_their_own_key(state, holds):
    ((_, data),) = written("json", PhotoTask("A", "1.jpg", (("1_Pronacio",),), state)).items()
    (task,) = json.loads(data)
    for key in ("drafts", "predictions", "annotations"):
        assert bool(task[key]) == (key == holds)
    assert task["total_annotations"] == 0
    assert task["cancelled_annotations"] == (state == "cancelled")


def test_an_annotator_export_has_one_task_per_photo_and_completed_by_1():
    data = annotation_export.annotator_export(["A_1.jpg", "A_2.jpg"], ["1_Pronacio", ""], rng())
    one, other = json.loads(data)
    assert [a["completed_by"] for a in one["annotations"]] == [1]
    assert other["annotations"] == []
    assert re.fullmatch(r"[0-9a-f]{8}-A_2\.jpg", other["file_upload"])
