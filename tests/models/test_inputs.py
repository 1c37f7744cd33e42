"""Stored photos are converted to network input in one way for all callers."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from anklealign.models.input_config import CHUNK, InputConfig
from anklealign.models.inputs import (
    features,
    full_precision,
    logits,
    logits_and_features,
    pick_device,
    resize,
    to_input,
)
from anklealign.models.networks import Cnn

CPU = torch.device("cpu")
INPUT = InputConfig(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), "bicubic")


def photos(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_an_input_is_resized_and_normalized_by_channel() -> None:
    gray = np.full((2, 64, 64, 3), 102, np.uint8)
    x = to_input(gray, INPUT, CPU)
    expected = (torch.tensor([0.4] * 3) - torch.tensor(INPUT.mean)) / torch.tensor(INPUT.std)
    assert x.shape == (2, 3, 32, 32)
    torch.testing.assert_close(x, expected.view(1, 3, 1, 1).expand_as(x))


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    y, x = np.mgrid[:64, :64]
    fine = np.repeat((255 * ((x + y) % 2))[None, :, :, None], 3, 3).astype(np.uint8)
    small = resize(torch.from_numpy(fine).permute(0, 3, 1, 2), 16, "bilinear").float()
    assert (small - 127.5).abs().max() < 20


def test_a_photo_of_the_expected_size_is_unchanged() -> None:
    x = torch.from_numpy(photos(1, 32)).permute(0, 3, 1, 2)
    assert resize(x, 32, "bicubic") is x


def test_logits_do_not_depend_on_the_number_of_photos() -> None:
    torch.manual_seed(0)
    model = Cnn(3, widths=(8, 16))
    pixels = photos(CHUNK + 3)
    rows = np.arange(len(pixels))
    joint = logits(model, pixels, rows, INPUT, CPU)
    single = np.concatenate([logits(model, pixels, rows[i : i + 1], INPUT, CPU) for i in rows])
    assert joint.shape == (CHUNK + 3, 3)
    assert not model.training
    np.testing.assert_allclose(single, joint, atol=1e-5)


def test_logits_are_computed_without_tf32_and_the_setting_is_restored() -> None:
    seen = []

    class RecordsTf32(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return x.mean((2, 3))

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        logits(RecordsTf32(), photos(1), np.zeros(1, np.int64), INPUT, CPU)
        assert seen == [False]
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
    with full_precision():
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("name", ["warp", "cuda:99"])
def test_an_unavailable_device_is_named_with_a_remedy(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*choose auto or cpu"):
        pick_device(name)


def test_one_channel_is_the_luma_of_the_photo() -> None:
    pixels = photos(2, 32)
    x = to_input(pixels, InputConfig(32, (0.4,), (0.5,), "bilinear"), CPU)
    luma = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    assert x.shape == (2, 1, 32, 32)
    np.testing.assert_allclose(x[:, 0], (luma - 0.4) / 0.5, atol=1e-5)


def test_one_pass_gives_the_logits_and_the_features() -> None:
    model, config = Cnn(num_classes=3), InputConfig(64, (0.5,) * 3, (0.2,) * 3, "bilinear")
    pixels, rows, cpu = photos(20), np.arange(20)[::-1].copy(), torch.device("cpu")
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    scores, described = logits_and_features(model, pixels, rows, config, cpu)
    assert len(passes) == 2  # chunks of 16
    assert np.array_equal(scores, logits(model, pixels, rows, config, cpu))
    assert torch.equal(described, features(model, pixels, rows, config, cpu))
    assert "forward_head" not in vars(model)


def test_another_caller_of_the_network_during_a_pass_changes_nothing() -> None:
    model, config = Cnn(num_classes=3), InputConfig(64, (0.5,) * 3, (0.2,) * 3, "bilinear")
    pixels, rows, cpu = photos(20), np.arange(20), torch.device("cpu")
    expected, described = logits_and_features(model, pixels, rows, config, cpu)
    others: list[tuple[np.ndarray, torch.Tensor]] = []

    def call(*_: object) -> None:
        handle.remove()
        others.append(logits_and_features(model, pixels, rows[:3], config, cpu))

    handle = model.register_forward_pre_hook(call)
    scores, found = logits_and_features(model, pixels, rows, config, cpu)
    assert np.array_equal(scores, expected)
    assert torch.equal(found, described)
    assert len(others[0][1]) == 3


class HeadlessForward(Cnn):
    """A network whose forward does not call forward_head."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Cnn.forward_head(self, self.forward_features(x)) + 1


def test_a_network_without_a_recorded_head_gets_its_features_by_another_pass() -> None:
    model, config = (
        HeadlessForward(num_classes=3),
        InputConfig(64, (0.5,) * 3, (0.2,) * 3, "bilinear"),
    )
    pixels, rows, cpu = photos(3), np.arange(3), torch.device("cpu")
    scores, described = logits_and_features(model, pixels, rows, config, cpu)
    assert np.array_equal(scores, logits(model, pixels, rows, config, cpu))
    assert torch.equal(described, features(model, pixels, rows, config, cpu))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_stays_with_the_process() -> None:
    count_faults = """
import resource, torch
from anklealign.models import inputs
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB, twice what glibc keeps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(), faults()
returned = faults()
inputs.configure_cpu(2)
# Small blocks may lie in the way of the next large one, one to eight times in 24 processes.
print(returned, min(faults() for _ in range(20)), torch.get_num_threads())
"""
    run = subprocess.run([sys.executable, "-c", count_faults], capture_output=True, check=True)
    returned, kept, threads = map(int, run.stdout.split())
    assert threads == 2
    assert kept < returned / 10
