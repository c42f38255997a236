"""Fields: the named maps that network, encode, losses and decode pass to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Encode makes numpy arrays, the network torch tensors.
Array = TypeVar("Array", bound="np.ndarray | Tensor")
Other = TypeVar("Other", bound="np.ndarray | Tensor")


@dataclass
class Fields(Generic[Array]):
    """Dense maps over a grid of h x w cells; torch tensors or numpy arrays alike.

    T = keypoint types and the body center (last), E = directed edges. Offsets are (x, y) in
    pixels of the network input (paper III-A and III-B).

    Attributes:
        heat: (B, T, h, w) heatmap logits.
        short: (B, T, 2, h, w) offset to the keypoint of that type whose disk covers the cell.
        mid: (B, E, 2, h, w) offset from the start type of an edge to its end type.
        mask: (B, 1, h, w) logits of the person map; or n times as fine, (B, 1, n h, n w), over
            `Grid.finer(n)`.
        embedding: (B, T, 2, h, w) offset from a person's pixel to each keypoint of that person.

    The targets have the same names and shapes (heat and mask are 0..1 there) and come with a
    second Fields of weights: where, and how much, a loss is taken. Weights of offsets have
    size 1 in the axis of (x, y).

    Raises:
        ValueError: maps of different sizes, or of another number of axes.
    """

    heat: Array
    short: Array
    mid: Array
    mask: Array
    embedding: Array

    def __post_init__(self) -> None:
        size, finer = tuple(self.heat.shape[-2:]), self.mask_fineness
        for name, value in self.items():
            rank = 4 if name in ("heat", "mask") else 5
            times = finer if name == "mask" else 1
            if value.ndim != rank or tuple(value.shape[-2:]) != (times * size[0], times * size[1]):
                raise ValueError(
                    f"field '{name}': expected {rank} axes ending in {size}, "
                    f"got shape {tuple(value.shape)}"
                )

    @property
    def mask_fineness(self) -> int:
        """How many cells of the person map lie side by side in one of the other maps."""
        return max(1, self.mask.shape[-1] // self.heat.shape[-1])

    def items(self) -> list[tuple[str, Array]]:
        """Names and maps, in order."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def map(self, function: Callable[[Array], Other]) -> Fields[Other]:
        """Apply a function to every map."""
        return Fields(*(function(value) for _, value in self.items()))
