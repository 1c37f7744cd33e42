"""Save and load a bundle: a trained model with everything that prediction needs.

A bundle is a folder with config.json and model.safetensors, in the format that timm and the Hugging
Face hub load as `local-dir:FOLDER`, and novelty.safetensors, the features of training photos
(novelty.py). If the dataset config allows it, examples/ has photos of each class
(example_photos.py). Values without a key in that format are below `anklealign` in config.json. The
weights are safetensors, not pickle, so an untrusted bundle cannot run code.

Plain timm loads a bundle whose `architecture` in config.json is timm's own; no arguments are
needed, as timm reads num_classes and the other arguments from `model_args`. The architectures
`anklealign_cnn`, `anklealign_majority` and `anklealign_reheaded` need one import that registers
them:

    import timm
    import anklealign.models.networks

    model = timm.create_model("local-dir:model", pretrained=True).eval()
"""

import errno
import json
import shutil
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import save_for_hf
from timm.models._hub import save_config_for_hf
from torch import nn

from anklealign.io import files
from anklealign.models import (
    description,
    example_photos,
    networks,  # noqa: F401 - registers the own networks with timm
    novelty_detector,
)
from anklealign.models.description import CONFIG, WEIGHTS, Description
from anklealign.models.input_config import InputConfig

TEMPORARY_PREFIX = ".saving."


@dataclass(frozen=True)
class Bundle(Description):
    """A trained model and everything needed to predict with it.

    Attributes:
        model: Network with K outputs. `Description` has the other attributes.
    """

    model: nn.Module = field(kw_only=True)


def default_input(model: nn.Module, image_size: int) -> InputConfig:
    """Return the input config of a timm model's pretrained config, at `image_size` pixels.

    A network with one input channel gets the average of the channels: timm sums the pretrained
    weights over the channels, so that a gray photo has the same features as with three channels, up
    to the differences of their mean and standard deviation.
    """
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if getattr(model, "in_chans", len(mean)) == 1:
        mean, std = ((statistics.fmean(values),) for values in (mean, std))
    return InputConfig(image_size, mean, std, config["interpolation"])


def save(folder: Path, bundle: Bundle) -> None:
    """Write a bundle to a folder.

    The weights are written first. The config holds their SHA-256, so `load` detects a mismatch
    after an interrupted write.

    Raises:
        OSError: The folder is not writable, or the disk is full.
    """
    model = bundle.model.cpu().to(memory_format=torch.contiguous_format)
    folder.mkdir(parents=True, exist_ok=True)
    # Inside `folder`: DVC removes a stage's outputs before a run, including a killed run's files.
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(leftover)
    untying = model.register_state_dict_post_hook(_untie)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder) as temporary:
        try:
            save_for_hf(model, temporary, safe_serialization=True, **_timm_configs(bundle))
        except SafetensorError as error:  # safetensors raises it for a full disk too
            full = "os error 28" in str(error)
            code = errno.ENOSPC if full else errno.EIO
            raise OSError(code, f"the weights cannot be written: {error}", str(folder)) from None
        finally:
            untying.remove()
        config = json.loads((Path(temporary) / CONFIG).read_text(encoding="utf-8"))
        with files.replacing(folder / WEIGHTS) as path:
            (Path(temporary) / WEIGHTS).replace(path)
    config["anklealign"] = {
        **bundle.as_config(),
        "weights_sha256": files.sha256(folder / WEIGHTS),
        "novelty": bundle.novelty and novelty_detector.save(folder, bundle.novelty),
        **bundle.record,
    }
    if bundle.examples:
        config["anklealign"]["examples"] = example_photos.save(folder, bundle.examples)
    files.write_json(folder / CONFIG, config)


def check_rebuild(bundle: Bundle) -> None:
    """Build the network from its config, as `load` does after training; its weights do not matter.

    Raises:
        ValueError: The config describes another network, or timm cannot build it.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            save_config_for_hf(bundle.model, f"{folder}/{CONFIG}", **_timm_configs(bundle))
            rebuilt: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=False)
    except Exception as error:  # timm's constructors raise any exception type
        raise ValueError(f"it cannot be built from its config: {error!r}") from error
    before, after = (
        {name: tensor.shape for name, tensor in network.state_dict().items()}
        for network in (bundle.model, rebuilt)
    )
    if before != after:
        different = sorted(n for n in before.keys() | after if before.get(n) != after.get(n))
        raise ValueError(
            f"built from its config, {len(different)} tensors differ, such as {different[0]}"
        )


def _timm_configs(bundle: Bundle) -> dict[str, Any]:
    """Return the values of config.json that timm reads, by the arguments of its functions."""
    size = bundle.input_config.image_size
    return {
        "model_config": {"label_names": list(bundle.classes)},
        "data_config": {
            "input_size": (bundle.input_config.channels, size, size),
            "mean": bundle.input_config.mean,
            "std": bundle.input_config.std,
            "interpolation": bundle.input_config.interpolation,
            "crop_pct": 1.0,  # no center crop
        },
    }


def _untie(_: nn.Module, state: dict[str, torch.Tensor], *__: object) -> None:
    """Copy the tensors of a state dict that share memory with an earlier one, as in CoaT.

    safetensors refuses them. A loaded network ties them again.
    """
    storages: set[int] = set()
    for name, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr()
        if storage in storages:
            state[name] = tensor.clone()
        storages.add(storage)


def load(folder: Path) -> Bundle:
    """Load a bundle, with its model on the CPU in evaluation mode.

    Raises:
        ValueError: The folder holds no bundle of this project, or its files are damaged.
    """
    own = description.load(folder)
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return Bundle(**vars(own), model=model.eval())
