"""Several processes that fit one network together, by PyTorch's own engine.

One process a GPU, or one a few CPU cores, each with its share of every batch. `torchrun` starts
them, here or on several hosts; this module starts it where params.yaml asks for more than one.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, distributed

from anklealign.models.inputs import Integers, pick_device


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, from 0; alone where nobody started others."""

    rank: int = 0
    size: int = 1

    def share(self, items: Integers) -> Integers:
        """Return this process's part of something that all have: (N,) -> about (N / size,)."""
        return items[self.rank :: self.size]

    def gather(self, own: Tensor, total: int) -> Tensor:
        """Return all from each process's share, in the order before sharing: (n, C) -> (N, C)."""
        if self.size == 1:
            return own
        longest = -(-total // self.size)
        padded = own.new_zeros((longest, *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)[:total]

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite each process's tensors by the first's."""
        for tensor in tensors if self.size > 1 else ():
            distributed.broadcast(tensor, 0)

    def add(self, own: Tensor) -> Tensor:
        """Return the sum over the processes."""
        if self.size > 1:
            distributed.all_reduce(own)
        return own


def launched() -> bool:
    """Tell whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(module: str, count: int) -> NoReturn:
    """Become torchrun, which runs a module in several processes on this machine.

    In place of this process, so that who waits for it or stops it reaches torchrun.
    """
    # torchrun's default of one thread each would leave cores idle.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, f"--nproc-per-node={count}", "-m", module])  # noqa: S606


@contextmanager
def joined(device: str) -> Iterator[tuple[World, torch.device]]:
    """Meet the other processes that torchrun started, if any; yield who this is and its device.

    Raises:
        ValueError: There are fewer GPUs than processes.
    """
    if not launched():
        yield World(), pick_device(device)
        return
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    chosen = pick_device(device)
    if chosen.type == "cuda":
        if here > torch.cuda.device_count():
            raise ValueError(
                f"train.processes: {here} processes want a GPU each, and this machine has "
                f"{torch.cuda.device_count()}; lower it, or set train.device: cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size()), chosen
    finally:
        distributed.destroy_process_group()
