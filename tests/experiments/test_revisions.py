"""Comparisons in a real repository with a commit, an experiment and a workspace."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anklealign.cli import check
from anklealign.cli.main import main
from anklealign.experiments.revisions import Revision

AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@example.org")
PIPELINE = """stages:
  evaluate:
    cmd: {python} make.py
    params: [model, seed]
    outs: [data/prepared, data/clean, data/split, plots/split]
    metrics:
      - metrics/details/evaluate.json: {{cache: false}}
      - metrics/scores.json: {{cache: false}}
    plots: [plots/evaluate/predictions.csv: {{cache: false}}]
"""
MAKE = """
import json, pathlib
from ruamel.yaml import YAML
values = YAML(typ="safe", pure=True).load(pathlib.Path("params.yaml").read_text())
good = values["model"] == "good"
rows, photos = [], []
for n in range(60):
    right = good or n % 2
    actual = "ab"[n % 3 == 0]
    p = 0.9 if (actual == "a") == bool(right) else 0.1
    rows.append(f"{n:012},{n}.jpg,g{n // 2},{actual},{p},{1 - p},{n}")
    if good or n:
        photos.append(f"{n:012},{n}.jpg,{actual},{n},{'train' if n % 2 else 'test'}")
def write(path, text):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
head = "id,path,group,actual,p_a,p_b,sha256"
write("plots/evaluate/predictions.csv", "\\n".join([head, *rows, ""]))
write("data/prepared/photos.csv", "\\n".join(["id,path,label,sha256,split", *photos, ""]))
write("data/split/photos.csv", "\\n".join(["id,path,label,sha256,split", *photos, ""]))
write("data/clean/removed.csv", "path,reason\\n")
write("plots/split/same.png", "the same")
write(f"plots/split/{'new' if good else 'old'}.png", "one side alone")
write("plots/split/changed.png", values["model"])
score = {"value": 1.0 if good else 0.5}
scores = {k: score for k in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")}
write("metrics/details/evaluate.json", json.dumps([{"parameters": 3, **scores}]))
write("metrics/scores.json", json.dumps({"accuracy": score["value"]}))
"""


DVC = (sys.executable, "-m", "dvc")


def run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a project in the top folder of a git repository."""
    folder = tmp_path_factory.mktemp("repository")
    run("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    fill(folder)
    return folder


def fill(folder: Path) -> None:
    """Commit a pipeline and its run, and run an experiment."""
    run("git", "config", "user.name", "test", cwd=folder)
    run("git", "config", "user.email", "test@example.org", cwd=folder)
    inside_git = (folder / ".git").exists()
    run(*DVC, "init", "--quiet", *([] if inside_git else ["--subdir"]), cwd=folder)
    (folder / "params.yaml").write_text(
        "dataset: own\nmodel: poor\nseed: 1\ndatasets: {own: {}}\nmodels: {poor: {}, good: {}}\n"
    )
    (folder / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    (folder / "make.py").write_text(MAKE)
    run("git", "add", ".", cwd=folder)
    run("git", "commit", "--quiet", "-m", "empty", cwd=folder)
    run("git", "tag", "empty", cwd=folder)
    run(*DVC, "repro", "--quiet", cwd=folder)
    run("git", "add", ".", cwd=folder)
    run("git", "commit", "--quiet", "-m", "poor", cwd=folder)
    run(*DVC, "exp", "run", "--quiet", "-n", "my-good", "-S", "model=good", cwd=folder)
    run("git", "checkout", "--quiet", ".", cwd=folder)
    run(*DVC, "checkout", "--quiet", cwd=folder)


@pytest.fixture
def inside(repository, monkeypatch):
    monkeypatch.chdir(repository)


@pytest.mark.usefixtures("inside")
def test_commit_and_experiment_are_compared(capsys):
    assert main(["diff", "main", "my-good"]) == 0
    assert capsys.readouterr().out.startswith("my-good is better than main\n")
    assert main(["diff", "my-good", "workspace", "--score", "accuracy"]) == 0
    assert capsys.readouterr().out.startswith("workspace is worse than my-good\n")
    assert main(["diff", "main", "workspace"]) == 0
    assert "within noise" in capsys.readouterr().out


@pytest.mark.usefixtures("inside")
def test_unknown_revision_and_revision_without_results_are_reported(capsys):
    assert main(["diff", "main", "nowhere"]) == 2
    assert "revision 'nowhere' cannot be read" in capsys.readouterr().err
    assert main(["diff", "empty", "main"]) == 2
    assert "empty has no plots/evaluate/predictions.csv" in capsys.readouterr().err


@pytest.mark.usefixtures("inside")
def test_data_are_compared_between_revisions(capsys, tmp_path):
    assert main(["diff", "main", "my-good", "--data", "--out", str(tmp_path / "changes.csv")]) == 0
    assert "- `0.jpg` (b, test)" in capsys.readouterr().out
    written = (tmp_path / "changes.csv").read_text().splitlines()
    assert written == ["kind,path,class,before,after", "added,0.jpg,b,,test"]


@pytest.mark.usefixtures("inside")
def test_table_has_the_experiments_and_the_workspace(capsys):
    assert main(["compare", "--score", "accuracy"]) == 0
    head, best, other = capsys.readouterr().out.splitlines()
    assert "accuracy" in head
    assert best.split()[:4] == ["good", "3", "1", "1.000"]
    assert other.split()[:4] == ["poor", "3", "1", "0.500"]
    assert other.endswith("worse")


@pytest.mark.usefixtures("inside")
def test_content_missing_from_every_cache_is_reported(repository):
    cache = repository / ".dvc/cache"
    cache.rename(repository / "elsewhere")
    try:
        with pytest.raises(ValueError, match=r"neither DVC's cache nor its remote.*dvc fetch"):
            Revision.open("my-good").read("data/split/photos.csv")
    finally:
        (repository / "elsewhere").rename(cache)


def test_clone_without_cache_and_remote_reports_what_is_missing(
    repository, tmp_path, monkeypatch, capsys
):
    # A fresh clone, because DVC remembers the listings it has read.
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(repository), str(clone)], check=True)
    monkeypatch.chdir(clone)
    assert main(["diff", "main", "workspace", "--data"]) == 2
    assert "data/prepared/photos.csv of main is in neither" in capsys.readouterr().err
    assert main(["pr-report", "main"]) == 0
    text = (clone / "report/report.md").read_text()
    assert "The difference between this change and main is within noise" in text
    assert "Not compared: data/prepared/photos.csv of main is in neither" in text
    assert "Not compared: plots of main is in neither" in text


@pytest.mark.usefixtures("inside")
def test_report_has_verdict_data_pictures_and_metrics(repository):
    assert main(["pr-report", "my-good"]) == 0
    folder = repository / "report"
    text = (folder / "report.md").read_text()
    assert "**this change is worse than my-good**" in text
    assert "- `0.jpg` (b, test)" in text
    assert "same.png" not in text
    assert "| none | ![after](pictures/plots/split/old_after.png) |" in text
    assert "| ![before](pictures/plots/split/new_before.png) | none |" in text
    assert (folder / "pictures/plots/split/changed_before.png").read_text() == "good"
    assert (folder / "pictures/plots/split/changed_after.png").read_text() == "poor"
    assert "| `model` | good | poor |" in text
    assert "| metrics/scores.json | accuracy | 1.0 | 0.5 | -0.5 |" in text
    assert "  " not in text.split("## Metrics")[1].split("## Data")[0]


@pytest.mark.usefixtures("inside")
def test_report_against_an_empty_base_states_what_is_missing(repository, capsys):
    assert main(["pr-report", "empty"]) == 0
    text = (repository / "report/report.md").read_text()
    assert text.count("Not compared: empty has no") == 2
    assert main(["pr-report", "nowhere"]) == 2
    assert "revision 'nowhere' cannot be read" in capsys.readouterr().err


def test_a_project_in_a_subfolder_of_a_worktree_is_compared(tmp_path, monkeypatch, capsys):
    top, tree = tmp_path / "top", tmp_path / "tree"
    top.mkdir()
    run("git", "init", "--quiet", "--initial-branch", "first", cwd=top)
    run("git", *AUTHOR, "commit", "--quiet", "--allow-empty", "-m", "first", cwd=top)
    run("git", "worktree", "add", "--quiet", "-b", "main", str(tree), cwd=top)
    project = tree / "ml/feet"
    project.mkdir(parents=True)
    fill(project)
    monkeypatch.chdir(project)
    assert main(["diff", "main", "my-good"]) == 0
    assert capsys.readouterr().out.startswith("my-good is better than main\n")
    assert main(["diff", "main", "my-good", "--data"]) == 0
    assert "- `0.jpg` (b, test)" in capsys.readouterr().out
    assert main(["compare", "--score", "accuracy"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "good",
        "poor",
    ]
    assert main(["pr-report", "my-good"]) == 0
    text = (project / "report/report.md").read_text()
    assert "| none | ![after](pictures/plots/split/old_after.png) |" in text
    assert "Not compared" not in text
    assert main(["diff", "first", "workspace"]) == 2
    assert "first does not contain this project" in capsys.readouterr().err


def test_without_git_the_workspace_is_read_and_the_error_names_the_remedy(
    repository, tmp_path, monkeypatch, capsys
):
    archive = tmp_path / "archive"
    shutil.copytree(repository, archive, ignore=shutil.ignore_patterns(".git"))
    monkeypatch.chdir(archive)
    for command in (["diff", "HEAD", "workspace"], ["pr-report", "main"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "is not a git repository); commit the project to git" in error
        assert "core.no_scm true" in error
    monkeypatch.setattr(check, "print_errors", lambda **_: 0)  # this params.yaml has other keys
    assert main(["run"]) != 0
    assert "core.no_scm true" in capsys.readouterr().err
    run(*DVC, "config", "--local", "core.no_scm", "true", cwd=archive)
    assert main(["diff", "HEAD", "workspace"]) == 2
    assert "is used without git" in capsys.readouterr().err
    assert main(["diff", "workspace", "workspace"]) == 0
    assert main(["compare", "--score", "accuracy"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["poor", "3", "1"]
