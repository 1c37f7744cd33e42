"""Split: train, validation and test that share no person and no picture.

Reads data/clean/photos.csv and removed.csv and the pixel store; writes data/split/photos.csv (every
kept photo with its `group` and `split`), metrics/split.json and plots/split/: classes.png, who is
where, and nearest_01.png and on, the pairs of photos across parts that look most alike.

    python -m stages.split

An audit looks for the same picture in two parts by other means than clean does; one that it finds
fails the stage, after its pictures are written, unless split.accept_leaks names the pair. A group
is a person (or a collector), joined with whoever shares a picture with them. Takes a few seconds.
Each part holds the classes within some 1 point of the whole where the groups allow it, and within 5
wherever they do.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anklealign.config import params, stage
from anklealign.config.params import CONSENSUS, Dataset, Split
from anklealign.io import files, pixel_store
from anklealign.io.pixel_store import Pixels
from anklealign.plotting import contact_sheets, style
from anklealign.splitting import leakage, plots
from anklealign.splitting.leakage import Pair
from anklealign.splitting.splits import LEFT_OUT, PARTS, TEST, VALIDATION, groups_of, parts_of
from anklealign.splitting.stratified_groups import deviation

METRICS = Path("metrics/split.json")
PLOTS = Path("plots/split")
SHOWN = 12  # nearest pairs
LISTED = 20  # leaks in the error's line
LEAK, ACCEPTED, DIFFERENT = "the same picture", "the same picture, accepted", "different pictures"


def main() -> None:
    """Read the clean tables, deal their groups to parts, write table, metrics and plot."""
    raw = params.read()
    settings = params.section(raw, "split", Split)
    seed = params.section(raw, "seed", int)
    _, dataset = params.dataset(raw)
    kept = pixel_store.read_table(pixel_store.CLEAN / "photos.csv")
    removed = pixel_store.read_table(pixel_store.CLEAN / "removed.csv")
    classes = list(dataset.classes)
    check_accepted(settings, set(kept.path) | set(removed.path))

    groups = groups_of(kept, removed, settings.group)
    table = kept.assign(group=kept.id.map(groups))
    gone = {groups[photo] for photo in removed.id[removed.panel == 1]}
    table["split"] = parts_of(table, settings, classes, seed, gone)
    table, votes = with_consensus(table, removed, settings)
    metrics = metrics_of(table, dataset, settings) | votes
    used = table[table.split.isin(PARTS)].reset_index(drop=True)
    pictures = pixel_store.boxes_of(used, pixel_store.open_store())
    nearest = leakage.nearest_pairs(
        pictures, list(used.split), (TEST, VALIDATION), squares=dataset.fit == "crop"
    )
    judged = [(verdict(used, pair, settings), pair) for pair in nearest]
    judged.sort(key=lambda each: (LEAK, ACCEPTED, DIFFERENT).index(each[0]))
    found = [pair for said, pair in judged if said == LEAK]
    accepted = sum(said == ACCEPTED for said, _ in judged)
    metrics |= {"leaks": len(found), "leaks_accepted": accepted}
    if metrics["groups_crossing"]:
        raise ValueError(
            f"{metrics['groups_crossing']} groups stand in more than one part: a bug, please report"
        )

    files.write_table(pixel_store.SPLIT / "photos.csv", table)
    files.write_json(METRICS, metrics)
    style.save(plots.class_shares(table, classes, PARTS), PLOTS / "classes.png")
    first = judged[: max(SHOWN, len(found) + accepted)]
    shown = [tile(used, pictures, pair, said, settings) for said, pair in first]
    title = "The most similar photos of different parts"
    contact_sheets.write(
        PLOTS, "nearest", contact_sheets.pages(shown, title, "no two parts to compare")
    )
    if found:
        raise ValueError(leaked(used, found))
    sizes = ", ".join(f"{part} {metrics[part]['photos']} photos" for part in PARTS)
    print(
        f"split: {sizes}, {metrics['groups']} groups, none on two sides, "
        f"no picture on two sides among the {len(nearest)} nearest pairs, "
        f"{left_out_line(metrics)}, classes within "
        f"{metrics['deviation_points']:.1f} points of the whole"
    )


def left_out_line(metrics: dict[str, Any]) -> str:
    """Return how many photos are in no part, and why where that is for a consensus test part."""
    said = f"{metrics['left_out']} photos left out"
    if CONSENSUS not in metrics:
        return said
    found = metrics[CONSENSUS]
    return (
        f"{said} for showing persons of the photos to be voted on, of which "
        f"{found['without_label']} have no consensus and {found['removed_by_clean']} were removed "
        "by clean"
    )


def check_accepted(settings: Split, known: set[str]) -> None:
    """Check that split.accept_leaks names photos.

    Raises:
        ValueError: A path is no photo's.
    """
    for path in (path for pair in settings.accept_leaks for path in pair):
        if path not in known:
            raise ValueError(
                f"params.yaml: split.accept_leaks names {path!r}, which is no photo of "
                "data/clean/photos.csv or removed.csv; write its path as the column path there "
                "has it, or take the pair out"
            )


def verdict(table: pd.DataFrame, pair: Pair, settings: Split) -> str:
    """Return LEAK where either measure says so, ACCEPTED where the pair is named, or DIFFERENT."""
    if pair.residual > settings.leak_residual and pair.correlation < settings.leak_correlation:
        return DIFFERENT
    paths = {table.path[pair.a], table.path[pair.b]}
    return ACCEPTED if paths in map(set, settings.accept_leaks) else LEAK


def leaked(table: pd.DataFrame, found: Sequence[Pair]) -> str:
    """Return what the stage fails with: the pairs, as params.yaml would accept them."""
    pairs = [[str(table.path[pair.a]), str(table.path[pair.b])] for pair in found[:LISTED]]
    listed = json.dumps(pairs, ensure_ascii=False)
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return (
        f"{len(found)} pair{'' if len(found) == 1 else 's'} of photos in different parts show the "
        f"same picture: {listed}{more}; see {PLOTS}/nearest_*.png. Raise clean.hash_distance or "
        "clean.residual so that clean finds them, or remove one of each from the raw photos, or, "
        "if they are different pictures, add these pairs to params.yaml's split.accept_leaks"
    )


def tile(
    table: pd.DataFrame, pictures: Sequence[Pixels], pair: Pair, said: str, settings: Split
) -> contact_sheets.Tile:
    """Return a pair side by side, with what tells them apart."""
    left_over = f"{pair.residual:.2f}" if np.isfinite(pair.residual) else "too much"
    return contact_sheets.Tile(
        (pictures[pair.a], pictures[pair.b]),
        (
            said,
            f"left over: {left_over} (the same up to {settings.leak_residual:.2f})",
            f"correlation: {pair.correlation:.2f} (the same from {settings.leak_correlation:.2f})",
            f"{table.split[pair.a]}: {table.path[pair.a]}",
            f"{table.split[pair.b]}: {table.path[pair.b]}",
        ),
    )


def with_consensus(
    table: pd.DataFrame, removed: pd.DataFrame, settings: Split
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table, its test part labelled by consensus if it is one, and what that changed."""
    if settings.test != CONSENSUS:
        return table, {}
    tested = table.split == TEST
    metrics = {
        "photos": int(tested.sum()),
        "without_label": int(((table.panel == 1) & ~tested).sum()),
        "removed_by_clean": int((removed.panel == 1).sum()),
        "relabelled": int((tested & (table.label != table.consensus)).sum()),
        "left_out": int((table.split == LEFT_OUT).sum()),
    }
    return table.assign(label=table.consensus.where(tested, table.label)), {CONSENSUS: metrics}


def metrics_of(table: pd.DataFrame, dataset: Dataset, settings: Split) -> dict[str, Any]:
    """Return photos, groups, persons and classes per part.

    `deviation_points` is how far a class's share of a part is from its share of all parts, in
    percentage points, at the worst.
    """
    used = table[table.split.isin(PARTS)]
    tally = np.array(
        [
            [((used.split == part) & (used.label == name)).sum() for name in dataset.classes]
            for part in PARTS
        ]
    )
    metrics: dict[str, Any] = {
        "groups": int(used.group.nunique()),
        "groups_crossing": len(used[["group", "split"]].drop_duplicates()) - used.group.nunique(),
        "person_unknown": int((used.person == "").sum()),
        "left_out": int((table.split == LEFT_OUT).sum()),
        "deviation_points": round(100 * deviation(tally), 3),
        "grouped_by": settings.group,
    }
    for part in PARTS:
        here = used[used.split == part]
        metrics[part] = {
            "photos": len(here),
            "groups": int(here.group.nunique()),
            "persons": int(here.person[here.person != ""].nunique()),
            "classes": {name: int((here.label == name).sum()) for name in dataset.classes},
        }
    return metrics


if __name__ == "__main__":
    stage.run("split", main)
