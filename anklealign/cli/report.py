"""Write plots/report.html again from the metrics and plots of the last run.

    anklealign report

The evaluate stage writes the same page; this command does not need the model.
"""

import sys

from anklealign.config import paths
from anklealign.io import files
from anklealign.reporting import html_report
from anklealign.reporting.metric_tables import read_results


def write_page() -> int:
    """Write the page; return the exit status, 1 when a stage has not run."""
    try:
        metrics, run = read_results()
    except FileNotFoundError as error:
        print(f"report: {error.filename} is missing; run `dvc repro` first", file=sys.stderr)
        return 1
    pictures = html_report.pictures(paths.PLOTS)
    files.write_text(paths.REPORT, html_report.html(metrics, run, pictures))
    print(f"report: {paths.REPORT}")
    return 0
