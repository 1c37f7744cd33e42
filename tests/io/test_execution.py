"""Shards give the same results wherever they run, and a worker that dies costs none of them."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from anklealign.cli import predict
from anklealign.config import paths
from anklealign.config.params import Model
from anklealign.io import execution, pixel_store, results
from anklealign.io.decode import PhotoError
from anklealign.io.execution import Resources, map_shards
from anklealign.models import bundle, factory, features, inputs, novelty
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.models.features import stored_features
from stages import clean, evaluate, prepare, split

ROOT = Path(__file__).resolve().parents[2]
CRASHING = ROOT.parent / "shared/cases/heic_damaged"
CONFIG = Model(
    "anklealign_cnn", image_size=32, epochs=1, learning_rate=0.1, arguments={"widths": (8, 16)}
)

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
        end = time.monotonic() + 300
        while not ray.is_initialized():
            try:
                ray.init(address="auto", log_to_driver=False)
            except ConnectionError:
                if time.monotonic() > end or head.poll() is not None:
                    raise
                time.sleep(1)
        yield head.pid
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


def test_a_single_worker_is_the_thread_that_maps(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    monkeypatch.setattr(execution, "SHARDS_PER_PROCESS", 1)
    called = []

    def note(number):
        called.append(number)
        return threading.get_ident()

    results = map_shards(note, range(5))
    assert next(results) == threading.get_ident()
    assert called == [0]  # the others are not computed ahead
    assert set(results) == {threading.get_ident()}


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
        execution._call(b"", tmp_path, Resources(), tmp_path / ".shared-xyz", b"")


def test_ray_without_its_extra_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    execution._cluster.cache_clear()
    execution.configure("ray")
    with pytest.raises(ValueError, match=r"pip install 'anklealign\[ray\]'"):
        list(map_shards(abs, [1]))
    execution.configure("local")


def write_project(folder, hostile):
    """Write photos of two classes and params.yaml; return nothing that depends on the folder."""
    rng = np.random.default_rng(0)
    for number in range(40):
        path = folder / "data/raw/mine" / "ab"[number % 2] / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=95)
    for name, content in hostile.items():
        (folder / "data/raw/mine/a" / name).write_bytes(content)
    raw = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw |= {"dataset": "mine"}
    raw["datasets"]["mine"] = {"layout": "folders", "classes": {"a": [], "b": []}}
    raw["execution"] = {"backend": execution._execution.backend}
    (folder / "params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    torch.manual_seed(0)
    model = factory.build("x", CONFIG, 2)
    preparation = Preprocessing(size=256, fit="letterbox", fill=114, max_megapixels=80)
    made = Bundle(
        ("a", "b"), preparation, bundle.default_input(model, 32), 1.0, 0.49, {}, model=model
    )
    bundle.save(folder / "model", made)


def run_all():
    """Run prepare, clean, features and predict; return the bytes of all that they write."""
    prepare.main()
    clean.main()
    made = bundle.load(Path("model"))
    store = pixel_store.open_store()
    own = stored_features(
        made.model, store, np.arange(len(store)), input_config=made.input_config,
        device=torch.device("cpu"),
    )  # fmt: skip
    backend = execution._execution.backend
    status = predict.predict_photos(["data/raw/mine"], Path("predictions.csv"), Path("model"),
                                    backend=backend)  # fmt: skip
    assert status == 1
    written = [*Path("data/prepared").rglob("*"), *Path("data/clean").rglob("*"),
               *Path("metrics").rglob("*"), Path("predictions.csv")]  # fmt: skip
    contents = {str(path): path.read_bytes() for path in sorted(written) if path.is_file()}
    return contents | {"features": own.numpy().tobytes()}


def write_trained_project(folder):
    """Run the stages before train, and write what train would."""
    write_project(folder, {})
    raw = json.loads(Path("params.yaml").read_text(encoding="utf-8"))
    raw["train"]["threads"] = 1
    raw["split"] |= {"test": 0.5, "val": 0.25}
    raw["evaluate"] |= {"bootstrap": 100, "explained": 10, "robustness": 20, "learning_curve": 1}
    Path("params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    prepare.main()
    clean.main()
    split.main()
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    train, val = (table.row[table.split == name].to_numpy() for name in ("train", "val"))
    detector = novelty.fit(
        pixel_store.open_store(), train, val, torch.device("cpu"), 0.05, groups=train
    )
    bundle.save(paths.MODEL, replace(bundle.load(paths.MODEL), novelty=detector))
    test = table[table.split == "test"]
    paths.REPEATS.parent.mkdir()
    test[["id"]].assign(seed=1, p_a=0.5, p_b=0.5).to_csv(paths.REPEATS, index=False)


def evaluated():
    """Run evaluate; return the bytes of all that it writes."""
    evaluate.main()
    written = [*Path("metrics").rglob("*"), *Path("plots/evaluate").rglob("*")]
    return {str(path): path.read_bytes() for path in sorted(written) if path.is_file()}


def kill_one_worker(head, killed, done):
    """Kill the first worker of the cluster that is seen at a call."""
    while not killed and not done.wait(0.005):
        for process in psutil.Process(head).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if not killed and " ".join(process.cmdline()).startswith("ray::_call"):
                    process.kill()
                    killed.append(process.pid)


@pytest.fixture(scope="module")
def hostile():
    """Files that are refused: no photo, a cut one, and a HEIC that crashes its decoder."""
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)).save(
        whole, "JPEG"
    )
    files = {"no.jpg": b"no photo", "cut.jpg": whole.getvalue()[:5000]}
    if CRASHING.is_dir():
        files["crash.heic"] = min(CRASHING.glob("*.heic")).read_bytes()
    return files


@pytest.fixture(scope="module")
def expected(tmp_path_factory, hostile):
    """Return the outputs of one thread."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(joblib, "cpu_count", lambda: 1)
        patch.setattr(pixel_store, "REACH", 1)
        patch.setattr(features, "COMMITTED", 1)
        threads = torch.get_num_threads()
        write_project(folder, hostile)
        outputs = run_all()
        torch.set_num_threads(threads)
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_the_stages_write_the_same_bytes(backend, tmp_path, monkeypatch, hostile, request):
    """On the cluster, one of the two workers is killed in mid-run."""
    expected = request.getfixturevalue("expected")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pixel_store, "REACH", 1)  # some 13 shards
    monkeypatch.setattr(features, "COMMITTED", 1)
    write_project(tmp_path, hostile)
    killed, done = [], threading.Event()
    if backend == "ray":
        head = request.getfixturevalue("cluster")
        threading.Thread(target=kill_one_worker, args=(head, killed, done)).start()
    try:
        outputs = run_all()
    finally:
        done.set()
    assert outputs == expected
    assert len([name for name in outputs if name.endswith(".npy")]) > 8
    assert len(killed) == (backend == "ray")
    skipped = pd.read_csv("data/prepared/skipped.csv")
    reasons = [*["decoder_crashed"] * ("crash.heic" in hostile), "not_an_image", "truncated"]
    assert sorted(skipped.reason) == reasons
    table = pd.read_csv("predictions.csv", keep_default_na=False)
    assert sorted(reason.partition(":")[0] for reason in table.reason if reason) == reasons
    assert len(table) == 40 + len(hostile)
    assert not list(tmp_path.glob(".shared-*"))
    assert not list(Path("data/prepared/pixels").glob(".*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with the inputs of evaluate, and what one thread writes from them."""
    folder = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(joblib, "cpu_count", lambda: 1)
        write_trained_project(folder)
        outputs = evaluated()
    inputs.configure_cpu(threads)
    return folder, outputs


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_evaluate_writes_the_same_bytes(backend, trained, tmp_path, monkeypatch, request):
    """On the cluster, one of the two workers is killed in mid-run."""
    made, expected = trained
    folder = tmp_path / "project"
    kept = shutil.ignore_patterns("plots", "evaluate.json", "scores.json", ".anklealign_cache")
    shutil.copytree(made, folder, ignore=kept)
    monkeypatch.chdir(folder)
    raw = json.loads(Path("params.yaml").read_text(encoding="utf-8"))
    raw["execution"] = {"backend": execution._execution.backend}
    Path("params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    threads, killed, done = torch.get_num_threads(), [], threading.Event()
    if backend == "ray":
        head = request.getfixturevalue("cluster")
        threading.Thread(target=kill_one_worker, args=(head, killed, done)).start()
    try:
        outputs = evaluated()
    finally:
        done.set()
        inputs.configure_cpu(threads)
    assert outputs == expected
    assert {"metrics/scores.json", "plots/evaluate/explanations.npz"} <= set(outputs)
    metrics = results.read_details(paths.DETAILS / "evaluate.json")
    assert {"robustness", "novelty", "learning_curve", "explanations"} <= set(metrics)
    assert len(killed) == (backend == "ray")
    assert not list(folder.glob(".shared-*"))
