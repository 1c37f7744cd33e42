"""Tests that every model config of params.yaml passes, at 64 pixels and without downloads.

Weights are random. The layers that params.yaml freezes are frozen here too.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from anklealign.config import params
from anklealign.config.params import Dataset, Model, Train
from anklealign.explainability import attribution
from anklealign.io import files
from anklealign.models import bundle, factory
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.models.inputs import logits
from anklealign.training import logistic, loop
from anklealign.training.history import FitResult
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig

RAW = params.read(Path(__file__).resolve().parents[1] / "params.yaml")
QUICK = {"majority", "cnn_dropout", "mobilenet_v2_mlp", "lite0_zero_shot"}
VARIANTS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name, config in RAW["models"].items()
    if "candidates" not in config  # tests/stages/test_train.py
]
CPU = torch.device("cpu")
SIDE = 64
PHOTOS = 8


@dataclass(frozen=True)
class Variant:
    """A variant after a fit to one batch of photos, and that batch."""

    name: str
    block: Model
    bundle: Bundle
    fit: FitResult
    photos: LabeledPhotos

    @property
    def learns(self) -> bool:
        """The majority and zero-shot models have nothing to learn."""
        return self.block.fitted


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Iterator[None]:
    """Make every connection attempt fail in the test that makes it."""

    def refuse(*_: object) -> None:
        raise AssertionError("a model config tried to use the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    name = request.param
    block = replace(params.section(RAW, f"models.{name}", Model), image_size=SIDE)
    if "dinov2" in block.architecture:
        # Its untrained blocks scale their output by 1e-5: the logits would not depend on the photo.
        block = replace(block, arguments={**block.arguments, "init_values": 1.0})
    built = replace(
        block, pretrained=False, frozen=False, unfreeze_last_n=0, head_epochs=0,
        head_learning_rate=0.0, imagenet_head=False, weights=None, weights_sha256=None,
        zero_shot=False, logistic_regression=False,
    )  # fmt: skip
    table: tuple[tuple[int, ...], ...] = ()
    torch.manual_seed(0)
    if block.zero_shot:
        file = tmp_path_factory.mktemp("weights") / "imagenet.safetensors"
        save_file(timm.create_model(block.architecture).state_dict(), file)
        built = replace(block, weights=str(file), weights_sha256=files.sha256(file))
        table = params.section(RAW, "datasets.ants_bees", Dataset).imagenet_indices()
    if block.epochs:
        # Random weights learn at other rates than pretrained ones, and without batch statistics of
        # their own only in small steps.
        steady = any(part in block.architecture for part in ("vit", "vgg", "convnext"))
        rate = 0.01 if block.frozen or not block.pretrained else 1e-4 if steady else 3e-3
        rate = 5e-4 if block.freeze_batch_norm else rate
        # Batch statistics follow by a tenth a step, and each norm adds to how far those before it
        # are off: MobileNetV3, 34 norms deep, has its batch by heart after 6 steps and answers by
        # its statistics as well after 37 to 67. What has none is there sooner, and a head on
        # features that nobody trained later.
        head_alone = block.head_alone
        epochs = 200 if head_alone else 30 if steady else 90
        block = replace(block, epochs=epochs, learning_rate=rate)
    model = factory.build(name, built, 2, table)
    photos = bars()
    input_config = bundle.default_input(model, SIDE)
    settings = replace(
        params.section(RAW, "train", Train), device="cpu", batch_size=PHOTOS, monitor="accuracy",
        patience=200, scheduler="constant",
        augmentation=replace(
            params.section(RAW, "train", Train).augmentation,
            random_crop=0.0, translate=0.0, horizontal_flip=False, brightness=0.0, contrast=0.0,
            saturation=0.0,
        ),
    )  # fmt: skip
    with loop.reproducible(1):
        recipe = FitConfig(input_config, 2, block, settings, 1, CPU)
        with pytest.MonkeyPatch.context() as patch:
            # A penalty that suits the photos would keep a logistic regression from overfitting.
            patch.setattr(logistic, "PENALTIES", logistic.PENALTIES[-1:])
            fit = loop.fit(model, photos, photos, recipe)
    made = Bundle(
        ("low", "high"), Preprocessing(SIDE, "letterbox", 114, 80.0), input_config,
        1.0, 0.5, {}, model=model.eval(),
    )  # fmt: skip
    return Variant(name, block, made, fit, photos)


def bars() -> LabeledPhotos:
    """Return noise that is brighter at the top or at the bottom."""
    rng = np.random.default_rng(0)
    labels = np.arange(PHOTOS) % 2
    pixels = rng.integers(60, 120, (PHOTOS, SIDE, SIDE, 3), np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 32 * label : 32 * label + 32] += 100
    ids = tuple(f"{i:012x}" for i in range(PHOTOS))
    return LabeledPhotos(pixels, np.arange(PHOTOS), ids, labels, folds=np.arange(PHOTOS) // 2)


def logits_of(variant: Variant, pixels: np.ndarray, model: nn.Module | None = None) -> np.ndarray:
    network = model or variant.bundle.model
    return logits(network, pixels, np.arange(len(pixels)), variant.bundle.input_config, CPU)


def test_it_overfits_one_batch(variant: Variant) -> None:
    if not variant.learns:
        assert variant.fit == FitResult((), 0, None)
        return
    assert variant.fit.best_score == 1.0
    assert min(epoch.train_loss for epoch in variant.fit.records) < 0.2


def test_its_loaded_bundle_is_identical_also_through_timm(variant: Variant, tmp_path: Path) -> None:
    bundle.save(tmp_path / "model", variant.bundle)
    loaded = bundle.load(tmp_path / "model").model
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    # bundle.save converts the weights to contiguous memory format, as in a loaded model.
    expected = logits_of(variant, variant.photos.pixels)
    for model in (loaded, by_timm):
        state = model.state_dict()
        for key, tensor in variant.bundle.model.state_dict().items():
            assert state[key].equal(tensor), key
        np.testing.assert_array_equal(logits_of(variant, variant.photos.pixels, model), expected)


def test_black_white_and_noise_have_finite_logits(variant: Variant) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    pixels = np.concatenate([np.zeros_like(noise), np.full_like(noise, 255), noise])
    found = logits_of(variant, pixels)
    assert found.shape == (3, 2)
    assert np.isfinite(found).all()


def test_it_has_a_feature_map_with_a_gradient(variant: Variant) -> None:
    model = variant.bundle.model.eval()
    model.requires_grad_(requires_grad=True)
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    features = model.forward_features(x).detach().requires_grad_()
    found = model.forward_head(features)
    torch.testing.assert_close(found, model(x))
    found[:, 0].sum().backward()
    assert features.ndim in {3, 4}  # tokens, or a map
    assert features.grad is not None
    if variant.name != "majority":  # independent of the photo
        assert features.grad.abs().sum() > 0


def test_its_predictions_have_heat_maps(variant: Variant) -> None:
    pixels, made = variant.photos.pixels, variant.bundle
    attends = attribution.has_attention(made.model)
    assert attends == ("vit" in variant.block.architecture)
    maps = [attribution.heat_maps(made, pixels, np.full(PHOTOS, k)) for k in range(2)]
    if attends:
        maps.append(attribution.heat_maps(made, pixels, np.zeros(PHOTOS, np.int64), "rollout"))
        heads = attribution.attention_maps(made, pixels)
        assert (heads.std((2, 3)) > 0).all()
        assert (maps[-1].std((1, 2)) > 0).all()
    found = np.stack(maps)
    assert found.shape == (len(maps), PHOTOS, SIDE, SIDE)
    assert np.isfinite(found).all()
    # A photo may lack evidence for one of two classes; the majority model ignores the photo.
    assert found[:2].max((0, 2, 3)).tolist() == [float(variant.name != "majority")] * PHOTOS


def test_its_head_on_its_features_is_the_whole_network(variant: Variant) -> None:
    model = variant.bundle.model.eval()
    if variant.name == "majority":  # its head is the whole network
        return
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(model.get_classifier()(features), model(x))


def test_only_the_layers_its_config_unfreezes_have_changed(variant: Variant) -> None:
    if not variant.block.frozen:
        return
    model = variant.bundle.model
    torch.manual_seed(0)
    built = replace(
        variant.block, pretrained=False, frozen=False, unfreeze_last_n=0, weights=None,
        weights_sha256=None, logistic_regression=False,
    )  # fmt: skip
    before = factory.build(variant.name, built, 2).state_dict()
    after = model.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    learned = {name for name in before if name in dict(model.named_parameters())} & changed
    factory.freeze(model, variant.block.unfreeze_last_n)
    may = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learned
    assert learned <= may
    assert changed == learned  # no batch statistics
    assert (len(may) > 4) == (variant.block.unfreeze_last_n > 0)
