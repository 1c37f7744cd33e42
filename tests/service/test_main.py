"""The process: starts on one port, says why it cannot, and ends when it is told to."""

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anklealign.cli.sync_deps import closure
from benchmarks.serving import port_of
from tests.service.conftest import Served, photo, settings_for

ROOT = Path(__file__).resolve().parents[2]


def start(model: Path, folder: Path = ROOT, **variables: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "ANKLEALIGN_PORT": "0",
        "ANKLEALIGN_MODEL": str(model),
        "ANKLEALIGN_EXPORT": str(model.parent / "export/model.onnx"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=folder,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_flight_and_ends_within_5_s(
    model_folder: Path, number: int
) -> None:
    process = start(model_folder)
    port = port_of(process)
    data = photo()
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: %d\r\n\r\n" % len(data)
    )
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as finishing,
        socket.create_connection(("127.0.0.1", port), timeout=10) as idle,
        socket.create_connection(("127.0.0.1", port), timeout=10) as dawdling,
    ):
        finishing.sendall(head + data[:100])
        dawdling.sendall(head)
        time.sleep(0.5)
        process.send_signal(number)
        told = time.perf_counter()
        time.sleep(0.5)
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset: nobody new comes in
            socket.create_connection(("127.0.0.1", port), timeout=1)
        finishing.sendall(data[100:])
        received = b""
        while more := finishing.recv(4096):
            received += more
        assert received.startswith(b"HTTP/1.1 200")
        assert idle.recv(100) == b""
        assert process.wait(10) == 0
    assert time.perf_counter() - told < 5
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.slow
def test_it_needs_the_bundle_alone_and_its_log_is_json(model_folder: Path, tmp_path: Path) -> None:
    """No params.yaml, no data, no metrics where it runs."""
    process = start(model_folder, folder=tmp_path)
    served = Served(port_of(process), settings_for(model_folder), None)
    assert served.predict(photo()).status == 200
    assert list(tmp_path.iterdir()) == []
    process.terminate()
    process.wait(10)


def test_its_modules_import_nothing_of_stages_and_nothing_that_the_image_lacks() -> None:
    """Dockerfile's service stage installs what is named there, and pip what those need."""
    files = {f for file in (ROOT / "service").glob("*.py") for f in closure(ROOT, file)}
    tops = {file.relative_to(ROOT).parts[0] for file in files}
    assert tops == {"service", "anklealign"}
    imported = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - tops
    names = {"PIL": "pillow", "pi_heif": "pi-heif", "prometheus_client": "prometheus-client"}
    names |= {"yaml": "pyyaml", "ruamel": "ruamel.yaml", "sklearn": "scikit-learn"}
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    libraries = recipe.partition("AS service-libraries\n")[2].partition("\nFROM")[0]
    serving = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8")
    given = set(re.findall(r"[\w.-]+", libraries))
    given |= set(re.findall(r"^[\w.-]+", serving, re.MULTILINE))
    # Starlette comes with FastAPI, h11 with uvicorn: they are what those are made of.
    missing = {names.get(n, n) for n in foreign} - given - {"starlette", "h11"}
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ANKLEALIGN_MODEL": "nowhere"}, "nowhere/config.json is not there"),
        ({"ANKLEALIGN_PORT": "x"}, "ANKLEALIGN_PORT = 'x'"),
        ({"ANKLEALIGN_ENGINE": "onnx"}, "model.onnx cannot be read"),
        ({"ANKLEALIGN_HOST": "192.0.2.1"}, "choose another by ANKLEALIGN_PORT"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_line(
    model_folder: Path, variables: dict[str, str], words: str
) -> None:
    process = start(model_folder, **variables)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.decode().startswith("serve: ")
    assert words in error.decode()
    assert error.count(b"\n") == 1
