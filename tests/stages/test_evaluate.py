"""evaluate writes one row per photo, and report draws the highest-confidence errors."""

import numpy as np
import pandas as pd

from anklealign.evaluation.prediction_tables import prediction_table, rounded_probabilities
from stages.evaluate import empty_maps_line, headline_metrics
from stages.report import mistake_tiles

CLASSES = ["a", "b", "c"]
LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.1, 0.6, 0.3],
        [0.2, 0.7, 0.1],
        [0.9, 0.05, 0.05],
        [0.1, 0.1, 0.8],
        [0.2, 0.2, 0.6],
    ]
)
TEST = pd.DataFrame(
    {
        "id": [f"{i:012x}" for i in range(6)],
        "path": [f"x/{i}.jpg" for i in range(6)],
        "collector": "x",
        "group": ["p1", "p1", "p2", "p3", "p4", "p4"],
        "label": [CLASSES[k] for k in LABELS],
        "row": range(6),
        "sha256": [f"{i:064x}" for i in range(6)],
        "left": 0,
        "top": 1,
        "right": 4,
        "bottom": 3,
    }
)


def test_predictions_have_one_row_per_photo_with_every_probability():
    sets = PROBABILITIES >= 0.3
    rows = prediction_table(TEST, CLASSES, PROBABILITIES, sets)
    assert list(rows.predicted) == ["a", "b", "b", "a", "c", "c"]
    assert list(rows.actual) == list(TEST.label)
    np.testing.assert_allclose(rows[["p_a", "p_b", "p_c"]], PROBABILITIES)
    np.testing.assert_allclose(rows.probability, PROBABILITIES.max(1))
    assert list(rows.prediction_set) == ["a", "b|c", "b", "a", "c", "c"]
    assert list(rows.abstain) == [False, True, False, False, False, False]
    assert list(rows.sha256) == list(TEST.sha256)


def test_mistakes_are_sorted_by_confidence_and_cropped_to_the_photo():
    store = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
    sets = PROBABILITIES >= 0.3
    rows = prediction_table(TEST, CLASSES, PROBABILITIES, sets)
    tiles = mistake_tiles(rows, TEST, store, 5)
    assert [tile.lines for tile in tiles] == [
        ("predicted a 90%", "actual b 5%", "x/3.jpg"),
        ("predicted b 60%", "actual a 10%", "x/1.jpg"),
    ]
    np.testing.assert_array_equal(tiles[0].pictures[0], store[3, 1:3, 0:4])
    assert len(mistake_tiles(rows, TEST, store, 1)) == 1


def test_probabilities_are_written_with_digits_that_no_thread_count_changes():
    rows = prediction_table(TEST, CLASSES, PROBABILITIES + 1e-7, PROBABILITIES >= 0.3)
    rows["novelty"] = 0.25
    written = rounded_probabilities(rows)
    np.testing.assert_array_equal(written[["p_a", "p_b", "p_c"]], PROBABILITIES)
    assert list(written.columns) == list(rows.columns)


def test_few_groups_have_no_interval_among_the_headline_metrics():
    names = ("accuracy", "log_loss", "macro_f1", "mcc", "calibration_error")
    metrics = {name: {"value": 0.123456} for name in names}
    metrics |= {"balanced_accuracy": {"value": 0.5}, "photos": 6, "groups": 4, "parameters": 9}
    metrics |= {"calibration": {"coverage": {"value": 1.0}}, "bundle": "f" * 64}
    headline = headline_metrics(metrics, {"leaking_pairs": 0})
    assert headline["ci"] == {}
    assert headline["scores"] == {"macro_f1": 0.1235, "mcc": 0.1235}
    assert headline["bundle"] == {"parameters": 9, "sha256": "f" * 12}
    metrics["balanced_accuracy"] |= {"ci_low": 0.25, "ci_high": 0.75}
    assert headline_metrics(metrics, {"leaking_pairs": 0})["ci"] == {"low": 0.25, "high": 0.75}
    assert "seeds" not in headline
    metrics["seeds"] = {"balanced_accuracy": {"mean": 0.61234, "sd": 0.04, "worst": 0.5}}
    headline = headline_metrics(metrics, {"leaking_pairs": 0})
    assert headline["seeds"] == {"mean": 0.6123, "sd": 0.04}
    flat = pd.json_normalize(headline).iloc[0]
    assert sum(not isinstance(value, str) for value in flat) == 15


def test_maps_without_evidence_are_counted():
    full = np.eye(4, dtype=np.float32)
    assert empty_maps_line({"a": full, "b": full}) == ""
    line = empty_maps_line({"a": full, "b": np.zeros_like(full), "c": np.zeros_like(full)})
    assert line.startswith("evaluate: 2 of 3 heat maps are empty: nothing in these photos speaks")
