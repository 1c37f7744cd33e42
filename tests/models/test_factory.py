"""This project's networks and the factory, without downloads."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from anklealign.config import params
from anklealign.config.params import Dataset, Model
from anklealign.io import decoder_pool, files
from anklealign.io.decoder_pool import Target
from anklealign.models import bundle, factory, inputs, networks, weights

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
INSECTS = Path(__file__).resolve().parents[3] / "shared/photos/hymenoptera/val"
CNN = Model("anklealign_cnn", image_size=64, epochs=1, learning_rate=0.01)


def test_the_majority_predicts_class_shares_and_its_feature_map_has_no_gradient() -> None:
    model = networks.Majority(3)
    model.set_counts([6, 3, 1])
    features = model.forward_features(torch.randn(2, 3, 32, 32)).requires_grad_()
    logits = model.forward_head(features)
    logits[:, 0].sum().backward()
    np.testing.assert_allclose(logits.softmax(1).detach(), [[0.6, 0.3, 0.1]] * 2, rtol=1e-6)
    assert features.ndim == 4
    assert features.grad is not None
    assert not features.grad.any()


def test_the_cnn_is_configurable() -> None:
    small = networks.Cnn(3, widths=(8, 16), depth=1)
    deep = networks.Cnn(3, widths=(8, 16), depth=(1, 3))
    bare = networks.Cnn(3, widths=(8, 16), norm=False, drop_rate=0.5)
    assert [m.__class__.__name__ for m in small.stages[0]] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert len(deep.stages[1]) == 9
    assert [m.__class__.__name__ for m in bare.stages[0]] == ["Conv2d", "ReLU"]
    assert bare.drop.p == 0.5
    assert small.forward_features(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 16, 16)


OVERFLOW = """
import torch
from torch import nn
from anklealign.config.params import Model
from anklealign.models import factory
torch.manual_seed(0)
model = factory.build("custom", Model("repvgg_a0", 64, epochs=1, learning_rate=0.1), 2)
layer = model.stem.conv_1x1.conv  # 3 channels, stride 2
x = torch.randn(4, 3, 64, 64)
assert layer(x).shape == (4, layer.out_channels, 32, 32)
expected = nn.functional.conv2d(x, layer.weight, stride=2).square().sum()
(expected,) = torch.autograd.grad(expected, layer.weight)
for weight_format in (torch.contiguous_format, torch.channels_last):
    layer.to(memory_format=weight_format)
    y = layer(x.to(memory_format=torch.channels_last))
    (gradient,) = torch.autograd.grad(y.square().sum(), layer.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=0.1)
"""


def test_the_gradient_of_a_strided_convolution_of_three_channels_is_right() -> None:
    # In a process of its own: where it is wrong, it may abort.
    subprocess.run([sys.executable, "-c", OVERFLOW], check=True)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 4), (9, 1)])
def test_grid_pooling_equals_adaptive_pooling(grid: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 6, 7)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, grid)
    torch.testing.assert_close(networks.grid_average_pool(x, grid), expected)


def test_a_grid_distinguishes_left_from_right_and_global_pooling_does_not() -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 3, 64, 64)
    x[..., 16:24] = 1
    for grid, same in (((1, 1), True), ((4, 4), False)):
        model = networks.Cnn(3, widths=(4,), grid=grid).eval()
        features = model.forward_features(x)
        left, right = model.forward_head(features), model.forward_head(features.flip(3))
        assert torch.allclose(left, right, atol=1e-6) is same


def test_a_class_s_probability_is_the_sum_of_its_imagenet_classes_and_others_count_for_none() -> (
    None
):
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    merged = networks.MergeClasses([[281, 282], [151, 200, 268]])(logits)
    shares = logits.softmax(1)
    expected = torch.stack([shares[:, [281, 282]].sum(1), shares[:, [151, 200, 268]].sum(1)], 1)
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(merged.softmax(1), expected)
    bullfrog = torch.zeros(1, 1000)
    bullfrog[0, 30] = 50.0
    assert networks.MergeClasses([[281], [151]])(bullfrog).softmax(1).tolist() == [[0.5, 0.5]]


def test_the_imagenet_table_has_every_breed_of_cat_and_dog() -> None:
    raw = params.read(Path(__file__).resolve().parents[2] / "params.yaml")
    dataset = params.section(raw, "datasets.cat_dog", Dataset)
    # One row per ImageNet class, with a probability close to 1.
    cat, dog = networks.MergeClasses(dataset.imagenet_indices())(50 * torch.eye(1000)).softmax(1).T
    assert (dog > 0.99).nonzero().flatten().tolist() == list(range(151, 269))
    assert (cat > 0.99).nonzero().flatten().tolist() == list(range(281, 286))
    # A bullfrog's probabilities depend only on the number of ImageNet classes of each.
    assert cat[30] == pytest.approx(5 / (5 + 118))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_an_ordinal_head_orders_its_classes_by_one_score(classes: int) -> None:
    head = networks.CumulativeLink(classes).double()
    scores = torch.linspace(-12, 12, 49, dtype=torch.float64)[:, None]
    logits = head(scores)
    probabilities = logits.exp()
    # They are log probabilities: a softmax changes nothing.
    torch.testing.assert_close(probabilities, logits.softmax(1))
    torch.testing.assert_close(
        head(torch.zeros(1, 1, dtype=torch.float64)).exp(),
        torch.full((1, classes), 1 / classes, dtype=torch.float64),
    )
    cumulative = probabilities.cumsum(1)[:, :-1]
    assert (cumulative.diff(dim=0) < 0).all()  # a larger score means a higher class
    assert probabilities.argmax(1)[[0, -1]].tolist() == [0, classes - 1]
    assert head(torch.tensor([[-1000.0], [1000.0]]).double()).isfinite().all()


def test_an_ordinal_head_s_gradients_are_right() -> None:
    head = networks.CumulativeLink(4).double()
    x = torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(head, x.requires_grad_())


def test_a_head_has_its_layers_and_dropout() -> None:
    block = replace(CNN, head_hidden_dim=8, head_hidden_layers=2, head_drop_rate=0.25)
    layers = [type(layer).__name__ for layer in factory.build("x", block, 3).get_classifier()]
    assert layers == ["Dropout", "Linear", "GELU", "Dropout", "Linear", "GELU", "Dropout", "Linear"]
    linear = factory.build("x", replace(CNN, head_drop_rate=0.25), 3).get_classifier()
    assert [type(layer).__name__ for layer in linear] == ["Dropout", "Linear"]
    assert linear[0].p == 0.25


def test_a_hidden_layer_needs_one_linear_layer_to_replace() -> None:
    block = replace(CNN, architecture="anklealign_majority", head_hidden_dim=8)
    with pytest.raises(
        ValueError, match=r"models\.x: anklealign_majority ends in Majority, .*head"
    ):
        factory.build("x", block, 3)


def test_zero_shot_needs_a_table_and_all_of_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = networks.Cnn(1000).state_dict()
    save_file({name: t for name, t in state.items() if not name.startswith("head")}, path)
    block = replace(with_weights(path), zero_shot=True, epochs=0)
    with pytest.raises(ValueError, match=r"datasets\.<name>\.imagenet"):
        factory.build("x", block, 2)
    with pytest.raises(ValueError, match="does not fit anklealign_cnn"):
        factory.build("x", block, 2, [[1], [2]])


@pytest.mark.parametrize("excluded", ["running_", ".bias", "stages.1.1.", "stages.2.0.weight"])
def test_weights_that_lack_tensors_besides_the_classifier_are_refused(
    tmp_path: Path, excluded: str
) -> None:
    path = tmp_path / "weights.safetensors"
    state = networks.Cnn(7).state_dict()
    save_file({name: t for name, t in state.items() if excluded not in name}, path)
    lost = [n for n in state if excluded in n and "head" not in n and "num_batches" not in n]
    with pytest.raises(ValueError, match=f"{len(lost)} tensors are missing, such as {lost[0]}"):
        factory.build("x", with_weights(path), 3)


def test_imagenet_head_initializes_the_classifier_from_imagenet_rows(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = networks.Cnn(1000).state_dict()
    state["head.bias"] = torch.randn(1000)
    save_file(state, path)
    block = replace(with_weights(path), imagenet_head=True)
    made = factory.build("x", block, 2, [[5, 7], [9]]).state_dict()
    for name in ("weight", "bias"):
        rows = state[f"head.{name}"]
        expected = torch.stack([(rows[5] + rows[7]) / 2, rows[9]])
        torch.testing.assert_close(made[f"head.{name}"], expected)
    assert made["stages.3.0.weight"].equal(state["stages.3.0.weight"])
    fresh = factory.build("x", block, 2).state_dict()
    assert float(fresh["head.weight"].abs().max()) < 0.1
    assert not fresh["head.bias"].any()


def test_imagenet_head_needs_weights_with_a_classifier(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({n: t for n, t in networks.Cnn(1000).state_dict().items() if "head" not in n}, path)
    block = replace(with_weights(path), imagenet_head=True)
    with pytest.raises(
        ValueError, match=r"anklealign_cnn: .*head\.weight.* remove .*imagenet_head"
    ):
        factory.build("x", block, 2, [[1], [2]])


@pytest.mark.parametrize(
    ("architecture", "trainable"),
    [
        ("convnext_atto", ["head.", "stages.3.blocks.1."]),
        ("test_vit", ["head.", "norm.", "blocks.5."]),
        ("resnet10t", ["fc.", "layer4.0."]),
        ("mobilenetv2_035", ["classifier.", "conv_head.", "bn2.", "blocks.6."]),
    ],
)
def test_a_norm_alone_does_not_count_as_a_block(architecture: str, trainable: list[str]) -> None:
    model = timm.create_model(architecture, num_classes=3)
    factory.freeze(model, 1)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {n for n, _ in model.named_parameters() if n.startswith(tuple(trainable))}


def test_initial_weights_keep_the_signal_s_scale_through_many_layers() -> None:
    torch.manual_seed(0)
    model = networks.Cnn(3, widths=(32, 32, 32), depth=5, norm=False).eval()
    with torch.inference_mode():
        features = model.forward_features(torch.randn(4, 3, 64, 64))
    assert 0.05 < features.std() < 5


def test_one_seed_gives_one_network() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = factory.build("x", CNN, 3)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


def test_the_cnn_supports_timm_s_interface() -> None:
    model = timm.create_model("anklealign_cnn", num_classes=3)
    groups = timm.models.group_parameters(model, model.group_matcher())
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    model.reset_classifier(5)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "resnet81"}, ["'resnet81'", "did you mean resnet18"]),
        ({"architecture": "resnet18.foo"}, ["'foo'", "resnet18.tv_in1k"]),
        ({"arguments": {"wide": 3}}, ["wide", "arguments", "models.x"]),
    ],
)
def test_an_invalid_model_config_is_named_with_a_remedy(
    changes: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"models\.x") as caught:
        factory.build("x", replace(CNN, **changes), 3)
    for word in words:
        assert word in str(caught.value)


def with_weights(path: Path, architecture: str = "anklealign_cnn") -> Model:
    return Model(
        architecture, image_size=64, epochs=1, learning_rate=0.01, pretrained=True,
        weights=str(path), weights_sha256=files.sha256(path),
    )  # fmt: skip


def test_a_file_s_weights_are_loaded_below_a_fresh_classifier(tmp_path: Path) -> None:
    source = networks.Cnn(7)
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    model = factory.build("x", with_weights(path), 3)
    state = model.state_dict()
    assert state["stages.1.0.weight"].equal(source.state_dict()["stages.1.0.weight"])
    assert state["head.weight"].shape[0] == 3


@pytest.mark.parametrize("defect", ["missing", "changed", "half", "foreign", "no weights"])
def test_unusable_weights_are_an_error_with_both_remedies(tmp_path: Path, defect: str) -> None:
    path = tmp_path / "weights.safetensors"
    state = networks.Cnn(7).state_dict()
    if defect == "half":  # timm alone would leave the rest at random, silently
        state = {name: t for name, t in state.items() if not name.startswith("stages.2.0")}
    if defect == "foreign":
        state = networks.Cnn(7, widths=(8, 16, 24, 32)).state_dict()
    save_file(state, path)
    if defect == "no weights":
        path.write_bytes(b"PK not a checkpoint")
    block = with_weights(path)
    if defect == "missing":
        path.unlink()
    if defect == "changed":
        path.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"models\.x.*weights.safetensors"):
        factory.build("x", block, 3)


def test_weights_missing_from_the_hub_are_an_error_with_both_remedies() -> None:
    with pytest.raises(ValueError, match=r"weights: PATH.*pretrained: false"):
        factory.build("x", replace(CNN, pretrained=True), 3)


def test_only_the_classifier_of_a_frozen_network_is_trainable() -> None:
    model = networks.Cnn(3)
    factory.freeze(model)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable == ["head.weight", "head.bias"]


def test_a_network_without_blocks_can_be_frozen_as_a_whole() -> None:
    model = timm.create_model("csatv2", num_classes=3)
    factory.freeze(model)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable == ["head.fc.weight", "head.fc.bias"]
    with pytest.raises(ValueError, match="unfreeze_last_n = 1, but timm defines no blocks of CSAT"):
        factory.freeze(model, 1)


def lite0(name: str, **changes: object) -> Model:
    return replace(params.section(params.read(PARAMS), f"models.{name}", Model), **changes)


def test_the_installed_weights_load_below_a_fresh_classifier() -> None:
    config = lite0("lite0_probe")
    model = factory.build("x", config, 2)
    tensors = torch.load(weights.find_file(config), weights_only=True)
    counted = [name for name in tensors if not name.endswith("num_batches_tracked")]
    assert len(counted) == 247
    assert model.conv_stem.weight.equal(tensors["_conv_stem.weight"])
    assert model.bn2.running_var.equal(tensors["_bn1.running_var"])
    assert model.get_classifier().out_features == 2
    with pytest.raises(ValueError, match="296 tensors do not have the shapes of mobilenetv2_100"):
        factory.build("x", lite0("lite0_probe", architecture="mobilenetv2_100.ra_in1k"), 2)


@pytest.mark.skipif(not INSECTS.is_dir(), reason="../shared/photos is not there")
def test_the_installed_weights_know_ants_and_bees_without_training() -> None:
    imagenet = params.section(params.read(PARAMS), "datasets.ants_bees", Dataset).imagenet_indices()
    model = factory.build("x", lite0("lite0_zero_shot"), 2, imagenet)
    photos = [sorted((INSECTS / name).glob("*.jpg"))[:12] for name in ("ants", "bees")]
    target = Target(80.0, 256, "crop", 114)
    pixels = np.stack(
        [decoder_pool.shared().decode(f.read_bytes(), target).pixels for row in photos for f in row]
    )
    logits = inputs.logits(
        model, pixels, np.arange(24), bundle.default_input(model, 224), torch.device("cpu")
    )
    assert (logits.argmax(1) == np.repeat([0, 1], 12)).mean() >= 0.9  # measured on all 153: 0.974


def test_input_channels_that_photos_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"models\.x\.arguments\.in_chans = 4: .* use 3, or 1"):
        factory.build("x", replace(CNN, arguments={"in_chans": 4}), 3)


def test_a_network_that_cannot_take_the_photos_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(networks.Cnn, "forward_head", lambda _, x: x)
    with pytest.raises(ValueError, match=r"models\.x: anklealign_cnn does not classify photos of"):
        factory.build("x", CNN, 3)


DISTILLED = {"depth": 1, "img_size": 64, "embed_dim": 48, "num_heads": 3}


def test_both_classifiers_of_a_distilled_network_are_trained_when_it_is_frozen() -> None:
    block = replace(
        CNN, architecture="deit_tiny_distilled_patch16_224", image_size=64, arguments=DISTILLED
    )
    model = factory.build("x", block, 3)
    factory.freeze(model)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"head", "head_dist"}
    # Both read features of their own, so that one classifier is not enough.
    assert factory.classifier_of_features(model, torch.randn(2, 3, 64, 64)) is None


def test_a_classifier_of_its_features_is_recognized() -> None:
    model = factory.build("x", CNN, 3)
    x = torch.randn(2, 3, 32, 32)
    assert factory.classifier_of_features(model, x) is model.get_classifier()
    assert model.training
