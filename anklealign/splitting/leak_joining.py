"""Split photos so that splits share no picture: audit, join the groups of leaking pairs, repeat.

A pair of photos of different splits that show the same picture belongs in one group. Its groups
are joined and move into one split, and few others move to restore the shares. This may separate
other pairs, so it repeats until an audit finds no pair. Where the joined groups cannot be split, or
after ROUNDS, one photo of each pair is excluded instead. A pair across predefined splits that are
kept ends the search: no other assignment puts it into one split. The result depends only on the
photos and the parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pandas as pd

from anklealign.config.params import CONSENSUS, Dataset, Split
from anklealign.io.pixel_store import Pixels
from anklealign.io.result_cache import ResultCache
from anklealign.splitting.leakage import LeakageAudit, Pair, same_picture
from anklealign.splitting.splits import (
    EXCLUDED,
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    audited_splits,
    effective_predefined,
    kept_splits,
    split_photos,
)
from anklealign.splitting.stratified_groups import InfeasibleError

# Each round joins at least two groups. 3,995 web photos took two or three rounds, and one where
# clean had found the pairs.
ROUNDS = 10
MAX_EXCLUDED = 0.05  # of the photos; more need a decision, as a whole kind of photo may be lost
EXCLUDE = "dvc exp run -S split.predefined=exclude_leaks"
JOINED, SEPARATED, ALLOWED, DIFFERENT = "joined", "separated", "allowed", "different"
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
    reason: str = ""  # why photos were excluded instead of groups joined, or ''

    def count(self, action: str) -> int:
        """Return the number of leaking pairs with an action."""
        return int((self.leaks.action == action).sum())

    @property
    def same_picture(self) -> int:
        """Return the number of leaking pairs that are not allowed."""
        return self.count(JOINED) + self.count(SEPARATED)


def split_without_leaks(
    kept: pd.DataFrame,
    removed: pd.DataFrame,
    settings: Split,
    seed: int,
    photos: Sequence[Pixels],
    *,
    name: str,
    dataset: Dataset,
    cache: ResultCache | None = None,
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
        cache: Of `registration.cache_for`.

    Raises:
        InfeasibleError: The photos cannot be split even without joined pairs.
    """
    audit = LeakageAudit(photos, squares=dataset.fit == "crop", cache=cache)
    table = split_photos(kept, removed, settings, seed, name=name, dataset=dataset)
    joined: list[tuple[str, str]] = []
    leaks: list[dict[str, Any]] = []
    nearest: list[tuple[int, str, Pair]] = []
    separated: set[int] = set()
    error, across, reason = "", 0, ""
    for number in count(1):
        splits, held_out = audited_splits(table, settings, list(dataset.classes), seed)
        pairs = audit.nearest_pairs(splits, held_out)
        new = [pair for pair in pairs if _leaks(table, pair, settings)]
        audited = table
        joined += (ids := [(table.id[pair.a], table.id[pair.b]) for pair in new])
        if across := _across_predefined(table, ids, settings):
            error = (
                f"{across} of them lie across predefined splits, which split.predefined = keep "
                "keeps. Exclude the photo of each pair that is not in the test split (or, if "
                f"neither is, not in the validation split):\n  {EXCLUDE}"
            )
        elif new and not reason:
            try:
                if number == ROUNDS:
                    reason = f"the audit still finds pairs after {ROUNDS} rounds"
                else:
                    table = split_photos(
                        kept, removed, settings, seed, name=name, dataset=dataset, joined=joined
                    )
            except InfeasibleError as infeasible:
                reason = str(infeasible)
        if new and reason and not error:
            separated |= {_leaving(table, pair, splits) for pair in new}
            table = table.assign(split=table.split.mask(table.index.isin(separated), EXCLUDED))
            if not _suffices(audited, table, len(separated)):
                table, error = audited, reason
        action = SEPARATED if reason and not error else JOINED
        labeled = [
            (number, action if pair in new else _other_action(pair, settings), pair)
            for pair in pairs
        ]
        # Only the last round's other pairs are of interest.
        nearest = [row for row in nearest if row[1] in (JOINED, SEPARATED)] + labeled
        leaks = [row for row in leaks if row["action"] != ALLOWED]
        leaks += [pair_row(audited, *row) for row in labeled if row[1] != DIFFERENT]
        if error or not new:
            break
    table_of_leaks = pd.DataFrame(leaks, columns=list(COLUMNS))
    table = table.drop(columns="unjoined")
    return AuditedSplit(table, number, nearest, table_of_leaks, error, across, reason)


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


def _leaks(table: pd.DataFrame, pair: Pair, settings: Split) -> bool:
    """Return whether a pair shows the same picture and is not among the allowed ones."""
    paths = {table.path[pair.a], table.path[pair.b]}
    return same_picture(pair, settings) and paths not in map(set, settings.allowed_leaks)


def _other_action(pair: Pair, settings: Split) -> str:
    """Return ALLOWED for a pair that shows the same picture, else DIFFERENT."""
    return ALLOWED if same_picture(pair, settings) else DIFFERENT


def _leaving(table: pd.DataFrame, pair: Pair, splits: Sequence[str]) -> int:
    """Return the photo of a pair to exclude: of train, or of validation if the other is in test.

    Of two folds, it is the photo in the later one, so that all runs of a cross-validation exclude
    the same photos.
    """
    rank = {TEST: 0, VALIDATION: 1, TRAIN: 2}
    return max((pair.a, pair.b), key=lambda k: (rank.get(splits[k], 0), splits[k], table.path[k]))


def _suffices(before: pd.DataFrame, after: pd.DataFrame, excluded: int) -> bool:
    """Return whether few photos were excluded and every class is still in the same splits."""
    remaining = [
        set(zip(used.label, used.split, strict=True))
        for table in (before, after)
        for used in [table[table.split.isin(SPLITS)]]
    ]
    return excluded <= MAX_EXCLUDED * len(after) and remaining[0] == remaining[1]


def pair_row(table: pd.DataFrame, number: int, action: str, pair: Pair) -> dict[str, Any]:
    """Return the row of leaking_pairs.csv and nearest_pairs.csv."""
    values = (
        number, action, table.path[pair.a], table.split[pair.a], table.path[pair.b],
        table.split[pair.b], round(pair.residual, 4), round(pair.correlation, 4),
        round(pair.comparison.agreement, 4), round(pair.comparison.color, 1),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
