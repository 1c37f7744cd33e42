import numpy as np

from anklealign.plotting import heat_maps


def test_the_overlay_leaves_pixels_without_heat_unchanged():
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    heat = np.zeros((32, 32), np.float32)
    heat[:8, :8] = 1
    over = heat_maps.overlay(photo, heat)
    assert over.dtype == np.uint8
    assert np.array_equal(over[8:], photo[8:])
    assert not np.array_equal(over[:8, :8], photo[:8, :8])
