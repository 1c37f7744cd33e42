"""stages/split.py: a picture in two parts fails the stage, and what a test part cost is told."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anklealign.io import files, pixel_store
from anklealign.splitting.splits import LEFT_OUT
from stages.split import main

CLASSES = ["pronation", "neutral", "supination"]
PARAMS = """
seed: 1
dataset: toy
datasets: {toy: {layout: folders, classes: {pronation: [], neutral: [], supination: []}}}
split: {validation: 0.2, test: 0.2, group: person, given: ignore, folds: 5, fold: null,
  leak_residual: 0.3, leak_correlation: 0.95, accept_leaks: []}
"""


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Sixty noise pictures of sixty persons, the last of which is the first one mirrored."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    small = rng.integers(0, 256, (60, 12, 12, 3), np.uint8)
    pixels = np.stack([Image.fromarray(p).resize((64, 64)) for p in small])
    pixels[-1] = pixels[0, :, ::-1]
    count = len(pixels)
    table = pd.DataFrame(
        {
            "id": [f"{i:012x}" for i in range(count)],
            "row": range(count),
            "path": [f"{i:02}.jpg" for i in range(count)],
            "person": [f"p{i}" for i in range(count)],
            "label": [CLASSES[i % 3] for i in range(count)],
        }
    ).assign(
        collector="",
        cluster="",
        given="",
        consensus="",
        panel=0,
        left=0,
        top=0,
        right=64,
        bottom=64,
    )
    with pixel_store.writing_store(pixel_store.STORE, count, 64) as store:
        store[:] = pixels
    files.write_table(pixel_store.CLEAN / "photos.csv", table)
    files.write_table(pixel_store.CLEAN / "removed.csv", table.iloc[:0])
    return tmp_path


def seed_that_parts_the_twins(folder):
    """Some seed deals the twins to different parts."""
    for seed in range(1, 30):
        (folder / "params.yaml").write_text(PARAMS.replace("seed: 1", f"seed: {seed}"))
        try:
            main()
        except ValueError as error:
            return str(error)
        assert json.loads((folder / "metrics/split.json").read_text())["leaks"] == 0
    raise AssertionError


def test_a_picture_in_two_parts_fails_the_stage_with_its_name_and_picture(prepared):
    said = seed_that_parts_the_twins(prepared)
    assert said.startswith("1 pair of photos in different parts show the same picture: [[")
    pair = json.loads(said[said.index("[[") : said.index("]]") + 2])
    assert {*pair[0]} == {"00.jpg", "59.jpg"}
    assert "add these pairs to params.yaml's split.accept_leaks" in said
    assert (prepared / "plots/split/nearest_01.png").is_file()
    assert json.loads((prepared / "metrics/split.json").read_text())["leaks"] == 1


def accept(folder, pairs: str) -> None:
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("accept_leaks: []", f"accept_leaks: {pairs}"))


def test_a_leak_accepted_as_the_error_wrote_it_is_counted_and_passes(prepared):
    said = seed_that_parts_the_twins(prepared)
    accept(prepared, said[said.index("[[") : said.index("]]") + 2])
    main()
    metrics = json.loads((prepared / "metrics/split.json").read_text())
    assert (metrics["leaks"], metrics["leaks_accepted"]) == (0, 1)


def test_a_photo_accepted_with_one_twin_is_not_accepted_with_another(prepared):
    seed_that_parts_the_twins(prepared)
    accept(prepared, '[["00.jpg", "01.jpg"], ["59.jpg", "02.jpg"]]')
    with pytest.raises(ValueError, match=r"^1 pair of photos in different parts"):
        main()


def test_an_accepted_path_that_is_no_photo_is_named(prepared):
    (prepared / "params.yaml").write_text(PARAMS)
    accept(prepared, '[["00.jpg", "C01/00.jpg"]]')
    with pytest.raises(
        ValueError, match=r"split\.accept_leaks names 'C01/00\.jpg', which is no ph"
    ):
        main()
    (prepared / "params.yaml").write_text(PARAMS)
    accept(prepared, "[59.jpg]")
    with pytest.raises(
        ValueError, match=r"split\.accept_leaks: \['59\.jpg'\] is not a list of pairs"
    ):
        main()


def test_split_runs_with_a_consensus_test_part_and_writes_what_it_cost(prepared, capsys):
    path = pixel_store.CLEAN / "photos.csv"
    table = pixel_store.read_table(path)
    table.loc[:11, "consensus"] = [CLASSES[(i + (i == 3)) % 3] for i in range(12)]
    table.loc[:11, "panel"] = 1
    table.loc[20, "person"] = "p5"  # whom a test photo shows
    table.loc[59, "cluster"] = table.loc[0, "cluster"] = "twins"
    files.write_table(path, table)
    blurred = table.iloc[:1].assign(id="blurred", person="p30", cluster="")
    files.write_table(pixel_store.CLEAN / "removed.csv", blurred)
    (prepared / "params.yaml").write_text(PARAMS.replace("test: 0.2", "test: consensus"))
    main()
    metrics = json.loads((prepared / "metrics/split.json").read_text())
    assert metrics["consensus"] == {
        "photos": 12, "without_label": 0, "removed_by_clean": 1, "relabelled": 1, "left_out": 3,
    }  # fmt: skip
    assert metrics["left_out"] == 3
    assert (
        "3 photos left out for showing persons of the photos to be voted on"
        in capsys.readouterr().out
    )
    done = pixel_store.read_table(pixel_store.SPLIT / "photos.csv").set_index("path")
    assert done.loc["03.jpg", ["label", "split"]].tolist() == [CLASSES[1], "test"]
    assert done.loc[["20.jpg", "30.jpg", "59.jpg"], "split"].tolist() == [LEFT_OUT] * 3
