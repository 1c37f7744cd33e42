"""Photos in files, folders, lists and at addresses, one at a time, so that a million fit in memory.

A folder takes the names of one directory at a time, about 80 bytes each. A list is a text file with
the extension .txt and a path or an address in each line; a path is relative to the current folder,
as `find` prints it. An address is what DVC reads (https://, s3://, gs://, azure://, ssh://, ...):
of a photo, of a list, or of a folder, whose names are listed before the first photo is read.
"""

import heapq
import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from anklealign.cli.download import FILES_ONLY, check_scheme, is_address
from anklealign.io import decode

LIST = ".txt"


def photos_in(sources: Iterable[str]) -> Iterator[str]:
    """Yield the photos of files and folders, sorted and without repeats, then those of the others.

    A file named explicitly is always included, as are missing paths and broken links, which are
    then unreadable. In folders, hidden files are ignored, and so are files that are no photo by
    their first bytes or suffix, such as a CSV next to the photos. Lists and addresses of folders
    follow in the order given, a list with the order and the repeats of its lines.

    Raises:
        ValueError: There is no photo, or an address cannot be listed.
        OSError: A list cannot be read.
    """
    sources = list(sources)
    listed = [name for name in sources if is_address(name) or name.endswith(LIST)]
    below = [
        photos_below(Path(name)) if Path(name).is_dir() else iter([Path(name)])
        for name in sources
        if name not in listed
    ]
    empty = True
    for path, _ in groupby(heapq.merge(*below)):
        empty = False
        yield str(path)
    for name in listed:
        for photo in _photos_at(name) if is_address(name) else _lines(name):
            empty = False
            yield photo
    if empty:
        raise ValueError(
            f"no photo in {', '.join(sources)}; name a photo, a folder, a list of paths (.txt), or "
            "an address"
        )


def photos_below(folder: Path) -> Iterator[Path]:
    """Yield the photos below a folder in order of path; folders may be a thousand deep.

    Links to folders are not followed. A folder that cannot be opened has no photo.
    """
    pending = [_names(folder)]
    while pending:
        path = next(pending[-1], None)
        if path is None:
            pending.pop()
        elif path.is_dir():
            if not path.is_symlink():
                pending.append(_names(path))
        elif (path.is_file() or not path.exists()) and _looks_like_photo(path):
            yield path


def _names(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208 - a name takes a third of a path
    except OSError:
        names = []
    return (folder / name for name in names)


def _looks_like_photo(path: Path) -> bool:
    if path.suffix.lower() in decode.PHOTO_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return decode.is_photo(stream.read(decode.HEAD))
    except OSError:
        return False


def _lines(name: str) -> Iterator[str]:
    with open(name, encoding="utf-8", errors="surrogateescape") as stream:  # noqa: PTH123
        yield from filter(None, (line.strip() for line in stream))


def _photos_at(address: str) -> Iterator[str]:
    """Yield the addresses of the photos at an address.

    Raises:
        ValueError: It cannot be listed, or its scheme is not supported.
    """
    suffix = PurePosixPath(urlsplit(address).path).suffix.lower()
    try:
        system, path = file_system(address)
        if suffix == LIST:
            with system.open(path, mode="r", encoding="utf-8") as stream:
                yield from filter(None, (line.strip() for line in stream))
        elif urlsplit(address).scheme in FILES_ONLY or not system.isdir(path):
            yield address
        else:
            for name in sorted(system.find(path)):
                if PurePosixPath(name).suffix.lower() in decode.PHOTO_SUFFIXES:
                    yield system.unstrip_protocol(name)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own
        raise ValueError(f"{address} cannot be listed: {_reason(error)}") from None


def file_system(address: str) -> tuple[Any, str]:
    """Return DVC's file system of an address, and the path in it.

    Raises:
        ValueError: The scheme is unknown, or its package is not installed.
    """
    from dvc.fs import parse_external_url  # noqa: PLC0415 - takes half a second

    check_scheme(address, urlsplit(address).scheme.casefold())
    system, path = parse_external_url(address)
    return system, path


def read_photo(address: str, max_megapixels: float) -> bytes:
    """Return the bytes of a photo at an address, or one more than a photo can have.

    Raises:
        PhotoError: It cannot be read, or is empty.
    """
    try:
        system, path = file_system(address)
        with system.open(path, mode="rb") as stream:
            data: bytes = stream.read(decode.most_bytes(max_megapixels) + 1)
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own
        raise decode.PhotoError("cannot_open", _reason(error)) from None
    if not data:
        raise decode.PhotoError("zero_bytes", "the file has 0 bytes")
    return data


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
