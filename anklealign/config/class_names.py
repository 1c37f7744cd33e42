"""Class name matching that ignores case, accents, leading numbering and Unicode form.

`1_Pronáció`, `1. PRONACIO` and `pronáció` are the same label. A label that matches no class is
never assigned to one; the closest class name is reported only as a hint for correcting the data.
"""

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence

# Values that spreadsheets and pandas write for an empty cell.
EMPTY = {"", "nan", "na", "n/a", "<na>", "null", "none", "-"}


def fold(text: str) -> str:
    """Normalize case, accents, Unicode form and whitespace.

    Underscores are treated as spaces. A trailing `.0` of a number is removed, because pandas
    writes integers as floats in columns with empty cells.
    """
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
    words = " ".join(plain.replace("_", " ").split())
    return re.sub(r"^(\d+)\.0+$", r"\1", words)


def unnumbered(folded: str) -> str:
    """Return a folded text without its leading number."""
    # A separator is required, so that '3d' is not parsed as class number 3, 'd'.
    return re.sub(r"^\d+[\s.):-]+(?=[^\W\d])", "", folded)


def _literal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _differ_by_case(one: str, other: str) -> bool:
    return (
        _literal(one) != _literal(other) and _literal(one).casefold() == _literal(other).casefold()
    )


class Labels:
    """Map label texts to the classes of a dataset, using their names and aliases.

    Class names may differ by case alone (the letters a and A); then case counts for them.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Initialize from the aliases of each class. A class name is always its own alias.

        Raises:
            ValueError: Two classes share a name or an alias.
        """
        self._exact: dict[str, str] = {}
        self._literal = {_literal(name): name for name in classes}
        by_case: set[str] = set()  # folded names that only their case distinguishes
        # Numbers distinguish classes only if their names are otherwise equal (1_left, 2_left).
        short: dict[str, dict[str, tuple[str, str]]] = {}  # name -> number -> (class, alias)
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
                    if not other or other[0] == name:
                        continue
                    if {alias, other[1]} <= classes.keys() and _differ_by_case(alias, other[1]):
                        by_case |= {folded, word}
                    else:
                        raise ValueError(
                            f"classes: {alias!r} means {name!r}, but {other[1]!r} is an alias of "
                            f"{other[0]!r} (case, accents and leading numbers are ignored); "
                            "remove it from one of them"
                        )
                numbers[number] = name, alias
        meant = {word: {name for name, _ in by.values()} for word, by in short.items()}
        self._unnumbered = {word: min(names) for word, names in meant.items() if len(names) == 1}
        for word in by_case:
            self._exact.pop(word, None)
            self._unnumbered.pop(word, None)

    def class_of(self, text: str) -> str | None:
        """Return the class that matches the text, or None if there is no match."""
        literal = self._literal.get(_literal(text))
        if literal is not None:
            return literal
        folded = fold(text)
        exact = self._exact.get(folded)
        return exact if exact is not None else self._unnumbered.get(unnumbered(folded))

    def is_empty(self, text: str) -> bool:
        """Return whether the text denotes a missing value and is not a class name."""
        return fold(text) in EMPTY and self.class_of(text) is None

    def suggest(self, text: str) -> str:
        """Return a hint with the closest class name for a text that matches no class."""
        folded = unnumbered(fold(text))
        known = {unnumbered(alias): name for alias, name in self._exact.items()}
        near = difflib.get_close_matches(folded, known, n=1, cutoff=0.5)
        if near:
            return f"{text!r} is not a class; the closest class is {known[near[0]]!r}"
        return f"{text!r} is not a class, and no class name is similar"
