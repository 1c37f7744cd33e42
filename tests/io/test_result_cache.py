"""The cache saves work, and no state of its files changes a result."""

import pickle
import shutil
import sqlite3
import threading
import time

import numpy as np
import pandas as pd
import pytest

from anklealign.cleaning import image_quality, removal
from anklealign.config import paths
from anklealign.io import execution, result_cache
from anklealign.io.result_cache import ResultCache
from anklealign.similarity import registration

MODULES, LIBRARIES = ["anklealign.io.decode"], ["numpy"]


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens a cache with these parameters."""

    def go(number=1, name="numbers", modules=MODULES):
        return ResultCache(name, {"number": number}, modules, LIBRARIES, tmp_path)

    return go


def test_values_are_kept_between_runs(opened):
    with opened() as cache:
        assert cache.get(b"a") is None
        cache.put(b"a", b"1")
        assert cache.get(b"a") == b"1"
    with opened() as cache:
        assert cache.get(b"a") == b"1"
        assert cache.get(b"b") is None
        cache.put(b"a", b"")
    with opened() as cache:
        assert cache.get(b"a") == b""


def test_values_are_kept_after_an_interrupted_run(opened):
    with pytest.raises(KeyboardInterrupt), opened() as cache:
        cache.put(b"a", b"1")
        raise KeyboardInterrupt
    assert opened().get(b"a") == b"1"


def test_other_parameters_names_code_and_libraries_are_other_caches(opened, monkeypatch):
    with opened() as cache:
        cache.put(b"a", b"1")
    assert opened(2).get(b"a") is None
    assert opened(name="others").get(b"a") is None
    assert opened(modules=["anklealign.io.camera_raw"]).get(b"a") is None
    with monkeypatch.context() as patch:
        patch.setattr(result_cache.environment, "installed_versions", lambda _: {"numpy": "9"})
        assert opened().get(b"a") is None
    assert opened().get(b"a") == b"1"


def test_a_change_in_an_imported_module_is_other_code(tmp_path, monkeypatch):
    imports = result_cache.imports
    (tmp_path / "anklealign").mkdir()
    monkeypatch.setattr(imports, "ROOT", tmp_path)
    one, other = tmp_path / "anklealign/one.py", tmp_path / "anklealign/other.py"
    one.write_text("from anklealign import other\n")
    hashes = set()
    for text in ("x = 1\n", "x = 2\n"):
        other.write_text(text)
        imports.code_sha256.cache_clear()
        hashes.add(imports.code_sha256(("anklealign.one",)))
    imports.code_sha256.cache_clear()
    assert len(hashes) == 2
    with pytest.raises(ValueError, match=r"'anklealign\.third' is no module"):
        imports.code_sha256(("anklealign.third",))


def test_an_entry_of_other_parameters_or_of_another_key_is_unknown(opened):
    with opened(2) as other:
        other.put(b"a", b"wrong")
    with opened(1) as cache:
        cache.put(b"b", b"1")
    for source, key in ((other, b"a"), (cache, b"b")):
        (value,) = sqlite3.connect(source.path).execute(
            "SELECT value FROM results WHERE key = ?", (key,)
        ).fetchone()  # fmt: skip
        with sqlite3.connect(cache.path) as database:
            database.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (b"a", value))
        assert opened(1).get(b"a") is None
    shutil.copyfile(other.path, cache.path)
    assert opened(1).get(b"a") is None


def damaged_files(content):
    """Yield damaged versions of a file: truncated, overwritten in one place, empty, foreign."""
    for length in range(0, len(content), 4099):
        yield content[:length]
    for place in range(0, len(content), 199):
        yield content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
    yield b"not a database" * 1000


def test_a_damaged_file_loses_values_and_changes_none(opened):
    values = {bytes([n]) * 32: bytes([n]) * (37 * n) for n in range(1, 40)}
    with opened() as cache:
        for key, value in values.items():
            cache.put(key, value)
    content = cache.path.read_bytes()
    lost = 0
    for damaged in damaged_files(content):
        cache.path.write_bytes(damaged)
        with opened() as cache:
            for key, value in values.items():
                result = cache.get(key)
                assert result in (None, value)
                lost += result is None
                cache.put(key, value)
        with opened() as cache:  # whatever was damaged, the next run has all of it again
            for key, value in values.items():
                assert cache.get(key) in (None, value)
    assert lost


def test_without_a_writable_folder_all_is_unknown(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ResultCache("numbers", {}, MODULES, LIBRARIES, tmp_path / "file")
    with cache:
        cache.put(b"a", b"1")
        cache.commit()
        assert cache.get(b"a") is None


def test_several_threads_and_runs_share_a_file(opened):
    def fill(start):
        with opened() as cache:
            for n in range(start, start + 50):
                cache.put(f"{n}".encode(), f"{n}".encode())
                cache.commit()

    threads = [threading.Thread(target=fill, args=(start,)) for start in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened() as cache:
        assert [cache.get(f"{n}".encode()) for n in range(150)] == [
            f"{n}".encode() for n in range(150)
        ]


def test_a_cache_is_bounded(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(result_cache, "MAX_BYTES", 100_000)
    with opened() as cache:
        for n in range(100):
            cache.put(f"{n}".encode(), bytes(10_000))
            cache.commit()
        assert cache.path.stat().st_size < 200_000
        assert cache.get(b"99") is not None
        assert cache.get(b"0") is None
    for number in range(2, 12):
        with opened(number):
            pass
    left = {path.name for path in tmp_path.glob("numbers-*.sqlite")}
    assert len(left) == result_cache.MAX_FILES
    assert opened(11).path.name in left


@pytest.mark.parametrize("stage", ["quality", "hashes"])
def test_other_processes_can_read_while_a_stage_adds_results(stage, tmp_path, monkeypatch):
    """SQLite locks the file once a transaction no longer fits into its memory.

    40,000 photos would have waited for half an hour: each shard five seconds.
    """
    photos = list(np.random.default_rng(0).integers(0, 255, (300, 40, 40, 3), np.uint8))
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    waits = []

    def map_shards(function, shards):
        for shard in shards:
            result = function(shard)
            start = time.perf_counter()
            pickle.loads(pickle.dumps(cache)).get(b"unknown")  # noqa: S301
            waits.append(time.perf_counter() - start)
            yield result

    monkeypatch.setattr(execution, "map_shards", map_shards)
    with registration.cache_for() as hashes, image_quality.cache_for(square=False) as qualities:
        cache = hashes if stage == "hashes" else qualities
        assert cache._database
        cache._database.execute("PRAGMA cache_size = 1")
        table = pd.DataFrame({"width": [40] * 300, "height": [40] * 300})
        removal.read_photos(table, photos, square=False, caches=(qualities, hashes))
    assert len(waits) == 5
    assert max(waits) < 1
