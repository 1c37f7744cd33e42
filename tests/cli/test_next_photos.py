"""`anklealign next` chooses unlabeled photos of the dataset, or of folders, for Label Studio."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from anklealign.cli.main import main
from anklealign.cli.next_photos import UNLABELED
from anklealign.config import paths
from anklealign.ingest.inventory import REASONS
from anklealign.models import bundle
from stages import prepare
from tests.models.test_bundle import made

ROOT = Path(__file__).resolve().parents[2]


def photo(path: Path, seed: int, brighter: int = 0) -> None:
    coarse = np.random.default_rng(seed).integers(0, 240, (10, 10, 3)).repeat(20, 0).repeat(20, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((coarse + brighter).astype(np.uint8)).save(path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A prepared set with labeled photos, unlabeled ones, and a bundle of random weights."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    yaml = YAML()
    raw = yaml.load(Path("params.yaml"))
    classes = {"pronation": ["1_Pronacio"], "neutral": [], "szupináció": []}
    raw["dataset"] = "mine"
    raw["datasets"]["mine"] = {"layout": "folders", "classes": classes, "mirror_safe": True}
    raw["train"]["device"] = "cpu"
    yaml.dump(raw, Path("params.yaml"))
    root = paths.RAW / "mine"
    for n, name in enumerate(classes):
        photo(root / name / "a.png", n)
    for n in range(20):
        photo(root / f"new {n:02}.png", 100 + n)  # in no class folder
    photo(root / "again.png", 105)  # the same pixels as another unlabeled one
    photo(root / "labeled.png", 1, brighter=6)  # a near-duplicate of a labeled one
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    prepare.main()
    bundle.save(paths.MODEL, made())
    return tmp_path


def test_photos_without_a_label_are_chosen_without_duplicates_of_labeled_ones(project, capsys):
    assert main(["next", "--count", "8", "--out", "first"]) == 0
    printed = capsys.readouterr().out
    assert "8 of" in printed
    assert "near-duplicates left out, 1 unreadable" in printed
    table = pd.read_csv("first/next_photos.csv")
    assert len(table) == table.sha256.nunique() == 8
    assert table.path.str.match(r"mine/(new \d\d|again)\.png").all()
    assert not {"mine/again.png", "mine/new 05.png"} <= set(table.path)
    assert table.uncertainty.between(0, 1).all()
    assert table.uncertainty.is_monotonic_decreasing
    assert main(["next", "--count", "8", "--out", "second"]) == 0
    for name in ("next_photos.csv", "label_studio.json"):
        assert (project / "first" / name).read_bytes() == (project / "second" / name).read_bytes()


@pytest.mark.usefixtures("project")
def test_the_import_has_a_pre_annotation_in_the_teams_spelling_and_an_encoded_address():
    assert main(["next", "--count", "50", "--to-name", "photo", "--from-name", "class"]) == 0
    table = pd.read_csv(paths.NEXT_PHOTOS / "next_photos.csv")
    text = (paths.NEXT_PHOTOS / "label_studio.json").read_text(encoding="utf-8")
    tasks = json.loads(text)
    assert len(tasks) == len(table) == 20  # without the duplicates and the broken file
    spelling = {"pronation": "1_Pronacio", "neutral": "neutral", "szupináció": "szupináció"}
    for task, row in zip(tasks, table.to_dict("records"), strict=True):
        assert task["data"] == {
            "photo": "/data/local-files/?d=" + row["path"].replace(" ", "%20"),
            "sha256": row["sha256"],
        }
        (found,) = task["predictions"]
        assert found["score"] == row["probability"]
        assert found["result"] == [
            {
                "from_name": "class", "to_name": "photo", "type": "choices",
                "value": {"choices": [spelling[row["predicted"]]]},
            }
        ]  # fmt: skip


def test_photos_of_folders_are_addressed_from_the_folder_s_parent(project):
    photo(project / "elsewhere/deep/x.png", 300)
    photo(project / "elsewhere/copy.png", 0)  # a labeled photo
    assert main(["next", "elsewhere", "--count", "5"]) == 0
    table = pd.read_csv(paths.NEXT_PHOTOS / "next_photos.csv")
    assert table.path.tolist() == ["elsewhere/deep/x.png"]


def test_no_unlabeled_photo_is_an_error_with_a_remedy(project, capsys):
    photo(project / "only/copy.png", 0)
    assert main(["next", "only"]) == 1
    assert "name a folder" in capsys.readouterr().err


def test_the_reasons_of_unlabeled_photos_exist():
    assert set(UNLABELED) <= set(REASONS)
