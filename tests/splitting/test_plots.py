"""Plots of the splits show their counts and shares."""

import warnings

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

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


def test_many_classes_share_a_bar_and_the_legend_fits():
    names = [f"a class with a long name {n:03}" for n in range(200)]
    labels = [*names, *names[150:157]]
    photos = pd.DataFrame({"label": labels, "split": "train", "group": "g", "subject": ""})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a layout that leaves no room for the bars
        drawn = plots.class_shares(photos, names, ("train", "val", "test"))
        FigureCanvasAgg(drawn).draw()
    bars = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert bars == [*names[150:157], "193 other classes"]
