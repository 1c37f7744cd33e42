"""Generate the synthetic set: photos of legs with known angles, labels and corruptions.

Reads params.yaml:synthetic. Writes data/raw/synthetic/ in the layout of a collected set: one folder
per collector with photos and Label Studio exports, and consensus/ with a list of photos and the
votes of several annotators. Also writes data/synthetic/truth.csv, the truth table, which no stage
reads.

    python -m synthetic.generate        # half a minute on 2 cores

Angles. The angle of a photo is the mean over both legs of the rearfoot angle in degrees, measured
between the line of the lower leg and the line of the heel. Pronation (valgus, the bottom of the
heel leans outwards) is positive. Subjects belong to one of three classes:

| class | mean | sd | source |
|---|---|---|---|
| pronation | 15 | 2.8 | mostly above 11.5, the healthy mean + 2 sd |
| neutral | 5 | 2.3 | healthy: 6.1, sd 2.7 [1]; 5.5 to 6.9 [2]; 7 [3]; Helbing's line: 0 to 6 |
| supination | -5 | 2.8 | inverted: below 0.7, the healthy mean - 2 sd |

The sources measure only the healthy class. The other two means and the smaller spread of the
neutral class are choices of this set. Measured populations have one mode without gaps, and raters
differ by 2.2 to 4.1 degrees [2]; on the real photos two annotators agree in 57% of the cases. The
synthetic set is therefore easier than real photos. `difficulty` multiplies the spreads: at 0 all
subjects of a class have the class mean; the ceiling below is about 0.98 at 1, 0.88 at 1.5 and 0.80
at 2. The two legs of a subject differ by some degrees and photos of one subject by half a degree;
the legs are never more than one class apart. The angle of a leg also moves its forefoot and the
inner side of its ankle, as pronation does (legs.py); nothing else in the picture depends on it.
Camera roll tilts leg and heel equally and keeps the angle between them; camera pitch changes the
visible angle by up to 0.6 degrees (camera.py). The table holds the angle of the legs, not the
visible one.

Labels. The true label is the subject's class. Two thresholds on the true angle cannot separate
overlapping classes; the best balanced accuracy they reach is the ceiling, which the last line of
output reports.

Defects and corruptions. Besides the usable photos, the set has photos without a label or a readable
file (photo_plan.DROP_REASONS) and injected corruptions (corruptions.py): copies, poor photos, wrong
labels, and one web picture, the same file in the folders of five collectors, labeled neutral by
four and pronation by one. Two of the good photos are AVIF files named .jpg. The truth table has one
row per photo:

| column | meaning |
|---|---|
| path | relative to data/raw/synthetic |
| label, true_label | class assigned by the collector; class of the subject |
| subject, collector | subject in the photo, <collector>/<number> or web/<number>; the collector |
| true_class | class whose range contains the angle |
| angle_left, angle_right, angle | degrees: leg on the left, leg on the right, their mean |
| corruption, original | one of corruptions.KINDS, or `shared`; path of the photo it copies |
| skipped | reason with which prepare skips the photo |
| consensus | True if the photo is on the consensus list |
| format, orientation, width, height | of the file; its pixels before the EXIF orientation applies |
| heel_<side>_<edge> | half-open box in those pixels; boxes.py maps it to the stored square |

[1] Sobel et al., J Am Podiatr Med Assoc 89 (1999) 258: relaxed calcaneal stance position.
[2] Haight et al., Arch Phys Med Rehabil 86 (2005) 571: standing tibiocalcaneal angle, 5.5 to 6.9
    degrees valgus; 95% limits of agreement between raters.
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

from anklealign.config import params, paths, stage
from anklealign.io import decode, files
from synthetic import annotation_export, annotators, boxes, camera, corruptions
from synthetic.annotation_export import PhotoTask
from synthetic.boxes import Box
from synthetic.canvas import generator
from synthetic.photo_plan import CLASSES, CONSENSUS_REPEATS, DROP_REASONS, Collector, Shot, plan

CLASS_LIMITS = (0.0, 10.0)  # degrees, midpoints between class means
ANNOTATORS = 18  # with a readable export
UNREADABLE_EXPORTS = ("cut", "garbled", "empty")  # exports of further annotators
AGREEMENT = 0.57  # pairwise agreement, as on the real photos
MISSING_FILE_TASKS = 2  # tasks whose photo does not exist
REVISED_EVERY = 5  # one photo in this many has an earlier annotation by the same annotator
UNKNOWN_LABEL = "nem látszik"  # Hungarian for 'not visible'; not a class
WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"


@dataclass(frozen=True)
class RenderedFile:
    """A file's bytes, the size of its pixels, and the boxes of visible heels in them."""

    data: bytes
    width: int
    height: int
    heels: tuple[Box, Box] | None


def main() -> None:
    """Generate the set and write its truth table."""
    settings = params.section(params.read(), "synthetic", params.Synthetic)
    collectors, shots = plan(settings)
    ordered = sorted(shots, key=_order)
    units = [list(own) for _, own in groupby(ordered, key=lambda shot: shot.capture)]
    with _replacing_folder(paths.SYNTHETIC) as folder, ProcessPoolExecutor(_cores()) as pool:
        rendered = pool.map(_render, [settings.seed] * len(units), units, chunksize=4)
        rows = []
        for unit, photos in zip(
            units, tqdm(rendered, "synthetic", len(units), unit="photo", disable=None), strict=True
        ):
            for shot, photo in zip(unit, photos, strict=True):
                _write_bytes(folder / shot.path, photo.data)
                rows.append(truth_row(shot, photo))
        for name, data in auxiliary_files(settings.seed, collectors, shots).items():
            _write_bytes(folder / name, data)
    table = pd.DataFrame(rows).sort_values("path", ignore_index=True)
    files.write_table(paths.TRUTH, table)
    print(_report(table))


def _report(table: pd.DataFrame) -> str:
    """Return the line that summarizes a truth table."""
    good = usable(table)
    counts = ", ".join(f"{n} {name}" for name, n in good.label.value_counts().items())
    injected = table.corruption[table.corruption != ""].value_counts()
    return (
        f"synthetic: {len(good)} usable photos of {good.subject.nunique()} subjects by "
        f"{good.collector.nunique()} collectors: {counts}; "
        f"{(table.skipped != '').sum()} more without a usable label or file; "
        f"{injected.sum()} injected corruptions of {len(injected)} kinds; "
        f"balanced accuracy ceiling {ceiling(good):.3f} by the true angles"
    )


def _write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _cores() -> int:
    """Return the number of rendering processes; the photos do not depend on it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _order(shot: Shot) -> tuple[str, int, bool, str]:
    """Return the key that groups photos by capture, with copies after their original."""
    return shot.capture.seed_name, shot.capture.number, shot.original != "", shot.path


def _render(seed: int, unit: Sequence[Shot]) -> list[RenderedFile]:
    """Return the files of a photo and its copies."""
    first = unit[0]
    photo = camera.photograph(seed, first.capture)
    heels = (photo.heel_left, photo.heel_right)
    upright = Image.fromarray(photo.pixels)
    if first.corruption in corruptions.POOR_QUALITY:
        _, degrade = corruptions.POOR_QUALITY[first.corruption]
        upright, heels = _apply_change(upright, heels, degrade, generator(seed, first.path))
    data = corruptions.encode(upright, first.file_format, first.quality, first.orientation)
    rendered = [_rendered_file(data, upright.size, heels, first)]
    for copy in unit[1:]:
        if copy.corruption in {"exact", corruptions.SHARED}:
            rendered.append(_rendered_file(data, upright.size, heels, first))
            continue
        opened = decode.open_photo(data, max_megapixels=20).image
        image, moved_heels = _apply_change(
            opened, heels, corruptions.COPIES[copy.corruption], generator(seed, copy.path)
        )
        encoded = corruptions.encode(image, copy.file_format, copy.quality)
        rendered.append(_rendered_file(encoded, image.size, moved_heels, copy))
    return rendered


def _apply_change(
    image: Image.Image, heels: tuple[Box, Box], change: corruptions.Change, rng: np.random.Generator
) -> tuple[Image.Image, tuple[Box, Box]]:
    image, move = change(image, rng)
    first, second = (corruptions.transform_box(box, move, *image.size) for box in heels)
    # Mirroring swaps the left and the right leg.
    mirrored = np.linalg.det(move[:, :2]) < 0
    return image, (second, first) if mirrored else (first, second)


def _rendered_file(
    data: bytes, size: tuple[int, int], heels: tuple[Box, Box], shot: Shot
) -> RenderedFile:
    """Return the file with its heel boxes in pixels before the EXIF orientation applies."""
    if shot.defect == "cut":
        data = data[: len(data) * 3 // 5]
    elif shot.defect == "garbled":
        # A valid header without a picture; random bytes can look truncated instead.
        data = data[:16] + bytes(len(data) // 4)
    elif shot.defect == "web_page":
        data = WEB_PAGE
    elif shot.defect == "void":
        data = b""
    inverse = {6: 8, 8: 6}.get(shot.orientation, shot.orientation)
    left, right = (boxes.upright(box, *size, inverse) for box in heels)
    width, height = size if shot.orientation <= 4 else size[::-1]
    visible = shot.corruption != "blank" and shot.defect not in {"garbled", "web_page", "void"}
    return RenderedFile(data, width, height, (left, right) if visible else None)


def clinical_class(angle: float) -> str:
    """Return the class whose range contains a mean angle in degrees."""
    return CLASSES[sum(angle > cut for cut in CLASS_LIMITS)]


def truth_row(shot: Shot, photo: RenderedFile) -> dict[str, Any]:
    """Return a photo's row of the truth table; the module docstring describes the columns."""
    mirrored, capture = shot.corruption == "mirrored", shot.capture
    left, right = (capture.right, capture.left) if mirrored else (capture.left, capture.right)
    row: dict[str, Any] = {
        "path": shot.path,
        "label": shot.assigned_label,
        "true_label": shot.label,
        "subject": shot.subject,
        "collector": shot.collector,
        "true_class": clinical_class(shot.angle),
        "angle_left": round(left, 3),
        "angle_right": round(right, 3),
        "angle": round(shot.angle, 3),
        "corruption": shot.corruption,
        "original": shot.original,
        "skipped": DROP_REASONS.get(shot.defect, ""),
        "consensus": shot.in_consensus,
        "format": shot.file_format,
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
    """Return the labeled photos that are neither copies nor poor; labels may be wrong."""
    good = table.corruption.isin(["", corruptions.WRONG_LABEL]) & (table.skipped == "")
    return table[good]


def read_truth(path: Path = paths.TRUTH) -> pd.DataFrame:
    """Return the truth table; boxes of photos without visible heels are NaN."""
    table = pd.read_csv(path, dtype={"subject": str, "collector": str})
    texts = ["corruption", "original", "skipped"]
    table[texts] = table[texts].fillna("")
    return table


def auxiliary_files(
    seed: int, collectors: Sequence[Collector], shots: Sequence[Shot]
) -> dict[str, bytes]:
    """Return all files other than photos, by path: exports, consensus files, stray files."""
    files_by_path: dict[str, bytes] = {}
    all_collectors = [*collectors, Collector("sample")]
    exporting = [
        c for c in all_collectors if c.export and any(_is_in_folder(shot, c) for shot in shots)
    ]
    by_code = {c.code: c for c in all_collectors}
    with_missing_file = list(generator(seed, "lost").permutation(len(exporting)))[
        :MISSING_FILE_TASKS
    ]
    for project, collector in enumerate(exporting, 1):
        rng = generator(seed, collector.code, "export")
        own = [
            shot for shot in shots if _is_in_folder(shot, collector) and shot.defect != "untasked"
        ]
        tasks = [
            task
            for number, shot in enumerate(own)
            for task in _label_tasks(shot, collector, rng, revised=number % REVISED_EVERY == 1)
        ]
        if project - 1 in with_missing_file:
            label = collector.spell("neutral")
            tasks.append(PhotoTask(collector.code, "sajat_reszvevo99_01.jpg", ((label,),)))
        kind = collector.export or "json"
        exports = annotation_export.export(kind, collector.code, project, tasks, rng)
        files_by_path |= {f"{collector.code}/{name}": data for name, data in exports.items()}
        if collector.broken:
            data = next(iter(exports.values()))
            data = data[: len(data) * 2 // 3] if collector.broken == "cut" else b""
            files_by_path[f"{collector.code}/export ({project}).json"] = data
    for name, owner in zip(("Thumbs.db", "jegyzet.txt"), exporting[1:], strict=False):
        files_by_path[f"{owner.code}/{name}"] = f"{name}: nem kép\r\n".encode()
    listed = [shot for shot in shots if shot.in_consensus]
    return files_by_path | {
        f"consensus/{n}": d for n, d in _consensus(seed, by_code, listed).items()
    }


def _is_in_folder(shot: Shot, collector: Collector) -> bool:
    return shot.folder.partition("/")[0] == collector.code


def _label_tasks(
    shot: Shot, collector: Collector, rng: np.random.Generator, *, revised: bool = False
) -> list[PhotoTask]:
    """Return the tasks of one photo: one, or two with contradicting labels.

    With `revised` the task has an earlier annotation, with two classes or skipped.
    """
    label = collector.spell(shot.assigned_label)
    other = collector.spell(next(name for name in CLASSES if name != shot.assigned_label))
    previous = {"json_min": (label, other), "csv": (label, other), "old_release": ()}
    previous_choices = previous.get(collector.export or "") if revised and not shot.defect else None
    task = PhotoTask(shot.folder, shot.upload_name, ((label,),), previous_choices=previous_choices)
    several = rng.random() < 0.04 and collector.export in {"json", "json_min", "csv"}
    changes: dict[str, list[dict[str, Any]]] = {
        "": [{"choices": ((label,), (other,), (label,))} if several else {}],
        "empty": [{"choices": ((),)}],
        "untouched": [{"state": "untouched"}],
        "cancelled": [{"state": "cancelled"}],
        "draft": [{"state": "draft"}],
        "prediction": [{"state": "prediction"}],
        "unknown": [{"choices": ((UNKNOWN_LABEL,),)}],
        "several": [{"choices": ((label, other),)}],
        "tie": [{"choices": ((label,), (other,))}],
        "conflict": [{}, {"choices": ((other,),)}],
    }
    return [replace(task, **change) for change in changes.get(shot.defect, [{}])]


def _consensus(
    seed: int, collectors: dict[str, Collector], listed: Sequence[Shot]
) -> dict[str, bytes]:
    """Return the files of consensus/: the list of photos and one export per annotator."""
    if not listed:
        return {}
    rng = generator(seed, "consensus")
    repeated = list(listed)[: min(CONSENSUS_REPEATS, len(listed) // 13)]
    lines = [f"{shot.folder}\\{shot.name}" for shot in [*listed, *repeated]]
    consensus_files = {"konszenzus_kepek.txt": "\n".join([*lines, ""]).encode()}
    # Uploaded from one folder, so the collector's code precedes each name.
    uploads = [f"{shot.folder}_{shot.name}" for shot in listed]
    angles = [shot.angle for shot in listed]
    votes = annotators.simulate_votes(angles, CLASS_LIMITS, ANNOTATORS, AGREEMENT, rng)
    writers = list(collectors.values())
    for number, own in enumerate([*votes, *votes[: len(UNREADABLE_EXPORTS)]]):
        writer = writers[number % len(writers)]
        labels = [
            "" if vote == annotators.NO_LABEL else writer.spell(CLASSES[vote]) for vote in own
        ]
        data = annotation_export.annotator_export(uploads, labels, rng)
        if number >= ANNOTATORS:
            data = {
                "cut": data[: len(data) // 2],
                "garbled": rng.bytes(2000),
                "empty": b"",
            }[UNREADABLE_EXPORTS[number - ANNOTATORS]]
        consensus_files[f"{rng.bytes(3).hex().upper()}.json"] = data
    return consensus_files


def ceiling(table: pd.DataFrame) -> float:
    """Return the best balanced accuracy that two thresholds on the angle reach on a truth table.

    The thresholds are fitted on the table itself, so the result is an upper bound for classifiers
    with two thresholds on the angle. Absent classes are ignored.
    """
    table = table.sort_values("angle", kind="stable")
    # (N + 1,) threshold positions, before each row and after the last; a threshold lies between
    # two different angles.
    angles = table.angle.to_numpy()
    between = np.concatenate(([True], angles[1:] > angles[:-1], [True]))
    low, middle, high = (
        _cumulative_shares(table.true_label.to_numpy() == name) for name in CLASSES
    )
    # For thresholds at i <= j the sum of recalls is low[i] + middle[j] - middle[i] + 1 - high[j].
    first = np.where(between, low - middle, -np.inf)
    second = np.where(between, middle - high, -np.inf)
    best = float((np.maximum.accumulate(first) + second).max())
    present = int(table.true_label.nunique())
    return (best + ("pronation" in set(table.true_label))) / present


def _cumulative_shares(member: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return (N + 1,) shares of a class's rows before each position; `member` is (N,)."""
    return np.concatenate(([0], np.cumsum(member))) / max(1, int(member.sum()))


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as outer:
        folder = Path(outer) / path.name
        folder.mkdir()
        yield folder
        if path.exists():
            shutil.rmtree(path)
        folder.replace(path)


if __name__ == "__main__":
    stage.run("synthetic", main)
