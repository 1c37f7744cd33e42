"""Tests of hosts, API keys and the limits of each client."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.access import MAX_CLIENTS, AccessMiddleware
from service.problems import ProblemError
from service.settings import ServiceSettings, from_environment
from tests.service.conftest import Served, photo, serving, settings_for

pytestmark = pytest.mark.timing
KEYS = ("first-key-0123456789", "second-key-0123456789")


@pytest.fixture(scope="module")
def public(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# of team A\n{KEYS[0]}\n\n{KEYS[1]}  # of team B\n")
    settings = settings_for(
        model_folder, access="public", keys_file=file, hosts="ankle.example, 127.0.0.1"
    )
    with serving(settings) as served:
        yield served


def bearer(key: str) -> str:
    return f"Bearer {key}"


@pytest.mark.parametrize("key", KEYS)
def test_each_key_of_the_file_opens_the_api(public: Served, key: str) -> None:
    assert public.predict(photo(), Authorization=bearer(key)).status == 200
    for path in ("/model", "/metrics", "/openapi.json"):
        assert public.request("GET", path, Authorization=bearer(key)).status == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer x", f"Basic {KEYS[0]}", bearer(KEYS[0][:-1]),
              bearer(KEYS[0] + "x"), bearer(KEYS[0].upper()), bearer("# of team A"), "Bearer \xe9"]
)  # fmt: skip
def test_without_a_key_only_the_page_and_the_probes_are_answered(
    public: Served, value: str
) -> None:
    headers = {"Authorization": value} if value else {}
    refused = public.predict(photo(), **headers)
    assert (refused.status, refused.json["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    for path in ("/model", "/metrics", "/openapi.json", "/nothing"):
        assert public.request("GET", path, **headers).status == 401
    for path in ("/", "/page/page.js", "/health/live", "/health/ready"):
        assert public.request("GET", path, **headers).status == 200


def test_another_host_is_refused_but_for_the_probes(public: Served) -> None:
    key = bearer(KEYS[0])
    for host in ("evil.example", "", "ankle.example.evil"):
        refused = public.request("GET", "/model", Authorization=key, Host=host)
        assert (refused.status, refused.json["code"]) == (421, "wrong_host")
        assert public.request("GET", "/health/live", Host=host).status == 200
    for host in ("ankle.example", "ANKLE.example:8000"):
        assert public.request("GET", "/model", Authorization=key, Host=host).status == 200


def test_public_access_needs_keys_and_hosts_and_limits_clients(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANKLEALIGN_ACCESS", "public")
    with pytest.raises(ValueError, match="public access needs ANKLEALIGN_KEYS_FILE"):
        from_environment()
    monkeypatch.setenv("ANKLEALIGN_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(ValueError, match="public access needs ANKLEALIGN_HOSTS"):
        from_environment()
    monkeypatch.setenv("ANKLEALIGN_HOSTS", "ankle.example")
    settings = from_environment()
    assert settings.limits == (120, 8)
    for content in (None, "", "short\n", "# only a comment\n", "\xe9" * 20):
        if content is not None:
            (tmp_path / "keys").write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match="keys"):
            settings.read_keys()
    monkeypatch.undo()
    assert ServiceSettings().limits == (0, 0)


def middleware(**changed: object) -> AccessMiddleware:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""

    return AccessMiddleware(app, ServiceSettings(**changed), ())


def request(address: str, forwarded: str = "") -> Scope:
    """Return a request; each line of `forwarded` is a header."""
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded.splitlines()]
    return {"type": "http", "method": "GET", "path": "/model", "headers": headers,
            "client": (address, 1)}  # fmt: skip


def test_a_client_over_its_rate_gets_429_until_time_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access, now = middleware(client_rate=60), 1000.0
    # Not time.monotonic itself: the event loop of `public` would sleep until the real time comes.
    monkeypatch.setattr("service.access.time", SimpleNamespace(monotonic=lambda: now))
    for _ in range(60):
        access._admit(request("192.0.2.1"))
    with pytest.raises(ProblemError) as caught:
        access._admit(request("192.0.2.1"))
    assert caught.value.code == "too_many_requests"
    assert int(caught.value.headers["Retry-After"]) >= 1
    access._admit(request("192.0.2.2"))
    now += 1.01
    access._admit(request("192.0.2.1"))
    with pytest.raises(ProblemError):
        access._admit(request("192.0.2.1"))


def test_only_a_trusted_proxy_names_the_client() -> None:
    access = middleware(proxies="10.0.0.0/8")
    for address, forwarded, expected in (
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "1.2.3.4\n203.0.113.9", "203.0.113.9"),  # the proxy added a header
    ):
        scope = request(address, forwarded)
        assert access._address(scope, Headers(scope=scope)) == expected


def test_the_memory_of_clients_is_bounded() -> None:
    access = middleware(client_rate=60)
    for number in range(MAX_CLIENTS + 100):
        access._admit(request(str(number)))
    assert len(access._clients) == MAX_CLIENTS


def test_a_client_over_its_simultaneous_requests_gets_429(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    with serving(settings_for(model_folder, client_requests=2)) as served:
        batcher = "service.batcher.Batcher._predict"
        predict = served.predict

        def wait(self: object, *arguments: object) -> object:
            release.wait(10)
            return original(self, *arguments)

        from service.batcher import Batcher  # noqa: PLC0415

        original = Batcher._predict
        monkeypatch.setattr(batcher, wait)
        with ThreadPoolExecutor(2) as pool:
            pending = [pool.submit(predict, photo(seed)) for seed in range(2)]
            time.sleep(0.5)
            refused = served.request("GET", "/model")
            assert (refused.status, refused.json["code"]) == (429, "too_many_requests")
            assert served.request("GET", "/health/ready").status == 200
            release.set()
            assert [future.result().status for future in pending] == [200, 200]
        assert served.request("GET", "/model").status == 200
