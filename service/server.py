"""The server process: load the model, tune the process and run uvicorn."""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from service import logs
from service.settings import HEADER_SECONDS, from_environment

# Together with the last work of the threads, less than the 5 s that a host waits before SIGKILL.
DRAIN_SECONDS = 4
# Seconds without a sign of life after which the server process is replaced: imports hold the GIL
# for some seconds on a busy machine.
HANG_SECONDS = 60
BACKLOG = 128  # connections that wait to be accepted
M_MMAP_THRESHOLD, MMAP_BYTES = -3, 4 << 20


def application() -> ASGIApp:
    """Return the application; uvicorn calls this in the server process.

    A configuration or model that cannot be used ends the service with one line.
    """
    # uvicorn would act on a signal only after the model is loaded.
    handlers = {
        number: signal.signal(number, lambda *_: os._exit(0))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    from service import app  # noqa: PLC0415 - FastAPI, which only the server process needs

    logs.log_to_stdout()
    try:
        settings = from_environment()
        predictor, engine = app.load(settings)
        created = app.create(settings, predictor, engine)
    except (ValueError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr)
        sys.exit(STARTUP_FAILURE)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    tune_runtime()
    # Pillow warns about broken metadata; Python keeps the text of every distinct warning in memory.
    warnings.simplefilter("ignore")
    address = f"http://{settings.host}:{settings.port}/"
    logs.log.info("serving", extra={"log_fields": {"address": address, "engine": engine}})
    return created


def tune_runtime() -> None:
    """Reduce garbage collection and thread switching delays: some 4% more throughput.

    Freeze all loaded objects, because they live until exit, and collect garbage less often. A
    thread that returns from a decoder or the network requests the GIL after 1 ms instead of 5 ms.
    Large bodies return to the system: glibc would keep some 200 MB of them (mallopt(3)). Allow as
    many open files as the system does: each connection is one.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses its own unlimited number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl has no mallopt
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    sys.setswitchinterval(0.001)


def config(application: ASGIApp | Callable[..., Any] | str, **options: Any) -> uvicorn.Config:  # noqa: ANN401 - uvicorn's options
    """Return the configuration of uvicorn for an application or the path to one."""
    return uvicorn.Config(
        application,
        http="service.protocol:Protocol",  # by name: the process manager starts without FastAPI
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        workers=1,  # metrics and limits are those of one process
        proxy_headers=False,
        timeout_keep_alive=HEADER_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=HANG_SECONDS,
        **options,
    )
