"""The pipeline reruns what a change touches, and nothing else."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from dvc.utils.serialize import modify_yaml
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file

from anklealign.cli import sync_deps
from anklealign.config import environment
from anklealign.experiments import runs
from anklealign.io import files
from anklealign.models.networks import Cnn

ROOT = Path(__file__).resolve().parents[1]
TORCH_FREE = [
    "synthetic.generate", "stages.check", "stages.prepare", "stages.clean", "stages.split",
    "stages.report",
]  # fmt: skip
ALL = [
    "check",
    "data/dvc.yaml:synthetic",
    "prepare",
    "clean",
    "split",
    "train",
    "evaluate",
    "report",
]


def stages() -> dict[str, dict]:
    read = YAML(typ="safe", pure=True).load
    result = {}
    for file in ("dvc.yaml", "data/dvc.yaml"):
        result |= read((ROOT / file).read_text(encoding="utf-8"))["stages"]
    return result


@pytest.mark.parametrize("name", stages())
def test_a_stage_depends_on_exactly_the_code_it_imports(name):
    stage = stages()[name]
    declared = [dep for dep in stage["deps"] if sync_deps.is_code(dep)]
    assert declared == sync_deps.code_dependencies(ROOT, stage["cmd"]), "run `anklealign sync-deps`"


@pytest.mark.parametrize("name", stages())
def test_a_folder_is_a_dependency_only_where_a_stage_imports_all_of_it(name):
    stage = stages()[name]
    module = stage["cmd"].removeprefix("python -m ")
    needed = sync_deps.closure(ROOT, sync_deps.module_file(ROOT, module))
    declared = set()
    for dep in filter(sync_deps.is_code, stage["deps"]):
        path = ROOT / dep
        declared |= sync_deps.modules_in(path) if path.is_dir() else {path}
    assert declared == needed


def pins_of(stage: dict) -> list[str]:
    (pins,) = [params["pins.yaml"] for params in stage["params"] if "pins.yaml" in params]
    return [pin.removeprefix("pins.") for pin in pins]


@pytest.mark.parametrize("name", stages())
def test_a_stage_depends_on_exactly_the_libraries_it_imports(name):
    stage = stages()[name]
    assert pins_of(stage) == sync_deps.libraries(ROOT, stage["cmd"]), "run `anklealign sync-deps`"


def test_only_the_report_draws():
    """A new version of Matplotlib repeats neither decoding nor training nor evaluation."""
    draws = [name for name, stage in stages().items() if "matplotlib" in pins_of(stage)]
    assert draws == ["report"]


def test_train_records_only_versions_it_depends_on():
    assert set(environment.TRAINING) <= set(pins_of(stages()["train"]))


def test_a_progress_bar_is_no_dependency():
    assert "tqdm" not in (ROOT / "pins.yaml").read_text(encoding="utf-8")
    assert "tqdm" in (ROOT / "requirements.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", stages())
def test_no_output_in_git_disables_the_run_cache(name):
    """DVC disables it for plain outputs with `cache: false` (treeverse/dvc#8738)."""
    plain = [out for out in stages()[name].get("outs", []) if isinstance(out, dict)]
    # The synthetic set is drawn again where it is missing.
    assert len(plain) == (2 if name == "synthetic" else 0)


def test_every_stage_waits_for_the_check_of_the_parameters():
    for name, stage in stages().items():
        if name not in ("check", "synthetic"):
            assert "data/check.txt" in stage["deps"]


def test_where_shards_run_is_no_parameter_of_a_stage():
    for stage in stages().values():
        named = [params for params in stage.get("params", []) if isinstance(params, str)]
        assert not [name for name in named if name.split(".")[0] == "execution"]


def test_init_files_are_empty_so_no_stage_lists_them():
    command = ["git", "ls-files", "*__init__.py", ":!service"]
    tracked = subprocess.check_output(command, cwd=ROOT, text=True)
    assert tracked.split()
    for file in set(tracked.split()) - {"anklealign/__init__.py"}:
        assert (ROOT / file).stat().st_size == 0, file


@pytest.mark.parametrize("module", TORCH_FREE)
def test_stages_without_a_network_never_import_torch(module):
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_results_in_git_are_small_text():
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "metrics", "plots"], cwd=ROOT, text=True
    )
    results = [ROOT / name for name in listed.split("\0") if name]
    assert results
    assert {file.suffix for file in results} <= {".json", ".csv"}
    assert sum(file.stat().st_size for file in results) <= 2_000_000


# --- End-to-end runs in a small clone ----------------------------------------------------------

SMALL = {
    "synthetic.photos": 60,
    "synthetic.collectors": 4,
    "models.grid_pool_cnn.epochs": 2,
    "models.tiny_cnn.epochs": 2,
    "models.grid_pool_cnn.image_size": 48,
}


class Clone:
    """A git clone of the working tree with a small synthetic set and DVC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }

    def __call__(self, *command: str, fails: bool = False) -> str:
        completed = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (completed.returncode != 0) == fails, f"{command}\n{completed.stdout}"
        return completed.stdout

    def ran(self, *command: str) -> list[str]:
        """Return the stages that a dvc command ran, or would run with --dry."""
        lines = self(*command).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def outputs(self) -> dict[str, str]:
        """Return {path: hash} of all outputs of all stages."""
        read = YAML(typ="safe", pure=True).load
        result = {}
        for lock in ("dvc.lock", "data/dvc.lock"):
            for stage in read((self.folder / lock).read_text(encoding="utf-8"))["stages"].values():
                result |= {out["path"]: out["md5"] for out in stage["outs"]}
        return result


def small_clone(folder: Path, extra: Mapping[str, object] | None = None) -> Clone:
    """Copy what git would commit, without lock files and results, with small parameters."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        text=True,
    )
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        results = name.split("/")[0] in {"metrics", "plots"} or name.endswith("dvc.lock")
        if source.exists() and not results:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    with modify_yaml(str(folder / "params.yaml")) as values:
        for key, value in (SMALL | dict(extra or {})).items():
            *parents, last = key.split(".")
            section = values
            for parent in parents:
                section = section[parent]
            section[last] = value
    clone = Clone(folder)
    clone("git", "init", "--quiet")
    clone("git", "add", "--all")
    clone("git", "commit", "--quiet", "--message", "small")
    return clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    new_clone = small_clone(tmp_path_factory.mktemp("clone"))
    ran = new_clone.ran("dvc", "repro")
    assert sorted(ran) == sorted(ALL)
    assert ran[0] == "check" or ran[:2] == ["data/dvc.yaml:synthetic", "check"]
    new_clone("git", "add", "--all")
    new_clone("git", "commit", "--quiet", "--message", "results")
    return new_clone


@pytest.fixture
def restored(clone):
    yield clone
    clone("git", "checkout", "--quiet", ".")
    clone("dvc", "checkout", "--quiet")


@pytest.mark.slow
def test_a_second_repro_runs_nothing(clone):
    assert clone.ran("dvc", "repro") == []


@pytest.mark.slow
def test_the_lock_is_checked_without_data(clone):
    output = clone("dvc", "repro", "--dry", "--allow-missing")
    assert "Data and pipelines are up to date." in output


@pytest.mark.slow
def test_another_model_reruns_train_and_going_back_restores_it_from_the_run_cache(restored):
    ran = restored.ran("dvc", "exp", "run", "-S", "model=tiny_cnn")
    assert ran == ["check", "train", "evaluate", "report"]
    assert "tiny_cnn" in restored("dvc", "params", "diff")
    rows = restored("dvc", "metrics", "diff", "--md").splitlines()[2:]
    assert 5 <= len(rows) <= 15  # the hash of the bundle is one of them
    head = restored("dvc", "exp", "show", "--drop", ".*[./]|synthetic", "--md").splitlines()
    (names,) = [line for line in head if line.startswith("| Experiment")]
    assert names.count("|") <= 10  # fits 120 columns (docs/experiments.md)
    shown = restored("dvc", "plots", "diff", "--json")
    plots = json.loads(shown[shown.index("{") :])["data"]  # a warning may precede it
    assert len(plots) == 6
    assert {plot["type"] for drawn in plots.values() for plot in drawn} == {"vega"}
    back = restored("dvc", "exp", "run", "-S", "model=grid_pool_cnn")
    for stage in ("train", "evaluate", "report"):
        assert f"Stage '{stage}' is cached - skipping run, checking out outputs" in back
    assert restored("git", "status", "--short", "metrics", "plots") == ""


@pytest.mark.slow
def test_another_backend_reruns_only_the_check(restored):
    restored.edit("params.yaml", "  backend: local", "  backend: ray")
    assert restored.ran("dvc", "repro") == ["check"]


@pytest.mark.slow
def test_another_clone_restores_a_run_from_the_shared_run_cache(clone, tmp_path):
    clone("git", "clone", "--quiet", ".", str(tmp_path / "first"))
    first = Clone(tmp_path / "first")
    first("dvc", "config", "--local", "cache.dir", str(clone.folder / ".dvc/cache"))
    first("dvc", "remote", "add", "--force", "--default", "team", str(tmp_path / "remote"))
    first("git", "commit", "--quiet", "--all", "--message", "remote")
    first("python", "-m", "anklealign", "push")  # --pull fetches what the commit has, too
    first("dvc", "exp", "run", "-S", "model=tiny_cnn")
    first("python", "-m", "anklealign", "push")
    model = (first.folder / "model/model.safetensors").read_bytes()
    first("git", "clone", "--quiet", ".", str(tmp_path / "second"))
    second = Clone(tmp_path / "second")
    output = second("dvc", "exp", "run", "--pull", "-S", "model=tiny_cnn")
    for stage in ("train", "evaluate", "report"):
        assert f"Stage '{stage}' is cached - skipping run, checking out outputs" in output
    assert (second.folder / "model/model.safetensors").read_bytes() == model


@pytest.mark.slow
def test_headline_metrics_are_few_and_details_are_no_metrics_of_dvc(clone):
    output = clone("dvc", "metrics", "show", "--json")
    shown = json.loads(output[output.index("{") :])  # a warning may precede it
    numbers = {path: data["data"] for path, data in shown[""]["data"].items()}
    scores = dict(runs.flat(numbers.pop("metrics/scores.json")))
    # The hash of the bundle is text.
    assert 10 <= len(scores.keys() - {"bundle.sha256"}) <= 15
    assert not any(numbers.values())


@pytest.mark.slow
def test_any_timm_network_is_trained_by_name(restored):
    section = "models.custom"
    options = [
        "model=custom", f"{section}.architecture=test_convnext.r160_in1k", f"{section}.epochs=1",
        f"{section}.pretrained=false", f"{section}.image_size=64",
    ]  # fmt: skip
    ran = restored.ran("dvc", "exp", "run", *[part for key in options for part in ("-S", key)])
    assert ran == ["check", "train", "evaluate", "report"]
    config = json.loads((restored.folder / "model/config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == "test_convnext"


@pytest.mark.slow
def test_a_comment_in_evaluate_reruns_evaluate_alone(restored):
    restored.edit("stages/evaluate.py", '"""', '# A remark.\n"""')
    assert restored.ran("dvc", "repro", "--dry") == ["evaluate"]


@pytest.mark.slow
def test_a_search_continues_and_every_trial_is_an_experiment(restored):
    search = ("python", "examples/search.py", "--model", "tiny_cnn", "--trials")
    assert "best of 1 trials" in restored(*search, "1")
    assert "best of 2 trials" in restored(*search, "2")
    listed = restored("dvc", "exp", "list", "--name-only").split()
    assert {"search-tiny-cnn-0", "search-tiny-cnn-1"} <= set(listed)
    shown = restored("dvc", "exp", "show", "--only-changed", "--md")
    assert "search-tiny-cnn-1" in shown
    (restored.folder / "search.log").unlink()


@pytest.mark.slow
def test_a_changed_style_of_the_report_reruns_only_report(restored):
    restored.edit("anklealign/reporting/html_report.py", '"""', '# A remark.\n"""')
    assert restored.ran("dvc", "repro", "--dry") == ["report"]


@pytest.mark.slow
def test_a_change_to_an_unused_model_config_runs_only_the_check(restored):
    restored.edit("params.yaml", "    architecture: resnet18", "    architecture: resnet34")
    assert restored.ran("dvc", "repro", "--dry") == ["check"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "stages"),
    [
        ("tqdm", []),
        ("jinja2", ["report"]),
        ("matplotlib", ["report"]),
        ("timm", ["check", "train", "evaluate"]),
        ("pillow", ALL[1:]),
    ],
)
def test_a_new_version_reruns_the_stages_that_import_the_library(restored, library, stages):
    restored.edit("requirements.txt", f"{library}==", f"{library}==9")
    restored("python", "-m", "anklealign", "sync-deps")
    assert sorted(restored.ran("dvc", "repro", "--dry")) == sorted(stages)


@pytest.mark.slow
def test_two_runs_from_scratch_give_the_same_bytes(clone, tmp_path):
    again = small_clone(tmp_path / "again")
    again("dvc", "repro")
    assert again.outputs() == clone.outputs()


@pytest.mark.slow
def test_dvc_pull_restores_all_outputs_without_training(clone, tmp_path):
    clone("dvc", "remote", "add", "--force", "--default", "team", str(tmp_path / "remote"))
    clone("dvc", "push")
    clone("git", "commit", "--quiet", "--all", "--message", "remote")
    clone("git", "clone", "--quiet", ".", str(tmp_path / "colleague"))
    colleague = Clone(tmp_path / "colleague")
    colleague("dvc", "pull")
    assert colleague.ran("dvc", "repro") == []
    assert colleague.outputs() == clone.outputs()
    assert (colleague.folder / "model/model.safetensors").exists()


@pytest.mark.slow
def test_a_release_tag_downloads_the_bundle(clone, tmp_path):
    clone("git", "clone", "--quiet", ".", str(tmp_path / "team"))
    team = Clone(tmp_path / "team")
    team("dvc", "config", "--local", "cache.dir", str(clone.folder / ".dvc/cache"))
    team("gto", "register", "classifier", "--version", "v1.0.0")
    bundle = tmp_path / "bundle"
    team("dvc", "artifacts", "get", ".", "classifier", "--rev", "v1.0.0", "--out", str(bundle))
    for name in ("config.json", "model.safetensors"):
        assert (bundle / name).read_bytes() == (clone.folder / "model" / name).read_bytes()


@pytest.mark.slow
def test_own_photos_are_added_pushed_pulled_and_survive_an_experiment(clone, tmp_path):
    clone("git", "clone", "--quiet", ".", str(tmp_path / "mine"))
    project = Clone(tmp_path / "mine")
    own = project.folder / "data/raw/own"
    for number in range(24):
        folder = own / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cells = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        sharp = Image.fromarray(cells).resize((192, 192), Image.Resampling.NEAREST)
        sharp.save(folder / f"{number}.png")
    project.edit(
        "params.yaml", "datasets:", "datasets:\n  own: {layout: folders, classes: {a: [], b: []}}"
    )
    project("dvc", "add", "data/raw/own")
    project("git", "add", "--all")
    project("git", "commit", "--quiet", "--message", "own photos")
    assert "own/a/0.png" not in project("git", "ls-files")
    ran = project.ran("dvc", "exp", "run", "-S", "dataset=own", "-S", "model=majority")
    assert ran == ["check", "prepare", "clean", "split", "train", "evaluate", "report"]
    assert len(list(own.rglob("*.png"))) == 24
    project("dvc", "remote", "add", "--force", "--default", "own", str(tmp_path / "remote"))
    project("dvc", "push")
    project("git", "commit", "--quiet", "--all", "--message", "run on own photos")
    project("git", "clone", "--quiet", ".", str(tmp_path / "colleague"))
    colleague = Clone(tmp_path / "colleague")
    # The synthetic set was never drawn here.
    colleague("dvc", "pull")
    colleague("dvc", "checkout")
    colleague("python", "-m", "anklealign", "restore")
    assert len(list((colleague.folder / "data/raw/own").rglob("*.png"))) == 24
    assert colleague.ran("dvc", "repro") == []


@pytest.mark.slow
def test_a_wrong_parameter_stops_before_anything_is_deleted(restored):
    before = (restored.folder / "model/model.safetensors").read_bytes()
    for change in ("train.batch_size=abc", "split.test=0.95", "model=nope"):
        output = restored("dvc", "exp", "run", "-S", change, fails=True)
        assert "check: params.yaml" in output, output
        assert (restored.folder / "model/model.safetensors").read_bytes() == before
        restored("git", "checkout", "--quiet", "params.yaml")
        assert restored("git", "status", "--short") == ""


@pytest.mark.slow
def test_unreachable_weights_stop_before_anything_is_deleted(restored, monkeypatch, tmp_path):
    """No server listens at the hub's address, and nothing is cached."""
    monkeypatch.setitem(restored.environment, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(restored.environment, "HF_HOME", str(tmp_path))
    before = (restored.folder / "model/model.safetensors").read_bytes()
    for command in (("dvc", "repro"), ("python", "-m", "anklealign", "run")):
        restored.edit("params.yaml", "model: grid_pool_cnn", "model: vit")
        output = restored(*command, fails=True)
        assert "the hub cannot be reached" in output, output
        assert "choose another model: lite0" in output
        assert "Traceback" not in output
        assert (restored.folder / "model/model.safetensors").read_bytes() == before
        restored("git", "checkout", "--quiet", "params.yaml")
        assert restored("git", "status", "--short") == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prepare", "clean", "split", "train", "evaluate", "report"])
def test_restore_gives_one_consistent_state_after_any_stage_fails(restored, name):
    """Run an experiment first, so that the workspace holds another model than the commit."""
    model = (restored.folder / "model/model.safetensors").read_bytes()
    restored("dvc", "exp", "run", "-S", "model=tiny_cnn", "--name", f"tiny-{name}")
    assert (restored.folder / "model/model.safetensors").read_bytes() != model
    restored.edit(f"stages/{name}.py", "def main() -> None:", "def main() -> None:\n    int('x')")
    advice = re.search(r"run `(anklealign [^`]*)` to restore", restored("dvc", "repro", fails=True))
    printed = restored("python", "-m", *advice[1].split())
    assert "those of HEAD" in printed
    assert (restored.folder / "model/model.safetensors").read_bytes() == model
    restored("git", "checkout", "--quiet", ".")
    assert restored.ran("dvc", "repro") == []
    restored("python", "-m", "anklealign", "restore", f"tiny-{name}")
    summary = restored("python", "-m", "anklealign", "summary")
    assert "tiny_cnn" in summary


@pytest.mark.slow
def test_results_of_two_runs_are_not_shown_as_one(restored):
    restored("dvc", "exp", "run", "-S", "model=tiny_cnn")
    restored("git", "checkout", "--quiet", "metrics", "plots")
    for command in ("summary", "report"):
        output = restored("python", "-m", "anklealign", command, fails=True)
        assert "the results belong to different bundles" in output
        assert "anklealign restore" in output


@pytest.mark.slow
def test_a_model_beside_data_of_another_run_is_refused(restored, tmp_path):
    restored("dvc", "exp", "run", "-S", "seed=8")
    restored("git", "checkout", "--quiet", ".")
    shutil.copytree(restored.folder / "model", tmp_path / "model")
    restored("dvc", "checkout", "--force")
    for file in (tmp_path / "model").iterdir():
        target = restored.folder / "model" / file.name
        target.unlink(missing_ok=True)  # it may be a link into the cache
        shutil.copy(file, target)
    output = restored("python", "-m", "anklealign", "summary", fails=True)
    assert "the results belong to different bundles" in output
    output = restored("python", "-m", "anklealign", "label-issues", fails=True)
    assert "model/ was trained on another data/split/photos.csv" in output
    output = restored("python", "-m", "anklealign", "export")
    assert "photos of another run" in output


@pytest.mark.slow
def test_the_split_of_another_run_is_refused(restored):
    before = restored.folder / "metrics/details/split.json"
    content = before.read_text(encoding="utf-8")
    restored("dvc", "exp", "run", "-S", "seed=8", "dvc.yaml:split")
    restored("dvc", "repro", "split")
    assert before.read_text(encoding="utf-8") != content
    output = restored("python", "-m", "anklealign", "summary", fails=True)
    assert "train.json is not of the photos of metrics/details/split.json" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_killed_repro_resumes_from_its_last_epoch_to_the_same_bytes(restored, name):
    """Send the signal to the whole process group, like Ctrl-C in a terminal."""
    restored.edit("params.yaml", "model: grid_pool_cnn", "model: cnn_1m")
    restored.edit(
        "params.yaml",
        "    image_size: 96\n    epochs: 60\n    learning_rate: 0.002",
        "    image_size: 48\n    epochs: 12\n    learning_rate: 0.002",
    )
    restored("dvc", "repro", "train")
    expected = (restored.folder / "model/model.safetensors").read_bytes()
    history = (restored.folder / "plots/train/history.csv").read_bytes()
    killed = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", "train"],
        cwd=restored.folder,
        env=restored.environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell that runs pytest in the background may ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    with killed:
        for line in killed.stdout:
            if line.startswith("epoch   4"):
                os.killpg(killed.pid, getattr(signal, name))
                break
        killed.stdout.read()  # remaining output
    assert killed.returncode != 0
    assert not (restored.folder / "model/config.json").exists()
    output = restored("dvc", "repro", "--force", "--single-item", "train")
    assert "resuming from checkpoints/" in output
    assert (restored.folder / "model/model.safetensors").read_bytes() == expected
    assert (restored.folder / "plots/train/history.csv").read_bytes() == history


@pytest.mark.slow
def test_queued_folds_and_models_run_and_missing_weights_are_reported(clone, tmp_path):
    clone("git", "clone", "--quiet", ".", str(tmp_path / "mine"))
    project = Clone(tmp_path / "mine")
    project("dvc", "config", "--local", "cache.dir", str(clone.folder / ".dvc/cache"))
    state = Cnn(7, widths=(8, 16)).state_dict()
    (project.folder / "data/weights").mkdir(parents=True, exist_ok=True)
    weights = project.folder / "data/weights/own.safetensors"
    save_file(state, weights)
    project.edit(
        "params.yaml",
        "models:",
        f"""models:
  own:
    architecture: anklealign_cnn
    image_size: 48
    epochs: 1
    learning_rate: 0.01
    pretrained: true
    frozen: true
    weights: data/weights/own.safetensors
    weights_sha256: {files.sha256(weights)}
    arguments: {{widths: [8, 16]}}""",
    )
    project("git", "commit", "--quiet", "--all", "--message", "own weights")
    project("dvc", "exp", "run", "--queue", "--name", "untracked", "-S", "model=own")
    project("dvc", "queue", "start")
    output = finished_queue(project, "untracked")
    assert "Failed" in output
    log = project("dvc", "queue", "logs", "untracked")
    assert "the weights file data/weights/own.safetensors does not exist" in log
    assert "dvc add" in log
    project("dvc", "add", "data/weights/own.safetensors")
    project("git", "add", "--all")
    project("git", "commit", "--quiet", "--message", "weights in DVC")
    options = ["-S", "split.folds=3", "-S", "split.fold=range(0,2)", "-S", "model=own,majority"]
    project("dvc", "exp", "run", "--queue", *options)
    project("dvc", "queue", "start")
    output = finished_queue(project)
    assert output.count("Success") == 4, output
    table = project("python", "-m", "anklealign", "compare")
    assert "own" in table
    assert "majority" in table


def finished_queue(clone: Clone, name: str = "") -> str:
    """Return the state of the queue once all tasks have finished."""
    for _ in range(300):
        output = clone("dvc", "queue", "status")
        rows = [line for line in output.splitlines() if name in line]
        if rows and not any("Queued" in row or "Running" in row for row in rows):
            return "\n".join(rows)
        time.sleep(2)
    raise AssertionError(output)
