import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from anklealign.cli import label_issues
from anklealign.cli.main import main
from anklealign.config.params import Dataset
from anklealign.io import decoder_pool
from anklealign.io.decoder_pool import Target
from anklealign.metrics.scores import point_scores
from anklealign.models import calibration, novelty

ROOT = Path(__file__).resolve().parents[2]
INSECTS = ROOT.parent / "shared/photos/hymenoptera/train"


@pytest.fixture
def mislabelled():
    """Features of 600 photos of 150 subjects in three clusters, 30 photos with a wrong label."""
    generator = np.random.default_rng(0)
    truth = np.repeat(generator.choice(3, 150, p=[0.4, 0.45, 0.15]), 4)
    features = np.eye(3)[truth] @ generator.normal(0, 1, (3, 20)) * 1.2
    features = features + generator.normal(0, 1, features.shape)
    labels = truth.copy()
    wrong = generator.choice(600, 30, replace=False)
    labels[wrong] = (labels[wrong] + generator.integers(1, 3, 30)) % 3
    groups = [f"person:{n // 4}" for n in range(600)]
    return features, labels.astype(np.int64), groups, wrong


def test_wrong_labels_come_first(mislabelled):
    features, labels, groups, wrong = mislabelled
    probabilities = label_issues.cross_validated(features, labels, groups)
    margin, _, confident = label_issues.margins(labels, probabilities)
    top = set(np.argsort(margin)[:60])
    assert len(top & set(wrong)) >= 24
    assert confident[wrong].mean() > 0.6
    assert confident.mean() < 0.15


def test_a_photo_s_own_label_does_not_affect_its_score(mislabelled):
    features, labels, groups, _ = mislabelled
    before = label_issues.cross_validated(features, labels, groups)
    turned = labels.copy()
    turned[0] = (turned[0] + 1) % 3
    after = label_issues.cross_validated(features, turned, groups)
    # Another label moves groups between folds, and hardly the photo's own probabilities.
    assert np.abs(before[0] - after[0]).max() < 0.2
    # Labels that are pure noise cannot be learned by heart.
    noise = np.random.default_rng(1).integers(0, 3, len(labels))
    judged = label_issues.cross_validated(features, noise, groups).argmax(1)
    assert (judged == noise).mean() < 0.45


def test_a_margin_is_relative_to_each_class():
    """A class with low probabilities throughout does not get more issues."""
    probabilities = np.array([[0.6, 0.4]] * 10 + [[0.45, 0.55]] * 10)
    labels = np.array([0] * 10 + [1] * 9 + [0])
    margin, against, confident = label_issues.margins(labels, probabilities)
    assert margin.argmin() == 19
    assert against[19] == 1
    assert confident.tolist() == [False] * 19 + [True]


def test_the_ranking_does_not_depend_on_the_order_of_rows(mislabelled):
    features, labels, groups, _ = mislabelled
    order = np.random.default_rng(2).permutation(len(labels))
    one = label_issues.cross_validated(features, labels, groups)
    other = label_issues.cross_validated(features[order], labels[order], [groups[n] for n in order])
    assert np.allclose(one[order], other, atol=1e-6)


def test_a_class_of_two_groups_is_ranked_and_one_of_a_single_group_is_an_error(mislabelled):
    features, labels, groups, _ = mislabelled
    rare = np.flatnonzero(labels == 2)
    of_two = sorted({groups[n] for n in rare})[:2]
    keep = [n for n in range(len(labels)) if labels[n] != 2 or groups[n] in of_two]
    some = [groups[n] for n in keep]
    found = label_issues.cross_validated(features[keep], labels[keep], some)
    assert np.allclose(found.sum(1), 1)
    one = [n for n in keep if labels[n] != 2 or groups[n] == of_two[0]]
    with pytest.raises(ValueError, match="one group"):
        label_issues.cross_validated(features[one], labels[one], [groups[n] for n in one])


def test_a_task_carries_the_suggestion_as_the_team_spells_it():
    dataset = Dataset(layout="folders", classes={"neutral": ("2_Neutralis",), "pronation": ()})
    tasks = label_issues.Tasks(dataset, "/data/", "choice", "image")
    found = tasks.task(
        label_issues.Suggestion(
            "x/a b.jpg", "neutral", 0.8, {"labeled": "pronation", "sha256": "ab"}
        )
    )
    (prediction,) = found["predictions"]
    assert found["data"] == {"image": "/data/x/a%20b.jpg", "labeled": "pronation", "sha256": "ab"}
    assert prediction["score"] == 0.8
    assert prediction["result"] == [
        {
            "from_name": "choice",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": ["2_Neutralis"]},
        }
    ]


def test_without_a_run_the_message_has_a_remedy(tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["label-issues"]) == 1
    assert "run `dvc repro` first" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "model/config.json").exists(), reason="no trained bundle here")
def test_a_run_writes_table_contact_sheet_and_import_file(tmp_path):
    command = [sys.executable, "-m", "anklealign", "label-issues", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = pd.read_csv(tmp_path / "label_issues.csv")
    assert found.margin.is_monotonic_increasing
    tasks = json.loads((tmp_path / "label_studio.json").read_text(encoding="utf-8"))
    assert len(tasks) == min(96, len(found))
    assert tasks[0]["data"]["image"].endswith(found.path[0])
    assert (tmp_path / "sheet_01.png").exists()


@pytest.mark.skipif(not INSECTS.is_dir(), reason="../shared/photos/hymenoptera is not there")
def test_swapped_labels_of_real_photos_are_found_by_the_installed_weights():
    photos = [path for name in ("ants", "bees") for path in sorted((INSECTS / name).glob("*"))[:40]]
    target = Target(80.0, 160, "crop", 114)
    pixels = np.stack([decoder_pool.shared().decode(p.read_bytes(), target).pixels for p in photos])
    features = novelty.describe(pixels, np.arange(80), torch.device("cpu")).astype(np.float64)
    labels = np.repeat([0, 1], 40)
    swapped = [3, 17, 31, 45, 59, 73]
    labels[swapped] = 1 - labels[swapped]
    probabilities = label_issues.cross_validated(features, labels, [str(n) for n in range(80)])
    first = np.argsort(label_issues.margins(labels, probabilities)[0])[:12]
    assert len(set(swapped) & set(first.tolist())) >= 5


def test_guesses_are_at_chance_and_a_model_that_knows_the_classes_is_not(mislabelled):
    features, labels, groups, _ = mislabelled
    limit = label_issues.chance_limit(labels)
    assert 1 / 3 < limit < 0.45
    good = label_issues.cross_validated(features, labels, groups)
    assert point_scores(labels, good)["balanced_accuracy"] > limit
    below = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 1, features.shape)
        guesses = label_issues.cross_validated(noise, labels, groups)
        below += point_scores(labels, guesses)["balanced_accuracy"] <= limit
    assert below >= 18


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_number_of_false_alarms_is_that_of_correct_labels(temperature):
    """Also of a model that is too sure or too uncertain of its predictions."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (2000, 3))
    truth = calibration.probabilities(logits, 1.0)
    labels = (generator.random((2000, 1)) > truth.cumsum(1)).sum(1)  # all correct
    probabilities = calibration.probabilities(logits, temperature)
    actual = label_issues.margins(labels, probabilities)[2].sum()
    expected = label_issues.false_alarms(labels, probabilities)
    assert expected == pytest.approx(actual, rel=0.15)


def test_wrong_labels_are_more_than_the_false_alarms(mislabelled):
    features, labels, groups, _ = mislabelled
    probabilities = label_issues.cross_validated(features, labels, groups)
    found = label_issues.margins(labels, probabilities)[2].sum()
    assert label_issues.false_alarms(labels, probabilities) < found
