"""A bundle holds everything that prediction needs, and saving it loses nothing."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from anklealign.config import params
from anklealign.config.params import Model
from anklealign.models import bundle, factory
from anklealign.models.bundle import Bundle
from anklealign.models.description import WEIGHTS, Preprocessing

RAW = params.read(Path(__file__).resolve().parents[2] / "params.yaml")


def made(name: str = "tiny_cnn", config: Model | None = None) -> Bundle:
    """Return a bundle at 64 pixels with random weights and batch statistics."""
    config = replace(
        config or params.section(RAW, f"models.{name}", Model),
        image_size=64, pretrained=False, frozen=False, unfreeze_last_n=0, head_epochs=0,
        head_learning_rate=0.0, imagenet_head=False, weights=None, weights_sha256=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = factory.build(name, config, 3)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return Bundle(
        ("pronation", "neutral", "szupináció"),
        Preprocessing(size=256, fit="letterbox", fill=114, max_megapixels=80.0),
        bundle.default_input(model, 64),
        1.7,
        0.25,
        {"chosen": {"epoch": 3}, "versions": {"torch": "2.15.0"}},
        model=model.eval(),
    )


def test_a_loaded_model_is_identical_also_through_timm(tmp_path: Path) -> None:
    saved = made()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = saved.model(x)
    bundle.save(tmp_path / "model", saved)
    loaded = bundle.load(tmp_path / "model")
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    for model in (loaded.model, by_timm):
        for key, tensor in saved.model.state_dict().items():
            assert model.state_dict()[key].equal(tensor), key
        with torch.inference_mode():
            assert model(x).equal(expected)


def test_a_network_with_tied_weights_is_saved_whole(tmp_path: Path) -> None:
    saved = made("x", Model("coat_tiny", 64, epochs=1, learning_rate=1e-4))
    tied = "parallel_blocks.0.factoratt_crpe2.crpe.conv_list.0.weight"
    state = saved.model.state_dict()
    pointers = [tensor.untyped_storage().data_ptr() for tensor in state.values()]
    assert pointers.count(state[tied].untyped_storage().data_ptr()) > 1
    bundle.save(tmp_path, saved)
    loaded = bundle.load(tmp_path).model.state_dict()
    assert all(loaded[key].equal(tensor) for key, tensor in state.items())
    after = [tensor.untyped_storage().data_ptr() for tensor in saved.model.state_dict().values()]
    assert len(set(after)) == len(set(pointers))  # still tied in memory


def test_weights_without_ties_are_written_as_plain_safetensors(tmp_path: Path) -> None:
    saved = made()
    bundle.save(tmp_path / "model", saved)
    save_file(saved.model.state_dict(), tmp_path / "plain.safetensors")
    written = (tmp_path / "model" / WEIGHTS).read_bytes()
    assert written == (tmp_path / "plain.safetensors").read_bytes()


def test_the_other_fields_are_restored(tmp_path: Path) -> None:
    saved = made()
    bundle.save(tmp_path / "model", saved)
    loaded = bundle.load(tmp_path / "model")
    assert replace(loaded, model=saved.model) == saved


def test_the_config_has_timm_s_keys(tmp_path: Path) -> None:
    bundle.save(tmp_path, made())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == "anklealign_cnn"
    assert config["num_classes"] == 3
    assert config["label_names"] == ["pronation", "neutral", "szupináció"]
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert config["pretrained_cfg"]["crop_pct"] == 1.0


PLAIN_TIMM = """
import sys, timm, torch

def load(name):
    return timm.create_model(f"local-dir:{name}", pretrained=True).eval()

x = torch.load("x.pt", weights_only=True)
with torch.inference_mode():
    for name in ("resnet10t", "test_vit"):
        torch.save(load(name)(x), f"{name}.pt")
    assert not any(name.startswith("anklealign") for name in sys.modules)
    try:
        load("tiny_cnn")
    except RuntimeError as error:
        assert "anklealign_cnn" in str(error)
    else:
        raise AssertionError("loaded without the import")
    import anklealign.models.networks
    for name in ("tiny_cnn", "with_hidden_layer"):
        torch.save(load(name)(x), f"{name}.pt")
"""


def test_plain_timm_loads_a_bundle_and_our_networks_need_one_import(tmp_path: Path) -> None:
    """As documented in anklealign/models/bundle.py: no arguments but `pretrained=True`."""
    plain = Model("resnet10t", image_size=64, epochs=1, learning_rate=0.01)
    made_by_name = {
        "resnet10t": made(config=plain),
        "test_vit": made(config=replace(plain, architecture="test_vit")),
        "tiny_cnn": made(),
        "with_hidden_layer": made(config=replace(plain, head_hidden_dim=8)),
    }
    x = torch.randn(2, 3, 64, 64)
    torch.save(x, tmp_path / "x.pt")
    for name, saved in made_by_name.items():
        bundle.save(tmp_path / name, saved)
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", PLAIN_TIMM], cwd=tmp_path, env=environment, check=True)
    for name, saved in made_by_name.items():
        with torch.inference_mode():
            expected = saved.model(x)
        actual = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        torch.testing.assert_close(actual, expected, msg=name)


def test_a_bundle_is_two_files_without_pickle_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        bundle.save(tmp_path / name, made())
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert sorted(files) == ["config.json", "model.safetensors"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        ("none", "dvc repro train"),
        ("foreign", "not the config of an AnkleAlign bundle"),
        ("torn", "dvc checkout"),
        ("damaged", "dvc checkout"),
    ],
)
def test_a_faulty_bundle_is_an_error_with_a_remedy(tmp_path: Path, defect: str, words: str) -> None:
    folder = tmp_path / "model"
    bundle.save(folder, made())
    if defect == "none":
        (folder / "config.json").unlink()
    if defect == "foreign":
        (folder / "config.json").write_text('{"architecture": "resnet18"}')
    if defect == "torn":
        (folder / "model.safetensors").unlink()
    if defect == "damaged":
        with (folder / "model.safetensors").open("r+b") as stream:
            stream.seek(-4, 2)
            stream.write(b"\0\1\2\3")
    with pytest.raises(ValueError, match=words):
        bundle.load(folder)


def test_a_full_disk_raises_enospc_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(bundle, "save_for_hf", full)
    with pytest.raises(OSError, match="weights cannot be written") as caught:
        bundle.save(tmp_path / "model", made())
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "model").iterdir()) == []


def test_a_save_removes_the_files_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "model" / ".saving.x1"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    seen = []
    monkeypatch.setattr(bundle, "save_for_hf", lambda _, folder, **__: seen.append(Path(folder)))
    with pytest.raises(FileNotFoundError):  # of the config, which the real one writes
        bundle.save(tmp_path / "model", made())
    assert seen[0].parent == tmp_path / "model"
    assert not half.exists()
    monkeypatch.undo()
    bundle.save(tmp_path / "model", made())
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "config.json", "model", "model.safetensors",
    ]  # fmt: skip
