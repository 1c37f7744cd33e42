"""Metrics are JSON numbers, with a CI unless groups are few."""

import json

import numpy as np
import pandas as pd
import pytest

from anklealign.config.params import Evaluate
from anklealign.evaluation import plots, score_tables
from anklealign.evaluation.human_baseline import scored_votes
from anklealign.metrics.scores import FURTHER, OVERALL
from anklealign.models.operating_point import OperatingPoint

CLASSES = ["a", "b", "c"]
SETTINGS = Evaluate(bootstrap=200, confidence=0.95, mistakes=1, explained=1, robustness=1)
FREQUENCIES = np.array([0.5, 0.3, 0.2])


def test_the_spread_over_seeds_is_that_of_the_scores():
    test = pd.DataFrame({"id": ["x", "y", "z", "w"], "label": ["a", "b", "c", "a"]})
    right = np.eye(3)[[0, 1, 2, 0]] * 0.8 + 0.1
    wrong = right.copy()
    wrong[0] = [0.1, 0.8, 0.1]
    tables = [
        pd.DataFrame(p, columns=[f"p_{name}" for name in CLASSES]).assign(seed=seed, id=test.id)
        for seed, p in ((1, right), (2, wrong), (3, right))
    ]
    # The order of the rows does not matter.
    repeats = pd.concat(tables).sample(frac=1, random_state=0)
    spread = score_tables.seed_scores(test, CLASSES, repeats)
    assert spread["count"] == 3
    expected = {"mean": 0.916667, "sd": 0.144338, "worst": 0.75, "best": 1.0}
    assert spread["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert spread["log_loss"]["best"] < spread["log_loss"]["worst"]
    assert score_tables.seed_scores(test, CLASSES, tables[0]) == {}


def photos_of(subjects: int = 12) -> tuple[pd.DataFrame, np.ndarray]:
    """Return three photos per subject; each collector has four subjects."""
    number = np.arange(3 * subjects)
    labels = number // 3 % 3
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(len(number), 3)) + 1.5 * np.eye(3)[labels]
    table = pd.DataFrame(
        {
            "id": [f"{i:012x}" for i in number],
            "label": [CLASSES[k] for k in labels],
            "group": [f"p{i // 3:02}" for i in number],
            "collector": [f"c{i // 12}" for i in number],
        }
    )
    return table, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def scored(subjects: int = 12, *, ordered: bool = True) -> dict:
    table, probabilities = photos_of(subjects)
    return score_tables.classification_scores(
        table, CLASSES, probabilities, FREQUENCIES, SETTINGS, ordered=ordered, seed=1
    )


def leaves(value: dict):
    for item in value.values():
        yield from leaves(item) if isinstance(item, dict) else [item]


def test_scores_are_nested_dicts_of_numbers_with_ci_and_majority():
    metrics = scored()
    json.dumps(metrics, allow_nan=False)
    assert all(type(leaf) in (int, float, str) for leaf in leaves(metrics))
    table, probabilities = photos_of()
    right = table.label.to_numpy() == np.array(CLASSES)[probabilities.argmax(1)]
    accuracy = metrics["accuracy"]
    assert accuracy["value"] == round(right.mean(), 6)
    assert accuracy["majority"] == round(1 / 3, 6)
    for name in (*OVERALL, *FURTHER):
        assert metrics[name]["ci_low"] <= metrics[name]["value"] <= metrics[name]["ci_high"], name
    b = metrics["class_b"]
    assert b["support"] == 12
    assert b["recall"] == round(right[table.label == "b"].mean(), 6)
    for name in ("precision", "recall", "f1", "roc_auc", "average_precision"):
        assert b[f"{name}_ci_low"] <= b[name] <= b[f"{name}_ci_high"]


def test_ci_keys_are_missing_when_groups_are_few():
    metrics = scored(subjects=9)
    assert set(metrics["accuracy"]) == {"value", "majority", "gain"}
    assert not [key for key in metrics["class_a"] if "ci_" in key]
    json.dumps(metrics, allow_nan=False)


def test_kappa_is_reported_for_ordered_classes_only():
    assert "kappa" in scored(ordered=True)
    assert "kappa" not in scored(ordered=False)


def test_worst_class_and_collector_are_named_with_their_photos():
    table, _ = photos_of()
    probabilities = np.eye(3)[table.label.map(CLASSES.index)]
    probabilities[[3, 4, 13, 14, 15]] = [1, 0, 0]  # four of b and one of c
    found = score_tables.worst(table, CLASSES, probabilities)
    assert found == {
        "class": "b",
        "class_photos": 12,
        "class_recall": round(8 / 12, 6),
        "collector": "c1",
        "collector_photos": 12,
        "collector_accuracy": round(9 / 12, 6),
    }


def test_collector_with_few_photos_or_no_name_is_not_the_worst():
    table, _ = photos_of()
    wrong = np.eye(3)[(table.label.map(CLASSES.index) + 1) % 3]
    few = table.assign(collector=["x"] * 4 + [""] * (len(table) - 4))
    assert "collector" not in score_tables.worst(few, CLASSES, wrong)


def calibrated(sets: np.ndarray, subjects: int = 12) -> dict:
    table, probabilities = photos_of(subjects)
    labels = table.label.map(CLASSES.index).to_numpy()
    test = score_tables.Predictions(labels, probabilities, list(table.group))
    validation = score_tables.Predictions(
        labels, probabilities, [f"v{name}" for name in table.group]
    )
    return score_tables.calibration_scores(
        test, validation, uncalibrated=probabilities, sets=sets, settings=SETTINGS, seed=1
    )


def test_coverage_is_reported_with_nominal_value_and_expected_range():
    table, probabilities = photos_of()
    labels = table.label.map(CLASSES.index).to_numpy()
    sets = np.eye(3, dtype=bool)[labels]
    sets[:6] = True  # six full sets, three wrong sets
    sets[6:9] = np.roll(sets[6:9], 1, axis=1)
    found = calibrated(sets)
    json.dumps(found, allow_nan=False)
    coverage = found["coverage"]
    assert coverage["value"] == round(33 / 36, 6)
    assert coverage["nominal"] == 0.9
    assert coverage["expected_low"] < 0.9 < coverage["expected_high"]
    assert coverage["ci_low"] <= coverage["value"] <= coverage["ci_high"]
    assert found["set_size"]["value"] == round((30 + 18) / 36, 6)
    assert found["abstention"]["value"] == round(6 / 36, 6)
    right = probabilities.argmax(1) == labels
    assert found["selective_accuracy"] == round(right[6:].mean(), 6)


def test_selective_accuracy_is_missing_when_the_model_always_abstains():
    assert "selective_accuracy" not in calibrated(np.ones((36, 3), bool))


@pytest.mark.parametrize("subjects", [12, 9])
def test_annotators_and_model_are_scored_on_the_same_votes(subjects):
    table, probabilities = photos_of(subjects)
    mistaken = table.label.map({"a": "a", "b": "b", "c": "b"})  # v labels c as b
    votes = pd.concat(
        [
            pd.DataFrame({"photo": table.id, "annotator": name, "label": labels})
            for name, labels in (("u", table.label), ("v", mistaken), ("w", table.label))
        ]
    )
    rows = scored_votes(votes, list(table.id), probabilities.argmax(1), CLASSES)
    found = score_tables.human_baseline_scores(rows, table.set_index("id").group, 3, SETTINGS, 1)
    json.dumps(found, allow_nan=False)
    photos = 3 * subjects
    # On c, v is scored against u and w and is wrong; for u and w the others are tied.
    assert (found["annotators"], found["photos"], found["votes"]) == (3, photos, 7 * photos // 3)
    assert found["accuracy"]["value"] == round(6 / 7, 6)
    gain = found["model_accuracy"]["value"] - found["accuracy"]["value"]
    assert found["model_gain"]["value"] == pytest.approx(gain, abs=2e-6)
    assert ("ci_low" in found["model_gain"]) == (subjects >= 10)
    each = found["by_annotator"]
    assert {name: row["photos"] for name, row in each.items()} == {
        "u": photos * 2 // 3, "v": photos, "w": photos * 2 // 3
    }  # fmt: skip
    assert each["v"]["accuracy"] == round(2 / 3, 6)
    assert each["v"]["model_accuracy"] == round(
        float((probabilities.argmax(1) == table.label.map(CLASSES.index)).mean()), 6
    )


def test_plot_ranks_annotators_by_accuracy_next_to_the_model():
    each = {
        name: {"photos": 4, "accuracy": own, "model_accuracy": 0.5}
        for name, own in (("u", 0.5), ("v", 0.75))
    }
    metrics = {
        "annotators": 2, "photos": 4, "votes": 8, "by_annotator": each,
        "accuracy": {"value": 0.625}, "model_accuracy": {"value": 0.5},
    }  # fmt: skip
    (axes,) = plots.human_baseline(metrics).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["v (4)", "u (4)"]
    own, model = axes.lines
    assert list(own.get_xdata()) == [0.75, 0.5]
    assert list(model.get_xdata()) == [0.5, 0.5]


def test_without_scored_votes_only_the_counts_are_reported():
    empty = scored_votes(
        pd.DataFrame(columns=["photo", "annotator", "label"]), [], np.array([], int), CLASSES
    )
    found = score_tables.human_baseline_scores(empty, pd.Series(dtype=str), 3, SETTINGS, 1)
    assert found == {"annotators": 0, "photos": 0, "votes": 0}


def test_table_of_classes_starts_with_the_lowest_recall_and_names_the_confusion():
    metrics = scored()
    counts = pd.DataFrame([[9, 3, 0], [0, 12, 0], [1, 5, 6]], CLASSES, CLASSES)
    table = score_tables.class_table(metrics, counts)
    assert table.recall.is_monotonic_increasing
    assert table["class"].sort_values().tolist() == CLASSES
    rows = table.set_index("class")
    assert rows.confused_with.to_dict() == {"a": "b", "b": "", "c": "b"}
    assert rows.confused_photos.to_dict() == {"a": 3, "b": 0, "c": 5}
    assert rows.loc["a", "recall_ci_low"] == metrics["class_a"]["recall_ci_low"]


def subjects_of(labels: list[int], subjects: list[str], probabilities: np.ndarray) -> dict:
    table = pd.DataFrame({"subject": subjects, "label": [CLASSES[k] for k in labels]})
    groups = [subject or f"photo {n}" for n, subject in enumerate(subjects)]
    predictions = score_tables.Predictions(np.array(labels), probabilities, groups)
    return score_tables.subject_scores(table, predictions, SETTINGS, seed=1)


def test_a_subject_is_predicted_by_the_mean_of_its_log_probabilities():
    probabilities = np.array(
        [[0.6, 0.4, 0], [0.55, 0.45, 0], [0.01, 0.99, 0], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8],
         [0.9, 0.05, 0.05]]
    )  # fmt: skip
    scores = subjects_of([1, 1, 1, 2, 2, 0], ["x", "x", "x", "y", "y", ""], probabilities)
    assert (scores["subjects"], scores["photos"], scores["several_labels"]) == (2, 5, 0)
    assert scores["photo_accuracy"]["value"] == 0.6
    assert scores["accuracy"]["value"] == 1.0  # one sure photo outweighs two unsure ones
    geometric = np.exp(np.log(np.clip(probabilities[:3], 1e-15, 1)).mean(0))
    other = np.exp(np.log(probabilities[3:5]).mean(0))
    expected = -np.mean([np.log(geometric[1] / geometric.sum()), np.log(other[2] / other.sum())])
    assert scores["log_loss"] == pytest.approx(expected, abs=1e-4)


def test_subjects_with_several_labels_are_counted_and_single_photos_need_no_block():
    probabilities = np.tile([0.5, 0.3, 0.2], (4, 1))
    scores = subjects_of([0, 1, 0, 0], ["x", "x", "y", "y"], probabilities)
    assert (scores["subjects"], scores["several_labels"]) == (1, 1)
    assert subjects_of([0, 1, 0, 0], ["x", "", "y", "z"], probabilities) == {}
    assert subjects_of([0, 1, 0, 1], ["x", "x", "y", "y"], probabilities) == {}


def test_the_operating_point_has_sensitivity_specificity_and_precision():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1], [0.6, 0.4, 0]])
    labels = np.array([1, 1, 0, 2])
    predictions = score_tables.Predictions(labels, probabilities, list("wxyz"))
    point = OperatingPoint("b", 0.25, "sensitivity", 0.9)
    scores = score_tables.operating_point_scores(predictions, point, CLASSES, SETTINGS, 1)
    values = {name: scores[name]["value"] for name in ("sensitivity", "specificity", "precision")}
    assert values == {"sensitivity": 1.0, "specificity": 0.5, "precision": round(2 / 3, 6)}
    assert scores["positive"] == "b"
    none = score_tables.operating_point_scores(
        predictions, OperatingPoint("b", 0.99, "specificity", 0.9), CLASSES, SETTINGS, 1
    )
    assert "precision" not in none
    assert none["sensitivity"]["value"] == 0.0


def test_scores_of_ordered_classes_are_reported_for_these_alone():
    ordered, others = scored(ordered=True), scored(ordered=False)
    assert {"kappa", "two_step_errors", "rps"} == ordered.keys() - others.keys()


def test_the_gain_of_abstaining_is_that_of_the_photos_without_abstention():
    labels = np.arange(40) % 2
    probabilities = np.tile([0.9, 0.1], (40, 1))
    probabilities[labels == 1] = [0.2, 0.8]
    probabilities[:10] = [0.55, 0.45]  # half of these are wrong
    sets = probabilities >= 0.4
    test = score_tables.Predictions(labels, probabilities, [f"g{n}" for n in range(40)])
    scores = score_tables.calibration_scores(
        test, None, uncalibrated=probabilities, sets=sets, settings=SETTINGS, seed=1
    )
    gain = scores["selective_gain"]
    assert scores["abstention"]["value"] == 0.25
    assert gain["value"] == round(1 - 35 / 40, 6)
    assert 0 < gain["ci_low"] < gain["value"] < gain["ci_high"]
    assert "expected_low" not in scores["coverage"]
    every = score_tables.calibration_scores(
        test, None, uncalibrated=probabilities, sets=sets & (sets.cumsum(1) == 1),
        settings=SETTINGS, seed=1,
    )  # fmt: skip
    assert "selective_gain" not in every
