"""Service settings, read from environment variables ANKLEALIGN_<NAME>; all are optional."""

import difflib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from anklealign.config import paths

PREFIX = "ANKLEALIGN_"


def default_threads() -> int:
    """Return one more than the number of cores available to this process.

    While one decoder waits for the GIL, another one decodes: on 2 cores, three threads decode 169
    photos per second, two decode 152, and four decode 164 (benchmarks.serving with
    ANKLEALIGN_THREADS).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + 1


class ServiceSettings(BaseSettings):
    """Settings of the service; the variable of a field is ANKLEALIGN_ and its name in capitals.

    Attributes:
        host: Address to listen on; 0.0.0.0 listens on all interfaces.
        port: TCP port; 0 selects a free one.
        model: Folder of the bundle.
        export: ONNX file written by `make export`; optional.
        metrics: Folder with details/evaluate.json and MODEL_CARD.md; both are optional.
        engine: Inference engine; auto selects the faster available one.
        device: PyTorch device: auto, cpu, cuda, cuda:1 or mps.
        threads: Photos decoded in parallel; large photos use at most half of the threads.
        queue: Maximum number of queued or in-progress photos; further requests get a 503.
        max_upload_mb: Maximum size of a request body, in MB (10^6 bytes).
        max_memory_mb: Maximum total size of all request bodies in memory, in MB.
        max_files: Maximum number of photos per request.
        upload_seconds: Maximum time to receive a request body, in seconds.
        unlike: Photos that are unlike the training photos: mark (keep the prediction and set
            in_distribution to false) or refuse (predict no class).
        cors_origins: Comma-separated origins whose pages may call the API.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model: Path = paths.MODEL
    export: Path = paths.EXPORT
    metrics: Path = paths.METRICS
    engine: Literal["auto", "onnx", "torch"] = "auto"
    device: str = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=default_threads)
    queue: Annotated[int, Field(ge=1)] = 64
    max_upload_mb: Annotated[float, Field(gt=0)] = 32
    max_memory_mb: Annotated[float, Field(gt=0)] = 256
    max_files: Annotated[int, Field(ge=1)] = 16
    upload_seconds: Annotated[float, Field(gt=0)] = 60
    unlike: Literal["mark", "refuse"] = "mark"
    cors_origins: str = ""

    @property
    def max_upload(self) -> int:
        """Return the maximum size of a request body in bytes."""
        return int(self.max_upload_mb * 1e6)

    @property
    def origins(self) -> list[str]:
        """Return the origins whose pages may call the API."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]


VARIABLES = {PREFIX + name.upper(): field for name, field in ServiceSettings.model_fields.items()}


def from_environment() -> ServiceSettings:
    """Return the settings that the environment variables define.

    Raises:
        ValueError: A variable with the prefix is unknown, or its value is invalid; the message is
            one line with the variable, its value and the reason.
    """
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in VARIABLES:
            close = difflib.get_close_matches(name, VARIABLES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(VARIABLES)}"
            raise ValueError(f"{name} is an unknown variable; {hint}")
    try:
        return ServiceSettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise ValueError(
            f"{name} = {first['input']!r}: {first['msg']}; change or unset it"
        ) from None


def defaults() -> dict[str, str]:
    """Return the default of each variable as text, as in the table of docs/serving.md."""
    return {
        name: "cores + 1" if field.default_factory else str(field.default)
        for name, field in VARIABLES.items()
    }
