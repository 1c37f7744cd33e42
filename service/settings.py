"""What the service is told by its environment: variables ANKLEALIGN_<NAME>, none of them needed."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

PREFIX = "ANKLEALIGN_"


def default_threads() -> int:
    """Return one more than the cores that this process may use.

    While one decoder waits for Python's lock another one decodes: on 2 cores 169 photos a second by
    three in place of 152 by two; four gave 164 (benchmarks.serving with ANKLEALIGN_THREADS).
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (mine or 1) + 1


@dataclass(frozen=True)
class Settings:
    """The service's settings; each field is the variable of its name in capitals.

    Attributes:
        host: Address that it listens on; 0.0.0.0 is every one.
        port: TCP port; 0 is any free one.
        model: The bundle's folder.
        export: The ONNX file of `make export`; used where it is there.
        metrics: The folder with evaluate.json and MODEL_CARD.md; either may be missing.
        engine: auto takes the faster one of those that are there.
        device: For PyTorch: auto, cpu, cuda, cuda:1 or mps.
        threads: Photos decoded at a time; of large ones half as many.
        queue: Photos that wait or are worked on; beyond it, requests are told to come later.
        max_upload_mb: The largest request body, in MB (10^6 bytes).
        max_memory_mb: All bodies that are held at a time, in MB.
        max_files: Photos in one request.
        upload_seconds: In which a body must have come.
        cors_origins: Origins whose pages may call the API, with a comma between them.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model: Path = Path("model")
    export: Path = Path("export/model.onnx")
    metrics: Path = Path("metrics")
    engine: Literal["auto", "onnx", "torch"] = "auto"
    device: str = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = field(default_factory=default_threads)
    queue: Annotated[int, Field(ge=1)] = 64
    max_upload_mb: Annotated[float, Field(gt=0)] = 32
    max_memory_mb: Annotated[float, Field(gt=0)] = 256
    max_files: Annotated[int, Field(ge=1)] = 16
    upload_seconds: Annotated[float, Field(gt=0)] = 60
    cors_origins: str = ""

    @property
    def max_upload(self) -> int:
        """Return the largest request body in bytes."""
        return int(self.max_upload_mb * 1e6)

    @property
    def origins(self) -> list[str]:
        """Return the origins of other sites' pages that may call the API."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]


def read(environment: Mapping[str, str]) -> Settings:
    """Return the settings that an environment gives.

    Raises:
        ValueError: A variable with the prefix is unknown, or its value is wrong; one line names
            variable, value and remedy.
    """
    known = {PREFIX + each.name.upper(): each.name for each in fields(Settings)}
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    for name in sorted(given.keys() - known.keys()):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"{name} is an unknown variable; {hint}")
    try:
        return TypeAdapter(Settings).validate_strings(
            {known[name]: value for name, value in given.items()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise ValueError(
            f"{name} = {first['input']!r}: {first['msg']}; change or unset it"
        ) from None


def defaults() -> dict[str, str]:
    """Return each variable's default as text, for the README's table and its test."""
    found = {}
    for each in fields(Settings):
        told = "cores + 1" if each.default is MISSING else str(each.default)
        found[PREFIX + each.name.upper()] = told
    return found
