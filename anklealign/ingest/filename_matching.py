r"""Match Label Studio tasks to photos by file name, with a sequence of increasingly loose rules.

A task refers to a photo by its stored name, which may differ from the original name:

- Label Studio adds the prefix `<8 hex digits>-`.
- Django replaces spaces with `_` and drops every character outside `[-\w.]`. If the name exists or
  the path is longer than 100 characters, Django also inserts `_` and 7 alphanumeric characters
  before the suffixes, and truncates the stem of a long path (`django.core.files.storage`).
- File systems change the Unicode form and the case.
- People add collector codes at either end, append `_2`, or change the suffix.

The first rule that finds any photo for a task decides. The task is matched if that rule finds
exactly one photo. It is left unmatched if the rule finds several photos, or the same photo for
tasks with different names. A photo matched by an earlier rule is not available to later rules.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tqdm import tqdm

from anklealign.io.decode import PHOTO_SUFFIXES

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
# Seven digits are part of the original name: 1 in 300,000 of Django's suffixes has no letter.
COLLISION = re.compile(r"_(?!\d{7}(?:\.|$))[0-9A-Za-z]{7}(?=\.|$)")
DROPPED = re.compile(r"[^-\w.]")
SEPARATORS = re.compile(r"[-_.\s]+")
CODE = re.compile(r"(?=.*\d)(?=.*[a-z])(?![a-z]+\d+$|\d+[a-z]+$)[0-9a-z]{6}")
# Django truncates paths to 100 characters, including `upload/<project>/` (and `<8 hex>/`).
SHORTEST_CUT = 70
SHORTEST_STEM = 20
# Number of names whose normalized forms are cached between rules.
CACHE_SIZE = 1 << 17
RULES = 14  # total of the progress bar


@dataclass(frozen=True)
class Match:
    """The photo matched to a task, or the ambiguous candidates (`rivals`), or neither.

    A single rival is a photo that also matches tasks with other names.
    """

    file: str | None
    rivals: tuple[str, ...] = ()
    rule: str = ""


@dataclass(frozen=True)
class _Key:
    """The text that a rule compares, and the collector codes removed from it."""

    text: str
    codes: frozenset[str] = frozenset()


def match_photos(
    tasks: Sequence[Sequence[str]], files: Sequence[str], codes: Collection[str]
) -> list[Match]:
    """Return the match of each task.

    Args:
        tasks: Photo addresses of each task: percent-decoded names or paths.
        files: POSIX paths of the candidate photos.
        codes: Names of the collectors, which may occur in file names.
    """
    known = _codes(codes)
    matches: list[Match | None] = [None] * len(tasks)
    taken: set[str] = set()
    rules = _rules(tasks, files, known, taken)
    # 21,000 tasks take 1 s if the names are unchanged and about 10 s if all were renamed.
    for rule, candidates in tqdm(
        rules, "matching", RULES, unit="rule", delay=2, leave=False, disable=None
    ):
        if None not in matches:
            break
        chosen: dict[str, list[int]] = defaultdict(list)
        for number, match in enumerate(matches):
            if match is not None:
                continue
            fitting = sorted(candidates(number) - taken)
            if len(fitting) == 1:
                chosen[fitting[0]].append(number)
            elif fitting:
                matches[number] = Match(None, tuple(fitting), rule)
        for file, numbers in chosen.items():
            # Equal names mean that one photo was uploaded twice; different names mean two photos.
            contested = len({_bare_names(tasks[number]) for number in numbers}) > 1
            for number in numbers:
                matches[number] = Match(None, (file,), rule) if contested else Match(file, (), rule)
        taken.update(chosen)  # updated in place because `_rules` reads it
    return [match or Match(None) for match in matches]


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
    """Yield the rules from strictest to loosest, each with its candidates by task index.

    The caller adds matched photos to `taken` between two rules, so the slow last rules search only
    the few photos that remain.
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
    """Find the photos whose path shares the longest tail, at least folder and name, with one."""
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
    """Yield a name with and without its upload prefix, numbered by the side that was stripped.

    The prefix is stripped from at most one side, because two different prefixes belong to two
    uploads and therefore to two photos.
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
    """Find the photos that share a key with a task and whose codes satisfy `relation`."""
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
    """Find the photos whose name has the start and end of a name that Django truncated.

    If `bare` is true, the suffix is not compared.
    """
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
    """Return whether one set of codes contains the other: other codes mean other collectors."""
    one, other = task - {own}, file - {own}
    return one <= other or other <= one


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _caseless(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(CACHE_SIZE)
def _cleaned(name: str) -> frozenset[str]:
    r"""Return the names that Django stores for an upload from Linux (NFC) and macOS (NFD).

    Combining marks are outside `[-\w.]`, so the NFD form loses its accents.
    """
    known = {name} if name.isascii() else {unicodedata.normalize(f, name) for f in ("NFC", "NFD")}
    return frozenset(DROPPED.sub("", form.strip().replace(" ", "_")) for form in known)


def _fold_stem(stem: str) -> str:
    if not stem.isascii():
        decomposed = unicodedata.normalize("NFKD", stem)
        stem = "".join(c for c in decomposed if not unicodedata.combining(c))
    return SEPARATORS.sub("_", stem.casefold()).strip("_")


@lru_cache(CACHE_SIZE)
def _fold(name: str) -> str:
    """Return a name without case and accents, with each run of separators replaced by `_`."""
    stem, dot, suffix = name.rpartition(".")
    if f".{suffix.casefold()}" not in PHOTO_SUFFIXES or not dot:
        return _fold_stem(name)
    return f"{_fold_stem(stem)}.{suffix.casefold()}"


def _plain_names(name: str, stored: bool) -> set[str]:
    """Return the folded names that a name may have had before the collision suffix was added."""
    names = {name}
    if stored:
        # Django inserts it before the first suffix; older releases insert it before the last.
        names |= {name[: m.start()] + name[m.end() :] for m in COLLISION.finditer(name)}
    return {_fold(clean) for each in names for clean in _cleaned(each)}


def _codes(collectors: Collection[str]) -> frozenset[str]:
    """Return the folded names of the collectors, except names without a letter."""
    folded = {_fold_stem(name) for name in collectors}
    return frozenset(code for code in folded if re.search(r"[^\W\d_]", code))


def is_code(word: str) -> bool:
    """Return whether a word is a six-character code of mixed letters and digits, unlike img001."""
    return len(word) == 6 and CODE.fullmatch(word) is not None


@lru_cache(CACHE_SIZE)
def _without_codes(
    name: str, codes: frozenset[str], copy: bool = False, bare: bool = False
) -> _Key:
    """Remove collector codes from both ends of a folded name.

    If `copy` is true, also remove a trailing `_2`. If `bare` is true, also remove the suffix.
    """
    stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
    removed: set[str] = set()
    while True:
        words = stem.split("_")
        cuts = range(len(words) - 1, 0, -1)
        heads, tails = (["_".join(words[:n]) for n in cuts], ["_".join(words[-n:]) for n in cuts])
        head = next((c for c in heads if c in codes or is_code(c)), None)
        tail = next((c for c in tails if c in codes or is_code(c)), None)
        if head is not None:
            removed.add(head)
            stem = stem.removeprefix(f"{head}_")
        elif tail is not None:
            removed.add(tail)
            stem = stem.removesuffix(f"_{tail}")
        elif copy and stem.endswith("_2") and len(stem) > 2:
            stem, copy = stem.removesuffix("_2"), False
        else:
            break
    return _Key(stem if bare else stem + dot + suffix, frozenset(removed))
