"""What changed in the data between two revisions: photos added, removed, relabelled, moved.

    python -m anklealign.experiments.data_diff main workspace
    python -m anklealign.experiments.data_diff main workspace --out changes.csv

Reads data/prepared/photos.csv, data/clean/removed.csv and data/split/photos.csv of both through
DVC. A photo is its path; one whose bytes reappear under another path is 'renamed'. The part is
train, val, test, left_out, or what clean removed it for.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from anklealign.experiments.revisions import Revision
from anklealign.io import files

KINDS = {
    "added": "photos that were not there",
    "removed": "photos that are there no more",
    "renamed": "the same bytes under another path",
    "changed": "other bytes under the same path",
    "relabelled": "photos with another label",
    "moved": "photos in another part",
}
COLUMNS = ("kind", "path", "class", "before", "after")
SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the difference of two revisions' data; exit status 2 when one cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.experiments.data_diff",
        description=(__doc__ or "").split("\n", 1)[0],
    )
    parser.add_argument("first", help="git revision, experiment or 'workspace'")
    parser.add_argument("second", help="the same; what it became")
    parser.add_argument("--out", type=Path, help="a CSV for the whole list")
    chosen = parser.parse_args(arguments)
    try:
        first, second = (data_of(Revision.open(name)) for name in (chosen.first, chosen.second))
    except ValueError as error:
        print(f"changes: {error}", file=sys.stderr)
        return 2
    found = difference(first, second)
    print("\n".join(report(found, chosen.first, chosen.second)))
    if chosen.out:
        files.write_table(chosen.out, found)
    return 0


def data_of(revision: Revision) -> pd.DataFrame:
    """Return a row a photo that came in, indexed by path: label, sha256, part.

    Raises:
        ValueError: The revision lacks a table.
    """
    table = revision.table("data/prepared/photos.csv").set_index("path")
    removed = revision.table("data/clean/removed.csv").set_index("path")
    split = revision.table("data/split/photos.csv").set_index("path")
    parts = pd.concat([split.split, removed.reason])
    return table[["label", "sha256"]].assign(part=parts)


def difference(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return what changed from one table of `data_of` to another: kind, path, class, before, after.

    Sorted by kind and path; a photo that was relabelled and moved stands in two rows. The class is
    the new one, of a removed photo its last.
    """
    gone = first.loc[first.index.difference(second.index)]
    new = second.loc[second.index.difference(first.index)]
    # By bytes; of several copies that were renamed, the first by path to the first by path.
    old_names, new_names = (
        t.sort_index().assign(copy=t.sort_index().groupby("sha256").cumcount()).reset_index()
        for t in (gone.rename_axis("path"), new.rename_axis("path"))
    )
    renamed = old_names.merge(new_names, on=["sha256", "copy"])
    gone, new = gone.drop(renamed.path_x), new.drop(renamed.path_y)

    both = first.index.intersection(second.index)
    pairs = [(path, path) for path in both]
    pairs += list(zip(renamed.path_x, renamed.path_y, strict=True))
    rows = [("added", path, label, "", part) for path, label, _, part in new.itertuples()]
    rows += [("removed", path, label, part, "") for path, label, _, part in gone.itertuples()]
    rows += [("renamed", path, second.label[path], old, path) for old, path in pairs[len(both) :]]
    for old, path in pairs:
        before, after = first.loc[old], second.loc[path]
        for kind, column in (("changed", "sha256"), ("relabelled", "label"), ("moved", "part")):
            if before[column] != after[column]:
                rows.append((kind, path, after["label"], before[column], after[column]))
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    found["kind"] = pd.Categorical(found.kind, list(KINDS), ordered=True)
    return found.sort_values(["kind", "path"], ignore_index=True).astype({"kind": str})


def report(found: pd.DataFrame, first: str, second: str) -> list[str]:
    """Return the difference as lines of Markdown: counts per class, then the lists, 20 of each."""
    if found.empty:
        return [f"The data of {second} are those of {first}."]
    classes = sorted(set(found["class"]))
    lines = [
        "| | " + " | ".join([*classes, "all"]) + " |",
        "|---|" + "---:|" * (len(classes) + 1),
    ]
    lists: list[str] = []
    for kind, meaning in KINDS.items():
        rows = found[found.kind == kind]
        if rows.empty:
            continue
        numbers = [int((rows["class"] == name).sum()) for name in classes]
        told = " | ".join(map(str, [*numbers, len(rows)]))
        lines.append(f"| {kind}: {meaning} | {told} |")
        lists += ["", f"**{kind}**", ""]
        lists += [f"- {_line(*row)}" for row in rows.head(SHOWN).itertuples(index=False)]
        if len(rows) > SHOWN:
            lists.append(f"- and {len(rows) - SHOWN} more")
    return [*lines, *lists]


def _line(kind: str, path: str, label: str, before: str, after: str) -> str:
    if kind in ("added", "removed"):
        return f"`{path}` ({label}, {before or after})"
    if kind == "renamed":
        return f"`{before}` is `{path}` ({label})"
    if kind == "changed":
        return f"`{path}` ({label})"
    return f"`{path}`: {before} became {after}"


if __name__ == "__main__":
    sys.exit(main())
