"""The photo addresses in a Label Studio task, decoded to paths that can be matched with files.

A task names its photo in `file_upload` and in one or more keys of `data`, as a path, a web address,
or the address of a storage proxy whose query holds the path: `?d=` (local storage), `?filepath=`
(uploads) and `?fileuri=` (cloud storage, as text or in base64, standard or URL-safe).
"""

import base64
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from anklealign.ingest.inventory import suffix
from anklealign.io.decode import PHOTO_SUFFIXES

# Suffixes of imported task files. `file_upload` names such a file if tasks were imported from it.
TASK_FILES = {".json", ".jsonl", ".csv", ".tsv", ".txt", ".xml"}
LONGEST = 4096  # characters of an address


@dataclass(frozen=True)
class PhotoAddress:
    """One photo that a task names: the key of the task's data, and the decoded paths."""

    key: str
    paths: tuple[str, ...]


def photo_addresses(data: Mapping[str, Any], *, names: bool) -> list[PhotoAddress]:
    """Return the addresses in the values of a task's data.

    If `names` is true, a value without a folder or scheme is also an address, unless it names the
    file from which the tasks were imported.
    """
    addresses: list[PhotoAddress] = []
    for key, value in data.items():
        for text in texts_in(value):
            if len(text) > LONGEST or "\n" in text.strip():
                continue
            is_address = "/" in text and ("://" in text or text.startswith(("/", "upload/")))
            paths = []
            for path in _paths(text.strip()):
                kind = suffix(path.rpartition("/")[2])
                if kind not in TASK_FILES and (names or is_address or kind in PHOTO_SUFFIXES):
                    paths.append(path)
            if paths:
                addresses.append(PhotoAddress(key, tuple(paths)))
    return addresses


def own_paths(
    tasks: Sequence[Sequence[PhotoAddress]], shown: Sequence[Collection[str]]
) -> list[list[str]]:
    """Return the paths of the photo of each task, for tasks that may name several photos.

    A reference image is named by many tasks and the photo by the fewest. If several are left, the
    one in the data key that bears the name of the labeled object is the photo.

    Args:
        tasks: The addresses in each task.
        shown: For each task, the names of the objects that its answers label (to_name).
    """
    uses = Counter(path for task in tasks for path in {p for each in task for p in each.paths})
    chosen: list[list[str]] = []
    for addresses, names in zip(tasks, shown, strict=True):
        photos = _by_name(addresses)
        counts = [max(uses[path] for each in photo for path in each.paths) for photo in photos]
        least = min(counts, default=0)
        fewest = [photo for photo, count in zip(photos, counts, strict=True) if count == least]
        labeled = [photo for photo in fewest if any(each.key in names for each in photo)]
        if len(fewest) > 1 and len(labeled) == 1:
            fewest = labeled
        chosen.append(sorted({path for photo in fewest for each in photo for path in each.paths}))
    return chosen


def _by_name(addresses: Sequence[PhotoAddress]) -> list[list[PhotoAddress]]:
    """Group addresses with the same file name: file_upload and data name the same photo."""
    groups: list[tuple[set[str], list[PhotoAddress]]] = []
    for address in addresses:
        names = {path.rpartition("/")[2] for path in address.paths}
        same = [group for group in groups if group[0] & names]
        for group in same:
            groups.remove(group)
        merged = [each for group in same for each in group[1]]
        groups.append((names.union(*(group[0] for group in same)), [*merged, address]))
    return [group for _, group in groups]


def like_address(text: str) -> bool:
    """Return whether a text may be a photo's address."""
    return "/" in text or suffix(text) in PHOTO_SUFFIXES


def texts_in(value: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    """Return the non-blank strings in a value, a list, or a list of lists."""
    values = value if isinstance(value, list) else [value]
    flat = (item for each in values for item in (each if isinstance(each, list) else [each]))
    return [text for text in flat if isinstance(text, str) and text.strip()]


def _paths(address: str) -> list[str]:
    """Return the path in an address, both unchanged and percent-decoded."""
    address = address.replace("\\", "/")
    paths = [address]
    if "://" in address or address.startswith("/"):
        try:
            parts = urlsplit(address)
            query = parse_qs(parts.query)
        except ValueError:
            return paths
        # The URL query contains the path of files from local storage or the file proxy.
        inner = query.get("d") or query.get("filepath")
        if inner:
            # A plus sign is a space in an encoded query, but a literal plus in an unencoded one.
            raw = unquote(parts.query.partition("=")[2])
            return [path for each in dict.fromkeys([inner[0], raw]) for path in _paths(each)]
        if query.get("fileuri"):
            uri = _decoded_uri(query["fileuri"][0])
            return paths if uri is None else _paths(uri)
        paths = [re.sub(r"^[a-z][a-z0-9+.-]*://", "", address, flags=re.IGNORECASE)]
        paths.append(parts.path or paths[0])
    paths += [unquote(path) for path in paths]
    return list(dict.fromkeys(path.strip("/") for path in paths if path.strip("/")))


def _decoded_uri(text: str) -> str | None:
    """Return the URI in a `fileuri` query, or None if it cannot be decoded.

    Releases differ in the alphabet (`+/` or `-_`) and in the padding, and a plus sign that is not
    percent-encoded reads as a space.
    """
    if "://" in text:
        return text
    standard = text.replace(" ", "+").translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except ValueError:  # binascii.Error and UnicodeError are ValueErrors
        return None
