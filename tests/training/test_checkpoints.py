"""A checkpoint is written atomically, restored exactly, and belongs to one run."""

import errno
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anklealign.cli import sync_deps
from anklealign.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]
STATE = {
    "learner": {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)},
    "optimizer": {0: {"step": 3, "moments": [torch.ones(2), torch.zeros(2)]}, 1: {}},
    "best_score": math.inf,
    "best_rank": (-0.1, 0.2),
    "name": "x",
    "none": None,
}


def test_a_state_is_restored_bit_by_bit(tmp_path: Path) -> None:
    odd = torch.tensor([0.1, -0.0, math.nan, math.inf, 1e-45])
    path = tmp_path / "deep" / "state.pt"
    checkpoints.save(path, STATE | {"odd": odd, "half": odd.bfloat16()})
    found = checkpoints.load(path)
    assert found["odd"].numpy().tobytes() == odd.numpy().tobytes()
    assert found["half"].view(torch.int16).equal(odd.bfloat16().view(torch.int16))
    assert found["learner"]["weight"].equal(STATE["learner"]["weight"])
    assert found["learner"]["steps"].shape == ()
    assert found["optimizer"][0]["step"] == 3
    assert found["optimizer"][0]["moments"][0].equal(torch.ones(2))
    assert found["optimizer"][1] == {}
    assert found["best_score"] == math.inf
    assert found["best_rank"] == (-0.1, 0.2)
    assert found["none"] is None


def test_shared_and_strided_tensors_keep_values_and_layout(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    checkpoints.save(tmp_path / "state", {"a": weight, "b": weight, "c": weight[1:, 1]})
    found = checkpoints.load(tmp_path / "state")
    assert found["a"].equal(weight)
    assert found["a"].stride() == weight.stride()
    assert found["b"].equal(weight)
    assert found["c"].equal(weight[1:, 1])


def test_a_missing_file_is_none_and_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    half = tmp_path / ".state.pt.x1.pt"
    half.write_bytes(b"half")
    assert checkpoints.load(path) is None
    assert not half.exists()


def test_a_leftover_that_another_process_removed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter([tmp_path / ".state.pt.gone"]))
    assert checkpoints.load(tmp_path / "state.pt") is None


def test_a_damaged_file_is_an_error_with_remedy(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    checkpoints.save(path, STATE)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"state\.pt is damaged .*remove it"):
        checkpoints.load(path)


def test_a_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.pt"
    checkpoints.save(path, STATE)
    before = path.read_bytes()

    def full(self: Path, data: memoryview) -> int:
        with self.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_bytes", full)
        checkpoints.save(path, STATE | {"name": "y"})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_path_depends_on_inputs_and_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = checkpoints.path_for({"seed": 1, "params": {"lr": 0.1}})
    assert first == checkpoints.path_for({"params": {"lr": 0.1}, "seed": 1})
    assert first != checkpoints.path_for({"seed": 1, "params": {"lr": 0.2}})
    code = checkpoints._code_hashes()
    assert "anklealign/training/checkpoints.py" in code
    monkeypatch.setattr(
        checkpoints, "_code_hashes", lambda: code | {"anklealign/training/losses.py": "other"}
    )
    assert first != checkpoints.path_for({"seed": 1, "params": {"lr": 0.1}})


def test_a_change_in_any_module_of_the_stage_gives_another_checkpoint(tmp_path: Path) -> None:
    """A run must never resume from a checkpoint that other code has written."""
    for package in ("anklealign", "stages"):
        shutil.copytree(ROOT / package, tmp_path / package)
    modules = sorted(sync_deps.closure(tmp_path, tmp_path / "stages/train.py"))
    code = """if True:
        import sys
        import stages.train
        from anklealign.training import checkpoints
        print(checkpoints.path_for({}))
        for name in sys.argv[1:]:
            with open(name, "a") as file:
                file.write("# changed")
            print(checkpoints.path_for({}))
    """
    command = [sys.executable, "-c", code, *map(str, modules)]
    printed = subprocess.check_output(command, cwd=tmp_path, text=True).split()
    assert len(modules) > 15
    assert len(set(printed)) == len(modules) + 1
