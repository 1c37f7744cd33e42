"""Plots of the splits show their counts and shares."""

import pandas as pd

from anklealign.splitting import plots

CLASSES = ["a", "b"]


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": list("aabbab"),
            "split": ["train"] * 3 + ["val", "test", "test"],
            "group": "g",
            "subject": "",
        }
    )


def test_the_class_bars_state_photos_and_shares():
    drawn = plots.class_shares(table(), CLASSES, ("train", "val", "test"))
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert texts == [
        "3 (50.0%)",
        "2 (66.7%)",
        "1 (50.0%)",
        "3 (50.0%)",
        "1 (33.3%)",
        "1 (100.0%)",
        "1 (50.0%)",
    ]
    assert drawn.axes[0].get_yticklabels()[1].get_text() == "train: 3 photos\n1 groups"
