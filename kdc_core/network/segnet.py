"""SegNet: person map and, per pixel, offsets to the keypoints of its person (paper III-B)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What the names of the tower's tensors begin with in the state of a whole network.
TOWER = "segnet.tower."
# Scale of what a block that is put on a trained tower adds at first.
ADDED_SCALE = 0.1
# One unit of a head is this many pixels: keeps its values near 1.
EMBEDDING_UNIT_PX, SHORT_UNIT_PX, MID_UNIT_PX = 32.0, 8.0, 32.0
# Of person map, embedding, and what refines heat, short and mid.
HEAD_UNITS = (1.0, EMBEDDING_UNIT_PX, 1.0, SHORT_UNIT_PX, MID_UNIT_PX)


@dataclass
class SegMaps:
    """What SegNet gives over the grid of h x w cells.

    Attributes:
        mask: (B, 1, h, w) logits, or (B, 1, 2 h, 2 w) where it sees the trunk's finer map.
        embedding: (B, T, 2, h, w) pixels.
        refined: what is to be added to PoseNet's heat, short and mid; None = nothing.
    """

    mask: Tensor
    embedding: Tensor
    refined: tuple[Tensor, Tensor, Tensor] | None = None


class Block(nn.Module):
    """5x5 depthwise, 1x1, batch norm, ReLU, with the input added where channels agree.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 5, padding=2, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.pointwise(self.depthwise(x))))
        return x + y if self.residual else y


class SegNet(nn.Module):
    """FPN over the trunk's taps, then a tower at the finest; it also sees PoseNet's own maps.

    Args:
        taps: channels of the trunk's taps, fine to coarse, each of twice the stride before.
        own: channels of PoseNet's own maps.
        types: T, keypoint types and the body center.
        width: channels of the FPN.
        tower: channels of the tower.
        depth: blocks of the tower.
        detail: channels of the trunk's map of half the stride; 0 = it is not seen.
        edges: of the mid-range offsets, where PoseNet's maps are refined; 0 = they are not.
    """

    unit: Tensor

    def __init__(
        self,
        taps: tuple[int, ...],
        own: int,
        types: int,
        width: int,
        tower: int,
        depth: int,
        detail: int = 0,
        edges: int = 0,
    ):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in taps)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in taps)
        self.context = nn.ModuleList((Block(width, width), Block(width, width)))
        self.smooth = nn.ModuleList(Block(width, width) for _ in taps[:-1])
        self.pose = nn.Conv2d(own, width, 1)
        channels = [width] + [tower] * depth
        self.tower = nn.ModuleList(
            Block(i, o) for i, o in zip(channels[:-1], channels[1:], strict=True)
        )
        self.detail = nn.Conv2d(4 * detail, width, 1) if detail else None
        self.mask = nn.Conv2d(tower, 4 if detail else 1, 1)
        self.embedding = nn.Conv2d(tower, 2 * types, 1)
        refined = (types, 2 * types, 2 * edges) if edges else ()
        self.refine = nn.Conv2d(tower, sum(refined), 1) if edges else None
        self.parts = (self.mask.out_channels, self.embedding.out_channels, *refined)
        units = zip(HEAD_UNITS, self.parts, strict=False)
        unit = torch.cat([torch.full((channels,), unit) for unit, channels in units])
        self.register_buffer("unit", unit, persistent=False)
        if self.refine is not None:  # a trained PoseNet is refined from what it is
            for value in self.refine.parameters():
                nn.init.zeros_(value)

    def forward(self, taps: list[Tensor], own: Tensor, detail: Tensor | None = None) -> SegMaps:
        """Map what PoseNet saw to SegNet's maps.

        Args:
            taps: the trunk's maps, fine to coarse.
            own: PoseNet's own maps at the finest.
            detail: the trunk's map of half the stride.
        """
        levels = [
            norm(lateral(tap))
            for lateral, norm, tap in zip(self.lateral, self.norm, taps, strict=True)
        ]
        levels[0] = levels[0] + self.pose(own)
        if self.detail is not None and detail is not None:
            # Of each cell's 2 x 2 places the channels side by side, mixed: one strided
            # convolution, where runtimes would first move everything.
            weight = self.detail.weight.unflatten(1, (-1, 2, 2)).squeeze((-2, -1))
            levels[0] = levels[0] + F.conv2d(detail, weight, self.detail.bias, stride=2)
        y = levels[-1]
        for block in self.context:
            y = block(y)
        for level, smooth in zip(levels[-2::-1], list(self.smooth)[::-1], strict=True):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False) + level
            y = smooth(y)
        for block in self.tower:
            y = block(y)
        pairs = (y.shape[0], -1, 2, *y.shape[2:])
        mask, embedding, *refined = self._heads(y)
        if self.detail is not None:
            mask = F.pixel_shuffle(mask, 2)
        embedding = embedding.reshape(pairs)
        if not refined:
            return SegMaps(mask, embedding)
        heat, short, mid = refined
        return SegMaps(mask, embedding, (heat, short.reshape(pairs), mid.reshape(pairs)))

    def _heads(self, y: Tensor) -> tuple[Tensor, ...]:
        """Person map, embedding and what refines heat, short and mid; offsets in pixels.

        One convolution that reads the tower's map once; the units are in its weights.
        """
        heads = [self.mask, self.embedding]
        if self.refine is not None:
            heads.append(self.refine)
        weight = torch.cat([head.weight for head in heads]) * self.unit[:, None, None, None]
        bias = torch.cat([head.bias for head in heads if head.bias is not None]) * self.unit
        maps = F.conv2d(y, weight, bias).flatten(2).split(self.parts, 1)
        return tuple(part.unflatten(2, y.shape[2:]) for part in maps)

    def fit(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring the state of a whole network to the depth and the parts of this SegNet.

        Blocks beyond it are left out. Each whole block that the state lacks adds little to its
        input: were it nothing at all, its ReLU would keep it from learning. The finer map and
        the refinement that it lacks add nothing at first; a coarser person map is repeated.
        """
        known = {k.removeprefix(TOWER).split(".")[0] for k in state if k.startswith(TOWER)}
        depth = len(self.tower)
        fitted = {
            k: v
            for k, v in state.items()
            if not k.startswith(TOWER) or int(k.removeprefix(TOWER).split(".")[0]) < depth
        }
        for name, value in self.tower.state_dict().items():
            if name.split(".")[0] not in known:
                scale = ADDED_SCALE if name.endswith("norm.weight") else 1
                fitted[TOWER + name] = value * scale
        for part in ("detail", "refine"):
            if getattr(self, part) is None or f"segnet.{part}.weight" in state:
                continue
            for name, value in getattr(self, part).state_dict().items():
                fitted[f"segnet.{part}.{name}"] = torch.zeros_like(value)
            for name in ("segnet.mask.weight", "segnet.mask.bias") if part == "detail" else ():
                fitted[name] = state[name].repeat_interleave(4, 0)
        return fitted
