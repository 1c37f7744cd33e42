"""The phantom: an AnkleAlign-like set with known angles, which a fresh clone starts with.

Reads params.yaml:phantom. Writes data/raw/phantom/ as such sets come: a folder for each collector
with photos and Label Studio exports, and consensus/ with a list of photos and the votes of several
annotators; and data/phantom/truth.csv, the truth table, which no stage reads.

    python -m synthetic.generate        # half a minute on 2 cores

What is true. A photo's angle is the mean over both legs of the rearfoot angle, between the line of
the lower leg and that of the heel, in degrees, pronation (a heel that leans outwards at its bottom,
valgus) positive. People are drawn from three groups:

| class | mean | sd | why |
|---|---|---|---|
| pronation | 15 | 2.8 | beyond the healthy mean + 2 sd, 11.5, more often than not |
| neutral | 5 | 2.3 | healthy: 6.1, sd 2.7 [1]; 5.5 to 6.9 [2]; 7 [3]; by Helbing's line 0 to 6 |
| supination | -5 | 2.8 | inverted: beyond the healthy mean - 2 sd, 0.7 |

Only the healthy group is measured in these sources; where the other two lie is this phantom's
choice, and so is the neutral group's smaller spread. Life has one hump without gaps, and raters who
differ by 2.2 to 4.1 degrees [2]; on the real photos two people agree in 57 % of the cases. So the
phantom is easier than life. `difficulty` multiplies the spreads: at 0 all of a group have the
group's mean, at 1 the ceiling below is about 0.98, at 1.5 0.88, at 2 0.80. A person's two legs
differ by some degrees and one shot from the next by half a degree; the legs never lie more than one
class apart. Each leg's own angle also moves its forefoot and the inner side of its ankle, as
pronation does in life (legs.py); nothing else in the picture knows of it. A camera that is rolled
tilts leg and heel alike, so the angle between them stays; one that is pitched shows it up to 0.6
degrees larger or smaller (camera.py). The table holds the angle of the legs, not of their picture.

The label is the person's group, as the collector who chose the person sees it. Two thresholds on
the true angle cannot undo the groups' overlap; the best balanced accuracy that they reach is the
ceiling, which the last line prints.

What is wrong. Beside the photos that count lie those without a label or a readable file (shots.py
says which) and planted faults: copies, poor photos, wrong labels (faults.py), and one web picture,
the same file, in five collectors' folders, which four call neutral and one pronation. Two of the
good photos are AVIF by the name of .jpg. The truth table has a row for each photo, whatever became
of it:

| column | meaning |
|---|---|
| path | below data/raw/phantom |
| label, true_label | the class that the collector gave; the person's group |
| person, collector | who is on the photo, <collector>/<number> or web/<number>; who met them |
| true_class | the class in whose range the angle lies |
| angle_left, angle_right, angle | degrees: of the leg on the left, on the right, their mean |
| planted, original | one of faults.KINDS, or `shared`, the five; path of what this is a copy of |
| skipped | the reason for which prepare is to leave it out |
| consensus | whether it stands on the consensus list |
| format, orientation, width, height | of the file; its pixels before EXIF turns them |
| heel_<side>_<edge> | half-open box in those pixels; boxes.py takes it to the stored square |

[1] Sobel et al., J Am Podiatr Med Assoc 89 (1999) 258: relaxed calcaneal stance position.
[2] Haight et al., Arch Phys Med Rehabil 86 (2005) 571: standing tibiocalcaneal angle, 5.5 to 6.9
    degrees valgus; 95 % limits between raters.
[3] Astrom and Arvidson, J Orthop Sports Phys Ther 22 (1995) 216: calcaneal stance in valgus.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from tqdm import tqdm

from anklealign.config import params, stage
from anklealign.io import decode, files
from synthetic import annotation_export, annotators, boxes, camera, corruptions
from synthetic.annotation_export import Task
from synthetic.boxes import Box
from synthetic.canvas import generator
from synthetic.photo_plan import CLASSES, FATES, TWICE, Collector, Shot, plan

PHOTOS = Path("data/raw/phantom")
TRUTH = Path("data/phantom/truth.csv")

CUTS = (0.0, 10.0)  # degrees, halfway between the groups' means: below, between, above
ANNOTATORS = 18  # whose votes can be read, and ...
UNREADABLE = ("cut", "garbled", "empty")  # ... others
AGREEMENT = 0.57  # of two annotators, as on the real photos
MISSING = 2  # tasks whose photo is not there
HESITANT = 5  # of so many photos one was annotated before by the same person, otherwise
UNKNOWN = "nem látszik"  # typed where there was no class for it: it cannot be seen
WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"


@dataclass(frozen=True)
class Drawn:
    """A file's bytes, its pixels' size, and where both heels are in them, if they are."""

    data: bytes
    width: int
    height: int
    heels: tuple[Box, Box] | None


def main() -> None:
    """Draw the set and write its truth table."""
    settings = params.section(params.read(), "phantom", params.Phantom)
    collectors, shots = plan(settings)
    together = sorted(shots, key=_order)
    units = [list(own) for _, own in groupby(together, key=lambda shot: shot.sitting)]
    with _replacing_folder(PHOTOS) as folder, ProcessPoolExecutor(_cores()) as pool:
        drawn = pool.map(_draw, [settings.seed] * len(units), units, chunksize=4)
        rows = []
        for unit, photos in zip(
            units, tqdm(drawn, "phantom", len(units), unit="photo", disable=None), strict=True
        ):
            for shot, photo in zip(unit, photos, strict=True):
                _write(folder / shot.path, photo.data)
                rows.append(truth(shot, photo))
        for name, data in papers(settings.seed, collectors, shots).items():
            _write(folder / name, data)
    table = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    files.write_table(TRUTH, table)
    counted = usable(table)
    counts = ", ".join(f"{n} {name}" for name, n in counted.label.value_counts().items())
    planted = table.planted[table.planted != ""].value_counts()
    print(
        f"phantom: {len(counted)} usable photos of {counted.person.nunique()} persons by "
        f"{counted.collector.nunique()} collectors: {counts}; beside them "
        f"{(table.skipped != '').sum()} without a usable label or file, {planted.sum()} planted "
        f"faults of {len(planted)} kinds; ceiling {ceiling(counted):.3f} balanced accuracy by the "
        "true angles"
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _cores() -> int:
    """Return how many processes draw; the pictures do not depend on it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _order(shot: Shot) -> tuple[str, int, bool, str]:
    """Return what sorts photos by sitting, and a photo's copies behind it."""
    return shot.sitting.who, shot.sitting.number, shot.original != "", shot.path


def _draw(seed: int, unit: Sequence[Shot]) -> list[Drawn]:
    """Return the files of a photo and of its copies."""
    first = unit[0]
    photo = camera.photograph(seed, first.sitting)
    heels = (photo.heel_left, photo.heel_right)
    upright = Image.fromarray(photo.pixels)
    if first.planted in corruptions.POOR:
        _, spoil = corruptions.POOR[first.planted]
        upright, heels = _changed(upright, heels, spoil, generator(seed, first.path))
    data = corruptions.encode(upright, first.form, first.quality, first.orientation)
    drawn = [_drawn(data, upright.size, heels, first)]
    for copy in unit[1:]:
        if copy.planted in {"exact", corruptions.SHARED}:
            drawn.append(_drawn(data, upright.size, heels, first))
            continue
        seen = decode.open_photo(data, max_megapixels=20).image
        changed, spots = _changed(
            seen, heels, corruptions.COPIES[copy.planted], generator(seed, copy.path)
        )
        again = corruptions.encode(changed, copy.form, copy.quality)
        drawn.append(_drawn(again, changed.size, spots, copy))
    return drawn


def _changed(
    image: Image.Image, heels: tuple[Box, Box], change: corruptions.Change, rng: np.random.Generator
) -> tuple[Image.Image, tuple[Box, Box]]:
    changed, move = change(image, rng)
    first, second = (corruptions.moved(box, move, *changed.size) for box in heels)
    # In a mirrored picture the left leg looks like a right one, and is one.
    mirrored = np.linalg.det(move[:, :2]) < 0
    return changed, (second, first) if mirrored else (first, second)


def _drawn(data: bytes, size: tuple[int, int], heels: tuple[Box, Box], shot: Shot) -> Drawn:
    """Return the file with its heels' boxes in the pixels that it holds, before EXIF turns them."""
    if shot.fate == "cut":
        data = data[: len(data) * 3 // 5]
    elif shot.fate == "garbled":
        # The format can be told, and no picture follows: of random bytes some look cut short.
        data = data[:16] + bytes(len(data) // 4)
    elif shot.fate == "web_page":
        data = WEB_PAGE
    elif shot.fate == "void":
        data = b""
    back = {6: 8, 8: 6}.get(shot.orientation, shot.orientation)
    left, right = (boxes.upright(box, *size, back) for box in heels)
    width, height = size if shot.orientation <= 4 else size[::-1]
    seen = shot.planted != "blank" and shot.fate not in {"garbled", "web_page", "void"}
    return Drawn(data, width, height, (left, right) if seen else None)


def clinical_class(angle: float) -> str:
    """Return the class in whose range a mean angle in degrees lies."""
    return CLASSES[sum(angle > cut for cut in CUTS)]


def truth(shot: Shot, photo: Drawn) -> dict[str, Any]:
    """Return a photo's row of the truth table; its columns are explained above."""
    mirrored, sitting = shot.planted == "mirrored", shot.sitting
    left, right = (sitting.right, sitting.left) if mirrored else (sitting.left, sitting.right)
    row: dict[str, Any] = {
        "path": shot.path,
        "label": shot.given,
        "true_label": shot.label,
        "person": shot.person,
        "collector": shot.collector,
        "true_class": clinical_class(shot.angle),
        "angle_left": round(left, 3),
        "angle_right": round(right, 3),
        "angle": round(shot.angle, 3),
        "planted": shot.planted,
        "original": shot.original,
        "skipped": FATES.get(shot.fate, ""),
        "consensus": shot.listed,
        "format": shot.form,
        "orientation": shot.orientation,
        "width": photo.width,
        "height": photo.height,
    }
    sides = dict(zip(("left", "right"), photo.heels or ((None,) * 4,) * 2, strict=True))
    return row | {
        f"heel_{side}_{edge}": value
        for side, box in sides.items()
        for edge, value in zip(("left", "top", "right", "bottom"), box, strict=True)
    }


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the truth table's photos that are no copy, not spoilt and labelled, right or wrong."""
    good = table.planted.isin(["", corruptions.WRONG_LABEL]) & (table.skipped == "")
    return table[good]


def read_truth(path: Path = TRUTH) -> pd.DataFrame:
    """Return the truth table; empty texts stay empty, boxes of what shows no heel are NaN."""
    table = pd.read_csv(path, dtype={"person": str, "collector": str})
    texts = ["planted", "original", "skipped"]
    table[texts] = table[texts].fillna("")
    return table


def papers(seed: int, collectors: Sequence[Collector], shots: Sequence[Shot]) -> dict[str, bytes]:
    """Return all files that are no photos, by path: exports, the consensus, what lies about."""
    found: dict[str, bytes] = {}
    everyone = [*collectors, Collector("sample")]
    exporting = [c for c in everyone if c.export and any(_in(shot, c) for shot in shots)]
    by_code = {c.code: c for c in everyone}
    lost = list(generator(seed, "lost").permutation(len(exporting)))[:MISSING]
    for project, collector in enumerate(exporting, 1):
        rng = generator(seed, collector.code, "export")
        own = [shot for shot in shots if _in(shot, collector) and shot.fate != "untasked"]
        tasks = [
            task
            for number, shot in enumerate(own)
            for task in _tasks(shot, collector, rng, hesitant=number % HESITANT == 1)
        ]
        if project - 1 in lost:
            spelled = collector.spelled("neutral")
            tasks.append(Task(collector.code, "sajat_reszvevo99_01.jpg", ((spelled,),)))
        kind = collector.export or "json"
        exports = annotation_export.export(kind, collector.code, project, tasks, rng)
        found |= {f"{collector.code}/{name}": data for name, data in exports.items()}
        if collector.broken:
            data = next(iter(exports.values()))
            data = data[: len(data) * 2 // 3] if collector.broken == "cut" else b""
            found[f"{collector.code}/export ({project}).json"] = data
    for name, owner in zip(("Thumbs.db", "jegyzet.txt"), exporting[1:], strict=False):
        found[f"{owner.code}/{name}"] = f"{name}: nem kép\r\n".encode()
    listed = [shot for shot in shots if shot.listed]
    return found | {f"consensus/{n}": d for n, d in _consensus(seed, by_code, listed).items()}


def _in(shot: Shot, collector: Collector) -> bool:
    return shot.folder.partition("/")[0] == collector.code


def _tasks(
    shot: Shot, by: Collector, rng: np.random.Generator, *, hesitant: bool = False
) -> list[Task]:
    """Return the tasks of one photo: one, unless two contradict each other.

    Whoever was hesitant chose two classes first, or skipped the task.
    """
    label = by.spelled(shot.given)
    other = by.spelled(next(name for name in CLASSES if name != shot.given))
    before = {"json_min": (label, other), "csv": (label, other), "old_release": ()}
    earlier = before.get(by.export or "") if hesitant and not shot.fate else None
    task = Task(shot.folder, shot.uploaded, ((label,),), earlier=earlier)
    several = rng.random() < 0.04 and by.export in {"json", "json_min", "csv"}
    changes: dict[str, list[dict[str, Any]]] = {
        "": [{"choices": ((label,), (other,), (label,))} if several else {}],
        "empty": [{"choices": ((),)}],
        "untouched": [{"state": "untouched"}],
        "cancelled": [{"state": "cancelled"}],
        "draft": [{"state": "draft"}],
        "prediction": [{"state": "prediction"}],
        "unknown": [{"choices": ((UNKNOWN,),)}],
        "several": [{"choices": ((label, other),)}],
        "tie": [{"choices": ((label,), (other,))}],
        "conflict": [{}, {"choices": ((other,),)}],
    }
    return [replace(task, **change) for change in changes.get(shot.fate, [{}])]


def _consensus(
    seed: int, collectors: dict[str, Collector], listed: Sequence[Shot]
) -> dict[str, bytes]:
    """Return the files of consensus/: the list of photos, and one export for each annotator."""
    if not listed:
        return {}
    rng = generator(seed, "consensus")
    twice = list(listed)[: min(TWICE, len(listed) // 13)]
    lines = [f"{shot.folder}\\{shot.name}" for shot in [*listed, *twice]]
    found = {"konszenzus_kepek.txt": "\n".join([*lines, ""]).encode()}
    # All were put into one folder first, so their collector's code came before their names.
    uploads = [f"{shot.folder}_{shot.name}" for shot in listed]
    angles = [shot.angle for shot in listed]
    votes = annotators.vote(angles, CUTS, ANNOTATORS, AGREEMENT, rng)
    people = list(collectors.values())
    for number, own in enumerate([*votes, *votes[: len(UNREADABLE)]]):
        writes = people[number % len(people)]
        labels = [
            "" if vote == annotators.NOBODY else writes.spelled(CLASSES[vote]) for vote in own
        ]
        data = annotation_export.votes(uploads, labels, rng)
        if number >= ANNOTATORS:
            data = {
                "cut": data[: len(data) // 2],
                "garbled": rng.bytes(2000),
                "empty": b"",
            }[UNREADABLE[number - ANNOTATORS]]
        found[f"{rng.bytes(3).hex().upper()}.json"] = data
    return found


def ceiling(table: pd.DataFrame) -> float:
    """Return the best balanced accuracy of a truth table's true labels by thresholds on the angle.

    Thresholds are fitted on the table itself, so this is what no classifier that sees the angles
    alone can beat on it. Classes that do not occur do not count.
    """
    table = table.sort_values("angle", kind="stable")
    # Only between two different angles can a threshold lie: (N + 1,) places, before each row and
    # after the last.
    angles = table.angle.to_numpy()
    between = np.concatenate(([True], angles[1:] > angles[:-1], [True]))
    low, middle, high = (_share_before(table.true_label.to_numpy() == name) for name in CLASSES)
    # With thresholds at i <= j the recalls add up to low[i] + middle[j] - middle[i] + 1 - high[j].
    first = np.where(between, low - middle, -np.inf)
    second = np.where(between, middle - high, -np.inf)
    best = float((np.maximum.accumulate(first) + second).max())
    present = int(table.true_label.nunique())
    return (best + ("pronation" in set(table.true_label))) / present


def _share_before(member: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return (N + 1,) shares of a class's N rows that lie before each place."""
    return np.concatenate(([0], np.cumsum(member))) / max(1, int(member.sum()))


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as outer:
        folder = Path(outer) / path.name
        folder.mkdir()
        yield folder
        if path.exists():
            shutil.rmtree(path)
        folder.replace(path)


if __name__ == "__main__":
    stage.run("phantom", main)
