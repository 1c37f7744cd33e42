"""anklealign/ingest/consensus.py: every listed name and vote finds its photo, or a reason."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.config.params import Dataset
from anklealign.ingest import label_studio
from anklealign.ingest.inventory import remedy
from anklealign.ingest.label_studio_export import pseudonym

DATASET = Dataset(
    layout="label_studio",
    classes={"pronation": ("1_Pronacio",), "neutral": ("2_Neutralis",), "supination": ()},
    ordered=True,
)
PHOTOS = ["A1B2C3/x_01.jpg", "A1B2C3/x_02.jpg", "D4E5F6/x_01.jpg", "D4E5F6/é 03.jpg"]
LIST = "A1B2C3\\x_01.jpg\r\nD4E5F6\\é 03.jpg\r\n"


def vote(name, *labels, number=1, updated="2025-01-01", who=1, **more):
    """Return a task on a photo, with an annotation for each label, each newer than the last."""
    annotations = [
        {
            "result": [{"value": {"choices": [label]}, "from_name": "c"}],
            "completed_by": who,
            "updated_at": f"{updated}T0{hour}",
        }
        for hour, label in enumerate(labels)
    ]
    return {"id": number, "file_upload": f"0000000{number}-{name}", "data": {}, **more} | {
        "annotations": annotations
    }


@pytest.fixture
def find(folder):
    def run(files, photos=PHOTOS):
        root = folder(*photos)
        tasks = [vote(photo.rpartition("/")[2], "neutral", number=1) for photo in photos]
        exports = {}
        for photo, task in zip(photos, tasks, strict=True):
            exports.setdefault(f"{photo.partition('/')[0]}/e.json", []).append(task)
        for path, content in {**exports, **files}.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return label_studio.read_label_studio(root, DATASET)

    return run


def votes_of(found):
    return {(vote.file, vote.annotator): vote.label for vote in found.votes}


def test_votes_find_the_listed_photos_and_are_no_labels_of_their_collector(find, reasons):
    found = find(
        {
            "consensus/lista.txt": LIST.encode(),
            "consensus/anna.json": [
                vote("x_01.jpg", "1_Pronacio"),
                vote("é_03.jpg", "neutral", number=2),
            ],
            "consensus/béla.json": [vote("x_01.jpg", "supination")],
        }
    )  # fmt: skip
    assert found.listed == ("A1B2C3/x_01.jpg", "D4E5F6/é 03.jpg")
    assert votes_of(found) == {
        ("A1B2C3/x_01.jpg", "anna"): "pronation",
        ("A1B2C3/x_01.jpg", "béla"): "supination",
        ("D4E5F6/é 03.jpg", "anna"): "neutral",
    }
    assert reasons(found) == {}
    assert {entry.label for entry in found.entries} == {"neutral"}
    assert (found.names_seen, found.votes_seen, found.exports_seen) == (2, 3, 5)
    assert (found.files_seen, found.tasks_seen) == (4, 4)


@pytest.mark.parametrize(
    "data",
    [
        LIST.encode("utf-8-sig"),
        LIST.encode("utf-16"),
        LIST.encode("cp1250"),
        LIST.replace("é", "e\u0301").encode(),
        LIST.replace("\\", "/").replace("\r\n", "\n").encode(),
        LIST.swapcase().encode(),
        f"\n\n {LIST}\n  \r\n".encode(),
        LIST.replace("A1", '".\\A1').replace("x_01.jpg", 'x_01.jpg"').encode(),
        LIST.replace("A1", "C:\\photos\\A1").encode(),
    ],
    ids=["bom", "utf-16", "cp1250", "NFD", "slashes", "case", "blank", "quoted", "absolute"],
)
def test_the_list_is_read_whatever_editor_saved_it(find, data):
    found = find({"consensus/l.txt": data})
    assert found.listed == ("A1B2C3/x_01.jpg", "D4E5F6/é 03.jpg")
    assert found.names_seen == 2


def test_names_that_fit_no_photo_or_one_twice_are_skipped_with_their_line(find, reasons):
    lines = [
        "A1B2C3\\x_01.jpg",
        "a1b2c3/X_01.JPG",  # the same by its spelling
        "x_02.jpg",  # the same by its photo as the next, whose folder is surer
        "A1B2C3\\x_02.jpg",
        "x_01.jpg",  # in either folder
        "G7H8I9\\x_02.jpg",  # of a collector who is not there
        "A1B2C3\\nothing.jpg",
        "notes, not a name",
    ]
    found = find({"consensus/l.txt": "\n".join(lines).encode()})
    assert found.listed == ("A1B2C3/x_01.jpg", "A1B2C3/x_02.jpg")
    assert reasons(found) == {
        "consensus/l.txt#2": "listed_twice",
        "consensus/l.txt#3": "listed_twice",
        "consensus/l.txt#5": "ambiguous",
        "consensus/l.txt#6": "missing_file",
        "consensus/l.txt#7": "missing_file",
        "consensus/l.txt#8": "missing_file",
    }
    (ambiguous,) = [skip.detail for skip in found.skips if skip.reason == "ambiguous"]
    assert "A1B2C3/x_01.jpg and D4E5F6/x_01.jpg" in ambiguous


def test_of_two_listed_photos_of_one_name_both_are_named_and_the_remedy_mends_it(find, reasons):
    files = {
        "consensus/l.txt": b"A1B2C3/x_01.jpg\nD4E5F6/x_01.jpg",
        "consensus/anna.json": [
            vote("x_01.jpg", "neutral", number=1), vote("x_01.jpg", "1_Pronacio", number=2),
        ],
    }  # fmt: skip
    found = find(files)
    tasks = ("consensus/anna.json#1", "consensus/anna.json#2")
    assert reasons(found) == dict.fromkeys(tasks, "ambiguous")
    for skip in found.skips:
        assert "x_01.jpg matches A1B2C3/x_01.jpg and D4E5F6/x_01.jpg (rule: " in skip.detail
    assert "add the folder to the name in the export" in remedy("ambiguous")
    for task, folder in zip(files["consensus/anna.json"], ("A1B2C3", "D4E5F6"), strict=True):
        task["file_upload"] = f"{folder}/x_01.jpg"
    found = find(files)
    assert reasons(found) == {}
    assert votes_of(found) == {
        ("A1B2C3/x_01.jpg", "anna"): "neutral", ("D4E5F6/x_01.jpg", "anna"): "pronation",
    }  # fmt: skip


def test_votes_that_do_not_count_have_their_reason(find, reasons):
    found = find(
        {
            "consensus/l.txt": LIST.encode(),
            "consensus/anna.json": [
                vote("x_02.jpg", "neutral", number=1),
                vote("x_01.jpg", number=2),
                vote("é_03.jpg", "platypus", number=3),
                {**vote("x_01.jpg", number=4), "drafts": [{"id": 1}]},
                {"id": 5, "data": {}, "annotations": []},
            ],
        }
    )
    assert reasons(found) == {
        "consensus/anna.json#1": "not_listed",
        "consensus/anna.json#2": "no_label",
        "consensus/anna.json#3": "label_unknown",
        "consensus/anna.json#4": "draft_only",
        "consensus/anna.json#5": "not_listed",
    }
    assert (found.votes_seen, found.votes) == (5, ())


def test_exports_that_cannot_be_used_are_skipped_and_the_others_count(find, reasons):
    found = find(
        {
            "consensus/l.txt": LIST.encode(),
            "consensus/none.txt": b"\xef\xbb\xbf\r\n",
            "consensus/a.json": b"[{",
            "consensus/b.json": b"",
            "consensus/c.json": b"\xff\xfe\x00\xd8",
            "consensus/d.json": [],
            "consensus/e.json": {"a": 1},
            "consensus/photo.jpg": b"x",
            "consensus/f.json": [vote("x_01.jpg", "neutral")],
        }
    )
    assert reasons(found) == {
        "consensus/none.txt": "empty_list",
        "consensus/a.json": "broken_export",
        "consensus/b.json": "zero_bytes",
        "consensus/c.json": "broken_export",
        "consensus/d.json": "empty_export",
        "consensus/e.json": "not_an_export",
        "consensus/photo.jpg": "consensus",
    }
    assert votes_of(found) == {("A1B2C3/x_01.jpg", "f"): "neutral"}
    assert (found.exports_seen, found.files_seen) == (10, 5)


def test_an_unreadable_export_is_skipped(find, reasons, monkeypatch):
    (path,) = ("consensus/a.json",)
    real = label_studio.Path.read_bytes

    def refuse(self):
        if self.name == "a.json":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(label_studio.Path, "read_bytes", refuse)
    assert reasons(find({path: [vote("x_02.jpg", "neutral")]})) == {path: "cannot_open"}


def test_who_voted_twice_on_a_photo_counts_with_the_newest(find, reasons):
    found = find(
        {
            "consensus/within.json": [vote("x_02.jpg", "neutral", "1_Pronacio")],
            "consensus/across.json": [
                vote("x_02.jpg", "supination", number=1, updated="2025-02-02"),
                vote("x_02.jpg", "neutral", number=2, updated="2025-01-01"),
            ],
            "consensus/equal.json": [
                vote("x_02.jpg", "supination", number=1),
                vote("x_02.jpg", "neutral", number=2),
            ],
        }
    )
    assert {name: label for (_, name), label in votes_of(found).items()} == {
        "within": "pronation", "across": "supination", "equal": "neutral",
    }  # fmt: skip
    assert reasons(found) == {
        "consensus/across.json#2": "superseded",
        "consensus/equal.json#1": "superseded",
    }
    assert found.votes_seen == 5


def test_two_exports_of_one_name_are_one_annotator(find, reasons):
    record = (
        "id,image,annotator,annotation_id,updated_at,c\n"
        "1,/data/upload/1/x_02.jpg,1,1,2026,neutral\n"
    )
    found = find(
        {
            "consensus/anna.json": [vote("x_02.jpg", "supination")],
            "consensus/anna.csv": record.encode(),
        }
    )
    assert votes_of(found) == {("A1B2C3/x_02.jpg", "anna"): "neutral"}
    assert list(reasons(found).values()) == ["superseded"]


def test_completed_by_counts_only_where_one_export_names_several(find):
    two = [vote("x_02.jpg", "neutral"), vote("x_02.jpg", "supination", number=2, who={"id": 7})]
    found = find({"consensus/all.json": two, "consensus/one.json": two[:1]})
    assert votes_of(found) == {
        ("A1B2C3/x_02.jpg", "all/1"): "neutral",
        ("A1B2C3/x_02.jpg", "all/7"): "supination",
        ("A1B2C3/x_02.jpg", "one"): "neutral",
    }


def test_no_address_or_name_of_an_annotator_is_kept(find):
    people = [
        {"email": "Anna@Example.org"}, {"first_name": "Béla", "last_name": "Kis"},
        "cili@example.org", {"id": 7, "email": "dora@example.org"},
    ]  # fmt: skip
    tasks = [vote("x_02.jpg", "neutral", number=n, who=who) for n, who in enumerate(people)]
    records = (
        "id,image,annotator,annotation_id,updated_at,c\n"
        "1,/data/upload/1/x_02.jpg,anna@example.org,1,2026,neutral\n"
        "1,/data/upload/1/x_02.jpg,cili@example.org,2,2026,neutral\n"
    )
    found = find(
        {
            "consensus/all.json": tasks,
            "consensus/min.csv": records.encode(),
            "consensus/emil@example.org.json": tasks[:1],
        }
    )
    named = {annotator for _, annotator in votes_of(found)}
    everything = " ".join([*named, *(skip.path + skip.detail for skip in found.skips)])
    assert not [word for word in ("@", "anna", "béla", "kis", "dora") if word in everything.lower()]
    # The same person has the same name in both exports, in whatever case it was written.
    anna, cili = pseudonym("anna@example.org"), pseudonym("cili@example.org")
    assert {f"all/{anna}", f"min/{anna}", f"all/{cili}", f"min/{cili}", "all/7"} <= named
    assert pseudonym("emil@example.org") in named
    assert len(named) == 7


def test_without_a_list_votes_look_everywhere(find, reasons):
    tasks = [
        vote(name, "neutral", number=n) for n, name in enumerate(["x_02.jpg", "x_01.jpg", "y"])
    ]
    found = find({"consensus/a.json": tasks})
    assert votes_of(found) == {("A1B2C3/x_02.jpg", "a"): "neutral"}
    assert reasons(found) == {
        "consensus/a.json#1": "ambiguous", "consensus/a.json#2": "missing_file",
    }  # fmt: skip


def test_a_photo_that_only_consensus_labels_comes_in_by_vote(find, reasons):
    files = {
        "A1B2C3/e.json": [vote("x_02.jpg", "neutral")],
        "consensus/a.json": [vote("x_01.jpg", "neutral")],
        "consensus/l.txt": b"A1B2C3/x_01.jpg",
    }
    found = find(files, photos=PHOTOS[:2])
    by_vote = {entry.file: (entry.by_vote, entry.task, entry.label) for entry in found.entries}
    assert by_vote == {
        "A1B2C3/x_01.jpg": (True, "", ""),
        "A1B2C3/x_02.jpg": (False, "A1B2C3/e.json#1", "neutral"),
    }
    assert reasons(found) == {}


names = st.sampled_from(
    [p.replace("/", "\\") for p in PHOTOS] + ["x_02.jpg", "x_01.jpg", "no.jpg", "", " ", "é 03.jpg"]
)
labels = st.sampled_from(["neutral", "1_Pronacio", "platypus", "supination"])
uploads = st.sampled_from([photo.rpartition("/")[2] for photo in PHOTOS] + ["no.jpg"])
casts = st.lists(st.tuples(uploads, st.lists(labels, max_size=2)), max_size=6)


@given(st.lists(names, max_size=8), st.lists(casts, max_size=3))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_whatever_stands_in_lists_and_exports(tmp_path_factory, lines, exports):
    root = tmp_path_factory.mktemp("any")
    for photo in PHOTOS:
        (root / photo).parent.mkdir(exist_ok=True)
        (root / photo).write_bytes(b"x")
    (root / "A1B2C3/e.json").write_text(json.dumps([vote("x_02.jpg", "neutral")]))
    (root / "consensus").mkdir()
    (root / "consensus/l.txt").write_text("\n".join(lines), encoding="utf-8")
    for number, export in enumerate(exports):
        tasks = [vote(name, *said, number=n) for n, (name, said) in enumerate(export)]
        (root / f"consensus/{number}.json").write_text(json.dumps(tasks))
    found = label_studio.read_label_studio(root, DATASET)  # Inventory itself checks the sums
    assert found.names_seen == sum(bool(line.strip()) for line in lines)
    assert found.votes_seen == sum(len(export) for export in exports)
    if found.listed:
        assert {vote.file for vote in found.votes} <= set(found.listed)
    assert len(votes_of(found)) == len(found.votes)
