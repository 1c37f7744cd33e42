"""The index finds the similar views that a comparison of all views finds, and not too many."""

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from anklealign.similarity.perceptual_hash import ORIENTATIONS
from anklealign.splitting import leakage, view_index
from anklealign.splitting.leakage import LeakageAudit
from anklealign.splitting.view_index import ViewIndex, describe, oriented
from tests.splitting.test_leakage import CHANGES, picture, same


def details(count: int, seed: int = 0) -> np.ndarray:
    """Views of as much detail at each frequency as photos; (E, 16, 16), length 1."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    spectra = np.fft.fft2(rng.standard_normal((count, 16, 16))) / (frequency + 0.05)
    views = np.fft.ifft2(spectra).real
    return leakage._detail(views * 40 / views.std(), leakage.COARSE_SIGMA)


def noisy(views: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    changed = views + share * details(len(views), seed)
    return changed / np.sqrt((changed**2).sum((1, 2), keepdims=True))


def hits(index: ViewIndex, queries: np.ndarray) -> set[tuple[int, int, int, float]]:
    return {
        (int(q), int(v), int(o), round(float(c), 4))
        for batch in index.search(queries)
        for q, v, o, c in zip(*batch, strict=True)
    }


def test_descriptors_turn_with_the_views():
    views = details(50)
    turned = oriented(describe(views))
    for orientation in range(len(ORIENTATIONS)):
        expected = describe(leakage._oriented(views, orientation))
        assert np.abs(turned[orientation] - expected).max() <= 1


def test_the_index_finds_similar_views_in_any_orientation_among_many(monkeypatch):
    monkeypatch.setattr(view_index, "LIST", 32)  # 250 lists, of which 16 are looked into
    views = details(8000)
    copied = np.arange(0, 8000, 20)
    turned = np.stack([leakage._oriented(views[n], place % 8) for place, n in enumerate(copied)])
    queries = describe(noisy(turned, 0.4))
    index = describe(views)
    products = np.einsum("oqd,md->oqm", oriented(queries), index.astype(np.float32), optimize=True)
    orientation, query, view = np.nonzero(
        products >= view_index.MIN_CORRELATION * view_index.LENGTH**2
    )
    expected = set(zip(query.tolist(), view.tolist(), orientation.tolist(), strict=True))
    found = {hit[:3] for hit in hits(ViewIndex(index, np.arange(8000), 3), queries)}
    assert len(expected) > 200  # the noise makes some too different
    assert found <= expected
    assert len(found) >= 0.97 * len(expected)  # of single views; a photo has eight


def test_the_hits_depend_on_neither_the_order_of_photos_nor_the_threads(monkeypatch):
    monkeypatch.setattr(view_index, "LIST", 32)
    index = describe(details(4000))
    queries = describe(noisy(details(4000)[:500], 0.3))
    with threadpool_limits(1):
        expected = hits(ViewIndex(index, np.arange(4000), 3), queries)
    assert expected
    assert hits(ViewIndex(index, np.arange(4000), 3), queries) == expected
    order = np.random.default_rng(2).permutation(4000)
    shuffled = hits(ViewIndex(index[order], np.arange(4000), 3), queries)
    assert {(q, int(order[v]), o, c) for q, v, o, c in shuffled} == expected
    monkeypatch.setattr(view_index, "ROWS", 104)
    assert hits(ViewIndex(index, np.arange(4000), 3), queries) == expected


def test_plain_and_equal_views_are_indexed_for_a_few_photos_only():
    equal = np.repeat(describe(details(1)), 3000, axis=0)
    plain = np.zeros((3000, 64), np.int8)
    photos = np.arange(6000) // 2
    index = ViewIndex(np.concatenate([equal, plain]), photos, 3)
    found = hits(index, np.concatenate([equal[:2], plain[:2]]))
    assert {(query, view) for query, view, *_ in found} == {
        (q, v) for q in (0, 1) for v in (0, 2, 4)
    }


@pytest.mark.parametrize("spread", [0, 2, 12])
def test_product_photos_on_white_are_few_proposals(monkeypatch, spread):
    """One product photographed again and again, moved by a few pixels, on a white background."""
    monkeypatch.setattr(leakage, "EXHAUSTIVE", 0)
    rng = np.random.default_rng(0)
    product = picture(1)[:24, :24]
    photos = np.full((600, 64, 64, 3), 255, np.uint8)
    for photo in photos:
        x, y = 20 + rng.integers(0, spread + 1, 2)
        photo[y : y + 24, x : x + 24] = product
    audit = LeakageAudit(list(photos))
    held_out = np.arange(600) < 200
    queries, others = (
        audit._views.select(mask[audit._views.photo]) for mask in (held_out, ~held_out)
    )
    tracemalloc.start()
    proposals = [*leakage._propose_similar(queries, others)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {a for a, *_ in proposals} == set(range(200))
    rows = len(ORIENTATIONS) * len(queries.photo)
    assert peak < rows * view_index.PROBES * view_index.HITS * 40
    batches = -(-rows // view_index.ROWS)
    assert len(proposals) <= 200 * leakage.NEAREST + leakage.NEAREST * batches


def test_copies_of_every_kind_are_detected_by_index_as_by_comparing_all_views(monkeypatch):
    photos = [picture(seed) for seed in range(60)]
    photos += [np.ascontiguousarray(CHANGES[k](photos[n])) for n, k in enumerate(CHANGES)]
    splits = ["train"] * 60 + ["test"] * len(CHANGES)
    pairs = {}
    for bound in (10**6, 0):
        monkeypatch.setattr(leakage, "EXHAUSTIVE", bound)
        monkeypatch.setattr(view_index, "LIST", 8)
        nearest = LeakageAudit(photos).nearest_pairs(splits, ("test",))
        pairs[bound] = {(pair.a, pair.b) for pair in nearest if same(pair)}
    assert pairs[0] == pairs[10**6] == {(60 + n, n) for n in range(len(CHANGES))}


def test_few_photos_are_compared_with_all_others():
    photos = [picture(seed) for seed in range(6)]
    pairs = LeakageAudit(photos).nearest_pairs(["train"] * 4 + ["test"] * 2, ("test",))
    assert len(pairs) == 2 * leakage.NEAREST
