"""Compare all runs in one table: variant, parameters, mean score, difference to the best.

    anklealign compare --score accuracy run-a run-b

Reads the current commit, its experiments and the workspace, or the named revisions, through DVC:
params.yaml, metrics/details/evaluate.json and plots/evaluate/predictions.csv. Runs that differ
only in `seed` and `split.fold` are repeats of one variant. The best variant has the best mean
score. The other variants are compared with it on the pooled test photos of the seeds and folds that
both have, by the method of `anklealign.experiments.comparison`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from dvc.api import exp_show
from dvc.scm import SCMError
from tqdm import tqdm

from anklealign.experiments.comparison import (
    PREDICTIONS,
    Difference,
    PairedPredictions,
    differences,
    pair,
)
from anklealign.experiments.revisions import WORKSPACE, Revision
from anklealign.metrics.scores import LOWER_IS_BETTER

COLUMNS = 80  # of a terminal
REPEAT_KEYS = ("seed", "split.fold")  # parameters in which the repeats of a variant differ


@dataclass(frozen=True)
class Run:
    """Parameters, metrics and predictions of a run."""

    name: str
    params: Mapping[str, str]  # the used parameters as dotted keys and text
    repeat: tuple[str, ...]  # values of REPEAT_KEYS
    parameters: int
    metrics: Mapping[str, Any]
    predictions: pd.DataFrame


def print_runs(names: Sequence[str], score: str) -> int:
    """Print the table of the named revisions; return the exit status, 2 if there is no run.

    Without names, the table has the current commit, all its experiments and the workspace.
    """
    runs = []
    for name in tqdm(names or run_names(), "read", unit="run", delay=1, leave=False, disable=None):
        try:
            runs.append(read_run(name))
        except ValueError as error:
            print(f"compare: skipped: {error}", file=sys.stderr)
    if not runs:
        print("compare: no finished run; start one by `dvc exp run -S model=…`", file=sys.stderr)
        return 2
    print("\n".join(table(variants(runs), score)))
    return 0


def run_names() -> list[str]:
    """Return the current commit, its experiments and the workspace, if there is git."""
    try:
        rows = exp_show()
    except SCMError:
        return [WORKSPACE]
    return ["HEAD", *(row["Experiment"] for row in rows if row.get("Experiment")), WORKSPACE]


def read_run(name: str) -> Run:
    """Read one run.

    Raises:
        ValueError: The revision does not exist or has no finished run.
    """
    revision = Revision.open(name)
    params = dict(flat(used_params(revision.yaml("params.yaml"))))
    metrics = revision.details("evaluate")
    repeat = tuple(params.pop(key, "") for key in REPEAT_KEYS)
    return Run(name, params, repeat, metrics["parameters"], metrics, revision.table(PREDICTIONS))


def used_params(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters a run uses, with the config of its dataset and model only."""
    kept = {k: v for k, v in values.items() if k not in ("datasets", "models")}
    if values["dataset"] != "synthetic":
        kept.pop("synthetic", None)
    for key, section in (("dataset", "datasets"), ("model", "models")):
        if values[key] not in values[section]:
            raise ValueError(f"params.yaml: {key} = {values[key]!r} is not a key of {section}")
    dataset, model = values["datasets"][values["dataset"]], values["models"][values["model"]]
    return kept | {"datasets": dataset, "models": model}


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as (dotted key, text)."""
    items = []
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        items += flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", str(value))]
    return items


def variants(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by variant, named after the model and the parameters in which it differs.

    Of several runs with the same parameters, the first is kept: the commit before an experiment,
    an experiment before the workspace.
    """
    values: dict[tuple[str, str], set[str | None]] = {}
    for run in runs:
        for key in {key for other in runs for key in other.params}:
            values.setdefault((run.params["model"], key), set()).add(run.params.get(key))
    by_variant: dict[str, dict[tuple[str, ...], Run]] = {}
    for run in runs:
        model = run.params["model"]
        differing = [f"{k}={v}" for k, v in sorted(run.params.items()) if len(values[model, k]) > 1]
        by_variant.setdefault(" ".join([model, *differing]), {}).setdefault(run.repeat, run)
    return {name: list(repeats.values()) for name, repeats in sorted(by_variant.items())}


def difference_to_best(best: Sequence[Run], other: Sequence[Run], score: str) -> Difference | None:
    """Return the difference to the best variant on their common repeats, None if there are none.

    Raises:
        ValueError: The test photos of a common seed and fold differ.
    """
    by_repeat = {run.repeat: run for run in best}
    pairs = [(by_repeat[run.repeat], run) for run in other if run.repeat in by_repeat]
    return differences(pool(pairs))[score] if pairs else None


def pool(pairs: Sequence[tuple[Run, Run]]) -> PairedPredictions:
    """Return the predictions of several pairs of runs as one; groups keep their identity."""
    first, second = (
        pd.concat(
            # A photo in the test splits of two seeds gives two rows of one group.
            [
                p[k].predictions.assign(id=p[k].predictions.id + f"/{n}")
                for n, p in enumerate(pairs)
            ],
            ignore_index=True,
        )
        for k in (0, 1)
    )
    return pair(first, second, (pairs[0][0].name, pairs[0][1].name))


def difference_text(best: Sequence[Run], other: Sequence[Run], score: str) -> str:
    """Return the difference to the best variant with CI and conclusion, or the reason for none."""
    try:
        difference = difference_to_best(best, other, score)
    except ValueError:
        return "different test photos"
    if difference is None:
        return "no common seed and fold"
    return (
        f"{difference.value:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}: "
        f"{difference.conclusion}"
    )


def table(runs: Mapping[str, Sequence[Run]], score: str) -> list[str]:
    """Return the lines of the table, best mean first.

    A difference that does not fit a terminal of 80 columns is in a line of its own.
    """
    means = {
        name: float(np.mean([run.metrics[score]["value"] for run in repeats]))
        for name, repeats in runs.items()
    }
    sign = 1 if score in LOWER_IS_BETTER else -1
    ranked = sorted(runs, key=lambda name: (sign * means[name], name))
    best = runs[ranked[0]]
    rows = []
    for name in ranked:
        values = [run.metrics[score]["value"] for run in runs[name]]
        spread = f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "-"
        parameters = f"{runs[name][0].parameters:,}"
        difference = "best" if name == ranked[0] else difference_text(best, runs[name], score)
        rows.append((name, parameters, str(len(values)), f"{means[name]:.3f}", spread, difference))
    head = (
        "variant",
        "parameters",
        "runs",
        score.replace("_", " "),
        "sd",
        "difference to best",
    )
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(5)]
    lines = []
    for name, *numbers, difference in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        start = "  ".join([name.ljust(widths[0]), *cells])
        if len(start) + 2 + len(difference) <= COLUMNS:
            lines.append(f"{start}  {difference}")
        else:
            lines += [start, f"    {difference}"]
    return lines
