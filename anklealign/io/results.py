"""Results of a run: the metrics of each stage, and the bundle that they belong to.

    metrics/scores.json             the headline metrics, which DVC's commands show
    metrics/details/<stage>.json    everything else that a stage counts, measures and records

DVC shows every number in a metrics file, and disables its run cache for a stage with other outputs
in git (https://github.com/treeverse/dvc/issues/8738). The details are therefore metrics to DVC, in
a list: DVC reads no number from a list.

The bundle is identified by the SHA-256 of its config.json, which contains the SHA-256 of the
weights. train and evaluate write it into their results; prepare, clean and split write the hash of
the photo table that they wrote and of the one that they read. So results of different runs, which a
failed run or a partial checkout can leave side by side, are never shown as one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anklealign.config import paths
from anklealign.io import files, pixel_store

STAGES = ("prepare", "clean", "split", "train", "evaluate")
BUNDLE = "bundle"  # key of the hash
SHORT = 12  # hex digits of a hash for display

# (key of what a stage wrote, stage, key of what a later stage read, that stage): equal hashes.
LINKS = (
    ("photos_sha256", "prepare", "prepared_sha256", "clean"),
    ("photos_sha256", "clean", "clean_sha256", "split"),
    ("photos_sha256", "split", "split_sha256", "train"),
    ("pixels_sha256", "prepare", "pixels_sha256", "train"),
)


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


def other_input(record: Mapping[str, Any]) -> str:
    """Return which input in the workspace a bundle was not trained on, or ''.

    Args:
        record: Run record of the bundle, with the hashes of the pixel store and the split table.

    Raises:
        FileNotFoundError: The workspace has no pixel store or no split.
    """
    split = paths.SPLIT / "photos.csv"
    if record.get("pixels_sha256") != pixel_store.store_sha256():
        return str(paths.STORE)
    return "" if record.get("split_sha256") == files.sha256(split) else str(split)


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
    for wrote, stage, read, later in LINKS:
        # Results without hashes are older than this check.
        if wrote not in metrics[stage] or metrics[stage][wrote] != metrics[later].get(read):
            raise ValueError(
                f"the results belong to different runs: {sources[later]} is not of the photos of "
                f"{sources[stage]}; run `dvc repro`, or `anklealign restore` to restore the "
                "committed results"
            )
    return metrics
