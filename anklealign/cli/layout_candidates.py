"""What a folder looks like in one layout, with the evidence for it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anklealign.ingest.inventory import escape_unprintable


@dataclass(frozen=True)
class LayoutCandidate:
    """The result of reading a folder with one layout.

    Attributes:
        layout: A key of `layouts.LAYOUTS`.
        summary: What was read, in one line.
        texts: Number of photos, answers or rows of each label.
        keys: Keys of the dataset config that this layout needs.
        remarks: Lines of the report: competing readings, ignored columns and files.
        doubt: Why the layout is chosen only if the user requests it, or ''.
        question: What the user must decide before the layout can be read, with the options that
            decide, or ''.
        labels: Label of each photo, if the layout reads them photo by photo.
        splits: Predefined split of each photo that has one by a table.
        named: Columns of a table are named like labels, one per class, or votes.
    """

    layout: str
    summary: str
    texts: Counter[str]
    keys: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    doubt: str = ""
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    named: bool = False


@dataclass(frozen=True)
class LayoutCandidates:
    """All layouts that can read a folder, and remarks on files that no layout can read.

    Attributes:
        readings: What each layout reads.
        remarks: Lines of the report.
        photos: Number of photos.
        convert: What other tools' label files there are and the command that reads them, or ''.
    """

    readings: tuple[LayoutCandidate, ...]
    remarks: tuple[str, ...]
    photos: int = 0
    convert: str = ""


def preview(texts: Counter[str], longest: int = 6) -> str:
    """Return the most frequent texts, separated by commas."""
    names = [escape_unprintable(name) for name, _ in texts.most_common(longest)]
    return ", ".join(names) + (", …" if len(texts) > longest else "")
