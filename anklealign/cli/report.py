"""Write plots/report.html again, or a page that compares the last run with another one.

    anklealign report
    anklealign report --against main     # report/report.html: both runs side by side
    anklealign report --photos           # pictures of the photos alone, before a model is trained

The report stage writes the first page, too, and draws the pictures below plots/.
"""

import importlib
import sys
from pathlib import Path

from anklealign.config import paths
from anklealign.experiments import comparison
from anklealign.experiments.revisions import WORKSPACE, Revision
from anklealign.io import files
from anklealign.reporting import html_report, run_files
from anklealign.reporting.html_report import RunComparison
from anklealign.reporting.metric_tables import Cell, Table, display_name
from anklealign.reporting.run_files import RunFiles

COMPARED = paths.PULL_REQUEST / "report.html"


def write_page(against: str | None = None) -> int:
    """Write the page; return the exit status: 1 without a run, 2 if the runs do not compare."""
    try:
        run = run_files.read()
    except FileNotFoundError as error:
        remedy = (
            "`dvc repro`" if Path(str(error.filename)).parent == paths.DETAILS else "`dvc pull`"
        )
        print(f"report: {error.filename} is missing; run {remedy} first", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    if against is None:
        files.write_text(paths.REPORT, html_report.html(run))
        print(f"report: {paths.REPORT}")
        return 0
    try:
        beside = compare(run, against)
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    files.write_text(COMPARED, html_report.html(run, beside))
    print(f"report: {COMPARED}")
    return 0


def compare(run: RunFiles, against: str) -> RunComparison:
    """Return the comparison of the run in the workspace with a revision.

    Raises:
        ValueError: The revision cannot be read, or has other test photos, labels or classes.
    """
    other = Revision.open(against).table(comparison.PREDICTIONS)
    paired = comparison.pair(other, run.predictions, (against, WORKSPACE))
    differences = comparison.differences(paired)
    balanced = differences["balanced_accuracy"]
    conclusion = (
        f"This run and {against} do not differ beyond chance"
        if balanced.conclusion == "within noise"
        else f"This run is {balanced.conclusion} than {against}"
    )
    rows: list[list[str | int | Cell]] = [
        [
            display_name(name),
            f"{row.first:.3f}",
            f"{row.second:.3f}",
            Cell(f"{row.value:+.3f}", f"{row.low:+.3f} to {row.high:+.3f}"),
            row.conclusion,
        ]
        for name, row in differences.items()
    ]
    lost, won, _ = comparison.mcnemar(paired)
    return RunComparison(
        name=against,
        conclusion=f"{conclusion} in balanced accuracy. {won} test photos are right only in this "
        f"run, {lost} only in {against}.",
        predicted=dict(zip(other.id, other.predicted, strict=True)),
        rows=Table(["score", against, "this run", "difference", "conclusion"], rows),
    )


def draw_photos() -> int:
    """Draw what prepare, clean and split did; return the exit status, 1 if prepare has not run."""
    try:
        # By name: the library does not import the stages.
        importlib.import_module("stages.report").draw_photos()
    except (ValueError, OSError) as error:
        print(f"report: {error}; run `dvc repro split` first", file=sys.stderr)
        return 1
    print(f"report: {paths.PLOTS}/prepare/, {paths.PLOTS}/clean/ and {paths.PLOTS}/split/")
    return 0
