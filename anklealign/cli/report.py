"""Write plots/report.html again from the metrics and plots of the last run.

    anklealign report
    anklealign report --photos           # pictures of the photos alone, before a model is trained

The report stage writes the same page and draws its pictures. Without `--photos` the command needs
no data.
"""

import importlib
import sys

from anklealign.config import paths
from anklealign.io import files
from anklealign.io.results import read_results
from anklealign.reporting import html_report


def write_page() -> int:
    """Write the page; return the exit status, 1 when a stage has not run."""
    try:
        metrics = read_results()
    except FileNotFoundError as error:
        print(f"report: {error.filename} is missing; run `dvc repro` first", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    pictures = html_report.pictures(paths.PLOTS)
    files.write_text(paths.REPORT, html_report.html(metrics, metrics["train"], pictures))
    print(f"report: {paths.REPORT}")
    return 0


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
