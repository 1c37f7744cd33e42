"""A clone restores a run from the remote, with the outputs that git holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STAGE = """stages:
  train:
    cmd: cp input.txt model.txt && cp input.txt scores.json && echo ran >> log.txt
    deps: [input.txt]
    outs: [model.txt]
    metrics:
      - scores.json: {cache: false}
"""


@pytest.fixture
def run():
    """Return a function that runs a command in a folder and returns what it prints."""
    names = {f"GIT_{role}_NAME": "test" for role in ("AUTHOR", "COMMITTER")}
    names |= {f"GIT_{role}_EMAIL": "test@example.org" for role in ("AUTHOR", "COMMITTER")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def go(folder: Path, *command: str) -> str:
        return subprocess.check_output(
            command, cwd=folder, env=os.environ | names | {"PATH": path}, text=True
        )

    return go


def test_a_clone_restores_a_run_that_is_in_no_commit(run, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "dvc.yaml").write_text(STAGE)
    (first / "input.txt").write_text("1")
    for command in (
        "git init --quiet", "dvc init --quiet", "dvc remote add --quiet --default team ../remote",
        "git add --all", "git commit --quiet --message inputs", "dvc repro --quiet",
        "python -m anklealign push", f"git clone --quiet . {second}",
    ):  # fmt: skip
        output = run(first, *command.split())
    assert (first / "log.txt").exists()
    output = run(second, "dvc", "repro", "--pull")
    assert "Stage 'train' is cached - skipping run, checking out outputs" in output
    assert not (second / "log.txt").exists()
    assert (second / "model.txt").read_text() == (second / "scores.json").read_text() == "1"
