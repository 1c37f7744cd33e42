"""The train stage from table and store to bundle, metrics and logs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anklealign import files, params, photos
from anklealign.predictor import Predictor
from stages import train

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["low", "middle", "high"]
PARAMS = """
dataset: bars
model: small
seed: 3
datasets:
  bars: {layout: folders, classes: {low: [], middle: [], high: []}, mirror_safe: false}
prepare: {size: 32, fill: 114, max_megapixels: 80}
train:
  device: cpu
  precision: fp32
  batch_size: 8
  patience: 10
  monitor: balanced_accuracy
  class_weights: true
  label_smoothing: 0.0
  weight_decay: 0.05
  augmentation: {crop: 0.1, mirror: true, rotation: 0, brightness: 0.1, contrast: 0.1,
    saturation: 0.1}
models:
  majority: {architecture: anklealign_majority, image_size: 32, epochs: 0, learning_rate: 0}
  small:
    architecture: anklealign_cnn
    image_size: 32
    epochs: 4
    learning_rate: 0.01
    arguments: {widths: [8, 16], grid: [2, 2]}
"""
OUTPUTS = (
    "model/config.json", "model/model.safetensors", "metrics/train.json",
    "plots/train/history.csv", "plots/train/run.json",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder with a store and a split table of 48 photos, and small models."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with photos.writing_store(photos.STORE, 48, 32) as store:
        store[:] = rng.integers(60, 120, store.shape, np.uint8)
        for i in range(48):
            band = 10 * (i % 3)
            store[i, band : band + 10] += 100
    ids = [photos.photo_id(f"{i}.jpg") for i in range(48)]
    table = pd.DataFrame(
        {"id": ids, "row": range(48), "label": [CLASSES[i % 3] for i in range(48)]}
    )
    table = table.assign(split=["train"] * 27 + ["val"] * 12 + ["test"] * 9)
    table = table[~((table.split == "train") & (table.label == "high") & (table.row > 12))]
    files.write_table(photos.SPLIT / "photos.csv", table)
    Path("params.yaml").write_text(PARAMS)
    shutil.copy(ROOT / "requirements.txt", "requirements.txt")


def outputs() -> dict[str, bytes]:
    return {name: Path(name).read_bytes() for name in OUTPUTS}


def test_two_runs_write_the_same_bytes_whatever_the_order_of_the_table() -> None:
    train.main()
    first = outputs()
    shutil.rmtree("model")
    train.main()
    assert outputs() == first
    table = photos.read_table(photos.SPLIT / "photos.csv")
    files.write_table(photos.SPLIT / "photos.csv", table.sample(frac=1, random_state=0))
    train.main()
    assert outputs()["model/model.safetensors"] == first["model/model.safetensors"]


def test_it_writes_what_a_reader_of_the_run_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    train.main()
    said = capsys.readouterr().out.splitlines()
    history = pd.read_csv("plots/train/history.csv")
    metrics = json.loads(Path("metrics/train.json").read_text())
    run = json.loads(Path("plots/train/run.json").read_text())
    config = json.loads(Path("model/config.json").read_text())["anklealign"]
    assert list(history.columns) == [
        "epoch", "train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1",
        "learning_rate",
    ]  # fmt: skip
    assert len(history) == metrics["epochs"] == 4
    assert sum(line.startswith("epoch") for line in said) == 4
    best = history.loc[metrics["best_epoch"] - 1]
    assert best.val_balanced_accuracy == pytest.approx(metrics["validation"]["balanced_accuracy"])
    assert set(metrics["training"]) == set(metrics["validation"])
    assert run["photos"]["train"] == config["train_class_counts"]
    assert run["photos"]["test"] == {"low": 3, "middle": 3, "high": 3}
    assert run["parameters"] == metrics["parameters"]
    assert any("Conv2d" in line for line in run["architecture"])
    assert config["classes"] == CLASSES
    assert config["chosen"]["epoch"] == metrics["best_epoch"]
    assert config["pixels_sha256"] == files.sha256(photos.STORE)
    assert config["versions"]["torch"]
    assert config["params"]["model"]["epochs"] == 4


def test_mirroring_is_off_where_the_dataset_is_not_mirror_safe() -> None:
    settings = train.read_settings(params.read())
    assert not settings.train.augmentation.mirror
    assert settings.train.augmentation.crop == 0.1


def test_the_majority_answers_the_class_shares_of_train() -> None:
    Path("params.yaml").write_text(PARAMS.replace("model: small", "model: majority"))
    train.main()
    table = photos.read_table(photos.SPLIT / "photos.csv")
    shares = table[table.split == "train"].label.value_counts(normalize=True)[CLASSES]
    predictor = Predictor.load(Path("model"), "cpu")
    found = predictor.probabilities(photos.open_store()[:5])
    np.testing.assert_allclose(found, np.tile(shares, (5, 1)), rtol=1e-6)
    assert len(pd.read_csv("plots/train/history.csv")) == 0


def test_a_class_absent_from_a_part_is_named_and_nothing_is_written() -> None:
    table = photos.read_table(photos.SPLIT / "photos.csv")
    table.loc[(table.split == "train") & (table.label == "high"), "split"] = "left_out"
    files.write_table(photos.SPLIT / "photos.csv", table)
    with pytest.raises(ValueError, match="no photo of class high in train"):
        train.main()
    assert not any(Path(name).exists() for name in OUTPUTS)


def test_other_versions_than_the_pins_are_warned_of_and_recorded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("requirements.txt").write_text("torch==0.0.1\nno-such-thing==1\n")
    Path("params.yaml").write_text(PARAMS.replace("model: small", "model: majority"))
    train.main()
    warned = capsys.readouterr().err
    assert "requirements.txt pins 0.0.1" in warned
    assert "no-such-thing is missing" in warned
    config = json.loads(Path("model/config.json").read_text())["anklealign"]
    assert config["versions"]["no-such-thing"] == "missing"
