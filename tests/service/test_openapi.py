"""Tests that the service conforms to its OpenAPI document, with schemathesis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anklealign.io import decode
from service.problems import PHOTO_STATUS
from service.routes import UPLOAD_PROBLEMS
from tests.service.conftest import Served

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_schemathesis_finds_no_issues(service: Served, tmp_path: Path) -> None:
    """Run all checks: status, content type and schema of responses, rejection of bad input."""
    command = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [command, "run", f"http://127.0.0.1:{service.port}/openapi.json", "--checks", "all",
         "--max-examples", "40", "--seed", "1", "--no-color"],
        cwd=tmp_path,
        env=os.environ
        | {"SCHEMATHESIS_HOOKS": "tests.service.photo_strategies", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[:4000]
    assert "No issues found" in done.stdout, done.stdout[:4000]


def test_every_reason_of_a_refused_photo_has_a_status() -> None:
    # "cannot_open" is about files on disk.
    assert set(PHOTO_STATUS) == set(decode.REASONS) - {"cannot_open"}
    assert set(PHOTO_STATUS) <= set(UPLOAD_PROBLEMS)
