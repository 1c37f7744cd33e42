"""The predict command: one row per photo, and an exit status for unreadable photos."""

import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from dvc.fs import LocalFileSystem
from PIL import Image

from anklealign.cli import photo_sources, predict
from anklealign.cli.main import main
from anklealign.config.params import Model
from anklealign.inference.predictor import Predictor
from anklealign.ingest.inventory import list_files
from anklealign.io import execution
from anklealign.models import bundle, factory, novelty
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle in model/, which is the working directory."""
    torch.manual_seed(0)
    block = Model("anklealign_cnn", 32, epochs=1, learning_rate=0.01, arguments={"widths": (8,)})
    model = factory.build("x", block, 2)
    preparation = Preprocessing(size=48, fit="letterbox", fill=114, max_megapixels=1.0)
    made = Bundle(
        ("ants", "bees"), preparation, bundle.default_input(model, 32), 1.0, 0.49, {}, model=model
    )
    bundle.save(tmp_path / "model", made)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(path)


def run(*arguments: str) -> tuple[int, pd.DataFrame]:
    status = main(["predict", *arguments, "--out", "out/predictions.csv"])
    return status, pd.read_csv("out/predictions.csv", keep_default_na=False)


def test_every_photo_of_folders_and_subfolders_has_a_row_in_order(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(place / "in/b.png")
    photo(place / "in/a/c.jpg", 1)
    photo(place / "single.JPG", 2)
    (place / "in/labels.csv").write_text("path,label\n")
    photo(place / "in/.hidden/d.png")
    status, table = run("single.JPG", "in", "in/b.png")
    assert status == 0
    columns = [
        "path", "predicted", "p_ants", "p_bees", "prediction_set", "abstain", "in_distribution",
        "novelty", "reason",
    ]  # fmt: skip
    assert list(table.columns) == columns
    assert list(table.path) == ["in/a/c.jpg", "in/b.png", "single.JPG"]
    np.testing.assert_allclose(table.p_ants + table.p_bees, 1)
    assert list(table.predicted) == list(np.where(table.p_ants > table.p_bees, "ants", "bees"))
    likely = table[["p_ants", "p_bees"]] >= 0.49
    named = [["", "ants", "bees", "ants|bees"][a + 2 * b] for a, b in likely.to_numpy()]
    assert list(table.prediction_set) == named
    assert list(table.abstain) == list(likely.sum(axis=1) > 1)
    assert set(table.reason) == {""}
    assert (
        "3 photos predicted, 0 of them unlike the training photos, 0 unreadable"
        in capsys.readouterr().out
    )


def test_photos_unlike_the_training_photos_are_marked_or_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(place / "in/seen.png")
    Image.new("RGB", (60, 40), "white").save(place / "in/white.png")
    predictor = Predictor.load("model", "cpu")
    pixels = predictor.preprocess("in/seen.png")[None]
    detector = novelty.fit(
        pixels, np.zeros(1, int), np.zeros(1, int), torch.device("cpu"), 0.05, groups=[0]
    )
    bundle.save(place / "model", replace(predictor.bundle, novelty=detector))
    status, table = run("in")
    assert status == 0
    assert list(table.in_distribution) == [True, False]
    assert table.novelty[0] < 0.001 < table.novelty[1]
    assert set(table.predicted) <= {"ants", "bees"}
    assert "1 of them unlike the training photos" in capsys.readouterr().out
    _, refused = run("in", "--refuse-unlike")
    assert list(refused.predicted) == [table.predicted[0], ""]
    assert list(refused.prediction_set) == [table.prediction_set[0], "ants|bees"]
    assert refused.abstain[1]


def test_unreadable_photos_are_listed_and_the_others_are_predicted(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(place / "in/a.png")
    (place / "in/broken.jpg").write_text("no picture")
    photo(place / "in/z.png", 1)
    status, table = run("in")
    assert status == 1
    assert list(table.path) == ["in/a.png", "in/broken.jpg", "in/z.png"]
    assert list(table.predicted != "") == [True, False, True]
    assert table.reason[1].startswith("not_an_image")
    assert table.p_ants[1] == table.prediction_set[1] == table.abstain[1] == ""
    assert "in/broken.jpg could not be read" in capsys.readouterr().err


def test_predictions_do_not_depend_on_unreadable_photos(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SMALL", 2)
    for i in range(5):
        photo(place / f"good/{i}.png", i)
        photo(place / f"mixed/{i}.png", i)
    (place / "mixed/1b.png").write_bytes(b"")
    (place / "mixed/2b.png").write_bytes(b"")
    good, mixed = run("good")[1], run("mixed")[1]
    kept = mixed[mixed.reason == ""].reset_index(drop=True)
    np.testing.assert_allclose(kept.p_ants.astype(float), good.p_ants, atol=1e-6)
    assert len(mixed) == 7


def test_no_readable_photo_exits_with_2_and_a_table_of_reasons(place: Path) -> None:
    (place / "broken.jpg").write_text("no picture")
    status, table = run("broken.jpg")
    assert status == 2
    assert len(table) == 1


def test_a_missing_path_and_a_broken_link_are_listed_and_the_others_are_predicted(
    place: Path,
) -> None:
    photo(place / "in/a.png")
    (place / "in/link.jpg").symlink_to("nowhere.png")
    status, table = run("in", "gone.jpg")
    assert status == 1
    assert list(table.path) == ["gone.jpg", "in/a.png", "in/link.jpg"]
    assert list(table.predicted != "") == [False, True, False]
    assert table.reason[0].startswith("cannot_open")
    assert table.reason[2].startswith("cannot_open")


@pytest.mark.parametrize("wrong", ["empty", "no model"])
def test_a_wrong_command_exits_with_2_and_one_line(
    place: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty").mkdir()
    photo(place / "a.png")
    arguments = {
        "empty": ["empty"],
        "no model": ["a.png", "--model", "other"],
    }[wrong]
    assert main(["predict", *arguments, "--out", "out.csv"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("predict: ")
    assert message.count("\n") == 1
    assert not (place / "out.csv").exists()


def test_a_command_without_photos_exits_with_2() -> None:
    assert main(["predict", "--out", "x.csv"]) == 2


def test_a_name_that_is_not_utf_8_costs_nothing(place: Path) -> None:
    photo(place / "in/a.png")
    photo(place / "in/b.png", 1)
    (place / "in/a.png").rename(place / "in" / os.fsdecode(b"\xff.png"))
    (place / "in" / os.fsdecode(b"\xfe.jpg")).write_bytes(b"no photo")
    status, table = run("in")
    assert status == 1
    assert sorted(table.path) == ["in/\\xfe.jpg", "in/\\xff.png", "in/b.png"]
    assert sorted(table.reason.str.partition(":")[0]) == ["", "", "not_an_image"]


def test_folders_may_be_1200_deep(place: Path) -> None:
    top = place / "in"
    top.mkdir()
    photo(place / "one.png")
    here = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    copy = os.open("deep.png", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(copy, (place / "one.png").read_bytes())
    os.close(copy)
    os.close(here)
    status, table = run("in")
    assert status == 0
    assert len(table) == 1
    assert table.path[0].count("/") == 1201
    files, skips = list_files(top)
    assert files == []
    assert [(skip.reason, skip.detail) for skip in skips] == [
        ("cannot_open", "folder: over 200 deep")
    ]
    # pytest's own clean-up recurses.
    subprocess.run(["rm", "-rf", top], check=True)


def test_a_list_keeps_the_order_and_the_repeats_of_its_lines(place: Path) -> None:
    for i in range(3):
        photo(place / f"in/{i}.png", i)
    (place / "mine.txt").write_text("in/2.png\n\nin/0.png\nin/gone.png\nin/2.png\n")
    status, table = run("mine.txt", "in/1.png")
    assert status == 1
    assert list(table.path) == ["in/1.png", "in/2.png", "in/0.png", "in/gone.png", "in/2.png"]
    assert table.reason[3].startswith("cannot_open")
    assert table.p_ants[1] == table.p_ants[4]


@pytest.fixture
def address(place: Path) -> Iterator[str]:
    """Return the address of a server of this folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(place))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_give_the_predictions_of_the_files(place: Path, address: str) -> None:
    for i in range(3):
        photo(place / f"in/{i}.png", i)
    (place / "in/empty.png").write_bytes(b"")
    names = ["0.png", "1.png", "gone.png", "empty.png"]
    (place / "photos.txt").write_text("".join(f"{address}/in/{name}\n" for name in names))
    _, local = run("in")
    status, table = run(f"{address}/in/2.png", f"{address}/photos.txt")
    assert status == 1
    assert list(table.path) == [f"{address}/in/{name}" for name in ["2.png", *names]]
    reasons = list(table.reason.str.partition(":")[0])
    assert reasons == ["", "", "", "cannot_open", "zero_bytes"]
    assert list(table.p_ants[:3]) == [local.p_ants[n] for n in (2, 0, 1)]


def test_a_folder_at_an_address_is_listed_by_dvc(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        photo(place / f"in/deep/{i}.png", i)
    (place / "in/notes.csv").write_text("x")
    system = LocalFileSystem()
    monkeypatch.setattr(
        photo_sources, "file_system", lambda name: (system, name.removeprefix("s3://bucket"))
    )
    monkeypatch.setattr(
        system, "unstrip_protocol", lambda path: f"s3://bucket{path}", raising=False
    )
    status, table = run(f"s3://bucket{place}/in")
    assert status == 0
    assert list(table.path) == [f"s3://bucket{place}/in/deep/{i}.png" for i in range(3)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("xyz://host/a.jpg", "addresses of xyz:// are not supported"),
        ("http://127.0.0.1:9/list.txt", "http://127.0.0.1:9/list.txt cannot be listed: "),
    ],
)
def test_an_address_that_cannot_be_listed_is_an_error(
    place: Path, source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if source.startswith("xyz"):
        (place / "a.txt").write_text(f"{source}\n")
        assert main(["predict", "a.txt", "--out", "out.csv"]) == 2
        table = pd.read_csv("out.csv", keep_default_na=False)
        assert message in table.reason[0]
    else:
        assert main(["predict", source, "--out", "out.csv"]) == 2
        assert message in capsys.readouterr().err


COMMAND = [sys.executable, "-m", "anklealign", "predict", "in", "--out", "out/predictions.csv"]


def parts(place: Path) -> set[str]:
    return {path.name for path in place.glob("out/predictions.csv.parts/[0-9]*.csv")}


def test_a_killed_run_continues_and_gives_the_same_bytes(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(400):
        photo(place / f"in/{i:03}.png", i)
    (place / "in/007.png").write_bytes(b"no photo")
    run("in")
    expected = (place / "out/predictions.csv").read_bytes()
    (place / "out/predictions.csv").unlink()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(COMMAND, cwd=place, env=environment) as process:
        while len(parts(place)) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
        process.kill()
    known = parts(place)
    assert 3 <= len(known) < 13
    assert not (place / "out/predictions.csv").exists()
    opened: list[str] = []
    real = predict._opened
    monkeypatch.setattr(
        predict, "_opened", lambda own, name: opened.append(name) or real(own, name)
    )
    capsys.readouterr()
    status, _ = run("in")
    assert status == 1
    assert (place / "out/predictions.csv").read_bytes() == expected
    output = capsys.readouterr()
    assert len(opened) <= 400 - 32 * 3
    assert f"{400 - len(opened)} photos are known from an interrupted run" in output.out
    assert "in/007.png could not be read" in output.err
    assert not list(place.glob("out/*.parts"))


def test_a_changed_photo_or_model_is_predicted_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "SMALL", 1)
    for i in range(3):
        photo(place / f"in/{i}.png", i)

    def stop(*_: object) -> None:
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(predict, "_join", stop)
        assert main(["predict", "in", "--out", "out/predictions.csv"]) == 2
    assert len(parts(place)) == 3
    photo(place / "in/1.png", 9)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(predict, "_join", stop)
        main(["predict", "in", "--out", "out/predictions.csv"])
    assert len(parts(place)) == 4
    assert run("in")[0] == 0
    assert "3 photos are known" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(predict, "_join", stop)
        main(["predict", "in", "--out", "out/predictions.csv"])
    predictor = Predictor.load("model", "cpu")
    bundle.save(place / "model", replace(predictor.bundle, temperature=2.0))
    capsys.readouterr()
    run("in")
    assert "known" not in capsys.readouterr().out


@pytest.mark.parametrize("processes", [False, True])
def test_the_table_does_not_depend_on_workers(
    place: Path, monkeypatch: pytest.MonkeyPatch, processes: bool
) -> None:
    for i in range(70):
        photo(place / f"in/{i:03}.png", i)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    run("in")
    expected = (place / "out/predictions.csv").read_bytes()
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(execution, "SHARDS_PER_PROCESS", 0 if processes else 64)
    run("in")
    assert (place / "out/predictions.csv").read_bytes() == expected


def test_memory_does_not_grow_with_the_photos(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of 320 and of 6,400 lines; a row kept in memory takes some 2 kB."""
    photo(place / "a.png")
    monkeypatch.setattr(predict, "SMALL", 256)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    monkeypatch.setattr(predict, "predictions", lambda _, names: pd.DataFrame(
        {"path": names, "in_distribution": True, "reason": ""}
    ))  # fmt: skip

    def peak(count: int) -> int:
        (place / "list.txt").write_text("a.png\n" * count)
        gc.collect()
        tracemalloc.start()
        assert main(["predict", "list.txt", "--out", "out.csv"]) == 0
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(320)
    few, many = peak(320), peak(6400)
    assert many - few < 2e6
