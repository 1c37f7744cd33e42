"""Group photos that show the same picture into clusters, of which one photo is kept.

Matches chain: a crop on the left, the whole, a crop on the right. Two crops may overlap too little
to match directly; if other photos connect them, they are compared on what they do share. Each photo
of a cluster therefore matches the kept photo, a chain whose ends do not match is split into several
clusters, and a second search among the kept photos finds no more duplicates.

Photos that differ only in a detail or are two exposures of a fixed camera are not duplicates, but
belong to one scene: they stay, and share the cluster's name, so that split does not separate them.
"""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from tqdm import tqdm

from anklealign.similarity.local_differences import MAX_COLOR
from anklealign.similarity.registration import (
    MIN_OVERLAP,
    Floats,
    PhotoMatcher,
    Proposals,
    Registration,
)

# Minimum overlap, as a share of either's side, of two photos that others connect.
CONNECTED_OVERLAP = 0.49
# A scene with more photos, and more than this share of all photos, is how the dataset was taken: a
# fixed camera, a form, one background. No split could keep it together, so its photos stay apart.
LARGE_SCENE, LARGE_SCENE_SHARE = 10, 0.1


@dataclass(frozen=True)
class Cluster:
    """The photo of lowest rank and its duplicates, if any."""

    kept: int
    duplicates: dict[int, float]  # photo -> residual against the kept photo
    identical: frozenset[int]  # duplicates that equal the kept photo in every pixel
    chain: int  # photo of lowest rank among all that matches or a scene connect with these
    # Kept photos of the other clusters that contain a match of one of these.
    adjacent: frozenset[int]


@dataclass(frozen=True)
class Residuals:
    """The residuals of all registered pairs, matching or not."""

    first: list[int]  # for each photo, the lowest-ranked photo with the same pixels
    pairs: dict[tuple[int, int], float]  # of such first photos, the smaller number first
    large_scenes: tuple[int, ...] = ()  # photos in each scene that is too large for a group

    def between(self, a: int, b: int) -> float:
        """Return the residual of two photos; infinity if they were not compared."""
        one, other = sorted((self.first[a], self.first[b]))
        return 0.0 if one == other else self.pairs.get((one, other), math.inf)


def find_clusters(
    matcher: PhotoMatcher,
    rank: Sequence[Any],
    distance: int,
    residual: float,
    *,
    mirror_safe: bool = True,
) -> tuple[list[Cluster], Residuals]:
    """Return the clusters among N photos, each with its lowest-ranked photo as kept.

    Two photos match if their hashes are within `distance` bits in some view, their registration
    leaves at most `residual` of the contrast in every cell, and they agree in detail, color, and
    noise. A photo that matches or a scene connect with others, but that belongs to none of their
    clusters, forms a cluster of its own.

    Args:
        matcher: Matcher of the N photos, with hashes. Afterwards it holds only the first photo of
            each set with equal pixels.
        rank: One per photo, all different.
        distance: Bits of 64.
        residual: Share of the contrast.
        mirror_safe: Whether mirror images are duplicates; if not, they form two clusters.

    Raises:
        ValueError: The matcher has no hashes.
    """
    identical = _identical_photos(matcher.digests, rank)
    matcher.select([same[0] for same in identical])
    graph = _MatchGraph(matcher, residual, mirror_safe)
    clusters = []
    chains = graph.chains(distance)
    scenes, large = graph.scenes([len(same) for same in identical])
    in_scene = Counter(scenes)
    for stars in chains:
        center = {photo: min(star) for star in stars for photo in star}
        for star in stars:
            kept = min(star)
            duplicates = dict.fromkeys(identical[kept][1:], 0.0)
            for photo in sorted(star.keys() - {kept}):
                duplicates |= dict.fromkeys(identical[photo], star[photo].residual)
            adjacent = {
                center[other]
                for photo in star
                for other, match in graph.matches[photo].items()
                if center[other] != kept and (mirror_safe or not match.mirrored)
            }
            scene = scenes[min(center)]
            if duplicates or in_scene[scene] > 1:
                clusters.append(
                    Cluster(
                        identical[kept][0],
                        duplicates,
                        frozenset(identical[kept][1:]),
                        identical[scene][0],
                        frozenset(identical[other][0] for other in adjacent),
                    )
                )
    return clusters, _residuals(len(rank), identical, graph.residuals, large)


def _identical_photos(digests: Sequence[bytes], rank: Sequence[Any]) -> list[list[int]]:
    """Return lists of photos with the same pixels, each list and its photos in order of rank."""
    by_digest: dict[bytes, list[int]] = {}
    for photo in sorted(range(len(digests)), key=lambda n: rank[n]):
        by_digest.setdefault(digests[photo], []).append(photo)
    return list(by_digest.values())


def _residuals(
    count: int,
    identical: list[list[int]],
    residuals: dict[tuple[int, int], float],
    large_scenes: tuple[int, ...],
) -> Residuals:
    """Return the residuals of pairs of `identical` lists as residuals of pairs of photos."""
    first = [0] * count
    for same in identical:
        for photo in same:
            first[photo] = same[0]
    pairs = {}
    for (a, b), residual in residuals.items():
        one, other = sorted((identical[a][0], identical[b][0]))
        pairs[one, other] = residual
    return Residuals(first, pairs, large_scenes)


# Photo -> registration of the star's center, its earliest photo, with it.
Star = dict[int, Registration]


class _MatchGraph:
    """Photos and the known matches between them."""

    def __init__(self, matcher: PhotoMatcher, residual: float, mirror_safe: bool) -> None:
        self.matches: list[dict[int, Registration]] = [{} for _ in range(len(matcher))]
        self.residuals: dict[tuple[int, int], float] = {}  # the smallest of each pair
        self._scenes = DisjointSet(range(len(matcher)))
        self._compared: set[tuple[int, int]] = set()  # pairs of one scene that do not match
        # Hashes of photos, overlap and start of the registrations that found no match: later
        # searches propose many of them again.
        self._failed: set[bytes] = set()
        self._matcher = matcher
        self._residual = residual
        self._mirror_safe = mirror_safe

    def chains(self, distance: int) -> list[list[Star]]:
        """Return the connected components of the graph, each divided into stars."""
        proposals = self._matcher.propose(distance)
        self._connect(proposals)
        chains = self._chains()
        # In a chain of several stars, indirect connections between its photos count as well.
        split = [sorted(set().union(*stars)) for stars in chains if len(stars) > 1]
        added = sum(self._add(self._matcher.propose(distance, chain)) for chain in split)
        while True:
            if added:
                chains = self._chains()
            # If photos had more candidates than were proposed, others may be proposed now. All
            # candidates of the other photos were.
            kept = [min(star) for stars in chains for star in stars]
            repeated = {min(star) for stars in chains if len(stars) > 1 for star in stars}
            repeated.update(proposals.truncated.tolist())
            asking = [photo for photo in kept if photo in repeated]
            added = self._add(self._matcher.propose(distance, kept, asking)) if asking else 0
            if not added:
                return chains

    def scenes(self, sizes: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
        """Return the earliest photo of each photo's scene, and the sizes of those too large.

        In a scene that is too large, each chain is a scene of its own. `sizes` are the photos that
        each photo of the graph stands for.
        """
        chains = DisjointSet(range(len(self.matches)))
        for photo, matches in enumerate(self.matches):
            for other in matches:
                chains.merge(photo, other)
                self._scenes.merge(photo, other)
        large = []
        earliest = [0] * len(self.matches)
        for scene in self._scenes.subsets():
            photos = sum(sizes[photo] for photo in scene)
            parts = [scene]
            too_large = photos > max(LARGE_SCENE, LARGE_SCENE_SHARE * sum(sizes))
            if too_large and len(chains.subset(min(scene))) < len(scene):
                large.append(photos)
                parts = list({frozenset(chains.subset(photo)) for photo in scene})
            for part in parts:
                first = min(part)
                for photo in part:
                    earliest[photo] = first
        return earliest, tuple(sorted(large, reverse=True))

    def _connect(self, proposals: Proposals) -> None:
        """Add matches until all matching photos are connected.

        Photos that are already connected are not compared, so the work grows linearly with the
        number of duplicates rather than quadratically.
        """
        connected = DisjointSet(range(len(self.matches)))
        for a, b, transform in tqdm(proposals, "compare", unit="pair", disable=None):
            known = connected.connected(a, b) or (min(a, b), max(a, b)) in self._compared
            if not known and self._match(a, b, transform):
                connected.merge(a, b)

    def _add(self, proposals: Proposals) -> int:
        """Add all matches and return the number of new ones."""
        return sum(
            b not in self.matches[a] and self._match(a, b, transform) is not None
            for a, b, transform in proposals
        )

    def _match(
        self, a: int, b: int, transform: Floats, min_overlap: float = MIN_OVERLAP
    ) -> Registration | None:
        """Return and store the registration of two photos if they match."""
        described = struct.pack("<qqd", a, b, min_overlap) + transform.tobytes()
        attempt = hashlib.blake2b(described, digest_size=16).digest()
        if attempt in self._failed:
            return None
        match = self._registered(a, b, transform, min_overlap)
        if match:
            self.matches[a][b] = match
            self.matches[b][a] = match.reversed()
        else:
            self._failed.add(attempt)
        return match

    def _registered(
        self, a: int, b: int, transform: Floats, min_overlap: float
    ) -> Registration | None:
        """Return the registration of two photos if they match; note residuals and scenes."""
        registration = self._matcher.register(a, b, transform, min_overlap)
        if registration is None:
            return None
        pair = (min(a, b), max(a, b))
        if registration.residual <= self._residual:
            comparison = self._matcher.compare(a, b, registration.transform)
            if not comparison.same_picture:
                if comparison.color <= MAX_COLOR:
                    self._scenes.merge(a, b)
                    self._compared.add(pair)
                return None
        self.residuals[pair] = min(registration.residual, self.residuals.get(pair, math.inf))
        return registration if registration.residual <= self._residual else None

    def _chains(self) -> list[list[Star]]:
        """Return the stars of every chain according to the known matches."""
        chains = []
        visited: set[int] = set()
        for earliest in range(len(self.matches)):
            if earliest not in visited:
                chain = [earliest]
                visited.add(earliest)
                for photo in chain:  # grows during the loop
                    new = sorted(self.matches[photo].keys() - visited)
                    chain += new
                    visited.update(new)
                chain.sort()
                stars, known = self._stars(chain), -1
                # Photos of later stars may turn out to match photos of earlier ones.
                while len(stars) > 1 and known != (count := self._match_count(chain)):
                    stars, known = self._stars(chain), count
                chains.append(stars)
        return chains

    def _match_count(self, chain: Sequence[int]) -> int:
        """Return the number of known matches in a chain."""
        return sum(len(self.matches[photo]) for photo in chain)

    def _stars(self, chain: Sequence[int]) -> list[Star]:
        """Divide a chain into stars.

        The earliest photo becomes the center of a star with all photos that match it. This repeats
        with the remaining photos.
        """
        remaining = dict.fromkeys(chain)
        stars = []
        while remaining:
            star = {
                n: match
                for n, match in self._matching(next(iter(remaining))).items()
                if n in remaining and (self._mirror_safe or not match.mirrored)
            }
            for photo in star:
                del remaining[photo]
            stars.append(star)
        return stars

    def _matching(self, center: int) -> Star:
        """Return the matches of a photo with itself and with its direct and indirect matches."""
        star = {center: Registration(center, center, 0.0, np.eye(3))}
        for via in (queue := [center]):  # grows during the loop
            for photo in sorted(self.matches[via].keys() - star.keys()):
                known = self.matches[center].get(photo)
                transform = star[via].transform @ self.matches[via][photo].transform
                match = known or self._match(center, photo, transform, CONNECTED_OVERLAP)
                if match:
                    star[photo] = match
                    queue.append(photo)
        return star
