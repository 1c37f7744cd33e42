"""Decode photos so that none of them can end or block this process, and fit them into a square.

One changed byte in a HEIC makes its decoder crash with SIGSEGV or write over the heap. A worker
process (`decoder_worker`) dies alone: its photo is refused as `decoder_crashed` or `too_slow`, and
the next photo gets a new worker. There are as many workers as threads that decode at a time.

    fitted = decoder_pool.shared().decode(data, Target(80, 256, "letterbox", 114))

The service decodes everything in workers. The stages and commands decode JPEG, PNG and WebP of
usual size in the calling thread: their decoders survived all of benchmarks/fuzz.py, their time is
bounded by the header, and a worker would cost 0.6 ms for each photo, 15% of a small one.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from anklealign.io import decode, decoder_worker
from anklealign.io.decode import REASONS, Box, Cost, PhotoError
from anklealign.io.decoder_worker import (
    DECODE_SECONDS,
    HEADER_SECONDS,
    SECONDS_PER_MEGAPIXEL,
    NotQuick,
)

# Wall seconds for each CPU second that a worker may use, and on top: on a busy machine it waits.
WALL_FACTOR = 10
WALL_SECONDS = 30.0
START_SECONDS = 60.0
# Bytes of freed memory that a worker keeps for the next photo, at most. glibc returns it at first,
# and the system clears its pages for each photo again: 16% of the CPU time of a JPEG of 12 MP.
KEPT_BYTES = 32 << 20
ROOT = Path(__file__).resolve().parents[2]  # of the package
# Peak bytes of all photos decoded at a time that are not quick; a larger one is decoded alone.
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Target:
    """The square that a photo is fitted into; the fields of prepare's parameters."""

    max_megapixels: float
    size: int
    fit: Literal["letterbox", "crop", "stretch"]
    fill: int


@dataclass(frozen=True)
class FittedPhoto:
    """A decoded photo in its square.

    Attributes:
        pixels: (S, S, 3) uint8.
        box: Half-open left, top, right, bottom of the photo in `pixels`.
        format, orientation, width, height, notes: As in `decode.Photo`.
    """

    pixels: npt.NDArray[np.uint8]
    box: Box
    format: str
    orientation: int
    width: int
    height: int
    notes: tuple[str, ...]


class DecoderUnavailableError(OSError):
    """No worker process can be started."""


class BusyError(Exception):
    """The photo is not quick, and there is no place for its cost."""

    def __init__(self, cost: Cost) -> None:
        """Store the cost."""
        super().__init__("photos that are not quick take all places")
        self.cost = cost


class Admission:
    """Bounds the number and the memory of the photos decoded at a time that are not quick.

    A photo that takes more than `max_bytes` is decoded alone, or refused with `refuse_larger`.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_count: int | None = None,
        *,
        refuse_larger: bool = False,
    ) -> None:
        """Start with no photo."""
        self._max_bytes, self._max_count = max_bytes, max_count
        self._refuse_larger = refuse_larger
        self._bytes = self._count = 0
        self._released = threading.Condition()

    @contextmanager
    def place(self, cost: Cost, *, wait: bool) -> Iterator[None]:
        """Hold a place for a photo; wait for it, or raise.

        Raises:
            BusyError: There is no place, and `wait` is False.
            PhotoError: The photo takes more than all of the memory, and is refused.
        """
        if self._refuse_larger and cost.memory > self._max_bytes:
            raise PhotoError(
                "too_large",
                f"decoding this photo of {cost.megapixels:.3g} MP may take "
                f"{cost.memory / 1e6:.0f} MB; the limit is {self._max_bytes / 1e6:.0f} MB",
            )
        with self._released:
            while not self._fits(cost):
                if not wait:
                    raise BusyError(cost)
                self._released.wait()
            self._bytes += cost.memory
            self._count += 1
        try:
            yield
        finally:
            with self._released:
                self._bytes -= cost.memory
                self._count -= 1
                self._released.notify_all()

    def fits(self, cost: Cost) -> bool:
        """Return True if there is a place for a photo now."""
        with self._released:
            return self._fits(cost)

    def _fits(self, cost: Cost) -> bool:
        if not self._count:
            return True
        room = self._max_count is None or self._count < self._max_count
        return room and self._bytes + cost.memory <= self._max_bytes


class DecoderPool:
    """Worker processes; each thread that decodes has one to itself meanwhile."""

    def __init__(self, admission: Admission | None = None, *, isolate_all: bool = True) -> None:
        """Start no process yet; with `isolate_all`, quick photos are decoded in workers, too."""
        self._admission = admission or Admission()
        self._isolate_all = isolate_all
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._lock = threading.Lock()
        self.broken = False

    def decode(self, data: bytes, target: Target, *, wait: bool = True) -> FittedPhoto:
        """Return the photo in a file's bytes, fitted into its square.

        Args:
            data: Content of a photo file.
            target: The square.
            wait: Whether to wait for a place for a photo that is not quick.

        Raises:
            PhotoError: The photo cannot be decoded.
            BusyError: There is no place, and `wait` is False.
            DecoderUnavailableError: No worker can be started.
        """
        if not self._isolate_all and data.startswith(decoder_worker.QUICK_SIGNATURES):
            with contextlib.suppress(NotQuick):
                return decode_quick(data, target)
        worker = self._take()
        request = vars(target)
        try:
            reply, pixels = worker.request(request, data, HEADER_SECONDS + DECODE_SECONDS)
            if "ask" in reply:
                reply, pixels = self._decode_slowly(worker, Cost(**reply["ask"]), wait=wait)
            photo = _photo(reply, pixels, target.size)
        except BaseException as error:
            # A worker that has replied with an error, or got no place, is ready for the next photo.
            if isinstance(error, PhotoError | BusyError) and worker.alive:
                self._give_back(worker)
            else:
                worker.kill()  # in an unknown state
                with self._lock:
                    self._busy.discard(worker)
            raise
        self._give_back(worker)
        return photo

    def _decode_slowly(
        self, worker: "Worker", cost: Cost, *, wait: bool
    ) -> tuple[dict[str, Any], bytearray]:
        """Return a worker's reply to `go` for a photo that is not quick, once it has a place."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._admission.place(cost, wait=wait))
            except (BusyError, PhotoError):
                worker.dismiss()
                raise
            seconds = DECODE_SECONDS + SECONDS_PER_MEGAPIXEL * cost.megapixels
            return worker.request({"go": True}, b"", seconds)

    def replace_dead(self) -> None:
        """Replace the idle workers that have died, and try again after a failed start.

        Raises:
            DecoderUnavailableError: One cannot be started.
        """
        with self._lock:
            count = len(self._idle)
            alive = sum(worker.alive for worker in self._idle)
        if self.broken or alive < count:
            self.start(max(1, count))

    def start(self, count: int = 1) -> None:
        """Start workers until `count` are idle.

        Raises:
            DecoderUnavailableError: One cannot be started.
        """
        with ThreadPoolExecutor(max(1, count)) as threads:  # a process starts in 0.3 s
            workers = list(threads.map(lambda _: self._take(), range(count)))
        for worker in workers:
            self._give_back(worker)

    def close(self) -> None:
        """End all workers; a photo that is being decoded fails as `decoder_crashed`."""
        with self._lock:
            workers, self._idle = [*self._idle, *self._busy], []
        for worker in workers:
            worker.kill()

    def _take(self) -> "Worker":
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
                if worker is not None and worker.alive:
                    self._busy.add(worker)
                    return worker
            if worker is None:
                break
            worker.kill()
        try:
            worker = Worker()
        except OSError as error:
            self.broken = True
            raise DecoderUnavailableError(
                f"the decoder process cannot be started: {error}; see its output with: "
                f"{sys.executable} -m anklealign.io.decoder_worker"
            ) from None
        self.broken = False
        with self._lock:
            self._busy.add(worker)
        return worker

    def _give_back(self, worker: "Worker") -> None:
        with self._lock:
            self._busy.discard(worker)
            self._idle.append(worker)


def decode_quick(data: bytes, target: Target) -> FittedPhoto:
    """Return a photo decoded in this thread.

    Raises:
        PhotoError: The photo cannot be decoded.
        NotQuick: The photo takes more time or memory than a quick one.
    """

    def admit(cost: Cost) -> None:
        if not cost.quick:
            raise NotQuick

    photo = decode.open_photo(data, target.max_megapixels, 2 * target.size, admit)
    pixels, box = decode.fit(photo.image, target.size, target.fit, target.fill)
    facts = {key: value for key, value in vars(photo).items() if key != "image"}
    return FittedPhoto(pixels, box, **facts)


class Worker:
    """A worker process and the socket to it."""

    def __init__(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            OSError: The process does not start.
        """
        self._link, theirs = socket.socketpair()
        for end in (self._link, theirs):  # a square of 256 px in one piece
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        # The worker imports from the same places, whatever the working directory.
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OPENBLAS_NUM_THREADS": "1",  # a process with threads is not forked
            # Read by glibc (mallopt(3)). Larger blocks are returned at once.
            "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
            "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "anklealign.io.decoder_worker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff prints there
                env=environment,
                process_group=0,  # killed with its children; Ctrl-C is not sent to it
            )
        try:
            ready = decoder_worker.receive(self._link, START_SECONDS)
        except (OSError, ValueError):
            ready = None
        if ready is None:
            self.kill()
            raise OSError(f"exit status {self._process.returncode}")

    @property
    def alive(self) -> bool:
        """Return True if the process runs."""
        return self._process.poll() is None

    def request(
        self, content: dict[str, Any], data: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytearray]:
        """Send a message that takes up to `seconds` of CPU time; return the reply.

        Raises:
            PhotoError: The worker died, or does not reply in time; it is killed.
        """
        seconds = WALL_SECONDS + WALL_FACTOR * seconds
        try:
            self._link.settimeout(seconds)
            decoder_worker.send(self._link, content, data)
            reply = decoder_worker.receive(self._link, seconds)
        except TimeoutError:
            self.kill()
            raise PhotoError("too_slow", "the decoder does not respond") from None
        except (OSError, ValueError):
            reply = None
        if reply is None:
            self.kill()
            reply = decoder_worker.error_of_signal(-self._process.returncode), bytearray()
        if "error" in reply[0]:
            reason = reply[0]["error"]
            raise PhotoError(reason if reason in REASONS else "unreadable", reply[0]["message"])
        return reply

    def dismiss(self) -> None:
        """End the child that waits for `go`; the process is then ready for the next photo."""
        with contextlib.suppress(OSError):  # it has died
            decoder_worker.send(self._link, {"go": False})

    def kill(self) -> None:
        """End the process and its children."""
        # After the process has ended by itself, a child may be left in its group.
        self._process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._link.close()


def _photo(reply: dict[str, Any], pixels: bytearray, size: int) -> FittedPhoto:
    facts = reply["photo"]
    facts |= {"box": tuple(facts["box"]), "notes": tuple(facts["notes"])}
    return FittedPhoto(np.frombuffer(pixels, np.uint8).reshape(size, size, 3), **facts)


@cache
def shared() -> DecoderPool:
    """Return the pool of this process, which is closed at exit."""
    pool = DecoderPool(isolate_all=False)
    atexit.register(pool.close)
    return pool
