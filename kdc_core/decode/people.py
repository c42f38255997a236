"""The whole of decode: Fields to people."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdc_core.config import DecodeConfig
from kdc_core.decode.centroids import (
    assign,
    centroid_weights,
    decide,
    mean_embedding,
    smooth,
)
from kdc_core.decode.grouping import (
    Poses,
    agree,
    conflicts,
    grow_poses,
    level_shares,
    make_ways,
    pick_seeds,
    pool,
    skip_test,
    unclaimed,
)
from kdc_core.decode.peaks import Peaks, find_peaks, score_map
from kdc_core.fields import Fields
from kdc_core.grid import Grid, Level
from kdc_core.skeleton import Skeleton


@dataclass
class People:
    """The fixed-shape result of decode: P people in no order.

    Absent people have score 0 and all their values are 0.

    Attributes:
        score: (B, P).
        keypoints: (B, P, K, 3) x, y in network pixels, score 0..1.
        centroids: (B, P, K', 4) type, x, y, weight of the centroids used.
        owner: (B, uh, uw) int32, 1 + index of the person, the same all over a cell; 0 = nobody.
        confidence: (B, uh, uw) 0..1, interpolated between cells; `mask_threshold` cuts it.
    """

    score: Tensor
    keypoints: Tensor
    centroids: Tensor
    owner: Tensor
    confidence: Tensor


class Decoder(nn.Module):
    """Fields to People for one skeleton, grid, set of edges and configuration.

    Attributes:
        levels: at which the picture is seen; those of `decode.pyramid` unless given.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        grid: Grid,
        edge_kinds: tuple[str, ...],
        config: DecodeConfig,
        levels: list[Level] | None = None,
    ):
        super().__init__()
        self.skeleton, self.grid, self.config = skeleton, grid, config
        self.levels = levels or [Level.of(grid, factor) for factor in config.pyramid]
        self.edge_kinds = edge_kinds
        self.ways = make_ways(skeleton, edge_kinds)

    def poses(self, levels: list[Fields]) -> tuple[Poses, list[Peaks]]:
        """Find the P best poses of all levels together; absent ones have score 0.

        Returns:
            The poses, each as its own level sees it, and the peaks of every level.
        """
        config = self.config
        grown, seen = [], []
        for level, fields in zip(self.levels, levels, strict=True):
            score = score_map(fields.heat, fields.short, config.score_tau_px)
            peaks = find_peaks(score, fields.short, self.grid, config.peaks, config.peak_window)
            seeds = pick_seeds(peaks, config, self.skeleton)
            poses = grow_poses(seeds, peaks, score, fields, self.ways, self.grid, config)
            grown.append(poses.in_picture(level))
            seen.append(peaks.in_picture(level))
        poses = pool(grown)
        keep = skip_test(
            poses.score > config.min_pose_score,
            conflicts(poses, self.skeleton, config),
            config.suppression_rounds,
        )
        poses.score = torch.where(keep, poses.score, torch.zeros_like(poses.score))
        poses = poses.take(poses.score.topk(min(config.people, keep.shape[1])).indices)
        poses.keypoint_score = unclaimed(poses, config.skip_radius_px)
        return poses, seen

    def forward(self, levels: list[Fields], poses: Poses | None = None) -> People:
        """Decode.

        Args:
            levels: Fields of the picture at each level.
            poses: P people whose keypoints are known; None finds them.
        """
        config = self.config
        seen: list[Peaks] = []
        if poses is None:
            poses, seen = self.poses(levels)
        share = level_shares(poses, self.levels, config)
        weight, kind = centroid_weights(poses, config)
        at = poses.position.gather(2, kind[..., None].expand(-1, -1, -1, 2))
        phi, mask = [], []
        for level, fields in zip(self.levels, levels, strict=True):
            person = torch.sigmoid(fields.mask)
            near = assign(fields.embedding, poses, at, weight, kind, self.grid, level, config)
            if config.mean_embedding:
                mean = mean_embedding(
                    fields.embedding, near, person, at, kind, self.grid, level, config
                )
                near = assign(
                    fields.embedding, poses, mean, weight, kind, self.grid, level, config
                )
            phi.append(smooth(near, config.igo_sigma_cells))
            mask.append(person)
        owner, confidence = decide(phi, mask, share, self.levels, config)
        if len(seen) > 1:
            # Only now: embeddings point where the pose's own level sees its keypoints.
            poses = agree(poses, seen, share, config)

        present = (poses.score > 0).to(phi[0].dtype)[..., None, None]
        keypoints = torch.cat((poses.position, poses.keypoint_score[..., None]), -1)[:, :, :-1]
        centroids = torch.cat((kind[..., None].to(at.dtype), at, weight[..., None]), -1)
        score = poses.score**config.score_power
        return People(score, keypoints * present, centroids * present, owner, confidence)
