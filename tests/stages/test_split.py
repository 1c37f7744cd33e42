"""stages/split.py: groups that share a picture are joined; consensus counts are reported."""

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
        width=64,
        height=64,
        left=0,
        top=0,
        right=64,
        bottom=64,
    )
    pixel_store.write_store(paths.STORE, pixels)
    files.write_table(paths.CLEAN / "photos.csv", table)
    files.write_table(paths.CLEAN / "removed.csv", table.iloc[:0])
    return tmp_path


def seed_that_separates_the_twins(folder) -> dict:
    """Run with the first seed that puts the twins into different splits; return the metrics."""
    for seed in range(1, 30):
        (folder / "params.yaml").write_text(PARAMS.replace("seed: 1", f"seed: {seed}"))
        main()
        metrics = results.read_details(folder / "metrics/details/split.json")
        if metrics["leaking_pairs_joined"]:
            return metrics
    raise AssertionError


def test_the_groups_of_a_picture_in_two_splits_are_joined_and_the_pair_is_listed(prepared, capsys):
    metrics = seed_that_separates_the_twins(prepared)
    counts = {key: metrics[key] for key in metrics if "leaking" in key or "rounds" in key}
    assert counts == {
        "leaking_pairs": 0,
        "leaking_pairs_joined": 1,
        "leaking_pairs_separated": 0,
        "leaking_pairs_allowed": 0,
        "audit_rounds": 2,
    }
    table = pixel_store.read_table(paths.SPLIT / "photos.csv").set_index("path")
    twins = table.loc[["00.jpg", "59.jpg"]]
    assert twins.group.nunique() == twins.split.nunique() == 1
    leaks = pd.read_csv(paths.SPLIT / "leaking_pairs.csv")
    assert leaks[["round", "action"]].to_numpy().tolist() == [[1, "joined"]]
    assert {*leaks.loc[0, ["path_a", "path_b"]]} == {"00.jpg", "59.jpg"}
    assert leaks.split_a[0] != leaks.split_b[0]
    assert leaks.residual[0] < 0.05
    nearest = pd.read_csv(paths.SPLIT / "nearest_pairs.csv")
    splits = ["split_a", "split_b"]  # in nearest_pairs.csv, of the last round
    assert nearest.drop(columns=splits).head(1).equals(leaks.drop(columns=splits))
    assert set(nearest.action[1:]) == {"different"}
    out = " ".join(capsys.readouterr().out.split())
    assert "1 pairs show the same picture, so their groups were joined in 2 rounds" in out
    assert "split.leakage_residual" in out


def test_a_picture_in_two_predefined_splits_stops_with_the_command_that_resolves_it(prepared):
    path = paths.CLEAN / "photos.csv"
    table = pixel_store.read_table(path)
    names = [["train", "train", "train", "val", "test"][i // 3 % 5] for i in range(60)]
    files.write_table(path, table.assign(predefined_split=names))
    config = prepared / "params.yaml"
    config.write_text(PARAMS.replace("predefined: ignore", "predefined: keep"))
    with pytest.raises(
        ValueError, match=r"1 pairs .* 1 of them lie across predefined splits"
    ) as caught:
        main()
    command = str(caught.value).splitlines()[-1]
    assert command == "  dvc exp run -S split.predefined=exclude_leaks"
    assert str(caught.value).count("dvc exp run") == 1
    assert len(pd.read_csv(paths.SPLIT / "leaking_pairs.csv")) == 1

    config.write_text(PARAMS.replace("predefined: ignore", "predefined: exclude_leaks"))
    main()
    done = pixel_store.read_table(paths.SPLIT / "photos.csv").set_index("path")
    assert done.split[["00.jpg", "59.jpg"]].tolist() == [EXCLUDED, "test"]
    assert (done.split == EXCLUDED).sum() == 1
    metrics = results.read_details(prepared / "metrics/details/split.json")
    assert metrics["predefined"] == ["train", "val", "test"]


def with_three_subjects_of_a_class(folder, pairs: int) -> None:
    """Give the first class three subjects; photos of it and of others show the same picture."""
    path = paths.CLEAN / "photos.csv"
    table = pixel_store.read_table(path)
    subjects = [["a", "b", "c"][i // 3 % 3] if i % 3 == 0 else f"p{i}" for i in range(60)]
    subjects[59] = "b"
    files.write_table(path, table.assign(subject=subjects))
    (folder / "params.yaml").write_text(PARAMS)
    pixels = np.array(pixel_store.open_store()[list(range(60))])
    for i in range(1, pairs):  # between subjects a and b
        pixels[table.row[9 * i + 3]] = pixels[table.row[9 * i]]
    pixel_store.write_store(paths.STORE, pixels)


def test_where_joined_groups_cannot_be_split_one_photo_of_the_pair_is_excluded(prepared, capsys):
    with_three_subjects_of_a_class(prepared, pairs=1)
    main()
    table = pixel_store.read_table(paths.SPLIT / "photos.csv").set_index("path")
    (excluded,) = table.index[table.split == EXCLUDED]
    assert excluded in ("00.jpg", "59.jpg")
    leaks = pd.read_csv(paths.SPLIT / "leaking_pairs.csv")
    assert list(leaks.action) == ["separated"]
    # The photo in the stronger split stays.
    order = ["train", "val", "test"]
    (row,) = leaks.itertuples()
    splits = {row.path_a: row.split_a, row.path_b: row.split_b}
    assert order.index(splits.pop(excluded)) < order.index(next(iter(splits.values())))
    metrics = results.read_details(prepared / "metrics/details/split.json")
    counts = [metrics[f"leaking_pairs{name}"] for name in ("", "_joined", "_separated")]
    assert counts == [0, 0, 1]
    assert metrics["audit_rounds"] == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "1 pairs lost one photo each" in out
    assert "class pronation has photos in 2 groups" in out


def test_more_pairs_than_may_lose_a_photo_stop_with_a_command(prepared):
    with_three_subjects_of_a_class(prepared, pairs=5)
    with pytest.raises(ValueError, match=r"show the same picture") as caught:
        main()
    message = str(caught.value)
    assert "class pronation has photos in 2 groups" in message
    assert "dvc exp run -S split.leakage_residual=0." in message
    assert len(pd.read_csv(paths.SPLIT / "leaking_pairs.csv")) > 3
    assert results.read_details(prepared / "metrics/details/split.json")["leaking_pairs"] > 3


def test_after_the_last_round_all_folds_exclude_the_same_photo(prepared, monkeypatch):
    monkeypatch.setattr("anklealign.splitting.leak_joining.ROUNDS", 1)
    excluded = set()  # (seed, path)
    for seed in range(1, 4):
        text = PARAMS.replace("seed: 1", f"seed: {seed}")
        for number in range(3):
            (prepared / "params.yaml").write_text(
                text.replace("fold: null", f"fold: {number}").replace("folds: 5", "folds: 3")
            )
            main()
            table = pixel_store.read_table(paths.SPLIT / "photos.csv")
            excluded.add((seed, *table.path[table.split == EXCLUDED]))
    assert any(len(photos) == 2 for photos in excluded)
    assert len(excluded) == 3


def allow(folder, pairs: str) -> None:
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(
        text.replace("allowed_leaks: []", f"allowed_leaks: {pairs}")
    )


def test_an_allowed_pair_is_not_joined_and_is_counted(prepared):
    seed_that_separates_the_twins(prepared)
    allow(prepared, '[["59.jpg", "00.jpg"]]')
    main()
    metrics = results.read_details(prepared / "metrics/details/split.json")
    assert (metrics["leaking_pairs_joined"], metrics["leaking_pairs_allowed"]) == (0, 1)
    assert list(pd.read_csv(paths.SPLIT / "leaking_pairs.csv").action) == ["allowed"]


def test_a_photo_allowed_with_one_twin_is_not_allowed_with_another(prepared):
    seed_that_separates_the_twins(prepared)
    allow(prepared, '[["00.jpg", "01.jpg"], ["59.jpg", "02.jpg"]]')
    main()
    metrics = results.read_details(prepared / "metrics/details/split.json")
    assert (metrics["leaking_pairs_joined"], metrics["leaking_pairs_allowed"]) == (1, 0)


def test_an_allowed_path_that_is_no_photo_is_named(prepared):
    (prepared / "params.yaml").write_text(PARAMS)
    allow(prepared, '[["00.jpg", "C01/00.jpg"]]')
    with pytest.raises(
        ValueError, match=r"split\.allowed_leaks names 'C01/00\.jpg', which is not a photo"
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
    assert "3 photos excluded because their groups include multi-annotated photos" in " ".join(
        capsys.readouterr().out.split()
    )
    done = pixel_store.read_table(paths.SPLIT / "photos.csv").set_index("path")
    assert done.loc["03.jpg", ["label", "split"]].tolist() == [CLASSES[1], "test"]
    assert done.loc[["20.jpg", "30.jpg", "59.jpg"], "split"].tolist() == [EXCLUDED] * 3
