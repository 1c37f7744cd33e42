"""Split: train, validation and test that share no person and no picture.

Reads data/clean/photos.csv and removed.csv and the pixel store; writes data/split/photos.csv (every
kept photo with its `group` and `split`), metrics/split.json and plots/split/: classes.png, who is
where, and nearest_01.png, the pairs of photos across parts that look most alike.

    python -m stages.split

An audit that knows nothing of how the groups were made looks for the same picture in two parts; one
that it finds fails the stage, after its pictures are written, unless split.accept_leaks names it.
A group is a person (or a collector), joined with whoever shares a picture with them. Takes a few
seconds. Each part holds the classes within some 1 point of the whole where the groups allow it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anklealign import figures, files, leaks, params, photos, sheets, stage
from anklealign.grouping import Integers, assign, deviation, folds, join
from anklealign.leaks import Pair
from anklealign.params import CONSENSUS, Dataset, Split
from anklealign.photos import Pixels

METRICS = Path("metrics/split.json")
PLOTS = Path("plots/split")
SHOWN = 12  # nearest pairs

TRAIN, VALIDATION, TEST = "train", "val", "test"
PARTS = (TRAIN, VALIDATION, TEST)
# Photos of a group that crosses given folders, or that a consensus test part shows, stay in the
# table, out of every part.
LEFT_OUT = "left_out"


def main() -> None:
    """Read the clean tables, deal their groups to parts, write table, metrics and plot."""
    raw = params.read()
    settings = params.section(raw, "split", Split)
    seed = params.section(raw, "seed", int)
    _, dataset = params.dataset(raw)
    kept = photos.read_table(photos.CLEAN / "photos.csv")
    removed = photos.read_table(photos.CLEAN / "removed.csv")
    classes = list(dataset.classes)

    table = kept.assign(group=groups_of(kept, removed, settings.group))
    table["split"] = parts_of(table, settings, classes, seed)
    table, votes = with_consensus(table, removed, settings)
    metrics = metrics_of(table, dataset, settings) | votes
    used = table[table.split.isin(PARTS)].reset_index(drop=True)
    pictures = photos.boxes_of(used, photos.open_store())
    nearest = leaks.nearest_pairs(pictures, list(used.split), (TEST, VALIDATION))
    found, accepted = audit(used, nearest, settings)
    metrics |= {"leaks": len(found), "leaks_accepted": accepted}
    if metrics["groups_crossing"]:
        raise ValueError(
            f"{metrics['groups_crossing']} groups stand in more than one part: a bug, please report"
        )

    files.write_table(photos.SPLIT / "photos.csv", table)
    files.write_json(METRICS, metrics)
    figures.save(figures.class_shares(table, classes, PARTS), PLOTS / "classes.png")
    shown = [tile(used, pictures, pair, settings) for pair in nearest[: max(SHOWN, len(found))]]
    title = "The most similar photos of different parts"
    sheets.write(PLOTS, "nearest", sheets.pages(shown, title, "no two parts to compare"))
    if found:
        listed = "; ".join(f"{used.path[p.a]} and {used.path[p.b]}" for p in found[:5])
        raise ValueError(
            f"{len(found)} pairs of photos in different parts show the same picture: {listed}; see "
            f"{PLOTS}/nearest_01.png. Raise clean.hash_distance or clean.residual so that clean "
            "finds them, remove one of each from the raw photos, or, if they are different "
            "pictures, list one path of each in params.yaml's split.accept_leaks"
        )
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
    removed = metrics[CONSENSUS]["removed_by_clean"]
    return f"{said} for showing the test photos' persons, {removed} with votes removed by clean"


def audit(table: pd.DataFrame, nearest: Sequence[Pair], settings: Split) -> tuple[list[Pair], int]:
    """Return the pairs that are one picture, and how many of such were accepted by name."""
    same = [pair for pair in nearest if pair.residual <= settings.leak_residual]
    accepted = set(settings.accept_leaks)
    found = [pair for pair in same if not accepted & {table.path[pair.a], table.path[pair.b]}]
    return found, len(same) - len(found)


def tile(
    table: pd.DataFrame, pictures: Sequence[Pixels], pair: Pair, settings: Split
) -> sheets.Tile:
    """Return a pair side by side, with what tells them apart."""
    verdict = "the same picture" if pair.residual <= settings.leak_residual else "different"
    left_over = f"{pair.residual:.2f}" if np.isfinite(pair.residual) else "too much"
    return sheets.Tile(
        (pictures[pair.a], pictures[pair.b]),
        (
            f"{verdict}: {left_over} is left over, limit {settings.leak_residual:.2f}",
            f"{table.split[pair.a]}: {table.path[pair.a]}",
            f"{table.split[pair.b]}: {table.path[pair.b]}",
        ),
    )


def groups_of(kept: pd.DataFrame, removed: pd.DataFrame, kind: str) -> pd.Series:
    """Return each kept photo's group name.

    Removed copies count: a picture that two persons' folders shared joins the two, whichever copy
    was kept.
    """
    links: list[tuple[str, str]] = []
    for table in (kept, removed):
        who = table.collector if kind == "collector" else table.person
        for column, prefix in ((who, kind), (table.cluster, "cluster")):
            there = column != ""
            links += zip(table.id[there], prefix + ":" + column[there], strict=True)
    return kept.id.map(join(list(kept.id), links))


def parts_of(table: pd.DataFrame, settings: Split, classes: list[str], seed: int) -> pd.Series:
    """Return each photo's part: train, val, test or left_out.

    Raises:
        ValueError: A class is missing or has too few groups for the parts.
    """
    for name in classes:
        if not (table.label == name).any():
            raise ValueError(
                f"class {name} has no photo left after clean; see data/clean/removed.csv and "
                "data/prepared/skipped.csv, or take it out of datasets.<name>.classes"
            )
    if settings.test == CONSENSUS:
        return consensus_parts(table, settings, classes, seed)
    given = table.given
    if settings.given == "ignore" or not (given != "").any():
        return table.group.map(own_parts(table, settings, classes, seed))
    if settings.folds:
        raise ValueError(
            f"params.yaml: split.folds = {settings.folds}, but the photos come in given folders; "
            "set split.given: ignore to cross-validate over all of them, or split.folds: 0"
        )
    return given_parts(table, settings, classes, seed)


def own_parts(
    table: pd.DataFrame, settings: Split, classes: list[str], seed: int
) -> Mapping[str, str]:
    """Return each group's part by own search."""
    groups = class_counts(table, classes)
    if settings.folds:
        validation = (settings.fold + 1) % settings.folds
        names = {settings.fold: TEST, validation: VALIDATION}
        dealt = folds(groups, settings.folds, classes, seed)
        return {group: names.get(fold, TRAIN) for group, fold in dealt.items()}
    test = float(settings.test)
    shares = {
        TRAIN: 1 - settings.validation - test,
        VALIDATION: settings.validation,
        TEST: test,
    }
    return assign(groups, shares, classes, seed)


def consensus_parts(
    table: pd.DataFrame, settings: Split, classes: list[str], seed: int
) -> pd.Series:
    """Return each photo's part where those with a consensus label are the test part.

    Other photos of their groups are left out; of the rest validation gets its share.
    """
    tested = table.consensus != ""
    groups = set(table.group[tested])
    rest = table[~table.group.isin(groups)]
    remedy = "or set split.test in params.yaml to a share, such as 0.15"
    for name in classes:
        if not (table.consensus == name).any():
            raise ValueError(
                f"split.test = {CONSENSUS!r}: no photo that clean kept has the consensus label "
                f"{name} ({int(tested.sum())} have one); add votes on such photos to consensus/, "
                f"take {name} out of datasets.<name>.classes, {remedy}"
            )
        left = rest.group[rest.label == name].nunique()
        if left < 2:
            raise ValueError(
                f"split.test = {CONSENSUS!r}: besides the groups of the {int(tested.sum())} test "
                f"photos, {left} group(s) show {name}, and train and validation need one each; add "
                f"photos of other persons, list fewer in consensus/, {remedy}"
            )
    shares = {TRAIN: 1 - settings.validation, VALIDATION: settings.validation}
    dealt = assign(class_counts(rest, classes), shares, classes, seed)
    part = table.group.map(dealt).fillna(LEFT_OUT)
    return part.mask(tested, TEST)


def with_consensus(
    table: pd.DataFrame, removed: pd.DataFrame, settings: Split
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table, its test part labelled by consensus if it is one, and what that changed."""
    if settings.test != CONSENSUS:
        return table, {}
    tested = table.split == TEST
    metrics = {
        "photos": int(tested.sum()),
        "removed_by_clean": int((removed.consensus != "").sum()),
        "relabelled": int((tested & (table.label != table.consensus)).sum()),
        "left_out": int((table.split == LEFT_OUT).sum()),
    }
    return table.assign(label=table.consensus.where(tested, table.label)), {CONSENSUS: metrics}


def given_parts(table: pd.DataFrame, settings: Split, classes: list[str], seed: int) -> pd.Series:
    """Return each photo's part, keeping the folders in which the photos came.

    With one held-out folder (val or test) that one is the test part, and validation is carved from
    train by group. A group that crosses folders leaves train, and validation if it is in the test
    part too; photos outside the three folders are train's.
    """
    part = table.given.where(table.given != "", TRAIN)
    held_out = sorted(set(part) - {TRAIN})
    if not held_out or not (part == TRAIN).any():
        raise ValueError(
            f"the photos come in {', '.join(sorted(set(part)))}/ alone, which leaves nothing to "
            "train or nothing to test on; set split.given: ignore to split them anew"
        )
    if len(held_out) == 1:
        part = part.where(part == TRAIN, TEST)
    for stronger, weaker in ((TEST, VALIDATION), (TEST, TRAIN), (VALIDATION, TRAIN)):
        claimed = set(table.group[part == stronger])
        part = part.mask((part == weaker) & table.group.isin(claimed), LEFT_OUT)
    if len(held_out) == 1:
        rest = table[part == TRAIN]
        share = settings.validation / (1 - float(settings.test))
        carved = assign(
            class_counts(rest, classes),
            {TRAIN: 1 - share, VALIDATION: share},
            classes,
            seed,
        )
        part = part.mask(part == TRAIN, table.group.map(carved))
    for name in classes:
        for here in PARTS:
            if not ((table.label == name) & (part == here)).any():
                raise ValueError(
                    f"class {name} has no photo in {here} with the given folders; set "
                    "split.given: ignore to split them anew, or add photos"
                )
    return part


def class_counts(table: pd.DataFrame, classes: list[str]) -> dict[str, Integers]:
    """Return each group's photos per class: name to (K,)."""
    counts = pd.crosstab(table.group, table.label).reindex(columns=classes, fill_value=0)
    return dict(zip(counts.index, counts.to_numpy(np.int64), strict=True))


def metrics_of(table: pd.DataFrame, dataset: Dataset, settings: Split) -> dict[str, Any]:
    """Return photos, groups, persons and classes per part."""
    used = table[table.split.isin(PARTS)]
    tally = np.array(
        [
            [((used.split == part) & (used.label == name)).sum() for name in dataset.classes]
            for part in PARTS
        ]
    )
    # What was asked for; given folders and folds bring sizes of their own.
    shares = tally.sum(1) / tally.sum()
    metrics: dict[str, Any] = {
        "groups": int(used.group.nunique()),
        "groups_crossing": len(used[["group", "split"]].drop_duplicates()) - used.group.nunique(),
        "person_unknown": int((used.person == "").sum()),
        "left_out": int((table.split == LEFT_OUT).sum()),
        "deviation_points": round(100 * deviation(tally, shares), 3),
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
