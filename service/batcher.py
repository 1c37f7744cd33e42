"""Photos in, answers out, off the event loop: decoded by threads, answered in small batches.

A request that waits for the network joins those that wait with it: while one batch is worked on,
the next one fills. Nothing waits for a batch to become full.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from anklealign.batches import CHUNK
from anklealign.images import PhotoError
from anklealign.predictor import Opened, Predictor
from service.problems import ProblemError, busy

Floats = npt.NDArray[np.float64]
T = TypeVar("T")

# Seconds after which a waiting photo means that the network is stuck and not merely busy.
STUCK = 30.0


class Batcher:
    """A predictor behind a bounded queue.

    Attributes:
        waiting: Photos in the house: waiting to be decoded or answered, or worked on.
    """

    def __init__(
        self, predictor: Predictor, threads: int, queue: int, watch: Callable[[int], None]
    ) -> None:
        """Prepare the threads; `watch` is told the size of each batch."""
        self.predictor = predictor
        self.waiting = 0
        self._queue = queue
        self._watch = watch
        self._decoding = asyncio.Semaphore(threads)
        self._decoders = ThreadPoolExecutor(threads, "decode")
        # One: the libraries below use all cores for one batch.
        self._network = ThreadPoolExecutor(1, "network")
        self._ready: deque[tuple[Opened, asyncio.Future[Floats]]] = deque()
        self._came = asyncio.Event()
        self._busy_since: float | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer as long as the block lasts, after a first batch that warms the network up."""
        side = self.predictor.bundle.preparation.size
        await self._in_network(self.predictor.probabilities, np.zeros((1, side, side, 3), np.uint8))
        worker = asyncio.create_task(self._work())
        try:
            yield
        finally:
            worker.cancel()
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._network.shutdown(wait=False, cancel_futures=True)

    @property
    def stuck(self) -> bool:
        """Tell whether one piece of the network's work has taken far too long."""
        since = self._busy_since
        return since is not None and asyncio.get_running_loop().time() - since > STUCK

    def check(self) -> None:
        """Refuse early, before a body is received.

        Raises:
            ProblemError: The queue is full.
        """
        if self.waiting >= self._queue:
            raise busy(f"{self.waiting} photos are waiting")

    async def answer(
        self, photos: Sequence[bytes], gone: Callable[[], Awaitable[bool]]
    ) -> tuple[list[Opened], Floats]:
        """Return N photos as opened, and their (N, K) probabilities.

        Args:
            photos: The bytes of each photo's file.
            gone: Tells whether whoever asked has left; then nothing more is done for them.

        Raises:
            ProblemError: The queue is full, or a photo is refused; nothing is answered then.
        """
        # More photos than the queue is long are let in when nobody waits: otherwise never.
        if self.waiting and self.waiting + len(photos) > self._queue:
            raise busy(f"{self.waiting} photos are waiting")
        self.waiting += len(photos)
        try:
            found = await asyncio.gather(
                *(self._one(data, number, gone) for number, data in enumerate(photos, 1)),
                return_exceptions=True,
            )
        finally:
            self.waiting -= len(photos)
        answers = []
        for answer in found:
            if isinstance(answer, BaseException):  # of several, the first photo's
                raise answer
            answers.append(answer)
        return [opened for opened, _ in answers], np.stack([row for _, row in answers])

    async def _one(
        self, data: bytes, number: int, gone: Callable[[], Awaitable[bool]]
    ) -> tuple[Opened, Floats]:
        loop = asyncio.get_running_loop()
        async with self._decoding:
            if await gone():
                raise ProblemError("bad_request", "the sender left before the answer")
            try:
                opened = await loop.run_in_executor(self._decoders, self.predictor.open, data)
            except PhotoError as error:
                raise ProblemError(error.reason, str(error), number) from None
        future: asyncio.Future[Floats] = loop.create_future()
        self._ready.append((opened, future))
        self._came.set()
        return opened, await future

    async def _work(self) -> None:
        while True:
            await self._came.wait()
            taken = [self._ready.popleft() for _ in range(min(CHUNK, len(self._ready)))]
            if not self._ready:
                self._came.clear()
            batch = [(opened, future) for opened, future in taken if not future.done()]
            if not batch:
                continue
            self._watch(len(batch))
            try:
                found = await self._in_network(
                    self.predictor.probabilities, np.stack([opened.pixels for opened, _ in batch])
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, the requests must hear of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), row in zip(batch, found, strict=True):
                if not future.done():
                    future.set_result(row)

    async def explain(self, work: Callable[[], T]) -> T:
        """Do other work with the network, in its turn.

        Raises:
            ProblemError: The queue is full.
        """
        self.check()
        self.waiting += 1
        try:
            return await self._in_network(work)
        finally:
            self.waiting -= 1

    async def _in_network(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()

        def timed() -> T:
            self._busy_since = loop.time()
            try:
                return work(*arguments)
            finally:
                self._busy_since = None

        return await loop.run_in_executor(self._network, timed)
