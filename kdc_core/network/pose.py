"""What every PoseNet gives.

A PoseNet is a module from images (B, 3, H, W) RGB 0..255 to `PoseMaps` whose attributes
`tap_channels`, `own_channels` and `detail_channels` say how many channels `taps`, `own` and
`detail` have, and whose method `from_published` fits published weights to it.
"""

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
        own: (B, C, h, w) PoseNet's own maps, as SegNet sees them.
        detail: (B, D, 2 h, 2 w) the trunk's map of half the stride; None = the trunk has none.
    """

    heat: Tensor
    short: Tensor
    mid: Tensor
    taps: list[Tensor]
    own: Tensor
    detail: Tensor | None = None
