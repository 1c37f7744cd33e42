"""The service under load, beside the same predictor without a service, on the same bytes.

    python -m benchmarks.serving [--seconds 60] [--clients 64] [--photos data/raw/phantom]

Starts a service of its own from model/ and export/, and lets each client send photo after photo
over a kept connection. In turns with that, the same photos go through the predictor in this
process, decoded in as many threads as the service has and answered in batches of 16: the most that
the machine can do. A probe asks for /health/live four times a second meanwhile.

Photos a second are counted over the time that the cores were free for either side: what other
programs used of them (/proc/stat) is taken off, idle cores and the clients' own work are not. The
ratio is the median over the turns. Exit status 1: an error but 503, a ratio below 0.8, or health
after more than a second.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from anklealign.inference.predictor import Predictor
from anklealign.io import decode
from anklealign.models.inputs import CHUNK
from service import app, settings

MOST_PHOTOS = 128
ROUNDS = 4
LEAST_RATIO = 0.8
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Load:
    """What clients saw: seconds of each answered request, and how often each status came."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)


@dataclass
class Side:
    """What one side did in its turns: photos, seconds, CPU seconds, photos a free second."""

    photos: int = 0
    seconds: float = 0
    cpu: float = 0
    rates: list[float] = field(default_factory=list)

    @property
    def cpu_ms(self) -> float:
        """Return the CPU time a photo in ms."""
        return self.cpu / self.photos * 1e3

    def add(self, photos: int, clock: "Clock", cpu: float) -> None:
        """Count a turn, of whose CPU time so many seconds were this side's."""
        self.photos += photos
        self.seconds += clock.seconds
        self.cpu += cpu
        self.rates.append(photos / clock.free)

    def __str__(self) -> str:
        """Return the rates, what they ran between, and the CPU time a photo."""
        return (
            f"{self.photos / self.seconds:6.1f} photos/s, {statistics.median(self.rates):.1f} "
            f"({min(self.rates):.1f} to {max(self.rates):.1f}) in the time that others left, "
            f"{self.cpu_ms:.1f} ms of CPU a photo"
        )


class Clock:
    """Seconds of a turn, and of those the ones in which the cores were free for it."""

    def __init__(self, pid: int) -> None:
        """Start; `pid` is the service's process."""
        self._pid = pid
        self._start = self._now()

    def stop(self) -> "Clock":
        """Take the time."""
        gone, all_used, served, here = (
            after - before for before, after in zip(self._start, self._now(), strict=True)
        )
        self.seconds, self.served, self.here = gone, served, here
        others = max(0.0, all_used - served - here)
        self.free = gone - others / (os.cpu_count() or 1)
        return self

    def _now(self) -> tuple[float, float, float, float]:
        return time.perf_counter(), machine_seconds(), cpu_seconds(self._pid), time.process_time()


def main() -> int:
    """Measure and print; return 1 where a bound of the README does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--photos", type=Path, default=Path("data/raw/phantom"))
    given = parser.parse_args()
    chosen = settings.read(os.environ)
    predictor, engine = app.load(chosen)
    photos = read(given.photos, predictor)
    load, alone, served, sending = Load(), Side(), Side(), 0.0
    with running() as (process, port):
        # In turns, so that whatever else the machine does meets both alike.
        for _ in range(ROUNDS):
            clock = Clock(process.pid)
            done = in_process(predictor, photos, chosen.threads, given.seconds / ROUNDS / 2)
            alone.add(done, clock.stop(), clock.here)
            answered, clock = load.statuses[200], Clock(process.pid)
            asyncio.run(clients(port, photos, given.clients, given.seconds / ROUNDS, load))
            served.add(load.statuses[200] - answered, clock.stop(), clock.served)
            sending += clock.here
        memory = peak_memory(process.pid)
    ratio = statistics.median(s / a for s, a in zip(served.rates, alone.rates, strict=True))
    size = sum(map(len, photos)) / len(photos) / 1e3
    print(
        f"{engine}, {chosen.threads} decoders, {len(photos)} photos of {size:.0f} kB on average; "
        f"{given.clients} clients for {given.seconds:g} s in {ROUNDS} turns\n"
        f"in process  {alone}\n"
        f"service     {served}; its clients {sending / served.photos * 1e3:.1f}\n"
        f"ratio       {ratio:.2f}\n"
        f"request     {percentiles(load.seconds)}\n"
        f"health      {percentiles(load.health)}\n"
        f"statuses    {dict(load.statuses)}; memory at most {memory / 1e6:.0f} MB"
    )
    errors = sum(count for status, count in load.statuses.items() if status not in {200, 503})
    return int(errors > 0 or ratio < LEAST_RATIO or max(load.health) > 1)


def read(folder: Path, predictor: Predictor) -> list[bytes]:
    """Return the first photos of a folder that can be read, in the order of their paths.

    Raises:
        SystemExit: There is none.
    """
    found, refused = [], 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if not decode.is_photo(content[: decode.HEAD]):
            continue
        try:
            predictor.prepare(content)
        except decode.PhotoError:  # planted faults; the service would answer 4xx
            refused += 1
            continue
        found.append(content)
        if len(found) == MOST_PHOTOS:
            break
    if not found:
        raise SystemExit(f"serving: no photo in {folder}; run `dvc repro`, or give --photos")
    if refused:
        print(f"serving: {refused} unreadable photos of {folder} are left out", file=sys.stderr)
    return found


@contextmanager
def running(**variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a service of its own on a free port, which is yielded once it answers."""
    environment = os.environ | {"ANKLEALIGN_PORT": "0"} | variables
    process = subprocess.Popen(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    try:
        yield process, port_of(process)
    finally:
        process.terminate()
        process.wait(10)


def port_of(process: subprocess.Popen[bytes]) -> int:
    """Return the port that a service says it listens on, and leave its log unread to a thread.

    Raises:
        RuntimeError: It ended before.
    """
    log = process.stdout
    if log is None:
        raise RuntimeError("the service's log is not captured")
    for line in log:
        told = json.loads(line)
        if told["event"] == "serving":
            # A full pipe would stop the service.
            threading.Thread(target=lambda: [None for _ in log], daemon=True).start()
            return urlsplit(told["address"]).port or 0
    raise RuntimeError(f"the service ended with status {process.wait()}")


def in_process(predictor: Predictor, photos: Sequence[bytes], threads: int, least: float) -> int:
    """Return how many photos a predictor alone answers: all of them, for `least` s."""
    done, start = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - start < least:
            batch = []
            for pixels in pool.map(predictor.prepare, photos):
                batch.append(pixels)
                if len(batch) == CHUNK:
                    predictor.probabilities(np.stack(batch))
                    batch = []
            if batch:
                predictor.probabilities(np.stack(batch))
            done += len(photos)
    return done


async def clients(
    port: int, photos: Sequence[bytes], count: int, seconds: float, load: Load
) -> None:
    """Let so many clients each send one photo at a time, for so many seconds."""
    requests = [request(photo) for photo in photos]
    end = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(probe(port, load, end))
        for number in range(count):
            shifted = requests[number % len(requests) :] + requests[: number % len(requests)]
            group.create_task(client(port, shifted, load, end))


def request(photo: bytes) -> bytes:
    """Return a whole HTTP request that asks for a photo's class."""
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo


async def client(port: int, requests: Sequence[bytes], load: Load, end: float) -> None:
    """Send request after request on one connection until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while time.perf_counter() < end:
        start = time.perf_counter()
        status = await ask(reader, writer, requests[number % len(requests)])
        load.statuses[status] += 1
        if status == 503:
            await asyncio.sleep(1)  # its Retry-After
        else:
            load.seconds.append(time.perf_counter() - start)
        number += 1
    writer.close()


async def probe(port: int, load: Load, end: float) -> None:
    """Ask for the service's health four times a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < end:
        start = time.perf_counter()
        await ask(reader, writer, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        load.health.append(time.perf_counter() - start)
        await asyncio.sleep(0.25)
    writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> int:
    """Send a request and return the status of its answer, whose body is read."""
    writer.write(sent)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(None, 2)[1])


def percentiles(seconds: Sequence[float]) -> str:
    """Return median, 99th percentile and maximum as text."""
    median, p99, most = np.percentile(seconds, [50, 99, 100]) * 1e3
    return f"median {median:.0f} ms, p99 {p99:.0f} ms, at most {most:.0f} ms"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used; 0 where /proc does not tell."""
    status = Path(f"/proc/{pid}/stat")
    if not status.is_file():
        return 0
    # After the name in brackets: user and system time are fields 14 and 15 of proc(5).
    fields = status.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> float:
    """Return the CPU time that all processes have used; 0 where /proc does not tell."""
    status = Path("/proc/stat")
    if not status.is_file():
        return 0
    # proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    ticks = [int(field) for field in status.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """Return the most bytes of memory that a process has held; 0 where /proc does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return 0
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
