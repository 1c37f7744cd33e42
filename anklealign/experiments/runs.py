"""All runs in one table: variant, parameters, scores over folds and seeds, difference to the best.

    make compare
    python -m anklealign.experiments.runs --score accuracy run-a run-b

Reads every experiment of the current commit and the workspace (or the revisions named) through DVC:
params.yaml, metrics/evaluate.json and plots/evaluate/predictions.csv. Runs that differ in `seed`
and `split.fold` alone are one variant; the best has the best mean. A variant is compared with it on
the test photos of the seeds and folds that both have, all folds' persons together, in the way of
`anklealign.experiments.comparison`.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from dvc.api import exp_show
from tqdm import tqdm

from anklealign.experiments.comparison import (
    LESS_IS_BETTER,
    PREDICTIONS,
    Answers,
    Difference,
    differences,
    pair,
)
from anklealign.experiments.revisions import WORKSPACE, Revision
from anklealign.metrics.scores import OVERALL

REPEATED = ("seed", "split.fold")  # what a variant is repeated over


@dataclass(frozen=True)
class Run:
    """One run: what it was asked, how it came out, what it predicted."""

    name: str
    asked: Mapping[str, str]  # the parameters that it used, flat, as text
    repeat: tuple[str, ...]  # values of REPEATED
    parameters: int
    metrics: Mapping[str, Any]
    predictions: pd.DataFrame


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit status 2 when there is nothing to compare."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.experiments.runs", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("names", nargs="*", help="revisions; all experiments and the workspace")
    parser.add_argument("--score", choices=OVERALL, default="balanced_accuracy")
    chosen = parser.parse_args(arguments)
    runs = []
    for name in tqdm(
        chosen.names or known(), "read", unit="run", delay=1, leave=False, disable=None
    ):
        try:
            runs.append(read(name))
        except ValueError as error:
            print(f"runs: left out: {error}", file=sys.stderr)
    if not runs:
        print("runs: no finished run; start some by `dvc exp run -S model=…`", file=sys.stderr)
        return 2
    print("\n".join(table(variants(runs), chosen.score)))
    return 0


def known() -> list[str]:
    """Return the workspace and the experiments of the current commit."""
    rows = exp_show()
    return [WORKSPACE, *(row["Experiment"] for row in rows if row.get("Experiment"))]


def read(name: str) -> Run:
    """Read one run.

    Raises:
        ValueError: There is no such revision, or it holds no finished run.
    """
    revision = Revision.open(name)
    asked = dict(flat(used(revision.yaml("params.yaml"))))
    metrics = json.loads(revision.read("metrics/evaluate.json"))
    repeat = tuple(asked.pop(key, "") for key in REPEATED)
    return Run(name, asked, repeat, metrics["parameters"], metrics, revision.table(PREDICTIONS))


def used(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of params.yaml that a run used: the chosen dataset and model alone."""
    kept = {k: v for k, v in values.items() if k not in ("datasets", "models")}
    if values["dataset"] != "phantom":
        kept.pop("phantom", None)
    dataset, model = values["datasets"][values["dataset"]], values["models"][values["model"]]
    return kept | {"datasets": dataset, "models": model}


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as (dotted key, text)."""
    found = []
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        found += flat(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", str(value))]
    return found


def variants(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by variant; its name is the model's, with what tells it from the others.

    A run that repeats another to the letter (the workspace after an experiment) is left out.
    """
    values: dict[tuple[str, str], set[str | None]] = {}
    for run in runs:
        for key in {key for other in runs for key in other.asked}:
            values.setdefault((run.asked["model"], key), set()).add(run.asked.get(key))
    found: dict[str, dict[tuple[str, ...], Run]] = {}
    for run in sorted(runs, key=lambda run: (run.name == WORKSPACE, run.name)):
        model = run.asked["model"]
        told = [f"{k}={v}" for k, v in sorted(run.asked.items()) if len(values[model, k]) > 1]
        found.setdefault(" ".join([model, *told]), {}).setdefault(run.repeat, run)
    return {name: list(repeats.values()) for name, repeats in sorted(found.items())}


def against(best: Sequence[Run], other: Sequence[Run], score: str) -> Difference | None:
    """Return the other variant's difference to the best on the repeats that both have, or None.

    Raises:
        ValueError: The same seed and fold have other test photos.
    """
    mine = {run.repeat: run for run in best}
    pairs = [(mine[run.repeat], run) for run in other if run.repeat in mine]
    return differences(pooled(pairs))[score] if pairs else None


def pooled(pairs: Sequence[tuple[Run, Run]]) -> Answers:
    """Return the answers of several pairs of runs as one; a person is one group in all of them."""
    first, second = (
        pd.concat(
            # A photo that two seeds test is two rows of one person.
            [
                p[k].predictions.assign(id=p[k].predictions.id + f"/{n}")
                for n, p in enumerate(pairs)
            ],
            ignore_index=True,
        )
        for k in (0, 1)
    )
    return pair(first, second, (pairs[0][0].name, pairs[0][1].name))


def table(found: Mapping[str, Sequence[Run]], score: str) -> list[str]:
    """Return the table's lines, best mean first."""
    means = {
        name: float(np.mean([run.metrics[score]["value"] for run in runs]))
        for name, runs in found.items()
    }
    sign = 1 if score in LESS_IS_BETTER else -1
    ranked = sorted(found, key=lambda name: (sign * means[name], name))
    best = ranked[0]
    rows = []
    for name in ranked:
        values = [run.metrics[score]["value"] for run in found[name]]
        spread = f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "-"
        told = "the best"
        if name != best:
            try:
                difference = against(found[best], found[name], score)
                told = (
                    f"{difference.value:+.3f}, {difference.low:+.3f} to {difference.high:+.3f}: "
                    f"{difference.verdict}"
                    if difference
                    else "no seed and fold in common"
                )
            except ValueError:
                told = "other test photos"
        parameters = f"{found[name][0].parameters:,}"
        rows.append((name, parameters, str(len(values)), f"{means[name]:.3f}", spread, told))
    head = (
        "variant",
        "parameters",
        "runs",
        score.replace("_", " "),
        "sd",
        "difference to the best",
    )
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if k in (0, 5) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]


if __name__ == "__main__":
    sys.exit(main())
