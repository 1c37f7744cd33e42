"""The environment of a run: UTF-8 file names, and the pinned versions of the libraries."""

import locale
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ruamel.yaml import YAML

PINS = Path("pins.yaml")  # copied from requirements.txt by `anklealign sync-deps`
# The libraries that training uses; their versions are recorded in the bundle.
TRAINING = ("numpy", "pandas", "pillow", "safetensors", "scipy", "timm", "torch")


def ensure_utf8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale is another one.

    In another locale, Python reads other names from the same folder, so that patterns and tables
    miss photos with accents (PEP 540).

    Raises:
        ValueError: UTF-8 mode is turned off on Python's command line.
    """
    encodings = {sys.getfilesystemencoding(), locale.getencoding()}
    if {name.lower().replace("-", "") for name in encodings} == {"utf8"} or sys.flags.utf8_mode:
        return
    if os.environ.get("PYTHONUTF8") == "1":
        raise ValueError(
            f"file names are read as {sys.getfilesystemencoding()}; start Python without -X utf8=0"
        )
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this command itself


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
