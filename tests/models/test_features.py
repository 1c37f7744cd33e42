"""Features of a frozen network are computed once, and the cache changes none of their bytes."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anklealign.config import paths
from anklealign.config.params import Model
from anklealign.models import bundle, factory, fusion, inputs
from anklealign.models.features import stored_features

CPU = torch.device("cpu")
CONFIG = Model(
    "anklealign_cnn", image_size=32, epochs=1, learning_rate=0.1, arguments={"widths": (8, 16)}
)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which each computation adds its number of photos."""
    counts: list[int] = []
    compute = inputs.features

    def counted(model, pixels, rows, *others):
        if len(pixels) == len(PIXELS):  # not the fixed picture of the key
            counts.append(len(rows))
        return compute(model, pixels, rows, *others)

    monkeypatch.setattr(inputs, "features", counted)
    return counts


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return factory.build("x", CONFIG, 2)


def features(model: torch.nn.Module, rows: list[int], size: int = 32) -> torch.Tensor:
    input_config = replace(bundle.default_input(model, 32), image_size=size)
    return stored_features(model, PIXELS, np.array(rows), input_config=input_config, device=CPU)


def test_they_are_those_of_the_network_in_any_order(passes: list[int]) -> None:
    model = network()
    rows = [39, 0, 17, 16, 0]
    config = bundle.default_input(model, 32)
    whole = inputs.features(fusion.for_inference(model, config), PIXELS, np.arange(40), config, CPU)
    expected = whole[rows]
    torch.testing.assert_close(
        whole, inputs.features(model, PIXELS, np.arange(40), config, CPU), rtol=1e-5, atol=1e-6
    )
    passes.clear()
    assert features(model, rows).equal(expected)
    assert passes == [40]
    assert features(model, rows).equal(expected)
    assert features(model, [38, 1]).equal(whole[[38, 1]])
    assert passes == [40]


def test_a_new_classifier_needs_no_new_features_and_other_weights_do(passes: list[int]) -> None:
    model = network()
    first = features(model, [0, 20])
    torch.nn.init.ones_(model.get_classifier().weight)
    assert features(model, [0, 20]).equal(first)
    assert passes == [32]
    other = network(1)
    assert not features(other, [0, 20]).equal(first)
    assert not features(model, [0, 20], size=64).equal(first)
    assert passes == [32, 32, 32]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change", [lambda path: shutil.rmtree(path.parent), damage, lambda path: path.write_bytes(b"")]
)
def test_a_deleted_or_damaged_cache_changes_no_byte(change: Callable[[Path], None]) -> None:
    model = network()
    first = features(model, [3, 30])
    (path,) = Path(paths.CACHE).glob("features-*.sqlite")
    change(path)
    assert features(model, [3, 30]).equal(first)
