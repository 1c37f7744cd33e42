"""Results of a run: the metrics of each stage, and the bundle that they belong to.

    metrics/scores.json             the headline metrics, which DVC's commands show
    metrics/details/<stage>.json    everything else that a stage counts, measures and records

DVC shows every number in a metrics file, and disables its run cache for a stage with other outputs
in git (https://github.com/treeverse/dvc/issues/8738). The details are therefore metrics to DVC, in
a list: DVC reads no number from a list.

The bundle is identified by the SHA-256 of its config.json, which contains the SHA-256 of the
weights. train and evaluate write it into their results, so that results of different runs, which a
failed run or a partial checkout can leave side by side, are never shown as one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anklealign.config import paths
from anklealign.io import files

STAGES = ("prepare", "clean", "split", "train", "evaluate")
BUNDLE = "bundle"  # key of the hash
SHORT = 12  # hex digits of a hash for display


def write_details(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics so that DVC keeps them with the run but shows none of them."""
    files.write_json(path, [metrics])


def read_details(path: Path) -> dict[str, Any]:
    """Return the metrics that `write_details` wrote.

    Raises:
        FileNotFoundError: The stage has not run.
        ValueError: The file has other content.
    """
    return parse_details(path.read_bytes(), str(path))


def parse_details(content: bytes, name: str) -> dict[str, Any]:
    """Return the metrics in the content of a details file; `name` is for the error message.

    Raises:
        ValueError: The content is not what `write_details` writes.
    """
    try:
        (metrics,) = json.loads(content)
        return dict(metrics)
    except (ValueError, TypeError):
        raise ValueError(
            f"{name} is not a list of one JSON object; run `anklealign restore` to restore the "
            "committed results"
        ) from None


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays for the report; equal arrays give equal bytes.

    numpy gives every member of the archive the date 1980-01-01.
    """
    with files.replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **dict(arrays))  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that `write_arrays` wrote.

    Raises:
        FileNotFoundError: The stage has not run.
    """
    with np.load(path) as archive:
        return dict(archive)


def bundle_hash(folder: Path) -> str:
    """Return the SHA-256 of a bundle's config, which contains that of its weights, in hex."""
    return files.sha256(folder / "config.json")


def read_results() -> dict[str, dict[str, Any]]:
    """Return the details of each stage, all of one run.

    Raises:
        FileNotFoundError: A stage has not run.
        ValueError: The files belong to different runs.
    """
    sources = {stage: paths.DETAILS / f"{stage}.json" for stage in STAGES}
    metrics = {stage: read_details(path) for stage, path in sources.items()}
    hashes = {str(sources[stage]): metrics[stage][BUNDLE] for stage in ("train", "evaluate")}
    if (paths.MODEL / "config.json").exists():  # a clone without `dvc pull` has the metrics alone
        hashes[f"{paths.MODEL}/"] = bundle_hash(paths.MODEL)
    if len(set(hashes.values())) > 1:
        listed = ", ".join(f"{name} of {value[:SHORT]}" for name, value in hashes.items())
        raise ValueError(
            f"the results belong to different bundles: {listed}; run `dvc repro`, or "
            "`anklealign restore` to restore the committed results"
        )
    return metrics
