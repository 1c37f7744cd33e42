"""The audit detects changed copies of a picture in two splits, and no other pairs."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anklealign.config import paths
from anklealign.config.params import Split
from anklealign.io import decode
from anklealign.similarity import registration
from anklealign.similarity.registration import PhotoMatcher
from anklealign.splitting import leakage
from anklealign.splitting.leakage import LeakageAudit, Pair, same_picture
from benchmarks import cleaning

CORRELATION = 0.95  # as in params.yaml
SETTINGS = Split(
    val=0.15,
    test=0.15,
    group="subject",
    predefined="keep",
    folds=5,
    fold=None,
    leakage_residual=0.3,
    leakage_correlation=CORRELATION,
    allowed_leaks=(),
)


def same(pair: Pair) -> bool:
    return same_picture(pair, SETTINGS)


def nearest_pairs(photos, splits, held_out, **options) -> list[Pair]:
    return LeakageAudit(photos, **options).nearest_pairs(splits, held_out)


def picture(seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    """Blobs of several sizes: as much detail as a photo; (120, 160, 3)."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for cells in (5, 12, 30)
    ]
    return np.mean([np.asarray(layer, np.float64) for layer in layers], axis=0).astype(np.uint8)


def framed(p: np.ndarray, level: int = 20) -> np.ndarray:
    return np.pad(p, ((10, 10), (10, 10), (0, 0)), constant_values=level)


def squared(p: np.ndarray) -> np.ndarray:
    """A wide photo squared with bars."""
    bars = (p.shape[1] - p.shape[0]) // 2
    return np.pad(p, ((bars, bars), (0, 0), (0, 0)), constant_values=255)


def small(p: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(p).resize((p.shape[1] // 3, p.shape[0] // 3)))


CHANGES = {
    "the same": lambda p: p,
    "mirrored": lambda p: p[:, ::-1],
    "turned by 90": np.rot90,
    "turned by 180": lambda p: np.rot90(p, 2),
    "turned by 270": lambda p: np.rot90(p, 3),
    "turned and mirrored": lambda p: np.rot90(p)[:, ::-1],
    "brightened": lambda p: np.clip(p * 1.2, 0, 255).astype(np.uint8),
    "blurred a little": lambda p: np.asarray(
        Image.fromarray(p).filter(ImageFilter.GaussianBlur(1))
    ),
    "a third of the size": small,
    "framed": framed,
    "framed and mirrored": lambda p: framed(p[:, ::-1], 250),
    "squared with bars": squared,
    "cropped by 8% on the left": lambda p: p[:, 13:],
    "cropped by 8% on the right": lambda p: p[:, :-13],
    "cropped by 8% on the top": lambda p: p[10:],
    "cropped by 8% on the bottom": lambda p: p[:-10],
    "cropped by 4 % all round": lambda p: p[5:-5, 6:-6],
    "turned and cropped": lambda p: np.rot90(p)[:, 10:],
    "framed and cropped": lambda p: framed(p[:, 13:]),
    "a third and turned and framed": lambda p: framed(np.rot90(small(p))),
}


@pytest.mark.parametrize("copy_asks", [True, False], ids=["held out", "in train"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_in_another_split_is_detected(change, copy_asks):
    photos = [picture(seed) for seed in range(12)]
    copied = 3 if copy_asks else 11
    photos.append(np.ascontiguousarray(CHANGES[change](photos[copied])))
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2 + ["test" if copy_asks else "train"]
    pairs = nearest_pairs(photos, splits, ("test", "val"))
    assert [{p.a, p.b} for p in pairs if same(p)] == [{12, copied}]
    assert {pairs[0].a, pairs[0].b} == {12, copied}


WHOLE = [change for change in CHANGES if "cropped" not in change and "framed" not in change]


@pytest.mark.parametrize("change", WHOLE)
def test_an_uncropped_copy_is_detected_even_if_the_shared_comparison_fails(change, monkeypatch):
    monkeypatch.setattr(leakage.PhotoMatcher, "register", lambda *_: None)
    photos = [picture(seed) for seed in range(12)]
    photos.append(np.ascontiguousarray(CHANGES[change](photos[3])))
    pairs = nearest_pairs(photos, ["train"] * 10 + ["test"] * 3, ("test",))
    assert [(p.a, p.b) for p in pairs if same(p)] == [(12, 3)]


def test_a_copy_squared_with_bars_is_detected_among_center_crops():
    whole = [picture(seed, width=200) for seed in range(9)]
    photos = [np.ascontiguousarray(photo[:, 40:160]) for photo in whole]
    photos.append(np.pad(whole[3], ((40, 40), (0, 0), (0, 0)), constant_values=255))
    pairs = nearest_pairs(photos, ["train"] * 8 + ["test"] * 2, ("test",), squares=True)
    assert [(p.a, p.b) for p in pairs if same(p)] == [(9, 3)]
    assert pairs[0].correlation >= CORRELATION


def test_only_close_pairs_are_compared_in_detail(monkeypatch):
    compared = []
    compare = leakage.PhotoMatcher.compare

    def recording(matcher, a, b, transform):
        compared.append({a, b})
        return compare(matcher, a, b, transform)

    monkeypatch.setattr(leakage.PhotoMatcher, "compare", recording)
    photos = [picture(seed) for seed in range(6)] + [picture(0)]
    pairs = nearest_pairs(photos, ["train"] * 6 + ["test"], ["test"])
    assert len(pairs) > 1
    assert [{pair.a, pair.b} for pair in pairs if same(pair)] == compared == [{0, 6}]


def test_thumbnails_that_clean_has_computed_are_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    photos = [picture(seed) for seed in range(6)] + [framed(picture(2))]
    splits = ["train"] * 5 + ["test"] * 2
    plain = nearest_pairs(photos, splits, ("test",))
    with registration.cache_for() as cache:
        # Without entries of clean, none is added: they would lack the hashes.
        assert nearest_pairs(photos, splits, ("test",), cache=cache) == plain
        PhotoMatcher(photos, cache=cache)
        monkeypatch.setattr(registration, "_outlined", None)
        assert nearest_pairs(photos, splits, ("test",), cache=cache) == plain
    assert [(p.a, p.b) for p in plain if same(p)] == [(6, 2)]


def test_copies_within_one_split_are_no_leak():
    photos = [picture(seed) for seed in (1, 2, 3, 3, 4, 4)]
    pairs = nearest_pairs(photos, ["train", "train", "train", "train", "test", "test"], ("test",))
    assert pairs
    assert not any(map(same, pairs))


def test_plain_photos_are_not_reported():
    plain = [np.full((80, 80, 3), level, np.uint8) for level in (40, 41, 200, 200)]
    pairs = nearest_pairs(plain, ["train", "train", "test", "val"], ("test", "val"))
    assert not any(map(same, pairs))


def test_held_out_splits_are_compared_with_train_and_each_other_once():
    photos = [picture(seed) for seed in range(6)]
    splits = ["train", "train", "val", "val", "test", "test"]
    pairs = nearest_pairs(photos, splits, ("test", "val"))
    compared = {(splits[p.a], splits[p.b]) for p in pairs}
    assert compared <= {("test", "train"), ("test", "val"), ("val", "train")}
    assert len({(p.a, p.b) for p in pairs}) == len(pairs)


def test_memory_does_not_grow_with_the_number_of_photos_beyond_their_views(monkeypatch):
    rng = np.random.default_rng(0)

    def views(count: int) -> leakage._Views:
        detail = rng.standard_normal((count, leakage.COARSE**2), np.float32)
        whole = np.tile(leakage.FULL, (count, 1))
        return leakage._Views(np.arange(count), whole, np.zeros(count, bool), detail)

    monkeypatch.setattr(leakage, "CELLS", 1 << 20)
    queries, others = views(400), views(20_000)
    tracemalloc.start()
    proposed = sum(1 for _ in leakage._propose(queries, others))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert proposed == 400 * leakage.NEAREST
    assert peak < 4.5 * 4 * leakage.CELLS  # all correlations at once would take 32 MB, and twice


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_copies_of_each_kind_are_detected_among_drawn_and_real_photos(fit):
    rng = np.random.default_rng(5)
    drawn = [data for _, data in cleaning.drawn(seed=1, maximum=120)]
    real = [path.read_bytes() for path in sorted(cleaning.REAL.rglob("*.jpg"))[:120]]
    for files in filter(None, (drawn, real)):
        pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
        photos = [fitted(picture, fit) for picture in pictures]
        truth = []
        for kind, change in cleaning.COPIES.items():
            for source in rng.choice(len(files), 20, replace=False):
                photos.append(fitted(Image.open(io.BytesIO(change(pictures[source], rng))), fit))
                truth.append((kind, int(source)))
        # The photos themselves stand in both held-out splits and train: other shots of one person
        # are looked at too.
        splits = [("val", "train", "train")[n % 3] for n in range(len(files))]
        splits += ["test"] * len(truth)
        pairs = nearest_pairs(photos, splits, ("test", "val"), squares=fit == "crop")
        found = dict.fromkeys(cleaning.COPIES, 0)
        for pair in filter(same, pairs):
            kind, source = truth[pair.a - len(files)]
            assert pair.b == source
            found[kind] += 1
        assert min(found.values()) >= 19, found


def fitted(picture: Image.Image, fit: str) -> np.ndarray:
    """As prepare stores it, without its letterbox."""
    pixels, (left, top, right, bottom) = decode.fit(picture.convert("RGB"), 256, fit, 114)
    return pixels[top:bottom, left:right]


def test_views_are_cut_as_pillow_cuts_them():
    rng = np.random.default_rng(0)
    thumbs = np.stack([np.asarray(Image.fromarray(picture(n)).convert("L").resize((64, 64)))
                       for n in range(3)])  # fmt: skip
    places = rng.integers(0, 3, 40)
    rects = np.sort(rng.uniform(0, 1, (40, 2, 2)), axis=1).reshape(40, 4)
    rects = np.where(rects[:, [2, 3, 2, 3]] - rects[:, [0, 1, 0, 1]] < 0.2, leakage.FULL, rects)
    expected = [
        np.asarray(
            Image.fromarray(thumbs[place]).resize(
                (16, 16), Image.Resampling.LANCZOS, box=tuple(64 * rect)
            )
        )
        for place, rect in zip(places, rects, strict=True)
    ]
    views = leakage._cut_views(thumbs, places, rects)
    assert np.abs(views.astype(int) - expected).max() <= 1
