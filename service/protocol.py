"""uvicorn's HTTP/1.1 protocol, bounded: slow clients, tiny pieces, many connections."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import problems
from service.settings import HEADER_SECONDS

# Time to read and discard the rest of a rejected body. If the connection closed at once, the client
# would see a reset instead of the response; if it stayed open, the client could send gigabytes.
LINGER_SECONDS = 2
# Time without progress after which a client that does not read its response is disconnected.
WRITE_SECONDS = 30
# Connections at a time; each further one ends the one that has been idle for the longest time.
MAX_CONNECTIONS = 512
# Pieces of a body, such as chunks, after which their mean size must be MIN_PIECE bytes. Each takes
# 10 us of the event loop: 330,000 chunks of one byte kept it busy for 5 s. Networks send 500 bytes
# at least.
FREE_PIECES, MIN_PIECE = 1000, 256


class Connection(h11.Connection):
    """h11's connection, which refuses a body in many tiny pieces."""

    _pieces = _bytes = 0

    def next_event(self) -> Any:  # noqa: ANN401 - h11's signature
        """Return the next event.

        Raises:
            h11.RemoteProtocolError: The client does not follow the protocol, or sends tiny pieces.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > FREE_PIECES and self._bytes < self._pieces * MIN_PIECE:
                raise h11.RemoteProtocolError("the body comes in too many tiny pieces")
        return event


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with bounds for clients that take more than their share."""

    _write_limit: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        """Prepare a connection."""
        super().__init__(*arguments, **options)
        self.conn = Connection(h11.SERVER)
        self.idle_since = self.loop.time()

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvicorn's signature
        """Start the timeout for the first request; end an idle connection if there are many."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            HEADER_SECONDS, self.timeout_keep_alive_handler
        )
        if len(self.connections) > MAX_CONNECTIONS:
            idle = [
                other for other in self.connections
                if isinstance(other, Protocol) and other is not self and other.is_idle
            ]  # fmt: skip
            min(idle, key=lambda other: other.idle_since, default=self).transport.abort()

    @property
    def is_idle(self) -> bool:
        """Return True if no request is in progress, and the connection is not being closed."""
        waits = self.cycle is None or self.cycle.response_complete
        return waits and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout for a client that does not read."""
        super().connection_lost(exc)
        self._stop_write_limit()

    def pause_writing(self) -> None:
        """Start the timeout for a client that does not read."""
        super().pause_writing()
        self._write_limit = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timeout for a client that does not read."""
        super().resume_writing()
        self._stop_write_limit()

    def _stop_write_limit(self) -> None:
        if self._write_limit is not None:
            self._write_limit.cancel()
            self._write_limit = None

    def data_received(self, data: bytes) -> None:
        """Process bytes; only complete request headers stop the timeout."""
        self.conn.receive_data(data)
        self.handle_events()

    def on_response_complete(self) -> None:
        """Continue with the next request, or start the timeout for the rest of a rejected body."""
        self.idle_since = self.loop.time()
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
