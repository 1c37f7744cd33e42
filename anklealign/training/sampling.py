"""Training photos, their order within an epoch, and batches prefetched in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from anklealign.io.pixel_store import Photos
from anklealign.models.input_config import Floats, Integers

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class LabeledPhotos:
    """N labeled photos: the pixel store, and the row, id and class index of each photo.

    `soft` (N, K), rows summing to 1, holds soft labels; they replace the class as training target.
    `folds` (N,) divides training photos for cross-validation, without dividing a group.
    """

    pixels: Photos
    rows: Integers
    ids: tuple[str, ...]
    labels: Integers
    soft: Floats | None = None
    folds: Integers | None = None

    def subset(self, chosen: Integers) -> "LabeledPhotos":
        """Return the photos at these positions (n,)."""
        return LabeledPhotos(
            self.pixels,
            self.rows[chosen],
            tuple(self.ids[position] for position in chosen.tolist()),
            self.labels[chosen],
            None if self.soft is None else self.soft[chosen],
            None if self.folds is None else self.folds[chosen],
        )


def epoch_order(labels: Integers, seed: int, epoch: int, *, balanced: bool = False) -> Integers:
    """Return the shuffled order of an epoch: class indices (N,) -> N photo indices.

    Each photo occurs once. With `balanced`, the counts of any two classes differ by at most one, as
    do those of any two photos of a class.
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


def repeat_index(order: Integers) -> Integers:
    """Return how often each entry occurs earlier in the order: (N,) -> (N,), zeros if unique."""
    counts: dict[int, int] = {}
    repeats = np.zeros(len(order), np.int64)
    for position, index in enumerate(order.tolist()):
        repeats[position] = counts.get(index, 0)
        counts[index] = counts.get(index, 0) + 1
    return repeats


def even_batches(photos: int, batch_size: int) -> list[Integers]:
    """Return the batches of an epoch, as positions in its order, in nearly equal sizes.

    Equal sizes avoid a small last batch: batch normalization needs at least two photos, and two
    give a poor estimate. A batch may therefore hold fewer photos than `batch_size`, and one more
    where a single photo would remain.
    """
    count = max(1, min(-(-photos // batch_size), photos // 2))
    return np.array_split(np.arange(photos), count)


def prefetch(make: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """Yield make(item) in order, computing up to twice `workers` items ahead in threads.

    Each worker is limited to one PyTorch thread. More threads than cores would stall the training
    step at its barriers and cut its rate to a tenth.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    pending: deque[Future[Out]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Stop the workers first: a worker that starts late sets the global thread count to one.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # also the default of threads started later
