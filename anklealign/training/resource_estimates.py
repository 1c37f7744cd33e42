"""Estimate the memory and the time of a fit.

Shapes: B photos of a batch, H the network's input side.
"""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from anklealign.models import factory
from anklealign.models.input_config import CHUNK, InputConfig
from anklealign.models.inputs import logits
from anklealign.training.trainer import FitConfig, pick_precision

# Optimizer moments per weight. AdamW keeps two, SGD one, Adafactor almost none.
MOMENTS = 2
# Tensors of the largest layer's size that exist at once in addition to the saved activations:
# input, output and gradient.
LIVE_TENSORS = 3
# Memory of kernels and threads for any network, measured on 2 cores.
KERNELS = 50 * 2**20
# The first steps are slower: they select kernels and fill caches.
SKIPPED_STEPS, TIMED_STEPS = 2, 5


def describe_memory(model: nn.Module, config: FitConfig) -> str:
    """Return a sentence on the memory each process is expected to need."""
    try:
        return f"about {expected_memory(model, config) / 2**20:,.0f} MiB of memory per process"
    except Exception as error:  # noqa: BLE001 - a failed estimate must not stop a fit
        return f"no estimate of memory for this network ({type(error).__name__})"


def expected_memory(model: nn.Module, config: FitConfig) -> int:
    """Return the bytes each process is expected to need for a fit."""
    settings, model_config = config.train_config, config.model_config
    if model_config.frozen:
        factory.freeze(model, model_config.unfreeze_last_n)
    heads = factory.classifiers(model)
    learner = heads[0] if model_config.head_alone and len(heads) == 1 else model
    divisor = config.process_group.size * settings.gradient_accumulation_steps
    precision = pick_precision(settings.precision, config.device)
    return training_memory(
        model, learner, model_config.image_size, -(-settings.batch_size // divisor),
        precision.itemsize,
    )  # fmt: skip


def training_memory(
    model: nn.Module, learner: nn.Module, side: int, photos: int, bytes_per_value: int
) -> int:
    """Return the bytes that training is expected to need, within 50% (benchmarks/variants.py).

    The sum of weights, gradients and optimizer moments in single precision; of the activations
    saved for the backward pass, measured per photo of shape (3, H, H) on the meta device; and of
    the short-lived tensors of a forward pass, which validation and a frozen backbone need too.

    Args:
        model: The whole network.
        learner: The trained module: the model, or its head alone, which saves almost nothing.
        side: H.
        photos: Photos per forward pass.
        bytes_per_value: Of a saved activation: 4, or 2 in half precision.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in learner.parameters() if p.requires_grad)
    activations, largest = activation_memory(model, side)
    total = weights + trained * (1 + MOMENTS) + KERNELS
    if learner is not model:
        return total + LIVE_TENSORS * largest * CHUNK
    live = LIVE_TENSORS * largest * max(photos * bytes_per_value // 4, CHUNK)
    return total + photos * activations * bytes_per_value // 4 + live


def activation_memory(model: nn.Module, side: int) -> tuple[int, int]:
    """Return the bytes per photo of all activations saved for backward, and of the largest output.

    Both in single precision. The largest output counts whether its layer is trained or frozen.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    storages: dict[int, tuple[object, int]] = {}

    def storage_of(tensor: Tensor) -> tuple[int, tuple[object, int]]:
        storage = tensor.untyped_storage()
        # Keep a reference to the storage: a freed address could be reused by the next one.
        return storage._cdata, (storage, storage.nbytes())  # noqa: SLF001 - its identity

    # Compare storages, not tensors: a linear layer saves the transpose of its weight, which is
    # another tensor on the same memory.
    own = dict(storage_of(tensor) for tensor in [*shadow.parameters(), *shadow.buffers()])

    def record(tensor: Tensor) -> Tensor:
        identity, storage = storage_of(tensor)
        if identity not in own:
            storages[identity] = storage
        return tensor

    output_sizes = []

    def measure(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            output_sizes.append(output.nbytes)

    for module in shadow.modules():
        module.register_forward_hook(measure)
    channels = getattr(model, "in_chans", 3)
    x = torch.zeros(2, channels, side, side, device="meta")  # batch norm rejects a batch of one
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        shadow(x)
    return sum(size for _, size in storages.values()) // 2, max(output_sizes) // 2


def photos_per_second(model: nn.Module, input_config: InputConfig, device: torch.device) -> float:
    """Return how many photos a network takes per second, from the second of two forward passes."""
    side = input_config.image_size
    photos = np.zeros((CHUNK, side, side, 3), np.uint8)
    model.to(memory_format=torch.channels_last)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        logits(model, photos, np.arange(CHUNK), input_config, device)
        seconds = time.perf_counter() - start
    return CHUNK / seconds


class StepTimer:
    """Measure the duration of a training step once, after the first steps."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Start at zero steps."""
        self.steps, self.now, self.start = 0, now, 0.0

    def tick(self) -> float | None:
        """Count a step; return the mean seconds per step after the last timed one, else None."""
        self.steps += 1
        if self.steps == SKIPPED_STEPS:
            self.start = self.now()
        if self.steps != SKIPPED_STEPS + TIMED_STEPS:
            return None
        return (self.now() - self.start) / TIMED_STEPS


def format_duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
