"""Pixels of the store into a network's input, a batch at a time.

Shapes: N photos, S the store's side, H the network's side (`image_size`), K classes. Photos travel
as uint8 until they are on the device. Resizing is done on uint8 on the CPU: whole-number arithmetic
that gives the same pixels to train, evaluate, predict and the service, whatever the device.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from anklealign.photos import Pixels

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Photos a forward pass outside training. Fixed, as another size may round the last bit otherwise.
CHUNK = 16

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Input:
    """What a network takes: its side in pixels, and the channels' mean and deviation in 0 to 1."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


@dataclass(frozen=True)
class Photos:
    """Labelled photos: the store, and for each of N photos its row there, its id and its class.

    `soft` (N, K), rows summing to 1, is what annotators said, where a fit is to learn from that
    instead of from one class a photo.
    """

    pixels: Pixels
    rows: Integers
    ids: tuple[str, ...]
    labels: Integers
    soft: Floats | None = None


def pick_device(name: str) -> torch.device:
    """Return the device of a name; auto is a CUDA GPU where there is one.

    Raises:
        ValueError: The name is none, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device = {name!r} cannot be used on this machine: {reason}; choose auto or cpu"
        ) from None
    return device


def resize(pixels_nchw: Tensor, size: int, interpolation: str) -> Tensor:
    """Resize with antialiasing: uint8 (N, 3, S, S) -> uint8 (N, 3, H, H)."""
    if pixels_nchw.shape[-2:] == (size, size):
        return pixels_nchw
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    return nn.functional.interpolate(pixels_nchw, (size, size), mode=mode, antialias=True)


def normalise(x: Tensor, network_input: Input) -> Tensor:
    """Scale as the network learned it: (N, 3, H, H) in 0 to 1 -> (N, 3, H, H)."""
    mean = torch.tensor(network_input.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(network_input.std, device=x.device).view(1, 3, 1, 1)
    return (x - mean).div_(std)


def whole(pixels_nhwc: Pixels, network_input: Input, device: torch.device) -> Tensor:
    """Return whole photos as a network's input: uint8 (N, S, S, 3) -> float (N, 3, H, H)."""
    x = torch.from_numpy(np.array(pixels_nhwc)).permute(0, 3, 1, 2)
    x = resize(x, network_input.image_size, network_input.interpolation)
    return normalise(x.to(device).float() / 255, network_input)


def logits(
    model: nn.Module, pixels: Pixels, rows: Integers, network_input: Input, device: torch.device
) -> Floats:
    """Return a model's answers in fp32 without augmentation: N rows of the store -> (N, K)."""
    model.eval()
    return _in_chunks(model, pixels, rows, network_input, device).numpy().astype(np.float64)


def features(
    model: nn.Module, pixels: Pixels, rows: Integers, network_input: Input, device: torch.device
) -> Tensor:
    """Return what a timm model hands to its last layer: N rows of the store -> (N, C) on the CPU.

    In fp32, without augmentation and without dropout.
    """
    model.eval()

    def backbone(x: Tensor) -> Tensor:
        pooled: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
        return pooled

    return _in_chunks(backbone, pixels, rows, network_input, device)


def _in_chunks(
    function: Callable[[Tensor], Tensor],
    pixels: Pixels,
    rows: Integers,
    network_input: Input,
    device: torch.device,
) -> Tensor:
    answers = []
    with torch.no_grad(), full_precision():
        # At least one pass: a model's answer to no photos still has K columns.
        starts = range(0, max(1, len(rows)), CHUNK)
        alone = len(starts) == 1  # as in the service
        bar = tqdm(starts, "network", unit="batch", delay=1, leave=False, disable=alone or None)
        for start in bar:
            x = whole(pixels[rows[start : start + CHUNK]], network_input, device)
            answers.append(function(x).float().cpu())
    return torch.cat(answers)


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn TF32 off for a while: its 10-bit mantissa moves probabilities in the third digit."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def epoch_order(labels: Integers, seed: int, epoch: int, *, balanced: bool = False) -> Integers:
    """Return an epoch's photos, shuffled: classes (N,) -> N indices.

    Each photo once; or balanced, every class as often as any other, to one, and within a class
    every photo, to one.
    """
    rng = np.random.default_rng([seed, epoch])
    photos = len(labels)
    if not balanced:
        return rng.permutation(photos)
    classes = np.unique(labels)
    chosen = []
    for share, label in zip(np.array_split(np.arange(photos), len(classes)), classes, strict=True):
        own = np.flatnonzero(labels == label)
        rounds = -(-len(share) // len(own))
        chosen.append(np.concatenate([rng.permutation(own) for _ in range(rounds)])[: len(share)])
    return rng.permutation(np.concatenate(chosen))


def times_seen(order: Integers) -> Integers:
    """Return how often each index stood before: (N,) -> (N,), zeros where none repeats."""
    seen: dict[int, int] = {}
    times = np.zeros(len(order), np.int64)
    for place, index in enumerate(order.tolist()):
        times[place] = seen.get(index, 0)
        seen[index] = seen.get(index, 0) + 1
    return times


def even_parts(photos: int, batch_size: int) -> list[Integers]:
    """Return an epoch's batches as places in its order, in parts of nearly one size.

    Even parts instead of a small last one: batch normalisation needs at least two photos, and a
    batch of two is a poor estimate. So a batch may hold fewer than `batch_size`, and only where
    that leaves a photo alone, one more.
    """
    parts = max(1, min(-(-photos // batch_size), photos // 2))
    return np.array_split(np.arange(photos), parts)


def ahead(make: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """Yield make(item) in order, with up to twice `workers` made ahead in threads.

    With a team of PyTorch's threads for each of them there would be more than cores, and then the
    training step's own fall asleep at each of its barriers: a tenth of its rate.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # First the workers end: one that begins late would set what comes after to one again.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # also what threads yet to come begin with
