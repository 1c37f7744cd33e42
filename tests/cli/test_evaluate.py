"""`anklealign evaluate` scores a bundle on photos it never saw and writes one folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn import metrics as sklearn_metrics

from anklealign.cli.main import main
from anklealign.config import params
from anklealign.config.params import Model, Train
from anklealign.evaluation import photo_attributes
from anklealign.inference.predictor import Predictor
from anklealign.models import bundle, factory, novelty
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.training import loop
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig

ROOT = Path(__file__).resolve().parents[2]
INSECTS = ROOT.parent / "shared" / "photos" / "hymenoptera"
CLASSES = ("ants", "bees")


def write_photo(path: Path, seed: int, level: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(level - 60, level + 60, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(path, quality=95)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a bundle in model/ and its 20 training photos in train/."""
    place = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    config = Model("anklealign_cnn", 32, epochs=1, learning_rate=0.01, arguments={"widths": (8,)})
    model = factory.build("x", config, 2)
    preparation = Preprocessing(size=48, fit="letterbox", fill=114, max_megapixels=1.0)
    for n in range(20):
        write_photo(place / f"train/{CLASSES[n % 2]}/{n}.jpg", n)
    paths = sorted((place / "train").rglob("*.jpg"))
    plain = Bundle(
        CLASSES, preparation, bundle.default_input(model, 32), 1.0, 0.49, {}, model=model
    )
    predictor = Predictor(plain, torch.device("cpu"))
    pixels = np.stack([predictor.preprocess(path) for path in paths])
    rows = np.arange(20)
    table = pd.DataFrame(
        {"row": rows, "width": 96, "height": 72, "left": 0, "top": 6, "right": 48, "bottom": 42}
    )
    record = {
        "params": {
            "seed": 1, "dataset_name": "insects", "model_name": "tiny",
            "dataset": {"layout": "folders", "classes": {"ants": ["formica"], "bees": []}},
        },
        "train_class_counts": {"ants": 10, "bees": 10},
        "split_sha256": "0" * 64,
        "photo_attributes": photo_attributes.quantiles(photo_attributes.measure(table, pixels)),
        "operating_point": {
            "positive": "bees", "threshold": 0.4, "target": "sensitivity", "goal": 0.9,
        },
    }  # fmt: skip
    detector = novelty.fit(
        pixels, rows[:14], rows[14:], torch.device("cpu"), 0.05, groups=rows[:14]
    )
    bundle.save(
        place / "model",
        Bundle(
            CLASSES,
            preparation,
            plain.input_config,
            1.0,
            0.49,
            record,
            novelty=detector,
            model=model,
        ),
    )
    return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Path:
    """The working directory, with 24 new photos in site/."""
    for n in range(24):
        write_photo(tmp_path / f"site/{CLASSES[n % 2]}/s{n // 2:02}_{n}.jpg", 100 + n, 190)
    monkeypatch.chdir(tmp_path)
    return trained / "model"


def evaluation() -> tuple[dict, pd.DataFrame]:
    table = pd.read_csv("evaluation/predictions.csv", keep_default_na=False)
    return json.loads(Path("evaluation/evaluation.json").read_text(encoding="utf-8")), table


def test_scores_page_and_tables_are_of_the_new_photos(place, capsys):
    assert main(["evaluate", str(place), "site"]) == 0
    metrics, table = evaluation()
    assert metrics["photos"] == len(table) == 24
    assert metrics["accuracy"]["value"] == pytest.approx(
        sklearn_metrics.accuracy_score(table.actual, table.predicted), abs=1e-6
    )
    assert metrics["log_loss"]["value"] == pytest.approx(
        sklearn_metrics.log_loss(table.actual, table[["p_ants", "p_bees"]]), abs=1e-4
    )
    assert {"ci_low", "ci_high", "majority"} < metrics["balanced_accuracy"].keys()
    flagged = table.at_operating_point == "bees"
    assert list(flagged) == list(table.p_bees >= 0.4)
    assert metrics["operating_point"]["sensitivity"]["value"] == pytest.approx(
        flagged[table.actual == "bees"].mean(), abs=1e-6
    )
    # The new photos are brighter.
    brightness = metrics["drift"]["attributes"]["brightness"]
    assert brightness["median"] > brightness["train_median"] + 30
    assert any("brightness" in sentence for sentence in metrics["warnings"])
    assert metrics["overlap"] == {"checked": True, "splits": {}}
    page = Path("evaluation/report.html").read_text(encoding="utf-8")
    assert f"{metrics['accuracy']['value']:.1%}" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    out = capsys.readouterr().out
    assert "24 test photos of 24 groups" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_same_photos_give_the_same_bytes(place):
    contents = []
    for out in ("one", "two"):
        assert main(["evaluate", str(place), "site", "--out", out]) == 0
        contents.append({path.name: path.read_bytes() for path in Path(out).iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 4


def test_training_photos_are_named_also_when_saved_again(place, trained):
    source, other = sorted((trained / "train").rglob("*.jpg"))[:2]
    shutil.copyfile(source, f"site/ants/{source.name}")
    with Image.open(other) as photo:
        photo.save("site/ants/again.jpg", quality=85)
    assert main(["evaluate", str(place), "site"]) == 0
    metrics, table = evaluation()
    assert set(table.path[table.seen == "similar"]) == {f"ants/{source.name}", "ants/again.jpg"}
    assert metrics["overlap"]["new_photos"] == 24
    assert "2 of the 26 photos look like the same picture" in " ".join(metrics["warnings"])


def test_copies_of_a_photo_are_one_group(place):
    shutil.copyfile("site/ants/s00_0.jpg", "site/ants/copy.jpg")
    assert main(["evaluate", str(place), "site"]) == 0
    metrics, table = evaluation()
    assert (metrics["photos"], metrics["groups"]) == (25, 24)
    assert (
        table.set_index("path").group["ants/copy.jpg"]
        == (table.set_index("path").group["ants/s00_0.jpg"])
    )


def test_a_table_with_the_spellings_of_the_bundle_is_read(place):
    rows = [
        (path.name, "Formica" if path.parent.name == "ants" else "bees")
        for path in sorted(Path("site").rglob("*.jpg"))
    ]
    Path("flat").mkdir()
    for path in Path("site").rglob("*.jpg"):
        shutil.copyfile(path, f"flat/{path.name}")
    pd.DataFrame(rows, columns=["file", "label"]).to_csv("flat/labels.csv", index=False)
    assert main(["evaluate", str(place), "flat"]) == 0
    metrics, table = evaluation()
    assert metrics["layout"].startswith("table")
    assert (table.actual == "ants").sum() == 12


def test_a_label_without_a_class_is_an_error_with_ways_on(place, capsys):
    write_photo(Path("site/wasps/w.jpg"), 5)
    assert main(["evaluate", str(place), "site"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "the model has no class for 'wasps' (1); its classes are ants, bees" in error
    assert "--partial" in error
    assert not Path("evaluation").exists()
    assert main(["evaluate", str(place), "site", "--partial"]) == 0
    skipped = pd.read_csv("evaluation/skipped.csv")
    assert list(skipped.reason) == ["label_unknown"]
    spelled = "classes={ants: [], bees: [wasps]}"
    assert main(["evaluate", str(place), "site", "--set", spelled]) == 0
    assert evaluation()[0]["photos"] == 25


def test_a_class_without_photos_is_an_error_unless_partial(place, capsys):
    for path in Path("site/bees").iterdir():
        path.write_bytes(b"")
    assert main(["evaluate", str(place), "site"]) == 1
    assert "no readable photo of bees" in " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", str(place), "site", "--partial"]) == 0
    metrics, _ = evaluation()
    assert metrics["photos"] == metrics["skipped"]["zero_bytes"] == 12
    assert metrics["class_bees"]["support"] == 0


def test_a_wrong_place_is_an_error(place, capsys):
    assert main(["evaluate", str(place), "nowhere"]) == 1
    assert "'nowhere' is not a folder" in capsys.readouterr().err
    assert main(["evaluate", str(place), "site", "--out", "site/out"]) == 1
    assert "is inside DATA" in capsys.readouterr().err
    assert main(["evaluate", "site", "site"]) == 1
    assert "config.json does not exist" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.skipif(not INSECTS.is_dir(), reason="../shared/photos/hymenoptera is not there")
def test_real_photos_of_another_split_are_scored(tmp_path, monkeypatch):
    """A lite0_probe of train/ is right on nine of ten photos of val/, which are like its own."""
    raw = params.read(ROOT / "params.yaml")
    config = params.section(raw, "models.lite0_probe", Model)
    cpu = torch.device("cpu")
    with loop.reproducible(1):
        model = factory.build("lite0_probe", config, 2)
        preparation = Preprocessing(size=256, fit="crop", fill=114, max_megapixels=80.0)
        plain = Bundle(
            CLASSES, preparation, bundle.default_input(model, 224), 1.0, 0.2, {}, model=model
        )
        paths = sorted((INSECTS / "train").rglob("*.jpg"))
        photos = [Predictor(plain, cpu).open_photo(path) for path in paths]
        pixels = np.stack([photo.pixels for photo in photos])
        labels = np.array([CLASSES.index(path.parent.name) for path in paths])
        rows = np.arange(len(paths))
        train, val = (
            LabeledPhotos(pixels, own, tuple(f"{n:012x}" for n in own), labels[own])
            for own in (rows[rows % 4 > 0], rows[::4])
        )
        settings = params.section(raw, "train", Train)
        loop.fit(model, train, val, FitConfig(plain.input_config, 2, config, settings, 1, cpu))
    sizes = {"width": [p.width for p in photos], "height": [p.height for p in photos]}
    boxes = dict(zip(("left", "top", "right", "bottom"), (0, 0, 256, 256), strict=True))
    table = pd.DataFrame({"row": rows} | sizes).assign(**boxes)
    record = {
        "params": {"seed": 1, "dataset_name": "insects", "model_name": "lite0_probe"},
        "train_class_counts": dict(zip(CLASSES, np.bincount(train.labels).tolist(), strict=True)),
        "photo_attributes": photo_attributes.quantiles(photo_attributes.measure(table, pixels)),
    }
    detector = novelty.fit(pixels, train.rows, val.rows, cpu, 0.05, groups=train.rows)
    own = replace(plain, model=model.eval(), record=record, novelty=detector)
    bundle.save(tmp_path / "model", own)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "model", str(INSECTS / "val")]) == 0
    metrics, _ = evaluation()
    assert metrics["photos"] == 153
    assert metrics["accuracy"]["ci_low"] > 0.85
    assert metrics["overlap"] == {"checked": True, "splits": {}}
    assert metrics["drift"]["unlike"]["value"] < 0.15
    for name in ("brightness", "sharpness", "background_red", "width"):
        assert metrics["drift"]["attributes"][name]["outside"]["value"] < 0.25, name
