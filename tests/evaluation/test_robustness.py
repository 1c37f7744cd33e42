"""Worse photos are worse by degrees, the same each time, and keep their letterbox."""

import numpy as np
import pytest

from anklealign.evaluation import plots, robustness
from anklealign.evaluation.robustness import LEVELS, changed, scores

BOXES = np.array([[0, 8, 64, 56], [8, 0, 56, 64]])
IDS = ["0123456789ab", "ba9876543210"]
FILL = 114


def photos() -> np.ndarray:
    """Two letterboxed photos: a coarse pattern, so that there is something to lose."""
    squares = np.full((2, 64, 64, 3), FILL, np.uint8)
    for square, (left, top, right, bottom) in zip(squares, BOXES, strict=True):
        rng = np.random.default_rng(left)
        darkest = 40 + 6 * top  # the second photo is the darker one
        cells = rng.integers(darkest, darkest + 120, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
        square[top:bottom, left:right] = cells[: bottom - top, : right - left]
    return squares


def distance(kind: str, level: int) -> float:
    before = photos()
    return float(
        np.abs(changed(before, BOXES, IDS, kind, level, fill=FILL) - before.astype(float)).mean()
    )


@pytest.mark.parametrize("kind", LEVELS)
def test_a_change_keeps_the_letterbox_and_the_original(kind):
    before = photos()
    worse = changed(before, BOXES, IDS, kind, LEVELS[kind][-1], fill=FILL)
    np.testing.assert_array_equal(before, photos())
    inside = np.zeros((2, 64, 64), bool)
    for mask, (left, top, right, bottom) in zip(inside, BOXES, strict=True):
        mask[top:bottom, left:right] = True
    assert (worse[~inside] == FILL).all()
    assert worse.dtype == np.uint8
    assert (worse != before).any()


@pytest.mark.parametrize(
    "kind", ["blur_permille", "noise_levels", "jpeg_quality", "downscaling_pixels"]
)
def test_each_level_changes_the_photo_more_than_the_one_before(kind):
    steps = [distance(kind, level) for level in LEVELS[kind]]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_light_and_tilt_grow_either_way():
    dark, dim, bright, glaring = (distance("brightness_percent", k) for k in (40, 70, 150, 200))
    assert dim < dark
    assert bright < glaring
    assert distance("rotation_degrees", 5) < distance("rotation_degrees", 10)
    assert distance("rotation_degrees", -5) < distance("rotation_degrees", -10)


def test_noise_is_a_photo_s_own_whatever_its_place():
    before = photos()
    both = changed(before, BOXES, IDS, "noise_levels", 20, fill=FILL)
    turned = changed(before[::-1], BOXES[::-1], IDS[::-1], "noise_levels", 20, fill=FILL)
    np.testing.assert_array_equal(both, turned[::-1])


def test_mirroring_twice_is_no_change():
    once = changed(photos(), BOXES, IDS, "mirror", 1, fill=FILL)
    twice = changed(once, BOXES, IDS, "mirror", 1, fill=FILL)
    np.testing.assert_array_equal(twice, photos())
    assert (once != photos()).any()


def answer(pixels: np.ndarray) -> np.ndarray:
    """A model that looks at brightness alone: class 1 from a mean of 114 on."""
    bright = np.array([square[8:56, 8:56].mean() >= 114 for square in pixels], float)
    return np.stack([1 - bright, bright], 1)


def test_the_scores_show_what_a_model_depends_on():
    pixels = photos()
    labels = answer(pixels).argmax(1)
    assert sorted(labels.tolist()) == [0, 1]
    options = {"fill": FILL, "mirror": True}
    found = {
        (kind, level): score
        for kind, level, score in scores(pixels, BOXES, IDS, labels, answer, **options)
    }
    assert found["mirror", 1] == found["blur_permille", 5] == 1
    assert found["brightness_percent", 40] == found["brightness_percent", 200] == 0.5
    assert len(found) == sum(map(len, LEVELS.values()))


def test_where_a_mirrored_photo_is_another_label_none_is_mirrored():
    pixels = photos()
    found = scores(pixels, BOXES, IDS, np.array([0, 1]), answer, fill=FILL, mirror=False)
    assert "mirror" not in {kind for kind, _, _ in found}


def test_the_plot_has_a_panel_a_kind_with_its_levels():
    found = {kind: dict.fromkeys(levels, 0.5) for kind, levels in LEVELS.items()}
    drawn = plots.robustness(found, 0.8, 51, 3)
    shown = [axes for axes in drawn.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == list(plots.KINDS.values())
    assert list(plots.KINDS) == list(robustness.LEVELS)
    assert [text.get_text() for text in shown[2].get_xticklabels()] == ["50", "20", "10", "5"]
    assert shown[0].lines[0].get_ydata()[0] == 0.8
    assert shown[0].lines[1].get_ydata()[0] == pytest.approx(1 / 3)
