"""SegNet: person map and, per pixel, offsets to the keypoints of its person (paper III-B)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# What the names of the tower's tensors begin with in the state of a whole network.
TOWER = "segnet.tower."
# Scale of what a block that is put on a trained tower adds at first.
ADDED_SCALE = 0.1
# One unit of the embedding head is this many pixels: keeps its values near 1.
EMBEDDING_UNIT_PX = 32.0


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
        context: channels of PoseNet's own maps.
        types: T, keypoint types and the body center.
        width: channels of the FPN.
        tower: channels of the tower.
        depth: blocks of the tower.
    """

    def __init__(
        self, taps: tuple[int, ...], context: int, types: int, width: int, tower: int, depth: int
    ):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in taps)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in taps)
        self.context = nn.ModuleList((Block(width, width), Block(width, width)))
        self.smooth = nn.ModuleList(Block(width, width) for _ in taps[:-1])
        self.pose = nn.Conv2d(context, width, 1)
        channels = [width] + [tower] * depth
        self.tower = nn.ModuleList(
            Block(i, o) for i, o in zip(channels[:-1], channels[1:], strict=True)
        )
        self.mask = nn.Conv2d(tower, 1, 1)
        self.embedding = nn.Conv2d(tower, 2 * types, 1)

    def forward(self, taps: list[Tensor], context: Tensor) -> tuple[Tensor, Tensor]:
        """Return mask logits (B, 1, h, w) and embedding (B, T, 2, h, w) in pixels.

        Args:
            taps: the trunk's maps, fine to coarse.
            context: PoseNet's own maps at the finest.
        """
        levels = [
            norm(lateral(tap))
            for lateral, norm, tap in zip(self.lateral, self.norm, taps, strict=True)
        ]
        levels[0] = levels[0] + self.pose(context)
        y = levels[-1]
        for block in self.context:
            y = block(y)
        for level, smooth in zip(levels[-2::-1], list(self.smooth)[::-1], strict=True):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False) + level
            y = smooth(y)
        for block in self.tower:
            y = block(y)
        embedding = EMBEDDING_UNIT_PX * self.embedding(y)
        batch, channels, height, width = embedding.shape
        return self.mask(y), embedding.reshape(batch, channels // 2, 2, height, width)

    def fit_tower(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring the state of a whole network to the depth of this tower.

        Blocks beyond it are left out. Each whole block that the state lacks adds little to its
        input: were it nothing at all, its ReLU would keep it from learning.
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
        return fitted
