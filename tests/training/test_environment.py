"""Installed libraries are compared with the pins."""

from anklealign.training.environment import installed_versions, read_pins, version_differences


def test_pins_are_read_past_comments_options_and_markers() -> None:
    text = "# why\n-r other.txt\ntorch==2.15.0\nnumpy==2.4.6  # new\nruamel.yaml==0.19.1; x\npip\n"
    assert read_pins(text) == {"torch": "2.15.0", "numpy": "2.4.6", "ruamel.yaml": "0.19.1"}


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
