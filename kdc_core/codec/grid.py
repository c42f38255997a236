"""Coordinates: cells of a map to pixels of the network input, and those to image pixels.

x points right, y down, and the center of the top-left pixel is (0, 0) everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Numbers, numpy arrays and torch tensors alike.
Place = TypeVar("Place", float, np.ndarray, "Tensor")


@dataclass(frozen=True)
class Grid:
    """A lattice of cells: cell (column i, row j) sits at pixel (offset + stride * i, ... * j).

    offset 0 is the lattice of the paper (sides n * stride + 1, corners aligned) and of MoveNet;
    (stride - 1) / 2 centers each cell on its own pixels (sides are multiples of the stride).
    """

    stride: float
    offset: float = 0.0

    def finer(self, factor: int) -> Grid:
        """The lattice with factor x factor cells in the place of each one of this."""
        return Grid(self.stride / factor, self.offset + self.stride * (0.5 / factor - 0.5))

    def to_pixel(self, cell: Place) -> Place:
        """Cell coordinates (array, tensor or number) to pixel coordinates."""
        return cell * self.stride + self.offset

    def to_cell(self, pixel: Place) -> Place:
        """Pixel coordinates to (fractional) cell coordinates."""
        return (pixel - self.offset) / self.stride

    def count(self, pixels: int) -> int:
        """Number of cells along a side of so many pixels."""
        return int(np.floor((pixels - 1 - self.offset) / self.stride)) + 1

    def cell_pixels(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixel x (width,) and y (height,) of the columns and rows of a map, float32."""
        x = self.to_pixel(np.arange(width, dtype=np.float32))
        y = self.to_pixel(np.arange(height, dtype=np.float32))
        return x, y


@dataclass(frozen=True)
class Level:
    """An image reduced by a factor: pixel x of it covers pixels of the image around
    factor * x + (factor - 1) / 2 + shift.

    The shift is the one with which grids of all levels, upsampled to the same fineness, come to
    lie upon each other.

    Attributes:
        factor: pixels of the image per pixel of the reduced one.
        shift: pixels of the image.
        whole: whether the factor is a whole number, as in an exported program's pyramid.
    """

    factor: float
    shift: float
    whole: bool

    @classmethod
    def of(cls, grid: Grid, factor: int) -> Level:
        """The level of a whole factor; its shift is cut to whole pixels."""
        shift = int((factor - 1) * ((grid.stride - 1) / 2 - grid.offset))
        return cls(factor, shift, True)

    @classmethod
    def fractional(cls, grid: Grid, factor: float) -> Level:
        """The level of any factor, for images warped to it."""
        return cls(factor, (factor - 1) * ((grid.stride - 1) / 2 - grid.offset), False)

    @property
    def lattice(self) -> Grid:
        """Where in the image the pixels of the reduced image lie."""
        return Grid(self.factor, (self.factor - 1) / 2 + self.shift)

    def to_image(self, pixel: Place) -> Place:
        """Pixels of the reduced image to pixels of the image."""
        return self.lattice.to_pixel(pixel)

    def from_image(self, pixel: Place) -> Place:
        """Pixels of the image to pixels of the reduced image."""
        return self.lattice.to_cell(pixel)


class SideRule(NamedTuple):
    """The sides that a network's input may have: n * multiple + rest, n from 1.

    `SideRule(8, 1)` is the paper's lattice, `SideRule(32)` MoveNet's.
    """

    multiple: int
    rest: int = 0

    def __str__(self) -> str:
        return f"{self.multiple} n + {self.rest}" if self.rest else f"{self.multiple} n"

    def fits(self, side: int) -> bool:
        """Whether a side is one of them."""
        return side >= self.multiple + self.rest and (side - self.rest) % self.multiple == 0

    def round_up(self, side: int) -> int:
        """The side, or the next larger one that fits."""
        return max(side + (self.rest - side) % self.multiple, self.multiple + self.rest)


@dataclass(frozen=True)
class Letterbox:
    """An image scaled to fit a network input, at its top left; the rest is padding.

    Attributes:
        scale_x, scale_y: network pixels per image pixel.
        content: (height, width) of the scaled image in network pixels.
        size: (height, width) of the network input.
    """

    scale_x: float
    scale_y: float
    content: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def fit(cls, image: tuple[int, int], longer_side: int, sides: SideRule) -> Letterbox:
        """Scale an image of (height, width) to a longer side, padded to sides of the network.

        The aspect ratio is kept to the nearest pixel; `scale_x` and `scale_y` are the exact
        factors of the resize.
        """
        height, width = image
        scale = longer_side / max(height, width)
        content = (max(1, round(height * scale)), max(1, round(width * scale)))
        rows, columns = map(sides.round_up, content)
        return cls(content[1] / width, content[0] / height, content, (rows, columns))

    @classmethod
    def into(cls, image: tuple[int, int], size: tuple[int, int]) -> Letterbox:
        """Scale an image of (height, width) to fit a network input of (height, width)."""
        (height, width), (rows, columns) = image, size
        scale = min(rows / height, columns / width)
        content = (
            min(rows, max(1, round(height * scale))),
            min(columns, max(1, round(width * scale))),
        )
        return cls(content[1] / width, content[0] / height, content, size)

    def to_network(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) image pixels to network pixels."""
        scale = np.array([self.scale_x, self.scale_y], points.dtype)
        return (points + 0.5) * scale - 0.5

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) network pixels to image pixels."""
        scale = np.array([self.scale_x, self.scale_y], points.dtype)
        return (points + 0.5) / scale - 0.5

    def matrix(self, grid: Grid) -> np.ndarray:
        """(2, 3) float64: image pixels to cells of a lattice of the network input."""
        scale = np.array([self.scale_x, self.scale_y])
        return np.c_[np.diag(scale / grid.stride), grid.to_cell(self.to_network(np.zeros(2)))]
