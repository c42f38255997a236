"""How much of each cell a mask covers."""

from __future__ import annotations

import cv2
import numpy as np

from kdc_core.codec.grid import Grid


def coverage(mask: np.ndarray, grid: Grid, h: int, w: int) -> np.ndarray:
    """Fraction of each cell's square (of side stride, around its center) that a mask covers.

    Fractions, not samples: bilinear upsampling of them brings the mask's edge back to within a
    fraction of a cell.

    Args:
        mask: (H, W) bool.
        grid: lattice of h x w cells.

    Returns:
        (h, w) float32 in 0..1.
    """
    fractions = np.zeros((h, w), np.float32)
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return fractions
    stride, base = int(grid.stride), int(np.floor(grid.offset))
    if base < 0:  # the first cells lie outside: as there, so at the border
        padded = np.pad(mask, ((-base, 0), (-base, 0)), "edge")
        return coverage(padded, Grid(stride, grid.offset - base), h, w)
    kernel, first = coverage_kernel(grid)
    reach = base - first
    # Only around the mask: from the cell before it to the cell after it.
    column, row = (max(0, (first - base) // stride - 1) for first in (x, y))
    left, top = base + column * stride, base + row * stride
    from_x, from_y = max(0, left - reach), max(0, top - reach)
    window = mask[from_y : y + height + reach, from_x : x + width + reach]
    window = np.ascontiguousarray(window).view(np.uint8)
    border = cv2.BORDER_REPLICATE
    filtered = cv2.sepFilter2D(window, cv2.CV_32F, kernel, kernel, borderType=border)
    filtered = filtered[top - from_y :: stride, left - from_x :: stride]
    part = fractions[row : row + filtered.shape[0], column : column + filtered.shape[1]]
    part[:] = filtered[: part.shape[0], : part.shape[1]]
    return fractions


def coverage_kernel(grid: Grid) -> tuple[np.ndarray, int]:
    """The fraction of a cell, along one axis, that each pixel around it covers, and the pixel at
    which these fractions begin for the first cell."""
    stride, base = int(grid.stride), int(np.floor(grid.offset))
    reach = stride // 2 + 1
    pixel = np.arange(-reach, reach + 1) + base - grid.offset
    low = np.maximum(pixel - 0.5, -stride / 2)
    high = np.minimum(pixel + 0.5, stride / 2)
    return np.maximum(high - low, 0) / stride, base - reach
