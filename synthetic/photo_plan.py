"""The plan of the phantom: who is on which photo, in whose folder, and what is wrong with it.

People come from three groups (`phantom` says which and why), two to five photos each; every fourth
is a web picture, which shows somebody once. They are dealt to collectors, who name and label photos
in ways of their own. On top of the photos that are counted come, as in the real set, those of
collectors who never labelled, those whose task or file is of no use, and planted faults, among them
one picture that five collectors found and four of them labelled alike.

Every choice has random numbers of its own, so that the n-th person of a group stands the same
whatever the number of photos, and faults change nothing but themselves.
"""

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from anklealign.config.params import Phantom
from synthetic import corruptions
from synthetic.annotation_export import Kind
from synthetic.camera import Sitting
from synthetic.canvas import generator
from synthetic.corruptions import Format

CLASSES = ("supination", "neutral", "pronation")  # by rising angle
SHARES = {"pronation": 134, "neutral": 139, "supination": 50}  # of the real set's photos
GROUPS = {"pronation": (15.0, 2.8), "neutral": (5.0, 2.3), "supination": (-5.0, 2.8)}
SHOT = 0.5  # degrees, sd between a person's shots, at difficulty 1
ASYMMETRY = 1.5  # degrees, sd of a leg's distance from the mean of both ...
MOST = 4.0  # ... and the largest; twice that is less than the neutral class is wide
GOLDEN = (5**0.5 - 1) / 2
WEB = 4  # every so many persons, one is a picture from the web

# Collectors do as they like. Of each list the first come first; the rest do the usual.
Naming = Literal["sajat_reszvevo", "reszvevo_", "resztvevo", "saját_résztvevő", "number"]
NAMINGS: tuple[Naming, ...] = (
    "reszvevo_", "number", "saját_résztvevő", "resztvevo", "saját_résztvevő", "reszvevo_",
)  # fmt: skip
EXPORTS: tuple[Kind, ...] = (
    "two_exports", "json_min", "csv", "imported", "old_release", "many_keys", "imported",
)  # fmt: skip
FULL = ("json", "two_exports", "old_release", "many_keys")  # they tell why a task has no label
USUAL_SPELLING = {
    "pronation": "1_Pronacio", "neutral": "2_Neutralis", "supination": "3_Szupinacio",
}  # fmt: skip
SPELLINGS: tuple[dict[str, str], ...] = (
    {"pronation": "pronation", "neutral": "neutral", "supination": "supination"},
    {"pronation": "1_Pronáló", "neutral": "2_Neutral", "supination": "3_Szupináló"},
    {"pronation": "Pronáció", "neutral": "Neutrális", "supination": "Szupináció"},
    {"pronation": "1_pronacio ", "neutral": "2_NEUTRALIS", "supination": "3_Szupináció"},
)
SILENT = 11  # of so many collectors one never labelled
SILENT_PHOTOS = (37, 51)  # of the two in the real set, where the others have 323 between them
AVIFS = 2  # photos in a format that few know, by the name of one that all know
FINDERS = 5  # collectors with the same picture; the last one labels it otherwise
SITES = ("freepik", "pinterest", "shutterstock", "istock", "wikipedia", "pexels")
SENTENCE = "back-view-of-a-woman-s-bare-feet-and-ankles-standing-on-the-floor-isolated-stock-photo"

# What may come of a task or file that is of no use, with prepare's reason.
FATES = {
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
LISTED, TWICE = 53, 4  # photos of the consensus list, and how many of them stand there twice
LEAST_TELLING = 3  # collectors, or there are too few to spoil photos of
LEAST_COPIED = 640  # pixels of the long side: a third of it is no tiny photo


@dataclass(frozen=True)
class Collector:
    """Somebody who takes photos, and the way they do it."""

    code: str
    naming: Naming = "sajat_reszvevo"
    spelling: int = -1  # of SPELLINGS, -1: the usual one
    export: Kind | None = "json"  # None: never labelled
    broken: Literal["", "cut", "empty"] = ""  # another export, of no use
    subfolders: bool = False  # one for each class
    from_mac: bool = False  # file names have their accents decomposed

    def spelled(self, label: str) -> str:
        """Return the label as this collector writes it."""
        return (USUAL_SPELLING if self.spelling < 0 else SPELLINGS[self.spelling])[label]


@dataclass(frozen=True)
class Shot:
    """One planned photo: where it lies, who is on it, and what is true of it."""

    folder: str
    name: str  # file name
    uploaded: str  # file name when it was uploaded to be labelled
    collector: str  # who met the person
    person: str  # <collector>/<number>, or web/<number>
    label: str  # the person's group
    given: str  # the class that the collector chose
    sitting: Sitting
    form: Format
    orientation: int  # EXIF
    quality: int
    planted: str = ""  # a key of faults.KINDS
    original: str = ""  # path of the photo that this is a copy of
    fate: str = ""  # a key of FATES
    listed: bool = False  # on the consensus list

    @property
    def path(self) -> str:
        """Return the path below the data set."""
        return f"{self.folder}/{self.name}"

    @property
    def web(self) -> bool:
        """Tell a picture from the web."""
        return self.person.startswith("web/")

    @property
    def angle(self) -> float:
        """Mean over both legs in degrees."""
        return (self.sitting.left + self.sitting.right) / 2


@dataclass(frozen=True)
class Someone:
    """A person, or a web picture: the group, and both legs' angles of each shot."""

    label: str
    seeded: str
    stances: tuple[tuple[float, float], ...]
    web: bool


def plan(settings: Phantom) -> tuple[list[Collector], list[Shot]]:
    """Return the collectors and all photos, sorted by path.

    Raises:
        ValueError: There are more collectors than persons.
    """
    collectors = _collectors(settings)
    people = [
        someone
        for label, photos in _counts(settings.photos).items()
        for someone in _group(settings, label, photos, label)
    ]
    if settings.collectors > len(people):
        raise ValueError(
            f"params.yaml: phantom.collectors = {settings.collectors}: {settings.photos} photos "
            f"show only {len(people)} persons; lower it, or raise phantom.photos"
        )
    desk = _Desk(settings.seed)
    shots = _deal(settings, collectors, people, desk)
    shots = _rename(settings, collectors, shots)
    shots = _as_avif(settings, _list_some(settings, collectors, shots))
    spare = list(_useless(settings, collectors, desk))
    spare += _unlabelled(settings, collectors, desk)
    spare += _shared(settings, collectors, desk)
    planted = _plant(settings, collectors, shots)
    return collectors, sorted([*planted, *spare], key=lambda shot: shot.path)


def _counts(photos: int) -> dict[str, int]:
    """Return each class's number of photos: the shares, rounded so that the sum fits."""
    whole = sum(SHARES.values())
    exact = {label: photos * share / whole for label, share in SHARES.items()}
    counts = {label: int(value) for label, value in exact.items()}
    by_rest = sorted(exact, key=lambda label: counts[label] - exact[label])
    for label in by_rest[: photos - sum(counts.values())]:
        counts[label] += 1
    return counts


def _group(settings: Phantom, label: str, photos: int, name: str) -> list[Someone]:
    """Return people of a class with so many photos; `name` is that of their random numbers."""
    mean, sd = GROUPS[label]
    start = generator(settings.seed, name).random()
    people: list[Someone] = []
    while photos:
        seeded = f"{name}-{len(people)}"
        rng = generator(settings.seed, seeded, "stance")
        web = len(people) % WEB == WEB - 1 or photos == 1
        shots = 1 if web else min(int(rng.integers(2, 6)), photos)
        # Steps of the golden ratio fill the distribution evenly, however many persons there are:
        # the ceiling then depends on the difficulty and hardly on the seed.
        part = (start + len(people) * GOLDEN) % 1
        usual = mean + sd * settings.difficulty * NormalDist().inv_cdf(0.005 + 0.99 * part)
        uneven = rng.normal(0, ASYMMETRY)
        stances = []
        for _ in range(shots):
            centre = usual + rng.normal(0, SHOT * settings.difficulty)
            half = min(max(uneven + rng.normal(0, SHOT), -MOST), MOST)
            stances.append((centre - half, centre + half))
        people.append(Someone(label, seeded, tuple(stances), web))
        photos -= shots
    return people


def _collectors(settings: Phantom) -> list[Collector]:
    """Return the collectors, sorted by code; those who never labelled have no export."""
    rng = generator(settings.seed, "collectors")
    codes = list(map(str, rng.permutation(_codes(settings.collectors, rng))))
    silent = len(codes) // SILENT
    labelling = len(codes) - silent
    unusual = labelling // 3
    # Whoever names photos by the usual pattern may do something else that is unusual.
    odd_names = dict(enumerate(NAMINGS[:unusual]))
    odd_exports = dict(enumerate(EXPORTS[:unusual], unusual))
    spellings = min(len(SPELLINGS), labelling // 4)
    last = labelling - 1
    found = [
        Collector(
            code,
            naming=odd_names.get(number, "sajat_reszvevo"),
            spelling=number if number < spellings else -1,
            export=odd_exports.get(number, "json") if number < labelling else None,
            broken="cut" if number == last - 1 >= 4 else "empty" if number == last >= 4 else "",
            subfolders=number == last - 2 >= 4,
            from_mac=number % 2 == 0,
        )
        for number, code in enumerate(codes)
    ]
    return sorted(found, key=lambda collector: collector.code)


def _codes(count: int, rng: np.random.Generator) -> list[str]:
    """Return collectors' codes of six characters, some in small letters; no two alike."""
    letters = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    codes: dict[str, str] = {}
    while len(codes) < count:
        code = "".join(rng.choice(letters, 6))
        # As in the real set, codes mix letters and digits; a word or a number would be a name.
        if any(c.isdigit() for c in code[1:]) and any(c.isalpha() for c in code[1:]):
            codes.setdefault(code, code.lower() if rng.random() < 0.3 else code)
    return sorted(codes.values())


class _Desk:
    """Hands out participants' numbers, file names and files, so that none comes twice."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._met: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._found = 0

    def receive(self, someone: Someone, by: Collector) -> list[Shot]:
        """Return the photos that a collector takes, or finds, of somebody."""
        if someone.web:
            self._found += 1
            who, room = f"web/{self._found:02}", f"web/{someone.seeded}"
        else:
            self._met[by.code] = self._met.get(by.code, 0) + 1
            who, room = f"{by.code}/{self._met[by.code]:02}", by.code
        shots = []
        for number, (left, right) in enumerate(someone.stances, 1):
            rng = generator(self._seed, someone.seeded, number, "file")
            side = _side(rng)
            form, extension = _form(rng, side, web=someone.web)
            turns = form == "JPEG" and not someone.web and rng.random() < 0.15
            name = self._name(someone, by, who, number) + extension
            folder = f"{by.code}/{_subfolder(someone.label)}" if by.subfolders else by.code
            sitting = Sitting(someone.seeded, room, number, left, right, side)
            shots.append(
                Shot(
                    folder=folder,
                    name=name,
                    uploaded=name,
                    collector=by.code,
                    person=who,
                    label=someone.label,
                    given=someone.label,
                    sitting=sitting,
                    form=form,
                    orientation=int(rng.choice([6, 6, 8, 3])) if turns else 1,
                    quality=int(rng.integers(78, 95)),
                )
            )
        return shots

    def _name(self, someone: Someone, by: Collector, who: str, number: int) -> str:
        participant = who.rpartition("/")[2]
        if someone.web:
            k = int(participant)
            if k % 7 == 3:  # too long for the path of an upload
                return f"{193684000 + 37 * k}-{SENTENCE}"
            return f"internet_{SITES[k % len(SITES)]}_{k // len(SITES) + 1:02}"
        if by.naming == "number":
            self._files[by.code] = self._files.get(by.code, 0) + 1
            return str(self._files[by.code])
        gap = " " if by.naming == "saját_résztvevő" else "_"
        return f"{by.naming}{participant}{gap}{number:02}"


def _subfolder(label: str) -> str:
    return "normal" if label == "neutral" else label


def _side(rng: np.random.Generator) -> int:
    """Return a long side in pixels: mostly a message's, at times a thumbnail's or a camera's."""
    kind = rng.random()
    if kind < 0.04:
        return int(rng.integers(150, 400))
    if kind > 0.975:
        return int(rng.integers(2000, 3001))
    return int(rng.integers(560, 1280))


def _form(rng: np.random.Generator, side: int, *, web: bool) -> tuple[Format, str]:
    """Return a file's format and extension; one in twenty lies."""
    forms: tuple[Format, ...] = ("JPEG", "PNG", "WEBP")
    form = forms[int(rng.choice(3, p=(0.5, 0.15, 0.35) if web else (0.9, 0.06, 0.04)))]
    if side > 800 and form == "PNG":  # of a large photo it would take megabytes
        form = "JPEG"
    extension = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[form]
    if form == "JPEG":
        extension = str(rng.choice([".jpg", ".jpg", ".jpg", ".jpg", ".jpeg", ".JPG"]))
    if rng.random() < 0.05:
        extension = ".png" if form == "JPEG" else ".jpg"
    return form, extension


def _deal(
    settings: Phantom, collectors: Sequence[Collector], people: Sequence[Someone], desk: _Desk
) -> list[Shot]:
    """Return everyone's photos, everybody dealt to a collector who labels."""
    labelling = [collector for collector in collectors if collector.export]
    rng = generator(settings.seed, "dealing")
    # One person each, so that nobody is left out, then some more to some than to others.
    weights = rng.uniform(0.6, 1.4, len(labelling))
    extra = rng.choice(len(labelling), len(people) - len(labelling), p=weights / weights.sum())
    dealt = [*range(len(labelling)), *map(int, extra)]
    # Shuffled, so that neither a participant's number nor a collector tells the class.
    order = list(map(int, rng.permutation(len(people))))
    shown = [n for n in order if len(people[n].stances) == 2 and not people[n].web]
    shots: list[Shot] = []
    if len(labelling) > 1 and len(people) > len(labelling) and shown:
        # A folder that shows how it is meant: one person, two photos, two tasks.
        order.remove(shown[0])
        order.append(shown[0])
    for place, index in zip(dealt, order, strict=True):
        by = labelling[place]
        if index == order[-1] and shown and len(labelling) > 1 and len(people) > len(labelling):
            by = Collector("sample")
        shots += desk.receive(people[index], by)
    return shots


def _rename(
    settings: Phantom, collectors: Sequence[Collector], shots: Sequence[Shot]
) -> list[Shot]:
    """Return the photos with some renamed by hand, and some in another collector's folder."""
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
            renamed.append(replace(shot, folder=folder, name=name, uploaded=name))
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


def _list_some(
    settings: Phantom, collectors: Sequence[Collector], shots: Sequence[Shot]
) -> list[Shot]:
    """Return the photos with some on the consensus list: all of some persons', in proportion."""
    plain = {c.code for c in collectors if c.export and not c.subfolders and c.naming != "number"}
    rng = generator(settings.seed, "list")
    by_person: dict[str, list[int]] = {}
    for index in rng.permutation(len(shots)):
        shot = shots[index]
        if shot.folder == shot.collector and shot.folder in plain and not shot.web:
            by_person.setdefault(shot.person, []).append(int(index))
    ranked = []
    for label in CLASSES:
        people = [p for p, own in by_person.items() if shots[own[0]].label == label]
        ranked += [((n + 0.5) / len(people), label, who) for n, who in enumerate(people)]
    listed = [index for _, _, who in sorted(ranked) for index in by_person[who]]
    chosen = set(listed[: min(LISTED, len(shots) // 6)])
    return [replace(shot, listed=index in chosen) for index, shot in enumerate(shots)]


def _unlabelled(settings: Phantom, collectors: Sequence[Collector], desk: _Desk) -> Iterator[Shot]:
    """Yield the photos of collectors who never labelled, in the real set's proportion."""
    silent = [collector for collector in collectors if collector.export is None]
    # All of them have the real two's share together, whatever the number of collectors.
    scale = settings.photos / sum(SHARES.values()) * len(SILENT_PHOTOS) / max(1, len(silent))
    for by, photos in zip(silent, itertools.cycle(SILENT_PHOTOS), strict=False):
        for label, count in _counts(max(len(SHARES), round(photos * scale))).items():
            for someone in _group(settings, label, count, f"silent-{by.code}-{label}"):
                for shot in desk.receive(someone, by):
                    yield replace(shot, fate="untasked")


def _shared(settings: Phantom, collectors: Sequence[Collector], desk: _Desk) -> Iterator[Shot]:
    """Yield a web picture of the neutral class as each of its finders has it."""
    hosts = [c for c in collectors if c.export and not c.subfolders]
    if not settings.planted or len(hosts) < FINDERS:
        return
    rng = generator(settings.seed, "shared")
    finders = [hosts[index] for index in rng.permutation(len(hosts))[:FINDERS]]
    (someone,) = _group(settings, "neutral", 1, "shared")
    (first,) = desk.receive(someone, finders[0])
    first = replace(first, planted=corruptions.SHARED)
    yield first
    for number, finder in enumerate(finders[1:], 2):
        given = first.given if number < FINDERS else "pronation"
        yield replace(first, folder=finder.code, given=given, original=first.path)


def _as_avif(settings: Phantom, shots: Sequence[Shot]) -> list[Shot]:
    """Return the photos, some of them AVIF by the name of .jpg: such as nothing is a copy of."""
    plain = [
        index
        for index, shot in enumerate(shots)
        if (shot.form, shot.orientation, shot.name[-4:]) == ("JPEG", 1, ".jpg")
        and shot.sitting.side < LEAST_COPIED
    ]
    chosen = set(generator(settings.seed, "avif").permutation(plain)[:AVIFS])
    return [replace(s, form="AVIF") if index in chosen else s for index, s in enumerate(shots)]


def _useless(settings: Phantom, collectors: Sequence[Collector], desk: _Desk) -> Iterator[Shot]:
    """Yield a photo for each fate, at collectors whose exports can tell of it."""
    telling = [c for c in collectors if c.export in FULL and not c.subfolders]
    if len(telling) < LEAST_TELLING:
        return
    rng = generator(settings.seed, "fates")
    for number, label in enumerate(CLASSES):
        fates = list(FATES)[number::3]
        shots = [
            shot
            for someone in _group(settings, label, len(fates), f"useless-{label}")
            for shot in desk.receive(someone, telling[int(rng.integers(len(telling)))])
        ]
        for shot, fate in zip(shots, fates, strict=True):
            yield replace(shot, fate=fate, form="JPEG", orientation=1)


def _plant(settings: Phantom, collectors: Sequence[Collector], shots: Sequence[Shot]) -> list[Shot]:
    """Return the photos with the planted faults, `settings.planted` of each kind."""
    rng = generator(settings.seed, "planted")
    order = [shots[index] for index in rng.permutation(len(shots))]
    # Labels that are wrong, or that a copy contradicts, cost a photo: a fifth of all at most.
    few = min(settings.planted, len(shots) // 5)
    own = [shot for shot in order if not shot.web and not shot.listed]
    wrong, own = own[:few], own[few:]
    mistaken = {
        shot.path: replace(shot, given=_other(shot, rng), planted=corruptions.WRONG_LABEL)
        for shot in wrong
    }
    # Copies are mostly of pictures from the web: several people found them.
    sources = [
        shot
        for shot in sorted(order, key=lambda shot: not shot.web)
        if shot.sitting.side >= LEAST_COPIED and not shot.listed and shot not in wrong
    ]
    contradicted, sources = sources[:few], sources[few:]
    desk = _Names(shots, [c for c in collectors if c.export and not c.subfolders], rng)
    found = [mistaken.get(shot.path, shot) for shot in shots]
    for kind in corruptions.COPIES:
        opposed = kind == "contradicting"
        originals = contradicted if opposed else _some(sources, settings.planted, rng)
        found += [
            desk.copy(shot, kind, _other(shot, rng) if opposed else shot.given)
            for shot in originals
        ]
    spoilt = [shot for shot in own if shot not in contradicted]
    for index, kind in enumerate(list(corruptions.POOR) * settings.planted):
        found.append(desk.spoilt(spoilt[index % len(spoilt)], kind, 100 + index))
    return found


def _some(sources: Sequence[Shot], count: int, rng: np.random.Generator) -> list[Shot]:
    """Return so many of the photos, half of them from the web as long as there are such."""
    mixed = [sources[index] for index in rng.permutation(len(sources))]
    web = [shot for shot in mixed if shot.web][: (count + 1) // 2]
    return [*web, *(shot for shot in mixed if shot not in web)][:count]


class _Names:
    """Gives copies and spoilt photos folders and names that nobody has yet."""

    def __init__(
        self, shots: Sequence[Shot], hosts: Sequence[Collector], rng: np.random.Generator
    ) -> None:
        self._taken = {shot.path.casefold() for shot in shots}
        self._hosts = hosts
        self._rng = rng
        self._serial = itertools.count(1)

    def copy(self, shot: Shot, kind: str, given: str) -> Shot:
        """Return a copy of a photo; that of a web picture often lies in another's folder."""
        named = replace(self._place(shot), planted=kind, original=shot.path, given=given)
        if kind == "exact":
            return named
        return replace(named, form="JPEG", orientation=1, quality=corruptions.QUALITY.get(kind, 90))

    def spoilt(self, shot: Shot, kind: str, number: int) -> Shot:
        """Return another shot of the person, which came out badly."""
        sitting = replace(shot.sitting, number=number, side=max(LEAST_COPIED, shot.sitting.side))
        placed = replace(self._place(shot), planted=kind, sitting=sitting)
        return replace(placed, form="JPEG", orientation=1)

    def _place(self, shot: Shot) -> Shot:
        while True:
            folder, name = self._name(shot)
            path = f"{folder}/{name}".casefold()
            if path not in self._taken:
                self._taken.add(path)
                return replace(shot, folder=folder, name=name, uploaded=name)

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


def _other(shot: Shot, rng: np.random.Generator) -> str:
    """Return a class that is not the photo's."""
    return str(rng.choice([label for label in CLASSES if label != shot.label]))
