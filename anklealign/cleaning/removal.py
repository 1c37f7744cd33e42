"""Which photos go and why: the unusable ones, and of copies all but the one that is kept.

`stages.clean` says in which order reasons and copies are taken.
"""

import math
from collections import Counter
from dataclasses import astuple, dataclass, fields, replace
from pathlib import PurePosixPath

import pandas as pd

from anklealign.cleaning import image_quality
from anklealign.cleaning.duplicate_clusters import Cluster, Residuals
from anklealign.cleaning.image_quality import Scores
from anklealign.config.params import Clean

REASONS = ("exact_duplicate", "near_duplicate", "contradicting_labels", *image_quality.UNUSABLE)
PHOTO_COLUMNS = ("id", "path", "label", "person", "collector", "consensus", "panel", "cluster")
# A framed photo is the larger of two only by more than this: frames are found to a pixel or two.
FRAMED = 1.1


def ranks(
    table: pd.DataFrame, scores: list[Scores], faults: list[str | None]
) -> list[tuple[bool, bool, float, bool, int, str, str]]:
    """Return each photo's rank in the choice of the copy to keep; the lowest stays.

    Usable before unusable, with a consensus before without, then larger, unframed, sharper and
    earlier: by the path without its ending, so that 'x.jpg' comes before 'x (1).jpg' and
    'x - Copy.jpg'. Sharpness counts in steps of a tenth, so that an edge roughened by compression
    decides only where it crosses a step.
    """
    return [
        (
            reason is not None,
            agreed == "",
            -(measured.area / FRAMED if measured.framed else measured.area),
            measured.framed,
            _steps(measured.blurred),
            path.removesuffix(PurePosixPath(path).suffix),
            path,
        )
        for measured, reason, agreed, path in zip(
            scores, faults, table.consensus, table.path, strict=True
        )
    ]


def _steps(value: float) -> int:
    return round(math.log(max(value, 1e-3)) / math.log(1.1))


@dataclass(frozen=True)
class Verdict:
    """Why a photo goes; the fields are removed.csv's columns after those of the photo."""

    reason: str
    score: float
    threshold: float
    kept_id: str
    kept_path: str
    why: str
    beside: str  # id of the photo to show beside it, or ''; not in removed.csv


def judge(
    table: pd.DataFrame,
    scores: list[Scores],
    faults: list[str | None],
    found: list[Cluster],
    residuals: Residuals,
    *,
    settings: Clean,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table with its `cluster` column, and the table of the removed photos."""
    verdicts: dict[int, Verdict] = {}
    for photo, reason in enumerate(faults):
        if reason:
            score, limit = getattr(scores[photo], reason), getattr(settings, reason)
            unit, verb = image_quality.UNITS[reason], image_quality.UNUSABLE[reason]
            why = f"{score:.3g}{unit} is {verb} {limit:g}"
            verdicts[photo] = Verdict(reason, score, limit, "", "", why, "")
    cluster_ids = [""] * len(table)
    members = {cluster.kept: {cluster.kept: 0.0} | cluster.copies for cluster in found}
    for cluster in found:
        kept_id, kept_path = table.id[cluster.kept], table.path[cluster.kept]
        # Two clusters touch where a picture of the one is a copy of a picture of the other: a label
        # that is in doubt here is in doubt there.
        alike = [n for kept in sorted({cluster.kept} | cluster.touching) for n in members[kept]]
        labels = Counter(table.label[alike])
        listed = ", ".join(f"{n} {label}" for label, n in sorted(labels.items()))
        for photo, residual in members[cluster.kept].items():
            cluster_ids[photo] = table.id[cluster.chain]
            if len(labels) > 1:
                why = f"copies of one picture are labelled {listed}"
                # Of those that it was found to match one with another label, if there is one.
                matched = [
                    n for n in alike if n != photo and residuals.of(photo, n) <= settings.residual
                ]
                other = min(
                    matched,
                    key=lambda n: (table.label[n] == table.label[photo], residuals.of(photo, n)),
                )
                verdicts[photo] = Verdict(
                    "contradicting_labels",
                    residuals.of(photo, other),
                    settings.residual,
                    "",
                    "",
                    why,
                    table.id[other],
                )
            elif photo == cluster.kept or faults[cluster.kept]:
                continue
            elif photo in verdicts:  # a poor copy
                verdicts[photo] = replace(
                    verdicts[photo], kept_id=kept_id, kept_path=kept_path, beside=kept_id
                )
            else:
                voted = [table.consensus[n] != "" for n in (cluster.kept, photo)]
                why = why_kept(scores[cluster.kept], scores[photo])
                if voted == [True, False]:
                    why = "several people voted on the kept one"
                reason = "exact_duplicate" if photo in cluster.identical else "near_duplicate"
                verdicts[photo] = Verdict(
                    reason, residual, settings.residual, kept_id, kept_path, why, kept_id
                )
    table = table.assign(cluster=cluster_ids)
    order = sorted(verdicts, key=lambda photo: table.path[photo])
    columns = [field.name for field in fields(Verdict)]
    given = pd.DataFrame([astuple(verdicts[photo]) for photo in order], columns=columns)
    removed = table.loc[order, list(PHOTO_COLUMNS)].reset_index(drop=True)
    return table, removed.join(given).round({"score": 4})


def why_kept(kept: Scores, other: Scores) -> str:
    """Return why the kept one of two copies is the better one."""
    if other.framed and not kept.framed and kept.area < other.area * FRAMED:
        return "the kept one has no frame around it"
    if kept.area != other.area:
        # Inside a frame, so not always the file's width times its height.
        areas = _apart(kept.area / 1e6, other.area / 1e6, ".{}g", 4)
        return f"the kept one is larger: {areas[0]} against {areas[1]} MP"
    if _steps(kept.blurred) != _steps(other.blurred):
        edges = _apart(kept.blurred, other.blurred, ".{}f", 2)
        return f"the kept one is sharper: edges {edges[0]} % against {edges[1]} %"
    return "as large and sharp as the kept one, whose path comes earlier"


def _apart(one: float, other: float, spec: str, digits: int) -> list[str]:
    """Return two numbers with these digits, or as many more as tell them apart."""
    said: list[str] = []
    while digits < 18 and len(set(said)) < 2:
        said = [format(number, spec.format(digits)) for number in (one, other)]
        digits += 1
    return said
