"""Where keypoints are: score map, peaks of each type.

Positions have x and y in an axis of their own right after the batch, (B, 2, ...): exported,
operations over a last axis of two are slow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.codec.grid import Grid, Level

# Standard deviation, in units of tau, of the Gaussian that discounts votes for another place.
VOTE_REACH = 0.75
# Keeps the division finite where no cell votes.
LEAST_VOTE = 1e-12


@dataclass
class Peaks:
    """The N best peaks of every type, in descending order.

    Attributes:
        position: (B, 2, T, N) pixels, refined by the short-range offset.
        score: (B, T, N) 0..1; 0 where there are fewer than N peaks.
    """

    position: Tensor
    score: Tensor

    def in_image(self, level: Level) -> Peaks:
        """Peaks found in a reduced image, in pixels of the image itself."""
        return replace(self, position=level.to_image(self.position))


def score_map(heat: Tensor, short: Tensor, tau_px: float) -> Tensor:
    """Score each cell as a keypoint: in the disk, and its offset says that it is there.

    The elementwise counterpart of Hough voting (PersonLab): equal peaks, no scatter.

    Args:
        heat: (B, T, h, w) logits.
        short: (B, T, 2, h, w) pixels.
        tau_px: distance at which the score has fallen to exp(-1/2).

    Returns:
        (B, T, h, w) in 0..1.
    """
    return torch.sigmoid(heat) * torch.exp((short * short).sum(2) * (-0.5 / tau_px**2))


def read_nearest(maps: Tensor, channel: Tensor, position: Tensor, grid: Grid) -> Tensor:
    """Read maps at the cell nearest to each position; outside, at the border.

    Args:
        maps: (B, C, h, w).
        channel: int64, broadcasts to (B, n, m).
        position: (B, 2, n, m) pixels.
        grid: where the cells are.

    Returns:
        (B, n, m) values.
    """
    cells = maps.shape[-2] * maps.shape[-1]
    cell = torch.round(grid.to_cell(position))
    return _read(maps, channel * cells + _cell_index(cell, maps))


def hop(offsets: Tensor, channel: Tensor, position: Tensor, grid: Grid) -> Tensor:
    """Go where the offset at each position points.

    An offset starts at its cell's own pixel, so the position is first moved there (by half a
    stride at most; positions outside the image stay outside).

    Args:
        offsets: (B, C, 2, h, w) pixels.
        channel: int64 of three axes, broadcasts with the positions to (B, n, m).
        position: (B, 2, n, m) pixels.
        grid: where the cells are.

    Returns:
        (B, 2, n, m) pixels.
    """
    cell = torch.round(grid.to_cell(position))
    return grid.to_pixel(cell) + _read_pair(offsets, channel, _cell_index(cell, offsets))


def _cell_index(cell: Tensor, maps: Tensor) -> Tensor:
    """Index of each cell (B, 2, n, m), row after row; of the nearest one outside the map."""
    # As floats, which are exact up to 2^24 cells.
    height, width = (torch.scalar_tensor(n, device=cell.device) for n in maps.shape[-2:])
    last = torch.stack((width, height))[:, None, None] - 1
    step = torch.stack((torch.ones_like(width), width))[:, None, None]
    return (torch.minimum(cell.clamp(min=0), last) * step).sum(1).long()


def _read(maps: Tensor, flat_index: Tensor) -> Tensor:
    """Read each image's maps at indices (B, ...) into all its values, flattened."""
    return maps.flatten(1).gather(1, flat_index.flatten(1)).reshape(flat_index.shape)


def _read_pair(offsets: Tensor, channel: Tensor, cell_index: Tensor) -> Tensor:
    """x and y (B, 2, n, m) of offsets (B, C, 2, h, w) in the cells of these indices."""
    cells = offsets.shape[-2] * offsets.shape[-1]
    both = torch.arange(2, device=cell_index.device)[:, None, None]
    return _read(offsets, (2 * channel[:, None] + both) * cells + cell_index[:, None])


def square_distance(a: Tensor, b: Tensor) -> Tensor:
    """Square of the distance of points (B, 2, ...), which broadcast: (B, ...) square pixels."""
    x, y = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    return x * x + y * y


def strongest_peak(position: Tensor, peaks: Peaks, reach: Tensor) -> tuple[Tensor, Peaks]:
    """For each keypoint the peak of its type with the highest score * exp(-d^2 / (2 reach^2)).

    Args:
        position: (B, 2, n, T) pixels.
        peaks: N of each type.
        reach: (B, n, T) or (B, n, 1) pixels.

    Returns:
        That product (B, n, T), and the peaks themselves: positions (B, 2, n, T), scores (B, n, T).
    """
    types, count = peaks.score.shape[1:]
    square = square_distance(position[..., None], peaks.position[:, :, None])
    near = torch.exp(square * (-0.5 / (reach * reach))[..., None])
    pull, index = (peaks.score[:, None] * near).max(-1)
    flat_index = index + count * torch.arange(types, device=index.device)
    both = flat_index[:, None].expand(-1, 2, -1, -1)
    at = peaks.position.flatten(2).gather(2, both.flatten(2)).reshape(both.shape)
    return pull, Peaks(at, _read(peaks.score, flat_index))


def find_peaks(
    score: Tensor, short: Tensor, grid: Grid, count: int, window: int, tau_px: float
) -> Peaks:
    """Find the local maxima of every type: non-maximum suppression by max-pooling.

    The cells around a maximum vote on where the keypoint is (`_votes`), as in PersonLab's Hough
    voting, where all cells of a disk do.

    Args:
        score: (B, T, h, w) of `score_map`.
        short: (B, T, 2, h, w) pixels.
        grid: where the cells are.
        count: N.
        window: side of the neighborhood in cells, odd.
        tau_px: of `score_map`.
    """
    half = window // 2
    highest = F.max_pool2d(score, (1, window), 1, (0, half))
    highest = F.max_pool2d(highest, (window, 1), 1, (half, 0))
    best = score * (score == highest)
    value, cell_index = best.flatten(2).topk(count)
    width = score.shape[-1]
    as_float = cell_index.to(score.dtype)
    row = torch.floor(as_float / width)
    cell = torch.stack((as_float - row * width, row), 1)
    channel = torch.arange(score.shape[1], device=cell_index.device)[None, :, None]
    own = _read_pair(short, channel, cell_index)
    moved = _votes(score, short, channel, cell_index, own, grid, half, tau_px)
    return Peaks(grid.to_pixel(cell) + own + moved, value)


def _votes(
    score: Tensor,
    short: Tensor,
    channel: Tensor,
    cell_index: Tensor,
    own: Tensor,
    grid: Grid,
    half: int,
    tau_px: float,
) -> Tensor:
    """From where each peak's own cell points to the weighted mean of where the cells around it do.

    Errors of the votes partly cancel out. Each counts by the square of its score, and the less the
    farther it lies from the cell's own, for it may mean somebody else.

    Args:
        score, short, grid, tau_px: as for `find_peaks`.
        channel: (1, T, 1) types.
        cell_index: (B, T, N) of the peaks.
        own: (B, 2, T, N) pixels, their short-range offsets.
        half: how many cells to each side vote.

    Returns:
        (B, 2, T, N) pixels.
    """
    height, width = score.shape[-2:]
    side = torch.arange(-half, half + 1, device=cell_index.device)
    step = torch.stack((side.repeat(len(side)), side.repeat_interleave(len(side))))
    # Past the border this is another cell: what it says lies far away.
    near = (cell_index[..., None] + (step[0] + step[1] * width)).clamp(0, height * width - 1)

    def read(maps: Tensor, first: Tensor) -> Tensor:
        return _read(maps, near[:, None] + (first * (height * width))[..., None])

    both = torch.arange(2, device=cell_index.device)[:, None, None]
    apart = (grid.stride * step[:, None, None]).to(own.dtype) - own[..., None]
    apart = apart + read(short, 2 * channel[:, None] + both)
    square = (apart * apart).sum(1, keepdim=True)
    reach = -0.5 / (VOTE_REACH * tau_px) ** 2
    weight = read(score, channel[:, None]).square() * torch.exp(square * reach)
    return (weight * apart).sum(-1) / weight.sum(-1).clamp(min=LEAST_VOTE)
