"""Where a fit stands, in one file, so that a killed run goes on from its last epoch.

Tensors as safetensors, everything else as JSON in the file's header: no pickle. The file's name is
a hash of all that the result depends on, so that no run goes on from another's state.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from anklealign.io import files

FOLDER = Path("checkpoints")  # git-ignored, and unknown to DVC, which deletes what it knows
ROOT = Path(__file__).resolve().parents[2]


def place(inputs: Mapping[str, Any]) -> Path:
    """Return the file for a run on these inputs and the code that is loaded."""
    text = json.dumps({**inputs, "code": _code()}, sort_keys=True, default=str)
    return FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


def _code() -> dict[str, str]:
    """Return the hash of each loaded file of this project."""
    loaded = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    paths = sorted(Path(name) for name in loaded if name.startswith(str(ROOT)))
    own = [p for p in paths if p.relative_to(ROOT).parts[0] in {"anklealign", "stages"}]
    return {path.relative_to(ROOT).as_posix(): files.sha256(path) for path in own}


def of_the_head(path: Path) -> Path:
    """Return the file for the head, where that learns alone before a run's first epoch."""
    return path.with_name(f"head-{path.name}")


def remove(path: Path) -> None:
    """Remove what a run went on from."""
    for file in (path, of_the_head(path)):
        file.unlink(missing_ok=True)


def save(path: Path, state: Any) -> None:  # noqa: ANN401 - nested, as fitting has it
    """Write a state of dicts, lists, numbers, texts and tensors: whole, or not at all.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    packed = _pack(state, tensors)
    with files.replacing(path) as temporary:
        # By Python's own write, which says ENOSPC where safetensors has an error of its own.
        temporary.write_bytes(serialise(tensors, {"state": json.dumps(packed)}))


def load(path: Path) -> Any:  # noqa: ANN401 - as saved
    """Return a saved state, its tensors on the CPU; None where there is none.

    A kill leaves temporary files beside it, which are removed.

    Raises:
        ValueError: The file is damaged.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)  # another process may have been faster
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as opened:
            packed = json.loads(opened.metadata()["state"])
            return _unpack(packed, {name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118 - no iterator
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it, and the run starts from its first epoch"
        ) from None


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401 - nested
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy of its own, as safetensors takes no two tensors in one memory.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Mapping):  # as pairs, as JSON's keys are texts and optimisers' are numbers
        return {"pairs": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - nested
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _unpack(item, tensors) for key, item in value["pairs"]}
    return value
