"""`anklealign learning-curve` trains the selected model on parts of the groups, beside the run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from anklealign.cli import learning_curve
from anklealign.cli.main import main
from anklealign.config import paths
from anklealign.io import files, pixel_store

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("dark", "light")
SIDE = 32


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with a pixel store and a split of 60 photos of 30 groups, and a small model."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) // 2 % 2
    pixels = rng.integers(0, 120, (60, SIDE, SIDE, 3)) + 60 * labels[:, None, None, None]
    pixel_store.write_store(tmp_path / paths.STORE, pixels.astype(np.uint8))
    table = pd.DataFrame(
        {
            "id": [f"{n:012x}" for n in range(60)],
            "row": range(60),
            "path": [f"{n}.jpg" for n in range(60)],
            "label": [CLASSES[k] for k in labels],
            "collector": "", "subject": "", "sha256": "",
            "group": [f"g{n // 2:02}" for n in range(60)],
            "split": ["train"] * 40 + ["val"] * 8 + ["test"] * 12,
            "width": SIDE, "height": SIDE, "left": 0, "top": 0, "right": SIDE, "bottom": SIDE,
        }
    )  # fmt: skip
    files.write_table(tmp_path / paths.SPLIT / "photos.csv", table)
    files.write_table(tmp_path / paths.SOFT_LABELS, pd.DataFrame(columns=["photo"]))
    yaml = YAML(typ="safe", pure=True)
    raw = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["datasets"]["tiny"] = {"layout": "folders", "classes": {name: [] for name in CLASSES}}
    raw["models"]["tiny_cnn"] |= {"image_size": SIDE, "epochs": 12}
    raw |= {"dataset": "tiny", "model": "tiny_cnn"}
    raw["train"] |= {"device": "cpu", "false_refusals": 0.0}
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(raw, stream)
    shutil.copyfile(ROOT / "pins.yaml", tmp_path / "pins.yaml")
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / "anklealign").symlink_to(ROOT / "anklealign")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_curve_is_written_and_the_run_stays(project, capsys):
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*") if path.is_file()}
    assert main(["learning-curve", "--repeats", "1"]) == 0
    metrics = json.loads(Path("learning_curve/learning_curve.json").read_text(encoding="utf-8"))
    points = metrics["points"]
    assert [point["photos"] for point in points.values()] == [10, 20, 30, 40]
    assert [point["groups"] for point in points.values()] == [5, 10, 15, 20]
    assert points["100"]["value"] > 0.9  # brightness gives the class away
    assert metrics["repeats"] == 1
    assert "model tiny_cnn on dataset tiny" in metrics["method"]
    table = pd.read_csv("learning_curve/learning_curve.csv")
    assert list(table.percent) == [25, 50, 75, 100]
    after = {
        path: path.stat().st_mtime_ns
        for path in project.rglob("*")
        if path.is_file() and "learning_curve" not in path.parts
    }
    assert after == before
    assert "balanced accuracy, sd over 1 seed\n" in capsys.readouterr().out


def test_without_a_split_the_command_says_what_to_run(project, capsys):
    (project / paths.SPLIT / "photos.csv").unlink()
    assert main(["learning-curve"]) == 1
    assert "run `dvc repro split` first" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_failed_training_run_is_shown(capsys, monkeypatch):
    def fail(*_: object) -> None:
        raise learning_curve.subprocess.CalledProcessError(1, "train", stderr="train: no photo\n")

    monkeypatch.setattr(learning_curve, "train_and_predict", fail)
    assert main(["learning-curve", "--repeats", "1"]) == 1
    assert "train: no photo" in capsys.readouterr().err
