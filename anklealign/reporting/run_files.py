"""Read what the report shows: metrics, tables, arrays and pixels of the last run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anklealign.config import params, paths
from anklealign.io import pixel_store, results
from anklealign.io.pixel_store import Photos
from anklealign.reporting.metric_tables import Metrics

REMOVED_TABLES = {"removed": paths.CLEAN / "removed.csv", "flagged": paths.CLEAN / "flagged.csv"}


@dataclass(frozen=True)
class RunFiles:
    """Everything that the page is made from.

    Attributes:
        metrics: Content of metrics/details/<stage>.json by stage.
        photos: The photo table of prepare, one row per photo.
        split: The photo table of split: kept photos with group and split.
        removed: Photos that clean removed, with reason, why and `beside`.
        flagged: Photos that clean flagged and kept, in the same columns.
        skipped: Skipped files, tasks, exports, names and votes.
        votes: One row per vote: photo, annotator, label.
        predictions: One row per test photo.
        history: One row per epoch.
        reliability: Confidence, accuracy and photos of each bin.
        arrays: What evaluate stored for the report (explanations.npz).
        augmented: Augmented training photos (augmented.npz).
        store: (N, S, S, 3) uint8.
        fit: How photos were fitted into the stored square.
    """

    metrics: Mapping[str, Metrics]
    photos: pd.DataFrame
    split: pd.DataFrame
    removed: pd.DataFrame
    flagged: pd.DataFrame
    skipped: pd.DataFrame
    votes: pd.DataFrame
    predictions: pd.DataFrame
    history: pd.DataFrame
    reliability: pd.DataFrame
    arrays: Mapping[str, npt.NDArray[Any]]
    augmented: Mapping[str, npt.NDArray[Any]]
    store: Photos
    fit: str

    @property
    def classes(self) -> list[str]:
        """Return the class names in the order of the probabilities."""
        return list(self.metrics["train"]["train_class_counts"])

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Return the class probabilities of the test photos: (N, K)."""
        columns = [f"p_{name}" for name in self.classes]
        return self.predictions[columns].to_numpy(np.float64)


def read() -> RunFiles:
    """Return the files of the last run.

    Raises:
        FileNotFoundError: A stage has not run, or its outputs are not checked out.
        ValueError: The files belong to different runs, or params.yaml is invalid.
    """
    metrics = results.read_results()
    _, dataset = params.dataset(params.read())
    table = pixel_store.read_table
    return RunFiles(
        metrics=metrics,
        photos=table(paths.PREPARED / "photos.csv"),
        split=table(paths.SPLIT / "photos.csv"),
        removed=table(REMOVED_TABLES["removed"]),
        flagged=table(REMOVED_TABLES["flagged"]),
        skipped=table(paths.PREPARED / "skipped.csv"),
        votes=table(paths.VOTES),
        predictions=table(paths.PREDICTIONS),
        history=pd.read_csv(paths.HISTORY),
        reliability=pd.read_csv(paths.PREDICTIONS.with_name("reliability.csv")),
        arrays=results.read_arrays(paths.EXPLANATIONS),
        augmented=results.read_arrays(paths.AUGMENTED),
        store=pixel_store.open_store(),
        fit=dataset.fit,
    )
