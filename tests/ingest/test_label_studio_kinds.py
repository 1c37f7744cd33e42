"""Label Studio's storages, reviews, nested answers and further exports; see test_label_studio."""

import base64
import csv
import io
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from anklealign.cli import add
from anklealign.config import params
from anklealign.config.params import Dataset
from anklealign.ingest import label_studio
from anklealign.ingest.label_studio_export import AnswerCounts

PETS = Dataset(layout="label_studio", classes={"cat": (), "dog": ()})
CASES = Path("../shared/cases")


def choices(*texts, question="kind", **more):
    value = {"choices": list(texts), **more.pop("value", {})}
    return {
        "id": "r1", "from_name": question, "to_name": "image", "type": "choices", "value": value,
        **more,
    }  # fmt: skip


def taxonomy(*paths):
    value = {"taxonomy": [list(path) for path in paths]}
    return {"from_name": "kind", "to_name": "image", "type": "taxonomy", "value": value}


def annotation(*results, who=1, **more):
    return {"result": list(results), "completed_by": who, "updated_at": "2025-01-01", **more}


def task(number, *annotations, **more):
    return {
        "id": number, "project": 4, "annotations": list(annotations),
        "data": {"image": f"/data/local-files/?d=set/{number}.jpg"}, **more,
    }  # fmt: skip


@pytest.fixture
def find(folder):
    """Return the inventory of numbered photos below photos/ with exports."""

    def run(exports, photos=4, dataset=PETS):
        names = photos if isinstance(photos, list) else [f"photos/{n}.jpg" for n in range(photos)]
        root = folder(*names)
        for path, content in exports.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            (root / path).write_text(text, encoding="utf-8")
        return label_studio.read_label_studio(root, dataset)

    return run


@pytest.fixture
def ending(find):
    """Return how a task on one photo ends: its label, or its reason."""

    def run(*annotations, dataset=PETS):
        found = find({"e.json": [task(0, *annotations)]}, 1, dataset)
        return found.entries[0].label if found.entries else found.skips[0].reason

    return run


def labels(found):
    return {entry.file.rpartition("/")[2]: entry.label for entry in found.entries}


# --- Target storage


def stored(number, label, who=1, **more):
    """Return the file that a target storage writes for an annotation."""
    inner = {k: v for k, v in task(number).items() if k != "annotations"}
    by = {"id": who, "email": f"{who}@example.org", "first_name": "", "last_name": ""}
    return {**annotation(choices(label), who=by), "id": 100 * who + number, "task": inner, **more}


@pytest.mark.parametrize("ending", ["", ".json"])
def test_a_target_storage_has_a_file_for_each_annotation(find, ending):
    files = {f"sync/{100 + n}{ending}": stored(n, ["cat", "dog"][n % 2]) for n in range(4)}
    found = find(files)
    assert labels(found) == {"0.jpg": "cat", "1.jpg": "dog", "2.jpg": "cat", "3.jpg": "dog"}
    assert (found.tasks_seen, found.exports_seen, found.skips) == (4, 4, ())


def test_a_newer_target_storage_has_a_file_for_each_task(find):
    files = {f"sync/{n}": task(n, annotation(choices("cat"))) for n in range(4)}
    assert set(labels(find(files)).values()) == {"cat"}


def test_the_annotations_of_one_task_in_several_files_are_votes(find):
    files = {
        f"sync/{who}{n}": stored(n, "dog" if who == 3 else "cat", who)
        for n in range(2)
        for who in (1, 2, 3)
    }
    found = find(files, 2)
    assert [entry.by_vote for entry in found.entries] == [True, True]
    assert sorted((v.file, v.annotator, v.label) for v in found.votes)[:3] == [
        ("photos/0.jpg", "project/1", "cat"),
        ("photos/0.jpg", "project/2", "cat"),
        ("photos/0.jpg", "project/3", "dog"),
    ]
    assert (found.tasks_seen, found.exports_seen) == (2, 6)


def test_a_target_storage_in_consensus_has_its_folder_or_completed_by_as_annotator(find):
    files = {f"consensus/{who}/{n}": stored(n, "cat") for n in range(2) for who in ("anna", "bela")}
    files |= {f"consensus/{who}{n}.json": stored(n, "dog", who) for n in range(2) for who in (7, 8)}
    found = find(files | {"e.json": [task(n, annotation(choices("cat"))) for n in range(2)]}, 2)
    assert [(v.file, v.annotator, v.label) for v in found.votes if "0" in v.file] == [
        ("photos/0.jpg", "7", "dog"), ("photos/0.jpg", "8", "dog"),
        ("photos/0.jpg", "anna", "cat"), ("photos/0.jpg", "bela", "cat"),
    ]  # fmt: skip
    assert len(found.votes) == 8


def test_files_without_suffix_that_are_no_annotations_are_no_exports(find):
    files = {f"sync/{n}": stored(n, "cat") for n in range(4)}
    others = {"README": "{x", "photos/LICENSE": '{"result": [], "task": 3}', "n": '{"data": {}}'}
    found = find(files | others)
    assert {s.path: s.reason for s in found.skips} == {
        "README": "other_file", "photos/LICENSE": "other_file", "n": "not_an_image",
    }  # fmt: skip


# --- Which annotation counts


def test_ground_truth_overrides_any_number_of_other_annotations(ending):
    others = [annotation(choices("dog"), who=n, updated_at="2026") for n in (1, 2, 3)]
    assert ending(*others, annotation(choices("cat"), who=4, ground_truth=True)) == "cat"
    starred = annotation(choices("cat"), who=1, ground_truth=True)
    assert ending(starred, *others) == "cat"  # older, by an annotator with a newer one
    cancelled = annotation(choices("cat"), who=4, ground_truth=True, was_cancelled=True)
    assert ending(*others[:1], cancelled) == "dog"
    assert ending(*others[:1], annotation(who=4, ground_truth=True)) == "dog"
    accepted = annotation(choices("dog"), who=5, reviews=[{"accepted": True}])
    assert ending(accepted, starred) == "cat"


def review(accepted, when="2025-01-02", **more):
    by = {"id": 9, "email": "r@example.org", "first_name": "", "last_name": ""}
    return {"id": 1, "created_by": by, "created_at": when, "accepted": accepted, **more}


def test_a_rejected_annotation_is_no_label(ending):
    rejected = annotation(choices("dog"), who=1, reviews=[review(accepted=False)])
    assert ending(rejected) == "rejected"
    assert ending(rejected, annotation(choices("cat"), who=2)) == "cat"
    assert ending(annotation(choices("dog"), last_action="rejected")) == "rejected"


def test_an_accepted_annotation_overrides_those_without_a_review(ending):
    accepted = annotation(choices("cat"), who=3, reviews=[review(accepted=True)])
    others = [annotation(choices("dog"), who=n) for n in (1, 2)]
    assert ending(*others, accepted) == "cat"


def test_the_newest_review_counts_whatever_the_order(ending):
    old, new = review(accepted=False), review(accepted=True, when="2025-02-01")
    assert ending(annotation(choices("cat"), reviews=[new, old])) == "cat"
    assert ending(annotation(choices("cat"), reviews=[old, new])) == "cat"
    new["accepted"], old["accepted"] = False, True
    assert ending(annotation(choices("cat"), reviews=[new, old])) == "rejected"


def test_a_fixed_annotation_has_the_reviewers_label(ending):
    fixed = review(
        accepted=True, fixed_annotation_history=35,
        fixed_annotation_history_result=[choices("cat")],
        previous_annotation_history_result=[choices("dog")],
    )  # fmt: skip
    assert ending(annotation(choices("dog"), reviews=[fixed])) == "cat"
    updated = annotation(choices("cat"), reviews=[review(accepted=True)])
    assert ending(updated | {"last_action": "fixed_and_accepted"}) == "cat"


def test_an_annotation_submitted_again_after_its_rejection_counts(ending):
    again = annotation(choices("cat"), reviews=[review(accepted=False)], last_action="updated")
    assert ending(again) == "cat"


# --- Nested answers

LEVELS = {1: ("Animal", "Plant"), 2: ("cat", "tree"), None: ("cat", "oak"), 3: ("cat", "oak")}
TREES = [["Animal", "cat"], ["Plant", "tree", "oak"]] * 2


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["taxonomy", "allow_nested", "flat", "csv", "json_min"])
def test_the_leaf_or_the_chosen_level_is_the_label(find, level, kind):
    first, second = LEVELS[level]
    dataset = replace(PETS, classes={first: (), second: ()}, label_level=level)
    results = {
        "taxonomy": taxonomy, "allow_nested": choices, "flat": lambda path: choices(*path),
    }  # fmt: skip
    if kind in results:
        tasks = [task(n, annotation(results[kind](path))) for n, path in enumerate(TREES)]
        exports = {"e.json": tasks}
    else:
        records = [
            {"id": n, "image": f"/data/upload/1/{n:08x}-{n}.jpg", "annotator": 1,
             "annotation_id": n, "kind": [{"taxonomy": [path]}]}
            for n, path in enumerate(TREES)
        ]  # fmt: skip
        exports = {"e.json": records} if kind == "json_min" else {"e.csv": table(records, ",")}
    found = find(exports, dataset=dataset)
    assert labels(found) == {f"{n}.jpg": [first, second][n % 2] for n in range(4)}


def test_leaves_below_several_parents_are_named_by_their_path():
    counts = AnswerCounts()
    paths = [["Left", "other"], ["Right", "other"], ["Left", "sprain"]] * 2
    tasks = [task(n, annotation(taxonomy(path))) for n, path in enumerate(paths)]
    assert counts.add("e.json", json.dumps(tasks).encode())
    assert counts.counts() == {"kind": {"Left/other": 2, "Right/other": 2, "sprain": 2}}
    assert counts.counts(1) == {"kind": {"Left": 4, "Right": 2}}
    assert "below several parents" in counts.remarks()[1]


def test_two_leaves_are_several_choices_and_one_class_at_the_level_above(ending):
    both = annotation(taxonomy(["Animal", "cat"], ["Animal", "dog"]))
    assert ending(both) == "several_choices"
    above = replace(PETS, classes={"animal": (), "plant": ()}, label_level=1)
    assert ending(both, dataset=above) == "animal"


@pytest.mark.parametrize(
    ("settings", "counts"),
    [({}, {"cat": 4, "dog": 4, "oak": 4}), ({"label_level": 1}, {"Animal": 8, "Plant": 4})],
)
def test_add_names_the_classes_of_the_chosen_level(folder, settings, counts):
    paths = [["Animal", "cat"], ["Animal", "dog"], ["Plant", "oak"]] * 4
    root = folder(*(f"photos/{n}.jpg" for n in range(12)))
    tasks = [task(n, annotation(choices(*path))) for n, path in enumerate(paths)]
    (root / "e.json").write_text(json.dumps(tasks), encoding="utf-8")
    report = add.examine(root, "mine", None, params.read(), settings)
    assert report.counts == counts
    assert report.proposal.dataset.label_level == settings.get("label_level")
    assert ("label_level: 1" in report.config_text) == bool(settings)
    assert any("are nested, such as Animal > cat" in r for r in report.proposal.reading.remarks)


# --- Regions and other controls


def region(*texts, number=1):
    box = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0}
    return choices(*texts, id=f"b{number}", value=box)


def test_regions_that_agree_label_the_photo_and_others_do_not(ending):
    assert ending(annotation(region("cat"), region("cat", number=2))) == "cat"
    assert ending(annotation(region("cat"), region("dog", number=2))) == "regions_differ"
    assert ending(annotation(choices("cat"), choices("dog"))) == "several_choices"
    box = {"id": "b1", "from_name": "box", "type": "rectangle", "value": {"x": 1, "width": 2}}
    same_id = choices("dog", id="b1", question="kind")
    assert ending(annotation(box, region("cat", number=2), same_id)) == "regions_differ"


OTHERS = {
    "boxes (rectanglelabels)": ("rectanglelabels", {"x": 1, "width": 2, "rectanglelabels": ["a"]}),
    "ratings": ("rating", {"rating": 4}),
    "text (textarea)": ("textarea", {"text": ["a long story"]}),
    "key points (keypointlabels)": ("keypointlabels", {"x": 1, "keypointlabels": ["a"]}),
    "masks (brushlabels)": ("brushlabels", {"rle": [1], "brushlabels": ["a"]}),
    "numbers": ("number", {"number": 3}),
    "dates": ("datetime", {"datetime": "2024-01-01"}),
    "polygons (polygonlabels)": ("polygonlabels", {"points": [[1, 2]], "polygonlabels": ["a"]}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_controls_are_named_as_what_they_are(find, name):
    kind, value = OTHERS[name]
    other = {"from_name": "x", "to_name": "image", "type": kind, "value": value}
    found = find({"e.json": [task(0, annotation(other))]}, 1)
    assert [(s.item, s.reason, s.detail) for s in found.skips] == [
        ("task", "other_control", f"photos/0.jpg {name}"),
        ("file", "other_control", f"e.json#0 {name}"),
    ]
    counts = AnswerCounts()
    assert not counts.add("e.json", json.dumps([task(0, annotation(other))]).encode())
    assert f"only Choices and Taxonomy label a photo: {name} 'x' (1)" in counts.remarks()[0]


def test_other_controls_beside_a_choice_are_named_with_their_questions(find):
    others = [
        {"from_name": f"q{n}", "to_name": "image", "type": kind, "value": value}
        for n, (kind, value) in enumerate(OTHERS.values())
    ]
    relation = {"from_id": "a", "to_id": "b", "type": "relation"}
    tasks = [task(n, annotation(choices("cat"), *others, relation)) for n in range(2)]
    counts = AnswerCounts()
    assert counts.add("e.json", json.dumps(tasks).encode())
    assert counts.counts() == {"kind": {"cat": 2}}
    (remark,) = counts.remarks()
    for n, name in enumerate(OTHERS):
        assert f"{name} 'q{n}' (2)" in remark
    assert "relations (2)" in remark
    assert len(labels(find({"e.json": tasks}))) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_annotations_of_ground_truth_are_counted(count):
    tasks = [task(n, annotation(choices("cat"), ground_truth=n < count)) for n in range(3)]
    counts = AnswerCounts()
    counts.add("e.json", json.dumps(tasks).encode())
    assert counts.remarks() == [
        f"annotations of ground truth, which override the others of their task: {count}"
    ]


@pytest.mark.parametrize("name", ["e.json", "e.csv"])
def test_other_columns_of_records_are_named(name):
    box = [{"x": 1, "width": 2, "rectanglelabels": ["a"]}]
    records = [
        {"id": n, "image": f"/data/upload/1/{n}.jpg", "kind": ["cat", "dog"][n % 2], "stars": 4,
         "box": box, "comment": f"a story {n}", "annotator": 1, "annotation_id": n}
        for n in range(6)
    ]  # fmt: skip
    counts = AnswerCounts()
    text = json.dumps(records) if name == "e.json" else table(records, ",")
    assert counts.add(name, text.encode())
    remark = counts.remarks()[-1]
    assert "boxes (rectanglelabels) 'box' (6)" in remark
    assert "text 'comment' (6)" in remark
    assert "image" not in remark
    # A CSV does not tell numbers from choices.
    assert ("numbers or ratings 'stars' (6)" in remark) == (name == "e.json")
    assert ("stars" in counts.counts()) == (name == "e.csv")


# --- Further exports


def table(records, delimiter):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, sorted(records[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(
            {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in record.items()}
        )
    return stream.getvalue()


@pytest.mark.parametrize(("name", "delimiter"), [("e.tsv", "\t"), ("e.csv", "\t"), ("e.csv", ";")])
def test_tables_of_any_delimiter_are_read(find, name, delimiter):
    records = [
        {"id": n, "image": f"/data/upload/1/{n:08x}-{n}.jpg", "kind": ["cat", "dog"][n % 2],
         "annotator": "a@example.org", "annotation_id": n, "updated_at": "2025"}
        for n in range(4)
    ]  # fmt: skip
    found = find({name: table(records, delimiter)})
    assert labels(found) == {f"{n}.jpg": ["cat", "dog"][n % 2] for n in range(4)}


@pytest.mark.parametrize("name", ["e.jsonl", "e.ndjson", "e.json"])
@pytest.mark.parametrize("kind", ["task", "stored"])
def test_json_lines_of_tasks_or_annotations_are_read(find, name, kind):
    items = [
        task(n, annotation(choices("cat"))) if kind == "task" else stored(n, "cat")
        for n in range(4)
    ]
    found = find({name: "\n".join(map(json.dumps, items)) + "\n"})
    assert len(labels(found)) == 4


def test_json_lines_of_another_tool_are_no_export(find):
    exports = {"e.json": [task(0, annotation(choices("cat")))]}
    found = find(exports | {"metadata.jsonl": '{"file_name": "photos/0.jpg", "label": 1}'}, 1)
    assert {s.path: s.reason for s in found.skips} == {"metadata.jsonl": "other_file"}


def test_a_coco_file_is_named(find):
    coco = {"images": [], "annotations": [{"id": 1}], "categories": []}
    found = find({"e.json": [task(0, annotation(choices("cat")))], "coco.json": coco}, 1)
    assert [(s.reason, s.detail) for s in found.skips] == [
        ("not_an_export", "a COCO file (images, annotations, categories)")
    ]


def test_a_task_of_a_cloud_storage_in_two_exports_counts_by_its_newer_copy(find):
    old, new = (
        task(0, annotation(choices(label)), updated_at=when, data={"image": "s3://b/photos/0.jpg"})
        for label, when in (("dog", "2025-01-01"), ("cat", "2025-02-01"))
    )
    found = find({"old.json": [old], "new.json": [new]}, 1)
    assert labels(found) == {"0.jpg": "cat"}
    assert [s.reason for s in found.skips] == ["superseded"]


# --- Addresses

URI = "s3://bucket/photos/íű~?>0.jpg"


def encoded(text, *, urlsafe, padded, quoted):
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    code = encode(text.encode()).decode()
    code = code if padded else code.rstrip("=")
    return quote(code, safe="") if quoted else code


@pytest.mark.parametrize("urlsafe", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("place", ["/tasks/1/resolve/", "https://app/tasks/1/presign/"])
def test_a_fileuri_is_read_in_every_form(find, urlsafe, padded, quoted, place):
    for text in (URI, URI.replace("photos", "photos/a"), URI.replace("bucket", "b")):
        code = encoded(text, urlsafe=urlsafe, padded=padded, quoted=quoted)
        data = {"image": f"{place}?fileuri={code}"}
        name = "photos/íű~?>0.jpg"
        found = find({"e.json": [task(0, annotation(choices("cat")), data=data)]}, [name])
        assert [entry.file for entry in found.entries] == [name]


def test_a_fileuri_that_is_no_base64_is_a_missing_photo(find):
    data = {"image": "/tasks/1/resolve/?fileuri=%ff!!"}
    found = find({"e.json": [task(0, annotation(choices("cat")), data=data)]}, 1)
    assert {s.reason for s in found.skips} >= {"missing_file"}


def test_of_a_photo_and_a_reference_image_the_photo_is_labeled(find):
    tasks = [
        task(
            n, annotation(choices("cat")), data={"a": "upload/1/ref.jpg", "b": f"upload/1/{n}.jpg"}
        )
        for n in range(3)
    ]
    found = find({"e.json": tasks}, ["0.jpg", "1.jpg", "2.jpg", "ref.jpg"])
    assert sorted(labels(found)) == ["0.jpg", "1.jpg", "2.jpg"]
    assert {s.path: s.reason for s in found.skips} == {"ref.jpg": "no_task"}


def test_of_several_images_of_a_task_the_labeled_object_is_the_photo(find):
    data = {"image": "upload/1/0.jpg", "side": "upload/1/1.jpg"}
    found = find({"e.json": [task(0, annotation(choices("cat")), data=data)]}, 2)
    assert labels(found) == {"0.jpg": "cat"}
    unknown = annotation(choices("cat", to_name="img"))
    found = find({"e.json": [task(0, unknown, data=data)]}, 2)
    assert found.entries == ()
    assert {s.reason for s in found.skips} == {"ambiguous"}


# --- The shared cases


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
@pytest.mark.parametrize(
    "case",
    ["target_storage", "ground_truth", "nested_choices", "taxonomy", "tsv", "fileuri_urlsafe"],
)
def test_a_shared_case_ends_as_expected(case, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make.py", str(tmp_path)])
    runpy.run_path(str(CASES / f"ls_{case}" / "make.py"))
    report = add.examine(tmp_path, "case", None, params.read())
    expected = {f"{n:03d}": ["cat", "dog"][n % 2] for n in range(16)}
    assert {entry.file[-7:-4]: entry.label for entry in report.used} == expected
    capsys.readouterr()
