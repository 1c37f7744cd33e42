"""Measure the service under load against the same predictor in process, on the same photos.

    python -m benchmarks.serving [--seconds 60] [--clients 64] [--photos data/raw/synthetic]

Starts a separate service from model/ and export/. Each client sends one photo after another over a
keep-alive connection. In alternating rounds, this process runs the same photos through the
predictor with the same number of decoder threads and batches of 16: the maximum throughput of the
machine. Meanwhile, a probe requests /health/live four times per second.

The limit is the CPU time per photo of what no service can avoid, measured in the same rounds:
decoding and resizing alone, and the networks alone in batches of 16. Before, the service is started
three times, and `import torch` alone three times for comparison; the fastest start counts.

Throughput is photos per second of available time: the CPU time of other programs (/proc/stat) is
subtracted, idle cores and the work of the clients are not. Ratios are medians over the rounds. Exit
status 1: an error other than 503, a ratio below 0.8, over 1.3 times the limit, or a health check
slower than a second.
"""

import os

# As in the service (service/__init__.py), before NumPy and PyTorch are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from anklealign.inference.base_predictor import BasePredictor
from anklealign.io import decode
from anklealign.io.pixel_store import Pixels
from anklealign.models.input_config import CHUNK
from service import app
from service.settings import from_environment

MAX_PHOTOS = 128
ROUNDS = 4
STARTS = 3
MIN_RATIO = 0.8
MAX_LIMIT_RATIO = 1.3
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Load:
    """Client measurements: seconds per completed request, status counts, health check seconds."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)


@dataclass
class Side:
    """Measurements of one side, in total and per round: CPU ms and photos per available second."""

    photos: int = 0
    seconds: float = 0
    cpu_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def add(self, photos: int, clock: "Clock", cpu: float) -> None:
        """Add a round; `cpu` is the CPU time of this side in seconds."""
        self.photos += photos
        self.seconds += clock.seconds
        self.cpu_ms.append(cpu / photos * 1e3)
        self.rates.append(photos / clock.available)

    def __str__(self) -> str:
        """Return the throughput with its range, and the CPU time per photo."""
        return (
            f"{self.photos / self.seconds:6.1f} photos/s, {statistics.median(self.rates):.1f} "
            f"({min(self.rates):.1f} to {max(self.rates):.1f}) in available time, "
            f"{statistics.median(self.cpu_ms):.1f} ms of CPU per photo"
        )


class Clock:
    """Elapsed seconds of a round, and available seconds: without the CPU time of other programs."""

    def __init__(self, pid: int) -> None:
        """Start the clock; `pid` is the process of the service."""
        self._pid = pid
        self._start = self._now()

    def stop(self) -> "Clock":
        """Stop the clock and return it."""
        elapsed, machine, service, own = (
            after - before for before, after in zip(self._start, self._now(), strict=True)
        )
        self.seconds, self.service_cpu, self.own_cpu = elapsed, service, own
        others = max(0.0, machine - service - own)
        self.available = elapsed - others / (os.cpu_count() or 1)
        return self

    def _now(self) -> tuple[float, float, float, float]:
        return time.perf_counter(), machine_seconds(), cpu_seconds(self._pid), time.process_time()


def main() -> int:
    """Print the measurements; return 1 if a bound in docs/serving.md does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--photos", type=Path, default=Path("data/raw/synthetic"))
    options = parser.parse_args()
    settings = from_environment()
    predictor, engine = app.load(settings)
    photos = read_photos(options.photos, predictor)
    starts = [(*start_up(), import_pytorch()) for _ in range(STARTS)]
    load, in_process, served, client_cpu = Load(), Side(), Side(), 0.0
    limits: list[dict[str, float]] = []
    with running() as (process, port):
        # Alternate, so that other load on the machine affects both sides equally.
        for _ in range(ROUNDS):
            clock = Clock(process.pid)
            seconds = options.seconds / ROUNDS
            count = run_in_process(predictor, photos, settings.threads, seconds / 2)
            in_process.add(count, clock.stop(), clock.own_cpu)
            limits.append(measure_limit(predictor, photos))
            before, clock = load.statuses[200], Clock(process.pid)
            asyncio.run(run_clients(port, photos, options.clients, seconds, load))
            served.add(load.statuses[200] - before, clock.stop(), clock.service_cpu)
            client_cpu += clock.own_cpu
        memory = peak_memory(process.pid)
    ratio = statistics.median(
        ours / bare for ours, bare in zip(served.rates, in_process.rates, strict=True)
    )
    limit_ratio = statistics.median(
        ours / sum(limit.values()) for ours, limit in zip(served.cpu_ms, limits, strict=True)
    )
    size = sum(map(len, photos)) / len(photos) / 1e3
    print(
        f"{engine}, {settings.threads} decoders, {len(photos)} photos of {size:.0f} kB on average; "
        f"{options.clients} clients for {options.seconds:g} s in {ROUNDS} rounds\n"
        f"in process  {in_process}\n"
        f"service     {served}; clients {client_cpu / served.photos * 1e3:.1f} ms\n"
        f"ratio       {ratio:.2f}\n"
        f"limit       {format_limit(limits)}; the service takes {limit_ratio:.2f} times as much\n"
        "start       {:.1f} s, CPU {:.1f} s; PyTorch's import alone CPU {:.1f} s\n".format(
            *np.min(starts, axis=0)
        )
        + f"request     {percentiles(load.seconds)}\n"
        f"health      {percentiles(load.health)}\n"
        f"statuses    {dict(load.statuses)}; peak memory {memory / 1e6:.0f} MB"
    )
    errors = sum(count for status, count in load.statuses.items() if status not in {200, 503})
    slow = ratio < MIN_RATIO or limit_ratio > MAX_LIMIT_RATIO or max(load.health) > 1
    return int(errors > 0 or slow)


def measure_limit(predictor: BasePredictor, photos: Sequence[bytes]) -> dict[str, float]:
    """Return the CPU time per photo in ms of each part of the work, by its name."""
    pixels: list[Pixels] = []
    parts: dict[str, Callable[[], object]] = {
        "decoding": lambda: pixels.extend(map(predictor.preprocess, photos)),
        "network": lambda: [predictor.probabilities(batch) for batch in batches(pixels)],
        "novelty": lambda: [predictor.novelty_scores(batch) for batch in batches(pixels)],
    }
    milliseconds = {}
    for name, work in parts.items():
        start = time.process_time()
        work()
        milliseconds[name] = (time.process_time() - start) / len(photos) * 1e3
    return milliseconds


def batches(pixels: Sequence[Pixels]) -> Iterator[Pixels]:
    """Yield photos in batches of 16."""
    for start in range(0, len(pixels), CHUNK):
        yield np.stack(pixels[start : start + CHUNK])


def format_limit(limits: Sequence[dict[str, float]]) -> str:
    """Return the medians over the rounds as text."""
    medians = {name: statistics.median(own[name] for own in limits) for name in limits[0]}
    parts = " + ".join(f"{name} {value:.1f}" for name, value in medians.items())
    total = statistics.median(sum(own.values()) for own in limits)
    return f"{parts} = {total:.1f} ms of CPU per photo"


def read_photos(folder: Path, predictor: BasePredictor) -> list[bytes]:
    """Return the first readable photos of a folder, sorted by path.

    Raises:
        SystemExit: The folder contains no readable photo.
    """
    photos, unreadable = [], 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if not decode.is_photo(content[: decode.HEAD]):
            continue
        try:
            predictor.preprocess(content)
        except decode.PhotoError:  # injected corruptions; the service returns 4xx
            unreadable += 1
            continue
        photos.append(content)
        if len(photos) == MAX_PHOTOS:
            break
    if not photos:
        raise SystemExit(f"serving: no photo in {folder}; run `dvc repro` or set --photos")
    if unreadable:
        print(f"serving: skipped {unreadable} unreadable photos in {folder}", file=sys.stderr)
    return photos


@contextmanager
def running(**variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a service on a free port; yield its process and port when it is ready."""
    environment = os.environ | {"ANKLEALIGN_PORT": "0"} | variables
    process = subprocess.Popen(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    try:
        yield process, port_of(process)
    finally:
        process.terminate()
        process.wait(10)


def start_up() -> tuple[float, float]:
    """Return the seconds until a service is ready, and its CPU seconds in that time."""
    start = time.perf_counter()
    with running() as (process, port):
        asyncio.run(wait_until_ready(port))
        return time.perf_counter() - start, cpu_seconds(process.pid)


def import_pytorch() -> float:
    """Return the CPU seconds of a process that imports PyTorch and nothing else."""
    before = os.times()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # of ended children


async def wait_until_ready(port: int) -> None:
    """Request /health/ready until it succeeds."""
    # The socket listens before the application has started, so the first request waits for it.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
    while await send(reader, writer, request) != 200:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.02)
    writer.close()


def port_of(process: subprocess.Popen[bytes]) -> int:
    """Return the port from the log of a service, and drain the rest of the log in a thread.

    Raises:
        RuntimeError: The service exited before it was ready.
    """
    log = process.stdout
    if log is None:
        raise RuntimeError("the log of the service is not captured")
    for line in log:
        record = json.loads(line)
        if record["event"] == "serving":
            # A full pipe would block the service.
            threading.Thread(target=lambda: [None for _ in log], daemon=True).start()
            return urlsplit(record["address"]).port or 0
    raise RuntimeError(f"the service exited with status {process.wait()}")


def run_in_process(
    predictor: BasePredictor, photos: Sequence[bytes], threads: int, seconds: float
) -> int:
    """Classify all photos repeatedly for at least `seconds`; return the number of photos."""
    count, start = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - start < seconds:
            batch = []
            for pixels in pool.map(predictor.preprocess, photos):
                batch.append(pixels)
                if len(batch) == CHUNK:
                    classify(predictor, batch)
                    batch = []
            if batch:
                classify(predictor, batch)
            count += len(photos)
    return count


def classify(predictor: BasePredictor, batch: Sequence[Pixels]) -> None:
    """Compute what the service computes for a batch."""
    predictor.probabilities(np.stack(batch))
    predictor.novelty_scores(np.stack(batch))


async def run_clients(
    port: int, photos: Sequence[bytes], count: int, seconds: float, load: Load
) -> None:
    """Run `count` clients for `seconds`; each sends one photo at a time."""
    requests = [encode_request(photo) for photo in photos]
    end = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(probe(port, load, end))
        for number in range(count):
            offset = number % len(requests)
            rotated = requests[offset:] + requests[:offset]
            group.create_task(run_client(port, rotated, load, end))


def encode_request(photo: bytes) -> bytes:
    """Return an HTTP request that classifies a photo."""
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo


async def run_client(port: int, requests: Sequence[bytes], load: Load, end: float) -> None:
    """Send requests on one connection until the time `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while time.perf_counter() < end:
        start = time.perf_counter()
        status = await send(reader, writer, requests[number % len(requests)])
        load.statuses[status] += 1
        if status == 503:
            await asyncio.sleep(1)  # Retry-After
        else:
            load.seconds.append(time.perf_counter() - start)
        number += 1
    writer.close()


async def probe(port: int, load: Load, end: float) -> None:
    """Request the health of the service four times per second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < end:
        start = time.perf_counter()
        await send(reader, writer, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        load.health.append(time.perf_counter() - start)
        await asyncio.sleep(0.25)
    writer.close()


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send a request, read the response, and return its status."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(None, 2)[1])


def percentiles(seconds: Sequence[float]) -> str:
    """Return the median, 99th percentile and maximum as text."""
    median, p99, maximum = np.percentile(seconds, [50, 99, 100]) * 1e3
    return f"median {median:.0f} ms, p99 {p99:.0f} ms, maximum {maximum:.0f} ms"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its decoder processes in seconds; 0 without /proc."""
    ticks = 0
    for process in (pid, *children(pid)):
        status = Path(f"/proc/{process}/stat")
        if status.is_file():
            # proc(5): user and system time are fields 14 and 15, those of ended children 16 and 17;
            # the name in parentheses is field 2.
            ticks += sum(map(int, status.read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Return the descendants of a process; none without /proc."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            for child in map(int, path.read_text().split()):
                found += [child, *children(child)]
    return found


def machine_seconds() -> float:
    """Return the CPU time of all processes in seconds; 0 without /proc."""
    status = Path("/proc/stat")
    if not status.is_file():
        return 0
    # proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; user includes guest.
    ticks = [int(field) for field in status.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """Return the sum of the peaks of a process and its decoders in bytes; 0 without /proc.

    An upper bound: their peaks need not coincide, and they share the pages of libraries.
    """
    total = 0
    for process in (pid, *children(pid)):
        status = Path(f"/proc/{process}/status")
        if status.is_file():
            lines = status.read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return total


if __name__ == "__main__":
    sys.exit(main())
