"""Each epoch takes each photo once, and batches are made ahead in order."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.training.sampling import epoch_order, even_batches, prefetch, repeat_index


@given(st.integers(2, 300), st.integers(1, 64), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_each_photo_once_in_even_batches_of_at_least_two(
    count: int, size: int, epoch: int
) -> None:
    order = epoch_order(np.zeros(count, np.int64), 1, epoch)
    found = [order[places] for places in even_batches(count, size)]
    sizes = [len(batch) for batch in found]
    assert sorted(np.concatenate(found)) == list(range(count))
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(size, 3)
    assert not repeat_index(order).any()


def test_epochs_are_shuffled_anew_and_reproducibly() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_order(np.zeros(50, np.int64), seed, epoch).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


@given(st.lists(st.integers(0, 3), min_size=4, max_size=120), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_balanced_epoch_shows_each_class_as_often_and_each_of_its_photos_as_often(
    drawn: list[int], epoch: int
) -> None:
    labels = np.array(drawn)
    order = epoch_order(labels, 1, epoch, balanced=True)
    assert len(order) == len(labels)
    shown = np.bincount(labels[order])[np.unique(labels)]
    assert shown.max() - shown.min() <= 1
    for label in np.unique(labels):
        own = np.bincount(order, minlength=len(labels))[labels == label]
        assert own.max() - own.min() <= 1
    times = repeat_index(order)
    assert len({(int(i), int(t)) for i, t in zip(order, times, strict=True)}) == len(order)


@given(st.integers(0, 20), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_work_done_ahead_comes_in_order_and_not_too_early(items: int, workers: int) -> None:
    made, lock = [], threading.Lock()

    def make(item: int) -> int:
        with lock:
            made.append(item)
        return item * item

    for count, result in enumerate(prefetch(make, range(items), workers)):
        assert result == count * count
        assert len(made) <= count + 2 * workers + 1
    assert sorted(made) == list(range(items))


def test_work_done_ahead_takes_no_threads_from_the_training_step() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(prefetch(lambda _: torch.get_num_threads(), range(5), 2)) == [1] * 5
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_a_worker_that_begins_late_takes_no_threads_from_what_comes_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, set_threads = torch.get_num_threads(), torch.set_num_threads
    begun: list[int] = []

    def late(count: int) -> None:
        if count == 1:
            begun.append(count)
            time.sleep(0.3 * (len(begun) - 1))
        set_threads(count)

    set_threads(2)
    monkeypatch.setattr(torch, "set_num_threads", late)
    try:
        assert len(list(prefetch(lambda _: time.sleep(0.01), range(5), 2))) == 5
        assert len(begun) == 2
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
    finally:
        set_threads(before)


def test_an_error_in_work_done_ahead_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda item: 1 // item, [1, 0, 1], 2))
