"""The train stage from table and store to bundle, metrics and logs."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from anklealign.cli import export, label_issues
from anklealign.config import params, paths, stage
from anklealign.evaluation import photo_attributes
from anklealign.explainability import attribution
from anklealign.explainability.attribution import heat_maps
from anklealign.inference import onnx_predictor
from anklealign.inference.predictor import Predictor
from anklealign.io import files, pixel_store, results
from anklealign.metrics.scores import point_scores
from anklealign.models import bundle, calibration, factory, inputs, operating_point
from anklealign.models.input_config import LUMA
from anklealign.models.networks import Cnn
from anklealign.training import checkpoints
from anklealign.training.trainer import Trainer
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
  label_smoothing: 0.0
  weight_decay: 0.05
  augmentation: {random_crop: 0.1, horizontal_flip: true, rotation: 0, brightness: 0.1,
    contrast: 0.1, saturation: 0.1}
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
    "model/config.json", "model/model.safetensors", "metrics/details/train.json",
    "plots/train/history.csv",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a folder with a store, a split table of 48 photos, and small models."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 120, (48, 32, 32, 3), np.uint8)
    for i in range(48):
        band = 10 * (i % 3)
        pixels[i, band : band + 10] += 100
    pixel_store.write_store(paths.STORE, pixels)
    ids = [pixel_store.photo_id(f"{i}.jpg") for i in range(48)]
    table = pd.DataFrame(
        {"id": ids, "row": range(48), "group": ids, "label": [CLASSES[i % 3] for i in range(48)]}
    )
    table = table.assign(split=["train"] * 27 + ["val"] * 12 + ["test"] * 9)
    table = table.assign(width=32, height=32, left=0, top=0, right=32, bottom=32)
    table = table[~((table.split == "train") & (table.label == "high") & (table.row > 12))]
    files.write_table(paths.SPLIT / "photos.csv", table)
    voted = pd.DataFrame({"photo": ids[:3], "soft_low": 0.5, "soft_middle": 0.5, "soft_high": 0.0})
    files.write_table(paths.SOFT_LABELS, voted)
    Path("params.yaml").write_text(PARAMS)
    shutil.copy(ROOT / "pins.yaml", "pins.yaml")


def outputs() -> dict[str, bytes]:
    return {name: Path(name).read_bytes() for name in OUTPUTS}


def test_two_runs_write_the_same_bytes_whatever_the_order_of_the_table() -> None:
    train.main()
    first = outputs()
    shutil.rmtree("model")
    train.main()
    assert outputs() == first
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    files.write_table(paths.SPLIT / "photos.csv", table.sample(frac=1, random_state=0))
    train.main()
    assert outputs()["model/model.safetensors"] == first["model/model.safetensors"]


def test_the_bundle_holds_the_operating_point_and_what_its_training_photos_look_like() -> None:
    goal = "mirror_safe: false, operating_point: {positive: middle, sensitivity: 0.75}"
    Path("params.yaml").write_text(PARAMS.replace("mirror_safe: false", goal))
    train.main()
    predictor = Predictor.load("model", "cpu")
    point = operating_point.from_record(predictor.bundle.record)
    assert point is not None
    assert (point.positive, point.target, point.goal) == ("middle", "sensitivity", 0.75)
    val = pixel_store.read_table(paths.SPLIT / "photos.csv").query("split == 'val'")
    probabilities = predictor.probabilities(pixel_store.open_store(), val.row.to_numpy())
    flagged = point.flags(probabilities, predictor.classes)[(val.label == "middle").to_numpy()]
    assert flagged.sum() == 4  # of 4: with so few photos, the rank of the goal is the lowest
    quantiles = predictor.bundle.record["photo_attributes"]
    assert quantiles["width"] == [32.0] * photo_attributes.QUANTILES
    assert 90 < quantiles["brightness"][10] < 160


def test_the_bundle_holds_example_photos_only_if_the_dataset_config_allows_them() -> None:
    page = "mirror_safe: false, page: {title: Bars, classes: {low: A low bar.}, examples: 2}"
    Path("params.yaml").write_text(PARAMS.replace("mirror_safe: false", page))
    train.main()
    predictor = Predictor.load("model", "cpu")
    assert predictor.bundle.record["params"]["dataset"]["page"]["title"] == "Bars"
    examples = predictor.bundle.examples
    assert list(examples) == CLASSES
    # Each is a validation photo of its class that the model gets right.
    val = pixel_store.read_table(paths.SPLIT / "photos.csv").query("split == 'val'")
    store = pixel_store.open_store()
    for name, photos in examples.items():
        rows = val.row[val.label == name].to_numpy()
        assert len(photos) <= 2
        for photo in photos:
            pixels = np.asarray(Image.open(io.BytesIO(photo)), np.int64)
            differences = [np.abs(pixels - store[row]).mean() for row in rows]
            row = rows[int(np.argmin(differences))]
            assert min(differences) < 25
            best = predictor.probabilities(store, np.array([row])).argmax()
            assert predictor.classes[best] == name
    assert sum(map(len, examples.values())) > 0
    Path("model/examples").glob("*.jpg").__next__().write_bytes(b"x")
    with pytest.raises(ValueError, match="does not match the bundle's config"):
        Predictor.load("model", "cpu")
    shutil.rmtree("model")
    Path("params.yaml").write_text(PARAMS)
    train.main()
    assert sorted(path.name for path in Path("model").iterdir()) == [
        "config.json", "model.safetensors", "novelty.safetensors",
    ]  # fmt: skip


def test_a_network_of_one_channel_is_trained_exported_and_explained() -> None:
    arguments = "{in_chans: 1, widths: [8, 16], grid: [2, 2]}"
    text = PARAMS.replace("{widths: [8, 16], grid: [2, 2]}", arguments)
    Path("params.yaml").write_text(text)
    train.main()
    predictor = Predictor.load("model", "cpu")
    pixels = np.asarray(pixel_store.open_store()[:6])
    expected = predictor.probabilities(pixels)
    gray = np.rint(pixels @ LUMA).astype(np.uint8)[..., None].repeat(3, 3)
    np.testing.assert_allclose(predictor.probabilities(gray), expected, atol=0.05)
    session = onnx_predictor.open_session(export.exported(predictor.bundle).SerializeToString())
    candidate = onnx_predictor.OnnxPredictor(predictor.bundle, predictor.device, session)
    assert export.compare(predictor, candidate, pixels) < 1e-4
    assert heat_maps(predictor.bundle, pixels, expected.argmax(1)).max() == pytest.approx(1)
    assert len(label_issues.features_of(predictor, pixels, np.arange(6))) == 6


DIALS = {
    "dropout in the head": ({}, {"head_drop_rate": 0.2}),
    "two hidden layers": ({}, {"head_hidden_dim": 8, "head_hidden_layers": 2}),
    "ordinal head": ({}, {"ordinal_head": True}),
    "sgd and bce": (
        {"optimizer": "sgd", "loss": "bce", "optimizer_arguments": {"momentum": 0.9}},
        {"learning_rate": 0.05},
    ),
    "logistic regression": (
        {}, {"pretrained": True, "frozen": True, "logistic_regression": True, "epochs": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALS)
def test_a_dial_s_network_is_trained_exported_and_explained(name: str) -> None:
    training, model = DIALS[name]
    raw = params.read()
    raw["train"] |= training
    raw["datasets"]["bars"]["ordered"] = True
    raw["models"]["small"] |= {"epochs": 12} | with_weights(model)
    Path("params.yaml").write_text(json.dumps(raw))
    train.main()
    scores = results.read_details(train.METRICS)["train"]
    assert scores["accuracy"] > 0.6, scores
    predictor = Predictor.load("model", "cpu")
    pixels = np.asarray(pixel_store.open_store()[:6])
    expected = predictor.probabilities(pixels)
    session = onnx_predictor.open_session(export.exported(predictor.bundle).SerializeToString())
    candidate = onnx_predictor.OnnxPredictor(predictor.bundle, predictor.device, session)
    assert export.compare(predictor, candidate, pixels) < 1e-4
    assert heat_maps(predictor.bundle, pixels, expected.argmax(1)).max() == pytest.approx(1)
    assert len(label_issues.features_of(predictor, pixels, np.arange(6))) == 6


def with_weights(model: dict[str, object]) -> dict[str, object]:
    """Return a model config with a weights file of the small network, if it is pretrained."""
    if not model.get("pretrained"):
        return model
    weights = Path("weights.safetensors")
    torch.manual_seed(0)
    save_file(Cnn(7, widths=(8, 16), grid=(2, 2)).state_dict(), weights)
    return model | {"weights": str(weights), "weights_sha256": files.sha256(weights)}


def test_an_ordinal_head_needs_ordered_classes_and_cross_entropy() -> None:
    raw = params.read()
    raw["models"]["small"]["ordinal_head"] = True
    (error,) = [e for e in params.input_errors(raw) if "ordinal_head" in e]
    assert "datasets.bars.ordered is false; set it to true if they do" in error
    raw["train"]["loss"] = "bce"
    with pytest.raises(ValueError, match=r"models\.small: ordinal_head .*set train\.loss"):
        train.read_settings(raw)


@pytest.fixture
def count_features(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which each computation of features adds its number of photos."""
    counts: list[int] = []
    compute = inputs.features

    def counted(model, pixels, rows, *others):
        if len(pixels) > 1:  # not the fixed picture that identifies a network
            counts.append(len(rows))
        return compute(model, pixels, rows, *others)

    monkeypatch.setattr(inputs, "features", counted)
    return counts


def test_features_of_a_frozen_network_are_computed_once_for_all_seeds(
    count_features: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = params.read()
    raw["train"] |= {"repeats": 3, "false_refusals": 0.0}
    raw["models"]["small"] |= with_weights({"pretrained": True, "frozen": True})
    Path("params.yaml").write_text(json.dumps(raw))
    monkeypatch.setattr(inputs, "logits", lambda *_: pytest.fail("it ran the whole network"))
    train.main()
    assert sum(count_features) == 48
    assert pd.read_csv(paths.REPEATS).seed.nunique() == 3


def auto_params(budget: int = 100_000) -> dict[str, object]:
    """Return params.yaml with `auto` over a probe, its fine-tuning, and a network from scratch."""
    raw = params.read()
    probe = raw["models"]["small"] | with_weights(
        {"pretrained": True, "frozen": True, "logistic_regression": True, "epochs": 0}
    )
    tuned = probe | {
        "frozen": False, "logistic_regression": False, "epochs": 2, "learning_rate": 0.02,
        "head_epochs": 2, "head_learning_rate": 0.02,
    }  # fmt: skip
    candidates = {"probe": probe, "tuned": tuned, "small": raw["models"]["small"]}
    raw["models"] |= candidates
    raw["models"]["auto"] = {"budget": budget, "candidates": candidates}
    raw["train"] |= {"repeats": 2, "false_refusals": 0.0, "monitor": "log_loss"}
    return raw | {"model": "auto"}


def run(raw: dict[str, object]) -> dict[str, bytes]:
    Path("params.yaml").write_text(json.dumps(raw))
    train.main()
    return outputs()


def test_auto_becomes_the_candidate_with_the_best_cross_validated_score(
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = auto_params()
    first = run(raw)
    output = " ".join(capsys.readouterr().out.split())
    assert "image passes of the budget of 100,000, about" in output
    table = pd.read_csv(paths.CANDIDATES).set_index("candidate")
    assert set(table.index) == {"probe", "tuned", "small"}
    (chosen,) = table.index[table.status == "chosen"]
    assert table.log_loss[chosen] == table.log_loss.min()
    for name in table.index:
        assert f"train: {name} on folds of train: log_loss {table.log_loss[name]:.3f}" in output
    details = results.read_details(train.METRICS)
    assert details["candidates"][chosen]["log_loss"] == table.log_loss[chosen]
    assert details["params"]["model_name"] == "auto"
    epochs = details["params"]["candidates"][chosen]["epochs"]
    assert details["params"]["model"]["epochs"] == epochs
    assert not list(Path("checkpoints").iterdir())
    # Again, without the cache; and the chosen candidate alone.
    shutil.rmtree(".anklealign_cache")
    assert run(raw) == first
    alone = run(raw | {"model": chosen})
    assert alone["model/model.safetensors"] == first["model/model.safetensors"]
    predictor = Predictor.load("model", "cpu")
    session = onnx_predictor.open_session(export.exported(predictor.bundle).SerializeToString())
    candidate = onnx_predictor.OnnxPredictor(predictor.bundle, predictor.device, session)
    assert export.compare(predictor, candidate, np.asarray(pixel_store.open_store()[:6])) < 1e-4


def test_auto_leaves_out_what_the_budget_does_not_allow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(auto_params(budget=2))
    table = pd.read_csv(paths.CANDIDATES).set_index("candidate")
    assert table.status.to_dict() == {
        "probe": "chosen", "tuned": "over budget", "small": "over budget",
    }  # fmt: skip
    assert table.log_loss.notna().to_dict() == {"probe": True, "tuned": False, "small": False}
    assert "tuned needs more" in " ".join(capsys.readouterr().out.split())


def test_auto_never_uses_the_test_split_to_choose() -> None:
    run(auto_params())
    first = pd.read_csv(paths.CANDIDATES)
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    table.loc[table.split == "test", "label"] = CLASSES[0]
    files.write_table(paths.SPLIT / "photos.csv", table)
    run(auto_params())
    pd.testing.assert_frame_equal(pd.read_csv(paths.CANDIDATES), first)


@pytest.mark.slow
def test_an_interrupted_auto_resumes_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = auto_params()
    expected = run(raw)
    shutil.rmtree("model")
    take_step = Trainer.step
    total = 0
    for stop_at in (2, 5, 9, 14, 20, 27, 35):
        taken = 0

        def stop(self: Trainer) -> None:
            nonlocal taken, total
            taken += 1
            if taken == stop_at:  # noqa: B023 - called in this iteration only
                total += 1
                raise StoppedError
            take_step(self)

        with monkeypatch.context() as patch, contextlib.suppress(StoppedError):
            patch.setattr(Trainer, "step", stop)
            train.main()
    assert total >= 5
    train.main()
    assert outputs() == expected


def test_auto_needs_three_groups_of_each_class_in_train() -> None:
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    own = table.split == "train"
    table.loc[own, "group"] = ["a" if i % 2 else "b" for i in range(own.sum())]
    files.write_table(paths.SPLIT / "photos.csv", table)
    with pytest.raises(ValueError, match="each class needs 3 groups; choose one of its candidates"):
        run(auto_params())


def test_folds_divide_no_group_and_have_each_class() -> None:
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    table["group"] = [f"g{row // 3}" for row in table.row]
    files.write_table(paths.SPLIT / "photos.csv", table)
    Path("params.yaml").write_text(json.dumps(auto_params()))
    data = train.read_data(train.read_settings(params.read()))
    groups = data.table.set_index("id").group[list(data.train.ids)].to_numpy()
    folds = data.train.folds
    assert all(len(set(folds[groups == name])) == 1 for name in set(groups))
    assert all(len(set(data.train.labels[folds == fold])) == 3 for fold in set(folds))


def test_a_network_that_cannot_be_explained_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no map")

    monkeypatch.setattr(attribution, "_grad_cam", fail)
    monkeypatch.setattr(train.loop, "fit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(
        ValueError, match=r"models\.small: anklealign_cnn: .* be explained: .*no map"
    ):
        train.main()


def test_a_network_that_is_built_otherwise_from_its_config_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = factory.build

    def widened(*args: object) -> nn.Module:
        model = build(*args)
        model.extra = nn.Linear(1, 1)
        return model

    monkeypatch.setattr(factory, "build", widened)
    with pytest.raises(
        ValueError, match=r"models\.small: .* 2 tensors differ, such as extra\.bias"
    ):
        train.main()


def test_outputs_describe_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    train.main()
    output = capsys.readouterr().out.splitlines()
    history = pd.read_csv("plots/train/history.csv")
    metrics = results.read_details(Path("metrics/details/train.json"))
    run = results.read_details(Path("metrics/details/train.json"))
    config = json.loads(Path("model/config.json").read_text())["anklealign"]
    assert list(history.columns) == [
        "epoch", "train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1",
        "learning_rate",
    ]  # fmt: skip
    assert len(history) == metrics["epochs"] == 4
    assert sum(line.startswith("epoch") for line in output) == 4
    best = history.loc[metrics["best_epoch"] - 1]
    assert best.val_balanced_accuracy == pytest.approx(metrics["val"]["balanced_accuracy"])
    assert set(metrics["train"]) == set(metrics["val"])
    assert run["photos"]["train"] == config["train_class_counts"]
    assert run["photos"]["test"] == {"low": 3, "middle": 3, "high": 3}
    assert run["parameters"] == metrics["parameters"]
    assert any("Conv2d" in line for line in run["architecture"])
    assert config["classes"] == CLASSES
    assert config["chosen"]["epoch"] == metrics["best_epoch"]
    assert config["pixels_sha256"] == pixel_store.store_sha256()
    assert config["versions"]["torch"]
    assert config["params"]["model"]["epochs"] == 4


def test_the_model_is_the_median_of_the_seeds_and_each_seed_s_test_probabilities_are_kept() -> None:
    repeated = "\ntrain:\n  repeats: 3\n  seed: 7\n"
    Path("params.yaml").write_text(PARAMS.replace("\ntrain:\n", repeated))
    train.main()
    run = results.read_details(Path("metrics/details/train.json"))
    scores = {int(seed): score for seed, score in run["validation_by_seed"].items()}
    assert list(scores) == [7, 8, 9]
    chosen = run["chosen"]["seed"]
    assert scores[chosen] == sorted(scores.values())[1]
    table = pd.read_csv(paths.REPEATS)
    assert table.groupby("seed").size().to_dict() == {7: 9, 8: 9, 9: 9}
    own = table[table.seed == chosen]
    split = pixel_store.read_table(paths.SPLIT / "photos.csv").set_index("id")
    rows = split.row[own.id].to_numpy()
    expected = Predictor.load("model").probabilities(pixel_store.open_store(), rows)
    np.testing.assert_allclose(own[[f"p_{name}" for name in CLASSES]], expected, atol=2e-6)
    assert not any(checkpoints.FOLDER.iterdir())
    before = outputs()
    text = repeated.replace("seed: 7", f"seed: {chosen}").replace("repeats: 3", "repeats: 1")
    Path("params.yaml").write_text(PARAMS.replace("\ntrain:\n", text))
    train.main()  # alone, the seed gives the same weights
    assert outputs()["model/model.safetensors"] == before["model/model.safetensors"]


def test_horizontal_flips_are_off_unless_the_dataset_is_mirror_safe() -> None:
    settings = train.read_settings(params.read())
    assert not settings.train.augmentation.horizontal_flip
    assert settings.train.augmentation.random_crop == 0.1


def test_the_majority_baseline_predicts_the_class_shares_of_train() -> None:
    Path("params.yaml").write_text(PARAMS.replace("model: small", "model: majority"))
    train.main()
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    shares = table[table.split == "train"].label.value_counts(normalize=True)[CLASSES]
    predictor = Predictor.load(Path("model"), "cpu")
    found = predictor.probabilities(pixel_store.open_store()[:5])
    np.testing.assert_allclose(found, np.tile(shares, (5, 1)), rtol=1e-6)
    assert len(pd.read_csv("plots/train/history.csv")) == 0


def test_a_class_absent_from_a_split_is_an_error_without_outputs() -> None:
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    table.loc[(table.split == "train") & (table.label == "high"), "split"] = "excluded"
    files.write_table(paths.SPLIT / "photos.csv", table)
    with pytest.raises(ValueError, match="no photo of class high in train"):
        train.main()
    assert not any(Path(name).exists() for name in OUTPUTS)


def test_versions_that_differ_from_the_pins_are_warned_about_and_recorded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("pins.yaml").write_text('pins:\n  torch: "0.0.1"\n  no-such-thing: "1"\n')
    Path("params.yaml").write_text(PARAMS.replace("model: small", "model: majority"))
    with pytest.raises(SystemExit) as end:
        stage.run("train", train.main)
    assert end.value.code == 0
    warned = capsys.readouterr().err
    assert "requirements.txt pins 0.0.1" in warned
    assert "no-such-thing is missing" in warned
    config = json.loads(Path("model/config.json").read_text())["anklealign"]
    assert config["versions"]["torch"] == version("torch")


def test_memory_and_time_estimates_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train.main()
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    output = " ".join(output.split())
    assert re.search(r"train: small with [\d,]+ parameters on 22 photos, 12 for validation", output)
    assert re.search(r"train: about [\d,]+ MiB of memory per process", output)
    assert re.search(r"train: at most \d+ s remaining, plus validation", output)


def test_the_augmentation_preview_has_one_photo_of_each_class() -> None:
    train.main()
    arrays = results.read_arrays(paths.AUGMENTED)
    assert arrays["labels"].tolist() == ["low", "middle", "high"]
    assert arrays["augmented"].shape == (3, 5, 32, 32, 3)
    # No epoch repeats another one.
    assert len(np.unique(arrays["augmented"][0], axis=0)) == 5


def test_the_augmentation_preview_of_many_classes_fits_the_report(monkeypatch) -> None:
    monkeypatch.setattr(train.augmentation_preview, "MAX_CLASSES", 1)
    train.main()
    assert results.read_arrays(paths.AUGMENTED)["labels"].tolist() == ["low"]


class StoppedError(Exception):
    """Simulates a signal at a chosen step."""


def head_first(*, norm: bool = True) -> str:
    """Return parameters of a variant whose head learns first, on weights from a file."""
    weights = Path("weights.safetensors")
    torch.manual_seed(0)
    save_file(Cnn(7, widths=(8, 16), grid=(2, 2), norm=norm).state_dict(), weights)
    return f"""{PARAMS}    pretrained: true
    weights: {weights}
    weights_sha256: {files.sha256(weights)}
    head_epochs: 5
    head_learning_rate: 0.001
"""


def from_imagenet() -> str:
    """Return parameters of a variant whose head starts as a file's classifier of 1,000 classes."""
    weights = Path("weights.safetensors")
    torch.manual_seed(0)
    save_file(Cnn(1000, widths=(8, 16), grid=(2, 2)).state_dict(), weights)
    table = "imagenet: {low: [1, 5], middle: [7], high: [9]}, mirror_safe: false"
    return f"""{PARAMS.replace("mirror_safe: false", table)}    pretrained: true
    weights: {weights}
    weights_sha256: {files.sha256(weights)}
    imagenet_head: true
"""


@pytest.mark.parametrize("before", [None, head_first, from_imagenet])
@pytest.mark.parametrize("step", [1, 4, 7, 12])
def test_a_run_interrupted_at_any_step_ends_as_if_uninterrupted(
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    before: Callable[[], str] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    head = before is head_first
    if before:
        Path("params.yaml").write_text(before())
    train.main()
    assert list(pd.read_csv("plots/train/history.csv").epoch) == list(range(not before, 5))
    expected = outputs()
    assert not list(Path("checkpoints").iterdir())  # a finished run leaves none
    shutil.rmtree("model")
    shutil.rmtree("plots")
    taken = 0
    take_step = Trainer.step

    def stop(self: Trainer) -> None:
        nonlocal taken
        taken += not self.head_alone  # the head's own steps come before
        if taken == step:
            raise StoppedError
        take_step(self)

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(Trainer, "step", stop)
        train.main()
    assert len(list(Path("checkpoints").iterdir())) == (step > 3) + head
    capsys.readouterr()
    train.main()
    output = capsys.readouterr().out
    assert ("resuming from checkpoints/" in output) == (step > 3)
    assert ("fitting the head first" in output) == (head and step <= 3)
    assert output.count("val loss") == 4 + bool(before)  # restored epochs are printed again
    assert outputs() == expected
    assert not list(Path("checkpoints").iterdir())


def test_a_run_interrupted_while_fitting_the_head_resumes_from_its_last_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("params.yaml").write_text(head_first())
    train.main()
    expected = outputs()
    shutil.rmtree("model")
    steps = {"before": 0, "after": 0}
    take_step = Trainer.step

    def counted(self: Trainer) -> None:
        now = "after" if "stopped" in steps else "before"
        steps[now] += self.head_alone
        if steps[now] == 8 and now == "before":  # of the third of five epochs of three steps
            steps["stopped"] = 1
            raise StoppedError
        take_step(self)

    monkeypatch.setattr(Trainer, "step", counted)
    with pytest.raises(StoppedError):
        train.main()
    train.main()
    assert steps["after"] == 3 * 3
    assert outputs() == expected
    assert not list(Path("checkpoints").iterdir())


# Parameters of train and of the model; all other runs of this file have the defaults of PARAMS.
SETTINGS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "sgd": ({"optimizer": "sgd"}, {}),
    "nadamw": ({"optimizer": "nadamw"}, {}),
    "lion": ({"optimizer": "lion"}, {"learning_rate": 0.001}),
    "poly schedule": ({"scheduler": "poly"}, {}),
    "multistep schedule": ({"scheduler": "multistep"}, {}),
    "constant schedule": ({"scheduler": "constant"}, {}),
    "long warmup": ({"warmup": 0.6}, {}),
    "gradient accumulation": ({"gradient_accumulation_steps": 3}, {}),
    "gradient clipping": ({"max_grad_norm": 0.1}, {}),
    "bf16": ({"precision": "bf16"}, {}),
    "contiguous memory": ({"channels_last": False}, {}),
    "bce, smoothed": ({"loss": "bce", "label_smoothing": 0.1}, {}),
    "balanced sampler": ({"class_balancing": "sampler"}, {}),
    "soft labels": ({"soft_labels": True}, {}),
    "log loss, patience of 1": ({"monitor": "log_loss", "patience": 1}, {}),
    "layer decay": ({}, {"layer_decay": 0.7}),
    "frozen batch norm": ({}, {"freeze_batch_norm": True}),
    "hidden layer": ({}, {"head_hidden_dim": 8}),
    "two hidden layers with dropout": (
        {},
        {"head_hidden_dim": 8, "head_hidden_layers": 2, "head_drop_rate": 0.3},
    ),
    "ordinal head": ({}, {"ordinal_head": True}),
    "logistic regression first": ({}, {"pretrained": True, "logistic_regression": True}),
    "frozen backbone": ({}, {"frozen": True, "pretrained": True}),
    "last block": ({}, {"frozen": True, "pretrained": True, "unfreeze_last_n": 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_run_has_the_same_bytes_with_every_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training, model = SETTINGS[name]
    raw = params.read()
    raw["train"] |= training
    raw["datasets"]["bars"]["ordered"] = True
    raw["models"]["small"] |= with_weights(model)
    Path("params.yaml").write_text(json.dumps(raw))
    train.main()
    expected = outputs()
    take_step = Trainer.step
    resumed = 0
    for stops in ([2], [5], [9], [11], [4, 5, 9]):  # steps of each interrupted process
        shutil.rmtree("model")
        for stop_at in stops:
            taken = 0

            def stop(self: Trainer) -> None:
                nonlocal taken
                taken += 1
                if taken == stop_at:  # noqa: B023 - called in this iteration only
                    raise StoppedError
                take_step(self)

            # A run that stops early may end before this step.
            with monkeypatch.context() as patch, contextlib.suppress(StoppedError):
                patch.setattr(Trainer, "step", stop)
                train.main()
        train.main()
        assert outputs() == expected, stops
        resumed += "resuming from checkpoints/" in capsys.readouterr().out
    assert resumed >= 3


def test_imagenet_head_needs_a_dataset_with_imagenet_classes() -> None:
    raw = params.read() | {"model": "pretrained"}
    raw["models"]["pretrained"] = raw["models"]["small"] | {
        "pretrained": True, "imagenet_head": True, "head_epochs": 5, "head_learning_rate": 0.001,
    }  # fmt: skip
    unknown = train.read_settings(raw).model
    assert (unknown.imagenet_head, unknown.head_epochs) == (False, 5)
    raw["datasets"][raw["dataset"]]["imagenet"] = {
        label: [k] for k, label in enumerate(raw["datasets"][raw["dataset"]]["classes"])
    }
    known = train.read_settings(raw).model
    assert (known.imagenet_head, known.head_epochs) == (True, 0)


@pytest.mark.parametrize("other", ["parameters", "data", "split", "code"])
def test_a_run_does_not_resume_from_another_run_s_checkpoint(
    monkeypatch: pytest.MonkeyPatch, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(bundle, "save", stop)
        train.main()
    assert len(list(Path("checkpoints").iterdir())) == 1
    if other == "parameters":
        Path("params.yaml").write_text(PARAMS.replace("learning_rate: 0.01", "learning_rate: 0.02"))
    if other == "data":
        store = np.array(pixel_store.open_store())
        store[0, 0, 0, 0] += 1
        pixel_store.write_store(paths.STORE, store)
    if other == "split":
        table = pixel_store.read_table(paths.SPLIT / "photos.csv")
        files.write_table(paths.SPLIT / "photos.csv", table.drop(index=table.index[0]))
    if other == "code":
        monkeypatch.setattr(
            checkpoints, "_code_hashes", lambda: {"anklealign/training/losses.py": "other"}
        )
    capsys.readouterr()
    train.main()
    assert "resuming from" not in capsys.readouterr().out


def test_soft_labels_are_used_if_enabled() -> None:
    settings = train.read_settings(params.read())
    assert train.read_data(settings).train.soft is None
    soft = replace(settings, train=replace(settings.train, soft_labels=True))
    data = train.read_data(soft).train
    assert data.soft is not None
    assert (data.soft == [0.5, 0.5, 0.0]).all(1).sum() == 3
    assert (data.soft.max(1) == 1.0).sum() == len(data.ids) - 3


def test_zero_shot_on_a_dataset_without_imagenet_classes_is_an_error_with_remedy() -> None:
    text = (
        PARAMS.replace("model: small", "model: zero")
        + """
  zero: {architecture: resnet18, image_size: 32, epochs: 0, learning_rate: 0, pretrained: true,
    zero_shot: true}
"""
    )
    Path("params.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"models\.zero: zero_shot .*datasets\.<name>\.imagenet"):
        train.main()


# --- Failing well ------------------------------------------------------------------------------


def failed(capsys: pytest.CaptureFixture[str]) -> str:
    """Run the stage, check that it fails without results, and return its error message."""
    with pytest.raises(SystemExit) as end:
        stage.run("train", train.main)
    assert end.value.code == 1
    assert not any(Path(name).exists() for name in OUTPUTS)
    output = capsys.readouterr().err.splitlines()
    assert "anklealign restore" in output[-1]
    return output[-2]


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("missing", "does not exist; put it there"),
        ("other", "but weights_sha256 is"),
        ("corrupt", "does not fit anklealign_cnn"),
        ("shape", "does not fit anklealign_cnn"),
        ("half", "1 tensors are missing, such as stages.1.0.weight"),
    ],
)
def test_unusable_weights_fail_the_stage_with_both_remedies(
    defect: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = head_first()
    weights = Path("weights.safetensors")
    state = Cnn(7, widths=(8, 24 if defect == "shape" else 16), grid=(2, 2)).state_dict()
    if defect == "half":
        del state["stages.1.0.weight"]
    before = files.sha256(weights)
    save_file(state, weights)
    if defect == "corrupt":
        weights.write_bytes(b"<html>404 Not Found</html>")
    if defect != "other":
        text = text.replace(before, files.sha256(weights))
    if defect == "missing":
        weights.unlink()
    Path("params.yaml").write_text(text)
    output = failed(capsys)
    assert output.startswith("train: params.yaml: models.small")
    assert message in output
    assert "weights.safetensors" in output


def test_an_unreachable_hub_fails_the_stage_with_both_remedies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the hub client's attempts
    hub = "small: {architecture: resnet10t.c3_in1k, image_size: 32, epochs: 1, learning_rate: 0.1, "
    Path("params.yaml").write_text(PARAMS[: PARAMS.index("small:\n")] + hub + "pretrained: true}\n")
    output = failed(capsys)
    assert "timm/resnet10t.c3_in1k, are not in the cache and the hub cannot be reached" in output
    assert "set `weights` to a file" in output
    assert "pretrained: false" in output


@pytest.mark.parametrize("rate", ["1.0e+30", "1.0e+38"])
def test_a_divergent_learning_rate_is_reported_with_epoch_batch_and_remedy(
    rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").write_text(PARAMS.replace("learning_rate: 0.01", f"learning_rate: {rate}"))
    output = failed(capsys)
    found = r"train: the (loss|optimizer's step) is .* in epoch 1, batch \d, at a learning rate of "
    assert re.match(found, output)
    assert "try a tenth of the model's learning_rate" in output
    assert not list(Path("checkpoints").glob("*"))


def test_an_out_of_memory_error_lists_the_settings_to_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated, as the machine that runs the tests need not have a GPU."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Trainer, "forward", full)
    output = failed(capsys)
    assert "ran out of memory with train.batch_size = 8 and image_size = 32" in output
    assert "raise train.gradient_accumulation_steps, or lower one of the two" in output


# --- Real processes: each start imports PyTorch and timm ---------------------------------------

LONG = PARAMS.replace("epochs: 4", "epochs: 25").replace(
    "arguments: {widths: [8, 16], grid: [2, 2]}",
    "arguments: {widths: [8, 16], grid: [2, 2], drop_rate: 0.2}",
)
COMMAND = [sys.executable, "-m", "stages.train"]


def started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_killed_run_resumes_from_its_last_epoch_to_the_same_bytes(name: str) -> None:
    Path("params.yaml").write_text(LONG)
    with started() as whole:
        output = whole.stdout.read()
    assert whole.returncode == 0, output
    expected = outputs()
    for folder in ("model", "plots", "metrics"):
        shutil.rmtree(folder)
    with started() as killed:
        for line in killed.stdout:
            if line.startswith("epoch   6"):
                os.kill(killed.pid, getattr(signal, name))
                break
    assert killed.returncode != 0
    assert not Path("model/model.safetensors").exists()
    with started() as second:
        output = second.stdout.read()
    assert second.returncode == 0, output
    assert "resuming from checkpoints/" in output
    assert outputs() == expected
    assert not list(Path("checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("head", [False, True])
def test_two_processes_fit_like_one_and_one_writes(head: bool) -> None:
    """On 22 training photos in batches of 8, 7, 7 and 11 validation photos: no share is even."""
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    last = table.index[table.split == "val"][-1]
    files.write_table(paths.SPLIT / "photos.csv", table.drop(index=last))
    plain = head_first(norm=False) if head else PARAMS
    plain = plain.replace("grid: [2, 2]}", "grid: [2, 2], norm: false}").replace(
        " epochs: 4", " epochs: 8"
    )
    curves = {}
    for count in (1, 2):
        changed = plain.replace("  device: cpu\n", f"  device: cpu\n  num_processes: {count}\n")
        Path("params.yaml").write_text(changed)
        with started() as running:
            output = running.stdout.read()
        assert running.returncode == 0, output
        assert output.count("train: small, epoch") == 1
        assert ("in 2 processes" in output) == (count == 2)
        curves[count] = pd.read_csv("plots/train/history.csv")
    assert results.read_details(Path("metrics/details/train.json"))["photos"]["val"]["high"] == 3
    assert len(curves[1]) == 8 + head
    for column in ("train_loss", "val_loss"):
        np.testing.assert_allclose(curves[1][column], curves[2][column], atol=1e-4)
    for column in ("val_accuracy", "val_balanced_accuracy", "val_macro_f1"):
        np.testing.assert_array_equal(curves[1][column], curves[2][column])


@pytest.mark.slow
def test_processes_with_their_own_batch_statistics_score_the_saved_model() -> None:
    text = PARAMS.replace("device: cpu\n", "device: cpu\n  num_processes: 2\n")
    Path("params.yaml").write_text(text.replace("monitor: balanced_accuracy", "monitor: log_loss"))
    with started() as running:
        output = running.stdout.read()
    assert running.returncode == 0, output
    made = bundle.load(Path("model"))
    val = pixel_store.read_table(paths.SPLIT / "photos.csv").query("split == 'val'")
    predicted = inputs.logits(
        made.model,
        pixel_store.open_store(),
        val.row.to_numpy(),
        made.input_config,
        torch.device("cpu"),
    )
    found = point_scores(
        val.label.map(CLASSES.index).to_numpy(), calibration.probabilities(predicted, 1.0)
    )
    assert made.record["chosen"]["score"] == pytest.approx(found["log_loss"], abs=1e-6)


@pytest.mark.slow
def test_killed_processes_resume_together() -> None:
    Path("params.yaml").write_text(
        LONG.replace("device: cpu\n", "device: cpu\n  num_processes: 2\n")
    )
    with started() as whole:
        output = whole.stdout.read()
    assert whole.returncode == 0, output
    expected = outputs()
    for folder in ("model", "plots", "metrics"):
        shutil.rmtree(folder)
    with started() as killed:
        for line in killed.stdout:
            if line.startswith("epoch   6"):
                os.killpg(killed.pid, signal.SIGKILL)
                break
    with started() as second:
        output = second.stdout.read()
    assert second.returncode == 0, output
    assert "resuming from checkpoints/" in output
    assert outputs() == expected


@pytest.mark.slow
def test_an_error_in_several_processes_fails_the_stage_with_its_message() -> None:
    broken = PARAMS.replace("learning_rate: 0.01", "learning_rate: 1.0e+30")
    Path("params.yaml").write_text(
        broken.replace("device: cpu\n", "device: cpu\n  num_processes: 2\n")
    )
    with started() as running:
        output = running.stdout.read()
    assert running.returncode != 0
    assert re.search(r"train: the loss is .* in epoch \d, batch \d", output)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_leaves_no_partial_checkpoint() -> None:
    """The checkpoints lie on a disk of 64 KiB of its own; mounting one takes Linux's namespaces."""
    Path("params.yaml").write_text(PARAMS.replace("epochs: 4", "epochs: 6"))
    Path("checkpoints").mkdir()
    mounted = "mount -t tmpfs -o size=64k none checkpoints"
    alone = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*alone, mounted], check=False).returncode:
        pytest.skip("this machine lets no test mount a disk")
    fill = "head -c 50000 /dev/zero > checkpoints/other; "
    done = subprocess.run(
        [*alone, f"{mounted} && {fill} {' '.join(COMMAND)}; echo left $?; ls -A checkpoints"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "No space left on device: 'checkpoints/" in done.stderr, done.stderr
    assert "; free disk space (`dvc gc --workspace`" in done.stderr
    assert done.stdout.endswith("left 1\nother\n")  # no half of a checkpoint
    assert not any(Path(name).exists() for name in OUTPUTS)
