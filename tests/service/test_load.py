"""The benchmarks of the service: 64 clients meet no error, bad and huge files cost little."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anklealign.cli import export
from tests.service.conftest import photo, save_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_64_clients_meet_no_error_and_four_fifths_of_the_predictor_s_speed(
    tmp_path: Path,
) -> None:
    # A store as large as the pipeline's: what a photo costs is mostly its decoding, as it is there.
    save_bundle(tmp_path / "model", side=256)
    # ONNX, as on any CPU after `make export`.
    exported = tmp_path / "model.onnx"
    assert export.main(["--model", str(tmp_path / "model"), "--out", str(exported)]) == 0
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
    # What other programs use of the cores is taken off by the command itself.
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
def test_bad_files_are_refused_at_once_and_two_of_80_megapixels_fit_into_2_5_gb(
    tmp_path: Path,
) -> None:
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
    assert len(re.findall(r"\| 4\d\d ", done.stdout)) == 5, done.stdout
    assert len(re.findall(r"\| 200 ", done.stdout)) == 3, done.stdout
