"""synthetic/canvas.py: lines are independent of the pixel grid, random streams of each other."""

import numpy as np
import pytest

from synthetic import canvas


@pytest.mark.parametrize("footprint", [0.05, 0.5, 3.0])
def test_lines_cover_their_share_at_any_pixel_size(footprint):
    place = np.linspace(0, 100, 40_001)[None]
    covered = canvas.lines(place, 10.0, 1.0, footprint)
    assert covered.mean() == pytest.approx(0.1, abs=0.002)
    assert covered.min() >= 0
    assert covered.max() <= 1 + 1e-9


def test_a_random_stream_depends_on_its_name_only():
    first = canvas.generator(1, "a").random()
    canvas.generator(1, "b").random()
    assert canvas.generator(1, "a").random() == first != canvas.generator(1, "b").random()
