"""Every request seen from outside: an id, security headers, one line of log, Prometheus counts.

The log says when, what for, how large, how long and which class. It never holds a photo, a file's
name or an address of a client.
"""

import datetime as dt
import json
import logging
import secrets
import sys
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems

log = logging.getLogger("anklealign.service")

METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16)
# Scripts, styles and requests from here alone; pictures also from what the page itself holds.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# As they are sent: Starlette's own way looks through all headers for each that is added.
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Meters:
    """What Prometheus is told."""

    def __init__(self, classes: Iterable[str]) -> None:
        """Register the meters; each class begins at zero, so that none is missing."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"namespace": "anklealign", "registry": self.registry}
        self.requests = Counter(
            "requests", "Answered requests", ["route", "method", "status"], **own
        )
        self.seconds = Histogram(
            "request_seconds", "From a request to its answer", ["route"], buckets=SECONDS, **own
        )
        self.refused = Counter("problems", "Requests that ended in a problem", ["code"], **own)
        self.photos = Counter("photos", "Classified photos", ["predicted"], **own)
        self.abstained = Counter("abstained", "Photos of which the model was not sure", **own)
        self.waiting = Gauge("photos_waiting", "Photos waiting or worked on", **own)
        self.batch = Histogram("batch_photos", "Photos in a batch", buckets=BATCHES, **own)
        for name in classes:
            self.photos.labels(name)

    def text(self) -> bytes:
        """Return all meters in Prometheus' text format."""
        return generate_latest(self.registry)


class Observed:
    """The application with an eye on it; the outermost of all."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        """Wrap an application."""
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = secrets.token_hex(8)
        note: dict[str, Any] = {}
        state = scope.setdefault("state", {})
        state["id"], state["note"] = request_id, note
        status, size = 0, 0

        async def receive_counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], *RAW_HEADERS]
                headers.append((b"x-request-id", request_id.encode()))
                if all(name != b"cache-control" for name, _ in message["headers"]):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        # Whatever has GET has HEAD (RFC 9110, section 9.1); uvicorn leaves the body out.
        asked = dict(scope) | ({"method": "GET"} if scope["method"] == "HEAD" else {})
        try:
            await self._app(asked, receive_counted, send_marked)
        except Exception:
            # FastAPI's handler has answered already where it could, and hands the error on.
            log.exception("internal", extra={"note": {"id": request_id}})
            if not status:
                note["code"] = "internal"
                await self._apologise(send_marked, request_id)
        finally:
            seconds = time.perf_counter() - start
            self._count(asked.get("route"), scope["method"], status, seconds, note.get("code"))
            line = {
                "id": request_id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "ms": round(seconds * 1e3, 1),
                "bytes": size,
            }
            log.info("request", extra={"note": line | note})

    def _count(
        self, found: object, method: str, status: int, seconds: float, code: str | None
    ) -> None:
        # The route's own path and known methods: clients cannot add label values.
        route = getattr(found, "path", "other")
        method = method if method in METHODS else "other"
        self._meters.requests.labels(route, method, str(status)).inc()
        self._meters.seconds.labels(route).observe(seconds)
        if code:
            self._meters.refused.labels(code).inc()

    @staticmethod
    async def _apologise(send: Send, request_id: str) -> None:
        detail = "nothing is known to be wrong with the request"
        body = json.dumps(problems.body("internal", detail, request_id)).encode()
        headers = [(b"content-type", problems.MEDIA_TYPE.encode())]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and what the record's note holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line."""
        when = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "note", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stdout() -> None:
    """Send the service's and uvicorn's log to standard output, a JSON object a line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("anklealign.service", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
