"""synthetic/canvas.py: strokes that do not depend on the pixel grid."""

import numpy as np
import pytest

from synthetic import canvas


@pytest.mark.parametrize("footprint", [0.05, 0.5, 3.0])
def test_lines_cover_their_share_however_coarse_the_pixels(footprint):
    place = np.linspace(0, 100, 40_001)[None]
    covered = canvas.lines(place, 10.0, 1.0, footprint)
    assert covered.mean() == pytest.approx(0.1, abs=0.002)
    assert covered.min() >= 0
    assert covered.max() <= 1 + 1e-9


def test_random_numbers_belong_to_their_names():
    first = canvas.generator(1, "a").random()
    canvas.generator(1, "b").random()
    assert canvas.generator(1, "a").random() == first != canvas.generator(1, "b").random()
