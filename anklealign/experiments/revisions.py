"""Read files of a git revision, an experiment or the workspace through DVC.

Reads files in git as well as outputs in the DVC cache or remote. Nothing is checked out.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Any

import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import NotDvcRepoError
from dvc.fs import GitFileSystem
from dvc.repo import Repo
from dvc.scm import NoSCM, RevError, SCMError, resolve_rev
from dvc_data.index import DataIndexDirError
from ruamel.yaml import YAML

from anklealign.config import paths
from anklealign.io import files, results
from anklealign.io.pixel_store import TEXT_COLUMNS

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Revision:
    """A state of the project: a git revision, an experiment or 'workspace'."""

    name: str
    files: DVCFileSystem

    @classmethod
    def open(cls, name: str) -> "Revision":
        """Open a revision of the project that contains the current folder.

        The project may be a subfolder of its git repository. Paths are relative to the project.

        Raises:
            ValueError: The revision, experiment or repository does not exist.
        """
        try:
            project = Repo()
            if name != WORKSPACE:
                project = _at_revision(project, name)
        except NotDvcRepoError as error:
            raise ValueError(f"{name} does not contain this project ({error})") from None
        except RevError as error:
            raise ValueError(
                f"revision {name!r} cannot be read ({error}); give a branch, tag, commit, "
                f"experiment (see `dvc exp list --all`) or {WORKSPACE}"
            ) from None
        except SCMError as error:
            raise ValueError(
                f"revision {name!r} cannot be read ({error}); commit the project to git. Without "
                f"git, after `dvc config --local core.no_scm true`, {WORKSPACE} is the only one"
            ) from None
        return cls(name, DVCFileSystem(project))

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            ValueError: The file is missing in the revision, or its content in the cache and remote.
        """
        try:
            with self.files.open(path, "rb") as file:
                content: bytes = file.read()
        except FileNotFoundError:
            tracked = self.files.exists(path)
            raise ValueError(
                self._not_cached(path)
                if tracked
                else f"{self.name} has no {path}; it is older than this output of the pipeline, or "
                "`dvc repro` has not been run there"
            ) from None
        except DataIndexDirError:  # the listing of its folder is not cached either
            raise ValueError(self._not_cached(path)) from None
        return content

    def list(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder, in git or in DVC, sorted.

        Raises:
            ValueError: The listing of a folder is in no cache or remote.
        """
        try:
            paths = self.files.find(folder) if self.files.exists(folder) else []
        except DataIndexDirError:
            raise ValueError(self._not_cached(folder)) from None
        return sorted(path.removeprefix("./").lstrip("/") for path in paths)

    def _not_cached(self, path: str) -> str:
        return (
            f"{path} of {self.name} is in neither DVC's cache nor its remote; run `dvc fetch "
            "--all-commits`, or `dvc push` on the machine that has it"
        )

    def read_result(self, path: str) -> bytes:
        """Return the bytes of a stage's output, which must be the one in dvc.lock.

        After a failed run or a partial checkout, a file in the workspace can be another run's.

        Raises:
            ValueError: The file cannot be read, see `read`, or it belongs to another run.
        """
        content = self.read(path)
        hashes = {
            out["path"]: out["md5"]
            for stage in self.yaml("dvc.lock")["stages"].values()
            for out in stage["outs"]
        }
        if (
            path in hashes
            and hashes[path] != hashlib.md5(content, usedforsecurity=False).hexdigest()
        ):
            raise ValueError(
                f"{path} of {self.name} is not the one in its dvc.lock, so it belongs to another "
                "run; run `dvc repro`, or `anklealign restore` to restore the committed results"
            )
        return content

    def table(self, path: str) -> pd.DataFrame:
        """Return a CSV output with text columns as strings, so '007' and 'NA' are kept.

        Raises:
            ValueError: The file cannot be read; see `read_result`.
        """
        content = io.BytesIO(self.read_result(path))
        return files.read_table(content, TEXT_COLUMNS)

    def details(self, stage: str) -> dict[str, Any]:
        """Return the details of a stage.

        Raises:
            ValueError: The file cannot be read; see `read_result`.
        """
        path = f"{paths.DETAILS.as_posix()}/{stage}.json"
        return results.parse_details(self.read_result(path), f"{path} of {self.name}")

    def yaml(self, path: str) -> Mapping[str, Any]:
        """Return the content of a YAML file.

        Raises:
            ValueError: The file cannot be read; see `read`.
        """
        content: Mapping[str, Any] = YAML(typ="safe", pure=True).load(self.read(path).decode())
        return content


def _at_revision(project: Repo, name: str) -> Repo:
    """Return a project as it is at a git revision or experiment, with its cache and remote.

    `DVCFileSystem(".", rev=name)` would look for the project in the top folder of its git
    repository only.

    Raises:
        dvc.scm.SCMError: There is no such revision, or no git repository.
        NotDvcRepoError: The revision does not contain the project.
    """
    if isinstance(project.scm, NoSCM):
        raise SCMError(f"{project.root_dir} is used without git")
    remote = project.config["core"].get("remote")
    config = {"remote": {remote: project.config["remote"][remote]}} if remote else None
    folder = os.path.relpath(project.root_dir, project.scm.root_dir)
    root = (PurePosixPath("/") / PurePath(folder).as_posix()).as_posix()
    at_revision = GitFileSystem(scm=project.scm, rev=resolve_rev(project.scm, name))
    return Repo(root, fs=at_revision, scm=project.scm, config=config)
