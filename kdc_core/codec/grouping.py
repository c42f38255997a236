"""Which keypoints belong together: seeds grown along edges, each into a pose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from kdc_core.codec.codec import Codec
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.peaks import Peaks, hop, read_nearest, strongest_peak
from kdc_core.codec.skeleton import Skeleton
from kdc_core.config import DecodeConfig

# A keypoint box has sides of at least this: one keypoint alone is a person of some size.
LEAST_SIZE_PX = 8.0
# Width, in octaves of size, of what a level of the pyramid sees well.
LEVEL_OCTAVES = 0.5
# What a keypoint's own place (times its score, of so much at least) and its own score count beside
# those of its peaks in all levels.
OWN_PLACE, LEAST_OWN_SCORE, OWN_SCORE = 0.05, 0.05, 0.5


@dataclass
class Poses:
    """n poses; T types each, the body center last.

    Attributes:
        position: (B, 2, n, T) pixels, x and y.
        keypoint_score: (B, n, T) 0..1.
        score: (B, n) 0..1; 0 = no pose.
        root: (B, n) type of the seed.
    """

    position: Tensor
    keypoint_score: Tensor
    score: Tensor
    root: Tensor

    def take(self, index: Tensor) -> Poses:
        """Select poses by index (B, m)."""
        wide = index[..., None].expand(-1, -1, self.position.shape[3])
        return Poses(
            self.position.gather(2, wide[:, None].expand(-1, 2, -1, -1)),
            self.keypoint_score.gather(1, wide),
            self.score.gather(1, index),
            self.root.gather(1, index),
        )

    def in_image(self, level: Level) -> Poses:
        """Poses found in a reduced image, in pixels of the image itself."""
        return replace(self, position=level.to_image(self.position))


def pool(parts: list[Poses]) -> Poses:
    """Put poses together, in descending order of score."""
    if len(parts) > 1:
        position = torch.cat([part.position for part in parts], 2)
        names = ("keypoint_score", "score", "root")
        rest = (torch.cat([getattr(part, name) for part in parts], 1) for name in names)
        parts = [Poses(position, *rest)]
    return parts[0].take(parts[0].score.sort(1, descending=True).indices)


@dataclass(frozen=True)
class EdgePaths:
    """The shortest paths along one set of edges (`Skeleton.shortest_paths`), (T, T) tables each.

    Attributes:
        parent, edge, depth: indexed [root, type]; `edge` is a channel of the mid-range offsets.
        longest: hops of the longest path.
        local: whether the edges are bones (`tree`), whose short hops land precisely.
    """

    parent: np.ndarray
    edge: np.ndarray
    depth: np.ndarray
    longest: int
    local: bool


@cache
def edge_paths(skeleton: Skeleton, edge_sets: tuple[str, ...]) -> tuple[EdgePaths, ...]:
    """Tables of every set of edges; channels are numbered over all sets together."""
    paths, first = [], 0
    for name in edge_sets:
        edges = skeleton.edges((name,))
        parent, edge, depth = skeleton.shortest_paths(edges)
        paths.append(EdgePaths(parent, edge + first, depth, int(depth.max()), name == "tree"))
        first += len(edges)
    return tuple(paths)


@dataclass
class Seeds:
    """M starting points in descending order.

    Attributes:
        type: (B, M).
        position: (B, 2, M) pixels.
        score: (B, M) 0..1; 0 = no seed.
        types: all that seeds may have.
    """

    type: Tensor
    position: Tensor
    score: Tensor
    types: list[int]


def pick_seeds(peaks: Peaks, codec: Codec) -> Seeds:
    """Take the M best peaks of all types whose weight is not 0 (the paper's priority queue)."""
    config, keypoints = codec.settings, codec.skeleton.num_keypoints
    weights = [config.keypoint_seed_weight] * keypoints + [config.center_seed_weight]
    types = [number for number, weight in enumerate(weights) if weight > 0]
    chosen = torch.tensor(types, device=peaks.score.device)
    strong = peaks.score.index_select(1, chosen)
    strong = torch.where(strong > config.min_peak, strong, 0.0)
    rank = torch.tensor([weights[number] for number in types], device=strong.device)
    count = strong.shape[2]
    index = (strong * rank[:, None]).flatten(1).topk(min(config.seeds, len(types) * count)).indices
    position = peaks.position.index_select(2, chosen).flatten(2)
    position = position.gather(2, index[:, None].expand(-1, 2, -1))
    if len(types) == 1:  # a constant: what is looked up by it is one, too
        type_ = torch.full_like(index, types[0])
    else:
        type_ = chosen[torch.div(index, count, rounding_mode="floor")]
    return Seeds(type_, position, strong.flatten(1).gather(1, index), types)


def grow_poses(
    seeds: Seeds,
    peaks: Peaks,
    score: Tensor,
    maps: Fields[Tensor],
    codec: Codec,
) -> Poses:
    """Grow every seed into a pose, all at once (PersonLab's greedy decoding, side by side).

    Each set of edges is followed from the seed's type outwards; a type it does not reach is
    reached by the embedding at the seed. Per keypoint the set whose landing place has the higher
    heatmap value wins; then the keypoint snaps to a peak nearby.

    Args:
        seeds: where to start.
        peaks: the peaks of every type.
        score: (B, T, h, w) score map.
        maps: the network's.
        codec: edges, grid, reach of the snap rule and others.
    """
    types = torch.arange(maps.heat.shape[1], device=seeds.type.device)[None, None]
    is_root = types == seeds.type[..., None]
    landing, by_bones = _land(seeds, maps, types, codec)
    position = torch.where(is_root[:, None], seeds.position[..., None], landing)

    wide = snap_reach(position, codec.settings)
    reach = wide if by_bones is None else torch.where(by_bones > 0, codec.settings.snap_px, wide)
    pull, peak = strongest_peak(position, peaks, reach)
    here = read_nearest(score, types, position, codec.grid)
    near = pull >= here
    position = torch.where((near & ~is_root)[:, None], peak.position, position)
    keypoint_score = torch.where(near, peak.score, here)
    keypoint_score = torch.where(is_root, seeds.score[..., None], keypoint_score)
    mean = torch.where(seeds.score > 0, keypoint_score.mean(-1), 0.0)
    return Poses(position, keypoint_score, mean, seeds.type)


def _land(
    seeds: Seeds, maps: Fields[Tensor], types: Tensor, codec: Codec
) -> tuple[Tensor, Tensor | None]:
    """Where each seed expects each type, by the set of edges whose landing has the most heat.

    Returns:
        (B, 2, M, T) pixels; (B, M, T) 1 where bones led there, else 0, None without edges.
    """
    grid, paths = codec.grid, edge_paths(codec.skeleton, codec.edge_sets)
    by_embedding = seeds.position[..., None]
    if not paths or any((path.depth[seeds.types] < 0).any() for path in paths):
        by_embedding = hop(maps.embedding, types, by_embedding, grid)
    if not paths:
        return by_embedding, None
    landings = [_follow_edges(seeds, path, by_embedding, maps, types, grid) for path in paths]
    heats = [read_nearest(maps.heat, types, landing, grid) for landing in landings]
    bones = [torch.full_like(heats[0], float(path.local)) for path in paths]
    position, heat, by_bones = landings[0], heats[0], bones[0]
    for other, other_heat, other_bones in zip(landings[1:], heats[1:], bones[1:], strict=True):
        # On a tie the later set, the star: one hop has less chance to change person.
        better = other_heat >= heat
        position = torch.where(better[:, None], other, position)
        by_bones = torch.where(better, other_bones, by_bones)
        heat = torch.maximum(other_heat, heat)
    return position, by_bones


def _follow_edges(
    seeds: Seeds,
    path: EdgePaths,
    by_embedding: Tensor,
    maps: Fields[Tensor],
    types: Tensor,
    grid: Grid,
) -> Tensor:
    """Walk the edges of one set: (B, 2, M, T) landing places."""
    parent, edge, depth = (
        torch.from_numpy(table).to(seeds.type.device)[seeds.type]
        for table in (path.parent, path.edge, path.depth)
    )
    start = here = seeds.position[..., None]
    position = torch.where((depth < 0)[:, None], by_embedding, start)
    for step in range(1, path.longest + 1):
        if step > 1:
            here = position.gather(3, parent[:, None].expand(-1, 2, -1, -1))
        landing = hop(maps.mid, edge, here, grid)
        landing = hop(maps.short, types, landing, grid)
        position = torch.where((depth == step)[:, None], landing, position)
    return position


def snap_reach(position: Tensor, config: DecodeConfig) -> Tensor:
    """How far a keypoint of each pose (B, 2, n, T) may snap: (B, n, 1) pixels."""
    return (config.snap_scale * person_size(position)).clamp(min=config.snap_px)[..., None]


def person_size(position: Tensor) -> Tensor:
    """Square root of the area of the keypoints' box, pixels: (B, 2, n, T) -> (B, n)."""
    points = position[..., :-1]
    side = (points.amax(-1) - points.amin(-1)).clamp(min=LEAST_SIZE_PX)
    return side.prod(1).sqrt()


def level_weights(poses: Poses, levels: list[Level], config: DecodeConfig) -> Tensor:
    """How much each level says about each person: (B, P, L), sums to 1.

    A level sees best the people who are `level_px` large in its reduced image; away from that
    its weight falls as a Gaussian of the logarithm of their size.
    """
    best = torch.tensor([level.factor * config.level_px for level in levels])
    size = person_size(poses.position)[..., None]
    octaves = torch.log2(size / best.to(size))
    return torch.softmax(-0.5 * (octaves / LEVEL_OCTAVES).square(), -1)


def average_levels(
    poses: Poses, peaks: list[Peaks], level_weight: Tensor, config: DecodeConfig
) -> Poses:
    """Average where, and how surely, the levels of the pyramid see each keypoint.

    In each level the keypoint's strongest peak nearby counts by its score, its nearness and the
    level's weight; a peak of the fine level is placed better, one of the coarse level belongs
    more surely to a large person. A pose's score becomes the root of the mean of the squares of
    its keypoints' new scores.

    Args:
        poses: pixels of the image.
        peaks: of each level, pixels of the image.
        level_weight: (B, P, L) of `level_weights`.
        config: reach, as for the snap rule.
    """
    reach = snap_reach(poses.position, config)
    levels = len(peaks)
    every = Peaks(
        torch.cat([level.position for level in peaks], 2),
        torch.cat([level.score for level in peaks], 1),
    )
    pull, peak = strongest_peak(torch.cat([poses.position] * levels, 3), every, reach)
    weight = pull.unflatten(-1, (levels, -1)) * level_weight[..., None]
    seen = (weight[:, None] * peak.position.unflatten(-1, (levels, -1))).sum(3)
    value = weight.sum(2)
    least = OWN_PLACE * poses.keypoint_score.clamp(min=LEAST_OWN_SCORE)
    place = (least[:, None] * poses.position + seen) / (least + value)[:, None]
    own = poses.keypoint_score
    score = OWN_SCORE * own + (1 - OWN_SCORE) * value
    of_pose = torch.where(poses.score > 0, score.square().mean(-1).sqrt(), poses.score)
    score = torch.where(own > 0, score, own)
    return replace(poses, position=place, keypoint_score=score, score=of_pose)
