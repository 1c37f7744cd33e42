"""Decode every photo once: raw folder in, pixel store and photo table out.

Reads `data/raw/<dataset>` by the layout of the dataset's block; never writes to it.
Writes `data/prepared/`: `pixels.npy` (N, S, S, 3), `photos.csv`, `skipped.csv` (path, item, reason,
detail, remedy; the reasons are listed in `anklealign/ingest/inventory.py`), `votes.csv` and
`soft_labels.csv` (`anklealign/io/pixel_store.py`), `metrics/prepare.json`, and a first look at the
photos in `plots/prepare/`, with agreement.png where people voted.

    python -m stages.prepare

Photos and skipped files together are the files seen, and so with tasks and votes: the stage fails
rather than lose one. Memory does not grow with the photos beyond the tables.
"""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from tqdm import tqdm

from anklealign.annotation import aggregation, agreement, plots
from anklealign.config import params, stage
from anklealign.config.params import Dataset, Fit, Prepare
from anklealign.ingest import inventory, layouts, overview
from anklealign.ingest.inventory import REASONS, Entry, Inventory, Item, Skip, dropped, printable
from anklealign.io import decode, files, pixel_store
from anklealign.plotting import style

RAW = Path("data/raw")
PHOTOS = pixel_store.PREPARED / "photos.csv"
SKIPPED = pixel_store.PREPARED / "skipped.csv"
METRICS = Path("metrics/prepare.json")
PLOTS = Path("plots/prepare")


def main() -> None:
    """Write the pixel store, both tables and the metrics."""
    raw = params.read()
    settings = params.section(raw, "prepare", Prepare)
    name, dataset = params.dataset(raw)
    root = RAW / name
    found = layouts.find(root, dataset)
    judged = aggregation.judge(found.votes, found.entries, dataset, settings.consensus)
    entries, tied = aggregation.labelled(found.entries, judged)

    with pixel_store.writing_store(pixel_store.STORE, len(entries), settings.size) as store:
        rows, refused = decode_photos(root, entries, settings, dataset.fit, store)
    table = pd.DataFrame(rows, columns=list(pixel_store.PREPARED_COLUMNS))
    table["consensus"] = [judged[path].label if path in judged else "" for path in table.path]
    asked = judged.keys() | set(map(printable, found.listed))
    table["panel"] = [int(path in asked) for path in table.path]
    votes, unused = aggregation.vote_table(found.votes, table)
    skipped = skip_table([*found.skips, *tied, *refused, *unused])
    metrics = count(found, table, votes, skipped, dataset)
    _, people, matrix = agreement.matrix(votes, list(dataset.classes))
    metrics["agreement"] = {"listed": len(found.listed)} | agreement.measure(
        matrix, people, len(dataset.classes), ordered=dataset.ordered
    )
    metrics["agreement"] |= aggregation.ties(judged, table)
    files.write_table(SKIPPED, skipped)
    check_classes(name, table, skipped, dataset)
    if len(rows) < len(entries):  # what was read stands at the front of a store made for all
        with pixel_store.writing_store(pixel_store.STORE, len(rows), settings.size) as smaller:
            everything = pixel_store.open_store(pixel_store.STORE)
            for row in tqdm(range(len(rows)), "close up", unit="photo", delay=1, disable=None):
                smaller[row] = everything[row]
    files.write_table(PHOTOS, table)
    files.write_table(pixel_store.VOTES, votes)
    files.write_table(pixel_store.SOFT_LABELS, aggregation.soft_table(judged, table, dataset))
    files.write_json(METRICS, metrics)
    overview.write(
        PLOTS,
        table,
        pixel_store.open_store(),
        list(dataset.classes),
        Counter(skipped.reason[skipped.item.isin(["file", "task", "export"])]),
    )
    if people:
        figure = plots.agreement(votes, metrics["agreement"], list(dataset.classes))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a name in letters unknown here
            style.save(figure, PLOTS / "agreement.png")
    print(
        f"prepare: {metrics['photos']} photos of {metrics['files_seen']} files and "
        f"{metrics['tasks_seen']} tasks, {metrics['persons']} persons; skipped "
        f"{metrics['skipped']['total']} files, {metrics['skipped_tasks']['total']} tasks, "
        f"{metrics['skipped_exports']['total']} exports (see {SKIPPED}){votes_line(metrics)}"
    )


def decode_photos(
    root: Path, entries: Sequence[Entry], settings: Prepare, fit: Fit, store: pixel_store.Pixels
) -> tuple[list[dict[str, Any]], list[Skip]]:
    """Fill the front of the store (N, S, S, 3); return a table row for each photo, and skips.

    Each thread writes its photo to the photo's own place, so that no pixels wait in memory and the
    result does not depend on who is first; then the refused ones' places are closed up.
    """
    work = partial(_decode_one, root, settings, store, fit=fit)
    rows: list[dict[str, Any]] = []
    skips: list[Skip] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Pillow warns of odd metadata and of large photos; what matters ends in skipped.csv.
        warnings.filterwarnings("ignore", module="PIL")
        results = pool.map(work, range(len(entries)), entries)
        for place, (entry, result) in enumerate(
            tqdm(
                zip(entries, results, strict=True),
                "prepare",
                len(entries),
                unit="photo",
                disable=None,
            )
        ):
            if isinstance(result, decode.PhotoError):
                skips += dropped(entry, result.reason, str(result))
                continue
            row = len(rows)
            if row < place:
                store[row] = store[place]
            rows.append(
                {
                    "id": pixel_store.photo_id(printable(entry.file)), "row": row,
                    "path": printable(entry.file), "label": entry.label,
                    "collector": printable(entry.collector), "person": printable(entry.person),
                    "given": entry.given, **result,
                }
            )  # fmt: skip
    return rows, skips


def _decode_one(
    root: Path, settings: Prepare, store: pixel_store.Pixels, place: int, entry: Entry, *, fit: Fit
) -> dict[str, Any] | decode.PhotoError:
    """Write one photo's pixels to its place; return the columns that its file gives."""
    try:
        data = decode.read_bytes(root / entry.file, settings.max_megapixels)
        # At twice the final side a JPEG's own scaling is faster and as good.
        photo = decode.open_photo(data, settings.max_megapixels, least_side=2 * settings.size)
    except decode.PhotoError as error:
        return error
    pixels, box = decode.fit(photo.image, settings.size, fit, settings.fill)
    store[place] = pixels
    return {
        "width": photo.width, "height": photo.height, "format": photo.format,
        "orientation": photo.orientation, "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **dict(zip(("left", "top", "right", "bottom"), box, strict=True)),
    }  # fmt: skip


def votes_line(metrics: dict[str, Any]) -> str:
    """Return the printed line's end, which tells of votes where there are any."""
    found = metrics["agreement"]
    if not metrics["votes_seen"]:
        return ""
    alpha = f", alpha {found['alpha_nominal']:.2f}" if "alpha_nominal" in found else ""
    return (
        f"; {found['votes']} votes of {found['annotators']} people on {found['photos']} photos"
        f"{alpha}, {metrics['skipped_votes']['total']} votes skipped"
    )


def skip_table(skips: Sequence[Skip]) -> pd.DataFrame:
    """Return what was left out as (path, item, reason, detail, remedy), each a single line."""
    columns = ["path", "item", "reason", "detail", "remedy"]
    return pd.DataFrame(inventory.rows(skips), columns=columns)


def count(
    found: Inventory,
    table: pd.DataFrame,
    votes: pd.DataFrame,
    skipped: pd.DataFrame,
    dataset: Dataset,
) -> dict[str, Any]:
    """Return the metrics, having checked that photos and skips are all that was seen.

    Raises:
        ValueError: A file, a task or a vote is lost; a bug, whatever the data.
    """
    by_item = {item: skipped.reason[skipped.item == item] for item in get_args(Item)}
    read = set(table.path)
    with_task = sum(e.task != "" and printable(e.file) in read for e in found.entries)
    if len(table) + len(by_item["file"]) != found.files_seen:
        raise ValueError(
            f"{len(table)} photos and {len(by_item['file'])} skipped files are not the "
            f"{found.files_seen} files seen; please report this"
        )
    if with_task + len(by_item["task"]) != found.tasks_seen:
        raise ValueError(
            f"{with_task} photos with a task and {len(by_item['task'])} skipped tasks "
            f"are not the {found.tasks_seen} tasks seen; please report this"
        )
    if len(votes) + len(by_item["vote"]) != found.votes_seen:
        raise ValueError(
            f"{len(votes)} votes and {len(by_item['vote'])} skipped votes are not the "
            f"{found.votes_seen} votes seen; please report this"
        )
    return {
        "files_seen": found.files_seen,
        "tasks_seen": found.tasks_seen,
        "exports_seen": found.exports_seen,
        "votes_seen": found.votes_seen,
        "photos": len(table),
        "classes": {name: int((table.label == name).sum()) for name in dataset.classes},
        "collectors": int(table.collector[table.collector != ""].nunique()),
        "persons": int(table.person[table.person != ""].nunique()),
        "person_unknown": int((table.person == "").sum()),
        "skipped": reasons_of(by_item["file"]),
        "skipped_tasks": reasons_of(by_item["task"]),
        "skipped_exports": reasons_of(by_item["export"]),
        "skipped_votes": reasons_of(by_item["vote"]),
        "skipped_names": reasons_of(by_item["name"]),
    }


def reasons_of(reasons: "pd.Series[str]") -> dict[str, int]:
    """Return how many were skipped in all and for each reason."""
    return {"total": len(reasons), **dict(sorted(Counter(reasons).items()))}


def check_classes(name: str, table: pd.DataFrame, skipped: pd.DataFrame, dataset: Dataset) -> None:
    """Refuse a set in which a class has no photo.

    Raises:
        ValueError: There is no photo at all, or none of some class; says what was skipped most.
    """
    counts = {label: int((table.label == label).sum()) for label in dataset.classes}
    empty = [label for label, number in counts.items() if not number]
    if not empty:
        return
    reasons = Counter(skipped.reason).most_common(1)
    why = (
        f"; most often skipped, {reasons[0][1]} times: {reasons[0][0]} ({REASONS[reasons[0][0]]})"
        if reasons
        else ""
    )
    raise ValueError(
        f"{RAW / name} has no photo of {', '.join(empty)} (photos of each class: {counts}); add "
        f"some, or mend datasets.{name} in params.yaml{why}; all reasons stand in {SKIPPED}"
    )


if __name__ == "__main__":
    stage.run("prepare", main)
