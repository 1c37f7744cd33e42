"""Deal photos into splits that share no picture: audit, join the groups of leaking pairs, repeat.

A pair of photos of different splits that show the same picture belongs into one group. Its groups
are joined and all groups are dealt again, which may separate other pairs, until an audit finds no
pair. The result depends only on the photos and the parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from anklealign.config.params import Dataset, Split
from anklealign.io.pixel_store import Pixels
from anklealign.splitting.leakage import LeakageAudit, Pair, same_picture
from anklealign.splitting.splits import audited_splits, deal
from anklealign.splitting.stratified_groups import InfeasibleError

# Each round joins at least two groups. 3,995 web photos took two or three rounds, and one where
# clean had found the pairs.
ROUNDS = 10
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
    error: str  # why the photos could not be dealt again, or ''

    def count(self, action: str) -> int:
        """Return the number of leaking pairs with an action."""
        return int((self.leaks.action == action).sum())


def deal_without_leaks(
    kept: pd.DataFrame,
    removed: pd.DataFrame,
    settings: Split,
    seed: int,
    photos: Sequence[Pixels],
    *,
    name: str,
    dataset: Dataset,
) -> AuditedSplit:
    """Return the photos dealt into splits, audited, with the groups of leaking pairs joined.

    Args:
        kept: N photos that clean kept.
        removed: The photos that it removed.
        settings: The split and the limits of the audit.
        seed: Of the order in which groups are assigned.
        photos: N of (H, W, 3).
        name: Of the dataset.
        dataset: Its config.

    Raises:
        InfeasibleError: The photos cannot be dealt even without joined pairs.
    """
    audit = LeakageAudit(photos, squares=dataset.fit == "crop")
    table = deal(kept, removed, settings, seed, name=name, dataset=dataset)
    joined: list[tuple[str, str]] = []
    leaks: list[dict[str, Any]] = []
    nearest: list[tuple[int, str, Pair]] = []
    number, error = 0, ""
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
        if number == ROUNDS:
            error = f"the audit still finds {len(new)} pairs after {ROUNDS} rounds"
            break
        try:
            table = deal(kept, removed, settings, seed, name=name, dataset=dataset, joined=joined)
        except InfeasibleError as infeasible:
            error = str(infeasible)
            break
    return AuditedSplit(table, number, nearest, pd.DataFrame(leaks, columns=list(COLUMNS)), error)


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
