"""Non-maximum suppression: one pose a person, and each keypoint one person's."""

from __future__ import annotations

import torch
from torch import Tensor

from kdc_core.codec.codec import Codec
from kdc_core.codec.grouping import Poses, person_size
from kdc_core.codec.peaks import square_distance
from kdc_core.codec.skeleton import Skeleton


def conflicts(poses: Poses, codec: Codec) -> Tensor:
    """Which poses a better one makes superfluous.

    Returns:
        (B, n, n) bool: [i, j] with j before i, where pose j has a keypoint of pose i's root type
        within the skip radius of it, or poses i and j are alike by OKS.
    """
    count, types = poses.position.shape[2:]
    device, dtype = poses.position.device, poses.position.dtype
    order = torch.arange(count, device=device)
    root = (poses.root[..., None] == torch.arange(types, device=device)).to(dtype)[:, None]
    roots = (root * poses.position).sum(-1)
    theirs = root @ poses.position.transpose(2, 3)  # [i, j]: pose j's keypoint of i's root type
    near = square_distance(theirs, roots[..., None]) < codec.settings.skip_radius_px**2
    alike = pose_oks(poses.position, codec.skeleton) > codec.settings.same_pose_oks
    return (near | alike) & (order[:, None] > order)


def pose_oks(position: Tensor, skeleton: Skeleton) -> Tensor:
    """OKS of each pose against each other, over all keypoints: (B, 2, M, T) -> (B, M, M).

    The scale is the larger of the two keypoint boxes.
    """
    spread = torch.tensor(skeleton.sigmas, device=position.device) * 2
    points = (position[..., :-1] / spread).permute(0, 3, 2, 1)  # (B, K, M, 2)
    norm = (points * points).sum(-1, keepdim=True)
    one = torch.ones_like(norm)
    # |a - b|^2 of all pairs as one product: (a, |a|^2, 1) times (-2 b, 1, |b|^2)
    square = torch.cat((points, norm, one), -1) @ torch.cat((-2 * points, one, norm), -1).mT
    size = person_size(position)
    size = torch.maximum(size[:, :, None], size[:, None])
    return torch.exp(square * (-0.5 / (size * size))[:, None]).mean(1)


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
        keep = torch.relu(living - table @ keep)  # no earlier kept one beats it
    return keep[..., 0] > 0


def soft_nms(poses: Poses, radius_px: float) -> Tensor:
    """Keypoint scores (B, n, T), 0 where an earlier pose has the same keypoint there.

    PersonLab's soft non-maximum suppression: a keypoint counts for one person only.
    """
    square = square_distance(poses.position[:, :, :, None], poses.position[:, :, None])
    order = torch.arange(square.shape[1], device=square.device)
    earlier = (order[:, None] > order)[None, :, :, None]
    live = (poses.score > 0)[:, None, :, None]
    claimed = ((square < radius_px**2) & earlier & live).any(2)
    return torch.where(claimed, torch.zeros_like(poses.keypoint_score), poses.keypoint_score)
