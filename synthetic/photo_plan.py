"""Plan the synthetic set: the subject, folder, file name, label and corruption of each photo.

Subjects belong to one of three classes (synthetic/generate.py gives their angles and sources) and
have two to five photos each. Every fourth subject is a web picture with a single photo. Subjects
are assigned to collectors, who differ in how they name and label photos. As in the real set, the
plan also has photos of collectors who never labeled, photos whose task or file is unusable, and
injected corruptions, including one web picture that five collectors have and one labels
differently.

Each choice uses a random stream of its own. The n-th subject of a class therefore stays the same
for any number of photos, and corruptions change no other photo.
"""

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from anklealign.config.params import Synthetic
from synthetic import corruptions
from synthetic.annotation_export import ExportKind
from synthetic.camera import Capture
from synthetic.canvas import generator
from synthetic.corruptions import Format

CLASSES = ("supination", "neutral", "pronation")  # by increasing angle
CLASS_PHOTOS = {"pronation": 134, "neutral": 139, "supination": 50}  # photos in the real set
CLASS_ANGLES = {
    "pronation": (15.0, 2.8),
    "neutral": (5.0, 2.3),
    "supination": (-5.0, 2.8),
}  # mean, sd
SHOT_SD = 0.5  # degrees, sd between photos of one subject, at difficulty 1
ASYMMETRY_SD = 1.5  # degrees, sd of a leg's deviation from the mean of both legs
MAX_ASYMMETRY = 4.0  # degrees; twice this is less than the width of the neutral class
GOLDEN_RATIO = (5**0.5 - 1) / 2
WEB_EVERY = 4  # one subject in this many is a web picture

# Unusual habits of collectors, assigned in this order; all other collectors use the default.
Naming = Literal["sajat_reszvevo", "reszvevo_", "resztvevo", "saját_résztvevő", "number"]
NAMINGS: tuple[Naming, ...] = (
    "reszvevo_", "number", "saját_résztvevő", "resztvevo", "saját_résztvevő", "reszvevo_",
)  # fmt: skip
EXPORTS: tuple[ExportKind, ...] = (
    "two_exports", "json_min", "csv", "imported", "old_release", "many_keys", "imported",
)  # fmt: skip
# Exports that record why a task has no label.
TASK_EXPORTS = ("json", "two_exports", "old_release", "many_keys")
USUAL_SPELLING = {
    "pronation": "1_Pronacio", "neutral": "2_Neutralis", "supination": "3_Szupinacio",
}  # fmt: skip
SPELLINGS: tuple[dict[str, str], ...] = (
    {"pronation": "pronation", "neutral": "neutral", "supination": "supination"},
    {"pronation": "1_Pronáló", "neutral": "2_Neutral", "supination": "3_Szupináló"},
    {"pronation": "Pronáció", "neutral": "Neutrális", "supination": "Szupináció"},
    {"pronation": "1_pronacio ", "neutral": "2_NEUTRALIS", "supination": "3_Szupináció"},
)
UNLABELED_EVERY = 11  # one collector in this many never labeled
UNLABELED_PHOTOS = (37, 51)  # of the real set's two such collectors; the others have 323
AVIF_PHOTOS = 2  # AVIF files named .jpg
SHARED_COLLECTORS = 5  # have the same web picture; the last labels it differently
WEB_SITES = ("freepik", "pinterest", "shutterstock", "istock", "wikipedia", "pexels")
LONG_WEB_NAME = (
    "back-view-of-a-woman-s-bare-feet-and-ankles-standing-on-the-floor-isolated-stock-photo"
)

# Defect of a task or file: reason with which prepare skips the photo.
DROP_REASONS = {
    "empty": "no_label",
    "untouched": "no_label",
    "cancelled": "cancelled",
    "draft": "draft_only",
    "prediction": "prediction_only",
    "unknown": "label_unknown",
    "several": "several_choices",
    "tie": "label_tie",
    "conflict": "label_conflict",
    "untasked": "no_task",
    "cut": "truncated",
    "garbled": "unreadable",
    "web_page": "not_an_image",
    "void": "zero_bytes",
}
CONSENSUS_PHOTOS = 53  # on the consensus list
CONSENSUS_REPEATS = 4  # of them are listed twice
MIN_TASK_EXPORTERS = 3  # collectors with TASK_EXPORTS; below this no defects are added
MIN_COPIED_SIDE = 640  # pixels, long side; a third of it is still above clean's minimum size


@dataclass(frozen=True)
class Collector:
    """A person who takes and labels photos, with naming and export habits."""

    code: str
    naming: Naming = "sajat_reszvevo"
    spelling: int = -1  # index into SPELLINGS; -1 is USUAL_SPELLING
    export: ExportKind | None = "json"  # None: never labeled
    broken: Literal["", "cut", "empty"] = ""  # an additional, unreadable export
    subfolders: bool = False  # one per class
    from_mac: bool = False  # file names are in Unicode NFD

    def spell(self, label: str) -> str:
        """Return the class name in this collector's spelling."""
        return (USUAL_SPELLING if self.spelling < 0 else SPELLINGS[self.spelling])[label]


@dataclass(frozen=True)
class Shot:
    """One planned photo: its location, subject, labels and file properties."""

    folder: str
    name: str  # file name
    upload_name: str  # file name at upload to Label Studio
    collector: str  # code of the collector who took the photo
    subject: str  # <collector>/<number>, or web/<number>
    label: str  # true class of the subject
    assigned_label: str  # class assigned by the collector
    capture: Capture
    file_format: Format
    orientation: int  # EXIF
    quality: int
    corruption: str = ""  # one of corruptions.KINDS, or corruptions.SHARED
    original: str = ""  # path of the photo that this photo copies
    defect: str = ""  # a key of DROP_REASONS
    in_consensus: bool = False  # on the consensus list

    @property
    def path(self) -> str:
        """Path relative to the dataset folder."""
        return f"{self.folder}/{self.name}"

    @property
    def web(self) -> bool:
        """True for a web picture."""
        return self.subject.startswith("web/")

    @property
    def angle(self) -> float:
        """Mean angle of both legs in degrees."""
        return (self.capture.left + self.capture.right) / 2


@dataclass(frozen=True)
class PlannedSubject:
    """A subject: the class, and the (left, right) angles in degrees of each photo."""

    label: str
    seed_name: str
    stances: tuple[tuple[float, float], ...]
    web: bool


def plan(settings: Synthetic) -> tuple[list[Collector], list[Shot]]:
    """Return the collectors and all photos, sorted by path.

    Raises:
        ValueError: There are more collectors than subjects.
    """
    collectors = _collectors(settings)
    subjects = [
        subject
        for label, photos in _class_counts(settings.photos).items()
        for subject in _subjects(settings, label, photos, label)
    ]
    if settings.collectors > len(subjects):
        raise ValueError(
            f"params.yaml: synthetic.collectors = {settings.collectors}: {settings.photos} photos "
            f"have only {len(subjects)} subjects; lower it, or raise synthetic.photos"
        )
    factory = _ShotFactory(settings.seed)
    shots = _assign_collectors(settings, collectors, subjects, factory)
    shots = _rename_files(settings, collectors, shots)
    shots = _with_avif(settings, _mark_consensus(settings, collectors, shots))
    spare = list(_defective_shots(settings, collectors, factory))
    spare += _unlabeled_shots(settings, collectors, factory)
    spare += _shared_picture(settings, collectors, factory)
    corrupted = _inject_corruptions(settings, collectors, shots)
    return collectors, sorted([*corrupted, *spare], key=lambda shot: shot.path)


def _class_counts(photos: int) -> dict[str, int]:
    """Return the number of photos per class, rounded so that they sum to `photos`."""
    total = sum(CLASS_PHOTOS.values())
    exact = {label: photos * share / total for label, share in CLASS_PHOTOS.items()}
    counts = {label: int(value) for label, value in exact.items()}
    by_remainder = sorted(exact, key=lambda label: counts[label] - exact[label])
    for label in by_remainder[: photos - sum(counts.values())]:
        counts[label] += 1
    return counts


def _subjects(settings: Synthetic, label: str, photos: int, name: str) -> list[PlannedSubject]:
    """Return subjects of a class with `photos` photos in all; `name` is their random stream."""
    mean, sd = CLASS_ANGLES[label]
    start = generator(settings.seed, name).random()
    subjects: list[PlannedSubject] = []
    while photos:
        seed_name = f"{name}-{len(subjects)}"
        rng = generator(settings.seed, seed_name, "stance")
        web = len(subjects) % WEB_EVERY == WEB_EVERY - 1 or photos == 1
        shots = 1 if web else min(int(rng.integers(2, 6)), photos)
        # A golden-ratio sequence covers the distribution evenly for any number of subjects, so
        # the ceiling depends on the difficulty and hardly on the seed.
        quantile = (start + len(subjects) * GOLDEN_RATIO) % 1
        typical = mean + sd * settings.difficulty * NormalDist().inv_cdf(0.005 + 0.99 * quantile)
        asymmetry = rng.normal(0, ASYMMETRY_SD)
        stances = []
        for _ in range(shots):
            center = typical + rng.normal(0, SHOT_SD * settings.difficulty)
            half = min(max(asymmetry + rng.normal(0, SHOT_SD), -MAX_ASYMMETRY), MAX_ASYMMETRY)
            stances.append((center - half, center + half))
        subjects.append(PlannedSubject(label, seed_name, tuple(stances), web))
        photos -= shots
    return subjects


def _collectors(settings: Synthetic) -> list[Collector]:
    """Return the collectors, sorted by code; those who never labeled have no export."""
    rng = generator(settings.seed, "collectors")
    codes = list(map(str, rng.permutation(_collector_codes(settings.collectors, rng))))
    unlabeled = len(codes) // UNLABELED_EVERY
    labeling = len(codes) - unlabeled
    unusual = labeling // 3
    # A collector has an unusual naming or an unusual export, not both.
    odd_names = dict(enumerate(NAMINGS[:unusual]))
    odd_exports = dict(enumerate(EXPORTS[:unusual], unusual))
    spellings = min(len(SPELLINGS), labeling // 4)
    last = labeling - 1
    collectors = [
        Collector(
            code,
            naming=odd_names.get(number, "sajat_reszvevo"),
            spelling=number if number < spellings else -1,
            export=odd_exports.get(number, "json") if number < labeling else None,
            broken="cut" if number == last - 1 >= 4 else "empty" if number == last >= 4 else "",
            subfolders=number == last - 2 >= 4,
            from_mac=number % 2 == 0,
        )
        for number, code in enumerate(codes)
    ]
    return sorted(collectors, key=lambda collector: collector.code)


def _collector_codes(count: int, rng: np.random.Generator) -> list[str]:
    """Return unique collector codes of six characters, some in lower case."""
    letters = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    codes: dict[str, str] = {}
    while len(codes) < count:
        code = "".join(rng.choice(letters, 6))
        # As in the real set, a code mixes letters and digits, unlike a word or a number.
        if any(c.isdigit() for c in code[1:]) and any(c.isalpha() for c in code[1:]):
            codes.setdefault(code, code.lower() if rng.random() < 0.3 else code)
    return sorted(codes.values())


class _ShotFactory:
    """Creates the photos of subjects with unique subject numbers and file names."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._subjects: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._web_pictures = 0

    def shots_of(self, subject: PlannedSubject, collector: Collector) -> list[Shot]:
        """Return the photos that a collector has of a subject."""
        if subject.web:
            self._web_pictures += 1
            subject_id, room = f"web/{self._web_pictures:02}", f"web/{subject.seed_name}"
        else:
            self._subjects[collector.code] = self._subjects.get(collector.code, 0) + 1
            subject_id, room = (
                f"{collector.code}/{self._subjects[collector.code]:02}",
                collector.code,
            )
        shots = []
        for number, (left, right) in enumerate(subject.stances, 1):
            rng = generator(self._seed, subject.seed_name, number, "file")
            side = _side(rng)
            file_format, extension = _file_format(rng, side, web=subject.web)
            rotated = file_format == "JPEG" and not subject.web and rng.random() < 0.15
            name = self._name(subject, collector, subject_id, number) + extension
            folder = (
                f"{collector.code}/{_subfolder(subject.label)}"
                if collector.subfolders
                else collector.code
            )
            capture = Capture(subject.seed_name, room, number, left, right, side)
            shots.append(
                Shot(
                    folder=folder,
                    name=name,
                    upload_name=name,
                    collector=collector.code,
                    subject=subject_id,
                    label=subject.label,
                    assigned_label=subject.label,
                    capture=capture,
                    file_format=file_format,
                    orientation=int(rng.choice([6, 6, 8, 3])) if rotated else 1,
                    quality=int(rng.integers(78, 95)),
                )
            )
        return shots

    def _name(
        self, subject: PlannedSubject, collector: Collector, subject_id: str, number: int
    ) -> str:
        participant = subject_id.rpartition("/")[2]
        if subject.web:
            k = int(participant)
            if k % 7 == 3:  # exceeds Label Studio's path limit
                return f"{193684000 + 37 * k}-{LONG_WEB_NAME}"
            return f"internet_{WEB_SITES[k % len(WEB_SITES)]}_{k // len(WEB_SITES) + 1:02}"
        if collector.naming == "number":
            self._files[collector.code] = self._files.get(collector.code, 0) + 1
            return str(self._files[collector.code])
        gap = " " if collector.naming == "saját_résztvevő" else "_"
        return f"{collector.naming}{participant}{gap}{number:02}"


def _subfolder(label: str) -> str:
    return "normal" if label == "neutral" else label


def _side(rng: np.random.Generator) -> int:
    """Return the long side in pixels: mostly messenger size, some thumbnails and camera files."""
    kind = rng.random()
    if kind < 0.04:
        return int(rng.integers(150, 400))
    if kind > 0.975:
        return int(rng.integers(2000, 3001))
    return int(rng.integers(560, 1280))


def _file_format(rng: np.random.Generator, side: int, *, web: bool) -> tuple[Format, str]:
    """Return a file's format and extension; one extension in twenty is wrong."""
    formats: tuple[Format, ...] = ("JPEG", "PNG", "WEBP")
    file_format = formats[int(rng.choice(3, p=(0.5, 0.15, 0.35) if web else (0.9, 0.06, 0.04)))]
    if side > 800 and file_format == "PNG":  # a large PNG would take megabytes
        file_format = "JPEG"
    extension = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[file_format]
    if file_format == "JPEG":
        extension = str(rng.choice([".jpg", ".jpg", ".jpg", ".jpg", ".jpeg", ".JPG"]))
    if rng.random() < 0.05:
        extension = ".png" if file_format == "JPEG" else ".jpg"
    return file_format, extension


def _assign_collectors(
    settings: Synthetic,
    collectors: Sequence[Collector],
    subjects: Sequence[PlannedSubject],
    factory: _ShotFactory,
) -> list[Shot]:
    """Return the photos of all subjects, each assigned to a collector who labels."""
    labeling = [collector for collector in collectors if collector.export]
    rng = generator(settings.seed, "dealing")
    # Each collector gets one subject; the rest are distributed unevenly.
    weights = rng.uniform(0.6, 1.4, len(labeling))
    extra = rng.choice(len(labeling), len(subjects) - len(labeling), p=weights / weights.sum())
    assigned = [*range(len(labeling)), *map(int, extra)]
    # The order is shuffled so that neither subject number nor collector predicts the class.
    order = list(map(int, rng.permutation(len(subjects))))
    examples = [n for n in order if len(subjects[n].stances) == 2 and not subjects[n].web]
    shots: list[Shot] = []
    if len(labeling) > 1 and len(subjects) > len(labeling) and examples:
        # The sample/ folder shows the expected layout: one subject, two photos, two tasks.
        order.remove(examples[0])
        order.append(examples[0])
    for position, index in zip(assigned, order, strict=True):
        collector = labeling[position]
        if index == order[-1] and examples and len(labeling) > 1 and len(subjects) > len(labeling):
            collector = Collector("sample")
        shots += factory.shots_of(subjects[index], collector)
    return shots


def _rename_files(
    settings: Synthetic, collectors: Sequence[Collector], shots: Sequence[Shot]
) -> list[Shot]:
    """Return the photos, some of them renamed or moved to another collector's folder."""
    by_code = {c.code: c for c in collectors} | {"sample": Collector("sample")}
    rng = generator(settings.seed, "renaming")
    hosts = [c for c in collectors if c.export == "json" and not c.subfolders]
    renamed = []
    for shot in shots:
        own = by_code[shot.collector]
        chance, kind, host = rng.random(), rng.integers(6), rng.random()
        stem, _, extension = shot.name.rpartition(".")
        name = unicodedata.normalize("NFD" if own.from_mac else "NFC", shot.name)
        if chance < 0.012 and len(hosts) > 1 and own.naming != "number" and not shot.web:
            others = [c for c in hosts if c.code != own.code]
            folder = others[int(host * len(others))].code
            name = f"{own.code}_{shot.name}"
            renamed.append(replace(shot, folder=folder, name=name, upload_name=name))
            continue
        if chance > 0.88 and not shot.web:
            code = shot.folder.partition("/")[0]
            name = (
                f"{code}_{stem}.{extension}",
                f"{stem}_{code}.{extension}",
                f"{stem}_{code}_{code}.{extension}",
                f"{code}_{stem}_{code}.{extension}",
                f"{stem}_2.{extension}",
                f"{stem}.{extension.swapcase()}",
            )[kind]
        renamed.append(replace(shot, name=name))
    return renamed


def _mark_consensus(
    settings: Synthetic, collectors: Sequence[Collector], shots: Sequence[Shot]
) -> list[Shot]:
    """Return the photos with those of some subjects, in class proportion, marked for consensus."""
    plain = {c.code for c in collectors if c.export and not c.subfolders and c.naming != "number"}
    rng = generator(settings.seed, "list")
    by_subject: dict[str, list[int]] = {}
    for index in rng.permutation(len(shots)):
        shot = shots[index]
        if shot.folder == shot.collector and shot.folder in plain and not shot.web:
            by_subject.setdefault(shot.subject, []).append(int(index))
    ranked = []
    for label in CLASSES:
        subjects = [p for p, own in by_subject.items() if shots[own[0]].label == label]
        ranked += [
            ((n + 0.5) / len(subjects), label, subject_id) for n, subject_id in enumerate(subjects)
        ]
    listed = [index for _, _, subject_id in sorted(ranked) for index in by_subject[subject_id]]
    chosen = set(listed[: min(CONSENSUS_PHOTOS, len(shots) // 6)])
    return [replace(shot, in_consensus=index in chosen) for index, shot in enumerate(shots)]


def _unlabeled_shots(
    settings: Synthetic, collectors: Sequence[Collector], factory: _ShotFactory
) -> Iterator[Shot]:
    """Yield the photos of collectors who never labeled, in the real set's proportion."""
    unlabeled = [collector for collector in collectors if collector.export is None]
    # Their total share equals that of the real set's two, for any number of collectors.
    scale = (
        settings.photos
        / sum(CLASS_PHOTOS.values())
        * len(UNLABELED_PHOTOS)
        / max(1, len(unlabeled))
    )
    for collector, photos in zip(unlabeled, itertools.cycle(UNLABELED_PHOTOS), strict=False):
        for label, count in _class_counts(max(len(CLASS_PHOTOS), round(photos * scale))).items():
            for subject in _subjects(settings, label, count, f"silent-{collector.code}-{label}"):
                for shot in factory.shots_of(subject, collector):
                    yield replace(shot, defect="untasked")


def _shared_picture(
    settings: Synthetic, collectors: Sequence[Collector], factory: _ShotFactory
) -> Iterator[Shot]:
    """Yield one web picture of the neutral class once per collector who has it."""
    hosts = [c for c in collectors if c.export and not c.subfolders]
    if not settings.corruptions or len(hosts) < SHARED_COLLECTORS:
        return
    rng = generator(settings.seed, "shared")
    sharing = [hosts[index] for index in rng.permutation(len(hosts))[:SHARED_COLLECTORS]]
    (subject,) = _subjects(settings, "neutral", 1, "shared")
    (first,) = factory.shots_of(subject, sharing[0])
    first = replace(first, corruption=corruptions.SHARED)
    yield first
    for number, host in enumerate(sharing[1:], 2):
        assigned_label = first.assigned_label if number < SHARED_COLLECTORS else "pronation"
        yield replace(first, folder=host.code, assigned_label=assigned_label, original=first.path)


def _with_avif(settings: Synthetic, shots: Sequence[Shot]) -> list[Shot]:
    """Return the photos, AVIF_PHOTOS of them as AVIF files named .jpg; none has a copy."""
    plain = [
        index
        for index, shot in enumerate(shots)
        if (shot.file_format, shot.orientation, shot.name[-4:]) == ("JPEG", 1, ".jpg")
        and shot.capture.side < MIN_COPIED_SIDE
    ]
    chosen = set(generator(settings.seed, "avif").permutation(plain)[:AVIF_PHOTOS])
    return [
        replace(s, file_format="AVIF") if index in chosen else s for index, s in enumerate(shots)
    ]


def _defective_shots(
    settings: Synthetic, collectors: Sequence[Collector], factory: _ShotFactory
) -> Iterator[Shot]:
    """Yield a photo for each defect, from collectors whose exports record it."""
    exporters = [c for c in collectors if c.export in TASK_EXPORTS and not c.subfolders]
    if len(exporters) < MIN_TASK_EXPORTERS:
        return
    rng = generator(settings.seed, "fates")
    for number, label in enumerate(CLASSES):
        defects = list(DROP_REASONS)[number::3]
        shots = [
            shot
            for subject in _subjects(settings, label, len(defects), f"useless-{label}")
            for shot in factory.shots_of(subject, exporters[int(rng.integers(len(exporters)))])
        ]
        for shot, defect in zip(shots, defects, strict=True):
            yield replace(shot, defect=defect, file_format="JPEG", orientation=1)


def _inject_corruptions(
    settings: Synthetic, collectors: Sequence[Collector], shots: Sequence[Shot]
) -> list[Shot]:
    """Return the photos with `settings.corruptions` corruptions of each kind injected."""
    rng = generator(settings.seed, "planted")  # another name would change the photos
    order = [shots[index] for index in rng.permutation(len(shots))]
    # Wrong and contradicted labels each make photos unusable: at most a fifth of all per kind.
    count = min(settings.corruptions, len(shots) // 5)
    own = [shot for shot in order if not shot.web and not shot.in_consensus]
    wrong, own = own[:count], own[count:]
    mislabeled = {
        shot.path: replace(
            shot, assigned_label=_another_class(shot, rng), corruption=corruptions.WRONG_LABEL
        )
        for shot in wrong
    }
    # Web pictures are copied first, because several collectors find the same one.
    sources = [
        shot
        for shot in sorted(order, key=lambda shot: not shot.web)
        if shot.capture.side >= MIN_COPIED_SIDE and not shot.in_consensus and shot not in wrong
    ]
    contradicted, sources = sources[:count], sources[count:]
    factory = _CopyFactory(shots, [c for c in collectors if c.export and not c.subfolders], rng)
    planned = [mislabeled.get(shot.path, shot) for shot in shots]
    for kind in corruptions.COPIES:
        contradicts = kind == "contradicting"
        originals = (
            contradicted if contradicts else _sample_sources(sources, settings.corruptions, rng)
        )
        planned += [
            factory.copy(
                shot, kind, _another_class(shot, rng) if contradicts else shot.assigned_label
            )
            for shot in originals
        ]
    reshootable = [shot for shot in own if shot not in contradicted]
    for index, kind in enumerate(list(corruptions.POOR_QUALITY) * settings.corruptions):
        planned.append(factory.poor_shot(reshootable[index % len(reshootable)], kind, 100 + index))
    return planned


def _sample_sources(sources: Sequence[Shot], count: int, rng: np.random.Generator) -> list[Shot]:
    """Return `count` of the photos, half of them web pictures if there are enough."""
    shuffled = [sources[index] for index in rng.permutation(len(sources))]
    web = [shot for shot in shuffled if shot.web][: (count + 1) // 2]
    return [*web, *(shot for shot in shuffled if shot not in web)][:count]


class _CopyFactory:
    """Creates copies and poor-quality photos under unused paths."""

    def __init__(
        self, shots: Sequence[Shot], hosts: Sequence[Collector], rng: np.random.Generator
    ) -> None:
        self._used = {shot.path.casefold() for shot in shots}
        self._hosts = hosts
        self._rng = rng
        self._serial = itertools.count(1)

    def copy(self, shot: Shot, kind: str, assigned_label: str) -> Shot:
        """Return a copy of a photo; copies of web pictures are often in another folder."""
        named = replace(
            self._place(shot), corruption=kind, original=shot.path, assigned_label=assigned_label
        )
        if kind == "exact":
            return named
        return replace(
            named, file_format="JPEG", orientation=1, quality=corruptions.QUALITY.get(kind, 90)
        )

    def poor_shot(self, shot: Shot, kind: str, number: int) -> Shot:
        """Return another photo of the subject, of poor quality."""
        capture = replace(shot.capture, number=number, side=max(MIN_COPIED_SIDE, shot.capture.side))
        placed = replace(self._place(shot), corruption=kind, capture=capture)
        return replace(placed, file_format="JPEG", orientation=1)

    def _place(self, shot: Shot) -> Shot:
        while True:
            folder, name = self._name(shot)
            path = f"{folder}/{name}".casefold()
            if path not in self._used:
                self._used.add(path)
                return replace(shot, folder=folder, name=name, upload_name=name)

    def _name(self, shot: Shot) -> tuple[str, str]:
        serial = next(self._serial)
        stem, _, extension = shot.name.rpartition(".")
        if shot.web:
            folder = self._hosts[int(self._rng.integers(len(self._hosts)))].code
            other = f"masolat{serial}_{shot.name}"
            return folder, other if folder == shot.folder else shot.name
        second = f"{serial // 60 % 60:02}.{serial % 60:02}"
        name = (
            f"{stem} - másolat{serial}.{extension}",
            f"IMG-202510{serial % 28 + 1:02}-WA{serial:04}.jpg",
            f"WhatsApp Image 2025-10-12 at 10.{second} ({serial % 3 + 1}).jpeg",
        )[self._rng.integers(3)]
        return shot.folder, name


def _another_class(shot: Shot, rng: np.random.Generator) -> str:
    """Return a random class other than the true one."""
    return str(rng.choice([label for label in CLASSES if label != shot.label]))
