"""Without PyTorch, networks get the same input."""

import numpy as np
import pytest
import torch

from anklealign.inference import numpy_inputs
from anklealign.models import inputs, novelty, novelty_detector
from anklealign.models.input_config import InputConfig

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(side: int) -> np.ndarray:
    """Return noise, and noise of black and white, of which bicubic weights leave the range."""
    noise = np.random.default_rng(side).integers(0, 256, (2, side, side, 3), np.uint8)
    noise[1] = np.where(noise[1] > 127, 255, 0)
    return noise


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("side", "size"),
    [
        (256, 96),
        (256, 160),
        (256, 224),
        (256, 256),
        (100, 224),
        (257, 160),
        (512, 64),
        (7, 5),
        (1, 4),
    ],
)
def test_the_input_has_the_same_bytes(side: int, size: int, interpolation: str) -> None:
    config, pixels = InputConfig(size, MEAN, STD, interpolation), pictures(side)
    expected = inputs.to_input(pixels, config, CPU).numpy()
    actual = numpy_inputs.to_input(pixels, config)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


def test_gray_input_differs_in_the_last_bit_at_most() -> None:
    config, pixels = InputConfig(24, (0.45,), (0.22,), "bilinear"), pictures(64)
    actual = numpy_inputs.to_input(pixels, config)
    assert actual.shape == (2, 1, 24, 24)
    expected = inputs.to_input(pixels, config, CPU).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


def test_features_get_length_1() -> None:
    features = np.random.default_rng(0).normal(0, 3, (50, 1280)).astype(np.float32)
    expected = novelty.unit(torch.from_numpy(features))
    np.testing.assert_allclose(novelty_detector.unit(features), expected, rtol=2**-10)
