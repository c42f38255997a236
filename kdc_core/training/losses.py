"""Losses: Fields against target Fields (paper equation 2).

Each is a sum over the batch divided by what was there to learn. With several processes the
divisor is the mean over them (`Share`), so that averaged gradients are those of one process that
sees the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.codec.encode import Instances
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid
from kdc_core.config import DecodeConfig, TrainConfig

# Mean over processes of a divisor; of one process, itself.
Share = Callable[[Tensor], Tensor]

# Offsets are learnt in units near their typical length, so that no term dwarfs the others.
EMBEDDING_SCALE_PX = 32.0
# Keypoints' boxes, which decode measures a person by, are smaller than masks' boxes.
KEYPOINT_BOX = 0.8
# Least divisor of means over pictures or persons: no batch is that small unless it is empty.
LEAST = 1e-3
# Least cells of disks a picture counts with: crops of nobody must not outweigh all others.
LEAST_CELLS = 50.0
# The instance loss looks at every second cell of every second row.
THINNING = 2


def alone(divisor: Tensor) -> Tensor:
    """The Share of a single process."""
    return divisor


def pose_losses(
    fields: Fields,
    targets: Fields,
    weights: Fields,
    disk_radius_px: float,
    smooth_px: float = 2.0,
    share: Share = alone,
) -> dict[str, Tensor]:
    """Take the losses of PoseNet's maps.

    Args:
        fields: the network's maps.
        targets: of the same shapes.
        weights: where and how much each loss counts; all zero switches a term off.
        disk_radius_px: R, the scale of the short-range offsets (mid-range: 2 R).
        smooth_px: below it offset losses turn quadratic; 0 = L1, as in the paper.
        share: mean of a divisor over processes.

    Returns:
        Scalars: heat (binary cross-entropy per disk cell), short and mid (smooth L1).
    """
    cells = share(targets.heat.sum()).clamp(min=LEAST_CELLS * targets.heat.shape[0])

    def offset(name: str, scale_px: float) -> Tensor:
        maps, truth, weight = (getattr(part, name) for part in (fields, targets, weights))
        return _offset_loss(maps, truth, weight, scale_px, smooth_px, share)

    heat = F.binary_cross_entropy_with_logits(fields.heat, targets.heat, reduction="none")
    return {
        "heat": (heat * weights.heat).sum() / cells,
        "short": offset("short", disk_radius_px),
        "mid": offset("mid", 2 * disk_radius_px),
    }


def mask_losses(
    fields: Fields,
    targets: Fields,
    weights: Fields,
    smooth_px: float = 2.0,
    share: Share = alone,
) -> dict[str, Tensor]:
    """Take the losses of SegNet's maps; arguments as for `pose_losses`.

    Returns:
        Scalars: mask (binary cross-entropy), dice, embedding (smooth L1).
    """
    bce = F.binary_cross_entropy_with_logits(fields.mask, targets.mask, reduction="none")
    probability = torch.sigmoid(fields.mask) * weights.mask
    truth = targets.mask * weights.mask
    axes = (1, 2, 3)
    dice = 1 - (2 * (probability * truth).sum(axes) + 1) / (
        probability.sum(axes) + truth.sum(axes) + 1
    )
    has_mask = (weights.mask.sum(axes) > 0).float()
    return {
        "mask": (bce * weights.mask).sum() / share(weights.mask.sum()).clamp(min=1.0),
        "dice": (dice * has_mask).sum() / share(has_mask.sum()).clamp(min=LEAST),
        "embedding": _offset_loss(
            fields.embedding,
            targets.embedding,
            weights.embedding,
            EMBEDDING_SCALE_PX,
            smooth_px,
            share,
        ),
    }


def instance_loss(
    embedding: Tensor,
    weight: Tensor,
    instances: Instances,
    grid: Grid,
    decode: DecodeConfig,
    share: Share = alone,
) -> Tensor:
    """Take the dice loss of phi_j against person j's cells, centroids where they truly are.

    It trains what the assignment of pixels uses (paper III-B): among the cells that people
    cover, each person's must come near its centroids and nobody else's.

    Args:
        embedding: (B, T, 2, h, w) of the network.
        weight: (B, 1, h, w) weights of the person map.
        instances: of the same pictures.
        grid: where the cells are.
        decode: sigma, as decode will use it.
        share: mean of a divisor over processes.

    Returns:
        Mean over the persons of the batch; 0 without any.
    """
    height, width = embedding.shape[-2:]
    x = grid.to_pixel(torch.arange(width, device=embedding.device))[::THINNING]
    y = grid.to_pixel(torch.arange(height, device=embedding.device))[::THINNING, None]
    thin = embedding[..., ::THINNING, ::THINNING]
    cover = instances.cover[..., ::THINNING, ::THINNING]
    sigma = decode.sigma_scale * KEYPOINT_BOX * instances.size
    sigma = sigma.clamp(min=decode.sigma_min_px)[..., None, None, None]
    point = instances.point[..., None, None]
    square = (thin[:, None, :, 0] + x - point[:, :, :, 0]).square()
    square = square + (thin[:, None, :, 1] + y - point[:, :, :, 1]).square()
    near = torch.exp(square / (-2 * sigma.square()))
    phi = (instances.weight[..., None, None] * near).sum(2)

    people = (cover.sum(1, keepdim=True) > 0) * weight[..., ::THINNING, ::THINNING]
    both = (phi * cover * people).sum((2, 3))
    each = (phi.square() * people).sum((2, 3)) + (cover.square() * people).sum((2, 3))
    dice = 1 - (2 * both + 1) / (each + 1)
    present = (instances.weight.sum(-1) > 0).to(dice.dtype)
    return (dice * present).sum() / share(present.sum()).clamp(min=LEAST)


def total_loss(losses: dict[str, Tensor], train: TrainConfig) -> Tensor:
    """Add the losses with the weights of the configuration."""
    return torch.stack(
        [getattr(train, f"weight_{name}") * value for name, value in losses.items()]
    ).sum()


def _offset_loss(
    offset: Tensor, target: Tensor, weight: Tensor, scale_px: float, smooth_px: float, share: Share
) -> Tensor:
    """Weighted mean of the smooth L1 distance, in units of the scale."""
    distance = F.smooth_l1_loss(offset, target, reduction="none", beta=smooth_px)
    return (distance * weight).sum() / (2 * scale_px * share(weight.sum())).clamp(min=1e-6)
