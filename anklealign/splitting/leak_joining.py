"""Split photos so that splits share no picture: audit, join the groups of leaking pairs, repeat.

A pair of photos of different splits that show the same picture belongs into one group. Its groups
are joined and all groups are assigned again, which may separate other pairs, until an audit finds
no pair. A pair across predefined splits that are kept ends the search: no other assignment puts it
into one split. The result depends only on the photos and the parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from anklealign.config.params import CONSENSUS, Dataset, Split
from anklealign.io.pixel_store import Pixels
from anklealign.splitting.leakage import LeakageAudit, Pair, same_picture
from anklealign.splitting.splits import (
    audited_splits,
    effective_predefined,
    kept_splits,
    split_photos,
)
from anklealign.splitting.stratified_groups import InfeasibleError

# Each round joins at least two groups. 3,995 web photos took two or three rounds, and one where
# clean had found the pairs.
ROUNDS = 10
EXCLUDE = "dvc exp run -S split.predefined=exclude_leaks"
JOINED, ALLOWED, DIFFERENT = "joined", "allowed", "different"
COLUMNS = (
    "round", "action", "path_a", "split_a", "path_b", "split_b", "residual", "correlation",
    "agreement", "color",
)  # fmt: skip


@dataclass(frozen=True)
class AuditedSplit:
    """The kept photos with `group` and `split`, and what the audit found in all rounds."""

    table: pd.DataFrame
    rounds: int
    nearest: list[tuple[int, str, Pair]]  # round, action, pair by position in the table
    leaks: pd.DataFrame  # COLUMNS: the pairs that show the same picture
    error: str  # why the photos could not be split again, or ''
    across_predefined: int = 0  # pairs that no other split separates, as both splits are kept

    def count(self, action: str) -> int:
        """Return the number of leaking pairs with an action."""
        return int((self.leaks.action == action).sum())


def split_without_leaks(
    kept: pd.DataFrame,
    removed: pd.DataFrame,
    settings: Split,
    seed: int,
    photos: Sequence[Pixels],
    *,
    name: str,
    dataset: Dataset,
) -> AuditedSplit:
    """Return the photos in splits, audited, with the groups of leaking pairs joined.

    Args:
        kept: N photos that clean kept.
        removed: The photos that it removed.
        settings: The split and the limits of the audit.
        seed: Of the order in which groups are assigned.
        photos: N of (H, W, 3).
        name: Of the dataset.
        dataset: Its config.

    Raises:
        InfeasibleError: The photos cannot be split even without joined pairs.
    """
    audit = LeakageAudit(photos, squares=dataset.fit == "crop")
    table = split_photos(kept, removed, settings, seed, name=name, dataset=dataset)
    joined: list[tuple[str, str]] = []
    leaks: list[dict[str, Any]] = []
    nearest: list[tuple[int, str, Pair]] = []
    number, error, across = 0, "", 0
    while True:
        number += 1
        splits, held_out = audited_splits(table, settings, list(dataset.classes), seed)
        pairs = audit.nearest_pairs(splits, held_out)
        labeled = [(number, _action(table, pair, settings), pair) for pair in pairs]
        # Only the last round's other pairs are of interest.
        nearest = [row for row in nearest if row[1] == JOINED] + labeled
        leaks = [row for row in leaks if row["action"] == JOINED]
        leaks += [pair_row(table, *row) for row in labeled if row[1] != DIFFERENT]
        new = [(table.id[p.a], table.id[p.b]) for _, action, p in labeled if action == JOINED]
        joined += new
        if not new:
            break
        if across := _across_predefined(table, new, settings):
            error = (
                f"{across} of them lie across predefined splits, which split.predefined = keep "
                "keeps. Exclude the photo of each pair that is not in the test split (or, if "
                f"neither is, not in the validation split):\n  {EXCLUDE}"
            )
            break
        if number == ROUNDS:
            error = f"the audit still finds {len(new)} pairs after {ROUNDS} rounds"
            break
        try:
            table = split_photos(
                kept, removed, settings, seed, name=name, dataset=dataset, joined=joined
            )
        except InfeasibleError as infeasible:
            error = str(infeasible)
            break
    table_of_leaks = pd.DataFrame(leaks, columns=list(COLUMNS))
    return AuditedSplit(table, number, nearest, table_of_leaks, error, across)


def _across_predefined(
    table: pd.DataFrame, pairs: Sequence[tuple[str, str]], settings: Split
) -> int:
    """Return the number of pairs of ids in two predefined splits that must be kept."""
    if settings.predefined != "keep" or settings.test == CONSENSUS:
        return 0
    if not kept_splits(table, settings):
        return 0
    predefined = dict(zip(table.id, effective_predefined(table), strict=True))
    return sum(predefined[a] != predefined[b] for a, b in pairs)


def _action(table: pd.DataFrame, pair: Pair, settings: Split) -> str:
    """Return JOINED for the same picture, ALLOWED if listed, else DIFFERENT."""
    if not same_picture(pair, settings):
        return DIFFERENT
    paths = {table.path[pair.a], table.path[pair.b]}
    return ALLOWED if paths in map(set, settings.allowed_leaks) else JOINED


def pair_row(table: pd.DataFrame, number: int, action: str, pair: Pair) -> dict[str, Any]:
    """Return the row of leaking_pairs.csv and nearest_pairs.csv."""
    values = (
        number, action, table.path[pair.a], table.split[pair.a], table.path[pair.b],
        table.split[pair.b], round(pair.residual, 4), round(pair.correlation, 4),
        round(pair.comparison.agreement, 4), round(pair.comparison.color, 1),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
