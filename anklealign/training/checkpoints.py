"""Checkpoints of a fit: one file after every epoch, from which an interrupted run resumes.

The file name is a hash of everything the result depends on, code included, so that a run never
resumes from the state of another.
"""

import hashlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from anklealign.io import files

FOLDER = Path("checkpoints")  # ignored by git, and no DVC output: DVC deletes outputs before a run
ROOT = Path(__file__).resolve().parents[2]


def path_for(inputs: Mapping[str, Any]) -> Path:
    """Return the checkpoint path of a run with these inputs and the loaded code."""
    text = json.dumps({**inputs, "code": _code_hashes()}, sort_keys=True, default=str)
    return FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt"


def _code_hashes() -> dict[str, str]:
    """Return the hash of each loaded file of this project."""
    loaded = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    paths = sorted(Path(name) for name in loaded if name.startswith(str(ROOT)))
    own = [p for p in paths if p.relative_to(ROOT).parts[0] in {"anklealign", "stages"}]
    return {path.relative_to(ROOT).as_posix(): files.sha256(path) for path in own}


def head_path(path: Path) -> Path:
    """Return the checkpoint path of the head, which is fitted before the whole network."""
    return path.with_name(f"head-{path.name}")


def remove(path: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for file in (path, head_path(path)):
        file.unlink(missing_ok=True)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state atomically.

    Raises:
        OSError: The folder is not writable, or the disk is full.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with files.replacing(path) as temporary:
        # torch.save reports a full disk as a RuntimeError without a reason; write_bytes as ENOSPC.
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path) -> dict[str, Any] | None:
    """Return a saved state with its tensors on the CPU, or None if there is no file.

    Temporary files of killed runs are removed.

    Raises:
        ValueError: The file is damaged.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)  # another process may already have removed it
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} is damaged ({reason}); remove it to start the run from its first epoch"
        ) from None
    return state
