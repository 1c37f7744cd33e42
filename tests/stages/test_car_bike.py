"""prepare, clean and split on 3,995 web photos of cars and bikes, some 360 of them copies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared/photos/car_bike"
QUALITY = ("too_small", "aspect", "dark", "bright", "low_contrast", "blurred")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/photos/car_bike is not there"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a project after prepare and clean."""
    folder = tmp_path_factory.mktemp("car_bike")
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/car_bike").symlink_to(PHOTOS)
    (folder / "pins.yaml").symlink_to(ROOT / "pins.yaml")
    for stage in ("prepare", "clean"):
        run(folder, stage, seed=1)
    return folder


def run(folder, stage, seed):
    """Run a stage and return its metrics."""
    yaml = YAML()
    raw = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw.update(dataset="car_bike", seed=seed)
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(raw, stream)
    command = [sys.executable, "-m", f"stages.{stage}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return metrics(folder, stage)


def metrics(folder, stage):
    """Return the metrics of a stage."""
    content = json.loads((folder / f"metrics/details/{stage}.json").read_text(encoding="utf-8"))
    return content[0] if isinstance(content, list) else content


def test_clean_removes_copies_and_hardly_another_photo(folder):
    counts = metrics(folder, "clean")
    reasons = counts["reasons"]
    assert counts["photos"] == 3995
    assert reasons["exact_duplicate"] == 25
    assert 360 <= reasons["near_duplicate"] <= 500
    assert reasons["contradicting_labels"] == 0
    assert sum(reasons[name] for name in QUALITY) <= 0.002 * counts["photos"]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_split_ends_without_a_leaking_pair_and_without_an_edit(folder, seed):
    counts = run(folder, "split", seed)
    assert counts["leaking_pairs"] == counts["groups_crossing"] == 0
    # Center thumbnails that clean misses; five before its search found crops.
    assert counts["leaking_pairs_joined"] < 5
    assert counts["audit_rounds"] <= 3
    assert {"Bike", "Car"} == set(counts["test"]["classes"])
