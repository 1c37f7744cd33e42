"""Reviewed label issues become corrections, and prepare applies them: the round trip."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anklealign.annotation import label_corrections
from anklealign.cli import label_issues
from anklealign.cli.main import main
from anklealign.config import paths
from anklealign.config.params import Dataset
from anklealign.io import pixel_store, results
from stages import prepare

DATASET = Dataset(layout="folders", classes={"ants": ("Ameise",), "bees": ("Biene",)})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A prepared set of four photos, two of each class."""
    monkeypatch.chdir(tmp_path)
    dataset = {"layout": "folders", "classes": {"ants": ["Ameise"], "bees": ["Biene"]}}
    settings = {"size": 64, "fill": 114, "max_megapixels": 80, "consensus": "majority"}
    raw = {"dataset": "mine", "datasets": {"mine": dataset}, "prepare": settings}
    Path("params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    for n, name in enumerate(["ants/1", "ants/2", "bees/1", "bees/2"]):
        path = paths.RAW / "mine" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    prepare.main()
    return prepared()


def prepared() -> pd.DataFrame:
    return pixel_store.read_table(prepare.PHOTOS).set_index("path")


def export(table: pd.DataFrame, answers: dict[str, str], reason: str = "") -> list[dict]:
    """Return Label Studio's export of label-issues' tasks with a reviewer's answers."""
    tasks = []
    for number, (path, answer) in enumerate(answers.items()):
        data = {"labeled": table.label[path], "sha256": table.sha256[path]}
        suggestion = label_issues.Suggestion(f"x/{path}", "ants", 0.9, data)
        task = label_issues.Tasks(DATASET, "/data/", "choice", "image").task(suggestion)
        result = [
            {"type": "choices", "from_name": "choice", "to_name": "image",
             "value": {"choices": [answer]}},
            {"type": "textarea", "from_name": "reason", "to_name": "image",
             "value": {"text": [reason]}},
        ]  # fmt: skip
        annotation = {"id": number, "completed_by": 7, "was_cancelled": False,
                      "result": result if answer else []}  # fmt: skip
        tasks.append({"id": number, "annotations": [annotation], **task})
    return tasks


def test_the_round_trip_of_a_review_corrects_labels_and_counts_them(project, capsys):
    answers = {"ants/1.png": "Biene", "ants/2.png": "Ameise", "bees/1.png": ""}
    other = {"id": 99, "data": {"image": "/data/x/other.png"}, "annotations": []}
    Path("review.json").write_text(
        json.dumps([*export(project, answers, "six\n legs"), other]), encoding="utf-8"
    )
    assert main(["correct", "review.json", "--reviewer", "R2"]) == 0
    printed = capsys.readouterr()
    assert "1 label corrected, 1 confirmed" in printed.out
    assert "task 2: no label" in printed.err
    row = label_corrections.read(paths.CORRECTIONS).iloc[0]
    assert row.to_dict() == {
        "dataset": "mine", "sha256": project.sha256["ants/1.png"], "path": "ants/1.png",
        "old_label": "ants", "new_label": "bees", "reviewer": "R2", "reason": "six legs",
    }  # fmt: skip
    prepare.main()
    assert prepared().label.tolist() == ["bees", "ants", "bees", "bees"]
    metrics = results.read_details(prepare.METRICS)
    assert metrics["label_corrections"]["photos"] == 1
    assert metrics["label_corrections"]["stale"] == 0
    assert metrics["classes"] == {"ants": 1, "bees": 3}
    assert "1 label corrected" in capsys.readouterr().out


def test_without_corrections_nothing_is_counted_and_no_table_is_written(project):
    assert "label_corrections" not in results.read_details(prepare.METRICS)
    assert not prepare.CORRECTED.exists()
    assert len(project) == 4


def test_a_stale_correction_is_named_and_not_applied(project, capsys):
    rows = [
        ("mine", "0" * 64, "gone.png", "ants", "bees", "R1", ""),
        ("mine", project.sha256["bees/1.png"], "bees/1.png", "ants", "bees", "R1", ""),
    ]
    paths.CORRECTIONS.parent.mkdir(exist_ok=True)
    with paths.CORRECTIONS.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([label_corrections.COLUMNS, *rows])
    prepare.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert "gone.png (ants to bees) is not applied" in printed
    assert "bees/1.png (ants to bees) is not applied" in printed
    assert prepared().label.equals(project.label)
    assert results.read_details(prepare.METRICS)["label_corrections"]["stale"] == 2
    written = pd.read_csv(prepare.CORRECTED)
    assert written.outcome.tolist() == ["photo_missing", "label_changed"]


def test_a_table_is_reviewed_by_a_column_and_a_label_may_be_restored(project, capsys):
    table = pd.DataFrame(
        {
            "sha256": project.sha256, "label": project.label,
            "new_label": ["Biene", "", "", ""], "reviewer": "R1",
        }
    )  # fmt: skip
    table.to_csv("issues.csv", index=False)
    assert main(["correct", "issues.csv"]) == 0
    prepare.main()
    assert prepared().label["ants/1.png"] == "bees"
    table.assign(label="bees", new_label=["ants", "", "", ""]).to_csv("issues.csv", index=False)
    assert main(["correct", "issues.csv"]) == 0
    assert "1 restored" in capsys.readouterr().out
    assert not len(label_corrections.read(paths.CORRECTIONS))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[{]", "no JSON export"),
        ("a.json", '[{"id": 1, "data": {"image": "x"}, "annotations": []}]', "without sha256"),
        ("a.csv", "sha256,label\n1,ants\n", "no column new_label"),
        ("a.csv", "sha256,label,new_label\n1,ants,moths\n", "'moths' is no class"),
    ],
)
def test_a_file_that_is_no_review_is_an_error_and_writes_nothing(
    project, capsys, name, content, message
):
    Path(name).write_text(content, encoding="utf-8")
    assert main(["correct", name]) == 1
    assert message in capsys.readouterr().err
    assert not paths.CORRECTIONS.exists()
    assert len(project) == 4
