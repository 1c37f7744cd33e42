"""Compare installed library versions with the pins in requirements.txt; results depend on them."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")


def read_pins(requirements: str) -> dict[str, str]:
    """Return a dict from library to pinned version, given the text of a requirements file."""
    matches = (PIN.match(line.strip()) for line in requirements.splitlines())
    return {match[1]: match[2] for match in matches if match}


def installed_versions(names: list[str]) -> dict[str, str]:
    """Return the versions of Python and of each distribution, or 'missing'."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def version_differences(pins: dict[str, str], installed: dict[str, str]) -> list[str]:
    """Return one line per library whose installed version differs from its pin.

    The local version label is ignored: 2.11.0+cu128 is torch 2.11.0 built for one CUDA version.
    """
    return [
        f"{name} is {installed[name]}, requirements.txt pins {pinned}"
        for name, pinned in pins.items()
        if installed[name].partition("+")[0] != pinned
    ]
