"""The blur returns what SciPy's Gaussian filter returns, whatever the size and the threads."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image
from threadpoolctl import threadpool_limits

from anklealign.similarity.gaussian import blur

PHOTO = load_sample_image("china.jpg")[..., 1]  # (427, 640)


@pytest.mark.parametrize("sigma", [1.0, 1.5])
@pytest.mark.parametrize(
    "size", [(256, 256), (171, 256), (1024, 33), (40, 3000), (17, 16), (3, 40), (1, 1)]
)
def test_blur_equals_scipy(sigma: float, size: tuple[int, int]) -> None:
    gray = np.resize(PHOTO, size).astype(np.float32)
    blurred = blur(gray, sigma)
    assert blurred.shape == size
    assert blurred.dtype == np.float32
    np.testing.assert_allclose(blurred, gaussian_filter(gray, sigma), rtol=0, atol=1e-4)


def test_blur_does_not_depend_on_the_number_of_threads() -> None:
    # Wide enough for several threads, with some of whose kernels the bytes would differ.
    gray = np.resize(PHOTO, (701, 2999)).astype(np.float32)
    with threadpool_limits(1):
        one = blur(gray, 1.5)
    with threadpool_limits(4):
        four = blur(gray, 1.5)
    np.testing.assert_array_equal(one, four)
