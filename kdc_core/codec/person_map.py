"""The person map: where its edges are."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def near_edge(person: Tensor, cells: int, known: Tensor | None = None) -> Tensor:
    """Which cells have cells of people and cells of nobody within a distance.

    Args:
        person: (B, 1, h, w) bool, whether a cell is of people.
        cells: the distance, in rows and columns.
        known: (B, 1, h, w) bool, of which cells that is known; None = of all. Where only one kind
            is known, as beside people without a mask, there is no edge.

    Returns:
        (B, 1, h, w) bool.
    """
    side = 2 * cells + 1
    kinds = (person, ~person) if known is None else (person & known, ~person & known)
    people, nobody = (F.max_pool2d(kind.float(), side, 1, cells) > 0 for kind in kinds)
    return people & nobody
