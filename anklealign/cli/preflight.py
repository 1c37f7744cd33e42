"""Check what a run needs before DVC deletes any output: parameters, weights, disk space.

`anklealign run` calls this. The check stage repeats what needs no network for `dvc repro` and
`dvc exp run`.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anklealign.config import params, paths
from anklealign.config.params import Model, Prepare

SECONDS = 5  # for an answer of the hub


def errors(raw: Mapping[str, Any]) -> list[str]:
    """Return one line for each reason why a run would fail."""
    return weights_errors(raw) or disk_errors(raw)


def disk_errors(raw: Mapping[str, Any]) -> list[str]:
    """Return an error if the disk is too small for the pixel store and its copy in DVC's cache."""
    name, _ = params.dataset(raw)
    size = params.section(raw, "prepare", Prepare).size
    files = sum(len(names) for _, _, names in os.walk(paths.RAW / name))
    # The store is written next to the old one, which DVC's cache keeps; a file is at most a photo.
    needed = 2 * files * size**2 * 3
    free = shutil.disk_usage(Path()).free
    if free >= needed:
        return []
    return [
        (
            f"{free / 1e9:.1f} GB are free on this disk, and the pixels of {files:,} photos need "
            f"{needed / 1e9:.1f} GB; free disk space (`dvc gc --workspace` removes old results) or "
            "lower prepare.size"
        )
    ]


def weights_errors(raw: Mapping[str, Any]) -> list[str]:
    """Return an error if the selected model's weights are neither cached nor on a reachable hub."""
    name, model = params.selected(raw, "model", "models", Model)
    if not model.pretrained or model.weights:
        return []
    import timm  # noqa: PLC0415 - takes seconds, and only pretrained models need it
    from huggingface_hub import (  # noqa: PLC0415
        get_hf_file_metadata,
        hf_hub_url,
        try_to_load_from_cache,
    )

    try:
        config = timm.get_pretrained_cfg(model.architecture)
    except RuntimeError as error:  # a tag that timm does not know
        return [f"params.yaml: models.{name}.architecture: {error}; choose another tag"]
    if config is None or not config.hf_hub_id:
        return []  # train explains which architectures have weights
    filenames = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in filenames):
        return []
    try:
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, filenames[0]), timeout=SECONDS)
    except Exception as error:  # noqa: BLE001 - the client raises many kinds, and httpx's
        return [
            (
                f"params.yaml: model = {name!r}: its weights, {config.hf_hub_id}, are not in the "
                f"cache and the hub cannot be reached ({type(error).__name__}); connect to the "
                "network, set `weights` to a file, or choose a model without hub weights"
            )
        ]
    return []
