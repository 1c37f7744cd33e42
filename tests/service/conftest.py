"""Fixtures: a small bundle, and a service on a real socket in a thread of the test process."""

import faulthandler
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from anklealign.config.params import Model
from anklealign.models import bundle, factory
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from service import app, observability
from service.__main__ import listen
from service.server import config
from service.settings import ServiceSettings

CLASSES = ("pronation", "neutral", "supination")


def save_bundle(
    folder: Path, *, threshold: float = 0.34, side: int = 48, max_megapixels: float = 4.0
) -> None:
    """Save an untrained network whose predictions differ between photos."""
    torch.manual_seed(0)
    block = Model("anklealign_cnn", 32, epochs=1, learning_rate=0.01, arguments={"widths": (8, 16)})
    model = factory.build("x", block, len(CLASSES))
    model.head.weight.data.normal_(0, 2)
    preparation = Preprocessing(size=side, fit="letterbox", fill=114, max_megapixels=max_megapixels)
    record = {"chosen": {"epoch": 1}, "split_sha256": "ab" * 32}
    made = Bundle(
        CLASSES, preparation, bundle.default_input(model, 32), 1.0, threshold, record, model=model
    )
    bundle.save(folder, made)


def photo(seed: int = 0, size: tuple[int, int] = (96, 64), kind: str = "JPEG", **options) -> bytes:
    """Return a photo file of coarse noise that survives JPEG compression and resizing."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cells).resize(size).save(stream, kind, **options)
    return stream.getvalue()


def form(
    *photos: bytes, field: str = "file", fields: Mapping[str, str] | None = None
) -> tuple[bytes, str]:
    """Return the body and content type of a form: text fields, then photos."""
    head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="x.jpg"\r\n'
    head += "Content-Type: image/jpeg\r\n\r\n"
    body = b"".join(head.encode() + data + b"\r\n" for data in photos)
    for name, value in (fields or {}).items():
        text = f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        body = text.encode() + body
    return body + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def rounded(prediction: dict[str, Any]) -> dict[str, Any]:
    """Return a prediction whose numbers are rounded to four decimals.

    The photos of a request lie in one batch or in several, depending on when they are decoded, and
    the last digits depend on the size of the batch.
    """

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of(inner) for key, inner in value.items()}
        return round(value, 4) if isinstance(value, float) else value

    return {key: of(value) for key, value in prediction.items()}


def eventually(holds: Callable[[], bool], seconds: float = 5) -> bool:
    """Wait until a condition holds: the log line is written after the response arrives."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


@dataclass
class HttpResponse:
    """A response of the service and its duration."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running service with helpers that send requests."""

    port: int
    settings: ServiceSettings
    application: observability.ObservabilityMiddleware

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            header_names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, header_names)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        seconds = time.perf_counter() - start
        return HttpResponse(response.status, dict(response.getheaders()), content, seconds)

    def predict(self, *photos: bytes, **headers: str) -> HttpResponse:
        body, kind = form(*photos)
        return self.request("POST", "/predict", body, Content_Type=kind, **headers)

    def raw(self, content: bytes, *, timeout: float = 30) -> bytes:
        """Send raw bytes; return all bytes received until the service closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as link:
            link.sendall(content)
            received = b""
            while more := link.recv(65536):
                received += more
            return received


@contextmanager
def serving(settings: ServiceSettings) -> Iterator[Served]:
    predictor, engine = app.load(settings)
    application = app.create(settings, predictor, engine)
    listener = listen(settings.model_copy(update={"port": 0}))
    port = listener.getsockname()[1]
    run = uvicorn.Server(config(application))
    thread = threading.Thread(target=run.run, args=([listener],), daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not run.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < end
        time.sleep(0.01)
    try:
        yield Served(port, settings, application)
    finally:
        run.should_exit = True
        thread.join(10)
        if thread.is_alive():
            faulthandler.dump_traceback(all_threads=True)
        assert not thread.is_alive(), "the service did not stop; its threads are on stderr"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    save_bundle(folder)
    return folder


def settings_for(folder: Path, **changed: Any) -> ServiceSettings:
    options = {
        "model": folder,
        "export": folder.parent / "export/model.onnx",
        "metrics": folder.parent / "metrics",
        "device": "cpu",
        "threads": 2,
    }
    return ServiceSettings(**options | changed)


@pytest.fixture(scope="session")
def service(model_folder: Path) -> Iterator[Served]:
    with serving(settings_for(model_folder, max_upload_mb=4, upload_seconds=2)) as served:
        yield served
