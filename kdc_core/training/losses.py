"""Losses: Fields against target Fields (paper equation 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.codec.codec import Codec
from kdc_core.codec.encode import Instances
from kdc_core.codec.fields import Fields
from kdc_core.codec.person_map import near_edge
from kdc_core.config import Config, ConfigError, TrainConfig

# Offsets are learnt in units near their typical length, so that no term dwarfs the others.
EMBEDDING_SCALE_PX = 32.0
# Keypoints' boxes, which decode measures a person by, are smaller than masks' boxes.
KEYPOINT_BOX = 0.8
# Least divisor of means over images or persons: no batch is that small unless it is empty.
LEAST = 1e-3
# Least cells of disks an image counts with: crops of nobody must not outweigh all others.
LEAST_CELLS = 50.0
# Brings the focal loss of Gaussian heatmaps to the size of the cross-entropy of disks.
FOCAL = 4.0
# Keeps the logarithms of scores, and of what they lack of 1, finite.
SCORE_MARGIN = 1e-4
LEAST_LOG_SCORE = -9.0
# The instance loss looks at every second cell of every second row.
THINNING = 2
# A cell of the person map lies at an edge when one of the other kind is no farther than this.
EDGE_CELLS = 2


class Loss(NamedTuple):
    """A loss before it is divided by what was there to learn.

    Several processes divide by the mean of their divisors: their averaged gradients are then
    those of one process that sees the whole batch.

    Attributes:
        total: scalar, sum over the batch.
        divisor: scalar, of weights, cells or persons.
        least: what the divisor is at least.
    """

    total: Tensor
    divisor: Tensor
    least: float

    def over(self, divisor: Tensor) -> Tensor:
        """The loss for a divisor: its own, or the mean over the processes."""
        return self.total / divisor.clamp(min=self.least)


def all_losses(
    fields: Fields[Tensor],
    targets: Fields[Tensor],
    weights: Fields[Tensor],
    instances: Instances[Tensor],
    codec: Codec,
    config: Config,
) -> dict[str, Loss]:
    """The losses of the parts that learn, in the order of the columns of a run.

    Those of PoseNet's maps are also taken where a SegNet that refines them learns.
    """
    train = config.train
    losses: dict[str, Loss] = {}
    if "posenet" in train.train or config.network.refine:
        losses |= pose_losses(fields, targets, weights, codec, train.smooth_px)
        if train.weight_score:
            losses["score"] = score_loss(fields, targets, weights, codec.settings.score_tau_px)
    if "segnet" in train.train:
        losses |= mask_losses(fields, targets, weights, train.smooth_px, train.weight_edge)
        losses["instance"] = instance_loss(fields.embedding, weights.mask, instances, codec)
    return losses


def pose_losses(
    fields: Fields[Tensor],
    targets: Fields[Tensor],
    weights: Fields[Tensor],
    codec: Codec,
    smooth_px: float = 2.0,
) -> dict[str, Loss]:
    """Take the losses of PoseNet's maps.

    Args:
        fields: the network's maps.
        targets: of the same shapes.
        weights: where and how much each loss counts; all zero switches a term off.
        codec: form of the heatmaps, and R, the scale of the short-range offsets (mid: 2 R).
        smooth_px: below it offset losses turn quadratic; 0 = L1, as in the paper.

    Returns:
        heat (binary cross-entropy per cell of a disk, focal for Gaussians), short and mid
        (smooth L1).
    """
    heat = F.binary_cross_entropy_with_logits(fields.heat, targets.heat, reduction="none")
    if codec.heat == "gaussian":
        heat = FOCAL * _focal(heat, torch.sigmoid(fields.heat), targets.heat)
    cells, least = targets.heat.sum(), LEAST_CELLS * len(targets.heat)
    radius = codec.disk_radius_px
    return {
        "heat": Loss((heat * weights.heat).sum(), cells, least),
        "short": _offset_loss(fields.short, targets.short, weights.short, radius, smooth_px),
        "mid": _offset_loss(fields.mid, targets.mid, weights.mid, 2 * radius, smooth_px),
    }


def score_loss(
    fields: Fields[Tensor], targets: Fields[Tensor], weights: Fields[Tensor], tau_px: float
) -> Loss:
    """Take the focal cross-entropy of the score map in which decode seeks peaks.

    It is sigmoid(heat) exp(-|short|^2 / 2 tau^2), and should be 1 at a keypoint, and what the
    distance to it makes of that in the rest of its disk: heat and short-range offsets, which
    other losses teach apart, have to agree on one place.

    Args:
        fields, targets, weights: as for `pose_losses`.
        tau_px: of decode's settings.
    """
    inside = weights.short[:, :, 0] > 0
    truth = inside * torch.exp(targets.short.square().sum(2) / (-2 * tau_px**2))
    # In logarithms: the product's own would be lost where the offset is long.
    log_score = F.logsigmoid(fields.heat) - fields.short.square().sum(2) / (2 * tau_px**2)
    score = log_score.exp().clamp(max=1 - SCORE_MARGIN)
    entropy = -(truth * log_score.clamp(min=LEAST_LOG_SCORE) + (1 - truth) * torch.log1p(-score))
    focal = _focal(entropy, score, truth)
    return Loss((focal * weights.heat).sum(), truth.sum(), LEAST_CELLS * len(truth))


def mask_losses(
    fields: Fields[Tensor],
    targets: Fields[Tensor],
    weights: Fields[Tensor],
    smooth_px: float = 2.0,
    weight_edge: float = 1.0,
) -> dict[str, Loss]:
    """Take the losses of SegNet's maps; arguments as for `pose_losses`, and:

    Args:
        weight_edge: of cells at people's edges in the cross-entropy, where others have 1.

    Returns:
        mask (binary cross-entropy), dice, embedding (smooth L1).
    """
    bce = F.binary_cross_entropy_with_logits(fields.mask, targets.mask, reduction="none")
    edge = near_edge(targets.mask > 0.5, EDGE_CELLS, weights.mask > 0)
    known = weights.mask * torch.where(edge, weight_edge, 1.0)
    probability = torch.sigmoid(fields.mask) * weights.mask
    truth = targets.mask * weights.mask
    axes = (1, 2, 3)
    dice = 1 - (2 * (probability * truth).sum(axes) + 1) / (
        probability.sum(axes) + truth.sum(axes) + 1
    )
    has_mask = (weights.mask.sum(axes) > 0).float()
    return {
        "mask": Loss((bce * known).sum(), known.sum(), 1.0),
        "dice": Loss((dice * has_mask).sum(), has_mask.sum(), LEAST),
        "embedding": _offset_loss(
            fields.embedding, targets.embedding, weights.embedding, EMBEDDING_SCALE_PX, smooth_px
        ),
    }


def instance_loss(
    embedding: Tensor, weight: Tensor, instances: Instances[Tensor], codec: Codec
) -> Loss:
    """Take the dice loss of phi_j against person j's cells, centroids where they truly are.

    It trains what the assignment of pixels uses (paper III-B): among the cells that people
    cover, each person's must come near its centroids and nobody else's.

    Args:
        embedding: (B, T, 2, h, w) of the network.
        weight: (B, 1, n h, n w) weights of the person map.
        instances: of the same images.
        codec: where the cells are, and sigma as decode will use it.

    Returns:
        Mean over the persons of the batch; 0 without any.
    """
    height, width = embedding.shape[-2:]
    x = codec.grid.to_pixel(torch.arange(width, device=embedding.device))[::THINNING]
    y = codec.grid.to_pixel(torch.arange(height, device=embedding.device))[::THINNING, None]
    thin = embedding[..., ::THINNING, ::THINNING]
    cover = instances.cover[..., ::THINNING, ::THINNING]
    sigma = codec.settings.sigma_scale * KEYPOINT_BOX * instances.size
    sigma = sigma.clamp(min=codec.settings.sigma_min_px)[..., None, None, None]
    point = instances.point[..., None, None]
    square = (thin[:, None, :, 0] + x - point[:, :, :, 0]).square()
    square = square + (thin[:, None, :, 1] + y - point[:, :, :, 1]).square()
    near = torch.exp(square / (-2 * sigma.square()))
    phi = (instances.weight[..., None, None] * near).sum(2)

    step = THINNING * (weight.shape[-1] // width)
    people = (cover.sum(1, keepdim=True) > 0) * weight[..., ::step, ::step]
    both = (phi * cover * people).sum((2, 3))
    each = (phi.square() * people).sum((2, 3)) + (cover.square() * people).sum((2, 3))
    dice = 1 - (2 * both + 1) / (each + 1)
    present = (instances.weight.sum(-1) > 0).to(dice.dtype)
    return Loss((dice * present).sum(), present.sum(), LEAST)


def total_loss(losses: dict[str, Tensor], train: TrainConfig) -> Tensor:
    """Add the losses with the weights of the configuration.

    Raises:
        ConfigError: all of these weights are 0.
    """
    weights = {f"weight_{name}": getattr(train, f"weight_{name}") for name in losses}
    if not any(weights.values()):
        raise ConfigError(
            f"train: {', '.join(weights)}: one must be above 0, or nothing is learnt"
        )
    pairs = zip(weights.values(), losses.values(), strict=True)
    return torch.stack([weight * value for weight, value in pairs]).sum()


def _focal(entropy: Tensor, probability: Tensor, truth: Tensor) -> Tensor:
    """Weigh cells by the square of what is missing: nearly all of them are right and easy."""
    return entropy * (probability - truth).square()


def _offset_loss(
    offset: Tensor, target: Tensor, weight: Tensor, scale_px: float, smooth_px: float
) -> Loss:
    """Weighted mean of the smooth L1 distance of a field, in units of the scale."""
    distance = F.smooth_l1_loss(offset, target, reduction="none", beta=smooth_px)
    return Loss((distance * weight).sum() / (2 * scale_px), weight.sum(), 1e-6)
