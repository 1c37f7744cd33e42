"""Write a report for a pull request: changes of scores, parameters, data, pictures and metrics.

    anklealign pr-report main

Compares the workspace with a base revision and writes report/report.md and report/pictures/. Reads
both through DVC. A section that cannot be compared states the reason.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from anklealign.config import paths
from anklealign.experiments import comparison, data_diff
from anklealign.experiments.revisions import WORKSPACE, Revision
from anklealign.experiments.runs import flat, used_params
from anklealign.io import files
from anklealign.reporting.markdown import code, code_block, escape

FOLDER = paths.PULL_REQUEST
PICTURES = Path("pictures")  # below FOLDER
MAX_PICTURES = 40  # a change of the data changes every contact sheet


def write_report(base: str) -> int:
    """Write the report against a git revision; return the exit status, 2 if it is unreadable."""
    try:
        before = Revision.open(base)
    except ValueError as error:
        print(f"pr-report: {error}", file=sys.stderr)
        return 2
    after = Revision.open(WORKSPACE)
    try:
        pictures = changed_pictures(before, after)
        picture_lines = picture_table(pictures)
    except ValueError as error:
        pictures, picture_lines = {}, ["", f"Not compared: {escape(error)}.", ""]
    shutil.rmtree(FOLDER, ignore_errors=True)
    for path, sides in pictures.items():
        for side, content in sides.items():
            with files.replacing(FOLDER / picture_path(path, side)) as temporary:
                temporary.write_bytes(content)
    sections = [
        f"# Changes since {escape(base)}",
        *scores(before, after),
        "## Parameters",
        *parameters(before, after),
        "## Metrics",
        *metrics(base),
        "## Data",
        *data(before, after),
        "## Pictures",
        *picture_lines,
    ]
    files.write_text(FOLDER / "report.md", "\n".join(sections) + "\n")
    print(f"pr-report: {FOLDER / 'report.md'}, {len(pictures)} changed pictures")
    return 0


def scores(before: Revision, after: Revision) -> list[str]:
    """Return the result of the comparison and the table of scores, or the reason for none."""
    try:
        first, second = (side.table(comparison.PREDICTIONS) for side in (before, after))
        predictions = comparison.pair(first, second, (before.name, "this change"))
    except ValueError as error:
        return ["", f"Not compared: {escape(error)}.", ""]
    lines = comparison.report(predictions, before.name, "this change", "balanced_accuracy")
    head, table = lines[:2], lines[2:]
    return ["", f"**{escape(head[0])}**; {escape(head[1])}.", "", *code_block(table[1:]), ""]


def parameters(before: Revision, after: Revision) -> list[str]:
    """Return the changed parameters of the selected dataset and model, or the reason for none."""
    try:
        values = [dict(flat(used_params(side.yaml("params.yaml")))) for side in (before, after)]
    except ValueError as error:
        return ["", f"Not compared: {escape(error)}.", ""]
    first, second = values
    changed = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    if not changed:
        return ["", "No parameter changed.", ""]
    rows = [
        f"| {code(key)} | {escape(first.get(key, '-'))} | {escape(second.get(key, '-'))} |"
        for key in changed
    ]
    return ["", f"| parameter | {escape(before.name)} | this change |", "|---|---|---|", *rows, ""]


def data(before: Revision, after: Revision) -> list[str]:
    """Return the changes of the data, or the reason for none."""
    try:
        first, second = data_diff.data_of(before), data_diff.data_of(after)
    except ValueError as error:
        return ["", f"Not compared: {escape(error)}.", ""]
    changes = data_diff.difference(first, second)
    return ["", *data_diff.report(changes, before.name, "this change"), ""]


def changed_pictures(before: Revision, after: Revision) -> dict[str, dict[str, bytes]]:
    """Return {'before': bytes, 'after': bytes} of each picture that differs, by path.

    Raises:
        ValueError: The list of pictures is in no cache or remote.
    """
    pictures = [
        {p for p in side.list(paths.PLOTS.as_posix()) if p.endswith((".png", ".jpg"))}
        for side in (before, after)
    ]
    changed = {}
    union = sorted(pictures[0] | pictures[1])
    for path in tqdm(union, "pictures", unit="picture", delay=1, leave=False, disable=None):
        sides = {}
        for side, revision, known in (
            ("before", before, pictures[0]),
            ("after", after, pictures[1]),
        ):
            if path in known:
                try:
                    sides[side] = revision.read(path)
                except ValueError as error:
                    print(f"pr-report: {error}", file=sys.stderr)
        if sides.get("before") != sides.get("after"):
            changed[path] = sides
    return changed


def picture_path(path: str, side: str) -> PurePosixPath:
    """Return the path of a changed picture below the folder of the report."""
    return (
        PurePosixPath(PICTURES.as_posix())
        / f"{PurePosixPath(path).with_suffix('')}_{side}{PurePosixPath(path).suffix}"
    )


def picture_table(pictures: dict[str, dict[str, bytes]]) -> list[str]:
    """Return the changed pictures as a Markdown table: before and after."""
    if not pictures:
        return ["", "No picture changed.", ""]
    lines = ["", "| | before | after |", "|---|---|---|"]
    for path, sides in list(pictures.items())[:MAX_PICTURES]:
        cells = [
            f"![{side}]({picture_path(path, side)})" if side in sides else "none"
            for side in ("before", "after")
        ]
        lines.append(f"| `{path.removeprefix('plots/')}` | {' | '.join(cells)} |")
    if len(pictures) > MAX_PICTURES:
        lines.append(f"\nand {len(pictures) - MAX_PICTURES} more in `{PICTURES}/`")
    return [*lines, ""]


def metrics(base: str) -> list[str]:
    """Return the output of `dvc metrics diff` in Markdown."""
    command = [sys.executable, "-m", "dvc", "metrics", "diff", "--md", base]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    if done.returncode:
        return ["", f"`dvc metrics diff` failed: {done.stderr.strip()}", ""]
    # DVC pads the cells with spaces and dashes, more than half of all characters.
    table = re.sub(r" +\|", " |", re.sub(r"-{3,}\|", "---|", done.stdout.strip()))
    return ["", table or "No metric changed.", ""]
