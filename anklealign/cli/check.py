"""Check params.yaml and dvc.yaml without writing anything.

anklealign check
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anklealign.cli import sync_deps
from anklealign.config import params
from anklealign.config.params import Model
from anklealign.io import files


def print_faults() -> int:
    """Print the faults of params.yaml and dvc.yaml; return the exit status, 1 for any fault."""
    try:
        raw = params.read()
        faults = params.check(raw) or params.missing_files(raw) or train_faults(raw)
        faults += [
            f"{pipeline}: the code dependencies are stale; run `anklealign sync-deps`"
            for pipeline in sync_deps.stale(Path())
        ]
    except ValueError as error:
        faults = [str(error)]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 1
    print(f"params.yaml is valid: dataset {raw['dataset']}, model {raw['model']}")
    return 0


def train_faults(raw: Mapping[str, Any]) -> list[str]:
    """Return one line for each setting that train would refuse after prepare, clean and split."""
    name, dataset = params.dataset(raw)
    model_name, model = params.selected(raw, "model", "models", Model)
    faults: list[str] = []
    if model.zero_shot and not dataset.imagenet:
        faults.append(
            f"params.yaml: models.{model_name}: zero_shot needs the ImageNet indices of each "
            f"class, which datasets.{name} does not have; add datasets.{name}.imagenet, or choose "
            "another model"
        )
    if model.weights and (actual := files.sha256(Path(model.weights))) != model.weights_sha256:
        faults.append(
            f"params.yaml: models.{model_name}.weights = {model.weights!r} has the SHA-256 "
            f"{actual}, but weights_sha256 is {model.weights_sha256}; put the right file there, or "
            "correct weights_sha256"
        )
    return faults
