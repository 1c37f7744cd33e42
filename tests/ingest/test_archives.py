"""anklealign/ingest/archives.py: archives are unpacked safely, completely, or not at all."""

import contextlib
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.ingest import archives


def zipped(path, entries):
    """Write a zip file of {name or ZipInfo: content}, in that order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            archive.writestr(name, data)
    return path


def tarred(path, entries, mode="w"):
    """Write a tar file of {name: bytes, or the type and target of a link}."""
    with tarfile.open(path, mode) as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return path


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def unpack(tmp_path):
    """Unpack a source into a folder of its own; return its content, the remarks, what is left."""
    below = tmp_path / "below"

    def run(source):
        try:
            with archives.unpacked(source, below, "mine") as (folder, remarks):
                return content(folder), remarks
        finally:
            assert not below.exists() or not list(below.iterdir())

    return run


TREE = {"cats/1.jpg": b"c1", "cats/é 2.jpg": b"c2", "dogs/1.jpg": b"d1", "labels.csv": b"path"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "ZIP"])
def test_an_archive_of_each_kind_gives_its_files(unpack, tmp_path, kind):
    path = tmp_path / f"photos.{kind}"
    if kind.lower() == "zip":
        zipped(path, TREE)
    else:
        tarred(path, TREE, f"w:{kind.replace('tgz', 'gz').rpartition('.')[2].replace('tar', '')}")
    files, remarks = unpack(path)
    assert files == TREE
    assert remarks == [f"photos.{kind}: 4 files, 0.0 MB"]


def test_a_folder_without_archives_is_used_as_it_is(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    with archives.unpacked(tmp_path, None, "mine") as (folder, remarks):
        assert (folder, remarks) == (tmp_path, [])


def test_the_only_folder_at_the_top_is_the_root_unless_it_is_a_collectors_code(unpack, tmp_path):
    wrapped = {f"My set/{name}": data for name, data in TREE.items()}
    noise = {"README.md": b"r", "__MACOSX/._x": b"m", ".DS_Store": b"d"}
    files, remarks = unpack(zipped(tmp_path / "a.zip", wrapped | noise))
    assert files == TREE
    assert remarks[1:] == ["read from its folder My set", "not taken: .DS_Store, README.md"]
    collector = {f"FO6K58/{name}": data for name, data in TREE.items()}
    assert unpack(zipped(tmp_path / "b.zip", collector))[0] == collector
    labeled = wrapped | {"labels.txt": b"l"}
    assert unpack(zipped(tmp_path / "c.zip", labeled))[0] == labeled


def test_archives_in_a_folder_become_folders_of_their_name(unpack, tmp_path):
    source = tmp_path / "share"
    zipped(source / "cats.zip", {"1.jpg": b"c1"})
    zipped(source / "dogs.zip", {"dogs/1.jpg": b"d1"})
    zipped(source / "FO6K58.zip", {"photos/1.jpg": b"f1", "export.json": b"[]"})
    zipped(source / "A1B2C3" / "photos.zip", {"1.jpg": b"a1"})
    (source / "labels.csv").write_bytes(b"path")
    before = content(source)
    files, remarks = unpack(source)
    assert files == {
        "cats/1.jpg": b"c1", "dogs/1.jpg": b"d1", "FO6K58/photos/1.jpg": b"f1",
        "FO6K58/export.json": b"[]", "A1B2C3/1.jpg": b"a1", "labels.csv": b"path",
    }  # fmt: skip
    assert remarks == ["4 archives in the folder: 5 files, 0.0 MB"]
    assert content(source) == before


@pytest.mark.parametrize(
    "names",
    [
        ["OneDrive_1_11-3-2025.zip", "OneDrive_2_11-3-2025.zip"],
        ["set-20251103T101500Z-001.zip", "set-20251103T101500Z-002.zip"],
        ["set-20251103T101500Z-1-001.zip", "set-20251103T101500Z-1-002.zip"],
    ],
)
def test_parts_of_one_download_are_put_together(unpack, tmp_path, names):
    zipped(tmp_path / "share" / names[0], {"cats/1.jpg": b"c1", "dogs/1.jpg": b"d1"})
    zipped(tmp_path / "share" / names[1], {"cats/2.jpg": b"c2"})
    files, _ = unpack(tmp_path / "share")
    assert files == {"cats/1.jpg": b"c1", "cats/2.jpg": b"c2", "dogs/1.jpg": b"d1"}


def test_archives_inside_archives_are_unpacked_up_to_a_depth(unpack, tmp_path):
    inner = {}
    for name in ("train", "test1"):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(f"{name}/cat.0.jpg", name)
        inner[f"{name}.zip"] = stream.getvalue()
    files, _ = unpack(zipped(tmp_path / "dogs-vs-cats.zip", inner))
    assert files == {"train/cat.0.jpg": b"train", "test1/cat.0.jpg": b"test1"}
    data = b"x"
    for depth in range(6):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("inner.zip" if depth else "a.jpg", data)
        data = stream.getvalue()
    (tmp_path / "deep.zip").write_bytes(data)
    with pytest.raises(ValueError, match="inside 3 others; unpack it"):
        unpack(tmp_path / "deep.zip")


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "a/.."])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_path_out_of_the_folder_is_refused(unpack, tmp_path, name, kind):
    entries = {"ok.jpg": b"o", name: b"evil"}
    path = (
        zipped(tmp_path / "a.zip", entries)
        if kind == "zip"
        else tarred(tmp_path / "a.tar", entries)
    )
    with pytest.raises(ValueError, match="leads out of its folder"):
        unpack(path)
    assert not list(tmp_path.rglob("evil.jpg"))


@given(name=st.text(st.sampled_from("./\\:aé C"), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_no_name_is_written_outside_the_folder(tmp_path_factory, name):
    top = tmp_path_factory.mktemp("names")
    path = zipped(top / "a.zip", {name: b"x", "z.jpg": b"z"})
    (top / "below").mkdir()
    refused = contextlib.suppress(ValueError)  # a path out of the folder, or a file as a folder
    with refused, archives.unpacked(path, top / "below", "mine") as (folder, _):
        assert (top / "below") in folder.parents
        assert sorted(p.name for p in top.iterdir()) == ["a.zip", "below"]
        assert len(list((top / "below").iterdir())) == 1
    assert not list((top / "below").iterdir())


def test_absolute_paths_drives_and_backslashes_become_paths_below_the_folder(unpack, tmp_path):
    entries = {"/etc/a.jpg": b"1", "C:\\photos\\b.jpg": b"2", "./c.jpg": b"3", "d\\": b""}
    files, _ = unpack(zipped(tmp_path / "a.zip", entries))
    assert files == {"etc/a.jpg": b"1", "photos/b.jpg": b"2", "c.jpg": b"3"}


def test_links_and_devices_are_left_out_and_counted_and_hard_links_are_files(unpack, tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    files, remarks = unpack(zipped(tmp_path / "a.zip", [("a.jpg", b"a"), (link, b"/etc/passwd")]))
    assert files == {"a.jpg": b"a"}
    assert "left out: 1 links of an archive" in remarks
    entries = {
        "a.jpg": b"a", "hard.jpg": (tarfile.LNKTYPE, "a.jpg"), "in": (tarfile.SYMTYPE, "a.jpg"),
        "out": (tarfile.SYMTYPE, "/etc"), "out/b.jpg": b"b", "fifo": (tarfile.FIFOTYPE, ""),
    }  # fmt: skip
    files, remarks = unpack(tarred(tmp_path / "a.tar", entries))
    assert files == {"a.jpg": b"a", "hard.jpg": b"a", "out/b.jpg": b"b"}
    assert remarks[1:] == [
        "left out: 2 links of an archive", "left out: 1 special files of an archive",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="damaged or incomplete"):
        unpack(tarred(tmp_path / "b.tar", {"hard.jpg": (tarfile.LNKTYPE, "../gone.jpg")}))


def test_two_entries_of_one_name_are_both_kept_unless_they_are_equal(unpack, tmp_path):
    path = tmp_path / "a.zip"
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(path, [("a.jpg", b"1"), ("a.jpg", b"2"), ("a.jpg", b"1"), ("b.jpg", b"3")])
    files, remarks = unpack(path)
    assert files == {"a.jpg": b"1", "a (2).jpg": b"2", "b.jpg": b"3"}
    assert "left out: 1 repeated entries with the same content" in remarks
    with pytest.raises(ValueError, match="a file and a folder of the same name"):
        unpack(zipped(tmp_path / "b.zip", {"a": b"1", "a/b.jpg": b"2"}))


def raw_name(path, name):
    """Write a zip file whose only entry has a name in bytes that no flag describes."""
    placeholder = "x" * len(name)
    zipped(path, {f"{placeholder}.jpg": b"x"})
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name))
    return path


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("Pronáció".encode(), "Pronáció.jpg"),  # macOS writes UTF-8 without the flag
        ("tűrő".encode("cp852"), "tűrő.jpg"),  # Windows in Hungary
        ("été".encode("cp437"), "été.jpg"),
    ],
)
def test_names_that_are_not_flagged_as_utf8_are_read(unpack, tmp_path, data, name):
    assert list(unpack(raw_name(tmp_path / "a.zip", data))[0]) == [name]


def test_a_name_in_the_unicode_extra_field_is_read(unpack, tmp_path):
    info = zipfile.ZipInfo("x.jpg")
    name = "足.jpg".encode()
    info.extra = struct.pack("<HHBL", 0x7075, 5 + len(name), 1, 0) + name
    path = zipped(tmp_path / "a.zip", [(info, b"x")])
    path.write_bytes(path.read_bytes().replace(b"x.jpg", b"\x9d.jpg"))
    assert list(unpack(path)[0]) == ["足.jpg"]


def test_a_name_of_a_tar_file_that_is_not_utf8_keeps_its_bytes(unpack, tmp_path):
    path = tarred(tmp_path / "a.tar", {"\udcff.jpg": b"x"})
    assert [os.fsencode(name) for name in unpack(path)[0]] == [b"\xff.jpg"]


def test_an_encrypted_archive_is_named(unpack, tmp_path):
    data = bytearray(zipped(tmp_path / "a.zip", {"a.jpg": b"abc"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip is encrypted; unpack it with its password"):
        unpack(tmp_path / "a.zip")


def test_an_unsupported_compression_is_named(unpack, tmp_path):
    data = bytearray(zipped(tmp_path / "a.zip", {"a.jpg": b"abc"}).read_bytes())
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 9  # Deflate64, as Windows writes large files
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match="unsupported compression"):
        unpack(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_damaged_archive_is_named_and_nothing_is_left(unpack, tmp_path, kind):
    photo = os.urandom(200_000)
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        zipped(path, {"a.jpg": photo})
    else:
        tarred(path, {"a.jpg": photo}, f"w:{kind[4:]}")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for data in (whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.\w+.* is damaged or incomplete"):
            unpack(path)


def test_files_bytes_and_ratio_are_bounded(unpack, tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {f"{n}.bmp": bytes(1 << 20) for n in range(4)})
    assert len(unpack(path)[0]) == 4
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    with pytest.raises(ValueError, match="over 200 times its size, as a decompression bomb"):
        unpack(path)
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    monkeypatch.setattr(archives, "SMALL", 1 << 30)
    with pytest.raises(ValueError, match="over 3 files"):
        unpack(path)
    monkeypatch.setattr(archives, "MOST_FILES", 100)
    monkeypatch.setattr(archives, "MOST_BYTES", 2 << 20)
    with pytest.raises(ValueError, match=r"unpacks to over 0\.00\d+ GB"):
        unpack(path)


def test_an_archive_larger_than_the_disk_is_refused_before_it_is_unpacked(
    unpack, tmp_path, monkeypatch
):
    path = zipped(tmp_path / "a.zip", {"a.bmp": bytes(1 << 20)})
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"the disk has only 0\.0 GB left"):
        unpack(path)


def test_a_tar_file_that_ends_with_a_zip_file_is_a_tar_file(unpack, tmp_path):
    inner = zipped(tmp_path / "cats.zip", {"1.jpg": b"c1"}).read_bytes()
    files, _ = unpack(tarred(tmp_path / "a.tar", {"a.jpg": b"a", "cats.zip": inner}))
    assert files == {"a.jpg": b"a", "cats/1.jpg": b"c1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_process_leaves_nothing(tmp_path, number):
    zipped(tmp_path / "a.zip", TREE)
    code = (
        "import pathlib, time\n"
        "from anklealign.ingest import archives\n"
        f"top = pathlib.Path({str(tmp_path)!r})\n"
        "with archives.unpacked(top / 'a.zip', top / 'below', 'mine'):\n"
        "    print('unpacked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"unpacked\n"
    assert len(list((tmp_path / "below").iterdir())) == 1
    process.send_signal(number)
    process.wait(20)
    assert not list((tmp_path / "below").iterdir())


def test_many_files_are_fast(unpack, tmp_path):
    path = zipped(tmp_path / "a.zip", {f"{n % 9}/{n}.jpg": b"x" for n in range(3000)})
    start = time.process_time()
    assert len(unpack(path)[0]) == 3000
    assert time.process_time() - start < 10
