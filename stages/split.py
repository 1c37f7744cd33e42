"""Split: train, validation and test that share no person and no picture.

Reads data/clean/photos.csv and removed.csv and the pixel store; writes data/split/photos.csv (every
kept photo with its `group` and `split`), metrics/split.json and plots/split/: classes.png, who is
where, and nearest_01.png, the pairs of photos across parts that look most alike.

    python -m stages.split

An audit looks for the same picture in two parts by other means than clean does; one that it finds
fails the stage, after its pictures are written, unless split.accept_leaks names the pair. A group
is a person (or a collector), joined with whoever shares a picture with them. Takes a few seconds.
Each part holds the classes within some 1 point of the whole where the groups allow it, and within 5
wherever they do.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anklealign import figures, files, leaks, params, photos, sheets, stage
from anklealign.grouping import InfeasibleError, Integers, assign, deviation, folds, join
from anklealign.leaks import Pair
from anklealign.params import CONSENSUS, Dataset, Split
from anklealign.photos import Pixels

METRICS = Path("metrics/split.json")
PLOTS = Path("plots/split")
SHOWN = 12  # nearest pairs
LISTED = 20  # leaks in the error's line
LEAK, ACCEPTED, DIFFERENT = "the same picture", "the same picture, accepted", "different pictures"

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
    check_accepted(settings, set(kept.path) | set(removed.path))

    table = kept.assign(group=groups_of(kept, removed, settings.group))
    table["split"] = parts_of(table, settings, classes, seed)
    table, votes = with_consensus(table, removed, settings)
    metrics = metrics_of(table, dataset, settings) | votes
    used = table[table.split.isin(PARTS)].reset_index(drop=True)
    pictures = photos.boxes_of(used, photos.open_store())
    nearest = leaks.nearest_pairs(
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

    files.write_table(photos.SPLIT / "photos.csv", table)
    files.write_json(METRICS, metrics)
    figures.save(figures.class_shares(table, classes, PARTS), PLOTS / "classes.png")
    first = judged[: max(SHOWN, len(found) + accepted)]
    shown = [tile(used, pictures, pair, said, settings) for said, pair in first]
    title = "The most similar photos of different parts"
    sheets.write(PLOTS, "nearest", sheets.pages(shown, title, "no two parts to compare"))
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
    removed = metrics[CONSENSUS]["removed_by_clean"]
    return f"{said} for showing the test photos' persons, {removed} with votes removed by clean"


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
        f"same picture: {listed}{more}; see {PLOTS}/nearest_01.png. Raise clean.hash_distance or "
        "clean.residual so that clean finds them, or remove one of each from the raw photos, or, "
        "if they are different pictures, add these pairs to params.yaml's split.accept_leaks"
    )


def tile(
    table: pd.DataFrame, pictures: Sequence[Pixels], pair: Pair, said: str, settings: Split
) -> sheets.Tile:
    """Return a pair side by side, with what tells them apart."""
    left_over = f"{pair.residual:.2f}" if np.isfinite(pair.residual) else "too much"
    return sheets.Tile(
        (pictures[pair.a], pictures[pair.b]),
        (
            said,
            f"left over: {left_over} (the same up to {settings.leak_residual:.2f})",
            f"correlation: {pair.correlation:.2f} (the same from {settings.leak_correlation:.2f})",
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
    keep = settings.given == "keep" and bool((table.given != "").any())
    if keep and settings.folds:
        raise ValueError(
            f"params.yaml: split.folds = {settings.folds}, but the photos come in given folders; "
            "set split.given: ignore to cross-validate over all of them, or split.folds: 0"
        )
    try:
        if settings.test == CONSENSUS:
            return consensus_parts(table, settings, classes, seed)
        if keep:
            return given_parts(table, settings, classes, seed)
        return table.group.map(own_parts(table, settings, classes, seed))
    except InfeasibleError as error:
        raise ValueError(f"{error}; {choices(settings, keep=keep)}") from None


def choices(settings: Split, *, keep: bool) -> str:
    """Return what a user can choose where the groups do not suffice for the parts."""
    ways = ["set split.given: ignore to split all photos anew"] if keep else []
    if settings.test == CONSENSUS:
        ways = ["set split.test to a share, such as 0.15", "let people vote on other photos"]
    if settings.group == "collector":
        ways.append("set split.group: person, which makes more groups")
    if settings.folds > 3:
        ways.append("set split.folds lower")
    ways.append(f"add photos of other {settings.group}s")
    ways.append("join the class with another in datasets.<name>.classes")
    return ", or ".join(ways)


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
    for name in classes:
        if not (table.consensus == name).any():
            raise InfeasibleError(
                f"split.test = {CONSENSUS!r}, but none of the {int(tested.sum())} photos with a "
                f"consensus label that clean kept is {name}"
            )
    rest = table[~table.group.isin(table.group[tested])]
    for name in classes:
        left = rest.group[rest.label == name].nunique()
        if left < 2:
            raise InfeasibleError(
                f"split.test = {CONSENSUS!r}: besides the groups of the {int(tested.sum())} test "
                f"photos, {left} show {name}, and train and validation need one each"
            )
    shares = {TRAIN: 1 - settings.validation, VALIDATION: settings.validation}
    dealt = assign(class_counts(rest, classes), shares, classes, seed)
    return table.group.map(dealt).fillna(LEFT_OUT).mask(tested, TEST)


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
        of_class = table[table.label == name]
        here = of_class.groupby(part).group.nunique()
        total = of_class.group.nunique()
        groups = {each: int(here.get(each, 0)) for each in (*PARTS, LEFT_OUT)}
        if not all(groups[each] for each in PARTS):
            listed = ", ".join(f"{n} in {each}" for each, n in groups.items() if n or each in PARTS)
            raise InfeasibleError(
                f"class {name} has photos in {total} groups, but with the given folders they "
                f"stand {listed}, and each part needs one"
            )
    return part


def class_counts(table: pd.DataFrame, classes: list[str]) -> dict[str, Integers]:
    """Return each group's photos per class: name to (K,)."""
    counts = pd.crosstab(table.group, table.label).reindex(columns=classes, fill_value=0)
    return dict(zip(counts.index, counts.to_numpy(np.int64), strict=True))


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
