"""Save and load a trained model with everything needed to use it: model/config.json and weights.

The form is timm's `local-dir:`, which the Hugging Face hub takes too; what timm has no key for
stands under `anklealign`. Weights are safetensors: no pickle anywhere, so a stranger's bundle
cannot run code.
"""

import errno
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from timm.models import save_for_hf
from torch import nn

from anklealign.io import files
from anklealign.models import networks  # noqa: F401 - makes the own networks known to timm
from anklealign.models.inputs import Input

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
HALF = ".saving."


@dataclass(frozen=True)
class Preparation:
    """How a photo file becomes the square that the store holds, as in params.yaml's prepare."""

    size: int
    fit: Literal["letterbox", "crop", "stretch"]
    fill: int
    max_megapixels: float


@dataclass(frozen=True)
class Bundle:
    """A trained model and what using it takes.

    Attributes:
        model: With K outputs.
        classes: K names, in the order of the outputs.
        preparation: From photo file to stored square.
        network_input: From stored square to the network's input.
        temperature: What logits are divided by before the softmax.
        conformal_threshold: Calibrated probability from which on a class is in the prediction set.
        record: Where it comes from: chosen epoch, versions, hashes of the data, parameters.
    """

    model: nn.Module
    classes: tuple[str, ...]
    preparation: Preparation
    network_input: Input
    temperature: float
    conformal_threshold: float
    record: Mapping[str, Any]


def input_of(model: nn.Module, image_size: int) -> Input:
    """Return the input that a timm model was made for, at a side of `image_size` pixels."""
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return Input(image_size, tuple(config["mean"]), tuple(config["std"]), config["interpolation"])


def save(folder: Path, bundle: Bundle) -> None:
    """Write a bundle, weights first: its config tells their SHA-256, so a torn pair is noticed.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    model = bundle.model.cpu().to(memory_format=torch.contiguous_format)
    size = bundle.network_input.image_size
    folder.mkdir(parents=True, exist_ok=True)
    # Inside, so that DVC, which removes a stage's outputs before it runs, takes what a kill left.
    for left in folder.glob(f"{HALF}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=HALF, dir=folder) as temporary:
        try:
            save_for_hf(
                model,
                temporary,
                model_config={"label_names": list(bundle.classes)},
                data_config={
                    "input_size": (3, size, size),
                    "mean": bundle.network_input.mean,
                    "std": bundle.network_input.std,
                    "interpolation": bundle.network_input.interpolation,
                    "crop_pct": 1.0,  # the whole square
                },
                safe_serialization=True,
            )
        except SafetensorError as error:  # its writer has an error of its own for a full disk
            full = "os error 28" in str(error)
            code = errno.ENOSPC if full else errno.EIO
            raise OSError(code, f"the weights cannot be written: {error}", str(folder)) from None
        config = json.loads((Path(temporary) / CONFIG).read_text(encoding="utf-8"))
        with files.replacing(folder / WEIGHTS) as path:
            (Path(temporary) / WEIGHTS).replace(path)
    config["anklealign"] = {
        "classes": list(bundle.classes),
        "preparation": asdict(bundle.preparation),
        "input": asdict(bundle.network_input),
        "temperature": bundle.temperature,
        "conformal_threshold": bundle.conformal_threshold,
        "weights_sha256": files.sha256(folder / WEIGHTS),
        **bundle.record,
    }
    files.write_json(folder / CONFIG, config)


def load(folder: Path) -> Bundle:
    """Read a bundle, its model on the CPU and ready to answer.

    Raises:
        ValueError: There is no bundle, it is none of this project's, or its files are damaged.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        own = dict(config["anklealign"])
        classes = tuple(own.pop("classes"))
        preparation = Preparation(**own.pop("preparation"))
        values = own.pop("input")
        network_input = Input(**values | {k: tuple(values[k]) for k in ("mean", "std")})
        temperature = float(own.pop("temperature"))
        conformal_threshold = float(own.pop("conformal_threshold"))
        expected = own.pop("weights_sha256")
    except FileNotFoundError:
        raise ValueError(
            f"{folder / CONFIG} is not there; train a model by `dvc repro train`, or fetch one by "
            "`dvc pull`"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / CONFIG} is no config of an AnkleAlign bundle ({error!r}); train a model by "
            "`dvc repro train`"
        ) from None
    if not (folder / WEIGHTS).is_file() or files.sha256(folder / WEIGHTS) != expected:
        raise ValueError(
            f"{folder / WEIGHTS} is missing or not the file that {CONFIG} was written for; "
            "bring both back by `dvc checkout` or `dvc pull`"
        )
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return Bundle(
        model.eval(), classes, preparation, network_input, temperature, conformal_threshold, own
    )
