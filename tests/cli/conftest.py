"""An empty project in which DVC's calls are recorded."""

import shutil
import subprocess
from pathlib import Path

import pytest

from anklealign.cli import add

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dvc_calls(tmp_path, monkeypatch):
    """Enter an empty project below tmp_path; return the arguments of DVC, which is not called."""
    (tmp_path / "project" / ".dvc").mkdir(parents=True)
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "project" / "params.yaml")
    monkeypatch.chdir(tmp_path / "project")
    called = []

    def run(command, **_):
        called.append(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(add.subprocess, "run", run)
    return called
