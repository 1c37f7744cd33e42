"""The environment is all that configures the service, and its mistakes are told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import settings
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_is_needed_and_other_variables_do_not_matter() -> None:
    assert settings.read({"PATH": "/bin", "PORT": "1"}) == Settings()


def test_variables_are_typed() -> None:
    found = settings.read(
        {
            "ANKLEALIGN_PORT": "9000",
            "ANKLEALIGN_MODEL": "other",
            "ANKLEALIGN_MAX_UPLOAD_MB": "2.5",
            "ANKLEALIGN_CORS_ORIGINS": "https://a.example, https://b.example,",
        }
    )
    assert (found.port, found.model, found.max_upload) == (9000, Path("other"), 2_500_000)
    assert found.origins == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ANKLEALIGN_PROT", "1", "ANKLEALIGN_PROT is an unknown .* did you mean ANKLEALIGN_PORT"),
        ("ANKLEALIGN_PORT", "many", "ANKLEALIGN_PORT = 'many': .* valid integer"),
        ("ANKLEALIGN_QUEUE", "0", "ANKLEALIGN_QUEUE = '0': .* greater than or equal to 1"),
        ("ANKLEALIGN_ENGINE", "tensorflow", "ANKLEALIGN_ENGINE = 'tensorflow': .*'auto', 'onnx'"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_with_a_remedy(name: str, value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings.read({name: value})


def test_the_readme_s_table_has_every_variable_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ANKLEALIGN_\w+)` \| `?(.*?)`? \|", readme, flags=re.MULTILINE)
    assert dict(rows) == settings.defaults()


def test_pytorch_is_told_to_wait_idly_before_it_is_imported() -> None:
    code = (
        "import os, sys, service; assert 'torch' not in sys.modules; "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: v for name, v in os.environ.items() if name != "OMP_WAIT_POLICY"}
    told = [environment, environment | {"OMP_WAIT_POLICY": "ACTIVE"}]
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for env in told
    ]
    assert said == ["PASSIVE", "ACTIVE"]
