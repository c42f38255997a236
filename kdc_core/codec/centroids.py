"""MaskCentroid: which person each pixel belongs to (paper III-B and III-C)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.grouping import Poses, person_size
from kdc_core.config import DecodeConfig

# Positions are multiplied and subtracted in squares: in these units float32 has room.
UNIT_PX = 32.0
# Where no phi is above it, nobody is near.
NOBODY = 1e-3
# Weight of the body center where no keypoint is confident enough to be a centroid.
FALLBACK = 1e-4


def centroid_weights(poses: Poses, config: DecodeConfig) -> tuple[Tensor, Tensor]:
    """Choose each person's centroids; every choice is one set of weights over the types.

    static: the body center (SM_c). dynamic: the single most confident keypoint (DM_c).
    dynamic_multi: the K' most confident keypoints by their scores. personlab: every visible
    keypoint alike.

    Returns:
        weight, types: (B, P, K') weights with sum 1 and their types.
    """
    score = poses.keypoint_score
    center = torch.zeros_like(score)
    center[..., -1] = 1.0
    keypoints = score * (1 - center)
    if config.centroid == "static":
        weight, count = center, 1
    elif config.centroid == "dynamic":
        weight, count = keypoints + FALLBACK * center, 1
    elif config.centroid == "dynamic_multi":
        weight, count = keypoints + FALLBACK * center, config.centroids
    else:
        weight = (keypoints > config.visible).to(score.dtype) + FALLBACK * center
        count = score.shape[-1]
    weight, types = weight.topk(count)
    return weight / weight.sum(-1, keepdim=True), types


def assign(
    embedding: Tensor,
    poses: Poses,
    at: Tensor,
    weight: Tensor,
    types: Tensor,
    grid: Grid,
    level: Level,
    config: DecodeConfig,
) -> Tensor:
    """How much each pixel is each person's.

    phi_j(x) = sum_k w_jk exp(-|e_k(x) - c_jk|^2 / (2 sigma_j^2)), with e_k(x) the place where
    pixel x expects keypoint k of its person, and sigma_j in proportion to the person's size. The
    exponents of all people and centroids are one matrix product.

    Args:
        embedding: (B, T, 2, h, w) pixels of the reduced image.
        poses: P people; those of score 0 take nothing.
        at: (B, P, K', 2) the centroids, pixels of the image.
        weight, types: (B, P, K') of `centroid_weights`.
        grid: where the cells are in the reduced image.
        level: how the image was reduced.
        config: sigma.

    Returns:
        (B, P, h, w) in 0..1.
    """
    batch, num_types, _, height, width = embedding.shape
    people, count = types.shape[1:]
    device, dtype = embedding.device, embedding.dtype
    ex, ey = _pointed_at(embedding, grid, level)
    columns = torch.cat((ex, ey, ex.square() + ey.square(), torch.ones_like(ex[:, :1])), 1)

    at = at / UNIT_PX
    sigma = (config.sigma_scale * person_size(poses.position)).clamp(min=config.sigma_min_px)
    sharp = 0.5 * (UNIT_PX / sigma[..., None]).square()
    one_hot = (types[..., None] == torch.arange(num_types, device=device)).to(dtype)
    constant = torch.log(weight.clamp(min=1e-30)) - sharp * at.square().sum(-1)
    rows = torch.cat(
        (
            one_hot * (2 * sharp * at[..., 0])[..., None],
            one_hot * (2 * sharp * at[..., 1])[..., None],
            one_hot * -sharp[..., None],
            constant[..., None],
        ),
        -1,
    )
    absent = poses.score <= 0
    rows = torch.where(absent[..., None, None], torch.zeros_like(rows), rows)
    phi = torch.exp(rows.flatten(1, 2) @ columns)
    phi = phi.reshape(batch, people, count, height, width).sum(2)
    return phi * (~absent).to(dtype)[..., None, None]


def mean_embedding(
    embedding: Tensor,
    phi: Tensor,
    person: Tensor,
    at: Tensor,
    types: Tensor,
    grid: Grid,
    level: Level,
    config: DecodeConfig,
) -> Tensor:
    """Move each centroid to the mean place its person's pixels point at (paper equation 4).

    Args:
        embedding, at, types, grid, level: as for `assign`.
        phi: (B, P, h, w) of a first assignment.
        person: (B, 1, h, w) probability of the person map.
        config: `phi_threshold`.

    Returns:
        (B, P, K', 2) pixels; `at` where a person has no pixel.
    """
    best = phi.amax(1, keepdim=True)
    mine = (phi == best) & (best > config.phi_threshold) & (person > 0.5)
    pixels = mine.to(embedding.dtype).flatten(2)
    count = pixels.sum(-1)[..., None, None]
    places = torch.stack(_pointed_at(embedding, grid, level), -1)  # (B, T, h * w, 2)
    sums = torch.einsum("bpn,btnc->bptc", pixels, places) * UNIT_PX
    mean = sums.gather(2, types[..., None].expand(-1, -1, -1, 2)) / count.clamp(min=1)
    return torch.where(count > 0, mean, at)


def _pointed_at(embedding: Tensor, grid: Grid, level: Level) -> tuple[Tensor, Tensor]:
    """x and y, (B, T, h * w) in UNIT_PX of the image, where each pixel expects each type."""
    height, width = embedding.shape[-2:]
    device, dtype = embedding.device, embedding.dtype
    x, y = (
        level.to_image(grid.to_pixel(torch.arange(n, device=device, dtype=dtype))) / UNIT_PX
        for n in (width, height)
    )
    pointed = embedding * (level.factor / UNIT_PX)
    return (pointed[:, :, 0] + x).flatten(2), (pointed[:, :, 1] + y[:, None]).flatten(2)


def smooth(phi: Tensor, sigma_cells: float) -> Tensor:
    """Instance-wise Gaussian optimization (paper III-B): smooth each person's map.

    Args:
        phi: (B, P, h, w).
        sigma_cells: width of the Gaussian in cells of the grid; 0 leaves phi as it is.
    """
    if sigma_cells == 0:
        return phi
    half = max(1, math.ceil(2 * sigma_cells))
    x = torch.arange(-half, half + 1, device=phi.device, dtype=phi.dtype)
    kernel = torch.exp(-0.5 * (x / sigma_cells).square())
    kernel = kernel / kernel.sum()
    people = phi.shape[1]
    phi = F.conv2d(
        phi,
        kernel.reshape(1, 1, 1, -1).expand(people, -1, -1, -1),
        padding=(0, half),
        groups=people,
    )
    return F.conv2d(
        phi,
        kernel.reshape(1, 1, -1, 1).expand(people, -1, -1, -1),
        padding=(half, 0),
        groups=people,
    )


def decide(
    phi: list[Tensor],
    mask: list[Tensor],
    level_weight: Tensor,
    levels: list[Level],
    config: DecodeConfig,
) -> tuple[Tensor, Tensor]:
    """Give each cell of the first level to one person, and say how surely, finer than the grid.

    Args:
        phi: (B, P, h, w) of each level.
        mask: (B, 1, h, w) probability of the person map of each level.
        level_weight: (B, P, L) of `level_weights`.
        levels: how the image was reduced; the first sets the grid.
        config: `upsample` (u) and `phi_threshold`.

    Returns:
        owner: (B, uh, uw) int32, each cell's person u x u times: 1 + index, 0 where nobody comes
            near.
        mask_probability: (B, uh, uw) in 0..1, interpolated between cells: the lesser of the
            person map and of phi raised to the power at which `phi_threshold` becomes 0.5. Cut
            at 0.5 it is the paper's rule.
    """
    grid = (phi[0].shape[2], phi[0].shape[3])
    parts = [
        _to_grid(near * level_weight[..., i, None, None], level, grid)
        for i, (near, level) in enumerate(zip(phi, levels, strict=True))
    ]
    mixed = sum(parts[1:], parts[0])
    # Not max(1): exported, that is two passes over all of it.
    index = mixed.argmax(1, keepdim=True)
    best = mixed.gather(1, index)
    # The person map of each cell is mixed as its owner's phi is.
    maps = [_to_grid(m, level, grid) for m, level in zip(mask, levels, strict=True)]
    person = maps[0]
    for i, other in enumerate(maps[1:], 1):
        part = level_weight[..., i].gather(1, index.flatten(1)).reshape(index.shape)
        person = person + part * (other - maps[0])
    owner = ((index + 1) * (best > NOBODY)).float()  # only floats are interpolated
    owner = F.interpolate(owner, scale_factor=float(config.upsample), mode="nearest")
    owner = owner.to(torch.int32)

    best = _upsample(best, config.upsample).clamp(1e-6, 1.0)
    power = math.log(0.5) / math.log(config.phi_threshold)
    # The power at the default threshold of 1/4; runtimes have no fast general one.
    near = best.sqrt() if power == 0.5 else best**power
    probability = torch.minimum(_upsample(person, config.upsample), near)
    return owner[:, 0], (probability * (owner > 0))[:, 0]


def _to_grid(maps: Tensor, level: Level, grid: tuple[int, int]) -> Tensor:
    """Bring (B, C, h, w) of a level to the grid of the first: what is over is cut.

    What a level of no whole factor lacks is repeated from its border.
    """
    maps = _upsample(maps, level.factor)[..., : grid[0], : grid[1]]
    if not isinstance(level.factor, int):
        lack = (grid[0] - maps.shape[2], grid[1] - maps.shape[3])
        maps = F.pad(maps, (0, lack[1], 0, lack[0]), mode="replicate")
    return maps


def _upsample(maps: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return maps
    return F.interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)
