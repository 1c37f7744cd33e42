import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from anklealign.cleaning.duplicate_clusters import Cluster, find_clusters
from anklealign.similarity.registration import MIN_OVERLAP, PhotoMatcher

Turn = Image.Transpose
DISTANCE, RESIDUAL = 8, 0.3


def scene(seed: int, moved: float = 0.0) -> Image.Image:
    """Clouds, bars and discs; `moved` shifts one black disc to the right, in pixels of 640."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for n in range(8):
        x, y = rng.integers(40, 560), rng.integers(40, 400)
        color = tuple(int(c) for c in rng.integers(0, 240, 3))
        across, down = rng.integers(30, 130, 2)
        if n % 2:
            draw.ellipse((x, y, x + across, y + down), fill=color)
        else:
            draw.rectangle((x, y, x + across, y + down), fill=color)
    x, y = rng.integers(100, 400, 2)
    disc = (x + moved, y, x + moved + 80, y + 80)
    draw.ellipse(disc, fill="black", outline="white", width=6)
    return picture


def crop(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return picture.crop(tuple(round(edge) for edge in box))


COPIES = {
    "re-encoded": lambda picture: picture,
    "a third": lambda picture: picture.resize((213, 160)),
    "cut left": lambda picture: crop(picture, 0.08, 0, 0, 0),
    "cut top": lambda picture: crop(picture, 0, 0.08, 0, 0),
    "cut right": lambda picture: crop(picture, 0, 0, 0.08, 0),
    "cut bottom": lambda picture: crop(picture, 0, 0, 0, 0.08),
    "cut all round": lambda picture: crop(picture, 0.03, 0.06, 0.05, 0.02),
    "a quarter cut": lambda picture: crop(picture, 0.12, 0, 0.13, 0),
    "center square": lambda picture: ImageOps.fit(picture, (480, 480)),
    "mirrored": ImageOps.mirror,
    "turned left": lambda picture: picture.transpose(Turn.ROTATE_90),
    "turned over": lambda picture: picture.transpose(Turn.ROTATE_180),
    "turned right": lambda picture: picture.transpose(Turn.ROTATE_270),
    "framed": lambda picture: ImageOps.expand(picture, 40, "white"),
    "squared with bars": lambda picture: ImageOps.pad(picture, (640, 640), color="black"),
    "brightened": lambda picture: picture.point(lambda level: min(255, 1.2 * level)),
    "turned, cut and framed": lambda picture: ImageOps.expand(
        crop(picture.transpose(Turn.ROTATE_90), 0.05, 0, 0, 0), 30, "black"
    ),
}


def stored(picture: Image.Image, quality: int = 60) -> np.ndarray:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    small = Image.open(stream)
    small.thumbnail((256, 256), Image.Resampling.LANCZOS)
    return np.asarray(small)


def find(pictures: list[np.ndarray], rank=None) -> list[Cluster]:
    matcher = PhotoMatcher(pictures)
    return find_clusters(matcher, rank or range(len(pictures)), DISTANCE, RESIDUAL)[0]


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found(kind: str) -> None:
    pictures = [scene(seed) for seed in range(8)]
    everything = [stored(picture, 92) for picture in pictures]
    everything += [stored(COPIES[kind](picture)) for picture in pictures]
    clusters = {cluster.kept: list(cluster.duplicates) for cluster in find(everything)}
    assert clusters == {n: [n + 8] for n in range(8)}


def test_another_shot_of_a_scene_is_no_copy() -> None:
    # A thirtieth of the picture's width, in a picture that is otherwise the same to the pixel.
    pictures = [stored(scene(seed, moved), 92) for seed in range(12) for moved in (0, 20)]
    clusters, residuals = find_clusters(PhotoMatcher(pictures), range(24), DISTANCE, RESIDUAL)
    assert clusters == []
    assert residuals.pairs  # of those that were not hopeless from the start
    assert min(residuals.pairs.values()) > RESIDUAL


def test_plain_photos_are_no_copies_of_each_other() -> None:
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0:1:192j, 0:1:256j]
    walls = []
    for _ in range(12):
        slope = 120 + rng.normal(0, 20) + rng.normal(0, 30) * across + rng.normal(0, 30) * down
        wall = slope[..., None] + rng.normal(0, 3, (192, 256, 3))
        walls.append(stored(Image.fromarray(np.clip(wall, 0, 255).astype(np.uint8))))
    assert find(walls) == []


def test_equal_pixels_are_distinguished_from_similar_ones() -> None:
    original = stored(scene(1), 92)
    (cluster,) = find([original, stored(scene(1)), original.copy(), original.copy()])
    assert cluster.kept == 0
    assert set(cluster.duplicates) == {1, 2, 3}
    assert cluster.identical == {2, 3}
    assert cluster.duplicates[2] == 0 < cluster.duplicates[1] < RESIDUAL


def test_the_lowest_rank_is_kept() -> None:
    pictures = [stored(COPIES[kind](scene(1))) for kind in ("a third", "re-encoded", "mirrored")]
    (cluster,) = find(pictures, rank=["c", "b", "a"])
    assert cluster.kept == 2
    assert set(cluster.duplicates) == {0, 1}


def test_both_ends_of_a_chain_of_crops_are_one_cluster_if_they_match() -> None:
    left, right = crop(scene(3), 0.09, 0, 0, 0), crop(scene(3), 0, 0, 0.09, 0)
    (cluster,) = find([stored(left), stored(right), stored(scene(3))])
    assert (cluster.kept, set(cluster.duplicates)) == (0, {1, 2})


def shrinking(steps: int) -> list[np.ndarray]:
    """Return a picture and what is left of it when 8 percent of the left are cut off repeatedly."""
    pictures = [scene(5)]
    for _ in range(steps):
        pictures.append(crop(pictures[-1], 0.08, 0, 0, 0))
    return [stored(picture, 92) for picture in pictures]


def test_a_chain_that_ends_at_an_unlike_photo_is_broken_up() -> None:
    # After twelve steps a third of the picture is left.
    clusters = find(shrinking(12))
    assert len(clusters) >= 2
    for cluster in clusters:
        # Eight steps leave 0.51 of the width, nine leave 0.47; what is kept is the largest.
        assert max(cluster.duplicates, default=cluster.kept) - cluster.kept <= 8
    assert sorted(n for c in clusters for n in (c.kept, *c.duplicates)) == list(range(13))


def test_a_photo_that_matches_a_copy_but_not_the_kept_photo_is_another_cluster() -> None:
    # Halfway between two shots lies a photo that matches both.
    pictures = []
    for seed in (0, 4, 5):  # leaves 0.21 to 0.28 of either, which leave 0.36 and more
        first, last = scene(seed), scene(seed, 4)
        pictures += [stored(p, 92) for p in (first, Image.blend(first, last, 0.5), last)]
    clusters, residuals = find_clusters(PhotoMatcher(pictures), range(9), DISTANCE, RESIDUAL)
    matcher = PhotoMatcher(pictures)
    between = [matcher.register(n, n + 2, np.eye(3)) for n in range(0, 9, 3)]
    assert all(match is None or match.residual > RESIDUAL for match in between)
    assert {c.kept: list(c.duplicates) for c in clusters if c.duplicates} == {
        n: [n + 1] for n in range(0, 9, 3)
    }
    for cluster in clusters:
        for copy, shown in cluster.duplicates.items():
            match = matcher.register(cluster.kept, copy, np.eye(3))
            assert shown == pytest.approx(match.residual, abs=0.02)
            assert shown == pytest.approx(residuals.between(copy, cluster.kept), abs=0.02)
        if not cluster.duplicates:  # the last, by itself, is known to resemble the one between
            assert cluster.adjacent == {cluster.kept - 2}


def test_clusters_of_one_chain_are_adjacent() -> None:
    clusters = {cluster.kept: cluster for cluster in find(shrinking(12))}
    home = {
        n: cluster.kept
        for cluster in clusters.values()
        for n in (cluster.kept, *cluster.duplicates)
    }
    for n in range(12):  # each matches the next
        if home[n] != home[n + 1]:
            assert home[n + 1] in clusters[home[n]].adjacent
            assert home[n] in clusters[home[n + 1]].adjacent
    assert {cluster.chain for cluster in clusters.values()} == {0}


@pytest.mark.parametrize("seed", range(3))
def test_a_second_search_among_the_kept_photos_finds_no_copy(seed: int) -> None:
    # Chains of cuts in any rank, so that which one is kept does not fall in with the chain. Eight
    # steps to either side leave half of the width: no cluster holds all 19.
    rng = np.random.default_rng(seed)
    pictures = [*shrinking(18), *(stored(COPIES[kind](scene(7))) for kind in COPIES)]
    rank = [int(n) for n in rng.permutation(len(pictures))]
    gone = {n for cluster in find(pictures, rank) for n in cluster.duplicates}
    kept = [n for n in range(len(pictures)) if n not in gone]
    again = find([pictures[n] for n in kept], [rank[n] for n in kept])
    # Nor does one of them match another where it is laid on it by way of the chain's cuts.
    matcher = PhotoMatcher([pictures[n] for n in kept])
    cuts = [n for n in range(len(kept)) if kept[n] < 19]
    for a in cuts:
        for b in cuts:
            width = 0.92 ** (kept[b] - kept[a])
            transform = np.array([[width, 0, 1 - width], [0, 1, 0], [0, 0, 1]])
            match = matcher.register(a, b, transform) if kept[a] < kept[b] else None
            assert match is None or match.residual > RESIDUAL
    assert len(kept) >= 3
    assert [cluster for cluster in again if cluster.duplicates] == []


def test_many_copies_are_one_cluster() -> None:
    # More than are proposed for one photo, so that most pairs are never compared.
    pictures = [stored(scene(3), quality) for quality in range(60, 93)]
    (cluster,) = find(pictures)
    assert (cluster.kept, len(cluster.duplicates)) == (0, 32)


def test_a_pair_that_does_not_match_is_registered_once_from_one_start(monkeypatch) -> None:
    pictures = shrinking(18)  # the first and the last do not match
    failed, searches = Counter(), []
    register, propose = PhotoMatcher.register, PhotoMatcher.propose

    def counting(matcher, a, b, transform, min_overlap=MIN_OVERLAP):
        match = register(matcher, a, b, transform, min_overlap)
        failed[a, b, transform.tobytes(), min_overlap] += match is None
        return match

    def recording(*arguments):
        searches.append(arguments)
        return propose(*arguments)

    monkeypatch.setattr(PhotoMatcher, "register", counting)
    monkeypatch.setattr(PhotoMatcher, "propose", recording)
    find(pictures)
    assert len(searches) > 2
    assert max(failed.values()) == 1


def test_only_photos_with_more_candidates_are_looked_up_again(monkeypatch) -> None:
    copies = [stored(scene(3), quality) for quality in range(60, 93)]
    others = [stored(scene(seed)) for seed in range(4, 10)]
    asked = []
    propose = PhotoMatcher.propose

    def recording(matcher, distance, among=None, of=None):
        asked.append((among, of))
        return propose(matcher, distance, among, of)

    monkeypatch.setattr(PhotoMatcher, "propose", recording)
    find([*copies, *others])
    assert asked[0] == (None, None)
    assert asked[-1] == ([0, *range(33, 39)], [0])


def test_mirror_images_are_two_clusters_if_mirroring_changes_the_label() -> None:
    plain, mirrored = stored(scene(1)), stored(ImageOps.mirror(scene(1)))
    pictures = [plain, mirrored, stored(scene(1), 80), stored(ImageOps.mirror(scene(1)), 80)]
    turned = stored(scene(1).transpose(Turn.ROTATE_90))
    matcher = PhotoMatcher([*pictures, turned, mirrored.copy()])
    clusters, _ = find_clusters(matcher, range(6), DISTANCE, RESIDUAL, mirror_safe=False)
    assert {c.kept: set(c.duplicates) for c in clusters} == {0: {2, 4}, 1: {3, 5}}
    assert [c.identical for c in clusters] == [frozenset(), frozenset({5})]
    assert {c.chain for c in clusters} == {0}
    assert all(c.adjacent == frozenset() for c in clusters)


def test_a_copy_squared_with_bars_is_detected_among_center_crops() -> None:
    def square(picture: Image.Image) -> np.ndarray:
        return stored(ImageOps.fit(picture, (min(picture.size),) * 2), 92)

    pictures = [square(scene(seed)) for seed in range(8)]
    barred = [square(ImageOps.pad(scene(seed), (640, 640), color="black")) for seed in range(8)]
    matcher = PhotoMatcher([*pictures, *barred], squares=True)
    clusters, _ = find_clusters(matcher, range(16), DISTANCE, RESIDUAL)
    assert {c.kept: list(c.duplicates) for c in clusters} == {n: [n + 8] for n in range(8)}


def test_a_small_copy_is_compared_at_its_own_resolution() -> None:
    pictures = [stored(scene(seed), 92) for seed in range(8)]
    small = [
        np.asarray(scene(seed).resize((56, 42), Image.Resampling.LANCZOS)) for seed in range(8)
    ]
    clusters = {cluster.kept: list(cluster.duplicates) for cluster in find([*pictures, *small])}
    assert clusters == {n: [n + 8] for n in range(8)}


def test_the_lowest_rank_is_kept_even_where_it_does_not_match_every_copy() -> None:
    # The first and the last share 0.68 of their width only; all match the whole between them.
    shares = ((0, 0.16), (0, 0.08), (0, 0), (0.08, 0), (0.16, 0))
    pictures = [stored(crop(scene(3), left, 0, right, 0), 92) for left, right in shares]
    (cluster,) = find(pictures)
    assert (cluster.kept, set(cluster.duplicates)) == (0, {1, 2, 3, 4})
    assert max(cluster.duplicates.values()) <= RESIDUAL


def test_two_crops_are_compared_in_their_overlap() -> None:
    # The first and the last share two thirds of their width, which no hash proposes as a copy.
    shares = ((0.25, 0), (0.16, 0), (0.08, 0), (0, 0), (0, 0.08), (0, 0.16), (0, 0.25))
    pictures = [stored(crop(scene(3), left, 0, right, 0), 92) for left, right in shares]
    (cluster,) = find(pictures)
    assert (cluster.kept, set(cluster.duplicates)) == (0, {1, 2, 3, 4, 5, 6})
    matcher = PhotoMatcher(pictures)
    transform = np.array([[1, 0, -1 / 3], [0, 1, 0], [0, 0, 1]])
    assert matcher.register(0, 6, transform, 0.7) is None
    match = matcher.register(0, 6, transform, 0.49)
    assert match is not None
    assert cluster.duplicates[6] == pytest.approx(match.residual, abs=0.01)


def test_clusters_do_not_depend_on_the_order_of_the_photos() -> None:
    kinds = list(COPIES)
    pictures = [stored(COPIES[kinds[n % 5]](scene(n // 5))) for n in range(20)]
    names = [f"{n:02}" for n in range(20)]
    order = np.random.default_rng(0).permutation(20)
    plain = {
        names[cluster.kept]: {names[n]: r for n, r in cluster.duplicates.items()}
        for cluster in find(pictures, names)
    }
    mixed = {
        names[order[cluster.kept]]: {names[order[n]]: r for n, r in cluster.duplicates.items()}
        for cluster in find([pictures[n] for n in order], [names[n] for n in order])
    }
    assert plain == mixed


def test_empty_and_single_inputs_have_no_copies() -> None:
    assert find([]) == []
    assert find([stored(scene(0))]) == []


def test_a_photo_of_a_few_pixels_is_accepted() -> None:
    pictures = [np.full((1, 1, 3), 9, np.uint8), np.zeros((2, 1, 3), np.uint8), stored(scene(0))]
    assert find(pictures) == []


def test_a_sky_that_is_detected_as_a_border_does_not_hide_a_copy() -> None:
    pictures = []
    for seed in range(6):
        picture = scene(seed)
        picture.paste((200, 210, 220), (0, 0, 640, 187))  # 39 percent of the height
        # Less 8 percent at the bottom, the sky is 42 percent, which is too much for a border.
        pictures += [stored(picture, 92), stored(crop(picture, 0, 0, 0, 0.08))]
    clusters = {cluster.kept: list(cluster.duplicates) for cluster in find(pictures)}
    assert clusters == {n: [n + 1] for n in range(0, 12, 2)}


@pytest.mark.parametrize("color", ["black", "white"])
def test_different_pictures_in_one_frame_are_no_copies(color: str) -> None:
    framed = [stored(ImageOps.expand(scene(seed), 90, color), 92) for seed in range(12)]
    barred = [
        stored(ImageOps.pad(scene(seed).crop((0, 120, 640, 360)), (640, 640), color=color), 92)
        for seed in range(12, 24)
    ]
    assert find([*framed, *barred]) == []


def test_a_center_square_thumbnail_of_a_wide_photo_is_found() -> None:
    wide = [scene(seed).crop((0, 60, 640, 420)) for seed in range(8)]
    thumbnails = [ImageOps.fit(picture, (100, 100)) for picture in wide]
    pictures = [stored(picture, 92) for picture in wide] + [stored(p, 85) for p in thumbnails]
    clusters = {cluster.kept: list(cluster.duplicates) for cluster in find(pictures)}
    assert clusters == {n: [n + 8] for n in range(8)}


def shots(count: int, noise: float = 5.0) -> list[np.ndarray]:
    """Return shots of one scene by a fixed camera, each with noise of its own."""
    rng = np.random.default_rng(3)
    levels = np.asarray(scene(2).resize((256, 192), Image.Resampling.LANCZOS), np.float64)
    return [
        np.clip(levels + rng.normal(0, noise, levels.shape), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def test_shots_of_a_fixed_camera_stay_in_one_cluster_and_a_copy_of_one_goes() -> None:
    pictures = shots(6)
    pictures.append(stored(Image.fromarray(pictures[3]), 90))
    clusters = {cluster.kept: cluster for cluster in find(pictures)}
    assert {kept: list(c.duplicates) for kept, c in clusters.items()} == {
        n: [6] if n == 3 else [] for n in range(6)
    }
    assert {cluster.chain for cluster in clusters.values()} == {0}


def test_a_scene_of_most_photos_is_no_group() -> None:
    pictures = [*shots(14), stored(scene(5), 92)]
    clusters, residuals = find_clusters(PhotoMatcher(pictures), range(15), DISTANCE, RESIDUAL)
    assert clusters == []
    assert residuals.large_scenes == (14,)


def test_a_scratch_is_no_copy_but_of_the_same_scene() -> None:
    pictures = []
    for seed in range(6):
        scratched = scene(seed)
        ImageDraw.Draw(scratched).line((300, 200, 330, 211), fill=(15, 15, 15), width=4)
        pictures += [stored(scene(seed), 92), stored(scratched, 92)]
    clusters = find(pictures)
    assert all(not cluster.duplicates for cluster in clusters)
    assert clusters  # of those whose residual is below the limit
    assert all(cluster.chain == cluster.kept // 2 * 2 for cluster in clusters)
