"""Merged batch normalizations change no output, and a network is never spoiled."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from anklealign.models import fusion, inputs
from anklealign.models.bundle import default_input
from anklealign.models.input_config import InputConfig

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 72, 72, 3), np.uint8)


def network(name: str) -> nn.Module:
    """Return a network whose batch normalizations have statistics, as after training."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


def normalizations(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    "name",
    ["mobilenetv2_100", "tf_efficientnet_lite0", "resnet18", "anklealign_cnn", "regnetx_002"],
)
def test_all_batch_normalizations_are_merged_without_another_output(name: str) -> None:
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = default_input(model, 64)
    merged = fusion.for_inference(model, config)
    assert normalizations(model) > normalizations(merged) == 0
    for function in (inputs.logits, inputs.features):
        expected, found = (
            np.asarray(function(own, PIXELS, np.arange(4), config, CPU)) for own in (model, merged)
        )
        np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())
    after = model.state_dict()
    assert all(after[key].equal(value) for key, value in before.items())


class Shared(nn.Module):
    """A network whose convolution is read by more than its batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
        nn.init.constant_(self.norm.running_mean, 0.7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.conv(x)
        return (self.norm(before) - before).mean((2, 3))


class Standardized(nn.Conv2d):
    """A convolution that computes its weights when it runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


@pytest.mark.parametrize(
    "model",
    [
        Shared(),
        nn.Sequential(Standardized(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()),
        timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=64),
    ],
)
def test_a_network_that_cannot_be_merged_is_returned(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_var, 3.0)
    config = InputConfig(64, (0.5,) * 3, (0.25,) * 3, "bicubic")
    assert fusion.for_inference(model, config) is model
