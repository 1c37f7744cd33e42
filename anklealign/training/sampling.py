"""The photos of a fit, in which order an epoch takes them, and how batches are made ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from anklealign.io.pixel_store import Pixels
from anklealign.models.inputs import Floats, Integers

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Photos:
    """Labelled photos: the store, and for each of N photos its row there, its id and its class.

    `soft` (N, K), rows summing to 1, is what annotators said, where a fit is to learn from that
    instead of from one class a photo.
    """

    pixels: Pixels
    rows: Integers
    ids: tuple[str, ...]
    labels: Integers
    soft: Floats | None = None


def epoch_order(labels: Integers, seed: int, epoch: int, *, balanced: bool = False) -> Integers:
    """Return an epoch's photos, shuffled: classes (N,) -> N indices.

    Each photo once; or balanced, every class as often as any other, to one, and within a class
    every photo, to one.
    """
    rng = np.random.default_rng([seed, epoch])
    photos = len(labels)
    if not balanced:
        return rng.permutation(photos)
    classes = np.unique(labels)
    chosen = []
    for share, label in zip(np.array_split(np.arange(photos), len(classes)), classes, strict=True):
        own = np.flatnonzero(labels == label)
        rounds = -(-len(share) // len(own))
        chosen.append(np.concatenate([rng.permutation(own) for _ in range(rounds)])[: len(share)])
    return rng.permutation(np.concatenate(chosen))


def times_seen(order: Integers) -> Integers:
    """Return how often each index stood before: (N,) -> (N,), zeros where none repeats."""
    seen: dict[int, int] = {}
    times = np.zeros(len(order), np.int64)
    for place, index in enumerate(order.tolist()):
        times[place] = seen.get(index, 0)
        seen[index] = seen.get(index, 0) + 1
    return times


def even_parts(photos: int, batch_size: int) -> list[Integers]:
    """Return an epoch's batches as places in its order, in parts of nearly one size.

    Even parts instead of a small last one: batch normalisation needs at least two photos, and a
    batch of two is a poor estimate. So a batch may hold fewer than `batch_size`, and only where
    that leaves a photo alone, one more.
    """
    parts = max(1, min(-(-photos // batch_size), photos // 2))
    return np.array_split(np.arange(photos), parts)


def ahead(make: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """Yield make(item) in order, with up to twice `workers` made ahead in threads.

    With a team of PyTorch's threads for each of them there would be more than cores, and then the
    training step's own fall asleep at each of its barriers: a tenth of its rate.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # First the workers end: one that begins late would set what comes after to one again.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # also what threads yet to come begin with
