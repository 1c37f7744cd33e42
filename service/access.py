"""Access to the service: hosts, API keys, and limits of each client.

Everything is off by default, for a service on this machine; ANKLEALIGN_ACCESS=public turns it on.
The static page and the health probes need no key.
"""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.problems import ProblemError
from service.settings import ServiceSettings

HEALTH = "/health/"
KEYLESS = (HEALTH, "/page/")
# Clients whose recent requests are remembered, some 300 bytes each.
MAX_CLIENTS = 10_000


@dataclass
class Client:
    """A client's requests in progress, and its allowance of further ones (a token bucket)."""

    allowance: float
    updated: float
    active: int = 0


class AccessMiddleware:
    """ASGI middleware that admits a request or answers with a problem."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, keys: Sequence[str]) -> None:
        """Start without clients; no key is required if there are none."""
        self._app = app
        self._keys = [_digest(key) for key in keys]
        self._hosts = settings.host_names
        self._proxies = settings.proxy_networks
        self._rate, self._requests = settings.limits
        self._clients: OrderedDict[str, Client] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            client = self._admit(scope)
        except ProblemError as error:
            response = problems.handle_exception(Request(scope), error)
            await response(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if client is not None:
                client.active -= 1

    def _admit(self, scope: Scope) -> Client | None:
        """Return the client of a request, which counts as in progress, if clients are limited.

        Raises:
            ProblemError: The request is ambiguous, for another host, without a key or over a limit.
        """
        headers, path = Headers(scope=scope), scope["path"]
        if "content-length" in headers and "transfer-encoding" in headers:
            # RFC 9112, section 6.3: a proxy may see another end of this request than this server.
            raise ProblemError(
                "bad_request",
                "the request has both Content-Length and Transfer-Encoding",
                headers={"Connection": "close"},
            )
        health = path.startswith(HEALTH)  # probes use an address
        if self._hosts and not health and _host(headers) not in self._hosts:
            raise ProblemError("wrong_host", f"the host is {headers.get('host', '')[:100]!r}")
        # A preflight request of a browser has no headers of its own.
        keyless = scope["method"] == "OPTIONS" or path == "/" or path.startswith(KEYLESS)
        if self._keys and not keyless and not self._has_key(headers):
            raise ProblemError(
                "unauthorized",
                "send 'Authorization: Bearer KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if health or not (self._rate or self._requests):
            return None
        return self._count(self._address(scope, headers))

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _digest(key.strip() if scheme.lower() == "bearer" else "")
        # All keys are compared, each in constant time.
        return sum(hmac.compare_digest(given, known) for known in self._keys) > 0

    def _address(self, scope: Scope, headers: Headers) -> str:
        """Return the address of the client, which a trusted proxy names."""
        address = str((scope.get("client") or ("",))[0])
        # A proxy appends to the header or adds one of its own.
        named = ",".join(headers.getlist("x-forwarded-for")).split(",")
        named = [part.strip() for part in named]
        while named and named[-1] and self._is_proxy(address):
            address = named.pop()
        return address

    def _is_proxy(self, address: str) -> bool:
        try:
            return any(ip_address(address) in network for network in self._proxies)
        except ValueError:
            return False

    def _count(self, address: str) -> Client:
        """Count a request of a client and return it.

        Raises:
            ProblemError: The client has sent too many requests.
        """
        now = time.monotonic()
        client = self._clients.pop(address, None) or Client(float(self._rate), now)
        self._clients[address] = client  # the most recent is last
        while len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        client.allowance = min(
            self._rate, client.allowance + (now - client.updated) * self._rate / 60
        )
        client.updated = now
        wait = 0.0
        if self._requests and client.active >= self._requests:
            wait = 1.0
        elif self._rate and client.allowance < 1:
            wait = (1 - client.allowance) * 60 / self._rate
        if wait:
            raise ProblemError(
                "too_many_requests",
                f"a client may send {self._rate or 'any number of'} requests per minute and "
                f"{self._requests or 'any number'} at a time",
                headers={"Retry-After": str(int(wait) + 1), "Connection": "close"},
            )
        client.allowance -= 1
        client.active += 1
        return client


def _digest(key: str) -> bytes:
    # Digests have one length, so that a comparison says nothing about the length of a key.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(headers: Headers) -> str:
    """Return the name in the Host header in lower case, without the port."""
    host = headers.get("host", "").lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
