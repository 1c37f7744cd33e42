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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from timm.models import save_for_hf
from timm.models._hub import save_config_for_hf
from torch import nn

from anklealign.io import files
from anklealign.models import (
    example_photos,
    networks,  # noqa: F401 - registers the own networks with timm
    novelty,
)
from anklealign.models.example_photos import Examples
from anklealign.models.inputs import InputConfig
from anklealign.models.novelty import NoveltyDetector

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TEMPORARY_PREFIX = ".saving."


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of a photo file to the square that the store holds.

    Attributes:
        size: Side of the square in pixels.
        fit: How a photo that is not square is fitted.
        fill: Gray level of the borders of a letterbox, 0 to 255.
        max_megapixels: Photos with more pixels are rejected.
    """

    size: int
    fit: Literal["letterbox", "crop", "stretch"]
    fill: int
    max_megapixels: float


@dataclass(frozen=True)
class Bundle:
    """A trained model and everything needed to predict with it.

    Attributes:
        model: Network with K outputs.
        classes: K class names, in the order of the outputs.
        preprocessing: Conversion from photo file to stored square.
        input_config: Conversion from stored square to network input.
        temperature: Divisor of the logits before the softmax.
        conformal_threshold: Least calibrated probability of a class in the prediction set.
        record: Provenance: selected epoch, versions, data hashes, parameters.
        class_bias: K values that are added to the scaled logits, or none.
        novelty: Detector of photos that are unlike the training photos, if there is one.
        examples: JPEG files of photos of each class; none unless the dataset config allows them.
    """

    model: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    input_config: InputConfig
    temperature: float
    conformal_threshold: float
    record: Mapping[str, Any]
    class_bias: tuple[float, ...] = ()
    novelty: NoveltyDetector | None = None
    examples: Examples = field(default_factory=dict)


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
        **describe(bundle),
        "weights_sha256": files.sha256(folder / WEIGHTS),
        "novelty": bundle.novelty and novelty.save(folder, bundle.novelty),
        **bundle.record,
    }
    if bundle.examples:
        config["anklealign"]["examples"] = example_photos.save(folder, bundle.examples)
    files.write_json(folder / CONFIG, config)


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return what a program needs around the network, from photo file to prediction set."""
    return {
        "classes": list(bundle.classes),
        "preprocessing": asdict(bundle.preprocessing),
        "input": asdict(bundle.input_config),
        "temperature": bundle.temperature,
        "class_bias": list(bundle.class_bias),
        "conformal_threshold": bundle.conformal_threshold,
    }


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
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        own = dict(config["anklealign"])
        classes = tuple(own.pop("classes"))
        preprocessing = Preprocessing(**own.pop("preprocessing"))
        values = own.pop("input")
        input_config = InputConfig(**values | {k: tuple(values[k]) for k in ("mean", "std")})
        temperature = float(own.pop("temperature"))
        class_bias = tuple(map(float, own.pop("class_bias")))
        conformal_threshold = float(own.pop("conformal_threshold"))
        expected_hash = own.pop("weights_sha256")
        novelty_config = own.pop("novelty")
        example_hashes = own.pop("examples", {})
    except FileNotFoundError:
        raise ValueError(
            f"{folder / CONFIG} does not exist; train a model with `dvc repro train`, or fetch one "
            "with `dvc pull`"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / CONFIG} is not the config of an AnkleAlign bundle of this version "
            f"({error!r}); train a model with `dvc repro train`"
        ) from None
    if not (folder / WEIGHTS).is_file() or files.sha256(folder / WEIGHTS) != expected_hash:
        raise ValueError(
            f"{folder / WEIGHTS} is missing or does not match {CONFIG}; restore both with "
            "`dvc checkout` or `dvc pull`"
        )
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return Bundle(
        model.eval(), classes, preprocessing, input_config, temperature, conformal_threshold, own,
        class_bias,
        novelty_config and novelty.load(folder, novelty_config),
        example_photos.load(folder, example_hashes),
    )  # fmt: skip
