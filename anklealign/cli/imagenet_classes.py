"""Find the ImageNet classes that a dataset's class names mean, for the config that `add` writes.

A name is a WordNet number (`n02124075`), a group of ImageNet classes (`cats`) or the name of one
(`tiger_shark`), in any case, singular or plural. All classes must be found, and no two may share an
ImageNet class. A single word may have another sense (a crane, a mouse, a hip): it counts only among
animals or among food, if all classes are of that kind.
"""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from anklealign.config.class_names import fold, unnumbered

# Groups of ImageNet's classes, ends of ranges included.
GROUPS = {
    "cat": ("281-285",), "dog": ("151-268",), "bird": ("7-24", "80-100", "127-146"),
    "chicken": ("7-8",), "owl": (24,), "eagle": (22,), "penguin": (145,), "frog": ("30-32",),
    "turtle": ("33-37",), "lizard": ("38-48",), "snake": ("52-68",), "spider": ("72-77",),
    "shark": ("2-4",), "crab": ("118-121",), "wolf": ("269-271",), "fox": ("277-280",),
    "bear": ("294-297",), "beetle": ("300-307",), "butterfly": ("321-326",),
    "rabbit": ("330-332",), "horse": (339,), "squirrel": (335,), "monkey": ("370-382",),
    "elephant": ("385-386",), "bicycle": (444, 671), "bike": (444, 665, "670-671"),
    "motorbike": (665, 670), "motorcycle": (665, 670), "airplane": (404, 895),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 717, 751, 817),
}  # fmt: skip
# Classes of one kind by their numbers, whose names of one word are not mistaken for another thing.
KINDS = {"animals": range(398), "food": range(924, 968)}
# Endings of names in the plural, and the last letters in the plural and the singular.
PLURALS = (
    ("geese", "geese", "goose"), ("ss", "", ""), ("ies", "ies", "y"), ("ves", "ves", "f"),
    *((ending, "es", "") for ending in ("ses", "xes", "zes", "ches", "shes", "oes")),
    ("s", "s", ""),
)  # fmt: skip
WORDNET = re.compile(r"(n\d{8})(?!\d)", re.IGNORECASE)

Indices = tuple[int | str, ...]


def find(names: Iterable[str]) -> dict[str, Indices] | None:
    """Return the ImageNet classes of each class, or None unless all are found and differ."""
    found: dict[str, Indices] = {}
    kinds: set[str] = set()
    ambiguous = False
    for name in names:
        match = WORDNET.match(name)
        text = match[1].lower() if match else _plain(name)
        own = next((own for form in _singulars(text) if (own := _meaning(form))), None)
        if own is None:
            return None
        found[name] = own
        first = _expanded(own)[0]
        kinds.add(next((kind for kind, numbers in KINDS.items() if first in numbers), ""))
        ambiguous = ambiguous or not (match or " " in text)
    numbers = [index for own in found.values() for index in _expanded(own)]
    if len(set(numbers)) < len(numbers) or (ambiguous and len(kinds) > 1):
        return None
    return found or None


def _meaning(name: str) -> Indices | None:
    """Return the ImageNet classes of a singular name, or None."""
    if name in GROUPS:
        return GROUPS[name]
    index = _names().get(name)
    if index is None:
        return None
    sure = WORDNET.match(name) or " " in name or any(index in own for own in KINDS.values())
    return (index,) if sure else None


def _expanded(indices: Indices) -> list[int]:
    """Return the numbers of indices and ranges."""
    numbers: list[int] = []
    for item in indices:
        first, _, last = str(item).partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _plain(name: str) -> str:
    return " ".join(unnumbered(fold(name)).replace("-", " ").split())


def _singulars(text: str) -> list[str]:
    """Return a name as it is and as it may be in the singular."""
    for ending, plural, singular in PLURALS:
        if text.endswith(ending):
            return [text, text.removesuffix(plural) + singular]
    return [text]


@cache
def _names() -> Mapping[str, int]:
    """Return the ImageNet class of each WordNet number and of each name that only one class has."""
    spec = importlib.util.find_spec("timm")  # its import takes seconds
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent / "data" / "_info"
    numbers = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    index = {number: n for n, number in enumerate(numbers)}
    by_name: dict[str, set[int]] = defaultdict(set)
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    for number, names in (line.split("\t") for line in lines):
        if number in index:
            for name in names.split(","):
                by_name[_plain(name)].add(index[number])
    return index | {name: own.pop() for name, own in by_name.items() if len(own) == 1}
