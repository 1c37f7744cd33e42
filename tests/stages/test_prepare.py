"""Every photo is in the store, or in skipped.csv with its reason."""

import csv
import errno
import gc
import hashlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anklealign.config import paths
from anklealign.ingest import decoding
from anklealign.ingest.inventory import REASONS
from anklealign.io import execution, imports, pixel_store, results
from stages import prepare

ROOT = Path(__file__).resolve().parents[2]
HYMENOPTERA = ROOT.parent / "shared" / "photos" / "hymenoptera"
SETTINGS = {"size": 64, "fill": 114, "max_megapixels": 80}


def photo(colour="teal", size=(40, 20), kind="JPEG", **options):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that fills a project folder, runs prepare, and gives tables and metrics."""
    monkeypatch.chdir(tmp_path)

    def run(contents, block=None, **settings):
        block = block or {"layout": "folders", "classes": {"ants": [], "bees": []}}
        raw = {"dataset": "mine", "datasets": {"mine": block}, "prepare": SETTINGS | settings}
        Path("params.yaml").write_text(json.dumps(raw))
        for path, data in contents.items():
            target = Path(os.fsdecode(path) if isinstance(path, bytes) else path)
            target = Path("data/raw/mine") / target
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        prepare.main()
        table = pixel_store.read_table(prepare.PHOTOS)
        skipped = pd.read_csv(prepare.SKIPPED, keep_default_na=False)
        return table, skipped, results.read_details(prepare.METRICS)

    return run


def test_photos_are_in_the_store_at_their_row_and_box(project):
    table, skipped, metrics = project(
        {"ants/b.jpg": photo("red"), "bees/a.png": photo("blue", (20, 40), "PNG")}
    )
    assert list(table.columns) == list(pixel_store.PREPARED_COLUMNS)
    assert table.path.tolist() == ["ants/b.jpg", "bees/a.png"]
    assert table.row.tolist() == [0, 1]
    assert table.id.tolist() == [pixel_store.photo_id(path) for path in table.path]
    assert table.format.tolist() == ["JPEG", "PNG"]
    assert table[["left", "top", "right", "bottom"]].to_numpy().tolist() == [
        [0, 16, 64, 48], [16, 0, 48, 64],
    ]  # fmt: skip
    store = pixel_store.open_store()
    assert store.shape == (2, 64, 64, 3)
    assert np.abs(store[0, 32, 32].astype(int) - (254, 0, 0)).max() < 3
    assert store[1, 32, 32].tolist() == [0, 0, 255]
    assert store[0, 0, 0].tolist() == [114, 114, 114]
    assert skipped.empty
    assert (metrics["photos"], metrics["files_seen"], metrics["classes"]) == (
        2, 2, {"ants": 1, "bees": 1},
    )  # fmt: skip


def test_an_unreadable_photo_leaves_no_hole_in_the_store(project):
    contents = {f"ants/{n}.png": photo((n * 20, 0, 0), kind="PNG") for n in range(6)}
    contents |= {"ants/0.png": b"", "ants/2.png": photo(kind="PNG")[:60], "ants/4.png": b"text"}
    table, skipped, metrics = project(contents | {"bees/1.png": photo("white", kind="PNG")})
    store = pixel_store.open_store()
    assert table.path.tolist() == ["ants/1.png", "ants/3.png", "ants/5.png", "bees/1.png"]
    assert table.row.tolist() == [0, 1, 2, 3]
    assert len(store) == 4
    assert store[:][:, 32, 32, 0].tolist() == [20, 60, 100, 255]
    assert dict(zip(skipped.path, skipped.reason, strict=True)) == {
        "ants/0.png": "zero_bytes", "ants/2.png": "truncated", "ants/4.png": "not_an_image",
    }  # fmt: skip
    assert metrics["skipped"] == {"total": 3, "not_an_image": 1, "truncated": 1, "zero_bytes": 1}
    assert metrics["photos"] + metrics["skipped"]["total"] == metrics["files_seen"]


def test_unreadable_files_in_the_raw_folder_are_skipped_with_a_reason(project, nobody, monkeypatch):
    monkeypatch.chdir(nobody.folder)
    project({f"{name}/{n}.jpg": photo() for name in ("ants", "bees") for n in range(2)})
    raw = Path("data/raw/mine")
    (raw / "ants/1.jpg").chmod(0)
    (raw / "shut").mkdir()
    (raw / "shut").chmod(0o311)
    for path in (Path("data"), Path("data/prepared"), paths.STORE, paths.DETAILS, Path("plots")):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    with nobody:
        prepare.main()
    skipped = pd.read_csv(prepare.SKIPPED, keep_default_na=False)
    assert list(zip(skipped.path, skipped.reason, skipped.detail, strict=True)) == [
        ("ants/1.jpg", "cannot_open", "Permission denied"),
        ("shut", "cannot_open", "folder: Permission denied"),
    ]
    assert len(pixel_store.read_table(prepare.PHOTOS)) == 3


def test_the_task_of_an_unreadable_photo_is_listed(project):
    block = {"layout": "table", "classes": {"ants": [], "bees": []}, "group_column": "who"}
    rows = "path,label,who\na.jpg,ants,1\nb.jpg,bees,1\nc.jpg,bees,2\n"
    table, skipped, metrics = project(
        {"a.jpg": photo(), "b.jpg": photo(), "c.jpg": b"", "labels.csv": rows.encode()}, block
    )
    assert table.subject.tolist() == ["1", "1"]
    assert skipped.remedy.tolist() == ["download or copy it again", "fix the photo"]
    assert skipped.drop(columns="remedy").to_dict("records") == [
        {"path": "c.jpg", "item": "file", "reason": "zero_bytes", "detail": "the file has 0 bytes"},
        {"path": "labels.csv#4", "item": "task", "reason": "file_skipped",
         "detail": "c.jpg: zero_bytes"},
    ]  # fmt: skip
    assert metrics["tasks_seen"] == 3
    assert metrics["skipped_tasks"] == {"total": 1, "file_skipped": 1}
    assert (metrics["subjects"], metrics["subject_unknown"], metrics["exports_seen"]) == (1, 0, 1)


def test_label_studio_rows_have_collector_and_subject(project):
    block = {
        "layout": "label_studio",
        "classes": {"pronation": ["1_Pronacio"], "neutral": []},
        "subject_pattern": r"resz?t?vevo_?(?P<subject>\d+)",
    }
    names = ["sajat_reszvevo03_01.jpg", "reszvevo_3_02.jpg", "internet_1.jpg"]
    contents = {f"FO6K58/{name}": photo() for name in names}
    contents["FO6K58/e.json"] = export(
        (names[0], "1_Pronacio"), (names[1], "neutral"), (names[2], "neutral")
    )
    contents |= {"h51b9j/1.jpg": photo(), "h51b9j/broken.json": b"["}
    table, skipped, metrics = project(contents, block)
    assert set(zip(table.path, table.collector, table.subject, strict=True)) == {
        ("FO6K58/sajat_reszvevo03_01.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/reszvevo_3_02.jpg", "FO6K58", "FO6K58/03"),
        ("FO6K58/internet_1.jpg", "FO6K58", ""),
    }
    assert skipped.reason.tolist() == ["no_task", "broken_export"]
    keys = ("collectors", "subjects", "subject_unknown", "exports_seen")
    assert {k: metrics[k] for k in keys} == {
        "collectors": 1, "subjects": 1, "subject_unknown": 1, "exports_seen": 2,
    }  # fmt: skip


def export(*named, who=1):
    """Return an export of (name, label, …): a task each, with an annotation for each label."""
    return json.dumps(
        [
            {"id": n, "file_upload": f"{n:08x}-{name}", "data": {}, "annotations": [
                {"result": [{"value": {"choices": [label]}}], "completed_by": who + k}
                for k, label in enumerate(labels)]}
            for n, (name, *labels) in enumerate(named)
        ]
    ).encode()  # fmt: skip


VOTED = {
    "layout": "label_studio",
    "classes": {"low": [], "mid": [], "high": []},
    "ordered": True,
}


def panel():
    """Six photos with their collector's labels; four of them, one without, are voted on."""
    contents = {f"FO6K58/{n}.jpg": photo() for n in range(1, 6)}
    contents["FO6K58/6.jpg"] = b"bad"
    contents["FO6K58/e.json"] = export(
        *((f"{n}.jpg", label) for n, label in enumerate(["low", "mid", "high", "mid", "high"], 1)
          if n != 4),
        ("6.jpg", "low"),
    )  # fmt: skip
    contents["consensus/list.txt"] = "".join(
        f"FO6K58\\{n}.jpg\r\n" for n in (1, 2, 4, 6, 9)
    ).encode()
    labels_by_annotator = {
        "anna": ["low", "mid", "high", "low"],
        "bela": ["mid", "mid", "high", "low"],
        "cili": ["low", "low", "mid", "low"],
        "dora": ["mid", "high", "high", "low"],
    }
    for name, labels in labels_by_annotator.items():
        pairs = zip((1, 2, 4, 6), labels, strict=True)
        contents[f"consensus/{name}.json"] = export(*((f"{n}.jpg", label) for n, label in pairs))
    contents["consensus/emil.json"] = b""
    return contents


def test_votes_become_a_table_a_consensus_soft_labels_and_numbers(project):
    table, skipped, metrics = project(panel(), VOTED)
    assert dict(zip(table.path, zip(table.label, table.consensus, strict=True), strict=True)) == {
        "FO6K58/1.jpg": ("low", "low"),  # two against two: the collector's own
        "FO6K58/2.jpg": ("mid", "mid"),
        "FO6K58/3.jpg": ("high", ""),
        "FO6K58/4.jpg": ("high", "high"),  # by vote alone
        "FO6K58/5.jpg": ("high", ""),
    }
    votes = pixel_store.read_table(paths.VOTES)
    assert list(votes.columns) == ["photo", "annotator", "label"]
    assert len(votes) == 12
    assert set(votes.photo) <= set(table.id)
    soft = pixel_store.read_table(paths.SOFT_LABELS).set_index("photo")
    assert list(soft.columns) == ["soft_low", "soft_mid", "soft_high"]
    second = table.id[table.path == "FO6K58/2.jpg"].item()
    assert soft.loc[second].tolist() == [0.25, 0.5, 0.25]
    assert set(zip(skipped.item, skipped.reason, strict=True)) == {
        ("file", "not_an_image"), ("task", "file_skipped"), ("vote", "file_skipped"),
        ("name", "missing_file"), ("export", "zero_bytes"),
    }  # fmt: skip
    assert (metrics["votes_seen"], metrics["skipped_votes"]["total"]) == (16, 4)
    assert metrics["skipped_names"] == {"total": 1, "missing_file": 1}
    found = metrics["agreement"]
    assert {key: found[key] for key in ("listed", "votes", "photos", "annotators", "ties")} == {
        "listed": 4, "votes": 12, "photos": 3, "annotators": 4, "ties": 1,
    }  # fmt: skip
    assert found["ties_left"] == 0
    assert set(found["by_annotator"]) == {"anna", "bela", "cili", "dora"}
    assert {
        "alpha_nominal",
        "alpha_ordinal",
        "pairwise",
        "modal_share_mean",
        "modal_share_min",
    } <= set(found)


def test_the_consensus_follows_the_parameter(project):
    """Two annotators who always agree outweigh three who guess."""
    rng = np.random.default_rng(5)
    true = [str(label) for label in rng.choice(["low", "mid", "high"], 40)]
    contents = {f"A/{n:02}.jpg": photo() for n in range(40)}
    names = [f"{n:02}.jpg" for n in range(40)]
    contents["A/e.json"] = export(*zip(names, true, strict=True))
    for name in ("sure1", "sure2", "any1", "any2", "any3"):
        labels = true
        if name.startswith("any"):
            labels = [str(label) for label in rng.choice(["low", "mid", "high"], 40)]
        contents[f"consensus/{name}.json"] = export(*zip(names, labels, strict=True))

    def right(method):
        table, _, metrics = project(contents, VOTED, consensus=method)
        return (table.consensus == true).mean(), metrics["agreement"]["by_annotator"]

    majority, _ = right("majority")
    model, annotators = right("dawid_skene")
    assert majority < model
    assert model > 0.95
    worst = sorted(annotators, key=lambda name: annotators[name]["dawid_skene"])
    assert set(worst[:3]) == {"any1", "any2", "any3"}


def test_labels_of_several_annotators_are_votes_and_a_tied_photo_is_skipped(project):
    contents = {f"A/{n}.jpg": photo() for n in range(1, 5)}
    contents["A/e.json"] = export(
        ("1.jpg", "low", "low", "high"), ("2.jpg", "low", "high"), ("3.jpg", "mid"),
        ("4.jpg", "high", "high"),
    )  # fmt: skip
    table, skipped, metrics = project(contents, VOTED)
    assert dict(zip(table.path, table.label, strict=True)) == {
        "A/1.jpg": "low", "A/3.jpg": "mid", "A/4.jpg": "high",
    }  # fmt: skip
    assert list(zip(skipped.item, skipped.reason, strict=True)) == [
        ("vote", "file_skipped"), ("vote", "file_skipped"),
        ("file", "label_tie"), ("task", "file_skipped"),
    ]  # fmt: skip
    assert metrics["agreement"]["votes"] == 5


def test_without_votes_the_tables_are_empty(project):
    project({"ants/1.jpg": photo(), "bees/1.jpg": photo()})
    assert pixel_store.read_table(paths.VOTES).empty
    assert list(pixel_store.read_table(paths.SOFT_LABELS)) == [
        "photo",
        "soft_ants",
        "soft_bees",
    ]


def test_any_file_name_is_accepted_and_kept_in_the_tables(project):
    names = [
        b"\xe9.jpg",
        b"a\nb.jpg",
        b'c,"d".jpg',
        "👣 é.jpg".encode(),
        b"\r\t.jpg",
        b"n" * 251 + b".jpg",
    ]
    contents = {b"ants/" + name: photo() for name in names}
    contents |= {b"bees/" + name: b"" for name in names} | {"bees/1.jpg": photo()}
    table, skipped, _ = project(contents)
    assert len(table) == 7
    assert len(skipped) == 6
    for path in (prepare.PHOTOS, prepare.SKIPPED):
        text = path.read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert len(text.splitlines()) == len(rows)
        assert len({len(row) for row in rows}) == 1
    assert r"ants/a\nb.jpg" in set(table.path)
    assert table.id.is_unique


def test_one_of_two_names_that_differ_in_unicode_form_is_kept(project):
    nfc, nfd = "ants/l\u00e1b.jpg", "ants/la\u0301b.jpg"
    table, skipped, metrics = project({nfc: photo(), nfd: photo(), "bees/1.jpg": photo()})
    assert len(table) == 2
    assert skipped.reason.tolist() == ["id_taken"]
    assert metrics["files_seen"] == 3


def test_the_result_does_not_depend_on_threads_or_on_the_order_of_files(project, monkeypatch):
    rng = np.random.default_rng(1)
    contents = {
        f"{label}/{n}.jpg": photo(tuple(int(c) for c in rng.integers(0, 256, 3)), (60 + n, 40))
        for label in ("ants", "bees")
        for n in range(12)
    } | {"ants/x.jpg": b"bad"}  # fmt: skip

    monkeypatch.setattr(pixel_store, "REACH", 2)  # several shards

    def results():
        outputs = (prepare.PHOTOS, prepare.SKIPPED, prepare.METRICS, *sorted(paths.STORE.iterdir()))
        return [(path.name, path.read_bytes()) for path in outputs]

    project(contents)
    first = results()
    for threads, cached, processes in itertools.product((1, 7), (True, False), (True, False)):
        monkeypatch.setattr(execution, "SHARDS_PER_PROCESS", 0 if processes else 64)
        monkeypatch.setattr(joblib, "cpu_count", lambda threads=threads: threads)
        if not cached:
            shutil.rmtree(paths.CACHE)
        shutil.rmtree("data/raw")
        project(dict(reversed(contents.items())))
        assert results() == first


@pytest.fixture
def decoded(monkeypatch):
    """Return the hashes of the files that are decoded."""
    seen = []
    real = decoding.decoder_pool.DecoderPool.decode

    def decode(pool, data, target, **options):
        seen.append(hashlib.sha256(data).hexdigest())
        return real(pool, data, target, **options)

    monkeypatch.setattr(decoding.decoder_pool.DecoderPool, "decode", decode)
    return seen


def many_photos(count):
    return {f"{'ants' if n % 2 else 'bees'}/{n:03}.png": photo((n, 9, 9), kind="PNG")
            for n in range(count)}  # fmt: skip


def outputs():
    folders = (paths.PREPARED, paths.DETAILS)
    contents = [path for folder in folders for path in sorted(folder.rglob("*.*"))]
    return {str(path): path.read_bytes() for path in contents}


def test_known_photos_are_not_decoded_again(project, decoded):
    contents = many_photos(200)
    project(contents)
    assert len(decoded) == 200
    first = outputs()
    shutil.rmtree(paths.PREPARED)  # as DVC does
    decoded.clear()
    project({})
    assert decoded == []
    assert outputs() == first
    # New, moved, relabeled, copied and removed photos: only the new one is decoded.
    raw = Path("data/raw/mine")
    (raw / "ants/001.png").rename(raw / "bees/moved.png")
    shutil.copyfile(raw / "ants/003.png", raw / "bees/copied.png")
    (raw / "ants/005.png").unlink()
    project({"ants/new.png": photo("white", kind="PNG")})
    assert decoded == [hashlib.sha256((raw / "ants/new.png").read_bytes()).hexdigest()]
    incremental = outputs()
    shutil.rmtree(paths.CACHE)
    shutil.rmtree(paths.PREPARED)
    project({})
    assert outputs() == incremental


def test_copies_of_one_file_are_decoded_once_they_are_known(project, decoded):
    same = photo("teal")
    contents = {f"{c}/{n}.jpg": same for c in ("ants", "bees") for n in range(80)}
    project(contents)
    first, facts = outputs(), [path.stat().st_ino for path in sorted(paths.STORE.glob("*.npy"))]
    shutil.rmtree(paths.PREPARED)
    decoded.clear()
    project({})
    assert decoded == []
    assert outputs() == first
    assert [path.stat().st_ino for path in sorted(paths.STORE.glob("*.npy"))] == facts


@pytest.mark.parametrize("change", ["size", "fill", "max_megapixels", "fit", "code"])
def test_other_parameters_or_code_decode_again_and_returning_does_not(
    project, decoded, monkeypatch, change
):
    block = {"layout": "folders", "classes": {"ants": [], "bees": []}}
    contents = many_photos(6)
    project(contents)
    first = outputs()
    decoded.clear()
    other = {"size": 32, "fill": 0, "max_megapixels": 20}
    with monkeypatch.context() as patch:
        if change == "code":
            patch.setattr(imports, "code_sha256", lambda _: "other")
        fit = {"fit": "crop"} if change == "fit" else {}
        project({}, block | fit, **{key: value for key, value in other.items() if key == change})
    assert len(decoded) == 6
    assert (outputs() == first) == (change in {"max_megapixels", "code"})
    decoded.clear()
    project({})
    assert decoded == []
    assert outputs() == first


@pytest.mark.parametrize("damage", ["deleted", "truncated", "changed", "swapped", "foreign"])
def test_a_damaged_cache_changes_no_byte(project, decoded, damage):
    contents = many_photos(300)
    project(contents, size=32)
    other = {path: path.read_bytes() for path in paths.CACHE.glob("*.sqlite")}
    project(contents)
    first = outputs()
    (database,) = set(paths.CACHE.glob("*.sqlite")) - set(other)
    shards = sorted((paths.CACHE / "shards").iterdir(), key=lambda path: -path.stat().st_size)
    one, two, *_ = shards
    if damage == "deleted":
        one.unlink()
    elif damage == "truncated":
        one.write_bytes(one.read_bytes()[:-1])
    elif damage == "changed":
        content = bytearray(one.read_bytes())
        content[len(content) // 2] ^= 1
        one.write_bytes(content)
    elif damage == "swapped":
        two.write_bytes(one.read_bytes())
    else:
        database.write_bytes(next(iter(other.values())))
    decoded.clear()
    shutil.rmtree(paths.PREPARED)
    project({})
    assert outputs() == first
    assert 0 < len(decoded) <= 300
    decoded.clear()
    project({})
    assert decoded == []


def test_a_photo_that_is_replaced_meanwhile_stops_the_stage_with_its_name(project, monkeypatch):
    real = decoding.decoder_pool.DecoderPool.decode

    def decode(pool, data, target, **options):
        Path("data/raw/mine/ants/001.png").write_bytes(photo("white", kind="PNG"))
        return real(pool, data, target, **options)

    project(many_photos(6))
    monkeypatch.setattr(decoding.decoder_pool.DecoderPool, "decode", decode)
    with pytest.raises(ValueError, match=r"ants/001\.png changed while prepare was reading"):
        project({"bees/new.png": photo("red", kind="PNG")})


def test_a_full_disk_is_an_error_and_no_file_is_left(project, monkeypatch):
    calls = []

    def full(*_):
        calls.append(1)
        if len(calls) > 1:  # another thread, which is slower
            time.sleep(0.3)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixel_store.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device: 'data/prepared/pixels'"):
        project(many_photos(6))
    assert list(paths.STORE.iterdir()) == []


def test_a_class_without_photos_is_an_error_that_lists_the_reasons(project):
    with pytest.raises(
        ValueError, match=r"data/raw/mine has no photo of bees .*datasets\.mine"
    ) as e:
        project({"ants/1.jpg": photo(), "wasps/1.jpg": photo(), "bees/1.jpg": b""})
    assert "\n" not in str(e.value)
    assert len(pd.read_csv(prepare.SKIPPED)) == 2


def test_a_missing_folder_is_an_error_with_a_remedy(project):
    with pytest.raises(ValueError, match=r"data/raw/mine does not exist; .*dvc pull"):
        project({})


def test_metrics_are_counts_and_the_hashes_of_the_outputs(project):
    _, _, metrics = project({"ants/1.jpg": photo(), "bees/1.jpg": photo(), "x.jpg": photo()})
    for key in ("photos_sha256", "pixels_sha256"):
        assert len(metrics.pop(key)) == 64

    def leaves(value):
        return (
            [leaf for v in value.values() for leaf in leaves(v)]
            if isinstance(value, dict)
            else [value]
        )

    assert all(isinstance(leaf, int) for leaf in leaves(metrics))
    assert set(metrics["skipped"]) - {"total"} <= set(REASONS)


def test_memory_does_not_grow_with_the_photos(project):
    def peak(count):
        shutil.rmtree("data", ignore_errors=True)
        contents = {f"{c}/{n}.jpg": photo() for c in ("ants", "bees") for n in range(count // 2)}
        gc.collect()
        tracemalloc.start()
        project(contents, size=256)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # pathlib interns path parts; Python's table of those doubles, by 7 to 16 MB, at some photo or
    # other. It does not do so twice in a row.
    few, many = peak(20), min(peak(300), peak(300))
    print(f"{few / 1e6:.2f} MB at 20 photos, {many / 1e6:.2f} MB at 300")
    assert many - few < 5e6  # 280 photos are 55 MB in the store


# Runs a main() and prints the most memory of its own that the process held, in bytes. Pages
# of the mapped store are left out: the system takes them back when somebody needs them.
MEASURED = """
import importlib, re, sys, threading, time
from pathlib import Path
most, done = 0, threading.Event()
def watch():
    global most
    while not done.wait(0.002):
        status = Path("/proc/self/status").read_text()
        most = max(most, int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]))
watcher = threading.Thread(target=watch)
watcher.start()
importlib.import_module(sys.argv[1]).main(*([sys.argv[2:]] if sys.argv[2:] else []))
done.set(); watcher.join()
print(most * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "command", [["stages.prepare"], ["anklealign.cli.main", "add", "own", "b", "--dry-run"]]
)
def test_memory_at_1000_photos_is_that_at_200(tmp_path, command):
    def peak(count):
        folder = tmp_path / str(count)
        for n in range(count):
            target = folder / "own" / "ab"[n % 2] / f"{n}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(photo((n % 256, n // 256, 0), (1280, 960)))
        (folder / "data/raw").mkdir(parents=True)
        (folder / "data/raw/mine").symlink_to(folder / "own")
        block = {"layout": "folders", "classes": {"a": [], "b": []}}
        raw = {"dataset": "mine", "datasets": {"mine": block}, "prepare": SETTINGS | {"size": 256}}
        (folder / "params.yaml").write_text(json.dumps(raw))
        output = subprocess.check_output(
            [sys.executable, "-c", MEASURED, *command], cwd=folder, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return int(output.splitlines()[-1])

    few, many = peak(200), peak(1000)
    print(f"{command[0]}: {few / 1e6:.0f} MB at 200 photos, {many / 1e6:.0f} MB at 1,000")
    # 800 photos more are 157 MB in the store; a photo's rows and entries take a few kB.
    assert many - few < 800 * 10_000


@pytest.mark.slow
@pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="the ants and bees photos are not there")
def test_the_ants_and_bees_photos_are_all_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = {"layout": "folders", "classes": {"ants": [], "bees": []}}
    raw = {"dataset": "mine", "datasets": {"mine": block}, "prepare": SETTINGS}
    Path("params.yaml").write_text(json.dumps(raw))
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/mine").symlink_to(HYMENOPTERA)
    prepare.main()
    table = pixel_store.read_table(prepare.PHOTOS)
    assert table.groupby(["predefined_split", "label"]).size().to_dict() == {
        ("train", "ants"): 124, ("train", "bees"): 121, ("val", "ants"): 70, ("val", "bees"): 83,
    }  # fmt: skip


def test_a_table_of_folders_and_lists_of_splits_reach_the_store(project):
    contents = {
        f"case{n}/{k}.jpg": photo(("teal", "navy")[k], (40 + n, 30))
        for n in range(6)
        for k in (0, 1)
    }
    rows = "".join(f"case{n},{('ants', 'bees')[n % 2]}\n" for n in range(6))
    contents |= {
        "labels.csv": f"case,label\n{rows}".encode(),
        "train.txt": b"case0\ncase1\ncase2\ncase3\n",
        "test.txt": b"case4/0.jpg\ncase4/1.jpg\ncase5/0.jpg\ncase5/1.jpg\n",
    }
    block = {
        "layout": "table", "classes": {"ants": [], "bees": []}, "path_column": "case",
        "group_column": "case", "split_lists": ["test.txt", "train.txt"],
    }  # fmt: skip
    table, skipped, metrics = project(contents, block)
    found = {row.path: (row.label, row.subject, row.predefined_split) for row in table.itertuples()}
    assert found == {
        f"case{n}/{k}.jpg": (("ants", "bees")[n % 2], f"case{n}", ("train", "test")[n > 3])
        for n in range(6)
        for k in (0, 1)
    }
    assert skipped.empty
    assert (metrics["files_seen"], metrics["exports_seen"]) == (12, 3)
