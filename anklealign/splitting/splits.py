"""Which part each photo is in: by share, by the folders it came in, by consensus, or by fold.

Rows are those of the photo table (`anklealign/io/pixel_store.py`); the groups that parts may not
share are dealt by `anklealign/splitting/stratified_groups.py`.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from anklealign.config.params import CONSENSUS, Split
from anklealign.splitting.stratified_groups import InfeasibleError, Integers, assign, folds, join

TRAIN, VALIDATION, TEST = "train", "val", "test"
PARTS = (TRAIN, VALIDATION, TEST)
# Photos of a group that crosses given folders, or that a consensus test part shows, stay in the
# table, out of every part.
LEFT_OUT = "left_out"


def groups_of(kept: pd.DataFrame, removed: pd.DataFrame, kind: str) -> dict[str, str]:
    """Return each photo's group name, by id, of the kept photos and of those that clean removed.

    Removed copies count: a picture that two persons' folders shared joins the two, whichever copy
    was kept.
    """
    links: list[tuple[str, str]] = []
    for table in (kept, removed):
        who = table.collector if kind == "collector" else table.person
        for column, prefix in ((who, kind), (table.cluster, "cluster")):
            there = column != ""
            links += zip(table.id[there], prefix + ":" + column[there], strict=True)
    return join([*kept.id, *removed.id], links)


def parts_of(
    table: pd.DataFrame,
    settings: Split,
    classes: list[str],
    seed: int,
    gone: Collection[str] = (),
) -> pd.Series:
    """Return each photo's part: train, val, test or left_out.

    `gone` are the groups of the panel's photos that clean removed.

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
    if keep and settings.fold is not None:
        raise ValueError(
            f"params.yaml: split.fold = {settings.fold}, but the photos come in given folders; "
            "set split.given: ignore to cross-validate over all of them, or split.fold: null"
        )
    try:
        if settings.test == CONSENSUS:
            return consensus_parts(table, gone, settings, classes, seed)
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
    if settings.fold is not None and settings.folds > 3:
        ways.append("set split.folds lower")
    ways.append(f"add photos of other {settings.group}s")
    ways.append("join the class with another in datasets.<name>.classes")
    return ", or ".join(ways)


def own_parts(
    table: pd.DataFrame, settings: Split, classes: list[str], seed: int
) -> Mapping[str, str]:
    """Return each group's part by own search."""
    groups = class_counts(table, classes)
    if settings.fold is not None:
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
    table: pd.DataFrame,
    gone: Collection[str],
    settings: Split,
    classes: list[str],
    seed: int,
) -> pd.Series:
    """Return each photo's part where those with a consensus label are the test part.

    Other photos of the groups that the panel's photos show are left out, also where such a photo
    has no consensus label or was removed by clean: who was set aside for the test stays aside, so
    that another threshold of clean frees nobody. Of the rest validation gets its share.
    """
    tested = table.consensus != ""
    for name in classes:
        if not (table.consensus == name).any():
            raise InfeasibleError(
                f"split.test = {CONSENSUS!r}, but none of the {int(tested.sum())} photos with a "
                f"consensus label that clean kept is {name}"
            )
    rest = table[~table.group.isin({*table.group[table.panel == 1], *gone})]
    for name in classes:
        left = rest.group[rest.label == name].nunique()
        if left < 2:
            raise InfeasibleError(
                f"split.test = {CONSENSUS!r}: besides the groups of the photos that were to be "
                f"voted on, {left} show {name}, and train and validation need one each"
            )
    shares = {TRAIN: 1 - settings.validation, VALIDATION: settings.validation}
    dealt = assign(class_counts(rest, classes), shares, classes, seed)
    return table.group.map(dealt).fillna(LEFT_OUT).mask(tested, TEST)


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
