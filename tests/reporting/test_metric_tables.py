"""Tables stay readable whatever the number of classes."""

import pytest

from anklealign.reporting import metric_tables
from anklealign.reporting.metric_tables import MAX_CLASSES, MAX_COLUMNS


def evaluate(classes: int) -> dict:
    return {
        f"class_{k}": {"support": 5, "recall": 1 - k / classes, "recall_ci_low": 0.0}
        for k in range(classes)
    }


def test_few_classes_keep_their_order():
    table = metric_tables.class_table(evaluate(MAX_CLASSES))
    assert [row[0] for row in table.rows] == [str(k) for k in range(MAX_CLASSES)]
    assert not metric_tables.class_note(evaluate(MAX_CLASSES))


def test_of_many_classes_those_with_the_lowest_recall_are_listed():
    table = metric_tables.class_table(evaluate(1000))
    assert [row[0] for row in table.rows] == [str(k) for k in range(999, 999 - MAX_CLASSES, -1)]
    assert "25 of 1,000 classes with the lowest recall" in metric_tables.class_note(evaluate(1000))


def test_a_class_without_test_photos_is_not_the_worst():
    metrics = evaluate(100)
    metrics["class_99"] |= {"support": 0, "recall": 0.0}
    assert metric_tables.class_table(metrics).rows[0][0] == "98"


def split(classes: int) -> dict:
    counts = {str(k): k + 1 for k in range(classes)}
    return {
        name: {"photos": 9, "groups": 9, "subjects": 0, "classes": counts}
        for name in metric_tables.SPLITS
    }


@pytest.mark.parametrize(
    ("predefined", "sentence"),
    [
        ([], "The kept photos were split by group."),
        (["train", "val", "test"], "The predefined splits of the dataset are used."),
        (["train", "test"], "The predefined test split is used; validation photos were "),
        (["train", "val"], "The predefined validation split became the test split; validation "),
    ],
)
def test_the_origin_of_the_splits_is_stated(predefined, sentence):
    metrics = {"predefined": predefined} if predefined else {}
    assert metric_tables.split_origin(metrics).startswith(sentence)


def test_splits_of_many_classes_show_the_range_of_their_counts():
    few, many = (
        metric_tables.split_table(split(n), [str(k) for k in range(n)]) for n in (MAX_COLUMNS, 1000)
    )
    assert len(few.header) == 3 + MAX_COLUMNS
    assert list(many.header[3:]) == ["fewest of a class", "median", "most of a class"]
    assert many.rows[0] == ["train", 9, 9, 1, 501, 1000]


def test_a_value_and_its_interval_are_one_row():
    block = {
        "brier": 0.5,
        "coverage": {"value": 0.98, "ci_low": 0.861, "ci_high": 0.999, "nominal": 0.9},
        "twice": {"ci_low": 0.1, "ci_high": 0.2},
    }
    assert metric_tables.value_table(block).rows == [
        ["Brier score", "0.500"],
        ["coverage", metric_tables.Cell("0.980", "0.861 to 0.999")],
        ["coverage, nominal", "0.900"],
        ["twice, ci low", "0.100"],
        ["twice, ci high", "0.200"],
    ]
