"""The passes of evaluate give the same bytes wherever they run, and ask only what is unknown."""

import json
import pickle
import re
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from anklealign.evaluation import network_passes
from anklealign.evaluation.network_passes import NetworkPasses
from anklealign.evaluation.robustness import CorruptionSample
from anklealign.explainability import attribution, faithfulness
from anklealign.explainability.attribution import heat_maps
from anklealign.inference import predictor_source
from anklealign.inference.predictor import Predictor
from anklealign.io import execution
from anklealign.io.pixel_store import StoreWriter, open_store
from anklealign.models import bundle, inputs, novelty
from tests.explainability.test_attribution import SIDE, bundle_of

CPU = torch.device("cpu")
COUNT = 40
ROWS = np.arange(COUNT)[::-1].copy()


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A bundle with a novelty detector and a store, both in this folder."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    inputs.configure_cpu(1)
    pixels = np.random.default_rng(1).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
    with StoreWriter(tmp_path / "store", SIDE) as writer:
        shard = writer.reserve(COUNT)
        shard.pixels[...] = pixels
        writer.add(shard)
    store = open_store(tmp_path / "store")
    detector = novelty.fit(store, np.arange(8), np.arange(8, 16), CPU, 0.05, groups=range(8))
    made = replace(bundle_of("anklealign_cnn", widths=[8, 16]), novelty=detector)
    bundle.save(tmp_path / "model", made)
    yield NetworkPasses.load(tmp_path / "model", "cpu", store)
    inputs.configure_cpu(before)


def table(networks) -> pd.DataFrame:
    classes = np.array(networks.predictor.classes)
    return pd.DataFrame({
        "id": [f"{n:012x}" for n in range(COUNT)], "row": ROWS,
        "predicted": classes[ROWS % len(classes)],
    })  # fmt: skip


def sample(networks) -> CorruptionSample:
    photos = table(networks)
    labels = ROWS % 2
    boxes = np.tile([0, 4, SIDE, SIDE - 4], (COUNT, 1))
    ids = list(photos.id)
    return CorruptionSample(networks.store, ROWS, boxes, ids, labels, labels, ids, 114)


def outputs(networks) -> dict[str, bytes]:
    """Return the bytes of all that the networks say."""
    photos = table(networks)
    probabilities, described = networks.describe(ROWS)
    maps = dict(networks.heat_maps(photos))
    assert list(maps) == list(photos.id)
    some = photos.head(18)
    return {
        "probabilities": probabilities.tobytes(),
        "described": described.numpy().tobytes(),
        "features": networks.features(ROWS).numpy().tobytes(),
        "general": networks.general_features(ROWS).tobytes(),
        "robustness": json.dumps(list(networks.corruption_scores(sample(networks), flip=True))),
        "maps": np.stack(list(maps.values())).tobytes(),
        "faithfulness": json.dumps(
            networks.faithfulness(some, np.stack([maps[name] for name in some.id]), 3)
        ),
    }


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_threads_and_processes_give_the_bytes_of_one_thread(networks, backend, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    expected = outputs(networks)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    if backend == "processes":
        monkeypatch.setattr(execution, "SHARDS_PER_PROCESS", 1)
        predictor_source._KEPT.clear()  # a pass in this process would load it again
    assert outputs(networks) == expected
    assert bool(predictor_source._KEPT) == (backend == "threads")


def test_shards_give_the_bytes_of_whole_passes(networks):
    own, store, photos = networks.predictor, networks.store, table(networks)
    probabilities, described = own.describe(store, ROWS)
    found = networks.describe(ROWS)
    assert np.array_equal(found[0], probabilities)
    assert torch.equal(found[1], described)
    assert np.array_equal(networks.general_features(ROWS), novelty.describe(store, ROWS, CPU))
    classes = photos.predicted.map(own.classes.index).to_numpy(np.int64)
    fast = own.for_inference
    maps = heat_maps(fast, store[ROWS], classes)
    assert np.array_equal(np.stack([heat for _, heat in networks.heat_maps(photos)]), maps)
    pixels, cells = store[ROWS], faithfulness.cell_means(maps)
    orders = faithfulness.cell_orders(cells, 3)
    random = heat_maps(faithfulness.randomize_weights(own.bundle, 3), pixels, classes)
    expected = faithfulness.scores(
        faithfulness.areas(fast, pixels, classes, orders, CPU),
        faithfulness.correlations(cells, faithfulness.cell_means(random)),
    )
    assert networks.faithfulness(photos, maps, 3) == expected


def test_no_photos_have_outputs_with_columns(networks):
    nothing = ROWS[:0]
    probabilities, described = networks.describe(nothing)
    assert probabilities.shape == (0, len(networks.predictor.classes))
    assert described.shape == (0, 16)
    assert list(networks.heat_maps(table(networks).head(0))) == []


def test_a_worker_loads_the_bundle_once_and_gets_it_by_its_path(networks, monkeypatch):
    call = network_passes.partial(
        network_passes._call, network_passes._described, networks.source, networks.store
    )
    assert len(pickle.dumps(call)) < 2000
    loaded = []

    def load(folder, _):
        loaded.append(folder)
        return networks.predictor

    monkeypatch.setattr(Predictor, "load", load)
    predictor_source._KEPT.clear()
    for _ in range(3):
        pickle.loads(pickle.dumps(call))(ROWS[:16])  # noqa: S301 - written above
    assert loaded == [networks.source.folder]
    replace(networks.source, sha256="other").predictor()  # trained again in the same folder
    assert len(loaded) == 2


def test_known_features_are_not_computed(networks, monkeypatch):
    computed = []

    def describe(_, rows, __):
        computed.extend(rows.tolist())
        return np.full((len(rows), 3), 2, np.float32)

    monkeypatch.setattr(novelty, "describe", describe)
    known = {5: np.float32([1, 0, 0]), 7: np.float32([0, 0, 1])}
    found = networks.general_features(np.array([5, 1, 7]), known)
    assert found.tolist() == [[1, 0, 0], [2, 2, 2], [0, 0, 1]]
    assert computed == [1]


def test_each_part_shows_a_progress_bar(networks, monkeypatch, capsys):
    # Without the delay of a second, and without a terminal.
    shown = {"delay": 0, "disable": False}
    monkeypatch.setattr(network_passes, "tqdm", lambda *a, **k: tqdm(*a, **k | shown))
    for module in (inputs, attribution):
        monkeypatch.setattr(module, "tqdm", lambda *a, **k: tqdm(*a, **k | {"disable": True}))
    outputs(networks)
    found = set(re.findall(r"[a-z ]+(?=:  )", capsys.readouterr().err))
    assert found == {"network", "robustness", "heat maps", "maps checked", "maps of random weights"}
