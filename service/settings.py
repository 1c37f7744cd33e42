"""Service settings, read from environment variables ANKLEALIGN_<NAME>; all are optional."""

import difflib
import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from anklealign.config import paths

PREFIX = "ANKLEALIGN_"
# Of one client per minute and at a time, with public access.
PUBLIC_LIMITS = (120, 8)
CONFIG = "config.json"  # of a bundle; its module imports PyTorch, which only the server needs
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
MIN_KEY = 16  # characters of an API key
# Timeout for the headers of a request, and for the next request on a keep-alive connection.
HEADER_SECONDS = 10


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
        model: Folder of the bundle. Or several bundles: a folder of their folders, or a
            comma-separated list of folders, each with NAME= before it if it is to have another
            name than its folder. The first is the default.
        export: ONNX file written by `make export`; optional. Of several bundles, NAME.onnx beside
            it.
        metrics: Folder with details/evaluate.json and MODEL_CARD.md; both are optional. Of several
            bundles, its folders NAME.
        engine: Inference engine; auto selects the one that the export prefers.
        device: PyTorch device: auto, cpu, cuda, cuda:1 or mps.
        threads: Photos decoded in parallel; large photos use at most half of the threads.
        queue: Maximum number of queued or in-progress photos, of which a request counts at most
            8; further requests get a 503.
        max_upload_mb: Maximum size of a request body, in MB (10^6 bytes).
        max_memory_mb: Maximum total size of all request bodies in memory, in MB; small ones may
            take an eighth more.
        max_decode_mb: Maximum memory for decoding the photos that are not quick, in MB. A photo
            that takes more is refused: a WebP over 37 MP, a PNG with transparency over 53 MP.
        max_files: Maximum number of photos per request.
        upload_seconds: Maximum time to receive a request body, in seconds.
        unlike: Photos that are unlike the training photos: mark (keep the prediction and set
            in_distribution to false) or refuse (predict no class).
        cors_origins: Comma-separated origins whose pages may call the API.
        access: local (for this machine, or behind a proxy that limits access) or public, which
            requires keys_file and hosts, and limits each client.
        keys_file: File with one API key a line; # starts a comment. Empty: no key is required.
        hosts: Comma-separated names in the Host header that are answered; empty: all.
        proxies: Comma-separated addresses of proxies whose X-Forwarded-For names the client.
        client_rate: Requests of one client per minute; 0 is unlimited. Default 0, public 120.
        client_requests: Simultaneous requests of one client; 0 is unlimited. Default 0, public 8.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model: Annotated[str, BeforeValidator(str)] = str(paths.MODEL)
    export: Path = paths.EXPORT
    metrics: Path = paths.METRICS
    engine: Literal["auto", "onnx", "torch"] = "auto"
    device: str = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=default_threads)
    queue: Annotated[int, Field(ge=1)] = 128
    max_upload_mb: Annotated[float, Field(gt=0)] = 32
    max_memory_mb: Annotated[float, Field(gt=0)] = 96
    max_decode_mb: Annotated[float, Field(gt=0)] = 640
    max_files: Annotated[int, Field(ge=1)] = 16
    upload_seconds: Annotated[float, Field(gt=0)] = 60
    unlike: Literal["mark", "refuse"] = "mark"
    cors_origins: str = ""
    access: Literal["local", "public"] = "local"
    keys_file: Path | None = None
    hosts: str = ""
    proxies: str = ""
    client_rate: Annotated[int, Field(ge=0)] | None = None
    client_requests: Annotated[int, Field(ge=0)] | None = None

    @field_validator("proxies")
    @classmethod
    def _check_proxies(cls, text: str) -> str:
        for item in _items(text):
            ip_network(item)
        return text

    @model_validator(mode="after")
    def _check_public(self) -> "ServiceSettings":
        if self.access == "public":
            for name in ("keys_file", "hosts"):
                if not getattr(self, name):
                    raise ValueError(f"public access needs {PREFIX}{name.upper()}")
        return self

    def bundles(self) -> dict[str, Path]:
        """Return the folder of each bundle by its name; the first is the default.

        Raises:
            ValueError: Two bundles have one name, or a name has other characters than letters,
                digits, '.', '-' and '_'.
        """
        single = Path(self.model)
        if single.is_dir() and not (single / CONFIG).exists():
            items = [("", path.parent) for path in sorted(single.glob(f"*/{CONFIG}"))]
        elif single.exists():
            items = []
        else:
            parts = [item.rpartition("=") for item in _items(self.model)]
            items = [(name.strip(), Path(folder.strip())) for name, _, folder in parts]
        if len(items) < 2 and not any(name for name, _ in items):
            folder = items[0][1] if items else single
            name = folder.resolve().name
            return {name if MODEL_NAME.fullmatch(name) else "model": folder}
        named: dict[str, Path] = {}
        for name, folder in items:
            key = name or folder.resolve().name
            if key in named or not MODEL_NAME.fullmatch(key):
                problem = "names two bundles" if key in named else "is no name for a URL"
                raise ValueError(
                    f"{PREFIX}MODEL: {key!r} {problem}; write NAME={folder}, with a name of "
                    "letters, digits, '.', '-' and '_'"
                )
            named[key] = folder
        return named

    def export_of(self, name: str) -> Path:
        """Return the ONNX file of a bundle."""
        return self.export if len(self.bundles()) == 1 else self.export.with_name(f"{name}.onnx")

    def metrics_of(self, name: str) -> Path:
        """Return the folder with the scores and the card of a bundle."""
        return self.metrics if len(self.bundles()) == 1 else self.metrics / name

    @property
    def max_upload(self) -> int:
        """Return the maximum size of a request body in bytes."""
        return int(self.max_upload_mb * 1e6)

    @property
    def origins(self) -> list[str]:
        """Return the origins whose pages may call the API."""
        return _items(self.cors_origins)

    @property
    def host_names(self) -> frozenset[str]:
        """Return the names that are answered, in lower case; empty for all."""
        return frozenset(name.lower() for name in _items(self.hosts))

    @property
    def limits(self) -> tuple[int, int]:
        """Return the requests of one client per minute and at a time; 0 is unlimited."""
        default_rate, default_requests = PUBLIC_LIMITS if self.access == "public" else (0, 0)
        rate, requests = self.client_rate, self.client_requests
        return (
            default_rate if rate is None else rate,
            default_requests if requests is None else requests,
        )

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the networks of the trusted proxies."""
        return tuple(ip_network(item) for item in _items(self.proxies))

    def read_keys(self) -> tuple[str, ...]:
        """Return the API keys; none if no key is required.

        Raises:
            ValueError: The file cannot be read, has no key, or a key is too short.
        """
        if self.keys_file is None:
            return ()
        try:
            lines = self.keys_file.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not ASCII text"
            raise ValueError(f"{self.keys_file} cannot be read: {reason}") from None
        keys = [line.partition("#")[0].strip() for line in lines]
        keys = [key for key in keys if key]
        if not keys or min(map(len, keys)) < MIN_KEY:
            raise ValueError(
                f"{self.keys_file} has no key, or one of fewer than {MIN_KEY} characters; make one "
                "with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return tuple(keys)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


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
        if not first["loc"]:  # several settings together
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        name = PREFIX + str(first["loc"][0]).upper()
        raise ValueError(
            f"{name} = {first['input']!r}: {first['msg']}; change or unset it"
        ) from None


def defaults() -> dict[str, str]:
    """Return the default of each variable as text, as in the table of docs/serving.md."""
    return {
        name: "cores + 1" if field.default_factory else str(field.default or "")
        for name, field in VARIABLES.items()
    }
