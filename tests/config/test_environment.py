"""Installed libraries are compared with the pins."""

from pathlib import Path

from anklealign.config.environment import installed_versions, read_pins, version_differences


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
