"""A picture in two splits fails the stage; consensus counts are reported."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anklealign.config import paths
from anklealign.io import files, pixel_store, results
from anklealign.splitting.splits import EXCLUDED
from stages.split import main

CLASSES = ["pronation", "neutral", "supination"]
PARAMS = """
seed: 1
dataset: toy
datasets: {toy: {layout: folders, classes: {pronation: [], neutral: [], supination: []}}}
split: {val: 0.2, test: 0.2, group: subject, predefined: ignore, folds: 5, fold: null,
  leakage_residual: 0.3, leakage_correlation: 0.95, allowed_leaks: []}
"""


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Sixty noise pictures of sixty subjects, the last of which is the first one mirrored."""
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
            "subject": [f"p{i}" for i in range(count)],
            "label": [CLASSES[i % 3] for i in range(count)],
        }
    ).assign(
        collector="",
        cluster="",
        predefined_split="",
        consensus="",
        multi_annotated=0,
        left=0,
        top=0,
        right=64,
        bottom=64,
    )
    with pixel_store.writing_store(paths.STORE, count, 64) as store:
        store[:] = pixels
    files.write_table(paths.CLEAN / "photos.csv", table)
    files.write_table(paths.CLEAN / "removed.csv", table.iloc[:0])
    return tmp_path


def error_of_seed_that_separates_the_twins(folder):
    """Return the error for the first seed that puts the twins into different splits."""
    for seed in range(1, 30):
        (folder / "params.yaml").write_text(PARAMS.replace("seed: 1", f"seed: {seed}"))
        try:
            main()
        except ValueError as error:
            return str(error)
        assert results.read_details(folder / "metrics/details/split.json")["leaking_pairs"] == 0
    raise AssertionError


def test_a_picture_in_two_splits_fails_the_stage_with_its_paths_and_a_contact_sheet(prepared):
    message = error_of_seed_that_separates_the_twins(prepared)
    assert message.startswith("1 pair of photos in different splits show the same picture: [[")
    pair = json.loads(message[message.index("[[") : message.index("]]") + 2])
    assert {*pair[0]} == {"00.jpg", "59.jpg"}
    assert "add these pairs to split.allowed_leaks in params.yaml" in message
    assert (prepared / "plots/split/nearest_01.png").is_file()
    assert results.read_details(prepared / "metrics/details/split.json")["leaking_pairs"] == 1


def allow(folder, pairs: str) -> None:
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(
        text.replace("allowed_leaks: []", f"allowed_leaks: {pairs}")
    )


def test_a_pair_allowed_as_the_error_lists_it_passes_and_is_counted(prepared):
    message = error_of_seed_that_separates_the_twins(prepared)
    allow(prepared, message[message.index("[[") : message.index("]]") + 2])
    main()
    metrics = results.read_details(prepared / "metrics/details/split.json")
    assert (metrics["leaking_pairs"], metrics["leaking_pairs_allowed"]) == (0, 1)


def test_a_photo_allowed_with_one_twin_is_not_allowed_with_another(prepared):
    error_of_seed_that_separates_the_twins(prepared)
    allow(prepared, '[["00.jpg", "01.jpg"], ["59.jpg", "02.jpg"]]')
    with pytest.raises(ValueError, match=r"^1 pair of photos in different splits"):
        main()


def test_an_allowed_path_that_is_no_photo_is_named(prepared):
    (prepared / "params.yaml").write_text(PARAMS)
    allow(prepared, '[["00.jpg", "C01/00.jpg"]]')
    with pytest.raises(
        ValueError, match=r"split\.allowed_leaks names 'C01/00\.jpg', which is no ph"
    ):
        main()
    (prepared / "params.yaml").write_text(PARAMS)
    allow(prepared, "[59.jpg]")
    with pytest.raises(
        ValueError, match=r"split\.allowed_leaks: \['59\.jpg'\] is not a list of pairs"
    ):
        main()


def test_split_with_a_consensus_test_split_writes_its_metrics(prepared, capsys):
    path = paths.CLEAN / "photos.csv"
    table = pixel_store.read_table(path)
    table.loc[:11, "consensus"] = [CLASSES[(i + (i == 3)) % 3] for i in range(12)]
    table.loc[:11, "multi_annotated"] = 1
    table.loc[20, "subject"] = "p5"  # the subject of a test photo
    table.loc[59, "cluster"] = table.loc[0, "cluster"] = "twins"
    files.write_table(path, table)
    blurred = table.iloc[:1].assign(id="blurred", subject="p30", cluster="")
    files.write_table(paths.CLEAN / "removed.csv", blurred)
    (prepared / "params.yaml").write_text(PARAMS.replace("test: 0.2", "test: consensus"))
    main()
    metrics = results.read_details(prepared / "metrics/details/split.json")
    assert metrics["consensus"] == {
        "photos": 12, "without_label": 0, "removed_by_clean": 1, "relabeled": 1, "excluded": 3,
    }  # fmt: skip
    assert metrics["excluded"] == 3
    assert (
        "3 photos excluded because their groups include multi-annotated photos"
        in capsys.readouterr().out
    )
    done = pixel_store.read_table(paths.SPLIT / "photos.csv").set_index("path")
    assert done.loc["03.jpg", ["label", "split"]].tolist() == [CLASSES[1], "test"]
    assert done.loc[["20.jpg", "30.jpg", "59.jpg"], "split"].tolist() == [EXCLUDED] * 3
