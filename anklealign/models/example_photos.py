"""Example photos of each class that a bundle carries, if the dataset config allows them.

They are photos of the validation split that the model gets right, the surest first: the model
has not been fitted on them, and they show what it takes for typical.
"""

import hashlib
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from anklealign.io import files
from anklealign.io.pixel_store import Pixels
from anklealign.models.input_config import Floats, Integers

FOLDER = "examples"
QUALITY = 90  # of the JPEG; some 15 kB at 256 px

Examples = Mapping[str, tuple[bytes, ...]]


def choose(
    probabilities: Floats, labels: Integers, classes: Sequence[str], count: int
) -> dict[str, list[int]]:
    """Return the positions of up to `count` photos of each class: (N, K), (N,).

    A class has fewer if the model gets fewer of its photos right. Ties keep the order.
    """
    right = probabilities.argmax(1) == labels
    chosen = {}
    for k, name in enumerate(classes):
        own = np.flatnonzero(right & (labels == k))
        order = np.argsort(-probabilities[own, k].round(6), kind="stable")
        chosen[name] = own[order[:count]].tolist()
    return chosen


def encode(pixels: Pixels) -> bytes:
    """Return a photo as JPEG: uint8 (H, W, 3)."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def save(folder: Path, examples: Examples) -> dict[str, list[str]]:
    """Write the photos to a bundle's folder; return the SHA-256 of each, which its config holds."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    hashes: dict[str, list[str]] = {}
    for name, photos in examples.items():
        hashes[name] = [hashlib.sha256(photo).hexdigest() for photo in photos]
        for digest, photo in zip(hashes[name], photos, strict=True):
            with files.replacing(folder / FOLDER / f"{digest[:16]}.jpg") as path:
                path.write_bytes(photo)
    return hashes


def load(folder: Path, hashes: Mapping[str, Sequence[str]]) -> Examples:
    """Return the photos of a bundle's folder.

    Raises:
        ValueError: A photo is missing or is not the one of the config.
    """
    examples = {}
    for name, digests in hashes.items():
        paths = [folder / FOLDER / f"{digest[:16]}.jpg" for digest in digests]
        for path, digest in zip(paths, digests, strict=True):
            if not path.is_file() or files.sha256(path) != digest:
                raise ValueError(
                    f"{path} is missing or does not match the bundle's config; restore both with "
                    "`dvc checkout` or `dvc pull`"
                )
        examples[name] = tuple(path.read_bytes() for path in paths)
    return examples
