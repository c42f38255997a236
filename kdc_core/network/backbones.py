"""What each backbone gives and asks for, in one table; reading it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kdc_core.codec.grid import SideRule
from kdc_core.codec.skeleton import COCO17, SKELETONS
from kdc_core.config import Config, ConfigError


@dataclass(frozen=True)
class Backbone:
    """One PoseNet.

    Attributes:
        stride: pixels between two cells of its maps.
        grid_offset: pixel of the first cell.
        sides: of its input. Where the trunk halves its input k times, they are multiples of 2^k,
            with a rest of 0 where there is a pyramid.
        edges: sets of edges its published heads have, for COCO17; None where heads are learnt.
        pyramid: whether its input may be reduced by whole factors.
        detail: whether its trunk has a map of half the stride for SegNet.
    """

    stride: int
    grid_offset: float
    sides: SideRule
    edges: tuple[str, ...] | None
    pyramid: bool
    detail: bool


# MoveNet halves its input five times; the dilated ResNet works on the paper's lattice, 8 n + 1.
_MOVENET = Backbone(4, 0.0, SideRule(32), ("star_out",), True, True)
_RESNET = Backbone(8, 0.0, SideRule(8, 1), None, False, False)
BACKBONES = {
    "movenet_multipose": _MOVENET,
    "movenet_thunder": _MOVENET,
    "resnet101": _RESNET,
    "resnet152": _RESNET,
}


def side_rule(config: Config) -> SideRule:
    """Sides of a program's frame, and of whatever its network sees."""
    return BACKBONES[config.network.backbone].sides


def check_structure(config: Config) -> None:
    """Raise ConfigError where the fields asked for are not those the backbone gives."""
    fields, name = config.fields, config.network.backbone
    backbone = BACKBONES[name]
    got, wanted = (fields.stride, fields.grid_offset), (backbone.stride, backbone.grid_offset)
    if got != wanted:
        raise ConfigError(
            f"backbone {name} gives maps of stride {wanted[0]} and offset {wanted[1]}: set "
            f"fields.stride and fields.grid_offset so, got {got[0]} and {got[1]}"
        )
    own = backbone.edges
    if own is not None and (fields.skeleton, tuple(fields.edges)) != (COCO17.name, own):
        raise ConfigError(
            f"backbone {name} knows the skeleton {COCO17.name} with edges {list(own)} only, got "
            f"{fields.skeleton} with {fields.edges}: a resnet learns any"
        )
    types = SKELETONS[fields.skeleton].num_types
    if config.decode.centroids > types:
        raise ConfigError(
            f"decode.centroids: {fields.skeleton} has {types} types, got {config.decode.centroids}"
        )
    if config.network.detail and not (backbone.detail and config.decode.upsample % 2 == 0):
        raise ConfigError(
            "network.detail: expected a MoveNet, whose trunk has a map of half the stride, and "
            f"decode.upsample 2 or 4, got {name} and {config.decode.upsample}"
        )
    pyramid = config.decode.pyramid
    if pyramid[:1] != [1] or pyramid != sorted(set(pyramid)):
        raise ConfigError(
            f"decode.pyramid: expected 1, and then coarser levels, each once, got {pyramid}"
        )
    if not backbone.pyramid and pyramid != [1]:
        raise ConfigError(
            f"backbone {name} works on the lattice {backbone.sides}, which no pyramid can halve: "
            f"expected decode.pyramid [1], got {config.decode.pyramid}"
        )
