"""What every PoseNet gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class PoseMaps:
    """Maps of PoseNet over its grid of h x w cells.

    Attributes:
        heat: (B, T, h, w) logits.
        short: (B, T, 2, h, w) pixels.
        mid: (B, E, 2, h, w) pixels.
        taps: the trunk's maps, fine to coarse; the first has h x w cells, each further one half as
            many rows and columns.
        context: (B, C, h, w) what SegNet sees of PoseNet's own maps.
        detail: (B, D, 2 h, 2 w) the trunk's map of half the stride; None = the trunk has none.
    """

    heat: Tensor
    short: Tensor
    mid: Tensor
    taps: list[Tensor]
    context: Tensor
    detail: Tensor | None = None
