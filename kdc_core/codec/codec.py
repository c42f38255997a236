"""Codec: how people are represented as maps. `encode.py` and `decode.py` are its two sides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.skeleton import SKELETONS, Edges, Skeleton
from kdc_core.config import Config, DecodeConfig

Heat = Literal["disk", "gaussian"]


@dataclass(frozen=True)
class Codec:
    """What `encode` and `decode` need to know of a model's maps.

    Attributes:
        skeleton: keypoints; the body center is one more type.
        grid: where the cells of the maps lie.
        edge_sets: names of the sets of directed edges (`Skeleton.edges`) that mid-range offsets
            follow.
        disk_radius_px: R of the keypoint disks.
        settings: of decode.
        mask_fineness: how many cells of the person map lie side by side in one of the grid.
        heat: form of the heatmaps that training aims at: `disk` (the paper's) is 1 within R of a
            keypoint; `gaussian` falls off around it, the wider the larger the person.

    Example:
        >>> codec = Codec.of(load_preset("oracle"))
        >>> targets, weights, instances = encode(sample, codec)
        >>> people = decode([as_logits(targets)], codec)
    """

    skeleton: Skeleton
    grid: Grid
    edge_sets: tuple[str, ...]
    disk_radius_px: float
    settings: DecodeConfig
    mask_fineness: int = 1
    heat: Heat = "disk"

    @classmethod
    def of(cls, config: Config) -> Codec:
        """The codec of a model's configuration."""
        fields = config.fields
        return cls(
            SKELETONS[fields.skeleton],
            Grid(fields.stride, fields.grid_offset),
            tuple(fields.edges),
            fields.disk_radius_px,
            config.decode,
            config.network.mask_fineness,
            config.train.heat,
        )

    @cached_property
    def edges(self) -> Edges:
        """Directed edges in the order of the mid-range channels."""
        return self.skeleton.edges(self.edge_sets)

    @property
    def mask_grid(self) -> Grid:
        """Where the cells of a decoded image's owners and mask probabilities lie."""
        return self.grid.finer(self.settings.upsample)

    @property
    def levels(self) -> list[Level]:
        """How the pyramid reduces the image, the finest first."""
        return [Level.of(self.grid, factor) for factor in self.settings.pyramid]
