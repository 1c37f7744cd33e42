"""Shards give the same results wherever they run, and a worker that dies costs none of them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import pytest

from anklealign.io import execution
from anklealign.io.decode import PhotoError
from anklealign.io.execution import Resources, map_shards

BACKENDS = ["threads", "processes", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(scope="session")
def cluster():
    """Start a Ray cluster of two worker processes, and end it by its own process."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'anklealign[ray]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2",
        "--num-gpus=0", f"--port={port}", "--include-dashboard=false",
        f"--temp-dir=/tmp/ray-{os.getpid()}",  # its sockets need a short path
    ]  # fmt: skip
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": f"127.0.0.1:{port}"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        end = time.monotonic() + 120
        while not ray.is_initialized():
            try:
                ray.init(address="auto", log_to_driver=False)
            except ConnectionError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)
        yield ray
        ray.shutdown()
        execution._cluster.cache_clear()
        del os.environ["RAY_ADDRESS"]
        head.terminate()
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)  # noqa: S108


@pytest.fixture
def backend(request, monkeypatch):
    """Run shards in two threads, in two processes, or on the cluster."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    if request.param == "processes":
        monkeypatch.setattr(execution, "SHARDS_PER_PROCESS", 1)
    if request.param == "ray":
        request.getfixturevalue("cluster")
        execution.configure("ray")
    yield request.param
    execution.configure("local")


def square(folder, number):
    """Return the square and the process; later shards are faster."""
    (folder / f"{number}").touch()
    time.sleep(0.02 * (10 - number) / 10)
    return number * number, os.getpid(), Path.cwd()


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_results_come_in_the_order_of_the_shards_from_this_folder(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = list(map_shards(partial(square, tmp_path), iter(range(10))))
    assert [value for value, _, _ in results] == [n * n for n in range(10)]
    assert {folder for _, _, folder in results} == {tmp_path}
    assert ({process for _, process, _ in results} == {os.getpid()}) == (backend == "threads")
    assert list(map_shards(abs, [])) == []


def refuse(number):
    if number == 3:
        raise PhotoError("too_large", "a photo of 1 GP")
    return number


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_an_error_of_the_function_is_raised_as_it_was(backend):  # noqa: ARG001
    with pytest.raises(PhotoError, match=r"^a photo of 1 GP$") as caught:
        list(map_shards(refuse, range(8)))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_an_error_in_the_shards_is_raised_after_those_before_it(backend):  # noqa: ARG001
    def shards():
        yield from range(30)
        raise ValueError("the list ends here")

    seen = []
    with pytest.raises(ValueError, match="the list ends here"):
        seen.extend(map_shards(abs, shards()))


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_shards_are_read_as_they_are_needed(backend):  # noqa: ARG001
    read = []

    def shards():
        for number in range(1000):
            read.append(number)
            yield number

    results = map_shards(abs, shards())
    assert next(results) == 0
    assert len(read) <= 200
    results.close()


def die_once(folder, number):
    if number == 4:
        try:
            (folder / "died").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["ray"], indirect=True)
def test_the_engine_repeats_the_call_of_a_worker_that_died(backend, tmp_path):  # noqa: ARG001
    assert list(map_shards(partial(die_once, tmp_path), range(12))) == list(range(12))
    assert (tmp_path / "died").exists()


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)
def test_workers_that_die_are_an_error(backend):
    expected = {"processes": "a worker process died", "ray": "died 4 times"}[backend]
    with pytest.raises(OSError, match=expected):
        list(map_shards(die, range(2)))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["ray"], indirect=True)
def test_a_cluster_without_the_resources_is_an_error(backend):  # noqa: ARG001
    with pytest.raises(ValueError, match=r"has 2 CPUs and 0 GPUs, and a call takes 1 and 0\.5"):
        list(map_shards(abs, [1], Resources(1, 0.5)))


def test_a_host_that_does_not_share_the_folder_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execution, "_threads", 0)
    with pytest.raises(ValueError, match=f"does not see {tmp_path} of the host that runs"):
        execution._call(abs, tmp_path, Resources(), tmp_path / ".shared-xyz", 1)


def test_ray_without_its_extra_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    execution._cluster.cache_clear()
    execution.configure("ray")
    with pytest.raises(ValueError, match=r"pip install 'anklealign\[ray\]'"):
        list(map_shards(abs, [1]))
    execution.configure("local")
