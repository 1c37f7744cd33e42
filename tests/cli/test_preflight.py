"""What a run lacks is reported before DVC deletes anything."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from anklealign.cli import preflight
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
