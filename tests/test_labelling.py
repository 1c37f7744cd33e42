"""anklealign/labelling.py: names and exports are those that Label Studio would have left."""

import json
import re

import numpy as np
import pytest
from django.core.files.storage import Storage
from django.utils.text import get_valid_filename
from hypothesis import given
from hypothesis import strategies as st

from anklealign import labelling
from anklealign.labelling import Task
from anklealign.labels import Labels
from anklealign.sources import exports

LABELS = Labels({"pronation": ["1_Pronacio"], "neutral": ["2_Neutralis"]})


def rng():
    return np.random.default_rng(0)


def written(kind, *tasks):
    return labelling.export(kind, "FO6K58", 4, tasks, rng())


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

    ours = labelling.stored(name, 12, rng())
    bare = f"{ours[:8]}-{get_valid_filename(name)}"
    theirs = Free().get_available_name(f"upload/12/{bare}", max_length=100)
    # Django cuts only what is too long; then both put seven random characters before the suffix.
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
    first = Task("FO6K58", "sajat_reszvevo01_01.jpg", (("1_Pronacio",),))
    second = Task("FO6K58", "b 2.jpg", (("2_Neutralis",),))
    ((name, data),) = written(kind, first, second).items()
    assert name.endswith(".csv" if kind == "csv" else ".json")
    found = labels(exports.read(name, data, LABELS))
    assert {text for question in found.values() for text in question} == {
        "1_Pronacio",
        "2_Neutralis",
    }
    assert any(name.endswith("sajat_reszvevo01_01.jpg") for name in found)
    assert written(kind, first, second) == {name: data}


def test_an_older_export_of_the_project_holds_the_same_tasks_with_an_earlier_time():
    tasks = [Task("A", f"{n}.jpg", (("1_Pronacio",),)) for n in range(6)]
    older, newer = (exports.read(n, d, LABELS) for n, d in written("two_exports", *tasks).items())
    assert len(older), len(newer) == (4, 6)
    assert [t.key for t in older] == [t.key for t in newer[:4]]
    assert all(a.updated < b.updated for a, b in zip(older, newer, strict=False))


def test_imported_tasks_have_addresses_of_every_kind():
    tasks = [Task("FO6K58", f"saját {n}.jpg", (("1_Pronacio",),)) for n in range(6)]
    ((_, data),) = written("imported", *tasks).items()
    addresses = [task["data"]["image"] for task in json.loads(data)]
    starts = ("s3:/", "http", "gs:/", "azur", "uplo", "/dat")
    assert [address[:4] for address in addresses] == list(starts)


def test_old_releases_put_nothing_before_a_name_and_some_exports_say_more_of_people():
    task = Task("FO6K58", "saját 1.jpg", (("1_Pronacio",),))
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
def test_what_is_no_label_stands_where_label_studio_puts_it(state, holds):
    ((_, data),) = written("json", Task("A", "1.jpg", (("1_Pronacio",),), state)).items()
    (task,) = json.loads(data)
    for key in ("drafts", "predictions", "annotations"):
        assert bool(task[key]) == (key == holds)
    assert task["total_annotations"] == 0
    assert task["cancelled_annotations"] == (state == "cancelled")


def test_an_annotators_export_has_a_task_for_every_photo_and_completed_by_1():
    data = labelling.votes(["A_1.jpg", "A_2.jpg"], ["1_Pronacio", ""], rng())
    one, other = json.loads(data)
    assert [a["completed_by"] for a in one["annotations"]] == [1]
    assert other["annotations"] == []
    assert re.fullmatch(r"[0-9a-f]{8}-A_2\.jpg", other["file_upload"])
