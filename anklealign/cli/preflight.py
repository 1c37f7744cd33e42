"""Check what a run needs before DVC deletes any output: weights, networks and disk space.

`anklealign check` and `anklealign run` call this. The check stage repeats the first for `dvc repro`
and `dvc exp run`.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anklealign.cli import network_check
from anklealign.config import params, paths
from anklealign.config.params import Prepare
from anklealign.models import weights


def errors(raw: Mapping[str, Any]) -> list[str]:
    """Return one line for each reason why a run would fail."""
    return train_errors(raw) or disk_errors(raw)


def train_errors(raw: Mapping[str, Any]) -> list[str]:
    """Return one line for each reason why train would refuse its weights, device or networks."""
    return weights.errors(raw) or network_check.errors(raw)


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
