"""Serve the API and the web page on one port.

    python -m service [--help]

The settings come from environment variables (settings.py). uvicorn's process manager starts one
server process, which holds the model, and starts another one if it dies or hangs. After SIGTERM or
Ctrl-C, the service finishes pending requests and exits with status 0 within 5 s. If it cannot
start, it prints one line and exits with status 1.
"""

import argparse
import os
import socket
import sys

from uvicorn.supervisors import Multiprocess

from service import logs
from service.server import config
from service.settings import PREFIX, ServiceSettings, from_environment


def main() -> int:
    """Serve until a signal arrives; return the exit status."""
    names = ", ".join(f"{PREFIX}{name.upper()}" for name in ServiceSettings.model_fields)
    argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the API and the web page on one port, until Ctrl-C or SIGTERM.",
        epilog=f"Settings are environment variables, all optional: {names}. docs/serving.md "
        f"describes them. Example: {PREFIX}PORT=8080 python -m service",
    ).parse_args()
    try:
        settings = from_environment()
        settings.read_keys()
        listener = listen(settings)
    except (ValueError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    os.environ[f"{PREFIX}PORT"] = str(listener.getsockname()[1])  # for the server process
    logs.log_to_stdout()
    manager = Multiprocess(config("service.server:application", factory=True), [listener])
    manager.run()
    listener.close()
    # After a signal, the processes end with 0 or with that signal.
    return int(any((process.exitcode or 0) > 0 for process in manager.processes))


def listen(settings: ServiceSettings) -> socket.socket:
    """Return a listening socket for the configured host and port.

    Raises:
        ValueError: The port is in use or not permitted, or the host is not a local address.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"{settings.host} port {settings.port}: {error.strerror}; change ANKLEALIGN_PORT or "
            "ANKLEALIGN_HOST"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
