import numpy as np
import pytest
import timm
import torch

from anklealign.explainability import attribution
from anklealign.models import factory  # noqa: F401 - registers the own networks
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.models.input_config import InputConfig

SIDE = 64
CONVOLUTIONAL = {
    "anklealign_cnn": {"grid": [4, 4]},
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "convnext_atto": {},
    "swin_tiny_patch4_window7_224": {"img_size": SIDE, "depths": (1, 1, 1, 1)},
}
TRANSFORMERS = {
    "vit_tiny_patch16_224": {"depth": 3},
    "deit_tiny_distilled_patch16_224": {"depth": 3},
    "vit_small_patch14_reg4_dinov2": {"depth": 2, "img_size": 56},
}
AVERAGING = {"class_token": False, "global_pool": "avg", "depth": 3}


def bundle_of(name: str, **arguments) -> Bundle:
    torch.manual_seed(1)
    if "depth" in arguments:
        arguments.setdefault("img_size", SIDE)
    model = timm.create_model(name, num_classes=3, **arguments)
    size = arguments.get("img_size", SIDE)
    preprocessing = Preprocessing(SIDE, "letterbox", 114, 80)
    input_config = InputConfig(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
    return Bundle(("a", "b", "c"), preprocessing, input_config, 1.0, 0.5, {}, model=model.eval())


@pytest.fixture
def photos():
    return np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, *TRANSFORMERS])
def test_every_network_has_grad_cam_in_zero_to_one(name, photos):
    bundle = bundle_of(name, **(CONVOLUTIONAL | TRANSFORMERS)[name])
    maps = [attribution.heat_maps(bundle, photos, np.full(3, k)) for k in range(3)]
    for heat in maps:
        assert heat.shape == (3, SIDE, SIDE)
        assert heat.dtype == np.float32
        assert np.isfinite(heat).all()
        assert heat.min() >= 0
        assert set(heat.max((1, 2)).round(5)) <= {0.0, 1.0}
    # An untrained network may lack evidence for one class, but not for all three.
    assert np.max(maps, axis=(0, 2, 3)).tolist() == [1, 1, 1]
    assert not np.array_equal(maps[0], maps[1])


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_transformer_has_rollout_and_heads_though_attention_is_fused(name, photos):
    bundle = bundle_of(name, **TRANSFORMERS[name])
    fused = [m.fused_attn for m in bundle.model.modules() if hasattr(m, "fused_attn")]
    assert fused
    assert all(fused)
    rollout = attribution.heat_maps(bundle, photos, np.zeros(3, np.int64), "rollout")
    heads = attribution.attention_maps(bundle, photos)
    assert rollout.shape == (3, SIDE, SIDE)
    assert heads.shape == (3, bundle.model.blocks[-1].attn.num_heads, SIDE, SIDE)
    for maps in (rollout, heads):
        assert np.allclose(maps.max((-1, -2)), 1)
        assert (maps.std((-1, -2)) > 0).all()
    # The model is unchanged.
    assert [m.fused_attn for m in bundle.model.modules() if hasattr(m, "fused_attn")] == fused


def test_a_network_that_averages_its_tokens_has_rollout_too(photos):
    bundle = bundle_of("vit_tiny_patch16_224", **AVERAGING)
    maps = attribution.heat_maps(bundle, photos, np.zeros(3, np.int64), "rollout")
    assert np.allclose(maps.max((1, 2)), 1)
    assert attribution.heat_maps(bundle, photos, np.zeros(3, np.int64)).shape == maps.shape


def test_rollout_is_the_product_of_the_layers(photos):
    """Against attention computed by hand from the queries and keys."""
    bundle = bundle_of("vit_tiny_patch16_224", depth=2)
    model = bundle.model
    x = attribution.to_input(photos, bundle.input_config, torch.device("cpu"))
    matrices = []
    with torch.no_grad():
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
        for block in model.blocks:
            inner = block.attn
            n, t, _ = tokens.shape
            qkv = inner.qkv(block.norm1(tokens)).reshape(n, t, 3, inner.num_heads, -1)
            q, k, _ = qkv.permute(2, 0, 3, 1, 4)
            matrices.append((q @ k.transpose(-1, -2) * inner.scale).softmax(-1).mean(1))
            tokens = block(tokens)
    first, second = (0.5 * m + 0.5 * torch.eye(t) for m in matrices)
    rows = (second @ first)[:, 0, 1:]
    expected = rows - rows.amin(1, keepdim=True)
    found = attribution._rollout(model, x, torch.zeros(3))
    assert torch.allclose(found.flatten(1), expected, atol=1e-6)


def test_networks_without_attention_are_refused_for_rollout(photos):
    bundle = bundle_of("resnet18")
    assert not attribution.has_attention(bundle.model)
    with pytest.raises(ValueError, match="no readable attention; use the method grad"):
        attribution.heat_maps(bundle, photos, np.zeros(3, np.int64), "rollout")


def test_a_layer_without_readable_attention_is_an_error(photos):
    bundle = bundle_of("vit_tiny_patch16_224", depth=2)
    inner = bundle.model.blocks[1].attn
    inner.forward = lambda x, **_: x  # as a kernel that never forms the matrix
    with pytest.raises(ValueError, match="1 of 2 attention matrices"):
        attribution.heat_maps(bundle, photos, np.zeros(3, np.int64), "rollout")


def test_grad_cam_finds_the_only_evidence_for_the_class():
    """A network whose class b is 'red on the left, or blue on the right'."""
    bundle = bundle_of("anklealign_cnn", widths=[4], grid=[1, 2])
    with torch.no_grad():
        for weights in bundle.model.parameters():
            weights.zero_()
        convolution, norm = bundle.model.stages[0][0], bundle.model.stages[0][1]
        norm.weight.fill_(1)
        convolution.weight[0, 0, 1, 1] = convolution.weight[1, 2, 1, 1] = 1
        head = bundle.model.head.weight.view(3, 4, 1, 2)
        head[1, 0, 0, 0] = head[1, 1, 0, 1] = 1
        head[1, 0, 0, 1] = head[1, 1, 0, 0] = -1
    photo = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    photo[:, 8:24, 8:24, 0] = 255  # red, on the left
    photo[:, 40:56, 40:56, 0] = 255  # red, on the right: evidence against
    heat = attribution.heat_maps(bundle, photo, np.array([1]))[0]
    assert heat[10:22, 10:22].min() > 0.9
    assert heat[:, 32:].max() == 0
    assert heat[30:, :32].max() == 0


def test_the_majority_model_has_empty_maps(photos):
    bundle = bundle_of("anklealign_majority")
    assert not attribution.heat_maps(bundle, photos, np.zeros(3, np.int64)).any()


def test_maps_do_not_depend_on_the_batch(photos):
    bundle = bundle_of("mobilenetv3_small_050")
    many = np.concatenate([photos] * 7)
    classes = np.arange(21) % 3
    together = attribution.heat_maps(bundle, many, classes)
    alone = attribution.heat_maps(bundle, many[20:], classes[20:])
    assert np.allclose(together[20], alone[0], atol=1e-4)
    assert attribution.heat_maps(bundle, many[:0], classes[:0]).shape == (0, SIDE, SIDE)


def test_a_frozen_backbone_is_explained_and_keeps_no_gradient(photos):
    bundle = bundle_of("resnet18")
    for parameter in bundle.model.parameters():
        parameter.requires_grad_(False)
    assert attribution.heat_maps(bundle, photos, np.zeros(3, np.int64)).any()
    assert all(p.grad is None for p in bundle.model.parameters())


CLASS_ATTENTION = {
    "cait_xxs24_224": {"depth": 2},
    "xcit_nano_12_p16_224": {"depth": 2, "img_size": 64},
    "tnt_s_legacy_patch16_224": {"depth": 2},
}


@pytest.mark.parametrize("name", CLASS_ATTENTION)
def test_networks_without_gradient_at_their_last_patches_have_maps(name, photos):
    bundle = bundle_of(name, **CLASS_ATTENTION[name])
    maps = [attribution.heat_maps(bundle, photos, np.full(3, k)) for k in range(3)]
    assert np.max(maps, axis=(0, 2, 3)).tolist() == [1, 1, 1]
    assert (np.std(maps, axis=(2, 3)) > 0).any(0).all()


class Scales(torch.nn.Module):
    """A network that passes its head a list of two scales: class b is the red of both."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Identity())
        self.coarse = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Identity())

    def forward_features(self, x):
        fine = self.fine(x)
        return [fine.flatten(2), self.coarse(fine).flatten(2)]

    def forward_head(self, scales):
        red = sum(tokens[:, 0].mean(1) for tokens in scales)
        return torch.stack([0 * red, red, -red], 1)


def test_a_network_of_several_scales_shows_the_evidence_of_its_last_map():
    x = torch.zeros(2, 3, 64, 64)
    x[0, 0, :16, :16] = x[1, 0, 48:, 48:] = 1
    x[:, 2, 16:32] = 1  # blue is no evidence
    maps = attribution._grad_cam(Scales(), x, torch.tensor([1, 1]))
    assert maps.shape == (2, 1, 4, 4)
    for n, place in ((0, (0, 0)), (1, (3, 3))):
        assert maps[n, 0].argmax() == place[0] * 4 + place[1]
        assert int((maps[n, 0] != 0).sum()) == 1


def test_without_a_map_the_evidence_is_that_of_the_pixels():
    class Flat(torch.nn.Module):
        def forward_features(self, x):
            return x.flatten(1)

        def forward_head(self, x):
            red = x[:, : 64 * 64].sum(1)
            return torch.stack([red, -red], 1)

    x = torch.zeros(1, 3, 64, 64)
    x[0, 0, 8:12, 60:64] = 1
    maps = attribution._grad_cam(Flat(), x, torch.tensor([0]))
    assert maps.shape == (1, 1, attribution.PIXEL_CELLS, attribution.PIXEL_CELLS)
    assert maps.flatten().nonzero().flatten().tolist() == [2 * 16 + 15]
