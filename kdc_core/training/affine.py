"""Affines of a batch: places, boxes and lattices that they move, on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def lattice(crop: int, finer: int, device: torch.device) -> Tensor:
    """(n, n, 2) places x, y of the crop's pixels, or of finer x finer samples in each."""
    places = (torch.arange(crop * finer, device=device) + 0.5) / finer - 0.5
    y, x = torch.meshgrid(places, places, indexing="ij")
    return torch.stack((x, y), -1)


def transform(matrix: Tensor, places: Tensor) -> Tensor:
    """Move places (B, n, 2) by affines (B, 2, 3)."""
    return torch.einsum("bij,bnj->bni", matrix[..., :2], places) + matrix[:, None, :, 2]


def transform_lattice(matrix: Tensor, points: Tensor) -> Tensor:
    """(B, n, n, 2) places of a lattice (n, n, 2) moved by each affine (B, 2, 3)."""
    x, y = points[0, :, 0], points[:, 0, 1]
    along, down, shift = matrix[:, None, None].unbind(-1)
    return along * x[:, None] + (down * y[:, None, None] + shift)


def inverse(matrix: Tensor) -> Tensor:
    """The affines (B, 2, 3) that undo affines (B, 2, 3)."""
    turn = torch.linalg.inv(matrix[..., :2])
    return torch.cat((turn, -turn @ matrix[..., 2:]), -1)


def compose(second: Tensor, first: Tensor) -> Tensor:
    """The affine that does first, then second."""
    turn = second[..., :2] @ first[..., :2]
    return torch.cat((turn, second[..., :2] @ first[..., 2:] + second[..., 2:]), -1)


def ellipse_boxes(matrix: Tensor, boxes: Tensor) -> Tensor:
    """Boxes around the ellipses in boxes (B, n, 4), which affines (B, 2, 3) move; as
    `augment.moved_boxes`."""
    low, high = boxes.split(2, -1)
    center = transform(matrix, (low + high) / 2)
    half = torch.einsum(
        "bij,bnj->bni", matrix[..., :2].square(), ((high - low) / 2).square()
    ).sqrt()
    return torch.cat((center - half, center + half), -1)


def corner_boxes(matrix: Tensor, boxes: Tensor) -> Tensor:
    """Boxes around boxes (B, n, 4) that affines (B, 2, 3) moved."""
    corners = boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]].reshape(len(boxes), -1, 2)
    places = transform(matrix, corners).view(*boxes.shape[:-1], 4, 2)
    return torch.cat((places.amin(-2), places.amax(-2)), -1)


def is_outside(places: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """(...) bool, which places x, y (..., 2) lie outside an image."""
    x, y = places.unbind(-1)
    return (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
