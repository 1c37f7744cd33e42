"""uvicorn's HTTP/1.1 protocol with timeouts for clients that never complete a request."""

import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import problems

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
