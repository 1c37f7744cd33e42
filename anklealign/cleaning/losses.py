"""Report reasons that remove many photos or one class, and stop before a class is lost."""

from collections import Counter
from collections.abc import Collection, Sequence

import pandas as pd
from scipy import stats

from anklealign.cleaning.image_quality import QUALITY_REASONS
from anklealign.config.paths import CLEAN

LARGE = 0.02  # fraction of the photos above which a reason is reported
# Of Fisher's exact test that a reason removes a class more often than the other classes, divided by
# the number of tests (Bonferroni). Photos of one subject or collector often share a fault, so the
# test reports too often rather than too seldom.
LEVEL = 0.01
# An exact duplicate takes nothing from the data set.
HARMLESS = "exact_duplicate"
PICTURES = "`anklealign report --photos` draws them to plots/clean/"
DUPLICATES = (HARMLESS, "near_duplicate")


def warnings(table: pd.DataFrame, removed: pd.DataFrame) -> dict[str, str]:
    """Return a sentence for each reason that removes many photos or mainly those of one class.

    Args:
        table: All N photos, with `label`.
        removed: The removed or flagged ones, with `label` and `reason`.
    """
    totals = Counter(table.label)
    reasons = removed.reason[removed.reason != HARMLESS]
    counts = reasons.value_counts().sort_index()
    level = LEVEL / max(1, len(counts) * len(totals))
    sentences = {}
    for reason, count in counts.items():
        hit = Counter(removed.label[removed.reason == reason])
        p_values = {label: _p_value(hit[label], count, totals[label], len(table)) for label in hit}
        unequal = sorted(label for label, p in p_values.items() if p < level)
        parts = []
        if count > LARGE * len(table):
            parts.append(f"{count} of {len(table)} photos ({count / len(table):.1%})")
        parts += [
            f"{hit[label]} of the {totals[label]} photos of {label}, but {count - hit[label]} of "
            f"the {len(table) - totals[label]} others"
            for label in unequal
        ]
        if parts:
            sentences[str(reason)] = f"{reason}: {'; '.join(parts)}"
    return sentences


def _p_value(hit: int, removed: int, members: int, photos: int) -> float:
    """Return Fisher's p that a class of `members` photos has `hit` or more of the removed ones."""
    return float(stats.hypergeom.sf(hit - 1, photos, members, removed))


def check(table: pd.DataFrame, removed: pd.DataFrame, allowed: Collection[str]) -> None:
    """Check that every class and every collector has photos left.

    A collector whose photos are all duplicates of photos that are kept has lost nothing.

    Args:
        table: All photos.
        removed: The removed ones, with `reason`.
        allowed: Collectors that may lose all their photos.

    Raises:
        ValueError: A class or collector has lost all its photos; the message says what to set.
    """
    kept = table[~table.id.isin(removed.id)]
    for name in sorted(set(table.label) - set(kept.label)):
        reasons = removed.reason[removed.label == name]
        raise ValueError(
            f"class {name} lost {_all(len(reasons))} ({_counted(reasons)}); "
            f"{PICTURES}. {_remedy(reasons)}, or remove the class from the dataset config"
        )
    gone = set(table.collector[table.collector != ""]) - set(kept.collector) - set(allowed)
    for name in sorted(gone):
        reasons = removed.reason[removed.collector == name]
        if not set(reasons) <= set(DUPLICATES):
            raise ValueError(
                f"collector {name} lost {_all(len(reasons))} ({_counted(reasons)}); "
                f"{PICTURES}. {_remedy(reasons)}; if they are unusable, add the collector to "
                f"clean.allowed_losses in params.yaml"
            )


def _all(photos: int) -> str:
    return "its only photo" if photos == 1 else f"all of its {photos} photos"


def _counted(reasons: Sequence[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(reasons).items()))


def _remedy(reasons: Collection[str]) -> str:
    """Return what to do if the photos are usable."""
    keys = [f"clean.actions.{reason}" for reason in QUALITY_REASONS if reason in set(reasons)]
    remedies = [f"set {' and '.join(keys)} to flag"] if keys else []
    if "contradicting_labels" in set(reasons):
        remedies.append(f"correct the labels listed in {CLEAN}/removed.csv")
    return f"If they are usable, {', and '.join(remedies)}"
