"""Tests of the settings: environment variables, their validation and defaults."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import settings
from service.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the service's variables from the environment."""
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)


def test_all_variables_are_optional_and_unprefixed_ones_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = {name: field.get_default() for name, field in ServiceSettings.model_fields.items()}
    monkeypatch.setenv("PORT", "1")
    assert settings.from_environment().model_dump() == defaults | {
        "threads": settings.default_threads()
    }


def test_variables_are_converted_to_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANKLEALIGN_PORT", "9000")
    monkeypatch.setenv("ANKLEALIGN_MODEL", "other")
    monkeypatch.setenv("ANKLEALIGN_MAX_UPLOAD_MB", "2.5")
    monkeypatch.setenv("ANKLEALIGN_CORS_ORIGINS", "https://a.example, https://b.example,")
    loaded = settings.from_environment()
    assert (loaded.port, loaded.model, loaded.max_upload) == (9000, "other", 2_500_000)
    assert loaded.origins == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ANKLEALIGN_PROT", "1", "ANKLEALIGN_PROT is an unknown .* did you mean ANKLEALIGN_PORT"),
        ("ANKLEALIGN_PORT", "many", "ANKLEALIGN_PORT = 'many': .* valid integer"),
        ("ANKLEALIGN_QUEUE", "0", "ANKLEALIGN_QUEUE = '0': .* greater than or equal to 1"),
        ("ANKLEALIGN_ENGINE", "tensorflow", "ANKLEALIGN_ENGINE = 'tensorflow': .*'auto', 'onnx'"),
    ],
)  # fmt: skip
def test_an_invalid_variable_is_reported_with_value_and_reason(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words) as raised:
        settings.from_environment()
    assert "\n" not in str(raised.value)


def test_the_readme_s_table_has_every_variable_with_its_default() -> None:
    readme = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ANKLEALIGN_\w+)` \| `?(.*?)`? \|", readme, flags=re.MULTILINE)
    assert dict(rows) == settings.defaults()


def test_idle_threads_do_not_spin_unless_the_environment_asks_for_it() -> None:
    code = (
        "import os, sys, service; assert not {'torch', 'numpy'} & set(sys.modules); "
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['OPENBLAS_NUM_THREADS'])"
    )
    own = {"OMP_WAIT_POLICY": "ACTIVE", "OPENBLAS_NUM_THREADS": "2"}
    environment = {name: v for name, v in os.environ.items() if name not in own}
    environments = [environment, environment | own]
    policies = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for env in environments
    ]
    assert policies == ["PASSIVE 1", "ACTIVE 2"]
