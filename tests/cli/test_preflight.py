"""What a run lacks is reported before DVC deletes anything."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from anklealign.cli import check, preflight
from anklealign.config import params

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw/synthetic").mkdir(parents=True)
    for n in range(10):
        (tmp_path / f"data/raw/synthetic/{n}.jpg").touch()
    return params.read()


def test_a_full_disk_is_reported_with_the_space_that_is_needed(raw, monkeypatch):
    assert preflight.errors(raw) == []
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=3_900_000))
    (error,) = preflight.errors(raw)
    assert "the pixels of 10 photos need 0.0 GB" in error
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000))
    assert preflight.errors(raw) == []


def test_hub_weights_that_are_neither_cached_nor_reachable_are_one_sentence(raw, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("noise of the client")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    raw["model"] = "vit"
    (error,) = preflight.errors(raw)
    assert error.startswith("params.yaml: model = 'vit': its weights, timm/")
    assert "the hub cannot be reached (ConnectionError)" in error
    assert "noise" not in error
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/file")
    assert preflight.errors(raw) == []


def test_the_hub_is_not_asked_for_a_model_from_scratch(raw, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", pytest.fail)
    assert preflight.errors(raw) == []


SMALL = {"architecture": "mobilenetv2_050", "image_size": 64, "epochs": 1, "learning_rate": 0.001}
PROBE = {
    "frozen": True, "pretrained": True, "epochs": 0, "learning_rate": 0.0,
    "logistic_regression": True,
}  # fmt: skip


@pytest.fixture
def mine(raw: dict, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Return parameters with a small model that `anklealign check` reads and accepts."""
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/file")
    monkeypatch.setattr(check.sync_deps, "stale", lambda _: [])
    monkeypatch.setattr(check.params, "read", lambda: raw)
    raw["models"]["mine"], raw["model"] = SMALL, "mine"
    raw["train"]["false_refusals"] = 0.0
    return raw


def test_check_accepts_a_model_that_train_accepts(mine):
    assert check.print_errors() == 0
    mine["models"]["mine"] = SMALL | {"arguments": {"in_chans": 1}, "image_size": 96}
    assert check.print_errors() == 0


@pytest.mark.parametrize(
    ("model", "train", "message"),
    [
        ({"architecture": "mobilenetv2_05"}, {}, "is not a timm model; did you mean"),
        ({"architecture": "resnet18.none"}, {}, "timm has no weights tagged 'none'"),
        ({"arguments": {"in_chans": 2}}, {}, "arguments.in_chans = 2: photos have three channels"),
        ({"arguments": {"nonsense": 1}}, {}, "cannot be built: TypeError"),
        ({"architecture": "inception_v3", "image_size": 32}, {}, "does not classify photos of 32"),
        ({"ordinal_head": True, "zero_shot": False}, {"loss": "bce"}, "train.loss: cross_entropy"),
        (
            {"unfreeze_last_n": 99, "frozen": True, "pretrained": True},
            {},
            "lower it, or set frozen",
        ),
        ({"architecture": "resnetv2_18"} | PROBE, {}, "ends in one linear layer"),
        ({}, {"optimizer": "adamx"}, "is not an optimizer of timm"),
        ({}, {"optimizer_arguments": {"nonsense": 1}}, "cannot be used here"),
        ({}, {"device": "cuda:77"}, "train.device = 'cuda:77' is not available"),
        ({}, {"precision": "fp16", "device": "cpu"}, "needs a CUDA GPU"),
        (
            {"pretrained": True, "weights": "w.pth", "weights_sha256": "0" * 16},
            {},
            "does not exist",
        ),
        ({"zero_shot": True, "pretrained": True, "epochs": 0}, {}, "needs the ImageNet indices"),
        ({"ordinal_head": True}, {"ordered": False}, "needs classes that lie on a scale"),
    ],
)
def test_check_refuses_what_train_would_refuse(mine, capsys, model, train, message):
    mine["models"]["mine"] = SMALL | model
    mine["datasets"]["synthetic"]["ordered"] = train.get("ordered", True)
    mine["train"] |= {key: value for key, value in train.items() if key != "ordered"}
    assert check.print_errors() == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("params.yaml: ")
