"""Class names as people write them: case, accents, leading numbering and Unicode form do not count.

`1_Pronáció`, `1. PRONACIO` and `pronáció` are the same label. A label that fits no class is never
guessed; the nearest class is only a hint for whoever mends the data.
"""

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence

# What spreadsheets and pandas write where there is nothing.
EMPTY = {"", "nan", "na", "n/a", "<na>", "null", "none", "-"}


def fold(text: str) -> str:
    """Return the text without case, accents, Unicode form and outer or repeated spaces.

    Underscores and spaces are the same; a number reads the same with and without `.0`, which a
    table with empty cells puts behind every number.
    """
    split = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in split if not unicodedata.combining(c)).casefold()
    words = " ".join(plain.replace("_", " ").split())
    return re.sub(r"^(\d+)\.0+$", r"\1", words)


def unnumbered(folded: str) -> str:
    """Return a folded text without the numbering before it."""
    # A separator is needed, so that '3d' is not taken for the third class, 'd'.
    return re.sub(r"^\d+[\s.):-]+(?=[^\W\d])", "", folded)


class Labels:
    """The classes of a dataset and every way in which they may be written."""

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Take each class with its aliases; the class's own name is always one of them.

        Raises:
            ValueError: Two classes share a name or an alias.
        """
        self._exact: dict[str, str] = {}
        # Numbering tells classes apart where nothing else does (1_left, 2_left).
        short: dict[str, dict[str, tuple[str, str]]] = {}  # word -> number -> class, as written
        for name, aliases in classes.items():
            for alias in (name, *aliases):
                folded = fold(alias)
                self._exact[folded] = name
                word = unnumbered(folded)
                number = folded.removesuffix(word).strip(" .):-")
                numbers = short.setdefault(word, {})
                rivals = (
                    numbers.values() if number == "" else [numbers.get(n) for n in (number, "")]
                )
                for other in rivals:
                    if other and other[0] != name:
                        raise ValueError(
                            f"classes: {alias!r} means {name!r}, but {other[1]!r} is an alias of "
                            f"{other[0]!r} (case, accents and leading numbers do not count); take "
                            "it from one of them"
                        )
                numbers[number] = name, alias
        meant = {word: {name for name, _ in by.values()} for word, by in short.items()}
        self._unnumbered = {word: min(names) for word, names in meant.items() if len(names) == 1}

    def find(self, text: str) -> str | None:
        """Return the class that the text names, or None where it names none."""
        folded = fold(text)
        found = self._exact.get(folded)
        return found if found is not None else self._unnumbered.get(unnumbered(folded))

    def is_empty(self, text: str) -> bool:
        """Tell whether the text is one of the ways to write nothing (and no class)."""
        return fold(text) in EMPTY and self.find(text) is None

    def nearest(self, text: str) -> str:
        """Return a hint for a text that fits no class: the class written most like it."""
        folded = unnumbered(fold(text))
        known = {unnumbered(alias): name for alias, name in self._exact.items()}
        near = difflib.get_close_matches(folded, known, n=1, cutoff=0.5)
        if near:
            return f"{text!r} is no class; the nearest is {known[near[0]]!r}"
        return f"{text!r} is no class, nor like one"
