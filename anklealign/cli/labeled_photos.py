"""Read labeled photos for a bundle: any layout that `anklealign add` reads, the bundle's classes.

The layout is detected as in `add`, and the photos are listed, labeled and decoded by the functions
of the prepare stage, but into the square that the bundle was trained on.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from anklealign.annotation import aggregation
from anklealign.cleaning import duplicate_clusters
from anklealign.cli import layout_detection
from anklealign.cli.layout_candidates import LayoutCandidate
from anklealign.config import params
from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset
from anklealign.ingest import decoding, layouts
from anklealign.ingest.inventory import escape_unprintable, skip_rows, skips_of_entry
from anklealign.io import pixel_store
from anklealign.io.decoder_pool import Target
from anklealign.io.pixel_store import PixelStore, StoreWriter
from anklealign.models.bundle import Bundle
from anklealign.similarity.registration import PhotoMatcher
from anklealign.splitting.stratified_groups import connected_groups

# Keys of the dataset config that go with the model; the others describe the folder it comes from.
MODEL_KEYS = ("classes", "ordered", "mirror_safe", "fit", "subject_pattern", "label_level")
LISTED = 5  # labels that a message names
# Limits of near-duplicates, the defaults of clean.hash_distance and clean.residual.
HASH_DISTANCE, RESIDUAL = 8, 0.3


@dataclass(frozen=True)
class LabeledFolder:
    """Photos with a label of a bundle's classes.

    Attributes:
        layout: The layout and the evidence for it.
        table: One row per photo, as in data/prepared/photos.csv, with `group`.
        store: Their pixels.
        votes: photo, annotator and label of the votes on them.
        skipped: path, item, reason, detail and remedy of everything else.
    """

    layout: str
    table: pd.DataFrame
    store: PixelStore
    votes: pd.DataFrame
    skipped: pd.DataFrame


def read_folder(
    folder: Path,
    bundle: Bundle,
    store: Path,
    forced: Mapping[str, Any],
    *,
    partial: bool,
) -> LabeledFolder:
    """Return the labeled photos of a folder, decoded into a store for a bundle.

    Args:
        folder: Of the photos.
        bundle: The bundle.
        store: Folder of the store to write.
        forced: Keys of the dataset config that the user has set.
        partial: Whether other labels are skipped and classes may lack photos.

    Raises:
        ValueError: The layout is ambiguous, a label matches no class of the bundle, or a class has
            no readable photo.
    """
    own = bundle_dataset(bundle)
    reading = layout_detection.choose(
        layout_detection.read_layouts(folder, {"bundle": own}, forced), forced.get("layout")
    )
    dataset = describe_folder(folder, own, reading, forced)
    if not partial:
        check_labels(reading, dataset)
    content = layouts.read_inventory(folder, dataset)
    consensus = aggregation.aggregate_votes(content.votes, content.entries, dataset, "majority")
    entries, ties = aggregation.apply_consensus(content.entries, consensus)
    config = bundle.preprocessing
    target = Target(config.max_megapixels, config.size, config.fit, config.fill)
    with StoreWriter(store, config.size) as writer:
        rows, refused = decoding.decode_photos(folder, entries, target, writer)
    table = pd.DataFrame(rows, columns=[*pixel_store.PREPARED_COLUMNS])
    unreadable = [
        skip for entry, error in refused for skip in skips_of_entry(entry, error.reason, str(error))
    ]
    check_photos(table, bundle.classes, partial=partial)
    votes, unused_votes = aggregation.vote_table(content.votes, table)
    skips = skip_rows([*content.skips, *ties, *unreadable, *unused_votes])
    pixels = pixel_store.open_store(store)
    return LabeledFolder(
        f"{reading.layout}: {reading.summary}",
        table.assign(group=groups_of(table, pixels, dataset)),
        pixels,
        votes,
        pd.DataFrame(skips, columns=["path", "item", "reason", "detail", "remedy"]),
    )


def bundle_dataset(bundle: Bundle) -> Dataset:
    """Return the dataset config that a bundle was trained with, as far as the model needs it."""
    recorded = bundle.record.get("params", {}).get("dataset", {})
    known = {key: recorded[key] for key in MODEL_KEYS if recorded.get(key) is not None}
    facts = {"classes": {name: [] for name in bundle.classes}} | known | {"layout": "folders"}
    return params.section({"datasets": {"bundle": facts}}, "datasets.bundle", Dataset)


def describe_folder(
    folder: Path, own: Dataset, reading: LayoutCandidate, forced: Mapping[str, Any]
) -> Dataset:
    """Return the dataset config of a folder: the layout that was detected, the bundle's classes.

    Raises:
        ValueError: The user has set other classes than those of the bundle.
    """
    facts = {key: getattr(own, key) for key in MODEL_KEYS}
    facts |= {"layout": reading.layout, **reading.keys, **forced}
    if set(facts["classes"]) != set(own.classes):
        raise ValueError(
            f"--set classes: {', '.join(facts['classes'])} are not the classes of the bundle; "
            f"give the spellings of {', '.join(own.classes)}"
        )
    facts["classes"] = {name: [*own.classes[name], *facts["classes"][name]] for name in own.classes}
    dataset = params.section({"datasets": {"DATA": facts}}, "datasets.DATA", Dataset)
    if dataset.group_column is None and "subject_pattern" not in forced:
        entries = layouts.read_inventory(folder, dataset).entries
        pattern = layout_detection.find_subject_pattern(entries, {"bundle": own})
        dataset = replace(dataset, subject_pattern=pattern)
    return dataset


def check_labels(reading: LayoutCandidate, dataset: Dataset) -> None:
    """Check that each label of a folder is one of the classes.

    Raises:
        ValueError: A label is not; the message has the ways to go on.
    """
    labels = Labels(dataset.classes)
    unknown = Counter(
        {
            escape_unprintable(text): count
            for text, count in reading.texts.items()
            if labels.class_of(text) is None and not labels.is_empty(text)
        }
    )
    if not unknown:
        return
    listed = ", ".join(f"{text!r} ({count})" for text, count in unknown.most_common(LISTED))
    more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
    first, *_ = dataset.classes
    raise ValueError(
        f"the model has no class for {listed}{more}; its classes are {', '.join(dataset.classes)}. "
        "If a label is another spelling of a class, pass it, such as "
        f"--set 'classes={{{first}: [SPELLING], …}}'; to leave these photos out, pass --partial"
    )


def check_photos(table: pd.DataFrame, classes: tuple[str, ...], *, partial: bool) -> None:
    """Check that there are photos, and photos of each class.

    Raises:
        ValueError: There are none, or a class has none and `partial` is False.
    """
    counts = {name: int((table.label == name).sum()) for name in classes}
    empty = [name for name, count in counts.items() if not count]
    if not len(table):
        raise ValueError("no photo has a label of the model's classes and can be read")
    if empty and not partial:
        raise ValueError(
            f"no readable photo of {', '.join(empty)} (photos of each class: {counts}); means over "
            "classes would leave these out. Add photos, or pass --partial to score the others"
        )


def groups_of(table: pd.DataFrame, store: PixelStore, dataset: Dataset) -> list[str]:
    """Return each photo's group: photos of one subject, or that show one picture, are in one."""
    pictures = pixel_store.Pictures(table, store, dataset.fit)
    clusters, _ = duplicate_clusters.find_clusters(
        PhotoMatcher(pictures, squares=dataset.fit == "crop"),
        range(len(table)),
        HASH_DISTANCE,
        RESIDUAL,
        mirror_safe=dataset.mirror_safe,
    )
    ids = list(table.id)
    links = [
        (photo, f"person:{subject}")
        for photo, subject in zip(ids, table.subject, strict=True)
        if subject
    ]
    links += [
        (ids[photo], f"cluster:{ids[cluster.chain]}")
        for cluster in clusters
        for photo in (cluster.kept, *cluster.duplicates)
    ]
    group_of = connected_groups(ids, links)
    return [group_of[photo] for photo in ids]
