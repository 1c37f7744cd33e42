"""Serve the API and the web page from one process on one port.

    python -m service

ServiceSettings come from environment variables (settings.py). After SIGTERM or Ctrl-C, the service
finishes pending requests and exits with status 0 within 5 s. If it cannot start, it prints one line
and exits with status 1.
"""

import gc
import json
import os
import signal
import socket
import sys
import warnings
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import app, observability, problems
from service.settings import ServiceSettings, from_environment

# Together with the last work of the threads, less than the 5 s that a host waits before SIGKILL.
DRAIN_SECONDS = 4
# Timeout for the headers of a request, and for the next request on a keep-alive connection.
HEADER_SECONDS = 10
# Time to read and discard the rest of a rejected body. If the connection closed at once, the client
# would see a reset instead of the response; if it stayed open, the client could send gigabytes.
LINGER_SECONDS = 2


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with timeouts for clients that never complete a request."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvicorn's signature
        """Start the timeout for the first request of a connection."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            HEADER_SECONDS, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Process bytes; only complete request headers stop the timeout."""
        self.conn.receive_data(data)
        self.handle_events()

    def on_response_complete(self) -> None:
        """Continue with the next request, or start the timeout for the rest of a rejected body."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = self.loop.call_later(
                LINGER_SECONDS, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP with problem details, unless a response has already started."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        content = json.dumps(problems.problem_body("bad_request", msg, "")).encode()
        headers = [
            ("content-type", problems.MEDIA_TYPE),
            ("content-length", str(len(content))),
            ("connection", "close"),
        ]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=content)):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()


def main() -> int:
    """Serve until a signal arrives; return the exit status."""
    try:
        settings = from_environment()
        predictor, engine = app.load(settings)
        application = app.create(settings, predictor, engine)
        listener = listen(settings)
    except (ValueError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    tune_runtime()
    observability.log_to_stdout()
    # Pillow warns about broken metadata; Python keeps the text of every distinct warning in memory.
    warnings.simplefilter("ignore")
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn replaces these handlers and raises the signal again after its shutdown.
        signal.signal(number, lambda *_: None)
    address = f"http://{settings.host}:{listener.getsockname()[1]}/"
    observability.log.info("serving", extra={"log_fields": {"address": address, "engine": engine}})
    server(application).run([listener])
    return 0


def tune_runtime() -> None:
    """Reduce garbage collection and thread switching delays: some 4% more throughput.

    Freeze all loaded objects, because they live until exit, and collect garbage less often. A
    thread that returns from a decoder or the network requests the GIL after 1 ms instead of 5 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    sys.setswitchinterval(0.001)


def listen(settings: ServiceSettings) -> socket.socket:
    """Return a listening socket for the configured host and port.

    Raises:
        ValueError: The port is in use or not permitted, or the host is not a local address.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"{settings.host} port {settings.port}: {error.strerror}; change ANKLEALIGN_PORT or "
            "ANKLEALIGN_HOST"
        ) from None


def server(application: ASGIApp) -> uvicorn.Server:
    """Return a uvicorn server for an application; run it with a list of sockets."""
    config = uvicorn.Config(
        application,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=HEADER_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return uvicorn.Server(config)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # sys.exit would wait for threads, and a decoder cannot be interrupted in a huge photo.
    os._exit(status)
