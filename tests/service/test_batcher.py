"""Requests wait in a bounded queue, form batches, and keep nobody else waiting."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Pixels
from tests.service.conftest import Answer, Served, form, photo, serving, settings_for


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[int]]:
    """Make the network take so many seconds a batch; gives the batches' sizes as they come."""
    probabilities = Predictor.probabilities
    sizes: list[int] = []

    def slow(seconds: float) -> list[int]:
        def answer(self: Predictor, pixels: Pixels) -> np.ndarray:
            sizes.append(len(pixels))
            time.sleep(seconds)
            return probabilities(self, pixels)

        monkeypatch.setattr(Predictor, "probabilities", answer)
        return sizes

    return slow


def together(service: Served, count: int) -> list[Answer]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda seed: service.predict(photo(seed)), range(count)))


def test_requests_that_wait_form_batches_and_get_their_own_answers(
    service: Served, slowly: Callable[[float], list[int]]
) -> None:
    alone = [service.predict(photo(seed)).json for seed in range(24)]
    sizes = slowly(0.1)
    answers = together(service, 24)
    assert sum(sizes) == 24
    assert max(sizes) >= 8
    assert max(sizes) <= 16
    for answer, expected in zip(answers, alone, strict=True):
        found, wanted = (a["predictions"][0] for a in (answer.json, expected))
        assert found["predicted"] == wanted["predicted"]
        np.testing.assert_allclose(
            list(found["probabilities"].values()), list(wanted["probabilities"].values()), atol=1e-6
        )


def test_a_batch_grows_while_others_are_decoded_and_a_photo_alone_waits_for_nobody(
    service: Served, slowly: Callable[[float], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.batcher.GROWING", 10)
    sizes = slowly(0)
    assert service.predict(photo()).seconds < 5
    opened = Predictor.open

    def open_(self: Predictor, data: bytes):
        time.sleep(0.05)  # for all to have come before the first is decoded
        return opened(self, data)

    monkeypatch.setattr(Predictor, "open", open_)
    sizes.clear()
    body, kind = form(*(photo(seed) for seed in range(16)))
    assert service.ask("POST", "/predict", body, Content_Type=kind).seconds < 5
    # Each a quarter of those who wait, the last ones smaller: then nobody waits for a decoder.
    assert sum(sizes) == 16
    assert len(sizes) <= 6


def test_beyond_the_queue_requests_are_told_to_come_later_and_health_answers(
    model_folder: Path, slowly: Callable[[float], list[int]]
) -> None:
    with serving(settings_for(model_folder, queue=4)) as served:
        slowly(0.5)
        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(served.predict, photo(seed)) for seed in range(20)]
            time.sleep(0.2)
            health = [served.ask("GET", "/health/live") for _ in range(5)]
            answers = [future.result() for future in asked]
        assert all(h.status == 200 and h.seconds < 0.3 for h in health)
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 4
        for answer in answers:
            if answer.status == 503:
                assert answer.json["code"] == "busy"
                assert answer.headers["retry-after"] == "1"
                assert answer.seconds < 0.5
        assert served.predict(photo()).status == 200


def test_a_photo_that_decodes_slowly_keeps_only_its_own_thread_busy(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, slow = Predictor.open, photo(99)

    def open_(self: Predictor, data: bytes):
        if data == slow:
            time.sleep(1)
        return opened(self, data)

    monkeypatch.setattr(Predictor, "open", open_)
    other = threading.Thread(target=service.predict, args=(slow,))
    other.start()
    time.sleep(0.1)
    assert service.predict(photo(1)).seconds < 0.5
    assert service.ask("GET", "/health/ready").seconds < 0.3
    other.join()


def test_large_photos_leave_a_decoder_to_the_others(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.batcher.LARGE", 0.01)
    opened, together, most = Predictor.open, 0, 0

    def open_(self: Predictor, data: bytes):
        nonlocal together, most
        if len(data) > len(photo(1)):
            together += 1
            most = max(most, together)
            time.sleep(0.3)
            together -= 1
        return opened(self, data)

    monkeypatch.setattr(Predictor, "open", open_)
    large = [photo(seed, size=(320, 240)) for seed in range(4)]
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(service.predict, data) for data in large]
        time.sleep(0.1)
        assert service.predict(photo(1)).seconds < 0.25
        assert [future.result().status for future in asked] == [200] * 4
    assert most == 1


def test_a_stuck_network_is_not_ready(
    service: Served, slowly: Callable[[float], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.batcher.STUCK", 0.2)
    slowly(1)
    asked = threading.Thread(target=service.predict, args=(photo(),))
    asked.start()
    time.sleep(0.5)
    answer = service.ask("GET", "/health/ready")
    assert (answer.status, answer.json["code"]) == (503, "busy")
    assert service.ask("GET", "/health/live").status == 200
    asked.join()
    assert service.ask("GET", "/health/ready").status == 200


def test_an_explanation_waits_its_turn_and_is_refused_when_all_is_full(
    model_folder: Path, slowly: Callable[[float], list[int]]
) -> None:
    with serving(settings_for(model_folder, queue=1)) as served:
        slowly(0.5)
        body, kind = form(photo())
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(served.predict, photo(1))
            time.sleep(0.2)
            refused = served.ask("POST", "/explain", body, Content_Type=kind)
            assert (refused.status, refused.json["code"]) == (503, "busy")
            assert first.result().status == 200
        assert served.ask("POST", "/explain", body, Content_Type=kind).status == 200
