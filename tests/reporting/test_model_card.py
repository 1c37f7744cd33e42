"""Every number of the model card comes from a metrics file."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from anklealign.io import results
from anklealign.reporting import model_card

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "clean", "split", "train", "evaluate")


@pytest.fixture
def metrics():
    return {s: results.read_details(ROOT / f"metrics/details/{s}.json") for s in STAGES}


@pytest.fixture
def run():
    return results.read_details(ROOT / "metrics/details/train.json")


def leaves(value):
    """Return all values and keys; keys include the corruption levels."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)] + list(value)
    return [value]


def test_every_number_comes_from_the_metrics_files(metrics, run):
    known = set()
    for value in [*leaves(metrics), *leaves(run)]:
        if isinstance(value, int | float):
            value = abs(value)  # noqa: PLW2901 - numbers are compared without sign
            known |= {f"{value:.3f}", f"{value:.4f}", f"{value:,}", str(value)}
        else:
            known |= set(re.findall(r"\d[\d.,]*\d|\d", str(value)))
    text = model_card.card(metrics, run)
    words = text.replace("95%", "").replace("f1", "")
    # Names of architectures, datasets and fields contain digits.
    words = re.sub(r"`[^`]*`|\"[^\"]*\"|[a-z_]+\d\w*", "", words)
    found = re.findall(r"(?<![\w.])\d[\d.,]*\d|(?<![\w.])\d", words)
    assert len(found) > 60
    assert [number for number in found if number not in known] == []


def test_changed_metric_changes_the_card(metrics, run):
    before = model_card.card(metrics, run)
    metrics["evaluate"]["accuracy"]["value"] = 0.123456
    metrics["split"]["test"]["photos"] = 4321
    after = model_card.card(metrics, run)
    # Another metric of the committed run may also be 0.123.
    assert after.count("0.123") > before.count("0.123")
    assert "4321" in after
    assert "4321" not in before


def test_front_matter_follows_the_hub_format(metrics, run):
    run["params"]["dataset_name"] = 'cats "and": dogs'
    _, head, body = model_card.card(metrics, run).split("---\n", 2)
    values = YAML(typ="safe", pure=True).load(head)
    assert values["pipeline_tag"] == "image-classification"
    (entry,) = values["model-index"]
    (result,) = entry["results"]
    assert result["dataset"]["name"] == 'cats "and": dogs'
    found = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert found["accuracy"] == pytest.approx(metrics["evaluate"]["accuracy"]["value"], abs=1e-4)
    types = {metric["type"] for metric in result["metrics"]}
    assert types == {"accuracy", "f1", "matthews_correlation"}
    assert body.strip().startswith("# ")


def test_score_without_ci_shows_the_value_only(metrics, run):
    for key in ("ci_low", "ci_high"):
        metrics["evaluate"]["accuracy"].pop(key, None)
    lines = model_card.card(metrics, run).splitlines()
    line = next(line for line in lines if line.startswith("| accuracy |"))
    assert re.fullmatch(r"0\.\d{3}", line.split("|")[2].strip())


def test_each_further_block_of_metrics_has_a_table(metrics, run):
    metrics["evaluate"]["robustness"] = {"blur": {"2": 0.5, "4": 0.25}}
    text = model_card.card(metrics, run)
    assert "## Robustness" in text
    assert "| blur, 4 | 0.250 |" in text
