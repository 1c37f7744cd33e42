"""Atomic file writes: write to a temporary file, then rename it."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd

# A spreadsheet takes such a cell for a formula, which can read files and open addresses; with an
# apostrophe, it is text (https://owasp.org/www-community/attacks/CSV_Injection).
FORMULA = re.compile(r"'*[=+\-@\t\r]")


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


def apply_umask(temporary: Path, mode: int = 0o666) -> None:
    """Give a temporary file, which only its owner may read, the mode of any other new file.

    That of a folder is 0o777.
    """
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(mode & ~umask)


def walk(folder: Path) -> Iterator[Path]:
    """Yield all paths below a folder but links to folders; folders may be a thousand deep.

    A folder that cannot be opened has none. `Path.rglob` and `os.walk` recurse up to Python 3.12.
    """
    folders = [folder]
    while folders:
        with contextlib.suppress(OSError):
            for path in sorted(folders.pop().iterdir()):
                if path.is_dir():
                    if path.is_symlink():
                        continue
                    folders.append(path)
                yield path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line endings on all platforms."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write indented JSON without sorting keys; raise ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with its column names and without its index.

    Text that a spreadsheet takes for a formula gets an apostrophe, which `read_table` removes.
    """
    safe = table.copy(deep=False)
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            safe[name] = table[name].map(_escape_formula)
    safe.columns = safe.columns.map(_escape_formula)
    write_text(path, safe.to_csv(index=False, lineterminator="\n"))


def read_table(source: Path | IO[bytes], text_columns: Collection[str]) -> pd.DataFrame:
    """Return a table of `write_table`; some columns are read as text, so '007' and 'NA' are kept.

    Raises:
        FileNotFoundError: There is no such file.
    """
    types = dict.fromkeys(text_columns, str)
    table = pd.read_csv(source, dtype=types, keep_default_na=False)
    names = {name: _unescape_formula(name) for name in table}
    table.columns = list(names.values())
    text = [names[name] for name in types if name in names]
    for name in text:
        if table[name].str.startswith("'").any():
            table[name] = table[name].map(_unescape_formula)
    return table


def _escape_formula(value: Any) -> Any:  # noqa: ANN401 - any cell
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _unescape_formula(value: Any) -> Any:  # noqa: ANN401 - any cell
    escaped = isinstance(value, str) and value.startswith("'") and FORMULA.match(value)
    return value[1:] if escaped else value


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
