"""Load a trained classifier, predict photos and explain the predictions.

    >>> import numpy as np
    >>> from anklealign import Predictor, heat_maps
    >>> predictor = Predictor.load("model")
    >>> pixels = predictor.preprocess("photo.jpg")[None]  # (1, S, S, 3) uint8
    >>> probabilities = predictor.probabilities(pixels)  # (1, K)
    >>> predictor.classes[int(probabilities[0].argmax())] in predictor.classes
    True
    >>> predictor.prediction_sets(probabilities).shape == probabilities.shape
    True
    >>> maps = heat_maps(predictor.bundle, pixels, probabilities.argmax(1))
    >>> maps.shape == pixels.shape[:3]
    True

The names in `__all__` are the public Python API. They are imported on first use, so `import
anklealign` does not import PyTorch. Load many photos with `np.stack` of their pixels. A photo that
cannot be read raises `PhotoError`, a `ValueError` with a `reason`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anklealign.explainability.attribution import heat_maps
    from anklealign.inference.predictor import Predictor
    from anklealign.io.decode import PhotoError
    from anklealign.models.bundle import Bundle

__version__ = "0.1.0"
__all__ = ["Bundle", "PhotoError", "Predictor", "__version__", "heat_maps"]

_MODULES = {
    "Bundle": "anklealign.models.bundle",
    "PhotoError": "anklealign.io.decode",
    "Predictor": "anklealign.inference.predictor",
    "heat_maps": "anklealign.explainability.attribution",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type depends on the name
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
