"""The phantom: an AnkleAlign-like set with known angles, which a fresh clone starts with.

Reads params.yaml:phantom. Writes data/raw/phantom/<COLLECTOR>/ with the collector's photos and one
Label Studio export, and data/phantom/truth.csv, the truth table, which no stage reads.

    python -m anklealign.phantom        # half a minute on 2 cores

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
pronation does in life (legs.py); nothing else in the picture knows of it.

The label is the person's group, as the collector who chose the person sees it. Two thresholds on
the true angle cannot undo the groups' overlap; the best balanced accuracy that they reach is the
ceiling, which the last line prints.

[1] Sobel et al., J Am Podiatr Med Assoc 89 (1999) 258: relaxed calcaneal stance position.
[2] Haight et al., Arch Phys Med Rehabil 86 (2005) 571: standing tibiocalcaneal angle, 5.5 to 6.9
    degrees valgus; 95 % limits between raters.
[3] Astrom and Arvidson, J Orthop Sports Phys Ther 22 (1995) 216: calcaneal stance in valgus.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from anklealign import files, legs, params, stage

PHOTOS = Path("data/raw/phantom")
TRUTH = Path("data/phantom/truth.csv")

CLASSES = ("supination", "neutral", "pronation")  # by rising angle
SHARES = {"pronation": 134, "neutral": 139, "supination": 50}  # of the real set's photos
GROUPS = {"pronation": (15.0, 2.8), "neutral": (5.0, 2.3), "supination": (-5.0, 2.8)}
SPELLED = {"pronation": "1_Pronacio", "neutral": "2_Neutralis", "supination": "3_Szupinacio"}
CUTS = (0.0, 10.0)  # degrees, halfway between the groups' means: below, between, above
SHOT = 0.5  # degrees, sd between a person's shots, at difficulty 1
ASYMMETRY = 1.5  # degrees, sd of a leg's distance from the mean of both ...
MOST = 4.0  # ... and the largest; twice that is less than the neutral class is wide
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Shot:
    """One planned photo: where it goes, who is on it and what is true of it."""

    name: str  # file name
    collector: str
    participant: str
    label: str
    seeded: str  # name of the person's random numbers
    number: int  # of the shot, from 1
    left: float  # degrees
    right: float

    @property
    def angle(self) -> float:
        """Mean over both legs in degrees."""
        return (self.left + self.right) / 2


def main() -> None:
    """Draw the set and write its truth table."""
    settings = params.section(params.read(), "phantom", params.Phantom)
    shots = plan(settings)
    with _replacing_folder(PHOTOS) as folder, ProcessPoolExecutor(_cores()) as pool:
        drawn = pool.map(_draw, [settings.seed] * len(shots), shots, chunksize=4)
        rows = []
        for shot, photo in zip(
            shots, tqdm(drawn, "phantom", len(shots), unit="photo"), strict=True
        ):
            path = folder / shot.collector / shot.name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(photo.jpeg)
            rows.append(truth(shot, photo))
        for project, collector in enumerate(sorted({shot.collector for shot in shots}), 1):
            name, tasks = export(collector, project, [s for s in shots if s.collector == collector])
            files.write_json(folder / collector / name, tasks)
    table = pd.DataFrame(rows)
    files.write_table(TRUTH, table)
    counts = ", ".join(f"{n} {name}" for name, n in table.label.value_counts().items())
    print(
        f"phantom: {len(table)} photos of {table.person.nunique()} persons by "
        f"{table.collector.nunique()} collectors: {counts}; "
        f"ceiling {ceiling(table):.3f} balanced accuracy by the true angles"
    )


def plan(settings: params.Phantom) -> list[Shot]:
    """Return the set's photos, sorted by collector and name.

    The n-th person of a group looks and stands the same whatever the number of photos.

    Raises:
        ValueError: There are more collectors than persons.
    """
    persons = [
        person
        for label, photos in _counts(settings.photos).items()
        for person in _group(settings, label, photos)
    ]
    if settings.collectors > len(persons):
        raise ValueError(
            f"params.yaml: phantom.collectors = {settings.collectors}: {settings.photos} photos "
            f"show only {len(persons)} persons; lower it, or raise phantom.photos"
        )
    rng = legs.generator(settings.seed, "collectors")
    codes = _codes(settings.collectors, rng)
    # One person each, so that nobody is left out, then some more to some than to others.
    weights = rng.uniform(0.6, 1.4, len(codes))
    dealt = [*codes, *rng.choice(codes, len(persons) - len(codes), p=weights / weights.sum())]
    # Shuffled, so that neither a participant's number nor a collector tells the class.
    order = rng.permutation(len(persons))
    taken = dict.fromkeys(codes, 0)
    shots = []
    for collector, index in zip(map(str, dealt), order, strict=True):
        taken[collector] += 1
        participant = f"reszvevo{taken[collector]:02}"
        label, seeded, legs_by_shot = persons[index]
        for number, (left, right) in enumerate(legs_by_shot, 1):
            name = f"sajat_{participant}_{number:02}.jpg"
            shots.append(Shot(name, collector, participant, label, seeded, number, left, right))
    return sorted(shots, key=lambda shot: (shot.collector, shot.name))


def _counts(photos: int) -> dict[str, int]:
    """Return each class's number of photos: the shares, rounded so that the sum fits."""
    whole = sum(SHARES.values())
    exact = {label: photos * share / whole for label, share in SHARES.items()}
    counts = {label: int(value) for label, value in exact.items()}
    by_rest = sorted(exact, key=lambda label: counts[label] - exact[label])
    for label in by_rest[: photos - sum(counts.values())]:
        counts[label] += 1
    return counts


def _group(
    settings: params.Phantom, label: str, photos: int
) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """Return a group's persons: label, name of their random numbers, both angles of each shot."""
    mean, sd = GROUPS[label]
    start = legs.generator(settings.seed, label).random()
    persons: list[tuple[str, str, list[tuple[float, float]]]] = []
    while photos:
        seeded = f"{label}-{len(persons)}"
        rng = legs.generator(settings.seed, seeded, "stance")
        shots = min(int(rng.integers(2, 6)), photos)
        if photos - shots == 1:  # nobody has one photo only
            shots += 1 if shots < 5 else -1
        # Steps of the golden ratio fill the distribution evenly, however many persons there are:
        # the ceiling then depends on the difficulty and hardly on the seed.
        part = (start + len(persons) * GOLDEN) % 1
        usual = mean + sd * settings.difficulty * NormalDist().inv_cdf(0.005 + 0.99 * part)
        uneven = rng.normal(0, ASYMMETRY)
        stances = []
        for _ in range(shots):
            centre = usual + rng.normal(0, SHOT * settings.difficulty)
            half = min(max(uneven + rng.normal(0, SHOT), -MOST), MOST)
            stances.append((centre - half, centre + half))
        persons.append((label, seeded, stances))
        photos -= shots
    return persons


def _codes(count: int, rng: np.random.Generator) -> list[str]:
    """Return collectors' codes of six characters, some in small letters; no two alike."""
    letters = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    codes: dict[str, str] = {}
    while len(codes) < count:
        code = "".join(rng.choice(letters, 6))
        codes.setdefault(code, code.lower() if rng.random() < 0.3 else code)
    return sorted(codes.values())


def _cores() -> int:
    """Return how many processes draw; the pictures do not depend on it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _draw(seed: int, shot: Shot) -> legs.Photograph:
    return legs.photograph(seed, shot.seeded, shot.number, shot.left, shot.right)


def clinical_class(angle: float) -> str:
    """Return the class in whose range a mean angle in degrees lies."""
    return CLASSES[sum(angle > cut for cut in CUTS)]


def truth(shot: Shot, photo: legs.Photograph) -> dict[str, Any]:
    """Return a photo's row of the truth table; boxes are half open, in pixels of the photo."""
    boxes = {"left": photo.heel_left, "right": photo.heel_right}
    return {
        "path": f"{shot.collector}/{shot.name}",
        "label": shot.label,
        "person": f"{shot.collector}/{shot.participant}",
        "collector": shot.collector,
        "true_class": clinical_class(shot.angle),
        "angle_left": round(shot.left, 3),
        "angle_right": round(shot.right, 3),
        "angle": round(shot.angle, 3),
        "width": photo.width,
        "height": photo.height,
    } | {
        f"heel_{side}_{edge}": value
        for side, box in boxes.items()
        for edge, value in zip(("left", "top", "right", "bottom"), box, strict=True)
    }


def export(collector: str, project: int, shots: list[Shot]) -> tuple[str, list[dict[str, Any]]]:
    """Return the name and the tasks of a collector's Label Studio export."""
    rng = legs.generator(collector, "export")
    name = (
        f"{collector}.json",
        f"project-{project}-at-2025-10-{project % 28 + 1:02}-09-30-{rng.bytes(4).hex()}.json",
        "labels.json",
    )[rng.integers(3)]
    tasks = []
    for number, shot in enumerate(shots, 1):
        upload = f"{rng.bytes(4).hex()}-{shot.name}"
        time = f"2025-10-{project % 28 + 1:02}T08:{number % 60:02}:00.000000Z"
        choice = {
            "value": {"choices": [SPELLED[shot.label]]},
            "id": rng.bytes(5).hex(),
            "from_name": "choice",
            "to_name": "image",
            "type": "choices",
            "origin": "manual",
        }
        annotation = {
            "id": number,
            "completed_by": 1,
            "result": [choice],
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": time,
            "updated_at": time,
            "draft_created_at": None,
            "lead_time": round(rng.uniform(2, 40), 3),
            "prediction": {},
            "result_count": 1,
            "unique_id": rng.bytes(16).hex(),
            "import_id": None,
            "last_action": None,
            "bulk_created": False,
            "task": number,
            "project": project,
            "updated_by": 1,
            "parent_prediction": None,
            "parent_annotation": None,
            "last_created_by": None,
        }
        tasks.append(
            {
                "id": number,
                "annotations": [annotation],
                "file_upload": upload,
                "drafts": [],
                "predictions": [],
                "data": {"image": f"/data/upload/{project}/{upload}"},
                "meta": {},
                "created_at": time,
                "updated_at": time,
                "inner_id": number,
                "total_annotations": 1,
                "cancelled_annotations": 0,
                "total_predictions": 0,
                "comment_count": 0,
                "unresolved_comment_count": 0,
                "last_comment_updated_at": None,
                "project": project,
                "updated_by": 1,
                "comment_authors": [],
            }
        )
    return name, tasks


def ceiling(table: pd.DataFrame) -> float:
    """Return the best balanced accuracy of a truth table's labels by two thresholds on the angle.

    Thresholds are fitted on the table itself, so this is what no classifier that sees the angles
    alone can beat on it. Classes that do not occur do not count.
    """
    table = table.sort_values("angle", kind="stable")
    # Only between two different angles can a threshold lie: (N + 1,) places, before each row and
    # after the last.
    angles = table.angle.to_numpy()
    between = np.concatenate(([True], angles[1:] > angles[:-1], [True]))
    low, middle, high = (_share_before(table.label.to_numpy() == name) for name in CLASSES)
    # With thresholds at i <= j the recalls add up to low[i] + middle[j] - middle[i] + 1 - high[j].
    first = np.where(between, low - middle, -np.inf)
    second = np.where(between, middle - high, -np.inf)
    best = float((np.maximum.accumulate(first) + second).max())
    present = int(table.label.nunique())
    return (best + ("pronation" in set(table.label))) / present


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
