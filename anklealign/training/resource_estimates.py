"""What a fit will take, told before and while it runs: memory and time.

Shapes: B photos of a batch, H the network's side.
"""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from anklealign.models.inputs import CHUNK

# AdamW's two moments; SGD keeps one, Adafactor almost none.
MOMENTS = 2
# Tensors of the largest layer's size that live at once beside what is kept: its input, output and
# gradient. And what kernels and threads take whatever the network, on 2 cores.
LIVING, KERNELS = 3, 50 * 2**20
# Of the expected steps: the first ones also choose kernels and fill caches.
SKIPPED, TIMED = 2, 5


def memory(model: nn.Module, learner: nn.Module, side: int, photos: int, bytes_each: int) -> int:
    """Return the bytes that training is expected to take, within a half (benchmarks/variants.py).

    Weights, their gradients and moments in single precision, what the forward pass keeps for the
    backward pass, counted by passing a photo of shape (1, 3, H, H) without data, and what lives for
    a moment, also where photos pass only forwards: for validation, or for a head alone.

    Args:
        model: The whole network.
        learner: What learns: the model, or its head alone, which keeps next to nothing.
        side: H.
        photos: That pass the network at once.
        bytes_each: Of a kept number: 4, or 2 in half precision.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    learned = sum(p.numel() * p.element_size() for p in learner.parameters() if p.requires_grad)
    each, largest = kept(model, side)
    total = weights + learned * (1 + MOMENTS) + KERNELS
    if learner is not model:
        return total + LIVING * largest * CHUNK
    living = LIVING * largest * max(photos * bytes_each // 4, CHUNK)
    return total + photos * each * bytes_each // 4 + living


def kept(model: nn.Module, side: int) -> tuple[int, int]:
    """Return the bytes that the backward pass needs of one photo, and those of its largest layer.

    In single precision; the largest layer's output, whether that layer learns or not.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    storages: dict[int, tuple[object, int]] = {}

    def storage_of(tensor: Tensor) -> tuple[int, tuple[object, int]]:
        storage = tensor.untyped_storage()
        # The storage is kept too, or its address may be another's next.
        return storage._cdata, (storage, storage.nbytes())  # noqa: SLF001 - its identity

    # By storage, as a linear layer keeps its weight's transpose: another tensor, the same memory.
    own = dict(storage_of(tensor) for tensor in [*shadow.parameters(), *shadow.buffers()])

    def note(tensor: Tensor) -> Tensor:
        identity, found = storage_of(tensor)
        if identity not in own:
            storages[identity] = found
        return tensor

    outputs = []

    def measure(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.nbytes)

    for module in shadow.modules():
        module.register_forward_hook(measure)
    x = torch.zeros(2, 3, side, side, device="meta")  # two: batch norm takes no single photo
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        shadow(x)
    return sum(size for _, size in storages.values()) // 2, max(outputs) // 2


class Clock:
    """Tells after the first steps how long one takes."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Start before the first step."""
        self.done, self.now, self.start = 0, now, 0.0

    def tick(self) -> float | None:
        """Count a step; return the seconds of one, once, when enough were timed."""
        self.done += 1
        if self.done == SKIPPED:
            self.start = self.now()
        if self.done != SKIPPED + TIMED:
            return None
        return (self.now() - self.start) / TIMED


def in_words(seconds: float) -> str:
    """Return a duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
