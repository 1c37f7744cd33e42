"""Features of a frozen network, computed once for each photo and kept between runs.

Shapes: N photos, C features.

A seed of `train.repeats`, a fold, a penalty of a logistic regression and the calibration all need
the same features of a frozen network, whose computation is almost all of the work of a linear
probe. They are kept in the result cache (io/result_cache.py), which is safe to delete.

The rounding of a photo's features may depend on the other photos of its forward pass. So the passes
do not follow the split: they are the store's rows, `CHUNK` at a time, and an entry is the pass of
these pixels by these weights. Any run therefore gets the bytes that it would compute.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from anklealign.io import execution
from anklealign.io.pixel_store import Photos
from anklealign.io.result_cache import ResultCache, key_of
from anklealign.models import factory, fusion, inputs
from anklealign.models.input_config import CHUNK, InputConfig, Integers

COMMITTED = 128  # passes after which an interrupted run has lost nothing


class Hardware(NamedTuple):
    """The device and the CPU threads of a network, on which the rounding depends."""

    device: torch.device
    threads: int


def stored_features(
    model: nn.Module,
    pixels: Photos,
    rows: Integers,
    *,
    input_config: InputConfig,
    device: torch.device,
) -> Tensor:
    """Return what `inputs.features` returns, from the cache where it is known: (N, C) on the CPU.

    Args:
        model: A timm model; the weights of its classifier do not count.
        pixels: The store, uint8 (n, S, S, 3).
        rows: N rows of it.
        input_config: Input of the network.
        device: Device of the network.
    """
    chunks, position = np.unique(rows // CHUNK, return_inverse=True)
    network = fusion.for_inference(model, input_config)
    parameters = _parameters(network, input_config, device)
    passes: dict[int, Tensor] = {}
    with ResultCache(
        "features", parameters, ["anklealign.models.fusion"], ["torch", "timm"]
    ) as cache:
        keys = {chunk: key_of(pixels[_rows_of(chunk, pixels)]) for chunk in chunks.tolist()}
        missing = []
        for chunk, key in keys.items():
            value = cache.get(key)
            if value is None:
                missing.append(chunk)
            else:
                array = np.frombuffer(value, np.float32).reshape(len(_rows_of(chunk, pixels)), -1)
                passes[chunk] = torch.from_numpy(array.copy())
        groups = [missing[n : n + COMMITTED] for n in range(0, len(missing), COMMITTED)]
        threads = torch.get_num_threads()
        function = partial(_computed, network, pixels, input_config, Hardware(device, threads))
        shards = [np.concatenate([_rows_of(chunk, pixels) for chunk in own]) for own in groups]
        resources = execution.of_network(device.type, threads)
        with inputs.full_precision():  # for all threads until the last one ends
            for group, computed in zip(
                groups, execution.map_shards(function, shards, resources), strict=True
            ):
                for chunk, part in zip(group, torch.split(computed, CHUNK), strict=True):
                    passes[chunk] = part
                    cache.put(keys[chunk], part.numpy().tobytes())
                cache.commit()
    table = torch.cat([passes[chunk] for chunk in chunks.tolist()])
    # All passes but the store's last one have `CHUNK` rows.
    return table[torch.from_numpy(position * CHUNK + rows % CHUNK)]


def _computed(
    model: nn.Module, pixels: Photos, input_config: InputConfig, hardware: Hardware, rows: Integers
) -> Tensor:
    """Return the features of whole passes in any process, with as many threads as in this one."""
    inputs.configure_cpu(hardware.threads)
    return inputs.features(model.to(hardware.device), pixels, rows, input_config, hardware.device)


def _rows_of(chunk: int, pixels: Photos) -> Integers:
    return np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, len(pixels)))


def frozen(record: Mapping[str, Any]) -> bool:
    """Return whether the backbone of a bundle with this record is as it was before training."""
    model = record.get("params", {}).get("model", {})
    return bool(model.get("frozen")) and not model.get("unfreeze_last_n")


def _parameters(
    model: nn.Module, input_config: InputConfig, device: torch.device
) -> dict[str, Any]:
    """Return all that the features depend on besides the pixels.

    What the network does with its weights shows in the features of a fixed picture.
    """
    weights = hashlib.sha256()
    heads = {id(head) for head in factory.classifiers(model)}
    own = tuple(f"{name}." for name, module in model.named_modules() if id(module) in heads)
    for name, tensor in model.state_dict().items():
        if not name.startswith(own):
            weights.update(f"{name} {tuple(tensor.shape)}\0".encode())
            weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    probe = inputs.features(model, picture, np.zeros(1, np.int64), input_config, device)
    return {
        "weights": weights.hexdigest(),
        "features": hashlib.sha256(probe.numpy().tobytes()).hexdigest(),
        "input": asdict(input_config),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }
