"""clean removes duplicates and unusable photos with a reason and counts each photo once."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from ruamel.yaml import YAML

from anklealign.cleaning import image_quality, removal
from anklealign.cleaning.duplicate_clusters import Cluster, Residuals
from anklealign.cleaning.image_quality import ImageQuality
from anklealign.config import paths
from anklealign.config.params import PARAMS
from anklealign.io import decode, pixel_store, results
from anklealign.similarity import borders
from stages import clean

ROOT = Path(__file__).resolve().parents[2]


def scene(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (512, 384), (120, 110, 100))
    for size in (8, 16, 64):
        patch = rng.integers(0, 256, (size * 3 // 4, size, 3), dtype=np.uint8)
        layer = Image.fromarray(patch).resize(picture.size, Image.Resampling.NEAREST)
        picture = Image.blend(picture, layer, 0.4)
    return picture


def prepared(
    folder: Path,
    named: dict[str, tuple[Image.Image, str]],
    fit: str = "letterbox",
    voted=(),
) -> None:
    """Write the files of prepare for path -> (picture, label); a path's folder is the collector."""
    rows, squares = [], []
    for row, (path, (picture, label)) in enumerate(named.items()):
        pixels, box = decode.fit(picture, 256, fit, 114)
        squares.append(pixels)
        rows.append(
            dict.fromkeys(pixel_store.PREPARED_COLUMNS, "")
            | {"id": pixel_store.photo_id(path), "row": row, "path": path, "label": label}
            | {"consensus": label if path in voted else ""}
            | {"collector": path.split("/")[0], "subject": path[:-4], "format": "JPEG"}
            | {"width": picture.width, "height": picture.height, "orientation": 1, "bytes": 9}
            | dict(zip(("left", "top", "right", "bottom"), box, strict=True))
            | {"sha256": "0" * 64}
        )
    pixel_store.write_store(folder / paths.STORE, squares)
    table = pd.DataFrame(rows, columns=list(pixel_store.PREPARED_COLUMNS))
    table.to_csv(folder / paths.PREPARED / "photos.csv", index=False)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs clean on named pictures and returns its four outcomes."""
    monkeypatch.chdir(tmp_path)
    raw = YAML(typ="safe", pure=True).load((ROOT / PARAMS).read_text(encoding="utf-8"))

    def go(named: dict[str, tuple[Image.Image, str]], voted=(), settings=(), **dataset):
        raw["datasets"]["synthetic"] |= dataset
        raw["clean"] |= {"allowed_losses": ["B"]} | dict(settings)
        (tmp_path / PARAMS).write_text(json.dumps(raw), encoding="utf-8")
        prepared(tmp_path, named, raw["datasets"]["synthetic"]["fit"], voted)
        clean.main()
        kept = pixel_store.read_table(paths.CLEAN / "photos.csv")
        removed = pixel_store.read_table(paths.CLEAN / "removed.csv")
        metrics = results.read_details(clean.METRICS)
        return kept, removed.set_index("path"), metrics

    return go


def good(count: int = 6) -> dict[str, tuple[Image.Image, str]]:
    return {f"A/{n}.jpg": (scene(n), "left" if n % 2 else "right") for n in range(count)}


def test_good_photos_are_all_kept(run) -> None:
    kept, removed, metrics = run(good())
    assert len(kept) == 6
    assert len(removed) == 0
    assert set(kept.cluster) == {""}
    assert metrics["removed"] == metrics["clusters"] == sum(metrics["reasons"].values()) == 0


def test_every_photo_is_kept_or_removed_once_with_a_reason(run) -> None:
    named = good() | {
        "B/same.jpg": (scene(0), "right"),
        "B/small.jpg": (scene(1).resize((256, 192)), "left"),
        "B/mirror.jpg": (ImageOps.mirror(scene(2)), "right"),
        "B/blurred.jpg": (scene(20).filter(ImageFilter.GaussianBlur(8)), "left"),
        "B/dark.jpg": (scene(21).point(lambda level: 0.15 * level), "left"),
        "B/bright.jpg": (scene(22).point(lambda level: 255 - 0.15 * (255 - level)), "left"),
        "B/grey.jpg": (scene(23).point(lambda level: 128 + 0.1 * (level - 128)), "left"),
        "B/tiny.jpg": (scene(24).resize((56, 42)), "left"),
        "B/strip.jpg": (scene(25).crop((0, 100, 512, 200)), "left"),
    }
    kept, removed, metrics = run(named, settings={"actions": {"too_small": "remove"}})
    assert removed.reason.to_dict() == {
        "B/same.jpg": "exact_duplicate",
        "B/small.jpg": "near_duplicate",
        "B/mirror.jpg": "near_duplicate",
        "B/blurred.jpg": "blurred",
        "B/dark.jpg": "dark",
        "B/bright.jpg": "bright",
        "B/grey.jpg": "low_contrast",
        "B/tiny.jpg": "too_small",
        "B/strip.jpg": "aspect",
    }
    assert sorted([*kept.path, *removed.index]) == sorted(named)
    assert metrics["photos"] == 15
    assert metrics["kept"] == len(kept) == 6
    assert metrics["removed"] == sum(metrics["reasons"].values()) == 9
    assert metrics["classes"]["left"] == {"kept": 3, "removed": 7}
    assert tuple(kept.columns) == (*pixel_store.PREPARED_COLUMNS, "cluster")


def test_the_scores_of_all_photos_and_compared_pairs_are_written(run) -> None:
    _, removed, _ = run(good() | {"B/dark.jpg": (scene(0).point(lambda v: 0.15 * v), "right")})
    scores = pixel_store.read_table(clean.SCORES).set_index("path")
    assert list(scores.index) == [*good(), "B/dark.jpg"]
    assert set(scores.columns) == {"id", *clean.QUALITY_REASONS}
    assert scores.dark["B/dark.jpg"] == pytest.approx(removed.score["B/dark.jpg"], abs=1e-3)
    pairs = pixel_store.read_table(clean.RESIDUALS)
    assert {"A/0.jpg", "B/dark.jpg"} in [
        set(scores.index[scores.id.isin(pair)]) for pair in zip(pairs.id_a, pairs.id_b, strict=True)
    ]


def test_known_photos_are_not_measured_again_and_no_cache_changes_a_result(run, monkeypatch):
    def outputs():
        folders = (paths.CLEAN, paths.METRICS)
        files = [path for folder in folders for path in sorted(folder.rglob("*.*"))]
        return {str(path): path.read_bytes() for path in files}

    measured = []

    def counting(function):
        def count(*arguments, **options):
            measured.append(function.__name__)
            return function(*arguments, **options)

        return count

    monkeypatch.setattr(image_quality, "measure", counting(image_quality.measure))
    monkeypatch.setattr(borders, "content_box", counting(borders.content_box))

    named = good(5) | {"B/same.jpg": (scene(0).resize((400, 300)), "left")}
    run(named)
    first = outputs()
    caches = sorted(paths.CACHE.glob("*.sqlite"))
    assert len(caches) == 2
    measured.clear()
    run(named)
    assert measured == []
    assert outputs() == first
    run(named | {"A/new.jpg": (scene(9), "left")})
    assert sorted(measured) == ["content_box", "measure"]
    for path in caches:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    run(named)
    assert outputs() == first
    shutil.copyfile(*caches)
    run(named)
    assert outputs() == first
    shutil.rmtree(paths.CACHE)
    run(named)
    assert outputs() == first


def test_a_contradicting_photo_is_shown_beside_one_it_was_compared_with_and_their_score() -> None:
    table = pd.DataFrame(dict.fromkeys(removal.PHOTO_COLUMNS, ""), index=range(4)).assign(
        id=list("abcd"), path=list("abcd"), label=["left", "left", "right", "left"]
    )
    cluster = Cluster(0, {1: 0.1, 2: 0.2, 3: 0.15}, frozenset(), 0, frozenset())
    # The second matches the third, too; the fourth was found to match the first alone.
    pairs = {(0, 1): 0.1, (0, 2): 0.2, (0, 3): 0.15, (1, 2): 0.05, (2, 3): 0.6}
    settings = clean.params.section(clean.params.read(ROOT / PARAMS), "clean", clean.Clean)
    _, removed = removal.select_removals(
        table, [None] * 4, [None] * 4, [cluster], Residuals([0, 1, 2, 3], pairs), settings=settings
    )
    assert list(removed.reason) == ["contradicting_labels"] * 4
    shown = dict(zip(removed.id, zip(removed.beside, removed.score, strict=True), strict=True))
    assert shown == {"a": ("c", 0.2), "b": ("c", 0.05), "c": ("b", 0.05), "d": ("a", 0.15)}


def test_the_original_of_a_framed_cropped_or_brightened_duplicate_is_kept(run) -> None:
    # The originals stand on a plain floor, which is no border; the copies' paths come earlier.
    named = {}
    for n, seed in enumerate((0, 1, 2, 4, 5, 6)):  # a framed 3 is not found
        picture = scene(seed)
        picture.paste((110, 105, 100), (0, 350, 512, 384))
        named[f"B/{n}.jpg"] = (picture, "left")
        copies = (
            ImageOps.expand(picture, 30, "white"),
            picture.crop((8, 0, 512, 384)),
            picture.point(lambda level: min(255, 1.2 * level)),
        )
        named[f"A/{n}.jpg"] = (copies[n % 3], "left")
    kept, removed, _ = run(named)
    assert len(kept) == len(removed) == 6
    assert {f"B/{n}.jpg" for n in (0, 1, 3, 4)} < set(kept.path)
    why = removed.why.to_dict()
    assert why["A/0.jpg"] == why["A/3.jpg"] == "the kept photo has no frame"
    assert why["A/1.jpg"] == why["A/4.jpg"] == "the kept photo is larger: 0.1966 MP vs. 0.1935 MP"
    # A brightened copy is as large, whatever is taken for a border: other things decide.
    assert sum("larger" in text for text in why.values()) == 2


def test_the_kept_duplicate_is_named_with_the_reason(run) -> None:
    named = good() | {
        "A/0b.jpg": (scene(0).resize((1024, 768)), "right"),
        "A/1b.jpg": (scene(1).filter(ImageFilter.GaussianBlur(2)), "left"),
        "A/2b.jpg": (scene(2), "right"),
    }
    kept, removed, metrics = run(named)
    removed["why"] = removed.why.str.replace(r": edge width .*", "", regex=True)
    chosen = removed[["kept_path", "why"]].to_dict("index")
    assert chosen == {
        "A/0.jpg": {
            "kept_path": "A/0b.jpg",
            "why": "the kept photo is larger: 0.7864 MP vs. 0.1966 MP",
        },
        "A/1b.jpg": {"kept_path": "A/1.jpg", "why": "the kept photo is sharper"},
        "A/2b.jpg": {
            "kept_path": "A/2.jpg",
            "why": "same size and sharpness; the kept photo's path sorts first",
        },
    }
    stays = kept.set_index("path")
    for row in removed.itertuples():
        assert row.kept_id == stays.id[row.kept_path]
        assert row.cluster == stays.cluster[row.kept_path]
        assert row.subject
    assert metrics["clusters"] == 3


def test_deciding_numbers_have_enough_digits_to_differ() -> None:
    removed = ImageQuality(
        2799, 1.4, 200.0, 20.0, 100.0, 0.1, edge_width=0.3041, area=4000.0 * 2799, framed=False
    )
    larger, sharper = replace(removed, area=4000.0 * 2800), replace(removed, edge_width=0.3037)
    why = [removal.why_kept(kept, removed) for kept in (larger, sharper)]
    assert why[0] == "the kept photo is larger: 11.2 MP vs. 11.196 MP"
    assert why[1] == "the kept photo is sharper: edge width 0.3037% vs. 0.3041%"


@pytest.mark.parametrize("copied", ["A/0 (1).jpg", "A/0 - Copy.jpg", "A/0_1.jpg", "A/0b.jpg"])
def test_of_equal_duplicates_the_one_with_the_plain_name_is_kept(run, copied) -> None:
    _, removed, _ = run(good() | {copied: (scene(0), "right")})
    assert removed.kept_path.to_dict() == {copied: "A/0.jpg"}


def test_a_duplicate_with_a_consensus_label_is_kept_even_if_it_is_smaller(run) -> None:
    named = good() | {"A/0b.jpg": (scene(0).resize((1024, 768)), "right")}
    kept, removed, _ = run(named, voted={"A/0.jpg"})
    assert "A/0.jpg" in set(kept.path)
    assert removed.why.to_dict() == {"A/0b.jpg": "the kept photo has a consensus label"}
    _, removed, _ = run(named, voted={"A/0.jpg", "A/0b.jpg"})
    assert removed.consensus.to_dict() == {"A/0.jpg": "right"}


def test_duplicates_with_contradicting_labels_are_all_removed(run) -> None:
    named = good() | {"B/0.jpg": (scene(0), "left"), "B/1.jpg": (scene(0), "right")}
    kept, removed, metrics = run(named)
    assert set(removed.index) == {"A/0.jpg", "B/0.jpg", "B/1.jpg"}
    assert set(removed.reason) == {"contradicting_labels"}
    assert len(set(removed.cluster)) == 1
    assert set(removed.kept_id) == {""}
    assert set(removed.why) == {"duplicates are labeled 1 left, 2 right"}
    assert metrics["clusters_contradicting"] == 1
    assert not set(kept.path) & set(removed.index)


def part(seed: int) -> Image.Image:
    """A machined part below a fixed camera: plain shapes of its own around a disk."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (512, 384), (150, 155, 160))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        (x, y), (wide, high) = rng.integers(20, (480, 350)), rng.integers(20, 110, 2)
        draw.rectangle((x, y, x + wide, y + high), fill=tuple(rng.integers(20, 235, 3).tolist()))
    draw.ellipse((196, 140, 316, 260), fill=(90, 95, 100))
    return picture


def test_a_scratch_with_another_label_is_no_contradiction(run) -> None:
    named = {}
    for seed in range(6):
        scratched = part(seed)
        start, end = (240, 190), (265, 196)  # 5 percent of the longer side
        ImageDraw.Draw(scratched).line((*start, *end), fill=(220, 220, 220), width=2)
        named |= {f"A/{seed}.jpg": (part(seed), "left"), f"B/{seed}.jpg": (scratched, "right")}
    kept, removed, _ = run(named)
    assert removed.empty
    assert len(kept) == 12


def test_a_stray_copy_with_another_label_goes_where_a_consensus_label_is_known(run) -> None:
    named = good() | {
        "B/0.jpg": (scene(0).resize((1024, 768)), "left"),
        "C/0.jpg": (scene(0).resize((400, 300)), "right"),
    }
    kept, removed, _ = run(named, voted={"A/0.jpg"})
    assert removed.reason.to_dict() == {
        "B/0.jpg": "contradicting_labels",
        "C/0.jpg": "near_duplicate",
    }
    assert "A/0.jpg" in set(kept.path)


def test_near_duplicates_are_kept_as_one_group_on_request(run, monkeypatch) -> None:
    real = clean.params.section

    def section(raw, key, kind):
        settings = real(raw, key, kind)
        return replace(settings, near_duplicates="group") if key == "clean" else settings

    monkeypatch.setattr(clean.params, "section", section)
    named = good() | {
        "B/0.jpg": (scene(0).resize((400, 300)), "right"),
        "B/1.jpg": (scene(1), "left"),
    }
    kept, removed, _ = run(named)
    assert removed.reason.to_dict() == {"B/1.jpg": "exact_duplicate"}
    clusters = kept.set_index("path").cluster
    assert clusters["A/0.jpg"] == clusters["B/0.jpg"] != ""


def shrinking(steps: int) -> list[Image.Image]:
    """Return a picture and what is left of it when 8 percent of the left are cut off repeatedly."""
    pictures = [scene(30)]
    for _ in range(steps):
        width, height = pictures[-1].size
        pictures.append(pictures[-1].crop((round(0.08 * width), 0, width, height)))
    return pictures


def test_a_chain_that_is_broken_up_keeps_several_photos_in_one_cluster(run) -> None:
    chain = {f"B/{n:02}.jpg": (picture, "left") for n, picture in enumerate(shrinking(12))}
    kept, removed, metrics = run(good() | chain)
    stay = kept[kept.path.isin(list(chain))]
    assert len(stay) >= 2
    assert set(stay.cluster) == set(removed.cluster) == {pixel_store.photo_id("B/00.jpg")}
    assert set(removed.kept_id) <= set(stay.id)
    assert metrics["clusters"] == 1


@pytest.mark.parametrize("odd", [0, 5])
def test_a_contradiction_in_a_broken_chain_removes_all_matching_photos(run, odd) -> None:
    labels = ["right" if n == odd else "left" for n in range(10)]
    chain = {
        f"B/{n:02}.jpg": (picture, label)
        for n, (picture, label) in enumerate(zip(shrinking(9), labels, strict=True))
    }
    kept, removed, _ = run(good() | chain)
    gone = removed[removed.reason == "contradicting_labels"]
    # Each matches the next two at least.
    near = {f"B/{n:02}.jpg" for n in range(max(0, odd - 2), min(10, odd + 3))}
    assert near <= set(gone.index)
    assert not set(kept.path) & near
    again, removed_again, _ = run(
        {p: v for p, v in (good() | chain).items() if p in set(kept.path)}
    )
    assert len(removed_again) == 0
    assert set(again.path) == set(kept.path)


def test_a_usable_copy_is_kept_and_named_if_the_larger_one_is_dark(run) -> None:
    big = scene(0).resize((1024, 768)).point(lambda level: 0.2 * level)
    kept, removed, _ = run(good() | {"B/big.jpg": (big, "right")})
    assert removed.reason.to_dict() == {"B/big.jpg": "dark"}
    assert removed.kept_path.to_dict() == {"B/big.jpg": "A/0.jpg"}
    assert removed.kept_id["B/big.jpg"] == pixel_store.photo_id("A/0.jpg")
    assert "A/0.jpg" in set(kept.path)


@pytest.mark.parametrize("mirror_safe", [True, False])
def test_a_mirror_image_with_another_label_contradicts_only_if_mirroring_is_safe(
    run, mirror_safe
) -> None:
    mirrored = ImageOps.mirror(scene(0))
    named = good() | {
        "B/0.jpg": (mirrored, "left"),
        "B/1.jpg": (mirrored.resize((400, 300)), "left"),
    }
    kept, removed, _ = run(named, mirror_safe=mirror_safe)
    if mirror_safe:
        assert set(removed.index) == {"A/0.jpg", "B/0.jpg", "B/1.jpg"}
        assert set(removed.reason) == {"contradicting_labels"}
    else:
        assert removed.reason.to_dict() == {"B/1.jpg": "near_duplicate"}
        assert removed.kept_path["B/1.jpg"] == "B/0.jpg"
        clusters = kept.set_index("path").cluster
        assert clusters["A/0.jpg"] == clusters["B/0.jpg"] != ""


def test_a_long_photo_cropped_to_its_center_is_neither_blurred_nor_square(run) -> None:
    long = scene(3).resize((1024, 768)).crop((0, 200, 1024, 500))
    named = good() | {
        "B/long.jpg": (long.resize((260, 76)), "left"),
        "B/strip.jpg": (scene(4).crop((0, 100, 512, 200)), "left"),
        "B/blurred.jpg": (scene(5).filter(ImageFilter.GaussianBlur(8)), "left"),
        "B/barred.jpg": (ImageOps.pad(scene(2), (512, 512), color="black"), "right"),
    }
    _, removed, _ = run(named, fit="crop")
    assert removed.reason.to_dict() == {
        "A/2.jpg": "near_duplicate",  # the other shows more of the picture
        "B/blurred.jpg": "blurred",
        "B/strip.jpg": "aspect",
    }


def test_the_outcome_does_not_depend_on_the_order_of_the_rows(run) -> None:
    named = good() | {
        "B/0.jpg": (scene(0), "right"),
        "B/1.jpg": (scene(1).resize((256, 192)), "left"),
    }
    kept, removed, metrics = run(named)
    backwards = dict(reversed(named.items()))
    kept_again, removed_again, metrics_again = run(backwards)
    assert removed.equals(removed_again)
    assert (
        kept.set_index("path")
        .cluster.sort_index()
        .equals(kept_again.set_index("path").cluster.sort_index())
    )
    for key in ("prepared_sha256", "photos_sha256"):  # of tables in another order
        assert metrics.pop(key) != metrics_again.pop(key)
    assert metrics == metrics_again


def test_a_class_without_remaining_photos_is_an_error(run) -> None:
    named = good() | {"B/dark.jpg": (scene(9).point(lambda level: 0.1 * level), "third")}
    with pytest.raises(ValueError, match=r"class third lost its only photo.*1 dark"):
        run(named)


def test_a_flagged_photo_is_kept_and_listed_and_an_action_off_ignores_the_reason(run) -> None:
    named = good() | {
        "A/dark.jpg": (scene(21).point(lambda level: 0.15 * level), "left"),
        "A/blurred.jpg": (scene(20).filter(ImageFilter.GaussianBlur(8)), "left"),
    }
    actions = {"actions": {"dark": "flag", "low_contrast": "off"}}
    kept, removed, metrics = run(named, settings=actions)
    assert set(removed.index) == {"A/blurred.jpg"}
    assert "A/dark.jpg" in set(kept.path)
    flagged = pixel_store.read_table(paths.CLEAN / "flagged.csv")
    assert list(flagged.path) == ["A/dark.jpg"]
    assert set(flagged.columns) == set(removed.reset_index().columns)
    assert metrics["flagged"]["dark"] == 1
    assert metrics["reasons"]["dark"] == 0


def test_a_small_photo_is_flagged_by_default(run) -> None:
    for settings in ({}, {"actions": {}}):
        named = good() | {"A/tiny.jpg": (scene(24).resize((56, 42)), "left")}
        kept, removed, metrics = run(named, settings=settings)
        assert removed.empty
        assert "A/tiny.jpg" in set(kept.path)
        assert metrics["flagged"]["too_small"] == 1


def test_a_warning_is_printed_and_is_in_the_metrics(run, capsys) -> None:
    named = good() | {"A/dark.jpg": (scene(21).point(lambda level: 0.15 * level), "left")}
    _, _, metrics = run(named)
    assert metrics["warnings"] == {"dark": "dark: 1 of 7 photos (14.3%)"}
    printed = capsys.readouterr().out
    assert "clean: warning: dark: 1 of 7 photos (14.3%)" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80


def test_a_collector_that_loses_all_its_photos_ends_the_stage(run) -> None:
    named = good() | {"B/dark.jpg": (scene(9).point(lambda level: 0.1 * level), "left")}
    with pytest.raises(ValueError, match=r"collector B lost its only photo \(1 dark\)"):
        run(named, settings={"allowed_losses": []})


def test_clean_does_not_import_torch() -> None:
    code = "import sys, stages.clean; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
