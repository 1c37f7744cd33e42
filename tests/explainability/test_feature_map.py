"""Neighbors, map and small heat maps of photos, for the report."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import torch

from anklealign.explainability import feature_map
from anklealign.models import inputs
from tests.explainability.test_attribution import SIDE, bundle_of

CPU = torch.device("cpu")


def table_of(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"{n:012x}" for n in range(count)],
            "row": np.arange(count),
            "split": (["train"] * 3 + ["test"]) * (count // 4),
            "label": (["a", "b"] * count)[:count],
            "group": [f"g{n // 2}" for n in range(count)],
        }
    )


def clusters(table: pd.DataFrame) -> np.ndarray:
    """Return features that depend on the label, with little noise."""
    generator = np.random.default_rng(0)
    centers = np.where(table.label.to_numpy()[:, None] == "a", [[8.0, 0.0]], [[0.0, 8.0]])
    return (centers + generator.normal(0, 0.3, centers.shape)).astype(np.float32)


def test_neighbors_are_training_photos_of_other_groups_nearest_first():
    table = table_of(40)
    features = clusters(table)
    found = feature_map.find_neighbors(features, table)
    for n in range(40):
        positions = found.positions[n]
        assert (table.split[positions] == "train").all()
        assert (table.group[positions] != table.group[n]).all()
        assert (table.label[positions] == table.label[n]).all()
    assert (np.diff(found.similarities.astype(int), axis=1) <= 0).all()
    assert (found.agreeing == feature_map.VOTERS).all()


def test_an_odd_one_out_has_no_agreeing_neighbor():
    table = table_of(40)
    features = clusters(table)
    table.loc[7, "label"] = "a"  # its features are those of b
    found = feature_map.find_neighbors(features, table)
    assert found.agreeing[7] == 0
    assert found.agreeing.argmin() == 7


def test_few_training_photos_leave_empty_places():
    table = table_of(4)
    found = feature_map.find_neighbors(clusters(table), table)
    assert found.positions[3].tolist() == [1, 0, -1, -1]
    assert found.similarities[3, 2:].tolist() == [0, 0]


def test_the_map_separates_classes_that_the_features_separate():
    table = table_of(120)
    xy = feature_map.layout(clusters(table)).astype(float)
    first, second = (xy[table.label == name] for name in "ab")
    gap = np.linalg.norm(first.mean(0) - second.mean(0))
    assert gap > 2 * max(first.std(), second.std())
    assert xy.min() == 0
    assert xy.max() == feature_map.EDGE


def test_errors_of_test_are_mapped_first_and_row_order_is_irrelevant(monkeypatch):
    table = table_of(40)
    monkeypatch.setattr(feature_map, "MAX_PHOTOS", {"train": 6, "val": 5, "test": 3})
    wrong = {table.id[39], table.id[35]}
    chosen = feature_map.select(table, wrong)
    assert (chosen.split == "test").sum() == 3
    assert wrong <= set(chosen.id)
    shuffled = table.sample(frac=1, random_state=1)
    assert chosen.equals(feature_map.select(shuffled, wrong))


def described(bundle, store, rows):
    return inputs.features(bundle.model, store, rows, bundle.input_config, CPU)


def test_every_photo_is_described_and_a_constant_network_has_no_map():
    table = table_of(16)
    store = np.random.default_rng(1).integers(0, 256, (16, SIDE, SIDE, 3), np.uint8)
    bundle = bundle_of("anklealign_cnn")
    arrays = feature_map.describe(table, set(), partial(described, bundle, store))
    assert arrays["map_ids"].tolist() == table.id.tolist()
    assert arrays["neighbors"].shape == (16, 5)
    gray = np.full_like(store, 114)
    assert feature_map.describe(table, set(), partial(described, bundle, gray)) == {}


def test_heat_maps_of_errors_come_first(monkeypatch):
    monkeypatch.setattr(feature_map, "HEAT_MAPS", 3)
    test = pd.DataFrame({"id": list("dcba"), "row": [3, 2, 1, 0]})
    predictions = test.assign(
        actual="a", predicted=["a", "b", "a", "b"], probability=[0.9, 0.5, 0.8, 0.7]
    )
    maps = np.random.default_rng(1).random((4, SIDE, SIDE)).astype(np.float32)
    asked = []

    def compute(rows: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
        asked.extend(rows.id)
        return [(name, maps["abcd".index(name)]) for name in rows.id]

    arrays = feature_map.small_heat_maps(predictions, compute, {"c": maps[2]})
    assert asked == ["a", "b"]
    assert arrays["heat_ids"].tolist() == ["a", "c", "b"]
    assert arrays["heat"].shape == (3, 32, 32)


def test_known_features_give_the_same_arrays_without_a_pass():
    table = table_of(16)
    store = np.random.default_rng(1).integers(0, 256, (16, SIDE, SIDE, 3), np.uint8)
    features = described(bundle_of("anklealign_cnn"), store, np.arange(16))
    expected = feature_map.describe(table, set(), lambda rows: features[rows])
    known = dict(enumerate(features.numpy()))
    arrays = feature_map.describe(table, set(), None, known)  # calling None fails
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)


def test_the_number_of_threads_does_not_change_the_map():
    program = (
        "import numpy as np; from anklealign.explainability import feature_map as f;"
        "from threadpoolctl import threadpool_limits\n"
        "x = np.random.default_rng(0).normal(size=(90, 20)).astype(np.float32)\n"
        "with threadpool_limits(1): print(f.layout(x).tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OMP_NUM_THREADS": threads},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(printed) == 1
