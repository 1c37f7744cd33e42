"""Write plots/report.html again from the metrics and plots of the last run.

    anklealign report

The report stage writes the same page and draws its pictures; this command needs no data.
"""

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
