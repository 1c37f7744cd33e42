"""Assign photos to splits: by share, by predefined split, by consensus label, or by fold.

Rows are those of the photo table (`anklealign/io/pixel_store.py`). Groups, which no two splits may
share, are assigned by `anklealign/splitting/stratified_groups.py`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from anklealign.config.params import CONSENSUS, Dataset, Split
from anklealign.splitting.stratified_groups import (
    InfeasibleError,
    Integers,
    assign,
    connected_groups,
)

TRAIN, VALIDATION, TEST = "train", "val", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
# Photos that are in no split but stay in the table: those of a group that spans predefined splits,
# or of a group in a consensus test split.
EXCLUDED = "excluded"
# Prefixes of group names. The names determine the seeded order in which groups are assigned, so
# another prefix would change the splits of every dataset; "person" predates the column `subject`.
PREFIXES = {"subject": "person", "collector": "collector"}


def group_names(
    kept: pd.DataFrame,
    removed: pd.DataFrame,
    kind: str,
    joined: Iterable[tuple[str, str]] = (),
) -> dict[str, str]:
    """Return the group name of each photo id, for the kept and the removed photos.

    Removed duplicates count: a picture in the folders of two subjects joins them, whichever
    duplicate was kept. `joined` are pairs of ids whose groups are joined as well.
    """
    links = [(photo, f"pair:{min(pair)}") for pair in joined for photo in pair]
    for table in (kept, removed):
        owner = table.collector if kind == "collector" else table.subject
        for column, prefix in ((owner, PREFIXES[kind]), (table.cluster, "cluster")):
            known = column != ""
            links += zip(table.id[known], prefix + ":" + column[known], strict=True)
    return connected_groups([*kept.id, *removed.id], links)


def split_photos(
    kept: pd.DataFrame,
    removed: pd.DataFrame,
    settings: Split,
    seed: int,
    *,
    name: str,
    dataset: Dataset,
    joined: Iterable[tuple[str, str]] = (),
) -> pd.DataFrame:
    """Return the kept photos with their `group` and their `split`: train, val, test, or excluded.

    The column `unjoined` has their groups without `joined`.

    Args:
        kept: The photos that clean kept.
        removed: The photos that it removed; their duplicates and subjects join groups, too.
        settings: The split.
        seed: Of the order in which groups are assigned.
        name: Of the dataset, for the command.
        dataset: Its config.
        joined: Pairs of ids that show the same picture, whose groups are joined.

    Raises:
        InfeasibleError: A class is missing or has too few groups for the splits; the message ends
            with the nearest feasible settings as a command, if there are any.
    """
    joined, classes = list(joined), list(dataset.classes)
    try:
        return _split_photos(kept, removed, settings, classes=classes, seed=seed, joined=joined)
    except InfeasibleError as error:
        message = (
            f"{error}. Add photos of other {settings.group}s, or merge the class with another in "
            f"datasets.{name}.classes"
        )
    for changes in alternatives(settings):
        known = {key: value for key, value in changes.items() if key != "subject"}
        table = kept.assign(subject="") if "subject" in changes else kept
        try:
            changed = replace(settings, **known)  # type: ignore[arg-type]
            _split_photos(table, removed, changed, classes=classes, seed=seed, joined=joined)
        except ValueError:
            continue
        column = "group_column" if dataset.group_column else "subject_pattern"
        raise InfeasibleError(f"{message}. {_proposal(changes, f'datasets.{name}.{column}')}")
    raise InfeasibleError(f"{message}; no setting of split makes it possible")


def _split_photos(
    kept: pd.DataFrame,
    removed: pd.DataFrame,
    settings: Split,
    *,
    classes: list[str],
    seed: int,
    joined: list[tuple[str, str]],
) -> pd.DataFrame:
    groups = group_names(kept, removed, settings.group, joined)
    unjoined = group_names(kept, removed, settings.group) if joined else groups
    table = kept.assign(group=kept.id.map(groups), unjoined=kept.id.map(unjoined))
    removed_groups = {groups[photo] for photo in removed.id[removed.multi_annotated == 1]}
    return table.assign(split=assign_splits(table, settings, classes, seed, removed_groups))


def alternatives(settings: Split) -> Iterable[dict[str, object]]:
    """Yield changes of the settings, the nearest to the request first.

    The key `subject` stands for giving up subjects: each photo becomes a group of its own.
    """
    fewer: list[dict[str, object]] = [{}]
    if settings.fold is not None:
        fewer += [
            {"folds": folds} for folds in range(settings.folds - 1, max(2, settings.fold), -1)
        ]
    larger: list[dict[str, object]] = [{}]
    if settings.test == CONSENSUS:
        larger.append({"test": 0.15})
    if settings.predefined != "ignore":
        larger.append({"predefined": "ignore"})
        if settings.fold is not None:
            larger.append({"fold": None})
    if settings.group == "collector":
        larger.append({"group": "subject"})
    larger += [{"subject": None}, {"group": "subject", "subject": None}]
    for change in larger:
        for fold_count in fewer:
            if change or fold_count:
                yield change | fold_count


def _proposal(changes: Mapping[str, object], subjects: str) -> str:
    """Return the command that applies changes of the settings, with what they give up.

    `subjects` is the key of params.yaml that names the subjects.
    """
    options = " ".join(
        f"-S {subjects if key == 'subject' else f'split.{key}'}="
        f"{'null' if value is None else value}"
        for key, value in changes.items()
    )
    price = ""
    if "subject" in changes:
        price = " (a subject may then be in several splits)"
    elif changes.get("predefined") == "ignore":
        price = " (splits all photos anew)"
    return f"The nearest feasible split{price}:\n  dvc exp run {options}"


def assign_splits(
    table: pd.DataFrame,
    settings: Split,
    classes: list[str],
    seed: int,
    removed_groups: Collection[str] = (),
) -> pd.Series:
    """Return each photo's split: train, val, test, or excluded.

    `removed_groups` are the groups of multi-annotated photos that clean removed.

    Raises:
        ValueError: A class is missing, or a setting contradicts the dataset.
        InfeasibleError: A class has too few groups for the splits.
    """
    for name in classes:
        if not (table.label == name).any():
            raise ValueError(
                f"class {name} has no photo left after clean; see data/clean/removed.csv and "
                "data/prepared/skipped.csv, or remove it from datasets.<name>.classes"
            )
    keep = bool(kept_splits(table, settings))
    if keep and settings.fold is not None:
        raise InfeasibleError(
            f"params.yaml: split.fold = {settings.fold}, but the dataset has predefined splits, "
            "which leave no folds"
        )
    if settings.test == CONSENSUS:
        return consensus_splits(table, removed_groups, settings, classes, seed)
    if keep:
        return predefined_splits(table, settings, classes, seed)
    return table.group.map(stratified_splits(table, settings, classes, seed))


def kept_splits(table: pd.DataFrame, settings: Split) -> list[str]:
    """Return the predefined splits that are kept; photos without one belong to train.

    Photos that are all in the train folder, or all in another one, have no predefined split.
    """
    if settings.predefined == "ignore":
        return []
    named = set(table.predefined_split.where(table.predefined_split != "", TRAIN))
    return [split for split in SPLITS if split in named] if len(named) > 1 else []


def effective_predefined(table: pd.DataFrame) -> pd.Series:
    """Return the predefined split of each photo: train without one, test for a single held-out one.

    A single held-out split (val or test) is the test split, and validation is taken from train.
    """
    split = table.predefined_split.where(table.predefined_split != "", TRAIN)
    held_out = set(split) - {TRAIN}
    return split.where(split == TRAIN, TEST) if len(held_out) == 1 else split


def audited_splits(
    table: pd.DataFrame, settings: Split, classes: list[str], seed: int
) -> tuple[list[str], tuple[str, ...]]:
    """Return the split of each photo for the audit, and the splits to query.

    In cross-validation these are all folds, whichever is tested: all runs then join the same groups
    and test every photo once. Excluded photos are in no split: ''.
    """
    if settings.fold is None:
        return [split if split in SPLITS else "" for split in table.split], (TEST, VALIDATION)
    names = _fold_names(settings)
    fold = table.group.map(_assign(table, dict.fromkeys(names, 1 / len(names)), classes, seed))
    return list(fold.mask(table.split == EXCLUDED, "")), names[:-1]


def stratified_splits(
    table: pd.DataFrame, settings: Split, classes: list[str], seed: int
) -> Mapping[str, str]:
    """Return the split of each group, by share or by fold."""
    if settings.fold is not None:
        folds = _fold_names(settings)
        names = {folds[settings.fold]: TEST, folds[(settings.fold + 1) % len(folds)]: VALIDATION}
        group_folds = _assign(table, dict.fromkeys(folds, 1 / len(folds)), classes, seed)
        return {group: names.get(fold, TRAIN) for group, fold in group_folds.items()}
    test = float(settings.test)
    shares = {TRAIN: 1 - settings.val - test, VALIDATION: settings.val, TEST: test}
    return _assign(table, shares, classes, seed)


def _fold_names(settings: Split) -> tuple[str, ...]:
    return tuple(f"fold {number}" for number in range(settings.folds))


def _assign(
    table: pd.DataFrame, shares: Mapping[str, float], classes: list[str], seed: int
) -> dict[str, str]:
    """Return the split of each group.

    A group that leaking pairs joined stays in the split that would have most of its photos if the
    groups were not joined. All groups would otherwise move, and could separate other pairs.
    """
    start = None
    unjoined = table.get("unjoined", table.group)
    if (unjoined != table.group).any():
        separate = assign(_class_counts(unjoined, table.label, classes), shares, classes, seed)
        # Of equal numbers of photos, the first split, which is train.
        photos = _class_counts(table.group, unjoined.map(separate), list(shares))
        start = {group: list(shares)[counts.argmax()] for group, counts in photos.items()}
    return assign(_class_counts(table.group, table.label, classes), shares, classes, seed, start)


def consensus_splits(
    table: pd.DataFrame,
    removed_groups: Collection[str],
    settings: Split,
    classes: list[str],
    seed: int,
) -> pd.Series:
    """Return each photo's split, with the photos that have a consensus label as the test split.

    Other photos of the groups of multi-annotated photos are excluded, even if such a photo has no
    consensus label or was removed by clean. Groups reserved for the test split therefore stay
    reserved when a threshold of clean changes. Validation gets its share of the remaining photos.
    """
    in_test = table.consensus != ""
    for name in classes:
        if not (table.consensus == name).any():
            raise InfeasibleError(
                f"split.test = {CONSENSUS!r}, but none of the {int(in_test.sum())} photos with a "
                f"consensus label that clean kept is {name}"
            )
    reserved = {*table.group[table.multi_annotated == 1], *removed_groups}
    rest = table[~table.group.isin(reserved)]
    for name in classes:
        count = rest.group[rest.label == name].nunique()
        if count < 2:
            raise InfeasibleError(
                f"split.test = {CONSENSUS!r}: outside the groups of multi-annotated photos, "
                f"{count} groups have photos of {name}, but train and validation need one each"
            )
    shares = {TRAIN: 1 - settings.val, VALIDATION: settings.val}
    splits = _assign(rest, shares, classes, seed)
    return table.group.map(splits).fillna(EXCLUDED).mask(in_test, TEST)


def predefined_splits(
    table: pd.DataFrame, settings: Split, classes: list[str], seed: int
) -> pd.Series:
    """Return each photo's split, keeping the predefined splits.

    A single held-out split (val or test) becomes the test split, and validation is taken from train
    by group. A group that spans predefined splits is excluded from train, and also from validation
    if it is in the test split; photos without a predefined split belong to train.
    """
    split = effective_predefined(table)
    held_out = sorted(set(table.predefined_split) - {"", TRAIN})
    if not (split == TRAIN).any():
        raise InfeasibleError(
            f"the only predefined splits are {', '.join(held_out)}, which leave nothing to train on"
        )
    for stronger, weaker in ((TEST, VALIDATION), (TEST, TRAIN), (VALIDATION, TRAIN)):
        reserved = set(table.group[split == stronger])
        split = split.mask((split == weaker) & table.group.isin(reserved), EXCLUDED)
    if len(held_out) == 1:
        train = table[split == TRAIN]
        share = settings.val / (1 - float(settings.test))
        shares = {TRAIN: 1 - share, VALIDATION: share}
        divided = _assign(train, shares, classes, seed)
        split = split.mask(split == TRAIN, table.group.map(divided))
    _check_classes(table, split, classes)
    return split


def _check_classes(table: pd.DataFrame, split: pd.Series, classes: list[str]) -> None:
    """Check that every split has every class.

    Raises:
        InfeasibleError: A split has no group of a class.
    """
    for name in classes:
        of_class = table[table.label == name]
        counts = of_class.groupby(split).group.nunique()
        groups = {each: int(counts.get(each, 0)) for each in (*SPLITS, EXCLUDED)}
        if not all(groups[each] for each in SPLITS):
            listed = ", ".join(
                f"{n} in {each}" for each, n in groups.items() if n or each in SPLITS
            )
            raise InfeasibleError(
                f"class {name} has photos in {of_class.group.nunique()} groups, but the predefined "
                f"splits put {listed}, and each split needs one"
            )


def _class_counts(group: pd.Series, label: pd.Series, classes: list[str]) -> dict[str, Integers]:
    """Return each group's photos per class, or other label: name to (K,)."""
    counts = pd.crosstab(group, label).reindex(columns=classes, fill_value=0)
    return dict(zip(counts.index, counts.to_numpy(np.int64), strict=True))
