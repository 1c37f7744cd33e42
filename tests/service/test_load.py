"""A short version of benchmarks/serving.py: 64 clients, no error, and hardly slower than alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import photo

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_64_clients_meet_no_error_and_four_fifths_of_the_predictor_s_speed(
    model_folder: Path, tmp_path: Path
) -> None:
    # As large as a phone's preview: on smaller ones HTTP would cost more than the photo.
    for seed in range(32):
        (tmp_path / f"{seed}.jpg").write_bytes(photo(seed, size=(1280, 960)))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", "--seconds", "16", "--photos", tmp_path],
        cwd=ROOT,
        env={
            "PATH": "",
            "ANKLEALIGN_MODEL": str(model_folder),
            "ANKLEALIGN_EXPORT": str(tmp_path / "none.onnx"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    statuses = re.findall(r"(\d+): \d+", done.stdout.partition("statuses")[2])
    assert statuses, done.stderr
    assert set(statuses) <= {"200", "503"}, done.stdout
    # The ratios are the command's own: medians of turns, and of CPU time.
    assert done.returncode == 0, done.stdout
