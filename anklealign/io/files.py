"""Atomic file writes: write to a temporary file, then rename it."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds.

    Raises:
        OSError: The folder is not writable, or the disk is full.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        apply_umask(temporary)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # write errors have no file name
        raise
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a new empty file next to `path`, whose folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    return Path(name)


def apply_umask(temporary: Path) -> None:
    """Give a temporary file, which only its owner may read, the mode of any other new file."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line endings on all platforms."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write indented JSON without sorting keys; raise ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with its column names and without its index."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
