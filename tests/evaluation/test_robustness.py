"""Corruptions get stronger by level, are reproducible and keep the letterbox."""

import numpy as np
import pytest

from anklealign.evaluation import plots
from anklealign.evaluation.robustness import (
    BLOCK,
    CORRUPTIONS,
    LEVELS,
    WIDTH,
    CorruptionSample,
    corrupt,
    corruption_score,
    drop_with_width,
    is_known,
    levels,
)

BOXES = np.array([[0, 8, 64, 56], [8, 0, 56, 64]])
IDS = ["0123456789ab", "ba9876543210"]
FILL = 114


def photos() -> np.ndarray:
    """Return two letterboxed photos with a coarse pattern that corruptions can destroy."""
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
        np.abs(corrupt(before, BOXES, IDS, kind, level, fill=FILL) - before.astype(float)).mean()
    )


@pytest.mark.parametrize("kind", LEVELS)
def test_corruption_keeps_the_letterbox_and_the_original(kind):
    before = photos()
    worse = corrupt(before, BOXES, IDS, kind, LEVELS[kind][-1], fill=FILL)
    np.testing.assert_array_equal(before, photos())
    inside = np.zeros((2, 64, 64), bool)
    for mask, (left, top, right, bottom) in zip(inside, BOXES, strict=True):
        mask[top:bottom, left:right] = True
    assert (worse[~inside] == FILL).all()
    assert worse.dtype == np.uint8
    assert (worse != before).any()


@pytest.mark.parametrize(
    "kind", ["gaussian_blur", "gaussian_noise", "jpeg_compression", "downscaling"]
)
def test_each_level_changes_the_photo_more_than_the_previous_one(kind):
    steps = [distance(kind, level) for level in LEVELS[kind]]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_brightness_and_rotation_get_stronger_in_both_directions():
    dark, dim, bright, glaring = (distance("brightness", k) for k in (40, 70, 150, 200))
    assert dim < dark
    assert bright < glaring
    assert distance("rotation", 5) < distance("rotation", 10)
    assert distance("rotation", -5) < distance("rotation", -10)


def test_noise_depends_on_the_photo_id_and_not_on_the_order():
    before = photos()
    both = corrupt(before, BOXES, IDS, "gaussian_noise", 20, fill=FILL)
    turned = corrupt(before[::-1], BOXES[::-1], IDS[::-1], "gaussian_noise", 20, fill=FILL)
    np.testing.assert_array_equal(both, turned[::-1])


def test_flipping_twice_restores_the_photo():
    once = corrupt(photos(), BOXES, IDS, "horizontal_flip", 1, fill=FILL)
    twice = corrupt(once, BOXES, IDS, "horizontal_flip", 1, fill=FILL)
    np.testing.assert_array_equal(twice, photos())
    assert (once != photos()).any()


def predict(pixels: np.ndarray) -> np.ndarray:
    """Predict class 1 where the mean brightness is at least 114."""
    bright = np.array([square[8:56, 8:56].mean() >= 114 for square in pixels], float)
    return np.stack([1 - bright, bright], 1)


def test_scores_drop_for_the_corruption_the_model_depends_on():
    pixels = photos()
    labels = predict(pixels).argmax(1)
    assert sorted(labels.tolist()) == [0, 1]
    sample = CorruptionSample(pixels, np.arange(2), BOXES, IDS, labels, labels, IDS, FILL)
    found = {level: corruption_score(sample, predict, *level).score for level in levels(flip=True)}
    assert found["horizontal_flip", 1] == found["gaussian_blur", 5] == 1
    assert found["brightness", 40] == found["brightness", 200] == 0.5
    assert len(found) == sum(map(len, LEVELS.values()))


def test_flip_is_left_out_when_it_changes_the_label():
    assert levels(flip=True)[:-1] == levels(flip=False)
    assert "horizontal_flip" not in dict(levels(flip=False))


def many_photos(count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return `count` dark and bright photos in turn, their boxes and ids."""
    squares = np.full((count, 64, 64, 3), 60, np.uint8)
    squares[1::2] = 180
    return squares, np.tile([0, 0, 64, 64], (count, 1)), [f"{n:012x}" for n in range(count)]


def test_levels_that_change_nothing_or_everything_need_few_photos():
    pixels, boxes, ids = many_photos(160)
    labels = np.arange(160) % 2
    asked = []

    def counting(squares: np.ndarray) -> np.ndarray:
        asked.append(len(squares))
        return predict(squares)

    sample = CorruptionSample(pixels, np.arange(160), boxes, ids, labels, labels, ids, FILL)
    found = {level: corruption_score(sample, counting, *level) for level in levels(flip=True)}
    assert found["gaussian_blur", 5].score == 1
    assert found["brightness", 40].score == 0.5  # all bright photos are lost
    assert found["brightness", 40].photos == BLOCK
    assert found["gaussian_blur", 5].photos == 2 * BLOCK
    assert sum(asked) == sum(own.photos for own in found.values())
    assert all(is_known(1 - own.score, own.width) for own in found.values())


def test_a_score_between_uses_more_photos_and_its_interval_covers_that_of_all():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    misses = 0
    for _ in range(200):
        lost = (rng.random(400) < 0.15).astype(float)
        drop, width = drop_with_width(lost[:96], labels, np.arange(400))
        assert not is_known(drop, width)
        misses += abs(drop - 0.15) > width
    assert misses <= 20  # 5% of 200 are 10; 3 standard deviations more are 20


def test_photos_of_one_group_count_as_one():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    lost = np.repeat((rng.random(12) < 0.3).astype(float), 10)
    _, alone = drop_with_width(lost, labels, np.arange(120))
    _, grouped = drop_with_width(lost, labels, np.repeat(np.arange(12), 10))
    assert grouped > 2 * alone
    assert drop_with_width(np.zeros(40), labels, np.arange(120))[1] > WIDTH  # no change is no proof


def test_a_class_without_photos_so_far_gives_no_interval():
    assert drop_with_width(np.zeros(32), np.repeat([0, 1], 40), np.arange(80))[1] == np.inf


def test_plot_has_one_panel_per_kind_with_its_levels():
    found = {kind: dict.fromkeys(levels, 0.5) for kind, levels in LEVELS.items()}
    drawn = plots.robustness(found, 0.8, 51, 3)
    shown = [axes for axes in drawn.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == list(plots.CORRUPTION_TITLES.values())
    assert list(plots.CORRUPTION_TITLES) == list(LEVELS) == list(CORRUPTIONS)
    assert [text.get_text() for text in shown[2].get_xticklabels()] == ["50", "20", "10", "5"]
    assert shown[0].lines[0].get_ydata()[0] == 0.8
    assert shown[0].lines[1].get_ydata()[0] == pytest.approx(1 / 3)
