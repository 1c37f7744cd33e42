"""Photos of the store become a network's input, the same way for everybody."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anklealign.batches import (
    CHUNK,
    Input,
    ahead,
    epoch_order,
    even_parts,
    full_precision,
    logits,
    pick_device,
    resize,
    times_seen,
    whole,
)
from anklealign.networks import Cnn

CPU = torch.device("cpu")
INPUT = Input(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), "bicubic")


def photos(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_an_input_is_resized_and_normalised_by_channel() -> None:
    grey = np.full((2, 64, 64, 3), 102, np.uint8)
    x = whole(grey, INPUT, CPU)
    expected = (torch.tensor([0.4] * 3) - torch.tensor(INPUT.mean)) / torch.tensor(INPUT.std)
    assert x.shape == (2, 3, 32, 32)
    torch.testing.assert_close(x, expected.view(1, 3, 1, 1).expand_as(x))


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    y, x = np.mgrid[:64, :64]
    fine = np.repeat((255 * ((x + y) % 2))[None, :, :, None], 3, 3).astype(np.uint8)
    small = resize(torch.from_numpy(fine).permute(0, 3, 1, 2), 16, "bilinear").float()
    assert (small - 127.5).abs().max() < 20


def test_a_photo_of_the_right_side_is_left_as_it_is() -> None:
    x = torch.from_numpy(photos(1, 32)).permute(0, 3, 1, 2)
    assert resize(x, 32, "bicubic") is x


@given(st.integers(2, 300), st.integers(1, 64), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_each_photo_once_in_even_batches_of_at_least_two(
    count: int, size: int, epoch: int
) -> None:
    order = epoch_order(np.zeros(count, np.int64), 1, epoch)
    found = [order[places] for places in even_parts(count, size)]
    sizes = [len(batch) for batch in found]
    assert sorted(np.concatenate(found)) == list(range(count))
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(size, 3)
    assert not times_seen(order).any()


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
    times = times_seen(order)
    assert len({(int(i), int(t)) for i, t in zip(order, times, strict=True)}) == len(order)


@given(st.integers(0, 20), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_work_done_ahead_comes_in_order_and_not_too_early(items: int, workers: int) -> None:
    made, lock = [], threading.Lock()

    def make(item: int) -> int:
        with lock:
            made.append(item)
        return item * item

    for count, result in enumerate(ahead(make, range(items), workers)):
        assert result == count * count
        assert len(made) <= count + 2 * workers + 1
    assert sorted(made) == list(range(items))


def test_work_done_ahead_takes_no_threads_from_the_training_step() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(ahead(lambda _: torch.get_num_threads(), range(5), 2)) == [1] * 5
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
        assert len(list(ahead(lambda _: time.sleep(0.01), range(5), 2))) == 5
        assert len(begun) == 2
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
    finally:
        set_threads(before)


def test_an_error_in_work_done_ahead_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda item: 1 // item, [1, 0, 1], 2))


def test_answers_do_not_depend_on_how_many_photos_are_asked_together() -> None:
    torch.manual_seed(0)
    model = Cnn(3, widths=(8, 16))
    pixels = photos(CHUNK + 3)
    rows = np.arange(len(pixels))
    together = logits(model, pixels, rows, INPUT, CPU)
    alone = np.concatenate([logits(model, pixels, rows[i : i + 1], INPUT, CPU) for i in rows])
    assert together.shape == (CHUNK + 3, 3)
    assert not model.training
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_answers_are_given_without_tf32_and_the_setting_is_given_back() -> None:
    seen = []

    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return x.mean((2, 3))

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        logits(Asks(), photos(1), np.zeros(1, np.int64), INPUT, CPU)
        assert seen == [False]
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
    with full_precision():
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("name", ["warp", "cuda:99"])
def test_a_device_that_is_not_there_is_named_with_a_remedy(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*choose auto or cpu"):
        pick_device(name)
