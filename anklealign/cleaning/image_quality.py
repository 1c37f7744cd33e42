"""Measure a photo's size, lighting, contrast, and sharpness, and judge it against its own set.

Lighting, contrast, and sharpness are measured inside plain borders: a frame darkens a good photo,
and its edge makes a blurred photo look sharp. Sharpness is the width of the sharpest edges as a
share of the photo, so it is comparable between small and large photos, and between a sharp subject
in front of a blurred background and a photo that is sharp everywhere.

A photo is unusable for a reason if its score is beyond the threshold of params.yaml and also
unusual among all photos, among those of its class, and among those of its collector. A threshold
alone would remove all fluorescence images as dark, and a class of plain surfaces as low in
contrast.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from anklealign.io import result_cache
from anklealign.io.pixel_store import Pixels
from anklealign.io.result_cache import ResultCache
from anklealign.similarity.borders import TOLERANCE, Box, PhotoPixels, frame_box
from anklealign.similarity.gaussian import blur
from anklealign.similarity.local_differences import percentile

BLURS = (1.0, 1.5)  # pixels, sigmas of the two blurs between which edges are measured
# The line this many pixels behind the end of a bar, where a resized bar has faded, differs from the
# bar in at least this share of its pixels.
BAR_END, BAR_SHARE = 2, 0.5
EDGES = 2.0  # percent of the pixels, those with the steepest slopes, that count as edges
SHARPEST = 75  # percentile of their sharpness: a photo may be blurred outside its subject
# Fine details, such as hairs on a soft lesion, are not steep edges. All slopes of at least this
# many gray levels per pixel count, which compression noise hardly reaches, and the sharpest 5
# percent of them decide.
FINE_SLOPE = 4.0
FINEST = 95
FEWEST = 50  # pixels of such slopes, at least
MARGIN = 4  # pixels along the boundary, where the filters extend beyond the photo
# Pixels. No edge is narrower than about half a pixel, so a photo with fewer pixels is measured
# against this side; otherwise it would count as blurred because it is small.
MIN_SIDE = 160
# Edges are measured at no more than this side: compression noise hides a blur many pixels wide.
MAX_SIDE = 256


@dataclass(frozen=True)
class ImageQuality:
    """The measures of one photo, named like the reasons for removal."""

    too_small: float  # pixels, the shorter side of the original, with any borders
    aspect: float  # longer side over shorter, of the photo or between its bars: the larger
    dark: float  # gray level, 0 to 255, below which 95 percent of the pixels are
    # Gray level that 99.9 percent of the pixels reach: a white shirt on white has a few darker
    # folds, an overexposed photo has none.
    bright: float
    # Gray levels from the 0.1th to the 99.9th percentile: one cell may be all that a field shows.
    low_contrast: float
    blurred: float  # percent of the longer side, sigma of the sharpest edges or details
    # Not reasons; used to choose which duplicate to keep:
    edge_width: float  # percent of the longer side, sigma of the steepest edges
    area: float  # pixels inside a frame or bars, at the original size
    framed: bool  # whether the photo has a frame or bars


def cache_for(*, square: bool) -> ResultCache:
    """Return the cache of measures."""
    libraries = ["numpy", "pillow", "scipy"]
    return ResultCache("quality", {"square": square}, [__name__], libraries)


def known_or_measured(
    photo: PhotoPixels, width: int, height: int, *, square: bool, cache: ResultCache | None
) -> tuple[ImageQuality, list[tuple[bytes, bytes]]]:
    """Return the measures of a photo, as `measure`, and the entry to add to the cache, if any."""
    if not cache:
        return measure(photo, width, height, square=square), []
    key = result_cache.key_of(np.frombuffer(photo.digest, np.uint8), width, height)
    if known := cache.get(key):
        return ImageQuality(*json.loads(known)), []
    quality = measure(photo, width, height, square=square)
    return quality, [(key, json.dumps(astuple(quality)).encode())]


def measure(photo: PhotoPixels, width: int, height: int, *, square: bool = False) -> ImageQuality:
    """Return the measures of the pixels of a photo of width x height pixels.

    Args:
        photo: At the photo's aspect ratio and not enlarged: enlarging adds pixels without
            information about sharpness (`pixel_store.Pictures`).
        width: Pixels of the original photo.
        height: Pixels of the original photo.
        square: Whether the pixels show only the photo's center square.
    """
    gray, box = photo.gray, photo.content
    content = gray.crop(box)
    shorter, longer = sorted((width, height))
    frame = frame_box(np.asarray(gray), box)
    unframed = (frame[2] - frame[0]) * (frame[3] - frame[1]) / (gray.width * gray.height)
    cumulative = np.cumsum(content.histogram()) / (content.width * content.height)
    darkest, p95, lightest = (
        float(np.searchsorted(cumulative, share)) for share in (0.001, 0.95, 0.999)
    )
    # The ends that the square lacks belong to the photo, unless a bar hides where they begin.
    uncut = content.width == gray.width if width > height else content.height == gray.height
    side = gray.width * longer / shorter if square and uncut else max(content.size)
    zoom = min(1.0, MAX_SIDE / side)
    pixels = (max(1, round(content.width * zoom)), max(1, round(content.height * zoom)))
    levels = np.asarray(content.resize(pixels, Image.Resampling.LANCZOS), np.float32)
    widths = [100 * width / max(MIN_SIDE, zoom * side) for width in _edge_widths(levels)]
    return ImageQuality(
        too_small=shorter,
        aspect=max(longer / shorter, _aspect_between_bars(np.asarray(gray), box)),
        dark=p95,
        bright=darkest,
        low_contrast=lightest - darkest,
        blurred=min(widths),
        edge_width=widths[0],
        area=unframed * (shorter**2 if square else width * height),
        framed=frame != (0, 0, *gray.size),
    )


def _aspect_between_bars(gray: Pixels, content: Box) -> float:
    """Return longer over shorter side of (H, W) gray between bars along one axis; 0 without them.

    Plain margins on all sides are the background of a page or of a product, not bars. A bar ends
    along its whole side; a plain background ends only where the subject begins.
    """
    left, top, right, bottom = content
    height, width = gray.shape
    if (right - left < width) == (bottom - top < height):
        return 0.0
    lines, first, last = (gray, top, bottom) if bottom - top < height else (gray.T, left, right)
    ends = ((lines[0], min(first + BAR_END, last - 1), first > 0),
            (lines[-1], max(last - 1 - BAR_END, first), last < len(lines)))  # fmt: skip
    for outermost, inside, is_bar in ends:
        difference = np.abs(lines[inside].astype(np.int16) - np.median(outermost))
        if is_bar and (difference > TOLERANCE).mean() < BAR_SHARE:
            return 0.0
    return max(right - left, bottom - top) / min(right - left, bottom - top)


def _edge_widths(gray: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the sigmas, in pixels, of the blur of (H, W) gray's steepest edges and fine details.

    An edge of width s that is blurred by r has a slope of 1 / sqrt(s^2 + r^2). The ratio of its
    slopes after two blurs gives s regardless of the edge's contrast (after Zhuo and Sim, Pattern
    Recognition 44, 2011, 1852-1858, who compare one blur with none, which measures compression
    noise).
    """
    if min(gray.shape) <= 2 * MARGIN + 1:
        return 0.0, 0.0
    steep, soft = (_slopes(blur(gray, sigma)) for sigma in BLURS)
    edges = soft >= max(percentile(soft, 100 - EDGES), 1e-3)
    # A single gray level is low contrast, not blur; below some 60 x 60 pixels there is too little
    # to measure.
    if np.count_nonzero(edges) < FEWEST:
        return 0.0, 0.0
    edge = _sigma(percentile(steep[edges] / soft[edges], SHARPEST))
    fine = soft >= FINE_SLOPE
    if np.count_nonzero(fine) < FEWEST:
        return edge, edge
    return edge, _sigma(percentile(steep[fine] / soft[fine], FINEST))


def _slopes(gray: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the slopes, in levels per pixel, of (H, W) gray without its margins."""
    rows, columns = gray[:, MARGIN:-MARGIN], gray[MARGIN:-MARGIN]
    down = rows[MARGIN + 1 : 1 - MARGIN] - rows[MARGIN - 1 : -1 - MARGIN]
    across = columns[:, MARGIN + 1 : 1 - MARGIN] - columns[:, MARGIN - 1 : -1 - MARGIN]
    slopes: npt.NDArray[np.float32] = np.sqrt(down * down + across * across) / 2
    return slopes


def _sigma(ratio: float) -> float:
    """Return the sigma, in pixels, of an edge with this ratio of the slopes after two blurs."""
    first, second = BLURS
    # Between an edge of width zero and one wider than the picture.
    squared = min(max(ratio**2, 1.0001), (second / first) ** 2)
    return math.sqrt((second**2 - squared * first**2) / (squared - 1))


# Reason -> side of its threshold on which a photo is unusable, in the order of their precedence.
QUALITY_REASONS = {
    "too_small": "below",
    "aspect": "above",
    "dark": "below",
    "bright": "above",
    "low_contrast": "below",
    "blurred": "above",
}

UNITS = {
    "too_small": " px",
    "aspect": ":1",
    "dark": " of 255",
    "bright": " of 255",
    "low_contrast": " gray levels",
    "blurred": "% of the side",
}


# Scores are compared as severity = sign * log(offset + slope * score), which grows with the fault:
# sizes, ratios, light, and widths differ by factors. The brightness of a photo is its distance from
# white. Reason -> sign, offset, slope.
SEVERITY = {
    "too_small": (-1, 0.0, 1),
    "aspect": (1, 0.0, 1),
    "dark": (-1, 1.0, 1),
    "bright": (-1, 256.0, -1),
    "low_contrast": (-1, 1.0, 1),
    "blurred": (1, 0.1, 1),
}
# Of a set of photos, the typical ones lie between its median and the quantile TYPICAL of severity,
# and an unusual one is SPREADS times that distance beyond the quantile: 4.2 standard deviations of
# normally distributed severities. Up to a fifth of a set may share a fault without hiding it, and
# a kind of photo that makes up a fifth is not unusual.
TYPICAL = 0.8
SPREADS = 4.0
# Such a limit is needed only where typical photos come within this factor of the threshold. In
# other sets, a wide range of good photos, such as of black and white hats, would hide a dark photo.
CLOSE_FACTOR = 2.0
# In a set of nearly equal photos, an unusual one is also twice as severe as the median.
LEAST_FACTOR = 2.0
# Photos, at least, from which a set, a class, or a collector has its own limit.
MIN_PHOTOS = 20


@dataclass(frozen=True)
class Fault:
    """A reason for which a photo is unusable, and the limit that its score exceeds."""

    reason: str
    limit: float


def find_faults(
    qualities: Sequence[ImageQuality],
    sets: Sequence[Sequence[str]],
    limits: Mapping[str, float],
) -> list[list[Fault]]:
    """Return the faults of each of N photos, in the order of QUALITY_REASONS.

    Args:
        qualities: N measures.
        sets: For each kind of set, such as class or collector, N names; '' is no set. All N photos
            are a set, too.
        limits: Reason -> threshold; reasons without one are not considered.
    """
    faults: list[list[Fault]] = [[] for _ in qualities]
    sound = np.ones(len(qualities), bool)
    kinds = [np.zeros(len(qualities), int)]
    for names in sets:
        _, codes = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
        kinds.append(np.where(np.asarray(names, dtype=object) == "", -1, codes))
    for reason in (name for name in QUALITY_REASONS if name in limits):
        severity = _severity(reason, np.array([getattr(q, reason) for q in qualities], float))
        threshold = float(_severity(reason, np.array(limits[reason])))
        # A photo with another fault says nothing about what is usual in this respect.
        limit = _limits_of_sets(severity, sound, kinds, threshold)
        unusable = np.flatnonzero(severity > limit)
        for photo in unusable:
            own = limits[reason]
            if limit[photo] > threshold:
                own = _score(reason, float(limit[photo]))
            faults[photo].append(Fault(reason, own))
        sound[unusable] = False
    return faults


def _limits_of_sets(
    severity: npt.NDArray[np.float64],
    sound: npt.NDArray[np.bool_],
    kinds: Sequence[npt.NDArray[np.int_]],
    threshold: float,
) -> npt.NDArray[np.float64]:
    """Return each photo's limit: the highest of the threshold and of the limits of its sets."""
    limit = np.full(len(severity), threshold)
    for codes in kinds:
        for code in np.unique(codes[codes >= 0]):
            members = codes == code
            values = severity[members & sound]
            if len(values) < MIN_PHOTOS:
                continue
            median, upper = np.quantile(values, [0.5, TYPICAL])
            if upper < threshold - math.log(CLOSE_FACTOR):
                continue
            unusual = max(upper + SPREADS * (upper - median), median + math.log(LEAST_FACTOR))
            limit[members] = np.maximum(limit[members], unusual)
    return limit


def _severity(reason: str, score: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sign, offset, slope = SEVERITY[reason]
    severity: npt.NDArray[np.float64] = sign * np.log(np.maximum(offset + slope * score, 1e-3))
    return severity


def _score(reason: str, severity: float) -> float:
    sign, offset, slope = SEVERITY[reason]
    return (math.exp(sign * severity) - offset) / slope
