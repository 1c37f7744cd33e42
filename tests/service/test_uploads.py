"""Tests of bad input: a 4xx with a reason within a second, or a limit; other clients are served."""

import asyncio
import contextlib
import resource
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz import mutate
from service.problems import ProblemError
from service.protocol import FREE_PIECES
from service.uploads import Upload, UploadReader, parse_content_type, parse_form
from tests.io.test_decode import good_files
from tests.service.conftest import (
    HttpResponse,
    Served,
    form,
    photo,
    rounded,
    serving,
    settings_for,
)

pytestmark = pytest.mark.timing


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header announces more pixels than it contains."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" * (width + 1) * 100, 9))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


def ask(service: Served, case: str) -> HttpResponse:
    jpeg, (body, kind) = photo(), form(photo())
    cases = {
        "no body": (b"", "image/jpeg"),
        "no part": (b"--edge--\r\n", kind),
        "empty file": form(b""),
        "text": form(b"This is a text.\n"),
        "truncated": form(jpeg[:-40]),
        "text as image/jpeg": (b"This is a text.\n", "image/jpeg"),
        "wrong type": (b'{"file": 1}', "application/json"),
        "form-urlencoded": (jpeg, "application/x-www-form-urlencoded"),
        "60,000 x 60,000": form(png_header(60_000, 60_000)),
        "20,000 x 20,000": (png_header(20_000, 20_000), "image/png"),
        "100 MB": (b"\xff\xd8\xff" + bytes(100_000_000), "image/jpeg"),
        "thousand parts": form(*[b"x"] * 1000),
        "many photos": form(*[jpeg] * 17),
        "wrong field": form(jpeg, field="photo"),
        "no boundary": (body, "multipart/form-data"),
        "another boundary": (body, "multipart/form-data; boundary=other"),
        "cut form": (body[:-10], kind),
        "part without headers": (b"--edge\r\nx\r\n--edge--\r\n", kind),
    }
    content, content_type = cases[case]
    return service.request("POST", "/predict", content, Content_Type=content_type)


CASES = {
    "no body": (400, "no_file"),
    "no part": (400, "no_file"),
    "empty file": (422, "zero_bytes"),
    "text": (415, "not_an_image"),
    "truncated": (422, "truncated"),
    "text as image/jpeg": (415, "not_an_image"),
    "wrong type": (415, "wrong_type"),
    "form-urlencoded": (415, "wrong_type"),
    "60,000 x 60,000": (413, "too_large"),
    "20,000 x 20,000": (413, "too_large"),
    "100 MB": (413, "upload_too_large"),
    "thousand parts": (400, "too_many_files"),
    "many photos": (400, "too_many_files"),
    "wrong field": (400, "wrong_field"),
    "no boundary": (400, "bad_form"),
    "another boundary": (400, "bad_form"),
    "cut form": (400, "bad_form"),
    "part without headers": (400, "bad_form"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_rejected_with_its_code_within_a_second(service: Served, case: str) -> None:
    response = ask(service, case)
    assert (response.status, response.json["code"]) == CASES[case]
    assert response.json["detail"]
    assert response.seconds < 1
    assert service.predict(photo()).status == 200


def read_head(link: socket.socket) -> bytes:
    link.settimeout(10)
    received = b""
    while b"\r\n\r\n" not in received:
        more = link.recv(4096)
        if not more:
            break
        received += more
    return received


def test_an_endless_chunked_body_is_rejected_at_the_limit(service: Served) -> None:
    chunk = b"%x\r\n%s\r\n" % (1 << 16, bytes(1 << 16))
    with socket.create_connection(("127.0.0.1", service.port)) as link:
        link.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(66):  # 4.3 MB, just over the limit; the response arrives before the end
            link.sendall(chunk)
        start = time.perf_counter()
        head = read_head(link)
        assert head.startswith(b"HTTP/1.1 413")
        assert time.perf_counter() - start < 1
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            while time.perf_counter() - start < 8:
                link.sendall(chunk)
        assert time.perf_counter() - start < 5


def test_a_slow_upload_times_out_and_does_not_block_other_requests(service: Served) -> None:
    data = photo()
    with socket.create_connection(("127.0.0.1", service.port)) as link:
        link.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: %d\r\n\r\n" % len(data)
        )
        start = time.perf_counter()
        link.setblocking(False)
        received = b""
        for byte in data:
            link.send(bytes([byte]))
            assert service.predict(photo(1)).seconds < 1
            time.sleep(0.1)
            try:
                received = link.recv(4096)
                break
            except BlockingIOError:
                pass
    assert received.startswith(b"HTTP/1.1 408")
    # The upload timeout of this service is 2 s.
    assert 1.5 < time.perf_counter() - start < 4


def test_invalid_http_is_a_problem(service: Served) -> None:
    for sent in (b"\x16\x03\x01\x02\0\x01\0\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET\r\n\r\n"):
        response = service.raw(sent)
        assert response.startswith(b"HTTP/1.1 400")
        assert b'"bad_request"' in response
    broken = service.raw(
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n"
    )
    assert broken.startswith(b"HTTP/1.1 400")


def test_an_idle_connection_is_closed(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.protocol.HEADER_SECONDS", 0.5)
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as link:
        link.sendall(b"GET / HT")
        time.sleep(0.3)
        link.sendall(b"TP/1.1\r\nX: ")  # single bytes do not stop the timeout
        assert link.recv(100) == b""
    assert time.perf_counter() - start < 3


def test_a_hostile_form_does_not_block_the_event_loop() -> None:
    """A byte-by-byte parser needs half a minute for each of these forms."""
    for filling in (b"\r\n--edg" * 500_000, b"\r" * 4_000_000, b"-" * 4_000_000):
        body, _ = form(filling)
        start = time.perf_counter()
        assert parse_form(body, b"edge", 16) == [filling]
        assert time.perf_counter() - start < 0.5


def test_parts_that_are_not_files_are_ignored(service: Served) -> None:
    token = {"csrf_token": "abc", "comment": "--edgy\n", "dzuuid": "1"}
    body, kind = form(photo(1), photo(2), fields=token)
    response = service.request("POST", "/predict", body, Content_Type=kind)
    assert response.status == 200
    alone = service.predict(photo(1), photo(2))
    actual, expected = (
        [rounded(prediction) for prediction in answer.json["predictions"]]
        for answer in (response, alone)
    )
    assert actual == expected
    many = {f"field{n}": "x" for n in range(33 + 16)}
    for fields, code in ((token, "no_file"), (many, "too_many_files")):
        body, kind = form(fields=fields)
        response = service.request("POST", "/predict", body, Content_Type=kind)
        assert (response.status, response.json["code"]) == (400, code)


def test_parse_form_returns_the_exact_bytes_of_each_photo() -> None:
    several = [photo(1), b"\r\n--edgy\r\n\r\n", b"", bytes(range(256)), b"x--edge"]
    body, _ = form(*several)
    assert parse_form(body, b"edge", 16) == several
    assert parse_form(b"a preamble\r\n" + body + b"an epilogue", b"edge", 16) == several


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("multipart/form-data; boundary=x", ("form", b"x")),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', ("form", b"a b")),
        ("image/jpeg", ("raw", b"")),
        ("", ("raw", b"")),
        ("multipart/form-data; boundary=" + "x" * 71, None),
        ("multipart/mixed; boundary=x", None),
        ("text/plain", None),
        ("application/pdf", None),
        (";;;", None),
    ],
)
def test_parse_content_type_distinguishes_forms_from_photos(
    content_type: str, expected: tuple[str, bytes] | None
) -> None:
    if expected:
        assert parse_content_type({"content-type": content_type}) == expected
    else:
        with pytest.raises(ProblemError):
            parse_content_type({"content-type": content_type})


def test_uploads_share_bounded_memory(model_folder) -> None:
    small = settings_for(model_folder, max_upload_mb=1, max_memory_mb=1, upload_seconds=5)
    with serving(small) as served:
        head = (
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 800000\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", served.port)) as first:
            first.sendall(head + bytes(700_000))
            time.sleep(0.3)
            refused = served.request("POST", "/predict", bytes(700_000), Content_Type="image/jpeg")
            assert (refused.status, refused.json["code"]) == (503, "busy")
            assert refused.headers["retry-after"] == "1"
        # The first client has disconnected; its memory is released.
        time.sleep(0.3)
        response = served.request("POST", "/predict", bytes(700_000), Content_Type="image/jpeg")
        assert response.json["code"] == "not_an_image"


def fuzz(service: Served, count: int, seed: int) -> Counter[str]:
    """Send damaged files as forms and raw bodies; return the number of each outcome."""
    files = list(good_files().values())
    rng = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter()
    service.predict(*files[:3])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lock = threading.Lock()

    def send(numbers: range) -> None:
        for number in numbers:
            with lock:
                data = mutate(rng, files[number % len(files)], files)
            body, kind = form(data) if number % 2 else (data, "image/jpeg")
            if number % 10 == 1:  # the form itself is damaged
                with lock:
                    body = mutate(rng, body, [body])
            response = service.request("POST", "/predict", body, Content_Type=kind)
            assert response.status < 500, (number, response.body)
            with lock:
                outcomes["read" if response.status == 200 else response.json["code"]] += 1

    threads = [threading.Thread(target=send, args=(range(i, count, 4),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(dict(outcomes), f"{grown >> 10} MiB grown")
    assert outcomes.total() == count
    assert grown < 1 << 20, f"{grown} KiB"
    return outcomes


def test_300_damaged_files_are_classified_or_rejected(service: Served) -> None:
    assert len(fuzz(service, 300, seed=1)) >= 4


@pytest.mark.slow
def test_10_000_damaged_files_are_classified_or_rejected_without_memory_leak(
    service: Served,
) -> None:
    fuzz(service, 2000, seed=2)
    before = resident_bytes()
    fuzz(service, 8000, seed=3)
    assert resident_bytes() - before < 100 << 20


def resident_bytes() -> int:
    """Return the resident memory of this process, which runs the service, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("multipart/form-data; boundary*=idna'en'%ff", b""),
        ("multipart/form-data; boundary*=nonsense'en'edge", b""),
        ("multipart/form-data; boundary=edge", b"name*=utf-7'en'%2B%ff%fe"),
        ("multipart/form-data; boundary=edge", b"name*=idna'en'%ff%fe"),
        ("multipart/form-data; boundary=edge", b"name*=nonsense'en'file"),
        ("multipart/form-data; boundary=edge", b"name=\"file\"; filename*=idna'en'%ff"),
    ],
)
def test_headers_in_broken_character_sets_are_bad_forms(
    service: Served, kind: str, part: bytes
) -> None:
    head = b"--edge\r\nContent-Disposition: form-data; " + part
    body = head + b"\r\n\r\nx\r\n--edge--\r\n"
    response = service.request("POST", "/predict", body, Content_Type=kind)
    assert 400 <= response.status < 500
    assert response.json["code"] in {"bad_form", "no_file", "not_an_image"}


def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(service: Served) -> None:
    received = service.raw(
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert received.startswith(b"HTTP/1.1 400")
    assert received.count(b"HTTP/1.1") == 1
    assert service.predict(photo()).status == 200


def open_upload(port: int, size: int, sent: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    link.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + bytes(sent))
    return link


def test_clients_that_hold_large_bodies_open_do_not_shut_out_others(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.uploads.EVICTION_SECONDS", 0.3)
    with serving(settings_for(model_folder, max_upload_mb=4, max_memory_mb=16)) as served:
        holders = [open_upload(served.port, 4_000_000, 3_999_000) for _ in range(4)]
        time.sleep(0.8)
        large = photo(
            1, (1000, 800), "PNG", compress_level=0
        )  # 2.4 MB: takes the memory of a holder
        for _ in range(3):
            assert served.predict(large).status == 200
            for link in holders[:]:
                link.sendall(b"x")  # they stay busy
        heads = [head for link in holders if (head := arrived(link))]
        assert heads
        assert all(head.startswith(b"HTTP/1.1 503") for head in heads)
        for link in holders:
            link.close()
        assert served.predict(photo()).status == 200


def test_a_small_upload_ends_one_that_takes_more_than_its_share(model_folder: Path) -> None:
    with serving(settings_for(model_folder, max_upload_mb=4, max_memory_mb=12)) as served:
        holders = [open_upload(served.port, 4_000_000, 3_990_000) for _ in range(3)]
        time.sleep(0.3)  # below EVICTION_SECONDS
        assert served.predict(photo(1, (400, 300), "PNG", compress_level=0)).status == 200
        heads = [head for link in holders if (head := arrived(link))]
        assert len(heads) == 1
        assert heads[0].startswith(b"HTTP/1.1 503")
        for link in holders:
            link.close()


def test_bodies_of_requests_in_progress_do_not_shut_out_a_small_one(model_folder: Path) -> None:
    reader = UploadReader(settings_for(model_folder, max_upload_mb=4, max_memory_mb=8))
    small, large = (Upload(0.0, asyncio.Timeout(None), size) for size in (100_000, 1_000_000))
    reader._uploads |= {small, large}
    reader._held = 8_000_000  # complete bodies, whose photos are being decoded
    reader._make_room(100_000, small, 0.0)
    with pytest.raises(ProblemError, match="too many uploads"):
        reader._make_room(100_000, large, 0.0)
    reader._held = 9_000_000  # an eighth more
    with pytest.raises(ProblemError, match="too many uploads"):
        reader._make_room(1, small, 0.0)


SEMICOLONS = b'Content-Disposition: form-data; name="file"; filename="x"; y="' + b";" * 4000


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\r\n--b\r\n".join([b"", *[SEMICOLONS + b"\r\n\r\nhi"] * 40]) + b"\r\n--b--",
         "multipart/form-data; boundary=b"),
        (b"x", 'multipart/form-data; boundary=b; x="' + ";" * 15_000),
    ],
)  # fmt: skip
def test_headers_of_many_parameters_are_refused_before_they_are_parsed(
    service: Served, body: bytes, kind: str
) -> None:
    before = time.process_time()
    response = service.request("POST", "/predict", body, Content_Type=kind)
    assert 400 <= response.status < 500
    assert "parameters" in response.json["detail"]
    assert time.process_time() - before < 0.4  # the parser would take 0.5 and 2 s


def test_a_body_in_tiny_chunks_is_refused_and_in_normal_ones_accepted(service: Served) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    before = time.process_time()
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as link:
        with contextlib.suppress(OSError):  # closed before all of it is sent
            link.sendall(head + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n")
        reply = received_from(link)
    assert reply.startswith(b"HTTP/1.1 400") or not reply  # reset: bytes were left unread
    assert time.process_time() - before < 1  # all chunks take 3 s
    data = photo(1, (400, 300), "PNG", compress_level=0)
    pieces = [data[at : at + 300] for at in range(0, len(data), 300)]
    assert len(pieces) > FREE_PIECES
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    assert service.raw(head + chunks + b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def received_from(link: socket.socket, size: int = 4096) -> bytes:
    try:
        return link.recv(size)
    except OSError:
        return b""


def test_many_idle_connections_do_not_shut_out_others(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.protocol.MAX_CONNECTIONS", 8)
    with contextlib.ExitStack() as stack:
        links = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=5))
            for _ in range(30)
        ]
        assert service.predict(photo()).status == 200
        assert all(received_from(link) == b"" for link in links[:20])  # the oldest are ended


def test_a_client_that_does_not_read_is_disconnected(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.protocol.WRITE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(OSError):
            for _ in range(20):
                link.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
                time.sleep(0.1)
        time.sleep(0.5)
        size = 0
        while data := received_from(link, 1 << 20):
            size += len(data)
    assert size < 2000 * len(service.request("GET", "/openapi.json").body)


def arrived(link: socket.socket) -> bytes:
    link.setblocking(False)
    try:
        return link.recv(4096)
    except OSError:
        return b""


def test_an_upload_below_the_floor_rate_times_out(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.uploads.IDLE_SECONDS", 0.5)
    with open_upload(service.port, 100_000, 50_000) as link:
        start = time.perf_counter()
        reply = b""
        while not reply and time.perf_counter() - start < 5:
            link.sendall(b"x")  # 20 bytes per second
            time.sleep(0.05)
            reply = arrived(link)
        assert reply.startswith(b"HTTP/1.1 408")
        assert time.perf_counter() - start < 1.8  # the limit of the whole upload is 2 s
