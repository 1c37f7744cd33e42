"""Test stage exit statuses: 0 on success, 1 on a known error, a traceback on a bug."""

import ast
import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anklealign.config import stage

ROOT = Path(__file__).resolve().parents[2]


def fail(error: Exception) -> None:
    raise error


def test_successful_stage_exits_with_0():
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: None)
    assert end.value.code == 0


@pytest.mark.parametrize("error", [ValueError("no group"), FileNotFoundError(2, "gone", "a.csv")])
def test_known_error_prints_message_and_restore_command(capsys, error):
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: fail(error))
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"split: {error}"
    assert "anklealign restore" in lines[1]


def test_unexpected_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        stage.run("split", lambda: fail(ZeroDivisionError()))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_stage_exits_with_signal_status_and_leaves_no_partial_file(
    tmp_path, number, status
):
    code = """
import time
from pathlib import Path
from anklealign.config import stage
from anklealign.io import files

def main():
    with files.replacing(Path("out.bin")) as temporary:
        temporary.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)

stage.run("split", main)
"""
    running = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with running:
        assert running.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        running.send_signal(number)
    assert running.returncode == status
    assert list(tmp_path.iterdir()) == []


def test_full_disk_error_suggests_freeing_space(capsys):
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: fail(OSError(errno.ENOSPC, "No space left on device", "x")))
    assert end.value.code == 1
    assert "No space left on device: 'x'; free disk space (`dvc gc" in capsys.readouterr().err


def test_progress_bars_are_disabled_without_a_terminal():
    bars = 0
    for folder in ("anklealign", "stages", "service", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm":
                    bars += 1
                    arguments = {
                        keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords
                    }
                    where = f"{path}:{node.lineno}: pass disable=None"
                    # disable=None hides the bar when stderr is not a terminal.
                    assert arguments.get("disable", "").rpartition(" ")[2] == "None", where
    assert bars > 30
