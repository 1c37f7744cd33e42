from types import SimpleNamespace as Namespace

import numpy as np
import pandas as pd

from anklealign.cleaning import plots
from anklealign.cleaning.image_quality import QUALITY_REASONS


def test_a_removed_photo_is_shown_next_to_its_copy_with_contradicting_labels() -> None:
    row = {"id": "a", "path": "C/a.jpg", "beside": "b", "reason": "contradicting_labels"}
    scored = row | {"why": "because"} | {"score": 0.05, "threshold": 0.3}
    shown = pd.DataFrame(
        {"label": ["left", "right"], "path": ["C/a.jpg", "D/b.jpg"], "position": [1, 0]},
        index=["a", "b"],
    )
    pictures = [np.full((4, 4, 3), level, np.uint8) for level in (10, 20)]
    tile = plots.tile(Namespace(**scored), shown, pictures)
    assert [int(p[0, 0, 0]) for p in tile.pictures] == [20, 10]
    assert tile.lines[0] == "contradicting_labels: residual 0.05, threshold 0.3"
    assert tile.lines[1:] == ("removed, left: C/a.jpg", "removed, right: D/b.jpg", "because")
    poor = plots.tile(Namespace(**scored | {"reason": "blurred"}), shown, pictures)
    assert poor.lines == ("blurred: because", "removed: C/a.jpg", "kept: D/b.jpg")
    alone = plots.tile(Namespace(**scored | {"reason": "dark", "beside": ""}), shown, pictures)
    assert alone.lines == ("dark", "because", "C", "a.jpg")


def test_a_flagged_photo_is_called_kept() -> None:
    row = Namespace(id="a", path="C/a.jpg", beside="", reason="dark", why="because")
    shown = pd.DataFrame({"position": [0]}, index=["a"]).assign(path="C/a.jpg", label="left")
    pixels = [np.zeros((4, 4, 3), np.uint8)]
    assert plots.tile(row, shown, pixels, flagged=True).lines[0] == "dark (flagged, kept)"


def test_each_score_has_a_histogram_with_its_threshold_and_how_many_lie_beyond() -> None:
    limits = dict.fromkeys(plots.UNITS, 1.0)
    drawn_of = {name: [0.5, 1.0, 2.0, 3.0] for name in plots.UNITS}
    figure = plots.histograms(
        drawn_of, limits, {"dark": 1, "aspect": 0, "blurred": 0}, {"blurred": 1}
    )
    drawn = [axes for axes in figure.axes if axes.has_data()]
    titles = {axes.get_title().split(":")[0]: axes.get_title() for axes in drawn}
    assert titles.keys() == plots.UNITS.keys() >= set(QUALITY_REASONS) | {"residual"}
    assert titles["dark"] == "dark: 1 of 4 photos below 1"
    expected = "aspect: 2 of 4 photos above 1\n0 removed for this reason, 2 for another"
    assert titles["aspect"] == expected
    expected = "blurred: 2 of 4 photos above 1\n0 removed for this reason, 1 for another, 1 kept"
    assert titles["blurred"] == expected
    assert titles["residual"] == "residual: 1 of 4 pairs below 1"
    for axes in drawn:
        assert axes.lines[0].get_xdata()[0] == 1.0
        assert sum(bar.get_height() for bar in axes.patches) == 4
