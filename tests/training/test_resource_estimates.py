"""Estimates of memory and time are close to measurements."""

import itertools

import pytest
import timm
import torch
from torch import nn

from anklealign.models.networks import Cnn
from anklealign.training import resource_estimates


def measured_activation_memory(model: nn.Module, side: int) -> int:
    """Count what autograd keeps for one photo, by its own hooks on real numbers."""
    seen: dict[int, int] = {}
    keep = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            keep.append(tensor)
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(torch.zeros(8, 3, side, side))
    return sum(seen.values()) // 8


def test_activation_memory_matches_a_measurement() -> None:
    model = Cnn(3, widths=(8, 16), depth=2)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    each, largest = resource_estimates.activation_memory(model, 64)
    assert each == pytest.approx(measured_activation_memory(model.train(), 64), rel=0.1)
    assert largest == 4 * 8 * 32 * 32  # eight channels at half the side
    assert resource_estimates.activation_memory(model, 128)[0] == pytest.approx(4 * each, rel=0.1)
    fresh = Cnn(3, widths=(8, 16), depth=2)
    fresh.load_state_dict(before)
    resource_estimates.activation_memory(fresh, 64)
    assert all(t.equal(before[name]) for name, t in fresh.state_dict().items())


def test_weights_of_a_transformer_are_not_counted_per_photo() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64)
    weights = 4 * sum(p.numel() for p in model.parameters())
    # A photo of 16 patches: 12 blocks keep some 16 tensors each of 17 tokens x 192 numbers.
    assert resource_estimates.activation_memory(model, 64)[0] < 12 * 25 * 17 * 192 * 4 < weights


def test_memory_grows_with_the_batch_and_a_frozen_backbone_saves_nothing() -> None:
    model = Cnn(3, widths=(8, 16))
    weights = 4 * sum(p.numel() for p in model.parameters())
    one, nine = (
        resource_estimates.training_memory(model, model, 64, photos, 4) for photos in (1, 9)
    )
    each, largest = resource_estimates.activation_memory(model, 64)
    assert nine - one == 8 * each
    assert resource_estimates.training_memory(
        model, model, 64, 8, 2
    ) < resource_estimates.training_memory(model, model, 64, 8, 4)
    always = (
        resource_estimates.KERNELS
        + resource_estimates.LIVE_TENSORS * resource_estimates.CHUNK * largest
    )
    assert one - each == 4 * weights + always
    # In larger batches than validation's, more lives at once.
    many = resource_estimates.training_memory(model, model, 64, 100, 4)
    assert many == 4 * weights + resource_estimates.KERNELS + 100 * (
        each + resource_estimates.LIVE_TENSORS * largest
    )
    head = resource_estimates.training_memory(model, model.get_classifier(), 64, 100, 4)
    assert always + weights < head < always + 1.2 * weights


def test_the_timer_returns_seconds_per_step_once_and_skips_the_first_steps() -> None:
    times = itertools.chain([100.0, 110.0])
    timer = resource_estimates.StepTimer(lambda: next(times))
    durations = [timer.tick() for _ in range(20)]
    assert durations[
        resource_estimates.SKIPPED_STEPS + resource_estimates.TIMED_STEPS - 1
    ] == pytest.approx(10 / resource_estimates.TIMED_STEPS)
    assert sum(seconds is not None for seconds in durations) == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 s"), (89, "89 s"), (200, "3 min"), (7300, "2.0 h")]
)
def test_durations_are_formatted_in_their_largest_unit(seconds: float, words: str) -> None:
    assert resource_estimates.format_duration(seconds) == words
