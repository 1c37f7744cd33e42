"""Installed libraries are compared with the pins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anklealign.config.environment import installed_versions, read_pins, version_differences

ROOT = Path(__file__).resolve().parents[2]


def test_pins_are_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "pins.yaml").write_text('# why\npins:\n  torch: "2.15.0"\n  numpy: "2.10"\n')
    assert read_pins(tmp_path / "pins.yaml") == {"torch": "2.15.0", "numpy": "2.10"}
    assert read_pins(tmp_path / "missing.yaml") == {}


def test_installed_versions_include_python_and_missing_libraries() -> None:
    versions = installed_versions(["torch", "no-such-distribution"])
    assert versions["python"].count(".") == 2
    assert versions["torch"][0].isdigit()
    assert versions["no-such-distribution"] == "missing"


def test_a_difference_names_both_versions_and_a_build_is_none() -> None:
    found = {"python": "3.11.7", "torch": "2.15.0+cu132", "numpy": "2.4.5", "timm": "missing"}
    lines = version_differences({"torch": "2.15.0", "numpy": "2.4.6", "timm": "1.0.31"}, found)
    assert lines == [
        "numpy is 2.4.5, requirements.txt pins 2.4.6",
        "timm is missing, requirements.txt pins 1.0.31",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS always reads names as UTF-8")
@pytest.mark.parametrize(
    "variables",
    [{"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"LC_ALL": "C", "PYTHONUTF8": "0"},
     {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}],
)  # fmt: skip
def test_names_are_read_as_utf_8_in_any_locale(tmp_path, variables):
    (tmp_path / "é.jpg").touch()
    code = (
        "import os, sys; from anklealign.config import environment; environment.ensure_utf8();"
        "print(ascii(os.listdir(sys.argv[1])), ascii(open(sys.argv[2]).read()), sys.argv[3])"
    )
    (tmp_path / "script.py").write_text(code)
    (tmp_path / "text").write_bytes("ő".encode())
    names = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    for command in ([tmp_path / "script.py"], ["-c", code]):
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        (folder / "é.jpg").touch()
        done = subprocess.run(
            [sys.executable, *command, folder, tmp_path / "text", "a b"],
            env=names | {"PYTHONPATH": str(ROOT)} | variables,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout == "['\\xe9.jpg'] '\\u0151' a b\n", done.stderr
