"""A stage's end: done is 0, a known error one helpful line and 1, a bug its traceback."""

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


def test_a_stage_that_ends_well_exits_0():
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: None)
    assert end.value.code == 0


@pytest.mark.parametrize("error", [ValueError("no group"), FileNotFoundError(2, "gone", "a.csv")])
def test_a_known_error_is_one_line_with_the_way_back(capsys, error):
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: fail(error))
    assert end.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"split: {error}"
    assert "git checkout metrics plots && dvc checkout" in said[1]


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        stage.run("split", lambda: fail(ZeroDivisionError()))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_stage_says_so_by_its_status_and_leaves_no_half_file(
    tmp_path, number, status
):
    code = """
import time
from pathlib import Path
from anklealign import files, stage

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


def test_a_full_disk_says_what_to_do(capsys):
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: fail(OSError(errno.ENOSPC, "No space left on device", "x")))
    assert end.value.code == 1
    assert "No space left on device: 'x'; free some space (`dvc gc" in capsys.readouterr().err


def test_every_bar_is_for_a_terminal_and_leaves_log_files_alone():
    bars = 0
    for folder in ("anklealign", "stages", "service", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm":
                    bars += 1
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    where = f"{path}:{node.lineno}: give it disable=None"
                    # tqdm takes None for: no bar where stderr is no terminal.
                    assert given.get("disable", "").rpartition(" ")[2] == "None", where
    assert bars > 30
