"""Installed libraries against the pins of requirements.txt, which are part of every result."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")


def pins(requirements: str) -> dict[str, str]:
    """Return name to pinned version from the text of a requirements file."""
    found = (PIN.match(line.strip()) for line in requirements.splitlines())
    return {match[1]: match[2] for match in found if match}


def installed(names: list[str]) -> dict[str, str]:
    """Return Python's version and each distribution's, or 'missing'."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def differences(pinned: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return a line for each library whose installed version is not the pinned one.

    What follows a plus sign is left out: 2.11.0+cu128 is torch 2.11.0 for one kind of GPU.
    """
    return [
        f"{name} is {found[name]}, requirements.txt pins {wanted}"
        for name, wanted in pinned.items()
        if found[name].partition("+")[0] != wanted
    ]
