"""anklealign/ingest/label_studio.py: every task finds its photo and its label, or its reason."""

import base64
import csv
import io
import json
import re
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest import label_studio
from anklealign.ingest import label_studio_export as kinds

DATASET = Dataset(
    layout="label_studio",
    classes={
        "pronation": ("1_Pronacio", "1_Pronáló"),
        "neutral": ("2_Neutralis",),
        "supination": ("3_Szupinacio",),
    },
    subject_pattern=r"(?P<subject>resz?t?vevo_?\d+)",
)


def choices(*texts, question="label"):
    return {"value": {"choices": list(texts)}, "from_name": question, "type": "choices"}


def annotation(*results, who=1, updated="2025-01-01", **more):
    return {"result": list(results), "completed_by": who, "updated_at": updated, **more}


def task(name, *annotations, number=1, **more):
    return {
        "id": number,
        "file_upload": name,
        "data": {"image": f"/data/upload/1/{name}"},
        "annotations": list(annotations),
        **more,
    }


def labelled(name, text="1_Pronacio", number=1, **more):
    return task(name, annotation(choices(text)), number=number, **more)


def write(root, exports):
    for path, content in exports.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (root / path).write_bytes(data)


@pytest.fixture
def find(folder):
    def run(photos, exports, dataset=DATASET):
        root = folder(*photos)
        write(root, exports)
        return label_studio.read_label_studio(root, dataset)

    return run


@pytest.fixture
def ending(find):
    """Return how one task on the photo A/1.jpg ends: its label, or its reason."""

    def run(content):
        found = find(["A/1.jpg"], {"A/e.json": [content]})
        (skips, entries) = ({s.item: s.reason for s in found.skips}, found.entries)
        if entries:
            assert not skips
            return entries[0].label
        assert skips["task"] == skips["file"]
        return skips["task"]

    return run


def test_each_collector_has_a_folder_with_photos_anywhere_and_exports_of_any_name(find):
    found = find(
        ["FO6K58/sajat_reszvevo01_01.jpg", "FO6K58/normal/2.png", "h51b9j/reszvevo_3.JPG"],
        {
            "FO6K58/project-1-at-2025-11-03.json": [labelled("3233e03a-sajat_reszvevo01_01.jpg")],
            "FO6K58/second.json": [labelled("aaaaaaaa-2.png", "2_Neutralis")],
            "h51b9j/labels.json": [labelled("bbbbbbbb-reszvevo_3.jpg", "3_Szupinacio")],
        },
    )
    assert {(e.file, e.label, e.collector, e.subject) for e in found.entries} == {
        ("FO6K58/sajat_reszvevo01_01.jpg", "pronation", "FO6K58", "FO6K58/01"),
        ("FO6K58/normal/2.png", "neutral", "FO6K58", ""),
        ("h51b9j/reszvevo_3.JPG", "supination", "h51b9j", "h51b9j/03"),
    }
    assert (found.files_seen, found.tasks_seen, found.exports_seen, found.skips) == (3, 3, 3, ())


@pytest.mark.parametrize("place", ["all.json", "exports/all.json"])
def test_one_project_may_speak_of_all_folders(find, place):
    tasks = [labelled("aaaaaaaa-1.jpg"), labelled("bbbbbbbb-B22BBB_2.jpg", number=2)]
    found = find(["A11AAA/1.jpg", "A11AAA/2.jpg", "B22BBB/2.jpg"], {place: tasks})
    assert [e.file for e in found.entries] == ["A11AAA/1.jpg", "B22BBB/2.jpg"]
    assert [e.collector for e in found.entries] == ["A11AAA", "B22BBB"]


def test_a_collectors_export_never_labels_another_collectors_photo(find, reasons):
    found = find(["A/1.jpg", "B/2.jpg"], {"A/e.json": [labelled("aaaaaaaa-2.jpg")]})
    assert reasons(found) == {
        "A/e.json#1": "missing_file",
        "A/1.jpg": "no_task",
        "B/2.jpg": "no_task",
    }


URI = base64.b64encode(b"s3://bucket/A/a b.jpg").decode()


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/3233e03a-a_b.jpg", "upload/1/3233e03a-a_b.jpg", "/data/upload/7/a%20b.jpg",
        "/data/local-files/?d=ankle/A/" + quote("a b.jpg"), "/data/local-files/?d=A%2Fa+b.jpg",
        "/data/local-files/?d=set%5CA%5Ca%20b.jpg", "s3://bucket/x/A/a b.jpg",
        "gs://bucket/A/a%20b.jpg", "azure-blob://box/A/a b.jpg",
        "https://example.org/A/a%20b.jpg?X-Signature=f%2Fg&e=1", "http://127.0.0.1:8080/a_b.jpg",
        f"/tasks/1/resolve/?fileuri={URI}", "/storage-data/uploaded/?filepath=upload/1/a_b.jpg",
        "a b.jpg", "A\\a b.jpg",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["image", "Kép", "$undefined$"])
def test_every_kind_of_address_leads_to_the_photo(find, address, key):
    content = labelled("bc171829-tasks.json")
    content["data"] = {"note": "left foot / right foot", "n": 3, key: address}
    found = find(["A/a b.jpg", "A/other.jpg"], {"A/e.json": [content]})
    assert [e.file for e in found.entries] == ["A/a b.jpg"]


def test_labels_are_the_choices_of_the_annotations(ending):
    assert ending(labelled("1.jpg", "1_Pronáló")) == "pronation"
    beside = {"value": {"x": 1}, "type": "rectanglelabels"}
    other = choices("blurred", "dark", question="quality")
    assert ending(task("1.jpg", annotation(beside, other, choices("neutral")))) == "neutral"
    old = {"id": 1, "data": {"image": "/data/upload/1/1.jpg"}}
    old["completions"] = [{"result": [choices("supination")], "skipped": False}]
    assert ending(old) == "supination"


def test_tasks_without_a_usable_label_say_why(ending):
    empty, good = annotation(), annotation(choices("neutral"))
    cancelled = annotation(choices("neutral"), was_cancelled=True)
    assert ending(task("1.jpg")) == "no_label"
    assert ending(task("1.jpg", empty)) == "no_label"
    assert ending(task("1.jpg", cancelled)) == "cancelled"
    assert ending(task("1.jpg", annotation(choices("neutral"), skipped=True))) == "cancelled"
    assert ending(task("1.jpg", drafts=[good])) == "draft_only"
    assert ending(task("1.jpg", predictions=[good])) == "prediction_only"
    assert ending(labelled("1.jpg", "valgus")) == "label_unknown"
    assert ending(task("1.jpg", annotation(choices("neutral", "pronation")))) == "several_choices"
    assert ending(task("1.jpg", annotation(choices("neutral", "1_Pron")))) == "several_choices"
    assert ending(task("1.jpg", cancelled, empty, good)) == "neutral"


def votes(*pairs, name="1.jpg"):
    return task(name, *(annotation(choices(label), who=who) for who, label in pairs))


def test_of_several_annotators_each_is_a_vote_and_the_label_is_by_vote(find):
    people = [{"id": n, "email": f"{n}@x.org"} for n in (1, 2)]
    exports = {
        "A/e.json": [votes((1, "neutral"), (2, "neutral"), (3, "pronation"))],
        "e.json": [votes((people[0], "neutral"), (people[1], "supination"), name="2.jpg")],
        "B/e.json": [votes((1, "neutral"), name="3.jpg")],
    }
    found = find(["A/1.jpg", "A/2.jpg", "B/3.jpg"], exports)
    assert [(e.file, e.label, e.by_vote) for e in found.entries] == [
        ("A/1.jpg", "neutral", True), ("A/2.jpg", "", True), ("B/3.jpg", "neutral", False),
    ]  # fmt: skip
    assert [(v.file, v.annotator, v.label) for v in found.votes] == [
        ("A/1.jpg", "A/1", "neutral"),
        ("A/1.jpg", "A/2", "neutral"),
        ("A/1.jpg", "A/3", "pronation"),
        ("A/2.jpg", "project/1", "neutral"),
        ("A/2.jpg", "project/2", "supination"),
    ]
    assert found.votes_seen == 5


def test_beside_a_panels_votes_several_annotators_of_a_task_count_by_majority(find, reasons):
    exports = {
        "A/e.json": [
            votes((1, "neutral"), (2, "neutral"), (3, "pronation")),
            votes((1, "neutral"), (2, "pronation"), name="2.jpg") | {"id": 2},
            votes((1, "neutral"), (2, "pronation"), name="3.jpg") | {"id": 3},
        ],
        "consensus/anna.json": [labelled("3.jpg", "supination")],
    }
    found = find(["A/1.jpg", "A/2.jpg", "A/3.jpg"], exports)
    assert [(e.file, e.label, e.by_vote) for e in found.entries] == [
        ("A/1.jpg", "neutral", False), ("A/3.jpg", "", True),
    ]  # fmt: skip
    assert [(v.file, v.annotator) for v in found.votes] == [("A/3.jpg", "anna")]
    assert reasons(found) == {
        "A/2.jpg": "label_tie", "A/e.json#2": "label_tie", "A/e.json#3": "label_tie",
    }  # fmt: skip


def test_one_annotators_label_that_fits_no_class_costs_the_task(ending):
    assert ending(votes((1, "neutral"), (2, "neutral"), (3, "valgus"))) == "label_unknown"


def test_of_one_annotator_the_newest_annotation_counts(ending):
    older = annotation(choices("neutral"), updated="2025-01-01T10:00:00Z")
    newer = annotation(choices("pronation"), updated="2025-01-02T09:00:00Z")
    assert ending(task("1.jpg", newer, older)) == "pronation"


def test_several_tasks_for_one_photo_agree_or_cost_it(find, reasons):
    found = find(
        ["A/1.jpg", "A/2.jpg"],
        {
            "A/a.json": [
                labelled("aaaaaaaa-1.jpg", number=1),
                labelled("cccccccc-2.jpg", number=2),
            ],
            "A/b.json": [
                labelled("bbbbbbbb-1.jpg", number=1),
                labelled("dddddddd-2.jpg", "neutral", number=2),
            ],
        },
    )
    assert [(e.file, e.task) for e in found.entries] == [("A/1.jpg", "A/a.json#1")]
    assert reasons(found) == {
        "A/b.json#1": "duplicate_task", "A/2.jpg": "label_conflict",
        "A/a.json#2": "label_conflict", "A/b.json#2": "label_conflict",
    }  # fmt: skip


def test_the_newer_of_two_exports_of_one_task_counts(find, reasons):
    def exported(text, when):
        return [labelled("aaaaaaaa-1.jpg", text, project=3, updated_at=when)]

    exports = {
        "A/new.json": exported("neutral", "2025-02"),
        "A/old.json": exported("pronation", "2025-01"),
    }
    found = find(["A/1.jpg"], exports)
    assert [(e.label, e.task) for e in found.entries] == [("neutral", "A/new.json#1")]
    assert reasons(found) == {"A/old.json#1": "superseded"}


def test_two_photos_that_fit_are_both_named_and_neither_is_taken(find):
    found = find(
        ["A/normal/1.jpg", "A/pronation/1.jpg"], {"A/e.json": [labelled("aaaaaaaa-1.jpg")]}
    )
    assert not found.entries
    (skip,) = [s for s in found.skips if s.item == "task"]
    assert skip.reason == "ambiguous"
    assert "A/normal/1.jpg and A/pronation/1.jpg" in skip.detail


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero_bytes"), (b" \n", "zero_bytes"), (b'[{"id": 1, "anno', "broken_export"),
        (b"\xff\xfe\x00", "broken_export"), (b"\xe1\xe9", "broken_export"),
        (b"[" * 100_000, "broken_export"), (b'"text"', "not_an_export"), (b"3", "not_an_export"),
        (b'[{"a": 1}]', "not_an_export"), (b'{"version": 2}', "not_an_export"),
        (b'[{"id": 1, "image": "1.jpg", "x": "y"}]', "not_an_export"),
    ],
)  # fmt: skip
def test_a_broken_export_costs_only_itself(find, content, reason):
    found = find(["A/1.jpg", "B/2.jpg"], {"A/e.json": content, "B/e.json": [labelled("2.jpg")]})
    assert [e.file for e in found.entries] == ["B/2.jpg"]
    assert {(s.path, s.item, s.reason) for s in found.skips} == {
        ("A/e.json", "export", reason), ("A/1.jpg", "file", "no_task"),
    }  # fmt: skip
    assert found.exports_seen == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_exports_may_come_from_any_editor(find, encoding):
    text = json.dumps([labelled("1.jpg", "1_Pronáló")], ensure_ascii=False)
    found = find(["A/1.jpg"], {"A/e.JSON": text.encode(encoding)})
    assert [e.label for e in found.entries] == ["pronation"]


def test_items_that_are_no_tasks_are_counted_and_skipped(find, reasons):
    found = find(
        ["A/1.jpg"], {"A/e.json": [labelled("1.jpg"), None, 3, {}, {"data": "x", "id": 9}]}
    )
    assert len(found.entries) == 1
    assert found.tasks_seen == 5
    assert set(reasons(found).values()) == {"missing_file"}


RECORDS = [
    {"id": 1, "image": "/data/upload/1/aaaaaaaa-1.jpg", "label": "1_Pronacio", "annotator": 1,
     "annotation_id": 11, "updated_at": "2025-01-02", "who": "Eve"},
    {"id": 1, "image": "/data/upload/1/aaaaaaaa-1.jpg", "label": "neutral", "annotator": 1,
     "annotation_id": 10, "updated_at": "2025-01-01", "who": "Eve"},
    {"id": 2, "image": "/data/upload/1/bbbbbbbb-2.jpg", "annotator": 1, "annotation_id": 12,
     "label": {"choices": ["neutral", "pronation"]}, "updated_at": "2025-01-01", "who": "Eve"},
    {"id": 3, "image": "/data/upload/1/cccccccc-3.jpg", "annotator": 1, "annotation_id": 13,
     "updated_at": "2025-01-01", "who": "Eve"},
]  # fmt: skip


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_json_min_and_csv_exports_are_read_too(find, reasons, kind):
    content = RECORDS
    if kind == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, sorted(RECORDS[0]))
        writer.writeheader()
        for record in RECORDS:
            cells = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in record.items()}
            writer.writerow(cells)
        content = stream.getvalue().encode()
    found = find(["A/1.jpg", "A/2.jpg", "A/3.jpg"], {f"A/e.{kind}": content})
    assert [(e.file, e.label) for e in found.entries] == [("A/1.jpg", "pronation")]
    assert {p: r for p, r in reasons(found).items() if "#" in p} == {
        f"A/e.{kind}#2": "several_choices", f"A/e.{kind}#3": "no_label",
    }  # fmt: skip
    assert found.tasks_seen == 3


def test_files_without_a_task_are_told_apart_from_what_is_no_photo(find, reasons):
    exports = {
        "A/e.json": [],
        "A/notes.txt": b"hello",
        "A/empty.jpg": b"",
        "A/t.csv": b"a,b\n1,2\n",
    }
    found = find(["A/1.jpg"], exports)
    assert reasons(found) == {
        "A/1.jpg": "no_task", "A/notes.txt": "other_file", "A/empty.jpg": "zero_bytes",
        "A/t.csv": "other_file",
    }  # fmt: skip


def test_a_folder_of_which_no_export_speaks_is_named(find):
    found = find(["A/1.jpg", "A/2.jpg", "B/3.jpg"], {"A/e.json": [labelled("1.jpg")]})
    details = {s.path: s.detail for s in found.skips}
    missing = "no tasks for B/: its export is missing or cannot be read"
    assert details == {"A/2.jpg": "", "B/3.jpg": missing}


def test_a_folder_without_exports_is_an_error_with_a_remedy(folder):
    with pytest.raises(ValueError, match=r"has no Label Studio export; put .*params\.yaml"):
        label_studio.read_label_studio(folder("A/1.jpg"), DATASET)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
    | st.sampled_from(["1.jpg", "neutral", "/data/upload/1/1.jpg", "http://[x", "s3://"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "data", "annotations", "result", "value", "choices", "file_upload", "image",
             "completed_by", "updated_at", "completions", "was_cancelled", "drafts", "project"]
        ),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(JSON, max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_json_holds_every_file_and_task_is_accounted_for(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("any")
    (root / "1.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "e.json").write_text(json.dumps(content))
    found = label_studio.read_label_studio(root, DATASET)  # Inventory checks its sums
    assert found.files_seen == 1
    assert found.exports_seen == 1
    broken = any(s.item == "export" for s in found.skips)
    assert found.tasks_seen == 0 or not broken


def test_an_annotators_name_may_be_any_string_that_json_can_hold():
    data = b'[{"id": 1, "data": {}, "annotations": [{"completed_by": "\\ud800", "result": []}]}]'
    (task,) = kinds.read_tasks("a.json", data, Labels({"a": [], "b": []}))
    assert re.fullmatch(r"person-[0-9a-f]{8}", task.annotations[0].annotator)
