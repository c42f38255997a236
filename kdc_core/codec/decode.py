"""Decode: Fields to people, as one fixed-shape batched program of torch operations.

Every tensor has a size fixed by the configuration (N peaks a type, M seeds, P people), so the
time does not depend on the number of people, and the program exports behind the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.codec.centroids import (
    assign_pixels,
    choose_centroids,
    mean_embedding,
    pixel_affinity,
    smooth,
)
from kdc_core.codec.codec import Codec
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Level
from kdc_core.codec.grouping import (
    Poses,
    average_levels,
    grow_poses,
    level_weights,
    pick_seeds,
    pool,
)
from kdc_core.codec.peaks import Peaks, find_peaks, score_map
from kdc_core.codec.suppression import conflicts, soft_nms, suppress

# Logit of a cell that is certain.
CERTAIN = 12.0


@dataclass
class People:
    """The fixed-shape result of decode: P people.

    Absent people have score 0 and all their values are 0. They are in descending order of score;
    with a pyramid, of the score that they had before their levels were averaged.

    Attributes:
        score: (B, P).
        keypoints: (B, P, K, 3) x, y in network pixels, score 0..1.
        centroids: (B, P, K', 4) type, x, y, weight of the centroids used.
        owner: (B, uh, uw) int32, 1 + index of the person, the same all over a cell; 0 = nobody.
        mask_probability: (B, uh, uw) 0..1, interpolated between cells; `mask_threshold` cuts it.
    """

    score: Tensor
    keypoints: Tensor
    centroids: Tensor
    owner: Tensor
    mask_probability: Tensor


def as_logits(targets: Fields[np.ndarray]) -> Fields[Tensor]:
    """Turn encoded targets (numpy) into the torch Fields of a network that makes no mistake."""
    fields: Fields[Tensor] = targets.map(torch.from_numpy)
    fields.heat = CERTAIN * (2 * fields.heat - 1)
    fields.mask = torch.logit(fields.mask, eps=math.exp(-CERTAIN))
    return fields


def decode(
    fields: list[Fields[Tensor]],
    codec: Codec,
    levels: list[Level] | None = None,
    poses: Poses | None = None,
) -> People:
    """Find the people of a batch of images.

    Args:
        fields: of the image at each level.
        codec: skeleton, grid, edges, and settings, from which the sizes of all tensors follow.
        levels: how the image was reduced for each; the first sets the grid of the masks. None =
            as the settings' pyramid says.
        poses: P people whose keypoints are known; None finds them.
    """
    config = codec.settings
    levels = codec.levels if levels is None else levels
    peaks: list[Peaks] = []
    if poses is None:
        poses, peaks = find_poses(fields, codec, levels)
    present = poses.score > 0
    level_weight = level_weights(poses, levels, config)
    chosen = choose_centroids(poses, config)
    alive = replace(chosen, weight=torch.where(present[..., None], chosen.weight, 0.0))
    phi, mask = [], []
    for index, (level, maps) in enumerate(zip(levels, fields, strict=True)):
        person_map, centroids = torch.sigmoid(maps.mask), alive
        if config.mean_embedding:
            first = pixel_affinity(maps.embedding, poses, alive, level, codec)
            cells = F.avg_pool2d(person_map, maps.mask_fineness)
            centroids = mean_embedding(maps.embedding, first, cells, alive, level, codec)
        of_level = replace(centroids, weight=centroids.weight * level_weight[..., index, None])
        affinity = pixel_affinity(maps.embedding, poses, of_level, level, codec)
        phi.append(smooth(affinity, config.igo_sigma_cells))
        mask.append(person_map)
    owner, mask_probability = assign_pixels(phi, mask, level_weight, levels, config)
    if len(peaks) > 1:
        # Only now: embeddings point where the pose's own level sees its keypoints.
        poses = average_levels(poses, peaks, level_weight, config)

    keypoints = torch.cat((poses.position, poses.keypoint_score[:, None]), 1)
    types = chosen.types[:, None].to(chosen.position.dtype)
    used = torch.cat((types, chosen.position, chosen.weight[:, None]), 1)
    keypoints, used = (
        torch.where(present[..., None, None], values.permute(0, 2, 3, 1), 0.0)
        for values in (keypoints[..., :-1], used)
    )
    score = poses.score**config.score_power
    return People(score, keypoints, used, owner, mask_probability)


def find_poses(
    fields: list[Fields[Tensor]], codec: Codec, levels: list[Level]
) -> tuple[Poses, list[Peaks]]:
    """Find the P best poses of all levels together; absent ones have score 0.

    Args:
        fields, codec, levels: as for `decode`.

    Returns:
        The poses, each as its own level sees it, and the peaks of every level.
    """
    grid, config = codec.grid, codec.settings
    grown, seen = [], []
    for level, maps in zip(levels, fields, strict=True):
        score = score_map(maps.heat, maps.short, config.score_tau_px)
        peaks = find_peaks(
            score, maps.short, grid, config.peaks, config.peak_window, config.score_tau_px
        )
        seeds = pick_seeds(peaks, codec)
        poses = grow_poses(seeds, peaks, score, maps, codec)
        grown.append(poses.in_image(level))
        seen.append(peaks.in_image(level))
    poses = pool(grown)
    keep = suppress(
        poses.score > config.min_pose_score,
        conflicts(poses, codec),
        config.suppression_rounds,
    )
    poses.score = torch.where(keep, poses.score, 0.0)
    poses = poses.take(poses.score.topk(min(config.people, keep.shape[1])).indices)
    poses.keypoint_score = soft_nms(poses, config.skip_radius_px)
    return poses, seen
