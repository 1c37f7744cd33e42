"""Tests of the process: startup, startup errors, imports and shutdown."""

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from anklealign.cli.sync_deps import closure
from benchmarks.serving import port_of
from service.pytorch import without_compiler
from tests.service.conftest import Served, photo, settings_for

pytestmark = pytest.mark.timing
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


def test_help_is_printed_and_no_server_is_started() -> None:
    command = [sys.executable, "-m", "service", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m service")
    assert "ANKLEALIGN_KEYS_FILE" in done.stdout
    # The command passes no argument on: it stops at its setting, not at a usage.
    command_of_project = [sys.executable, "-m", "anklealign", "serve"]
    environment = os.environ | {"ANKLEALIGN_PORT": "none"}
    started = subprocess.run(
        command_of_project, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert started.stderr.startswith("serve: ANKLEALIGN_PORT")
    wrong = subprocess.run([*command[:-1], "8080"], cwd=ROOT, capture_output=True, check=False)
    assert wrong.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_pending_requests_and_exits_within_5_s(
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
        socket.create_connection(("127.0.0.1", port), timeout=10) as slow,
    ):
        finishing.sendall(head + data[:100])
        slow.sendall(head)
        time.sleep(0.5)
        process.send_signal(number)
        signaled = time.perf_counter()
        time.sleep(0.5)
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset: no new connections
            socket.create_connection(("127.0.0.1", port), timeout=1)
        finishing.sendall(data[100:])
        received = b""
        while more := finishing.recv(4096):
            received += more
        assert received.startswith(b"HTTP/1.1 200")
        assert idle.recv(100) == b""
        assert process.wait(10) == 0
    assert time.perf_counter() - signaled < 5
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.slow
def test_the_service_needs_only_the_bundle_and_logs_json(
    model_folder: Path, tmp_path: Path
) -> None:
    """The working directory has no params.yaml, data or metrics."""
    process = start(model_folder, folder=tmp_path)
    served = Served(port_of(process), settings_for(model_folder), None)
    assert served.predict(photo()).status == 200
    assert list(tmp_path.iterdir()) == []
    process.terminate()
    process.wait(10)


def test_the_service_imports_no_stages_and_no_packages_missing_in_the_image() -> None:
    """The service stage of the Dockerfile installs these packages and their dependencies."""
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
    third_party = imported - set(sys.stdlib_module_names) - tops
    names = {"PIL": "pillow", "pi_heif": "pi-heif", "prometheus_client": "prometheus-client"}
    names |= {
        "yaml": "pyyaml",
        "pydantic_settings": "pydantic-settings",
        "ruamel": "ruamel.yaml",
        "sklearn": "scikit-learn",
        "huggingface_hub": "timm",  # which depends on it
    }
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    libraries = recipe.partition("AS service-libraries\n")[2].partition("\nFROM")[0]
    serving = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8")
    installed = set(re.findall(r"[\w.-]+", libraries))
    installed |= set(re.findall(r"^[\w.-]+", serving, re.MULTILINE))
    # FastAPI depends on Starlette, and uvicorn on h11.
    missing = {names.get(n, n) for n in third_party} - installed - {"starlette", "h11"}
    assert not missing


def test_the_service_starts_without_what_only_other_commands_need() -> None:
    """PyTorch's compiler alone took a third of the time of the start."""
    code = """
import sys
import service.__main__
assert not {"fastapi", "torch"} & set(sys.modules)
from service import app, pytorch
assert "fastapi" in sys.modules
assert not {"torch", "timm", "torchvision", "matplotlib"} & set(sys.modules)
pytorch.predictor_class()
import torch.compiler
assert not {"torch._dynamo", "torch._inductor", "sympy", "scipy.optimize"} & set(sys.modules)
import torch._dynamo.utils  # the real one is still there for others
assert hasattr(torch._dynamo, "optimize")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_image_starts_from_a_digest_and_copies_what_the_build_context_has() -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=\S+@sha256:[0-9a-f]{64}$", recipe, re.MULTILINE)
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE)
    sources = {name for names in copied for name in names.split()}
    assert "requirements.lock" in sources
    assert {f"!{name}" for name in sources} <= set(context)
    assert all((ROOT / name).exists() for name in sources)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ANKLEALIGN_MODEL": "nowhere"}, "nowhere/config.json does not exist"),
        ({"ANKLEALIGN_PORT": "x"}, "ANKLEALIGN_PORT = 'x'"),
        ({"ANKLEALIGN_ENGINE": "onnx"}, "model.onnx cannot be read"),
        ({"ANKLEALIGN_HOST": "192.0.2.1"}, "change ANKLEALIGN_PORT"),
        ({"ANKLEALIGN_KEYS_FILE": "nowhere"}, "nowhere cannot be read"),
    ],
)
def test_a_startup_error_is_one_line(
    model_folder: Path, variables: dict[str, str], words: str
) -> None:
    process = start(model_folder, **variables)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.decode().startswith("serve: ")
    assert words in error.decode()
    assert error.count(b"\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the server process in /proc")
def test_a_dead_server_process_is_replaced(model_folder: Path) -> None:
    process = start(model_folder)
    served = Served(port_of(process), settings_for(model_folder), None)
    assert served.predict(photo()).status == 200
    (server,) = [
        child
        for child in psutil.Process(process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]
    server.kill()
    server.wait(10)
    assert served.predict(photo()).status == 200  # the connection waits for the next one
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == 0


def test_a_compiler_that_is_imported_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("torch._dynamo")
    monkeypatch.setitem(sys.modules, "torch._dynamo", own)
    with without_compiler():
        assert sys.modules["torch._dynamo"] is own
    assert sys.modules["torch._dynamo"] is own
