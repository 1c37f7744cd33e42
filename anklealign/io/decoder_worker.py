"""The worker process of `decoder_pool`: decode photos from a socket until it closes.

    python -m anklealign.io.decoder_worker      # standard input is the socket

The kernel limits the memory of a worker (RLIMIT_AS) and the CPU time of each photo (ITIMER_PROF,
whose signal ends a process even inside a library). JPEG, PNG and WebP of usual size are decoded in
the worker itself, because a fork takes a third of their time. Every other photo gets a child of its
own, which costs 2 ms: no decoder leaves a damaged heap to the next photo, and its memory returns to
the system.

Each message is a head of HEAD bytes, a JSON object and raw bytes. A request has the photo's bytes.
The reply is `photo` with the pixels of the stored square, `error`, or `ask` with the cost of a
photo that is not quick, whose decoding then waits for `go`, and ends if that is false.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from anklealign.io import decode

HEAD = struct.Struct("<II")  # bytes of the JSON object, bytes of the raw data
QUICK_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
# CPU seconds of a photo's header, and of its pixels. On a slow core, HEIC takes 0.1 s and JPEG 2000
# 0.15 s per megapixel. Measured in CPU time, so that other load decides nothing.
HEADER_SECONDS = 2.0
DECODE_SECONDS = 2.0
SECONDS_PER_MEGAPIXEL = 0.25
# Address space that libwebp reserves for two frames of the largest WebP when it opens one, before
# its size is known here. It is not touched.
WEBP_HEADER_BYTES = 2 * 4 * 16_383**2
# Address space on top of a photo's bytes and its estimated cost: profiles, tables, arenas.
SPARE_BYTES = 256 << 20


def main() -> None:
    """Serve requests until the other end closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    link = socket.socket(fileno=sys.stdin.fileno())
    send(link, {"ready": True})
    while (message := receive(link)) is not None:
        request, data = message[0], bytes(message[1])
        del message  # one copy of a large file
        respond(link, request, data)
        del data


def respond(link: socket.socket, request: dict[str, Any], data: bytes) -> None:
    """Reply to a request."""
    if data.startswith(QUICK_SIGNATURES):
        # Not in the handler: the exception holds the opened photo, 312 MB of a WebP of 39 MP.
        with contextlib.suppress(NotQuick):
            decode_photo(link, request, data, quick_only=True)
            return
    in_child(link, lambda: decode_photo(link, request, data))


class NotQuick(Exception):  # noqa: N818 - not an error
    """The photo is decoded in a child."""


def in_child(link: socket.socket, work: Callable[[], None]) -> None:
    """Run `work`, which sends the reply, in a child process; reply with an error if it dies."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        send(link, error_of_signal(os.WTERMSIG(status)))


def error_of_signal(number: int) -> dict[str, Any]:
    """Return the error for a process that a signal ended.

    The signal of a crash is not named: a damaged heap raises one or the other.
    """
    if number == signal.SIGPROF:
        return {"error": "too_slow", "message": "decoding exceeds the limit of CPU time"}
    return {"error": "decoder_crashed", "message": "the decoder process crashed"}


def decode_photo(
    link: socket.socket, request: dict[str, Any], data: bytes, *, quick_only: bool = False
) -> None:
    """Decode the photo of a request and send it, or its error.

    Raises:
        NotQuick: The photo is not quick, and `quick_only` is True; nothing is sent.
    """

    def admit(cost: decode.Cost) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if not cost.quick:
            if quick_only:
                raise NotQuick
            send(link, {"ask": cost._asdict()})
            answer = receive(link)
            if answer is None or not answer[0]["go"]:
                os._exit(0)
        limit_memory(2 * len(data) + cost.memory)
        seconds = DECODE_SECONDS + SECONDS_PER_MEGAPIXEL * cost.megapixels
        signal.setitimer(signal.ITIMER_PROF, seconds)

    limit_memory(2 * len(data) + (WEBP_HEADER_BYTES if data.startswith(b"RIFF") else 0))
    signal.setitimer(signal.ITIMER_PROF, HEADER_SECONDS)
    size = request["size"]
    pixels: memoryview | bytes = b""
    try:
        photo = decode.open_photo(data, request["max_megapixels"], 2 * size, admit)
        square, box = decode.fit(photo.image, size, request["fit"], request["fill"])
    except decode.PhotoError as error:
        reply: dict[str, Any] = {"error": error.reason, "message": str(error)}
    except MemoryError:
        reply = {"error": "too_large", "message": "not enough memory to resize it"}
    else:
        facts = {key: value for key, value in vars(photo).items() if key != "image"}
        reply, pixels = {"photo": facts | {"box": box}}, square.data.cast("B")
    signal.setitimer(signal.ITIMER_PROF, 0)
    send(link, reply, pixels)


def limit_memory(extra: int) -> None:
    """Allow this process `extra` bytes and SPARE_BYTES on top of its address space at first."""
    if sys.platform != "linux":  # macOS ignores the limit
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_initial_bytes() + extra + SPARE_BYTES, hard))


@cache
def _initial_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def send(link: socket.socket, content: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Send a message.

    Raises:
        OSError: The other end is gone or reads nothing.
    """
    text = json.dumps(content).encode()
    link.sendall(HEAD.pack(len(text), len(data)) + text)
    if data:
        link.sendall(data)


def receive(
    link: socket.socket, seconds: float | None = None
) -> tuple[dict[str, Any], bytearray] | None:
    """Return the next message, or None if the other end has closed the socket.

    Raises:
        TimeoutError: It is not complete after `seconds`.
        ValueError: It is malformed.
    """
    end = None if seconds is None else time.monotonic() + seconds
    head = _receive(link, HEAD.size, end)
    if head is None:
        return None
    text_length, length = HEAD.unpack(head)
    text, data = _receive(link, text_length, end), _receive(link, length, end)
    if text is None or data is None:
        return None
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("a message of a decoder is not an object")
    return content, data


def _receive(link: socket.socket, length: int, end: float | None) -> bytearray | None:
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        if end is not None:
            link.settimeout(max(0.001, end - time.monotonic()))
        count = link.recv_into(view[done:])
        if not count:
            return None
        done += count
    return data


if __name__ == "__main__":
    main()
