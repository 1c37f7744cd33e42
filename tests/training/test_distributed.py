"""Shares of processes are parts of one whole. Real processes: tests/stages/test_train.py."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import distributed as dist

from anklealign.training import distributed
from anklealign.training.distributed import World


@pytest.mark.parametrize(("total", "size"), [(11, 2), (8, 4), (2, 3)])
def test_shares_are_disjoint_complete_and_gathered_in_order(
    monkeypatch: pytest.MonkeyPatch, total: int, size: int
) -> None:
    items = np.arange(total)
    shares = [World(rank, size).share(items) for rank in range(size)]
    assert sorted(np.concatenate(shares)) == items.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        for part, share in zip(parts, shares, strict=True):
            part[: len(share)] = torch.from_numpy(share)[:, None].float()
            assert part.shape == own.shape

    monkeypatch.setattr(dist, "all_gather", all_gather)
    own = torch.from_numpy(shares[0])[:, None].float()
    assert World(0, size).gather(own, total)[:, 0].tolist() == items.tolist()


def test_one_process_alone_shares_with_nobody() -> None:
    alone = torch.arange(3.0)
    assert World().gather(alone, 3) is alone
    assert World().add(alone) is alone
    with distributed.joined("cpu") as (world, device):
        assert world == World()
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
        pytest.raises(ValueError, match=r"2 processes want a GPU each, .* has 1; lower it, or set"),
        distributed.joined("cuda"),
    ):
        pass


def test_torchrun_takes_this_process_s_place_with_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    monkeypatch.setattr(os, "execv", lambda path, command: called.append((path, command)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    distributed.launch("stages.train", 4)
    ((path, command),) = called
    assert path == sys.executable
    assert command[1:] == [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "stages.train",
    ]  # fmt: skip
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.delenv("OMP_NUM_THREADS")
