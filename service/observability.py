"""Observability of requests: request IDs, security headers, JSON log lines, Prometheus metrics.

The log contains time, route, body size, duration and predicted class. It never contains photos,
file names or client addresses.
"""

import json
import secrets
import time
from collections.abc import Collection, Mapping
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
from service.logs import log

METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"}
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16)
# Scripts, styles and requests are restricted to this origin; images may be blob: and data: URLs.
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
# Pre-encoded: Starlette's MutableHeaders scans all headers for each one that is added.
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Metrics:
    """Prometheus metrics of the service.

    Attributes:
        several: Whether there are several models; photos then have a label with the model's name.
    """

    def __init__(self, models: Mapping[str, Collection[str]]) -> None:
        """Register the metrics from the models' classes, whose counters start at zero."""
        self.several = len(models) > 1
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        options: dict[str, Any] = {"namespace": "anklealign", "registry": self.registry}
        self.requests = Counter(
            "requests", "Completed requests", ["route", "method", "status"], **options
        )
        self.seconds = Histogram(
            "request_seconds", "Request duration in seconds", ["route"], buckets=SECONDS, **options
        )
        self.problems = Counter("problems", "Requests that ended in a problem", ["code"], **options)
        labels = ["model", "predicted"] if self.several else ["predicted"]
        self._photos = Counter("photos", "Classified photos", labels, **options)
        self.abstained = Counter("abstained", "Photos for which the model abstained", **options)
        self.unlike = Counter("unlike", "Photos unlike the training photos", **options)
        self.waiting = Gauge("photos_waiting", "Photos queued or in progress", **options)
        self.batch = Histogram("batch_photos", "Photos per batch", buckets=BATCHES, **options)
        for name, classes in models.items():
            for predicted in classes:
                self.count_photo(name, predicted, 0)

    def count_photo(self, model: str, predicted: str, photos: int = 1) -> None:
        """Count photos for which a model predicts a class."""
        self._photos.labels(*[model] * self.several, predicted).inc(photos)

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)


class ObservabilityMiddleware:
    """Outermost ASGI middleware: adds headers, and logs and counts every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, then log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = secrets.token_hex(8)
        log_fields: dict[str, Any] = {}
        state = scope.setdefault("state", {})
        state["id"], state["log_fields"] = request_id, log_fields
        status, size = 0, 0

        async def receive_counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], *RAW_HEADERS]
                headers.append((b"x-request-id", request_id.encode()))
                if all(name != b"cache-control" for name, _ in message["headers"]):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        # Routes with GET also support HEAD (RFC 9110, section 9.1); uvicorn omits the body.
        inner_scope = dict(scope) | ({"method": "GET"} if scope["method"] == "HEAD" else {})
        try:
            await self._app(inner_scope, receive_counted, send_with_headers)
        except Exception:  # noqa: BLE001 - logged
            # FastAPI re-raises the exception after its handler has sent a response.
            log.exception("internal", extra={"log_fields": {"id": request_id}})
            if not status:
                log_fields["code"] = "internal"
                await self._send_internal_error(send_with_headers, request_id)
        finally:
            seconds = time.perf_counter() - start
            code = log_fields.get("code")
            self._count(inner_scope.get("route"), scope["method"], status, seconds, code)
            line = {
                "id": request_id,
                "method": scope["method"][:20],
                "path": scope["path"][:200],
                "status": status,
                "ms": round(seconds * 1e3, 1),
                "bytes": size,
            }
            log.info("request", extra={"log_fields": line | log_fields})

    def _count(
        self, matched: object, method: str, status: int, seconds: float, code: str | None
    ) -> None:
        # Route paths and known methods only: clients must not be able to create label values.
        route = getattr(matched, "path", "other")
        method = method if method in METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if code:
            self._metrics.problems.labels(code).inc()

    @staticmethod
    async def _send_internal_error(send: Send, request_id: str) -> None:
        problem = problems.problem_body("internal", problems.INTERNAL_DETAIL, request_id)
        body = json.dumps(problem).encode()
        headers = [(b"content-type", problems.MEDIA_TYPE.encode())]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": body})
