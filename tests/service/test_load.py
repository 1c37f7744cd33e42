"""Tests of the service benchmarks: 64 clients without errors, and bounds for hostile files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anklealign.cli.main import main
from tests.service.conftest import photo, save_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_64_clients_get_no_errors_and_80_percent_of_the_predictor_throughput(
    tmp_path: Path,
) -> None:
    # The stored size of the pipeline, so that decoding dominates the cost as in production.
    save_bundle(tmp_path / "model", side=256)
    # ONNX, the usual engine on a CPU after `make export`.
    exported = tmp_path / "model.onnx"
    assert main(["export", "--model", str(tmp_path / "model"), "--out", str(exported)]) == 0
    for seed in range(32):
        (tmp_path / f"{seed}.jpg").write_bytes(photo(seed, size=(1280, 960)))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", "--seconds", "16", "--photos", tmp_path],
        cwd=ROOT,
        env={
            "PATH": "",
            "ANKLEALIGN_MODEL": str(tmp_path / "model"),
            "ANKLEALIGN_EXPORT": str(exported),
            "ANKLEALIGN_ENGINE": "onnx",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    statuses = re.findall(r"(\d+): \d+", done.stdout.partition("statuses")[2])
    assert statuses, done.stderr
    assert set(statuses) <= {"200", "503"}, done.stdout
    # The command itself subtracts the CPU time of other processes.
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc (Linux)")
def test_hostile_uploads_are_refused_within_1_5_gb_and_other_clients_wait_under_a_second(
    tmp_path: Path,
) -> None:
    """`benchmarks.hostile` exits with 1 if a bound does not hold."""
    save_bundle(tmp_path / "model", max_megapixels=80)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hostile"],
        cwd=ROOT,
        env={
            "PATH": "",
            "ANKLEALIGN_MODEL": str(tmp_path / "model"),
            "ANKLEALIGN_EXPORT": str(tmp_path / "none.onnx"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^\|[^|]*\| 4\d\d ", done.stdout, re.MULTILINE)) >= 9, done.stdout
    assert len(re.findall(r"^\|[^|]*\| 200 ", done.stdout, re.MULTILINE)) >= 3, done.stdout
