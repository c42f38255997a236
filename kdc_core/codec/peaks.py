"""Where keypoints are: score map, peaks of each type."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kdc_core.codec.grid import Grid, Level


@dataclass
class Peaks:
    """The N best peaks of every type, in descending order.

    Attributes:
        position: (B, T, N, 2) pixels, refined by the short-range offset.
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
    return torch.sigmoid(heat) * torch.exp(short.square().sum(2) * (-0.5 / tau_px**2))


def sample(maps: Tensor, channel: Tensor, position: Tensor, grid: Grid) -> Tensor:
    """Read maps at the cell nearest to each position; outside, at the border.

    Args:
        maps: (B, C, h, w).
        channel: (B, n) int64.
        position: (B, n, 2) pixels.
        grid: where the cells are.

    Returns:
        (B, n) values.
    """
    height, width = maps.shape[-2:]
    cell = torch.round(grid.to_cell(position))
    column = cell[..., 0].clamp(0, width - 1).long()
    row = cell[..., 1].clamp(0, height - 1).long()
    return maps.flatten(1).gather(1, (channel * height + row) * width + column)


def hop(offsets: Tensor, channel: Tensor, position: Tensor, grid: Grid) -> Tensor:
    """Go where the offset at each position points.

    An offset starts at its cell's own pixel, so the position is first moved there (by half a
    stride at most; positions outside the image stay outside).

    Args:
        offsets: (B, C, 2, h, w) pixels.
        channel: (B, n) int64.
        position: (B, n, 2) pixels.
        grid: where the cells are.

    Returns:
        (B, n, 2) pixels.
    """
    flat = offsets.flatten(1, 2)
    x = sample(flat, 2 * channel, position, grid)
    y = sample(flat, 2 * channel + 1, position, grid)
    to_cell = grid.to_pixel(torch.round(grid.to_cell(position))) - position
    return position + to_cell + torch.stack((x, y), -1)


def square_distance(a: Tensor, b: Tensor) -> Tensor:
    """Square of the distance of points (..., 2), which broadcast: (...) square pixels.

    x and y apart: exported, a difference over a last axis of two is slow.
    """
    return (a[..., 0] - b[..., 0]).square() + (a[..., 1] - b[..., 1]).square()


def strongest_peak(position: Tensor, peaks: Peaks, reach: Tensor) -> tuple[Tensor, Peaks]:
    """For each keypoint the peak of its type with the highest score * exp(-d^2 / (2 reach^2)).

    Args:
        position: (B, n, T, 2) pixels.
        peaks: N of each type.
        reach: (B, n, T) or (B, n, 1) pixels.

    Returns:
        That product (B, n, T), and the peaks themselves: positions (B, n, T, 2), scores (B, n, T).
    """
    square = square_distance(position[:, :, :, None], peaks.position[:, None])
    near = torch.exp(-0.5 * square / reach[..., None].square())
    pull, index = (peaks.score[:, None] * near).max(-1)
    people = position.shape[1]
    at = peaks.position[:, None].expand(-1, people, -1, -1, -1)
    at = at.gather(3, index[..., None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]
    score = peaks.score[:, None].expand(-1, people, -1, -1).gather(3, index[..., None])[..., 0]
    return pull, Peaks(at, score)


def find_peaks(score: Tensor, short: Tensor, grid: Grid, count: int, window: int) -> Peaks:
    """Find the local maxima of every type: non-maximum suppression by max-pooling.

    Args:
        score: (B, T, h, w) of `score_map`.
        short: (B, T, 2, h, w) pixels.
        grid: where the cells are.
        count: N.
        window: side of the neighborhood in cells, odd.
    """
    half = window // 2
    highest = F.max_pool2d(score, (1, window), 1, (0, half))
    highest = F.max_pool2d(highest, (window, 1), 1, (half, 0))
    best = score * (score == highest)
    value, index = best.flatten(2).topk(count)
    width = score.shape[-1]
    row = torch.div(index, width, rounding_mode="floor")
    cell = torch.stack((index - row * width, row), -1).to(score.dtype)
    offset = short.flatten(3).gather(3, index[:, :, None].expand(-1, -1, 2, -1))
    return Peaks(grid.to_pixel(cell) + offset.transpose(2, 3), value)
