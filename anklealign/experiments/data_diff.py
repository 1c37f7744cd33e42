"""Compare the data of two revisions: photos added, removed, renamed, changed, relabeled, moved.

    anklealign diff main workspace --data
    anklealign diff main workspace --data --out changes.csv

Reads data/prepared/photos.csv, data/clean/removed.csv and data/split/photos.csv of both revisions
through DVC. Photos are identified by path; a photo whose bytes reappear under another path is
'renamed'. The status of a photo is its split (train, val, test or excluded) or the reason for which
clean removed it.
"""

import sys
from pathlib import Path

import pandas as pd

from anklealign.config import paths
from anklealign.experiments.revisions import Revision
from anklealign.io import files
from anklealign.reporting.markdown import code, escape

KINDS = {
    "added": "new photos",
    "removed": "photos that no longer exist",
    "renamed": "same bytes, different path",
    "changed": "same path, different bytes",
    "relabeled": "different label",
    "moved": "different split or removal reason",
}
COLUMNS = ("kind", "path", "class", "before", "after")
SHOWN = 20


def print_data_diff(first: str, second: str, out: Path | None = None) -> int:
    """Print how the data of two revisions differ; return the exit status, 2 if one is unreadable.

    Args:
        first: Git revision, experiment or 'workspace'.
        second: The same; the newer one.
        out: CSV file for the full list.
    """
    try:
        before, after = (data_of(Revision.open(name)) for name in (first, second))
    except ValueError as error:
        print(f"diff: {error}", file=sys.stderr)
        return 2
    changes = difference(before, after)
    print("\n".join(report(changes, first, second)))
    if out:
        files.write_table(out, changes)
    return 0


def data_of(revision: Revision) -> pd.DataFrame:
    """Return one row per prepared photo, indexed by path: label, sha256, status.

    Raises:
        ValueError: A table is missing in the revision.
    """
    table = revision.table(f"{paths.PREPARED.as_posix()}/photos.csv").set_index("path")
    removed = revision.table(f"{paths.CLEAN.as_posix()}/removed.csv").set_index("path")
    split = revision.table(f"{paths.SPLIT.as_posix()}/photos.csv").set_index("path")
    status = pd.concat([split.split, removed.reason])
    return table[["label", "sha256"]].assign(status=status)


def difference(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the changes between two tables of `data_of`: kind, path, class, before, after.

    Sorted by kind and path. A photo that is both relabeled and moved has two rows. The class is the
    new one, and for a removed photo the last one.
    """
    gone = first.loc[first.index.difference(second.index)]
    new = second.loc[second.index.difference(first.index)]
    # Matched by bytes. Several renamed duplicates are matched in the order of their paths.
    old_names, new_names = (
        t.sort_index().assign(copy=t.sort_index().groupby("sha256").cumcount()).reset_index()
        for t in (gone.rename_axis("path"), new.rename_axis("path"))
    )
    renamed = old_names.merge(new_names, on=["sha256", "copy"])
    gone, new = gone.drop(renamed.path_x), new.drop(renamed.path_y)

    both = first.index.intersection(second.index)
    pairs = [(path, path) for path in both]
    pairs += list(zip(renamed.path_x, renamed.path_y, strict=True))
    rows = [("added", path, label, "", status) for path, label, _, status in new.itertuples()]
    rows += [("removed", path, label, status, "") for path, label, _, status in gone.itertuples()]
    rows += [("renamed", path, second.label[path], old, path) for old, path in pairs[len(both) :]]
    for old, path in pairs:
        before, after = first.loc[old], second.loc[path]
        for kind, column in (("changed", "sha256"), ("relabeled", "label"), ("moved", "status")):
            if before[column] != after[column]:
                rows.append((kind, path, after["label"], before[column], after[column]))
    changes = pd.DataFrame(rows, columns=list(COLUMNS))
    changes["kind"] = pd.Categorical(changes.kind, list(KINDS), ordered=True)
    return changes.sort_values(["kind", "path"], ignore_index=True).astype({"kind": str})


def report(changes: pd.DataFrame, first: str, second: str) -> list[str]:
    """Return the changes as Markdown lines: counts by class, then up to 20 photos of each kind."""
    if changes.empty:
        return [f"The data of {second} and {first} are identical."]
    classes = sorted(set(changes["class"]))
    lines = [
        "| | " + " | ".join([*map(escape, classes), "all"]) + " |",
        "|---|" + "---:|" * (len(classes) + 1),
    ]
    lists: list[str] = []
    for kind, meaning in KINDS.items():
        rows = changes[changes.kind == kind]
        if rows.empty:
            continue
        counts = [int((rows["class"] == name).sum()) for name in classes]
        cells = " | ".join(map(str, [*counts, len(rows)]))
        lines.append(f"| {kind}: {meaning} | {cells} |")
        lists += ["", f"**{kind}**", ""]
        lists += [f"- {_line(*row)}" for row in rows.head(SHOWN).itertuples(index=False)]
        if len(rows) > SHOWN:
            lists.append(f"- and {len(rows) - SHOWN} more")
    return [*lines, *lists]


def _line(kind: str, path: str, label: str, before: str, after: str) -> str:
    if kind in ("added", "removed"):
        return f"{code(path)} ({escape(label)}, {escape(before or after)})"
    if kind == "renamed":
        return f"{code(before)} -> {code(path)} ({escape(label)})"
    if kind == "changed":
        return f"{code(path)} ({escape(label)})"
    return f"{code(path)}: {escape(before)} -> {escape(after)}"
