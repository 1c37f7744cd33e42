"""anklealign/ingest/inventory.py: nothing below a folder is lost, whatever it is called."""

import os
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anklealign.config.params import Dataset
from anklealign.ingest import inventory, layouts
from anklealign.ingest.inventory import (
    REASONS,
    Claim,
    Entry,
    Inventory,
    Skip,
    compile_subject_pattern,
    escape_unprintable,
    list_files,
    remedy,
    resolve_claims,
    subject_of,
)
from anklealign.io.pixel_store import photo_id

PATTERN = compile_subject_pattern(r"(?P<subject>resz?t?vevo_?\d+)")
CODES = ["FO6K58", "ITWQ3V", "h51b9j"]


def test_everything_below_a_folder_is_a_file_or_a_skip(tmp_path, jpeg):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jpg").write_bytes(jpeg)
    (tmp_path / "a.txt").write_text("notes")
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "x.jpg" / "inside.png").write_bytes(jpeg)
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to(".")
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    files, skips = list_files(tmp_path)
    assert files == ["a.txt", "b/1.jpg", "x.jpg/inside.png"]
    assert {s.path: s.reason for s in skips} == {
        ".DS_Store": "system_file", ".git": "system_file", "broken.jpg": "not_a_file",
        "circle": "not_a_file", "pipe.jpg": "not_a_file", "x.jpg": "not_a_file",
    }  # fmt: skip


def test_linked_folders_and_files_are_followed(tmp_path, jpeg):
    real, root = tmp_path / "real", tmp_path / "root"
    (real / "sub").mkdir(parents=True)
    root.mkdir()
    (real / "sub" / "1.jpg").write_bytes(jpeg)
    (root / "photos").symlink_to(real)
    (root / "2.jpg").symlink_to(real / "sub" / "1.jpg")
    assert list_files(root) == (["2.jpg", "photos/sub/1.jpg"], [])


def test_odd_names_are_found_and_can_be_printed(tmp_path, jpeg):
    names = [b"\xe9.jpg", b"a\nb.jpg", "👣.jpg".encode(), b"n" * 251 + b".jpg", b'q".jpg']
    for name in names:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as stream:  # noqa: PTH123 - bytes
            stream.write(jpeg)
    files, skips = list_files(tmp_path)
    assert not skips
    assert {os.fsencode(f) for f in files} == set(names)
    shown = {escape_unprintable(f) for f in files}
    assert {r"\xe9.jpg", r"a\nb.jpg", "👣.jpg"} < shown
    assert all((tmp_path / f).read_bytes() == jpeg for f in files)


def test_a_missing_folder_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist; .*dvc pull"):
        list_files(tmp_path / "nowhere")


@given(st.text(st.characters(), max_size=30))
def test_printable_text_is_one_line_of_utf8_and_stays_so(text):
    shown = escape_unprintable(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert escape_unprintable(shown) == shown


@given(st.lists(st.binary(min_size=1, max_size=12), unique=True, max_size=30))
def test_ids_of_any_names_are_12_hex_digits_and_differ(names):
    paths = {escape_unprintable(os.fsdecode(name)) for name in names}
    ids = {photo_id(path) for path in paths}
    assert all(re.fullmatch("[0-9a-f]{12}", i) for i in ids)
    assert len(ids) == len({unicodedata.normalize("NFC", p) for p in paths})


@pytest.mark.parametrize(
    ("path", "collector", "who"),
    [
        ("FO6K58/sajat_reszvevo03_02.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/reszvevo_03_02.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/resztvevo03_02.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/résztvevő3_02.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/RESZVEVO03.JPG", "FO6K58", "FO6K58/03"),
        ("FO6K58/reszvevo03/IMG_1.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/FO6K58_sajat_reszvevo03_02.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/ITWQ3V_sajat_reszvevo03_02.jpg", "FO6K58", "ITWQ3V/03"),
        ("FO6K58/sajat_reszvevo03_02_itwq3v.jpg", "FO6K58", "ITWQ3V/03"),
        ("h51b9j/reszvevo03.jpg", "h51b9j", "h51b9j/03"),
        ("FO6K58/internet_freepik_02.jpg", "FO6K58", ""),
        ("reszvevo03_02.jpg", "", "03"),
    ],
)
def test_the_path_tells_the_person(path, collector, who):
    assert subject_of(path, PATTERN, collector, CODES) == who


def test_without_a_pattern_or_a_number_the_person_is_unknown_or_a_word():
    assert subject_of("a/reszvevo03.jpg", None, "a", ["a"]) == ""
    assert (
        subject_of("Ánna_1.jpg", compile_subject_pattern(r"^(?P<subject>[^_]+)_"), "", ()) == "anna"
    )


def test_given_parts_are_known_by_their_usual_names():
    parts = [
        inventory.predefined_split_of(f"{top}/x.jpg")
        for top in ("train", "Valid", "validation", "TEST", "x")
    ]
    assert parts == ["train", "val", "val", "test", ""]
    assert inventory.predefined_split_of("train") == ""


def test_tasks_that_agree_give_one_label_and_tasks_that_do_not_give_none():
    settled, skips = resolve_claims(
        {
            "a.jpg": [Claim("x#1", "n"), Claim("x#2", "n")],
            "b.jpg": [Claim("x#3", "n"), Claim("y#1", "p")],
        }
    )
    assert settled == {"a.jpg": Claim("x#1", "n")}
    assert {(s.path, s.item, s.reason) for s in skips} == {
        ("x#2", "task", "duplicate_task"), ("b.jpg", "file", "label_conflict"),
        ("x#3", "task", "label_conflict"), ("y#1", "task", "label_conflict"),
    }  # fmt: skip


def test_an_inventory_that_lost_something_is_refused():
    entry, skip = Entry("a.jpg", "x", task="t#1"), Skip("b.jpg", "file", "no_task")
    Inventory((entry,), (skip,), files_seen=2, tasks_seen=1)
    for files, tasks in ((3, 1), (2, 2), (1, 1)):
        with pytest.raises(ValueError, match=r"do not add up to .*; report"):
            Inventory((entry,), (skip,), files, tasks)
    with pytest.raises(ValueError, match="twice"):
        Inventory((), (skip, skip), 2, 0)


def test_reasons_are_the_documented_ones():
    with pytest.raises(ValueError, match="not a reason code"):
        Skip("a.jpg", "file", "because")
    assert all(code.replace("_", "").isalpha() for code in REASONS)


def test_every_reason_says_what_it_means_and_what_to_do():
    for code, text in REASONS.items():
        meaning, colon, _ = text.partition(": ")
        assert meaning, code
        assert colon, code
        assert remedy(code), code


def test_a_folder_that_may_not_be_opened_is_one_clear_error(nobody):
    (nobody.folder / "photos").mkdir(0o311)
    with (
        nobody,
        pytest.raises(ValueError, match=r"photos cannot be opened: Perm.*; grant read permission"),
    ):
        list_files(nobody.folder / "photos")


NOT_PHOTOS = {
    "test.csv": b"a,b\n1,2\n", "README.md": b"# data\n", "LICENSE": b"MIT", "run.py": b"print()",
    "labels.json": b"{}", "ants.xml": b"<annotation/>", "clip.mp4": b"\0\0\0\x18ftypmp42",
    "e.txt": b"",
}  # fmt: skip


@pytest.mark.parametrize("layout", ["folders", "file_names", "table", "label_studio"])
def test_files_that_are_no_photos_are_not_counted_as_broken_ones(folder, jpeg, layout):
    root = folder("cat/cat1.jpg")
    damaged = {"cat/web.jpg": b"<html>", "cat/scan.pdf": b"%PDF", "cat/scan": b"?"}
    kept = {"cat/photo.JPG~": jpeg, "cat/photo.part": jpeg}
    named = {f"cat/{name}": data for name, data in NOT_PHOTOS.items() if layout != "label_studio"}
    named |= {"README.md": b"# data\n", "notes.txt": b"hello"}
    tables = {"labels.csv": b"path,label\ncat/cat1.jpg,cat\n", "export.json": b"[]"}
    wanted = {"table": "labels.csv", "label_studio": "export.json"}.get(layout)
    extra = {wanted: tables[wanted]} if wanted else {}
    for path, data in (damaged | kept | named | extra).items():
        (root / path).write_bytes(data)
    dataset = Dataset(
        layout=layout, classes={"cat": (), "dog": ()}, csv="labels.csv",
        label_pattern="(?P<label>cat)" if layout == "file_names" else None,
    )  # fmt: skip
    found = layouts.read_inventory(root, dataset)
    assert {skip.path for skip in found.skips if skip.reason == "other_file"} == named.keys()
