"""Find segmentation masks beside photos, which are neither photos nor a class.

    ISIC_0000000.jpg  ISIC_0000000_segmentation.png        images/1.png  masks/1.png

A mask has the name of its photo with a word such as `mask`, or lies in a folder of that name; it
has the photo's size in pixels and far fewer bytes. The last two distinguish masks from photos of
people with a face mask, whose folders and files are named alike. A mask of another size has the
path of its photo but for the folder's name (`ants/images/1.png`, `ants/masks/1.png`), and few
colors.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from anklealign.io import decode

WORDS = "masks?|seg|segm|segmentations?|superpixels|gt|ground ?truth|label ?map|matte|trimap"
NAME = re.compile(rf"(?P<stem>.+?)[ _.-]+(?:{WORDS})(?:[ _-]?\d{{1,3}})?", re.IGNORECASE)
FOLDER = re.compile(rf"(?:.*[ _.-])?(?:{WORDS})", re.IGNORECASE)
CHECKED = 8  # masks of a folder whose size and bytes are compared with their photos'
# Masks have 1 to 10 % of the bytes of their photo; two photos of one size seldom differ by half.
MOST_BYTES = 0.5
COLORS = 16  # which most pixels of a mask have
MOST_PIXELS = 0.9
SIDE = 128  # pixels that are compared
MAX_MEGAPIXELS = 178.0  # Pillow's limit


def find_masks(root: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the photo of each mask among the files of a folder."""
    pictures = [f for f in files if PurePosixPath(f).suffix.casefold() in decode.PHOTO_SUFFIXES]
    photos = _Photos(pictures)
    candidates: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for file in pictures:
        path = PurePosixPath(file)
        named = NAME.fullmatch(path.stem)
        stem = named.group("stem") if named else path.stem if photos.holes[path.parent] else None
        if stem is not None and (photo := photos.of(path, stem)):
            kind = path.stem[len(stem) :].strip("0123456789") if named else ""
            candidates[path.parent.as_posix(), kind][file] = photo
    masks: dict[str, str] = {}
    for group in candidates.values():
        sample = sorted(group.items())[:: max(1, len(group) // CHECKED)][:CHECKED]
        if all(_is_mask(root, mask, photo) for mask, photo in sample):
            masks |= group
    return {mask: photo for mask, photo in sorted(masks.items()) if photo not in masks}


class _Photos:
    """The pictures by folder and name; `holes` are the positions of folders of masks in a path."""

    def __init__(self, pictures: Iterable[str]) -> None:
        paths = [PurePosixPath(file) for file in pictures]
        self.holes = {
            folder: tuple(n for n, part in enumerate(folder.parts) if FOLDER.fullmatch(part))
            for folder in {path.parent for path in paths}
        }
        shapes = {(len(folder.parts), holes) for folder, holes in self.holes.items() if holes}
        self._index: dict[tuple[object, str], list[str]] = defaultdict(list)
        for path in paths:
            self._index[path.parent, path.stem].append(path.as_posix())
            if self.holes[path.parent]:
                continue
            self._index[None, path.stem].append(path.as_posix())
            for length, holes in shapes:
                if length == len(path.parent.parts):
                    self._index[_without(path.parent, holes), path.stem].append(path.as_posix())

    def of(self, mask: PurePosixPath, stem: str) -> str:
        """Return the photo in the same folder, at the parallel path, or the only one, or ''.

        The last two are not in a folder of masks.
        """
        near = [p for p in self._index.get((mask.parent, stem), ()) if p != mask.as_posix()]
        parallel = self._index.get((_without(mask.parent, self.holes[mask.parent]), stem))
        chosen = near or parallel or self._index.get((None, stem)) or []
        return chosen[0] if len(chosen) == 1 else ""


def _without(folder: PurePosixPath, holes: tuple[int, ...]) -> tuple[str | None, ...]:
    return tuple(None if n in holes else part for n, part in enumerate(folder.parts))


def _are_parallel(mask: str, photo: str) -> bool:
    """Return whether the folders of two files differ by the names of folders of masks alone."""
    own, other = PurePosixPath(mask).parts[:-1], PurePosixPath(photo).parts[:-1]
    differing = [one for one, two in zip(own, other, strict=False) if one != two]
    return (
        len(own) == len(other)
        and bool(differing)
        and all(FOLDER.fullmatch(part) for part in differing)
    )


def _is_mask(root: Path, mask: str, photo: str) -> bool:
    try:
        (mask_size, mask_bytes), (size, photo_bytes) = (
            _measured(root / mask),
            _measured(root / photo),
        )
        growth = max(1.0, math.prod(mask_size) / math.prod(size))
        if mask_bytes > MOST_BYTES * photo_bytes * growth:
            return False
        same = sorted(mask_size) == sorted(size)
        return same or (_are_parallel(mask, photo) and _has_few_colors(root / mask))
    except Exception:  # noqa: BLE001 - decoders raise anything for a damaged file: no mask
        return False


def _has_few_colors(path: Path) -> bool:
    """Return whether most pixels of a picture, possibly a JPEG, have few colors."""
    image = decode.identify(decode.read_bytes(path, MAX_MEGAPIXELS))
    small = image.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB")
    counts = np.unique(np.asarray(small).reshape(-1, 3), axis=0, return_counts=True)[1]
    return bool(np.sort(counts)[-COLORS:].sum() >= MOST_PIXELS * SIDE * SIDE)


def _measured(path: Path) -> tuple[tuple[int, int], int]:
    """Return the size in pixels by the header, and the number of bytes."""
    data = decode.read_bytes(path, MAX_MEGAPIXELS)
    return decode.identify(data).size, len(data)
