"""The `anklealign` command and the Python API: light to import, complete and documented."""

import doctest
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import anklealign
from anklealign.cli import check, sync_deps
from anklealign.cli import main as command_line
from anklealign.cli.main import main
from anklealign.inference import predictor
from anklealign.ingest.layouts import LAYOUTS
from anklealign.metrics.scores import OVERALL
from anklealign.models import bundle
from tests.models.test_bundle import made

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "add", "convert", "run", "restore", "push", "predict", "evaluate", "export", "serve", "compare",
    "diff", "report", "pr-report", "label-issues", "correct", "next", "learning-curve", "summary",
    "check", "sync-deps",
)  # fmt: skip
HEAVY = ("torch", "pandas", "numpy", "dvc", "fastapi")
LIGHT = f"""
import sys
from anklealign.cli.main import main
status = main(sys.argv[1:])
sys.exit(status or ", ".join(name for name in {HEAVY} if name in sys.modules) or 0)
"""


def listed_commands(text: str) -> list[str]:
    return re.findall(r"^  ([a-z-]+)  ", text.partition("Commands:")[2], flags=re.MULTILINE)


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    assert tuple(listed_commands(capsys.readouterr().out)) == COMMANDS


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(command):
    subprocess.run(
        [sys.executable, "-c", LIGHT, *command, "--help"], cwd=ROOT, check=True, capture_output=True
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_starts_no_work(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([name, "--help"]) == 0
    assert f"anklealign {name}" in capsys.readouterr().out.partition("Example: ")[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_help_takes_under_half_a_second():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "anklealign", "--help"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_python_m_anklealign_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "anklealign", "--version"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == f"anklealign {anklealign.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [["nothing"], ["predict"], ["compare", "--score", "x"], ["diff", "a", "b", "--out", "x"]],
)
def test_a_wrong_command_exits_with_2(command, capsys):
    assert main(command) == 2
    assert "Usage: anklealign" in capsys.readouterr().err


def test_the_choices_are_those_of_the_library():
    assert get_args(command_line.Layout) == tuple(LAYOUTS)
    assert get_args(command_line.Score) == OVERALL


def test_serve_and_export_without_their_libraries_name_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(command_line.importlib.util, "find_spec", lambda _: None)
    for name in ("serve", "export"):
        assert main([name]) == 1
        assert "pip install 'anklealign[serve]'" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with one stage."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anklealign").mkdir()
    (tmp_path / "anklealign/one.py").write_text("import numpy\n")
    (tmp_path / "requirements.txt").write_text("numpy==2.4.5  # arrays\n")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/prepare.py").write_text("import anklealign.one\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  prepare:\n    cmd: python -m stages.prepare\n    deps:\n"
        "      - stages/prepare.py\n      - data\n"
    )
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr(check.params, "input_errors", lambda _: [])
    return tmp_path


def test_check_reports_stale_dependencies_and_writes_nothing(project, capsys):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert main(["check"]) == 1
    assert "dvc.yaml: the dependencies are stale; run `anklealign sync-deps`" in (
        capsys.readouterr().err
    )
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_sync_deps_writes_what_check_then_accepts(project, capsys):
    assert main(["sync-deps"]) == 0
    assert sync_deps.stale(project) == []
    assert (project / "dvc.yaml").read_text() == (
        "stages:\n  prepare:\n    cmd: python -m stages.prepare\n    deps:\n"
        "      - anklealign/one.py\n      - stages/prepare.py\n      - data\n"
        "    params:\n      - pins.yaml:\n          - pins.numpy\n"
    )
    assert 'numpy: "2.4.5"\n' in (project / "pins.yaml").read_text()
    assert main(["check"]) == 0
    assert "params.yaml is valid" in capsys.readouterr().out


def test_sync_deps_adds_the_lists_that_a_stage_has_not(project, capsys):
    pipeline = project / "dvc.yaml"
    (project / "stages/other.py").write_text("import os\n")
    pipeline.write_text(
        "stages:\n  prepare:\n    cmd: python -m stages.prepare\n    outs:\n      - data\n\n"
        "  other:\n    cmd: python -m stages.other\n\nplots:\n  - a.csv\n"
    )
    assert main(["check"]) == 1
    assert "dvc.yaml: the dependencies are stale" in capsys.readouterr().err
    assert main(["sync-deps"]) == 0
    assert pipeline.read_text() == (
        "stages:\n  prepare:\n    cmd: python -m stages.prepare\n    outs:\n      - data\n"
        "    deps:\n      - anklealign/one.py\n      - stages/prepare.py\n"
        "    params:\n      - pins.yaml:\n          - pins.numpy\n\n"
        "  other:\n    cmd: python -m stages.other\n"
        "    deps:\n      - stages/other.py\n\nplots:\n  - a.csv\n"
    )
    assert main(["check"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages:\n  one:\n    deps:\n      - data\n", "dvc.yaml: one: expected `cmd:"),
        ("stages:\n  one:\n    cmd: [a, b]\n", "dvc.yaml: one: expected `cmd:"),
        ("stages:\n  one:\n    cmd: python one.py\n", "'python one.py': expected `python -m"),
        (
            "stages:\n  one:\n    cmd: python -m stages.prepare\n    deps: [data]\n",
            "dvc.yaml: one: expected a list `deps:` with one entry a line",
        ),
        ("stages:\n  one: [\n", "dvc.yaml, line 3: "),
    ],
)
def test_a_pipeline_that_sync_deps_cannot_write_is_an_error(text, message, project, capsys):
    (project / "dvc.yaml").write_text(text)
    for command in ("check", "sync-deps"):
        assert main([command]) == 1
        assert message in capsys.readouterr().err
    assert (project / "dvc.yaml").read_text() == text


def test_check_reports_an_unknown_key(project, capsys):
    with (project / "params.yaml").open("a") as stream:
        stream.write("\nsede: 1\n")
    assert main(["check"]) == 1
    assert "did you mean seed?" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_run_checks_first_and_passes_its_arguments_to_dvc(monkeypatch):
    commands = []

    def record(command, **_):
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(command_line.subprocess, "run", record)
    assert main(["run", "train", "--force"]) == 1
    assert commands == []
    assert main(["sync-deps"]) == 0
    assert main(["run", "train", "--force"]) == 3
    assert commands == [["-m", "dvc", "repro", "train", "--force"]]


def test_report_without_a_run_names_the_missing_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 1
    assert (
        "report: metrics/details/prepare.json is missing; run `dvc repro`"
        in capsys.readouterr().err
    )


# --- The Python API ----------------------------------------------------------------------------


def test_every_public_name_is_there_and_an_unknown_one_is_an_error():
    for name in anklealign.__all__:
        assert getattr(anklealign, name) is not None
        assert name in dir(anklealign)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        anklealign.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = f"import anklealign, sys; sys.exit(any(n in sys.modules for n in {HEAVY}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("module", [anklealign, predictor], ids=lambda module: module.__name__)
def test_the_examples_of_the_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle.save(tmp_path / "model", made())
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save("photo.jpg")
    result = doctest.testmod(module)
    assert result.attempted >= 3
    assert result.failed == 0


# --- Packaging ---------------------------------------------------------------------------------


def names_in(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", line)[0] for line in lines if "==" in line)


def test_pyproject_and_the_pins_name_the_same_libraries():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for declared, file in (
        (project["dependencies"], "requirements.txt"),
        (extras["serve"], "requirements-serve.txt"),
        (extras["dev"] + extras["docs"], "requirements-dev.txt"),
    ):
        names = {re.match(r"[\w.-]+", text)[0] for text in declared} - {"anklealign"}
        assert names == set(names_in(file)), file


def test_the_lock_has_the_pins_and_names_no_host():
    lock = names_in("requirements.lock")
    for file in ("requirements.txt", "requirements-serve.txt", "requirements-dev.txt"):
        for name, version in names_in(file).items():
            assert lock[re.sub(r"[._]", "-", name).lower()] == version, name
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert text.count("--hash=sha256:") > len(lock) > 100


@pytest.mark.slow
def test_a_wheel_predicts_without_the_checkout(tmp_path):
    """Builds a wheel (from the package index's hatchling) and imports it from its own folder."""
    built = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "."]
    subprocess.run([*built, str(ROOT)], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("anklealign-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    bundle.save(tmp_path / "model", made())
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import anklealign; from anklealign import Predictor\n"
        "assert anklealign.__file__.startswith(sys.path[0])\n"
        "predictor = Predictor.load('model')\n"
        "print(predictor.probabilities(predictor.preprocess('photo.jpg')[None]).sum())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert float(done.stdout) == pytest.approx(1)
