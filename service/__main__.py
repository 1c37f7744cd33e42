"""One process on one port: the page at /, the API beside it.

    python -m service

Settings come from the environment (settings.py). Ends 0 after SIGTERM or Ctrl-C, with what was in
flight finished, within 5 s; ends 1 after one line when it cannot start.
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

from service import app, observability, problems, settings

# Together with the threads' last work below the 5 s that a host waits before it kills.
DRAIN_SECONDS = 4
# A request's headers, and the next request on a kept connection, must have come by then.
HEADER_SECONDS = 10
# For which the rest of a refused body is read and dropped: closed at once, the sender would see a
# reset in place of the reason; left open, it could send gigabytes.
LINGER_SECONDS = 2


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with an end to connections on which nobody gets to the point."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvicorn's signature
        """Give a connection its time until a first request."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            HEADER_SECONDS, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Take bytes; only a request's complete headers stop the clock, not any byte."""
        self.conn.receive_data(data)
        self.handle_events()

    def on_response_complete(self) -> None:
        """Go on to the next request, or let what is left of a refused body run out."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = self.loop.call_later(
                LINGER_SECONDS, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP by problem details, unless an answer is on its way."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        content = json.dumps(problems.body("bad_request", msg, "")).encode()
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
    """Serve until told to stop; return the exit status."""
    try:
        chosen = settings.read(os.environ)
        predictor, engine = app.load(chosen)
        application = app.create(chosen, predictor, engine)
        listener = listen(chosen)
    except (ValueError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    favour_requests()
    observability.log_to_stdout()
    # Pillow's on broken metadata: Python would keep the text of each for ever, to say it only once.
    warnings.simplefilter("ignore")
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn puts its own in their place, and raises the signal again when it has finished.
        signal.signal(number, lambda *_: None)
    address = f"http://{chosen.host}:{listener.getsockname()[1]}/"
    observability.log.info("serving", extra={"note": {"address": address, "engine": engine}})
    server(application).run([listener])
    return 0


def favour_requests() -> None:
    """Keep Python's own housekeeping out of the way: some 4 % more requests are answered.

    What is loaded by now stays to the end, so the garbage collector need not look through it, nor
    at every few requests. A thread that comes back from a decoder or the network asks the others
    for Python's lock after 1 ms instead of 5.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    sys.setswitchinterval(0.001)


def listen(chosen: settings.Settings) -> socket.socket:
    """Return a socket on the chosen port.

    Raises:
        ValueError: The port is taken or not ours, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in chosen.host else socket.AF_INET
    try:
        return socket.create_server((chosen.host, chosen.port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"{chosen.host} port {chosen.port}: {error.strerror}; choose another by "
            "ANKLEALIGN_PORT or ANKLEALIGN_HOST"
        ) from None


def server(application: ASGIApp) -> uvicorn.Server:
    """Return the server of an application, which is to be run on a socket."""
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
    # Not sys.exit: it would wait for threads, and a decoder in a huge photo cannot be interrupted.
    os._exit(status)
