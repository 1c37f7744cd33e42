"""Shards of processes are disjoint and complete. Real processes: tests/stages/test_train.py."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import distributed as dist

from anklealign.training import distributed
from anklealign.training.distributed import ProcessGroup


@pytest.mark.parametrize(("total", "size"), [(11, 2), (8, 4), (2, 3)])
def test_shards_are_disjoint_complete_and_gathered_in_order(
    monkeypatch: pytest.MonkeyPatch, total: int, size: int
) -> None:
    items = np.arange(total)
    shards = [ProcessGroup(rank, size).shard(items) for rank in range(size)]
    assert sorted(np.concatenate(shards)) == items.tolist()
    assert max(map(len, shards)) - min(map(len, shards)) <= 1

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        for part, shard in zip(parts, shards, strict=True):
            part[: len(shard)] = torch.from_numpy(shard)[:, None].float()
            assert part.shape == own.shape

    monkeypatch.setattr(dist, "all_gather", all_gather)
    own = torch.from_numpy(shards[0])[:, None].float()
    assert ProcessGroup(0, size).gather(own, total)[:, 0].tolist() == items.tolist()


def test_a_single_process_does_not_communicate() -> None:
    alone = torch.arange(3.0)
    assert ProcessGroup().gather(alone, 3) is alone
    assert ProcessGroup().all_reduce(alone) is alone
    with distributed.join_process_group("cpu") as (group, device):
        assert group == ProcessGroup()
        assert device == torch.device("cpu")


def test_more_processes_than_gpus_is_an_error_with_both_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(
            ValueError, match=r"2 processes need one GPU each, .* has 1; lower it, or set"
        ),
        distributed.join_process_group("cuda"),
    ):
        pass


def test_torchrun_replaces_this_process_and_divides_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    monkeypatch.setattr(os, "execv", lambda path, command: called.append((path, command)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    distributed.exec_torchrun("stages.train", 4)
    ((path, command),) = called
    assert path == sys.executable
    assert command[1:] == [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "stages.train",
    ]  # fmt: skip
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.delenv("OMP_NUM_THREADS")
