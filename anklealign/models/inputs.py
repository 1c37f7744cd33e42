"""Convert stored pixels to network input, and run a network on them in batches.

Shapes: N photos, S the store's side, H the network's side (`image_size`), K classes, C features.
Photos stay uint8 until they are on the device. Resizing runs on uint8 on the CPU: integer
arithmetic that gives training, evaluation, prediction and the service the same pixels on every
device.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from anklealign.io import memory
from anklealign.io.pixel_store import Photos, Pixels
from anklealign.models.input_config import CHUNK, LUMA, Floats, InputConfig, Integers


def pick_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: The name is invalid, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device = {name!r} is not available on this machine: {reason}; choose auto or cpu"
        ) from None
    return device


def configure_cpu(threads: int) -> None:
    """Set the number of CPU threads of this process, whatever its cores and its environment.

    PyTorch divides sums among its threads, so another number rounds differently. More threads than
    cores are as exact, and slower. Memory that is freed stays with the process.
    """
    torch.set_num_threads(threads)
    memory.keep_freed_memory()


def resize(pixels_nchw: Tensor, size: int, interpolation: str) -> Tensor:
    """Resize with antialiasing: uint8 (N, 3, S, S) -> uint8 (N, 3, H, H)."""
    if pixels_nchw.shape[-2:] == (size, size):
        return pixels_nchw
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    return nn.functional.interpolate(pixels_nchw, (size, size), mode=mode, antialias=True)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, without waiting for the work that a GPU has queued.

    A copy from memory that is not pinned waits, and the GPU then idles until the next launch.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def normalize(x: Tensor, input_config: InputConfig) -> Tensor:
    """Normalize each channel: (N, 3, H, H) in 0 to 1 -> (N, 3, H, H), or (N, 1, H, H) for gray."""
    if input_config.channels == 1:
        red, green, blue = x.unbind(1)
        x = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]
    constants = torch.tensor([input_config.mean, input_config.std])
    mean, std = to_device(constants, x.device).view(2, 1, -1, 1, 1)
    normalized: Tensor = (x - mean).div_(std)
    return normalized


def to_input(pixels_nhwc: Pixels, input_config: InputConfig, device: torch.device) -> Tensor:
    """Convert photos to network input, uncropped: uint8 (N, S, S, 3) -> float (N, 3, H, H)."""
    x = torch.from_numpy(np.array(pixels_nhwc)).permute(0, 3, 1, 2)
    x = resize(x, input_config.image_size, input_config.interpolation)
    return normalize(to_device(x, device).float() / 255, input_config)


def logits(
    model: nn.Module,
    pixels: Photos,
    rows: Integers,
    input_config: InputConfig,
    device: torch.device,
) -> Floats:
    """Return a model's logits in fp32 without augmentation: N rows of the store -> (N, K)."""
    model.eval()
    return _in_chunks(model, pixels, rows, input_config, device).numpy().astype(np.float64)


def features(
    model: nn.Module,
    pixels: Photos,
    rows: Integers,
    input_config: InputConfig,
    device: torch.device,
) -> Tensor:
    """Return the input of a timm model's last layer: N rows of the store -> (N, C) on the CPU.

    Computed in fp32, without augmentation and without dropout.
    """
    model.eval()

    def backbone(x: Tensor) -> Tensor:
        pooled: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
        return pooled

    return _in_chunks(backbone, pixels, rows, input_config, device)


def logits_and_features(
    model: nn.Module,
    pixels: Photos,
    rows: Integers,
    input_config: InputConfig,
    device: torch.device,
) -> tuple[Floats, Tensor]:
    """Return what `logits` and `features` return, by one forward pass: (N, K), (N, C) on the CPU.

    A network that does not call timm's forward_head needs a second pass for the features.
    """
    # A copy with the same weights and layers, as other threads may use the model.
    recording = copy.copy(model)
    head = model.forward_head
    recorded: list[Tensor] = []

    def recording_head(x: Tensor, pre_logits: bool = False) -> Tensor:
        recorded.append(head(x, pre_logits=True).float())  # type: ignore[operator]
        output: Tensor = head(x, pre_logits=pre_logits)  # type: ignore[operator]
        return output

    recording.forward_head = recording_head  # type: ignore[assignment]
    scores = logits(recording, pixels, rows, input_config, device)
    if sum(map(len, recorded)) != len(rows):
        return scores, features(model, pixels, rows, input_config, device)
    return scores, torch.cat(recorded).cpu()


def _in_chunks(
    function: Callable[[Tensor], Tensor],
    pixels: Photos,
    rows: Integers,
    input_config: InputConfig,
    device: torch.device,
) -> Tensor:
    """Return a function's outputs for rows of the store, `CHUNK` rows at a time."""
    outputs = []
    with torch.no_grad(), full_precision():
        # At least one pass, so that the output for no rows still has K columns.
        starts = range(0, max(1, len(rows)), CHUNK)
        single = len(starts) == 1  # as in the service
        bar = tqdm(starts, "network", unit="batch", delay=1, leave=False, disable=single or None)
        for start in bar:
            x = to_input(pixels[rows[start : start + CHUNK]], input_config, device)
            outputs.append(function(x).float())
    # Copied at the end: waiting for each chunk would idle a GPU while the CPU resizes the next one.
    return torch.cat(outputs).cpu()


@contextmanager
def full_precision() -> Iterator[None]:
    """Disable TF32 here; its 10-bit mantissa changes the third digit of probabilities."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
