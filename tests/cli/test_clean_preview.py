"""The preview of `anklealign add` counts what clean and split do."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anklealign.cli import add, clean_preview
from anklealign.config import params, paths
from anklealign.config.params import Dataset
from anklealign.ingest import layouts
from anklealign.io import decode, pixel_store, results
from stages import clean, prepare, split

ROOT = Path(__file__).resolve().parents[2]
DATASET = {"layout": "folders", "classes": {"a": [], "b": []}}


def scene(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (320, 240), (120, 110, 100))
    for size in (8, 16, 64):
        patch = rng.integers(0, 256, (size * 3 // 4, size, 3), dtype=np.uint8)
        layer = Image.fromarray(patch).resize(picture.size, Image.Resampling.NEAREST)
        picture = Image.blend(picture, layer, 0.4)
    return picture


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Return the raw folder of a project whose photos have some faults and duplicates."""
    monkeypatch.chdir(tmp_path)
    raw = params.read(ROOT / params.PARAMS)
    raw |= {"dataset": "mine", "datasets": {"mine": DATASET}}
    Path("params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    root = tmp_path / "data/raw/mine"
    for n in range(40):
        path = root / "ab"[n % 2] / f"{n:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(n).save(path, quality=90)
    (root / "a/copy.jpg").write_bytes((root / "a/00.jpg").read_bytes())
    scene(1).resize((200, 150)).save(root / "b/small.jpg")
    scene(50).point(lambda level: 0.1 * level).save(root / "b/dark.jpg")
    scene(51).filter(ImageFilter.GaussianBlur(6)).save(root / "a/blurred.jpg")
    return root


def preview(root: Path) -> list[str]:
    dataset = params.section({"d": DATASET}, "d", Dataset)
    entries = layouts.read_inventory(root, dataset).entries
    raw = params.read()
    settings = params.section(raw, "prepare", params.Prepare)
    skips, sampled = clean_preview.decode_photos(root, entries, dataset, settings)
    assert not skips
    return clean_preview.preview_lines(
        root, entries, sampled, name="mine", dataset=dataset, raw=raw
    )


def test_the_counts_are_those_of_the_stages(project) -> None:
    lines = preview(project)
    prepare.main()
    clean.main()
    split.main()
    metrics = results.read_details(clean.METRICS)
    assert metrics["removed"] == 4
    assert lines[0] == f"clean     {metrics['kept']} of {metrics['photos']} photos will be kept"
    counts = {reason: n for reason, n in metrics["reasons"].items() if n}
    text = " ".join(" ".join(lines).split())
    assert f"removed: {', '.join(f'{r} {n}' for r, n in sorted(counts.items()))}" in text
    for sentence in metrics["warnings"].values():
        assert sentence in text
    table = pixel_store.read_table(paths.SPLIT / "photos.csv").split.value_counts()
    sizes = ", ".join(f"{name} {table[name]}" for name in ("train", "val", "test"))
    assert lines[-1].startswith(f"split     {sizes} photos")
    assert max(map(len, lines)) <= 80


def test_a_pair_that_only_the_audit_finds_is_announced(project) -> None:
    raw = params.read()
    raw["clean"]["residual"] = 0.001  # so that clean keeps a photo and its smaller duplicate
    for seed in range(10):
        Path("params.yaml").write_text(json.dumps(raw | {"seed": seed}), encoding="utf-8")
        lines = preview(project)
        if "show the same picture" in " ".join(lines):
            break
    prepare.main()
    clean.main()
    split.main()
    joined = results.read_details(split.METRICS)["leaking_pairs_joined"]
    assert lines[-1].strip() == f"pairs that show the same picture and stay in one split: {joined}"
    table = pixel_store.read_table(paths.SPLIT / "photos.csv").split.value_counts()
    sizes = ", ".join(f"{name} {table[name]}" for name in ("train", "val", "test"))
    assert lines[-2].startswith(f"split     {sizes} photos")


def test_each_photo_is_decoded_once(project, monkeypatch) -> None:
    read = Counter[str]()
    read_bytes = decode.read_bytes

    def count(path: Path, most: float) -> bytes:
        read[path.name] += 1
        return read_bytes(path, most)

    monkeypatch.setattr(decode, "read_bytes", count)
    add.add(str(project), "other", None, {}, dry=True, listed=10)
    assert set(read.values()) == {1}
    assert len(read) == 44


def test_a_large_set_is_sampled_with_a_seed(project, monkeypatch) -> None:
    monkeypatch.setattr(clean_preview, "SAMPLE", 30)
    lines = preview(project)
    assert lines == preview(project)
    assert lines[0] == "clean     estimated from 30 of 44 photos"
    assert any("1 of all files are copies" in line for line in lines)


def test_a_class_that_clean_would_empty_is_announced(project) -> None:
    for n, path in enumerate(sorted((project / "b").iterdir())):
        if n > 3:
            path.unlink()
            continue
        with Image.open(path) as picture:
            dark = picture.point(lambda level: 0.05 * level)
        dark.save(path)
    text = " ".join(" ".join(preview(project)).split())
    assert "warning: clean will stop: class b lost all of its" in text
    assert "warning: split will stop: class b has no photo left" in text
