r"""Which photo does a Label Studio task mean? Names are compared by ever looser rules.

A task knows a photo by the name it was stored under. On the way there a name is changed by Label
Studio (`<8 hex digits>-` before it), by Django (spaces to `_`, every character outside `[-\w.]`
dropped, and `_` + 7 alphanumerics put before the suffixes where the name was taken or the path
longer than 100 characters, which also cuts the stem; `django.core.files.storage`), by file systems
(Unicode form, case) and by people (collector codes before or after, a `_2`, another suffix).

A match is made by the strongest rule that finds exactly one photo. Where the strongest rule that
finds any finds several, nobody can know, and none is chosen; nor where it finds one photo for tasks
of different names. A photo that a stronger rule has given to one task is not open to a weaker rule
for another.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tqdm import tqdm

from anklealign.ingest.inventory import PHOTO_SUFFIXES

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
# A number of seven digits is somebody's own; Django's random one has no letter once in 300,000.
COLLISION = re.compile(r"_(?!\d{7}(?:\.|$))[0-9A-Za-z]{7}(?=\.|$)")
DROPPED = re.compile(r"[^-\w.]")
SEPARATORS = re.compile(r"[-_.\s]+")
CODE = re.compile(r"(?=.*\d)(?=.*[a-z])(?![a-z]+\d+$|\d+[a-z]+$)[0-9a-z]{6}")
# Django cuts paths to 100 characters; `upload/<project>/` or `upload/<project>/<8 hex>/` goes off.
SHORTEST_CUT = 70
SHORTEST_STEM = 20
# Names whose forms are remembered from one rule to the next.
MEMORY = 1 << 17
RULES = 14  # for the progress bar


@dataclass(frozen=True)
class Match:
    """The photo that a task means, or the rivals between which nobody can choose, or neither.

    A single rival is a photo that tasks of other names mean as much.
    """

    file: str | None
    rivals: tuple[str, ...] = ()
    rule: str = ""


@dataclass(frozen=True)
class _Key:
    """What a rule compares, and the collector codes that were taken off the name for it."""

    text: str
    codes: frozenset[str] = frozenset()


def match(
    tasks: Sequence[Sequence[str]], files: Sequence[str], codes: Collection[str]
) -> list[Match]:
    """Return a match for each task.

    Args:
        tasks: For each task the addresses that it gives for its photo: names, or paths with
            folders, percent signs decoded.
        files: The photos that may be meant, as POSIX paths.
        codes: Names of the collectors, which people put into file names.
    """
    known = _codes(codes)
    found: list[Match | None] = [None] * len(tasks)
    taken: set[str] = set()
    rules = _rules(tasks, files, known, taken)
    # 21,000 tasks take a second where names are whole, some ten where people renamed them all.
    for rule, candidates in tqdm(
        rules, "matching", RULES, unit="rule", delay=2, leave=False, disable=None
    ):
        if None not in found:
            break
        chosen: dict[str, list[int]] = defaultdict(list)
        for number, already in enumerate(found):
            if already is not None:
                continue
            fitting = sorted(candidates(number) - taken)
            if len(fitting) == 1:
                chosen[fitting[0]].append(number)
            elif fitting:
                found[number] = Match(None, tuple(fitting), rule)
        for file, numbers in chosen.items():
            # One name twice is one photo uploaded twice; two names are two photos.
            contested = len({_bare_names(tasks[number]) for number in numbers}) > 1
            for number in numbers:
                found[number] = Match(None, (file,), rule) if contested else Match(file, (), rule)
        taken.update(chosen)  # in place: `_rules` looks at it
    return [match or Match(None) for match in found]


def _names(addresses: Sequence[str]) -> list[str]:
    return sorted({address.rpartition("/")[2] for address in addresses} - {""})


def _bare_names(addresses: Sequence[str]) -> frozenset[str]:
    return frozenset(UPLOAD_PREFIX.sub("", name) for name in _names(addresses))


def _rules(
    tasks: Sequence[Sequence[str]],
    files: Sequence[str],
    codes: frozenset[str],
    taken: Collection[str],
) -> Iterator[tuple[str, Callable[[int], set[str]]]]:
    """Yield each rule, strongest first, with the photos that it finds for a task's number.

    `taken` grows between two rules: of 21,000 photos few are left when the costly ones come.
    """

    def left() -> list[str]:
        return [file for file in files if file not in taken]

    for rule, form in (("path", _composed), ("path in any case", _caseless)):
        yield rule, _by_tail(tasks, files, form)
    names = [_names(task) for task in tasks]
    yield "name", _by_key(names, left(), lambda name, _: {_Key(name)}, prefixed=False)
    rules: list[tuple[str, Callable[[str, bool], set[_Key]]]] = [
        ("upload prefix", lambda name, _: {_Key(name)}),
        ("Unicode form", lambda name, _: {_Key(_composed(name))}),
        ("cleaned name", lambda name, _: {_Key(clean) for clean in _cleaned(name)}),
        ("folded name", lambda name, _: {_Key(_fold(clean)) for clean in _cleaned(name)}),
        ("collision suffix", lambda name, stored: {_Key(n) for n in _plain_names(name, stored)}),
    ]
    for rule, keys in rules:
        yield rule, _by_key(names, left(), keys)
    yield "cut name", _by_start(names, left(), codes)

    def coded(copy: bool, bare: bool) -> Callable[[str, bool], set[_Key]]:
        return lambda name, stored: {
            key
            for plain in _plain_names(name, stored)
            for number in {False, copy}
            for key in [_without_codes(plain, codes, copy=number, bare=bare)]
        }

    exact, numbered = coded(copy=False, bare=False), coded(copy=True, bare=False)
    yield "same codes", _by_key(names, left(), exact, relation=_same)
    yield "codes", _by_key(names, left(), exact, relation=_compatible)
    yield "copy number", _by_key(names, left(), numbered, relation=_compatible)
    loosest = coded(copy=True, bare=True)
    yield "suffix", _by_key(names, left(), loosest, relation=_compatible)
    yield "cut name, suffix", _by_start(names, left(), codes, bare=True)


def _by_tail(
    tasks: Sequence[Sequence[str]], files: Sequence[str], form: Callable[[str], str]
) -> Callable[[int], set[str]]:
    """Find the photos whose path shares the longest end with an address, a folder at least."""
    by_name: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for file in files:
        parts = form(file).split("/")
        by_name[parts[-1]].append((file, parts))

    def candidates(number: int) -> set[str]:
        lengths: dict[str, int] = {}
        for address in tasks[number]:
            wanted = form(address).split("/")
            for file, parts in by_name.get(wanted[-1], []):
                lengths[file] = max(lengths.get(file, 0), _common_tail(wanted, parts))
        longest = max(lengths.values(), default=0)
        return (
            {file for file, length in lengths.items() if length == longest}
            if longest > 1
            else set()
        )

    return candidates


def _common_tail(one: Sequence[str], other: Sequence[str]) -> int:
    length = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        length += 1
    return length


def _sides(name: str, stored: bool, prefixed: bool) -> Iterator[tuple[int, str]]:
    """Yield a name with and without its upload prefix, numbered by which side lost it.

    One side at most loses it: two different prefixes are two uploads, so two photos.
    """
    yield 0, name
    if prefixed:
        bare = UPLOAD_PREFIX.sub("", name)
        if stored:
            if bare != name:
                yield 1, bare
            yield 2, name
        else:
            yield 1, name
            if bare != name:
                yield 2, bare


def _by_key(
    names: Sequence[Sequence[str]],
    files: Sequence[str],
    keys: Callable[[str, bool], set[_Key]],
    *,
    prefixed: bool = True,
    relation: Callable[[frozenset[str], frozenset[str], str], bool] | None = None,
) -> Callable[[int], set[str]]:
    """Find the photos that share a key with a task, and whose codes are so related."""
    index: dict[tuple[int, str], list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for file in files:
        for side, name in _sides(file.rpartition("/")[2], False, prefixed):
            for key in keys(name, False):
                index[side, key.text].append((file, key.codes))

    def candidates(number: int) -> set[str]:
        found: set[str] = set()
        for stored in names[number]:
            for side, name in _sides(stored, True, prefixed):
                for key in keys(name, True):
                    for file, codes in index.get((side, key.text), []):
                        own = _fold(file.partition("/")[0]) if "/" in file else ""
                        if relation is None or relation(key.codes, codes, own):
                            found.add(file)
        return found

    return candidates


def _by_start(
    names: Sequence[Sequence[str]],
    files: Sequence[str],
    codes: frozenset[str],
    *,
    bare: bool = False,
) -> Callable[[int], set[str]]:
    """Find the photos whose name begins and ends as a name that Django cut; bare, begins."""
    forms: set[tuple[str, str]] = set()
    for file in files:
        folded = {_fold(clean) for clean in _cleaned(file.rpartition("/")[2])}
        folded |= {_without_codes(name, codes).text for name in folded}
        forms |= {(form, file) for form in folded}
    ordered = sorted(forms)

    def candidates(number: int) -> set[str]:
        found: set[str] = set()
        for stored in names[number]:
            if len(stored) < SHORTEST_CUT:
                continue
            for _, name in _sides(stored, True, True):
                for taken in COLLISION.finditer(name):
                    stem, end = _fold_stem(name[: taken.start()]), _fold(name[taken.end() :])
                    if bare and end in PHOTO_SUFFIXES:
                        end = ""
                    for start in {stem, _without_codes(stem, codes).text}:
                        if len(start) >= SHORTEST_STEM:
                            found |= {
                                f for form, f in _beginning(ordered, start) if form.endswith(end)
                            }
        return found

    return candidates


def _beginning(ordered: Sequence[tuple[str, str]], start: str) -> Iterator[tuple[str, str]]:
    for place in range(bisect_left(ordered, (start,)), len(ordered)):
        if not ordered[place][0].startswith(start):
            return
        yield ordered[place]


def _same(task: frozenset[str], file: frozenset[str], own: str) -> bool:
    return task - {own} == file - {own}


def _compatible(task: frozenset[str], file: frozenset[str], own: str) -> bool:
    """Two names with codes of different collectors are photos of different people."""
    one, other = task - {own}, file - {own}
    return one <= other or other <= one


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _caseless(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(MEMORY)
def _cleaned(name: str) -> frozenset[str]:
    r"""Return what Django makes of a name, uploaded by Linux (NFC) and by macOS (NFD).

    Combining marks are outside `[-\w.]`, so the second loses its accents.
    """
    known = {name} if name.isascii() else {unicodedata.normalize(f, name) for f in ("NFC", "NFD")}
    return frozenset(DROPPED.sub("", form.strip().replace(" ", "_")) for form in known)


def _fold_stem(stem: str) -> str:
    if not stem.isascii():
        split = unicodedata.normalize("NFKD", stem)
        stem = "".join(c for c in split if not unicodedata.combining(c))
    return SEPARATORS.sub("_", stem.casefold()).strip("_")


@lru_cache(MEMORY)
def _fold(name: str) -> str:
    """Return a name without case and accents, with runs of separators as one `_`."""
    stem, dot, suffix = name.rpartition(".")
    if f".{suffix.casefold()}" not in PHOTO_SUFFIXES or not dot:
        return _fold_stem(name)
    return f"{_fold_stem(stem)}.{suffix.casefold()}"


def _plain_names(name: str, stored: bool) -> set[str]:
    """Return the folded names that a name may have had before a collision on upload."""
    names = {name}
    if stored:
        # Django puts it before the first of all suffixes, older releases before the last.
        names |= {name[: m.start()] + name[m.end() :] for m in COLLISION.finditer(name)}
    return {_fold(clean) for each in names for clean in _cleaned(each)}


def _codes(collectors: Collection[str]) -> frozenset[str]:
    """Return the collectors' folded names; a bare number is none to look for."""
    folded = {_fold_stem(name) for name in collectors}
    return frozenset(code for code in folded if re.search(r"[^\W\d_]", code))


def is_code(word: str) -> bool:
    """Tell whether a word is a six-character code: letters and digits mixed, unlike img001."""
    return len(word) == 6 and CODE.fullmatch(word) is not None


@lru_cache(MEMORY)
def _without_codes(
    name: str, codes: frozenset[str], copy: bool = False, bare: bool = False
) -> _Key:
    """Take collector codes off both ends of a folded name, and at will a `_2` and the suffix."""
    stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
    off: set[str] = set()
    while True:
        words = stem.split("_")
        cuts = range(len(words) - 1, 0, -1)
        heads, tails = (["_".join(words[:n]) for n in cuts], ["_".join(words[-n:]) for n in cuts])
        head = next((c for c in heads if c in codes or is_code(c)), None)
        tail = next((c for c in tails if c in codes or is_code(c)), None)
        if head is not None:
            off.add(head)
            stem = stem.removeprefix(f"{head}_")
        elif tail is not None:
            off.add(tail)
            stem = stem.removesuffix(f"_{tail}")
        elif copy and stem.endswith("_2") and len(stem) > 2:
            stem, copy = stem.removesuffix("_2"), False
        else:
            break
    return _Key(stem if bare else stem + dot + suffix, frozenset(off))
