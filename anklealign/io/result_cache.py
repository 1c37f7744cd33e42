"""Results of functions of one photo, kept between runs, so that a known photo is not work again.

The files lie in .anklealign_cache/, which git and DVC ignore. Deleting the folder is safe: it saves
time and changes no result. A result is found by the hash of the bytes that the function reads, in a
file that is named by the code of the function, the versions of its libraries, and its parameters.
Its checksum covers all of these, so a damaged, truncated, or misplaced entry counts as unknown.

    with ResultCache("quality", {"square": False}, ["anklealign.cleaning.image_quality"],
                     ["numpy", "pillow", "scipy"]) as cache:
        value = cache.get(key)      # bytes or None
        cache.put(key, new_value)

A function whose result depends on other photos, such as on the others of its batch, does not belong
here.
"""

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from anklealign.config import environment, paths
from anklealign.io import imports

# A cache has at most this many bytes in each file; the oldest entries are removed first.
MAX_BYTES = 1 << 30
# Files of a cache: the latest codes and parameters. More are removed, least recently used first.
MAX_FILES = 8
CHECKSUM = 16  # bytes
TABLE = "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
# A damaged file can also have a schema that is no text.
FAILURES = (sqlite3.Error, UnicodeDecodeError)
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
OLDER_HALF = """
DELETE FROM results WHERE rowid <= (SELECT (min(rowid) + max(rowid)) / 2 FROM results)
"""


class ResultCache:
    """A map from hashes to bytes, usable from several threads and processes.

    A pickled cache only reads; what it computes is for the original to keep.
    Without a writable folder, or if its file fails, all results are unknown and none is kept.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        modules: Iterable[str],
        libraries: Iterable[str],
        folder: Path | None = None,
    ) -> None:
        """Open the file of these parameters and this code.

        Args:
            name: Of the cache, for its files.
            parameters: All that the results depend on besides the key, as JSON values.
            modules: Dotted names of the project's modules that compute the results; those that they
                import are followed.
            libraries: Distributions whose versions may change the results.
            folder: Of the files; None for the project's.
        """
        described = {
            "name": name,
            "parameters": dict(parameters),
            "code": imports.code_sha256(tuple(modules)),
            "libraries": environment.installed_versions(libraries),
        }
        self._namespace = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).digest()
        folder = folder or paths.CACHE
        self.path = folder / f"{name}-{self._namespace.hex()[:16]}.sqlite"
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
            self.path.touch()
            _remove_old_files(folder, name)
        except (OSError, *FAILURES):
            self._database = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to read the results."""
        return {
            "path": self.path,
            "_namespace": self._namespace,
            "open": self._database is not None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file, which this process's original has checked, for reading."""
        self.path, self._namespace = state["path"], state["_namespace"]
        self._lock = threading.Lock()
        self._database = None
        if state["open"]:
            with contextlib.suppress(*FAILURES):
                self._database = sqlite3.connect(
                    f"file:{quote(str(self.path))}?mode=ro", timeout=5, check_same_thread=False,
                    uri=True,
                )  # fmt: skip

    def __enter__(self) -> Self:
        """Return the cache."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep all results, also after an error, and close the file."""
        self.commit()
        with self._lock:
            if self._database:
                self._database.close()
                self._database = None

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if it is unknown or damaged."""
        try:
            with self._lock:
                if self._database is None:
                    return None
                cursor = self._database.execute("SELECT value FROM results WHERE key = ?", (key,))
                row = cursor.fetchone()
        except FAILURES:
            self._give_up()
            return None
        if row is None or not isinstance(row[0], bytes):
            return None
        checksum, value = row[0][:CHECKSUM], row[0][CHECKSUM:]
        return value if checksum == self._checksum(key, value) else None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep the value of a key; it is on disk after `commit`."""
        try:
            with self._lock:
                if self._database is not None:
                    self._database.execute(
                        "INSERT OR REPLACE INTO results VALUES (?, ?)",
                        (key, self._checksum(key, value) + value),
                    )
        except FAILURES:
            self._give_up()

    def put_all(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep the values of keys on disk.

        Unlike after many calls of `put`, other processes can read at any time: once the results of
        a transaction no longer fit into SQLite's memory, it locks the file until the end.
        """
        for key, value in values:
            self.put(key, value)
        self.commit()

    def commit(self) -> None:
        """Write the new results, so that they survive an interrupted run."""
        try:
            with self._lock:
                if self._database is not None:
                    self._database.commit()
                    self._shrink(self._database)
        except (OSError, *FAILURES):  # OSError: the file was deleted
            self._give_up()

    def _open(self) -> None:
        for _ in range(2):
            database = sqlite3.connect(self.path, timeout=5, check_same_thread=False)
            try:
                database.execute("PRAGMA synchronous = OFF")  # checksums detect what is lost
                database.execute(TABLE)
                database.execute("SELECT key, value FROM results LIMIT 1")
                if database.execute("PRAGMA quick_check").fetchone() == ("ok",):
                    self._database = database
                    return
                damaged = True
            except FAILURES as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
                damaged = code in DAMAGE
            database.close()
            if not damaged:  # locked by another process, say, or on a full disk
                return
            self.path.unlink(missing_ok=True)

    def _shrink(self, database: sqlite3.Connection) -> None:
        """Remove the older half of the results of a file that is too large."""
        if self.path.stat().st_size > MAX_BYTES:
            database.execute(OLDER_HALF)
            database.commit()
            database.execute("VACUUM")

    def _give_up(self) -> None:
        """Use no cache for the rest of the run."""
        with self._lock:
            database, self._database = self._database, None
            if database:
                database.close()

    def _checksum(self, key: bytes, value: bytes) -> bytes:
        # Each part has a known length, so that no two results have the same bytes here.
        content = self._namespace + len(key).to_bytes(8, "big") + key + value
        return hashlib.sha256(content).digest()[:CHECKSUM]


def key_of(pixels: npt.NDArray[Any], *others: object) -> bytes:
    """Return the key of a result that depends on an array and on other values."""
    described = json.dumps([pixels.shape, pixels.dtype.str, *others])
    content = hashlib.sha256(described.encode() + b"\0")
    content.update(np.ascontiguousarray(pixels).data)
    return content.digest()


def _remove_old_files(folder: Path, name: str) -> None:
    existing = sorted(folder.glob(f"{name}-*.sqlite"), key=lambda path: path.stat().st_mtime_ns)
    for path in existing[:-MAX_FILES]:
        path.unlink(missing_ok=True)
