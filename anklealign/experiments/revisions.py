"""What this project's files held at a git revision, in an experiment or in the workspace, by DVC.

Files in git and outputs in DVC's cache or remote are read alike, and nothing is checked out.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc_data.index import DataIndexDirError
from ruamel.yaml import YAML

from anklealign.io.pixel_store import TEXT_COLUMNS

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Revision:
    """One state of the project: a git revision, an experiment's name, or 'workspace'."""

    name: str
    files: DVCFileSystem

    @classmethod
    def open(cls, name: str) -> "Revision":
        """Find a revision of the repository around the current folder.

        Raises:
            ValueError: There is no such revision or experiment, or no repository.
        """
        try:
            system = DVCFileSystem(".", rev=None if name == WORKSPACE else name)
            _ = system.repo  # resolves the name, which opening alone does not
        except DvcException as error:
            raise ValueError(
                f"revision {name!r} cannot be read ({error}); give a branch, tag, commit, "
                f"experiment (`dvc exp list --all` names them) or {WORKSPACE}"
            ) from None
        return cls(name, system)

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            ValueError: The revision has no such file, or its bytes are in no cache or remote.
        """
        try:
            with self.files.open(path, "rb") as file:
                content: bytes = file.read()
        except FileNotFoundError:
            known = self.files.exists(path)
            raise ValueError(
                self._lost(path)
                if known
                else f"{self.name} has no {path}; it was made before the pipeline wrote one, or "
                "`dvc repro` has not been run there"
            ) from None
        except DataIndexDirError:  # not even the names in its folder are known
            raise ValueError(self._lost(path)) from None
        return content

    def list(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder, in git or in DVC, sorted.

        Raises:
            ValueError: The names in a folder of it are in no cache or remote.
        """
        try:
            found = self.files.find(folder) if self.files.exists(folder) else []
        except DataIndexDirError:
            raise ValueError(self._lost(folder)) from None
        return sorted(path.removeprefix("./").lstrip("/") for path in found)

    def _lost(self, path: str) -> str:
        return (
            f"{path} of {self.name} is in neither DVC's cache nor its remote; fetch it by `dvc "
            "fetch --all-commits`, or push it from where it was made by `dvc push`"
        )

    def table(self, path: str) -> pd.DataFrame:
        """Return a CSV with its text columns as text, so that '007' and 'NA' survive.

        Raises:
            ValueError: It is not there; see `read`.
        """
        content = io.BytesIO(self.read(path))
        return pd.read_csv(content, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False)

    def yaml(self, path: str) -> Mapping[str, Any]:
        """Return a YAML file's content.

        Raises:
            ValueError: It is not there; see `read`.
        """
        content: Mapping[str, Any] = YAML(typ="safe", pure=True).load(self.read(path).decode())
        return content
