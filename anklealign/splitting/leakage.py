"""Find photos of different splits that show the same picture, to audit a finished split.

The audit selects candidate pairs and correlates them independently: no hash, cluster, or group is
used. Small gray views of each photo, whole and without borders, uncropped and cropped on one side,
are high-pass filtered and correlated with those of the photos of the other splits in all eight
orientations; the nearest few photos are then correlated at a higher resolution. Up to EXHAUSTIVE
photos, all views are compared, and the nearest few of each held-out photo are verified, similar or
not. Of more photos, an index (view_index.py) proposes similar views only.

Two steps are shared with clean: the box without borders (borders.py) and the residual after
registration of the nearest few (PhotoMatcher.register), which also finds duplicates with other
crops than those used here. An error in hashes or clusters therefore shows in the audit. An error in
the residual shows only if the duplicate's correlation is high, as it is for duplicates that are
neither framed nor cropped.

`python -m benchmarks.leakage_audit` measures the time, how it grows, and what the index misses.

Shapes: N photos, E views, S the side of a view in pixels. A rectangle is left, top, right, bottom
in shares of the photo's sides.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from anklealign.config.params import Split
from anklealign.io.pixel_store import Pixels
from anklealign.io.result_cache import ResultCache
from anklealign.similarity.local_differences import Comparison
from anklealign.similarity.perceptual_hash import ORIENTATIONS
from anklealign.similarity.registration import PhotoMatcher, transform_between
from anklealign.splitting.view_index import ViewIndex, describe

Floats = npt.NDArray[np.float32]
Rects = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FULL = (0.0, 0.0, 1.0, 1.0)
# Shares cropped off left, top, right, and bottom. A crop of 8% moves the opposite side by as much:
# with uncropped views of 323 drawn legs, 9 of 160 such duplicates were not among the nearest 3.
CROPS = np.vstack([np.zeros(4), np.full(4, 0.04), 0.08 * np.eye(4)])
# Sides, in pixels, of the views that propose and of the views that verify, and the sigma, in
# pixels, of the high-pass filter. It removes light and walls, which make different photos alike.
COARSE, COARSE_SIGMA = 16, 2.0
FINE, FINE_SIGMA = 64, 4.0
# Limits for a pair that only the correlation proposes, as its registration left more or failed.
CLOSE_AGREEMENT, CLOSE_COLOR = 0.93, 12.0
NEAREST = 3  # photos verified for each held-out photo
CELLS = 1 << 23  # correlations at once, 32 MiB, of which there are three copies at most
EXHAUSTIVE = 1000  # photos, up to which all views are compared and all nearest pairs verified
BATCH = 256  # photos whose views are extracted at once, some 100 MiB
# The filters of a view are whole numbers of this unit, so that their products with gray levels are
# exact in single precision and depend on neither the processor nor the number of threads.
FILTER_UNIT = 1 << 14


@dataclass(frozen=True)
class Pair:
    """Two photos of different splits and their similarity."""

    a: int
    b: int
    correlation: float  # of their detail at 64 pixels, as proposed; -1 to 1
    residual: float  # over the contrast, in the worst cell; infinite if registration failed
    compare: Callable[[], Comparison] = field(compare=False, repr=False)

    @cached_property
    def comparison(self) -> Comparison:
        """Of their details, colors, and noise; few pairs are so close that it matters."""
        return self.compare()


@dataclass(frozen=True)
class _Views:
    """E views, photo by photo: photo, rectangle, whether cropped, (E, S * S) detail."""

    photo: Indices
    rect: Rects
    cropped: npt.NDArray[np.bool_]
    detail: npt.NDArray[Any]  # (E, S * S), or of many photos (E, 64) descriptors

    def select(self, mask: npt.NDArray[np.bool_]) -> "_Views":
        return _Views(self.photo[mask], self.rect[mask], self.cropped[mask], self.detail[mask])


@dataclass(frozen=True)
class _Proposal:
    """Two similar views; the orientation applies to the first."""

    correlation: float
    orientation: int  # of perceptual_hash.ORIENTATIONS
    rect_a: tuple[float, ...]
    rect_b: tuple[float, ...]


def same_picture(pair: Pair, settings: Split) -> bool:
    """Return whether the photos of a pair show the same picture.

    Neither residual nor correlation proves it: pictures of one template are close in both. Their
    details, colors, and noise must agree as well, and closely where only the correlation is high.
    """
    if pair.residual <= settings.leakage_residual:
        return pair.comparison.same_picture
    return (
        pair.correlation >= settings.leakage_correlation
        and pair.comparison.same_picture
        and pair.comparison.agreement >= CLOSE_AGREEMENT
        and pair.comparison.color <= CLOSE_COLOR
    )


class LeakageAudit:
    """The audit of N photos of (H, W, 3), whose views are extracted once for any number of splits.

    Verified pairs are remembered, so that an audit after a change of the splits verifies only new
    pairs.
    """

    def __init__(
        self,
        photos: Sequence[Pixels],
        *,
        squares: bool = False,
        cache: ResultCache | None = None,
    ) -> None:
        """Extract the views.

        Args:
            photos: N of (H, W, 3).
            squares: Whether they were cropped to their center square.
            cache: Of `registration.cache_for`, with the thumbnails that clean has computed.
        """
        self._matcher = PhotoMatcher(photos, squares=squares, hashes=False, cache=cache)
        self._views = _extract_views(self._matcher, squares=squares)
        self._verified: dict[tuple[int, int, _Proposal], Pair] = {}

    def nearest_pairs(self, splits: Sequence[str], held_out: Sequence[str]) -> list[Pair]:
        """Return the nearest pairs across splits, verified, in order of residual.

        Args:
            splits: N names; '' for a photo that is in no split.
            held_out: Splits to query, in order; each is compared with all splits not queried
                before.
        """
        names = np.asarray(splits)
        pairs: list[Pair] = []
        queried: list[str] = []
        for split in held_out:
            queried.append(split)
            queries = self._views.select((names == split)[self._views.photo])
            others = self._views.select(~np.isin(names, ["", *queried])[self._views.photo])
            proposals = _best_proposals(queries, others)
            for a, of_a in tqdm(
                sorted(proposals.items()), desc=f"audit {split}", disable=None, leave=False
            ):
                nearest = sorted(of_a.items(), key=lambda item: (-item[1].correlation, item[0]))
                pairs += [self._verify(a, b, proposal) for b, proposal in nearest[:NEAREST]]
        return sorted(pairs, key=lambda pair: (pair.residual, -pair.correlation, pair.a, pair.b))

    def _verify(self, a: int, b: int, proposal: "_Proposal") -> Pair:
        """Return the pair with its correlation at 64 pixels, its residual, and its agreement."""
        known = self._verified.get((a, b, proposal))
        if known is not None:
            return known
        rect_a, rect_b = np.array(proposal.rect_a), np.array(proposal.rect_b)
        transform = transform_between(proposal.orientation, rect_a, rect_b)
        registration = self._matcher.register(a, b, transform)
        views = ((a, rect_a), (b, rect_b))
        grays = np.stack([self._fine_view(*view) for view in views])
        fine = _detail(grays, FINE_SIGMA)
        correlation = float((_oriented(fine[0], proposal.orientation) * fine[1]).sum())
        pair = Pair(
            a,
            b,
            correlation,
            registration.residual if registration else np.inf,
            partial(
                self._matcher.compare, a, b, registration.transform if registration else transform
            ),
        )
        self._verified[a, b, proposal] = pair
        return pair

    def _fine_view(self, photo: int, rect: Rects) -> Pixels:
        """Return a view as (64, 64) gray levels, which the whole photo's thumbnail has."""
        if tuple(rect) == FULL:
            return self._matcher.thumb(photo)
        gray = self._matcher.gray(photo)
        left, top, right, bottom = (rect * (gray.size * 2)).tolist()
        box = (left, top, right, bottom)
        return np.asarray(gray.resize((FINE, FINE), Image.Resampling.LANCZOS, box=box))


def _best_proposals(queries: _Views, others: _Views) -> dict[int, dict[int, _Proposal]]:
    """Return each queried photo's proposals, the best one for each other photo."""
    proposals: dict[int, dict[int, _Proposal]] = {}
    # A cropped duplicate resembles the cropped view of its original, in either direction.
    for left, right in (
        (queries, others.select(~others.cropped)),
        (queries.select(~queries.cropped), others.select(others.cropped)),
    ):
        propose = _propose_similar if left.detail.dtype == np.int8 else _propose
        for a, b, proposal in propose(left, right):
            known = proposals.setdefault(a, {}).get(b)
            if known is None or proposal.correlation > known.correlation:
                proposals[a][b] = proposal
    return proposals


def _extract_views(matcher: PhotoMatcher, *, squares: bool) -> _Views:
    """Return the views of the photos: whole and, if different, their content."""
    owners, rects, cropped = [], [], []
    details: list[npt.NDArray[Any]] = []
    many = len(matcher) > EXHAUSTIVE
    for start in tqdm(range(0, len(matcher), BATCH), "views", delay=1, leave=False, disable=None):
        batch = range(start, min(start + BATCH, len(matcher)))
        of_photos = [
            _view_rects(matcher.contents[n], matcher.sizes[n], squares=squares) for n in batch
        ]
        own_rects = np.concatenate([views for views, _ in of_photos])
        places = np.repeat(np.arange(len(batch)), [len(views) for views, _ in of_photos])
        # Crops of a picture of 64 pixels are as good at 16, and ten times as fast.
        grays = _cut_views(np.stack([matcher.thumb(n) for n in batch]), places, own_rects)
        detail = _detail(grays, COARSE_SIGMA)
        details.append(describe(detail) if many else detail.reshape(len(grays), -1))
        owners.append(start + places)
        rects.append(own_rects)
        cropped += [is_cropped for _, is_cropped in of_photos]
    return _Views(
        np.concatenate([np.zeros(0, np.int64), *owners]),
        np.concatenate([np.zeros((0, 4)), *rects]),
        np.concatenate([np.zeros(0, np.bool_), *cropped]),
        np.concatenate(details or [np.zeros((0, COARSE * COARSE), np.float32)]),
    )


def _cut_views(thumbs: Pixels, places: Indices, rects: Rects) -> Pixels:
    """Return (E, 16, 16) rectangles of (N, 64, 64) thumbnails; `places` are their N.

    The filters of Pillow are applied as matrices, which takes a tenth of its time.
    """
    levels = thumbs[places].astype(np.float32)
    levels = _whole(levels @ _filters(rects[:, [0, 2]]).transpose(0, 2, 1))
    return _whole(_filters(rects[:, [1, 3]]) @ levels).astype(np.uint8)


def _whole(products: Floats) -> Floats:
    """Return products with filters as whole gray levels."""
    levels: Floats = np.clip(np.rint(products / FILTER_UNIT), 0, 255)
    return levels


def _filters(ends: Rects) -> Floats:
    """Return the filters (E, 16, 64) that resize a line of 64 pixels from start to end to 16."""
    # Most views are of the whole photo or of its center square, so few filters are different.
    different, number = np.unique(ends * FINE, axis=0, return_inverse=True)
    identity = Image.fromarray(np.eye(FINE, dtype=np.float32))
    filters = [
        identity.resize((COARSE, FINE), Image.Resampling.LANCZOS, box=(left, 0, right, FINE))
        for left, right in different.tolist()
    ]
    whole: Floats = np.rint(FILTER_UNIT * np.stack([np.asarray(one).T for one in filters]))
    return whole[number.ravel()]


def _view_rects(
    content: Rects, size: npt.NDArray[np.float64], *, squares: bool
) -> tuple[Rects, npt.NDArray[np.bool_]]:
    """Return the (E, 4) views of a photo of (2,) size, and whether each is cropped.

    The content's center square is a view, too; of photos that were cropped to their center square,
    it is also cropped: a picture squared with bars is whole, while its original lacks its ends.
    """
    square = _center_square(content, size)
    bases = {FULL, tuple(content.tolist())}
    thumbnails = np.zeros((0, 4))
    if squares:
        bases.add(tuple(square.tolist()))
    elif (square != content).any():
        # Websites make thumbnails of the center square.
        thumbnails = square[None]
    whole = np.array(sorted(bases))[:, None]
    sizes = np.tile(whole[..., 2:] - whole[..., :2], 2)
    rects = (whole + CROPS * sizes * (1, 1, -1, -1)).reshape(-1, 4)
    cropped = np.tile(CROPS.any(axis=1), len(whole))
    return np.vstack([thumbnails, rects]), np.r_[np.zeros(len(thumbnails), np.bool_), cropped]


def _center_square(content: Rects, size: npt.NDArray[np.float64]) -> Rects:
    """Return the center square of the (4,) content of a photo of (2,) size, in pixels."""
    sides = (content[2:] - content[:2]) * size
    ends = (sides - sides.min()) / 2 / size
    return np.array([*(content[:2] + ends), *(content[2:] - ends)])


def _propose(queries: _Views, others: _Views) -> Iterator[tuple[int, int, _Proposal]]:
    """Yield (photo, other photo, proposal): for each query, the best view of the nearest photos."""
    if not len(others.photo):
        return
    starts = np.flatnonzero(np.diff(others.photo, prepend=-1))
    ends = np.append(starts[1:], len(others.photo))
    rows = max(1, CELLS // len(others.photo))
    firsts = range(0, len(queries.photo), rows)
    for first in tqdm(firsts, "propose", delay=1, leave=False, disable=None):
        small = queries.detail[first : first + rows].reshape(-1, COARSE, COARSE)
        best = np.full((len(small), len(others.photo)), -1, np.float32)
        for orientation in range(len(ORIENTATIONS)):
            view = _oriented(small, orientation).reshape(len(small), -1)
            np.maximum(best, view @ others.detail.T, out=best)
        # The last digits depend on the number of threads; rounded ties are broken by position.
        np.round(best, 4, out=best)
        by_photo = np.maximum.reduceat(best, starts, axis=1)
        for _ in range(min(NEAREST, len(starts))):
            nearest = by_photo.argmax(axis=1)
            for row, column in enumerate(nearest.tolist()):
                by_photo[row, column] = -2
                begin, end = starts[column], ends[column]
                a, b = first + row, int(begin + best[row, begin:end].argmax())
                correlation = float(best[row, b])
                views = np.stack(
                    [_oriented(small[row], n).ravel() for n in range(len(ORIENTATIONS))]
                )
                orientation = int((views @ others.detail[b]).round(4).argmax())
                yield (
                    int(queries.photo[a]),
                    int(others.photo[b]),
                    _Proposal(
                        correlation,
                        orientation,
                        tuple(queries.rect[a].tolist()),
                        tuple(others.rect[b].tolist()),
                    ),
                )


def _propose_similar(queries: _Views, others: _Views) -> Iterator[tuple[int, int, _Proposal]]:
    """Yield what `_propose` yields of similar views, found by an index."""
    index = ViewIndex(others.detail, others.photo, NEAREST)
    for query, view, orientation, correlation in index.search(queries.detail):
        a, b = queries.photo[query], others.photo[view]
        # The best of each pair of photos, then the nearest photos.
        order = np.lexsort((orientation, view, query, -correlation, b, a))
        pairs = np.stack([a, b], axis=1)[order]
        order = order[(np.diff(pairs, axis=0, prepend=-1) != 0).any(axis=1)]
        order = order[np.lexsort((b[order], -correlation[order], a[order]))]
        starts = np.flatnonzero(np.diff(a[order], prepend=-1))
        nth = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        for n in order[nth < NEAREST].tolist():
            yield (
                int(a[n]),
                int(b[n]),
                _Proposal(
                    float(correlation[n]),
                    int(orientation[n]),
                    tuple(queries.rect[query[n]].tolist()),
                    tuple(others.rect[view[n]].tolist()),
                ),
            )


def _detail(grays: Pixels, sigma: float) -> Floats:
    """Return the detail of (E, S, S) gray levels, normalized to length 1, or zeros if plain."""
    levels = grays.astype(np.float32)
    detail = levels - gaussian_filter(levels, (0, sigma, sigma), mode="nearest")
    lengths = np.sqrt((detail**2).sum((1, 2), keepdims=True))
    # A length equal to the side is a root mean square of one gray level.
    has_detail = lengths > grays.shape[1]
    return np.asarray(np.where(has_detail, detail / np.maximum(lengths, 1), 0), np.float32)


def _oriented(small: Floats, orientation: int) -> Floats:
    """Return (..., S, S) pictures in one of perceptual_hash.ORIENTATIONS."""
    transposed, flip_x, flip_y = ORIENTATIONS[orientation]
    oriented = small.swapaxes(-1, -2) if transposed else small
    return oriented[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1]
