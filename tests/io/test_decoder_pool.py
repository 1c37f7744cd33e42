"""anklealign/io/decoder_pool.py: a photo that kills or blocks its decoder costs nothing else."""

import os
import platform
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anklealign.io import decode, decoder_pool
from anklealign.io.decode import Cost, PhotoError
from anklealign.io.decoder_pool import Admission, BusyError, DecoderPool, Target
from tests.io.test_decode import DISPLAY_P3, encoded, good_files, gradient, icc

TARGET = Target(max_megapixels=80, size=64, fit="letterbox", fill=114)
CRASHING = Path(__file__).parents[3] / "shared" / "cases" / "heic_damaged"


@pytest.fixture(scope="module")
def pool():
    made = DecoderPool()
    yield made
    made.close()


def reason(pool, data):
    with pytest.raises(PhotoError) as caught:
        pool.decode(data, TARGET)
    assert caught.value.reason in decode.REASONS
    return caught.value.reason


def worker_of(pool):
    """Return the process ID of the only idle worker."""
    pool.close()
    pool.start()
    return pool._idle[0]._process.pid


@pytest.mark.parametrize("kind", list(good_files()))
def test_workers_and_this_process_return_the_same_photo(pool, kind):
    data = good_files()[kind]
    photo = decode.open_photo(data, 80, 2 * TARGET.size)
    expected, box = decode.fit(photo.image, TARGET.size, TARGET.fit, TARGET.fill)
    for each in (pool, decoder_pool.shared()):
        fitted = each.decode(data, TARGET)
        assert np.array_equal(fitted.pixels, expected)
        assert (fitted.box, fitted.format) == (box, photo.format)
        assert (fitted.width, fitted.height) == (photo.width, photo.height)


def test_notes_and_orientation_come_back_from_a_worker(pool):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(), "JPEG", exif=exif, icc_profile=icc(*DISPLAY_P3))
    fitted = pool.decode(data, TARGET)
    assert fitted.notes == ("converted from Display P3 to sRGB",)
    assert (fitted.orientation, fitted.width, fitted.height) == (6, 64, 96)


def test_errors_have_the_same_reason_and_message_as_in_this_process(pool):
    data = good_files()["PNG"]
    for each in (b"", b"text", data[:200], good_files()["HEIC"][:600], b"P3\n1 1\n255\n1 2 3"):
        with pytest.raises(PhotoError) as expected:
            decode.open_photo(each, 80)
        with pytest.raises(PhotoError) as caught:
            pool.decode(each, TARGET)
        assert (caught.value.reason, str(caught.value)) == (
            expected.value.reason, str(expected.value))  # fmt: skip


@pytest.mark.skipif(not CRASHING.is_dir(), reason="../shared/cases is not there")
def test_a_heic_that_crashes_the_library_is_refused(pool):
    for each in (pool, decoder_pool.shared()):
        for path in sorted(CRASHING.glob("*.heic")):
            assert reason(each, path.read_bytes()) == "decoder_crashed"
        assert each.decode(good_files()["HEIC"], TARGET).format == "HEIF"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_dead_worker_costs_one_photo_at_most(pool, number):
    process = worker_of(pool)
    killer = threading.Timer(0.05, os.kill, (process, number))
    killer.start()
    large = encoded(Image.effect_noise((2000, 1500), 50), "PNG")
    reasons = set()
    end = time.monotonic() + 20
    while not reasons and time.monotonic() < end:
        try:
            pool.decode(large, TARGET)
        except PhotoError as error:
            reasons.add(error.reason)
        if not killer.is_alive() and pool._idle and pool._idle[0]._process.pid != process:
            break  # it died between two photos
    assert reasons <= {"decoder_crashed"}
    assert pool.decode(large, TARGET).width == 2000


def test_a_photo_that_takes_too_much_cpu_time_is_refused(pool):
    gif = good_files()["GIF"]
    at = 13 + 3 * (2 << (gif[10] & 7))  # behind the color table
    comments = b"\x21\xfe\x01x\0" * 8_000_000  # Pillow reads each of them in Python
    start = time.process_time()
    assert reason(pool, gif[:at] + comments + gif[at:]) == "too_slow"
    assert time.process_time() - start < 2
    assert pool.decode(gif, TARGET).format == "GIF"


def test_a_worker_that_does_not_respond_is_replaced(pool, monkeypatch):
    process = worker_of(pool)
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(decoder_pool, "WALL_SECONDS", 0.3)
    monkeypatch.setattr(decoder_pool, "WALL_FACTOR", 0)
    assert reason(pool, good_files()["PNG"]) == "too_slow"
    monkeypatch.undo()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert pool.decode(good_files()["PNG"], TARGET).format == "PNG"


def test_decoding_is_the_same_from_another_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit")
    pool = DecoderPool()
    assert pool.decode(good_files()["PNG"], TARGET).format == "PNG"
    pool.close()


def test_many_threads_share_the_pool(pool):
    files = [data for kind, data in good_files().items() if kind != "GIF"] * 3
    with ThreadPoolExecutor(4) as threads:
        fitted = list(threads.map(lambda data: pool.decode(data, TARGET), files))
    assert len(fitted) == len(files)
    assert len(pool._idle) <= 4


def test_admission_bounds_bytes_and_count_and_a_huge_photo_is_decoded_alone():
    admission = Admission(max_bytes=100, max_count=2)
    small, large, huge = (Cost(memory, 1, quick=False) for memory in (40, 80, 500))
    with admission.place(small, wait=False):
        assert not admission.fits(large)
        with pytest.raises(BusyError), admission.place(huge, wait=False):
            pass
        with admission.place(small, wait=False):
            assert not admission.fits(Cost(1, 1, quick=False))
        assert admission.fits(small)
    with admission.place(huge, wait=False):
        assert not admission.fits(small)


def test_admission_waits_for_a_place():
    admission, seen = Admission(max_bytes=100), []

    def run(number):
        with admission.place(Cost(60, 1, quick=False), wait=True):
            seen.append(number)
            assert len(seen) == 1
            time.sleep(0.01)
            seen.remove(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(12)))
    assert admission.fits(Cost(100, 1, quick=False))


def test_without_wait_a_photo_that_is_not_quick_is_deferred():
    admission = Admission(max_count=1)
    pool = DecoderPool(admission)
    with admission.place(Cost(1, 1, quick=False), wait=False):
        with pytest.raises(BusyError) as caught:
            pool.decode(good_files()["HEIC"], TARGET, wait=False)
        assert caught.value.cost.memory > 0
        assert pool.decode(good_files()["JPEG"], TARGET, wait=False).format == "JPEG"
    assert pool.decode(good_files()["HEIC"], TARGET, wait=False).format == "HEIF"
    pool.close()


def test_a_photo_without_a_place_leaves_its_worker_for_the_next_one():
    admission = Admission(max_count=1)
    pool = DecoderPool(admission)
    process = worker_of(pool)
    with admission.place(Cost(1, 1, quick=False), wait=False):
        for _ in range(3):
            with pytest.raises(BusyError):
                pool.decode(good_files()["HEIC"], TARGET, wait=False)
            assert pool.decode(good_files()["JPEG"], TARGET).format == "JPEG"
    assert [worker._process.pid for worker in pool._idle] == [process]
    pool.close()


def test_a_photo_over_the_memory_limit_is_refused_and_the_worker_stays():
    pool = DecoderPool(Admission(max_bytes=1000, refuse_larger=True))
    process = worker_of(pool)
    with pytest.raises(PhotoError, match="the limit is") as caught:
        pool.decode(good_files()["HEIC"], TARGET)
    assert caught.value.reason == "too_large"
    assert pool.decode(good_files()["JPEG"], TARGET).format == "JPEG"
    assert [worker._process.pid for worker in pool._idle] == [process]
    pool.close()


def test_closing_a_pool_ends_a_decoder_that_works():
    pool = DecoderPool()
    pool.start()
    worker = pool._take()
    pool.close()
    assert not worker.alive


def test_dead_idle_workers_are_replaced_before_they_are_needed():
    pool = DecoderPool()
    pool.start(2)
    before = [worker._process.pid for worker in pool._idle]
    os.kill(before[0], signal.SIGKILL)
    end = time.monotonic() + 10
    while all(worker.alive for worker in pool._idle) and time.monotonic() < end:
        time.sleep(0.01)
    pool.replace_dead()
    after = [worker._process.pid for worker in pool._idle]
    assert len(after) == 2
    assert before[0] not in after
    assert before[1] in after
    assert all(worker.alive for worker in pool._idle)
    pool.close()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_a_worker_keeps_the_memory_of_a_photo_for_the_next_one(pool):
    process = worker_of(pool)
    noise = Image.effect_noise((4000, 3000), 50).convert("RGB")
    data = encoded(noise, "JPEG")  # of 4 MB, which are copied

    def faults():
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[7])

    pool.decode(data, TARGET)
    pool.decode(data, TARGET)
    before = faults()
    pool.decode(data, TARGET)
    assert faults() - before < 1000  # some 3,600 pages otherwise
    status = Path(f"/proc/{process}/smaps_rollup").read_text()
    kept = int(re.search(r"Pss_Anon:\s+(\d+) kB", status)[1]) * 1024
    assert kept < 2 * decoder_pool.KEPT_BYTES  # with what the process has anyway


@pytest.mark.slow
def test_a_webp_of_39_mp_is_read_and_a_larger_one_is_too_large(pool):
    # libwebp reserves two frames before the size of the photo is known.
    wide = encoded(Image.new("RGB", (7800, 5000)), "WEBP", method=0)
    assert pool.decode(wide, TARGET).width == 7800
    huge = encoded(Image.new("L", (16_000, 16_000)), "WEBP", lossless=True, method=0)
    assert reason(pool, huge) == "too_large"
