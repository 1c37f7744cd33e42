"""The photos of the page: which of them it holds as pictures, and what it knows of each.

The page has attributes of all photos, so that its counts are complete, and pictures of a limited
number, so that it stays below 10 MB: test photos first, errors before others, then removed photos,
the training photos most similar to the test photos, odd ones out, and a balanced sample of the
others.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anklealign.io.pixel_store import Pictures
from anklealign.reporting import thumbnails
from anklealign.reporting.metric_tables import SPLITS
from anklealign.reporting.run_files import RunFiles

STATES = (*SPLITS, "removed", "excluded")
MAX_PICTURES = 1400
# Bytes of base64. Scripts, heat maps, the map, and the attributes of 30,000 photos, each of another
# subject, add up to 2.5 MB.
PICTURE_BYTES = 6_800_000
LARGE = 240  # photos at LARGE_SIDE, which are the first ones; others at SMALL_SIDE
LARGE_SIDE, SMALL_SIDE = 256, 144  # pixels
MAX_REMOVED = 200
MAX_NEIGHBORS = 3  # pictures of training photos for each test photo
MAX_SIMILAR = 400
MAX_ODD = 24  # odd ones out
MAX_PROBABILITIES = 8  # classes whose probability an opened photo shows, beside that of its label
MAX_SKIPPED = 200  # rows of the table of skipped files

Columns = dict[str, Any]


def photo_data(files: RunFiles) -> Columns:
    """Return the attributes of all photos as columns; the first rows have `pictures`.

    `place` has the row of each test photo by id.
    """
    table = _all_photos(files)
    order = picture_order(files, table)
    rest = table.index.difference(order, sort=False)
    encoded = list(_encode(files, table.loc[order]))
    shown = order[: len(encoded)]
    table = table.loc[[*shown, *order[len(encoded) :], *rest]]
    columns, tested = _attributes(files, table), set(files.predictions.id)
    columns["pictures"] = encoded
    columns |= _details(files, table.iloc[: len(encoded)])
    columns["map"] = _map(files, table)
    columns["place"] = {photo: n for n, photo in enumerate(table.id) if photo in tested}
    return columns


def _all_photos(files: RunFiles) -> pd.DataFrame:
    """Return the photos by id with state, reason, prediction and confidence."""
    table = files.photos.set_index("id", drop=False)
    split = files.split.set_index("id")
    # In a test split by consensus, the label is the consensus label.
    table = table.assign(label=split.label.reindex(table.index).fillna(table.label))
    states = split.split.reindex(table.index)
    removed = pd.concat([files.removed, files.flagged]).drop_duplicates("id").set_index("id")
    reason = removed.reason.reindex(table.index).fillna("")
    states = states.where(~table.index.isin(files.removed.id), "removed").fillna("excluded")
    predicted = files.predictions.set_index("id").predicted.reindex(table.index)
    return table.assign(state=states, reason=reason, predicted=predicted)


def picture_order(files: RunFiles, table: pd.DataFrame) -> list[str]:
    """Return the ids of the photos that the page holds as pictures, most important first."""
    arrays = files.arrays
    tested = [photo for photo in arrays["heat_ids"].tolist() if photo in table.index]
    removed = _in_turn(files.removed, "reason", MAX_REMOVED)
    beside = files.removed.set_index("id").beside
    pairs = [beside[photo] for photo in removed if beside[photo]]
    similar = [photo for photos in neighbor_ids(files, tested).values() for photo, _ in photos]
    sampled = table.assign(source=table.label + "\0" + table.state + "\0" + table.collector)
    rest = _in_turn(sampled, "source", MAX_PICTURES)
    order = [*tested, *removed, *pairs, *similar[:MAX_SIMILAR], *odd_ones_out(files), *rest]
    known = [photo for photo in dict.fromkeys(order) if photo in table.index]
    return known[:MAX_PICTURES]


def _in_turn(table: pd.DataFrame, column: str, limit: int) -> list[str]:
    """Return ids, one of each value of a column in turn, each in the order of the ids: hashes."""
    rows = table.reset_index(drop=True).drop_duplicates("id").sort_values("id")
    turn = rows.groupby(column).cumcount()
    ids: list[str] = rows.assign(turn=turn).sort_values(["turn", "id"]).id.head(limit).tolist()
    return ids


def neighbor_ids(files: RunFiles, photos: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Return the most similar training photos of photos, with their similarity in percent."""
    if "neighbors" not in files.arrays:
        return {}
    ids = files.arrays["map_ids"].tolist()
    place = {photo: n for n, photo in enumerate(ids)}
    found = {}
    for photo in photos:
        if photo in place:
            near = files.arrays["neighbors"][place[photo]].tolist()
            percent = files.arrays["similarities"][place[photo]].tolist()
            pairs = [(ids[n], p) for n, p in zip(near, percent, strict=True) if n >= 0]
            found[photo] = pairs[:MAX_NEIGHBORS]
    return found


def odd_ones_out(files: RunFiles) -> list[str]:
    """Return the photos whose neighbors most often have another label."""
    if "agreeing" not in files.arrays:
        return []
    agreeing = pd.Series(files.arrays["agreeing"].astype(int), files.arrays["map_ids"].tolist())
    rare = agreeing[agreeing <= 2].rename_axis("id").reset_index(name="count")
    return list(rare.sort_values(["count", "id"]).id.head(MAX_ODD))


def _encode(files: RunFiles, table: pd.DataFrame) -> Iterator[str]:
    """Yield the pictures of photos, as long as they fit into the page."""
    pictures, left = Pictures(table, files.store, files.fit), PICTURE_BYTES
    for n in range(len(table)):
        encoded = thumbnails.photo(pictures[n], LARGE_SIDE if n < LARGE else SMALL_SIDE)
        left -= len(encoded)
        if left < 0:
            return
        yield encoded


def _codes(values: pd.Series, names: Sequence[str]) -> list[int]:
    """Return the position of each value among names, -1 for none."""
    place = {name: n for n, name in enumerate(names)}
    return [place.get(value, -1) for value in values]


def _attributes(files: RunFiles, table: pd.DataFrame) -> Columns:
    """Return the columns of all photos, as positions in lists of names."""
    names: dict[str, list[str]] = {
        "label": files.classes,
        "state": [state for state in STATES if (table.state == state).any()],
        "reason": sorted(set(table.reason) - {""}),
        "collector": sorted(set(table.collector) - {""}),
        "subject": sorted(set(table.subject) - {""}),
    }
    columns: Columns = {"names": names, "count": len(table)}
    for column, values in names.items():
        columns[column] = _codes(table[column], values) if values else []
    columns["predicted"] = _codes(table.predicted, files.classes)
    return columns


def _details(files: RunFiles, table: pd.DataFrame) -> Columns:
    """Return what an opened photo shows, by its position in the table."""
    place = {photo: n for n, photo in enumerate(table.id)}
    notes = pd.concat([files.removed, files.flagged]).drop_duplicates("id").set_index("id")
    votes = files.votes[files.votes.photo.isin(place)]
    counted = {
        place[str(photo)]: dict(sorted(Counter(labels).items()))
        for photo, labels in votes.groupby("photo", sort=True).label
    }
    near = neighbor_ids(files, list(table.id))
    return {
        "path": table.path.tolist(),
        "size": [f"{w} x {h}" for w, h in zip(table.width, table.height, strict=True)],
        "why": {place[p]: notes.why[p] for p in table.id if p in notes.index},
        "beside": {
            place[p]: place[notes.beside[p]]
            for p in table.id
            if p in notes.index and notes.beside[p] in place
        },
        "votes": counted,
        "near": {
            place[p]: shown
            for p, pairs in near.items()
            if (shown := [(place[other], percent) for other, percent in pairs if other in place])
        },
        "test": _test_details(files, place),
        "heat": _heat_maps(files, table, place),
    }


def _test_details(files: RunFiles, place: dict[str, int]) -> dict[int, Columns]:
    """Return probabilities, prediction set and novelty of the test photos with a picture."""
    details, classes = {}, files.classes
    rows = zip(files.predictions.to_dict("records"), files.probabilities, strict=True)
    for row, probabilities in rows:
        if row["id"] in place:
            order = np.argsort(-probabilities, kind="stable").tolist()
            shown = dict.fromkeys([*order[:MAX_PROBABILITIES], classes.index(row["actual"])])
            predicted = row["prediction_set"].split("|") if row["prediction_set"] else []
            details[place[row["id"]]] = {
                "p": [[k, round(float(probabilities[k]), 4)] for k in shown],
                "set": predicted[:MAX_PROBABILITIES],
                "unlike": str(row.get("in_distribution", True)) == "False",
            }
    return details


def _heat_maps(files: RunFiles, table: pd.DataFrame, place: dict[str, int]) -> dict[int, str]:
    """Return the heat maps of the test photos with a picture."""
    side = files.store.shape[1]
    boxes = table[["left", "top", "right", "bottom"]].to_numpy() / side
    maps = zip(files.arrays["heat_ids"].tolist(), files.arrays["heat"], strict=True)
    return {
        place[photo]: thumbnails.heat_map(heat, tuple(boxes[place[photo]].tolist()))
        for photo, heat in maps
        if photo in place and heat.any()
    }


def _map(files: RunFiles, table: pd.DataFrame) -> Columns:
    """Return the positions of the mapped photos by their place among all, and the odd ones out."""
    if "map_ids" not in files.arrays:
        return {}
    place = {photo: n for n, photo in enumerate(table.id)}
    ids: list[str] = files.arrays["map_ids"].tolist()
    kept = [n for n, photo in enumerate(ids) if photo in place]
    xy = files.arrays["map_xy"][kept].astype(int)
    odd = [place[photo] for photo in odd_ones_out(files) if photo in place]
    return {
        "photo": [place[ids[n]] for n in kept],
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
        "odd": odd,
    }
