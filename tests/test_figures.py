"""Figures are the same to the byte each time and show what they were given."""

import pandas as pd
from PIL import Image

from anklealign import agreement, figures

CLASSES = ["a", "b"]


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": list("aabbab"),
            "split": ["train"] * 3 + ["val", "test", "test"],
            "group": "g",
            "person": "",
        }
    )


def test_a_figure_is_the_same_to_the_byte(tmp_path):
    for name in ("one.png", "two.png"):
        drawn = figures.class_shares(table(), CLASSES, ("train", "val", "test"))
        figures.save(drawn, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert "Software" not in picture.info


def test_the_class_bars_state_photos_and_shares():
    drawn = figures.class_shares(table(), CLASSES, ("train", "val", "test"))
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert texts == [
        "3  50.0%",
        "2  66.7%",
        "1  50.0%",
        "3  50.0%",
        "1  33.3%",
        "1  100.0%",
        "1  50.0%",
    ]
    assert drawn.axes[0].get_yticklabels()[1].get_text() == "train: 3 photos\n0 persons, 1 groups"


def test_the_confusion_matrix_states_counts_and_shares_of_the_actual_class():
    counts = pd.DataFrame([[3, 1], [0, 2]], index=CLASSES, columns=CLASSES)
    drawn = figures.confusion(counts)
    assert [t.get_text() for t in drawn.axes[0].texts] == [
        "3\n75%",
        "1\n25%",
        "0\n0%",
        "2\n100%",
    ]


def test_the_history_marks_the_epoch_that_was_kept():
    columns = ("train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1")
    epochs = pd.DataFrame({"epoch": [1, 2, 3]} | {name: [0.5, 0.4, 0.6] for name in columns})
    drawn = figures.history(epochs, 2, "accuracy")
    for axes in drawn.axes:
        (kept,) = [line for line in axes.lines if line.get_label() == "kept: best accuracy"]
        assert set(kept.get_xdata()) == {2}


def test_agreement_shows_every_annotator_though_one_has_nobody_to_compare_with(tmp_path):
    rows = [("p1", "anna", "a"), ("p1", "b.ela", "b"), ("p2", "anna", "a"), ("p3", "cili", "b")]
    votes = pd.DataFrame(rows, columns=["photo", "annotator", "label"])
    photos, people, matrix = agreement.matrix(votes, CLASSES)
    numbers = agreement.measure(matrix, people, len(CLASSES), ordered=True)
    drawn = figures.agreement(votes, numbers, CLASSES)
    figures.save(drawn, tmp_path / "agreement.png")
    texts = [text.get_text() for axes in drawn.axes for text in axes.texts]
    names = [tick.get_text() for tick in drawn.axes[0].get_yticklabels()]
    assert names == ["all votes (4)", "anna (2)", "b.ela (1)", "cili (1)"]
    assert "nobody to compare with" in texts
    assert len(photos) == 3
