"""Decide which photos to remove or flag: unusable photos, and all duplicates but the kept one.

`stages.clean` documents the order in which reasons and duplicates are considered.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from anklealign.cleaning import duplicate_clusters, image_quality
from anklealign.cleaning.duplicate_clusters import Cluster, Residuals
from anklealign.cleaning.image_quality import QUALITY_REASONS, UNITS, Fault, ImageQuality
from anklealign.config.params import Clean, Dataset
from anklealign.io import execution, pixel_store
from anklealign.io.pixel_store import Pictures, Pixels
from anklealign.io.result_cache import ResultCache
from anklealign.similarity import registration
from anklealign.similarity.borders import PhotoPixels
from anklealign.similarity.registration import Describer, PhotoDescription, PhotoMatcher

REASONS = ("exact_duplicate", "near_duplicate", "contradicting_labels", *QUALITY_REASONS)
PHOTO_COLUMNS = (
    "id", "path", "label", "subject", "collector", "consensus", "multi_annotated", "cluster",
)  # fmt: skip
# A framed photo counts as larger than another only by more than this factor, because frames are
# located to within a pixel or two.
FRAME_TOLERANCE = 1.1


@dataclass(frozen=True)
class Removal:
    """Why a photo is removed; the fields are removed.csv's columns after those of the photo."""

    reason: str
    score: float
    threshold: float
    kept_id: str
    kept_path: str
    why: str
    beside: str  # id of the photo shown next to it on the contact sheet, or ''


@dataclass(frozen=True)
class Cleaning:
    """What clean decides about N photos.

    Attributes:
        table: The photo table with its `cluster` column.
        removed: The removed photos, with the fields of Removal.
        flagged: The kept photos that have a fault whose action is `flag`, in the same columns.
        qualities: N measures.
        residuals: Of the pairs compared.
    """

    table: pd.DataFrame
    removed: pd.DataFrame
    flagged: pd.DataFrame
    qualities: list[ImageQuality]
    residuals: Residuals


def clean_photos(
    table: pd.DataFrame,
    pictures: Pictures,
    dataset: Dataset,
    settings: Clean,
    caches: tuple[ResultCache | None, ResultCache | None] = (None, None),
) -> Cleaning:
    """Return which of N photos to remove or flag, and why.

    Args:
        table: N rows of prepare's photo table.
        pictures: Their pixels.
        dataset: Their dataset config.
        settings: Thresholds and actions.
        caches: Of `image_quality.cache_for` and of `registration.cache_for`.
    """
    square = dataset.fit == "crop"
    qualities, matcher = read_photos(table, pictures, square=square, caches=caches)
    remove, flag = faults_by_action(table, qualities, settings)
    clusters, residuals = duplicate_clusters.find_clusters(
        matcher,
        ranks(table, qualities, remove),
        settings.hash_distance,
        settings.residual,
        mirror_safe=dataset.mirror_safe,
    )
    table, removed = select_removals(
        table, qualities, remove, clusters, residuals, settings=settings
    )
    flagged = removal_table(table, unusable(qualities, flag))
    flagged = flagged[~flagged.id.isin(removed.id)].reset_index(drop=True)
    return Cleaning(table, removed, flagged, qualities, residuals)


def read_photos(
    table: pd.DataFrame,
    pictures: Sequence[Pixels],
    *,
    square: bool,
    hashes: bool = True,
    caches: tuple[ResultCache | None, ResultCache | None] = (None, None),
) -> tuple[list[ImageQuality], PhotoMatcher]:
    """Read each of N photos once; return their measures, and a matcher of all.

    Args:
        table: N rows, of which the columns `width` and `height` are used.
        pictures: Their pixels.
        square: Whether the photos were cropped to their center square.
        hashes: Whether the matcher can propose pairs.
        caches: Of `image_quality.cache_for` and of `registration.cache_for`.
    """
    describer = Describer.of(pictures, squares=square, hashes=hashes, cache=caches[1])
    sizes = table[["width", "height"]].to_numpy()
    shards = (
        (pixel_store.part_of(pictures, rows), sizes[rows])
        for rows in registration.shard_slices(len(sizes))
    )
    qualities: list[ImageQuality] = []

    def described() -> Iterator[list[PhotoDescription]]:
        read = partial(_read_shard, describer, caches[0])
        for values, new, descriptions in execution.map_shards(read, shards):
            qualities.extend(values)
            if caches[0]:
                caches[0].put_all(new)
            yield descriptions

    matcher = PhotoMatcher(
        pictures, squares=square, hashes=hashes, cache=caches[1], described=described()
    )
    return qualities, matcher


def _read_shard(
    describer: Describer,
    cache: ResultCache | None,
    shard: tuple[Sequence[Pixels], npt.NDArray[np.integer]],
) -> tuple[list[ImageQuality], list[tuple[bytes, bytes]], list[PhotoDescription]]:
    """Return the measures of n photos, the entries to add to the cache, and the descriptions.

    Args:
        describer: Of the whole set.
        cache: Of `image_quality.cache_for`.
        shard: The n photos, and the (n, 2) width and height of the originals.
    """
    qualities, new, descriptions = [], [], []
    for pixels, (width, height) in zip(shard[0], shard[1].tolist(), strict=True):
        photo = PhotoPixels(pixels)  # its levels are freed before those of the next
        quality, added = image_quality.known_or_measured(
            photo, width, height, square=describer.squares, cache=cache
        )
        qualities.append(quality)
        new += added
        descriptions.append(describer.describe(photo))
    return qualities, new, descriptions


def faults_by_action(
    table: pd.DataFrame, qualities: Sequence[ImageQuality], settings: Clean
) -> tuple[list[Fault | None], list[Fault | None]]:
    """Return for each photo the first fault that removes it and the first that flags it."""
    actions = asdict(settings.actions)
    limits = {
        reason: float(getattr(settings, reason))
        for reason in QUALITY_REASONS
        if actions[reason] != "off"
    }
    faults = image_quality.find_faults(
        qualities, [table.label.tolist(), table.collector.tolist()], limits
    )
    remove, flag = (
        [
            next((fault for fault in photo if actions[fault.reason] == action), None)
            for photo in faults
        ]
        for action in ("remove", "flag")
    )
    return remove, flag


def ranks(
    table: pd.DataFrame, qualities: Sequence[ImageQuality], faults: Sequence[Fault | None]
) -> list[tuple[bool, bool, float, bool, int, str, str]]:
    """Return each photo's rank in the choice of the duplicate to keep; the lowest is kept.

    Usable photos rank before unusable ones, then photos with a consensus label before those
    without, then larger, unframed, and sharper photos, then the path without its suffix, so that
    'x.jpg' ranks before 'x (1).jpg' and 'x - Copy.jpg'. Sharpness is rounded to steps of a tenth,
    so that an edge roughened by compression matters only if it crosses a step.
    """
    return [
        (
            fault is not None,
            consensus == "",
            -(quality.area / FRAME_TOLERANCE if quality.framed else quality.area),
            quality.framed,
            _sharpness_step(quality.edge_width),
            path.removesuffix(PurePosixPath(path).suffix),
            path,
        )
        for quality, fault, consensus, path in zip(
            qualities, faults, table.consensus, table.path, strict=True
        )
    ]


def _sharpness_step(edge_width: float) -> int:
    return round(math.log(max(edge_width, 1e-3)) / math.log(1.1))


def select_removals(
    table: pd.DataFrame,
    qualities: Sequence[ImageQuality],
    faults: Sequence[Fault | None],
    clusters: Sequence[Cluster],
    residuals: Residuals,
    *,
    settings: Clean,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the photo table with its `cluster` column, and the table of the removed photos.

    Args:
        table: N photos.
        qualities: N measures.
        faults: N faults for which a photo is removed, or None.
        clusters: Duplicates among the photos.
        residuals: Of the pairs compared.
        settings: Thresholds.
    """
    removals = unusable(qualities, faults)
    cluster_ids = [""] * len(table)
    members = {cluster.kept: {cluster.kept: 0.0} | cluster.duplicates for cluster in clusters}
    for cluster in clusters:
        for photo in members[cluster.kept]:
            cluster_ids[photo] = table.id[cluster.chain]
        # Adjacent clusters share a picture: a photo of one is a duplicate of a photo of the other.
        # A label in doubt in one is therefore in doubt in the other.
        adjacent = sorted({cluster.kept} | cluster.adjacent)
        related = [photo for kept in adjacent for photo in members[kept]]
        contradicting: dict[int, Removal] = {}
        if len(set(table.label[related])) > 1:
            contradicting = _contradictions(
                table, list(members[cluster.kept]), related, residuals, settings.residual
            )
        if not faults[cluster.kept] and cluster.kept not in contradicting:
            removals |= _duplicates(table, qualities, cluster, removals, settings.residual)
        removals |= contradicting
    if settings.near_duplicates == "group":
        removals = {
            photo: removal
            for photo, removal in removals.items()
            if removal.reason != "near_duplicate"
        }
    table = table.assign(cluster=cluster_ids)
    return table, removal_table(table, removals)


def unusable(
    qualities: Sequence[ImageQuality], faults: Sequence[Fault | None]
) -> dict[int, Removal]:
    """Return the removals of the photos that have a fault."""
    removals = {}
    for photo, fault in enumerate(faults):
        if fault:
            reason, limit = fault.reason, fault.limit
            score = getattr(qualities[photo], reason)
            why = f"{score:.3g}{UNITS[reason]} is {QUALITY_REASONS[reason]} {limit:.4g}"
            removals[photo] = Removal(reason, score, limit, "", "", why, "")
    return removals


def _contradictions(
    table: pd.DataFrame,
    photos: Sequence[int],
    related: Sequence[int],
    residuals: Residuals,
    limit: float,
) -> dict[int, Removal]:
    """Return the removals of a cluster whose related photos have different labels.

    Photos whose label agrees with the consensus labels among the related photos stay, if these
    agree with each other: a stray copy with another label does not outweigh several annotators.
    """
    counts = sorted(Counter(table.label[list(related)]).items())
    why = f"duplicates are labeled {', '.join(f'{n} {label}' for label, n in counts)}"
    consensus = {table.consensus[photo] for photo in related} - {""}
    trusted = consensus.pop() if len(consensus) == 1 else None
    removals = {}
    for photo in photos:
        if trusted is not None and trusted in {table.consensus[photo], table.label[photo]}:
            continue
        # Show a match with another label, if there is one.
        matches = [n for n in related if n != photo and residuals.between(photo, n) <= limit]
        other = min(
            matches,
            key=lambda n: (table.label[n] == table.label[photo], residuals.between(photo, n)),
        )
        removals[photo] = Removal(
            "contradicting_labels",
            residuals.between(photo, other),
            limit,
            "",
            "",
            why,
            table.id[other],
        )
    return removals


def _duplicates(
    table: pd.DataFrame,
    qualities: Sequence[ImageQuality],
    cluster: Cluster,
    unusable: dict[int, Removal],
    limit: float,
) -> dict[int, Removal]:
    """Return the removals of a cluster's duplicates; unusable ones retain their reason."""
    kept_id, kept_path = table.id[cluster.kept], table.path[cluster.kept]
    removals = {}
    for photo, residual in cluster.duplicates.items():
        if photo in unusable:
            removals[photo] = replace(
                unusable[photo], kept_id=kept_id, kept_path=kept_path, beside=kept_id
            )
            continue
        if table.consensus[cluster.kept] and not table.consensus[photo]:
            why = "the kept photo has a consensus label"
        else:
            why = why_kept(qualities[cluster.kept], qualities[photo])
        reason = "exact_duplicate" if photo in cluster.identical else "near_duplicate"
        removals[photo] = Removal(reason, residual, limit, kept_id, kept_path, why, kept_id)
    return removals


def removal_table(table: pd.DataFrame, removals: dict[int, Removal]) -> pd.DataFrame:
    """Return the removed or flagged photos with their reasons, in order of path."""
    order = sorted(removals, key=lambda photo: table.path[photo])
    columns = [field.name for field in fields(Removal)]
    rows = pd.DataFrame([astuple(removals[photo]) for photo in order], columns=columns)
    removed = table.loc[order, list(PHOTO_COLUMNS)].reset_index(drop=True)
    return removed.join(rows).round({"score": 4, "threshold": 4})


def why_kept(kept: ImageQuality, other: ImageQuality) -> str:
    """Return why the kept one of two duplicates is the better one."""
    if other.framed and not kept.framed and kept.area < other.area * FRAME_TOLERANCE:
        return "the kept photo has no frame"
    if kept.area != other.area:
        # Measured inside a frame, so not always the file's width times its height.
        areas = _distinct(kept.area / 1e6, other.area / 1e6, ".{}g", 4)
        return f"the kept photo is larger: {areas[0]} MP vs. {areas[1]} MP"
    if _sharpness_step(kept.edge_width) != _sharpness_step(other.edge_width):
        edges = _distinct(kept.edge_width, other.edge_width, ".{}f", 2)
        return f"the kept photo is sharper: edge width {edges[0]}% vs. {edges[1]}%"
    return "same size and sharpness; the kept photo's path sorts first"


def _distinct(one: float, other: float, spec: str, digits: int) -> list[str]:
    """Return two numbers with these digits, or with as many more as make them differ."""
    texts: list[str] = []
    while digits < 18 and len(set(texts)) < 2:
        texts = [format(number, spec.format(digits)) for number in (one, other)]
        digits += 1
    return texts
