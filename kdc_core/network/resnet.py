"""Dilated ResNet as PoseNet (paper III and IV: ResNet-101 and ResNet-152).

Structure: He et al. 2016, bottleneck blocks with the stride in the 3x3 convolution, as
torchvision's and timm's ImageNet weights have it; names of parameters as there. The last two
stages trade their strides for dilation, which leaves maps of stride 8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdc_core.network.pose import PoseMaps

BLOCKS = {"resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)
STRIDES, DILATIONS = (1, 2, 1, 1), (1, 1, 2, 4)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet, RGB 0..255
REDUCED = 128  # channels SegNet sees of the last stage
OFFSET_UNIT_PX = 32.0  # one unit of an offset head


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with batch norm; the first 3x3 of a stage may stride or dilate.

    Args:
        inputs: channels.
        width: channels of the 3x3; four times as many leave the block.
        stride, dilation: of the 3x3.
    """

    def __init__(self, inputs: int, width: int, stride: int, dilation: int):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class DilatedResNet(nn.Module):
    """Trunk of stride 8 and one 1x1 convolution per field.

    Args:
        name: `resnet101` or `resnet152`.
        types: T, keypoint types and the body center.
        edges: E, directed edges.

    Attributes:
        tap_channels, own_channels, detail_channels: as `pose.py` says.
    """

    def __init__(self, name: str, types: int, edges: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for index, count in enumerate(BLOCKS[name]):
            blocks = []
            for place in range(count):
                stride = STRIDES[index] if place == 0 else 1
                blocks.append(Bottleneck(channels, WIDTHS[index], stride, DILATIONS[index]))
                channels = 4 * WIDTHS[index]
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        self.heat = nn.Conv2d(channels, types, 1)
        self.short = nn.Conv2d(channels, 2 * types, 1)
        self.mid = nn.Conv2d(channels, 2 * edges, 1)
        self.reduce = nn.Conv2d(channels, REDUCED, 1)
        self.tap_channels, self.own_channels = (channels,), REDUCED + types
        self.detail_channels = 0

    def forward(self, image: Tensor) -> PoseMaps:
        """Map images (B, 3, H, W) RGB 0..255 with sides 8 n + 1 to the maps of PoseNet."""
        mean, std = (torch.tensor(v, device=image.device)[:, None, None] for v in (MEAN, STD))
        x = F.relu(self.bn1(self.conv1((image - mean) / std)))
        x = F.max_pool2d(x, 3, 2, 1)
        for index in range(4):
            x = getattr(self, f"layer{index + 1}")(x)
        heat = self.heat(x)
        pairs = (x.shape[0], -1, 2, *x.shape[2:])
        short = OFFSET_UNIT_PX * self.short(x).reshape(pairs)
        mid = OFFSET_UNIT_PX * self.mid(x).reshape(pairs)
        return PoseMaps(heat, short, mid, [x], torch.cat((self.reduce(x), heat), 1))

    def from_published(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fit ImageNet weights with torchvision's or timm's names to the trunk.

        Args:
            weights: tensors of a classifier; its `fc` is dropped.

        Returns:
            Complete state of this module; ImageNet does not know the heads, which stay.

        Raises:
            ValueError: tensors of the trunk are missing or of another shape.
        """
        state = dict(self.state_dict())
        own = ("heat.", "short.", "mid.", "reduce.")
        wrong = [
            key
            for key, value in state.items()
            if not key.startswith(own)
            and not key.endswith("num_batches_tracked")
            and (key not in weights or weights[key].shape != value.shape)
        ]
        if wrong:
            got = tuple(weights[wrong[0]].shape) if wrong[0] in weights else "none"
            raise ValueError(
                f"not ImageNet weights of this ResNet: {len(wrong)} tensors differ, first "
                f"'{wrong[0]}': expected shape {tuple(state[wrong[0]].shape)}, got {got}"
            )
        return state | {k: v.float() for k, v in weights.items() if k in state}
