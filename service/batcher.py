"""Photos in, answers out, off the event loop: decoded by threads, answered in small batches.

A request that waits for the network joins those that wait with it: while one batch is worked on,
the next one fills. As long as others wait for a decoder a batch may grow for a moment: sixteen
photos cost half of what they cost one by one. Photos pass from thread to thread, and the event loop
hears of them once a batch: a decoder that asked it for its next photo would idle while it writes
sixteen answers.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from anklealign.inference.predictor import Opened, Predictor
from anklealign.io import decode
from anklealign.io.decode import PhotoError
from anklealign.models.inputs import CHUNK
from service.problems import ProblemError, busy

Floats = npt.NDArray[np.float64]
T = TypeVar("T")
Todo = SimpleQueue[Callable[[], None] | None]
Answer = asyncio.Future[tuple[Opened, Floats]]

# Seconds after which a waiting photo means that the network is stuck and not merely busy.
STUCK = 30.0
# Seconds for which a batch may grow. On two cores some eight small photos are decoded in them.
GROWING = 0.05
# Megapixels from which on a photo may keep its decoder busy for seconds, and take a GB.
LARGE = 24


class Batcher:
    """A predictor behind a bounded queue.

    Attributes:
        waiting: Photos in the house: waiting to be decoded or answered, or worked on.
    """

    def __init__(
        self, predictor: Predictor, threads: int, queue: int, watch: Callable[[int], None]
    ) -> None:
        """Prepare the queues; `watch` is told the size of each batch, in the network's thread."""
        self.predictor = predictor
        self.waiting = 0
        self._threads = threads
        self._queue = queue
        self._watch = watch
        # A batch in the network, one that waits for it, and two photos for each decoder. Whoever
        # leaves while waiting for a place among them has cost nothing.
        self._places = asyncio.Semaphore(2 * CHUNK + 2 * threads)
        self._decoding: Todo = SimpleQueue()
        self._network: Todo = SimpleQueue()
        self._ready: deque[tuple[Opened, Answer]] = deque()
        # Large photos leave half of the decoders to the others, and take half of the memory.
        self._large, self._most_large = 0, max(1, threads // 2)
        self._later: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._grown = threading.Event()
        self._busy_since: float | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer as long as the block lasts, after a first batch that warms the network up."""
        # One thread for the network: the libraries below use all cores for one batch.
        queues = [self._network] + [self._decoding] * self._threads
        for todo in queues:
            # Daemons: a decoder in a huge photo cannot be interrupted.
            threading.Thread(target=work, args=(todo,), daemon=True).start()
        side = self.predictor.bundle.preparation.size
        blank = np.zeros((1, side, side, 3), np.uint8)
        await self._in_network(lambda: self.predictor.probabilities(blank))
        try:
            yield
        finally:
            for todo in queues:
                todo.put(None)

    @property
    def stuck(self) -> bool:
        """Tell whether one piece of the network's work has taken far too long."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > STUCK

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
        async with self._places:
            if await gone():
                raise ProblemError("bad_request", "the sender left before the answer")
            answer: Answer = asyncio.get_running_loop().create_future()
            self._decoding.put(partial(self._open, data, answer))
            try:
                return await answer
            except PhotoError as error:
                raise ProblemError(error.reason, str(error), number) from None

    def _open(self, data: bytes, answer: Answer) -> None:
        """Decode a photo, in a decoder's thread, unless it is large and too many such are."""
        if not is_large(data):
            self._decode(data, answer)
            return
        with self._lock:
            if self._large == self._most_large:
                self._later.append(partial(self._open, data, answer))
                return
            self._large += 1
        self._decode(data, answer)
        with self._lock:
            self._large -= 1
            if self._later:
                self._decoding.put(self._later.popleft())

    def _decode(self, data: bytes, answer: Answer) -> None:
        if answer.done():  # cancelled
            return
        try:
            self._ready.append((self.predictor.open(data), answer))
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must hear of it
            tell([(answer, error)])
        else:
            # A quarter of those who wait: with more, a few clients would leave decoders idle.
            if len(self._ready) >= min(CHUNK, self.waiting // 4) or self._decoding.empty():
                self._grown.set()
            self._network.put(self._answer)

    def _answer(self) -> None:
        """Answer what is ready, in the network's thread; nothing where a batch before took it."""
        if self._ready:
            self._grown.wait(GROWING)
            self._grown.clear()
        taken = [self._ready.popleft() for _ in range(min(CHUNK, len(self._ready)))]
        batch = [(opened, answer) for opened, answer in taken if not answer.done()]
        if not batch:
            return
        self._watch(len(batch))
        found = self._timed(
            lambda: self.predictor.probabilities(np.stack([opened.pixels for opened, _ in batch]))
        )
        if isinstance(found, Exception):
            tell([(answer, found) for _, answer in batch])
        else:
            rows = zip(batch, found, strict=True)
            tell([(answer, (opened, row)) for (opened, answer), row in rows])

    async def explain(self, do: Callable[[], T]) -> T:
        """Do other work with the network, in its turn.

        Raises:
            ProblemError: The queue is full.
        """
        self.check()
        self.waiting += 1
        try:
            return await self._in_network(do)
        finally:
            self.waiting -= 1

    async def _in_network(self, do: Callable[[], T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._network.put(lambda: tell([(answer, self._timed(do))]))
        return await answer

    def _timed(self, do: Callable[[], T]) -> T | Exception:
        self._busy_since = time.monotonic()
        try:
            return do()
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests must hear of it
            return error
        finally:
            self._busy_since = None


def is_large(data: bytes) -> bool:
    """Tell by its header whether decoding a photo may take seconds; what is no photo takes none."""
    try:
        image = decode.identify(data)
    except Exception:  # noqa: BLE001 - the predictor will say what is wrong with it
        return False
    return image.width * image.height > LARGE * 1e6


def work(todo: Todo) -> None:
    """Do what comes, until None does: the life of a thread."""
    while do := todo.get():
        do()


def tell(answers: Sequence[tuple[asyncio.Future[T], T | Exception]]) -> None:
    """Give the event loop the answers, or errors, of another thread: all at once."""

    def settle() -> None:
        for answer, found in answers:
            if answer.done():  # cancelled
                continue
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        answers[0][0].get_loop().call_soon_threadsafe(settle)
