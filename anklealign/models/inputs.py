"""Pixels of the store into a network's input, a batch at a time.

Shapes: N photos, S the store's side, H the network's side (`image_size`), K classes. Photos travel
as uint8 until they are on the device. Resizing is done on uint8 on the CPU: whole-number arithmetic
that gives the same pixels to train, evaluate, predict and the service, whatever the device.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from anklealign.io.pixel_store import Pixels

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Photos a forward pass outside training. Fixed, as another size may round the last bit otherwise.
CHUNK = 16


@dataclass(frozen=True)
class Input:
    """What a network takes: its side in pixels, and the channels' mean and deviation in 0 to 1."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


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
