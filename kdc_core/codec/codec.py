"""Codec: the representation of people as maps, both ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from kdc_core.codec.encode import Heat, Instances, encode, encode_instances
from kdc_core.codec.fields import Fields
from kdc_core.codec.grid import Grid, Level
from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import SKELETONS, Edges, Skeleton
from kdc_core.config import Config, DecodeConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from kdc_core.codec.decode import People
    from kdc_core.codec.grouping import Poses


@dataclass(frozen=True)
class Codec:
    """Annotated people to Fields, and Fields to people.

    Attributes:
        skeleton: keypoints; the body center is one more type.
        grid: where the cells of the maps lie.
        edge_sets: names of the sets of directed edges (`Skeleton.edges`).
        disk_radius_px: R of the keypoint disks.
        settings: of decode.
        mask_fineness: how many cells of the person map lie side by side in one of the grid.
        heat: form of the heatmaps that training aims at.

    Example:
        >>> codec = Codec.of(load_preset("oracle"))
        >>> targets, weights = codec.encode(sample)
        >>> people = codec.decode([as_logits(targets)])
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
            2 if config.network.detail else 1,
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

    def encode(self, sample: Sample) -> tuple[Fields[np.ndarray], Fields[np.ndarray]]:
        """Draw targets and loss weights of one image: see `kdc_core.codec.encode.encode`."""
        return encode(
            sample,
            self.skeleton,
            self.grid,
            self.edges,
            self.disk_radius_px,
            self.mask_fineness,
            self.heat,
        )

    def encode_instances(self, sample: Sample) -> Instances[np.ndarray]:
        """List the largest persons for the instance loss."""
        return encode_instances(sample, self.skeleton, self.grid)

    def decode(
        self,
        fields: list[Fields[Tensor]],
        levels: list[Level] | None = None,
        poses: Poses | None = None,
    ) -> People:
        """Find the people of a batch of images: see `kdc_core.codec.decode.decode`. Needs torch.

        Args:
            fields: logits and offsets of the image at each level; torch tensors.
            levels: how the image was reduced for each; None = `levels` of the pyramid.
            poses: people whose keypoints are known; None finds them.
        """
        from kdc_core.codec.decode import decode

        return decode(
            fields,
            self.levels if levels is None else levels,
            self.skeleton,
            self.grid,
            self.edge_sets,
            self.settings,
            poses,
        )
