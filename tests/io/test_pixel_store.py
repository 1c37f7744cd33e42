"""Tables keep text as text, the store keeps its pixels, and ids are stable."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anklealign.io import files, pixel_store


@given(st.lists(st.text(min_size=1), unique_by=lambda t: unicodedata.normalize("NFC", t)))
def test_ids_differ_by_path_and_not_by_order_or_unicode_form(paths):
    ids = [pixel_store.photo_id(path) for path in paths]
    assert len(set(ids)) == len(paths)
    assert ids == [pixel_store.photo_id(unicodedata.normalize("NFD", p)) for p in paths] or any(
        unicodedata.normalize("NFC", unicodedata.normalize("NFD", p))
        != unicodedata.normalize("NFC", p)
        for p in paths
    )


def test_ids_are_the_same_as_in_earlier_versions():
    assert pixel_store.photo_id("FO6K58/sajat_reszvevo03_02.jpg") == "3f9fa7f972f6"


def test_names_that_are_not_utf8_have_ids():
    assert len(pixel_store.photo_id(b"a\xff.jpg".decode("utf-8", "surrogateescape"))) == 12


def test_text_columns_remain_text(tmp_path):
    table = pd.DataFrame({"id": ["007", "1e5"], "row": [0, 1], "subject": ["", "NA"]})
    files.write_table(tmp_path / "photos.csv", table)
    pd.testing.assert_frame_equal(pixel_store.read_table(tmp_path / "photos.csv"), table)


def ids_of(paths):
    return [pixel_store.photo_id(path) for path in paths]


def random_pixels(count, side=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def write(folder, named, archive=None):
    """Write a store of path -> pixels, in order of path."""
    names = sorted(named)
    with pixel_store.StoreWriter(folder, 2, archive) as writer:
        for photos in pixel_store.shard_slices(ids_of(names)):
            shard = writer.reserve(photos.stop - photos.start)
            shard.pixels[...] = [named[name] for name in names[photos]]
            writer.add(shard)
    return np.array([named[name] for name in names]).reshape(-1, 2, 2, 3)


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_store_is_read_like_an_array(tmp_path, count):
    pixels = write(tmp_path / "s", {f"{n:04}": p for n, p in enumerate(random_pixels(count))})
    store = pixel_store.open_store(tmp_path / "s")
    assert store.shape == pixels.shape == np.asarray(store).shape
    assert len(store.shards) == sum(1 for _ in (tmp_path / "s").iterdir()) - 1
    np.testing.assert_array_equal(store, pixels)
    rows = np.random.default_rng(1).permutation(count)
    for index in (rows, rows[:0], slice(None), slice(1, None, 3), rows % 2 == 0):
        np.testing.assert_array_equal(store[index], pixels[index])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)), pixels)  # noqa: S301 - own
    for row in (count, -count - 1):
        with pytest.raises(IndexError, match=f"row {row} of a pixel store of {count} photos"):
            store[row]
    if count:
        np.testing.assert_array_equal(store[-1], pixels[-1])
        np.testing.assert_array_equal(store[np.int64(0), 1, :, 2], pixels[0, 1, :, 2])
        assert not store[0].flags.writeable
        assert store[0].base is not None  # a view of the mapped file


def test_more_shards_are_read_than_a_process_may_map(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_store, "MAPPED", 2)
    pixels = write(tmp_path / "s", {f"{n:04}": p for n, p in enumerate(random_pixels(2000))})
    store = pixel_store.open_store(tmp_path / "s")
    assert len(store.shards) > 6
    np.testing.assert_array_equal(list(store), pixels)


@given(
    old=st.sets(st.integers(0, 3000), max_size=1500),
    new=st.sets(st.integers(0, 3000), max_size=5),
)
def test_shards_far_from_new_photos_do_not_change(old, new):
    def content(numbers):
        ids = ids_of(f"{n:04}" for n in sorted(numbers))
        slices = pixel_store.shard_slices(ids)
        assert [n for photos in slices for n in range(photos.start, photos.stop)] == list(
            range(len(ids))
        )
        return {tuple(ids[photos]) for photos in slices}

    changed = content(old | new) - content(old)
    # A new photo can end a shard, keep a neighbor from ending one, and is in one itself.
    assert len(changed) <= 3 * len(new - old)


def test_new_photos_rewrite_few_bytes():
    """The bounds for 30,000 photos; the mean of several places keeps the test from being lucky."""
    paths = [f"{n // 100:04}/{n % 100:03}.jpg" for n in range(30_000)]
    rng = np.random.default_rng(0)

    def rewritten(added):
        lengths = []
        for names in (paths, sorted([*paths, *added])):
            ids = ids_of(names)
            lengths.append({tuple(ids[s]): s.stop - s.start for s in pixel_store.shard_slices(ids)})
        return sum(n for ids, n in lengths[1].items() if ids not in lengths[0]) / len(paths)

    for _ in range(3):
        folder = rng.integers(300)
        assert rewritten([f"{folder:04}a/{n}.jpg" for n in range(10)]) <= 0.02
        assert rewritten([f"{n:04}/new.jpg" for n in rng.integers(0, 300, 10)]) <= 0.10


def test_shards_are_named_by_their_content_and_unchanged_ones_are_the_same_files(tmp_path):
    archive, folder = tmp_path / "archive", tmp_path / "s"
    named = {f"{n:04}": p for n, p in enumerate(random_pixels(1000))}
    write(folder, named, archive)
    before = {path.name: path.stat() for path in folder.glob("*.npy")}
    assert all(files.sha256(folder / name) == name.removesuffix(".npy") for name in before)
    shutil.rmtree(folder)  # as DVC does
    write(folder, named | {"0500a": random_pixels(1, seed=1)[0]}, archive)
    after = {path.name: path.stat() for path in folder.glob("*.npy")}
    same = before.keys() & after.keys()
    assert 0 < len(after.keys() - same) <= 3
    # DVC knows a file by its inode, size and time, and does not hash it again.
    facts = [(s.st_ino, s.st_mtime_ns, s.st_size) for s in map(before.get, sorted(same))]
    assert facts == [(s.st_ino, s.st_mtime_ns, s.st_size) for s in map(after.get, sorted(same))]


DVC_PROJECT = {
    "dvc.yaml": """
stages:
  write: {cmd: python write.py, deps: [names], outs: [pixels]}
  read: {cmd: python read.py, deps: [pixels], outs: [photos]}
""",
    ".dvcignore": ".cache\n",
    "write.py": """
import numpy as np
from pathlib import Path
from anklealign.io import pixel_store
names = sorted(Path("names").read_text().split())
with pixel_store.StoreWriter(Path("pixels"), 2, Path(".cache")) as writer:
    for photos in pixel_store.shard_slices([pixel_store.photo_id(name) for name in names]):
        shard = writer.reserve(photos.stop - photos.start)
        for place, name in enumerate(names[photos]):
            shard.pixels[place] = np.random.default_rng(int(name)).integers(0, 256, (2, 2, 3))
        writer.add(shard)
""",
    "read.py": """
from pathlib import Path
from anklealign.io import pixel_store
pixel_store.keep_shards(Path("pixels"), Path(".cache"))
Path("photos").write_text(str(len(pixel_store.open_store(Path("pixels")))))
""",
    "repro.py": """
import dvc_data.hashfile.hash as hashing
from dvc.cli import main
hash_file, hashed = hashing.file_md5, []
def count(path, /, *arguments, **options):
    hashed.append(str(path))
    return hash_file(path, *arguments, **options)
hashing.file_md5 = count
assert main(["repro", "--quiet"]) == 0
print(sum(name.endswith(".npy") for name in hashed))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("link", ["copy", "hardlink,copy"])
def test_dvc_hashes_only_new_shards(tmp_path, link):
    """A new photo costs DVC the hashes of its shards, however DVC links its outputs."""
    for name, text in DVC_PROJECT.items():
        (tmp_path / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, check=True,
            capture_output=True, text=True,
        ).stdout  # fmt: skip

    run("-m", "dvc", "init", "--no-scm", "--quiet")
    run("-m", "dvc", "config", "cache.type", link)
    names = [f"{n:05}" for n in range(3000)]
    hashed = []
    for _ in range(3):
        (tmp_path / "names").write_text("\n".join(names))
        hashed.append(int(run("repro.py")))
        names.append(f"1{len(hashed)}")
        shards = {path.name: path.stat() for path in (tmp_path / "pixels").glob("*.npy")}
        archived = {path.name: path.stat() for path in (tmp_path / ".cache").glob("*.npy")}
        assert all(archived[name].st_ino == facts.st_ino for name, facts in shards.items())
    assert hashed[0] > 15
    assert all(1 <= number <= 3 for number in hashed[1:])


def test_equal_shards_are_stored_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_store, "REACH", 1)
    named = {f"{n:04}": np.zeros((2, 2, 3), np.uint8) for n in range(100)}
    write(tmp_path, named, tmp_path / "archive")
    store = pixel_store.open_store(tmp_path)
    assert len(store) == 100
    assert len(set(store.shards)) < len(store.shards)
    assert not np.asarray(store).any()


def test_a_damaged_archive_changes_nothing(tmp_path):
    archive, folder = tmp_path / "archive", tmp_path / "s"
    named = {f"{n:04}": p for n, p in enumerate(random_pixels(1000))}
    pixels = write(folder, named, archive)
    first, second, third, *_ = sorted(archive.iterdir())
    for path in (first, second, third):
        (folder / path.name).unlink()
    first.write_bytes(second.read_bytes())
    with third.open("r+b") as stream:
        stream.truncate(200)
    with second.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\0" if second.read_bytes()[-1] else b"\1")
    write(folder, named, archive)
    np.testing.assert_array_equal(pixel_store.open_store(folder), pixels)
    for path in archive.iterdir():
        assert f"{files.sha256(path)}.npy" == path.name


def test_the_archive_is_bounded(tmp_path):
    archive, folder = tmp_path / "archive", tmp_path / "s"
    for seed in range(3):
        named = {f"{n:04}": p for n, p in enumerate(random_pixels(1000, seed=seed))}
        write(folder, named, archive)
    names = {path.name for path in folder.glob("*.npy")}
    with pixel_store.StoreWriter(folder, 2, archive) as writer:
        for name in sorted(names):
            assert writer.archived(name) is not None
            writer.link(name)
            writer.append(name, len(writer.archived(name)))
        size = (archive / name).stat().st_size
        writer.prune(5000)
    kept = {path.name: path.stat().st_size for path in archive.iterdir()}
    assert names < kept.keys()
    assert size <= sum(n for name, n in kept.items() if name not in names) <= 5000


def test_the_store_is_written_atomically(tmp_path):
    pixels = random_pixels(300)
    pixel_store.write_store(tmp_path, pixels)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError), pixel_store.StoreWriter(tmp_path, 2) as writer:
        for _ in range(2):
            shard = writer.reserve(1)
            shard.pixels[:] = 7
        writer.add(shard)
        raise RuntimeError
    assert sorted(tmp_path.iterdir()) == before
    np.testing.assert_array_equal(pixel_store.open_store(tmp_path), pixels)


def test_a_full_disk_is_an_error_before_pixels_are_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixel_store.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        pixel_store.write_store(tmp_path / "s", random_pixels(3))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "s")
    assert list((tmp_path / "s").iterdir()) == []


def test_damaged_stores_are_errors_with_a_remedy(tmp_path):
    pixel_store.write_store(tmp_path, random_pixels(3))
    (name, _), *_ = pixel_store.open_store(tmp_path).shards
    path = tmp_path / name
    for damage in (path.read_bytes()[:-1], b"", b"text"):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=f"{name} is damaged; run `dvc checkout`"):
            pixel_store.open_store(tmp_path)[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing; run `dvc checkout`"):
        pixel_store.open_store(tmp_path)[0]
    for damage in ("", "[]", '{"side": 2}', '{"side": 2, "shards": [["a"]]}'):
        (tmp_path / "index.json").write_text(damage)
        with pytest.raises(ValueError, match=r"index\.json: not the index .*dvc checkout"):
            pixel_store.open_store(tmp_path)


def test_a_photos_box_is_its_pixels_without_the_letterbox(tmp_path):
    pixels = np.arange(2 * 6 * 6 * 3, dtype=np.uint8).reshape(2, 6, 6, 3)
    pixel_store.write_store(tmp_path, pixels)
    table = pd.DataFrame({"row": [1, 0], "left": 0, "top": [1, 2], "right": 6, "bottom": [5, 4]})
    boxes = pixel_store.Boxes(table, pixel_store.open_store(tmp_path))
    np.testing.assert_array_equal(boxes[0], pixels[1, 1:5])
    np.testing.assert_array_equal(boxes[1], pixels[0, 2:4])
