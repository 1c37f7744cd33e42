"""anklealign/ingest/masks.py and the system files of inventory: neither is a photo or a class."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from anklealign.ingest import inventory
from anklealign.ingest.masks import find_masks


def picture(seed, size=(96, 72), quality=90):
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def mask(kind="PNG", mode="L", size=(96, 72)):
    image = Image.new(mode, size)
    ImageDraw.Draw(image).ellipse([20, 20, 60, 50], fill="white")
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def write(root, contents):
    for path, data in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


@pytest.mark.parametrize(
    ("photo", "name"),
    [
        ("nv/ISIC_0024306.jpg", "nv/ISIC_0024306_segmentation.png"),
        ("nv/a.jpg", "nv/a_mask.png"),
        ("nv/benign (1).jpg", "nv/benign (1)_mask.png"),
        ("nv/benign (1).jpg", "nv/benign (1)_mask_1.png"),
        ("nv/a.b.jpg", "nv/a.b-Mask.png"),
        ("images/7.jpg", "masks/7.png"),
        ("Training_Input/7.jpg", "Training_GroundTruth/7_segmentation.png"),
        ("train/x/7.jpg", "train_masks/x/7_mask.gif"),
        ("nv/a.jpg", "nv/a_superpixels.png"),
        ("nv/a.jpg", "nv/a_GT.png"),
    ],
)
@pytest.mark.parametrize("mode", ["L", "1", "RGB"])
def test_masks_are_set_aside_with_their_photo(tmp_path, photo, name, mode):
    kind = "GIF" if name.endswith("gif") else "PNG"
    write(tmp_path, {photo: picture(1), name: mask(kind, mode)})
    assert find_masks(tmp_path, [photo, name]) == {name: photo}
    files, skips = inventory.list_files(tmp_path)
    assert files == [photo]
    assert [(s.path, s.reason, s.detail) for s in skips] == [(name, "mask", f"of {photo}")]


@pytest.mark.parametrize("size", [(96, 72), (48, 36), (128, 128)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("place", ["{}/{}", "set/{1}/{0}"])
def test_masks_at_the_path_of_their_photo_are_set_aside_at_any_size(tmp_path, size, kind, place):
    files = [f"{place.format('{}', name)}/{n}." for name in ("ants", "bees") for n in range(3)]
    of = {f"{file.format('masks')}{kind}": f"{file.format('images')}JPG" for file in files}
    write(tmp_path, {photo: picture(n) for n, photo in enumerate(of.values())})
    write(tmp_path, dict.fromkeys(of, mask(kind, size=size)))
    assert find_masks(tmp_path, [*of, *of.values()]) == of


@pytest.mark.parametrize("size", [(48, 36), (96, 72), (300, 225)])
def test_photos_of_people_with_a_mask_are_no_masks_of_those_without(tmp_path, size):
    contents = {f"{s}/nomask/{n}.jpg": picture(n) for s in ("train", "val") for n in range(3)}
    contents |= {
        f"{s}/mask/{n}.jpg": picture(9 + n, size) for s in ("train", "val") for n in range(3)
    }
    write(tmp_path, contents)
    assert find_masks(tmp_path, sorted(contents)) == {}


@pytest.mark.parametrize(
    "contents",
    [
        # People with and without a face mask: classes and names as of masks.
        {"mask/1.jpg": picture(1), "no_mask/1.jpg": picture(2), "with_mask/1.jpg": picture(3)},
        {"p/anna.jpg": picture(1), "p/anna_mask.jpg": picture(2)},
        {"p/anna.jpg": picture(1), "p/anna_mask.png": mask(size=(48, 36))},  # of another size
        {"p/anna_mask.png": mask()},  # no photo
        {"a/1.jpg": picture(1), "b/1.jpg": picture(2), "masks/1.png": mask()},  # two photos
        {"p/a.jpg": b"broken", "p/a_mask.png": mask()},
    ],
)
def test_what_may_be_a_photo_is_kept(tmp_path, contents):
    write(tmp_path, contents)
    assert find_masks(tmp_path, sorted(contents)) == {}


def test_one_photo_among_the_masks_keeps_all_of_its_folder(tmp_path):
    contents = {f"images/{n}.jpg": picture(n) for n in range(4)}
    contents |= {f"masks/{n}.jpg": mask("JPEG") for n in range(3)} | {"masks/3.jpg": picture(9)}
    write(tmp_path, contents)
    assert find_masks(tmp_path, sorted(contents)) == {}


def test_system_files_and_folders_are_skipped_whole(tmp_path):
    system = [
        "__MACOSX/cats/._1.jpg", "cats/._1.jpg", ".DS_Store", "cats/.DS_Store", "cats/Thumbs.db",
        "desktop.ini", "$RECYCLE.BIN/1.jpg", "System Volume Information/1.jpg",
        "cats/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/1.jpg", "#snapshot/1.jpg",
        "cats/.ipynb_checkpoints/1-checkpoint.jpg", "@Recycle/2.jpg", "cats/1.THM",
        "FOUND.000/FILE0000.CHK", "LOST.DIR/1",
    ]  # fmt: skip
    write(tmp_path, dict.fromkeys(system, picture(1)) | {"cats/1.jpg": picture(1)})
    files, skips = inventory.list_files(tmp_path)
    assert files == ["cats/1.jpg"]
    assert {skip.reason for skip in skips} == {"system_file"}
    assert len(skips) == 16
