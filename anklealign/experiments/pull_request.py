"""What a change does to the data, the scores and the pictures, as one page for its reviewers.

    make report BASE=main
    python -m anklealign.experiments.pull_request main

Compares the workspace with the base (a git revision) and writes report/report.md and
report/pictures/. Reads both through DVC; what the base lacks is said in its place.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from anklealign.experiments import comparison, data_diff
from anklealign.experiments.revisions import WORKSPACE, Revision
from anklealign.io import files

FOLDER = Path("report")
PICTURES = Path("pictures")  # below FOLDER
MOST = 40  # changed pictures; a change of the data redraws every sheet
LETTERS = 24_000  # of the metrics: GitHub takes 65,536 in a comment, pictures' addresses included


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; exit status 2 when the base cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.experiments.pull_request",
        description=(__doc__ or "").split("\n", 1)[0],
    )
    parser.add_argument("base", help="git revision that the workspace is compared with")
    base = parser.parse_args(arguments).base
    try:
        before = Revision.open(base)
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    after = Revision.open(WORKSPACE)
    try:
        pictures = changed_pictures(before, after)
        seen = shown(pictures)
    except ValueError as error:
        pictures, seen = {}, ["", f"Not compared: {error}.", ""]
    shutil.rmtree(FOLDER, ignore_errors=True)
    for path, sides in pictures.items():
        for side, content in sides.items():
            with files.replacing(FOLDER / picture(path, side)) as temporary:
                temporary.write_bytes(content)
    sections = [
        f"# Against {base}",
        *scores(before, after),
        "## Data",
        *data(before, after),
        "## Pictures",
        *seen,
        "## All metrics",
        *metrics(base),
    ]
    files.write_text(FOLDER / "report.md", "\n".join(sections) + "\n")
    print(f"report: {FOLDER / 'report.md'}, {len(pictures)} changed pictures")
    return 0


def scores(before: Revision, after: Revision) -> list[str]:
    """Return the verdict and the table of scores, or why there is none."""
    try:
        first, second = (side.table(comparison.PREDICTIONS) for side in (before, after))
        answers = comparison.pair(first, second, (before.name, "this change"))
    except ValueError as error:
        return ["", f"Not compared: {error}.", ""]
    found = comparison.report(answers, before.name, "this change", "balanced_accuracy")
    head, table = found[:2], found[2:]
    return ["", f"**{head[0]}**; {head[1]}.", "", "```text", *table[1:], "```", ""]


def data(before: Revision, after: Revision) -> list[str]:
    """Return the difference of the data, or why there is none."""
    try:
        first, second = data_diff.data_of(before), data_diff.data_of(after)
    except ValueError as error:
        return ["", f"Not compared: {error}.", ""]
    found = data_diff.difference(first, second)
    return ["", *data_diff.report(found, before.name, "this change"), ""]


def changed_pictures(before: Revision, after: Revision) -> dict[str, dict[str, bytes]]:
    """Return path to {'before': bytes, 'after': bytes} of the pictures that differ, by path.

    Raises:
        ValueError: What pictures there are is in no cache or remote.
    """
    names = [
        {p for p in side.list("plots") if p.endswith((".png", ".jpg"))} for side in (before, after)
    ]
    found = {}
    everything = sorted(names[0] | names[1])
    for path in tqdm(everything, "pictures", unit="picture", delay=1, leave=False, disable=None):
        sides = {}
        for side, revision, there in (("before", before, names[0]), ("after", after, names[1])):
            if path in there:
                try:
                    sides[side] = revision.read(path)
                except ValueError as error:
                    print(f"report: {error}", file=sys.stderr)
        if sides.get("before") != sides.get("after"):
            found[path] = sides
    return found


def picture(path: str, side: str) -> PurePosixPath:
    """Return where a changed picture stands below the report's folder."""
    return (
        PurePosixPath(PICTURES.as_posix())
        / f"{PurePosixPath(path).with_suffix('')}_{side}{PurePosixPath(path).suffix}"
    )


def shown(pictures: dict[str, dict[str, bytes]]) -> list[str]:
    """Return the changed pictures, before beside after."""
    if not pictures:
        return ["", "No picture changed.", ""]
    lines = ["", "| | before | after |", "|---|---|---|"]
    for path, sides in list(pictures.items())[:MOST]:
        cells = [
            f"![{side}]({picture(path, side)})" if side in sides else "none"
            for side in ("before", "after")
        ]
        lines.append(f"| `{path.removeprefix('plots/')}` | {' | '.join(cells)} |")
    if len(pictures) > MOST:
        lines.append(f"\nand {len(pictures) - MOST} more in `{PICTURES}/`")
    return [*lines, ""]


def metrics(base: str) -> list[str]:
    """Return `dvc metrics diff` as Markdown, folded."""
    command = [sys.executable, "-m", "dvc", "metrics", "diff", "--md", base]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - its own words
    # DVC fills the cells up to one width with blanks and dashes, more than half of all letters.
    table = re.sub(r" +\|", " |", re.sub(r"-{3,}\|", "---|", done.stdout.strip()))
    if len(table) > LETTERS:
        kept = table[:LETTERS].rpartition("\n")[0]
        left = table.count("\n") - kept.count("\n")
        table = f"{kept}\n\nand {left} more: `dvc metrics diff {base}`"
    if done.returncode:
        table = f"`dvc metrics diff` failed: {done.stderr.strip()}"
    table = table or "No metric changed."
    return ["", "<details><summary>dvc metrics diff</summary>", "", table, "", "</details>"]


if __name__ == "__main__":
    sys.exit(main())
