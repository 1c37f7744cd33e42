"""Dynamic batching off the event loop: processes decode photos, one thread runs the network.

Requests that arrive while one batch is running form the next batch. While other photos wait for a
decoder, a batch may grow for a short time: per photo, a batch of sixteen costs half as much as
single photos. Each decoder process has a thread that passes its photos to the network thread, and
the event loop is notified once per batch. If decoders got each photo from the event loop, they
would idle while it writes sixteen responses.
"""

import asyncio
import contextlib
import heapq
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from anklealign.inference.base_predictor import BasePredictor, OpenedPhoto
from anklealign.io.decode import Cost, PhotoError
from anklealign.io.decoder_pool import (
    Admission,
    BusyError,
    DecoderPool,
    DecoderUnavailableError,
)
from anklealign.io.pixel_store import Pixels
from anklealign.models.input_config import CHUNK
from service.problems import ProblemError, busy

Floats = npt.NDArray[np.float64]
T = TypeVar("T")
# Deadline, number, and what to do; no two tasks have the same number.
Task = tuple[float, int, Callable[[], None] | None]
ResultFuture = asyncio.Future[tuple[OpenedPhoto, Floats, float]]

# Seconds of one network call after which the network counts as stuck and not merely busy.
STUCK_SECONDS = 30.0
# Maximum seconds for which a batch grows. Two cores decode some eight small photos in this time.
GROW_SECONDS = 0.05
# Seconds of one photo after which its decoder counts as stuck: over the limit of CPU time of most.
STUCK_DECODER_SECONDS = 30.0
# Seconds by which a batch overtakes a function that needs the network alone, such as a heat map.
EXCLUSIVE_DELAY = 1.0
# Seconds after which a request is looked at again: has its client disconnected?
WATCH_SECONDS = 0.5
# Photos of one request in the queue at a time, so that some requests cannot fill it.
REQUEST_PHOTOS = 8
# Photos that are not quick and wait for others; one decodes in 1 to 5 s.
MAX_DEFERRED = 8
# Bytes per second of decoding, as assumed for the order of photos: fewer than in truth, so that
# small photos overtake large ones.
DECODE_RATE = 4e6
# Bytes of a small photo. One decoder takes no other: large ones may take half a second each, even
# if they are quick by their headers (a PNG of noise).
SMALL_BYTES = 1_500_000


class PhotoFile(NamedTuple):
    """The content of a photo file, who classifies it, and its place in the order of decoding."""

    predictor: BasePredictor
    data: bytes
    deadline: float


class TaskQueue:
    """A queue of tasks for threads, ordered by their deadlines and then as they were put."""

    def __init__(self) -> None:
        """Create an empty queue."""
        self._small: list[Task] = []
        self._large: list[Task] = []
        self._numbers = count()
        self._changed = threading.Condition()

    def put(
        self, task: Callable[[], None] | None, deadline: float = 0.0, *, small: bool = True
    ) -> None:
        """Add a task; None ends the thread that gets it."""
        with self._changed:
            tasks = self._small if small else self._large
            heapq.heappush(tasks, (deadline, next(self._numbers), task))
            self._changed.notify_all()

    def get(self, *, small_only: bool = False) -> Callable[[], None] | None:
        """Wait for the next task, or the next small one, and return it."""
        with self._changed:
            while not (self._small or (self._large and not small_only)):
                self._changed.wait()
            if small_only or not self._large:
                return heapq.heappop(self._small)[2]
            if not self._small:
                return heapq.heappop(self._large)[2]
            return heapq.heappop(min(self._small, self._large, key=lambda tasks: tasks[0]))[2]

    def empty(self) -> bool:
        """Return True if no task waits."""
        with self._changed:
            return not (self._small or self._large)


class QuickOnly(Admission):
    """Has no place for a photo that is not quick."""

    def _fits(self, cost: Cost) -> bool:  # noqa: ARG002 - the same for all
        return False


class Batcher:
    """Predictors behind one bounded queue, with one set of decoders and one network thread.

    The limits hold for all predictors together: a further one takes memory for its weights, but
    admits no further photos.

    Photos are decoded in the order of the time at which they would be done if each request had a
    decoder of its own (fair queueing). A small photo therefore does not wait behind the queued
    photos of clients that send many or large ones, and no photo waits forever. One decoder, if
    there are several, decodes small and quick photos only.

    Attributes:
        pending: Number of photos queued or in progress.
    """

    def __init__(
        self,
        predictors: Sequence[BasePredictor],
        threads: int,
        queue: int,
        max_decode: int,
        on_batch: Callable[[int], None],
    ) -> None:
        """Create the queues; the network thread calls `on_batch` with the size of each batch.

        `max_decode` is the peak memory in bytes of the photos decoded at a time that are not quick.
        """
        self._predictors = predictors
        self.pending = 0
        self._threads = threads
        self._queue = queue
        self._on_batch = on_batch
        self._places = 0  # of the queue, that are taken
        self._decode_tasks = TaskQueue()
        self._network_tasks = TaskQueue()
        self._decoded: deque[tuple[BasePredictor, OpenedPhoto, ResultFuture]] = deque()
        # Photos that are not quick use at most half of the decoders, and share their memory.
        self._admission = Admission(max_decode, max(1, threads // 2), refuse_larger=True)
        self._decoders = DecoderPool(self._admission)
        self._reserved = int(threads > 1)  # decoders for small and quick photos
        self._reserved_decoder = DecoderPool(QuickOnly())
        self._reserved_thread: int | None = None
        self._deferred: deque[tuple[Cost, float, Callable[[], None]]] = deque()
        self._lock = threading.Lock()
        self._batch_grown = threading.Event()
        self._busy_since: float | None = None
        self._decoding_since: dict[int, float] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the threads until the context exits; a first batch warms up each network."""
        # One thread for the network: its libraries use all cores for one batch.
        queues = [self._network_tasks] + [self._decode_tasks] * self._threads
        for number, tasks in enumerate(queues):
            reserved = 0 < number <= self._reserved
            # Daemon threads: a decoder cannot be interrupted in the middle of a huge photo.
            thread = threading.Thread(target=run_tasks, args=(tasks, reserved), daemon=True)
            thread.start()
            if reserved:
                self._reserved_thread = thread.ident
        decoders = asyncio.gather(
            asyncio.to_thread(self._decoders.start, self._threads - self._reserved),
            asyncio.to_thread(self._reserved_decoder.start, self._reserved),
        )
        for predictor in self._predictors:
            side = predictor.bundle.preprocessing.size
            blank = np.zeros((1, side, side, 3), np.uint8)
            await self._run_in_network_thread(partial(self._predict, predictor, blank))
        await decoders
        try:
            yield
        finally:
            for tasks in queues:
                tasks.put(None)
            self._decoders.close()
            self._reserved_decoder.close()

    async def problem(self) -> str:
        """Return why the service is not ready, or ''; replace decoders that have died."""
        now, since = time.monotonic(), self._busy_since
        if since is not None and now - since > STUCK_SECONDS:
            return "the network is stuck"
        started = list(self._decoding_since.values())
        if len(started) == self._threads and now - max(started) > STUCK_DECODER_SECONDS:
            return "all decoders are stuck"
        try:
            await asyncio.to_thread(self._decoders.replace_dead)
            if self._reserved:
                await asyncio.to_thread(self._reserved_decoder.replace_dead)
        except DecoderUnavailableError:
            return "no decoder can be started"
        return ""

    def check_capacity(self) -> None:
        """Raise if the queue is full; call this before receiving a body.

        Raises:
            ProblemError: The queue is full.
        """
        if self._places >= self._queue:
            raise busy(f"{self.pending} photos are pending")

    async def classify(
        self,
        predictor: BasePredictor,
        photos: Sequence[bytes],
        disconnected: Callable[[], Awaitable[bool]],
    ) -> tuple[list[OpenedPhoto], Floats, Floats]:
        """Return N decoded photos, their (N, K) probabilities and their (N,) novelty scores.

        Args:
            predictor: One of the predictors.
            photos: File content of each photo.
            disconnected: Returns True if the client has disconnected; its photos are then skipped.

        Raises:
            ProblemError: The queue is full, or a photo is unreadable; no photo is classified then.
        """
        places = min(len(photos), REQUEST_PHOTOS)
        # An idle service accepts more photos than the queue holds; otherwise such a request would
        # never succeed.
        if self._places and self._places + places > self._queue:
            raise busy(f"{self.pending} photos are pending")
        # A client that disconnects while it waits for one of its places has cost nothing.
        slots = asyncio.Semaphore(REQUEST_PHOTOS)
        self._places += places
        self.pending += len(photos)
        done = time.monotonic()
        tasks = []
        for number, data in enumerate(photos, 1):
            done += 0.01 + len(data) / DECODE_RATE
            file = PhotoFile(predictor, data, done)
            tasks.append(self._classify_one(file, number, disconnected, slots))
        gathered = asyncio.gather(*tasks, return_exceptions=True)
        watcher = asyncio.create_task(cancel_for_disconnected(gathered, disconnected))
        try:
            outcomes = await gathered
        except asyncio.CancelledError:
            if watcher.done():  # it has cancelled them
                raise disconnected_error() from None
            raise
        finally:
            watcher.cancel()
            self._places -= places
            self.pending -= len(photos)
        results = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):  # report the first photo with an error
                raise outcome
            results.append(outcome)
        opened, rows, novelty = zip(*results, strict=True)
        return list(opened), np.stack(rows), np.array(novelty)

    async def _classify_one(
        self,
        file: PhotoFile,
        number: int,
        disconnected: Callable[[], Awaitable[bool]],
        slots: asyncio.Semaphore,
    ) -> tuple[OpenedPhoto, Floats, float]:
        async with slots:
            if await disconnected():
                raise disconnected_error()
            future: ResultFuture = asyncio.get_running_loop().create_future()
            task = partial(self._decode, file, future)
            self._decode_tasks.put(task, file.deadline, small=len(file.data) <= SMALL_BYTES)
            try:
                return await future
            except PhotoError as error:
                raise ProblemError(error.reason, str(error), number) from None

    def _decode(self, file: PhotoFile, future: ResultFuture) -> None:
        """Decode a photo in a decoder thread; defer it if photos that are not quick wait."""
        if future.done():  # cancelled
            return
        thread = threading.get_ident()
        self._decoding_since[thread] = time.monotonic()
        reserved = thread == self._reserved_thread
        decoders = self._reserved_decoder if reserved else self._decoders
        try:
            opened = file.predictor.open_photo(file.data, decoders, wait=False)
        except BusyError as error:
            with self._lock:
                full = len(self._deferred) >= MAX_DEFERRED
                if not full:
                    task = partial(self._decode, file, future)
                    self._deferred.append((error.cost, file.deadline, task))
            if full:
                deliver([(future, busy(f"{MAX_DEFERRED} slow photos are waiting"))])
        except DecoderUnavailableError as error:
            deliver([(future, busy(str(error)))])
        except Exception as error:  # noqa: BLE001 - the request reports every error
            deliver([(future, error)])
        else:
            self._decoded.append((file.predictor, opened, future))
            # A quarter of the pending photos: with more, decoders idle if there are few clients.
            full = len(self._decoded) >= min(CHUNK, self.pending // 4)
            if full or self._decode_tasks.empty():
                self._batch_grown.set()
            self._network_tasks.put(self._run_batch, time.monotonic())
        finally:
            del self._decoding_since[thread]
        # After a deferral as well: the last photo that held a place may have ended meanwhile.
        with self._lock:
            if self._deferred and self._admission.fits(self._deferred[0][0]):
                _, due, deferred = self._deferred.popleft()
                self._decode_tasks.put(deferred, due, small=False)

    def _run_batch(self) -> None:
        """Classify the decoded photos of one predictor in the network thread.

        Each decoded photo has put this task, so that the photos of others are not forgotten; it
        does nothing if earlier batches took them all.
        """
        if self._decoded:
            self._batch_grown.wait(GROW_SECONDS)
            self._batch_grown.clear()
        taken = [self._decoded.popleft() for _ in range(min(CHUNK, len(self._decoded)))]
        if not taken:
            return
        predictor = taken[0][0]
        self._decoded.extendleft(reversed([entry for entry in taken if entry[0] is not predictor]))
        batch = [
            (opened, future)
            for owner, opened, future in taken
            if owner is predictor and not future.done()
        ]
        if not batch:
            return
        self._on_batch(len(batch))
        outcome = self._timed(
            lambda: self._predict(predictor, np.stack([opened.pixels for opened, _ in batch]))
        )
        if isinstance(outcome, Exception):
            deliver([(future, outcome) for _, future in batch])
        else:
            rows = zip(batch, *outcome, strict=True)
            deliver([(future, (opened, row, score)) for (opened, future), row, score in rows])

    def _predict(self, predictor: BasePredictor, pixels_nhwc: Pixels) -> tuple[Floats, Floats]:
        """Return probabilities and novelty scores: uint8 (N, S, S, 3) -> (N, K), (N,)."""
        return predictor.probabilities(pixels_nhwc), predictor.novelty_scores(pixels_nhwc)

    async def run_exclusive(self, function: Callable[[], T]) -> T:
        """Return the result of a function that needs the network; it waits for its turn.

        Raises:
            ProblemError: The queue is full.
        """
        self.check_capacity()
        self.pending += 1
        self._places += 1
        try:
            return await self._run_in_network_thread(function)
        finally:
            self.pending -= 1
            self._places -= 1

    async def _run_in_network_thread(self, function: Callable[[], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic() + EXCLUSIVE_DELAY
        self._network_tasks.put(lambda: deliver([(future, self._timed(function))]), deadline)
        return await future

    def _timed(self, function: Callable[[], T]) -> T | Exception:
        self._busy_since = time.monotonic()
        try:
            return function()
        except Exception as error:  # noqa: BLE001 - the requests report every error
            return error
        finally:
            self._busy_since = None


async def cancel_for_disconnected(
    work: asyncio.Future[Any], disconnected: Callable[[], Awaitable[bool]]
) -> None:
    """Cancel the work for a client that disconnects: what waits in a queue is then skipped."""
    while not await disconnected():  # noqa: ASYNC110 - Starlette has no event for it
        await asyncio.sleep(WATCH_SECONDS)
    work.cancel()


def disconnected_error() -> ProblemError:
    """Return the error of a request whose client is gone."""
    return ProblemError("bad_request", "the client disconnected before the response")


def run_tasks(tasks: TaskQueue, small_only: bool) -> None:
    """Run the tasks of a queue until it yields None; the main loop of each thread."""
    while task := tasks.get(small_only=small_only):
        task()


def deliver(outcomes: Sequence[tuple[asyncio.Future[T], T | Exception]]) -> None:
    """Resolve futures of the event loop from another thread, in a single callback."""

    def resolve() -> None:
        for future, outcome in outcomes:
            if future.done():  # cancelled
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop is closed; no request is waiting
        outcomes[0][0].get_loop().call_soon_threadsafe(resolve)
