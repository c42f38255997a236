"""Which keypoints belong together: seeds grown along edges, duplicates skipped."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kdc_core.config import DecodeConfig
from kdc_core.decode.peaks import Peaks, hop, sample
from kdc_core.fields import Fields
from kdc_core.grid import Grid, Level
from kdc_core.skeleton import Skeleton

# A keypoint box has sides of at least this: one keypoint alone is a person of some size.
LEAST_SIZE_PX = 8.0
# Width, in octaves of size, of what a level of the pyramid sees well.
LEVEL_OCTAVES = 0.5
# What a keypoint's own place and score count beside those of its peaks in all levels.
OWN_PLACE, OWN_SCORE = 0.05, 0.5


@dataclass
class Poses:
    """n poses; T types each, the body centre last.

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

    def in_picture(self, level: Level) -> Poses:
        """Poses found in a reduced picture, in pixels of the picture itself."""
        return replace(self, position=level.to_picture(self.position))


def pool(parts: list[Poses]) -> Poses:
    """Put poses together, in descending order of score."""
    if len(parts) > 1:
        names = [field.name for field in fields(Poses)]
        parts = [Poses(*(torch.cat([getattr(p, n) for p in parts], 1) for n in names))]
    return parts[0].take(parts[0].score.sort(1, descending=True).indices)


@dataclass
class Way:
    """One set of edges as breadth-first tables (`Skeleton.hops`), (T, T) each."""

    parent: Tensor
    edge: Tensor
    depth: Tensor
    hops: int  # the longest path
    local: bool  # short hops between neighbours, so that landings are precise


def square_distance(a: Tensor, b: Tensor) -> Tensor:
    """Square of the distance of points (..., 2), which broadcast: (...) square pixels.

    x and y apart: exported, a difference over a last axis of two is slow.
    """
    return (a[..., 0] - b[..., 0]).square() + (a[..., 1] - b[..., 1]).square()


def make_ways(skeleton: Skeleton, kinds: tuple[str, ...]) -> list[Way]:
    """Tables of every kind of edges; channels are numbered over all kinds together."""
    ways, first = [], 0
    for kind in kinds:
        edges = skeleton.edges((kind,))
        parent, edge, depth = skeleton.hops(edges)
        tables = [torch.from_numpy(table) for table in (parent, edge + first, depth)]
        ways.append(Way(tables[0], tables[1], tables[2], int(depth.max()), kind == "tree"))
        first += len(edges)
    return ways


@dataclass
class Seeds:
    """M starting points in descending order: type (B, M), position (B, M, 2), score (B, M)."""

    kind: Tensor
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
    maps: Fields,
    ways: list[Way],
    grid: Grid,
    config: DecodeConfig,
) -> Poses:
    """Grow every seed into a pose, all at once.

    Each way of edges is followed from the seed's type outwards; a type it does not reach is
    reached by the embedding at the seed. Per keypoint the way whose landing place has the higher
    heatmap value wins; then it snaps to a peak nearby.

    Args:
        seeds: where to start.
        peaks: the peaks of every type.
        score: (B, T, h, w) score map.
        maps: the network's.
        ways: tables of the kinds of edges.
        grid: where the cells are.
        config: reach of the snap rule and others.
    """
    batch, count = seeds.kind.shape
    types = maps.heat.shape[1]
    kinds = torch.arange(types, device=seeds.kind.device).expand(batch, count, types)
    flat = kinds.flatten(1)
    start = seeds.position[:, :, None].expand(-1, -1, types, -1)
    by_embedding = hop(maps.embedding, flat, start.flatten(1, 2), grid)
    by_embedding = by_embedding.reshape(batch, count, types, 2)

    position, value, local = by_embedding, None, None
    for way in ways:
        landing = _follow(seeds, way, by_embedding, maps, flat, grid)
        found = sample(maps.heat, flat, landing.flatten(1, 2), grid)
        found = found.reshape(batch, count, types)
        precise = torch.full_like(found, float(way.local))
        if value is None or local is None:
            position, value, local = landing, found, precise
        else:
            # On a tie the later kind, the star: one hop has less chance to change person.
            better = found >= value
            position = torch.where(better[..., None], landing, position)
            local = torch.where(better, precise, local)
            value = torch.maximum(found, value)
    is_root = kinds == seeds.kind[..., None]
    position = torch.where(is_root[..., None], start, position)

    size = person_size(position)[..., None]
    wide = (config.snap_scale * size).clamp(min=config.snap_px)
    reach = wide if local is None else torch.where(local > 0, config.snap_px, wide)
    position, keypoint_score = _snap(position, reach, peaks, score, flat, grid)
    position = torch.where(is_root[..., None], start, position)
    keypoint_score = torch.where(is_root, seeds.score[..., None], keypoint_score)
    mean = keypoint_score.mean(-1)
    return Poses(position, keypoint_score, mean * (seeds.score > 0), seeds.kind)


def _follow(
    seeds: Seeds, way: Way, otherwise: Tensor, maps: Fields, flat: Tensor, grid: Grid
) -> Tensor:
    """Walk the edges of one way: (B, M, T, 2) landing places."""
    batch, count, types, _ = otherwise.shape
    parent, edge, depth = (
        table.to(seeds.kind.device)[seeds.kind] for table in (way.parent, way.edge, way.depth)
    )
    start = seeds.position[:, :, None]
    position = torch.where((depth < 0)[..., None], otherwise, start)
    for step in range(1, way.hops + 1):
        here = position.gather(2, parent[..., None].expand(-1, -1, -1, 2)).flatten(1, 2)
        landing = hop(maps.mid, edge.flatten(1), here, grid)
        landing = hop(maps.short, flat, landing, grid)
        landing = landing.reshape(batch, count, types, 2)
        position = torch.where((depth == step)[..., None], landing, position)
    return position


def _snap(
    position: Tensor, reach: Tensor, peaks: Peaks, score: Tensor, flat: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Move keypoints to the peak of highest score * exp(-d^2 / (2 reach^2)), if one is near."""
    square = square_distance(position[:, :, :, None], peaks.position[:, None])
    pull = peaks.score[:, None] * torch.exp(-0.5 * square / reach[..., None].square())
    best, index = pull.max(-1)
    at = peaks.position[:, None].expand(-1, position.shape[1], -1, -1, -1)
    at = at.gather(3, index[..., None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]
    worth = peaks.score[:, None].expand(-1, position.shape[1], -1, -1)
    worth = worth.gather(3, index[..., None])[..., 0]
    here = sample(score, flat, position.flatten(1, 2), grid).reshape(best.shape)
    near = best >= here
    return torch.where(near[..., None], at, position), torch.where(near, worth, here)


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


def skip_test(alive: Tensor, conflict: Tensor, rounds: int) -> Tensor:
    """Keep seeds in order, dropping each that conflicts with an earlier kept one.

    All seeds at once: after n rounds every seed whose chain of conflicts is at most n long is
    decided as the sequential loop decides it.

    Args:
        alive: (B, M) bool, seeds that exist.
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


def level_shares(poses: Poses, levels: list[Level], config: DecodeConfig) -> Tensor:
    """How much each level says about each person: (B, P, L), sums to 1.

    A level sees best the people who are `level_px` large in its reduced picture; away from that
    its share falls as a Gaussian of the logarithm of their size.
    """
    best = torch.tensor([level.factor * config.level_px for level in levels])
    size = person_size(poses.position)[..., None]
    octaves = torch.log2(size / best.to(size))
    return torch.softmax(-0.5 * (octaves / LEVEL_OCTAVES).square(), -1)


def agree(poses: Poses, peaks: list[Peaks], share: Tensor, config: DecodeConfig) -> Poses:
    """Let all levels of the pyramid say where each keypoint is.

    In each level the keypoint's best peak nearby counts by its score, its nearness and the
    level's share; a peak of the fine level is placed better, one of the coarse level belongs
    more surely to a large person.

    Args:
        poses: pixels of the picture.
        peaks: of each level, pixels of the picture.
        share: (B, P, L) of `level_shares`.
        config: reach, as for the snap rule.
    """
    reach = (config.snap_scale * person_size(poses.position)).clamp(min=config.snap_px)
    weight = OWN_PLACE * poses.keypoint_score.clamp(min=OWN_PLACE)
    total, place = weight, weight[..., None] * poses.position
    value = torch.zeros_like(weight)
    for index, level in enumerate(peaks):
        square = square_distance(poses.position[:, :, :, None], level.position[:, None])
        near = torch.exp(-0.5 * square / reach[..., None, None].square())
        pull, nearest = (level.score[:, None] * near).max(-1)
        at = level.position[:, None].expand(-1, pull.shape[1], -1, -1, -1)
        at = at.gather(3, nearest[..., None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]
        weight = pull * share[..., index, None]
        total, place = total + weight, place + weight[..., None] * at
        value = value + weight
    own = poses.keypoint_score
    score = OWN_SCORE * own + (1 - OWN_SCORE) * value
    mean = torch.where(poses.score > 0, score.square().mean(-1).sqrt(), poses.score)
    score = torch.where(own > 0, score, own)
    return replace(poses, position=place / total[..., None], keypoint_score=score, score=mean)


def unclaimed(poses: Poses, radius_px: float) -> Tensor:
    """Keypoint scores, 0 where an earlier pose has the same keypoint there (soft scoring)."""
    square = square_distance(poses.position[:, :, None], poses.position[:, None])
    order = torch.arange(square.shape[1], device=square.device)
    earlier = (order[:, None] > order)[None, :, :, None]
    live = (poses.score > 0)[:, None, :, None]
    claimed = ((square < radius_px**2) & earlier & live).any(2)
    return torch.where(claimed, torch.zeros_like(poses.keypoint_score), poses.keypoint_score)
