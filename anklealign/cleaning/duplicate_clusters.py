"""Photos that show the same picture gathered in clusters, of which one photo is to be kept.

Matches chain: a cut on the left, the whole, a cut on the right. Two cuts may have too little in
common to match by themselves; where others connect them, what they do have in common decides. So
each photo of a cluster matches the one that is kept, a chain that ends elsewhere is broken up, and
a second search among those kept finds no more copies.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from anklealign.io.pixel_store import Pixels
from anklealign.similarity.registration import LEAST_SHARED, Album, Floats, Match, Proposals

# Share of either's side that two are to have in common where others connect them: each of two
# matches may leave LEAST_SHARED.
CONNECTED = LEAST_SHARED**2


@dataclass(frozen=True)
class Cluster:
    """The photo of lowest rank and the copies of it, if any."""

    kept: int
    copies: dict[int, float]  # photo -> residual against the kept one
    identical: frozenset[int]  # those of the copies that equal it in every pixel
    chain: int  # photo of lowest rank among all that matches connect with these
    # Kept photos of the other clusters in which a photo matches one of these.
    touching: frozenset[int]


@dataclass(frozen=True)
class Residuals:
    """What was left between the photos that could be laid over each other, matching or not."""

    first: list[int]  # of each photo, the one of lowest rank among those of the same pixels
    pairs: dict[tuple[int, int], float]  # of such first ones, the smaller number before the larger

    def of(self, a: int, b: int) -> float:
        """Return what is left between two photos; infinite where they were not compared."""
        one, other = sorted((self.first[a], self.first[b]))
        return 0.0 if one == other else self.pairs.get((one, other), math.inf)


def find(
    photos: Sequence[Pixels],
    rank: Sequence[Any],
    distance: int,
    residual: float,
    *,
    squares: bool = False,
    mirror_safe: bool = True,
) -> tuple[list[Cluster], Residuals]:
    """Return the clusters among (H, W, 3) photos, each with its member of lowest rank as kept.

    Two photos match when their hashes lie within `distance` bits in some view, and some placement
    leaves at most `residual` of the contrast in every place. A photo that is connected with others
    by matches, but is in no cluster of theirs, has one of its own.

    Args:
        photos: Without letterbox.
        rank: Of each photo, all different.
        distance: Bits of 64.
        residual: Share of the contrast.
        squares: The photos came cut to their centre square.
        mirror_safe: Mirror images are copies of each other; else they are in two clusters.
    """
    twins: dict[bytes, list[int]] = {}
    for photo in sorted(range(len(photos)), key=lambda n: rank[n]):
        pixels = np.asarray(photos[photo])
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes())
        twins.setdefault(digest.digest(), []).append(photo)
    same = list(twins.values())  # in the order of their rank
    graph = _Graph(
        Album(photos, [group[0] for group in same], squares=squares), residual, mirror_safe
    )

    result = []
    for parts in graph.chains(distance):
        home = {photo: min(part) for part in parts for photo in part}
        for part in parts:
            kept = min(part)
            copies = dict.fromkeys(same[kept][1:], 0.0)
            for photo in sorted(part.keys() - {kept}):
                copies |= dict.fromkeys(same[photo], part[photo].residual)
            touching = {
                home[other]
                for photo in part
                for other, match in graph.matches[photo].items()
                if home[other] != kept and (mirror_safe or not match.mirrored)
            }
            if copies or len(parts) > 1:
                result.append(
                    Cluster(
                        same[kept][0],
                        copies,
                        frozenset(same[kept][1:]),
                        same[min(home)][0],
                        frozenset(same[other][0] for other in touching),
                    )
                )
    first = [0] * len(photos)
    for group in same:
        for photo in group:
            first[photo] = group[0]
    pairs = {}
    for (a, b), left in graph.residuals.items():
        one, other = sorted((same[a][0], same[b][0]))
        pairs[one, other] = left
    return result, Residuals(first, pairs)


Group = dict[int, Match]  # photo -> match of the group's earliest one, which is kept, with it


class _Graph:
    """The photos of an album, and which of them are known to match."""

    def __init__(self, album: Album, residual: float, mirror_safe: bool) -> None:
        self.matches: list[dict[int, Match]] = [{} for _ in range(len(album))]
        self.residuals: dict[tuple[int, int], float] = {}  # the least of each pair
        self._album = album
        self._residual = residual
        self._mirror_safe = mirror_safe

    def chains(self, distance: int) -> list[list[Group]]:
        """Return the groups of every chain: photos that are connected by matches."""
        proposals = self._album.propose(distance)
        self._connect(proposals)
        chains = self._grouped()
        # In a chain that is broken up, what connects its photos in a roundabout way counts as well.
        broken = [sorted(set().union(*groups)) for groups in chains if len(groups) > 1]
        added = sum(self._add(self._album.propose(distance, chain)) for chain in broken)
        while True:
            if added:
                chains = self._grouped()
            # Where photos had more likely copies than were tried, others of them may come up now.
            kept = [
                min(group)
                for groups in chains
                if proposals.crowded or len(groups) > 1
                for group in groups
            ]
            added = self._add(self._album.propose(distance, kept)) if kept else 0
            if not added:
                return chains

    def _connect(self, proposals: Proposals) -> None:
        """Add matches until all that match are connected.

        Two that are connected already are not compared, so that the work grows with the number of
        copies and not with its square.
        """
        root = list(range(len(self.matches)))

        def find_root(photo: int) -> int:
            while root[photo] != photo:
                root[photo] = root[root[photo]]
                photo = root[photo]
            return photo

        for a, b, placement in tqdm(proposals, "compare", unit="pair", disable=None):
            if find_root(a) != find_root(b) and self._match(a, b, placement):
                root[find_root(a)] = find_root(b)

    def _add(self, proposals: Proposals) -> int:
        """Add all matches; return how many are new."""
        return sum(
            b not in self.matches[a] and self._match(a, b, placement) is not None
            for a, b, placement in proposals
        )

    def _match(
        self, a: int, b: int, placement: Floats, shared: float = LEAST_SHARED
    ) -> Match | None:
        """Return and remember the match of two photos with this share in common, if they match."""
        match = self._album.compare(a, b, placement, shared)
        if match is None:
            return None
        pair = (min(a, b), max(a, b))
        self.residuals[pair] = min(match.residual, self.residuals.get(pair, math.inf))
        if match.residual > self._residual:
            return None
        self.matches[a][b] = match
        self.matches[b][a] = match.reversed()
        return match

    def _grouped(self) -> list[list[Group]]:
        """Return the groups of every chain as far as it is known."""
        chains = []
        seen: set[int] = set()
        for earliest in range(len(self.matches)):
            if earliest not in seen:
                chain = [earliest]
                seen.add(earliest)
                for photo in chain:  # which grows meanwhile
                    new = sorted(self.matches[photo].keys() - seen)
                    chain += new
                    seen.update(new)
                chain.sort()
                groups, known = self._groups(chain), -1
                # Photos of later groups may have been found to match those of earlier ones.
                while len(groups) > 1 and known != (now := self._known(chain)):
                    groups, known = self._groups(chain), now
                chains.append(groups)
        return chains

    def _known(self, chain: Sequence[int]) -> int:
        """Return how many matches are known in a chain."""
        return sum(len(self.matches[photo]) for photo in chain)

    def _groups(self, chain: Sequence[int]) -> list[Group]:
        """Return a chain in groups.

        The earliest photo takes those that match it. What is left is dealt with likewise.
        """
        free = dict.fromkeys(chain)
        groups = []
        while free:
            group = {
                n: match
                for n, match in self._star(next(iter(free))).items()
                if n in free and (self._mirror_safe or not match.mirrored)
            }
            for photo in group:
                del free[photo]
            groups.append(group)
        return groups

    def _star(self, centre: int) -> Group:
        """Return the matches of a photo with itself and with all that match it, by any route."""
        star = {centre: Match(centre, centre, 0.0, np.eye(3))}
        for via in (waiting := [centre]):  # which grows meanwhile
            for photo in sorted(self.matches[via].keys() - star.keys()):
                known = self.matches[centre].get(photo)
                placement = star[via].placement @ self.matches[via][photo].placement
                match = known or self._match(centre, photo, placement, CONNECTED)
                if match:
                    star[photo] = match
                    waiting.append(photo)
        return star
