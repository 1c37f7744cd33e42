"""Compare installed library versions with the pins in pins.yaml; results depend on them."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ruamel.yaml import YAML

PINS = Path("pins.yaml")  # copied from requirements.txt by `anklealign sync-deps`
# The libraries that training uses; their versions are recorded in the bundle.
TRAINING = ("numpy", "pandas", "pillow", "safetensors", "scipy", "timm", "torch")


def read_pins(path: Path = PINS) -> dict[str, str]:
    """Return a dict from library to pinned version; empty without the file."""
    if not path.exists():
        return {}
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["pins"])


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of each distribution, or 'missing'."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def version_differences(pins: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """Return one line per library whose installed version differs from its pin.

    The local version label is ignored: 2.11.0+cu128 is torch 2.11.0 built for one CUDA version.
    """
    return [
        f"{name} is {installed[name]}, requirements.txt pins {pinned}"
        for name, pinned in pins.items()
        if installed[name].partition("+")[0] != pinned
    ]
