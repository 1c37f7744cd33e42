"""Tests of the bounded queue, the batches and the isolation of slow requests."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from anklealign.inference.predictor import Predictor
from anklealign.io.decoder_pool import Worker
from anklealign.io.pixel_store import Pixels
from service.batcher import SMALL_BYTES
from tests.service.conftest import HttpResponse, Served, form, photo, serving, settings_for

pytestmark = pytest.mark.timing
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slow_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[int]]:
    """Return a function that delays every batch and returns the list of batch sizes."""
    probabilities = Predictor.probabilities
    sizes: list[int] = []

    def slow(seconds: float) -> list[int]:
        def delayed(self: Predictor, pixels: Pixels) -> np.ndarray:
            sizes.append(len(pixels))
            time.sleep(seconds)
            return probabilities(self, pixels)

        monkeypatch.setattr(Predictor, "probabilities", delayed)
        return sizes

    return slow


def together(service: Served, count: int) -> list[HttpResponse]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda seed: service.predict(photo(seed)), range(count)))


def test_waiting_requests_form_batches_and_get_their_own_predictions(
    service: Served, slow_network: Callable[[float], list[int]]
) -> None:
    alone = [service.predict(photo(seed)).json for seed in range(24)]
    sizes = slow_network(0.1)
    responses = together(service, 24)
    assert sum(sizes) == 24
    assert max(sizes) >= 8
    assert max(sizes) <= 16
    for response, expected in zip(responses, alone, strict=True):
        actual, alone_prediction = (a["predictions"][0] for a in (response.json, expected))
        assert actual["predicted"] == alone_prediction["predicted"]
        np.testing.assert_allclose(
            list(actual["probabilities"].values()),
            list(alone_prediction["probabilities"].values()),
            atol=1e-6,
        )


def test_a_batch_grows_while_photos_are_decoded_and_a_single_photo_does_not_wait(
    service: Served, slow_network: Callable[[float], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.batcher.GROW_SECONDS", 10)
    sizes = slow_network(0)
    assert service.predict(photo()).seconds < 5
    open_photo = Predictor.open_photo

    def slow_open(self: Predictor, data: bytes, *args, **options):
        time.sleep(0.05)  # all photos arrive before the first one is decoded
        return open_photo(self, data, *args, **options)

    monkeypatch.setattr(Predictor, "open_photo", slow_open)
    sizes.clear()
    body, kind = form(*(photo(seed) for seed in range(16)))
    assert service.request("POST", "/predict", body, Content_Type=kind).seconds < 5
    # Each batch is a quarter of the pending photos; the last ones are smaller.
    assert sum(sizes) == 16
    assert len(sizes) <= 6


def test_a_full_queue_returns_503_and_health_stays_responsive(
    model_folder: Path, slow_network: Callable[[float], list[int]]
) -> None:
    with serving(settings_for(model_folder, queue=4)) as served:
        slow_network(0.5)
        with ThreadPoolExecutor(20) as pool:
            pending = [pool.submit(served.predict, photo(seed)) for seed in range(20)]
            time.sleep(0.2)
            health = [served.request("GET", "/health/live") for _ in range(5)]
            responses = [future.result() for future in pending]
        assert all(h.status == 200 and h.seconds < 0.3 for h in health)
        statuses = [response.status for response in responses]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 4
        for response in responses:
            if response.status == 503:
                assert response.json["code"] == "busy"
                assert response.headers["retry-after"] == "1"
                assert response.seconds < 0.5
        assert served.predict(photo()).status == 200


def test_a_slow_decode_blocks_only_its_own_thread(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_photo, slow_photo = Predictor.open_photo, photo(99)

    def slow_open(self: Predictor, data: bytes, *args, **options):
        if data == slow_photo:
            time.sleep(1)
        return open_photo(self, data, *args, **options)

    monkeypatch.setattr(Predictor, "open_photo", slow_open)
    other = threading.Thread(target=service.predict, args=(slow_photo,))
    other.start()
    time.sleep(0.1)
    assert service.predict(photo(1)).seconds < 0.5
    assert service.request("GET", "/health/ready").seconds < 0.3
    other.join()


def test_photos_that_are_not_quick_leave_a_decoder_for_small_photos(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, concurrent, peak = Worker.request, 0, 0

    def slow_request(self: Worker, content, data, seconds):
        nonlocal concurrent, peak
        if "go" in content:
            concurrent += 1
            peak = max(peak, concurrent)
            time.sleep(0.3)
            concurrent -= 1
        return request(self, content, data, seconds)

    monkeypatch.setattr(Worker, "request", slow_request)
    heic = (ROOT / "tests/io/data/upright.heic").read_bytes()
    with ThreadPoolExecutor(5) as pool:
        pending = [pool.submit(service.predict, heic) for _ in range(4)]
        time.sleep(0.1)
        assert service.predict(photo(1)).seconds < 1
        assert not all(future.done() for future in pending)
        assert [future.result().status for future in pending] == [200] * 4
    assert peak == 1


def test_large_photos_leave_a_decoder_for_small_ones(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_photo = Predictor.open_photo

    def slow_open(self: Predictor, data: bytes, *args, **options):
        if len(data) > SMALL_BYTES:
            time.sleep(1)
        return open_photo(self, data, *args, **options)

    monkeypatch.setattr(Predictor, "open_photo", slow_open)
    large = photo(1) + bytes(SMALL_BYTES)  # a viewer ignores what follows the photo
    # The two large photos that the other decoders get, and more that wait.
    with (
        serving(settings_for(model_folder, threads=3)) as served,
        ThreadPoolExecutor(6) as pool,
    ):
        pending = [pool.submit(served.predict, large) for _ in range(6)]
        time.sleep(0.2)
        for seed in range(3):
            assert served.predict(photo(seed)).seconds < 0.5
        assert not any(future.done() for future in pending)
        assert [future.result().status for future in pending] == [200] * 6


CRASHING = ROOT.parent / "shared" / "cases" / "heic_damaged"


@pytest.mark.skipif(not CRASHING.is_dir(), reason="../shared/cases is not there")
def test_a_heic_that_crashes_its_decoder_is_one_rejected_photo(service: Served) -> None:
    for path in sorted(CRASHING.glob("*.heic")):
        response = service.predict(path.read_bytes())
        assert (response.status, response.json["code"]) == (422, "decoder_crashed")
        assert service.predict(photo()).status == 200
    assert service.request("GET", "/health/ready").status == 200


def test_killed_decoders_are_replaced(service: Served) -> None:
    assert service.predict(photo(1)).status == 200
    workers = [
        process
        for process in psutil.Process().children()
        if "anklealign.io.decoder_worker" in process.cmdline()
    ]
    assert workers
    for process in workers:
        process.kill()
    psutil.wait_procs(workers, timeout=5)
    assert [service.predict(photo(seed)).status for seed in range(4)] == [200] * 4
    assert service.request("GET", "/health/ready").status == 200


def test_a_service_whose_decoders_cannot_start_is_not_ready(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(settings_for(model_folder)) as served:
        for process in psutil.Process().children():
            if "anklealign.io.decoder_worker" in process.cmdline():
                process.kill()
                process.wait(5)
        monkeypatch.setattr("sys.executable", "/bin/false")
        refused = served.predict(photo())
        assert (refused.status, refused.json["code"]) == (503, "busy")
        assert served.request("GET", "/health/ready").status == 503
        monkeypatch.undo()
        assert served.request("GET", "/health/ready").status == 200
        assert served.predict(photo()).status == 200


def test_stuck_decoders_are_not_ready(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batcher.STUCK_DECODER_SECONDS", 0.2)
    open_photo = Predictor.open_photo

    def slow_open(self: Predictor, data: bytes, *args, **options):
        time.sleep(1)
        return open_photo(self, data, *args, **options)

    monkeypatch.setattr(Predictor, "open_photo", slow_open)
    with ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(service.predict, photo(seed)) for seed in range(2)]
        time.sleep(0.6)
        assert service.request("GET", "/health/ready").status == 503
        assert [future.result().status for future in pending] == [200, 200]
    assert service.request("GET", "/health/ready").status == 200


def test_a_stuck_network_is_not_ready(
    service: Served, slow_network: Callable[[float], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.batcher.STUCK_SECONDS", 0.2)
    slow_network(1)
    pending = threading.Thread(target=service.predict, args=(photo(),))
    pending.start()
    time.sleep(0.5)
    response = service.request("GET", "/health/ready")
    assert (response.status, response.json["code"]) == (503, "busy")
    assert service.request("GET", "/health/live").status == 200
    pending.join()
    assert service.request("GET", "/health/ready").status == 200


def test_explain_waits_for_the_network_and_returns_503_if_the_queue_is_full(
    model_folder: Path, slow_network: Callable[[float], list[int]]
) -> None:
    with serving(settings_for(model_folder, queue=1)) as served:
        slow_network(0.5)
        body, kind = form(photo())
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(served.predict, photo(1))
            time.sleep(0.2)
            refused = served.request("POST", "/explain", body, Content_Type=kind)
            assert (refused.status, refused.json["code"]) == (503, "busy")
            assert first.result().status == 200
        assert served.request("POST", "/explain", body, Content_Type=kind).status == 200
