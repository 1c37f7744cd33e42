"""Measure the cost of invalid and huge files for the service and for other clients.

    python -m benchmarks.hostile

Starts a separate service from model/ and export/ and sends one case after another, while another
client classifies an ordinary photo repeatedly. Each row contains the response, its seconds, the
peak memory of the service, and the longest request of the other client. The last line compares
eight concurrent clients with one. Exit status 1: a bad file does not get a 4xx within a second, a
good file does not get a 200, or the service exceeds 2.5 GB (compose.yaml allows 4 GB). Takes a
minute, half of it to generate the images.
"""

import http.client
import io
import json
import os
import statistics
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving import peak_memory, running

MAX_MEMORY = 2.5e9
MAX_SECONDS = 1.0
CLIENTS = 8


@dataclass(frozen=True)
class Case:
    """A file, whether it is a valid photo, and the number of concurrent requests."""

    name: str
    content: bytes
    good: bool = False
    concurrent: int = 1


@dataclass
class OtherClient:
    """Request durations of another client in seconds."""

    seconds: list[float] = field(default_factory=list)


def main() -> int:
    """Print the table; return 1 if a bound does not hold."""
    ordinary = jpeg(1280, 960)
    failed = []
    with running() as (process, port):
        send(port, ordinary)
        print("| file | response | seconds | memory, MB | request of another client, ms |")
        print("|---|---|---:|---:|---:|")
        for case in cases(ordinary):
            reset_peak_memory(process.pid)
            count = case.concurrent
            with other_client(port, ordinary) as other, ThreadPoolExecutor(count) as pool:
                responses = list(pool.map(send, [port] * count, [case.content] * count))
            memory, seconds = peak_memory(process.pid), max(s for _, _, s in responses)
            status, code, _ = responses[0]
            print(
                f"| {case.name}, {format_size(case.content)} | {status} {code} | {seconds:.2f} "
                f"| {memory / 1e6:.0f} | {max(other.seconds, default=0) * 1e3:.0f} |",
                flush=True,
            )
            passed = status == 200 if case.good else 400 <= status < 500 and seconds < MAX_SECONDS
            if not passed or memory > MAX_MEMORY:
                failed.append(case.name)
        single, concurrent = (median_seconds(port, ordinary, count) for count in (1, CLIENTS))
    print(
        f"\nmedian response time: one client {single * 1e3:.0f} ms, {CLIENTS} concurrent clients "
        f"{concurrent * 1e3:.0f} ms, {concurrent / single:.1f} times as long, on "
        f"{len(os.sched_getaffinity(0))} cores"
    )
    for name in failed:
        print(f"hostile: {name}: a bound does not hold", file=sys.stderr)
    return int(bool(failed))


def cases(ordinary: bytes) -> Iterator[Case]:
    """Yield the cases; each image is generated on demand."""
    yield Case("ordinary photo", ordinary, good=True)
    yield Case("empty file", b"")
    yield Case("text", b"This is a text.\n" * 1000)
    yield Case("truncated photo", ordinary[: len(ordinary) // 2])
    yield Case("PNG of 60,000 x 60,000", png(60_000, 60_000, 2, rows=100))
    yield Case("PNG of 20,000 x 20,000", png(20_000, 20_000, 2))
    # The largest accepted size; blending transparency with white needs the most memory.
    yield Case(
        "two concurrent transparent PNGs of 80 MP", png(10_000, 8_000, 6), good=True, concurrent=2
    )
    yield Case("two concurrent JPEGs of 80 MP", jpeg(10_000, 8_000), good=True, concurrent=2)


def jpeg(width: int, height: int) -> bytes:
    """Return a JPEG of coarse noise."""
    cells = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cells).resize((width, height)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def png(width: int, height: int, color_type: int, rows: int = 0) -> bytes:
    """Return a black PNG of color type 2 (RGB) or 6 (RGBA), with all rows or only `rows`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        content = kind + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    row = bytes(1 + width * {2: 3, 6: 4}[color_type])
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(rows or height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def send(port: int, photo: bytes) -> tuple[int, str, float]:
    """Send a photo as a form; return the status, the problem code or '', and the seconds."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    start = time.perf_counter()
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    link.request("POST", "/predict", head + photo + b"\r\n--b--\r\n", kind)
    response = link.getresponse()
    content = json.loads(response.read())
    link.close()
    return response.status, content.get("code", ""), time.perf_counter() - start


@contextmanager
def other_client(port: int, photo: bytes) -> Iterator[OtherClient]:
    """Run another client that classifies a photo repeatedly until the context exits."""
    other, end = OtherClient(), threading.Event()

    def run() -> None:
        while not end.is_set():
            other.seconds.append(send(port, photo)[2])
            time.sleep(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    try:
        yield other
    finally:
        end.set()
        thread.join()


def median_seconds(port: int, photo: bytes, clients: int, duration: float = 4) -> float:
    """Return the median response time of concurrent clients that run for `duration` seconds."""
    end = time.perf_counter() + duration

    def client(_: int) -> list[float]:
        seconds = []
        while time.perf_counter() < end:
            seconds.append(send(port, photo)[2])
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        return statistics.median([s for run in pool.map(client, range(clients)) for s in run])


def reset_peak_memory(pid: int) -> None:
    """Reset the peak memory of a process (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def format_size(content: bytes) -> str:
    """Return the size of a file as text."""
    if len(content) < 1e5:
        return f"{len(content):,} bytes"
    return f"{len(content) / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
