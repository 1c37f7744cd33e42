"""Data-parallel training in several processes, through torch.distributed.

One process per GPU, or one per few CPU cores; each processes its shard of every batch. `torchrun`
starts them, on one host or several. `exec_torchrun` starts it where train.num_processes is above 1.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, distributed

from anklealign.models.input_config import Integers
from anklealign.models.inputs import pick_device


@dataclass(frozen=True)
class ProcessGroup:
    """The rank of this process, from 0, and the number of processes; by default a single one."""

    rank: int = 0
    size: int = 1

    def shard(self, items: Integers) -> Integers:
        """Return this process's shard of an array that all processes hold: (N,) -> (~N / size,)."""
        return items[self.rank :: self.size]

    def gather(self, shard: Tensor, total: int) -> Tensor:
        """Return the shards of all processes, in the original order: (n, C) -> (N, C)."""
        if self.size == 1:
            return shard
        longest = -(-total // self.size)
        padded = shard.new_zeros((longest, *shard.shape[1:]))
        padded[: len(shard)] = shard
        shards = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(shards, padded.contiguous())
        return torch.stack(shards, 1).flatten(0, 1)[:total]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of every process with those of rank 0."""
        for tensor in tensors if self.size > 1 else ():
            distributed.broadcast(tensor, 0)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def exec_torchrun(module: str, count: int) -> NoReturn:
    """Replace this process by torchrun, which runs a module in `count` processes on this machine.

    torchrun keeps the process id, so that signals and `wait` reach it.
    """
    # torchrun's default of one thread per process would leave cores idle.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, f"--nproc-per-node={count}", "-m", module])  # noqa: S606


@contextmanager
def join_process_group(device_name: str) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Connect to the processes that torchrun started, if any; yield the group and the device.

    Raises:
        ValueError: There are fewer GPUs than processes.
    """
    if not started_by_torchrun():
        yield ProcessGroup(), pick_device(device_name)
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    local_processes = int(os.environ["LOCAL_WORLD_SIZE"])
    device = pick_device(device_name)
    if device.type == "cuda":
        if local_processes > torch.cuda.device_count():
            raise ValueError(
                f"train.num_processes: {local_processes} processes need one GPU each, but this "
                f"machine has {torch.cuda.device_count()}; lower it, or set train.device: cpu"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
