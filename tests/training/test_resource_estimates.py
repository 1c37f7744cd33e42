"""What a fit is said to take is near what it takes."""

import itertools

import pytest
import timm
import torch
from torch import nn

from anklealign.models.networks import Cnn
from anklealign.training import resource_estimates


def kept_in_truth(model: nn.Module, side: int) -> int:
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


def test_what_the_backward_pass_keeps_is_counted_without_computing() -> None:
    model = Cnn(3, widths=(8, 16), depth=2)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    each, largest = resource_estimates.kept(model, 64)
    assert each == pytest.approx(kept_in_truth(model.train(), 64), rel=0.1)
    assert largest == 4 * 8 * 32 * 32  # eight channels at half the side
    assert resource_estimates.kept(model, 128)[0] == pytest.approx(4 * each, rel=0.1)
    fresh = Cnn(3, widths=(8, 16), depth=2)
    fresh.load_state_dict(before)
    resource_estimates.kept(fresh, 64)
    assert all(t.equal(before[name]) for name, t in fresh.state_dict().items())


def test_a_transformer_s_weights_are_not_counted_once_a_photo() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64)
    weights = 4 * sum(p.numel() for p in model.parameters())
    # A photo of 16 patches: 12 blocks keep some 16 tensors each of 17 tokens x 192 numbers.
    assert resource_estimates.kept(model, 64)[0] < 12 * 25 * 17 * 192 * 4 < weights


def test_memory_grows_with_photos_at_once_and_a_head_alone_takes_next_to_nothing() -> None:
    model = Cnn(3, widths=(8, 16))
    weights = 4 * sum(p.numel() for p in model.parameters())
    one, nine = (resource_estimates.memory(model, model, 64, photos, 4) for photos in (1, 9))
    each, largest = resource_estimates.kept(model, 64)
    assert nine - one == 8 * each
    assert resource_estimates.memory(model, model, 64, 8, 2) < resource_estimates.memory(
        model, model, 64, 8, 4
    )
    always = (
        resource_estimates.KERNELS + resource_estimates.LIVING * resource_estimates.CHUNK * largest
    )
    assert one - each == 4 * weights + always
    # In larger batches than validation's, more lives at once.
    many = resource_estimates.memory(model, model, 64, 100, 4)
    assert many == 4 * weights + resource_estimates.KERNELS + 100 * (
        each + resource_estimates.LIVING * largest
    )
    head = resource_estimates.memory(model, model.get_classifier(), 64, 100, 4)
    assert always + weights < head < always + 1.2 * weights


def test_the_clock_tells_a_step_s_seconds_once_and_leaves_the_first_steps_out() -> None:
    times = itertools.chain([100.0, 110.0])
    clock = resource_estimates.Clock(lambda: next(times))
    told = [clock.tick() for _ in range(20)]
    assert told[resource_estimates.SKIPPED + resource_estimates.TIMED - 1] == pytest.approx(
        10 / resource_estimates.TIMED
    )
    assert sum(seconds is not None for seconds in told) == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 s"), (89, "89 s"), (200, "3 min"), (7300, "2.0 h")]
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert resource_estimates.in_words(seconds) == words
