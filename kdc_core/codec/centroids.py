"""MaskCentroid: which person each pixel belongs to (paper III-B and III-C)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F

from kdc_core.codec.codec import Codec
from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.grouping import Poses, person_size
from kdc_core.config import DecodeConfig

# Phi of all people and centroids is made piece by piece: of 16,000 cells at once it is larger than
# a processor's cache.
PIECES = 16
# Where no phi is above it, nobody is near.
NOBODY = 1e-3
# Far away, exp would give denormal numbers, for each of which processors take many times as long.
LEAST_EXPONENT = -60.0
# Weight of the body center where no keypoint is confident enough to be a centroid.
FALLBACK = 1e-4


@dataclass
class Centroids:
    """K' centroids of each of P people.

    Attributes:
        types: (B, P, K') of keypoints, the body center last.
        position: (B, 2, P, K') pixels of the image.
        weight: (B, P, K') in 0..1.
    """

    types: Tensor
    position: Tensor
    weight: Tensor


def choose_centroids(poses: Poses, config: DecodeConfig) -> Centroids:
    """Choose each person's centroids; every choice is one set of weights over the types.

    static: the body center (SM_c). dynamic: the single most confident keypoint (DM_c).
    dynamic_multi: the K' best of the keypoints, by their scores, and of the body center, by
    `center_weight` times its own. personlab: every visible keypoint alike.

    The weights of each person sum to 1.
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
        least = FALLBACK + config.center_weight * score
        weight, count = keypoints + least * center, config.centroids
    else:
        assert config.centroid == "personlab", config.centroid
        weight = (keypoints > config.visible).to(score.dtype) + FALLBACK * center
        count = score.shape[-1]
    weight, types = weight.topk(count)
    position = poses.position.gather(3, types[:, None].expand(-1, 2, -1, -1))
    return Centroids(types, position, weight / weight.sum(-1, keepdim=True))


def pixel_affinity(
    embedding: Tensor, poses: Poses, centroids: Centroids, level: Level, codec: Codec
) -> Tensor:
    """Phi: how much each pixel is each person's.

    phi_j(x) = sum_k w_jk exp(-|e_k(x) - c_jk|^2 / (2 sigma_j^2)), with e_k(x) the place where
    pixel x expects keypoint k of its person, and sigma_j in proportion to the person's size. The
    exponents of all people and centroids are one matrix product.

    Args:
        embedding: (B, T, 2, h, w) pixels of the reduced image.
        poses: P people.
        centroids: of `choose_centroids`, the weights times any factor up to 1.
        level: how the image was reduced.
        codec: grid of the reduced image, and sigma.

    Returns:
        (B, P, h, w) in 0..1.
    """
    config, types, weight = codec.settings, centroids.types, centroids.weight
    num_types, _, height, width = embedding.shape[1:]
    pointed = _pointed_at(embedding, codec.grid)
    # As a matrix product: in OpenVINO a sum over an axis of two takes longer.
    flat = pointed.flatten(1, 2).flatten(2)
    pairs = torch.eye(num_types, device=types.device).repeat_interleave(2, 1)
    square = (pairs @ (flat * flat)).unflatten(2, (height, width))
    columns = torch.cat((pointed.flatten(1, 2), square, torch.ones_like(square[:, :1])), 1)

    # All in pixels of the reduced image, as the embedding is.
    at = level.from_image(centroids.position)
    sigma = (config.sigma_scale * person_size(poses.position)).clamp(min=config.sigma_min_px)
    sharp = (0.5 * (level.factor / sigma).square())[..., None]
    constant = torch.log(weight.clamp(min=1e-30)) - sharp * (at * at).sum(1)
    numbers, pair = torch.arange(num_types, device=at.device), torch.eye(2, device=at.device)
    toward = (2 * sharp[:, None] * at).permute(0, 2, 3, 1) @ pair.repeat(1, num_types)
    rows = torch.cat(
        (
            toward * (types[..., None] == numbers.repeat_interleave(2)),
            -sharp[..., None] * (types[..., None] == numbers),
            constant[..., None],
        ),
        -1,
    )
    rows = rows.flatten(1, 2)
    parts = [
        torch.exp((rows @ part).clamp(min=LEAST_EXPONENT)).unflatten(1, types.shape[1:]).sum(2)
        for part in _pieces(columns.flatten(2), round(PIECES / level.factor**2))
    ]
    return torch.cat(parts, -1).unflatten(2, (height, width))


def _pieces(columns: Tensor, count: int) -> tuple[Tensor, ...]:
    """Columns (B, n, m) in pieces of equal size, at most so many."""
    # Where m is free in an exported program, by what is known of it there.
    while count > 1 and not statically_known_true(columns.shape[-1] % count == 0):
        count //= 2
    return columns.unflatten(-1, (max(1, count), -1)).unbind(-2)


def mean_embedding(
    embedding: Tensor,
    phi: Tensor,
    person: Tensor,
    centroids: Centroids,
    level: Level,
    codec: Codec,
) -> Centroids:
    """Move each centroid to the mean place its person's pixels point at (paper equation 4).

    Args:
        embedding, centroids, level, codec: as for `pixel_affinity`.
        phi: (B, P, h, w) of `pixel_affinity`, with the centroids as they were.
        person: (B, 1, h, w) probability of the person map.

    Returns:
        Those of a person who has no pixel stay where they are.
    """
    best = phi.amax(1, keepdim=True)
    mine = (phi == best) & (best > codec.settings.phi_threshold) & (person > 0.5)
    pixels = mine.to(embedding.dtype).flatten(2)
    count = pixels.sum(-1)[:, None, :, None]
    sums = torch.einsum("bpn,btcn->bcpt", pixels, _pointed_at(embedding, codec.grid).flatten(3))
    types = centroids.types[:, None].expand(-1, 2, -1, -1)
    mean = level.to_image(sums.gather(3, types) / count.clamp(min=1))
    return replace(centroids, position=torch.where(count > 0, mean, centroids.position))


def _pointed_at(embedding: Tensor, grid: Grid) -> Tensor:
    """Where each pixel expects each type: (B, T, 2, h, w) pixels of the reduced image."""
    height, width = embedding.shape[-2:]
    x, y = (
        grid.to_pixel(torch.arange(n, device=embedding.device, dtype=embedding.dtype))
        for n in (width, height)
    )
    return embedding + torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)))


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


def assign_pixels(
    phi: list[Tensor],
    mask: list[Tensor],
    level_weight: Tensor,
    levels: list[Level],
    config: DecodeConfig,
) -> tuple[Tensor, Tensor]:
    """Give each cell of the first level to one person, and say how surely, finer than the grid.

    Args:
        phi: (B, P, h, w) of each level, times the level's weight.
        mask: (B, 1, n h, n w) probability of the person map of each level; n divides u.
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
    parts = [_to_grid(part, level, grid) for part, level in zip(phi, levels, strict=True)]
    # Flat: OpenVINO may lay out maps of four axes so that the choice takes several times as long.
    phi_sum = sum(parts[1:], parts[0]).flatten(2)
    # Not max(1): exported, that is two passes over all of it.
    index = phi_sum.argmax(1, keepdim=True)
    phi_best, index = (of.unflatten(2, grid) for of in (phi_sum.gather(1, index), index))
    fineness = mask[0].shape[-1] // grid[1]
    person_map = _mix_person_maps(mask, index, level_weight, levels, fineness)
    owner = ((index + 1) * (phi_best > NOBODY)).float()  # only floats are interpolated
    owner = _repeat(owner, config.upsample).squeeze(1)

    if fineness == 1:  # together: exported, interpolating two channels takes as long as one
        both = torch.cat((phi_best, person_map), 1)
        phi_best, person_map = _upsample(both, config.upsample).split(1, 1)
    else:
        phi_best = _upsample(phi_best, config.upsample)
        person_map = _upsample(person_map, config.upsample // fineness)
    power = math.log(0.5) / math.log(config.phi_threshold)
    phi_best = phi_best.squeeze(1).clamp(1e-6, 1.0)
    # The power at a threshold of 1/4; runtimes have no fast general one.
    phi_best = phi_best.sqrt() if power == 0.5 else phi_best**power
    probability = torch.minimum(person_map.squeeze(1), phi_best)
    return owner.to(torch.int32), probability * (owner > 0)


def _mix_person_maps(
    mask: list[Tensor], index: Tensor, level_weight: Tensor, levels: list[Level], fineness: int
) -> Tensor:
    """The person map of all levels, in each cell by the weights of the cell's person.

    Args:
        mask, level_weight, levels: as for `assign_pixels`.
        index: (B, 1, h, w) of each cell's person.
        fineness: n of the mask.

    Returns:
        (B, 1, n h, n w).
    """
    height, width = index.shape[2:]
    finer = (fineness * height, fineness * width)
    maps = [_to_grid(part, level, finer) for part, level in zip(mask, levels, strict=True)]
    person_map = maps[0]
    for i, other in enumerate(maps[1:], 1):
        weight = level_weight[..., i].gather(1, index.flatten(1)).reshape(index.shape)
        person_map = person_map + _repeat(weight, fineness) * (other - maps[0])
    return person_map


def _to_grid(maps: Tensor, level: Level, grid: tuple[int, int]) -> Tensor:
    """Bring (B, C, h, w) of a level to the grid of the first: what is over is cut.

    What a level of no whole factor lacks is repeated from its border.
    """
    if level.whole:
        factor = int(level.factor)
        for axis, side in zip((2, 3), grid, strict=True):  # before it grows
            maps = maps.narrow(axis, 0, (side + factor - 1) // factor)
        maps = _upsample(maps, factor)
        for axis, side in zip((2, 3), grid, strict=True):
            if not statically_known_true(maps.shape[axis] == side):
                maps = maps.narrow(axis, 0, side)
        return maps
    maps = _upsample(maps, level.factor)[..., : grid[0], : grid[1]]
    lack = (grid[0] - maps.shape[2], grid[1] - maps.shape[3])
    return F.pad(maps, (0, lack[1], 0, lack[0]), mode="replicate")


def _repeat(maps: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return maps
    return F.interpolate(maps, scale_factor=float(factor), mode="nearest")


def _upsample(maps: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return maps
    return F.interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)
