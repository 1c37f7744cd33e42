"""Load PyTorch, which takes seconds and 300 MB, only where it is needed: heat maps, its engine."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from anklealign.inference.base_predictor import BasePredictor

if TYPE_CHECKING:
    from anklealign.inference.predictor import Predictor


def predictor_class() -> "type[Predictor]":
    """Import PyTorch, and return the predictor that it computes."""
    with without_compiler():
        from anklealign.inference.predictor import Predictor  # noqa: PLC0415
    return Predictor


def load(predictor: BasePredictor) -> "Predictor":
    """Return the predictor that PyTorch computes; load both at the first call, with heatmaps.py."""
    first = "service.heatmaps" not in sys.modules
    if first:
        with without_compiler():
            import service.heatmaps  # noqa: F401, PLC0415 - takes seconds
    loaded = predictor.pytorch
    if first:
        gc.freeze()  # as in server.py
    return loaded


def runs_on_cpu(device: str) -> bool:
    """Return whether a device is the CPU; without a GPU's driver, `auto` does not need PyTorch.

    Raises:
        ValueError: The device does not exist.
    """
    if device == "cpu" or (device == "auto" and not has_gpu_driver()):
        return True
    predictor_class()
    from anklealign.models.inputs import pick_device  # noqa: PLC0415

    return pick_device(device).type == "cpu"


def has_gpu_driver() -> bool:
    """Return whether a driver of NVIDIA or AMD is installed; if unknown, True."""
    if sys.platform == "win32":
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


@contextmanager
def without_compiler() -> Iterator[None]:
    """Let timm and torchvision be imported without PyTorch's compiler, which nothing here uses.

    They import it for the functions below. It took a third of the time of the start.
    """
    if "torch._dynamo" in sys.modules:  # a caller has imported it, and may use it
        yield
        return
    compiler, utils = (ModuleType(f"torch._dynamo{name}") for name in ("", ".utils"))
    vars(compiler)["disable"] = lambda function=None, *_, **__: function or (lambda own: own)
    vars(utils)["is_compile_supported"] = lambda _: False
    substitutes = {module.__name__: module for module in (compiler, utils)}
    sys.modules |= substitutes
    try:
        yield
    finally:
        for name in substitutes:
            del sys.modules[name]
