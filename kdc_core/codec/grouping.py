"""Which keypoints belong together: seeds grown along edges, duplicates suppressed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.peaks import Peaks, hop, sample, square_distance, strongest_peak
from kdc_core.codec.skeleton import Skeleton
from kdc_core.config import DecodeConfig

# A keypoint box has sides of at least this: one keypoint alone is a person of some size.
LEAST_SIZE_PX = 8.0
# Width, in octaves of size, of what a level of the pyramid sees well.
LEVEL_OCTAVES = 0.5
# What a keypoint's own place and score count beside those of its peaks in all levels.
OWN_PLACE, OWN_SCORE = 0.05, 0.5


@dataclass
class Poses:
    """n poses; T types each, the body center last.

    Attributes:
        position: (B, n, T, 2) pixels.
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
        wide = index[..., None].expand(-1, -1, self.position.shape[2])
        return Poses(
            self.position.gather(1, wide[..., None].expand(-1, -1, -1, 2)),
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
        names = [field.name for field in fields(Poses)]
        parts = [Poses(*(torch.cat([getattr(p, n) for p in parts], 1) for n in names))]
    return parts[0].take(parts[0].score.sort(1, descending=True).indices)


@dataclass(frozen=True)
class EdgePaths:
    """The shortest paths along one set of edges (`Skeleton.hops`), (T, T) tables each.

    Attributes:
        parent, edge, depth: indexed [root, type]; `edge` is a channel of the mid-range offsets.
        hops: length of the longest path.
        local: short hops between neighbors, whose landing places are precise.
    """

    parent: np.ndarray
    edge: np.ndarray
    depth: np.ndarray
    hops: int
    local: bool


@cache
def edge_paths(skeleton: Skeleton, edge_sets: tuple[str, ...]) -> tuple[EdgePaths, ...]:
    """Tables of every set of edges; channels are numbered over all sets together."""
    paths, first = [], 0
    for name in edge_sets:
        edges = skeleton.edges((name,))
        parent, edge, depth = skeleton.hops(edges)
        paths.append(EdgePaths(parent, edge + first, depth, int(depth.max()), name == "tree"))
        first += len(edges)
    return tuple(paths)


@dataclass
class Seeds:
    """M starting points in descending order: type (B, M), position (B, M, 2), score (B, M)."""

    type: Tensor
    position: Tensor
    score: Tensor


def pick_seeds(peaks: Peaks, config: DecodeConfig, skeleton: Skeleton) -> Seeds:
    """Take the M best peaks of all types (the paper's priority queue)."""
    batch, types, count = peaks.score.shape
    rank = torch.full((types, 1), config.keypoint_seed_weight, device=peaks.score.device)
    rank[skeleton.center] = config.center_seed_weight
    strong = peaks.score * (peaks.score > config.min_peak)
    value, index = (strong * rank).flatten(1).topk(config.seeds)
    position = peaks.position.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 2))
    score = strong.flatten(1).gather(1, index) * (value > 0)
    return Seeds(torch.div(index, count, rounding_mode="floor"), position, score)


def grow_poses(
    seeds: Seeds,
    peaks: Peaks,
    score: Tensor,
    maps: Fields[Tensor],
    paths: tuple[EdgePaths, ...],
    grid: Grid,
    config: DecodeConfig,
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
        paths: tables of each set of edges.
        grid: where the cells are.
        config: reach of the snap rule and others.
    """
    batch, count = seeds.type.shape
    num_types = maps.heat.shape[1]
    types = torch.arange(num_types, device=seeds.type.device).expand(batch, count, num_types)
    channel = types.flatten(1)
    start = seeds.position[:, :, None].expand(-1, -1, num_types, -1)
    by_embedding = hop(maps.embedding, channel, start.flatten(1, 2), grid)
    by_embedding = by_embedding.reshape(batch, count, num_types, 2)

    position, value, local = by_embedding, None, None
    for path in paths:
        landing = _follow(seeds, path, by_embedding, maps, channel, grid)
        found = sample(maps.heat, channel, landing.flatten(1, 2), grid)
        found = found.reshape(batch, count, num_types)
        precise = torch.full_like(found, float(path.local))
        if value is None or local is None:
            position, value, local = landing, found, precise
        else:
            # On a tie the later set, the star: one hop has less chance to change person.
            better = found >= value
            position = torch.where(better[..., None], landing, position)
            local = torch.where(better, precise, local)
            value = torch.maximum(found, value)
    is_root = types == seeds.type[..., None]
    position = torch.where(is_root[..., None], start, position)

    wide = snap_reach(position, config)
    reach = wide if local is None else torch.where(local > 0, config.snap_px, wide)
    pull, peak = strongest_peak(position, peaks, reach)
    here = sample(score, channel, position.flatten(1, 2), grid).reshape(pull.shape)
    near = pull >= here
    position = torch.where(near[..., None], peak.position, position)
    position = torch.where(is_root[..., None], start, position)
    keypoint_score = torch.where(near, peak.score, here)
    keypoint_score = torch.where(is_root, seeds.score[..., None], keypoint_score)
    mean = keypoint_score.mean(-1)
    return Poses(position, keypoint_score, mean * (seeds.score > 0), seeds.type)


def _follow(
    seeds: Seeds,
    path: EdgePaths,
    otherwise: Tensor,
    maps: Fields[Tensor],
    channel: Tensor,
    grid: Grid,
) -> Tensor:
    """Walk the edges of one set: (B, M, T, 2) landing places."""
    batch, count, types, _ = otherwise.shape
    parent, edge, depth = (
        torch.from_numpy(table).to(seeds.type.device)[seeds.type]
        for table in (path.parent, path.edge, path.depth)
    )
    start = seeds.position[:, :, None]
    position = torch.where((depth < 0)[..., None], otherwise, start)
    for step in range(1, path.hops + 1):
        here = position.gather(2, parent[..., None].expand(-1, -1, -1, 2)).flatten(1, 2)
        landing = hop(maps.mid, edge.flatten(1), here, grid)
        landing = hop(maps.short, channel, landing, grid)
        landing = landing.reshape(batch, count, types, 2)
        position = torch.where((depth == step)[..., None], landing, position)
    return position


def snap_reach(position: Tensor, config: DecodeConfig) -> Tensor:
    """How far a keypoint of each pose (..., T, 2) may snap: (..., 1) pixels."""
    return (config.snap_scale * person_size(position)).clamp(min=config.snap_px)[..., None]


def person_size(position: Tensor) -> Tensor:
    """Square root of the area of the keypoints' box, pixels: (..., T, 2) -> (...)."""
    points = position[..., :-1, :]
    side = (points.amax(-2) - points.amin(-2)).clamp(min=LEAST_SIZE_PX)
    return side.prod(-1).sqrt()


def conflicts(poses: Poses, skeleton: Skeleton, config: DecodeConfig) -> Tensor:
    """Which poses a better one makes superfluous.

    Returns:
        (B, n, n) bool: [i, j] with j before i, where pose j has a keypoint of pose i's root type
        within the skip radius of it, or poses i and j are alike by OKS.
    """
    batch, count, types, _ = poses.position.shape
    order = torch.arange(count, device=poses.position.device)
    places = poses.position.flatten(1, 2)

    def at(index: Tensor) -> Tensor:
        return places.gather(1, index.flatten(1)[..., None].expand(-1, -1, 2))

    roots = at(order * types + poses.root)
    theirs = at(order * types + poses.root[..., None]).reshape(batch, count, count, 2)
    near = square_distance(theirs, roots[:, :, None]) < config.skip_radius_px**2
    alike = pose_oks(poses.position, skeleton) > config.same_pose_oks
    return (near | alike) & (order[:, None] > order)


def pose_oks(position: Tensor, skeleton: Skeleton) -> Tensor:
    """OKS of each pose against each other, over all keypoints: (B, M, T, 2) -> (B, M, M).

    The scale is the larger of the two keypoint boxes.
    """
    points = position[..., :-1, :]
    square = square_distance(points[:, :, None], points[:, None])
    area = person_size(position).square()
    area = torch.maximum(area[:, :, None], area[:, None])
    spread = torch.tensor(skeleton.sigmas, device=position.device).mul(2).square()
    return torch.exp(-square / (2 * area[..., None] * spread)).mean(-1)


def suppress(alive: Tensor, conflict: Tensor, rounds: int) -> Tensor:
    """Greedy non-maximum suppression of poses (PersonLab's skip test).

    Poses are kept in order; each that conflicts with an earlier kept one is dropped. All at once:
    after n rounds every pose whose chain of conflicts is at most n long is decided as the
    sequential loop decides it.

    Args:
        alive: (B, M) bool, poses that exist.
        conflict: (B, M, M) bool of `conflicts`.
        rounds: number of rounds.

    Returns:
        (B, M) bool, the kept ones.
    """
    table, living = conflict.float(), alive.float()[..., None]
    keep = living
    for _ in range(rounds):
        keep = living * (table @ keep < 0.5)  # no earlier kept one beats it
    return keep[..., 0] > 0


def soft_nms(poses: Poses, radius_px: float) -> Tensor:
    """Keypoint scores (B, n, T), 0 where an earlier pose has the same keypoint there.

    PersonLab's soft non-maximum suppression: a keypoint counts for one person only.
    """
    square = square_distance(poses.position[:, :, None], poses.position[:, None])
    order = torch.arange(square.shape[1], device=square.device)
    earlier = (order[:, None] > order)[None, :, :, None]
    live = (poses.score > 0)[:, None, :, None]
    claimed = ((square < radius_px**2) & earlier & live).any(2)
    return torch.where(claimed, torch.zeros_like(poses.keypoint_score), poses.keypoint_score)


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
    """Average where the levels of the pyramid see each keypoint.

    In each level the keypoint's strongest peak nearby counts by its score, its nearness and the
    level's weight; a peak of the fine level is placed better, one of the coarse level belongs
    more surely to a large person.

    Args:
        poses: pixels of the image.
        peaks: of each level, pixels of the image.
        level_weight: (B, P, L) of `level_weights`.
        config: reach, as for the snap rule.
    """
    reach = snap_reach(poses.position, config)
    total = OWN_PLACE * poses.keypoint_score.clamp(min=OWN_PLACE)
    place = total[..., None] * poses.position
    value = torch.zeros_like(total)
    for index, level in enumerate(peaks):
        pull, peak = strongest_peak(poses.position, level, reach)
        weight = pull * level_weight[..., index, None]
        total, place = total + weight, place + weight[..., None] * peak.position
        value = value + weight
    own = poses.keypoint_score
    score = OWN_SCORE * own + (1 - OWN_SCORE) * value
    mean = torch.where(poses.score > 0, score.square().mean(-1).sqrt(), poses.score)
    score = torch.where(own > 0, score, own)
    return replace(poses, position=place / total[..., None], keypoint_score=score, score=mean)
