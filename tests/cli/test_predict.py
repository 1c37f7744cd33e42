"""The predict command: one row per photo, and an exit status for unreadable photos."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from anklealign.cli import predict
from anklealign.cli.main import main
from anklealign.config.params import Model
from anklealign.inference.predictor import Predictor
from anklealign.ingest.inventory import list_files
from anklealign.models import bundle, factory, novelty
from anklealign.models.bundle import Bundle, Preprocessing


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle in model/, which is the working directory."""
    torch.manual_seed(0)
    block = Model("anklealign_cnn", 32, epochs=1, learning_rate=0.01, arguments={"widths": (8,)})
    model = factory.build("x", block, 2)
    preparation = Preprocessing(size=48, fit="letterbox", fill=114, max_megapixels=1.0)
    made = Bundle(
        model, ("ants", "bees"), preparation, bundle.default_input(model, 32), 1.0, 0.49, {}
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
    detector = novelty.fit(pixels, np.zeros(1, int), np.zeros(1, int), torch.device("cpu"), 0.05)
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
