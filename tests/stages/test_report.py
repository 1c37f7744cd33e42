"""report draws the pictures of the photos, also before a model is trained."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from anklealign.cli.main import main as anklealign
from anklealign.config.params import PARAMS
from stages import clean, prepare, report, split

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Change to a folder with 60 photos of two classes, one of them dark and one a copy."""
    monkeypatch.chdir(tmp_path)
    raw = YAML(typ="safe", pure=True).load((ROOT / PARAMS).read_text(encoding="utf-8"))
    raw["dataset"] = "mine"
    raw["datasets"] = {"mine": {"layout": "folders", "classes": {"ä": [], "b": []}}}
    (tmp_path / PARAMS).write_text(json.dumps(raw), encoding="utf-8")
    for number in range(60):
        cells = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        picture = Image.fromarray(cells).resize((192, 192), Image.Resampling.NEAREST)
        if number == 8:
            picture = picture.point(lambda level: 0.1 * level)
        folder = tmp_path / "data/raw/mine" / "äb"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number}.png")
        if number == 9:
            picture.resize((160, 160)).save(folder / "copy.png")
    return tmp_path


def names(folder: str) -> set[str]:
    return {path.name for path in Path("plots", folder).iterdir()}


@pytest.mark.usefixtures("project")
def test_the_photos_are_drawn_as_far_as_the_stages_have_run(capsys):
    assert anklealign(["report", "--photos"]) == 1
    assert "run `dvc repro split` first" in capsys.readouterr().err
    prepare.main()
    report.draw_photos()
    assert names("prepare") == {"class_01_a_01.png", "class_02_b_01.png", "overview.png"}
    assert not Path("plots/clean").exists()
    clean.main()
    split.main()
    assert anklealign(["report", "--photos"]) == 0
    assert names("clean") == {"duplicates_01.png", "quality_01.png", "scores.png"}
    assert names("split") == {"classes.png", "nearest_01.png"}
    before = {path: path.read_bytes() for path in Path("plots").rglob("*.png")}
    report.draw_photos()
    assert before == {path: path.read_bytes() for path in Path("plots").rglob("*.png")}
