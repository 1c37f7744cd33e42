"""Write plots/report.html again from the metrics and plots of the last run.

    anklealign report

The evaluate stage writes the same page; this command does not need the model.
"""

import json
import sys
from pathlib import Path

from anklealign.cli.summary import METRICS, RUN, STAGES
from anklealign.io import files
from anklealign.reporting import html_report

PAGE = Path("plots/report.html")


def write_page() -> int:
    """Write the page; return the exit status, 1 when a stage has not run."""
    try:
        metrics = {
            name: json.loads((METRICS / f"{name}.json").read_text(encoding="utf-8"))
            for name in STAGES
        }
        run = json.loads(RUN.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        print(f"report: {error.filename} is missing; run `dvc repro` first", file=sys.stderr)
        return 1
    files.write_text(PAGE, html_report.html(metrics, run, html_report.pictures(PAGE.parent)))
    print(f"report: {PAGE}")
    return 0
