"""Losses: Fields against target Fields (paper equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.config import TrainConfig
from kdc_core.fields import Fields

# Offsets are learnt in units near their typical length, so that no term dwarfs the others.
EMBEDDING_SCALE_PX = 32.0
SMOOTH_PX = 2.0  # below it the offset losses turn quadratic


def pose_losses(
    fields: Fields, targets: Fields, weights: Fields, disk_radius_px: float
) -> dict[str, Tensor]:
    """Take the losses of PoseNet's maps.

    Args:
        fields: the network's maps.
        targets: of the same shapes.
        weights: where and how much each loss counts; all zero switches a term off.
        disk_radius_px: R, the scale of the short-range offsets (mid-range: 2 R).

    Returns:
        Scalars: heat (binary cross-entropy per disk cell), short and mid (smooth L1).
    """
    cells = targets.heat.sum().clamp(min=1.0)
    heat = F.binary_cross_entropy_with_logits(fields.heat, targets.heat, reduction="none")
    return {
        "heat": (heat * weights.heat).sum() / cells,
        "short": _offset_loss(fields.short, targets.short, weights.short, disk_radius_px),
        "mid": _offset_loss(fields.mid, targets.mid, weights.mid, 2 * disk_radius_px),
    }


def mask_losses(fields: Fields, targets: Fields, weights: Fields) -> dict[str, Tensor]:
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
        "mask": (bce * weights.mask).sum() / weights.mask.sum().clamp(min=1.0),
        "dice": (dice * has_mask).sum() / has_mask.sum().clamp(min=1.0),
        "embedding": _offset_loss(
            fields.embedding, targets.embedding, weights.embedding, EMBEDDING_SCALE_PX
        ),
    }


def total_loss(losses: dict[str, Tensor], train: TrainConfig) -> Tensor:
    """Add the losses with the weights of the configuration."""
    return torch.stack(
        [getattr(train, f"weight_{name}") * value for name, value in losses.items()]
    ).sum()


def _offset_loss(offset: Tensor, target: Tensor, weight: Tensor, scale_px: float) -> Tensor:
    """Weighted mean of the smooth L1 distance, in units of the scale."""
    distance = F.smooth_l1_loss(offset, target, reduction="none", beta=SMOOTH_PX)
    return (distance * weight).sum() / (2 * scale_px * weight.sum()).clamp(min=1e-6)
