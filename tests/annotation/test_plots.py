"""Plots of the votes show all annotators."""

import pandas as pd

from anklealign.annotation import agreement, plots
from anklealign.plotting import style

CLASSES = ["a", "b"]


def test_the_plot_shows_every_annotator_including_one_without_common_photos(tmp_path):
    rows = [("p1", "anna", "a"), ("p1", "b.ela", "b"), ("p2", "anna", "a"), ("p3", "cili", "b")]
    votes = pd.DataFrame(rows, columns=["photo", "annotator", "label"])
    photos, annotators, matrix = agreement.vote_matrix(votes, CLASSES)
    numbers = agreement.agreement_metrics(matrix, annotators, len(CLASSES), ordered=True)
    drawn = plots.agreement_figure(votes, numbers, CLASSES)
    style.save(drawn, tmp_path / "agreement.png")
    texts = [text.get_text() for axes in drawn.axes for text in axes.texts]
    names = [tick.get_text() for tick in drawn.axes[0].get_yticklabels()]
    assert names == ["all votes (4)", "anna (2)", "b.ela (1)", "cili (1)"]
    assert "no photo in common with others" in texts
    assert len(photos) == 3
