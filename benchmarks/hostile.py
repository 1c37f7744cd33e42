"""Measure what invalid, huge and slow uploads cost the service and other clients.

    python -m benchmarks.hostile [--seconds 10]

Starts a separate service from model/ and export/. First, one client sends one file after another;
then eight clients attack at the same time for some seconds. Meanwhile, another client classifies an
ordinary photo repeatedly. Each row contains the responses, the longest one in seconds, the peak
memory of all processes of the service, and the 99th percentile of the other client's requests. The
memory is what the kernel cannot drop: anonymous and shared pages, sampled 20 times per second; some
100 MB (CPU) to 360 MB (CUDA) of library code come on top. At last, `anklealign add --dry-run` and
`anklealign predict` read the same files.

Exit status 1: a bad file does not get a 4xx within a second, a good one not a 200, the other client
gets another status than 200 or waits more than a second (99th percentile), the service takes 1.5 GB
or ends, or a command ends by a signal or with an error about anything but the files. Takes two
minutes.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving import ROOT, children, running

MAX_MEMORY = 1.5e9
MAX_SECONDS = 1.0
CLIENTS = 8
BODY = 32_000_000  # the limit of one body
DAMAGED = ROOT.parent / "shared/cases/heic_damaged"


@dataclass(frozen=True)
class Case:
    """A file, whether the service classifies it, and whether the commands do."""

    name: str
    content: bytes
    good: bool = False
    good_in_commands: bool = False


@dataclass
class OtherClient:
    """Request durations of another client in seconds, and its statuses."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def p99(self) -> float:
        """Return the 99th percentile in seconds."""
        return float(np.percentile(self.seconds, 99)) if self.seconds else 0.0


@dataclass
class Peak:
    """Peak memory in bytes."""

    bytes: int = 0


def main() -> int:
    """Print the tables; return 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    ordinary = jpeg(1280, 960)
    files = list(cases(ordinary))
    failed: list[str] = []
    with running() as (process, port):
        send(port, ordinary)
        print("| upload | responses | seconds | memory, MB | another client, p99, ms |")
        print("|---|---|---:|---:|---:|", flush=True)
        service = (process.pid, port)
        for case in files:
            row = f"{case.name}, {format_size(case.content)}"
            run = partial(send_one, port, case.content)
            responses = measure(row, service, ordinary, run, failed)
            status, _, taken = responses[0]
            if (status != 200) if case.good else not 400 <= status < 500:
                failed.append(f"{case.name}: {status}")
            if not case.good and taken > MAX_SECONDS:
                failed.append(f"{case.name}: its response takes {taken:.2f} s")
        for name, attack in attacks(files).items():
            run = partial(together, attack, port, seconds)
            measure(f"{CLIENTS} clients {name}", service, ordinary, run, failed)
        single, concurrent = (median_seconds(port, ordinary, count) for count in (1, CLIENTS))
        if process.poll() is not None:
            failed.append(f"the service ended with status {process.returncode}")
    print(
        f"\nmedian response time: one client {single * 1e3:.0f} ms, {CLIENTS} concurrent clients "
        f"{concurrent * 1e3:.0f} ms, {concurrent / single:.1f} times as long, on "
        f"{len(os.sched_getaffinity(0))} cores\n"
    )
    failed += run_commands(files)
    for line in failed:
        print(f"hostile: a bound does not hold: {line}", file=sys.stderr)
    return int(bool(failed))


Response = tuple[int, str, float]
Attack = Callable[[int, float], list[Response]]


def measure(
    name: str,
    service: tuple[int, int],
    ordinary: bytes,
    run: Callable[[], list[Response]],
    failed: list[str],
) -> list[Response]:
    """Run requests next to another client, print their row and return their responses."""
    pid, port = service
    with peak_memory(pid) as peak, other_client(port, ordinary) as other:
        responses = run()
        time.sleep(0.2)
    counts = Counter(f"{status} {code}".strip() for status, code, _ in responses)
    longest = max((seconds for _, _, seconds in responses), default=0)
    listed = ", ".join(
        key if len(responses) == 1 else f"{number} x {key}" for key, number in counts.most_common(4)
    )
    print(
        f"| {name} | {listed} | {longest:.2f} | {peak.bytes / 1e6:.0f} | {other.p99 * 1e3:.0f} |",
        flush=True,
    )
    if other.p99 > MAX_SECONDS:
        failed.append(f"{name}: another client waits {other.p99:.2f} s")
    if set(other.statuses) - {200}:
        failed.append(f"{name}: another client gets {dict(other.statuses)}")
    if peak.bytes > MAX_MEMORY:
        failed.append(f"{name}: {peak.bytes / 1e6:.0f} MB")
    return responses


def cases(ordinary: bytes) -> Iterator[Case]:
    """Yield the files."""
    yield Case("ordinary photo", ordinary, good=True)
    yield Case("empty file", b"")
    yield Case("text", b"This is a text.\n" * 1000)
    yield Case("truncated photo", ordinary[: len(ordinary) // 2])
    yield Case("PNG of 60,000 x 60,000", png(60_000, 60_000, 2, rows=100))
    yield Case("PNG of 20,000 x 20,000", png(20_000, 20_000, 2))
    yield Case("PNG of 1 x 40,000,000", png(1, 40_000_000, 2, rows=1000))
    yield Case(
        "PNG of 80 MP with transparency", png(10_000, 8_000, 6), good_in_commands=True
    )  # the service has no memory for it
    yield Case("ASCII PPM", b"P3 5000 2000 255\n" + b"1 " * (BODY // 2 - 100))
    yield Case(
        "JPEG of 7 million comments", ordinary[:2] + b"\xff\xfe\0\2" * 7_000_000 + ordinary[2:]
    )
    yield Case("JPEG of 28 MB of 0xFF", ordinary[:2] + b"\xff" * 28_000_000 + ordinary[2:])
    profile = zlib.compress(bytes(1 << 20), 9)
    profiles = chunk(b"iCCP", b"a\0\0" + profile) * 280
    yield Case("PNG of 280 color profiles", png(64, 64, 2, before=profiles))
    yield Case("WebP with a profile of 28 MB", webp_with_profile(0), good=True)
    for path in sorted(DAMAGED.glob("*.heic")):
        yield Case(f"damaged HEIC {path.stem}", path.read_bytes())
    yield Case("PNG of 80 MP", png(10_000, 8_000, 2), good=True)
    yield Case("JPEG of 80 MP", jpeg(10_000, 8_000), good=True)
    yield Case("progressive JPEG of 80 MP", jpeg(10_000, 8_000, progressive=True), good=True)
    yield Case("JPEG of 28 MP of noise", noise(6500, 4400, "JPEG", quality=85), good=True)
    yield Case("PNG of 7 MP of noise", noise(3000, 2400, "PNG", compress_level=1), good=True)
    yield Case("WebP of 20 MP", noise(5400, 3700, "WEBP", quality=40, method=0), good=True)
    yield Case("JPEG 2000 of 12 MP", noise(4000, 3000, "JPEG2000", quality_layers=[20]), good=True)


def attacks(files: list[Case]) -> dict[str, Attack]:
    """Return what all clients do at the same time, by its name."""
    content = {case.name: case.content for case in files}
    slow = [
        content[name]
        for name in ("WebP of 20 MP", "JPEG 2000 of 12 MP", "PNG of 80 MP",
                     "progressive JPEG of 80 MP")
    ]  # fmt: skip
    quick = content["PNG of 7 MP of noise"]
    crashing = [case.content for case in files if case.name.startswith("damaged")]
    repeated = {
        "send the slowest photos": [[photo] for photo in slow],
        "send four slow photos per request": [slow],
        "send four PNGs of noise per request": [[quick] * 4],
    } | ({"crash decoders": [[photo] for photo in crashing]} if crashing else {})
    return {name: _repeating(requests) for name, requests in repeated.items()} | {
        "hold bodies of 32 MB open": hold_body,
        "send other profiles of 28 MB each": send_profiles,
        "send forms of 48 parts with 4,000 semicolons": raw(semicolons()),
        "send bodies in 330,000 chunks": raw(tiny_chunks()),
    }


def webp_with_profile(number: int) -> bytes:
    """Return a small WebP with a large color profile that is not one; each number has its own."""
    stream = io.BytesIO()
    profile = struct.pack(">I", number) + bytes(28_000_000)
    Image.new("RGB", (64, 64)).save(stream, "WEBP", icc_profile=profile)
    return stream.getvalue()


def send_profiles(port: int, end: float) -> list[Response]:
    """Send photos with large color profiles, each one for the first time."""
    responses: list[Response] = []
    while time.perf_counter() < end:
        number = (threading.get_ident() + len(responses)) & 0xFFFFFFFF
        responses.append(send(port, webp_with_profile(number)))
    return responses


def semicolons() -> bytes:
    """Return a form whose headers take quadratic time to parse."""
    value = 'form-data; name="file"; filename="x"; y="' + ";" * 4000
    part = f"\r\n--b\r\nContent-Disposition: {value}\r\n\r\nhi".encode()
    body = part * 48 + b"\r\n--b--"
    return (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def tiny_chunks() -> bytes:
    """Return a request with a body of 0.3 MB in chunks of one byte."""
    return (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        + b"1\r\nx\r\n" * 330_000
        + b"0\r\n\r\n"
    )


def raw(content: bytes) -> Attack:
    """Send bytes repeatedly; a connection that is closed before all are sent has the status 0."""

    def attack(port: int, end: float) -> list[Response]:
        responses: list[Response] = []
        while time.perf_counter() < end:
            start, reply = time.perf_counter(), b""
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=60) as link,
            ):
                link.sendall(content)
                while more := link.recv(4096):
                    reply += more
            code = reply.partition(b'"code":"')[2].partition(b'"')[0].decode()
            status = int(reply[9:12] or b"0")
            responses.append((status, code or "closed", time.perf_counter() - start))
        return responses

    return attack


def _repeating(requests: list[list[bytes]]) -> Attack:
    def attack(port: int, end: float) -> list[Response]:
        responses: list[Response] = []
        while time.perf_counter() < end:
            for photos in requests:
                responses.append(send(port, *photos))
                if responses[-1][0] == 503:
                    time.sleep(0.1)  # an attacker does not wait for Retry-After
        return responses

    return attack


def hold_body(port: int, end: float) -> list[Response]:
    """Send almost all of the largest body, then keep the connection busy; again if it is closed."""
    responses: list[Response] = []
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    while time.perf_counter() < end:
        start = time.perf_counter()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(f"{head}Content-Length: {BODY}\r\n\r\n".encode() + bytes(BODY - 1_000_000))
            link.settimeout(0.5)
            while time.perf_counter() < end:
                link.sendall(bytes(20_000))
                with contextlib.suppress(TimeoutError):
                    reply = link.recv(4096)
                    code = reply.partition(b'"code":"')[2].partition(b'"')[0].decode()
                    status = int(reply[9:12] or b"0")
                    responses.append((status, code, time.perf_counter() - start))
                    break
    return responses


def together(attack: Attack, port: int, seconds: float) -> list[Response]:
    """Run an attack by all clients; return all responses."""
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(CLIENTS) as pool:
        return [
            response
            for responses in pool.map(lambda _: attack(port, end), range(CLIENTS))
            for response in responses
        ]


def run_commands(files: list[Case]) -> list[str]:
    """Print how `anklealign add --dry-run` and `predict` end on the files; return failures."""
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, case in enumerate(files):
            (folder / ("one", "two")[number % 2]).mkdir(exist_ok=True)
            (folder / ("one", "two")[number % 2] / f"{number:02d}.jpg").write_bytes(case.content)
        bad = {
            f"{number:02d}.jpg"
            for number, case in enumerate(files)
            if not (case.good or case.good_in_commands)
        }
        commands = {
            "add": ["add", name, "hostile", "--dry-run"],
            "predict": ["predict", name, "--out", f"{name}.csv"],
        }
        print("| command | exit status | seconds | memory, MB |\n|---|---:|---:|---:|")
        for title, arguments in commands.items():
            start = time.perf_counter()
            command = [sys.executable, "-m", "anklealign", *arguments]
            with tempfile.TemporaryFile("w+") as output:
                process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
                with peak_memory(process.pid) as peak:
                    status = process.wait()
                output.seek(0)
                text = output.read()
            seconds = time.perf_counter() - start
            print(f"| {title} | {status} | {seconds:.1f} | {peak.bytes / 1e6:.0f} |", flush=True)
            missing = sorted(file for file in bad if file not in text)
            if status not in {0, 1} or missing or "Traceback" in text:
                failed.append(f"{title}: status {status}, {missing} not named")
        Path(f"{name}.csv").unlink(missing_ok=True)
    return failed


def jpeg(width: int, height: int, *, progressive: bool = False) -> bytes:
    """Return a JPEG of coarse noise."""
    cells = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cells).resize((width, height)).save(
        stream, "JPEG", quality=90, progressive=progressive
    )
    return stream.getvalue()


def noise(width: int, height: int, kind: str, **options: object) -> bytes:
    """Return a photo of noise of 2 x 2 px."""
    cells = np.random.default_rng(0).integers(0, 256, (height // 2, width // 2, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cells.repeat(2, 0).repeat(2, 1)).save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, color_type: int, rows: int = 0, before: bytes = b"") -> bytes:
    """Return a black PNG of color type 2 (RGB) or 6 (RGBA), with all rows or only `rows`.

    `before` are chunks before those of the pixels.
    """
    row = bytes(1 + width * {2: 3, 6: 4}[color_type])
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(rows or height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    content = kind + data
    return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))


def send_one(port: int, photo: bytes) -> list[Response]:
    """Send a photo; return a list of its response."""
    return [send(port, photo)]


def send(port: int, *photos: bytes) -> Response:
    """Send photos as a form; return the status, the problem code or '', and the seconds."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    start = time.perf_counter()
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    body = b"".join(head + photo + b"\r\n" for photo in photos) + b"--b--\r\n"
    try:
        link.request("POST", "/predict", body, kind)
        response = link.getresponse()
        content = json.loads(response.read())
    except OSError as error:
        return 0, type(error).__name__, time.perf_counter() - start
    finally:
        link.close()
    return response.status, content.get("code", ""), time.perf_counter() - start


@contextmanager
def other_client(port: int, photo: bytes) -> Iterator[OtherClient]:
    """Run another client that classifies a photo repeatedly until the context exits."""
    other, end = OtherClient(), threading.Event()

    def run() -> None:
        while not end.is_set():
            status, _, seconds = send(port, photo)
            other.seconds.append(seconds)
            other.statuses[status] += 1
            time.sleep(0.05)

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


@contextmanager
def peak_memory(pid: int) -> Iterator[Peak]:
    """Sample the memory of a process and its descendants until the context exits."""
    peak, end = Peak(), threading.Event()

    def run() -> None:
        while not end.wait(0.05):
            peak.bytes = max(peak.bytes, memory(pid))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield peak
    finally:
        end.set()
        thread.join()


def memory(pid: int) -> int:
    """Return the anonymous and shared memory of a process and its descendants in bytes.

    Pages that several processes share count once (proc(5), smaps_rollup).
    """
    total = 0
    for process in (pid, *children(pid)):
        with contextlib.suppress(OSError):  # it has ended
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    return total


def format_size(content: bytes) -> str:
    """Return the size of a file as text."""
    if len(content) < 1e5:
        return f"{len(content):,} bytes"
    return f"{len(content) / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
